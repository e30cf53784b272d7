"""npy, npz and PFM: plain arrays, read and written; nothing is ever unpickled."""

from __future__ import annotations

import math
import os
import re
import zipfile
from io import BytesIO
from typing import IO

import numpy as np

from crispdepth.formats.raw import MAX_PIXELS, TRUNCATED, Raw, check_size, decoding, exactly
from crispdepth.types import InputError

_PFM = re.compile(rb"(Pf|PF)\s+(\d{1,9})\s+(\d{1,9})\s+([-+.\deE]{1,32})(?:\r\n|\s)")


def read_pfm_depth(file: IO[bytes]) -> Raw:
    """Grey portable float map: rows bottom to top, little-endian when the scale is negative."""
    match = _PFM.match(file.read(512))
    try:
        scale = float(match[4]) if match else 0.0
    except ValueError:
        scale = 0.0
    if match is None or scale == 0:
        raise InputError("damaged PFM (unreadable header); export it again")
    if match[1] == b"PF":
        raise InputError("is a colour PFM, not depth; save depth as a grey one ('Pf')")
    width, height = int(match[2]), int(match[3])
    check_size(height, width)
    file.seek(match.end())
    values = np.frombuffer(exactly(file, 4 * width * height), "<f4" if scale < 0 else ">f4")
    return Raw(values.reshape(height, width)[::-1].astype(np.float32), nan_is_hole=True)


def pfm_bytes(array: np.ndarray) -> bytes:
    """Little-endian grey PFM of (H, W) float32."""
    head = f"Pf\n{array.shape[1]} {array.shape[0]}\n-1.0\n".encode()
    return head + array[::-1].astype("<f4").tobytes()


# 3.0 is for names in Unicode, which no map has
_NPY_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def _npy_header(stream: IO[bytes]) -> tuple[np.dtype, tuple[int, ...], str]:
    version = np.lib.format.read_magic(stream)
    if version not in _NPY_HEADERS:
        raise InputError("npy array of an unusual type; save plain float32 of shape (H, W)")
    shape, fortran, dtype = _NPY_HEADERS[version](stream)
    if dtype.hasobject:
        raise InputError("npy array of pickled objects, never opened for safety; save plain float32 numbers")
    return dtype, shape, "F" if fortran else "C"


def _npy_array(stream: IO[bytes], size: int) -> np.ndarray:
    """The array of an npy stream whose whole length is ``size`` bytes."""
    dtype, shape, order = _npy_header(stream)
    count = math.prod(shape)
    if count > MAX_PIXELS:
        raise InputError(f"npy array declares {count} values, more than {MAX_PIXELS}; cut it into tiles")
    if min(shape, default=1) < 1:
        raise InputError(f"npy array holds no values (shape {shape}); export it again")
    if dtype.itemsize > 256 or count * dtype.itemsize > size:
        raise InputError(TRUNCATED)
    data = stream.read(count * dtype.itemsize)
    if len(data) < count * dtype.itemsize:
        raise InputError(TRUNCATED)
    return np.frombuffer(data, dtype).reshape(shape, order=order)  # type: ignore[call-overload]


def _as_map(array: np.ndarray, kinds: str, what: str) -> np.ndarray:
    """(H, W) in native byte order from (H, W), (H, W, 1) or (1, H, W)."""
    if array.dtype.kind not in kinds:
        raise InputError(f"{what} array holds {array.dtype}, not numbers fit for it; save plain float32")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    elif array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2:
        raise InputError(f"{what} array has shape {array.shape}; save one map of shape (H, W)")
    check_size(*array.shape)
    return np.ascontiguousarray(array.astype(array.dtype.newbyteorder("=")))


def read_npy_depth(file: IO[bytes]) -> Raw:
    """(H, W), (H, W, 1) or (1, H, W), integer, floating or, for a confidence, bool; never unpickled."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    with decoding("npy"):
        return Raw(_as_map(_npy_array(file, size), "biuf", "depth"))


def read_npz_depth(file: IO[bytes]) -> Raw:
    """Key ``depth`` or the only array, with ``valid`` (bool) and ``unit`` (text) when they are there."""
    with decoding("npz"), zipfile.ZipFile(file) as archive:
        entries = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        others = [name for name in entries if name not in ("valid", "unit")]
        key = "depth" if "depth" in entries else others[0] if len(others) == 1 else None
        if key is None:
            names = ", ".join(entries)[:200] or "nothing"
            raise InputError(f"npz holds {names}; which is depth? name that array 'depth'")
        values = _as_map(_npz_array(archive, entries[key]), "biuf", "depth")
        valid, unit = None, None
        if "valid" in entries:
            valid = _as_map(_npz_array(archive, entries["valid"]), "b", "valid")
            if valid.shape != values.shape:
                raise InputError(f"npz mask 'valid' is {valid.shape}, depth is {values.shape}; save one size")
        if "unit" in entries:
            unit = str(_npz_array(archive, entries["unit"]).reshape(-1)[0])
        return Raw(values, valid, unit)


def _npz_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(info) as stream:
        array = _npy_array(stream, info.file_size)
        stream.read(1)  # the end of the entry: there its checksum is compared
    return array


def npy_bytes(array: np.ndarray) -> bytes:
    """npy of any plain array."""
    buffer = BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def npz_bytes(depth: np.ndarray, valid: np.ndarray, unit: str) -> bytes:
    """npz with ``depth``, ``valid`` and ``unit``."""
    buffer = BytesIO()
    np.savez_compressed(buffer, depth=depth, valid=valid, unit=np.array(unit))
    return buffer.getvalue()
