"""Crisp: our own guided network, one set of weights for every scale and sensor."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import nn

from crispdepth.exportable import exporting, ratio, resized
from crispdepth.geometry import enlarge, local_range, missing, normalised, restored
from crispdepth.models import saved
from crispdepth.types import Depth, Local, Mask, Model, Rgb, Size

OCTAVES = 6  # enlargements of 1, 2, 4 … 32
STRIDE = 16  # the coarsest level sees one pixel for 16 x 16 of the picture
FLAT = 0.001  # of the low map's range a pixel: slopes below this are none
HALO_LOW_PX = 8  # the rounds of consistency look so far
OFFSET = 0.1  # of the low map's range: the unit of changes that need no contrast
TINY = 0.02  # of the low map's range: below this, contrast is noise or rounding


@dataclass(frozen=True)
class CrispConfig:
    """``widths``: channels at 1/2, 1/4, 1/8, 1/16 of the picture; ``encoder``, ``decoder``: residual blocks at
    1/2, 1/4, 1/8 on the way down and up; ``middle``: at 1/16.

    ``context``: large-kernel blocks at 1/16. The others switch one idea off each, for ablations:
    ``phase``: the network is told the scale and where each pixel lies in its low pixel; ``gates``: channels are
    turned up or down by the scale; ``contrast``: changes are counted in the low map's local contrast; ``rounds``:
    corrections towards the measurement at the end; ``edges``: they may move edges instead of raising areas.
    ``kernel``, off, changes one: each pixel moves towards a mixture of its 3x3 low readings instead.
    """

    widths: tuple[int, int, int, int] = (32, 64, 96, 128)
    encoder: tuple[int, int, int] = (1, 1, 2)
    middle: int = 2
    decoder: tuple[int, int, int] = (1, 2, 2)
    context: int = 2
    phase: bool = True
    gates: bool = True
    contrast: bool = True
    rounds: int = 3
    edges: bool = True
    kernel: bool = False


TINY_CONFIG = CrispConfig(widths=(16, 32, 48, 64), encoder=(0, 1, 1), middle=1, decoder=(1, 1, 1), context=1)


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
            return x + self.second(inner)
        gate = (1 + octaves @ self.gate).view(1, -1, 1, 1)
        if exporting():  # convolutions of a graph want weights that no input changes
            return x + self.second(inner * gate)
        weight = self.second.weight * gate
        return x + F.conv2d(inner, weight, self.second.bias, padding=1)


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
        return x + self.narrow(F.relu(self.widen(self.look(x)), inplace=True))


class Crisp(Model):
    """RGB and a low-resolution depth map of any smaller size to sharp depth, and how far it may be off.

    1. **Normalise** by the low map's own range: x = (low - middle) / range, so k·low + c gives k·depth + c.
       Holes are filled smoothly first (``geometry.fill``); the network is told where.
    2. **Enlarge** x bicubically to the picture's size, and with it the smallest and largest of each 3x3 low
       readings, near and far. Their difference is the local *contrast*.
    3. **A U of plain convolutions** works at 1/2 to 1/16 of the picture: its input is the picture, x, and x as
       a share of near..far, all folded 2x2 into channels (pixel unshuffle, nothing lost), and at 1/2 resolution
       the contrast, the mask of readings, the scale, and the *phase*: where in its low pixel a pixel lies.
       Each level has residual blocks on the way down and up; the coarsest looks far with 7x7 kernels.
       Shortcuts between the two sides are sums. No layer works at full resolution. One set of weights serves
       all scales: each block's channels are turned up or down by the scale.
    4. **Five maps come out** (pixel shuffle): a, b, the shares w and e, the logarithm of the error.
       depth = x + contrast · a + b / 10. Counting in contrast keeps flat places flat whatever the picture shows,
       and makes "foreground or background?" the same question for a small step and a large one.
    5. **Consistency**, three rounds: what the shrunken depth lacks beside the low map, low - shrink(depth), is
       enlarged and added, w times, w in 0..2 at every pixel: so a measurement that is trusted comes back when
       the result is shrunk, and one that looks like noise is overruled. The share e of it goes where the depth
       is steep, in proportion to its slope: a low pixel on an edge reads too much because the edge lies a
       little off, so the edge is moved, and both its sides stay flat.

    Everything is convolution and resampling: any size, any scale, also a different one along each axis.
    """

    inputs: ClassVar[tuple[str, ...]] = ("low", "rgb")

    def __init__(self, config: CrispConfig = CrispConfig()) -> None:
        super().__init__()
        self.config = config
        w = config.widths
        folded = 4 * (3 + 1 + int(config.contrast))
        self.stem = nn.Conv2d(folded + 2 + (6 if config.phase else 0), w[0], 3, padding=1)
        pairs = list(itertools.pairwise(w))
        self.encoder = nn.ModuleList(_blocks(w[i], config.encoder[i], config.gates) for i in range(3))
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in pairs)
        self.middle = _blocks(w[3], config.middle, config.gates)
        self.context = nn.Sequential(*(Context(w[3]) for _ in range(config.context)))
        self.up = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in pairs)
        self.decoder = nn.ModuleList(_blocks(w[i], config.decoder[i], config.gates) for i in range(3))
        self.head = nn.Conv2d(w[0], 4 * (4 + int(config.edges) + 9 * int(config.kernel)), 3, padding=1)
        nn.init.zeros_(self.head.weight)
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    def forward(self, low: Depth, valid: Mask, rgb: Rgb) -> Depth:
        """``low`` (b, 1, h, w), its mask, ``rgb`` (b, 3, H, W) to depth (b, 1, H, W) in the unit of ``low``."""
        return self.estimate(low, valid, rgb)[0]

    def estimate(self, low: Depth, valid: Mask, rgb: Rgb) -> tuple[Depth, Depth]:
        """As ``forward``, and the error to expect at each pixel (mean absolute), both (b, 1, H, W), unit of ``low``."""
        work = self.local(low, valid, rgb)
        depth, error = work.run(work.low, rgb, (rgb.shape[-2], rgb.shape[-1]))
        assert error is not None
        return depth, error

    def local(self, low: Depth, valid: Mask, rgb: Rgb) -> Local:
        """``estimate``, once the low map's range is known and its holes are filled."""
        x, middle, span = normalised(low, valid)

        def run(maps: tuple[torch.Tensor, ...], colours: Rgb | None, size: Size) -> tuple[Depth, Depth]:
            assert colours is not None
            depth, error = self._normal(maps[0], maps[1], colours)
            return restored(depth, valid, middle, span), error * span

        return Local((x, valid), run, HALO_LOW_PX)

    def _normal(self, x: Depth, valid: Mask, rgb: Rgb) -> tuple[Depth, Depth]:
        """``estimate`` in units of the low map's range, from the filled map ``x`` around its middle."""
        size = (rgb.shape[-2], rgb.shape[-1])
        enlarged = enlarge(x, size)
        near, far = (_bilinear(bound, size) for bound in local_range(x, torch.ones_like(valid), radius=1))
        contrast = far - near
        features = self._features(rgb, enlarged, near, contrast, valid)
        maps = self._unfolded(features, _octaves(x, size), size).to(x.dtype)  # under autocast it comes in 16 bits
        a, b, share, error = maps[:, :4].split(1, dim=1)
        if self.config.kernel:
            a = a * (_mixture(x, maps[:, -9:], size) - enlarged)
        elif self.config.contrast:
            a = a * contrast
        depth = enlarged + a + OFFSET * b
        share, steep = 2 * torch.sigmoid(share), torch.sigmoid(maps[:, 4:5])
        for _ in range(self.config.rounds):
            lacking = share * enlarge(missing(depth, x, valid), size)
            if self.config.edges:
                lacking = torch.lerp(lacking, lacking * _steepness(depth, x), steep)
            depth = depth + lacking
        return depth, error.clamp(-6, 6).exp() * (contrast + TINY)

    def _features(self, rgb: Rgb, enlarged: Depth, near: Depth, contrast: Depth, valid: Mask) -> torch.Tensor:
        """Everything the U is told, at half resolution, padded to a multiple of STRIDE."""
        height, width = enlarged.shape[-2:]
        more = (0, -width % STRIDE, 0, -height % STRIDE)

        def padded(x: torch.Tensor) -> torch.Tensor:
            return F.pad(x, more, mode="replicate") if exporting() or any(more) else x

        full = [rgb - 0.5, enlarged]
        if self.config.contrast:
            full.append((enlarged - near) / (contrast + TINY) - 0.5)
        folded = F.pixel_unshuffle(padded(torch.cat(full, 1)), 2)
        half = (folded.shape[-2], folded.shape[-1])
        seen = _bilinear(valid.to(enlarged.dtype), half)  # the padding shifts it by less than a low pixel: a hint
        strength = F.avg_pool2d(padded(contrast), 2)
        parts = [folded, torch.log(strength + TINY) / 4 + 0.5, seen]
        if self.config.phase:
            parts.append(_phase(valid, (height, width), half))
        return torch.cat(parts, 1).contiguous(memory_format=torch.channels_last)

    def _unfolded(self, x: torch.Tensor, octaves: torch.Tensor, size: Size) -> torch.Tensor:
        """The U: features at half resolution to four maps (b, 4, *size)."""
        x = self.stem(x)
        kept = []
        for blocks, down in zip(self.encoder, self.down, strict=True):
            x = _through(blocks, x, octaves)
            kept.append(x)
            x = down(x)
        x = self.context(_through(self.middle, x, octaves))
        for level in (2, 1, 0):
            x = _through(self.decoder[level], kept[level] + self.up[level](x), octaves)
        return F.pixel_shuffle(self.head(x), 2)[..., : size[0], : size[1]]

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """The network saved at ``path``. Raises InputError when it is missing or not one of ours."""
        return saved.read(path, "Crisp", lambda fields: cls(CrispConfig(**fields)))

    def save(self, path: Path) -> None:
        """Weights in half precision and the config, as safetensors."""
        saved.write(self, path, "crisp", self.config)


