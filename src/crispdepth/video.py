"""Depth steadied from frame to frame along the motion seen in the colours, and films of it as MP4."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

import cv2
import numpy as np

from crispdepth.atomic import atomic, check_output, make_folder, shown
from crispdepth.formats.raw import muted
from crispdepth.picture import PANEL_PX, Range, colours
from crispdepth.types import InputError, Prediction, Size

FLOW_PIXELS = 1_000_000  # larger pictures are halved for the optical flow, as often as needed
MOST_FRAMES = 6.0  # as many frames as an average ever counts for, on either side
AHEAD = 3  # frames that a film's frame waits for
TOLERANCE = 3.0  # of the expected error: a value carried over that is farther from the new one has little say
LEAST = 0.01  # of the depth: the least error to expect, and what is expected of a model that does not say
OVERSHOOT = 0.05  # of the depth: a value carried over so far outside what stands around there now is gone
AROUND_PX = 16
ALIKE = 8.0  # times the usual difference of the two pictures, grey levels
MOTION_POINTS = 100  # fewer tell no motion of the camera
LONGEST_SIDE = 2**15 - 2  # what OpenCV's remap takes


@dataclass
class _Frame:
    """A frame: its own result, its colours in grey, the flow from it to the one before and back (None: nothing of its
    size before it), its depth with that carried over from one side, and for how many frames each pixel counts."""

    result: Prediction
    grey: np.ndarray
    flows: tuple[np.ndarray, np.ndarray] | None
    depth: np.ndarray
    count: np.ndarray


class Steady:
    """One result after another, each averaged with those before it along the motion (call it, in order).

    1. **Motion**: dense optical flow between the two pictures (DIS, Kroeger et al., ECCV 2016), both ways. Where
       going there and coming back does not meet (Sundaram et al., ECCV 2010, eq. 5), nothing is carried over.
    2. **The camera's own way**: of a scene at rest, each point's depth after the move is
       Z' = Z·(a·x + b·y + c) + t, with x, y its place in the picture; these four numbers are fitted to the two depth
       maps robustly, so that depth carried over keeps up with the camera.
    3. **What is carried over** counts for up to MOST_FRAMES frames. It counts less the farther it is from the new
       depth, in units of the error to expect, and the more the two pictures differ there; and not at all where no
       depth like it stands around there now: what has gone leaves no ghost.

    A frame of another size, or after a cut, begins anew.
    """

    def __init__(self) -> None:
        self._last: _Frame | None = None

    def __call__(self, result: Prediction, rgb: np.ndarray | None) -> Prediction:
        """``result`` steadied; ``rgb`` (H, W, 3) float in 0..1 is its picture. Raises InputError without one."""
        return replace(result, depth=self.step(result, rgb).depth)

    def step(self, result: Prediction, rgb: np.ndarray | None) -> _Frame:
        """The same, as the frame that the next one is averaged with."""
        if rgb is None or rgb.shape[:2] != result.depth.shape:
            raise InputError("--video follows the motion in the colours: pass --rgb")
        check_sides(result.depth.shape)
        grey = cv2.cvtColor(np.round(np.clip(rgb, 0, 1) * 255).astype(np.uint8), cv2.COLOR_RGB2GRAY)
        frame, last = _alone(result, grey), self._last
        if last is not None and last.grey.shape == grey.shape:
            frame.flows = (_flow(grey, last.grey), _flow(last.grey, grey))
            frame.depth, frame.count = _averaged(frame, last, *frame.flows)
        self._last = frame
        return frame


class SteadyFilm:
    """As ``Steady``, with AHEAD frames to come as well: each result is the mean of both sides', its own counted once.

    ``push`` takes the frames in order, ``pop`` gives them back in that order: when ``full``, or at the end of the film.
    """

    def __init__(self) -> None:
        self._steady = Steady()
        self._waiting: deque[_Frame] = deque()

    @property
    def full(self) -> bool:
        """Whether the first frame that waits has seen AHEAD more."""
        return len(self._waiting) > AHEAD

    def push(self, result: Prediction, rgb: np.ndarray | None) -> None:
        """Take one frame more, as ``Steady``. Raises InputError; the frame is not taken then."""
        self._waiting.append(self._steady.step(result, rgb))

    def pop(self) -> Prediction:
        """The frame that waits longest, steadied; it waits no more, even where this fails."""
        frame = self._waiting.popleft()
        after = _from_after(frame, self._waiting)
        depth = frame.count * frame.depth + after.count * after.depth - frame.result.depth
        return replace(frame.result, depth=depth / (frame.count + after.count - 1))


def check_sides(size: Size) -> None:
    """Raise InputError for results (height, width) that no motion can be followed in."""
    if max(size) > LONGEST_SIDE:
        asked = f"{size[1]}x{size[0]}"
        raise InputError(f"--video takes sides of up to {LONGEST_SIDE} pixels, not {asked}: ask for less with --size")


def _alone(result: Prediction, grey: np.ndarray) -> _Frame:
    """A frame with nothing carried over."""
    return _Frame(result, grey, None, result.depth, np.ones_like(result.depth))


def _from_after(frame: _Frame, later: Iterable[_Frame]) -> _Frame:
    """``frame`` with what ``later`` frames, in order, carry back to it, up to the first that begins anew."""
    film = [frame, *takewhile(lambda each: each.flows is not None, later)]
    joined = _alone(film[-1].result, film[-1].grey)
    for each, after in zip(film[-2::-1], film[:0:-1], strict=True):
        assert after.flows is not None
        joined, last = _alone(each.result, each.grey), joined
        joined.depth, joined.count = _averaged(joined, last, *after.flows[::-1])
    return joined


def _averaged(frame: _Frame, past: _Frame, there: np.ndarray, back: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The depth of ``frame`` with that of ``past`` in it, and for how many frames each pixel counts."""
    place, met = _place(there, back)
    before = carried(past.depth, place)
    count = carried(past.count, place, cv2.INTER_LINEAR)
    now, its_error = frame.result.depth, frame.result.error
    error = np.maximum(LEAST * np.abs(now), 0 if its_error is None else its_error)
    error = np.maximum(error, 1e-4 * np.abs(now).max() + 1e-12)  # ``relative`` may be 0
    before = _kept_up(before, now, met, error)
    low, high = _around(now)
    room = OVERSHOOT * np.abs(now)
    near = np.exp(-0.5 * ((before - now) / (TOLERANCE * error)) ** 2)
    alike = _alike(frame.grey, past.grey, place)
    weight = count * near * alike * (met & (before > low - room) & (before < high + room))
    return (now + weight * before) / (1 + weight), np.minimum(1 + weight, MOST_FRAMES)


