"""Made-up scenes: the same every time, exact, and with the edges that a network has to tell apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from crispdepth.data.raycast import Rays, box_depth, room_depth, round_depth, sheet_depth, shell_depth
from crispdepth.data.scenes import CLASSES, scenes
from crispdepth.types import Sample

BALL, CYLINDER, CONE = (1.0, 0.0, -1.0), (1.0, 0.0, 0.0), (0.25, 0.5, 0.25)
NEAR = torch.tensor([0.1])


@pytest.fixture(scope="module")
def many() -> Sample:
    return scenes(12, 96, 128, seed=3)


def tensors(sample: Sample) -> list[torch.Tensor]:
    maps = (sample.rgb, sample.depth, sample.depth_valid, sample.classes, sample.intrinsics)
    return [m for m in maps if m is not None]


def some_rays() -> tuple[Rays, np.ndarray]:
    """33 x 47 rays of a turned camera, and the same as plain float64 directions (h, w, 3) in the world."""
    x, y = torch.linspace(-0.61, 0.57, 47), torch.linspace(-0.43, 0.49, 33)
    turn = torch.linalg.matrix_exp(torch.tensor([[0.0, -0.2, 0.15], [0.2, 0.0, -0.1], [-0.15, 0.1, 0.0]]))
    u, v = np.meshgrid(x.double().numpy(), y.double().numpy())
    camera = np.stack([u, v, np.ones_like(u)], -1)
    return Rays(x[None, None], y[None, :, None], turn[None]), camera @ turn.double().numpy().T


def first_inside(start: np.ndarray, way: np.ndarray, inside: np.ndarray, at: np.ndarray) -> np.ndarray:
    """For each ray the least of the candidate depths ``at`` (h, w, n) for which ``inside`` holds, else infinite."""
    good = inside & (at > 0.1) & np.isfinite(at)
    return np.where(good, at, np.inf).min(-1)


def assert_same_depth(found: torch.Tensor, wanted: np.ndarray) -> None:
    """Equal to 1e-4 wherever both see it; a border pixel or two may be seen by only one of them."""
    both = np.isfinite(wanted) & np.isfinite(found[0].numpy())
    assert both.sum() > 30
    assert (np.isfinite(wanted) != np.isfinite(found[0].numpy())).sum() <= 2
    np.testing.assert_allclose(found[0].numpy()[both], wanted[both], rtol=1e-4)


def test_the_same_seed_gives_the_same_scene() -> None:
    for one, two in zip(tensors(scenes(2, 40, 56, 5)), tensors(scenes(2, 40, 56, 5)), strict=True):
        assert torch.equal(one, two)


def test_another_seed_gives_another_scene() -> None:
    one, two = scenes(1, 40, 56, 2**31 - 1), scenes(1, 40, 56, 2**31)
    assert not torch.equal(tensors(one)[0], tensors(two)[0])
    assert not torch.equal(tensors(one)[1], tensors(two)[1])


def test_scenes_of_one_batch_differ(many: Sample) -> None:
    assert many.depth is not None
    assert len({float(d.sum()) for d in many.depth}) == 12


def test_the_global_random_numbers_are_left_alone() -> None:
    before = torch.get_rng_state()
    scenes(1, 32, 32, 1)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (16, 200), (133, 16), (97, 64)])
def test_any_size_gives_whole_maps(size: tuple[int, int]) -> None:
    sample = scenes(3, *size, seed=8)
    rgb, depth, valid, classes, intrinsics = tensors(sample)
    assert (rgb.shape, rgb.dtype) == ((3, 3, *size), torch.float32)
    assert (depth.shape, depth.dtype) == ((3, 1, *size), torch.float32)
    assert (classes.shape, classes.dtype) == ((3, 1, *size), torch.uint8)
    assert intrinsics.shape == (3, 3, 3)
    assert valid.dtype == torch.bool
    assert valid.all()
    assert rgb.isfinite().all()
    assert rgb.min() >= 0
    assert rgb.max() <= 1
    assert depth.isfinite().all()
    assert depth.min() > 0.05
    assert int(classes.max()) < len(CLASSES)
    assert sample.low is None
    assert sample.valid is None


def test_the_tensors_can_be_trained_on() -> None:
    rgb = scenes(1, 32, 32, 1).rgb
    assert rgb is not None
    weight = torch.ones(3, 3, 1, 1, requires_grad=True)
    functional.conv2d(rgb, weight).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize("profile", [BALL, CYLINDER, CONE, (0.64, -0.32, 0.04), (0.75, 0.5, -0.25)])
@pytest.mark.parametrize("hollow", [False, True])
def test_a_round_body_is_where_the_closed_form_says(profile: tuple[float, float, float], hollow: bool) -> None:
    rays, way = some_rays()
    half, centre = np.array([0.5, 0.7, 0.5]), np.array([0.1, 0.05, 2.2])
    (a, b, c), o, d = profile, -centre / half, way / half
    square = d[..., 0] ** 2 + d[..., 2] ** 2 - c * d[..., 1] ** 2
    mixed = 2 * (o[0] * d[..., 0] + o[2] * d[..., 2]) - (2 * c * o[1] + b) * d[..., 1]
    constant = o[0] ** 2 + o[2] ** 2 - a - b * o[1] - c * o[1] ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        root = np.sqrt(mixed**2 - 4 * square * constant)
        at = np.stack([(-mixed - root) / (2 * square), (-mixed + root) / (2 * square)], -1)
        good = np.abs(o[1] + at * d[..., 1:2]) <= 1
        if not hollow:  # lids
            ends = (np.array([-1.0, 1.0]) - o[1]) / d[..., 1:2]
            across = (o[0] + ends * d[..., 0:1]) ** 2 + (o[2] + ends * d[..., 2:3]) ** 2
            good = np.concatenate([good, across <= a + b * np.array([-1, 1]) + c], -1)
            at = np.concatenate([at, ends], -1)
    wanted = first_inside(o, d, good, at)
    body = shell_depth if hollow else round_depth
    local = rays.along(torch.diag(torch.tensor(1 / half, dtype=torch.float32))[None])
    found = body(torch.tensor(o, dtype=torch.float32)[None], local, torch.tensor([profile]), NEAR[:, None, None])
    assert_same_depth(found, wanted)


@pytest.mark.parametrize("cut", [None, (0.6, 0.5, -0.4)])
def test_a_box_is_where_the_closed_form_says(cut: tuple[float, float, float] | None) -> None:
    rays, way = some_rays()
    half, centre = np.array([0.5, 0.4, 0.6]), np.array([-0.1, 0.1, 2.4])
    o, d = -centre / half, way / half
    normals = np.concatenate([np.eye(3), np.array([cut])]) if cut else np.eye(3)
    at = np.concatenate([(side - normals @ o) / (d @ normals.T) for side in (-1, 1)], -1)
    places = o + at[..., None] * d[..., None, :]
    inside = (np.abs(places @ normals.T) <= 1 + 1e-9).all(-1)
    local = rays.along(torch.diag(torch.tensor(1 / half, dtype=torch.float32))[None])
    cuts = torch.tensor([[cut]]) if cut else None
    found = box_depth(torch.tensor(o, dtype=torch.float32)[None], local, cuts, NEAR[:, None, None])
    assert_same_depth(found, first_inside(o, d, inside, at))


def test_a_sheet_is_a_plane_where_its_silhouette_is() -> None:
    rays, way = some_rays()
    turn = torch.linalg.matrix_exp(torch.tensor([[0.0, 0.1, 0.4], [-0.1, 0.0, -0.3], [-0.4, 0.3, 0.0]]))
    centre, normal = np.array([0.1, 0.0, 1.8]), turn[:, 2].double().numpy()
    wanted = (centre @ normal) / (way @ normal)
    eye = -(turn.mT @ torch.tensor(centre, dtype=torch.float32))[None]
    whole = torch.ones(1, 2, 8, 8)
    local = rays.along(turn.mT[None])
    found = sheet_depth(eye, local, whole, torch.zeros(1), NEAR[:, None, None])
    seen = np.isfinite(found[0].numpy())
    assert_same_depth(found, np.where(seen, wanted, np.inf))
    raised = sheet_depth(eye, local, whole, torch.tensor([0.2]), NEAR[:, None, None])
    assert found[0, 16, 23] - raised[0, 16, 23] == pytest.approx(0.2, abs=1e-5)


def test_the_room_is_its_nearest_wall() -> None:
    rays, way = some_rays()
    low, high = np.array([-1.2, -1.0, -2.0]), np.array([1.5, 0.8, 3.1])
    wanted = np.maximum(low / way, high / way).min(-1)
    corners = [torch.tensor(c, dtype=torch.float32)[None] for c in (low, high)]
    found, face = room_depth(rays, *corners)
    np.testing.assert_allclose(found[0].numpy(), wanted, rtol=1e-5)
    assert set(face.unique().tolist()) <= set(range(6))


@pytest.mark.parametrize("zoom", [1.0, 4.0])
def test_floor_pixels_lie_on_one_plane(many: Sample, zoom: float) -> None:
    _, depth, _, classes, intrinsics = tensors(many if zoom == 1 else scenes(12, 96, 128, seed=3, zoom=zoom))
    v, u = torch.meshgrid(torch.arange(96.0), torch.arange(128.0), indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)]).flatten(1).double()
    checked = 0
    for scene in range(len(depth)):
        points = (intrinsics[scene].double().inverse() @ pixels) * depth[scene].double().flatten()
        floor = points[:, classes[scene].flatten() == CLASSES.index("floor")]
        if floor.shape[1] < 100:
            continue
        centred = floor - floor.mean(1, keepdim=True)
        normal = torch.linalg.svd(centred, full_matrices=False).U[:, 2]
        assert (normal @ centred).abs().max() < 1e-3
        checked += 1
    assert checked >= 4


def test_from_closer_there_are_fewer_edges_and_longer_lenses(many: Sample) -> None:
    def edges(sample: Sample) -> float:
        depth = tensors(sample)[1]
        return float(((depth[..., 1:] / depth[..., :-1]).log().abs() > 0.05).float().mean())

    close = scenes(12, 96, 128, seed=3, zoom=4.0)
    assert 0 < edges(close) < 0.7 * edges(many)
    by = tensors(close)[4][:, 0, 0] / tensors(many)[4][:, 0, 0]
    assert bool(((by >= 1) & (by <= 4)).all())
    assert float(by.max() / by.min()) > 1.5


def test_rooms_of_true_size_are_seen_from_eye_level(many: Sample) -> None:
    _, depth, _, classes, intrinsics = tensors(scenes(24, 96, 128, seed=3, true_size=True))
    v, u = torch.meshgrid(torch.arange(96.0), torch.arange(128.0), indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)]).flatten(1).double()
    heights: list[float] = []
    widths: dict[str, list[float]] = {"table": [], "sofa": []}
    for k, depths, labels in zip(intrinsics, depth, classes, strict=True):
        points = (k.double().inverse() @ pixels) * depths.double().flatten()
        floor = points[:, labels.flatten() == CLASSES.index("floor")]
        if floor.shape[1] > 200:
            normal = torch.linalg.svd(floor - floor.mean(1, keepdim=True), full_matrices=False).U[:, 2]
            heights.append(abs(float(normal @ floor.mean(1))))  # of the camera at the origin above the floor's plane
        for name, found in widths.items():
            piece = points[:, labels.flatten() == CLASSES.index(name)]
            if piece.shape[1] > 200:
                found.append(float((piece.amax(1) - piece.amin(1)).norm()))
    assert len(heights) > 8
    assert min(heights) > 1.0 and max(heights) < 1.75  # noqa: PT018
    assert all(0.4 < w < 5 for found in widths.values() for w in found)  # two may stand side by side
    assert all(widths.values())
    sizes = depth.flatten(1).log().mean(1), tensors(many)[1].flatten(1).log().mean(1)
    assert float(sizes[0].std()) < 0.6 * float(sizes[1].std())


def test_the_camera_is_inside_of_nothing_and_sees_many_things(many: Sample) -> None:
    _, depth, _, classes, _ = tensors(many)
    kinds = [len(c.unique()) for c in classes]
    assert np.median(kinds) >= 6
    flat = depth.flatten(1)
    spread = flat.quantile(0.98, 1) / flat.quantile(0.02, 1)
    assert float(spread.median()) > 1.5
    assert float(spread.max()) < 40


def test_edges_in_depth_and_in_colour_come_together_and_alone(many: Sample) -> None:
    rgb, depth, _, _, _ = tensors(many)
    step = torch.maximum(depth[..., 1:-1, 2:] - depth[..., 1:-1, :-2], depth[..., 1:-1, :-2] - depth[..., 1:-1, 2:])
    far = step / depth[..., 1:-1, 1:-1] > 0.1
    colour = (rgb[..., 1:-1, 2:] - rgb[..., 1:-1, :-2]).abs().amax(1, keepdim=True)
    near_colour = functional.max_pool2d(colour, 3, 1, 1)
    near_far = functional.max_pool2d(far.float(), 3, 1, 1) > 0
    assert 0.005 < float(far.float().mean()) < 0.2
    assert float((near_colour[far] < 0.04).float().mean()) > 0.03  # an edge in depth that colour does not show
    assert float((near_colour[far] > 0.1).float().mean()) > 0.3
    assert float((~near_far[colour > 0.12]).float().mean()) > 0.2  # prints, patterns, shadows
