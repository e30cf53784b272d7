"""Shift: a picture out of place by a few pixels is found by its edges, or left alone."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import crispdepth as cd
from crispdepth import shift as shifting
from crispdepth.batch import Job, Settings, run
from crispdepth.careful import depth_shift, sharpened
from crispdepth.data.scenes import scenes
from crispdepth.degradation import downsample
from crispdepth.geometry import enlarge
from crispdepth.models.catalog import load
from crispdepth.shift import CLEAR, MOST_PIXELS, REACH_PX, best_shift, edges_known, moved, residual_shift
from crispdepth.types import InputError, Sample


@cache
def scene(seed: int) -> Sample:
    return scenes(1, 160, 208, seed=seed)


def shifted_pair(seed: int, right: int, down: int, scale: float = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A scene whose depth must move by (right, down) to fit its picture, which shows the middle part."""
    sample = scene(seed)
    assert sample.depth is not None
    assert sample.rgb is not None
    depth = sample.depth[..., 8 + down : 152 + down, 8 + right : 200 + right].contiguous()
    low, valid = downsample(depth, torch.ones_like(depth, dtype=torch.bool), scale)
    return low, valid, sample.rgb[..., 8:152, 8:200].contiguous()


SEEDS = (41, 42, 43, 44, 45, 46)


@pytest.mark.parametrize("scale", [4, 8])
@pytest.mark.parametrize(("right", "down"), [(3, -2), (-5, 4)])
def test_a_shift_is_mostly_found_and_never_mistaken(right: int, down: int, scale: float) -> None:
    found = np.array([depth_shift(*shifted_pair(seed, right, down, scale)) for seed in SEEDS])
    off = np.abs(found - (right, down)).max(axis=1)
    assert ((off <= 1) | (found == 0).all(axis=1)).all(), found
    assert (off <= 1).sum() >= 4, found


@pytest.mark.parametrize("scale", [1.5, 4, 8])
def test_what_is_in_place_stays(scale: float) -> None:
    for seed in SEEDS:
        low, valid, rgb = shifted_pair(seed, 0, 0, scale)
        assert depth_shift(low, valid, rgb) == (0, 0)
        assert depth_shift(low * 1000, valid, rgb) == (0, 0)


def test_without_edges_to_go_by_nothing_is_moved() -> None:
    low, valid, rgb = shifted_pair(44, 3, 2)
    assert depth_shift(low, valid, rgb) != (0, 0)
    flat = torch.full_like(rgb, 0.5)
    assert depth_shift(low, valid, flat) == (0, 0)
    assert depth_shift(low, valid, torch.rand(rgb.shape, generator=torch.Generator().manual_seed(0))) == (0, 0)
    assert depth_shift(torch.full_like(low, 2), valid, rgb) == (0, 0)
    assert depth_shift(low, torch.zeros_like(valid), rgb) == (0, 0)
    assert depth_shift(low, valid, rgb[..., :12, :12]) == (0, 0)


def test_a_shift_at_the_end_of_the_search_is_not_believed() -> None:
    low, valid, rgb = shifted_pair(44, 6, 0)
    sharp = sharpened(load("ctkt"), Sample(low=low, valid=valid), (rgb.shape[-2], rgb.shape[-1]))
    right, _, clear = best_shift(sharp, edges_known(valid, (sharp.shape[-2], sharp.shape[-1])), rgb, 5)
    assert round(right) == 6
    assert clear > CLEAR
    assert depth_shift(low, valid, rgb) == (6, 0)
    farther = torch.nn.functional.pad(rgb, (REACH_PX - 5, 0, 0, 0), mode="replicate")[..., : 5 - REACH_PX]
    assert depth_shift(low, valid, farther) == (0, 0)  # 11 px


def test_where_half_the_size_shows_nothing_the_whole_is_not_looked_at() -> None:
    asked = []
    for shift in ((0, 0), (3, -2)):
        low, valid, rgb = shifted_pair(43, *shift)

        def sharpen(size: tuple[int, int], low: torch.Tensor = low, valid: torch.Tensor = valid) -> torch.Tensor:
            asked.append(size)
            return sharpened(load("ctkt"), Sample(low=low, valid=valid), size)

        residual_shift(sharpen, valid, rgb)
    assert asked == [(72, 96), (72, 96), (144, 192)]


