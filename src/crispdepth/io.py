"""Read and write depth with its unit, confidence, pictures, labels and points."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import IO

import numpy as np

from crispdepth.atomic import PathLike, atomic, opened, shown
from crispdepth.confidence import check_kind
from crispdepth.extras import late
from crispdepth.formats.exr import exr_bytes, read_exr_depth
from crispdepth.formats.numpy_pfm import (
    npy_bytes,
    npz_bytes,
    pfm_bytes,
    read_npy_depth,
    read_npz_depth,
    read_pfm_depth,
)
from crispdepth.formats.ply import ply_bytes
from crispdepth.formats.png_tiff import (
    PICTURES,
    is_deep_grey,
    jpeg_bytes,
    label_bytes,
    png_bytes,
    read_colour,
    read_png_depth,
    read_png_label,
    read_tiff_depth,
    tiff_bytes,
)
from crispdepth.formats.raw import Raw, check_size, sniff
from crispdepth.types import InputError
from crispdepth.units import UNITS, Unit, parse_unit

DEPTH_SUFFIXES = (".png", ".tif", ".tiff", ".exr", ".pfm", ".npy", ".npz")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
NO_READING_M = 65504.0  # the end of half floats: what is so far was not measured, but written by a renderer
LEAST_STEPS = 5  # of a 16-bit file, for a median: less is mostly a wrong unit
USUAL_FAR_M = 1000.0  # readings beyond are mostly a wrong unit
ROWS = 256  # of a map, brought to whole numbers at once
CONFIDENCE_SUFFIXES = (".png", ".exr", ".npy")  # a share in 8 bits; the two others hold the expected error

# ---------------------------------------------------------------------------------- reading


@dataclass(frozen=True, eq=False)
class DepthFile:
    """A depth map as read.

    ``depth``: (H, W) float32, metres (own values for ``disparity`` and ``relative``), 0 at holes.
    ``valid``: (H, W) bool, False at holes. ``unit``: the file's, such as ``mm``. ``stored``: its dtype.
    ``note``: what was made of its values while they were read.
    """

    depth: np.ndarray
    valid: np.ndarray
    unit: str
    stored: str
    note: str = ""

    @property
    def depth_unit(self) -> str:
        """The unit of ``depth``: ``m``, ``disparity`` or ``relative``."""
        return parse_unit(self.unit).depth_unit

    @cached_property
    def holes(self) -> float:
        """Share of pixels without a reading, 0..1."""
        return float(1 - self.valid.mean())

    @cached_property
    def median(self) -> float:
        """Median reading, in the unit of ``depth``: a wrong unit is seen here at once."""
        return float(np.median(self.depth[self.valid]))


def read_depth(
    path: PathLike, unit: str | None = None, nan_holes: bool = False, valid: np.ndarray | None = None
) -> DepthFile:
    """A depth map, with its mask, of an 8/16-bit PNG, TIFF, EXR, PFM, npy or npz file, Hypersim's HDF5, or the one in a
    HEIC photo.

    ``unit`` is a name in ``UNITS``; integer files must be given one, floating-point files default to metres (an npz of
    ours and a HEIC name their own). 0 and negative values are holes, but not in ``relative``. NaN, inf and floats of
    NO_READING_M and more are holes in EXR, PFM and HDF5, elsewhere only with ``nan_holes``. ``valid`` (H, W) bool marks
    the readings where the file itself does not; what stands elsewhere is not looked at. Raises InputError, one line,
    for anything wrong.
    """
    row = None if unit is None else parse_unit(unit)
    with _reading(path) as (file, kind):
        if kind not in _DEPTH_READERS:
            known, why = ", ".join(_DEPTH_READERS), _NO_DEPTH.get(kind, "")
            raise InputError(f"is {kind or 'no known format'}{why}, not a depth file; give {known}")
        raw = _DEPTH_READERS[kind](file)
        if valid is not None:
            valid = valid.astype(bool)
            if valid.shape != raw.values.shape:
                raise InputError(f"valid is {valid.shape}, but the depth is {raw.values.shape}: they must match")
            raw = replace(raw, valid=valid if raw.valid is None else valid & raw.valid)
        return _in_metres(raw, row, nan_holes)


def decode_depth(
    values: np.ndarray, unit: str | None = None, valid: np.ndarray | None = None, nan_holes: bool = False
) -> DepthFile:
    """What ``read_depth`` does, for an array (H, W) that is in memory already, stored in ``unit``.

    ``valid`` (H, W) bool marks the readings; what stands elsewhere is not looked at. Raises InputError.
    """
    raw = Raw(values, None if valid is None else valid.astype(bool))
    return _in_metres(raw, None if unit is None else parse_unit(unit), nan_holes)


def _default_unit(raw: Raw) -> Unit:
    if raw.unit is not None:
        return parse_unit(raw.unit)
    if raw.values.dtype.kind == "f":
        return UNITS["m"]
    cure = f"add --unit with one of {', '.join(UNITS)} (unit=…)"
    raise InputError(f"holds whole numbers ({raw.values.dtype}) and no unit; {cure}")


def _in_metres(raw: Raw, row: Unit | None, nan_holes: bool) -> DepthFile:
    values = raw.values
    if values.dtype.kind not in "iuf":
        raise InputError(f"depth array holds {values.dtype}, not numbers fit for it; save plain float32")
    unit = row or _default_unit(raw)
    valid = np.ones(values.shape, bool) if raw.valid is None else raw.valid
    finite = np.isfinite(values)
    end = np.inf if unit.metres is None or values.dtype.kind != "f" else NO_READING_M / unit.metres
    beyond = finite & (np.abs(values) >= end)
    bad, far = int((valid & ~finite).sum()), int((valid & beyond).sum())
    if (bad or far) and not (raw.nan_is_hole or nan_holes):
        what = f"NaN or inf{f', or {NO_READING_M:.0f} m and more' if far else ''}"
        cure = "add --nan-holes (nan_holes=True) to make them holes"
        raise InputError(f"{bad + far} of {values.size} values are {what}; {cure}")
    valid = valid & finite & ~beyond
    if unit.name == "sunrgbd":
        values = _rotated(values)
    with np.errstate(over="ignore", invalid="ignore"):
        scale = 1.0 if unit.metres is None else unit.metres
        depth = (values if scale == 1 else values * np.float64(scale)).astype(np.float32)
    if (valid & ~np.isfinite(depth)).any():
        raise InputError("values are too large for float32; check the file or its unit")
    if unit.name != "relative":
        valid &= depth > 0
    if not valid.any():
        raise InputError(f"no reading in {values.size} pixels (all are holes); give a map with depth in it")
    depth[~valid] = 0
    note, full = raw.note, 0
    if far and not note:
        note = f"{far} readings of {NO_READING_M:.0f} m and more are holes: so renderers write that nothing is there"
    if unit.metres is not None and unit.name != "sunrgbd" and values.dtype == np.uint16:
        full = int((valid & (values == 65535)).sum())
    if full and not note:
        note = (
            f"{full} readings are 65535, the end of 16 bits: where that means no reading (7-Scenes), make them 0 first"
        )
    return DepthFile(depth, valid, unit.name, str(raw.values.dtype), note)


def _rotated(values: np.ndarray) -> np.ndarray:
    """SUN RGB-D stores millimetres with the bits rotated left by three (its toolbox, read3dPoints.m)."""
    if values.dtype.kind not in "iu" or values.min() < 0 or values.max() > 65535:
        raise InputError("unit sunrgbd is for 16-bit whole numbers; choose another --unit (unit=…)")
    bits = values.astype(np.uint16)
    return (bits >> 3) | (bits << 13)


def read_rgb(path: PathLike) -> np.ndarray:
    """(H, W, 3) float32 in 0..1 of a JPEG, PNG, TIFF, WebP, BMP or HEIC picture, 8 or 16 bits.

    Turned upright by its EXIF tag; grey and palettes become RGB, alpha is dropped. Raises InputError.
    """
    with _reading(path) as (file, kind):
        if kind not in _COLOUR_READERS:
            raise InputError(f"is {kind or 'no known format'}; give a {', '.join(_COLOUR_READERS)} picture")
        pixels = _COLOUR_READERS[kind](file)
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def holds_both(path: PathLike) -> bool:
    """Whether one file may be picture and depth at once, as a phone's portraits are: by its extension."""
    return _KINDS.get(Path(path).suffix.lower()) == "HEIC"


