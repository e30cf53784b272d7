"""CTKT: the cascade, who teaches whom and who feels it, what is saved, and that it learns."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from crispdepth import careful
from crispdepth.careful import estimated
from crispdepth.data.augmentation import EASY, Sensors, ragged, sensed
from crispdepth.data.scenes import scenes
from crispdepth.data.textures import Dice
from crispdepth.degradation import downsample
from crispdepth.engines import Choice, prepared
from crispdepth.geometry import enlarge, fill, level_step
from crispdepth.inference import predict
from crispdepth.losses import root_square
from crispdepth.models.catalog import load
from crispdepth.models.classical import Bicubic
from crispdepth.models.ctkt import Ctkt, CtktConfig, DENet, DENetConfig, cascade
from crispdepth.training import task
from crispdepth.training.distilled import (
    ESTIMATOR,
    CtktTask,
    affinity,
    agreed,
    balanced,
    between,
    error,
    exchange,
    structure,
    trust,
    who_learns,
)
from crispdepth.training.examples import Batch, Scenes, example
from crispdepth.training.recipes import ROLES, CtktRecipe, changed, find
from crispdepth.training.run import train
from crispdepth.types import InputError, Model, Sample, Size

SMALL = CtktConfig(stages=2, blocks=1, width=8)
RECIPE = CtktRecipe(
    network=SMALL,
    estimator=DENetConfig(widths=(8, 8), blocks=(1, 1), common=8),
    patches=((2, 48),),
    steps=4,
    ramp=1,
    distinct=2,
    learning_rate=1e-3,
    warmup=1,
    validate_every=4,
    checkpoint_every=2,
)
ALONE = ["estimation_weight=0", "output_weight=0", "affinity_weight=0", "structure_weight=0"]


def shuffled() -> Ctkt:
    """A network whose last layers are not zero, so that everything matters."""
    torch.manual_seed(0)
    network = Ctkt(SMALL).eval()
    for part in (network.x2, network.x4):
        for stage in part.stages:
            torch.nn.init.normal_(stage.get_parameter("leave.weight"), std=0.01)
    return network


@pytest.mark.parametrize(
    ("scale", "factors"),
    [
        (1, ()),
        (1.1, ()),
        (1.5, (2,)),
        (2, (2,)),
        (2.2, (2,)),
        (3, (4,)),
        (4, (4,)),
        (6, (2, 4)),
        (8, (2, 4)),
        (16, (4, 4)),
        (32, (2, 4, 4)),
    ],
)
def test_a_scale_is_reached_by_factors_of_2_and_4(scale: float, factors: tuple[int, ...]) -> None:
    assert cascade((120, 160), (round(120 * scale), round(160 * scale))) == factors


def test_a_map_that_is_a_pixel_short_needs_no_larger_cascade() -> None:
    assert cascade((8, 22), (33, 90)) == (4,)
    assert cascade((480, 640), (240, 320)) == ()


def test_an_untrained_network_enlarges_smoothly(scene: Sample) -> None:
    assert scene.depth is not None
    low = torch.nn.functional.avg_pool2d(scene.depth, 4)
    valid = torch.ones_like(low, dtype=torch.bool)
    plain = Bicubic()(low, valid, (96, 128))
    torch.testing.assert_close(Ctkt(SMALL)(low, valid, (96, 128)), plain, rtol=1e-4, atol=1e-4)


def test_changes_count_in_the_local_contrast() -> None:
    x = torch.zeros(1, 1, 8, 16)
    x[..., :4] = 0.5
    network = shuffled().x4
    made = (network(x, torch.ones_like(x)).depth - enlarge(x, (32, 64))).detach()
    assert 0 < float(made[..., 40:].abs().max()) < 0.1 * float(made[..., 8:24].abs().max())


def test_what_a_stage_lost_reaches_the_next() -> None:
    x = torch.rand(1, 1, 8, 8)
    network = shuffled().x4
    sides = network(x, torch.ones_like(x)).sides
    network.get_parameter("back.0.weight").data.zero_()
    without = network(x, torch.ones_like(x)).sides
    torch.testing.assert_close(sides[0], without[0])
    assert not torch.equal(sides[1], without[1])


def test_no_edge_of_a_map_is_moved_by_half_a_pixel() -> None:
    # Kernels that are their own mirror image, sub-pixels included, must keep a mirrored map mirrored.
    network = shuffled()
    low = torch.rand(1, 1, 6, 10)
    valid = torch.ones_like(low, dtype=torch.bool)
    for part in (network.x2, network.x4):
        mirrored = torch.arange(part.factor**2).view(part.factor, -1).flip(-1).flatten()
        for name, weight in part.named_parameters():
            if weight.dim() < 4:
                weight.data.zero_()
                continue
            image = weight.data.flip(-1)
            if "leave" in name:
                image = image[mirrored]
            if "back" in name:
                image[:, :-1] = image[:, mirrored]
            weight.data = (weight.data + image) / 2
    torch.testing.assert_close(network(low.flip(-1), valid, (48, 80)).flip(-1), network(low, valid, (48, 80)))


def test_all_networks_of_the_cascade_are_small() -> None:
    assert sum(p.numel() for p in Ctkt().parameters()) <= 4e6


def test_depth_from_colours_has_the_pictures_size_whatever_it_is() -> None:
    network = DENet(DENetConfig(widths=(8, 8, 8), blocks=(0, 1, 0), common=8))
    for size in ((48, 64), (47, 61)):
        rgb = torch.rand(2, 3, *size)
        made = network(rgb, torch.zeros(2, 1, 1, 1, dtype=torch.bool))
        assert made.depth.shape == (2, 1, *size)
        assert {f.shape for f in made.features} == {(2, 8, -(-size[0] // 4), -(-size[1] // 4))}
        turned = network(rgb, torch.tensor([True, False])[:, None, None, None]).depth
        assert not torch.allclose(turned[0], made.depth[0])
        torch.testing.assert_close(turned[1], made.depth[1])


# Who teaches whom


def predictions() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two predictions (2, 1, 8, 8) that ask for gradients, and the target."""
    generator = torch.Generator().manual_seed(4)
    sr, de, target = (torch.rand(2, 1, 8, 8, generator=generator) for _ in range(3))
    return sr.requires_grad_(), de.requires_grad_(), target


