"""io: depth comes back as it was written; what cannot be read or written is refused with a cure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
from depth_files import picture, png, ramp, refused
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from crispdepth import io
from crispdepth.formats.raw import muted
from crispdepth.types import InputError

FLOAT_FORMATS = [".tif", ".exr", ".pfm", ".npy", ".npz"]
quick = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SIZES = st.tuples(st.integers(1, 20), st.integers(1, 20))


@pytest.mark.parametrize("suffix", FLOAT_FORMATS)
@quick
@given(data=st.data(), size=SIZES)
def test_float_formats_keep_every_bit(tmp_path: Path, suffix: str, data: st.DataObject, size: tuple[int, int]) -> None:
    numbers = st.floats(2.0**-100, 2.0**15, width=32) | st.just(0.0)
    depth = data.draw(hnp.arrays(np.float32, size, elements=numbers))
    assume((depth > 0).any())
    io.write_depth(tmp_path / f"a{suffix}", depth)
    read = io.read_depth(tmp_path / f"a{suffix}")
    assert np.array_equal(read.depth, depth)
    assert np.array_equal(read.valid, depth > 0)
    assert (read.unit, read.stored) == ("m", "float32")


@pytest.mark.parametrize("suffix", FLOAT_FORMATS)
@quick
@given(data=st.data(), size=SIZES)
def test_relative_floats_keep_zero_and_holes_apart(
    tmp_path: Path, suffix: str, data: st.DataObject, size: tuple[int, int]
) -> None:
    depth = data.draw(hnp.arrays(np.float32, size, elements=st.floats(-1000, 1000, width=32)))
    valid = data.draw(hnp.arrays(bool, size))
    assume(valid.any())
    io.write_depth(tmp_path / f"a{suffix}", depth, valid, unit="relative")
    read = io.read_depth(tmp_path / f"a{suffix}", "relative", nan_holes=True)
    assert np.array_equal(read.valid, valid)
    assert np.array_equal(read.depth[valid], depth[valid])


def test_an_npz_of_ours_names_its_own_unit_and_holes(tmp_path: Path) -> None:
    io.write_depth(tmp_path / "a.npz", ramp(), out_unit="mm")
    read = io.read_depth(tmp_path / "a.npz")
    assert read.unit == "mm"
    assert np.allclose(read.depth, ramp())
    with np.load(tmp_path / "a.npz") as stored:
        assert set(stored) == {"depth", "valid", "unit"}
        assert np.array_equal(stored["valid"], ramp() > 0)


def test_the_share_of_holes_and_the_median_are_told(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[0, -1, 2, 3], [4, 5, 6, 0]], np.float32))
    read = io.read_depth(tmp_path / "a.npy")
    assert read.holes == pytest.approx(3 / 8)
    assert read.median == 4
    assert (read.depth[~read.valid] == 0).all()


def test_one_pixel_is_enough_for_every_format(tmp_path: Path) -> None:
    for suffix in io.DEPTH_SUFFIXES:
        io.write_depth(tmp_path / f"a{suffix}", np.array([[1.5]], np.float32))
        read = io.read_depth(tmp_path / f"a{suffix}", "mm" if suffix == ".png" else None)
        assert read.depth.tolist() == [[1.5]]


def test_content_decides_and_a_wrong_extension_is_mentioned(tmp_path: Path) -> None:
    (tmp_path / "a.exr").write_bytes(png(np.full((2, 2), 7, np.uint16)))
    assert io.read_depth(tmp_path / "a.exr", "mm").stored == "uint16"
    with pytest.raises(InputError, match=r"named \.exr, but its content is PNG"):
        io.read_depth(tmp_path / "a.exr")


def test_an_empty_map_of_holes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(np.zeros((4, 4), np.uint16)))
    assert "no reading" in refused(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", np.full((2, 2), -1.0))
    assert "no reading" in refused(tmp_path / "a.npy", None)


def test_nan_in_an_npy_is_counted_and_becomes_a_hole_on_demand(tmp_path: Path) -> None:
    depth = ramp()
    depth[2, 3:6] = np.nan, np.inf, -np.inf
    np.save(tmp_path / "a.npy", depth)
    np.savez(tmp_path / "a.npz", depth)
    Image.fromarray(depth).save(tmp_path / "a.tif")
    for name in ("a.npy", "a.npz", "a.tif"):
        message = refused(tmp_path / name, None)
        assert "3 of 63" in message
        assert "--nan-holes" in message
        assert int((~io.read_depth(tmp_path / name, nan_holes=True).valid).sum()) == 5
    np.savez(tmp_path / "b.npz", depth=depth, valid=np.isfinite(depth))
    assert io.read_depth(tmp_path / "b.npz").holes == pytest.approx(5 / 63)


def test_too_large_numbers_are_refused_not_turned_into_inf(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[1.0, 1e300]]))
    assert "too large" in refused(tmp_path / "a.npy", "disparity")


@pytest.mark.parametrize("nothing", [65504.0, 1e10, -1e10])
def test_what_a_renderer_writes_for_nothing_there_is_no_depth(tmp_path: Path, nothing: float) -> None:
    depth = np.array([[1.0, 2.0, nothing]], np.float32)
    for suffix in (".exr", ".pfm"):
        io._write(tmp_path / f"a{suffix}", io._ENCODERS[suffix](depth))
        read = io.read_depth(tmp_path / f"a{suffix}")
        assert read.valid.tolist() == [[True, True, False]]
        assert read.depth.max() == 2
        assert "1 readings of 65504 m and more are holes" in read.note
    np.save(tmp_path / "a.npy", depth)
    assert "65504 m and more; add --nan-holes" in refused(tmp_path / "a.npy", None)
    assert io.read_depth(tmp_path / "a.npy", nan_holes=True).depth.max() == 2
    assert io.decode_depth(depth * 1000, "mm", nan_holes=True).valid.sum() == 2
    assert io.read_depth(tmp_path / "a.npy", "relative").valid.all()  # no metres: any value may be one


def test_a_tiff_of_64_bit_floats_is_not_called_damaged(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.tif"), np.ones((4, 5)))
    assert "save it as 32-bit floats" in refused(tmp_path / "a.tif", None)


def test_whole_numbers_that_cannot_hold_the_depth_are_told_before_the_work(tmp_path: Path) -> None:
    low = io.decode_depth(np.full((4, 5), 0.003, np.float32), "m")
    for suffix in (".png", ".tif"):
        with pytest.raises(InputError, match="16-bit mm has no steps for so little"):
            io.check_holds(tmp_path / f"a{suffix}", low, "mm")
    io.check_holds(tmp_path / "a.tif", low, None)


def test_a_confidence_may_be_bools_and_a_depth_may_not(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((4, 5), dtype=bool))
    assert io.read_confidence(tmp_path / "a.npy").all()
    assert "holds bool" in refused(tmp_path / "a.npy", None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"depth": np.full((2, 2), 70.0)}, r"65\.535 m; use --out-unit kitti \(out_unit='kitti'\) or \.exr"),
        ({"depth": np.full((2, 2), 300.0)}, r"65\.535 m; use \.exr"),
        ({"depth": np.full((2, 2), 300.0), "out_unit": "kitti"}, r"255\.996 m; use \.exr"),
        ({"depth": ramp(), "out_unit": "m"}, r"--out-unit mm \(out_unit='mm'\)"),
        ({"depth": ramp(), "out_unit": "disparity"}, r"as disparity.*\(out_unit=…\)"),
        ({"depth": ramp(), "unit": "relative", "out_unit": "mm"}, "cannot be written as mm"),
        ({"depth": ramp() / 10, "unit": "relative"}, r"1 %.*\.exr or \.npy"),
        ({"depth": ramp() * -9000, "unit": "relative"}, r"16 bits.*\.exr or \.npy"),
        ({"depth": ramp(), "unit": "mm"}, "pass metres"),
        ({"depth": ramp(), "out_unit": "inches"}, "Known: m, mm"),
        ({"depth": ramp()[None]}, r"\(H, W\)"),
        ({"depth": ramp() + 1j}, "complex"),
        ({"depth": np.zeros((0, 3))}, "no pixels"),
        ({"depth": np.zeros((2, 2))}, "no valid pixel"),
        ({"depth": ramp(), "valid": np.ones((2, 2), bool)}, "valid must be bool"),
        ({"depth": ramp(), "valid": np.ones((7, 9), bool)}, "2 valid pixels are not finite and above 0"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_no_file(
    tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words) as caught:
        io.write_depth(tmp_path / "a.png", **options)
    assert str(caught.value).startswith(str(tmp_path / "a.png"))
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_extension_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.png, \.tif"):
        io.write_depth(tmp_path / "a.jpg", ramp())


def test_nan_without_a_mask_is_a_hole_in_the_written_file(tmp_path: Path) -> None:
    depth = ramp()
    depth[3, 3] = np.nan
    io.write_depth(tmp_path / "a.png", depth)
    assert np.asarray(Image.open(tmp_path / "a.png"))[3, 3] == 0


def test_a_small_map_of_whole_disparities_fits_a_png(tmp_path: Path) -> None:
    values = np.array([[1, 2, 3], [3, 2, 0]], np.float32)
    io.write_depth(tmp_path / "a.png", values, unit="disparity")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), values)


def test_pictures_are_written_as_png_and_jpeg(tmp_path: Path) -> None:
    io.write_rgb(tmp_path / "a.png", picture())
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), picture())
    io.write_rgb(tmp_path / "a.jpg", np.full((8, 8, 3), 100, np.uint8))
    assert abs(io.read_rgb(tmp_path / "a.jpg") * 255 - 100).max() <= 2
    for path, pixels in [("a.gif", picture()), ("b.png", picture() / 255), ("b.png", picture()[0])]:
        with pytest.raises(InputError):
            io.write_rgb(tmp_path / path, pixels)


def read_ply(path: Path) -> np.ndarray:
    head, _, body = path.read_bytes().partition(b"end_header\n")
    lines = head.decode().splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    types = {"float": "<f4", "uchar": "u1"}
    fields = [(line.split()[2], types[line.split()[1]]) for line in lines if line.startswith("property")]
    rows = np.frombuffer(body, fields)
    assert f"element vertex {len(rows)}" in lines
    return rows


def test_points_come_back_from_the_ply(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    points, normals = rng.random((2, 11, 3), np.float32)
    colours = rng.integers(0, 256, (11, 3), np.uint8)
    io.write_points(tmp_path / "a.ply", points, colours, normals)
    rows = read_ply(tmp_path / "a.ply")
    assert rows.dtype.names == ("x", "y", "z", "nx", "ny", "nz", "red", "green", "blue")
    assert np.array_equal(np.stack([rows["x"], rows["y"], rows["z"]], 1), points)
    assert np.array_equal(np.stack([rows["nx"], rows["ny"], rows["nz"]], 1), normals)
    assert np.array_equal(np.stack([rows["red"], rows["green"], rows["blue"]], 1), colours)
    io.write_points(tmp_path / "b.ply", points)
    assert read_ply(tmp_path / "b.ply").dtype.names == ("x", "y", "z")


def test_points_that_make_no_cloud_are_refused(tmp_path: Path) -> None:
    good = np.ones((4, 3), np.float32)
    for path, points, colours in [
        ("a.obj", good, None),
        ("a.ply", good[:0], None),
        ("a.ply", good[:, :2], None),
        ("a.ply", good * np.nan, None),
        ("a.ply", good, good),
        ("a.ply", good, np.ones((3, 3), np.uint8)),
    ]:
        with pytest.raises(InputError):
            io.write_points(tmp_path / path, points, colours)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "unit", "size", "median", "holes"),
    [
        ("lidar/phone_depth_mm.png", "mm", (192, 256), 2.65, 0.0),
        ("rgbd_holes/tum_1_depth_5000.png", "tum", (480, 640), 1.50, 0.33),
        ("kitti/0000000005_depth_256.png", "kitti", (375, 1242), 13.84, 0.80),
        ("d435/000000080-opaque-depth-img.exr", None, (720, 1280), 0.60, 0.09),
        ("nyu/1000_depth.npy", None, (480, 640), 2.96, 0.0),
        ("living_room/depth_mm/00000.png", "mm", (480, 640), 1.845, 0.022),
    ],
)
def test_real_samples_have_the_depth_a_person_expects(
    real_data: Path, name: str, unit: str | None, size: tuple[int, int], median: float, holes: float
) -> None:
    read = io.read_depth(real_data / name, unit)
    assert read.depth.shape == size
    assert read.median == pytest.approx(median, rel=0.01)
    assert read.holes == pytest.approx(holes, abs=0.01)


def test_what_others_print_meanwhile_is_not_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    io.write_depth(tmp_path / "a.tif", np.ones((8, 8), np.float32))
    reader = io._DEPTH_READERS["TIFF"]

    def talkative(file: Any) -> Any:
        print("another thread")  # noqa: T201
        return reader(file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(io._DEPTH_READERS, "TIFF", talkative)
        io.read_depth(tmp_path / "a.tif")
    with muted():
        print("while libraries are quiet")  # noqa: T201
    assert capsys.readouterr().out == "another thread\nwhile libraries are quiet\n"


def test_hypersims_rays_are_told_and_whole_numbers_are_no_such_file(tmp_path: Path) -> None:
    for name, dtype in (("rays", np.float32), ("whole", np.uint16)):
        with h5py.File(tmp_path / f"{name}.hdf5", "w") as file:
            file["dataset"] = np.full((6, 8), 3, dtype)
    assert "rays" in io.read_depth(tmp_path / "rays.hdf5").note
    with pytest.raises(InputError, match="whole numbers"):
        io.read_depth(tmp_path / "whole.hdf5")


def test_a_mask_of_any_numbers_is_a_mask(tmp_path: Path) -> None:
    depth = np.full((300, 4), 2.0, np.float32)
    mask = np.full(depth.shape, 255, np.uint8)
    mask[7] = 0
    np.save(tmp_path / "d.npy", depth)
    for read in (io.read_depth(tmp_path / "d.npy", valid=mask), io.decode_depth(depth, valid=mask)):
        assert read.valid.dtype == bool
        np.testing.assert_array_equal(read.valid, mask > 0)
        np.testing.assert_array_equal(read.depth, np.where(mask > 0, 2, 0))
