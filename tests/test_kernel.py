"""Kernel: whether a low map's readings are means is told from our networks' result, and a second run allows for it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import crispdepth as cd
from crispdepth.batch import Job, Settings, run, run_video
from crispdepth.careful import Careful, careful
from crispdepth.data.scenes import scenes
from crispdepth.degradation import add_noise, downsample, punch_holes
from crispdepth.geometry import enlarge
from crispdepth.kernel import as_bicubic, averaged, share
from crispdepth.models.catalog import load
from crispdepth.options import Options
from crispdepth.shift import corner_shift, moved
from crispdepth.types import InputError, Sample


@cache
def seen(seed: int, kernel: str, scale: float = 4) -> Sample:
    scene = scenes(1, 160, 208, seed=seed)
    assert scene.depth is not None
    low, valid = downsample(scene.depth, torch.ones_like(scene.depth, dtype=torch.bool), scale, kernel)
    return Sample(rgb=scene.rgb, depth=scene.depth, low=low, valid=valid)


def error(made: Careful, sample: Sample) -> float:
    assert sample.depth is not None
    return float((made.depth - sample.depth)[..., 6:-6, 6:-6].square().mean().sqrt())


SEEDS = (51, 52, 53, 54)


@pytest.mark.parametrize("name", ["crisp", "crisp-tiny", "ctkt"])
@pytest.mark.parametrize("scale", [2, 4])
def test_means_are_told_from_bicubic_maps_and_allowed_for(name: str, scale: float) -> None:
    model, told, before, after = load(name), 0, 0.0, 0.0
    for seed in SEEDS:
        usual, means = seen(seed, "bicubic", scale), seen(seed, "average", scale)
        assert not careful(model, usual, (160, 208)).averaged
        made = careful(model, means, (160, 208))
        told += made.averaged
        before += error(careful(model, means, (160, 208), Options(once=True)), means)
        after += error(made, means)
    assert told >= 3
    assert after < 0.95 * before


def points(seed: int, scale: int, at: int) -> Sample:
    """As ``seen``, but each reading is the pixel ``at`` of each ``scale`` x ``scale``, along both axes."""
    usual = seen(seed, "bicubic", scale)
    assert usual.depth is not None
    low = usual.depth[..., at::scale, at::scale].contiguous()
    return replace(usual, low=low, valid=torch.ones_like(low, dtype=torch.bool))


@pytest.mark.parametrize(("at", "corner"), [(0, (-2, -2)), (3, (1, 1))])
def test_single_pixels_from_a_corner_are_told_and_the_depth_lies_on_them(at: int, corner: tuple[int, int]) -> None:
    model, told, before, after = load("crisp-tiny"), 0, 0.0, 0.0
    for seed in SEEDS:
        sample = points(seed, 4, at)
        made = careful(model, sample)
        assert made.corner in ((0, 0), corner)
        assert made.shift == (0, 0)
        told += made.corner == corner
        plain = careful(model, sample, options=Options(kernel="bicubic"))
        assert plain.corner == (0, 0)
        before += error(careful(model, sample, options=Options(kernel="bicubic", align="off")), sample)
        after += error(made._replace(depth=moved(made.depth, made.corner)), sample)
        asked = careful(model, sample, options=Options(kernel="points"))
        assert asked.corner == corner
    assert told >= 3
    assert after < 0.85 * before


def test_other_readings_are_not_taken_for_corners() -> None:
    model = load("crisp-tiny")
    for seed in SEEDS:
        for kernel in ("bicubic", "average", "bicubic-plain"):
            assert careful(model, seen(seed, kernel)).corner == (0, 0)
        assert careful(model, points(seed, 4, 2)).corner == (0, 0)
        assert careful(model, points(seed, 4, 0), options=Options(align="off")).corner == (
            0,
            0,
        )  # where asked not to look


def test_a_prediction_from_points_is_moved_and_says_so(tmp_path: Path) -> None:
    sample = points(52, 4, 0)
    assert sample.low is not None
    assert sample.rgb is not None
    told: Any = {"low": sample.low, "rgb": sample.rgb, "unit": "m"}
    made = cd.predict("crisp-tiny", **told)
    assert made.corner_px == (-2, -2)
    assert made.shift_px == (0, 0)
    assert not made.valid[-2:].any()  # nothing came in there
    assert not made.valid[:, -2:].any()
    assert made.valid[:-2, :-2].all()
    unmoved = careful(load("crisp-tiny"), sample)
    assert np.array_equal(made.depth, moved(unmoved.depth, (-2, -2))[0, 0].numpy())
    other = cd.predict("fgs", **told, kernel="points")  # any model, if it is said
    assert other.corner_px == (-2, -2)
    assert cd.predict("ctkt", **told, kernel="points").corner_px == (-2, -2)
    assert cd.predict("fgs", **told).corner_px == (0, 0)
    with pytest.raises(InputError, match="rgb"):
        cd.predict("ctkt", low=sample.low, size=(160, 208), kernel="points")
    np.save(tmp_path / "d.npy", sample.low[0, 0].numpy())
    Image.fromarray((sample.rgb[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)).save(tmp_path / "c.png")
    job = Job(tmp_path / "d.npy", tmp_path / "o.npy", tmp_path / "c.png")
    [line] = [x for x in run(job, load("crisp-tiny"), Settings()) if x.startswith("kernel")]
    assert "2 px left and 2 px up" in line
    with pytest.raises(InputError, match="--rgb"):
        run(replace(job, rgb=None), load("ctkt"), Settings(kernel="points", scale=4))
    for align in ("look", "guide", "auto"):
        with pytest.raises(InputError, match=f"align {align} does: leave one of them out"):
            run(job, load("fgs"), Settings(kernel="points", align=align))
        with pytest.raises(InputError, match=f"align {align} does: leave one of them out"):
            cd.predict("fgs", **told, kernel="points", align=align)


@pytest.mark.parametrize("scale", [3, 4, 5, 7, 8, 11])
def test_a_corner_is_half_a_low_pixel_away_or_half_a_pixel_more(scale: int) -> None:
    dice, height, width = np.random.default_rng(0), 40 * scale, 48 * scale
    depth = torch.full((1, 1, height, width), 2.0)
    for _ in range(60):  # boxes that begin anywhere in a low pixel
        top, left = dice.integers(height), dice.integers(width)
        depth[..., top : top + 6 * scale, left : left + 6 * scale] = dice.uniform(1, 2)
    exact = (scale - 1) / 2
    for at, sign in ((0, -1), (scale - 1, 1)):
        low = depth[..., at::scale, at::scale]
        drawn, rgb = enlarge(low, (height, width)), depth.expand(-1, 3, -1, -1) - 1
        right, down = corner_shift(drawn, torch.ones_like(low, dtype=torch.bool), rgb, 0.0)
        assert right == down
        assert abs(right - sign * exact) <= 0.5


def test_a_film_of_single_pixels_is_moved_as_a_whole(tmp_path: Path) -> None:
    for name in ("low", "rgb", "out"):
        (tmp_path / name).mkdir()
    jobs = []
    for i, seed in enumerate((52, 53, 54)):
        sample = points(seed, 4, 0)
        assert sample.low is not None
        assert sample.rgb is not None
        low, rgb, out = (
            tmp_path / name / f"{i}{end}" for name, end in (("low", ".npy"), ("rgb", ".png"), ("out", ".npy"))
        )
        np.save(low, sample.low[0, 0].numpy())
        Image.fromarray((sample.rgb[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)).save(rgb)
        jobs.append(Job(low, out, rgb))
    said: list[str] = []
    assert not run_video(jobs, load("crisp-tiny"), Settings(), None, said.extend)
    assert sum("single pixels" in line and "2 px left and 2 px up" in line for line in said) == 3
    for job in jobs:  # a displaced picture is not asked for its shift where single pixels are known
        assert job.rgb is not None
        picture = np.roll(np.asarray(Image.open(job.rgb)), 6, 1)
        Image.fromarray(picture).save(job.rgb)
    assert not run_video(jobs, load("crisp-tiny"), Settings(kernel="points"))


def test_by_the_truth_itself_means_become_what_bicubic_gives() -> None:
    usual, means = seen(51, "bicubic"), seen(51, "average")
    assert usual.depth is not None
    assert usual.low is not None
    assert means.low is not None
    assert usual.valid is not None
    torch.testing.assert_close(as_bicubic(usual.depth, means.low), usual.low)
    assert share(usual.depth, usual.low, usual.valid) == pytest.approx(0, abs=1e-4)
    assert share(usual.depth, means.low, usual.valid) == pytest.approx(1, abs=1e-4)
    half = (usual.low + means.low) / 2
    assert share(usual.depth, half, usual.valid) == pytest.approx(0.5, abs=1e-4)
    assert averaged(usual.depth, half, usual.valid)


def test_where_nothing_tells_readings_are_taken_for_bicubic_ones() -> None:
    means = seen(51, "average")
    assert means.depth is not None
    assert means.low is not None
    assert means.valid is not None
    generator = torch.Generator().manual_seed(0)
    few = punch_holes(means.valid, 0.6, generator)
    assert not averaged(means.depth, means.low, few)
    assert not averaged(means.depth, means.depth, torch.ones_like(means.depth, dtype=torch.bool))  # no larger
    assert not averaged(torch.full_like(means.depth, 2), torch.full_like(means.low, 2), means.valid)
    span = float(means.low.max() - means.low.min())
    model = load("crisp-tiny")
    for denoise in ("auto", "off"):
        usual = seen(52, "bicubic")
        assert usual.low is not None
        noisy = Sample(rgb=usual.rgb, low=add_noise(usual.low, 0.03 * span, generator), valid=usual.valid)
        assert not careful(model, noisy, options=Options(denoise=denoise)).averaged


def test_what_is_said_of_the_kernel_holds_and_filters_see_what_was_measured() -> None:
    usual, means = seen(51, "bicubic"), seen(51, "average")
    low, rgb = means.low, means.rgb
    by = {kernel: cd.predict("crisp-tiny", low, rgb, kernel=kernel) for kernel in ("auto", "bicubic", "average")}
    assert [p.averaged for p in by.values()] == [True, False, True]
    assert np.array_equal(by["auto"].depth, by["average"].depth)
    assert not np.array_equal(by["auto"].depth, by["bicubic"].depth)
    once = cd.predict("crisp-tiny", low, rgb, once=True)
    assert not once.averaged
    assert np.array_equal(once.depth, by["bicubic"].depth)
    assert not cd.predict("fgs", low, rgb).averaged
    assert cd.predict("fgs", low, rgb, kernel="average").averaged
    assert cd.predict("crisp-tiny", usual.low, usual.rgb, kernel="average").averaged
    with pytest.raises(InputError, match="average"):
        cd.predict("crisp-tiny", low, rgb, kernel="averaged")


def test_holes_stay_holes_where_means_are_allowed_for() -> None:
    means = seen(51, "average")
    assert means.valid is not None
    valid = means.valid.clone()
    valid[..., 10:16, 20:28] = False
    made = cd.predict("crisp-tiny", means.low, means.rgb, valid=valid[0, 0], kernel="average")
    assert made.averaged
    assert not made.twice
    assert not made.valid[44:60, 84:108].any()
    assert np.isfinite(made.depth).all()


def test_a_job_and_a_film_say_so(tmp_path: Path) -> None:
    for folder in ("low", "rgb"):
        (tmp_path / folder).mkdir()
    for number, kernel in enumerate(("average", "bicubic", "average")):
        sample = seen(51 + number, kernel)
        assert sample.low is not None
        assert sample.rgb is not None
        np.save(tmp_path / "low" / f"{number}.npy", sample.low[0, 0].numpy())
        colours = (sample.rgb[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        Image.fromarray(colours).save(tmp_path / "rgb" / f"{number}.png")
    jobs = [Job(tmp_path / f"low/{n}.npy", tmp_path / f"{n}.npy", tmp_path / f"rgb/{n}.png") for n in range(3)]
    model = load("crisp-tiny")
    alone = [any(line.startswith("kernel") for line in run(job, model, Settings())) for job in jobs]
    assert alone == [True, False, True]
    said: list[str] = []
    assert run_video(jobs, model, Settings(), None, said.extend) == []
    assert sum(line.startswith("kernel") for line in said) == 3  # decided once: two of three