def learning(sr: torch.Tensor, de: torch.Tensor, target: torch.Tensor, roles: str) -> torch.Tensor:
    return who_learns(error(sr, target), error(de, target), roles)


def gradients(sr: torch.Tensor, de: torch.Tensor, target: torch.Tensor, roles: str) -> list[torch.Tensor]:
    return list(torch.autograd.grad(exchange(sr, de, learning(sr, de, target, roles)), [sr, de]))


@pytest.mark.parametrize("roles", ["pixel", "image", "denet"])
def test_no_gradient_reaches_the_teacher_at_any_pixel(roles: str) -> None:
    sr, de, target = predictions()
    learns = learning(sr, de, target, roles).expand_as(sr).bool()
    to_sr, to_de = gradients(sr, de, target, roles)
    assert (to_sr[learns] != 0).all()
    assert (to_de[learns] == 0).all()
    assert (to_sr[~learns] == 0).all()
    assert (to_de[~learns] != 0).all()


@pytest.mark.parametrize("roles", ROLES)
def test_each_network_learns_by_its_share_and_both_shares_are_the_whole(roles: str) -> None:
    sr, de, target = predictions()
    learns = learning(sr, de, target, roles)
    assert not learns.requires_grad
    assert float(learns.min()) >= 0
    assert float(learns.max()) <= 1
    to_sr, to_de = gradients(sr, de, target, roles)
    # With w_sr + w_de = 1, what both feel adds up to one gradient of the mean difference at every pixel.
    torch.testing.assert_close(to_sr.abs() + to_de.abs(), torch.full_like(sr, 1 / sr.numel()))
    torch.testing.assert_close(to_sr.abs() * sr.numel(), learns.expand_as(sr))


