"""formats: files of other libraries read the same, ours read by them; what is not depth is refused."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

import cv2
import h5py
import numpy as np
import OpenEXR
import pytest
from depth_files import picture, png, ramp, refused
from PIL import Image

from crispdepth import io
from crispdepth.formats.exr import exr_bytes, read_exr_depth
from crispdepth.types import InputError


def test_our_exr_is_read_the_same_by_openexr(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for height, width in [(1, 1), (16, 5), (17, 300), (70, 33)]:
        depth = np.random.default_rng(height).random((width, height), np.float32).T + np.float32(0.1)
        io.write_depth(tmp_path / "a.exr", depth)
        with OpenEXR.File(str(tmp_path / "a.exr"), separate_channels=True) as file:
            assert list(file.channels()) == ["Z"]
            assert np.array_equal(file.channels()["Z"].pixels, depth)
            assert file.header()["compression"] == OpenEXR.ZIP_COMPRESSION
    assert capfd.readouterr() == ("", "")


def test_an_exr_keeps_the_very_bits_of_nan_and_inf() -> None:
    values = np.random.default_rng(0).integers(0, 2**32, (40, 50), np.uint32).view(np.float32)
    values[0, :3] = np.nan, np.inf, -np.inf
    read = read_exr_depth(BytesIO(exr_bytes(values)))
    assert np.array_equal(read.values.view(np.uint32), values.view(np.uint32))


@pytest.mark.parametrize("compression", ["NO", "ZIPS", "ZIP", "PIZ", "RLE"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_exr_of_openexr_is_read_the_same(tmp_path: Path, compression: str, dtype: type) -> None:
    depth: np.ndarray = (np.random.default_rng(0).random((70, 33)) + 0.1).astype(dtype)
    depth[3, 4:6] = np.nan, np.inf
    header = {"compression": getattr(OpenEXR, f"{compression}_COMPRESSION"), "type": OpenEXR.scanlineimage}
    for names in (["Z"], ["Y"], ["view.depth"], ["R", "G", "B"], ["R", "G", "B", "Z"]):
        OpenEXR.File(header, dict.fromkeys(names, depth)).write(str(tmp_path / "a.exr"))
        read = io.read_depth(tmp_path / "a.exr")
        assert np.array_equal(read.valid, np.isfinite(depth))
        assert np.array_equal(read.depth[read.valid], depth[read.valid].astype(np.float32))


def test_a_tiled_exr_is_read(tmp_path: Path) -> None:
    header = {"type": OpenEXR.tiledimage, "tiles": OpenEXR.TileDescription()}
    OpenEXR.File(header, {"Z": ramp(40, 50)}).write(str(tmp_path / "a.exr"))
    assert np.array_equal(io.read_depth(tmp_path / "a.exr").depth, ramp(40, 50))


def test_a_cropped_exr_keeps_its_place(tmp_path: Path) -> None:
    corners = [np.array(pair, np.int32) for pair in ((-1, 2), (5, 8), (0, 0), (9, 11))]
    header = {"dataWindow": tuple(corners[:2]), "displayWindow": tuple(corners[2:])}
    OpenEXR.File(header | {"type": OpenEXR.scanlineimage}, {"Z": np.ones((7, 7), np.float32)}).write(
        str(tmp_path / "a.exr")
    )
    expected = np.zeros((12, 10), bool)
    expected[2:9, 0:6] = True
    assert np.array_equal(io.read_depth(tmp_path / "a.exr").valid, expected)


def test_an_exr_that_could_mean_many_things_names_its_channels(tmp_path: Path) -> None:
    header = {"type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {"u": ramp(), "v": ramp()}).write(str(tmp_path / "a.exr"))
    assert "u, v" in refused(tmp_path / "a.exr", None)
    OpenEXR.File(header, {"R": ramp(), "G": ramp(), "B": ramp() + 1}).write(str(tmp_path / "a.exr"))
    assert "colour picture" in refused(tmp_path / "a.exr", None)
    OpenEXR.File([OpenEXR.Part(header | {"name": n}, {"Z": ramp()}) for n in "ab"]).write(str(tmp_path / "a.exr"))
    assert "multi-part" in refused(tmp_path / "a.exr", None)


def test_our_pfm_is_read_the_same_by_opencv(tmp_path: Path) -> None:
    io.write_depth(tmp_path / "a.pfm", ramp())
    read = cv2.imread(str(tmp_path / "a.pfm"), cv2.IMREAD_UNCHANGED)
    assert read is not None
    assert np.array_equal(read, ramp())


@pytest.mark.parametrize(("scale", "order"), [("-0.25", "<f4"), ("1", ">f4")])
def test_pfm_endianness_follows_the_sign_and_rows_run_upwards(tmp_path: Path, scale: str, order: str) -> None:
    values = np.array([[1, 2, np.inf], [4, 5, 6]], order)
    (tmp_path / "a.pfm").write_bytes(f"Pf\n3 2\n{scale}\n".encode() + values.tobytes())
    read = io.read_depth(tmp_path / "a.pfm")
    assert read.depth.tolist() == [[4, 5, 6], [1, 2, 0]]
    assert not read.valid[1, 2]


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2", "<i4", ">u2", "|u1", "<i8"])
def test_npy_of_any_number_type_order_and_shape_is_read(tmp_path: Path, dtype: str) -> None:
    values = np.arange(1, 13).reshape(3, 4).astype(dtype)
    for shaped in (values, values[None], values[..., None], np.asfortranarray(values)):
        np.save(tmp_path / "a.npy", shaped)
        read = io.read_depth(tmp_path / "a.npy", "m")
        assert np.array_equal(read.depth, values.astype(np.float32))
        assert read.depth.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate"])
def test_tiff_of_any_depth_is_read(tmp_path: Path, dtype: type, compression: str) -> None:
    values: np.ndarray = np.arange(1, 13).reshape(3, 4).astype(dtype)
    Image.fromarray(values).save(tmp_path / "a.tif", compression=compression)
    assert np.array_equal(io.read_depth(tmp_path / "a.tif", "m").depth, values)


def test_a_grey_picture_saved_as_rgb_is_still_depth(tmp_path: Path) -> None:
    grey = np.arange(1, 13, dtype=np.uint8).reshape(3, 4)
    (tmp_path / "a.png").write_bytes(png(np.repeat(grey[:, :, None], 3, axis=2)))
    assert np.array_equal(io.read_depth(tmp_path / "a.png", "disparity").depth, grey)
    deep = grey.astype(np.uint16) * 1001
    for name in ("b.png", "b.tif"):
        cv2.imwrite(str(tmp_path / name), np.repeat(deep[:, :, None], 3, axis=2))
        assert np.array_equal(io.read_depth(tmp_path / name, "disparity").depth, deep)


def test_colour_palette_jpeg_and_few_bits_are_not_depth(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 255, (8, 9, 3), np.uint8)
    picture = Image.fromarray(colour)
    picture.save(tmp_path / "c.png")
    assert "colour picture" in refused(tmp_path / "c.png")
    picture.convert("P").save(tmp_path / "p.png")
    assert "palette" in refused(tmp_path / "p.png")
    picture.save(tmp_path / "j.jpg")
    assert "lossy" in refused(tmp_path / "j.jpg")
    (tmp_path / "frame.0000.depth_meters.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    assert "damaged or truncated HDF5" in refused(tmp_path / "frame.0000.depth_meters.hdf5")
    picture.convert("1").save(tmp_path / "b.png")
    assert "too few" in refused(tmp_path / "b.png")
    picture.save(tmp_path / "w.webp")
    assert "WebP" in refused(tmp_path / "w.webp")
    Image.fromarray(colour[:, :, 0]).save(tmp_path / "m.tif", save_all=True, append_images=[picture.convert("L")])
    assert "several pages" in refused(tmp_path / "m.tif")
    (tmp_path / "c.pfm").write_bytes(b"PF\n1 1\n-1\n" + bytes(12))
    assert "colour PFM" in refused(tmp_path / "c.pfm")


def test_npy_that_is_no_map_is_refused(tmp_path: Path) -> None:
    for array, word in [
        (np.ones((2, 2), complex), "complex"),
        (np.ones((2, 2), bool), "bool"),
        (np.ones(5), "shape"),
        (np.ones((2, 2, 3)), "shape"),
        (np.ones((0, 4)), "no values"),
        (np.array([["a"]]), "<U1"),
        (np.zeros(2, [("a", "<f4")]), "not numbers"),
    ]:
        np.save(tmp_path / "a.npy", array)
        assert word in refused(tmp_path / "a.npy", "m")


def test_an_npz_that_could_mean_many_things_lists_its_keys(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", near=ramp(), far=ramp())
    assert "near, far" in refused(tmp_path / "a.npz", None)
    np.savez(tmp_path / "a.npz", depth=ramp(), valid=np.ones((2, 2), bool))
    assert "one size" in refused(tmp_path / "a.npz", None)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".webp"])
def test_a_picture_is_read_exactly(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(picture()).save(path, lossless=True)
    read = io.read_rgb(path)
    assert read.dtype == np.float32
    assert np.array_equal(read, picture().astype(np.float32) / 255)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_a_16_bit_picture_keeps_all_bits(tmp_path: Path, name: str) -> None:
    deep = np.random.default_rng(2).integers(0, 65536, (5, 7, 3)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / name), deep[:, :, ::-1])
    assert np.array_equal(io.read_rgb(tmp_path / name), deep.astype(np.float32) / 65535)
    cv2.imwrite(str(tmp_path / name), deep[:, :, 0])
    assert np.array_equal(io.read_rgb(tmp_path / name), (deep[:, :, [0, 0, 0]] / np.float32(65535)))


def test_grey_palette_alpha_and_cmyk_become_rgb(tmp_path: Path) -> None:
    image = Image.fromarray(picture())
    for name, variant in {
        "l.png": image.convert("L"),
        "p.png": image.convert("P"),
        "a.png": image.convert("RGBA"),
        "la.png": image.convert("LA"),
        "b.png": image.convert("1"),
        "k.tif": image.convert("CMYK"),
        "k.jpg": image.convert("CMYK"),
    }.items():
        variant.save(tmp_path / name)
        read = io.read_rgb(tmp_path / name)
        assert read.shape == (6, 8, 3), name
        assert 0 <= read.min() <= read.max() <= 1
    alpha = Image.fromarray(np.dstack([picture(), np.full((6, 8), 3, np.uint8)]))
    alpha.save(tmp_path / "faint.png")
    assert np.array_equal(io.read_rgb(tmp_path / "faint.png"), picture() / np.float32(255))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_exif_turn_is_undone_alike_at_8_and_16_bits(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture()).save(tmp_path / "a.png", exif=exif)
    upright = io.read_rgb(tmp_path / "a.png")
    assert upright.shape[:2] == ((6, 8) if orientation < 5 else (8, 6))
    ok, encoded = cv2.imencode(".png", picture()[:, :, ::-1].astype(np.uint16) * 257)
    assert ok
    chunk = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "b.png").write_bytes(encoded.tobytes()[:33] + chunk + encoded.tobytes()[33:])
    assert np.allclose(io.read_rgb(tmp_path / "b.png"), upright, atol=1e-6)
    smooth = Image.fromarray(np.full((60, 80, 3), 90, np.uint8))
    smooth.paste((255, 0, 0), (0, 0, 20, 20))
    smooth.save(tmp_path / "a.jpg", exif=exif, quality=95)
    rows, columns = np.nonzero(io.read_rgb(tmp_path / "a.jpg")[:, :, 0] > 0.8)
    top, left = orientation in (1, 2, 5, 6), orientation in (1, 4, 5, 8)
    assert (rows.mean() < 20, columns.mean() < 20) == (top, left)


def test_a_depth_file_is_no_picture(tmp_path: Path) -> None:
    io.write_depth(tmp_path / "a.exr", ramp())
    with pytest.raises(InputError, match="is EXR; give a PNG"):
        io.read_rgb(tmp_path / "a.exr")
    Image.fromarray(ramp()).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match="32-bit"):
        io.read_rgb(tmp_path / "a.tif")


def test_labels_are_read_as_stored(tmp_path: Path) -> None:
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    palette = Image.fromarray(labels).convert("P")
    palette.putpalette([5] * 768)
    palette.save(tmp_path / "a.png")
    assert io.read_label(tmp_path / "a.png").dtype == np.uint8
    Image.fromarray(labels).save(tmp_path / "b.png")
    assert np.array_equal(io.read_label(tmp_path / "b.png"), labels)
    Image.fromarray(picture()).save(tmp_path / "c.png")
    with pytest.raises(InputError, match="no label map"):
        io.read_label(tmp_path / "c.png")


def test_hypersims_distances_along_the_ray_are_read_as_depth(tmp_path: Path) -> None:
    """A wall 3 m ahead: farther along the rays to its corners."""
    path, (height, width), f_px = tmp_path / "frame.0000.depth_meters.hdf5", (192, 256), 886.81 / 4
    v, u = np.mgrid[:height, :width]
    ray = np.stack([(u - 127.5) / f_px, (v - 95.5) / f_px, np.ones(u.shape)])
    distance = (3 * np.linalg.norm(ray, axis=0)).astype(np.float16)
    distance[:4] = np.nan
    with h5py.File(path, "w") as file:
        file["dataset"] = distance
    read = io.read_depth(path)
    assert read.depth_unit == "m"
    assert not read.valid[:4].any()
    assert read.valid[4:].all()
    np.testing.assert_allclose(read.depth[4:], 3, rtol=1e-3)
    with h5py.File(path, "w") as file:
        file["other"] = distance
    assert "called dataset" in refused(path)
