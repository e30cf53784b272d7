"""EXR: the depth channel of a one-part file, read and written."""

from __future__ import annotations

import os
import struct
import sys
import zlib
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import BytesIO, StringIO
from typing import IO

import numpy as np
import OpenEXR

from crispdepth.formats.raw import DEFLATE_RATIO, MAX_PIXELS, TRUNCATED, Raw, check_size, decoding, muted
from crispdepth.types import InputError

# OpenEXR hands back broken pixels of a damaged file without an error. So the two ways of packing that depth
# comes in, none and ZIP scanlines, are read and checked here, and only the others (tiles, PIZ, ...) by OpenEXR.
# Layout: openexr.com, "File Layout".

WARNING = "Warning: Exception raised"  # how OpenEXR's begin
_TYPES = (np.dtype("<u4"), np.dtype("<f2"), np.dtype("<f4"))
_CHUNK_LINES = {0: 1, 2: 1, 3: 16}  # compression -> lines per chunk: none, ZIPS, ZIP


@dataclass(frozen=True)
class _Header:
    channels: dict[str, np.dtype]  # in file order
    compression: int
    window: tuple[int, int, int, int]  # data: x0 y0 x1 y1, inclusive
    display: tuple[int, int, int, int]
    tiled: bool
    start: int  # of the chunk table

    @property
    def size(self) -> tuple[int, int]:
        return self.window[3] - self.window[1] + 1, self.window[2] - self.window[0] + 1