@pytest.mark.parametrize("roles", ["pixel", "soft", "image"])
def test_swapping_the_networks_swaps_the_gradients(roles: str) -> None:
    sr, de, target = predictions()
    to_sr, to_de = gradients(sr, de, target, roles)
    swapped_sr, swapped_de = gradients(de.detach().requires_grad_(), sr.detach().requires_grad_(), target, roles)
    torch.testing.assert_close(swapped_sr, to_de)
    torch.testing.assert_close(swapped_de, to_sr)


@pytest.mark.parametrize("roles", ROLES)
def test_nothing_is_left_to_teach_when_both_agree(roles: str) -> None:
    sr, _, target = predictions()
    assert float(exchange(sr, sr.clone(), learning(sr, sr, target, roles)).detach()) == 0
    features = torch.rand(2, 4, 32, 32)
    pairs = between(error(sr, target))
    assert float(exchange(affinity(features), affinity(3 * features), who_learns(pairs, pairs, roles))) < 1e-6


def test_the_one_that_is_right_teaches() -> None:
    target = torch.zeros(2, 1, 1, 4)
    sr = torch.tensor([[0.1, 0.1, 0.1, 0.9], [0.1, 0.1, 0.1, 0.1]])[:, None, None]
    de = torch.tensor([[0.2, 0.2, 0.2, 0.0], [0.2, 0.2, 0.2, 0.0]])[:, None, None]
    assert learning(sr, de, target, "pixel").flatten(1).tolist() == [[0, 0, 0, 1]] * 2
    assert learning(sr, de, target, "image").flatten().tolist() == [1, 0]
    soft = learning(sr, de, target, "soft").flatten(1)
    assert float(soft[0, 3]) > 0.99
    assert float(soft[0, 0]) < 0.01


def test_a_teacher_that_is_nearer_tells_nothing_but_the_direction_of_the_truth() -> None:
    """If |E - D| < |S - D|, both E and D lie on the same side of S: so `exchange` is |S - D| with other weights."""
    sr, de, target = predictions()
    learns = learning(sr, de, target, "pixel")
    assert 0.2 < float(learns.mean()) < 0.8
    to_sr = gradients(sr, de, target, "pixel")[0]
    torch.testing.assert_close(to_sr, learns * (sr - target).sign().detach() / sr.numel())
    always = gradients(sr, de, target, "denet")[0]
    assert not torch.equal(always, (sr - target).sign().detach() / sr.numel())


def test_affinity_compares_places_not_strengths() -> None:
    features = torch.zeros(1, 2, 16, 16)
    features[:, 0, :, :8], features[:, 1, :, 8:] = 5.0, 0.1
    alike = affinity(features).view(16, 16, 16, 16)
    assert float(alike[3, 2, 9, 5]) == pytest.approx(1)
    assert float(alike[3, 2, 3, 12]) == pytest.approx(0)


def test_of_two_places_the_teacher_is_who_errs_less_over_both() -> None:
    sr_off, de_off = torch.full((1, 1, 32, 32), 0.2), torch.full((1, 1, 32, 32), 0.3)
    de_off[..., :16] = 0.0
    learns = who_learns(between(sr_off), between(de_off), "pixel").view(16, 16, 16, 16)
    assert float(learns[3, 2, 9, 5]) == 1
    assert float(learns[3, 2, 9, 12]) == 1
    assert float(learns[3, 12, 9, 12]) == 0


