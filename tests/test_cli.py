"""The command as a person types it: exit codes, one-line errors, and real sensors' files."""

from __future__ import annotations

import contextlib
import io
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_batch import folders, write_inputs

from crispdepth.cli import main
from crispdepth.io import read_depth
from crispdepth.models.catalog import CATALOG

ROOT = Path(__file__).resolve().parents[1]


def crispdepth(*words: object) -> subprocess.CompletedProcess[str]:
    """The command in this process (a new one takes seconds to import torch): what main() sees and prints."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    typed = ["crispdepth", *map(str, words)]
    before, sys.argv = sys.argv, typed
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.argv = before
    return subprocess.CompletedProcess(typed, code, out.getvalue(), err.getvalue())


def refused(result: subprocess.CompletedProcess[str], cure: str) -> None:
    """One line on stderr that names the cure, exit code 2, nothing on stdout but what was read."""
    assert result.returncode == 2, result
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert re.search(cure, lines[0]), lines[0]
    assert "wrote" not in result.stdout


def test_predict_evaluate_names_info_and_sample_work(tmp_path: Path) -> None:
    assert crispdepth("sample", "-o", tmp_path / "s", "--size", "128x96").returncode == 0
    s = tmp_path / "s"
    words = ["--low", s / "low.png", "--unit", "mm", "--rgb", s / "rgb.png", "--truth", s / "truth.png"]
    words += ["--intrinsics", s / "intrinsics.json", "--picture", s / "v.png", "--points", s / "p.ply"]
    done = crispdepth("predict", *words, "-o", s / "sharp.png")
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    for word in ("model    crisp", "unit mm", "median", "holes", "error    RMSE", "v.png", "p.ply", "sharp.png"):
        assert word in done.stdout
    assert read_depth(s / "sharp.png", "mm").depth.shape == (96, 128)
    named = crispdepth("names")
    assert all(name in named.stdout for name in (*CATALOG, "middlebury", "fdsr", "kitti", "realsense"))
    for name in (*CATALOG, "nyu", "dctnet", "garg", "mm"):
        assert crispdepth("info", name).returncode == 0


def test_evaluate_writes_json_and_prints_protocol_and_count(tmp_path: Path) -> None:
    for part in ("rgb", "depth"):
        (tmp_path / part).mkdir()
    depth = np.random.default_rng(0).uniform(1, 2, (6, 8)).astype(np.float32).repeat(8, 0).repeat(8, 1)
    np.save(tmp_path / "depth" / "a.npy", depth)
    Image.fromarray(np.zeros((48, 64, 3), dtype=np.uint8)).save(tmp_path / "rgb" / "a.png")
    words = ["--model", "bicubic", "--set", "folder", "--root", tmp_path, "--scale", 4, "--protocol", "dctnet"]
    done = crispdepth("evaluate", *words, "--json", tmp_path / "f.json")
    assert done.returncode == 0, done.stderr
    assert "1 images" in done.stdout
    assert "protocol dctnet" in done.stdout
    read = json.loads((tmp_path / "f.json").read_text())
    assert (read["model"], read["set"], read["scale"], read["protocol"], read["unit"]) == (
        "bicubic",
        "folder",
        4,
        "dctnet",
        "cm",
    )
    assert read["metrics"]["rmse"] > 0
    refused(crispdepth("evaluate", *words, "--json", tmp_path / "nowhere" / "f.json"), "create it")
    refused(crispdepth("evaluate", *words, "--json", tmp_path / "depth" / "a.npy"), r"ends in \.json")
    refused(crispdepth("evaluate", "--model", "bicubic", "--set", "luu"), "did you mean lu")
    words = ["--model", "bicubic", "--set", "lu", "--root", tmp_path, "--unit", "mm"]
    refused(crispdepth("evaluate", *words), "leave out --unit")


def test_evaluate_says_that_scale_plays_no_part_only_where_it_was_given(tmp_path: Path) -> None:
    for part in ("rgb", "depth", "low"):
        (tmp_path / part).mkdir()
    np.save(tmp_path / "depth" / "a.npy", np.full((48, 64), 2, dtype=np.float32))
    np.save(tmp_path / "low" / "a.npy", np.full((12, 16), 2, dtype=np.float32))
    Image.new("RGB", (64, 48)).save(tmp_path / "rgb" / "a.png")
    words = ["evaluate", "--model", "bicubic", "--set", "folder", "--root", tmp_path, "--protocol", "park"]
    for given, told in ([], False), (["--scale", 4], False), (["--scale", 8], True):
        done = crispdepth(*words, *given)
        assert "folder x4" in done.stdout, done.stderr
        assert ("x4, not --scale" in done.stdout) == told


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        (["--low", "nope.png", "--unit", "mm"], "no such file"),
        (["--low", "a_depth.png"], "--unit"),
        (["--low", "a_depth.png", "--model", "hf:nobody/nothing"], "--unit"),  # before anything is fetched
        (["--low", "a_depth.png", "--unit", "mmm"], "did you mean mm"),
        (["--low", "a_depth.png", "--unit", "mm", "--model", "bilateral"], "joint-bilateral"),
        (["--low", "a_depth.png", "--unit", "mm", "--model", "mine.safetensors"], "does not exist"),
        (["--low", "text.png", "--unit", "mm"], "format"),
        (["--low", "half.png", "--unit", "mm"], "truncated|too early|damaged"),
        (["--low", "half.npy"], "truncated|too early"),
        (["--low", "pickle.npy"], "pickle|object"),
        (["--low", "nan.npy"], "--nan-holes"),
        (["--low", "empty.png", "--unit", "mm"], "empty"),
        (["--low", "zero.png", "--unit", "mm"], "all are holes"),
        (["--low", "turned.png", "--unit", "mm"], "turned by 90"),
        (["--low", "a_depth.png", "--unit", "mm", "--size", "1000000x1000000"], "ask for less"),
        (["--low", "a_depth.png", "--unit", "mm", "--size", "big"], "640x480"),
        (["--low", "a_rgb.png", "--unit", "mm"], "colour"),
        (["--low", "a_depth.png", "--unit", "mm", "--intrinsics", "1,2,3", "--points", "p.ply"], "fx,fy,cx,cy"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], cure: str
) -> None:
    low, rgb = write_inputs(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(rgb)
    (tmp_path / "text.png").write_text("this is no picture")
    (tmp_path / "half.png").write_bytes(low.read_bytes()[: low.stat().st_size // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    maps = np.ones((12, 16), dtype=np.float32)
    np.save(tmp_path / "half.npy", maps)
    (tmp_path / "half.npy").write_bytes((tmp_path / "half.npy").read_bytes()[:400])
    np.save(tmp_path / "pickle.npy", np.array([[object()]], dtype=object), allow_pickle=True)
    np.save(tmp_path / "nan.npy", np.where(np.arange(16) > 8, np.nan, maps))
    Image.fromarray(np.zeros((12, 16), dtype=np.uint16)).save(tmp_path / "zero.png")
    Image.fromarray(np.full((16, 12), 900, dtype=np.uint16)).save(tmp_path / "turned.png")
    before = sorted(p.name for p in tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    refused(crispdepth("predict", *words, "--rgb", "a_rgb.png", "-o", "o.png"), cure)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_a_process_of_its_own_says_the_same(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "crispdepth.cli", "predict", "--low", "nope.png", "-o", "o.png"]
    refused(subprocess.run(command, capture_output=True, text=True, cwd=tmp_path), "no such file")


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        (["predict", "--low", "a.png"], "'--out'.*see --help"),
        (["predict", "--low", "a.png", "-o", "o.png", "--rbg", "b.png"], "--rbg .*--rgb"),
        (["predict", "--low", "a.png", "-o", "o.png", "--fov", "wide"], "'--fov'.*number"),
        (["predict", "--low"], "'--low' requires"),
        (["sharpen"], "No such command 'sharpen'.*see --help"),
        (["info"], "Missing argument"),
        (["predict", "--low", "a.png", "b.png", "-o", "c"], "a pattern in quotes"),
        (["predict", "a.jpg", "b.png", "-o", "c.png"], "extra argument.*--low .* --rgb photo.jpg"),
        (["predict", "--depth", "a.png", "-o", "c.png"], "No such option: --depth.*depth goes by --low"),
        (["predict", "--low", "a.png", "--image", "b.jpg", "-o", "c.png"], "the colour picture goes by --rgb"),
        (["evaluate", "--model", "crisp", "--set", "mine", "--root", "a"], "did you mean folder"),
    ],
)
def test_a_word_that_is_not_understood_is_one_line_and_exit_code_2(words: list[str], cure: str) -> None:
    done = crispdepth(*words)
    refused(done, cure)
    assert not done.stdout


def test_no_words_at_all_show_the_help() -> None:
    done = crispdepth()
    assert (done.returncode, done.stderr) == (0, "")
    assert all(verb in done.stdout for verb in ("predict", "evaluate", "bench-robust", "bench-speed", "train", "info"))


def test_ctrl_c_gives_130_and_says_nothing(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.2)  # a large scene takes seconds
    try:
        done = crispdepth("sample", "-o", tmp_path, "--size", "2400x1800")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_before_the_command_has_begun_is_as_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("crispdepth.cli.app", interrupted)
    done = crispdepth("names")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_many_files_report_the_bad_one_and_exit_with_1(tmp_path: Path) -> None:
    low_dir, rgb_dir, out = folders(tmp_path, ("one", "two"))
    (low_dir / "two.png").write_bytes(b"no picture")
    out.rmdir()
    words = ["--low", low_dir / "*.png", "--unit", "mm", "--rgb", rgb_dir / "*.png", "-o", out]
    refused(crispdepth("predict", *words, "--model", "nothing"), "unknown model")
    assert not out.exists()
    done = crispdepth("predict", *words)
    assert done.returncode == 1
    assert "1 of 2" in done.stdout
    assert "one.png: 16x12, unit mm, median 1.5 m" in done.stdout
    assert "two.png" in done.stderr
    assert "Traceback" not in done.stderr
    assert [p.name for p in out.iterdir()] == ["one.png"]


def test_predict_takes_what_a_sensor_has(tmp_path: Path) -> None:
    low, rgb = write_inputs(tmp_path, holes=True)
    levels = np.full((12, 16), 2, dtype=np.uint8)
    levels[:, :4] = 0
    Image.fromarray(levels).save(tmp_path / "conf.png")
    np.savetxt(tmp_path / "rt.txt", np.eye(4))
    words = ["--low", low, "--unit", "mm", "--rgb", rgb, "-o", tmp_path / "o.png", "--align", "auto"]
    words += ["--confidence", tmp_path / "conf.png", "--min-confidence", 1, "--out-confidence", tmp_path / "e.exr"]
    words += ["--depth-intrinsics", "15,15,7.5,5.5", "--rgb-intrinsics", "60,60,31.5,23.5"]
    words += ["--extrinsics", tmp_path / "rt.txt", "--max-hole-px", 14, "--mesh", tmp_path / "m.glb"]
    done = crispdepth("predict", *words)
    assert done.returncode == 0, done.stderr
    for word in ("trusted", "moved    16x12", "align", "holes wider than 14 px", "m.glb (", "e.exr (expected error, m"):
        assert word in done.stdout, done.stdout
    valid = read_depth(tmp_path / "o.png", "mm").valid
    assert not valid[:, :15].any()  # what was not trusted is 16 px wide
    assert valid[:, 16:].all()


# ------------------------------------------------------------------------------- real sensors


@pytest.mark.parametrize(
    ("low", "rgb", "unit", "size", "median_m"),
    [
        ("lidar/phone_depth_mm.png", "lidar/phone_color.jpg", ["--unit", "mm"], (1440, 1920), (2.6, 2.7)),
        ("rgbd_holes/tum_1_depth_5000.png", "rgbd_holes/tum_1_color.png", ["--unit", "tum"], (480, 640), (1.2, 1.8)),
        ("kitti/0000000005_depth_256.png", "kitti/0000000005_color.png", ["--unit", "kitti"], (375, 1242), (8, 25)),
        (
            "d435/000000080-opaque-depth-img.exr",
            "d435/000000080-opaque-rgb-img.jpg",
            [],
            (720, 1280),
            (0.5, 0.7),
        ),
    ],
)
def test_real_sensors_files_come_out_metric(
    real_data: Path, tmp_path: Path, low: str, rgb: str, unit: list[str], size: tuple, median_m: tuple
) -> None:
    words = ["--low", real_data / low, *unit, "--rgb", real_data / rgb, "-o", tmp_path / "o.exr"]
    done = crispdepth("predict", *words)
    assert done.returncode == 0, done.stderr
    read = read_depth(tmp_path / "o.exr")
    assert read.depth.shape == size
    assert read.valid.all()
    assert median_m[0] < read.median < median_m[1]


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        (["train", "crips"], "did you mean crisp"),
        (["train", "crisp", "stesp=3"], "did you mean steps"),
        (["bench-speed", "--models", "bicubic", "--json", "x.txt"], ".json"),
        (["bench-speed", "--models", "bicubi"], "did you mean bicubic"),
        (["bench-robust", "--set", "middlebury"], "--root"),
        (["bench-robust", "--models", "bicubic", "--scale", "0"], "out of range: 1 to 64"),
        (["bench-video", "--model", "bicubic", "--scale", "0"], "out of range: 1 to 64"),
        (["bench-memory", "--scale", "0"], "out of range: 1 to 64"),
        (["bench-speed", "--models", "bicubic", "--scale", "0"], "out of range: 1 to 64"),
        (["bench-speed", "--models", "bicubic", "--size", "0x0"], "is empty"),
        (["export", "ctkt", "-o", "x.onnx", "--scale", "-1"], "out of range: 1 to 64"),
        (["bench", "--root", ".", "--readme", "missing.md"], "missing.md does not exist"),
        (["train", "crisp", "--root", "mine"], "add --data folder"),
    ],
)
def test_a_wrong_word_of_the_other_verbs_is_one_line_too(words: list[str], cure: str, tmp_path: Path) -> None:
    done = crispdepth(*words)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert cure in done.stderr


@pytest.mark.parametrize("package", ["transformers", "lightning"])
def test_training_without_a_package_of_it_names_the_one_pip_line(package: str, tmp_path: Path) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; from crispdepth import cli; cli.main()"
    words = [sys.executable, "-c", code, "train", "crisp", "steps=1", "-o", str(tmp_path / "run")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    refused(done, r"training needs Lightning and Transformers: pip install 'crispdepth\[train\]'")


def test_bench_speed_writes_what_it_measured(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    words = ["--models", "crisp,bicubic", "--size", "64x48", "--json", tmp_path / "speed.json", "-o", page]
    refused(crispdepth("bench-speed", *words), "has no marks <!-- speed -->")
    page.write_text("before\n<!-- speed -->\n<!-- end of speed -->\nafter\n")
    done = crispdepth("bench-speed", *words)
    assert done.returncode == 0, done.stderr
    assert page.read_text().startswith("before\n<!-- speed -->\n**64x48, x8")
    assert "| crisp | " in page.read_text()
    result = json.loads((tmp_path / "speed.json").read_text())
    assert result["unit_conv_ms"] > 0
    assert result["models"]["crisp"]["parameters"] > 1e6
    assert result["models"]["bicubic"].keys() >= {"ms", "peak_mb", "parameters"}


def test_hard_edges_leave_fewer_pixels_between_near_and_far(tmp_path: Path) -> None:
    low = np.full((24, 32), 3.0, np.float32)
    low[6:18, 8:20] = 1.0
    np.save(tmp_path / "low.npy", low)
    words = ["predict", "--low", tmp_path / "low.npy", "--scale", "4", "-o", tmp_path / "large.npy"]
    between = []
    for more in ([], ["--hard-edges"]):
        done = crispdepth(*words, *more)
        assert done.returncode == 0, done.stderr
        made = np.load(tmp_path / "large.npy")
        between.append(int(((made > 1.2) & (made < 2.8)).sum()))
    assert 0 < between[1] < 0.8 * between[0]
    picture = ("predict", "--rgb", tmp_path / "low.npy", "--hard-edges", "-o", tmp_path / "none.npy")
    refused(crispdepth(*picture), "add --low")


def test_levels_stay_levels_where_asked_for(tmp_path: Path) -> None:
    rows, columns = np.indices((24, 32))
    low = (rows + 1.7 * columns + 60 * (columns > 10) + 1).round().astype(np.uint8)
    Image.fromarray(low).save(tmp_path / "low.png")
    words = ["predict", "--low", tmp_path / "low.png", "--scale", "4", "-o", tmp_path / "large.npy"]
    done = crispdepth(*words, "--unit", "disparity", "--levels")
    assert done.returncode == 0, done.stderr
    made = np.load(tmp_path / "large.npy")
    assert made.shape == (96, 128)
    assert (made == made.round()).all()
    (tmp_path / "large.npy").unlink()
    refused(crispdepth(*words, "--unit", "mm", "--levels"), "whole numbers.*leave it out")
    refused(crispdepth("predict", "--rgb", tmp_path / "low.png", "--levels", "-o", tmp_path / "large.npy"), "add --low")
    assert not (tmp_path / "large.npy").exists()


def test_of_every_file_of_a_folder_what_is_odd_is_told(tmp_path: Path) -> None:
    for name in ("low", "rgb"):
        (tmp_path / name).mkdir()
    for i, metres in enumerate((1.5, 1.5, 2000.0)):
        np.save(tmp_path / "low" / f"{i}.npy", np.full((6, 8), metres, np.float32))
        Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(tmp_path / "rgb" / f"{i}.png")
    words = ["--low", tmp_path / "low", "--rgb", tmp_path / "rgb", "-o", tmp_path / "out", "--points", tmp_path / "out"]
    words += ["--suffix", ".exr"]
    done = crispdepth("predict", *words, "--model", "bicubic")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("field of view is assumed") == 3  # of each, since each cloud rests on it
    assert done.stdout.count("unusual") == 1
