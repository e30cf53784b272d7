"""intrinsics: the usual .json files and four numbers are read; what is no camera is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crispdepth.intrinsics import Intrinsics, read_intrinsics
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
