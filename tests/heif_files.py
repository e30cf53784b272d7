"""A HEIC photo with depth inside, as a phone's portrait mode writes one: no library here writes such files.

Two pictures are encoded by pillow-heif; then the second is declared an auxiliary picture of the first, of the kind
depth, and what its values mean is said in an SEI message (ISO/IEC 23008-12, 6.5.8; ISO/IEC 23008-2, D.2.35).
"""

from __future__ import annotations

import io
import math
import struct

import numpy as np
import pillow_heif
from PIL import Image

DEPTH = b"urn:mpeg:hevc:2015:auxid:2\0"


def heic(rgb: np.ndarray, depth: np.ndarray | None = None, kind: int = 1, ends: tuple[float, float] = (0, 0)) -> bytes:
    """``rgb`` (H, W, 3) uint8, ``depth`` (h, w) uint8 whose 0 and 255 mean ``ends``, by representation ``kind``."""
    file = pillow_heif.HeifFile()
    file.add_frombytes("RGB", (rgb.shape[1], rgb.shape[0]), np.ascontiguousarray(rgb).tobytes())
    if depth is not None:
        grey = Image.fromarray(depth)
        file.add_frombytes("L", grey.size, grey.tobytes())
    out = io.BytesIO()
    file.save(out, quality=-1, chroma=444)
    return out.getvalue() if depth is None else _as_depth(out.getvalue(), _said(kind, ends))


def _as_depth(data: bytes, said: bytes) -> bytes:
    start = data.index(b"meta") - 4
    size = struct.unpack(">I", data[start : start + 4])[0]
    boxes = _boxes(data[start + 12 : start + size])
    first, second = _items(boxes[b"iinf"])
    boxes[b"iref"] = bytes(4) + _box(b"auxl", struct.pack(">HHH", second, 1, first))
    properties = _boxes_in_order(boxes[b"iprp"])
    ipco, ipma = properties[0][1] + _box(b"auxC", bytes(4) + DEPTH + said), bytearray(properties[1][1])
    _associate(ipma, second, len(_boxes_in_order(ipco)))
    boxes[b"iprp"] = _box(b"ipco", ipco) + _box(b"ipma", bytes(ipma))
    before = size
    meta = _box(b"meta", bytes(4) + b"".join(_box(name, body) for name, body in boxes.items()))
    boxes[b"iloc"] = _moved(boxes[b"iloc"], len(meta) - before)
    meta = _box(b"meta", bytes(4) + b"".join(_box(name, body) for name, body in boxes.items()))
    return data[:start] + meta + data[start + size :]


def _box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + name + body


def _boxes_in_order(data: bytes) -> list[tuple[bytes, bytes]]:
    found = []
    while data:
        size = struct.unpack(">I", data[:4])[0]
        found.append((data[4:8], data[8:size]))
        data = data[size:]
    return found


def _boxes(data: bytes) -> dict[bytes, bytes]:
    return dict(_boxes_in_order(data))


def _items(iinf: bytes) -> list[int]:
    """The numbers of the coded pictures."""
    entries = [body for name, body in _boxes_in_order(iinf[6:]) if name == b"infe"]
    return [struct.unpack(">H", body[4:6])[0] for body in entries if body[8:12] == b"hvc1"][:2]


def _associate(ipma: bytearray, item: int, number: int) -> None:
    """One more property for ``item``: its ``number``, from 1."""
    assert ipma[:4] == bytes(4)  # version 0, properties of one byte
    at = 8
    for _ in range(struct.unpack(">I", ipma[4:8])[0]):
        one, count = struct.unpack(">HB", ipma[at : at + 3])
        at += 3 + count
        if one == item:
            ipma[at - count - 1] += 1
            ipma.insert(at, number | 0x80)
            return
    raise AssertionError("no such item")


def _moved(iloc: bytes, by: int) -> bytes:
    """All items ``by`` bytes later in the file."""
    assert (iloc[0], iloc[4], iloc[5]) == (0, 0x44, 0x40)  # offsets, lengths and bases of 4 bytes each
    out, at = bytearray(iloc), 8
    for _ in range(struct.unpack(">H", iloc[6:8])[0]):
        out[at + 4 : at + 8] = struct.pack(">I", struct.unpack(">I", iloc[at + 4 : at + 8])[0] + by)
        at += 10 + 8 * struct.unpack(">H", iloc[at + 8 : at + 10])[0]
    return bytes(out)


def _said(kind: int, ends: tuple[float, float]) -> bytes:
    """depth_representation_info: near and far of Z, or the least and largest disparity."""
    disparity = kind == 1
    bits = "0011" if disparity else "1100"
    bits += {0: "1", 1: "010", 2: "011", 3: "00100"}[kind]  # Exp-Golomb
    bits += "1" if disparity else ""  # the view it refers to: 0
    bits += "".join(_number(end) for end in ends) + "1"
    bits += "0" * (-len(bits) % 8)
    payload = int(bits, 2).to_bytes(len(bits) // 8, "big")
    message = b"\x4e\x01" + bytes([177, len(payload)]) + payload
    return struct.pack(">I", 4 + len(message)) + struct.pack(">I", len(message)) + message


def _number(x: float) -> str:
    """Sign, exponent + 31 in 7 bits, the mantissa's length - 1 in 5, 24 bits of mantissa."""
    fraction, exponent = math.frexp(x)
    return f"0{exponent - 1 + 31:07b}{23:05b}{round((2 * fraction - 1) * 2**24):024b}"
