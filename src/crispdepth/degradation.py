"""From high to low: named kernels, rounding, noise, holes; colours out of place."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from crispdepth.geometry import extremes, grow, resize
from crispdepth.types import Depth, InputError, Mask, Size

LARGEST_SCALE = 64
KERNELS = ("bicubic", "bicubic-8bit", "bicubic-plain", "average", "strided")


def low_size(size: Size, scale: float) -> Size:
    """Size of the low-resolution map of a map of ``size``: sides over ``scale``, rounded, at least 1."""
    return max(1, round(size[0] / scale)), max(1, round(size[1] / scale))


def check_scale(scale: float) -> None:
    """Raise InputError unless a map can be shrunk by this factor."""
    if not 1 <= scale <= LARGEST_SCALE:
        raise InputError(f"scale {scale:g} is out of range: 1 to {LARGEST_SCALE}")


def crop_to_multiple(x: torch.Tensor, scale: float) -> torch.Tensor:
    """The upper left part of (b, c, h, w) whose sides are multiples of ``scale`` ("modcrop").

    A ``scale`` that is no whole number leaves the map as it is. Raises InputError where nothing is left.
    """
    if scale != int(scale):
        return x
    height, width = x.shape[-2:]
    step = int(scale)
    if min(height, width) < step:
        raise InputError(f"{width}x{height} pixels are less than one of a map x{scale:g} smaller: take a smaller scale")
    return x[..., : height - height % step, : width - width % step]


def downsample(depth: Depth, valid: Mask, scale: float, kernel: str = "bicubic") -> tuple[Depth, Mask]:
    """The low-resolution map a data set's authors would have made: (b, 1, h, w) to about (h, w) / scale.

    - ``bicubic``: antialiased, a = -0.5, in floating point (PIL on float images; torch ``antialias=True``)
    - ``bicubic-8bit``: the same on 0..255, clipped and rounded after each of the two passes (PIL on 8 bit)
    - ``bicubic-plain``: not antialiased (OpenCV)
    - ``average``: mean of the pixels covered (GraphSR, DADA)
    - ``strided``: the last pixel of each block, ``d[s-1::s]`` (DJF, PAC); whole scales only

    Holes get no weight (``geometry.resize``). Raises ValueError for a kernel not in this list, and InputError for
    ``strided`` with a scale that is not whole.
    """
    size = low_size((depth.shape[-2], depth.shape[-1]), scale)
    if kernel in ("bicubic", "bicubic-plain", "average"):
        return resize(depth, valid, size, kernel)
    if kernel == "bicubic-8bit":
        return bicubic_8bit(depth, valid, size)
    if kernel == "strided" and scale == int(scale):
        last = slice(int(scale) - 1, None, int(scale))
        seen = valid[..., last, last]
        return torch.where(seen, depth[..., last, last], 0), seen
    if kernel == "strided":
        raise InputError(f"strided takes one pixel of so many: x{scale:g} is no whole scale")
    raise ValueError(f"no kernel {kernel!r}; choose from {', '.join(KERNELS)}")


def bicubic_8bit(depth: Depth, valid: Mask, size: Size) -> tuple[Depth, Mask]:
    """Antialiased bicubic on levels 0..255, clipped and rounded after each of the two passes (PIL on 8 bit)."""
    depth, valid = resize(depth, valid, (depth.shape[-2], size[1]), "bicubic")
    depth, valid = resize(depth.round().clamp(0, 255), valid, size, "bicubic")
    return depth.round().clamp(0, 255), valid


def add_noise(depth: Depth, sigma: float, generator: torch.Generator, power: float = 0.0) -> Depth:
    """Gaussian noise of ``sigma`` metres at 1 m, growing with depth ** ``power`` (time of flight: 1, stereo: 2)."""
    noise = torch.randn(depth.shape, generator=generator, device=depth.device, dtype=depth.dtype)
    return depth + sigma * depth.clamp(min=0) ** power * noise


def punch_holes(valid: Mask, share: float, generator: torch.Generator, radius: int = 0) -> Mask:
    """About ``share`` of the pixels lost, in squares of 2 * ``radius`` + 1 pixels (0: single pixels)."""
    area = (2 * radius + 1) ** 2
    chance = 1 - (1 - share) ** (1 / area)  # so that a pixel outlives all squares that could cover it
    centres = torch.rand(valid.shape, generator=generator, device=valid.device) < chance
    return valid & ~grow(centres, radius)


def quantise(depth: Depth, steps: torch.Tensor, valid: Mask | None = None) -> Depth:
    """Rounded to ``steps`` equal steps (b, 1, 1, 1), one value more, between the smallest and the largest value of each
    map, of what is ``valid`` (by default all)."""
    known = torch.ones_like(depth, dtype=torch.bool) if valid is None else valid
    bottom, top = extremes(depth, known)
    step = (top - bottom) / steps
    return bottom + ((depth - bottom) / step.clamp(min=1e-12)).round() * step


def blur(x: torch.Tensor, sigma_px: float) -> torch.Tensor:
    """Gaussian blur of (b, c, h, w) by ``sigma_px`` pixels, borders continued."""
    radius = min(max(1, round(3 * sigma_px)), min(x.shape[-2:]) - 1)
    line = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (line / sigma_px) ** 2)
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, 1, -1)
    x = F.conv2d(F.pad(x, (radius, radius, 0, 0), mode="replicate"), kernel, groups=x.shape[1])
    return F.conv2d(F.pad(x, (0, 0, radius, radius), mode="replicate"), kernel.mT, groups=x.shape[1])
