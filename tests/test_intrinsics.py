"""intrinsics: the usual .json files and four numbers are read; what is no camera is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from crispdepth.batch import Job, Settings, run
from crispdepth.intrinsics import Intrinsics, Stereo, read_extrinsics, read_intrinsics, read_stereo
from crispdepth.io import read_depth, write_depth
from crispdepth.models.catalog import load
from crispdepth.types import InputError

K = [[600.0, 0, 320], [0, 610, 240], [0, 0, 1]]


@pytest.mark.parametrize(
    "content",
    [
        {"fx": 600, "fy": 610, "cx": 320, "cy": 240},
        {"K": K},
        {"camera_matrix": {"rows": 3, "cols": 3, "data": np.array(K).ravel().tolist()}},
        {"intrinsic_matrix": np.array(K).T.ravel().tolist()},
        {"intrinsics": np.array(K).T.tolist()},
        {"intrinsics": {"fx": 600, "fy": 610, "cx": 320, "cy": 240}},
    ],
)
def test_intrinsics_are_read_from_the_usual_json_files(tmp_path: Path, content: dict[str, Any]) -> None:
    expected = Intrinsics(600, 610, 320, 240)
    (tmp_path / "k.json").write_text(json.dumps(content))
    assert read_intrinsics(tmp_path / "k.json") == expected
    (tmp_path / "k.json").write_text(json.dumps(content | {"width": 640, "height": 480}))
    assert read_intrinsics(str(tmp_path / "k.json")) == Intrinsics(600, 610, 320, 240, 640, 480)


def test_intrinsics_are_read_from_four_numbers() -> None:
    assert read_intrinsics("600, 610.5,320,240") == Intrinsics(600, 610.5, 320, 240)


@pytest.mark.parametrize("text", ["", "600", "1,2,3", "1,2,3,4,5", "a,b,c,d", "0,1,2,3", "nan,1,2,3", "1,-1,2,3"])
def test_intrinsics_that_are_no_camera_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        read_intrinsics(text)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[1, 2]",
        "{}",
        '{"fx": 1}',
        '{"fx": "1", "fy": 1, "cx": 1, "cy": 1}',
        '{"fx": NaN, "fy": 1, "cx": 1, "cy": 1}',
        '{"fx": true, "fy": 1, "cx": 1, "cy": 1}',
        '{"fx": 1, "fy": 1, "cx": 1, "cy": 1, "width": 640}',
        '{"fx": 1, "fy": 1, "cx": 1, "cy": 1, "width": 640, "height": "480"}',
        '{"K": [[1, 0], [0, 1]]}',
        '{"K": [[1, 0, 0], [0, 1, 0], [1, 1, 2]]}',
        '{"K": 5}',
        '{"K": ' + "[" * 5000 + "]" * 5000 + "}",
    ],
)
def test_a_json_that_is_no_camera_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "k.json").write_text(content)
    with pytest.raises(InputError, match=r"k\.json"):
        read_intrinsics(tmp_path / "k.json")


def test_a_middle_far_from_the_pictures_is_told_where_no_size_was_given() -> None:
    of_the_depth_map = Intrinsics(181.25, 181.25, 119.5, 89.5)
    assert "119.5,89.5 is far from the middle of 1920x1440" in of_the_depth_map.doubt((1440, 1920))
    assert not of_the_depth_map.doubt((180, 240))
    assert not Intrinsics(181.25, 181.25, 119.5, 89.5, 240, 180).doubt((1440, 1920))
    landscape = Intrinsics(1450, 1450, 959.5, 719.5)
    assert "was one of the two turned?" in landscape.doubt((1920, 1440))
    assert not landscape.doubt((1440, 1920))
    assert not Intrinsics(1450, 1450, 1070, 719.5).doubt((1440, 1920))  # a little off, as cropped pictures' are


def test_a_camera_of_another_size_is_rescaled_and_of_another_shape_refused() -> None:
    camera = Intrinsics(600, 610, 319.5, 239.5, 640, 480).camera((240, 320))
    assert (camera.fx_px, camera.fy_px, camera.cx_px, camera.cy_px) == (300, 305, 159.5, 119.5)
    assert Intrinsics(600, 610, 320, 240).camera((480, 640)).fx_px == 600
    with pytest.raises(InputError, match="another shape"):
        Intrinsics(600, 610, 320, 240, 640, 480).camera((480, 480))


TURN = [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
MOVE = [0.01, 0.02, -0.03]
RIGID = np.array([[*row, t] for row, t in zip(TURN, MOVE, strict=True)] + [[0, 0, 0, 1]])


@pytest.mark.parametrize(
    "content",
    [
        RIGID.tolist(),
        RIGID[:3].tolist(),
        RIGID.T.ravel().tolist(),
        {"extrinsics": RIGID.tolist()},
        {"transform": {"R": TURN, "t": MOVE}},
        {"rotation": [v for row in TURN for v in row], "translation": MOVE},
        {"R": TURN, "t": [[v] for v in MOVE]},
    ],
)
def test_extrinsics_are_read_from_the_usual_json_files(tmp_path: Path, content: Any) -> None:
    (tmp_path / "e.json").write_text(json.dumps(content))
    np.testing.assert_array_equal(read_extrinsics(tmp_path / "e.json"), RIGID)


def test_extrinsics_are_read_from_numbers_and_text(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_extrinsics(",".join(str(v) for v in RIGID[:3].ravel())), RIGID)
    np.savetxt(tmp_path / "e.txt", RIGID)
    np.testing.assert_array_equal(read_extrinsics(str(tmp_path / "e.txt")), RIGID)


@pytest.mark.parametrize(
    ("content", "cure"),
    [
        ("1 2 3", "12"),
        ("one two", "numbers"),
        (" ".join(str(v) for v in (RIGID * 1000)[:3].ravel()), "no rotation"),
        (" ".join(str(v) for v in np.hstack([RIGID[:3, :3], 1000 * RIGID[:3, 3:]]).ravel()), "metres"),
        (" ".join(str(v) for v in np.diag([1.0, 1, -1, 1]).ravel()), "no rotation"),
        (" ".join(["nan"] * 16), "finite"),
        (" ".join(["1"] * 16), "0 0 0 1"),
    ],
)
def test_what_is_no_rotation_and_translation_is_refused(tmp_path: Path, content: str, cure: str) -> None:
    with pytest.raises(InputError, match=cure):
        read_extrinsics(content)
    (tmp_path / "e.txt").write_text(content)
    with pytest.raises(InputError, match=r"e\.txt"):
        read_extrinsics(tmp_path / "e.txt")
    (tmp_path / "e.json").write_text('{"R": [1], "t": "here"}')
    with pytest.raises(InputError, match=r"e\.json"):
        read_extrinsics(tmp_path / "e.json")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "k.yaml",
            "# a camera\nname: 'D435'\nxres: 640  # wide\nyres: 480\nfx: 600\nfy: 6.1e2 # px\ncx: 320\ncy: 240\n",
        ),
        (
            "ros.yml",
            "image_width: 640\nimage_height: 480\ncamera_name: x\ncamera_matrix:\n  rows: 3\n  cols: 3\n"
            "  data: [600, 0, 320,\n    0, 610, 240, 0, 0, 1]\ndistortion_model: plumb_bob\n",
        ),
        ("1_2.5.pincam", "640 480 600 610.0 320 240"),
        (
            "calib.txt",
            "cam0=[600 0 320; 0 610 240; 0 0 1]\ncam1=[600 0 325; 0 610 240; 0 0 1]\ndoffs=5\nbaseline=200.5\n"
            "width=640\nheight=480\nndisp=100\n",
        ),
    ],
)
def test_intrinsics_are_read_from_the_files_of_cameras(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_intrinsics(tmp_path / name) == Intrinsics(600, 610, 320, 240, 640, 480)


@pytest.mark.parametrize("text", ["600 0 320\n0 610 240\n0 0 1\n", "600 0 320 0\n0 610 240 0\n0 0 1 0\n0 0 0 1\n"])
def test_a_matrix_in_a_text_file_is_a_camera(tmp_path: Path, text: str) -> None:
    (tmp_path / "camera-intrinsics.txt").write_text(text)
    assert read_intrinsics(tmp_path / "camera-intrinsics.txt") == Intrinsics(600, 610, 320, 240)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("k.txt", "1 2 3 4"),
        ("k.txt", "1 2 3 4 5 6 7 8 9"),
        ("k.txt", "\0"),
        ("k.yaml", "fx: wide"),
        ("k.yaml", "a: [1, 2"),
        ("k.pincam", "640 480 600 610"),
        ("k.pincam", "640.5 480 600 610 320 240"),
        ("k.pincam", "nan nan nan nan nan nan"),
        ("calib.txt", "cam0=[600 0 320; 0 610 240; 0 0 1]"),
        ("calib.txt", "cam0=[1 2]\ndoffs=5\nbaseline=200\nwidth=640\nheight=480"),
        ("calib.txt", "cam0=[600 0 320; 0 610 240; 0 0 1]\ndoffs=5\nbaseline=-1\nwidth=640\nheight=480"),
    ],
)
def test_a_file_that_is_no_camera_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        read_intrinsics(tmp_path / name)


CALIB = "cam0=[40 0 7.5; 0 40 5.5; 0 0 1]\ndoffs=2\nbaseline=100\nwidth=16\nheight=12\n"


def test_disparity_becomes_metres_by_its_calibration(tmp_path: Path) -> None:
    (tmp_path / "calib.txt").write_text(CALIB)
    assert read_stereo(tmp_path / "calib.txt") == Stereo(Intrinsics(40, 40, 7.5, 5.5, 16, 12), 0.1, 2)
    disparity = np.full((12, 16), 6.0, dtype=np.float32)
    disparity[:, 8:] = 2.0
    disparity[0, 0] = np.inf  # unknown
    write_depth(tmp_path / "disp0.pfm", disparity, np.isfinite(disparity), unit="disparity")
    job = Job(tmp_path / "disp0.pfm", tmp_path / "o.npy", points=tmp_path / "p.ply")
    settings = Settings(calib=str(tmp_path / "calib.txt"), scale=1, keep_holes=True)
    lines = "".join(run(job, load("bicubic"), settings))
    assert "with the intrinsics given" in lines
    depth = np.load(tmp_path / "o.npy")
    assert depth[5, 2] == pytest.approx(0.1 * 40 / (6 + 2))  # 0.5 m
    assert depth[5, 13] == pytest.approx(0.1 * 40 / (2 + 2))  # 1 m
    assert depth[0, 0] == 0
    np.save(tmp_path / "half.npy", disparity[2::2, 2::2])
    with pytest.raises(InputError, match="one size"):
        run(Job(tmp_path / "half.npy", tmp_path / "o.npy"), load("bicubic"), settings)
    with pytest.raises(InputError, match="leave one"):
        run(job, load("bicubic"), replace(settings, unit="mm"))


def test_the_camera_of_a_real_d435_is_read(real_data: Path, tmp_path: Path) -> None:
    camera = real_data / "d435" / "camera_intrinsics.yaml"
    assert read_intrinsics(camera) == Intrinsics(921, 921, 642, 359, 1280, 720)
    low = read_depth(real_data / "d435" / "000000080-opaque-depth-img.exr")
    np.save(tmp_path / "low.npy", np.where(low.valid, low.depth, 0)[::8, ::8])
    job = Job(tmp_path / "low.npy", tmp_path / "o.npy", points=tmp_path / "p.ply")
    lines = run(job, load("bicubic"), Settings(intrinsics=str(camera), size=(180, 320)))
    assert any("with the intrinsics given" in line for line in lines)


def test_lines_that_end_as_windows_writes_them_are_read(tmp_path: Path) -> None:
    text = "image_width: 1280\nimage_height: 960\nfx: 1000.0\nfy: 1000.0\ncx: 640\ncy: 480\n"
    for name, end in (("unix", "\n"), ("windows", "\r\n")):
        (tmp_path / f"{name}.yaml").write_bytes(text.replace("\n", end).encode())
    camera = read_intrinsics(tmp_path / "windows.yaml").camera((480, 640))
    assert camera == read_intrinsics(tmp_path / "unix.yaml").camera((480, 640))
    assert camera.fx_px == 500


@pytest.mark.parametrize(
    "text",
    [
        "K: [600, 0, 320, 0, 610, 240, 0, 0, 1]\n",
        "K: [[600, 0, 320], [0, 610, 240],\n    [0, 0, 1]]\n",
        "K:\n- 600\n- 0\n- 320\n- 0\n- 610\n- 240\n- 0\n- 0\n- 1\n",
        "camera_matrix:\n  rows: 3\n  cols: 3\n  data: [600, 0, 320, 0, 610, 240, 0, 0, 1]\n",
        "camera_matrix:\n  rows: 3\n  data:\n  - 600\n  - 0\n  - 320.0\n  - 0\n  - 610\n  - 240\n  - 0\n  - 0\n  - 1\n",
    ],
)
def test_matrices_in_yaml_are_read_however_they_are_written(tmp_path: Path, text: str) -> None:
    (tmp_path / "k.yaml").write_text(f"image_width: 640\nimage_height: 480\n{text}other: [1, 2]\n")
    assert read_intrinsics(tmp_path / "k.yaml") == Intrinsics(600, 610, 320, 240, 640, 480)


def test_ros_names_of_the_size_count_in_json_too(tmp_path: Path) -> None:
    content = {"image_width": 640, "image_height": 480, "camera_matrix": {"data": np.array(K).ravel().tolist()}}
    (tmp_path / "k.json").write_text(json.dumps(content))
    assert read_intrinsics(tmp_path / "k.json") == Intrinsics(600, 610, 320, 240, 640, 480)


def test_calib_is_named_where_a_truth_does_not_fit_it_and_8_bits_are_no_wonder(tmp_path: Path) -> None:
    write_depth(tmp_path / "d.npy", np.full((4, 6), 9.0), unit="disparity")
    (tmp_path / "calib.txt").write_text(
        "cam0=[50 0 3; 0 50 2; 0 0 1]\ncam1=[50 0 3; 0 50 2; 0 0 1]\ndoffs=0\nbaseline=100\nwidth=6\nheight=4\n"
    )
    np.save(tmp_path / "t.npy", np.ones((8, 12), np.float32))
    Image.fromarray(np.full((4, 6), 9, np.uint8)).save(tmp_path / "d.png")
    settings = Settings(calib=str(tmp_path / "calib.txt"), scale=2)
    lines = run(Job(tmp_path / "d.png", tmp_path / "o.npy"), load("bicubic"), settings)
    assert not any("unusual" in line for line in lines)
    with pytest.raises(InputError, match=r"t\.npy: the disparity is 12x8"):
        run(Job(tmp_path / "d.npy", tmp_path / "o.npy", truth=tmp_path / "t.npy"), load("bicubic"), settings)
