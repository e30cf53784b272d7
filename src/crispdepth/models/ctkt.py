"""CTKT: depth super-resolution without a picture, learnt beside a network that sees one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import nn

from crispdepth.exportable import exporting
from crispdepth.geometry import enlarge, level_step, normalised, restored
from crispdepth.layers.dsrnet import HALO_LOW_PX, DSRNet, Enlarged, Residual, cascade, served
from crispdepth.models import saved
from crispdepth.types import Depth, Local, Mask, Model, Rgb, Size


@dataclass(frozen=True)
class CtktConfig:
    """``stages``: back-projections in each DSRNet; ``blocks``: residual blocks before each; ``width``: channels.

    ``levels``: it is told where the true depth is in whole levels, as a file of 8-bit disparity holds it."""

    stages: int = 3
    blocks: int = 4
    width: int = 48
    levels: bool = False


@dataclass(frozen=True)
class DENetConfig:
    """``widths``, ``blocks``: channels and residual blocks of each stage, at 1/4, 1/8, 1/16 … of the picture;
    ``common``: channels of what each stage hands on, at 1/4."""

    widths: tuple[int, ...] = (48, 96, 128)
    blocks: tuple[int, ...] = (2, 2, 3)
    common: int = 48


class Ctkt(Model):
    """Low-resolution depth of any size to depth of any size; it sees no colours.

    Cross-task knowledge transfer (Sun et al., Learning Scene Structure Guidance via Cross-Task Knowledge Transfer for
    Single Depth Super-Resolution, CVPR 2021, arXiv 2103.12955): DSRNet is trained beside DENet, which estimates depth
    from colours; each teaches the other where it is better (training/distilled.py), and DSRNet alone remains. The
    authors released no code: this follows the paper's idea and figure, and does not claim its numbers.

    A DSRNet for x2 and one for x4 are run one after the other: x8 is x2 then x4, x16 is x4 twice, x32 is x2 and then
    x4 twice; the result is resampled to the size asked for (bicubic). x2 comes first, where the map is small.
    Depth is normalised by the low map's own range; holes are filled smoothly, and a mask tells the network where.

    Maps whose truth is in whole levels (``geometry.level_step``) are a task of their own: the smooth surface behind the
    steps is wrong there by a quarter of a level. The network has learnt both, and is told by ``in_levels``.
    """

    inputs: ClassVar[tuple[str, ...]] = ("low",)
    wants_clean: ClassVar[bool] = True
    leaves_relief: ClassVar[bool] = True
    bytes_per_pixel: ClassVar[int] = 380  # at x2; at x4 and more less than half

    def __init__(self, config: CtktConfig = CtktConfig()) -> None:
        super().__init__()
        self.config = config
        self.told = False  # of levels
        self.x2, self.x4 = (DSRNet(f, config.stages, config.blocks, config.width, config.levels) for f in (2, 4))

    @property
    def in_levels(self) -> Ctkt | None:
        """The same network, told of levels where a map is in such; None for one that has learnt none."""
        if not self.config.levels:
            return None
        other = Ctkt(self.config).train(self.training)
        other.x2, other.x4, other.told = self.x2, self.x4, True
        return other

    def _step(self, low: Depth, valid: Mask) -> torch.Tensor:
        return level_step(low, valid) if self.told else low.new_zeros(len(low), 1, 1, 1)

    def forward(self, low: Depth, valid: Mask, size: Size) -> Depth:
        """``low`` (b, 1, h, w) and its mask to (b, 1, *size), in the unit of ``low``."""
        x, middle, span = normalised(low, valid)
        return restored(self.enlarged(x, valid, size, self._step(low, valid)).depth, valid, middle, span)

    def local(self, low: Depth, valid: Mask, rgb: Rgb | None) -> Local:
        """``forward``, once the low map's range is known and its holes are filled."""
        x, middle, span = normalised(low, valid)
        step = self._step(low, valid)

        def run(maps: tuple[torch.Tensor, ...], _: Rgb | None, size: Size) -> tuple[Depth, None]:
            return restored(self.enlarged(maps[0], maps[1], size, step).depth, valid, middle, span), None

        return Local((x, valid), run, HALO_LOW_PX)

    def enlarged(self, x: Depth, valid: Mask, size: Size, step: torch.Tensor) -> Enlarged:
        """``x`` (b, 1, h, w), normalised and filled, to ``size``; the rest is as the last DSRNet left it.

        ``step`` (b, 1, 1, 1): that of the true depth's levels, as a share of the range; 0 for a smooth one.
        """
        made = Enlarged(x, [], [])
        for factor in cascade((x.shape[-2], x.shape[-1]), size):
            seen = F.interpolate(valid.to(x.dtype), made.depth.shape[-2:])  # whole multiples: nearest
            told = step if self.config.levels else None
            made = (self.x2 if factor == 2 else self.x4)(made.depth, seen, step=told)
        if not exporting() and tuple(made.depth.shape[-2:]) == tuple(size):
            return made
        sides = [enlarge(side, size) for side in made.sides]
        return made._replace(depth=sides[-1] if sides else enlarge(made.depth, size), sides=sides)

    @staticmethod
    def served(scale: float) -> tuple[float, float]:
        """The enlargements that take the same cascade as ``scale``: an exported file holds one cascade."""
        return served(scale)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """The network saved at ``path``. Raises InputError when it is missing or not one of ours."""
        return saved.read(path, "Ctkt", lambda fields: cls(CtktConfig(**fields)))

    def save(self, path: Path) -> None:
        """Weights in half precision and the config, as safetensors."""
        saved.write(self, path, "ctkt", self.config)


