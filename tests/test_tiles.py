"""Tiles: the same result as in one go, for every model that can; sizes that cannot are told what can."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from crispdepth import careful, inference, tiles
from crispdepth.data.scenes import scenes
from crispdepth.degradation import downsample, punch_holes
from crispdepth.geometry import resize_rgb
from crispdepth.models.catalog import load, sharpeners
from crispdepth.models.foundation import PromptDepthAnything
from crispdepth.models.naima import Naima
from crispdepth.models.symbiotic import Symbiotic
from crispdepth.tiles import _spans, tileable, tiled
from crispdepth.types import Depth, InputError, Mask, Model, Rgb, Sample, Size

TILED = ("crisp", "crisp-tiny", "ctkt", "crisp+", "ctkt+", "bicubic", "joint-bilateral", "guided", "fgs")
FEW = 0.06  # of the pixels


@pytest.fixture(scope="module")
def strip() -> tuple[Depth, Mask, Rgb]:
    """A wide picture of two scenes, and a low map at x8 with noise and holes."""
    both = scenes(2, 96, 960, seed=11)
    assert both.depth is not None
    assert both.rgb is not None
    depth, rgb = (torch.cat([x[:1], x[1:]], -1) for x in (both.depth, both.rgb))
    low, valid = downsample(depth, torch.ones_like(depth, dtype=torch.bool), 8)
    valid = punch_holes(valid, 0.1, torch.Generator().manual_seed(0), radius=1)
    return torch.where(valid, low, 0), valid, rgb


def off(model: Model, low: Depth, valid: Mask, rgb: Rgb) -> tuple[torch.Tensor, ...]:
    """By how much tiles are off one go, in shares of the range: depth, and the expected error if there is one."""
    size = (rgb.shape[-2], rgb.shape[-1])
    colours = rgb if "rgb" in model.inputs else None
    with torch.inference_mode():
        local: Any = getattr(model, "local", None)
        work = local(low, valid, colours)
        made = tileable((low.shape[-2], low.shape[-1]), size)
        assert made is not None
        assert len(_spans(made[1], low.shape[-1], work.halo_low_px)) > 2
        whole, parts = work.run(work.low, colours, size), tiled(work, colours, size)
        plain = careful.estimated(model, Sample(rgb=rgb, low=low, valid=valid), size)[0]
    torch.testing.assert_close(whole[0], plain)
    span = float(low[valid].max() - low[valid].min())
    return tuple((a - b).abs() / span for a, b in zip(whole, parts, strict=True) if a is not None and b is not None)


@pytest.mark.parametrize("width", [1920, 1875])  # 8 pixels for a low one, and 125 for 16: no whole number
@pytest.mark.parametrize("name", TILED)
def test_tiles_give_what_one_go_gives(name: str, width: int, strip: tuple[Depth, Mask, Rgb]) -> None:
    low, valid, rgb = strip
    for each in off(load(name), low, valid, resize_rgb(rgb, (96, width))):
        assert float(each.max()) < 1e-3


@pytest.mark.parametrize("name", TILED)
def test_where_no_tile_can_begin_the_result_differs_at_few_pixels(
    name: str, strip: tuple[Depth, Mask, Rgb], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "LARGEST_TILE_PX", 1200)
    low, valid, rgb = strip
    assert tileable((12, 240), (96, 1913)) == (96, 1920)
    depth = off(load(name), low, valid, resize_rgb(rgb, (96, 1913)))[0]
    assert 0 < float((depth > 1e-3).float().mean()) < FEW
    assert float((depth > 0.1).float().mean()) < 1e-3


def test_these_models_can_be_tiled_and_the_documentation_says_so() -> None:
    assert tuple(name for name in sharpeners() if hasattr(load(name), "local")) == TILED
    assert not any(hasattr(kind, "local") for kind in (Naima, Symbiotic, PromptDepthAnything))


def test_predict_takes_tiles_for_large_results(monkeypatch: pytest.MonkeyPatch, strip: tuple[Depth, Mask, Rgb]) -> None:
    low, valid, rgb = strip
    plain = inference.predict("crisp", low=low, valid=valid, rgb=rgb)
    monkeypatch.setattr(careful, "TILE_FROM", 1000)
    called = []

    def counted(*words: Any) -> Any:
        called.append(1)
        return tiled(*words)

    monkeypatch.setattr(careful, "tiled", counted)
    parts = inference.predict("crisp", low=low, valid=valid, rgb=rgb)
    assert called
    np.testing.assert_allclose(parts.depth, plain.depth, atol=1e-3 * float(plain.depth.max() - plain.depth.min()))


def test_tiles_begin_where_low_pixels_do_and_cover_all() -> None:
    for size, low in ((3024, 192), (6144, 192), (4284, 192), (1875, 192), (1000, 250), (48, 48)):
        spans = _spans(size, low, 8)
        assert [s[0] for s in spans] == [0, *(s[1] for s in spans[:-1])]
        assert spans[-1][1] == size
        for start, end, ((first, last), (v0, v1)) in spans:
            assert first <= start < end <= last <= size
            assert first * low == v0 * size
            assert v0 % 8 == 0  # where a network that enlarges twice, then halves four times begins
            assert last * low == v1 * size


@pytest.mark.parametrize(
    ("low", "size", "larger"),
    [
        ((192, 256), (3024, 4032), (3024, 4032)),
        ((192, 256), (4284, 5712), (4284, 5712)),  # a phone's 24 megapixels: 357 pixels for 16
        ((192, 256), (1875, 2500), (1875, 2500)),  # 625 for 64
        ((192, 257), (6001, 8009), (6144, 8224)),  # x32
        ((600, 800), (2000, 6001), (2000, 6080)),  # short sides need no tiles
        ((1, 1), (6000, 8000), None),
    ],
)
def test_sizes_that_share_no_places_are_made_a_little_larger(low: Size, size: Size, larger: Size | None) -> None:
    assert tileable(low, size) == larger


def test_what_is_made_larger_comes_down_to_the_size_asked_for_without_mixed_depth(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, pixels in (("CORE_PX", 64), ("HALO_PX", 16), ("LARGEST_TILE_PX", 140), ("GRID_LOW_PX", 2)):
        monkeypatch.setattr(tiles, name, pixels)
    left, slope = torch.ones(1, 1, 20, 10), torch.linspace(3.0, 4.0, 11).expand(1, 1, 20, 11)
    low = torch.cat([left, slope], -1)
    size = (157, 163)
    assert tileable((20, 21), size) == (160, 168)
    work: Any = load("bicubic")
    work = work.local(low, torch.ones_like(low, dtype=torch.bool), None)

    def stepped(maps: tuple[torch.Tensor, ...], _: Rgb | None, size: Size) -> tuple[Depth, Depth]:
        made = torch.nn.functional.interpolate(maps[0], size, mode="bilinear", align_corners=False)
        made = torch.where(made < 2, 1.0, made.clamp(min=3))
        return made, torch.full_like(made, 0.25)

    depth, error = tiled(replace(work, run=stepped), None, size)
    assert depth.shape[-2:] == size
    assert not ((depth > 1) & (depth < 3)).any()  # nothing between the two sides
    row = depth[0, 0, 80]
    assert int((row == 1).sum()) == pytest.approx(163 * 10.25 / 21, abs=3)
    rising = row[(row > 3.05) & (row < 3.95)]
    steps = rising.diff()
    assert float(steps.min()) > 0.5 * float(steps.median())  # smooth: no pixel twice, none left out
    assert float(steps.max()) < 1.5 * float(steps.median())
    assert error is not None
    assert (error == 0.25).all()


def test_a_phones_24_megapixels_are_made_in_tiles_at_a_fraction_of_their_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = load("crisp")
    vars(model)["bytes_per_pixel"] = 10_000  # more than any machine has
    inference.check_size((4284, 5712), model, (192, 256))
    with pytest.raises(InputError, match=r"ask for less with --size \(size=…\)$"):
        inference.check_size((6000, 8000), model, (1, 1))