def test_what_agrees_with_the_low_map_says_only_what_that_lacks(scene: Sample) -> None:
    assert scene.depth is not None
    low, valid = downsample(scene.depth, torch.ones_like(scene.depth, dtype=torch.bool), 8)
    flat = torch.full_like(scene.depth, 7.0)
    torch.testing.assert_close(agreed(flat, low, valid), enlarge(low, (96, 128)), rtol=1e-4, atol=1e-4)
    far_off = agreed(scene.depth + 3, low, valid)  # how far all is, is no longer DENet's to say
    torch.testing.assert_close(far_off, scene.depth, rtol=1e-4, atol=1e-4)
    valid[..., 2:7, 3:9] = False
    far_off = agreed(scene.depth + 3, torch.where(valid, low, 0), valid)  # nor is it in a hole
    torch.testing.assert_close(far_off, scene.depth, rtol=1e-4, atol=1e-4)
    assert torch.equal(agreed(flat, low, torch.zeros_like(valid)), flat)


# Structure


def test_structure_is_where_depth_jumps_in_any_unit() -> None:
    depth = torch.ones(1, 1, 12, 12)
    assert (structure(depth) == 0).all()
    depth[..., 6:] = 3.0
    found = structure(depth)
    assert (found[..., 5:7] > 0.85).all()
    assert (found[..., :5] == 0).all()
    torch.testing.assert_close(structure(1000 * depth), found)


def test_the_fusion_trusts_the_network_that_errs_less() -> None:
    sr, de, target = predictions()
    sr_off, de_off = error(sr, target), error(de, target)
    share = trust(sr_off, de_off)
    assert not share.requires_grad
    a, b = (off / off.mean(dim=(1, 2, 3), keepdim=True) for off in (sr_off, de_off))
    torch.testing.assert_close(share, (-a).exp() / ((-a).exp() + (-b).exp()))
    torch.testing.assert_close(trust(de_off, sr_off), 1 - share)


def test_structure_that_is_rare_weighs_as_much_as_the_rest() -> None:
    target = torch.zeros(1, 1, 10, 10)
    target[..., 0] = 1
    everywhere, nowhere = torch.full_like(target, 9.0), torch.full_like(target, -9.0)
    assert float(balanced(everywhere, target)) == pytest.approx(float(balanced(nowhere, target)), rel=1e-3)
    right = torch.where(target > 0, 9.0, -9.0)
    assert float(balanced(right, target)) < 0.01 * float(balanced(nowhere, target))


# Training


@pytest.fixture(autouse=True)
def _small_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "VALIDATION_SCENES", 1)
    monkeypatch.setattr(task, "VALIDATION_SIZE", (96, 128))
    task._validation_scenes.cache_clear()


@pytest.fixture(scope="module")
def batch() -> Batch:
    return example(RECIPE, 1, "cpu", Scenes())


def task_of(words: list[str], folder: Path) -> CtktTask:
    torch.manual_seed(0)
    return CtktTask(changed(RECIPE, words), folder)


def feels(module: torch.nn.Module, value: torch.Tensor) -> bool:
    found = torch.autograd.grad(value, list(module.parameters()), retain_graph=True, allow_unused=True)
    return any(g is not None and bool((g != 0).any()) for g in found)


def test_every_term_reaches_the_networks_it_is_about(batch: Batch, tmp_path: Path) -> None:
    made = task_of([], tmp_path)
    networks = (made.network.x2, made.network.x4)
    for layer in [*made.estimator.leave, *(stage.leave for net in networks for stage in net.stages)]:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.normal_(layer.weight, std=0.01)  # zero at the start, which lets nothing through
    values = made.terms(batch)
    reached = {
        name: (feels(made.network, v), feels(made.estimator, v)) for name, v in values.items() if v.requires_grad
    }
    assert reached == {
        "resolution": (True, False),
        "estimation": (False, True),
        "side": (True, True),
        "output": (True, True),
        "affinity": (True, True),
        "structure": (True, True),
    }
    assert 0 <= float(values["denet_teaches"]) <= 1


def test_a_term_without_weight_is_not_computed_nor_a_network_without_use(batch: Batch, tmp_path: Path) -> None:
    assert set(task_of(ALONE, tmp_path).terms(batch)) == {"resolution", "side"}
    assert not hasattr(task_of(ALONE, tmp_path), "estimator")
    for word in ("output", "affinity", "structure"):
        assert word not in task_of([f"{word}_weight=0"], tmp_path).terms(batch)