def _blocks(width: int, count: int, gates: bool) -> nn.ModuleList:
    return nn.ModuleList(Block(width, gates) for _ in range(count))


def _through(blocks: nn.Module, x: torch.Tensor, octaves: torch.Tensor) -> torch.Tensor:
    for block in blocks.children():
        x = block(x, octaves)
    return x


def _octaves(low: Depth, size: Size) -> torch.Tensor:
    """The enlargement as weights of the two nearest powers of 2: (OCTAVES,), their sum is 1."""
    scale2 = ratio(size[0], low.shape[-2]) * ratio(size[1], low.shape[-1])
    power = (torch.log2(scale2) / 2).clamp(0, OCTAVES - 1).to(low)
    steps = torch.arange(OCTAVES, device=low.device, dtype=low.dtype)
    return torch.minimum(1 + steps - power, 1 + power - steps).clamp(min=0)  # OpenVINO folds abs() away


def _bilinear(x: torch.Tensor, size: Size) -> torch.Tensor:
    if exporting():
        return resized(x, size, "bilinear")
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def _steepness(depth: Depth, low: Depth) -> torch.Tensor:
    """The slope at each pixel of ``depth`` as a multiple of the mean slope in the low pixels around; 1 where flat."""
    down = F.pad((depth[..., 1:, :] - depth[..., :-1, :]).abs(), (0, 0, 1, 1))
    right = F.pad((depth[..., 1:] - depth[..., :-1]).abs(), (1, 1))
    slope = down[..., 1:, :] + down[..., :-1, :] + right[..., 1:] + right[..., :-1] + FLAT
    small = (low.shape[-2], low.shape[-1])
    mean = resized(slope, small, "area") if exporting() else F.interpolate(slope, small, mode="area")
    return slope / _bilinear(mean, (depth.shape[-2], depth.shape[-1]))


