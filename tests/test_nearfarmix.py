"""NearFarMix equals the published formula; every mix keeps picture, depth, mask and classes together."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crispdepth.data.nearfarmix import MIXES, Threshold, affinemix, cutmix, mixed, nearfarmix, thresholds
from crispdepth.data.textures import Dice
from crispdepth.types import Sample

every_mix = pytest.mark.parametrize("name", MIXES)


def telling(seed: int, count: int = 2, height: int = 12, width: int = 16, whole: bool = True) -> Sample:
    """Random depth of 1 to 9 m in patches; the colours and the class of a pixel tell its depth."""
    generator = torch.Generator().manual_seed(seed)
    depth = 1 + 8 * torch.rand(count, 1, height // 2, width // 2, generator=generator)
    depth = depth.repeat_interleave(2, -1).repeat_interleave(2, -2)
    valid = torch.ones_like(depth, dtype=torch.bool)
    if not whole:
        valid = torch.rand(depth.shape, generator=generator) > 0.6
    return Sample(
        rgb=(depth / 10).expand(-1, 3, -1, -1),
        depth=torch.where(valid, depth, 0),
        depth_valid=valid,
        classes=depth.floor().to(torch.uint8),
    )


def long_form(first: Sample, second: Sample, t: torch.Tensor, name: str) -> torch.Tensor:
    """X1·M1 + (X2·M2 + X2·Me - X2·Mo), as the paper prints it."""
    assert first.depth is not None
    assert second.depth is not None
    m1, m2 = (first.depth <= t).double(), (second.depth > t).double()
    both, empty = m1 * m2, (1 - m1) * (1 - m2)
    x1, x2 = getattr(first, name).double(), getattr(second, name).double()
    return x1 * m1 + (x2 * m2 + x2 * empty - x2 * both)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1), st.booleans())
def test_the_short_form_equals_the_published_long_form(seed: int, at: float, metres: bool) -> None:
    first, second = telling(seed), telling(seed + 1)
    limits = Threshold(10 * at, 10 * at, metres=True) if metres else Threshold(at, at)
    assert first.depth is not None
    assert first.depth_valid is not None
    t = thresholds(first.depth, first.depth_valid, Dice(0, "cpu"), limits)
    result = nearfarmix(first, second, Dice(0, "cpu"), limits)
    for name in ("rgb", "depth", "classes"):
        expected = long_form(first, second, t, name)
        torch.testing.assert_close(getattr(result, name).double(), expected, rtol=0, atol=1e-12)


@every_mix
@pytest.mark.parametrize("whole", [True, False])
def test_a_mix_keeps_what_belongs_together_together(name: str, whole: bool) -> None:
    first, second = telling(1, 4, whole=whole), telling(2, 4, whole=whole)
    result = MIXES[name](first, second, Dice(3, "cpu"))
    assert result.rgb is not None
    assert result.depth is not None
    assert result.depth_valid is not None
    assert result.classes is not None
    assert 0 <= float(result.rgb.min()) <= float(result.rgb.max()) <= 1
    assert result.classes.dtype == torch.uint8
    assert (result.depth[result.depth_valid] > 0).all()
    if name in ("cutdepth", "vertical_cutdepth"):
        assert torch.equal(result.depth, first.depth)  # type: ignore[arg-type]
        assert torch.equal(result.classes, first.classes)  # type: ignore[arg-type]
        return
    if name != "affinemix":  # where the depth is another one
        valid = result.depth_valid
        torch.testing.assert_close(result.depth[valid] / 10, result.rgb[:, :1][valid])
        assert torch.equal(result.classes[valid], result.depth[valid].floor().to(torch.uint8))


@every_mix
def test_a_mix_changes_something_and_is_a_function_of_its_dice(name: str) -> None:
    first, second = telling(1, 4), telling(2, 4)
    one, again, other = (MIXES[name](first, second, Dice(seed, "cpu")) for seed in (3, 3, 4))
    assert torch.equal(one.rgb, again.rgb)  # type: ignore[arg-type]
    assert not torch.equal(one.rgb, first.rgb)  # type: ignore[arg-type]
    if name != "depthmix":  # which has nothing to draw
        assert not torch.equal(one.rgb, other.rgb)  # type: ignore[arg-type]


def test_a_hole_is_not_near() -> None:
    first, second = telling(1, 1), telling(2, 1)
    assert first.depth is not None
    far = torch.full_like(first.depth, 8.0)
    far[..., :4] = 2.0
    valid = torch.ones_like(far, dtype=torch.bool)
    valid[..., 5:12, 10:14] = False
    holed = replace(first, depth=torch.where(valid, far, 0), depth_valid=valid, rgb=torch.zeros(1, 3, *far.shape[-2:]))
    result = nearfarmix(holed, second, Dice(0, "cpu"), Threshold(4, 4, metres=True))
    assert result.rgb is not None
    assert (result.rgb[..., :4] == 0).all()
    assert torch.equal(result.rgb[..., 6:], second.rgb[..., 6:])  # type: ignore[index]


def test_a_picture_without_a_reading_stays_as_it_is() -> None:
    first, second = telling(1, 2), telling(2, 2)
    assert first.depth_valid is not None
    valid = first.depth_valid.clone()
    valid[1] = False
    result = nearfarmix(replace(first, depth_valid=valid), second, Dice(0, "cpu"))
    assert torch.equal(result.rgb[1], first.rgb[1])  # type: ignore[index]
    assert not torch.equal(result.rgb[0], first.rgb[0])  # type: ignore[index]


def test_the_quantile_is_that_of_the_readings() -> None:
    depth = torch.arange(1.0, 12.0).view(1, 1, 1, 11)
    valid = depth > 5  # 6 … 11
    t = thresholds(depth, valid, Dice(0, "cpu"), Threshold(0.2, 0.2))
    assert float(t) == pytest.approx(7.0)


def test_a_thing_moved_nearer_is_larger_and_hides_what_was_there() -> None:
    depth = torch.full((1, 1, 40, 40), 8.0)
    depth[..., 18:22, 18:22] = 4.0
    classes = (depth < 5).to(torch.uint8)
    sample = Sample(rgb=(depth / 10).expand(-1, 3, -1, -1), depth=depth, depth_valid=depth > 0, classes=classes)
    assert sample.depth is not None
    seen = set()
    for seed in range(8):
        result = affinemix(sample, sample, Dice(seed, "cpu"))
        assert result.depth is not None
        assert result.classes is not None
        new = result.depth < 3.9
        if new.any():
            scale = 4.0 / float(result.depth[new].mean())
            area = float(new.sum())
            assert area == pytest.approx(16 * scale**2, rel=0.5)
            assert (result.classes[new] == 1).all()
        seen.add(bool(new.any()))
    assert True in seen


def test_cutmix_takes_a_rectangle_of_the_partner() -> None:
    first, second, found = telling(1, 1), telling(2, 1), 0
    for seed in range(5):
        result = cutmix(first, second, Dice(seed, "cpu"))
        assert result.depth is not None
        assert first.depth is not None
        taken = (result.depth != first.depth)[0, 0]
        rows, columns = taken.any(1).nonzero().flatten(), taken.any(0).nonzero().flatten()
        if len(rows):
            inside = taken[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert inside.all()
        found += len(rows) > 0
    assert found >= 3


def changed(sample: Sample, result: Sample) -> torch.Tensor:
    """(b,) whether anything in each picture is another."""
    assert sample.rgb is not None
    assert result.rgb is not None
    return (result.rgb != sample.rgb).flatten(1).any(1)


def test_about_the_share_asked_for_is_mixed_and_never_with_itself() -> None:
    batch = telling(1, 40)
    assert 10 <= int(changed(batch, mixed(batch, nearfarmix, Dice(0, "cpu"), 0.5)).sum()) <= 30
    assert changed(batch, mixed(batch, nearfarmix, Dice(0, "cpu"), 1.0)).all()
    assert not changed(batch, mixed(batch, nearfarmix, Dice(0, "cpu"), 0.0)).any()
    alone = telling(1, 1)
    assert not changed(alone, mixed(alone, nearfarmix, Dice(0, "cpu"), 1.0)).any()