def is_depth(path: PathLike) -> bool:
    """Whether a file says by its format that it is no colour picture: EXR, PFM, npy, npz, deep grey PNG or TIFF.

    Only its header is read. False where that cannot be.
    """
    with suppress(InputError), _reading(path) as (file, kind):
        return kind in _DEPTH_READERS and (
            kind not in _COLOUR_READERS or (kind in PICTURES and is_deep_grey(file, kind))
        )
    return False


def read_label(path: PathLike) -> np.ndarray:
    """(H, W) uint8 class numbers as stored in an 8-bit grey or palette PNG. Raises InputError."""
    with _reading(path) as (file, kind):
        if kind != "PNG":
            raise InputError(f"is {kind or 'no known format'}; labels are 8-bit grey or palette PNG")
        return read_png_label(file)


def read_confidence(path: PathLike) -> np.ndarray:
    """(H, W) confidence as stored in a depth file's format, such as ARKit's 8-bit PNG of 0, 1, 2.

    ``confidence.scale_of`` says what the values mean. Raises InputError.
    """
    with _reading(path) as (file, kind):
        if kind not in _DEPTH_READERS:
            raise InputError(f"is {kind or 'no known format'}; give the confidence as {', '.join(_DEPTH_READERS)}")
        values = _DEPTH_READERS[kind](file).values
        check_kind(values)
        return values


