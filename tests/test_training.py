"""Training: recipes by words, examples as a function of the step, runs that survive a kill."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import two_processes
from PIL import Image
from safetensors.torch import load_file
from test_cli import crispdepth, refused

from crispdepth.atomic import alone
from crispdepth.data.augmentation import EASY, Sensors, bent, easy, fattened, holes, sensed
from crispdepth.data.scenes import scenes
from crispdepth.data.textures import Dice
from crispdepth.io import read_depth
from crispdepth.losses import absolute, expected_error, root_square
from crispdepth.models.catalog import load
from crispdepth.models.crisp import Crisp, CrispConfig
from crispdepth.models.ctkt import Ctkt, CtktConfig
from crispdepth.training import run, task
from crispdepth.training.distilled import CtktTask
from crispdepth.training.examples import Batch, Pictures, Scenes, Several, Stream, example, source
from crispdepth.training.muon import Muon, orthogonal
from crispdepth.training.recipes import OPTIMIZERS, RECIPES, CrispRecipe, CtktRecipe, changed, find
from crispdepth.training.run import is_finished, train
from crispdepth.training.supervised import CrispTask
from crispdepth.training.tokens import TokensTask
from crispdepth.types import InputError, Sample

SMALL = CrispConfig(1, 1, 8, widths=(8, 8, 8, 8), encoder=(0, 0, 0), middle=1, context=0, decoder=(0, 0))
RECIPE = CrispRecipe(
    network=SMALL,
    patches=((2, 48), (1, 64)),
    steps=6,
    ramp=4,
    distinct=4,
    learning_rate=0.01,  # a lost or doubled step would show
    warmup=1,
    validate_every=6,
    checkpoint_every=2,
)


@pytest.fixture(autouse=True)
def _small_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "VALIDATION_SCENES", 1)
    monkeypatch.setattr(task, "VALIDATION_SIZE", (96, 128))
    task._validation_scenes.cache_clear()


def test_a_recipe_is_changed_by_words_of_its_own_type() -> None:
    words = ["steps=500", "learning_rate=2", "network.phase=false", "sensors.holed=0.4", "patches=[[4, 96], [2, 128]]"]
    recipe = changed(find("crisp"), words)
    assert isinstance(recipe, CrispRecipe)
    assert recipe.steps == 500
    assert recipe.learning_rate == 2.0
    assert recipe.network.phase is False
    assert recipe.sensors.holed == 0.4
    assert recipe.patches == ((4, 96), (2, 128))
    assert dataclasses.replace(recipe, steps=RECIPES["crisp"].steps) != RECIPES["crisp"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("stesp=5", "did you mean steps"),
        ("network.phas=true", "did you mean network.phase"),
        ("network=5", "network.widths"),
        ("steps.x=5", "unknown recipe field"),
        ("steps=many", "write a value like"),
        ("steps=1.5", "write a value like"),
        ("network.phase=1", "write a value like"),
        ("steps", "KEY=VALUE"),
        ("zoom=0.5", "zoom=0.5 is out of range: 1 or more"),
        ("steps=0", "steps=0 is out of range: 1 or more"),
        ("learning_rate=-1", "learning_rate=-1 .*above 0"),
        ("ema=1", "ema=1 .*below 1"),
        ("clip=-1", "clip=-1 .*0 or more"),
        ("scales=[8]", r"scales=\[8.*write 2 values, such as"),
        ("scales=[8,4]", r"scales=\[8.*write the least and the largest"),
        ("patches=[[4]]", r"write \[\[pictures, side"),
        ("sensors.holed=7", "holed=7 .*a share, 0 to 1"),
        ("sensors.soft_px=[0.8, 0.4]", "soft_px=.*not understood: write least and largest"),
    ],
)
def test_a_mistyped_word_is_refused_with_its_cure(word: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        changed(find("crisp"), [word])


def test_an_unknown_recipe_offers_the_nearest() -> None:
    with pytest.raises(InputError, match="crisp-tiny"):
        find("crisp-tyny")


def same(a: Batch, b: Batch) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_an_example_is_a_function_of_its_step(tmp_path: Path) -> None:
    first = example(RECIPE, 5, "cpu", Scenes())
    assert same(first, example(RECIPE, 5, "cpu", Scenes()))
    assert not torch.equal(first["depth"], example(RECIPE, 3, "cpu", Scenes())["depth"])
    kept = [example(RECIPE, step, "cpu", Scenes(tmp_path)) for step in (5, 5)]
    assert same(*kept) or float((kept[0]["rgb"] - kept[1]["rgb"]).abs().max()) < 1 / 255  # pictures kept in 8 bit
    assert len(list(tmp_path.iterdir())) == 1


def test_scenes_come_again_with_other_sensors() -> None:
    one, again = example(RECIPE, 1, "cpu", Scenes()), example(RECIPE, 1 + RECIPE.distinct, "cpu", Scenes())
    assert one["depth"].shape == again["depth"].shape
    assert not same(one, again)


def test_scenes_that_were_seen_before_can_be_skipped() -> None:
    later = dataclasses.replace(RECIPE, skipped=2, distinct=2)
    assert [later.drawn(step) for step in range(5)] == [2, 3, 2, 3, 2]
    assert dataclasses.replace(RECIPE, skipped=2, distinct=0).drawn(5) == 7
    assert not torch.equal(example(RECIPE, 0, "cpu", Scenes())["rgb"], example(later, 0, "cpu", Scenes())["rgb"])


def test_a_stream_that_starts_later_goes_on_where_the_other_was() -> None:
    early, late = iter(Stream(RECIPE, 0, False, Scenes())), iter(Stream(RECIPE, 2, False, Scenes()))
    assert same([next(early) for _ in range(3)][2], next(late))


def test_processes_share_the_examples_among_them() -> None:
    numbers = []
    for rank in range(2):
        stream = iter(Stream(RECIPE, 3, True, Scenes(), rank, world=2))
        numbers.append([int(next(stream)["number"]) for _ in range(2)])
    assert numbers == [[6, 8], [7, 9]]


def test_the_first_examples_are_clean_and_x8() -> None:
    recipe = dataclasses.replace(RECIPE, ramp=1_000_000)
    for step in range(4):
        batch = example(recipe, step, "cpu", Scenes())
        assert batch["low"].shape[-1] * 8 == batch["rgb"].shape[-1]
        assert batch["valid"].all()


@pytest.mark.parametrize("seed", range(8))
def test_what_a_sensor_gives_is_sound(seed: int) -> None:
    shares: dict[str, Any] = {name: 0.6 for name, value in vars(Sensors()).items() if isinstance(value, float)}
    every = dataclasses.replace(Sensors(), **shares)
    seen = sensed(scenes(2, 48, 64, seed=1), Dice(seed, "cpu"), every)
    assert seen.low is not None
    assert seen.valid is not None
    assert seen.rgb is not None
    assert seen.depth is not None
    assert seen.low.shape == seen.valid.shape
    assert seen.low.isfinite().all()
    assert seen.valid.flatten(1).any(1).all()
    assert (seen.low[~seen.valid] == 0).all()
    assert float(seen.rgb.min()) >= 0
    assert float(seen.rgb.max()) <= 1
    assert seen.step is not None
    for i in range(2):
        loose = max(1e-5, 3 * float(seen.step[i]))  # what comes in levels is ragged
        assert (float(seen.depth[i].min()), float(seen.depth[i].max())) == pytest.approx((0, 1), abs=loose)


def test_fattened_things_grow_and_nothing_else_changes() -> None:
    depth = torch.full((4, 1, 20, 20), 3.0)
    depth[..., 8:12, 8:12] = 1.0
    always = dataclasses.replace(EASY, fattened=1)
    grown = [fattened(Dice(seed, "cpu"), depth, always) for seed in range(8)]
    near = [int((g == 1).sum(dim=(1, 2, 3)).max()) for g in grown]
    assert min(near) >= 16
    assert max(near) > 16
    assert max(near) <= 8 * 8
    assert all(bool((g[..., 8:12, 8:12] == 1).all()) for g in grown)
    assert torch.equal(fattened(Dice(1, "cpu"), depth, EASY), depth)


def test_bent_silhouettes_lie_a_little_off_and_far_from_edges_nothing_changes() -> None:
    depth = torch.full((4, 1, 40, 40), 3.0)
    depth[..., 10:30, 10:30] = 1.0
    always = dataclasses.replace(EASY, bent=1)
    changed = [bent(Dice(seed, "cpu"), depth, always) for seed in range(8)]
    assert any(not torch.equal(c, depth) for c in changed)
    for c in changed:
        assert float(c.min()) > 0.999
        assert float(c.max()) < 3.001
        assert bool((c[..., 14:26, 14:26] < 1.001).all())  # displaced by 2.25 px at most
        assert bool((c[..., :6, :] > 2.999).all())
    assert torch.equal(bent(Dice(1, "cpu"), depth, EASY), depth)
    depth[..., 18:21] = 3.0  # a gap of three pixels: displacement alone keeps its area, closing does not
    assert any(
        bool((bent(Dice(seed, "cpu"), depth, always)[:, 0, 15:25, 15:24] < 2).flatten(1).all(1).any())
        for seed in range(8)
    )


def test_real_pictures_give_squares_with_their_holes_marked(tmp_path: Path) -> None:
    exact = scenes(1, 40, 60, seed=3)
    assert exact.depth is not None
    known = torch.ones_like(exact.depth, dtype=torch.bool)
    known[..., :10, :] = False
    holed = dataclasses.replace(exact, depth=torch.where(known, exact.depth, 0), depth_valid=known)
    pictures = Pictures({"a": lambda: holed})
    batch = example(RECIPE, 1, "cpu", pictures)
    assert batch["depth"].shape == (1, 1, 64, 64)  # enlarged to the side asked for
    assert not batch["known"].all()
    assert batch["depth"].isfinite().all()
    short = dataclasses.replace(RECIPE, steps=2, validate_every=2)
    assert train(short, tmp_path, accelerator="cpu", source=pictures, workers=0).is_file()


def test_sets_to_measure_on_are_refused_as_lessons(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="for measuring only; to learn from: scenes, nyu"):
        source("middlebury", tmp_path, None, None)


def test_colours_and_depth_are_mirrored_together() -> None:
    exact = scenes(1, 48, 64, seed=1)
    assert exact.depth is not None
    telling = dataclasses.replace(exact, rgb=(exact.depth / exact.depth.max()).expand(-1, 3, -1, -1))
    plain = dataclasses.replace(EASY, inverse=0, rounded=0)
    for seed in range(6):
        seen = sensed(telling, Dice(seed, "cpu"), plain, (4, 4))
        assert seen.rgb is not None
        assert seen.depth is not None
        pair = torch.stack([seen.rgb[0, 0].flatten(), seen.depth.flatten()])
        assert float(torch.corrcoef(pair)[0, 1]) > 0.999


@pytest.mark.parametrize("seed", range(12))
def test_holes_never_take_every_reading(seed: int) -> None:
    assert holes(Dice(seed, "cpu"), torch.rand(3, 1, 2, 3)).flatten(1).any(1).all()


def test_losses_are_what_their_names_say() -> None:
    prediction, target = torch.tensor([[1.0, 2.0], [3.0, 7.0]])[None, None], torch.zeros(1, 1, 2, 2)
    assert float(absolute(prediction, target)) == pytest.approx(13 / 4)
    assert float(root_square(prediction, target)) == pytest.approx((63 / 4) ** 0.5)


def test_the_best_expected_error_is_the_true_one() -> None:
    prediction, target = torch.randn(1, 1, 50, 50, requires_grad=True), torch.zeros(1, 1, 50, 50)
    true = float(prediction.detach().abs().mean())
    sizes = torch.tensor([0.5, 0.9, 1.0, 1.1, 2.0]) * true
    values = [float(expected_error(torch.full_like(target, float(s)), prediction, target)) for s in sizes]
    assert min(values) == values[2]
    assert not expected_error(torch.ones_like(target), prediction, target).requires_grad


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_that_was_killed_ends_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    recipe = changed(RECIPE, [f"optimizer={optimizer}"])
    whole = train(recipe, tmp_path / "whole", accelerator="cpu", workers=0)
    step = CrispTask.training_step

    def killed(self: CrispTask, batch: Batch, number: int) -> torch.Tensor:
        if self.global_step == 5:
            raise SystemExit("killed")
        return step(self, batch, number)

    monkeypatch.setattr(CrispTask, "training_step", killed)
    with pytest.raises(SystemExit):
        train(recipe, tmp_path / "killed", accelerator="cpu", workers=0)
    assert not (tmp_path / "killed" / "weights.safetensors").exists()
    monkeypatch.setattr(CrispTask, "training_step", step)
    again = train(recipe, tmp_path / "killed", accelerator="cpu", workers=0)
    expected, weights = load_file(whole), load_file(again)
    for name in expected:
        torch.testing.assert_close(weights[name], expected[name], rtol=0, atol=1e-3)
    assert len(list((tmp_path / "killed" / "metrics").iterdir())) == 2
    assert list((tmp_path / "whole" / "pictures").glob("step-*.png"))


@pytest.mark.parametrize("shape", [(16, 40), (40, 16), (24, 24)])
def test_orthogonal_keeps_directions_and_evens_their_lengths(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    made = orthogonal(matrix)
    u, lengths, v = torch.linalg.svd(matrix, full_matrices=False)
    inner = u.T @ made @ v.T  # diagonal: the directions are as they were
    kept = lengths > 0.05 * lengths[0]
    assert (inner - inner.diagonal().diag()).abs().max() < 1e-4
    assert ((inner.diagonal()[kept] > 0.65) & (inner.diagonal()[kept] < 1.25)).all()
    assert not orthogonal(torch.zeros(shape)).any()


def test_muon_takes_steps_of_one_length_and_leaves_ends_and_small_weights_to_adamw() -> None:
    dice, rate = torch.Generator().manual_seed(0), 0.01
    shapes = {"a.weight": (32, 16, 3, 3), "b.weight": (16, 48), "a.bias": (32,), "thin": (32, 4, 3, 3), "end": (32, 32)}
    weights = {name: torch.nn.Parameter(torch.zeros(shape)) for name, shape in shapes.items()}
    optimizer = Muon(weights.items(), rate, 0, ("end",))
    for name, weight in weights.items():
        sizes = torch.logspace(-0.5, 0.5, weight.shape[0]).view(-1, *[1] * (weight.ndim - 1))  # some rows hardly count
        weight.grad = sizes * torch.randn(shapes[name], generator=dice)
    optimizer.step()
    for name, weight in weights.items():
        step = float(weight.detach().square().mean().sqrt()) / rate
        assert step == (
            pytest.approx(0.2, abs=0.05) if name in ("a.weight", "b.weight") else pytest.approx(1, abs=0.01)
        )
        assert weight.grad is not None
        assert float((weight * weight.grad).sum().detach()) < 0


def test_muon_fits_what_it_is_shown() -> None:
    dice = torch.Generator().manual_seed(0)
    x, y = torch.randn(64, 16, generator=dice), torch.randn(64, 16, generator=dice)
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 16))
    optimizer, losses = Muon(net.named_parameters(), 3e-3, 0), []
    for _ in range(300):
        loss = (net(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]


def interrupted() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("stop", [interrupted, lambda: os.kill(os.getpid(), signal.SIGTERM)], ids=["ctrl-c", "sigterm"])
def test_a_run_that_is_stopped_says_where_it_goes_on_and_counts_its_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stop: Callable[[], None]
) -> None:
    step = CrispTask.training_step

    def stopped(self: CrispTask, batch: Batch, number: int) -> torch.Tensor:
        if self.global_step == 3:
            stop()
        return step(self, batch, number)

    monkeypatch.setattr(CrispTask, "training_step", stopped)
    with pytest.raises(
        KeyboardInterrupt, match=r"stopped at step [34]: run the same command again to go on from step [24]"
    ):
        train(RECIPE, tmp_path, accelerator="cpu", workers=0)
    monkeypatch.setattr(CrispTask, "training_step", step)
    capsys.readouterr()
    train(RECIPE, tmp_path, accelerator="cpu", workers=0)
    shown = capsys.readouterr().out
    assert shown.startswith("step ")
    assert "6/6" in shown


def test_ctrl_c_in_a_training_is_one_line_and_130(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(*_: object) -> None:
        raise KeyboardInterrupt("stopped at step 3: go on")

    monkeypatch.setattr("crispdepth.training.run.train", train)
    done = crispdepth("train", "crisp", "-o", tmp_path / "run")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped at step 3: go on\n")


def pairs(folder: Path, count: int) -> Path:
    """A data set of one's own, in millimetres: rgb/a.png beside depth/a.png, then b, c …"""
    rng = np.random.default_rng(0)
    for part, shape, kind in (("rgb", (64, 80, 3), np.uint8), ("depth", (64, 80), np.uint16)):
        (folder / part).mkdir(parents=True)
        for name in "abcdef"[:count]:
            Image.fromarray(rng.integers(1, 255, shape).astype(kind)).save(folder / part / f"{name}.png")
    return folder


