"""Crisp: our own guided network, one set of weights for every scale and sensor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import nn

from crispdepth.exportable import exporting, ratio, resized
from crispdepth.geometry import enlarge, local_range, missing, normalised, restored
from crispdepth.layers.dsrnet import HALO_LOW_PX, DSRNet, Enlarged, cascade, served
from crispdepth.models import saved
from crispdepth.types import Depth, Local, Mask, Model, Rgb, Size

OCTAVES = 6  # enlargements of 1, 2, 4 … 32
FOLD = 2  # the finest level of the U sees one pixel for 2 x 2 of the picture
COARSEST = 16  # its coarsest level, one for 16 x 16
QUARTER = 4  # what has come up has one pixel for 4 x 4: as many as the last step of x4 begins with
FLAT = 0.001  # of the low map's range a pixel: slopes below this are none
TINY = 0.02  # of the low map's range: below this, contrast is noise or rounding
UNSEEN = 0.2  # of the low map's range: so much more contrast may be where nothing was measured


@dataclass(frozen=True)
class CrispConfig:
    """``stages``, ``blocks``, ``width``: of the DSRNets. Of the U, which sees the picture:
    ``widths``: channels at 1/2, 1/4, 1/8, 1/16; ``encoder``: residual blocks at 1/2, 1/4, 1/8 on the way down;
    ``middle``, ``context``: at 1/16, of small and of large kernels; ``decoder``: at 1/4 and 1/8 on the way up.

    The others switch one idea off each, for ablations: ``phase``: the U is told the scale and where each pixel lies in
    its low pixel; ``gates``: its channels are turned up or down by the scale; ``rounds``: corrections towards the
    measurement at the end; ``edges``: they may move edges instead of raising areas; ``colours``: the picture is seen;
    ``early``: it guides all steps of the DSRNets, not the last one alone.
    """

    stages: int = 3
    blocks: int = 4
    width: int = 48
    widths: tuple[int, int, int, int] = (32, 64, 96, 128)
    encoder: tuple[int, int, int] = (1, 1, 2)
    middle: int = 2
    context: int = 2
    decoder: tuple[int, int] = (1, 2)
    phase: bool = True
    gates: bool = True
    rounds: int = 1
    edges: bool = True
    colours: bool = True
    early: bool = True


TINY_CONFIG = CrispConfig(
    stages=2, blocks=1, width=32, widths=(16, 32, 48, 64), encoder=(0, 0, 1), middle=1, context=1, decoder=(0, 1)
)


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut, no normalisation (as EDSR, Lim et al. 2017); (b, c, h, w) to the same.

    ``octaves`` (OCTAVES,) says how much the depth is enlarged; each channel between the convolutions is turned up
    or down by it (as FiLM, Perez et al. 2018), folded into the second convolution's weights.
    """

    def __init__(self, width: int, gates: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.gate = nn.Parameter(torch.zeros(OCTAVES, width)) if gates else None
        with torch.no_grad():
            self.second.weight.mul_(0.1)

    def forward(self, x: torch.Tensor, octaves: torch.Tensor) -> torch.Tensor:
        inner = F.relu(self.first(x), inplace=True)
        if self.gate is None:
            return self.second(inner).add_(x)
        gate = (1 + octaves @ self.gate).view(1, -1, 1, 1)
        if exporting():  # convolutions of a graph want weights that no input changes
            return self.second(inner * gate).add_(x)
        weight = self.second.weight * gate
        return F.conv2d(inner, weight, self.second.bias, padding=1).add_(x)


class Context(nn.Module):
    """A 7x7 depthwise convolution and a two-layer perceptron per pixel (as ConvNeXt, Liu et al. 2022)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.look = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.widen = nn.Conv2d(width, 2 * width, 1)
        self.narrow = nn.Conv2d(2 * width, width, 1)
        with torch.no_grad():
            self.narrow.weight.mul_(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.narrow(F.relu(self.widen(self.look(x)), inplace=True)).add_(x)


class Made(NamedTuple):
    """``depth`` and ``error``, the error to expect at each pixel (mean absolute), both (b, 1, H, W), and the depth as
    it was after each stage of the last DSRNet (``sides``)."""

    depth: Depth
    error: Depth
    sides: list[Depth]


class Crisp(Model):
    """RGB and a low-resolution depth map of any smaller size to sharp depth, and how far it may be off.

    1. **Normalise** by the low map's own range: x = (low - middle) / range, so k·low + c gives k·depth + c.
       Holes are filled smoothly first (``geometry.fill``); the network is told where.
    2. **Enlarge** by DSRNets as ``ctkt`` does, x2 and x4 one after the other: stages of residual blocks at the size
       before each step, each told what the last one's depth lacks beside the reading (back-projection, Irani and
       Peleg 1991), changes counted in the local contrast, the range of 3x3 readings. So all scales share most of what
       is learnt, and flat places stay flat whatever the picture shows.
    3. **Guide** these steps by the picture: a U of plain convolutions at 1/2 to 1/16 of the result sees the picture,
       x, and x as a share of the local range, 2x2 pixels as channels of one (pixel unshuffle, nothing lost), the
       contrast, the mask of readings, the scale, and the *phase*: where in its low pixel a pixel lies. The coarsest
       looks far with 7x7 kernels; each block's channels are turned up or down by the scale. What comes up to 1/4 is
       added before each stage of the last step's DSRNet; what is at 1/8 and 1/16, before those of the steps whose
       readings lie so far apart, while the measured contrast is still at hand.
    4. **Resample** to the size asked for, where the steps do not end there.
    5. **Consistency**: what the shrunken depth still lacks, low - shrink(depth), is enlarged and added, w times, w in
       0..2 at every pixel: so a measurement that is trusted comes back when the result is shrunk, and one that looks
       like noise is overruled. The share e of it goes where the depth is steep, in proportion to its slope: a low
       pixel on an edge reads too much because the edge lies a little off, so the edge is moved, and both its sides
       stay flat. The last DSRNet's features say w, e and the logarithm of the error.

    Everything is convolution and resampling: any size, any scale, also a different one along each axis.
    """

    inputs: ClassVar[tuple[str, ...]] = ("low", "rgb")
    wants_clean: ClassVar[bool] = True
    leaves_relief: ClassVar[bool] = True
    bytes_per_pixel: ClassVar[int] = 720  # at x2; at x4 and more less than half

    def __init__(self, config: CrispConfig = CrispConfig()) -> None:
        super().__init__()
        self.config = config
        w = config.widths
        self.x2, self.x4 = (DSRNet(f, config.stages, config.blocks, config.width) for f in (2, 4))
        self.stem = nn.Conv2d(FOLD**2 * (3 * int(config.colours) + 2) + 2 + 6 * int(config.phase), w[0], 3, padding=1)
        self.encoder = nn.ModuleList(_blocks(w[i], config.encoder[i], config.gates) for i in range(3))
        self.down = nn.ModuleList(nn.Conv2d(w[i], w[i + 1], 2, stride=2) for i in range(3))
        self.middle = _blocks(w[3], config.middle, config.gates)
        self.context = nn.Sequential(*(Context(w[3]) for _ in range(config.context)))
        self.up = nn.ModuleList(nn.ConvTranspose2d(w[i + 1], w[i], 2, stride=2) for i in (1, 2))
        self.decoder = nn.ModuleList(_blocks(w[i + 1], config.decoder[i], config.gates) for i in (0, 1))
        self.guide = _guides(w[1], config)
        levels = {8: w[2], COARSEST: w[3]} if config.early else {}
        self.early = nn.ModuleDict({str(level): _guides(width, config) for level, width in levels.items()})
        self.say2, self.say4 = (_mute(nn.Conv2d(config.width, 3 * f**2, 3, padding=1)) for f in (2, 4))

    def forward(self, low: Depth, valid: Mask, rgb: Rgb) -> Depth:
        """``low`` (b, 1, h, w), its mask, ``rgb`` (b, 3, H, W) to depth (b, 1, H, W) in the unit of ``low``."""
        return self.staged(low, valid, rgb).depth

    def estimate(self, low: Depth, valid: Mask, rgb: Rgb) -> tuple[Depth, Depth]:
        """As ``forward``, and the error to expect at each pixel (mean absolute), both (b, 1, H, W), unit of ``low``; at
        most the range of its readings: inside a wide hole more would be a guess of a guess."""
        work = self.local(low, valid, rgb)
        return work.run(work.low, rgb, (rgb.shape[-2], rgb.shape[-1]))  # type: ignore[return-value]

    def staged(self, low: Depth, valid: Mask, rgb: Rgb) -> Made:
        """``forward``, the error as it is learnt, without an upper end, and the depth after each stage."""
        x, middle, span = normalised(low, valid)
        made = self.made(x, valid, rgb)
        depth, *sides = (restored(d, valid, middle, span) for d in (made.depth, *made.sides))
        return Made(depth, made.error * span, sides)

    def local(self, low: Depth, valid: Mask, rgb: Rgb) -> Local:
        """``estimate``, once the low map's range is known and its holes are filled."""
        x, middle, span = normalised(low, valid)

        def run(maps: tuple[torch.Tensor, ...], colours: Rgb | None, size: Size) -> tuple[Depth, Depth]:
            assert colours is not None
            made = self.made(maps[0], maps[1], colours)
            return restored(made.depth, valid, middle, span), made.error.clamp(max=1) * span

        return Local((x, valid), run, HALO_LOW_PX)

    @staticmethod
    def served(scale: float) -> tuple[float, float]:
        """The enlargements that take the same steps as ``scale``: an exported file holds one cascade."""
        least, most = served(max(scale, 2.0))  # below 2, one step of x2 is taken, too
        return (0.0 if most < 4 else least), most

    def made(self, x: Depth, valid: Mask, rgb: Rgb) -> Made:
        """``staged`` in units of the low map's range, from the filled map ``x`` around its middle."""
        size = (rgb.shape[-2], rgb.shape[-1])
        factors = cascade((x.shape[-2], x.shape[-1]), size) or (2,)
        total = math.prod(factors)
        whole = (x.shape[-2] * total, x.shape[-1] * total)
        near, far = local_range(x, torch.ones_like(valid), radius=1)
        near, contrast = _bilinear(torch.cat([near, far - near], 1), whole).split(1, dim=1)
        seen = _bilinear(valid.to(x.dtype), whole)
        unit = contrast + TINY + UNSEEN * (1 - seen)
        enlarged = enlarge(x, whole)
        share = (enlarged - near) / (contrast + TINY) - 0.5
        known = torch.cat([enlarged, share, contrast, seen], 1)
        last = self._enlarged(x, valid, factors, self._seen(known, _bilinear(rgb, whole), valid))
        said = (self.say2 if factors[-1] == 2 else self.say4)(last.features[-1])
        said = F.pixel_shuffle(said, factors[-1]).to(x.dtype)  # under autocast it comes in 16 bits
        *sides, depth = (_resized(side.to(x.dtype), size) for side in last.sides)
        trust, steep, error = _bilinear(said, size).split(1, dim=1)
        depth = self._consistent(depth, trust, steep, x, valid)
        return Made(depth, error.clamp(-6, 6).exp() * _bilinear(unit, size), sides)

    def _enlarged(self, x: Depth, valid: Mask, factors: tuple[int, ...], features: dict[int, torch.Tensor]) -> Enlarged:
        """The low map ``x`` after all steps, guided by the U's ``features``."""
        made = Enlarged(x, [], [])
        apart = math.prod(factors)  # the readings, in pixels of the result
        for number, factor in enumerate(factors):
            small = (made.depth.shape[-2], made.depth.shape[-1])
            guide = None
            if number == len(factors) - 1:
                fitted = features[QUARTER] if factor == QUARTER else _bilinear(features[QUARTER], small)
                guide = [add(fitted) for add in self.guide]
            elif self.config.early:
                level = min(apart, COARSEST)
                fitted = features[level] if level == apart else F.avg_pool2d(features[level], apart // level)
                guide = [add(fitted) for add in self.early[str(level)].children()]
            seen = F.interpolate(valid.to(x.dtype), small)  # whole multiples: nearest
            made = (self.x2 if factor == 2 else self.x4)(made.depth, seen, guide)
            apart //= factor
        return made

    def _consistent(self, depth: Depth, trust: Depth, steep: Depth, x: Depth, valid: Mask) -> Depth:
        """``depth`` with what it lacks beside the low map ``x`` added: step 5 of the class."""
        for _ in range(self.config.rounds):
            lacking = 2 * torch.sigmoid(trust) * enlarge(missing(depth, x, valid), (depth.shape[-2], depth.shape[-1]))
            if self.config.edges:
                lacking = torch.lerp(lacking, lacking * _steepness(depth, x), torch.sigmoid(steep))
            depth = depth + lacking
        return depth

    def _seen(self, known: torch.Tensor, rgb: Rgb, valid: Mask) -> dict[int, torch.Tensor]:
        """The U: what is ``known`` of the low map (b, 4, H, W), and the picture (b, 3, H, W), to features at 1/4, 1/8
        and 1/16, by 4, 8 and 16."""
        size = (known.shape[-2], known.shape[-1])
        octaves = _octaves(valid, size).to(known.dtype)
        known = _padded(known)
        full = [known[:, :2]] if not self.config.colours else [_padded(rgb - 0.5), known[:, :2]]
        strength, seen = F.avg_pool2d(known[:, 2:], FOLD).split(1, dim=1)
        coarse = [torch.log(strength + TINY) / 4 + 0.5, seen]
        if self.config.phase:
            coarse.append(_phase(valid, size, (seen.shape[-2], seen.shape[-1])))
        x = self._entered(torch.cat(full, 1), torch.cat(coarse, 1))
        kept = []
        for blocks, down in zip(self.encoder, self.down, strict=True):
            x = _through(blocks, x, octaves)
            kept.append(x)
            x = down(x)
        x = self.context(_through(self.middle, x, octaves))
        features = {COARSEST: x}
        for level in (1, 0):
            x = _through(self.decoder[level], kept[level + 1] + self.up[level](x), octaves)
            features[QUARTER * 2**level] = x
        return {n: f[..., : (size[0] + n - 1) // n, : (size[1] + n - 1) // n] for n, f in features.items()}

    def _entered(self, full: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        """The stem of ``full``'s 2x2 pixels as channels of one (pixel unshuffle), and of ``coarse``, which has one for
        them. A convolution with larger kernels and a stride says the same, and moves no pixel first."""
        if exporting():
            return self.stem(torch.cat([F.pixel_unshuffle(full, FOLD), coarse], 1))
        c, layout = full.shape[1], torch.channels_last  # of the weights: the result then has it, too
        fine, rest = self.stem.weight.tensor_split((c * FOLD**2,), dim=1)
        fine = fine.unflatten(1, (c, FOLD, FOLD)).permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)
        x = F.conv2d(full, fine.contiguous(memory_format=layout), self.stem.bias, stride=FOLD, padding=FOLD)
        return x.add_(F.conv2d(coarse, rest.contiguous(memory_format=layout), padding=1))

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """The network saved at ``path``. Raises InputError when it is missing or not one of ours."""
        return saved.read(
            path, "Crisp", lambda fields: cls(CrispConfig(**{"early": False, **fields}))
        )  # not in older files

    def save(self, path: Path) -> None:
        """Weights in half precision and the config, as safetensors."""
        saved.write(self, path, "crisp", self.config)


def _guides(width: int, config: CrispConfig) -> nn.ModuleList:
    """For each stage of a DSRNet, what is added of features (b, ``width``, h, w): nothing at first."""
    return nn.ModuleList(_mute(nn.Conv2d(width, config.width, 1)) for _ in range(config.stages))


def _mute(layer: nn.Conv2d) -> nn.Conv2d:
    for part in layer.parameters():
        nn.init.zeros_(part)
    return layer


def _blocks(width: int, count: int, gates: bool) -> nn.ModuleList:
    return nn.ModuleList(Block(width, gates) for _ in range(count))


def _through(blocks: nn.Module, x: torch.Tensor, octaves: torch.Tensor) -> torch.Tensor:
    for block in blocks.children():
        x = block(x, octaves)
    return x


def _octaves(low: Depth, size: Size) -> torch.Tensor:
    """The enlargement as weights of the two nearest powers of 2: (OCTAVES,), their sum is 1."""
    scale2 = ratio(size[0], low.shape[-2]) * ratio(size[1], low.shape[-1])
    power = (torch.log2(scale2) / 2).clamp(0, OCTAVES - 1).to(low.device)
    steps = torch.arange(OCTAVES, device=low.device, dtype=power.dtype)
    return torch.minimum(1 + steps - power, 1 + power - steps).clamp(min=0)  # OpenVINO folds abs() away


def _resized(depth: Depth, size: Size) -> Depth:
    """``depth`` at ``size``, bicubic; itself where it has that size."""
    return depth if not exporting() and tuple(depth.shape[-2:]) == tuple(size) else enlarge(depth, size)


def _bilinear(x: torch.Tensor, size: Size) -> torch.Tensor:
    if exporting():
        return resized(x, size, "bilinear")
    return x if tuple(x.shape[-2:]) == tuple(size) else F.interpolate(x, size, mode="bilinear", align_corners=False)


def _steepness(depth: Depth, low: Depth) -> torch.Tensor:
    """The slope at each pixel of ``depth`` as a multiple of the mean slope in the low pixels around; 1 where flat."""
    down = F.pad((depth[..., 1:, :] - depth[..., :-1, :]).abs(), (0, 0, 1, 1))
    right = F.pad((depth[..., 1:] - depth[..., :-1]).abs(), (1, 1))
    slope = down[..., 1:, :] + down[..., :-1, :] + right[..., 1:] + right[..., :-1] + FLAT
    small = (low.shape[-2], low.shape[-1])
    mean = resized(slope, small, "area") if exporting() else F.interpolate(slope, small, mode="area")
    return slope / _bilinear(mean, (depth.shape[-2], depth.shape[-1]))


def _padded(x: torch.Tensor) -> torch.Tensor:
    """``x`` to a multiple of COARSEST, to the right and below."""
    more = (0, -x.shape[-1] % COARSEST, 0, -x.shape[-2] % COARSEST)
    return F.pad(x, more, mode="replicate") if exporting() or any(more) else x


def _phase(valid: Mask, size: Size, grid: Size) -> torch.Tensor:
    """Sine and cosine of the place in the low pixel, along both axes, and both scales as powers of 4: (b, 6, *grid)."""
    maps = []
    for axis in (0, 1):
        scale = ratio(size[axis], valid.shape[2 + axis]).to(valid.device)
        place = (torch.arange(grid[axis], device=valid.device) + 0.5) * FOLD / scale  # low pixels
        angle = (2 * torch.pi * place).view(-1, 1) if axis == 0 else 2 * torch.pi * place
        strength = torch.log2(scale) / 2 - 1
        maps += [angle.sin(), angle.cos(), strength.expand_as(angle)]
    return torch.stack([m.expand(grid) for m in maps]).expand(valid.shape[0], -1, -1, -1)
