"""Low maps made clean before a network sees them: without noise, and without scattered holes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_cli import crispdepth, refused, write_inputs

import crispdepth as cd
from crispdepth import batch, careful
from crispdepth.data.scenes import scenes
from crispdepth.degradation import downsample, punch_holes
from crispdepth.engines import Wanted, opened
from crispdepth.geometry import riddled
from crispdepth.models.catalog import load
from crispdepth.models.ensemble import plus
from crispdepth.noise import calmed, noise_of, noisy
from crispdepth.types import Depth, InputError, Mask, Model, Sample, Size


def steps_and_slopes(height: int = 96, width: int = 128) -> Depth:
    """A slanted floor with two boxes on it, metres."""
    rows, columns = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    depth = 2 + 0.01 * rows + 0.004 * columns
    depth[20:60, 30:70] = 1.5
    depth[50:90, 80:120] -= 0.8
    return depth[None, None]


def everywhere(depth: Depth) -> Mask:
    return torch.ones_like(depth, dtype=torch.bool)


def add_grain(depth: Depth, sigma: float, seed: int = 0) -> Depth:
    return depth + sigma * torch.randn(depth.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sigma", [0.005, 0.02, 0.1])
def test_noise_is_told_from_the_map_alone(sigma: float) -> None:
    low = add_grain(steps_and_slopes(), sigma)
    told = noise_of(low, everywhere(low))
    assert told == pytest.approx(sigma, rel=0.08)
    assert noise_of(1000 * low + 7, everywhere(low)) == pytest.approx(1000 * told, rel=1e-3)


def test_slopes_and_edges_are_no_noise_and_holes_are_not_read() -> None:
    depth = steps_and_slopes()
    assert noise_of(depth, everywhere(depth)) < 1e-5
    seen = everywhere(depth)
    seen[..., ::7, :] = False
    grain = add_grain(depth, 0.02)
    holed = torch.where(seen, grain, 1e6)
    assert noise_of(holed, seen) == pytest.approx(0.02, rel=0.08)


@pytest.mark.parametrize("step", [2, 3, 40])
def test_where_no_readings_lie_side_by_side_nothing_is_told(step: int) -> None:
    readings = torch.zeros(1, 1, 40, 40, dtype=torch.bool)
    readings[..., ::step, :] = True
    assert noise_of(torch.rand(1, 1, 40, 40), readings) == 0
    assert noise_of(torch.rand(1, 1, 2, 40), torch.ones(1, 1, 2, 40, dtype=torch.bool)) == 0


def test_most_of_the_noise_goes_and_edges_stay() -> None:
    depth = steps_and_slopes()
    calm = calmed(add_grain(depth, 0.03), everywhere(depth), 0.03)
    assert (calm - depth).square().mean().sqrt() < 0.5 * 0.03
    edge = (..., slice(25, 55), slice(68, 72))  # two columns to each side of the box's border
    assert (calm - depth)[edge].abs().max() < 0.25 * float(depth[..., 40, 71] - depth[..., 40, 69])


def test_depth_moved_and_scaled_gives_the_same_moved_and_scaled() -> None:
    low = add_grain(steps_and_slopes(), 0.03)
    moved, here = calmed(40 * low - 5, everywhere(low), 40 * 0.03), calmed(low, everywhere(low), 0.03)
    np.testing.assert_allclose(moved, 40 * here - 5, atol=40 * 1e-3)


def test_what_is_under_holes_is_neither_read_nor_changed() -> None:
    low = add_grain(steps_and_slopes(), 0.03)
    seen = everywhere(low)
    seen[..., 30:40, 20:60] = False
    one, other = torch.where(seen, low, 0), torch.where(seen, low, torch.nan)
    calm = calmed(one, seen, 0.03)
    assert torch.equal(calm[~seen], one[~seen])
    torch.testing.assert_close(calm[seen], calmed(other, seen, 0.03)[seen])


def test_a_flat_map_stays_as_it_is() -> None:
    flat = torch.full((1, 1, 20, 20), 3.0)
    assert torch.equal(calmed(flat, everywhere(flat), 0.1), flat)


# ------------------------------------------------------------------------------- predict


@pytest.fixture(scope="module")
def room() -> Sample:
    """A made-up scene whose low map at x4 is large enough to tell noise from things."""
    return scenes(1, 320, 400, seed=5)


def seen_by(scene: Sample, scale: int, share: float) -> tuple[np.ndarray, np.ndarray, float]:
    """The low map of a made-up scene with noise, its picture, and the noise in metres."""
    assert scene.depth is not None
    assert scene.rgb is not None
    low = downsample(scene.depth, everywhere(scene.depth), scale)[0]
    sigma = share * float(low.max() - low.min())
    return add_grain(low, sigma)[0, 0].numpy(), scene.rgb[0].permute(1, 2, 0).numpy(), sigma


@pytest.mark.parametrize("name", ["crisp", "crisp-tiny", "ctkt", "ctkt+"])
def test_a_noisy_map_is_calmed_first_and_comes_out_better(room: Sample, name: str) -> None:
    low, rgb, sigma = seen_by(room, 4, 0.03)
    assert room.depth is not None
    off = {}
    for word in ("auto", "on", "off"):
        made = cd.predict(name, low=low, rgb=rgb, denoise=word)
        off[word] = float(np.abs(made.depth - room.depth[0, 0].numpy()).mean())
        assert made.noise == (0 if word == "off" else pytest.approx(sigma, rel=0.15))
    assert off["auto"] == off["on"] < 0.95 * off["off"]


def test_what_is_left_of_the_noise_is_expected(room: Sample) -> None:
    low, rgb, _ = seen_by(room, 4, 0.03)
    assert room.depth is not None
    made = cd.predict("crisp", low=low, rgb=rgb)
    assert made.error is not None
    off = np.abs(made.depth - room.depth[0, 0].numpy())
    assert 0.6 < made.error.mean() / off.mean() < 1.5
    assert 0.6 < np.median(made.error) / np.median(off) < 1.6


def test_a_clean_map_is_left_alone(room: Sample) -> None:
    low, rgb, _ = seen_by(room, 4, 0)
    made = cd.predict("crisp", low=low, rgb=rgb)
    assert made.noise == 0
    np.testing.assert_array_equal(made.depth, cd.predict("crisp", low=low, rgb=rgb, denoise="off").depth)


def test_rounding_is_no_noise_and_noise_in_whole_levels_is() -> None:
    depth = 40 * steps_and_slopes()  # some 60 levels
    for sigma, expected in ((0.0, False), (0.5, False), (3.0, True)):
        levels = add_grain(depth, sigma).round()
        assert noisy(noise_of(levels, everywhere(levels)), levels, everywhere(levels)) == expected


def test_filters_see_what_was_measured_unless_asked_otherwise(room: Sample) -> None:
    low, rgb, _ = seen_by(room, 4, 0.03)
    plain, off, on = (cd.predict("bicubic", low=low, rgb=rgb, denoise=word) for word in ("auto", "off", "on"))
    np.testing.assert_array_equal(plain.depth, off.depth)
    assert plain.noise == 0 < on.noise


def test_models_on_other_engines_and_on_eight_views_want_the_same() -> None:
    assert plus(load("crisp")).wants_clean
    assert opened("ctkt", Wanted(precision="bf16"))[0].wants_clean
    assert not plus(load("fgs")).wants_clean


# ------------------------------------------------------------------------------- scattered holes


def test_riddled_are_maps_that_miss_single_readings_all_over() -> None:
    valid = torch.ones(1, 1, 60, 80, dtype=torch.bool)
    dice = torch.Generator().manual_seed(0)
    assert not riddled(valid)
    for share, expected in ((0.03, False), (0.1, True), (0.3, True), (0.6, True), (0.8, False)):
        assert riddled(punch_holes(valid, share, dice)) == expected, share
    valid[..., 10:50, 20:60] = False  # a third of it, in one piece
    assert not riddled(valid)


@pytest.mark.parametrize("name", ["crisp", "crisp-tiny", "ctkt"])
def test_scattered_holes_are_filled_by_a_first_run(room: Sample, name: str) -> None:
    low, rgb, _ = seen_by(room, 4, 0)
    assert room.depth is not None
    full = torch.ones(1, 1, *low.shape, dtype=torch.bool)
    valid = punch_holes(full, 0.3, torch.Generator().manual_seed(3))[0, 0].numpy()
    low[~valid] = np.nan  # never read
    once, twice = (cd.predict(name, low=low, rgb=rgb, valid=valid, once=word) for word in (True, False))
    rmse = [float(np.sqrt(np.square(made.depth - room.depth[0, 0].numpy()).mean())) for made in (once, twice)]
    assert rmse[1] < 0.98 * rmse[0]
    assert (once.twice, twice.twice) == (False, True)
    np.testing.assert_array_equal(once.valid, twice.valid)  # what was filled in is still known
    if once.error is not None:
        np.testing.assert_array_equal(once.error, twice.error)


def test_a_hole_in_one_piece_and_a_filter_cost_no_second_run(room: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    low, rgb, _ = seen_by(room, 4, 0)
    runs: list[Sample] = []
    one = careful.estimated

    def counted(model: Model, sample: Sample, size: Size | None = None) -> tuple[Depth, Depth | None]:
        runs.append(sample)
        return one(model, sample, size)

    monkeypatch.setattr(careful, "estimated", counted)
    cd.predict("ctkt", low=low, rgb=rgb, valid=np.arange(low.shape[1]) > np.full((low.shape[0], 1), 20))
    assert len(runs) == 1
    scattered = np.random.default_rng(0).random(low.shape) < 0.7
    cd.predict("bicubic", low=low, rgb=rgb, valid=scattered)
    assert len(runs) == 2
    cd.predict("ctkt", low=low, rgb=rgb, valid=scattered)
    assert len(runs) == 4
    assert runs[3].valid is not None
    assert runs[3].valid.all()


@pytest.mark.parametrize(("noisy_frames", "calmed_frames"), [(3, 4), (1, 0)])
def test_a_film_is_calmed_in_all_its_frames_or_in_none(
    tmp_path: Path, room: Sample, noisy_frames: int, calmed_frames: int
) -> None:
    (tmp_path / "low").mkdir()
    (tmp_path / "rgb").mkdir()
    for number in range(4):
        low, rgb, _ = seen_by(room, 8, 0.03 if number < noisy_frames else 0)
        np.save(tmp_path / f"low/{number}.npy", low)
        cd.io.write_rgb(tmp_path / f"rgb/{number}.png", np.round(255 * rgb).astype(np.uint8))
    jobs, _ = batch.pair(batch.Job(tmp_path / "low", tmp_path / "out", tmp_path / "rgb"))
    said: list[str] = []
    assert not batch.run_video(jobs, load("ctkt"), batch.Settings(), None, said.extend)
    assert sum("was taken out" in line for line in said) == calmed_frames


def test_another_word_and_a_picture_alone_are_refused_with_the_cure() -> None:
    low, rgb = np.ones((8, 8), dtype=np.float32), np.ones((16, 16, 3), dtype=np.float32)
    with pytest.raises(InputError, match="unknown denoise 'of'; did you mean off"):
        cd.predict("crisp", low=low, rgb=rgb, denoise="of")
    with pytest.raises(InputError, match="leave it out"):
        cd.predict("symbiotic-small", rgb=rgb, denoise="on")


def test_the_command_says_what_it_took_out(tmp_path: Path, room: Sample) -> None:
    low, rgb, _ = seen_by(room, 4, 0.03)
    _, picture = write_inputs(tmp_path)
    np.save(tmp_path / "low.npy", low)
    cd.io.write_rgb(tmp_path / "rgb.png", np.round(255 * rgb).astype(np.uint8))
    words = ["predict", "--low", tmp_path / "low.npy", "--rgb", tmp_path / "rgb.png", "-o", tmp_path / "o.png"]
    done = crispdepth(*words)
    assert "was taken out of the depth first (--denoise off leaves it)" in done.stdout, done.stderr
    assert "noise" not in crispdepth(*words, "--denoise", "off").stdout
    (tmp_path / "o.png").unlink()
    refused(crispdepth(*words, "--denoise", "no"), "unknown denoise 'no'; did you mean on")
    assert not (tmp_path / "o.png").exists()
    alone = ["predict", "--rgb", picture, "-o", tmp_path / "o.png", "--denoise", "on"]
    refused(crispdepth(*alone), "--denoise is about depth that was measured: add --low")