def test_a_forgotten_unit_is_one_line_and_leaves_no_run(tmp_path: Path) -> None:
    words = ["train", "crisp", "--data", "folder", "--root", pairs(tmp_path / "mine", 1), "-o", tmp_path / "run"]
    refused(crispdepth(*words), "^error: .*a.png: holds whole numbers .*add --unit")
    assert not (tmp_path / "run").exists()


def test_a_file_that_cannot_be_read_is_one_line_and_another_recipe_may_follow(tmp_path: Path) -> None:
    mine = pairs(tmp_path / "mine", 2)
    lessons = source("folder", mine, "mm", None)
    for name in ("a", "b"):
        (mine / "depth" / f"{name}.png").write_text("this is no picture")
    with pytest.raises(InputError, match="no known format") as caught:
        train(RECIPE, tmp_path / "run", accelerator="cpu", source=lessons, workers=1)
    with pytest.raises(InputError) as read:
        read_depth(mine / "depth" / "b.png", "mm")
    assert str(caught.value).replace("a.png", "b.png") == str(read.value)
    short = dataclasses.replace(RECIPE, steps=1, validate_every=1)
    clean = source("folder", pairs(tmp_path / "clean", 1), "mm", None)
    assert train(short, tmp_path / "run", accelerator="cpu", source=clean, workers=0).is_file()
    with pytest.raises(InputError, match="another recipe"):
        train(RECIPE, tmp_path / "run", accelerator="cpu", source=clean)


