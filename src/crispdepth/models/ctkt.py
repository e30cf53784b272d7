"""CTKT: depth super-resolution without a picture, learnt beside a network that sees one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import nn

from crispdepth.geometry import enlarge, local_range, normalised, restored
from crispdepth.layers.blocks import BackProjection
from crispdepth.models import saved
from crispdepth.types import Depth, Local, Mask, Model, Rgb, Size

HALO_LOW_PX = 24  # how far the convolutions at low resolution look
TINY = 0.02  # of the low map's range: below this, contrast is noise or rounding
SLACK = 0.25  # powers of 2: up to 1.19 times beyond a cascade's factor, bicubic does the rest


@dataclass(frozen=True)
class CtktConfig:
    """``stages``: back-projection blocks in each DSRNet; ``entry``: residual blocks before them, at low resolution;
    ``low_width``, ``high_width``: channels at low and at high resolution."""

    stages: int = 3
    entry: int = 2
    low_width: int = 48
    high_width: int = 16


@dataclass(frozen=True)
class DENetConfig:
    """``widths``, ``blocks``: channels and residual blocks of each stage, at 1/2, 1/4, 1/8 … of the picture;
    ``common``: channels of what each stage hands on, at 1/2."""

    widths: tuple[int, ...] = (32, 64, 96)
    blocks: tuple[int, ...] = (1, 2, 3)
    common: int = 16


class Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut (as EDSR, Lim et al. 2017); (b, c, h, w) to the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        with torch.no_grad():
            self.second.weight.mul_(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(F.relu(self.first(x), inplace=True))


class Enlarged(NamedTuple):
    """What DSRNet tells, each map ``factor`` times larger than its input: the ``depth`` (b, 1, H, W), normalised; its
    start, the ``plain`` bicubic one; the local ``contrast`` its changes are counted in; each stage's features."""

    depth: Depth
    factor: int
    plain: Depth
    contrast: Depth
    stages: list[torch.Tensor]


class DSRNet(nn.Module):
    """Depth ``factor`` times larger, by back-projection blocks (DBPN, Haris et al. 2018) in ``config.stages`` stages.

    A stage takes the high-resolution features of the one before back down, adds them to the low-resolution ones,
    and goes up again. The last convolution sees all stages; its output, times the local contrast (the range of 3x3
    readings), is added to the bicubic enlargement, which an untrained network therefore returns. The network also
    sees each reading as a share of that range: so a small step is the same question as a large one, and flat places
    stay flat.
    """

    def __init__(self, factor: int, config: CtktConfig) -> None:
        super().__init__()
        inner, outer = config.low_width, config.high_width
        self.factor = factor
        self.enter = nn.Sequential(
            nn.Conv2d(3, inner, 3, padding=1), nn.PReLU(inner), *(Residual(inner) for _ in range(config.entry))
        )
        self.up = nn.ModuleList(BackProjection(inner, outer, factor, up=True) for _ in range(config.stages))
        self.down = nn.ModuleList(BackProjection(outer, inner, factor, up=False) for _ in range(config.stages - 1))
        self.leave = nn.Conv2d(config.stages * outer, 1, 3, padding=1)
        for block in (*self.up, *self.down):
            block.apply(_evened)
        nn.init.zeros_(self.leave.weight)
        assert self.leave.bias is not None
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Depth, seen: torch.Tensor) -> Enlarged:
        """``x`` (b, 1, h, w), normalised and without holes, and where it was measured (1, else 0)."""
        near, far = local_range(x, torch.ones_like(x, dtype=torch.bool), radius=1)
        shares = (x - near) / (far - near + TINY) - 0.5
        inner = self.enter(torch.cat([x, shares, seen], 1).contiguous(memory_format=torch.channels_last))
        stages = [self.up[0](inner)]
        for down, up in zip(self.down, list(self.up)[1:], strict=True):
            inner = inner + down(stages[-1])
            stages.append(up(inner))
        size = (x.shape[-2] * self.factor, x.shape[-1] * self.factor)
        plain, contrast = enlarge(x, size), F.interpolate(far - near, size, mode="bilinear")
        depth = plain + contrast * self.leave(torch.cat(stages, 1))
        return Enlarged(depth, self.factor, plain, contrast, stages)


