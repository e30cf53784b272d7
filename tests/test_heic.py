"""HEIC: a phone's photo as colours, the depth inside it in its unit, and clear words where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_cli import crispdepth, refused

from crispdepth import extras
from crispdepth.batch import Job, Settings, run
from crispdepth.io import read_depth, read_rgb
from crispdepth.types import InputError

pytest.importorskip("pillow_heif")
from heif_files import heic

RGB = np.zeros((96, 128, 3), np.uint8)
RGB[:, 64:] = (200, 100, 50)
RAMP = np.tile(np.linspace(0, 255, 32).astype(np.uint8), (24, 1))


def photo(folder: Path, *words: object) -> Path:
    path = folder / "IMG_1.heic"
    path.write_bytes(heic(RGB, *words))  # type: ignore[arg-type]
    return path


def test_its_colours_are_read(tmp_path: Path) -> None:
    rgb = read_rgb(photo(tmp_path))
    assert rgb.shape == (96, 128, 3)
    np.testing.assert_allclose(rgb * 255, RGB, atol=4)


@pytest.mark.parametrize(
    ("kind", "ends", "unit", "expected"),
    [
        (0, (0.5, 4.0), "m", 1 / (1 / 4 + RAMP / 255 * (1 / 0.5 - 1 / 4))),
        (1, (0.25, 2.0), "disparity", 0.25 + RAMP / 255 * 1.75),
        (2, (0.5, 4.0), "m", 0.5 + RAMP / 255 * 3.5),
        (3, (0.5, 4.0), "relative", RAMP / 255),
    ],
)
def test_its_depth_is_what_the_file_says_it_is(
    tmp_path: Path, kind: int, ends: tuple[float, float], unit: str, expected: np.ndarray
) -> None:
    read = read_depth(photo(tmp_path, RAMP, kind, ends))
    assert read.depth_unit == unit
    np.testing.assert_allclose(read.depth, expected, rtol=1e-5, atol=1e-6)


def test_a_photo_is_both_inputs_of_the_command(tmp_path: Path) -> None:
    path = photo(tmp_path, RAMP, 2, (0.5, 4.0))
    done = crispdepth("predict", "--low", path, "--rgb", path, "--model", "fgs", "-o", tmp_path / "sharp.png")
    assert done.returncode == 0, done.stderr
    assert read_depth(tmp_path / "sharp.png", "mm").depth.shape == (96, 128)
    assert "unit m" in done.stdout


def test_disparity_that_a_png_cannot_hold_is_refused_before_the_model_runs(tmp_path: Path) -> None:
    path = photo(tmp_path, RAMP, 1, (0.25, 2.0))
    words = ["predict", "--low", path, "--rgb", path, "--model", "fgs", "-o"]
    refused(crispdepth(*words, tmp_path / "sharp.png"), "-o sharp.exr")
    done = crispdepth(*words, tmp_path / "sharp.exr")
    assert done.returncode == 0, done.stderr
    assert read_depth(tmp_path / "sharp.exr", "disparity").median == pytest.approx(1.1, abs=0.1)
    no_model: Any = None
    with pytest.raises(InputError, match=r"--suffix \.exr"):
        run(Job(path, tmp_path / "a.png", path), no_model, Settings())


def test_what_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = photo(tmp_path)
    with pytest.raises(InputError, match="portrait mode"):
        read_depth(path)
    whole = path.read_bytes()
    for cut in (16, 40, 200, len(whole) // 2):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match="HEIC"):
            read_rgb(path)
    path.write_bytes(whole)
    monkeypatch.setattr(extras.importlib, "import_module", _without_the_library)
    with pytest.raises(InputError, match=r"pip install 'crispdepth\[heic\]'"):
        read_rgb(path)


def _without_the_library(module: str) -> None:
    raise ModuleNotFoundError("No module named 'pillow_heif'", name="pillow_heif")