def test_a_folder_that_is_a_file_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(InputError, match="is a file; name a folder"):
        train(RECIPE, tmp_path / "run", accelerator="cpu")


def test_words_that_lightning_does_not_take_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such training: .*bf17") as told:
        train(dataclasses.replace(RECIPE, precision="bf17"), tmp_path / "run", accelerator="cpu")
    assert "\n" not in str(told.value)
    assert not (tmp_path / "run").exists()


def test_a_killed_process_that_makes_examples_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    def killed(*_: object, **__: object) -> Sample:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    killed.says = "none"  # type: ignore[attr-defined]

    with pytest.raises(InputError, match=r"was killed .*run the same command again to go on from step 0"):
        train(RECIPE, tmp_path / "run", accelerator="cpu", source=killed)  # type: ignore[arg-type]


def test_a_start_that_is_refused_leaves_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a Bicubic"):
        train(dataclasses.replace(RECIPE, start="bicubic"), tmp_path / "run", accelerator="cpu")
    assert not (tmp_path / "run").exists()


def test_a_folder_takes_one_training_at_a_time(tmp_path: Path) -> None:
    with alone(tmp_path / "run" / "train.lock"), pytest.raises(InputError, match="another process is at work there"):
        train(RECIPE, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    train(dataclasses.replace(RECIPE, steps=2, validate_every=2), tmp_path / "run", workers=0)
    assert not (tmp_path / "run" / "train.lock").exists()


def test_a_folder_belongs_to_one_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text("{}")
    (tmp_path / "weights.safetensors").touch()  # of a run that came as far
    with pytest.raises(InputError, match="another recipe"):
        train(RECIPE, tmp_path, accelerator="cpu")


def test_which_source_a_batch_comes_from_says_nothing_of_its_first_picture() -> None:
    drawn: list[tuple[int, str]] = []

    def reader(source: int, name: str) -> Callable[[], Sample]:
        def read() -> Sample:
            drawn.append((source, name))
            return scene

        return read

    scene = scenes(1, 16, 16, 7)
    both = Several([Pictures({f"{n:03}": reader(i, f"{n:03}") for n in range(100)}) for i in range(2)])
    for seed in range(200):
        both(1, 16, seed, "cpu")
    for i in range(2):
        odd = sum(int(name) % 2 for source, name in drawn if source == i)
        assert 20 < odd < sum(source == i for source, _ in drawn) - 20


@pytest.mark.parametrize(
    ("words", "least", "most"),
    [
        (["patches=[[1,208]]", "scales=[2,4]"], 2, 4),
        (["patches=[[1,64]]", "scales=[1,1.4]"], 1, 1.4),
        (["patches=[[1,256]]"], 6, 32),
    ],
)
def test_examples_have_the_scales_that_were_asked_for(words: list[str], least: float, most: float) -> None:
    recipe = changed(RECIPES["crisp"], [*words, "ramp=0", "distinct=1"])
    scene = scenes(1, recipe.patches[0][1], recipe.patches[0][1], 7)
    found = [example(recipe, step, "cpu", lambda *_: scene)["low"].shape for step in range(12)]  # type: ignore[arg-type]
    ratios = [math.sqrt(recipe.patches[0][1] ** 2 / (shape[-1] * shape[-2])) for shape in found]
    assert least * 0.85 < min(ratios)
    assert max(ratios) < most * 1.2
    assert max(ratios) > 1.05 * min(ratios)


def test_a_share_is_that_of_the_examples() -> None:
    scene = scenes(4, 64, 64, 7)
    for share in (0.3, 1.0):
        sensors = dataclasses.replace(EASY, holed=share)
        seen = [sensed(scene, Dice(seed, "cpu"), sensors, (4, 4)) for seed in range(60)]
        assert all(part.valid is not None for part in seen)
        punched = torch.stack([~part.valid.flatten(1).all(1) for part in seen])  # type: ignore[union-attr]
        assert abs(float(punched.float().mean()) - share) < 0.12


def test_the_first_examples_are_clean_and_the_rest_as_the_recipe_says() -> None:
    sensors = RECIPES["crisp"].sensors
    made = easy(dataclasses.replace(sensors, inverse=0.1, turned=0.2, noisy=0.9))
    assert (made.inverse, made.turned, made.noisy, made.rounded, made.holed) == (0.1, 0.2, 0, 0, 0)


def test_kept_scenes_are_the_same_when_they_come_again(tmp_path: Path) -> None:
    kept = Scenes(tmp_path)
    first, again = (kept(1, 32, 5, "cpu").rgb for _ in range(2))
    assert first is not None
    assert again is not None
    assert torch.equal(first, again)


@pytest.mark.parametrize(
    ("name", "word", "said"),
    [
        ("crisp", "network.widths=[32,64]", "write 4 values, such as"),
        ("crisp", "network.decoder=[1]", "write 2 values, such as"),
        ("crisp", 'milestones=["a"]', "milestones are steps"),
        ("naima-small", "network.patch=0", "patch=0 is too small"),
        ("naima-small", "network.token_heads=0", "token_heads=0 is too small"),
        ("naima-small", "network.token_heads=7", "must be a multiple of 7 token_heads"),
        ("naima-small", "network.layers=[1,2]", "write 4 values, such as"),
        ("naima-small", "network.layers=[1,2,3,99]", "must be four of 0 to"),
    ],
)
def test_networks_that_cannot_be_are_refused(name: str, word: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        changed(find(name), [word])


def test_tokens_refuse_what_they_would_not_heed(tmp_path: Path) -> None:
    recipe = find("naima-tokens")
    pictures = Pictures({"a": lambda: scenes(1, 32, 32, 7)})
    with pytest.raises(InputError, match="begin at random, not with start=nonsense"):
        TokensTask(changed(recipe, ["start=nonsense"]), tmp_path)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="--report measures depth"):
        TokensTask(recipe, tmp_path, report=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="these pictures show none"):
        TokensTask(recipe, tmp_path, pictures)  # type: ignore[arg-type]


def test_a_folder_belongs_to_one_data_set(tmp_path: Path) -> None:
    def pictures(*names: str) -> Pictures:
        return Pictures({name: lambda: scenes(1, 96, 96, 7) for name in names})

    recipe = dataclasses.replace(RECIPE, steps=2, validate_every=2)
    train(recipe, tmp_path, source=pictures("a", "b"), workers=0)
    train(recipe, tmp_path, source=pictures("b", "a"), workers=0)  # the same, wherever they lie
    for other, said in ((pictures("a", "c"), r"2 pictures \w{8}"), (None, "scenes")):
        with pytest.raises(InputError, match=rf"other data \(2 pictures \w{{8}}, not {said}\): name a new folder"):
            train(recipe, tmp_path, source=other, workers=0)
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "data"}))
    train(recipe, tmp_path, workers=0)  # a run of an earlier version: it did not write what it learnt from