class Ctkt(Model):
    """Low-resolution depth of any size to depth of any size; it sees no colours.

    Cross-task knowledge transfer (Sun et al., Learning Scene Structure Guidance via Cross-Task Knowledge Transfer for
    Single Depth Super-Resolution, CVPR 2021, arXiv 2103.12955): DSRNet is trained beside DENet, which estimates depth
    from colours; each teaches the other where it is better (training/distilled.py), and DSRNet alone remains. The
    authors released no code: this follows the paper's idea and figure, and does not claim its numbers.

    A DSRNet for x2 and one for x4 are run one after the other: x8 is x2 then x4, x16 is x4 twice, x32 is x2 and then
    x4 twice; the result is resampled to the size asked for (bicubic). x2 comes first, where the map is small.
    Depth is normalised by the low map's own range; holes are filled smoothly, and a mask tells the network where.

    **Widths.** DBPN has 64 channels everywhere; at full resolution that takes seconds on a CPU, most of it moving
    memory. So the features are wide (48) where pixels are few and narrow (16) where they are many, with 3 stages; two
    residual blocks at the low resolution cost next to nothing.
    """

    inputs: ClassVar[tuple[str, ...]] = ("low",)
    bytes_per_pixel: ClassVar[int] = 720

    def __init__(self, config: CtktConfig = CtktConfig()) -> None:
        super().__init__()
        self.config = config
        self.x2, self.x4 = DSRNet(2, config), DSRNet(4, config)

    def forward(self, low: Depth, valid: Mask, size: Size) -> Depth:
        """``low`` (b, 1, h, w) and its mask to (b, 1, *size), in the unit of ``low``."""
        x, middle, span = normalised(low, valid)
        return restored(self.enlarged(x, valid, size).depth, valid, middle, span)

    def local(self, low: Depth, valid: Mask, rgb: Rgb | None) -> Local:
        """``forward``, once the low map's range is known and its holes are filled."""
        x, middle, span = normalised(low, valid)

        def run(maps: tuple[torch.Tensor, ...], _: Rgb | None, size: Size) -> tuple[Depth, None]:
            return restored(self.enlarged(maps[0], maps[1], size).depth, valid, middle, span), None

        return Local((x, valid), run, HALO_LOW_PX)

    def enlarged(self, x: Depth, valid: Mask, size: Size) -> Enlarged:
        """``x`` (b, 1, h, w), normalised and filled, to ``size``; the rest is as the last DSRNet left it."""
        made = Enlarged(x, 1, x, torch.zeros_like(x), [])
        for factor in cascade((x.shape[-2], x.shape[-1]), size):
            seen = F.interpolate(valid.to(x.dtype), made.depth.shape[-2:], mode="nearest-exact")
            made = (self.x2 if factor == 2 else self.x4)(made.depth, seen)
        return made if tuple(made.depth.shape[-2:]) == tuple(size) else made._replace(depth=enlarge(made.depth, size))

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """The network saved at ``path``. Raises InputError when it is missing or not one of ours."""
        return saved.read(path, "Ctkt", lambda fields: cls(CtktConfig(**fields)))

    def save(self, path: Path) -> None:
        """Weights in half precision and the config, as safetensors."""
        saved.write(self, path, "ctkt", self.config)


def cascade(low: Size, size: Size) -> tuple[int, ...]:
    """Factors of 2 and 4 whose product reaches from ``low`` to ``size``, the mean of both axes, or nearly (SLACK)."""
    octaves = math.log2(size[0] / low[0] * size[1] / low[1]) / 2
    power = max(0, math.ceil(octaves - SLACK))
    return (2,) * (power % 2) + (4,) * (power // 2)


class Estimated(NamedTuple):
    """What DENet says: ``depth`` (b, 1, H, W), 0..1, and each stage's features (b, common, ⌈H/2⌉, ⌈W/2⌉)."""

    depth: Depth
    stages: list[torch.Tensor]


class DENet(nn.Module):
    """Depth from colours; needed in training only, and in no released file.

    Stage i halves the resolution once more and adds what it sees, brought back to half the picture's size, to what
    the stages before it saw; the last one also knows the average over the whole picture.

    What it can learn: its target is each patch's depth as a share of that patch's own range, nearest to farthest.
    Colours tell what lies before what and where one thing ends; how far, and what the range is, a patch hardly tells.
    Whether depth or disparity is asked for, no picture tells at all, so it is told (``inverse``). Nor do made-up
    scenes teach it about real ones. It is a teacher of edges, and a poor one elsewhere: validation logs how poor.
    """

    def __init__(self, config: DENetConfig = DENetConfig()) -> None:
        super().__init__()
        self.config = config
        before = (4, *config.widths[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.ReLU(), *(Residual(b) for _ in range(count)))
            for a, b, count in zip(before, config.widths, config.blocks, strict=True)
        )
        self.whole = nn.Linear(config.widths[-1], config.widths[-1])
        self.hand = nn.ModuleList(nn.Conv2d(width, config.common, 1) for width in config.widths)
        self.leave = nn.Sequential(
            nn.Conv2d(config.common, config.common, 3, padding=1), nn.ReLU(), nn.Conv2d(config.common, 4, 3, padding=1)
        )

    def forward(self, rgb: Rgb, inverse: torch.Tensor) -> Estimated:
        """``rgb`` (b, 3, H, W) and whether each image's depth counts disparity (b, 1, 1, 1), to an Estimated."""
        asked = (inverse.to(rgb.dtype) - 0.5).expand_as(rgb[:, :1])
        x = torch.cat([rgb - 0.5, asked], 1).contiguous(memory_format=torch.channels_last)
        features: list[torch.Tensor] = []
        for number, (stage, hand) in enumerate(zip(self.stages, self.hand, strict=True)):
            x = stage(x)
            if number == len(self.stages) - 1:
                x = x + self.whole(x.mean(dim=(2, 3)))[:, :, None, None]
            handed = hand(x)
            if features:
                handed = features[-1] + F.interpolate(handed, features[0].shape[-2:], mode="bilinear")
            features.append(handed)
        depth = 0.5 + F.pixel_shuffle(self.leave(F.relu(features[-1])), 2)
        return Estimated(depth[..., : rgb.shape[-2], : rgb.shape[-1]], features)


def _evened(layer: nn.Module) -> None:
    """Start a convolution so that its output varies as its input does (LeCun et al. 1998).

    PyTorch's own start counts a transposed convolution's inputs wrongly, and each projection would come out weaker.
    """
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        transposed = isinstance(layer, nn.ConvTranspose2d)
        inputs = layer.in_channels * math.prod(layer.kernel_size) / (math.prod(layer.stride) if transposed else 1)
        nn.init.normal_(layer.weight, std=inputs**-0.5)