class Estimated(NamedTuple):
    """What DENet says: ``depth`` (b, 1, H, W), 0..1, the same after each stage (``sides``, the last is ``depth``),
    and each stage's ``features`` (b, common, ⌈H/4⌉, ⌈W/4⌉)."""

    depth: Depth
    sides: list[Depth]
    features: list[torch.Tensor]


class DENet(nn.Module):
    """Depth from colours; needed in training only, and in no released file.

    The first stage works at a quarter of the picture's size, each next one at half of that; each adds what it sees,
    brought back to the first one's size, to what the stages before it saw, and 16 channels there are 4x4 pixels of
    depth. The last one also knows the average over the whole picture.

    What it can learn: its target is each patch's depth as a share of that patch's own range, nearest to farthest.
    Colours tell what lies before what and where one thing ends; how far, and what the range is, a patch hardly tells.
    Whether depth or disparity is asked for, no picture tells at all, so it is told (``inverse``). Nor do made-up
    scenes teach it about real ones. It is a teacher of edges, and a poor one elsewhere: validation logs how poor.
    """

    def __init__(self, config: DENetConfig = DENetConfig()) -> None:
        super().__init__()
        self.config = config
        before, grids = (4, *config.widths[:-1]), ((7, 4, 3), *((3, 2, 1) for _ in config.widths[1:]))
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, *grid), nn.ReLU(), *(Residual(b) for _ in range(count)))
            for a, b, count, grid in zip(before, config.widths, config.blocks, grids, strict=True)
        )
        self.whole = nn.Linear(config.widths[-1], config.widths[-1])
        self.hand = nn.ModuleList(nn.Conv2d(width, config.common, 1) for width in config.widths)
        self.leave = nn.ModuleList(nn.Conv2d(config.common, 16, 3, padding=1) for _ in config.widths)

    def forward(self, rgb: Rgb, inverse: torch.Tensor) -> Estimated:
        """``rgb`` (b, 3, H, W) and whether each image's depth counts disparity (b, 1, 1, 1), to an Estimated."""
        asked = (inverse.to(rgb.dtype) - 0.5).expand_as(rgb[:, :1])
        x = torch.cat([rgb - 0.5, asked], 1).contiguous(memory_format=torch.channels_last)
        sides: list[Depth] = []
        features: list[torch.Tensor] = []
        for number, (stage, hand, leave) in enumerate(zip(self.stages, self.hand, self.leave, strict=True)):
            x = stage(x)
            if number == len(self.stages) - 1:
                x = x + self.whole(x.mean(dim=(2, 3)))[:, :, None, None]
            handed = hand(x)
            if features:
                handed = features[-1] + F.interpolate(handed, features[0].shape[-2:], mode="bilinear")
            features.append(handed)
            side = 0.5 + F.pixel_shuffle(leave(F.relu(handed)), 4)
            sides.append(side[..., : rgb.shape[-2], : rgb.shape[-1]])
        return Estimated(sides[-1], sides, features)
