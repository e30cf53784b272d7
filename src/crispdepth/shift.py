"""The few pixels by which a picture and its depth may be out of place, found where their edges meet best."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from crispdepth.geometry import grow, resize, resize_rgb, wide_holes
from crispdepth.types import Depth, Mask, Rgb, Size

ALIGN = ("off", "look", "guide", "auto")  # what predict may be asked for
REACH_PX = 10  # of a picture of MOST_PIXELS or less; of a larger one as many more as its sides are longer
SLOPE, STEEP = 0.0075, 0.075  # of the depth, per pixel: no edge below, no more edge above
BLOCKS = 8  # a side: parts of the picture that vote
CLEAR = 2.5  # standard errors; see examples/try_align.py
MOST_PIXELS = 1_000_000
GAP_LOW_PX = 2  # holes wider than this have made-up edges inside
CORNER = 1.5  # standard errors; see examples/try_kernels.py
LEAST_CORNER = 3  # a low pixel's side in pixels: below, its corners lie half a pixel from its middle
LEAST_LOW_PX = 0.1  # what a low map can tell: at x16 and x32 less was found where nothing was out of place


def residual_shift(sharpen: Callable[[Size], Depth], valid: Mask, rgb: Rgb) -> tuple[int, int]:
    """By how many pixels of ``rgb`` (1, 3, H, W) the depth must move right and down to fit it.

    ``sharpen``: the depth at any size, (1, 1, *size), sharpened without the picture, else its edges are the picture's;
    ``valid`` (1, 1, h, w): the readings. (0, 0) unless the best shift is CLEAR, or where it lies at the end of the
    search, or is below LEAST_LOW_PX of the low map's pixels.

    Looked at in half the size first: where that says that nothing is out of place, as it mostly is, that is all.
    """
    height, width = rgb.shape[-2:]
    for reach, size in looks(rgb, valid):
        right, down, clear = best_shift(sharpen(size), edges_known(valid, size), resize_rgb(rgb, size), reach)
        shift = (round(right * width / size[1]), round(down * height / size[0]))
        if shift == (0, 0):
            return 0, 0
    told = max(abs(shift[0]), abs(shift[1])) >= LEAST_LOW_PX * height / valid.shape[-2]
    return shift if told and clear > CLEAR and max(abs(right), abs(down)) < REACH_PX + 0.5 else (0, 0)


def looks(rgb: Rgb, valid: Mask) -> list[tuple[int, Size]]:
    """How far to search, in pixels of what size of the picture: at first half as far in half the size, unless that is
    no more than twice as large as the low map, which gains nothing; no size has more than MOST_PIXELS."""
    height, width = rgb.shape[-2:]
    least = max(1, math.ceil(math.sqrt(height * width / MOST_PIXELS)))
    first = height / valid.shape[-2] >= 4 * least
    steps = ((REACH_PX // 2, 2 * least), (REACH_PX, least)) if first else ((REACH_PX, least),)
    return [(reach, (height // smaller, width // smaller)) for reach, smaller in steps]


def best_shift(sharp: Depth, known: Mask, rgb: Rgb, reach: int) -> tuple[float, float, float]:
    """The best shift of ``sharp`` right and down, up to ``reach`` + 1 px, and by how many standard errors it is best.

    The best one has the largest sum of depth edge times colour edge, along each axis for itself, and is told to parts
    of a pixel by the parabola through its neighbours. The picture's blocks vote: the standard error is the root of
    their gains' sum of squares. Edges count where ``known``; all three are of one size (1, ., H, W).
    """
    margin = reach + 1
    if min(rgb.shape[-2:]) <= 2 * margin + BLOCKS:
        return 0.0, 0.0, 0.0
    scores = _met(sharp, known, rgb, margin)
    total = scores.sum(0)
    row, column = divmod(int(total.argmax()), 2 * margin + 1)
    clear = _clear(scores[:, row, column] - scores[:, margin, margin])
    return _peak(total[row], column) - margin, _peak(total[:, column], row) - margin, clear


def corner_shift(sharp: Depth, valid: Mask, rgb: Rgb, clear: float = CORNER) -> tuple[int, int]:
    """By how many pixels of ``rgb`` (1, 3, H, W) depth must move right and down to fit it whose readings are single
    pixels, taken from a corner of what each of them covers; (0, 0) where no corner is ``clear``.

    The first pixel is what ``d[::s]``, OpenCV's and torch's nearest take; the last one, ``d[s - 1 :: s]`` (DJF, PAC).
    Moved, each reading lies in the middle of its low pixel, or half a pixel beyond, as ``nearest-exact`` takes it.
    ``sharp``: the depth as drawn without the picture, (1, 1, *size); ``valid`` (1, 1, h, w): the readings.
    """
    size = (sharp.shape[-2], sharp.shape[-1])
    low_px = [n / m for n, m in zip(rgb.shape[-2:], valid.shape[-2:], strict=True)]
    away = [(side - 1) / 2 * n / m for side, n, m in zip(low_px, size, rgb.shape[-2:], strict=True)]  # of ``sharp``
    margin = math.ceil(max(away)) + 1
    if min(low_px) < LEAST_CORNER or min(size) <= 2 * margin + BLOCKS:
        return 0, 0
    scores = _met(sharp, edges_known(valid, size), resize_rgb(rgb, size), margin)
    first, last = (_clear(_between(scores, *(sign * n for n in away)) - _between(scores, 0, 0)) for sign in (-1, 1))
    if max(first, last) <= clear:
        return 0, 0
    down, right = (math.ceil(side / 2) - 1 if last > first else -(int(side) // 2) for side in low_px)
    return right, down


def _between(scores: torch.Tensor, down: float, right: float) -> torch.Tensor:
    """Each block's score for a shift by parts of a pixel, bilinear: (blocks, side, side) to (blocks,)."""
    middle = (scores.shape[-1] - 1) // 2
    place = torch.tensor([[[[right / middle, down / middle]]]])
    return F.grid_sample(scores[None], place.to(scores), align_corners=True)[0, :, 0, 0]


