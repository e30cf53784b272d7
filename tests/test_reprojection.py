"""Reprojection: a depth map seen from another camera, against closed forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from depth_files import png
from PIL import Image

from crispdepth.batch import Job, Settings, run
from crispdepth.geometry import Camera
from crispdepth.models.catalog import load
from crispdepth.reprojection import _between, _draw, reproject, size_seen
from crispdepth.types import InputError

DEPTH_CAMERA = Camera(100, 100, 59.5, 44.5, 120, 90)
COLOUR_CAMERA = Camera(110, 112, 61.0, 43.0, 120, 90)
NEAR, FAR = np.array([0.1, -0.05, 1.0, -1.0]), np.array([-0.15, 0.1, 1.0, -2.0])  # planes a x + b y + c z + d = 0
WINDOW = (-0.25, 0.2, -0.3, 0.15)  # where the near plane is: left, right, top, bottom in metres


def rig(tx: float = 0.08, angle_deg: float = 2.0) -> np.ndarray:
    """The colour camera to the side of the depth camera, turned a little."""
    a = np.radians(angle_deg)
    matrix = np.eye(4)
    matrix[:3, :3] = [[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]]
    matrix[:3, 3] = [-tx, 0.01, 0.005]
    return matrix


def hits(camera: Camera, move: np.ndarray, plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth of ``plane`` (given for the depth camera) in ``camera``, and the points hit, for the depth camera."""
    v, u = np.mgrid[: camera.height, : camera.width]
    rays = np.stack([(u - camera.cx_px) / camera.fx_px, (v - camera.cy_px) / camera.fy_px, np.ones(u.shape)], axis=-1)
    back = np.linalg.inv(move)
    seen = plane @ np.linalg.inv(move)  # the plane in the camera's own axes
    z = -seen[3] / (rays @ seen[:3])
    points = np.concatenate([rays * z[..., None], np.ones((*u.shape, 1))], axis=-1)
    return z, (points @ back.T)[..., :3]


