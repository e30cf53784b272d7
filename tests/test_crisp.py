"""Crisp: what it is told, what it keeps, its files, and that it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from crispdepth.bench.evaluation import evaluate
from crispdepth.data.augmentation import EASY, sensed
from crispdepth.data.scenes import scenes
from crispdepth.data.textures import Dice
from crispdepth.degradation import downsample
from crispdepth.losses import absolute, root_square
from crispdepth.models.catalog import WEIGHTS, load
from crispdepth.models.classical import Bicubic
from crispdepth.models.crisp import TINY_CONFIG, Crisp, CrispConfig
from crispdepth.types import Depth, InputError, Mask, Rgb, Sample

SMALL = CrispConfig(2, 1, 8, widths=(8, 8, 8, 8), encoder=(0, 0, 1), middle=1, context=1, decoder=(0, 1))
NETWORKS = ("crisp", "crisp-tiny")


def inputs(sample: Sample, scale: float = 8) -> tuple[Depth, Mask, Rgb]:
    assert sample.depth is not None
    assert sample.rgb is not None
    low, valid = downsample(sample.depth, torch.ones_like(sample.depth, dtype=torch.bool), scale)
    return low, valid, sample.rgb


def shuffled(config: CrispConfig = SMALL) -> Crisp:
    """A network whose last layer is not zero, so that everything matters."""
    torch.manual_seed(0)
    network = Crisp(config).eval()
    for net in (network.x2, network.x4):
        for stage in net.stages:
            torch.nn.init.normal_(stage.leave.weight, std=0.05)  # type: ignore[union-attr, arg-type]
    early = [add for adds in network.early.values() for add in adds.children()]
    for last in (network.say2, network.say4, *network.guide, *early):
        torch.nn.init.normal_(last.get_parameter("weight"), std=0.05)
    return network


@pytest.mark.parametrize(("config", "most"), [(CrispConfig(), 3e6), (TINY_CONFIG, 0.4e6)])
def test_the_networks_stay_small(config: CrispConfig, most: float) -> None:
    assert sum(p.numel() for p in Crisp(config).parameters()) <= most


@pytest.mark.parametrize("name", NETWORKS)
def test_the_weights_in_the_package_are_small_and_have_a_card(name: str) -> None:
    assert (WEIGHTS / f"{name}.safetensors").stat().st_size <= 8e6
    card = (WEIGHTS / f"{name}.md").read_text(encoding="utf-8")
    for word in ("Apache-2.0", "scenes", "seed"):
        assert word in card


def test_a_shifted_and_scaled_map_gives_the_same_depth_shifted_and_scaled(scene: Sample) -> None:
    network = shuffled()
    low, valid, rgb = inputs(scene)
    with torch.inference_mode():
        expected = 7.0 * network(low, valid, rgb) + 3.0
        torch.testing.assert_close(network(7.0 * low + 3.0, valid, rgb), expected, rtol=1e-4, atol=1e-3)


def test_the_shrunken_result_is_nearer_to_the_measurement_than_without_correction(scene: Sample) -> None:
    low, valid, rgb = inputs(scene, 4)
    off = []
    for rounds in (0, 1):
        network = shuffled(CrispConfig(**{**vars(SMALL), "rounds": rounds}))
        with torch.inference_mode():
            depth = network(low, valid, rgb)
        shrunk, _ = downsample(depth, torch.ones_like(depth, dtype=torch.bool), 4)
        off.append(float((shrunk - low).abs().mean()))
    assert off[1] < 0.5 * off[0]


def test_the_expected_error_is_positive_and_in_the_unit_of_the_map(scene: Sample) -> None:
    network = shuffled()
    low, valid, rgb = inputs(scene)
    with torch.inference_mode():
        depth, error = network.estimate(low, valid, rgb)
        _, thousandfold = network.estimate(1000 * low, valid, rgb)
    assert error.shape == depth.shape
    assert (error > 0).all()
    torch.testing.assert_close(thousandfold, 1000 * error, rtol=1e-3, atol=0)


def test_no_more_error_is_expected_than_the_map_has_range(scene: Sample) -> None:
    network, (low, valid, rgb) = shuffled(), inputs(scene)
    valid[..., 3:-3, 3:-3] = False
    assert network.say4.bias is not None
    span = low[valid].max() - low[valid].min()
    with torch.inference_mode():
        network.say4.bias[-16:] = 2  # the logarithm of the error, in units of the local contrast
        learnt = network.staged(low, valid, rgb).error
        error = network.estimate(low, valid, rgb)[1]
    assert learnt.max() > 1.2 * span > span > learnt.min()
    torch.testing.assert_close(error, learnt.clamp(max=float(span)))


@pytest.mark.parametrize(
    ("scale", "levels"), [(4, ""), (8, "8"), (16, "16"), (32, "16 16"), (64, "16 16")], ids=lambda x: f"<{x}>"
)
def test_the_picture_guides_all_steps(scale: int, levels: str) -> None:
    """Those before the last by the U's features at the size of their readings, pooled where it has none so small."""
    network = shuffled()
    low, rgb = torch.rand(1, 1, 4, 4) + 1, torch.rand(1, 3, 4 * scale, 4 * scale)
    used: list[str] = []
    for level, adds in network.early.items():
        adds[0].register_forward_hook(lambda _, __, ___, level=level: used.append(level))  # type: ignore[index]
    with torch.inference_mode():
        before = network(low, torch.ones_like(low, dtype=torch.bool), rgb)
        for level in used:
            torch.nn.init.zeros_(network.early[level][0].weight)  # type: ignore[index]
        after = network(low, torch.ones_like(low, dtype=torch.bool), rgb)
    assert " ".join(used[: len(used) // 2]) == levels
    assert torch.equal(before, after) != bool(levels)


def test_the_picture_guides_each_stage_of_the_last_step(scene: Sample) -> None:
    network = shuffled(CrispConfig(**{**vars(SMALL), "early": False}))
    low, valid, rgb = inputs(scene)  # x8: x2, then x4
    with torch.inference_mode():
        before = network.staged(low, valid, rgb)
        torch.nn.init.zeros_(network.guide[1].weight)  # type: ignore[arg-type]
        torch.nn.init.zeros_(network.guide[1].bias)  # type: ignore[arg-type]
        after = network.staged(low, valid, rgb)
    assert torch.equal(before.sides[0], after.sides[0])
    assert not torch.equal(before.depth, after.depth)
    handed: list[object] = []
    network.x2.register_forward_pre_hook(lambda _, words: handed.append(words[2]))
    network(low, valid, rgb)
    assert handed == [None]


def test_without_colours_the_picture_is_not_seen(scene: Sample) -> None:
    low, valid, rgb = inputs(scene)
    for colours in (True, False):
        network = shuffled(CrispConfig(**{**vars(SMALL), "colours": colours}))
        with torch.inference_mode():
            assert torch.equal(network(low, valid, rgb), network(low, valid, 1 - rgb)) != colours


@pytest.mark.parametrize("config", [SMALL, replace(SMALL, colours=False), replace(SMALL, phase=False)])
def test_the_stem_reads_2x2_pixels_as_channels_of_one(config: CrispConfig) -> None:
    network = shuffled(config)
    full = torch.rand(2, 5 if config.colours else 2, 32, 48)
    coarse = torch.rand(2, 8 if config.phase else 2, 16, 24)
    with torch.inference_mode():
        plain = network.stem(torch.cat([F.pixel_unshuffle(full, 2), coarse], 1))
        torch.testing.assert_close(network._entered(full, coarse), plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("small", "size", "grid"),
    [((30, 40), (240, 320), (240, 320)), ((40, 80), (187, 333), (160, 320)), ((40, 80), (120, 160), (160, 320))],
)
def test_sizes_between_the_steps_are_resampled(
    small: tuple[int, int], size: tuple[int, int], grid: tuple[int, int]
) -> None:
    """The steps end where their factors do; the result has the size of the picture."""
    network = shuffled()
    low = torch.rand(1, 1, *small) + 1
    seen: list[tuple[int, ...]] = []
    network.down[0].register_forward_hook(lambda _, given, __: seen.append(tuple(given[0].shape[-2:])))
    with torch.inference_mode():
        made = network.staged(low, torch.ones_like(low, dtype=torch.bool), torch.rand(1, 3, *size))
    assert made.depth.shape[-2:] == made.error.shape[-2:] == made.sides[0].shape[-2:] == size
    assert seen == [(grid[0] // 2, grid[1] // 2)]


def test_another_scale_along_each_axis_works(scene: Sample) -> None:
    network = shuffled()
    _, _, rgb = inputs(scene)
    low = torch.rand(1, 1, 11, 40) + 1
    assert network(low, torch.ones_like(low, dtype=torch.bool), rgb).shape == rgb[:, :1].shape


def test_saved_weights_come_back_the_same(tmp_path: Path, scene: Sample) -> None:
    network = shuffled()
    network.save(tmp_path / "x.safetensors")
    again = Crisp.from_file(tmp_path / "x.safetensors").eval()
    assert again.config == network.config
    with torch.inference_mode():
        expected, depth = network(*inputs(scene)), again(*inputs(scene))
    torch.testing.assert_close(depth, expected, rtol=2e-3, atol=2e-3)  # half precision
    again.save(tmp_path / "y.safetensors")
    once, twice = load_file(tmp_path / "x.safetensors"), load_file(tmp_path / "y.safetensors")
    assert once.keys() == twice.keys()
    assert all(torch.equal(once[key], twice[key]) for key in once)


def test_missing_and_foreign_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="missing"):
        Crisp.from_file(tmp_path / "no.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"not safetensors at all")
    with pytest.raises(InputError, match="no safetensors file"):
        Crisp.from_file(tmp_path / "bad.safetensors")


def test_a_file_of_weights_is_a_model_too(tmp_path: Path, scene: Sample) -> None:
    network = shuffled()
    network.save(tmp_path / "mine.safetensors")
    with torch.inference_mode():
        depth = load(str(tmp_path / "mine.safetensors"))(*inputs(scene))
        torch.testing.assert_close(depth, network(*inputs(scene)), rtol=2e-3, atol=2e-3)
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    for name, message in (("other", "does not say which model"), ("none", "does not exist")):
        with pytest.raises(InputError, match=message):
            load(str(tmp_path / f"{name}.safetensors"))


def test_it_learns_a_few_scenes_by_heart() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(2)
    sample = sensed(scenes(2, 64, 64, seed=3), Dice(3, "cpu"), EASY, (8, 8))
    low, valid, rgb, depth = sample.low, sample.valid, sample.rgb, sample.depth
    assert low is not None
    assert valid is not None
    assert rgb is not None
    assert depth is not None
    low, valid, rgb, depth = (x.clone() for x in (low, valid, rgb, depth))
    network = Crisp(TINY_CONFIG)
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    plain = root_square(Bicubic()(low, valid, (64, 64)), depth).mean()
    for _ in range(200):
        made = network(low, valid, rgb)
        loss = absolute(made, depth).mean() + root_square(made, depth).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    assert root_square(made.detach(), depth).mean() < 0.4 * plain


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        *((name, scale) for name in NETWORKS for scale in (4, 8)),
        ("crisp", 16),
        pytest.param("crisp-tiny", 16, marks=pytest.mark.xfail(strict=True, reason="fgs is better: docs/numbers.md")),
    ],
)
def test_the_trained_networks_beat_the_best_filter_on_unseen_scenes(name: str, scale: int) -> None:
    errors = dict.fromkeys((name, "fgs"), 0.0)
    for seed in range(3):
        sample = scenes(1, 240, 320, seed=2_000_001_000 + seed)
        assert sample.depth is not None
        for key in errors:
            made = load(key)(*inputs(sample, scale)).detach()[..., 6:-6, 6:-6]
            errors[key] += float(root_square(made, sample.depth[..., 6:-6, 6:-6]))
    assert errors[name] < errors["fgs"]


@pytest.mark.parametrize("set_name", ["middlebury", "lu"])
def test_crisp_beats_the_best_filter_on_real_images(set_name: str, real_data: Path) -> None:
    ours, plain = (
        evaluate(load(name), set_name, real_data / set_name, 8, "fdsr").metrics["rmse"] for name in ("crisp", "fgs")
    )
    assert ours < 0.9 * plain
