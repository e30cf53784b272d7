"""Pictures too large for one go, tile by tile: overlapping, each anchored by the whole low map, without a seam."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from crispdepth.geometry import resize_rgb
from crispdepth.types import Depth, Local, Rgb, Size

TILE_FROM = 2**22  # pixels of the result: from here on, tiles
CORE_PX = 768  # about the side of what a tile adds to the result
HALO_PX = 192  # seen on each side beside it: what lies farther away changes a result by less than 1e-3 of the range
GRID_LOW_PX = 8  # a network enlarges at least twice, then halves four times, from the first row and column on
LARGEST_TILE_PX = 2432  # a side of what one tile sees: 6 megapixels at once
LARGER = 8  # a side may become an eighth longer, to be made in smaller tiles
MIXED = 0.005  # of the depth's range: where the mean of neighbours is so far from the nearest, an edge is between them


def tiled(work: Local, rgb: Rgb | None, size: Size) -> tuple[Depth, Depth | None]:
    """``work.run`` on overlapping parts of the result, put together: (1, 1, H, W), and the expected error or None.

    Tiles begin where low pixels and pixels of the result begin together, and on a multiple of GRID_LOW_PX, so each is
    resampled exactly as the whole would be; what needs the whole map, its range above all, is in ``work`` already.
    Where the two sizes have no such places, the result is made a little larger (``tileable``) and taken down to
    ``size``. Raises ValueError where ``tileable`` has no answer.
    """
    low = (work.low[0].shape[-2], work.low[0].shape[-1])
    larger = tileable(low, size)
    if larger is None:
        raise ValueError(f"{size} of {low} cannot be made in tiles")
    if larger != tuple(size):
        depth, error = tiled(work, None if rgb is None else resize_rgb(rgb, larger), larger)
        return _taken_down(depth, size), None if error is None else F.interpolate(error, size, mode="nearest-exact")
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


def tileable(low: Size, size: Size) -> Size | None:
    """The size that is made in tiles of a map of ``low`` for a result of ``size``; None where there is none.

    Each side as it is where tiles of at most LARGEST_TILE_PX make it; else, of up to LARGER more, the one whose tiles
    see the fewest pixels: 8009 pixels of 257 low ones become 8224, 32 for each.
    """
    sides = [_side(pixels, low_pixels) for pixels, low_pixels in zip(size, low, strict=True)]
    return None if None in sides else (sides[0], sides[1])  # type: ignore[return-value]


def _side(pixels: int, low_pixels: int) -> int | None:
    def seen(side: int) -> list[int]:
        return [last - first for _, _, ((first, last), _) in _spans(side, low_pixels, 0)]

    if max(seen(pixels)) <= LARGEST_TILE_PX:
        return pixels
    near = range(pixels + 1, pixels + pixels // LARGER + 1)
    fits = (n for n in near if _step(n, low_pixels)[0] <= CORE_PX and max(seen(n)) <= LARGEST_TILE_PX)
    return min(fits, key=lambda n: sum(seen(n)), default=None)


def _taken_down(depth: Depth, size: Size) -> Depth:
    """A map made slightly too large at ``size``: bilinear, which keeps slopes smooth; on edges nearest, no mixtures."""
    mean = F.interpolate(depth, size, mode="bilinear", align_corners=False)
    nearest = F.interpolate(depth, size, mode="nearest-exact")
    mixed = MIXED * (nearest.amax() - nearest.amin())
    return torch.where((mean - nearest).abs_() > mixed, nearest, mean)


def _step(size: int, low: int) -> tuple[int, int, int]:
    """Pixels from one place where a tile may begin to the next; and how many pixels meet how many low pixels."""
    common = math.gcd(size, low)
    pixels, low_pixels = size // common, low // common
    return math.lcm(low_pixels, GRID_LOW_PX) // low_pixels * pixels, pixels, low_pixels


def _spans(size: int, low: int, halo_low_px: int) -> list[tuple[int, int, tuple[tuple[int, int], tuple[int, int]]]]:
    """Along one axis: what each tile adds (from, to), and what it sees: (from, to) in pixels and in low pixels."""
    step, pixels, low_pixels = _step(size, low)
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