def test_training_can_begin_with_weights_of_the_same_shape(tmp_path: Path) -> None:
    network = Crisp(SMALL)
    torch.nn.init.constant_(network.say4.weight, 0.25)
    network.save(tmp_path / "start.safetensors")
    recipe = dataclasses.replace(RECIPE, start=str(tmp_path / "start.safetensors"))
    begun = CrispTask(recipe, tmp_path)
    assert (begun.network.say4.weight == 0.25).all()
    with pytest.raises(InputError, match="another shape"):
        CrispTask(dataclasses.replace(recipe, network=CrispConfig()), tmp_path)
    with pytest.raises(InputError, match="another shape"):
        CrispTask(dataclasses.replace(RECIPE, start="crisp"), tmp_path)
    with pytest.raises(InputError, match="is a Bicubic, and Crisp is to be trained"):
        CrispTask(dataclasses.replace(RECIPE, start="bicubic"), tmp_path)


def test_training_can_begin_with_a_crisp_whose_last_step_alone_was_guided(tmp_path: Path) -> None:
    before = Crisp(dataclasses.replace(SMALL, early=False)).eval()
    torch.nn.init.normal_(before.say4.weight)
    before.save(tmp_path / "start.safetensors")
    network = CrispTask(dataclasses.replace(RECIPE, start=str(tmp_path / "start.safetensors")), tmp_path).network
    assert network.config == SMALL
    low, rgb = torch.rand(1, 1, 6, 8) + 1, torch.rand(1, 3, 48, 64)
    valid = torch.ones_like(low, dtype=torch.bool)
    torch.testing.assert_close(network(low, valid, rgb), before(low, valid, rgb), rtol=1e-2, atol=1e-2)
    with pytest.raises(InputError, match="another shape"):
        CrispTask(
            dataclasses.replace(
                RECIPE, start=str(tmp_path / "start.safetensors"), network=dataclasses.replace(SMALL, width=16)
            ),
            tmp_path,
        )


