"""Meshes: a plane stays a plane with its normal, depth edges are cut, and the files say what was given."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_batch import write_inputs

from crispdepth.batch import Job, Settings, run
from crispdepth.geometry import Camera
from crispdepth.intrinsics import read_intrinsics
from crispdepth.mesh import Mesh, grid_mesh, point_cloud, write_mesh
from crispdepth.models.catalog import load
from crispdepth.types import InputError, Prediction

CAMERA = Camera(50, 55, 15.5, 11.5, 32, 24)


def plane(a: float = 0.2, b: float = -0.1, d: float = 2.0) -> np.ndarray:
    """Depth of the plane a x + b y + z = d."""
    v, u = np.mgrid[:24, :32]
    return (d / (a * (u - 15.5) / 50 + b * (v - 11.5) / 55 + 1)).astype(np.float32)


def everywhere(depth: np.ndarray) -> np.ndarray:
    return np.ones(depth.shape, dtype=bool)


def read_mesh_ply(path: Path) -> tuple[np.ndarray, np.ndarray]:
    head, body = path.read_bytes().split(b"end_header\n", 1)
    lines = head.decode().splitlines()
    counts = {line.split()[1]: int(line.split()[2]) for line in lines if line.startswith("element")}
    columns = [line.split()[1:] for line in lines if line.startswith("property") and "list" not in line]
    assert "property list uchar int vertex_indices" in lines
    kind = np.dtype([(name, {"float": "<f4", "uchar": "u1"}[word]) for word, name in columns])
    vertices = np.frombuffer(body, kind, counts["vertex"])
    faces = np.frombuffer(body, np.dtype([("n", "u1"), ("v", "<i4", 3)]), counts["face"], vertices.nbytes)
    assert len(body) == vertices.nbytes + faces.nbytes
    assert (faces["n"] == 3).all()
    return vertices, faces["v"]


def read_glb(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    """Every accessor by its attribute's name, read as glTF 2.0 lays it down."""
    data = path.read_bytes()
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data))
    size, kind = struct.unpack_from("<I4s", data, 12)
    assert (kind, size % 4) == (b"JSON", 0)
    scene = json.loads(data[20 : 20 + size])
    rest, kind = struct.unpack_from("<I4s", data, 20 + size)
    assert (kind, rest % 4, rest) == (b"BIN\0", 0, scene["buffers"][0]["byteLength"])
    binary = data[28 + size :]
    primitive = scene["meshes"][0]["primitives"][0]
    names = {**primitive["attributes"], "indices": primitive["indices"]}
    found = {}
    for name, number in names.items():
        accessor = scene["accessors"][number]
        view = scene["bufferViews"][accessor["bufferView"]]
        kinds = {5126: "<f4", 5123: "<u2", 5125: "<u4"}
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor["type"]]
        part = binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
        found[name] = np.frombuffer(part, kinds[accessor["componentType"]]).reshape(-1, width)
        assert len(found[name]) == accessor["count"]
    return found, scene


