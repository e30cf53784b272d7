"""From high to low: named kernels, rounding, noise, holes."""

from __future__ import annotations

import torch

from crispdepth.geometry import grow, resize
from crispdepth.types import Depth, Mask, Size

KERNELS = ("bicubic", "bicubic-8bit", "bicubic-plain", "average", "strided")


def low_size(size: Size, scale: float) -> Size:
    """Size of the low-resolution map of a map of ``size``: sides over ``scale``, rounded, at least 1."""
    return max(1, round(size[0] / scale)), max(1, round(size[1] / scale))


def crop_to_multiple(x: torch.Tensor, scale: float) -> torch.Tensor:
    """The upper left part of (b, c, h, w) whose sides are multiples of ``scale`` ("modcrop").

    A ``scale`` that is no whole number leaves the map as it is.
    """
    if scale != int(scale):
        return x
    height, width = x.shape[-2:]
    step = int(scale)
    return x[..., : height - height % step, : width - width % step]


def downsample(depth: Depth, valid: Mask, scale: float, kernel: str = "bicubic") -> tuple[Depth, Mask]:
    """The low-resolution map a data set's authors would have made: (b, 1, h, w) to about (h, w) / scale.

    - ``bicubic``: antialiased, a = -0.5, in floating point (PIL on float images; torch ``antialias=True``)
    - ``bicubic-8bit``: the same on 0..255, clipped and rounded after each of the two passes (PIL on 8 bit)
    - ``bicubic-plain``: not antialiased (OpenCV)
    - ``average``: mean of the pixels covered (GraphSR, DADA)
    - ``strided``: the last pixel of each block, ``d[s-1::s]`` (DJF, PAC); whole scales only

    Holes get no weight (``geometry.resize``). Raises ValueError for a kernel not in this list.
    """
    size = low_size((depth.shape[-2], depth.shape[-1]), scale)
    if kernel in ("bicubic", "bicubic-plain", "average"):
        return resize(depth, valid, size, kernel)
    if kernel == "bicubic-8bit":
        return _bicubic_8bit(depth, valid, size)
    if kernel == "strided" and scale == int(scale):
        last = slice(int(scale) - 1, None, int(scale))
        seen = valid[..., last, last]
        return torch.where(seen, depth[..., last, last], 0), seen
    raise ValueError(f"no kernel {kernel!r} for x{scale:g}; choose from {', '.join(KERNELS)}")


def _bicubic_8bit(depth: Depth, valid: Mask, size: Size) -> tuple[Depth, Mask]:
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
