"""Pinhole cameras from four numbers or a file (.json .yaml .pincam .txt); where one stands from another."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crispdepth.atomic import PathLike, opened, shown
from crispdepth.geometry import Camera
from crispdepth.types import InputError, Size

CENTRED = 0.04  # of a side: cameras' principal points are mostly so near the middle
OFF_CENTRE = 0.2  # of a side: a principal point so far from the middle is rarely a camera's own


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

    def doubt(self, size: Size) -> str:
        """What is odd about them for pictures of ``size`` (height, width); empty where nothing is."""
        height, width = size
        if self.width is not None:
            return ""
        off, turned = self._off_centre(width, height), self._off_centre(height, width)
        if off > 2 * CENTRED and turned < CENTRED:
            return (
                f"cx,cy = {self.cx:g},{self.cy:g} is the middle of {height}x{width}, and the picture is "
                f"{width}x{height}: was one of the two turned?"
            )
        if off < OFF_CENTRE:
            return ""
        return (
            f"cx,cy = {self.cx:g},{self.cy:g} is far from the middle of {width}x{height}: "
            "if they are for another size, a .json with width and height too is rescaled"
        )

    def _off_centre(self, width: int, height: int) -> float:
        """How far the axis is from the middle of such a picture, as a share of its side."""
        return max(abs(self.cx / width - 0.5), abs(self.cy / height - 0.5))

    def camera(self, size: Size) -> Camera:
        """The camera for pictures of ``size`` (height, width), rescaled if it was measured at another one.

        Four numbers alone have no size of their own: they are taken for this one, and ``doubt`` says where that looks
        wrong. Raises InputError when the size measured at has another shape.
        """
        height, width = size
        measured = Camera(self.fx, self.fy, self.cx, self.cy, self.width or width, self.height or height)
        if abs(math.log(measured.width / measured.height * height / width)) > 0.02:
            raise InputError(
                f"intrinsics are for {measured.width}x{measured.height}, the picture is {width}x{height}: another shape"
            )
        return measured.resized(size)


@dataclass(frozen=True)
class Stereo:
    """A rectified pair, as Middlebury's calib.txt has it: the left camera with its size, baseline and offset.

    ``doffs_px``: how much farther right the principal point of the right camera is.
    """

    left: Intrinsics
    baseline_m: float
    doffs_px: float

    def depth(self, disparity: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """(H, W) float32 metres, baseline · f / (d + doffs), 0 where not ``valid``. Raises InputError.

        The disparity must have the camera's size: in a resized map its pixels are no longer the camera's.
        """
        height, width = disparity.shape
        if (self.left.height, self.left.width) != disparity.shape:
            wanted = f"{self.left.width}x{self.left.height}"
            raise InputError(
                f"the disparity is {width}x{height}, its calib.txt is for {wanted}: they must have one size"
            )
        shifted = np.where(valid, disparity.astype(np.float64) + self.doffs_px, np.inf)
        if shifted.min() <= 0:
            raise InputError("disparity + doffs is not above 0 everywhere: this calib.txt belongs to another pair")
        return (self.baseline_m * self.left.fx / shifted).astype(np.float32)


MOST_FOCAL_PX = 1e6  # longer ones are mistakes
_MATRICES = ("K", "intrinsics", "camera_matrix", "intrinsic_matrix")


def read_intrinsics(text_or_path: PathLike) -> Intrinsics:
    """Intrinsics from ``"fx,fy,cx,cy"`` or a file.

    ``.json`` has keys fx, fy, cx, cy, or a 3x3 matrix (nested or flat, by rows or by columns) called K,
    intrinsics, camera_matrix or intrinsic_matrix; width and height are optional. ``.yaml`` has the same at its
    top level (also xres, yres; ROS: image_width, image_height). ``.pincam`` (ARKitScenes) has the numbers width,
    height, fx, fy, cx, cy; a Middlebury ``calib.txt`` has cam0; any other ``.txt`` is a matrix, 3x3 (7-Scenes,
    TSDF-fusion's camera-intrinsics.txt) or 4x4 (ScanNet). Raises InputError.
    """
    text = os.fspath(text_or_path)
    suffix = Path(text).suffix.lower()
    if suffix == ".txt":
        return _matrix_in(text) or read_stereo(text).left
    if suffix in _READERS:
        with opened(text) as file:
            return _intrinsics(_READERS[suffix](file.read(2**20).decode("utf-8-sig", "replace")))
    if suffix != ".json":
        try:
            fx, fy, cx, cy = (float(part) for part in text.split(","))
        except ValueError as error:
            cure = "write fx,fy,cx,cy in pixels, or a .json, .yaml, .pincam or .txt file"
            raise InputError(f"intrinsics '{shown(text)}' are not four numbers; {cure}") from error
        return Intrinsics(fx, fy, cx, cy)
    with opened(text) as file:
        found = _json(file.read(2**20))
        if not isinstance(found, dict):
            raise InputError("holds no keys; a .json file needs fx, fy, cx, cy or K")
        return _intrinsics(found)


def _matrix_in(path: str) -> Intrinsics | None:
    """The camera of a .txt of nothing but numbers, 3x3 or 4x4 with K at its upper left; None for other text."""
    with opened(path) as file:
        text = file.read(2**20).decode("utf-8-sig", "replace")
        try:
            numbers = _floats(text)
        except InputError as error:
            if "cam0" in text:
                return None
            cure = (
                "a camera's .txt has the 9 numbers of K, 16, or is a calib.txt; if it is something else, leave it out"
            )
            raise InputError(f"holds no camera; {cure}") from error
        if len(numbers) == 16:
            numbers = [*numbers[0:3], *numbers[4:7], *numbers[8:11]]
        if len(numbers) != 9:
            raise InputError(f"holds {len(numbers)} numbers; a camera's .txt has the 9 of K, 16, or is a calib.txt")
        return _intrinsics({"K": numbers})


def _json(data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError("is no JSON; write the numbers themselves, or a .json file with these keys") from error


def _pincam(text: str) -> dict[str, Any]:
    """ARKitScenes, DATA.md: one line, width height fx fy cx cy."""
    numbers = _floats(text)
    if len(numbers) != 6:
        raise InputError(f"holds {len(numbers)} numbers; a .pincam has width, height, fx, fy, cx, cy")
    width, height, *rest = numbers
    if not (width.is_integer() and height.is_integer()):
        raise InputError("width and height must be whole numbers of pixels")
    return {"width": int(width), "height": int(height), **dict(zip(("fx", "fy", "cx", "cy"), rest, strict=True))}


_NAMES = {"xres": "width", "image_width": "width", "yres": "height", "image_height": "height"}


_LIST = r"\s*(\[[^:]*\]|(?:\n[ \t]*-[^:\n]*)+)"  # [1, 2], [[1, 2], [3, 4]], or a line each


def _yaml(text: str) -> dict[str, Any]:
    """The numbers of ``name: 12.5`` at the top level, and ROS's camera_matrix; nothing else of YAML is needed."""
    found: dict[str, Any] = {}
    text = text.replace("\r\n", "\n")
    for name, value in re.findall(r"^(\w+):[ \t]*([-+.\deE]+)[ \t]*(?:#.*)?$", text, re.MULTILINE):
        try:
            number = float(value)
        except ValueError:
            continue
        name = _NAMES.get(name, name)
        found[name] = int(number) if name in ("width", "height") and number.is_integer() else number
    matrix = re.search(rf"^(?:{'|'.join(_MATRICES)}):(?:\s*\n(?:[ \t]+.*\n)*?[ \t]+data:)?{_LIST}", text, re.MULTILINE)
    return found | ({"K": _floats(re.sub(r"^\s*-", " ", matrix[1], flags=re.MULTILINE))} if matrix else {})


_READERS: dict[str, Callable[[str], dict[str, Any]]] = {".yaml": _yaml, ".yml": _yaml, ".pincam": _pincam}


def _floats(text: str) -> list[float]:
    """All numbers of a text; blanks, commas, semicolons and brackets part them. Raises InputError."""
    words = re.sub(r"[\s,;\[\]()]+", " ", text).split()
    try:
        return [float(word) for word in words]
    except ValueError as error:
        raise InputError(f"'{shown(text)[:60]}' is not only numbers; write them with commas between") from error


def read_stereo(path: PathLike) -> Stereo:
    """A Middlebury ``calib.txt`` (2014 and later): cam0, doffs, baseline in millimetres, width, height.

    Raises InputError.
    """
    with opened(path) as file:
        text = file.read(2**20).decode("utf-8", "replace")
        found = dict(re.findall(r"^\s*(\w+)\s*=\s*(.*?)\s*$", text, re.MULTILINE))
        lacking = [name for name in ("cam0", "doffs", "baseline", "width", "height") if name not in found]
        if lacking:
            raise InputError(f"lacks {', '.join(lacking)}; give the calib.txt of a Middlebury pair")
        (baseline, doffs, width, height) = (_floats(found[k]) for k in ("baseline", "doffs", "width", "height"))
        if not all(len(v) == 1 and math.isfinite(v[0]) for v in (baseline, doffs, width, height)) or baseline[0] <= 0:
            raise InputError("baseline (above 0), doffs, width and height must be one number each")
        size = {"width": int(width[0]), "height": int(height[0])}
        return Stereo(_intrinsics({"K": _floats(found["cam0"]), **size}), baseline[0] / 1000, doffs[0])


def read_extrinsics(text_or_path: PathLike) -> np.ndarray:
    """(4, 4) float64: points of the depth camera, metres, to points of the colour camera.

    12 or 16 numbers, the rows of R|t (and 0 0 0 1), written out or in a ``.txt`` file; or a ``.json`` file with
    these, nested or flat, alone or called extrinsics, transform or T, or with R (or rotation, by rows) and t (or
    translation). A 4x4 matrix stored by columns is told by its last row. Raises InputError.
    """
    text = os.fspath(text_or_path)
    suffix = Path(text).suffix.lower()
    if suffix not in (".json", ".txt"):
        return _rigid(_floats(text))
    with opened(text) as file:
        data = file.read(2**20)
        return _rigid(_floats(data.decode("utf-8-sig", "replace")) if suffix == ".txt" else _extrinsic(_json(data)))


def _extrinsic(found: Any) -> list[float]:
    """The 12 or 16 numbers of a parsed .json."""
    if isinstance(found, dict):
        inner = next((found[key] for key in ("extrinsics", "transform", "T") if key in found), None)
        if inner is not None:
            return _extrinsic(inner)
        turn = _flat(next((found[key] for key in ("R", "rotation") if key in found), []))
        move = _flat(next((found[key] for key in ("t", "translation") if key in found), []))
        if (len(turn), len(move)) != (9, 3):
            raise InputError("lacks R (9 numbers) and t (3 numbers), or a 4x4 matrix called extrinsics")
        return [*turn[0:3], move[0], *turn[3:6], move[1], *turn[6:9], move[2]]
    return _flat(found)


def _flat(rows: Any) -> list[float]:
    rows = rows if isinstance(rows, list) else []
    values = [v for row in rows for v in (row if isinstance(row, list) else [row])]
    return [_number(v, "extrinsics") for v in values]


def _rigid(numbers: list[float]) -> np.ndarray:
    """Checks that 12 or 16 numbers are a rotation and a translation in metres."""
    if len(numbers) not in (12, 16):
        raise InputError(f"extrinsics have {len(numbers)} numbers; write 12 (the rows of R|t) or 16 (a 4x4 matrix)")
    last = [0.0, 0.0, 0.0, 1.0]
    matrix = np.array(numbers + last if len(numbers) == 12 else numbers).reshape(4, 4)
    if matrix[3].tolist() != last:
        matrix = matrix.T
    turn = matrix[:3, :3]
    if not np.isfinite(matrix).all() or matrix[3].tolist() != last:
        raise InputError("extrinsics must be finite and end in the row 0 0 0 1")
    if np.abs(turn @ turn.T - np.eye(3)).max() > 1e-3 or np.linalg.det(turn) < 0:
        raise InputError("the 3x3 part of the extrinsics is no rotation; write the rows of R|t")
    if np.linalg.norm(matrix[:3, 3]) > 5:
        raise InputError("the cameras are over 5 m apart: extrinsics are in metres, not millimetres; divide by 1000")
    return matrix


def _intrinsics(found: dict[str, Any]) -> Intrinsics:
    found = {_NAMES.get(name, name): value for name, value in found.items()}
    matrix = next((found[key] for key in _MATRICES if key in found), None)
    if isinstance(matrix, dict):
        found = {**found, **matrix}
        matrix = matrix.get("data")
    if all(key in found for key in ("fx", "fy", "cx", "cy")):
        numbers = [_number(found[key], key) for key in ("fx", "fy", "cx", "cy")]
    elif matrix is not None:
        numbers = _from_matrix(matrix)
    else:
        names = shown(", ".join(found))[:80] or "none"
        raise InputError(f"lacks fx, fy, cx, cy (it has {names}); add them or a 3x3 K")
    width, height = found.get("width"), found.get("height")
    if not all(v is None or type(v) is int for v in (width, height)):
        raise InputError("width and height must be whole numbers of pixels")
    fx, fy, cx, cy = numbers
    return Intrinsics(fx, fy, cx, cy, width, height)


def _number(value: object, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{key} must be a number, not {shown(value)[:40]}")
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
