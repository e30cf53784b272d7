"""The few pixels by which a picture and its depth may be out of place, found where their edges meet best."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from crispdepth.geometry import enlarge, fill, grow, resize
from crispdepth.types import Depth, Mask, Rgb, Size

REACH_PX = 5
SLOPE, STEEP = 0.03, 0.3  # of the depth, per low pixel: no edge below, no more edge above
BLOCKS = 8  # a side: parts of the picture that vote
CLEAR = 2.5  # standard errors: where nothing was out of place, no scene and no real pair passed 2.0
MOST_POINTS = 200_000


def residual_shift(low: Depth, valid: Mask, rgb: Rgb) -> tuple[int, int]:
    """By how many pixels of ``rgb`` (1, 3, H, W) the depth ``low`` (1, 1, h, w) must move right and down to fit it.

    Up to REACH_PX; (0, 0) unless the best shift is CLEAR, or where it lies at the end of the search.
    """
    right, down, clear = best_shift(low, valid, rgb)
    return (right, down) if clear > CLEAR and max(abs(right), abs(down)) <= REACH_PX else (0, 0)


def best_shift(low: Depth, valid: Mask, rgb: Rgb) -> tuple[int, int, float]:
    """The best shift right and down, and by how many standard errors it beats none.

    The best one has the largest sum of depth edge (of the enlarged map) times colour edge, along each axis for
    itself. The picture's blocks vote: the standard error is the root of their gains' sum of squares.
    """
    height, width = size = (rgb.shape[-2], rgb.shape[-1])
    margin = REACH_PX + 1
    side = 2 * margin + 1
    if min(size) <= 2 * margin + 2 or not bool(valid.any()):
        return 0, 0, 0.0
    scores = torch.zeros(side * side, BLOCKS * BLOCKS)
    for axis in (-1, -2):
        weight = _depth_edges(low, valid, size, axis)
        weight[:margin], weight[-margin:], weight[:, :margin], weight[:, -margin:] = 0, 0, 0, 0
        colour = _slope(rgb, axis).amax(dim=1)[0]
        colour = colour / (colour + 2 * colour.mean() + 1e-6)  # a few strong edges must not decide alone
        rows, columns = torch.nonzero(weight, as_tuple=True)
        step = max(1, -(-len(rows) // MOST_POINTS))
        rows, columns = rows[::step], columns[::step]
        block, values = rows * BLOCKS // height * BLOCKS + columns * BLOCKS // width, weight[rows, columns] * step
        for i in range(side * side):
            met = values * colour[rows + i // side - margin, columns + i % side - margin]
            scores[i] += torch.bincount(block, met, minlength=BLOCKS * BLOCKS)
    best = int(scores.sum(1).argmax())
    gains = (scores[best] - scores[len(scores) // 2]).double()
    error = float(gains.square().sum().sqrt())
    return best % side - margin, best // side - margin, float(gains.sum()) / error if error > 0 else 0.0


def _depth_edges(low: Depth, valid: Mask, size: Size, axis: int) -> torch.Tensor:
    """How steep the enlarged map (H, W) is along ``axis``, SLOPE to STEEP above 0; 0 beside holes."""
    smooth = enlarge(fill(low, valid), size)
    near = torch.maximum(smooth, 0.01 * smooth.max()).clamp(min=1e-9)
    steep = _slope(smooth, axis) / near * (size[axis] / low.shape[axis])
    sure, _ = resize((~grow(~valid, 1)).float(), torch.ones_like(valid), size, "nearest")
    return ((steep - SLOPE).clamp(0, STEEP) * sure)[0, 0]


def _slope(x: torch.Tensor, axis: int) -> torch.Tensor:
    """Size of the central difference along ``axis``, 0 at the two ends."""
    n = x.shape[axis] - 2
    inner = (x.narrow(axis, 2, n) - x.narrow(axis, 0, n)).abs() / 2
    return F.pad(inner, (1, 1) if axis == -1 else (0, 0, 1, 1))


def moved(x: torch.Tensor, shift: tuple[int, int]) -> torch.Tensor:
    """``x`` (…, h, w) moved right and down by whole pixels; what comes in repeats the border."""
    if shift == (0, 0):
        return x
    right, down = shift
    rows = (torch.arange(x.shape[-2]) - down).clamp(0, x.shape[-2] - 1)
    columns = (torch.arange(x.shape[-1]) - right).clamp(0, x.shape[-1] - 1)
    return x[..., rows[:, None], columns]
