"""Depth steadied from frame to frame along the motion seen in the colours, and films of it as MP4."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from crispdepth.atomic import atomic, check_output, make_folder, shown
from crispdepth.formats.raw import muted
from crispdepth.picture import PANEL_PX, Range, colours
from crispdepth.types import InputError, Prediction, Size

FLOW_PIXELS = 1_000_000  # larger pictures are halved for the optical flow, as often as needed
BEHIND = AHEAD = 3  # frames that a film's frame is averaged with, on each side
TOLERANCE = 4.0  # of the expected error: a value carried over that is farther from the new one has little say
LEAST = 0.01  # of the depth: the least error to expect, and what is expected of a model that does not say
MET = 0.3  # of the pixels, at least, are found again in the next picture: 0.7 and more are, at cuts 0.15 and less
ALIKE = 8.0  # times the usual difference of the two pictures, grey levels
MOTION_POINTS = 100  # fewer tell no motion of the camera
LONGEST_SIDE = 2**15 - 2  # what OpenCV's remap takes

Motion = tuple[np.ndarray, np.ndarray]  # pixels to go (h, w, 2) to another frame, and where that is sure (h, w)


@dataclass
class _Frame:
    """A frame: its own result, its colours in grey, the motion from it to the one before and back (None: nothing of
    its size before it, or a cut), at the size at which motion is looked for."""

    result: Prediction
    grey: np.ndarray
    motions: tuple[Motion, Motion] | None


class Steady:
    """One result after another, each averaged with the BEHIND before it along the motion (call it, in order).

    1. **Motion**: dense optical flow between two neighbouring pictures (DIS, Kroeger et al., ECCV 2016), both ways.
       Where going there and coming back does not meet (Sundaram et al., ECCV 2010, eq. 5), nothing is carried over.
       To a frame farther off it goes step by step, and its depth is looked up once, unblurred.
    2. **The camera's own way**: of a scene at rest, each point's depth after the move is
       Z' = Z·(a·x + b·y + c) + t, with x, y its place in the picture; these four numbers are fitted to the two depth
       maps robustly, so that depth carried over keeps up with the camera.
    3. **What is carried over** counts less the farther it is from the frame's own depth, in units of the error to
       expect, and the more the two pictures differ there: what has gone leaves no ghost. What was filled into a hole
       does not count where this frame has a reading.

    A frame of another size, or after a cut, begins anew.
    """

    def __init__(self) -> None:
        self._frames: deque[_Frame] = deque(maxlen=BEHIND + 1)

    def __call__(self, result: Prediction, rgb: np.ndarray | None) -> Prediction:
        """``result`` steadied; ``rgb`` (H, W, 3) float in 0..1 is its picture. Raises InputError without one."""
        self._frames.append(_taken(result, rgb, self._frames[-1] if self._frames else None))
        *before, frame = self._frames
        return replace(result, depth=_steadied(frame, before[::-1], ()))


class SteadyFilm:
    """As ``Steady``, with AHEAD frames to come as well.

    ``push`` takes the frames in order, ``pop`` gives them back in that order: when ``full``, or at the end of the film.
    """

    def __init__(self) -> None:
        self._done: deque[_Frame] = deque(maxlen=BEHIND)
        self._waiting: deque[_Frame] = deque()

    @property
    def full(self) -> bool:
        """Whether the first frame that waits has seen AHEAD more."""
        return len(self._waiting) > AHEAD

    def push(self, result: Prediction, rgb: np.ndarray | None) -> None:
        """Take one frame more, as ``Steady``. Raises InputError; the frame is not taken then."""
        last = (*self._done, *self._waiting)[-1:]
        self._waiting.append(_taken(result, rgb, last[0] if last else None))

    def pop(self) -> Prediction:
        """The frame that waits longest, steadied; it waits no more, even where this fails."""
        frame, before = self._waiting.popleft(), [*self._done][::-1]
        self._done.append(frame)
        return replace(frame.result, depth=_steadied(frame, before, self._waiting))


def check_sides(size: Size) -> None:
    """Raise InputError for results (height, width) that no motion can be followed in."""
    if max(size) > LONGEST_SIDE:
        asked = f"{size[1]}x{size[0]}"
        raise InputError(f"--video takes sides of up to {LONGEST_SIDE} pixels, not {asked}: ask for less with --size")


def _taken(result: Prediction, rgb: np.ndarray | None, last: _Frame | None) -> _Frame:
    """A result and its picture as the frame after ``last``. Raises InputError."""
    if rgb is None or rgb.shape[:2] != result.depth.shape:
        raise InputError("--video follows the motion in the colours: pass --rgb")
    check_sides(result.depth.shape)
    if rgb.shape[2:] != (3,) or rgb.dtype.kind not in "fu":
        raise InputError(f"rgb is {rgb.dtype} {rgb.shape}: pass (H, W, 3) colours, floats of 0..1 or uint8")
    share = rgb if rgb.dtype.kind == "f" else rgb / np.float32(np.iinfo(rgb.dtype).max)
    grey = cv2.cvtColor(np.round(np.clip(share, 0, 1) * 255).astype(np.uint8), cv2.COLOR_RGB2GRAY)
    motions = _motions(grey, last.grey) if last is not None and last.grey.shape == grey.shape else None
    if motions is not None and max(met.mean() for _, met in motions) < MET:
        motions = None  # a cut
    return _Frame(result, grey, motions)


def _steadied(frame: _Frame, before: Iterable[_Frame], after: Iterable[_Frame]) -> np.ndarray:
    """The depth of ``frame``, averaged with that of frames before and after it, each side the nearest first."""
    now, its_error = frame.result.depth, frame.result.error
    error = np.maximum(LEAST * np.abs(now), 0 if its_error is None else its_error)
    error = np.maximum(error, 1e-4 * np.abs(now).max() + 1e-12)  # ``relative`` may be 0
    total, count = now.copy(), np.ones_like(now)
    for other, motion in (*_ways(frame, before, 0), *_ways(frame, after, 1)):
        place, met = _place(motion, now.shape)
        read = carried(other.result.valid.astype(np.uint8), place, cv2.INTER_NEAREST) > 0
        met &= read | ~frame.result.valid  # what was filled in there says nothing of what was measured here
        depth = _kept_up(carried(other.result.depth, place, cv2.INTER_NEAREST), now, met, error)
        near = np.exp(-0.5 * ((depth - now) / (TOLERANCE * error)) ** 2)
        weight = near * _alike(frame.grey, other.grey, place) * met
        total += weight * depth
        count += weight
    return total / count


def _ways(frame: _Frame, others: Iterable[_Frame], forth: int) -> Iterator[tuple[_Frame, Motion]]:
    """Frames on one side, in order, with the motion to each, up to the first beyond a cut or a change of size."""
    way: Motion | None = None
    for other in others:
        motions = other.motions if forth else frame.motions
        if motions is None:
            return
        step = motions[forth]
        way = step if way is None else _joined(way, step)
        yield other, way
        frame = other


def _joined(first: Motion, then: Motion) -> Motion:
    """One motion after another."""
    (flow, met), (height, width) = first, first[1].shape
    place = flow + _grid(height, width)
    sure = carried(then[1].astype(np.uint8), place, cv2.INTER_NEAREST) > 0
    return flow + carried(then[0], place, cv2.INTER_LINEAR), met & sure & _inside(place)


def way_back(grey: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel of ``grey`` (H, W) uint8 was in ``before``: columns and rows (H, W, 2) float32, and where
    that is sure: the flow back and the flow forth meet, inside the picture."""
    return _place(_motions(grey, before)[0], grey.shape)


