"""Bicubic, and three edge-aware filters made consistent with the measurement; no weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from crispdepth.geometry import enlarge, fill, local_range, missing, resize, resize_rgb
from crispdepth.types import Depth, Local, Mask, Model, Rgb, Size

HALO_LOW_PX = 16  # the smoothers reach a few low pixels, in several rounds
HOLE_SMOOTHNESS, HOLE_SIGMA = 900.0, 0.03  # a reach of about 30 low pixels where the colour does not change


class _Smoother(Protocol):
    """What OpenCV's smoothers are."""

    def filter(self, src: np.ndarray, /) -> np.ndarray: ...


class Bicubic(Model):
    """Keys' cubic interpolation (a = -0.5), holes filled smoothly first: the baseline of every benchmark."""

    inputs: ClassVar[tuple[str, ...]] = ("low",)

    def forward(self, low: Depth, valid: Mask, size: Size) -> Depth:
        """``low`` (b, 1, h, w) and its mask to (b, 1, *size), in the unit of ``low``."""
        return enlarge(fill(low, valid), size)

    def local(self, low: Depth, valid: Mask, rgb: Rgb | None) -> Local:
        """``forward``, once the holes are filled."""
        return Local((fill(low, valid),), lambda maps, _, size: (enlarge(maps[0], size), None), halo_low_px=4)


class GuidedFilter(Model):
    """What the three edge-aware filters share: spread the low map along the colours, then correct it.

    Holes are filled first, from the readings around them, along similar colours. Alone, these filters lose
    against bicubic on benchmark data: they smooth where the sensor already said what is there. So the result
    is made consistent with the measurement by iterative back-projection (Irani and Peleg 1991): what the
    low map says beyond the shrunken result is enlarged and added, first along the colours
    (``guided_rounds``), last plainly (``plain_rounds``). Since a sensor may have sampled single points
    instead of averaging, no pixel may leave the range of the readings around it.
    """

    inputs: ClassVar[tuple[str, ...]] = ("low", "rgb")

    def __init__(self, guided_rounds: int, plain_rounds: int) -> None:
        super().__init__()
        self.guided_rounds = guided_rounds
        self.plain_rounds = plain_rounds

    @abstractmethod
    def spread(self, low: Depth, rgb: Rgb) -> Depth:
        """One map (1, 1, h, w) without holes to the size of ``rgb``, carried along similar colours."""

    def forward(self, low: Depth, valid: Mask, rgb: Rgb) -> Depth:
        """``low`` (b, 1, h, w), its mask, ``rgb`` (b, 3, H, W) to depth (b, 1, H, W) in the unit of ``low``."""
        triples = zip(low.split(1), valid.split(1), rgb.split(1), strict=True)
        return torch.cat([self._one(*triple) for triple in triples])

    def _one(self, low: Depth, valid: Mask, rgb: Rgb) -> Depth:
        work = self.local(low, valid, rgb)
        return work.run(work.low, rgb, (rgb.shape[-2], rgb.shape[-1]))[0]

    def local(self, low: Depth, valid: Mask, rgb: Rgb) -> Local:
        """``forward`` of one map, once its holes are filled and the picture's brightness is known."""
        white = _white(rgb)
        colours = _brightened(resize_rgb(rgb, (low.shape[-2], low.shape[-1])), white)
        full = _filled_along(low, valid, colours) if bool(valid.any()) else torch.zeros_like(low)

        def run(maps: tuple[torch.Tensor, ...], part: Rgb | None, size: Size) -> tuple[Depth, None]:
            assert part is not None
            return self._spread_out(maps[0], maps[1], maps[2], _brightened(part, white)), None

        return Local((full, torch.where(valid, low, 0), valid), run, HALO_LOW_PX)

    def _spread_out(self, full: Depth, low: Depth, valid: Mask, rgb: Rgb) -> Depth:
        """The filled map spread along the colours, made consistent with ``low`` where it is ``valid``."""
        depth = self.spread(full, rgb)
        for _ in range(self.guided_rounds):
            depth = depth + self.spread(missing(depth, low, valid), rgb)
        for _ in range(self.plain_rounds):
            depth = depth + enlarge(missing(depth, low, valid), (rgb.shape[-2], rgb.shape[-1]))
        return _within_readings(depth, full)