@contextmanager
def _reading(path: PathLike) -> Iterator[tuple[IO[bytes], str]]:
    """The open file and its format by content ("" when unknown); errors mention a wrong extension."""
    with opened(path) as file:
        kind = sniff(file.read(16)) or ""
        file.seek(0)
        suffix = Path(path).suffix.lower()
        try:
            yield file, kind
        except InputError as error:
            if not kind or _KINDS.get(suffix, kind) == kind:
                raise
            raise InputError(f"named {suffix}, but its content is {kind}: {error}") from error


# ---------------------------------------------------------------------------------- writing


def write_depth(
    path: PathLike,
    depth: np.ndarray,
    valid: np.ndarray | None = None,
    unit: str = "m",
    out_unit: str | None = None,
) -> None:
    """Writes ``depth`` (H, W) by the extension of ``path``, atomically.

    ``unit`` is the array's: ``m``, ``disparity`` or ``relative``. ``.png`` is 16-bit, in ``out_unit``
    (millimetres by default, own values rounded); ``.tif`` is float32, or 16-bit when ``out_unit`` is a
    16-bit unit of metric depth; ``.exr`` (channel Z), ``.pfm``, ``.npy``, ``.npz`` (depth, valid, unit) are
    float32, scaled when ``out_unit`` asks. Without ``valid``, finite values above 0 are readings (finite
    ones in ``relative``). Holes are written as 0; in ``relative``, where 0 is a value, as NaN, and 16-bit
    files keep 0 there. A reading below half a 16-bit step is written as 1, never as a hole. Raises
    InputError.
    """
    suffix = Path(path).suffix.lower()
    try:
        if suffix not in DEPTH_SUFFIXES:
            raise InputError(f"cannot write depth as '{suffix}'; use one of {', '.join(DEPTH_SUFFIXES)}")
        depth, valid = _checked(depth, valid, unit)
        row = _target_unit(suffix, unit, out_unit)
        stored = _whole_numbers(depth, valid, row) if _is_whole(suffix, row) else _floats(depth, valid, row)
        data = npz_bytes(stored, valid, row.name) if suffix == ".npz" else _ENCODERS[suffix](stored)
    except InputError as error:
        raise InputError(f"{shown(path)}: {error}") from error
    _write(path, data)