def test_a_larger_ctkt_begins_with_what_a_smaller_one_says(tmp_path: Path) -> None:
    before = Ctkt(CtktConfig(stages=2, blocks=1, width=8)).eval()
    for parameter in before.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    before.save(tmp_path / "start.safetensors")
    recipe = CtktRecipe(start=str(tmp_path / "start.safetensors"), estimation_weight=0, output_weight=0)
    recipe = dataclasses.replace(recipe, affinity_weight=0, structure_weight=0)
    low, valid = torch.rand(1, 1, 6, 8) + 1, torch.ones(1, 1, 6, 8, dtype=torch.bool)
    for shape in (CtktConfig(2, 1, 12), CtktConfig(2, 3, 8), CtktConfig(3, 1, 8), CtktConfig(3, 2, 12)):
        network = CtktTask(dataclasses.replace(recipe, network=shape), tmp_path).network
        assert network.config == shape
        for size in ((12, 16), (48, 64)):
            with torch.inference_mode():
                torch.testing.assert_close(network(low, valid, size), load(recipe.start)(low, valid, size))
        network(low, valid, (24, 32)).square().sum().backward()  # and what is new learns
        assert all(stage.leave.weight.grad.abs().sum(dim=(0, 2, 3)).gt(0).all() for stage in network.x4.stages)
        assert network.x4.stages[1].body[-1].second.weight.grad.abs().sum() > 0
    with pytest.raises(InputError, match="another shape"):
        CtktTask(dataclasses.replace(recipe, network=CtktConfig(2, 1, 6)), tmp_path)