def two_planes(camera: Camera, move: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Exact depth, whether the near plane is seen there, and the points (for the depth camera)."""
    z_near, at_near = hits(camera, move, NEAR)
    z_far, at_far = hits(camera, move, FAR)
    x, y = at_near[..., 0], at_near[..., 1]
    near = (x > WINDOW[0]) & (x < WINDOW[1]) & (y > WINDOW[2]) & (y < WINDOW[3])
    return np.where(near, z_near, z_far), near, np.where(near[..., None], at_near, at_far)


def hidden(points: np.ndarray) -> np.ndarray:
    """Points of the far plane that the near one hides from the depth camera."""
    t = -NEAR[3] / (points @ NEAR[:3])
    x, y = t * points[..., 0], t * points[..., 1]
    return (t < 0.999) & (x > WINDOW[0]) & (x < WINDOW[1]) & (y > WINDOW[2]) & (y < WINDOW[3])


def tensors(depth: np.ndarray, valid: np.ndarray | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    valid = np.ones(depth.shape, dtype=bool) if valid is None else valid
    return torch.from_numpy(depth.astype(np.float32))[None, None], torch.from_numpy(valid)[None, None]


def near_edges(near: np.ndarray, radius: int) -> np.ndarray:
    """Pixels within ``radius`` of the border between the two planes, or of the picture's."""
    window = np.pad(near, radius, constant_values=False)
    views = [
        window[y : y + near.shape[0], x : x + near.shape[1]]
        for y in range(2 * radius + 1)
        for x in range(2 * radius + 1)
    ]
    edge = np.any(views, axis=0) & ~np.all(views, axis=0)
    edge[:radius] = edge[-radius:] = True
    edge[:, :radius] = edge[:, -radius:] = True
    return edge


def test_the_same_camera_sees_the_same_map() -> None:
    depth, valid = tensors(two_planes(DEPTH_CAMERA, np.eye(4))[0])
    valid[..., 20:25, 30:40] = False
    result, seen = reproject(depth, valid, DEPTH_CAMERA, DEPTH_CAMERA, np.eye(4))
    assert torch.equal(seen, valid)
    torch.testing.assert_close(result[seen], depth[seen], rtol=1e-6, atol=0)


@pytest.mark.parametrize(("tx", "angle_deg"), [(0.08, 2.0), (-0.08, -3.0)])
def test_two_planes_are_where_the_closed_form_has_them(tx: float, angle_deg: float) -> None:
    move = rig(tx, angle_deg)
    depth, valid = tensors(two_planes(DEPTH_CAMERA, np.eye(4))[0])
    result, seen = (x[0, 0].numpy() for x in reproject(depth, valid, DEPTH_CAMERA, COLOUR_CAMERA, move))
    truth, near, points = two_planes(COLOUR_CAMERA, move)
    shadow = hidden(points) & ~near
    inner = ~near_edges(near, 2)
    u = points[..., 0] / points[..., 2] * DEPTH_CAMERA.fx_px + DEPTH_CAMERA.cx_px
    v = points[..., 1] / points[..., 2] * DEPTH_CAMERA.fy_px + DEPTH_CAMERA.cy_px
    looked = (u > 2) & (u < 117) & (v > 2) & (v < 87) & inner & ~near_edges(shadow, 3) & ~shadow
    # everything that the depth camera saw is there, and exact
    assert looked.mean() > 0.5
    assert seen[looked].all()
    assert np.abs(result / truth - 1)[looked].max() < 1e-5
    # up to the rims it is off by half a pixel's slope at most
    assert np.abs(result / truth - 1)[seen & inner].max() < 2e-3
    # what the near plane hides from the depth camera is a hole, neither doubled nor smeared
    assert shadow.sum() > 50
    assert not seen[shadow & inner & ~near_edges(shadow, 1)].any()


def test_background_does_not_bleed_through_holes_of_the_foreground() -> None:
    move = rig(0.15, 0.0)
    depth, valid = tensors(two_planes(DEPTH_CAMERA, np.eye(4))[0])
    near = two_planes(DEPTH_CAMERA, np.eye(4))[1]
    pinholes = np.random.default_rng(0).uniform(size=near.shape) > 0.9
    valid &= ~torch.from_numpy(near & pinholes)[None, None]
    result, seen = (x[0, 0].numpy() for x in reproject(depth, valid, DEPTH_CAMERA, COLOUR_CAMERA, move))
    truth, in_front, _ = two_planes(COLOUR_CAMERA, move)
    inner = in_front & ~near_edges(in_front, 2)
    assert (seen & inner).mean() > 0.8 * inner.mean()
    assert np.abs(result / truth - 1)[seen & inner].max() < 0.01


def test_background_in_a_narrow_gap_stays_when_the_depth_camera_saw_it_there() -> None:
    depth = np.full((40, 60), 1.0)
    depth[:, 30:32] = 3.0
    shift = np.eye(4)
    shift[0, 3] = 1e-4
    camera = Camera(50, 50, 29.5, 19.5, 60, 40)
    result, _ = reproject(*tensors(depth), camera, camera, shift)
    assert (result[0, 0, 5:35, 30:32] > 2.9).all()


def test_flying_pixels_do_not_come_along() -> None:
    depth = np.full((40, 60), 1.0)
    depth[:, 30:] = 2.0
    depth[:, 29] = 1.5
    camera = Camera(50, 50, 29.5, 19.5, 60, 40)
    result, seen = reproject(*tensors(depth), camera, camera, np.eye(4))
    assert set(np.round(result[seen].numpy(), 4)) == {1.0, 2.0}
    assert not seen[..., 29].any()


def test_scattered_readings_each_arrive() -> None:
    depth = np.full((40, 60), 2.0)
    valid = np.zeros(depth.shape, dtype=bool)
    valid[2::6, 3::6] = True
    camera = Camera(50, 50, 29.5, 19.5, 60, 40)
    move = np.eye(4)
    move[0, 3] = 0.04  # one pixel at 2 m
    result, seen = reproject(*tensors(depth, valid), camera, camera, move)
    expected = np.zeros_like(valid)
    expected[2::6, 4::6] = True
    np.testing.assert_array_equal(seen[0, 0].numpy(), expected)
    assert (result[seen] == 2).all()


def test_a_camera_that_looks_away_sees_nothing() -> None:
    away = np.diag([-1.0, 1.0, -1.0, 1.0])
    assert not reproject(*tensors(np.full((40, 60), 2.0)), DEPTH_CAMERA, DEPTH_CAMERA, away)[1].any()


@pytest.mark.parametrize(("side", "behind", "drawn"), [(20, False, True), (20, True, False), (40, False, False)])
def test_a_patch_partly_behind_the_camera_or_spread_too_wide_is_left_out(side: int, behind: bool, drawn: bool) -> None:
    corners = np.array([[5.0, 5 + side, 5], [5, 5, 5 + side], [1, 1, 0 if behind else 1]])  # column row inverse
    buffer = np.zeros(DEPTH_CAMERA.height * DEPTH_CAMERA.width)
    _draw(buffer, corners[:, :, None], DEPTH_CAMERA)
    assert buffer.any() == drawn


def test_the_new_map_has_about_the_pixels_of_the_old_one() -> None:
    assert size_seen(Camera(200, 200, 99.5, 74.5, 200, 150), Camera(1600, 1600, 959.5, 719.5, 1920, 1440)) == (180, 240)
    assert size_seen(Camera(900, 900, 99.5, 74.5, 200, 150), Camera(300, 300, 99.5, 74.5, 200, 150)) == (150, 200)


def test_a_job_brings_depth_into_the_colour_camera(tmp_path: Path) -> None:
    depth, _, _ = two_planes(DEPTH_CAMERA, np.eye(4))
    large = COLOUR_CAMERA.resized((180, 240))
    truth, near, _ = two_planes(large, rig())
    np.save(tmp_path / "d.npy", depth.astype(np.float32))
    (tmp_path / "c.png").write_bytes(png(np.where(near, 60, 190).astype(np.uint8)[..., None].repeat(3, 2)))
    numbers = [f"{c.fx_px},{c.fy_px},{c.cx_px},{c.cy_px}" for c in (DEPTH_CAMERA, large)]
    rows = ",".join(str(v) for v in rig()[:3].ravel())
    settings = Settings(depth_intrinsics=numbers[0], intrinsics=numbers[1], extrinsics=rows)
    job = Job(tmp_path / "d.npy", tmp_path / "o.npy", tmp_path / "c.png", points=tmp_path / "p.ply")
    lines = run(job, load("fgs"), settings)
    assert any(line.startswith("moved") and "120x90" in line for line in lines)
    error = np.abs(np.load(tmp_path / "o.npy") / truth - 1)
    assert np.median(error) < 1e-3
    assert (error < 0.02).mean() > 0.9
    assert "with the intrinsics given" in "".join(lines)


@pytest.mark.parametrize(
    ("settings", "cure"),
    [
        ({"depth_intrinsics": "100,100,60,45"}, "--rgb-intrinsics"),
        ({"extrinsics": "1,0,0,0,0,1,0,0,0,0,1,0"}, "--depth-intrinsics"),
        ({"depth_intrinsics": "100,100,60,45", "intrinsics": "9,9,9,9", "unit": "relative"}, "metres"),
        ({"depth_intrinsics": "100,100,60,45", "intrinsics": "9,9,9,9", "extrinsics": "1,0,0"}, "12"),
        ({"depth_intrinsics": "100,100,9000,45", "intrinsics": "100,100,60,45"}, "nothing of the depth"),
    ],
)
def test_a_mistake_is_answered_with_its_cure(tmp_path: Path, settings: dict, cure: str) -> None:
    np.save(tmp_path / "d.npy", np.ones((90, 120), dtype=np.float32))
    Image.fromarray(np.zeros((90, 120, 3), dtype=np.uint8)).save(tmp_path / "c.png")
    with pytest.raises(InputError, match=cure):
        run(Job(tmp_path / "d.npy", tmp_path / "o.npy", tmp_path / "c.png"), load("fgs"), Settings(**settings))
    assert not (tmp_path / "o.npy").exists()


@pytest.mark.parametrize(("behind", "kept"), [(1.04, True), (1.07, False)])
@pytest.mark.parametrize(("apart", "through"), [(2, True), (3, False)])
def test_what_is_seen_through_gaps_of_the_foreground_is_left_out(
    behind: float, kept: bool, apart: int, through: bool
) -> None:
    inverse = np.full((9, 15), 1 / behind)
    inverse[:, 7 - apart] = inverse[:, 7 + apart] = 1.0
    assert _between(inverse)[4, 7] == (through and not kept)


def test_a_slanted_floor_keeps_its_readings_where_both_cameras_are_one() -> None:
    camera = Camera(57, 57, 39.5, 29.5, 80, 60)
    v = np.arange(60.0)[:, None].repeat(80, 1)
    down = (v - 29.5) / 57 * np.cos(np.radians(20)) + np.sin(np.radians(20))
    depth = np.where(down > 0.15, 1.2 / np.maximum(down, 1e-6), 0).astype(np.float32)
    low, valid = torch.from_numpy(depth)[None, None], torch.from_numpy(depth > 0)[None, None]
    made, seen = reproject(low, valid, camera, camera, np.eye(4))
    assert seen.sum() > 0.97 * valid.sum()
    torch.testing.assert_close(made[seen & valid], low[seen & valid], rtol=1e-3, atol=0)


def test_a_target_whose_pixels_a_reading_covers_by_the_dozen_is_refused() -> None:
    low = torch.full((1, 1, 90, 120), 2.0)
    with pytest.raises(
        InputError, match=r"covers 18 pixels of the target's: reproject to target\.resized\(\(90, 120\)\)"
    ):
        reproject(low, low > 0, DEPTH_CAMERA, DEPTH_CAMERA.resized((90 * 18, 120 * 18)), np.eye(4))


def test_intrinsics_of_another_size_are_doubted(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.full((90, 120), 2.0, np.float32))
    Image.fromarray(np.zeros((90, 120, 3), dtype=np.uint8)).save(tmp_path / "c.png")
    job = Job(tmp_path / "d.npy", tmp_path / "o.npy", tmp_path / "c.png")
    for given, doubted in (("100,100,240,180", True), ("100,100,60,45", False)):
        settings = Settings(depth_intrinsics=given, intrinsics="40,40,60,45")
        [line] = [x for x in run(job, load("bicubic"), settings) if x.startswith("moved")]
        assert ("--depth-intrinsics: cx,cy = 240,180 is far from the middle of 120x90" in line) == doubted
        assert "--rgb-intrinsics:" not in line