def check_holds(path: PathLike, low: DepthFile, out_unit: str | None) -> None:
    """Raise InputError, before any work, where ``path`` cannot hold what is made of ``low``: its unit, metres that
    16 bits are too few for, or own values (disparity, relative) too close together for whole numbers."""
    suffix, values = Path(path).suffix.lower(), low.depth[low.valid]
    try:
        row = _target_unit(suffix, low.depth_unit, out_unit)
        if _is_whole(suffix, row) and row.metres is None:
            _check_own_values(values, np.rint(values), values_between=True)
        elif _is_whole(suffix, row):
            _whole_numbers(low.depth, low.valid, row)
            if low.median < LEAST_STEPS * (row.metres or 1):
                raise InputError(
                    f"16-bit {row.name} has no steps for so little; is --unit {low.unit} right? else use .exr"
                )
    except InputError as error:
        said = f"the depth has a median of {low.median:.4g} {low.depth_unit} (--unit {low.unit})"
        raise InputError(f"{shown(path)}: {error}; {said}") from error


def check_unit(path: PathLike, unit: str, out_unit: str | None) -> None:
    """Raise InputError where ``path`` cannot hold depth of ``unit`` as ``out_unit``, whatever its values."""
    try:
        _target_unit(Path(path).suffix.lower(), unit, out_unit)
    except InputError as error:
        raise InputError(f"{shown(path)}: {error}") from error


def _is_whole(suffix: str, unit: Unit) -> bool:
    """Whether files of this extension hold whole numbers of ``unit``, 16 bits each."""
    return suffix == ".png" or (suffix in (".tif", ".tiff") and unit.integer and unit.metres is not None)


def _write(path: PathLike, data: bytes) -> None:
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def _checked(depth: np.ndarray, valid: np.ndarray | None, unit: str) -> tuple[np.ndarray, np.ndarray]:
    depth = np.asarray(depth)
    if unit not in ("m", "disparity", "relative"):
        raise InputError(f"an array's unit is m, disparity or relative, not {shown(unit)}; pass metres")
    if depth.ndim != 2 or depth.dtype.kind not in "fiu":
        cure = "pass its .depth" if depth.dtype == object else "pass one map"
        raise InputError(f"depth must be (H, W) numbers, not {depth.dtype} {depth.shape}; {cure}")
    check_size(*depth.shape)
    legal = np.isfinite(depth) & ((depth > 0) | (unit == "relative"))
    if valid is None:
        valid = legal
    valid = np.asarray(valid)
    if valid.shape != depth.shape or valid.dtype != bool:
        raise InputError(f"valid must be bool of shape {depth.shape}, not {valid.dtype} of {valid.shape}")
    wrong = int((valid & ~legal).sum())
    if wrong:
        limit = "finite" if unit == "relative" else "finite and above 0"
        raise InputError(f"{wrong} valid pixels are not {limit}; mark them False in valid")
    if not valid.any():
        raise InputError("no valid pixel to write; pass a map with depth in it")
    return depth, valid


def _target_unit(suffix: str, unit: str, out_unit: str | None) -> Unit:
    row = parse_unit(out_unit or ("mm" if suffix == ".png" and unit == "m" else unit))
    if row.depth_unit != unit:
        wanted = "a metric unit such as mm" if unit == "m" else unit
        raise InputError(f"{unit} depth cannot be written as {row.name}; choose --out-unit {wanted} (out_unit=…)")
    if suffix == ".png" and not row.integer:
        raise InputError("a PNG holds whole numbers, no metres; choose --out-unit mm (out_unit='mm'), or .exr")
    if suffix not in (".png", ".tif", ".tiff") and row.name == "sunrgbd":
        raise InputError("sunrgbd is for 16-bit files; write .png, or choose --out-unit mm (out_unit='mm')")
    return row


def _floats(depth: np.ndarray, valid: np.ndarray, unit: Unit) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        scale = 1.0 if unit.metres is None else unit.metres
        stored = (depth if scale == 1 else depth / np.float64(scale)).astype(np.float32)
    if not np.isfinite(stored[valid]).all():
        raise InputError("values are too large for float32; check the depth or choose another --out-unit (out_unit=…)")
    stored[~valid] = np.nan if unit.name == "relative" else 0
    return stored