def test_crisp_can_begin_with_what_ctkt_learnt(tmp_path: Path) -> None:
    given = Ctkt(CtktConfig(SMALL.stages, SMALL.blocks, SMALL.width))
    for net in (given.x2, given.x4):
        torch.nn.init.normal_(net.stages[0].leave.weight, std=0.1)  # type: ignore[union-attr, arg-type]
    given.save(tmp_path / "ctkt.safetensors")
    task = CrispTask(dataclasses.replace(RECIPE, start=str(tmp_path / "ctkt.safetensors")), tmp_path)
    network = Crisp(dataclasses.replace(SMALL, rounds=0))
    network.load_state_dict(task.network.state_dict())
    low, rgb = torch.rand(1, 1, 6, 8) + 1, torch.rand(1, 3, 48, 64)
    valid = torch.ones_like(low, dtype=torch.bool)
    with torch.inference_mode():
        torch.testing.assert_close(network(low, valid, rgb), given(low, valid, (48, 64)), rtol=1e-2, atol=1e-2)
    with pytest.raises(InputError, match="another shape"):
        CrispTask(dataclasses.replace(RECIPE, start="ctkt"), tmp_path)
    with pytest.raises(InputError, match="is a Bicubic"):
        CrispTask(dataclasses.replace(RECIPE, start="bicubic"), tmp_path)


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, two_processes.__file__, str(tmp_path / "2"), "2"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(CrispTask, "on_before_optimizer_step", None)  # both are set there, and restored here
    monkeypatch.setattr(two_processes.run.pl, "Trainer", two_processes.run.pl.Trainer)
    two_processes.main(tmp_path / "1", 1)
    for step in range(3):
        one, two = (torch.load(tmp_path / str(devices) / f"gradients-{step}.pt") for devices in (1, 2))
        assert any(float(gradient.abs().max()) > 1e-3 for gradient in one.values())
        for name in one:
            torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-5)
    one, two = (load_file(tmp_path / str(devices) / "weights.safetensors") for devices in (1, 2))
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-3)


