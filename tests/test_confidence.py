"""Confidence: the sensor's own decides what counts; the result's says how far it can be trusted."""

from __future__ import annotations

import contextlib
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from depth_files import png
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from test_batch import write_inputs

import crispdepth as cd
from crispdepth.batch import Job, Settings, pair, run, run_all, settled
from crispdepth.confidence import from_distance, from_error, trusted
from crispdepth.io import read_confidence, read_depth, write_confidence
from crispdepth.models.catalog import load
from crispdepth.types import InputError

LOW = np.linspace(1, 2, 12 * 16, dtype=np.float32).reshape(12, 16)
RGB = np.random.default_rng(0).uniform(size=(48, 64, 3)).astype(np.float32)
LEVELS = np.tile(np.array([0, 1, 2, 2], dtype=np.uint8), (12, 4))


@pytest.mark.parametrize(
    ("values", "least", "expected"),
    [
        ([0, 1, 2], None, [False, True, True]),
        ([0, 1, 2], 2, [False, False, True]),
        ([0, 127, 128], None, [False, False, True]),
        ([0, 127, 255], 0.99, [False, False, True]),
        ([0.0, 0.49, 0.5], None, [False, False, True]),
        ([0.0, 0.3, np.nan], 0.2, [False, True, False]),
        ([0.0, 0.3, np.nan], 0, [True, True, False]),
        ([False, True, True], None, [False, True, True]),
    ],
)
def test_what_counts_follows_the_scale_of_the_map(values: list, least: float | None, expected: list) -> None:
    array = np.array([values])
    kinds = (np.uint8, np.uint16, np.int64) if array.dtype.kind == "i" else (array.dtype,)
    for kind in kinds:
        assert trusted(array.astype(kind), least).tolist() == [expected]


@pytest.mark.parametrize(
    ("values", "least"),
    [
        ([0, 256], None),
        ([-1, 2], None),
        ([0.0, 1.5], None),
        ([0.0, np.inf], None),
        ([np.nan, np.nan], None),
        ([0, 1, 2], 3),
        ([0, 200], 100),
        ([0, 50, 100], None),
        ([0, 3], None),
        ([0.5, 0.6], -1),
        ([1 + 1j], None),
    ],
)
def test_what_is_on_no_scale_is_refused(values: list, least: float | None) -> None:
    with pytest.raises(InputError, match="confidence"):
        trusted(np.array([values]), least)


@pytest.mark.parametrize(
    ("values", "full", "expected"),
    [
        ([0, 49, 50, 100], 100, [False, False, True, True]),
        ([0, 49, 50, 100], 255, [False] * 4),
        ([0, 1, 2, 2], 255, [False] * 4),
        ([0, 1, 2, 2], 2, [False, True, True, True]),
        ([0.0, 49.0, 50.0, 100.0], 100, [False, False, True, True]),
    ],
)
def test_another_scale_is_taken_by_its_end(values: list, full: float, expected: list) -> None:
    assert trusted(np.array([values]), None, full).tolist() == [expected]
    with pytest.raises(InputError, match="--confidence-max"):
        trusted(np.array([values]) * 300, None, full)


def test_a_folder_has_one_scale_and_says_which(tmp_path: Path) -> None:
    for name, values in (("a", LEVELS), ("b", LEVELS * 127)):  # 0..2, and 0..254: the first is of 255 too
        write_inputs(tmp_path, name)
        (tmp_path / f"{name}_confidence.png").write_bytes(png(values))
    (tmp_path / "out").mkdir()
    wanted = Job(tmp_path / "*_depth.png", tmp_path / "out", tmp_path / "*_rgb.png")
    wanted = replace(wanted, confidence=tmp_path / "*_confidence.png")
    jobs, _ = pair(wanted)
    together, lines = settled(jobs, Settings("mm"))
    assert together.confidence_max == 255
    assert "ends at 255" in lines[0]
    [failure] = run_all(jobs, load("fgs"), Settings("mm"))
    assert "a_confidence.png: no reading is trusted" in failure
    assert any("b_confidence.png, 0..255: 50.0%" in line for line in run(jobs[1], load("fgs"), together))
    (tmp_path / "b_confidence.png").write_bytes(png(LEVELS * 50))
    with pytest.raises(InputError, match="--confidence-max 100 or 255"):
        run_all(jobs, load("fgs"), Settings("mm"))
    assert run_all(jobs[1:], load("fgs"), Settings("mm", confidence_max=100)) == []
    with pytest.raises(InputError, match="add --confidence"):
        run(replace(jobs[0], confidence=None), load("fgs"), Settings("mm", confidence_max=100))


@settings(deadline=None, max_examples=50)
@given(arrays.arrays(st.sampled_from(["u1", "u2", "i4", "f4", "f8", "?"]), (3, 4)))
def test_any_map_is_read_or_refused(values: np.ndarray) -> None:
    with contextlib.suppress(InputError):
        assert trusted(values).shape == (3, 4)


