"""Damaged and hostile files: refused in one line, nothing printed, unpickled or allocated."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import OpenEXR
import pytest
from depth_files import png, ramp, refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from crispdepth import io
from crispdepth.formats.raw import MAX_PIXELS
from crispdepth.types import InputError


def complaint(act: Callable[[], object]) -> str | None:
    """What the InputError says, or None where all went well; anything else escapes."""
    try:
        act()
    except InputError as error:
        return str(error)
    return None


def samples(folder: Path) -> dict[str, bytes]:
    """One small file of every format and kind, by name."""
    depth = ramp(19, 23)
    for name in ("a.png", "a.tif", "a.exr", "a.pfm", "a.npy", "a.npz"):
        io.write_depth(folder / name, depth)
    io.write_depth(folder / "b.tif", depth, out_unit="mm")
    colour = np.random.default_rng(0).integers(0, 255, (19, 23, 3), np.uint8)
    for name in ("c.png", "c.jpg", "c.webp", "c.bmp", "c.tif"):
        Image.fromarray(colour).save(folder / name)
    cv2.imwrite(str(folder / "d.png"), colour.astype(np.uint16) * 257)
    cv2.imwrite(str(folder / "d.tif"), colour.astype(np.uint16) * 257)
    for kind in ("PIZ", "ZIPS"):
        header = {"compression": getattr(OpenEXR, f"{kind}_COMPRESSION"), "type": OpenEXR.scanlineimage}
        OpenEXR.File(header, {"Z": depth}).write(str(folder / f"{kind}.exr"))
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_truncated_file_of_any_format_is_refused_with_a_cure(tmp_path: Path, capfd: Any) -> None:
    for name, data in samples(tmp_path).items():
        if name.startswith(("c.", "d.")):
            continue
        for share in (0.2, 0.5, 0.9):
            path = tmp_path / f"cut_{name}"
            path.write_bytes(data[: int(len(data) * share)])
            refused(path)
    assert capfd.readouterr() == ("", "")


def test_a_truncated_picture_is_refused_with_a_cure(tmp_path: Path, capfd: Any) -> None:
    for name, data in samples(tmp_path).items():
        if not name.startswith(("c.", "d.")):
            continue
        path = tmp_path / f"cut_{name}"
        path.write_bytes(data[: len(data) // 2])
        with pytest.raises(InputError, match=r"cut_.*;"):
            io.read_rgb(path)
    assert capfd.readouterr() == ("", "")


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_lets_anything_but_an_input_error_escape(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    if not folder.exists():
        folder.mkdir()
        samples(folder)
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("fuzz"))
    source = data.draw(st.sampled_from(files))
    content = bytearray(source.read_bytes())
    near = st.integers(0, min(len(content), 300) - 1)
    anywhere = st.integers(0, len(content) - 1)
    for position, value in data.draw(st.lists(st.tuples(near | anywhere, st.integers(0, 255)), max_size=4)):
        content[position] = value
    if data.draw(st.booleans()):
        del content[data.draw(anywhere) :]
    victim = folder / f"fuzz{source.suffix}"
    victim.write_bytes(content)
    unit = data.draw(st.sampled_from(["mm", "sunrgbd", "relative", None]))
    for read in (lambda: io.read_depth(victim, unit, nan_holes=True), lambda: io.read_rgb(victim)):
        message = complaint(read)
        assert message is None or ("\n" not in message and str(victim) in message)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=200),
    head=st.sampled_from([b"", b"BM", b"Pf\n", b"\x93NUMPY\x01\0", b"PK\x03\x04"]),
)
def test_random_bytes_are_refused(tmp_path: Path, content: bytes, head: bytes) -> None:
    (tmp_path / "a.png").write_bytes(head + content)
    with pytest.raises(InputError):
        io.read_depth(tmp_path / "a.png", "mm")


def test_missing_empty_folder_and_device_are_refused(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "none.png")
    assert "folder" in refused(tmp_path)
    (tmp_path / "empty.npy").touch()
    assert "0 bytes" in refused(tmp_path / "empty.npy")
    os.mkfifo(tmp_path / "pipe.png")
    assert "ordinary file" in refused(tmp_path / "pipe.png")
    with pytest.raises(InputError):
        io.read_depth("a\0b.png", "mm")
    with pytest.raises(InputError) as caught:
        io.read_depth(os.fsdecode(b"bad\xff\n.png"), "mm")
    assert "\n" not in str(caught.value)
    str(caught.value).encode()


def test_a_wrong_checksum_in_a_png_is_noticed(tmp_path: Path) -> None:
    content = bytearray(png(np.arange(1, 401, dtype=np.uint16).reshape(20, 20)))
    content[content.index(b"IDAT") + 20] ^= 1
    (tmp_path / "a.png").write_bytes(content)
    assert "checksum" in refused(tmp_path / "a.png")


def test_pickled_objects_are_refused_and_never_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    trap = np.array([[Trap()]], dtype=object)
    np.save(tmp_path / "a.npy", trap, allow_pickle=True)
    np.savez(tmp_path / "a.npz", depth=trap)
    for name in ("a.npy", "a.npz"):
        assert "pickled" in refused(tmp_path / name, None)
    assert not (tmp_path / "sprung").exists()


def header_npy(shape: str, dtype: str = "<f4") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text


def header_png(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body)) + bytes(64)


def test_giant_promises_in_a_header_are_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    zipped = BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("depth.npy", header_npy("(100000, 100000)") + bytes(10**6))
    tiff = BytesIO()
    Image.fromarray(ramp()).save(tiff, "TIFF")
    wide = tiff.getvalue().replace(struct.pack("<HHII", 256, 4, 1, 9), struct.pack("<HHII", 256, 4, 1, 10**9))
    for name, content in {
        "a.png": header_png(100_000, 100_000),
        "a.npy": header_npy("(100000, 100000)"),
        "b.npy": header_npy("(" + "9" * 90 + ", 3)"),
        "a.pfm": b"Pf\n100000 100000\n-1\n",
        "a.npz": zipped.getvalue(),
        "a.tif": wide,
    }.items():
        (tmp_path / name).write_bytes(content)
        assert str(MAX_PIXELS) in refused(tmp_path / name), name


def test_a_header_may_not_promise_more_than_the_file_holds(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(header_npy("(8000, 8000)") + bytes(100))
    (tmp_path / "a.pfm").write_bytes(b"Pf\n8000 8000\n-1\n" + bytes(100))
    (tmp_path / "a.png").write_bytes(header_png(8000, 8000))
    for name in ("a.npy", "a.pfm", "a.png"):
        assert "too early" in refused(tmp_path / name)


def test_a_picture_beyond_pillows_own_limit_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    (tmp_path / "a.png").write_bytes(png(np.ones((7, 9), np.uint8)))
    assert io.read_depth(tmp_path / "a.png", "disparity").depth.shape == (7, 9)


def test_a_tiff_that_declares_more_than_it_holds_is_refused_at_once(tmp_path: Path) -> None:
    """An uncompressed one of 900 bytes that says it is 17 x 2,000,000 took seconds, and was read as black."""
    path = tmp_path / "c.tif"
    Image.fromarray(np.zeros((15, 17, 3), np.uint8)).save(path)
    data = bytearray(path.read_bytes())
    entry = next(at for at in range(8, len(data), 2) if struct.unpack_from("<H", data, at)[0] == 0x101)  # its height
    data[entry : entry + 12] = struct.pack("<HHII", 0x101, 4, 1, 2_000_000)
    path.write_bytes(data)
    for read in (io.read_rgb, io.read_depth):
        with pytest.raises(InputError, match="truncated"):
            read(path)