def test_denet_is_judged_and_teaches_by_what_the_low_map_lacks(batch: Batch, tmp_path: Path) -> None:
    made, far = task_of(["agreeing=true"], tmp_path), task_of([], tmp_path)
    for one in (made, far):
        for layer in one.estimator.leave.children():
            torch.nn.init.zeros_(layer.get_parameter("weight"))
            torch.nn.init.constant_(layer.get_parameter("bias"), 5.0)  # a wall, five ranges too far
    told = (batch["rgb"], batch["inverse"], batch["low"], batch["valid"])
    plain = enlarge(fill(batch["low"], batch["valid"]), (48, 48))
    for depth in (made.estimated(*told).depth, *made.estimated(*told).sides):
        torch.testing.assert_close(depth, plain, rtol=1e-4, atol=1e-4)
    assert float(far.estimated(*told).depth.detach().min()) > 5
    pairs = task._validation_scenes(torch.device("cpu"))
    with torch.inference_mode():
        assert made.further(pairs)["estimation_share"] == pytest.approx(1, abs=1e-4)
        assert far.further(pairs)["estimation_share"] > 5


def test_a_denet_that_has_learnt_before_is_begun_with(tmp_path: Path) -> None:
    train(RECIPE, tmp_path / "before", accelerator="cpu", workers=0)
    path = tmp_path / "before" / ESTIMATOR
    again = task_of([f"estimator_start={path}"], tmp_path).estimator.state_dict()
    fresh = task_of([], tmp_path).estimator.state_dict()
    kept = load_file(path)
    assert again.keys() == kept.keys()
    assert all(torch.equal(again[key], kept[key].float()) for key in kept)
    assert not torch.equal(again["whole.weight"], fresh["whole.weight"])
    with pytest.raises(InputError, match="of another shape"):
        task_of([f"estimator_start={path}", "estimator.common=16"], tmp_path)
    with pytest.raises(InputError, match="no weights of DENet"):
        task_of([f"estimator_start={tmp_path / 'before' / 'weights.safetensors'}"], tmp_path)
    with pytest.raises(InputError, match=r"name estimator\.safetensors in the folder"):
        task_of([f"estimator_start={tmp_path / 'none.safetensors'}"], tmp_path)
    with pytest.raises(InputError, match="does not say which model"):
        load(str(path))


def test_a_guided_teacher_stands_in_for_denet_and_does_not_learn(batch: Batch, tmp_path: Path) -> None:
    words = ["guided_teacher=crisp-tiny", "estimation_weight=0", "affinity_weight=0", "structure_weight=0"]
    made = task_of(words, tmp_path)
    assert not hasattr(made, "estimator")
    assert {key.split(".")[0] for key in made.state_dict()} == {"network"}
    values = made.terms(batch)
    assert set(values) == {"resolution", "side", "teacher_teaches", "output"}
    told = load("crisp-tiny")(batch["low"], batch["valid"], batch["rgb"])
    sides = made.resolved(batch["low"], batch["valid"], (48, 48), batch["step"]).sides
    learns = [who_learns(error(side, batch["depth"]), error(told, batch["depth"]), "pixel") for side in sides]
    expected = torch.stack([exchange(side, told, w) for side, w in zip(sides, learns, strict=True)]).mean()
    torch.testing.assert_close(values["output"], expected, rtol=1e-4, atol=1e-6)
    values["output"].backward()
    assert all(p.grad is None for p in made.teacher[0].parameters())
    assert set(task_of(words[:1], tmp_path).terms(batch)) > {"estimation", "affinity", "structure", "output"}
    truth = task_of(["guided_teacher=truth", "roles=denet", *words[1:]], tmp_path)
    off = torch.stack([(side - batch["depth"]).abs().mean() for side in sides]).mean()
    torch.testing.assert_close(truth.terms(batch)["output"], off)
    pairs = task._validation_scenes(torch.device("cpu"))
    for one, name in ((made, "crisp-tiny"), (truth, "truth")):  # who teaches is drawn, too
        titles = [panel.title for panel in one.panels(*pairs[0], 8)][4:]
        assert titles[:2] == [f"{name}, who teaches", "its error (10 x the scale above)"]
        assert titles[2].startswith(f"{name} teaches at ")
        assert titles[3:] == ["true structure"]
    with pytest.raises(InputError, match="take crisp"):
        task_of(["guided_teacher=ctkt"], tmp_path)


