"""Pictures too large for one go, tile by tile: overlapping, each anchored by the whole low map, without a seam."""

from __future__ import annotations

import math

import torch

from crispdepth.types import Depth, InputError, Local, Rgb, Size

TILE_FROM = 2**22  # pixels of the result: from here on, tiles
CORE_PX = 768  # about the side of what a tile adds to the result
HALO_PX = 192  # seen on each side beside it: what lies farther away changes a result by less than 1e-3 of the range
GRID_PX = 16  # networks halve a picture four times, from its first row and column on
LARGEST_STEP_PX = 2048


def tiled(work: Local, rgb: Rgb | None, size: Size) -> tuple[Depth, Depth | None]:
    """``work.run`` on overlapping parts of the result, put together: (1, 1, H, W), and the expected error or None.

    Tiles begin where low pixels and pixels of the result begin together, and on a multiple of GRID_PX, so each is
    resampled exactly as the whole would be; what needs the whole map, its range above all, is in ``work`` already.
    Raises InputError where the two sizes have no such places.
    """
    low = (work.low[0].shape[-2], work.low[0].shape[-1])
    rows, columns = (_spans(size[i], low[i], work.halo_low_px) for i in (0, 1))
    depth, error = torch.empty(1, 1, *size), None
    for top, bottom, row_parts in rows:
        for left, right, column_parts in columns:
            (y0, y1), (x0, x1) = row_parts[0], column_parts[0]
            (v0, v1), (u0, u1) = row_parts[1], column_parts[1]
            maps = tuple(x[..., v0:v1, u0:u1].contiguous() for x in work.low)
            colours = None if rgb is None else rgb[..., y0:y1, x0:x1].contiguous()
            part, expected = work.run(maps, colours, (y1 - y0, x1 - x0))
            inner = (..., slice(top - y0, bottom - y0), slice(left - x0, right - x0))
            depth[..., top:bottom, left:right] = part[inner]
            if expected is not None:
                error = torch.empty_like(depth) if error is None else error
                error[..., top:bottom, left:right] = expected[inner]
    return depth, error


def can_tile(low: Size, size: Size) -> bool:
    """Whether there are places at which tiles can begin."""
    return all(_step(size[i], low[i])[0] <= LARGEST_STEP_PX or size[i] <= LARGEST_STEP_PX for i in (0, 1))


def fitting(low: Size, size: Size) -> Size:
    """The size below ``size`` that can be made in tiles: a whole multiple of ``low``."""
    height, width = (max(1, size[i] // low[i]) * low[i] for i in (0, 1))
    return height, width


def _step(size: int, low: int) -> tuple[int, int, int]:
    """Pixels from one place where a tile may begin to the next; and how many pixels meet how many low pixels."""
    common = math.gcd(size, low)
    pixels, low_pixels = size // common, low // common
    return math.lcm(pixels, GRID_PX), pixels, low_pixels


def _spans(size: int, low: int, halo_low_px: int) -> list[tuple[int, int, tuple[tuple[int, int], tuple[int, int]]]]:
    """Along one axis: what each tile adds (from, to), and what it sees: (from, to) in pixels and in low pixels."""
    step, pixels, low_pixels = _step(size, low)
    if step > LARGEST_STEP_PX and size > LARGEST_STEP_PX:
        raise InputError(f"{size} pixels of {low} low ones cannot be made in tiles: choose a multiple of {low}")
    halo = max(HALO_PX, math.ceil(halo_low_px * size / low))
    core = step * max(1, round(CORE_PX / step))
    spans = []
    for start in range(0, size, core):
        end = min(size, start + core)
        first = max(0, (start - halo) // step * step)
        last = min(size, -(-(end + halo) // pixels) * pixels)
        seen = (first // pixels * low_pixels, last // pixels * low_pixels)
        spans.append((start, end, ((first, last), seen)))
    return spans