@pytest.mark.slow
def test_two_machines_share_a_folder_and_end_with_the_weights_of_two_processes(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    command = [sys.executable, two_processes.__file__, str(tmp_path / "nodes"), "1", "2"]
    nodes = [
        subprocess.Popen(command, env={**os.environ, **where, "NODE_RANK": rank}, stderr=subprocess.PIPE, text=True)
        for rank in "01"
    ]
    try:
        for node in nodes:
            _, said = node.communicate(timeout=240)
            assert node.returncode == 0, said
    finally:
        for node in nodes:
            node.kill()
    subprocess.run([sys.executable, two_processes.__file__, str(tmp_path / "one"), "2"], check=True)
    found, expected = (load_file(tmp_path / name / "weights.safetensors") for name in ("nodes", "one"))
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-5)
    assert not (tmp_path / "nodes" / "train.lock").exists()


def test_a_second_machine_that_is_ahead_of_the_first_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = SimpleNamespace(fit=lambda *_, **__: None, is_global_zero=False)
    monkeypatch.setattr(run, "_trainer", lambda *_: trainer)
    monkeypatch.setenv("NODE_RANK", "1")
    train(RECIPE, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("rank", "locks"), [("0", True), ("1", False)])
def test_only_the_first_machine_takes_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: str, locks: bool
) -> None:
    monkeypatch.setenv("NODE_RANK", rank)
    seen: list[bool] = []
    monkeypatch.setattr(run, "_train", lambda *_: seen.append((tmp_path / "run" / "train.lock").exists()))
    (tmp_path / "run").mkdir()
    train(RECIPE, tmp_path / "run")
    assert seen == [locks]


