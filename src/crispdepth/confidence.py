"""How far depth can be trusted: the sensor's own levels read, a share of 0..1 given back."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from crispdepth.types import InputError, Size

HALF = 0.01  # of the depth: an expected error of this size makes the confidence 1/2


@dataclass(frozen=True)
class Scale:
    """How a sensor counts confidence: from 0 to ``full``. ``least`` is what counts unless the user says, and ``most``
    the end of what he may say: on the sensor's own scale for ARKit's levels, else a share of 0..1."""

    name: str
    full: float
    least: float = 0.5
    most: float = 1


ARKIT = Scale("ARKit's levels 0, 1, 2", 2, 1, 2)


def check_kind(values: np.ndarray) -> None:
    """Raise InputError for what is no confidence map (h, w), whatever its scale."""
    if values.dtype.kind not in "buif" or values.ndim != 2 or not values.size:
        raise InputError(f"confidence holds {values.dtype} {values.shape}: it must be (height, width) numbers")


def scale_of(values: np.ndarray, full: float | None = None) -> Scale:
    """The scale of a confidence map (h, w), or of the ends of several: up to ``full`` if it is known.

    Else whole numbers up to 2 are ARKit's levels, those that pass 100 a share of 255; floats are a share of 0..1
    (NaN: none), and so are bools. Raises InputError for anything else: what ends at 100 or below may be of 100 or 255.
    """
    check_kind(values)
    whole = values.dtype.kind in "ui"
    known = values[~np.isnan(values)] if values.dtype.kind == "f" else values
    low, high = (float(known.min()), float(known.max())) if known.size else (np.nan, np.nan)
    if full is not None and not 0 < full <= 65535:
        raise InputError(f"--confidence-max {full:g} (confidence_max=…) is out of range: above 0, up to 65535")
    if full is None and whole and ARKIT.full < high <= 100 and low >= 0:
        raise InputError(f"confidence ends at {high:g}: add --confidence-max 100 or 255 (confidence_max=…)")
    if full is None:
        full = (ARKIT.full if high <= ARKIT.full else 255) if whole else 1
    if not 0 <= low <= high <= full:
        raise InputError(
            f"confidence spans {low:g}..{high:g}, and {full:g} is taken for sure: whole numbers of 0, 1, 2 (ARKit) or "
            "0..255 and floats of 0..1 are known; "
            "say the end of others, such as --confidence-max 100 (confidence_max=100)"
        )
    return ARKIT if whole and full == ARKIT.full else Scale(f"0..{full:g}", full)


def trusted(values: np.ndarray, least: float | None = None, full: float | None = None) -> np.ndarray:
    """(h, w) bool: where the confidence ``values`` is ``least`` or more; its scale by ``scale_of``.

    ``least`` is counted on that scale; None means 1 for ARKit's levels, 0.5 for a share. Raises InputError.
    """
    scale = scale_of(values, full)
    least = scale.least if least is None else least
    if not 0 <= least <= scale.most:
        wrong = f"--min-confidence {least:g} (min_confidence=…) is out of range"
        raise InputError(f"{wrong}: it is counted from 0 to {scale.most:g} here")
    shares = values / (scale.full / scale.most)
    return np.nan_to_num(shares.astype(np.float32), nan=-1) >= np.float32(least)


def ends(values: np.ndarray) -> np.ndarray:
    """(1, 2): the least and the most of a map, of its own type; ``scale_of`` takes those of several maps together."""
    check_kind(values)
    known = values[~np.isnan(values)] if values.dtype.kind == "f" else values
    return np.array([[known.min(), known.max()] if known.size else [0, 0]], values.dtype)


def from_error(error: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Confidence 1 / (1 + error / (1 % of the depth)), (H, W) float32: 1/2 where 1 % is expected; no depth, 0."""
    full, share = np.maximum(depth, 1e-9), np.maximum(error, 0)  # written over: maps may be huge
    full *= HALF
    share /= full
    share += 1
    np.reciprocal(share, out=share)
    share[depth <= 0] = 0
    return share.astype(np.float32, copy=False)


def as_error(confidence: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """``from_error`` undone: the error that a confidence above 0 says."""
    return ((1 / confidence - 1) * HALF * np.maximum(depth, 0)).astype(np.float32)


def from_distance(valid: np.ndarray, size: Size) -> np.ndarray:
    """Confidence 1 / (1 + low pixels to the nearest reading), at ``size``, float32; ``valid`` (h, w) bool.

    1 where there is a reading, whatever it is worth: all that is known without a model that estimates its error.
    """
    far = cv2.distanceTransform((~valid).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    near = torch.from_numpy(1 / (1 + far.astype(np.float32)))[None, None]
    return F.interpolate(near, size, mode="nearest-exact")[0, 0].numpy()