def _motions(grey: np.ndarray, before: np.ndarray) -> tuple[Motion, Motion]:
    """The motion to the picture before, and from it to this one; sure where the two meet."""
    back, forth = _flow(grey, before), _flow(before, grey)
    return (back, _met(back, forth)), (forth, _met(forth, back))


def _met(there: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Where going ``there`` (h, w, 2) and coming ``back`` meets."""
    returned = carried(back, there + _grid(*there.shape[:2]), cv2.INTER_LINEAR)
    return _squared(there + returned) < 0.01 * (_squared(there) + _squared(returned)) + 0.5


def _squared(flow: np.ndarray) -> np.ndarray:
    """The squared length of each vector (h, w, 2)."""
    return flow[..., 0] ** 2 + flow[..., 1] ** 2


def _place(motion: Motion, size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel of a picture of ``size`` comes from (H, W, 2), and where that is sure, inside the picture."""
    flow, met = motion
    height, width = size
    if met.shape != (height, width):
        ratio = np.array([width / met.shape[1], height / met.shape[0]], np.float32)
        flow = cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR) * ratio
        met = cv2.resize(met.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
    place = flow + _grid(height, width)
    return place, met & _inside(place)


def _inside(place: np.ndarray) -> np.ndarray:
    """Which of the places (h, w, 2) lie inside a picture of that size."""
    (height, width), x, y = place.shape[:2], place[..., 0], place[..., 1]
    return (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)


@lru_cache(2)  # at the size of the pictures, and that of their flow
def _grid(height: int, width: int) -> np.ndarray:
    """Each pixel's column and row (H, W, 2)."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    return np.stack([columns, rows], -1)


def _alike(grey: np.ndarray, before: np.ndarray, place: np.ndarray) -> np.ndarray:
    """1 where the two pictures show the same, less where they differ by more than ALIKE times what is usual here."""
    gap = cv2.blur(cv2.absdiff(grey, carried(before, place, cv2.INTER_LINEAR)).astype(np.float32), (3, 3))
    usual = max(1.0, float(np.median(gap)))
    return np.exp(-0.5 * (gap / (ALIKE * usual)) ** 2)


def _fitted(terms: np.ndarray, target: np.ndarray, scale: np.ndarray | float) -> np.ndarray:
    """Factors of ``terms`` (n, k) for ``target`` (n,), iteratively reweighted (Geman and McClure) against outliers."""
    terms = terms.astype(np.float64)
    factors = np.linalg.lstsq(terms.T @ terms, terms.T @ target, rcond=1e-9)[0]
    for _ in range(8):
        left = (target - terms @ factors) / scale
        share = (1 / (1 + left**2) ** 2 / scale)[:, None] * terms
        factors = np.linalg.lstsq(share.T @ terms, share.T @ target, rcond=1e-9)[0]
    return factors


def _flow(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Optical flow (h, w, 2), pixels of pictures of at most FLOW_PIXELS: where each of ``start`` is in ``end``, less
    where it was."""
    height, width = start.shape
    if min(height, width) < 32:  # too small for its patches
        return np.zeros((height, width, 2), np.float32)
    halvings = 0
    while (height >> halvings) * (width >> halvings) > FLOW_PIXELS:
        halvings += 1
    size = (max(32, width >> halvings), max(32, height >> halvings))
    small = [cv2.resize(x, size, interpolation=cv2.INTER_AREA) if halvings else x for x in (start, end)]
    return cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(small[0], small[1], None)  # type: ignore[call-overload]


def carried(x: np.ndarray, place: np.ndarray, interpolation: int = cv2.INTER_CUBIC) -> np.ndarray:
    """``x`` (H, W) or (H, W, C) at ``place`` (H, W, 2); beyond the border it is continued."""
    return cv2.remap(x, place, None, interpolation, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]


def _kept_up(before: np.ndarray, now: np.ndarray, met: np.ndarray, error: np.ndarray) -> np.ndarray:
    """``before`` after the camera's own move: Z·(a·x + b·y + c) + t fitted to ``now``, outliers left out."""
    height, width = now.shape
    step = max(1, round((height * width / 20_000) ** 0.5))
    few = (slice(step // 2, None, step),) * 2
    x, y = (_grid(height, width) / (width, height) - 0.5).transpose(2, 0, 1).astype(np.float32)
    use = met[few]
    if use.sum() < MOTION_POINTS:
        return before
    z = before[few][use]
    terms = np.stack([z * x[few][use], z * y[few][use], z, np.ones_like(z)], -1)
    change = _fitted(terms, now[few][use] - z, error[few][use])
    return (before * (1 + change[0] * x + change[1] * y + change[2]) + change[3]).astype(np.float32)


# ------------------------------------------------------------------------------------ films


def check_film(path: Path, fps: float) -> None:
    """Raise InputError for a film that could not be written."""
    check_output(path, (), (".mp4",), new_folder=True)
    if not 0 < fps <= 1000:
        raise InputError(f"--fps {fps:g} is out of range: above 0, up to 1000")


@contextmanager
def film(path: Path, fps: float) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that takes the frames of an MP4 (MPEG-4 part 2), each (h, w, 3) uint8 RGB; the file appears whole at
    the end or not at all. Frames of another size than the first are brought to it. Raises InputError."""
    check_film(path, fps)
    writer: cv2.VideoWriter | None = None
    size, count = (0, 0), 0
    make_folder(path.parent)
    with atomic(path) as temporary:

        def show(frame: np.ndarray) -> None:
            nonlocal writer, size, count
            if writer is None:
                size = (frame.shape[1] // 2 * 2 or 2, frame.shape[0] // 2 * 2 or 2)  # the codec wants even sides
                writer = cv2.VideoWriter(str(temporary), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
                if not writer.isOpened():
                    raise InputError(
                        f"{shown(path)}: OpenCV here writes no MP4, or its folder is full; leave out --film"
                    )
            if (frame.shape[1], frame.shape[0]) != size:
                frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
            count += 1

        try:
            yield show
        finally:
            if writer is not None:
                writer.release()
        if writer is None:
            raise InputError(f"{shown(path)}: there is no frame to show; the film was not written")
        whole = _frames_in(temporary)
        if whole != count:
            cure = "the disk is full? free some space or choose another folder"
            raise InputError(
                f"{shown(path)}: only {whole} of {count} frames were written, so the film is left out: {cure}"
            )


def _frames_in(path: Path) -> int:
    """How many frames of a film can be read."""
    with muted():
        reader, count = cv2.VideoCapture(str(path)), 0
        while reader.grab():
            count += 1
        reader.release()
    return count


def film_frame(result: Prediction, kept: np.ndarray, rgb: np.ndarray | None, span: Range) -> np.ndarray:
    """What a film shows of one frame: its picture and, where ``kept`` (H, W), its depth in the colours of ``span``,
    side by side, uint8."""
    depth = colours(result.depth, kept, span)
    both = [depth] if rgb is None else [np.round(np.clip(rgb, 0, 1) * 255).astype(np.uint8), depth]
    shrink = min(1.0, PANEL_PX / max(result.depth.shape))
    size = (max(1, round(depth.shape[1] * shrink)), max(1, round(depth.shape[0] * shrink)))
    return np.concatenate([cv2.resize(x, size, interpolation=cv2.INTER_AREA) for x in both], axis=1)
