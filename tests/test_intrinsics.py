"""intrinsics: the usual .json files and four numbers are read; what is no camera is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crispdepth.intrinsics import Intrinsics, read_extrinsics, read_intrinsics
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
