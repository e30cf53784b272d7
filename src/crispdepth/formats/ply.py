"""PLY, written: binary point clouds and meshes."""

from __future__ import annotations

import numpy as np


def ply_bytes(columns: dict[str, np.ndarray], triangles: np.ndarray | None = None) -> bytes:
    """Binary little-endian PLY of one point per row; ``columns`` maps property names to (N,) arrays.

    ``triangles`` (M, 3) are rows' numbers; without them it is a point cloud.
    """
    names = {"f": "float", "u": "uchar"}
    kinds = {name: "<f4" if column.dtype.kind == "f" else "u1" for name, column in columns.items()}
    rows = np.empty(len(next(iter(columns.values()))), dtype=list(kinds.items()))
    for name, column in columns.items():
        rows[name] = column
    head = [
        "ply",
        "format binary_little_endian 1.0",
        "comment crispdepth, metres",
        f"element vertex {len(rows)}",
    ]
    head += [f"property {names[column.dtype.kind]} {name}" for name, column in columns.items()]
    faces = np.empty(0 if triangles is None else len(triangles), dtype=[("count", "u1"), ("rows", "<i4", 3)])
    if triangles is not None:
        head += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
        faces["count"], faces["rows"] = 3, triangles
    return "\n".join([*head, "end_header", ""]).encode() + rows.tobytes() + faces.tobytes()