def test_a_finished_run_keeps_its_averaged_weights(tmp_path: Path) -> None:
    recipe = changed(RECIPE, ["steps=4", "checkpoint_every=2", "ema=0.5", "learning_rate=0.01"])
    path = train(recipe, tmp_path, accelerator="cpu", workers=0)
    kept = load_file(path)
    last = torch.load(tmp_path / "checkpoints" / "step=4.ckpt", weights_only=True)["current_model_state"]
    assert any(not torch.equal(kept[name], last[f"network.{name}"].half()) for name in kept)
    assert train(recipe, tmp_path, accelerator="cpu", workers=0) == path
    for name, weight in load_file(path).items():
        assert torch.equal(weight, kept[name])


def test_a_loss_that_is_no_number_ends_the_run_without_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CrispTask, "loss", lambda self, batch: torch.tensor(float("nan"), requires_grad=True))
    with pytest.raises(InputError, match=r"the loss is nan at step 0: .*less learning_rate"):
        train(RECIPE, tmp_path, accelerator="cpu", workers=0)
    assert not (tmp_path / "weights.safetensors").exists()


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    network = Crisp(SMALL)
    with torch.no_grad():
        network.stem.weight[0, 0] = float("nan")
    network.save(tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=r"stem\.weight is NaN or inf"):
        Crisp.from_file(tmp_path / "x.safetensors")


def test_weights_may_be_read_by_who_may_read_the_folder(tmp_path: Path) -> None:
    Crisp(SMALL).save(tmp_path / "x.safetensors")
    (tmp_path / "y").touch()
    assert (tmp_path / "x.safetensors").stat().st_mode == (tmp_path / "y").stat().st_mode


def test_sets_that_are_not_there_are_said_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found no pair of middlebury"):
        train(RECIPE, tmp_path / "run", accelerator="cpu", workers=0, report=tmp_path / "none")
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="add --data folder"):
        source("scenes", tmp_path, None, None)


@pytest.mark.parametrize(
    "word", ["seed=-1", "network.width=0", "network.blocks=-3", "scales=[4,1e9]", "milestones=[-1]", "side_weight=-1"]
)
def test_numbers_that_no_training_could_begin_with_are_refused(word: str) -> None:
    with pytest.raises(InputError, match=r"out of range|end at 64"):
        changed(RECIPE, [word])


@pytest.mark.parametrize(
    "word", ["patches=[2,64]", "patches=[[2.5,64]]", 'scales=["4","8"]', 'sensors.whole_scales=[2,"a"]', "ema=NaN"]
)
def test_lists_of_other_things_are_refused(word: str) -> None:
    with pytest.raises(InputError, match="is not understood: write a value like"):
        changed(RECIPE, [word])


def test_the_first_examples_too_are_of_the_scales_asked_for() -> None:
    recipe = changed(RECIPE, ["scales=[2,4]", "patches=[[1,64]]", "ramp=1000"])
    for step in range(6):
        assert example(recipe, step, "cpu", Scenes())["low"].shape[-1] >= 16
    with pytest.raises(InputError, match="patches need 128 pixels a side or more"):
        changed(RECIPE, ["patches=[[2,64]]", "scales=[16,16]"])


def test_a_finished_run_says_that_nothing_is_learnt_anew(tmp_path: Path) -> None:
    recipe = changed(RECIPE, ["steps=2"])
    assert not is_finished(recipe, tmp_path)
    train(recipe, tmp_path, accelerator="cpu", workers=0)
    assert is_finished(recipe, tmp_path)


def test_an_optimizer_of_another_name_is_refused() -> None:
    with pytest.raises(InputError, match="did you mean muon"):
        changed(RECIPE, ["optimizer=muom"])


def test_the_field_in_which_two_recipes_differ_is_said(tmp_path: Path) -> None:
    train(changed(RECIPE, ["steps=1"]), tmp_path, accelerator="cpu", workers=0)
    with pytest.raises(InputError, match=r"another recipe with sensors\.holed=0\.2:"):
        train(changed(RECIPE, ["steps=1", "sensors.holed=0.3"]), tmp_path, accelerator="cpu", workers=0)


def test_a_bad_file_among_many_is_told_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs(tmp_path, 3)
    (tmp_path / "depth" / "b.png").write_bytes(b"nothing of the kind")
    pictures = source("folder", tmp_path, "mm", None)
    for seed in range(6):
        assert pictures(2, 32, seed, "cpu").depth is not None
    assert capsys.readouterr().err.count("left out b") == 1
    for name in ("a", "c"):
        (tmp_path / "depth" / f"{name}.png").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="depth"):
        pictures(2, 32, 0, "cpu")
