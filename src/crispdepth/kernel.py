"""How the readings of a low map came about: as if shrunken by bicubic, means of what they cover, or single pixels."""

from __future__ import annotations

from crispdepth.geometry import enlarge
from crispdepth.types import Depth, Mask

KERNEL = ("auto", "bicubic", "average", "points")  # what predict may be asked for
AVERAGED = 0.25  # the least share that tells, from x4 on; below 1 / scale: there it is larger
POINTS = 1.4  # from here on, from x4 on (5 / scale below): single points, of which a mean is no better guess
GUIDED = 0.5  # so much later below x3, where a picture has made the edges sharper
POINTED = 1.2  # from here on they may be points, if a corner fits the picture, too
APART = 1e-4  # of the depth, root mean square: kernels that differ by less tell nothing
READ, LEAST_READ = 0.85, 500  # fewer readings, of all and altogether, tell nothing


def averaged(depth: Depth, low: Depth, valid: Mask, guided: bool = False) -> bool:
    """Whether ``low`` (1, 1, h, w), from which a network that takes its readings for bicubic ones made ``depth``
    (1, 1, H, W), ``guided`` by a picture, rather holds means of the pixels covered. Not to be told of a noisy map.

    Both kernels are tried on ``depth``. What ``low`` differs from the bicubic one by is laid on what the mean differs
    by (least squares): the share is about 0 for bicubic maps, as the network takes care of, and 0.2 to 2.7 for
    averaged ones (examples/try_kernels.py).
    """
    scale = _told_at(depth, low, valid)
    most = max(POINTS, 5 / scale + (GUIDED if guided and scale < 3 else 0)) if scale else 0.0
    return bool(scale) and max(AVERAGED, 1 / scale) < share(depth, low, valid) < most


def as_taken(depth: Depth, low: Depth, valid: Mask) -> bool:
    """Whether the readings seem to be what the network took them for: as ``averaged``, but a share about 0."""
    return bool(_told_at(depth, low, valid)) and abs(share(depth, low, valid)) < AVERAGED


def pointed(depth: Depth, low: Depth, valid: Mask) -> bool:
    """Whether the readings may be single pixels of what they cover, by a ``depth`` made as for ``averaged``: they
    have more contrast than even means."""
    return bool(_told_at(depth, low, valid)) and share(depth, low, valid) > POINTED


def _told_at(depth: Depth, low: Depth, valid: Mask) -> float:
    """How many times larger ``depth`` is; 0 where that, or the readings, are too little to tell the kernel."""
    scale = min(depth.shape[-2] / low.shape[-2], depth.shape[-1] / low.shape[-1])
    return scale if scale > 1 and valid.float().mean() >= READ and int(valid.sum()) >= LEAST_READ else 0.0


def share(depth: Depth, low: Depth, valid: Mask) -> float:
    """How much of the way from bicubic to means ``low`` has gone; see ``averaged``."""
    bicubic, mean = _shrunken(depth, low)
    wanting, way = (low - bicubic)[valid], (mean - bicubic)[valid]
    square = float(way.square().sum())
    least = APART * float(low[valid].abs().max()) if len(way) else 0.0
    return float((wanting * way).sum()) / square if square > least**2 * len(way) else 0.0


def as_bicubic(depth: Depth, low: Depth) -> Depth:
    """What ``low``, means of the pixels covered, would be had it been shrunken by bicubic, by what ``depth`` says."""
    bicubic, mean = _shrunken(depth, low)
    return low + bicubic - mean


def _shrunken(depth: Depth, low: Depth) -> tuple[Depth, Depth]:
    """``depth`` at the size of ``low`` by both kernels."""
    size = (low.shape[-2], low.shape[-1])
    return enlarge(depth, size, "bicubic"), enlarge(depth, size, "average")