def test_both_begin_alike_with_and_without_the_other(tmp_path: Path) -> None:
    alone, joint = task_of(ALONE, tmp_path).network, task_of([], tmp_path).network
    assert all(torch.equal(a, b) for a, b in zip(alone.parameters(), joint.parameters(), strict=True))


def test_where_the_truth_has_holes_nothing_is_learnt(batch: Batch, tmp_path: Path) -> None:
    holed = {**batch, "known": torch.zeros_like(batch["known"])}
    values = task_of([], tmp_path).terms(holed)
    for name in ("resolution", "estimation", "side", "output"):
        assert float(values[name].detach()) < 1e-3  # RMSE is never quite 0


def test_the_released_file_holds_the_test_network_and_nothing_else(tmp_path: Path) -> None:
    weights = load_file(train(RECIPE, tmp_path, accelerator="cpu", workers=0))
    assert weights.keys() == Ctkt(SMALL).state_dict().keys()
    assert {key.split(".")[0] for key in weights} == {"x2", "x4"}
    model = load(str(tmp_path / "weights.safetensors"))
    assert isinstance(model, Ctkt)
    assert model.inputs == ("low",)
    assert list((tmp_path / "pictures").glob("step-*.png"))
    header, *rows = (next((tmp_path / "metrics").glob("*/metrics.csv"))).read_text().splitlines()
    assert {"share_x2", "share_x16", "estimation_share"} <= set(header.split(","))
    assert rows


def test_saved_weights_come_back_and_foreign_ones_are_refused(tmp_path: Path) -> None:
    network = shuffled()
    network.save(tmp_path / "x.safetensors")
    again = Ctkt.from_file(tmp_path / "x.safetensors").eval()
    assert again.config == network.config
    low = torch.rand(1, 1, 6, 8) + 1
    valid = torch.ones_like(low, dtype=torch.bool)
    torch.testing.assert_close(again(low, valid, (48, 64)), network(low, valid, (48, 64)), rtol=2e-3, atol=2e-3)
    load("crisp").save(tmp_path / "crisp.safetensors")  # type: ignore[operator]
    with pytest.raises(InputError, match="no weights of Ctkt"):
        Ctkt.from_file(tmp_path / "crisp.safetensors")


