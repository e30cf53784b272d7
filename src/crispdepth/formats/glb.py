"""Binary glTF 2.0, written: one mesh of triangles with normals and colours."""

from __future__ import annotations

import json
import struct

import numpy as np

_FLOAT, _UINT16, _UINT32 = 5126, 5123, 5125  # component types (glTF 2.0, 3.6.2.2)
_VERTICES, _INDICES = 34962, 34963  # what a buffer view is for


def glb_bytes(
    vertices: np.ndarray, normals: np.ndarray, triangles: np.ndarray, colours: np.ndarray | None = None
) -> bytes:
    """``vertices`` and ``normals`` (n, 3) float32, ``triangles`` (m, 3), ``colours`` (n, 3) uint8 sRGB, as a .glb.

    glTF 2.0, 4.4: a header, a JSON chunk and a binary one. Colours are linear there, hence 16 bits.
    """
    parts = [
        ("POSITION", vertices.astype("<f4"), _FLOAT, "VEC3"),
        ("NORMAL", normals.astype("<f4"), _FLOAT, "VEC3"),
    ]
    if colours is not None:
        parts.append(("COLOR_0", _linear(colours), _UINT16, "VEC4"))
    parts.append(("", triangles.astype("<u4").reshape(-1), _UINT32, "SCALAR"))
    views: list[dict] = []
    accessors: list[dict] = []
    start = 0
    for name, array, kind, shape in parts:
        target = _VERTICES if name else _INDICES
        views.append({"buffer": 0, "byteOffset": start, "byteLength": array.nbytes, "target": target})
        accessor = {"bufferView": len(accessors), "componentType": kind, "count": len(array), "type": shape}
        if name == "POSITION":
            accessor |= {"min": array.min(0).tolist(), "max": array.max(0).tolist()}
        if kind == _UINT16:
            accessor["normalized"] = True
        accessors.append(accessor)
        start += array.nbytes
    surface = {
        "attributes": {name: i for i, (name, *_) in enumerate(parts) if name},
        "indices": len(parts) - 1,
        "material": 0,
    }
    scene = {
        "asset": {"version": "2.0", "generator": "crispdepth"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [surface]}],
        "materials": [{"doubleSided": True, "pbrMetallicRoughness": {"metallicFactor": 0, "roughnessFactor": 1}}],
        "buffers": [{"byteLength": start}],
        "bufferViews": views,
        "accessors": accessors,
    }
    text = json.dumps(scene, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    binary = b"".join(array.tobytes() for _, array, *_ in parts)  # every part is a multiple of 4 bytes
    head = struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + len(binary))
    return b"".join([head, struct.pack("<I4s", len(text), b"JSON"), text, struct.pack("<I4s", start, b"BIN\0"), binary])


def _linear(colours: np.ndarray) -> np.ndarray:
    """(n, 3) uint8 sRGB (IEC 61966-2-1) to (n, 4) uint16, linear and opaque."""
    level = np.arange(256) / 255
    table = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    rgba = np.full((len(colours), 4), 65535, dtype="<u2")
    rgba[:, :3] = np.round(table * 65535).astype("<u2")[colours]
    return rgba