def _mixture(low: Depth, weights: torch.Tensor, size: Size) -> Depth:
    """Of the 3x3 low readings around each pixel, by the softmax of ``weights`` (b, 9, *size)."""
    around = F.unfold(F.pad(low, (1, 1, 1, 1), mode="replicate"), 3).view(low.shape[0], 9, *low.shape[-2:])
    around = F.interpolate(around, size, mode="nearest-exact")
    return (around * weights.softmax(dim=1)).sum(dim=1, keepdim=True)


def _phase(valid: Mask, size: Size, half: Size) -> torch.Tensor:
    """Sine and cosine of the place in the low pixel, along both axes, and both scales as powers of 4: (b, 6, *half)."""
    maps = []
    for axis in (0, 1):
        scale = ratio(size[axis], valid.shape[2 + axis]).to(valid.device)
        place = (torch.arange(half[axis], device=valid.device) * 2 + 1.0) / scale  # low pixels
        angle = (2 * torch.pi * place).view(-1, 1) if axis == 0 else 2 * torch.pi * place
        strength = torch.log2(scale) / 2 - 1
        maps += [angle.sin(), angle.cos(), strength.expand_as(angle)]
    return torch.stack([m.expand(half) for m in maps]).expand(valid.shape[0], -1, -1, -1)
