"""A pinhole camera from four numbers or a .json file."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from crispdepth.atomic import PathLike, opened, shown
from crispdepth.types import InputError


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera in pixels; ``width`` and ``height`` of the picture it was measured for, if known."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int | None = None
    height: int | None = None

    def __post_init__(self) -> None:
        if not all(math.isfinite(v) for v in (self.fx, self.fy, self.cx, self.cy)):
            raise InputError("intrinsics must be finite numbers: fx,fy,cx,cy in pixels")
        if self.fx <= 0 or self.fy <= 0:
            raise InputError(f"focal lengths must be above 0 pixels, not {self.fx:g} and {self.fy:g}")
        if (self.width is None) != (self.height is None) or (self.width or 1) < 1 or (self.height or 1) < 1:
            raise InputError("intrinsics need both width and height, in pixels, or neither")


_MATRICES = ("K", "intrinsics", "camera_matrix", "intrinsic_matrix")


def read_intrinsics(text_or_path: PathLike) -> Intrinsics:
    """Intrinsics from ``"fx,fy,cx,cy"`` or a ``.json`` file.

    The file has keys fx, fy, cx, cy, or a 3x3 matrix (nested or flat, by rows or by columns) called K,
    intrinsics, camera_matrix or intrinsic_matrix; width and height are optional. Raises InputError.
    """
    text = os.fspath(text_or_path)
    if not text.lower().endswith(".json"):
        try:
            fx, fy, cx, cy = (float(part) for part in text.split(","))
        except ValueError as error:
            cure = "write fx,fy,cx,cy in pixels, or a .json file"
            raise InputError(f"intrinsics '{shown(text)}' are not four numbers; {cure}") from error
        return Intrinsics(fx, fy, cx, cy)
    with opened(text) as file:
        try:
            found = json.loads(file.read(2**20).decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise InputError("is no JSON; write fx,fy,cx,cy or a .json file with these keys") from error
        if not isinstance(found, dict):
            raise InputError("holds no keys; a .json file needs fx, fy, cx, cy or K")
        return _intrinsics(found)


def _intrinsics(found: dict[str, Any]) -> Intrinsics:
    matrix = next((found[key] for key in _MATRICES if key in found), None)
    if isinstance(matrix, dict):
        found = {**found, **matrix}
        matrix = matrix.get("data")
    if all(key in found for key in ("fx", "fy", "cx", "cy")):
        numbers = [_number(found[key], key) for key in ("fx", "fy", "cx", "cy")]
    elif matrix is not None:
        numbers = _from_matrix(matrix)
    else:
        names = shown(", ".join(found))[:80]
        raise InputError(f"lacks fx, fy, cx, cy (it has {names}); add them or a 3x3 K")
    width, height = found.get("width"), found.get("height")
    if not all(v is None or type(v) is int for v in (width, height)):
        raise InputError("width and height must be whole numbers of pixels")
    fx, fy, cx, cy = numbers
    return Intrinsics(fx, fy, cx, cy, width, height)


def _number(value: object, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{key} must be a number of pixels, not {shown(value)[:40]}")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _from_matrix(matrix: object) -> list[float]:
    rows = matrix if isinstance(matrix, list) else []
    flat = [v for row in rows for v in (row if isinstance(row, list) else [row])]
    if len(flat) != 9:
        raise InputError("the camera matrix must be 3x3; write fx, fy, cx, cy instead")
    k = np.array([_number(v, "the camera matrix") for v in flat]).reshape(3, 3)
    if k[2].tolist() != [0, 0, 1]:
        k = k.T  # Open3D and ARKit store columns
    if k[2].tolist() != [0, 0, 1] or k[1, 0] != 0 or abs(k[0, 1]) > 1e-3 * abs(k[0, 0]):
        raise InputError("the camera matrix must be [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]; write fx, fy, cx, cy")
    return [float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2])]