def test_an_expected_error_of_one_percent_is_half_a_confidence() -> None:
    depth = np.array([[2.0, 2.0, 2.0, 0.0]], dtype=np.float32)
    share = from_error(np.array([[0.0, 0.02, 0.18, 0.0]], dtype=np.float32), depth)
    np.testing.assert_allclose(share, [[1, 0.5, 0.1, 0]], rtol=1e-6)


def test_confidence_falls_with_the_distance_to_the_nearest_reading() -> None:
    valid = np.zeros((3, 5), dtype=bool)
    valid[1, 1] = True
    share = from_distance(valid, (6, 10))
    np.testing.assert_allclose(share[2, ::2], [0.5, 1, 0.5, 1 / 3, 1 / 4])
    np.testing.assert_allclose(share[0, 0], 1 / (1 + 2**0.5))
    np.testing.assert_array_equal(share[::2, ::2], share[1::2, 1::2])


def test_readings_that_the_sensor_does_not_trust_are_holes(tmp_path: Path) -> None:
    (tmp_path / "c.png").write_bytes(png(LEVELS))
    poisoned = np.where(LEVELS == 0, 90, LOW).astype(np.float32)
    expected = cd.predict("fgs", low=LOW, rgb=RGB, valid=LEVELS > 0)
    for confidence in (LEVELS, LEVELS.astype(np.int32), LEVELS / 2, str(tmp_path / "c.png"), LEVELS > 0):
        pred = cd.predict("fgs", low=poisoned, rgb=RGB, confidence=confidence)
        np.testing.assert_array_equal(pred.depth, expected.depth)
        np.testing.assert_array_equal(pred.valid, expected.valid)
    assert cd.predict("fgs", low=LOW, rgb=RGB, confidence=LEVELS, min_confidence=2).valid.mean() == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        ({"confidence": LEVELS[:5]}, "confidence is .* must match"),
        ({"confidence": LEVELS * 0}, "ask for less"),
        ({"confidence": LEVELS * 200.5}, "0..1"),
        ({"min_confidence": 1}, "confidence="),
        ({"confidence": "no such file.png"}, "no such file"),
    ],
)
def test_a_mistake_is_answered_with_its_cure(arguments: dict[str, Any], cure: str) -> None:
    with pytest.raises(InputError, match=cure):
        cd.predict("fgs", low=LOW, rgb=RGB, **arguments)


def test_a_model_that_estimates_its_error_gives_it_and_the_others_say_what_was_measured() -> None:
    valid = np.ones(LOW.shape, dtype=bool)
    valid[3:9, 4:12] = False
    ours = cd.predict("crisp", low=LOW, rgb=RGB, valid=valid)
    assert ours.error is not None
    assert ours.confidence is not None
    np.testing.assert_allclose(ours.confidence, 1 / (1 + ours.error / (0.01 * ours.depth)), rtol=1e-5)
    plain = cd.predict("fgs", low=LOW, rgb=RGB, valid=valid)
    assert plain.error is None
    assert plain.confidence is not None
    assert ((plain.confidence == 1) == plain.valid).all()
    assert plain.confidence.min() == pytest.approx(1 / (1 + 3))  # six low pixels high: three to the next reading
    assert cd.predict("fgs", low=LOW, rgb=RGB, unit="relative").confidence is None


def test_confidence_is_written_as_a_share_or_as_the_error_to_expect(tmp_path: Path) -> None:
    low, rgb = write_inputs(tmp_path, holes=True)
    written = {}
    for suffix in (".png", ".exr", ".npy"):
        job = Job(low, tmp_path / "o.png", rgb, out_confidence=tmp_path / f"c{suffix}")
        lines = run(job, load("crisp"), Settings(unit="mm"))
        assert any(f"c{suffix} (" in line for line in lines)
        written[suffix] = tmp_path / f"c{suffix}"
    share, error = read_confidence(written[".png"]), np.load(written[".npy"])
    assert share.dtype == np.uint8
    np.testing.assert_allclose(read_depth(written[".exr"]).depth, error)
    depth = read_depth(tmp_path / "o.png", "mm").depth
    np.testing.assert_allclose(share / 255, 1 / (1 + error / (0.01 * depth)), atol=0.01)
    assert (share[8:20, 8:20] > 0).all()  # filled
    for suffix in (".npy", ".png"):
        job = Job(low, tmp_path / "o.png", rgb, out_confidence=written[suffix])
        run(job, load("crisp"), Settings("mm", keep_holes=True))
    assert np.isnan(np.load(written[".npy"]))[8:20, 8:20].all()
    assert (read_confidence(written[".png"])[8:20, 8:20] == 0).all()