def test_a_large_picture_is_looked_at_in_less_than_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    low, valid, rgb = shifted_pair(43, 4, -4)
    monkeypatch.setattr("crispdepth.shift.MOST_PIXELS", rgb.shape[-1] * rgb.shape[-2] // 2)
    found = depth_shift(low, valid, rgb)
    assert np.abs(np.subtract(found, (4, -4))).max() <= 1
    assert MOST_PIXELS >= 640 * 480  # so that most sensors' pictures are looked at as they are


def test_the_insides_of_a_hole_are_no_depth_edges() -> None:
    valid = torch.ones(1, 1, 24, 32, dtype=torch.bool)
    valid[..., 3, 5] = valid[..., 10, 8:10] = False  # what is that small, the network fills well
    assert edges_known(valid, (96, 128)).all()
    valid[..., 13:19] = False
    known = edges_known(valid, (96, 128))
    assert not known[..., 48:80].any()
    assert known[..., :44].all()


def test_moving_repeats_the_border() -> None:
    x = torch.arange(12.0).view(1, 1, 3, 4)
    assert moved(x, (1, 0))[0, 0, 0].tolist() == [0, 0, 1, 2]
    assert moved(x, (0, -1))[0, 0, :, 0].tolist() == [4, 8, 8]
    assert torch.equal(moved(moved(x, (1, 1)), (-1, -1))[..., :2, :3], x[..., :2, :3])


def test_align_auto_moves_the_depth_onto_the_picture(tmp_path: Path) -> None:
    low, valid, rgb = shifted_pair(44, 3, -2)
    exact = scene(44).depth
    assert exact is not None
    truth = exact[0, 0, 8:152, 8:200].numpy()
    plain = cd.predict("fgs", low=low, valid=valid[0, 0], rgb=rgb)
    guided = cd.predict("fgs", low=low, valid=valid[0, 0], rgb=rgb, align="guide")
    fitted = cd.predict("fgs", low=low, valid=valid[0, 0], rgb=rgb, align="auto")
    assert plain.shift_px == (0, 0)
    assert np.abs(np.subtract(fitted.shift_px, (3, -2))).max() <= 1
    errors = [np.abs(p.depth - truth)[8:-8, 8:-8].mean() for p in (plain, fitted)]
    assert errors[1] < 0.8 * errors[0]
    right, down = guided.shift_px
    assert (right, down) == fitted.shift_px
    assert guided.valid.all()
    inside = (slice(8, -8), slice(8, -8))
    back = moved(torch.from_numpy(guided.depth), (right, down)).numpy()
    assert np.array_equal(back[inside], fitted.depth[inside])  # the same depth, not moved
    assert not fitted.valid[:, :right].any()  # nothing was measured there
    assert not fitted.valid[144 + down :].any()
    assert fitted.valid[: 144 + down, right:].all()
    known = cd.predict("fgs", low=low, valid=valid[0, 0], rgb=rgb, align="auto", shift=(right, down))
    assert np.array_equal(known.depth, fitted.depth)
    for align in ("auto", "look"):
        with pytest.raises(InputError, match="rgb"):
            cd.predict("bicubic", low=low, size=(144, 192), align=align)
    with pytest.raises(InputError, match="align="):
        cd.predict("fgs", low=low, valid=valid[0, 0], rgb=rgb, shift=(3, -2))
    with pytest.raises(InputError, match="guide"):
        cd.predict("fgs", low=low, valid=valid[0, 0], rgb=rgb, align="guided")


def test_look_only_tells_and_our_guided_networks_see_the_picture_in_place_by_default() -> None:
    low, valid, rgb = shifted_pair(44, 3, -2)
    told: Any = {"low": low, "valid": valid[0, 0], "rgb": rgb}
    plain, looked, guided, made = (cd.predict("crisp-tiny", **told, align=a) for a in ("off", "look", "guide", None))
    assert plain.shift_px == (0, 0)
    assert np.abs(np.subtract(looked.shift_px, (3, -2))).max() <= 1
    assert np.array_equal(plain.depth, looked.depth)
    assert looked.valid.all()
    assert made.shift_px == looked.shift_px == cd.predict("fgs", **told, align="look").shift_px
    assert np.array_equal(made.depth, guided.depth)
    assert not np.array_equal(made.depth, plain.depth)
    assert cd.predict("fgs", **told).shift_px == (0, 0)


def test_what_is_below_a_tenth_of_a_low_pixel_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, _, rgb = shifted_pair(44, 3, -2)

    def found(scale: int) -> tuple[int, int]:
        readings = torch.ones(1, 1, rgb.shape[-2] // scale, rgb.shape[-1] // scale, dtype=torch.bool)
        return residual_shift(lambda size: enlarge(drawn, size), readings, rgb)

    assert found(8) != (0, 0)
    assert found(48) == (0, 0)
    monkeypatch.setattr(shifting, "LEAST_LOW_PX", 0)
    assert found(48) == found(8)


def test_a_job_says_what_was_moved(tmp_path: Path) -> None:
    for name, shift in (("there", (3, -2)), ("none", (0, 0))):
        low, _, rgb = shifted_pair(44, *shift)
        np.save(tmp_path / "d.npy", low[0, 0].numpy())
        Image.fromarray((rgb[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)).save(tmp_path / "c.png")
        job = Job(tmp_path / "d.npy", tmp_path / "o.npy", tmp_path / "c.png")
        [line] = [x for x in run(job, load("fgs"), Settings(align="auto")) if x.startswith("align")]
        assert ("right" in line and "up" in line) if name == "there" else "nothing was moved" in line
        told = [x for x in run(job, load("crisp-tiny"), Settings()) if x.startswith("align")]
        assert ["--align auto" in x and "right" in x for x in told] == [True] * (name == "there")
    with pytest.raises(InputError, match="auto"):
        run(job, load("fgs"), Settings(align="always"))
