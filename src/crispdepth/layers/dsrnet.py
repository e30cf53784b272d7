"""DSRNet: depth enlarged in stages that project back, with or without a picture's guidance; and cascades of it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from crispdepth.geometry import enlarge, local_range
from crispdepth.types import Depth, Size

HALO_LOW_PX = (
    12  # what lies farther away, in pixels of the low map, changes a result by 1e-5 of the range (tests: 1e-3)
)
TINY = 0.02  # of the low map's range: below this, contrast is noise or rounding; changes are counted in no less
SLACK = 0.25  # powers of 2: up to 1.19 times beyond a cascade's factor, bicubic does the rest


class Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut (as EDSR, Lim et al. 2017); (b, c, h, w) to the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        with torch.no_grad():
            self.second.weight.mul_(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(F.relu(self.first(x), inplace=True)).add_(x)


class Enlarged(NamedTuple):
    """What DSRNet tells: the ``depth`` (b, 1, H, W), normalised, the same as it was after each stage (``sides``, the
    last of which is ``depth``), and each stage's ``features`` (b, width, h, w), at the size before the last step."""

    depth: Depth
    sides: list[Depth]
    features: list[torch.Tensor]


class Stage(nn.Module):
    """Residual blocks on features (b, width, h, w), and from them changes (b, factor², h, w), one a new pixel."""

    def __init__(self, factor: int, blocks: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*(Residual(width) for _ in range(blocks)))
        self.leave = nn.Conv2d(width, factor**2, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        assert self.leave.bias is not None
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.body(x)
        return x, self.leave(x)


class DSRNet(nn.Module):
    """Depth ``factor`` times larger, in ``stages`` stages that each project back.

    Back-projection (Irani and Peleg 1991; in features, DBPN, Haris et al. 2018): what a stage made is taken down again
    (the mean of factor x factor pixels), and where this differs from the reading the next stage is told so. DBPN goes
    up and down with 64 channels; here all features stay at the low resolution and only depth itself goes up, as
    factor² channels. So a pixel of the result costs a tenth, and one sees as far as many blocks reach.

    Changes count in the local contrast (the range of 3x3 readings) and are added to the bicubic enlargement, which an
    untrained network therefore returns. The network also sees each reading as a share of that range: a small step is
    the same question as a large one. ``steps``: it is also told in which steps the values come.
    """

    def __init__(self, factor: int, stages: int, blocks: int, width: int, steps: bool = False) -> None:
        super().__init__()
        self.factor = factor
        self.enter = nn.Sequential(nn.Conv2d(4 + int(steps), width, 3, padding=1), nn.ReLU(inplace=True))
        self.stages = nn.ModuleList(Stage(factor, blocks, width) for _ in range(stages))
        self.back = nn.ModuleList(nn.Conv2d(factor**2 + 1, width, 3, padding=1, bias=False) for _ in range(stages - 1))

    def forward(
        self,
        x: Depth,
        seen: torch.Tensor,
        guide: list[torch.Tensor] | None = None,
        step: torch.Tensor | None = None,
    ) -> Enlarged:
        """``x`` (b, 1, h, w), normalised and without holes, and where it was measured (1, else 0).

        ``guide``: features (b, width, h, w) to be added before each stage, such as what ``crisp`` sees in a picture.
        ``step`` (b, 1, 1, 1), as ``x`` is: in which the true depth comes, 0 for a smooth one; asked for by ``steps``.
        """
        near, far = local_range(x, torch.ones_like(x, dtype=torch.bool), radius=1)
        contrast = far - near + TINY
        size = (x.shape[-2] * self.factor, x.shape[-1] * self.factor)
        plain, unit = enlarge(x, size), F.interpolate(contrast, size, mode="bilinear")
        known = [x, (x - near) / contrast - 0.5, contrast.log() / 4, seen, *([] if step is None else [step / contrast])]
        inner = self.enter(torch.cat(known, 1).contiguous(memory_format=torch.channels_last))
        changes = inner.new_zeros(len(x), self.factor**2, x.shape[-2], x.shape[-1])
        sides: list[Depth] = []
        features: list[torch.Tensor] = []
        for number, stage in enumerate(self.stages):
            if number:
                lost = (x - F.avg_pool2d(sides[-1], self.factor)) / contrast
                inner = inner + self.back[number - 1](torch.cat([changes, lost], 1))
            inner, more = stage(inner if guide is None else guide[number].add_(inner))
            changes = changes + more
            sides.append(plain + unit * F.pixel_shuffle(changes, self.factor))
            features.append(inner)
        return Enlarged(sides[-1], sides, features)


def cascade(low: Size, size: Size) -> tuple[int, ...]:
    """Factors of 2 and 4 whose product reaches from ``low`` to ``size``, the mean of both axes, or nearly (SLACK)."""
    octaves = math.log2(size[0] / low[0] * size[1] / low[1]) / 2
    power = max(0, math.ceil(octaves - SLACK))
    return (2,) * (power % 2) + (4,) * (power // 2)


def served(scale: float) -> tuple[float, float]:
    """The least and the largest enlargement that take the same cascade as ``scale``."""
    power = max(0, math.ceil(math.log2(scale) - SLACK))
    least = 0.0 if power == 0 else 2.0 ** (power - 1 + SLACK)
    return math.nextafter(least, math.inf), 2.0 ** (power + SLACK)