def _whole_numbers(depth: np.ndarray, valid: np.ndarray, unit: Unit) -> np.ndarray:
    if unit.metres is None:
        scaled = depth[valid].astype(np.float64)
        whole = np.rint(scaled)
        _check_own_values(scaled, whole if unit.name == "relative" else np.maximum(whole, 1))
    else:
        far, end = float(np.max(depth, where=valid, initial=0)), 65535 * unit.metres
        if np.rint(far / np.float64(unit.metres)) > 65535:
            coarse = "--out-unit kitti (out_unit='kitti') or " if unit.name != "kitti" and far < 255.9 else ""
            meant = "is the depth's unit right (--unit mm)? else " if far > USUAL_FAR_M else ""
            raise InputError(
                f"reaches {far:.3f} m, but 16-bit {unit.name} ends at {end:.3f} m; {meant}use {coarse}.exr"
            )
    bits = np.empty(depth.shape, np.uint16)
    for top in range(0, len(depth), ROWS):  # maps may be huge, and these are 64 bits a pixel
        rows = slice(top, top + ROWS)
        whole = np.rint(np.where(valid[rows], depth[rows], 0) / np.float64(unit.metres or 1))
        if unit.name != "relative":
            whole[valid[rows]] = np.maximum(whole[valid[rows]], 1)
        bits[rows] = whole
    return (bits << 3) | (bits >> 13) if unit.name == "sunrgbd" else bits


def _check_own_values(values: np.ndarray, whole: np.ndarray, values_between: bool = False) -> None:
    """Raise InputError where own values do not fit whole numbers; ``values_between``: nor those between them would."""
    low, high = float(values.min()), float(values.max())
    span, cure = f"values {low:.6g} to {high:.6g}", "write .exr or .npy: -o sharp.exr (many files: --suffix .exr)"
    if whole.min() < 0 or whole.max() > 65535:
        raise InputError(f"{span} do not fit 16 bits (0 to 65535); {cure}")
    off = 0.5 if values_between and high > low else float(np.abs(values - whole).max())
    if off > 0.01 * (high - low):
        raise InputError(f"{span} would lose over 1 % of their range as whole numbers; {cure}")


def write_confidence(
    path: PathLike, confidence: np.ndarray, error: np.ndarray | None = None, valid: np.ndarray | None = None
) -> None:
    """Writes ``confidence`` (H, W) of 0..1 as 8-bit ``.png``, or ``error`` (H, W) float as ``.exr`` or ``.npy``.

    Outside ``valid`` (H, W) bool it is 0, or NaN. Atomically, by the extension. Raises InputError, too where ``error``
    is asked for and None.
    """
    suffix, name = Path(path).suffix.lower(), shown(path)
    if suffix not in CONFIDENCE_SUFFIXES:
        raise InputError(f"{name}: cannot write confidence as '{suffix}'; use {', '.join(CONFIDENCE_SUFFIXES)}")
    if suffix == ".png":
        levels = np.empty(confidence.shape, np.uint8)
        for top in range(0, len(levels), ROWS):  # maps may be huge
            rows = np.clip(confidence[top : top + ROWS], 0, 1)
            levels[top : top + ROWS] = np.rint(rows * 255)
        if valid is not None:
            levels[~valid] = 0
        _write(path, png_bytes(levels))
    elif error is None:
        raise InputError(f"{name}: this model does not estimate its error; write .png, or use --model crisp")
    else:
        known = error if valid is None else np.where(valid, error, np.nan)
        _write(path, _ENCODERS[suffix](known.astype(np.float32, copy=False)))


def write_rgb(path: PathLike, rgb: np.ndarray) -> None:
    """Writes a picture, (H, W, 3) uint8, as ``.png`` or ``.jpg``, atomically. Raises InputError."""
    suffix, rgb = Path(path).suffix.lower(), np.asarray(rgb)
    if suffix not in PICTURE_SUFFIXES:
        raise InputError(f"{shown(path)}: cannot write a picture as '{suffix}'; use {', '.join(PICTURE_SUFFIXES)}")
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or rgb.size == 0:
        raise InputError(f"{shown(path)}: a picture is (H, W, 3) uint8, not {rgb.dtype} {rgb.shape}")
    _write(path, (png_bytes if suffix == ".png" else jpeg_bytes)(np.ascontiguousarray(rgb)))


