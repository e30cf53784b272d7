"""units: every value of every unit, there and back; a wrong unit is answered with the right ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from depth_files import png, ramp, refused
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from crispdepth import io
from crispdepth.types import InputError
from crispdepth.units import parse_unit

REALSENSE = [f"realsense:{scale}" for scale in ("0.001", "0.0001", "0.00025", "0.000125")]
INTEGER_UNITS = ["mm", "kitti", "tum", "sunrgbd", *REALSENSE]


@pytest.mark.parametrize("unit", INTEGER_UNITS)
def test_all_65536_values_survive_metres_and_come_back(tmp_path: Path, unit: str) -> None:
    stored = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    (tmp_path / "in.png").write_bytes(png(stored))
    read = io.read_depth(tmp_path / "in.png", unit)
    assert read.depth.dtype == np.float32
    assert (read.unit, read.stored, read.depth_unit) == (unit, "uint16", "m")
    for name in ("out.png", "out.tif"):
        io.write_depth(tmp_path / name, read.depth, read.valid, out_unit=unit)
        assert np.array_equal(np.asarray(Image.open(tmp_path / name)), stored)


@pytest.mark.parametrize("unit", ["disparity", "relative"])
def test_all_65536_own_values_come_back(tmp_path: Path, unit: str) -> None:
    stored = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    (tmp_path / "in.png").write_bytes(png(stored))
    read = io.read_depth(tmp_path / "in.png", unit)
    assert np.array_equal(read.depth, stored)
    assert read.valid[0, 0] == (unit == "relative")
    io.write_depth(tmp_path / "out.png", read.depth, read.valid, unit=unit)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), stored)


def test_each_unit_gives_the_metres_of_its_definition(tmp_path: Path) -> None:
    (tmp_path / "v.png").write_bytes(png(np.full((2, 3), 8000, np.uint16)))
    for unit, metres in [
        ("mm", 8.0),
        ("kitti", 31.25),
        ("tum", 1.6),
        ("realsense:0.0001", 0.8),
        ("m", 8000.0),
    ]:
        assert io.read_depth(tmp_path / "v.png", unit).median == pytest.approx(metres, rel=1e-7)
    rotated = (8000 >> 3) | ((8000 << 13) & 0xFFFF)
    assert io.read_depth(tmp_path / "v.png", "sunrgbd").median == pytest.approx(rotated / 1000, rel=1e-7)


def test_a_wrong_unit_is_answered_with_the_choices_and_the_nearest() -> None:
    with pytest.raises(InputError, match=r"did you mean kitti\? Known: m, mm, kitti"):
        parse_unit("kiti")
    with pytest.raises(InputError, match=r"did you mean realsense:0\.01"):
        parse_unit("cm")
    with pytest.raises(InputError, match="did you mean mm"):
        parse_unit("millimeter")
    for bad in (
        "realsense",
        "realsense:",
        "realsense:SCALE",
        "realsense:nan",
        "realsense:-1",
        "realsense:1000",  # steps to a metre
    ):
        with pytest.raises(InputError, match=r"realsense:0\.001"):
            parse_unit(bad)
    with pytest.raises(InputError, match=r"write realsense:0\.0002, if that is steps to a metre"):
        parse_unit("realsense:5000")
    assert parse_unit(" MM ").name == "mm"


@pytest.mark.parametrize("name", ["g.png", "g.tif", "g.npy"])
def test_whole_numbers_without_a_unit_are_never_guessed(tmp_path: Path, name: str) -> None:
    path, values = tmp_path / name, np.full((3, 4), 1200, np.uint16)
    np.save(path, values) if name.endswith("npy") else Image.fromarray(values).save(path)
    message = refused(path, None)
    assert "--unit" in message
    assert "kitti" in message


def test_sunrgbd_is_refused_for_floating_numbers(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", ramp())
    assert "16-bit" in refused(tmp_path / "f.npy", "sunrgbd")


@pytest.mark.parametrize("unit", INTEGER_UNITS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), size=st.tuples(st.integers(1, 20), st.integers(1, 20)))
def test_16_bit_files_are_half_a_step_exact_and_make_no_hole(
    tmp_path: Path, unit: str, data: st.DataObject, size: tuple[int, int]
) -> None:
    step = parse_unit(unit).metres
    assert step is not None
    numbers = st.floats(2.0**-30, float(np.float32(65534 * step)), width=32) | st.just(0.0)
    depth = data.draw(hnp.arrays(np.float32, size, elements=numbers))
    assume((depth > 0).any())
    for name in ("a.png", "a.tiff"):
        io.write_depth(tmp_path / name, depth, out_unit=unit)
        read = io.read_depth(tmp_path / name, unit)
        assert np.array_equal(read.valid, depth > 0)
        large = depth > step
        assert np.abs(read.depth - depth)[large].max(initial=0) <= step * 0.501 + 1e-6 * depth.max()


@pytest.mark.parametrize("suffix", [".exr", ".pfm", ".npy", ".npz"])
@pytest.mark.parametrize("unit", ["mm", "kitti", "tum", "realsense:0.001"])
def test_float_formats_are_scaled_to_the_wanted_unit(tmp_path: Path, suffix: str, unit: str) -> None:
    io.write_depth(tmp_path / f"a{suffix}", ramp(), out_unit=unit)
    read = io.read_depth(tmp_path / f"a{suffix}", unit)
    assert np.allclose(read.depth, ramp(), rtol=2e-7)
    if unit == "mm" and suffix == ".npy":
        assert np.load(tmp_path / "a.npy").max() == 4000


def test_a_tiny_reading_is_written_as_one_not_as_a_hole(tmp_path: Path) -> None:
    io.write_depth(tmp_path / "a.png", np.array([[1e-5, 0.0, 2.0]], np.float32))
    assert np.asarray(Image.open(tmp_path / "a.png")).tolist() == [[1, 0, 2000]]