def test_a_huge_confidence_is_written_in_little_more_than_its_bytes(tmp_path: Path) -> None:
    share, valid = np.full((1000, 2000), 0.7, np.float32), np.ones((1000, 2000), dtype=bool)
    tracemalloc.start()
    write_confidence(tmp_path / "c.png", share, valid=valid)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 5 * share.size  # bytes: the float map alone has 4 a pixel


def test_a_file_for_confidence_that_cannot_be_is_refused(tmp_path: Path) -> None:
    low, rgb = write_inputs(tmp_path)
    cases = [("fgs", "c.exr", "mm", "does not estimate"), ("crisp", "c.jpg", "mm", "unknown extension")]
    cases += [("crisp", "c.png", "relative", "--unit")]
    for model, name, unit, cure in cases:
        with pytest.raises(InputError, match=cure):
            run(Job(low, tmp_path / "o.png", rgb, out_confidence=tmp_path / name), load(model), Settings(unit))
        assert sorted(p.name for p in tmp_path.iterdir()) == ["a_depth.png", "a_rgb.png"]
    with pytest.raises(InputError, match="does not estimate"):
        write_confidence(tmp_path / "c.npy", LOW)
    with pytest.raises(InputError, match="use"):
        write_confidence(tmp_path / "c.tif", LOW)


def test_a_job_says_how_many_readings_were_not_trusted(tmp_path: Path) -> None:
    low, rgb = write_inputs(tmp_path)
    conf = tmp_path / "a_confidence.png"
    conf.write_bytes(png(LEVELS))
    job = Job(low, tmp_path / "o.png", rgb, confidence=conf)
    assert any("25.0% of the readings" in line for line in run(job, load("fgs"), Settings("mm")))
    lines = run(job, load("fgs"), Settings("mm", min_confidence=2, keep_holes=True))
    assert any("50.0% of the readings" in line for line in lines)
    assert read_depth(tmp_path / "o.png", "mm").holes == pytest.approx(0.5)
    conf.write_bytes(png(LEVELS[:6]))
    with pytest.raises(InputError, match="one size"):
        run(job, load("fgs"), Settings("mm"))
    with pytest.raises(InputError, match="--confidence"):
        run(Job(low, tmp_path / "o.png", rgb), load("fgs"), Settings("mm", min_confidence=1))


def test_many_files_have_their_confidence_by_stem(tmp_path: Path) -> None:
    for stem in ("one", "two"):
        write_inputs(tmp_path, stem)
    (tmp_path / "one_confidence.png").write_bytes(png(LEVELS))
    (tmp_path / "out").mkdir()
    out = tmp_path / "out"
    wanted = Job(tmp_path / "*_depth.png", out, tmp_path / "*_rgb.png", out_confidence=out)
    jobs, lonely = pair(Job(**{**vars(wanted), "confidence": tmp_path / "*_confidence.png"}))
    assert [(job.low and job.low.name, job.confidence and job.confidence.name) for job in jobs] == [
        ("one_depth.png", "one_confidence.png")
    ]
    assert len(lonely) == 2
    run(jobs[0], load("fgs"), Settings("mm"))
    assert sorted(p.name for p in out.iterdir()) == ["one.png", "one_confidence.png"]


def test_only_wide_holes_stay_when_asked(tmp_path: Path) -> None:
    low, rgb = write_inputs(tmp_path, holes=True)  # three low pixels, 12 of the result
    for width, stays in ((11, True), (12, False)):
        lines = run(Job(low, tmp_path / "o.png", rgb), load("fgs"), Settings("mm", max_hole_px=width))
        assert read_depth(tmp_path / "o.png", "mm").valid[8:20, 8:20].all() != stays
        assert any("holes wider than" in line for line in lines)
    with pytest.raises(InputError, match="one of them"):
        run(Job(low, tmp_path / "o.png", rgb), load("fgs"), Settings("mm", max_hole_px=3, keep_holes=True))
    with pytest.raises(InputError, match="at least 1"):
        run(Job(low, tmp_path / "o.png", rgb), load("fgs"), Settings("mm", max_hole_px=0))


def test_glass_that_the_sensor_missed_is_trusted_less_than_what_it_saw(real_data: Path) -> None:
    """D435, a scene with glass objects before they were painted: the sensor left holes in them."""
    stem = real_data / "d435" / "000000080"
    low = read_depth(f"{stem}-transparent-depth-img.exr")
    pred = cd.predict(
        "crisp",
        low=low.depth[::4, ::4],
        valid=low.valid[::4, ::4],
        rgb=f"{stem}-transparent-rgb-img.jpg",
        size=(360, 640),
    )
    assert pred.confidence is not None
    assert pred.confidence[~pred.valid].mean() < 0.8 * pred.confidence[pred.valid].mean()