def write_label(path: PathLike, classes: np.ndarray, colours: np.ndarray | None = None) -> None:
    """Writes class numbers (H, W) uint8 as an 8-bit ``.png``, atomically; ``colours`` (n, 3) uint8 shows them.

    ``read_label`` reads the numbers back. Raises InputError.
    """
    classes = np.asarray(classes)
    if Path(path).suffix.lower() != ".png":
        raise InputError(f"{shown(path)}: classes are written as .png; change the extension")
    if classes.ndim != 2 or classes.dtype != np.uint8 or classes.size == 0:
        raise InputError(f"{shown(path)}: classes are (H, W) uint8, not {classes.dtype} {classes.shape}")
    _write(path, label_bytes(classes, colours))


def write_points(
    path: PathLike, points: np.ndarray, colours: np.ndarray | None = None, normals: np.ndarray | None = None
) -> None:
    """Writes a binary ``.ply``: ``points`` (N, 3) metres, ``colours`` (N, 3) uint8, ``normals`` (N, 3).

    Property names are the usual x y z, nx ny nz, red green blue. Raises InputError.
    """
    name, points = shown(path), np.asarray(points)
    if Path(path).suffix.lower() != ".ply":
        raise InputError(f"{name}: points are written as .ply; change the extension")
    if len(points) == 0:
        raise InputError(f"{name}: no point to write; is every pixel a hole?")
    columns: dict[str, np.ndarray] = {}
    parts = (("x y z", points, "f"), ("nx ny nz", normals, "f"), ("red green blue", colours, "u"))
    for names, part, kind in parts:
        if part is None:
            continue
        part = np.asarray(part)
        if part.shape != (len(points), 3) or part.dtype.kind != kind or (kind == "u" and part.itemsize > 1):
            wanted = "uint8" if kind == "u" else "floats"
            raise InputError(f"{name}: {names} need {wanted} ({len(points)}, 3), not {part.dtype} {part.shape}")
        if not np.isfinite(part).all():
            raise InputError(f"{name}: {names} hold NaN or inf; drop those points first")
        columns |= {label: part[:, i] for i, label in enumerate(names.split())}
    _write(path, ply_bytes(columns))


# ---------------------------------------------------------------------------------- tables

_COLOUR_READERS: dict[str, Callable[[IO[bytes]], np.ndarray]] = {
    **{kind: partial(read_colour, kind=kind) for kind in PICTURES},
    "HEIC": lambda file: late("crispdepth.formats.heif").read_heif_colour(file),
}
_DEPTH_READERS: dict[str, Callable[[IO[bytes]], Raw]] = {
    "HEIC": lambda file: late("crispdepth.formats.heif").read_heif_depth(file),
    "PNG": read_png_depth,
    "TIFF": read_tiff_depth,
    "EXR": read_exr_depth,
    "PFM": read_pfm_depth,
    "npy": read_npy_depth,
    "npz": read_npz_depth,
    "HDF5": lambda file: late("crispdepth.formats.hdf5").read_hdf5_depth(file),
}
_ENCODERS: dict[str, Callable[[np.ndarray], bytes]] = {
    ".png": png_bytes,
    ".tif": tiff_bytes,
    ".tiff": tiff_bytes,
    ".exr": exr_bytes,
    ".pfm": pfm_bytes,
    ".npy": npy_bytes,
}
_NO_DEPTH = {"JPEG": ", whose lossy compression ruins depth"}
_KINDS = {  # what an extension promises
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".exr": "EXR",
    ".pfm": "PFM",
    ".npy": "npy",
    ".npz": "npz",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WebP",
    ".bmp": "BMP",
    ".heic": "HEIC",
    ".heif": "HEIC",
    ".hdf5": "HDF5",
}