def test_a_mistaken_recipe_is_refused_with_its_cure(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean pixel"):
        changed(find("ctkt"), ["roles=pixels"])
    with pytest.raises(InputError, match=r"estimator\.widths"):
        task_of(["network.stages=3"], tmp_path)


def test_an_example_says_whether_its_depth_counts_disparity(scene: Sample) -> None:
    assert scene.depth is not None
    both = dataclasses.replace(
        scene, **{name: getattr(scene, name).expand(8, -1, -1, -1) for name in ("rgb", "depth", "depth_valid")}
    )
    seen = sensed(both, Dice(1, "cpu"), dataclasses.replace(EASY, inverse=0.5), (4, 4))
    assert seen.inverse is not None
    assert seen.depth is not None
    assert 0 < int(seen.inverse.sum()) < 8
    nearest = seen.depth.flatten(1).mean(1)
    ordinary = nearest[~seen.inverse.flatten()]
    torch.testing.assert_close(ordinary, ordinary[:1].expand_as(ordinary))
    assert (nearest[seen.inverse.flatten()] != ordinary[0]).all()


def test_scales_come_from_the_recipe_and_8_bit_maps_hold_whole_levels(scene: Sample) -> None:
    plain = dataclasses.replace(EASY, eight_bit=1, whole_scales=(2, 4), rounded=0)
    sizes = set()
    for seed in range(6):
        low = sensed(scene, Dice(seed, "cpu"), plain, (1.5, 16)).low
        assert low is not None
        sizes.add(low.shape[-1])
        values = low.unique()
        step = float((values[1:] - values[:-1]).min())
        assert 1 / 256 < step < 1 / 31
        torch.testing.assert_close((low / step).round() * step, low, rtol=0, atol=0.05 * step)
    assert sizes == {32, 64}


@pytest.mark.parametrize("seed", range(3))
def test_in_levels_truth_and_low_map_hold_the_same_whole_levels(seed: int, scene: Sample) -> None:
    seen = sensed(scene, Dice(seed, "cpu"), dataclasses.replace(EASY, in_levels=1, whole_scales=(4,)), (4, 4))
    assert seen.depth is not None
    assert seen.low is not None
    values = seen.depth.unique()
    levels = round(1 / float((values[1:] - values[:-1]).min()))
    assert 32 <= levels <= 255
    assert seen.step is not None
    assert round(1 / float(seen.step[0])) == levels
    for x in (seen.depth, seen.low):
        torch.testing.assert_close((x * levels).round() / levels, x, rtol=0, atol=1e-5)
    smooth = sensed(scene, Dice(seed, "cpu"), dataclasses.replace(EASY, eight_bit=1, whole_scales=(4,)), (4, 4)).depth
    assert smooth is not None
    assert len(smooth.unique()) > 4 * len(values)


def test_in_levels_edges_stay_hard_and_slopes_get_ragged() -> None:
    depth = torch.full((4, 1, 48, 48), 3.0)
    depth[..., 10:30, 10:30] = 1.0
    box = Sample(rgb=torch.zeros(4, 3, 48, 48), depth=depth)
    edges = dataclasses.replace(EASY, soft_depth=1, bent=1, fattened=1)

    def between(sensors: Sensors, seed: int) -> int:
        seen = sensed(box, Dice(seed, "cpu"), sensors, (4, 4)).depth
        assert seen is not None
        return int(((seen > 0.15) & (seen < 0.85)).sum())

    assert all(between(dataclasses.replace(edges, in_levels=1), seed) == 0 for seed in range(4))
    assert all(between(edges, seed) > 0 for seed in range(4))
    slope = torch.linspace(0, 1, 96).expand(2, 1, 64, 96)
    levels = torch.tensor([40.0, 200.0]).view(2, 1, 1, 1)
    off = (ragged(Dice(1, "cpu"), slope, levels) * levels).round() - (slope * levels).round()
    assert 0.02 < float((off != 0).float().mean()) < 0.5
    assert float(off.abs().max()) <= 2


def test_it_learns_a_few_maps_by_heart() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(2)
    sample = sensed(scenes(2, 48, 48, seed=3), Dice(3, "cpu"), EASY, (4, 4))
    low, valid, depth = sample.low, sample.valid, sample.depth
    assert low is not None
    assert valid is not None
    assert depth is not None
    low, valid, depth = (x.clone() for x in (low, valid, depth))
    network = Ctkt(CtktConfig(stages=2, blocks=1, width=16))
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    plain = root_square(Bicubic()(low, valid, (48, 48)), depth).mean()
    for _ in range(150):
        loss = root_square(network(low, valid, (48, 48)), depth).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    assert float(loss.detach()) < 0.4 * float(plain)


def stairs(height: int, width: int) -> torch.Tensor:
    """A slope and a step in whole levels, without noise."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (1.7 * columns + rows + 60 * (columns > width / 3)).round()[None, None]


def test_a_network_hears_of_levels_only_if_told_and_only_where_a_map_is_in_such() -> None:
    torch.manual_seed(0)
    network = Ctkt(CtktConfig(width=8, blocks=1, levels=True))
    assert Ctkt(CtktConfig(width=8, blocks=1)).in_levels is None
    low = torch.cat([stairs(12, 16), stairs(12, 16) + 0.5, stairs(12, 16) / 4])
    valid = torch.ones_like(low, dtype=torch.bool)
    with torch.inference_mode():
        for name, weight in network.named_parameters():
            if name.endswith("leave.weight"):
                weight.normal_(std=0.02)
            elif name.endswith("enter.0.weight"):
                weight[:, 4] = 3.0  # what it hears of the step
    told = network.in_levels
    assert told is not None
    with torch.inference_mode():
        plain, heard = network(low, valid, (24, 32)), told(low, valid, (24, 32))
    changed = [bool((x - y).abs().max() > 1e-3) for x, y in zip(plain, heard, strict=True)]
    assert changed == [True, False, False]


def test_level_step_is_one_level_of_maps_in_levels_and_0_of_others() -> None:
    low = stairs(12, 16)
    valid = torch.ones_like(low, dtype=torch.bool)
    assert float(level_step(low, valid)) == pytest.approx(1 / float(low.max() - low.min()))
    odd = low.clone()
    odd[0, 0, 3, 4] += 0.5
    assert float(level_step(odd, valid)) == 0
    valid[0, 0, 3, 4] = False
    assert float(level_step(odd, valid)) > 0  # what no sensor read does not count
    for other in (low / 8, (low / 8).round(), low * 40, torch.zeros_like(low)):  # metres, few levels, millimetres
        assert float(level_step(other, torch.ones_like(valid))) == 0
    assert float(level_step(low, torch.zeros_like(valid))) == 0


@pytest.mark.parametrize("name", ["ctkt", "ctkt+"])
@pytest.mark.parametrize("engine", ["torch", "bf16"])
def test_levels_are_drawn_where_asked_for(name: str, engine: str) -> None:
    model = prepared(load(name), Choice("torch", "cpu", "float32" if engine == "torch" else "bf16", ""))
    low = stairs(24, 32).numpy()[0, 0]
    asked = {"low": low, "unit": "disparity", "size": (96, 128)}
    surface, kept = predict(model, **asked), predict(model, **asked, levels=True)
    assert (kept.depth == kept.depth.round()).all()
    assert (surface.depth != surface.depth.round()).mean() > 0.5
    assert 0 < np.abs(surface.depth - kept.depth).mean() < 0.6


def test_levels_are_refused_where_there_are_none() -> None:
    low = stairs(24, 32).numpy()[0, 0]
    with pytest.raises(InputError, match="leave it out"):
        predict("ctkt", low=low, unit="mm", size=(96, 128), levels=True)
    with pytest.raises(InputError, match="--model ctkt"):
        predict("bicubic", low=low, unit="disparity", size=(96, 128), levels=True)
    rgb = np.zeros((96, 128, 3), np.uint8)
    with pytest.raises(InputError, match="--model ctkt"):
        predict("crisp", low=low, rgb=rgb, unit="disparity", levels=True)


def test_scattered_holes_in_levels_are_filled_with_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    low = stairs(48, 64)
    low[:, :, torch.rand(48, 64, generator=torch.Generator().manual_seed(1)) < 0.2] = 0
    model = load("ctkt")
    seen: list[torch.Tensor] = []

    def watched(model: Model, sample: Sample, size: Size | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        assert sample.low is not None
        seen.append(sample.low)
        return estimated(model, sample, size)

    monkeypatch.setattr(careful, "estimated", watched)
    kept = predict(model, low=low, unit="disparity", size=(96, 128), levels=True)
    assert kept.twice
    assert len(seen) == 2
    assert torch.equal(seen[1], seen[1].round())
    assert bool((seen[1] > 0).all())
    assert (kept.depth == kept.depth.round()).all()
