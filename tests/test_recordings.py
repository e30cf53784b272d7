"""Recordings in their published layout: which depth belongs to which picture, and what else comes with them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from depth_files import picture, png
from test_cli import crispdepth

from crispdepth.batch import Job, Settings, is_many, pair, run
from crispdepth.io import read_depth
from crispdepth.models.catalog import load
from crispdepth.recordings import recording
from crispdepth.types import InputError

DEPTH = np.full((12, 16), 5000, dtype=np.uint16)


def tum(root: Path, order: str = "rgb depth") -> Path:
    """Two frames as associate.py lists them, and a line whose depth is missing."""
    lines = ["# made by associate.py"]
    for i in range(3):
        for kind in ("rgb", "depth"):
            (root / kind).mkdir(exist_ok=True)
        times = {"rgb": f"1305.{i}1", "depth": f"1305.{i}3"}
        (root / f"rgb/{times['rgb']}.png").write_bytes(png(picture(48, 64)))
        if i < 2:
            (root / f"depth/{times['depth']}.png").write_bytes(png(DEPTH))
        lines.append(" ".join(f"{times[kind]} {kind}/{times[kind]}.png" for kind in order.split()))
    (root / "associations.txt").write_text("\n".join(lines) + "\n\n")
    return root


def arkit(root: Path) -> Path:
    """Two pictures for three depth maps of an ARKitScenes video; the stamps of one moment differ by a millisecond."""
    stamps = {"lowres_depth": (1.0, 1.016, 1.033), "confidence": (1.0, 1.016, 1.033), "wide": (1.0, 1.034, 9.0)}
    for folder, times in stamps.items():
        (root / folder).mkdir(parents=True)
        for seconds in times:
            low = DEPTH // 5 if folder == "lowres_depth" else np.full((12, 16), 2, dtype=np.uint8)
            pixels = picture(48, 64) if folder == "wide" else low
            (root / folder / f"410_{seconds:.3f}.png").write_bytes(png(pixels))
    (root / "wide_intrinsics").mkdir()
    (root / "wide_intrinsics" / "410_1.001.pincam").write_text("64 48 50 51 31.5 23.5\n")
    return root


@pytest.mark.parametrize("order", ["rgb depth", "depth rgb"])
def test_tum_associations_name_both_files_in_either_order(tmp_path: Path, order: str) -> None:
    root = tum(tmp_path, order)
    for path in (root, root / "associations.txt"):
        found = recording(path)
        assert found is not None
        assert [(f.low.parent.name, f.low.name, f.rgb.name) for f in found.frames] == [
            ("depth", "1305.03.png", "1305.01.png"),
            ("depth", "1305.13.png", "1305.11.png"),
        ]
        assert found.unit == "tum"
        assert len(found.lonely) == 1
        assert "1305.23.png" in found.lonely[0]


def test_arkit_pictures_find_their_depth_confidence_and_camera_by_time(tmp_path: Path) -> None:
    found = recording(arkit(tmp_path))
    assert found is not None
    assert found.unit == "mm"
    first, second = found.frames
    assert (first.name, first.low.name, first.confidence and first.confidence.name) == (
        "410_1.000",
        "410_1.000.png",
        "410_1.000.png",
    )
    assert first.intrinsics == tmp_path / "wide_intrinsics" / "410_1.001.pincam"
    assert (second.low.name, second.intrinsics) == ("410_1.033.png", None)
    assert [line.split(":")[0][-9:] for line in found.lonely] == ["9.000.png"]


def test_a_plain_folder_is_no_recording(tmp_path: Path) -> None:
    assert recording(tmp_path) is None
    assert recording(tmp_path / "*.png") is None


def test_a_damaged_recording_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lowres_depth").mkdir()
    with pytest.raises(InputError, match="wide"):
        recording(tmp_path)
    (tmp_path / "wide").mkdir()
    with pytest.raises(InputError, match="no picture has its depth"):
        recording(tmp_path)
    (tmp_path / "wide" / "first.png").write_bytes(png(picture()))
    with pytest.raises(InputError, match="_SECONDS"):
        recording(tmp_path)
    for text, cure in (("1 a.png 2 b.png", "which of"), ("#\n1 rgb/a.png", "'1 rgb/a.png'"), ("", "no picture")):
        (tmp_path / "associations.txt").write_text(text + "\n")
        with pytest.raises(InputError, match=cure):
            recording(tmp_path / "associations.txt")
    with pytest.raises(InputError, match="no such file"):
        recording(tmp_path / "nowhere.txt")


@pytest.mark.parametrize("text", ["1.25", "1.25 1.5 1.75 2\n"])
def test_a_text_given_as_depth_is_told_to_be_read_as_a_list(tmp_path: Path, text: str) -> None:
    (tmp_path / "text.txt").write_text(text)
    for out in (tmp_path, tmp_path / "o.png"):
        done = crispdepth("predict", "--low", tmp_path / "text.txt", "--unit", "mm", "-o", out)
        assert done.returncode == 2
        assert "text.txt: a .txt is read as a list of frames, with lines such as 1.0 rgb/a.jpg" in done.stderr


def test_a_recording_becomes_jobs_with_its_unit_confidence_and_camera(tmp_path: Path) -> None:
    root, out = arkit(tmp_path / "410"), tmp_path / "out"
    out.mkdir()
    assert is_many(str(root))
    jobs, lonely = pair(Job(root, out, points=out))
    assert len(lonely) == 1
    lines = "".join(run(jobs[0], load("fgs"), Settings()))
    assert "unit mm, median 1 m" in lines
    assert "trusted" in lines
    assert "with the intrinsics given" in lines
    assert sorted(p.name for p in out.iterdir()) == ["410_1.000.ply", "410_1.000.png"]
    assert "unit kitti" in "".join(run(jobs[1], load("fgs"), Settings(unit="kitti")))
    with pytest.raises(InputError, match="leave out --rgb"):
        pair(Job(root, out, rgb=root / "wide"))


def test_the_command_sharpens_a_recording(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    done = crispdepth("predict", "--low", tum(tmp_path) / "associations.txt", "-o", out)
    assert done.returncode == 1  # the lost frame is named
    assert "2 of 2" in done.stdout
    assert "1305.23.png" in done.stderr
    assert read_depth(out / "1305.03.png", "mm").depth == pytest.approx(1, abs=0.01)


def test_open3ds_folders_pair_by_name_or_in_order(tmp_path: Path) -> None:
    for folder in ("color", "depth"):
        (tmp_path / folder).mkdir()
    for i in range(2):
        (tmp_path / f"color/0000{i}-0{i}14.jpg").write_bytes(png(picture(48, 64)))
        (tmp_path / f"depth/0000{i}-0{i}13.png").write_bytes(png(DEPTH))
    assert recording(tmp_path) is None  # without a camera it could be anything, and so could its unit
    k = [50.0, 0.0, 0.0, 0.0, 51.0, 0.0, 31.5, 23.5, 1.0]  # by columns, as Open3D writes it
    (tmp_path / "intrinsic.json").write_text(json.dumps({"width": 64, "height": 48, "intrinsic_matrix": k}))
    found = recording(tmp_path)
    assert found is not None
    assert [(f.rgb.name, f.low.name) for f in found.frames] == [
        ("00000-0014.jpg", "00000-0013.png"),
        ("00001-0114.jpg", "00001-0113.png"),
    ]
    assert found.unit == "mm"
    jobs, lonely = pair(Job(tmp_path, tmp_path, points=tmp_path))
    assert not lonely
    with pytest.raises(InputError, match="would be an input next time"):
        pair(Job(tmp_path, tmp_path / "depth"), ".tif")
    lines = run(jobs[0], load("bicubic"), Settings())
    assert any("median 5 m" in line for line in lines)
    assert any("intrinsics given" in line for line in lines)
    (tmp_path / "depth/00001-0113.png").rename(tmp_path / "depth/00001-0114.png")
    (tmp_path / "color/00000-0014.jpg").unlink()
    found = recording(tmp_path)
    assert found is not None
    assert [f.name for f in found.frames] == ["00001-0114"]
    assert "00000-0013" in found.lonely[0]


def open3d_pairs(folder: Path, colours: list[str], depths: list[str]) -> list[tuple[str, str]]:
    for kind, names, suffix in (("color", colours, "jpg"), ("depth", depths, "png")):
        (folder / kind).mkdir(parents=True)
        for name in names:
            (folder / kind / f"{name}.{suffix}").write_bytes(png(DEPTH if kind == "depth" else picture(48, 64)))
    (folder / "camera_intrinsic.json").write_text("{}")
    found = recording(folder)
    assert found is not None
    return [(frame.rgb.stem, frame.low.stem) for frame in found.frames if frame.rgb is not None]


def test_open3ds_frames_are_not_paired_one_off_nor_out_of_order(tmp_path: Path) -> None:
    lost = open3d_pairs(tmp_path / "lost", ["000", "001", "002", "003"], ["001", "002", "003", "004"])
    assert lost == [("001", "001"), ("002", "002"), ("003", "003")]
    numbers = open3d_pairs(tmp_path / "numbers", ["00008", "00009", "00010"], ["8", "9", "10"])
    assert numbers == [("00008", "8"), ("00009", "9"), ("00010", "10")]
    times = [f"{i}-{33 * i}" for i in range(4)], [f"{i}-{34 * i}" for i in range(4)]
    assert open3d_pairs(tmp_path / "times", *times) == list(zip(*times, strict=True))  # one name is the same