def way_back(grey: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel of ``grey`` (H, W) uint8 was in ``before``: columns and rows (H, W, 2) float32, and where
    that is sure: the flow back and the flow forth meet, inside the picture."""
    return _place(_flow(grey, before), _flow(before, grey))


def _place(there: np.ndarray, back: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same, of the flow (H, W, 2) to the other picture and the flow back."""
    height, width = there.shape[:2]
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    place = np.stack([columns, rows], -1) + there
    returned = cv2.remap(back, place, None, cv2.INTER_LINEAR)  # type: ignore[call-overload]
    gap = ((there + returned) ** 2).sum(-1)
    met = gap < 0.01 * ((there**2).sum(-1) + (returned**2).sum(-1)) + 0.5
    inside = (place >= 0).all(-1) & (place[..., 0] <= width - 1) & (place[..., 1] <= height - 1)
    return place, met & inside


def _alike(grey: np.ndarray, before: np.ndarray, place: np.ndarray) -> np.ndarray:
    """1 where the two pictures show the same, less where they differ by more than ALIKE times what is usual here."""
    there = cv2.remap(before, place, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    gap = cv2.blur(cv2.absdiff(grey, there).astype(np.float32), (3, 3))
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
    """Optical flow (H, W, 2), pixels: where each pixel of ``start`` is in ``end``, less where it was."""
    height, width = start.shape
    if min(height, width) < 32:  # too small for its patches
        return np.zeros((height, width, 2), np.float32)
    halvings = 0
    while (height >> halvings) * (width >> halvings) > FLOW_PIXELS:
        halvings += 1
    size = (max(32, width >> halvings), max(32, height >> halvings))
    small = [cv2.resize(x, size, interpolation=cv2.INTER_AREA) if halvings else x for x in (start, end)]
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(small[0], small[1], None)  # type: ignore[call-overload]
    if not halvings:
        return flow
    flow = cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR)
    return flow * np.array([width / size[0], height / size[1]], np.float32)


def carried(x: np.ndarray, place: np.ndarray, interpolation: int = cv2.INTER_CUBIC) -> np.ndarray:
    """``x`` (H, W) at ``place`` (H, W, 2); beyond the border it is continued."""
    return cv2.remap(x, place, None, interpolation, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]


def _kept_up(before: np.ndarray, now: np.ndarray, met: np.ndarray, error: np.ndarray) -> np.ndarray:
    """``before`` after the camera's own move: Z·(a·x + b·y + c) + t fitted to ``now``, outliers left out."""
    height, width = now.shape
    step = max(1, round((height * width / 20_000) ** 0.5))
    few = (slice(step // 2, None, step),) * 2
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    x, y = columns / width - 0.5, rows / height - 0.5
    use = met[few]
    if use.sum() < MOTION_POINTS:
        return before
    z = before[few][use]
    terms = np.stack([z * x[few][use], z * y[few][use], z, np.ones_like(z)], -1)
    change = _fitted(terms, now[few][use] - z, error[few][use])
    return (before * (1 + change[0] * x + change[1] * y + change[2]) + change[3]).astype(np.float32)


def _around(depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest and farthest within AROUND_PX."""
    kernel = np.ones((2 * AROUND_PX + 1,) * 2, np.uint8)
    return cv2.erode(depth, kernel), cv2.dilate(depth, kernel)


# ------------------------------------------------------------------------------------ films


@contextmanager
def film(path: Path, fps: float) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that takes the frames of an MP4 (MPEG-4 part 2), each (h, w, 3) uint8 RGB; the file appears whole at
    the end or not at all. Frames of another size than the first are brought to it. Raises InputError."""
    check_output(path, (), (".mp4",), new_folder=True)
    if not 0 < fps <= 1000:
        raise InputError(f"--fps {fps:g} is out of range: above 0, up to 1000")
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


def film_frame(result: Prediction, rgb: np.ndarray | None, span: Range) -> np.ndarray:
    """What a film shows of one frame: its picture and its depth in the colours of ``span``, side by side, uint8."""
    depth = colours(result.depth, np.ones_like(result.valid), span)
    both = [depth] if rgb is None else [np.round(np.clip(rgb, 0, 1) * 255).astype(np.uint8), depth]
    shrink = min(1.0, PANEL_PX / max(result.depth.shape))
    size = (max(1, round(depth.shape[1] * shrink)), max(1, round(depth.shape[0] * shrink)))
    return np.concatenate([cv2.resize(x, size, interpolation=cv2.INTER_AREA) for x in both], axis=1)


def in_order(names: Sequence[str]) -> list[int]:
    """Which name comes first, second …: numbers in them count as numbers, so 2 comes before 10."""

    def key(name: str) -> list[tuple[int, int, str]]:
        return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"([0-9]+)", name)]

    return sorted(range(len(names)), key=lambda i: key(names[i]))
