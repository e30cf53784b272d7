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
    """How a sensor counts confidence: from 0 to ``most``; ``least`` is what counts unless the user says."""

    name: str
    least: float
    most: float


ARKIT = Scale("ARKit's levels 0, 1, 2", 1, 2)
SHARE = Scale("0..1", 0.5, 1)


def scale_of(values: np.ndarray) -> Scale:
    """The scale of a confidence map (h, w): whole numbers up to 2 are ARKit's levels, up to 255 a share in
    255ths; floats are a share of 0..1 (NaN: none), and so are bools. Raises InputError for anything else.
    """
    kind = values.dtype.kind
    if kind not in "buif" or values.ndim != 2 or not values.size:
        raise InputError(f"confidence holds {values.dtype} {values.shape}: it must be (height, width) numbers")
    whole = kind != "f"
    known = values if whole else values[~np.isnan(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (np.nan, np.nan)
    if not 0 <= low <= high <= (255 if whole else 1):
        raise InputError(
            f"confidence spans {low:g}..{high:g}: it must be whole numbers, 0 1 2 (ARKit) or 0..255, or floats of 0..1"
        )
    return ARKIT if kind in "ui" and high <= ARKIT.most else SHARE


def trusted(values: np.ndarray, least: float | None = None) -> np.ndarray:
    """(h, w) bool: where the confidence ``values`` is ``least`` or more; its scale by ``scale_of``.

    ``least`` is counted on that scale; None means 1 for ARKit's levels, 0.5 for a share. Raises InputError.
    """
    scale = scale_of(values)
    least = scale.least if least is None else least
    if not 0 <= least <= scale.most:
        raise InputError(f"--min-confidence {least:g} is out of range: the confidence is on the scale {scale.name}")
    shares = values / 255 if values.dtype.kind in "ui" and scale is SHARE else values
    return np.nan_to_num(shares.astype(np.float32), nan=-1) >= np.float32(least)


def from_error(error: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Confidence 1 / (1 + error / (1 % of the depth)), (H, W) float32: 1/2 where 1 % is expected; no depth, 0."""
    return np.where(depth > 0, 1 / (1 + np.maximum(error, 0) / (HALF * np.maximum(depth, 1e-9))), 0).astype(np.float32)


def from_distance(valid: np.ndarray, size: Size) -> np.ndarray:
    """Confidence 1 / (1 + low pixels to the nearest reading), at ``size``, float32; ``valid`` (h, w) bool.

    1 where there is a reading, whatever it is worth: all that is known without a model that estimates its error.
    """
    far = cv2.distanceTransform((~valid).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    near = torch.from_numpy(1 / (1 + far.astype(np.float32)))[None, None]
    return F.interpolate(near, size, mode="nearest-exact")[0, 0].numpy()