def test_a_plane_is_one_sheet_with_its_normal_towards_the_camera() -> None:
    depth = plane()
    mesh = grid_mesh(depth, everywhere(depth), CAMERA)
    assert mesh.vertices.shape == (24 * 32, 3)
    assert mesh.triangles.shape == (2 * 23 * 31, 3)
    np.testing.assert_allclose(mesh.vertices @ [0.2, -0.1, 1], 2, rtol=1e-5)
    np.testing.assert_allclose(mesh.normals, np.tile(-np.array([0.2, -0.1, 1]) / 1.05**0.5, (24 * 32, 1)), atol=1e-3)
    a, b, c = (mesh.vertices[mesh.triangles[:, i]] for i in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2
    corners = mesh.vertices.reshape(24, 32, 3)[[0, 0, -1, -1], [0, -1, 0, -1]]
    halves = [
        np.cross(corners[1] - corners[0], corners[2] - corners[0]),
        np.cross(corners[1] - corners[3], corners[2] - corners[3]),
    ]
    assert area == pytest.approx(sum(np.linalg.norm(half) for half in halves) / 2, rel=1e-3)


def test_points_of_a_plane_lie_on_it_with_the_colours_of_their_pixels() -> None:
    depth, valid = plane(), everywhere(plane())
    valid[:, :4] = False
    depth[0, 10] = 0
    rgb = np.zeros((24, 32, 3))
    rgb[:, 16:] = 1
    xyz, colours = point_cloud(depth, CAMERA, valid, rgb)
    assert colours is not None
    assert len(xyz) == len(colours) == 24 * 28 - 1
    np.testing.assert_allclose(xyz @ [0.2, -0.1, 1], 2, atol=1e-5)
    assert (colours[xyz[:, 0] > 0] == 255).all()
    assert (colours[xyz[:, 0] < 0] == 0).all()
    same, none = point_cloud(np.where(valid, depth, 0), CAMERA)
    np.testing.assert_array_equal(same, xyz)
    assert none is None
    eight_bit = point_cloud(depth, CAMERA, valid, (rgb * 255).astype(np.uint8))[1]
    assert eight_bit is not None
    np.testing.assert_array_equal(eight_bit, colours)
    with pytest.raises(InputError, match="one size"):
        point_cloud(depth, CAMERA, valid, rgb[1:])


def test_a_cloud_has_no_point_at_infinity_and_no_colour_outside() -> None:
    depth = np.ones((8, 8), np.float32)
    depth[2:4], depth[5] = np.inf, np.nan
    camera = Camera.from_fov(60, (8, 8))
    xyz, _ = point_cloud(depth, camera)
    assert len(xyz) == 5 * 8
    assert np.isfinite(xyz).all()
    for wrong in (np.full((8, 8, 3), -0.5), np.full((8, 8, 3), np.nan), torch.zeros(8, 8, 3)):
        with pytest.raises(InputError, match=r"floats of 0\.\.1 or uint8"):
            point_cloud(depth, camera, None, wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"Prediction's \.depth"):
        point_cloud(Prediction(depth, depth > 0), camera)  # type: ignore[arg-type]


def test_depth_edges_holes_and_flying_pixels_are_cut_out() -> None:
    depth = np.full((24, 32), 1.0, dtype=np.float32)
    depth[:, 16:] = 2
    depth[:, 15] = 1.5
    valid = everywhere(depth)
    valid[4:8, 4:8] = False
    mesh = grid_mesh(depth, valid, CAMERA)
    spans = np.ptp(mesh.vertices[mesh.triangles][..., 2], axis=1)
    assert spans.max() == 0
    assert not (np.abs(mesh.vertices[:, 2] - 1.5) < 0.4).any()
    assert len(mesh.vertices) == 24 * 31 - 16
    whole = grid_mesh(np.where(depth == 1.5, 1, depth), everywhere(depth), CAMERA)
    assert len(whole.triangles) == 2 * 23 * 30  # only the column of cells across the edge is missing
    with pytest.raises(InputError, match="no surface"):
        grid_mesh(depth, ~everywhere(depth), CAMERA)


def test_ply_and_glb_hold_the_mesh(tmp_path: Path) -> None:
    depth = plane()
    rgb = np.random.default_rng(0).uniform(size=(24, 32, 3))
    mesh = grid_mesh(depth, everywhere(depth), CAMERA, rgb)
    write_mesh(tmp_path / "m.ply", mesh)
    vertices, faces = read_mesh_ply(tmp_path / "m.ply")
    np.testing.assert_array_equal(faces, mesh.triangles)
    for names, part in (("xyz", mesh.vertices), (("nx", "ny", "nz"), mesh.normals)):
        np.testing.assert_array_equal(np.stack([vertices[name] for name in names], 1), part)
    np.testing.assert_array_equal(vertices["red"], np.round(rgb[..., 0] * 255).ravel())

    write_mesh(tmp_path / "m.glb", mesh)
    parts, scene = read_glb(tmp_path / "m.glb")
    np.testing.assert_array_equal(parts["indices"].reshape(-1, 3), mesh.triangles)
    np.testing.assert_array_equal(parts["POSITION"], mesh.vertices * [1, -1, -1])  # y up, z towards the viewer
    np.testing.assert_array_equal(parts["NORMAL"], mesh.normals * [1, -1, -1])
    bounds = scene["accessors"][0]
    np.testing.assert_allclose([bounds["min"], bounds["max"]], [parts["POSITION"].min(0), parts["POSITION"].max(0)])
    assert (parts["COLOR_0"][:, 3] == 65535).all()
    linear = parts["COLOR_0"][:, :3] / 65535
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert mesh.colours is not None
    np.testing.assert_allclose(srgb * 255, mesh.colours, atol=0.05)
    # counter-clockwise for the viewer: the faces' normals point along the vertices'
    a, b, c = (parts["POSITION"][parts["indices"].reshape(-1, 3)[:, i]] for i in range(3))
    assert (np.cross(b - a, c - a)[:, 2] > 0).all()
    write_mesh(tmp_path / "plain.glb", Mesh(mesh.vertices, mesh.triangles, mesh.normals))
    assert "COLOR_0" not in read_glb(tmp_path / "plain.glb")[0]
    with pytest.raises(InputError, match="use"):
        write_mesh(tmp_path / "m.obj", mesh)


def test_a_job_writes_a_mesh_of_what_was_measured(tmp_path: Path) -> None:
    low, rgb = write_inputs(tmp_path, holes=True)
    for name in ("m.ply", "m.glb"):
        job = Job(low, tmp_path / "o.png", rgb, mesh=tmp_path / name)
        lines = run(job, load("fgs"), Settings(unit="mm", intrinsics="60,60,31.5,23.5"))
        assert any(line.startswith("mesh") and "triangles" in line for line in lines)
    vertices, faces = read_mesh_ply(tmp_path / "m.ply")
    assert 0 < len(vertices) <= 48 * 64 - 12 * 12
    assert set(np.unique(vertices["red"])) == {40, 200}
    assert vertices["z"][faces].max() < 2.1
    with pytest.raises(InputError, match="metres"):
        run(job, load("fgs"), Settings(unit="relative"))
    with pytest.raises(InputError, match=r"\.glb"):
        run(Job(low, tmp_path / "o.png", rgb, mesh=tmp_path / "m.obj"), load("fgs"), Settings(unit="mm"))


def test_a_camera_or_a_mask_of_another_size_is_refused() -> None:
    depth = plane()
    with pytest.raises(InputError, match=r"camera is for 64x48 pixels, the depth 32x24: pass camera\.resized"):
        point_cloud(depth, CAMERA.resized((48, 64)))
    with pytest.raises(InputError, match="of one size"):
        point_cloud(depth, CAMERA, np.ones((4, 4), bool))


def test_points_of_whole_numbers_doubles_and_views_are_those_of_floats() -> None:
    whole = np.round(plane() * 10).astype(np.uint16)
    expected, _ = point_cloud(whole.astype(np.float32), CAMERA)
    for depth in (whole, whole.astype(np.float64), whole.astype(np.float32)[::-1].copy()[::-1]):
        xyz, _ = point_cloud(depth, CAMERA)
        assert xyz.dtype == np.float32
        np.testing.assert_array_equal(xyz, expected)


def test_point_clouds_of_masks_and_colours_of_other_kinds_are_right_or_refused() -> None:
    depth, rgb = plane(), np.full((24, 32, 3), 0.5, np.float32)
    half = np.arange(32)[None].repeat(24, 0) < 16
    expected, _ = point_cloud(depth, CAMERA, half)
    for kind in (np.uint8, np.int64):
        xyz, _ = point_cloud(depth, CAMERA, half.astype(kind))
        np.testing.assert_array_equal(xyz, expected)
    for wrong in (rgb * 255, (rgb * 255).astype(np.uint16), rgb[..., 0], np.ones((24, 32, 4), np.uint8)):
        with pytest.raises(InputError, match=r"floats of 0\.\.1 or uint8"):
            point_cloud(depth, CAMERA, rgb=wrong)
    camera: Any = read_intrinsics("50,55,15.5,11.5")
    with pytest.raises(InputError, match=r"read_intrinsics\(…\)\.camera"):
        point_cloud(depth, camera)