def _clear(gains: torch.Tensor) -> float:
    """The sum of all blocks' gains in standard errors: of the root of the sum of their squares."""
    gains = gains.cpu().double()
    error = float(gains.square().sum().sqrt())
    return float(gains.sum()) / error if error > 0 else 0.0


def _met(sharp: Depth, known: Mask, rgb: Rgb, margin: int) -> torch.Tensor:
    """Depth edge times colour edge in each block, for all shifts of up to ``margin``: (blocks, side, side)."""
    height, width = rgb.shape[-2:]
    side = 2 * margin + 1
    tall, wide = (-(-(n - 2 * margin) // BLOCKS) for n in (height, width))
    scores = sharp.new_zeros(BLOCKS * BLOCKS, side, side)
    for axis in (-1, -2):
        depth, colour = _depth_edges(sharp, known, axis), _slope(rgb, axis).amax(dim=1)[0]
        colour = colour / (colour + 2 * colour.mean() + 1e-6)  # a few strong edges must not decide alone
        inner = depth[margin : height - margin, margin : width - margin]
        depth, colour = (
            F.pad(x, (0, wide * BLOCKS - width + 2 * margin, 0, tall * BLOCKS - height + 2 * margin))
            for x in (inner, colour)
        )
        mine = depth.unfold(0, tall, tall).unfold(1, wide, wide).flatten(0, 1)
        around = colour.unfold(0, tall + 2 * margin, tall).unfold(1, wide + 2 * margin, wide).flatten(0, 1)
        shape = (around.shape[-2], around.shape[-1])
        met = torch.fft.rfft2(around) * torch.fft.rfft2(mine, s=shape).conj()
        scores += torch.fft.irfft2(met, s=shape)[:, :side, :side]
    return scores


def edges_known(valid: Mask, size: Size) -> Mask:
    """Where edges of the sharpened depth are none that were made up in a hole, (1, 1, *size)."""
    made_up = grow(wide_holes(valid, GAP_LOW_PX), 1).float()
    return resize(made_up, torch.ones_like(valid), size, "nearest")[0] < 0.5


def _peak(values: torch.Tensor, at: int) -> float:
    """Where the parabola through the value at ``at`` and its two neighbours is highest."""
    if not 0 < at < len(values) - 1:
        return at
    before, here, after = values[at - 1 : at + 2].tolist()
    bend = 2 * here - before - after
    return at + (after - before) / (2 * bend) if bend > 0 else at


def _depth_edges(sharp: Depth, known: Mask, axis: int) -> torch.Tensor:
    """How steep the map (H, W) is along ``axis``, SLOPE to STEEP above 0; 0 where not ``known``."""
    near = torch.maximum(sharp, 0.01 * sharp.max()).clamp(min=1e-9)
    return ((_slope(sharp, axis) / near - SLOPE).clamp(0, STEEP) * known)[0, 0]


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
    rows = (torch.arange(x.shape[-2], device=x.device) - down).clamp(0, x.shape[-2] - 1)
    columns = (torch.arange(x.shape[-1], device=x.device) - right).clamp(0, x.shape[-1] - 1)
    return x[..., rows, :][..., columns]