def _text(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(b"\0", at, at + 256)
    return data[at:end].decode("latin-1"), end + 1


def _channels(value: bytes) -> dict[str, np.dtype]:
    channels, at = {}, 0
    while value[at : at + 1] != b"\0":
        name, at = _text(value, at)
        kind, x, y = struct.unpack_from("<i4xii", value, at)
        if (x, y) != (1, 1):
            raise InputError(f"EXR channel {name} is subsampled; save it at full size")
        channels[name], at = _TYPES[kind], at + 16
    return channels


def _read_header(data: bytes) -> _Header:
    flags, at = int.from_bytes(data[5:8], "little"), 8
    if flags & 0x18:
        raise InputError("is a deep or multi-part EXR; save the depth part alone")
    found: dict[str, bytes] = {}
    while data[at] != 0:
        name, at = _text(data, at)
        _, at = _text(data, at)
        (length,) = struct.unpack_from("<i", data, at)
        if length < 0 or at + 4 + length > len(data):
            raise InputError(TRUNCATED)
        found[name], at = data[at + 4 : at + 4 + length], at + 4 + length
    return _Header(
        channels=_channels(found["channels"]),
        compression=found["compression"][0],
        window=struct.unpack("<4i", found["dataWindow"]),
        display=struct.unpack("<4i", found["displayWindow"]),
        tiled=bool(flags & 0x02),
        start=at + 1,
    )


def _unpacked(chunk: bytes, length: int, compression: int) -> np.ndarray:
    """The bytes of some lines. ZIP: differences of bytes, the even ones first, deflated."""
    if compression == 0 or len(chunk) == length:
        plain = np.frombuffer(chunk, np.uint8)
    else:
        packed = np.frombuffer(zlib.decompressobj().decompress(chunk, length + 1), np.uint8).copy()
        packed[1:] += 128
        packed = np.cumsum(packed, dtype=np.uint8)
        half = (len(packed) + 1) // 2
        plain = np.empty_like(packed)
        plain[0::2], plain[1::2] = packed[:half], packed[half:]
    if len(plain) != length:
        raise InputError(TRUNCATED)
    return plain


def _lines(data: bytes, exr: _Header) -> np.ndarray:
    """(H, bytes of one line) uint8, all channels of a line side by side."""
    height, width = exr.size
    stride = width * sum(kind.itemsize for kind in exr.channels.values())
    step = _CHUNK_LINES[exr.compression]
    count = -(-height // step)
    if exr.start + 8 * count > len(data):
        raise InputError(TRUNCATED)
    lines = np.empty((height, stride), np.uint8)
    for i, offset in enumerate(struct.unpack_from(f"<{count}Q", data, exr.start)):
        y, length = struct.unpack_from("<ii", data, offset) if offset + 8 <= len(data) else (0, -1)
        if length < 0 or offset + 8 + length > len(data):
            raise InputError(TRUNCATED)
        if y - exr.window[1] != i * step:
            raise InputError("damaged EXR (its lines are mixed up); export it again")
        block = lines[i * step : (i + 1) * step]
        plain = _unpacked(data[offset + 8 : offset + 8 + length], block.size, exr.compression)
        block[:] = plain.reshape(block.shape)
    return lines


def _by_library(file: IO[bytes], names: list[str]) -> list[np.ndarray]:
    said = StringIO()  # of a damaged file it also prints, and standard output is every thread's
    try:
        with muted(), redirect_stdout(said), OpenEXR.File(str(file.name), separate_channels=True) as opened:
            return [np.array(opened.channels()[name].pixels) for name in names]
    finally:
        sys.stdout.write("".join(line for line in said.getvalue().splitlines(True) if not line.startswith(WARNING)))


def _pick(channels: dict[str, np.dtype]) -> list[str]:
    """The depth channel by name, or R, G, B to be compared."""
    for wanted in ("Z", "Y"):
        found = [name for name in channels if name.split(".")[-1].upper() == wanted]
        if len(found) == 1:
            return found
    if len(channels) == 1:
        return list(channels)
    if set(channels) in ({"R", "G", "B"}, {"R", "G", "B", "A"}):
        return ["R", "G", "B"]
    names = ", ".join(channels)[:200]
    raise InputError(f"EXR has channels {names}; which is depth? save it alone as channel Z")


def _placed(values: np.ndarray, exr: _Header) -> np.ndarray:
    """The data window inside the display window; what was not rendered is NaN."""
    if exr.display == exr.window:
        return values
    (x0, y0, x1, y1), (left, top, right, bottom) = exr.display, exr.window
    check_size(y1 - y0 + 1, x1 - x0 + 1)
    placed = np.full((y1 - y0 + 1, x1 - x0 + 1), np.nan, np.float32)
    rows, columns = (max(y0, top), min(y1, bottom) + 1), (max(x0, left), min(x1, right) + 1)
    if rows[0] < rows[1] and columns[0] < columns[1]:
        placed[rows[0] - y0 : rows[1] - y0, columns[0] - x0 : columns[1] - x0] = values[
            rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left
        ]
    return placed


def _planes(lines: np.ndarray, exr: _Header, names: list[str]) -> list[np.ndarray]:
    planes, at = {}, 0
    for name, kind in exr.channels.items():
        part = lines[:, at : at + kind.itemsize * exr.size[1]]
        at += part.shape[1]
        if name in names:
            planes[name] = np.ascontiguousarray(part).view(kind).astype(kind.newbyteorder("="))
    return [planes[name] for name in names]


def _check(exr: _Header, length: int) -> None:
    """Refuses what the file, ``length`` bytes long, cannot hold however well it is packed."""
    check_size(*exr.size)
    packed = exr.size[0] * exr.size[1] * sum(kind.itemsize for kind in exr.channels.values())
    if packed > 16 * MAX_PIXELS:
        raise InputError(f"EXR has {len(exr.channels)} channels, too large together; save the depth one alone")
    if packed > length * (DEFLATE_RATIO if exr.compression in _CHUNK_LINES else 2**16):
        raise InputError(TRUNCATED)


def read_exr_depth(file: IO[bytes]) -> Raw:
    """Channel Z, Y or the only one; R, G, B when equal. NaN and inf are holes."""
    data = file.read(2**20)
    with decoding("EXR"):
        exr = _read_header(data)
        _check(exr, file.seek(0, os.SEEK_END))
        file.seek(len(data))
        names = _pick(exr.channels)
        if exr.tiled or exr.compression not in _CHUNK_LINES:
            planes = _by_library(file, names)
        else:
            planes = _planes(_lines(data + file.read(), exr), exr, names)
        if any(plane.shape != exr.size for plane in planes):
            raise InputError(TRUNCATED)
        if not all(np.array_equal(planes[0], p, equal_nan=p.dtype.kind == "f") for p in planes[1:]):
            raise InputError("EXR channels R, G, B differ: a colour picture, not depth; save depth as Z")
        return Raw(_placed(planes[0], exr), nan_is_hole=True)


def exr_bytes(array: np.ndarray) -> bytes:
    """EXR of (H, W) float32: one channel Z, ZIP, scanlines."""
    buffer = BytesIO()
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    with OpenEXR.File(header, {"Z": np.ascontiguousarray(array)}) as file:  # it ignores strides
        file.write(buffer)
    return buffer.getvalue()
