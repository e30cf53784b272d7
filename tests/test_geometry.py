"""Geometry against closed forms and plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.plain import masked_average, pil_bicubic

from crispdepth import careful
from crispdepth.geometry import (
    Camera,
    depth_edges,
    fill,
    flying_pixels,
    grow,
    hardened,
    local_range,
    planar,
    points,
    resize,
    resize_rgb,
    wide_holes,
)


def random_map(height: int, width: int, seed: int = 0, holes: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    depth = torch.from_numpy(rng.uniform(1, 5, (1, 1, height, width)).astype(np.float32))
    valid = torch.from_numpy(rng.uniform(0, 1, (1, 1, height, width)) >= holes)
    return torch.where(valid, depth, 0), valid


@pytest.mark.parametrize("size", [(7, 9), (40, 21), (30, 44), (100, 97)])
def test_bicubic_resizing_is_what_pil_does(size: tuple[int, int]) -> None:
    depth, valid = random_map(30, 44)
    ours, seen = resize(depth, valid, size)
    expected = pil_bicubic(depth[0, 0].numpy(), *size)
    assert seen.all()
    np.testing.assert_allclose(ours[0, 0].numpy(), expected, atol=2e-5)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.floats(0, 0.9), st.integers(2, 5))
def test_averaging_leaves_holes_out(seed: int, holes: float, scale: int) -> None:
    depth, valid = random_map(scale * 5, scale * 4, seed, holes)
    ours, seen = resize(depth, valid, (5, 4), "average")
    expected, expected_seen = masked_average(depth[0, 0].numpy(), valid[0, 0].numpy(), scale)
    share = torch.nn.functional.avg_pool2d(valid.float(), scale)
    undecided = (share - 0.5).abs()[0, 0].numpy() < 1e-5  # exactly half: rounding decides
    assert (seen[0, 0].numpy() == expected_seen)[~undecided].all()
    both = seen[0, 0].numpy() & expected_seen
    np.testing.assert_allclose(ours[0, 0].numpy()[both], expected[both], rtol=1e-5)


@pytest.mark.parametrize("kernel", ["bicubic", "average", "nearest"])
@pytest.mark.parametrize("size", [(6, 8), (48, 64), (25, 33)])
def test_the_value_under_a_hole_never_matters(kernel: str, size: tuple[int, int]) -> None:
    depth, valid = random_map(24, 32, holes=0.3)
    poisoned = torch.where(valid, depth, torch.nan)
    a, b = resize(depth, valid, size, kernel), resize(poisoned, valid, size, kernel)
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])
    assert torch.equal(fill(depth, valid), fill(poisoned, valid))


def test_an_unknown_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="bicubic"):
        resize(*random_map(4, 4), (2, 2), "lanczos")


def test_filling_keeps_readings_and_stays_within_their_range() -> None:
    depth, valid = random_map(37, 53, holes=0.95)
    full = fill(depth, valid)
    assert torch.equal(full[valid], depth[valid])
    assert full.min() >= depth[valid].min() - 1e-5
    assert full.max() <= depth[valid].max() + 1e-5


def test_filling_one_reading_spreads_it_everywhere_and_none_gives_zeros() -> None:
    valid = torch.zeros(1, 1, 13, 9, dtype=torch.bool)
    assert (fill(torch.ones(1, 1, 13, 9), valid) == 0).all()
    valid[..., 3, 4] = True
    torch.testing.assert_close(fill(torch.full((1, 1, 13, 9), 2.5), valid), torch.full((1, 1, 13, 9), 2.5))


def test_points_of_a_plane_lie_on_it() -> None:
    camera = Camera(50, 60, 15.5, 12.0, 32, 24)
    u, v = np.meshgrid(np.arange(32), np.arange(24))
    a, b, c, d = 0.3, -0.2, 1.0, 2.0  # a x + b y + c z = d, with x = z (u - cx) / fx
    z = d / (a * (u - 15.5) / 50 + b * (v - 12) / 60 + c)
    xyz = points(torch.from_numpy(z.astype(np.float32))[None, None], camera.matrix())[0]
    plane = a * xyz[0] + b * xyz[1] + c * xyz[2]
    torch.testing.assert_close(plane, torch.full_like(plane, d))


def test_the_length_of_a_ray_becomes_planar_depth() -> None:
    camera = Camera(50, 60, 15.5, 12.0, 32, 24)
    z = random_map(24, 32)[0]
    lengths = points(z, camera.matrix()).square().sum(dim=1, keepdim=True).sqrt()
    torch.testing.assert_close(planar(lengths, camera.matrix()), z)
    straight = Camera(50, 50, 0, 0, 1, 1)
    assert float(planar(torch.tensor([[[[3.0]]]]), straight.matrix())) == 3.0


def test_a_resized_camera_sees_the_same_rays() -> None:
    camera = Camera(50, 60, 15.5, 11.5, 32, 24)
    large = camera.resized((48, 64))
    # The corner of the image (half a pixel outside the first centre) is the same ray.
    assert (-0.5 - camera.cx_px) / camera.fx_px == pytest.approx((-0.5 - large.cx_px) / large.fx_px)
    assert (31.5 - camera.cx_px) / camera.fx_px == pytest.approx((63.5 - large.cx_px) / large.fx_px)
    assert (23.5 - camera.cy_px) / camera.fy_px == pytest.approx((47.5 - large.cy_px) / large.fy_px)


def test_a_field_of_view_of_90_degrees_has_half_the_longer_side_as_focal_length() -> None:
    assert Camera.from_fov(90, (480, 640)).fx_px == pytest.approx(320)
    assert Camera.from_fov(90, (640, 480)).fy_px == pytest.approx(320)


def step(near: float = 1.0, far: float = 2.0) -> torch.Tensor:
    depth = torch.full((1, 1, 8, 12), near)
    depth[..., 6:] = far
    return depth


def test_depth_edges_are_the_two_pixels_beside_a_jump_in_any_unit() -> None:
    valid = torch.ones(1, 1, 8, 12, dtype=torch.bool)
    for unit in (1.0, 1000.0, 1e-3):
        edges = depth_edges(step() * unit, valid)
        assert edges[0, 0, 0].nonzero().flatten().tolist() == [5, 6]
    assert not depth_edges(step(1.0, 1.04), valid).any()


def test_a_hole_makes_no_depth_edge() -> None:
    valid = torch.ones(1, 1, 8, 12, dtype=torch.bool)
    valid[..., 6:] = False
    assert not depth_edges(step(), valid).any()


def test_growing_widens_by_the_radius() -> None:
    mask = torch.zeros(1, 1, 9, 9, dtype=torch.bool)
    mask[..., 4, 4] = True
    assert grow(mask, 2).sum() == 25
    assert grow(mask, 0) is mask


def test_local_range_is_the_window_minimum_and_maximum() -> None:
    depth, valid = random_map(11, 12, holes=0.2)
    near, far = local_range(depth, valid, 2)
    window = np.s_[0, 0, 3:8, 4:9]
    readings = depth[window][valid[window]]
    assert near[0, 0, 5, 6] == readings.min()
    assert far[0, 0, 5, 6] == readings.max()


def test_hardened_pixels_on_edges_move_to_the_nearer_side_in_any_unit() -> None:
    line = [1.0, 1.0, 1.3, 2.0, 2.0, 2.02, 2.0]
    depth = torch.tensor(line).expand(1, 1, 5, 7)
    for unit in (1.0, 1000.0):
        made = hardened(depth * unit, 0.01 * unit, 0.02) / unit
        assert made[0, 0, 2].tolist() == pytest.approx([1.0, 1.0, 1.1, 2.0, 2.0, 2.02, 2.0])
    assert hardened(depth, 0.0)[0, 0, 2].tolist() == pytest.approx([1.0, 1.0, 1.1, 2.0, 2.0, 2.02, 2.0])
    assert torch.equal(hardened(depth, 1.01), depth)
    slope = torch.linspace(1, 9, 33).expand(1, 1, 5, 33)
    torch.testing.assert_close(hardened(slope, 0.0, 0.02), slope)


@pytest.mark.parametrize("rows", [1, 5, 64])
def test_edges_are_hardened_by_rows_as_in_one_go(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    depth = torch.rand(1, 1, 23, 17, generator=torch.Generator().manual_seed(0)) * 4
    monkeypatch.setattr(careful, "ROWS", rows)
    least, share = 0.1, 0.02
    assert torch.equal(careful._hardened(depth, least, share), hardened(depth, least, share))


def test_flying_pixels_are_those_between_two_surfaces() -> None:
    valid = torch.ones(1, 1, 8, 12, dtype=torch.bool)
    depth = step()
    assert not flying_pixels(depth, valid).any()
    depth[..., 5] = 1.5
    assert flying_pixels(depth, valid)[0, 0, 0].nonzero().flatten().tolist() == [5]


def test_a_slanted_surface_has_no_flying_pixels() -> None:
    depth = torch.linspace(1, 1.3, 40).expand(1, 1, 30, 40).contiguous()
    assert not flying_pixels(depth, torch.ones_like(depth, dtype=torch.bool)).any()


def test_colours_are_resized_without_overshoot() -> None:
    rgb = torch.zeros(1, 3, 16, 16)
    rgb[..., 8:] = 1
    for size in ((5, 7), (40, 33)):
        out = resize_rgb(rgb, size)
        assert out.min() >= 0
        assert out.max() <= 1
    assert resize_rgb(rgb, (16, 16)) is rgb


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_wide_holes_are_the_empty_squares(seed: int, width_px: int) -> None:
    valid = torch.from_numpy(np.random.default_rng(seed).uniform(size=(1, 1, 11, 14)) > 0.9)
    valid[..., 2:7, 3:9] = False
    expected = np.zeros((11, 14), dtype=bool)
    side = width_px + 1
    for y in range(11 - side + 1):
        for x in range(14 - side + 1):
            if not valid[0, 0, y : y + side, x : x + side].any():
                expected[y : y + side, x : x + side] = True
    np.testing.assert_array_equal(wide_holes(valid, width_px)[0, 0].numpy(), expected)


def test_flying_pixels_lie_between_surfaces_a_tenth_apart() -> None:
    def flies(far: float, at: float = 0.5, beside: int = 1) -> bool:
        depth = torch.where(torch.arange(24) < 12, 1.0, far).expand(1, 1, 9, 24).clone()
        depth[..., 12 - beside] = 1 + at * (far - 1)
        return bool(flying_pixels(depth, torch.ones_like(depth, dtype=torch.bool))[..., 12 - beside].any())

    assert [far for far in (1.05, 1.09, 1.11, 1.3) if flies(far)] == [1.11, 1.3]
    assert [at for at in (0.2, 0.3, 0.7, 0.8) if flies(2.0, at)] == [0.3, 0.7]
    assert [px for px in (1, 2, 3) if flies(2.0, beside=px)] == [1, 2]


def test_values_near_0_make_edges_from_a_hundredth_of_the_largest_on() -> None:
    depth = torch.tensor([[0.0001, 0.0001, 0.0001 + 0.00055, 0.0001 + 0.001, 1.0, 1.0]]).view(1, 1, 1, 6)
    assert depth_edges(depth, depth > 0)[0, 0, 0].tolist() == [False, True, True, True, True, False]
    depth[..., 2] = 0.0001 + 0.00045  # less than 5 % of 1 % of the largest
    assert depth_edges(depth, depth > 0)[0, 0, 0].tolist() == [False, False, True, True, True, False]


@pytest.mark.parametrize("slope", [(0.9, 0.0), (0.0, -0.9), (0.7, 0.6)])
@pytest.mark.parametrize("size", [(15, 20), (60, 80)])
def test_no_pixel_flies_on_a_plane_however_steep(slope: tuple[float, float], size: tuple[int, int]) -> None:
    camera = Camera.from_fov(60, size)
    v, u = torch.meshgrid(*(torch.arange(float(n)) for n in size), indexing="ij")
    a, b = slope
    depth = (2 / (1 + a * (u - camera.cx_px) / camera.fx_px + b * (v - camera.cy_px) / camera.fy_px))[None, None]
    valid = torch.ones_like(depth, dtype=torch.bool)
    near, far = local_range(depth, valid, 2)
    assert size[0] > 20 or (far > 1.1 * near).float().mean() > 0.5  # steep enough for the test to mean something
    assert not flying_pixels(depth, valid).any()
    depth[..., 7, 7] *= 1.3  # what hangs in the air before or behind it is no part of it
    depth[..., 8:11, 5:10] *= 1.6
    assert flying_pixels(depth, valid)[..., 7, 7].all()


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_pixels_of_a_ramp_at_the_border_fly_too(turns: int) -> None:
    depth = torch.ones(1, 1, 12, 16)
    depth[..., 0], depth[..., 1] = 5, 2.5
    depth = depth.rot90(turns, (-2, -1))
    flying = flying_pixels(depth, torch.ones_like(depth, dtype=torch.bool)).rot90(-turns, (-2, -1))
    assert flying[..., 1].all()
    assert flying.sum() == 12


@pytest.mark.parametrize("ramp", [(1.5,), (1.33, 1.67)])
def test_all_pixels_of_a_short_ramp_between_two_surfaces_fly(ramp: tuple[float, ...]) -> None:
    depth = torch.where(torch.arange(24) < 12, 1.0, 2.0).repeat(1, 1, 9, 1)
    depth[..., 11 : 11 + len(ramp)] = torch.tensor(ramp)
    flying = flying_pixels(depth, torch.ones_like(depth, dtype=torch.bool))
    assert flying[0, 0, 4].nonzero().flatten().tolist() == list(range(11, 11 + len(ramp)))
    assert not flying_pixels(depth[..., :2, :], torch.ones(1, 1, 2, 24, dtype=torch.bool)).any()  # too little to tell


@pytest.mark.parametrize("size", [(4, 1), (1, 1), (9, 1)])
def test_a_single_column_is_made_as_a_single_row_is(size: tuple[int, int]) -> None:
    x = torch.rand(1, 1, 64, 16, generator=torch.Generator().manual_seed(2))
    turned, _ = resize(x.mT.contiguous(), torch.ones_like(x.mT, dtype=torch.bool), size[::-1])
    torch.testing.assert_close(resize(x, torch.ones_like(x, dtype=torch.bool), size)[0], turned.mT)
    rgb = x.expand(1, 3, 64, 16)
    torch.testing.assert_close(resize_rgb(rgb, size), resize_rgb(rgb.mT.contiguous(), size[::-1]).mT)
    assert size[0] == 1 or float(turned.std()) > 0.01
