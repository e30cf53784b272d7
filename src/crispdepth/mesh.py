"""A depth map as points, or as a surface: a grid mesh with its depth edges cut, written as PLY or binary glTF."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from crispdepth.atomic import PathLike, atomic, shown
from crispdepth.formats.glb import glb_bytes
from crispdepth.formats.ply import ply_bytes
from crispdepth.geometry import Camera, flying_pixels, points
from crispdepth.types import InputError

JUMP = 0.05  # of the nearer depth: a triangle across more than this is cut out
MESH_SUFFIXES = (".ply", ".glb")


@dataclass(frozen=True, eq=False)
class Mesh:
    """``vertices`` (n, 3) float32 metres, x right, y down, z ahead; ``triangles`` (m, 3) int32, counter-clockwise
    for the camera; ``normals`` (n, 3) float32, length 1, towards the camera; ``colours`` (n, 3) uint8, if known.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    normals: np.ndarray
    colours: np.ndarray | None = None


def point_cloud(
    depth: np.ndarray, camera: Camera, valid: np.ndarray | None = None, rgb: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Points (n, 3) float32 metres, x right, y down, z ahead, of ``depth`` (H, W), and their colours (n, 3) uint8.

    Only where ``valid`` (H, W) bool (by default where depth is above 0), and without flying pixels, which hang between
    two things. ``rgb``: (H, W, 3), float of 0..1 or uint8; without it there are no colours.
    """
    depth = _fitting(depth, valid, camera)
    seen = np.isfinite(depth) & (depth > 0)
    seen = seen if valid is None else seen & valid.astype(bool)
    z, mask = torch.from_numpy(depth)[None, None], torch.from_numpy(seen)[None, None]
    kept = (mask & ~flying_pixels(z, mask))[0, 0].numpy()
    xyz = points(z, camera.matrix())[0].permute(1, 2, 0).numpy()[kept]
    if rgb is None:
        return xyz, None
    if not isinstance(rgb, np.ndarray):
        raise InputError(f"rgb is a {type(rgb).__name__}: pass a numpy array (H, W, 3), floats of 0..1 or uint8")
    if rgb.shape[:2] != depth.shape:
        raise InputError(f"rgb is {rgb.shape[:2]}, the depth {depth.shape}: they must have one size")
    shares = rgb.dtype.kind == "f" and bool(((rgb > -0.001) & (rgb < 1.001)).all())
    if rgb.shape[2:] != (3,) or (rgb.dtype != np.uint8 and not shares):
        raise InputError(f"rgb is {rgb.dtype} {rgb.shape}: pass (H, W, 3), floats of 0..1 or uint8")
    return xyz, rgb[kept] if rgb.dtype == np.uint8 else np.round(rgb[kept].clip(0, 1) * 255).astype(np.uint8)


def grid_mesh(depth: np.ndarray, valid: np.ndarray, camera: Camera, rgb: np.ndarray | None = None) -> Mesh:
    """Two triangles between each four neighbouring pixels of ``depth`` (H, W) metres, where ``valid`` (H, W) bool.

    None across a depth edge, a hole or a flying pixel; pixels in no triangle are left out. ``rgb`` (H, W, 3) float
    of 0..1 colours the vertices. Raises InputError when no triangle is left.
    """
    depth = _fitting(depth, valid, camera)
    height, width = depth.shape
    z, mask = torch.from_numpy(depth)[None, None], torch.from_numpy(valid & (depth > 0))[None, None]
    mask = mask & ~flying_pixels(z, mask)
    triangles = _triangles(np.where(mask[0, 0].numpy(), depth, np.nan))
    if not len(triangles):
        raise InputError("no surface for a mesh: every pixel is a hole or beside a depth edge")
    used = np.zeros(height * width, dtype=bool)
    used[triangles] = True
    triangles = (np.cumsum(used, dtype=np.int32) - 1)[triangles]
    xyz = points(z, camera.matrix())[0].permute(1, 2, 0).reshape(-1, 3).numpy()[used]
    colours = None if rgb is None else np.round(rgb.reshape(-1, 3)[used] * 255).astype(np.uint8)
    return Mesh(xyz, triangles, _normals(xyz, triangles), colours)


def _fitting(depth: np.ndarray, valid: np.ndarray | None, camera: Camera) -> np.ndarray:
    """``depth`` (H, W) as float32. Raises InputError for a mask or a camera of another size."""
    for what, x in (("depth", depth), ("valid", valid)):
        if x is not None and not isinstance(x, np.ndarray):
            raise InputError(f"{what} is a {type(x).__name__}: pass a numpy array, such as a Prediction's .depth")
    if depth.ndim != 2 or (valid is not None and valid.shape != depth.shape):
        of = "" if valid is None else f", valid {valid.shape}"
        raise InputError(f"the depth is {depth.shape}{of}: both must be (height, width), of one size")
    height, width = depth.shape
    if not isinstance(camera, Camera):
        raise InputError("the camera is none: pass Camera(…), or read_intrinsics(…).camera((height, width))")
    if (camera.height, camera.width) != (height, width):
        cure = f"pass camera.resized(({height}, {width})), if both show the same view"
        raise InputError(f"the camera is for {camera.width}x{camera.height} pixels, the depth {width}x{height}: {cure}")
    return np.ascontiguousarray(depth, np.float32)


def _triangles(depth: np.ndarray) -> np.ndarray:
    """(m, 3) numbers of pixels, row by row; NaN is no pixel. Seen with y down: down, then right."""
    index = np.arange(depth.size, dtype=np.int32).reshape(depth.shape)
    found = []
    corner = {
        (dy, dx): np.s_[dy : depth.shape[0] - 1 + dy, dx : depth.shape[1] - 1 + dx] for dy in (0, 1) for dx in (0, 1)
    }
    for places in (((0, 0), (1, 0), (0, 1)), ((0, 1), (1, 0), (1, 1))):
        windows = [corner[place] for place in places]
        a, b, c = (depth[window] for window in windows)
        near, far = np.minimum(np.minimum(a, b), c), np.maximum(np.maximum(a, b), c)
        whole = far <= (1 + JUMP) * near  # False where one is NaN
        found.append(np.stack([index[window][whole] for window in windows], axis=1))
    return np.concatenate(found)


def _normals(xyz: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Of each vertex: the mean of its triangles' normals, by area."""
    a, b, c = (xyz[triangles[:, i]] for i in range(3))
    faces = np.cross(b - a, c - a)
    total = np.stack(
        [np.bincount(triangles.ravel(), np.repeat(faces[:, axis], 3), len(xyz)) for axis in range(3)], axis=1
    )
    return (total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-30)).astype(np.float32)


def write_mesh(path: PathLike, mesh: Mesh) -> None:
    """Writes binary ``.ply`` (the camera's axes) or ``.glb`` (glTF's: y up, z towards the viewer), atomically.

    Raises InputError.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in MESH_SUFFIXES:
        raise InputError(f"{shown(path)}: cannot write a mesh as '{suffix}'; use {', '.join(MESH_SUFFIXES)}")
    if suffix == ".glb":
        turned = np.array([1, -1, -1], dtype=np.float32)
        data = glb_bytes(mesh.vertices * turned, mesh.normals * turned, mesh.triangles, mesh.colours)
    else:
        parts = {"x y z": mesh.vertices, "nx ny nz": mesh.normals, "red green blue": mesh.colours}
        columns = {
            name: part[:, i]
            for names, part in parts.items()
            if part is not None
            for i, name in enumerate(names.split())
        }
        data = ply_bytes(columns, mesh.triangles)
    with atomic(path) as temporary:
        temporary.write_bytes(data)