def _white(rgb: Rgb) -> torch.Tensor:
    """The 99th percentile of the colours."""
    sample = rgb.flatten()[:: max(1, rgb.numel() // 100_000)]
    return torch.quantile(sample, 0.99).clamp(min=0.05)


def _brightened(rgb: Rgb, white: torch.Tensor) -> Rgb:
    """Colours brightened until ``white`` is white: edges weigh the same in a dark picture."""
    return (rgb / white).clamp(0, 1)


def _filled_along(low: Depth, valid: Mask, colours: Rgb) -> Depth:
    """Holes filled from the readings around them along similar colours; readings are kept.

    Readings and mask are smoothed alike and divided (normalised convolution), so holes have no say.
    """
    if bool(valid.all()):
        return low
    smooth = _global_smoother(colours, HOLE_SMOOTHNESS, HOLE_SIGMA)
    total, weight = smooth(torch.where(valid, low, 0)), smooth(valid.to(low.dtype))
    reached = weight > 1e-5  # farther away, float32 has no digits left
    return torch.where(valid, low, torch.where(reached, total / weight.clamp(min=1e-5), fill(low, valid)))


def _within_readings(depth: Depth, low: Depth) -> Depth:
    """Clamped to the range of the 3 x 3 low values around each pixel."""
    size = (depth.shape[-2], depth.shape[-1])
    everywhere = torch.ones_like(low, dtype=torch.bool)
    bounds = local_range(low, everywhere, radius=1)
    near, far = (resize(x, everywhere, size, "nearest")[0] for x in bounds)
    return torch.minimum(torch.maximum(depth, near), far)


@dataclass(frozen=True)
class JointBilateralConfig:
    """``sigma_low_px``: reach in low pixels; ``sigma_colour``: in units of RGB 0..1; tuned on scenes."""

    sigma_low_px: float = 0.35
    sigma_colour: float = 0.03
    guided_rounds: int = 1
    plain_rounds: int = 1


class JointBilateral(GuidedFilter):
    """Joint bilateral upsampling (Kopf et al. 2007, eq. 3): readings weighed by distance and colour."""

    radius = 2  # low pixels on each side

    def __init__(self, config: JointBilateralConfig = JointBilateralConfig()) -> None:
        super().__init__(config.guided_rounds, config.plain_rounds)
        self.config = config

    def spread(self, low: Depth, rgb: Rgb) -> Depth:
        """See GuidedFilter.spread."""
        size = (rgb.shape[-2], rgb.shape[-1])
        colours = resize_rgb(rgb, (low.shape[-2], low.shape[-1]))
        planes = torch.cat([low, torch.ones_like(low), colours], dim=1)
        planes = F.pad(planes, (self.radius,) * 4)  # outside the map the weight is 0
        rows, row_offsets = _nearest(low.shape[-2], size[0], low.device)
        columns, column_offsets = _nearest(low.shape[-1], size[1], low.device)
        total, weight = torch.zeros_like(rgb[:, :1]), torch.zeros_like(rgb[:, :1])
        for dy in range(-self.radius, self.radius + 1):
            for dx in range(-self.radius, self.radius + 1):
                near = planes[:, :, rows + dy + self.radius][..., columns + dx + self.radius]
                distance2 = (row_offsets + dy)[:, None] ** 2 + (column_offsets + dx)[None] ** 2
                colour2 = (near[:, 2:] - rgb).square_().sum(dim=1, keepdim=True)
                exponent = distance2 / self.config.sigma_low_px**2 + colour2 / self.config.sigma_colour**2
                w = torch.exp(-0.5 * exponent) * near[:, 1:2]
                total += w * near[:, :1]
                weight += w
        # Where no similar colour was near, the plain enlargement takes over.
        tiny = 1e-4
        return (total + tiny * enlarge(low, size)) / (weight + tiny)


def _nearest(small: int, large: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """For each of ``large`` pixels the nearest of ``small`` and the signed distance to it, in small pixels."""
    position = (torch.arange(large, device=device) + 0.5) * (small / large) - 0.5
    index = position.round().long().clamp(0, small - 1)
    return index, index - position


@dataclass(frozen=True)
class GuidedConfig:
    """``radius_low_px``: in low pixels; ``epsilon``: variance of RGB 0..1 taken for flat; tuned on scenes."""

    radius_low_px: float = 1.5
    epsilon: float = 1e-2
    guided_rounds: int = 5
    plain_rounds: int = 1


class Guided(GuidedFilter):
    """Guided filter (He, Sun and Tang 2010): in each window the depth is an affine function of colour."""

    def __init__(self, config: GuidedConfig = GuidedConfig()) -> None:
        super().__init__(config.guided_rounds, config.plain_rounds)
        self.config = config

    def spread(self, low: Depth, rgb: Rgb) -> Depth:
        """See GuidedFilter.spread."""
        scale = rgb.shape[-2] / low.shape[-2]
        radius = max(1, round(self.config.radius_low_px * scale))
        smoother = cv2.ximgproc.createGuidedFilter(_image(rgb), radius, self.config.epsilon)
        return _filtered(smoother, enlarge(low, (rgb.shape[-2], rgb.shape[-1])))


@dataclass(frozen=True)
class FgsConfig:
    """``smoothness``: lambda per squared scale; ``sigma_colour``: in units of RGB 0..1; tuned on scenes."""

    smoothness: float = 3.0
    sigma_colour: float = 0.02
    guided_rounds: int = 5
    plain_rounds: int = 1


class Fgs(GuidedFilter):
    """Fast global smoother (Min et al. 2014, eq. 1): weighted least squares, one row or column at a time."""

    def __init__(self, config: FgsConfig = FgsConfig()) -> None:
        super().__init__(config.guided_rounds, config.plain_rounds)
        self.config = config

    def spread(self, low: Depth, rgb: Rgb) -> Depth:
        """See GuidedFilter.spread."""
        scale2 = rgb.shape[-2] * rgb.shape[-1] / (low.shape[-2] * low.shape[-1])
        smooth = _global_smoother(rgb, self.config.smoothness * scale2, self.config.sigma_colour)
        return smooth(enlarge(low, (rgb.shape[-2], rgb.shape[-1])))


def _global_smoother(rgb: Rgb, smoothness: float, sigma_colour: float) -> Callable[[Depth], Depth]:
    """OpenCV's fast global smoother along ``rgb`` (1, 3, h, w), for maps of the same size."""
    colours = (_image(rgb) * 255).round().astype(np.uint8)  # it takes 8 bit only
    smoother = cv2.ximgproc.createFastGlobalSmootherFilter(colours, smoothness, sigma_colour * 255)
    return lambda plane: _filtered(smoother, plane)


def _image(rgb: Rgb) -> np.ndarray:
    """(1, 3, H, W) to OpenCV's (H, W, 3)."""
    return np.ascontiguousarray(rgb[0].permute(1, 2, 0).cpu().numpy())


def _filtered(smoother: _Smoother, plane: Depth) -> Depth:
    out = smoother.filter(np.ascontiguousarray(plane[0, 0].cpu().numpy()))
    return torch.from_numpy(np.asarray(out)).to(plane)[None, None]
