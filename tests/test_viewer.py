"""The viewer: its runs, its server, and the page in a real browser (Chromium through Playwright, no window)."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import crispdepth

from crispdepth import desk as desk_module
from crispdepth.data.sample import write_sample
from crispdepth.desk import Desk
from crispdepth.engines import Machine
from crispdepth.findings import (
    DOWNLOADS,
    FIELDS,
    Cancelled,
    Run,
    compared,
    download,
    histogram,
    legend,
    marked,
    measure,
    offered,
    on_page,
    pixel,
    said,
    surface,
    work_of,
)
from crispdepth.formats.png_tiff import png_bytes
from crispdepth.io import read_depth, read_label, read_rgb, write_depth, write_rgb
from crispdepth.models.crisp import TINY_CONFIG, Crisp
from crispdepth.models.symbiotic import Symbiotic, SymbioticConfig
from crispdepth.picture import class_colours
from crispdepth.roles import told_apart
from crispdepth.types import InputError

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
INTRINSICS = "110.5,120.25,70,40"  # not what a field of view would give


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    with closing(Desk()) as opened:
        yield opened


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder, 4, 3, (96, 128))
    low = read_depth(folder / "low.png", "mm")
    low.valid[8:14, 10:16] = False
    write_depth(folder / "low.png", low.depth, low.valid)
    return folder


# ------------------------------------------------------------------------------- runs


def ready(desk: Desk, model: str, files: dict[str, Path], **wishes: Any) -> Run:
    """A run to its end, which must be a result."""
    run = desk.begin(model, files, wishes)
    desk.carry_out(run)
    return run


def pair(sample: Path) -> dict[str, Path]:
    return {"low": sample / "low.png", "rgb": sample / "rgb.png"}


def predicted(sample: Path, folder: Path, name: str, *more: object) -> bytes:
    """What `crispdepth predict` writes under ``name``."""
    what = DOWNLOADS[name][0]
    words = ["--low", sample / "low.png", "--unit", "mm", "--rgb", sample / "rgb.png", *more]
    if what == "out":
        words += ["-o", folder / name]
    else:
        words += ["-o", folder / "other.npy", f"--{what.replace('_', '-')}", folder / name]
    if what in ("points", "mesh"):
        words += ["--intrinsics", INTRINSICS]
    done = crispdepth("predict", *words)
    assert done.returncode == 0, done.stderr
    return (folder / name).read_bytes()


def test_every_download_is_the_commands_file_byte_for_byte(desk: Desk, sample: Path, tmp_path: Path) -> None:
    run = ready(desk, "fgs", pair(sample), unit="mm", intrinsics=INTRINSICS)
    assert any("holes" in line for line in run.lines)
    assert set(DOWNLOADS) - set(offered(run)) == {"error.exr", "classes.png"}  # fgs has neither
    for name in offered(run):
        assert download(run, name).read_bytes() == predicted(sample, tmp_path, name, "--model", "fgs"), name
    kitti = download(run, "sharp.png", "kitti").read_bytes()
    assert kitti == predicted(sample, tmp_path, "sharp.png", "--model", "fgs", "--out-unit", "kitti")
    with pytest.raises(InputError) as caught:
        download(run, "error.exr")
    refused = desk.told(caught.value, run)
    assert refused.startswith("error.exr: ")  # and no path of the server
    assert "“Model” crisp" in refused
    with pytest.raises(InputError, match="no result yet"):
        work_of(desk.begin("fgs", pair(sample), {}))


def test_depth_alone_is_enlarged_and_a_hole_that_is_left_has_no_depth(desk: Desk, sample: Path) -> None:
    low = {"low": sample / "low.png"}
    run = ready(desk, "bicubic", low, unit="mm", scale="2", keep_holes=True)
    assert list(run.views) == ["depth as it came", "bicubic"]
    assert work_of(run).result.depth.shape == (48, 64)
    hole = measure(run, [(25, 21)])
    assert (hole["points"][0]["depth"], hole["points"][0]["xyz"]) == (None, None)
    assert said(hole) == "(25, 21): a hole"
    assert said(measure(run, [(25, 21), (1, 1)])).startswith("no distance: a hole has no depth")
    assert desk.begin("crisp", low, {}).model == "ctkt"  # the page had not yet told that crisp needs a picture


def test_what_is_no_metre_has_no_space(desk: Desk, sample: Path) -> None:
    run = ready(desk, "bicubic", {"low": sample / "low.png"}, unit="relative", scale="2")
    path, why = surface(run, "solid")
    assert path is None
    assert "relative" in why
    assert offered(run) == ["sharp.exr", "sharp.tif", "sharp.pfm", "sharp.npy", "sharp.npz", "view.png"]
    assert measure(run, [(1, 1), (5, 5)])["distance"] is None


def test_lines_and_messages_name_fields_of_the_page(desk: Desk, sample: Path, tmp_path: Path) -> None:
    assert on_page("ask for less with --min-confidence (min_confidence=…)") == "ask for less with “Least confidence”"
    assert on_page("a--rgb.png: pass --size WxH or --scale S (size=(H, W)), or --rgb") == (
        "a--rgb.png: pass “Times as large as the depth”, or the picture"
    )
    low, rgb = read_depth(sample / "low.png", "mm"), np.zeros((12, 16, 3), np.uint8)
    write_rgb(tmp_path / "small.png", rgb)  # smaller than the depth
    (tmp_path / "conf.png").write_bytes(png_bytes((low.valid * 2).astype(np.uint8)))
    files = {"low": sample / "low.png", "rgb": tmp_path / "small.png", "confidence": tmp_path / "conf.png"}
    run = ready(desk, "bicubic", files, unit="mm")
    text = "\n".join([*run.lines, surface(run, "solid")[1]])
    assert "filled from around (“leave holes” leaves them)" in text
    assert "below “Least confidence”: holes" in text
    assert "“Times as large as the depth” 1 keeps its detail" in text
    assert "stretched: “Intrinsics”" in text
    assert "--" not in text
    with pytest.raises(InputError, match="“field of view” 500 is out of range: 1 to 170 degrees"):
        ready(desk, "bicubic", files, unit="mm", fov_deg="500")


def test_depth_that_no_png_holds_is_shown_and_told_at_the_download(desk: Desk, tmp_path: Path) -> None:
    ramp = np.linspace(0.1, 0.9, 12 * 16, dtype=np.float32).reshape(12, 16)
    for name, unit, depth in (("far.npy", "m", 100 * ramp), ("shares.npy", "relative", ramp)):
        np.save(tmp_path / name, depth)
        run = ready(desk, "bicubic", {"low": tmp_path / name}, unit=unit, scale="2")
        assert ("sharp.png" in offered(run)) == (unit == "m")
        if unit == "m":
            with pytest.raises(InputError) as caught:
                download(run, "sharp.png")
            assert "“Unit of the 16-bit PNG” kitti" in desk.told(caught.value, run)
            assert download(run, "sharp.png", "kitti").is_file()


def test_levels_and_a_second_run_are_asked_for_as_by_the_command(desk: Desk, tmp_path: Path) -> None:
    rows, columns = np.indices((24, 32))
    low = (rows + 1.7 * columns + 60 * (columns > 10) + 1).round().astype(np.uint8)
    low[np.random.default_rng(0).random(low.shape) < 0.2] = 0
    Image.fromarray(low).save(tmp_path / "low.png")
    files, words = {"low": tmp_path / "low.png"}, ["--low", tmp_path / "low.png", "--unit", "disparity", "--scale", "4"]
    for wishes, more in (
        ({}, []),
        ({"levels": True}, ["--levels"]),
        ({"again": False}, ["--once"]),
        ({"hard_edges": True}, ["--hard-edges"]),
    ):
        run = ready(desk, "ctkt", files, unit="disparity", scale="4", **wishes)
        done = crispdepth("predict", *words, *more, "-o", tmp_path / "sharp.npy")
        assert done.returncode == 0, done.stderr
        assert download(run, "sharp.npy").read_bytes() == (tmp_path / "sharp.npy").read_bytes(), more
        assert ("twice" in " ".join(run.lines)) is ("--once" not in more)
    with pytest.raises(InputError) as caught:
        ready(desk, "ctkt", files, unit="mm", scale="4", levels=True)
    assert "“whole levels” is for whole numbers" in desk.told(caught.value)


@pytest.mark.parametrize(
    ("model", "wishes", "cure"),
    [
        ("crips", {}, "did you mean crisp"),
        ("fgs", {"intrinsics": "/etc/camera.json"}, "not four numbers"),
        ("fgs", {"intrinsics": "1,2,3"}, "fx,fy,cx,cy"),
        ("fgs", {"scale": "wide"}, "no number"),
    ],
)
def test_a_wish_that_cannot_be_is_refused_before_any_work(
    desk: Desk, sample: Path, model: str, wishes: dict[str, Any], cure: str
) -> None:
    with pytest.raises(InputError, match=re.escape(cure)):
        desk.begin(model, pair(sample), {"unit": "mm", **wishes})


def test_pictures_are_of_one_size_and_a_click_finds_the_pixel_under_it(desk: Desk, sample: Path) -> None:
    run = ready(desk, "fgs", pair(sample) | {"truth": sample / "truth.png"}, unit="mm")
    assert list(run.views) == ["depth as it came", "colour picture", "fgs", "bicubic", "truth", "error"]
    for name in run.views:
        whole, plain = compared(run, name, "fgs", 1, []), marked(run, name, [])
        assert whole[0].shape == whole[1].shape == plain.shape == (960, 1280, 3)
        np.testing.assert_array_equal(whole[0], plain)
    drawn = marked(run, "fgs", [(20, 70), (100, 30)])
    changed = np.argwhere((drawn != marked(run, "fgs", [])).any(-1))
    for column, row in ((20, 70), (100, 30)):  # ten times as large: the middle of the pixel is marked
        assert (np.abs(changed - [10 * row + 5, 10 * column + 5]).max(1) < 12).any()
        assert pixel(run, (10 * column + 5, 10 * row + 5)) == (column, row)
    assert pixel(run, (1280, 960)) == (127, 95)
    near, _ = compared(run, "fgs", "fgs", 4, [(127, 0)])  # the corner: 32x24 pixels of it
    np.testing.assert_array_equal(near[20::40, 20::40], run.views["fgs"].image[:24, 96:])
    assert legend(run, "fgs", "error").count("linear-gradient") == 2
    assert legend(run, "fgs", "fgs").count("linear-gradient") == 1


def test_the_histogram_counts_every_pixel(desk: Desk, sample: Path) -> None:
    run = ready(desk, "fgs", pair(sample), unit="mm")
    table = histogram(run)
    share, of = np.array(table["share"]), np.array(table["of"])
    for name in ("result", "what came in"):
        assert abs(share[of == name].sum() - 100) < 1e-6
    depth = work_of(run).result.depth
    mean = (np.array(table["depth"]) * share)[of == "result"].sum() / 100
    assert abs(mean - depth.mean()) < 0.02 * np.ptp(depth)


def test_files_of_the_command_line_are_told_apart(sample: Path, tmp_path: Path) -> None:
    names = ("truth.png", "intrinsics.json", "low.png", "rgb.png")
    found = told_apart([sample / name for name in names])
    assert {role: path.name for role, path in found.items()} == {
        "truth": "truth.png",
        "low": "low.png",
        "rgb": "rgb.png",
        "intrinsics": "intrinsics.json",
    }
    write_rgb(tmp_path / "ir.png", np.full((96, 128, 3), 7, np.uint8))  # what an infrared camera saw
    found = told_apart([tmp_path / "ir.png", sample / "low.png"])
    assert {role: path.name for role, path in found.items()} == {"rgb": "ir.png", "low": "low.png"}
    assert list(told_apart([tmp_path / "ir.png"])) == ["low"]
    with pytest.raises(InputError, match="one rgb already"):
        told_apart([sample / "rgb.png", sample / "rgb.png"])
    with pytest.raises(InputError, match="no such file"):
        told_apart([tmp_path / "none.png"])
    for name, text in (("text.txt", "this is no camera"), ("notes.json", "{}"), ("rt.txt", "1 0 0 0\n0 1 0 0")):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=name):
            told_apart([tmp_path / name])


def test_weights_of_ones_own_can_be_chosen(sample: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.safetensors"
    torch.manual_seed(0)
    Crisp(TINY_CONFIG).save(mine)
    with closing(Desk([str(mine)])) as desk:
        names, usual = desk.choices(["low", "rgb"])
        assert usual == str(mine)
        assert {"crisp", "fgs", str(mine)} <= set(names)
        assert desk.about(usual) == "of your own"
        run = ready(desk, str(mine), pair(sample), unit="mm")
        assert list(run.views)[2] == "mine.safetensors"
        assert download(run, "sharp.png").read_bytes() == predicted(sample, tmp_path, "sharp.png", "--model", mine)
    done = crispdepth("view", "--no-browser", "--model", tmp_path / "none.safetensors")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "none.safetensors" in done.stderr


def test_only_models_that_can_work_with_the_files_are_offered(desk: Desk) -> None:
    assert desk.choices([]) == ([], None)
    for given, usual in ((["low"], "ctkt"), (["low", "rgb", "truth"], "crisp")):
        names, found = desk.choices(given)
        assert found == usual
        assert all("low" in desk.models[name] for name in names)
    assert "crisp" not in desk.choices(["low"])[0]
    assert not {"crisp", "ctkt", "bicubic"} & set(desk.choices(["rgb"])[0])


def test_a_machine_with_16_bits_gives_the_commands_file_too(
    desk: Desk, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Machine, "here", classmethod(lambda cls: cls(bf16=True)))
    run = ready(desk, "crisp-tiny", pair(sample), unit="mm")
    assert run.lines[1].startswith("engine   torch, cpu, bf16")
    ours = download(run, "sharp.npy").read_bytes()
    assert ours == predicted(sample, tmp_path, "sharp.npy", "--model", "crisp-tiny")
    monkeypatch.undo()
    assert ours != predicted(sample, tmp_path, "sharp.npy", "--model", "crisp-tiny", "--precision", "float32")


@pytest.fixture(scope="module")
def symbiotic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights for a picture alone, untrained."""
    encoder = {"model_type": "convnext", "hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]}
    config = SymbioticConfig(json.dumps(encoder), ("floor", "wall", "thing"), width=32, expansion=1, side=128)
    path = tmp_path_factory.mktemp("weights") / "symbiotic.safetensors"
    torch.manual_seed(0)
    Symbiotic(config).save(path)
    return path


def test_a_picture_alone_gives_depth_and_classes_as_the_command_does(
    sample: Path, symbiotic: Path, tmp_path: Path
) -> None:
    outputs = {"-o": "sharp.npy", "--points": "cloud.ply", "--classes": "classes.png", "--picture": "view.png"}
    paths = [word for option, name in outputs.items() for word in (option, tmp_path / name)]
    rgb, scales = {"rgb": sample / "rgb.png"}, set()
    with closing(Desk([str(symbiotic)])) as desk:
        for wishes, words in (
            ({}, []),
            ({"intrinsics": INTRINSICS}, ["--intrinsics", INTRINSICS]),
            ({"focal_px": "99"}, ["--focal", "99"]),
        ):
            run = ready(desk, str(symbiotic), rgb, **wishes)
            done = crispdepth("predict", "--model", symbiotic, "--rgb", rgb["rgb"], *paths, *words)
            assert done.returncode == 0, done.stderr
            for name in outputs.values():
                assert download(run, name).read_bytes() == (tmp_path / name).read_bytes(), (name, words)
            scales.add(download(run, "sharp.npy").read_bytes())
            assert list(run.views) == ["colour picture", symbiotic.name, "classes"]
            assert set(DOWNLOADS) - set(offered(run)) == {"confidence.png", "error.exr"}
        assert len(scales) == 3  # how far all is depends on the camera
        drawn = class_colours(3)[read_label(tmp_path / "classes.png")]
        np.testing.assert_array_equal(run.views["classes"].image, drawn)
        assert "floor" in legend(run, "classes", "classes") or "wall" in legend(run, "classes", "classes")
        assert any("(“focal length” says the true one)" in line for line in ready(desk, str(symbiotic), rgb).lines)
        with pytest.raises(InputError, match="out of range"):
            ready(desk, str(symbiotic), rgb, focal_px="-3")
        with pytest.raises(InputError, match="nothing to start from"):
            desk.begin("crisp", {"truth": sample / "truth.png"}, {})


def test_a_picture_alone_is_guessed_by_a_network_that_has_seen_no_photo(
    desk: Desk, sample: Path, tmp_path: Path
) -> None:
    run = ready(desk, "symbiotic-small", {"rgb": sample / "rgb.png"})
    done = crispdepth("predict", "--rgb", sample / "rgb.png", "-o", tmp_path / "o.png")
    assert "no photo" in run.lines[2]
    assert run.lines[:4] == done.stdout.splitlines()[:4]


def test_a_run_that_nobody_waits_for_ends_before_the_next_layer(desk: Desk, sample: Path) -> None:
    heard: list[tuple[float, str]] = []
    run = desk.begin("crisp-tiny", pair(sample), {"unit": "mm"})

    def tell(share: float, stage: str) -> None:
        heard.append((share, stage))
        run.stopped = len(heard) == 6

    run.tell = tell
    with pytest.raises(Cancelled):
        desk.carry_out(run)
    assert [stage for _, stage in heard][:4] == [
        "reading the files",
        "loading the model",
        "sharpening",
        "sharpening, step 1",
    ]
    assert len(heard) == 6
    assert [share for share, _ in heard] == sorted(share for share, _ in heard)
    assert not desk.runs


def test_few_results_are_kept_and_one_that_is_not_says_so(
    desk: Desk, sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk_module, "RUNS_KEPT", 2)
    first, second, third = (ready(desk, "bicubic", pair(sample), unit="mm") for _ in range(3))
    assert desk.done == [second, third]
    assert not first.folder.exists()
    for look in (lambda: marked(first, "bicubic", []), lambda: measure(first, [(1, 1)]), lambda: offered(first)):
        with pytest.raises(InputError, match="no longer kept"):
            look()
    desk.drop(second)
    desk.drop(first)  # it has gone already
    assert desk.done == [third]
    assert download(third, "sharp.npy").is_file()


def test_files_are_read_before_a_model_is_loaded(sample: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.safetensors"
    Crisp(TINY_CONFIG).save(mine)
    with closing(Desk([str(mine)])) as desk:
        mine.unlink()
        with pytest.raises(InputError, match="add “Unit of the depth file” with one of"):
            ready(desk, str(mine), pair(sample))


def test_an_error_names_files_as_they_were_called(desk: Desk, sample: Path) -> None:
    folder = desk.folder / "0123abcdef"  # where Gradio keeps what is handed in
    folder.mkdir()
    (folder / "half.png").write_bytes((sample / "low.png").read_bytes()[:300])
    with pytest.raises(InputError) as caught:
        ready(desk, "bicubic", {"low": folder / "half.png"}, unit="mm", scale="2")
    assert str(caught.value).startswith("half.png: ")
    (folder / "camera.json").write_text("{}")
    with pytest.raises(InputError) as caught:
        told_apart([folder / "camera.json"])
    assert desk.told(caught.value).startswith("camera.json: ")


# ------------------------------------------------------------------------------- the server


SLOW = """
import time
from torch.nn.modules.module import register_module_forward_pre_hook
register_module_forward_pre_hook(lambda *_: time.sleep(1))
"""


@contextmanager
def serving(*words: object, end: str = "SIGTERM", slow: bool = False, **there: str) -> Iterator[str]:
    """The address of a `crispdepth view` that runs until the block ends; ``slow``: each layer takes a second more."""
    code = f"{SLOW if slow else ''}\nfrom crispdepth.cli import main; main()"
    typed = [sys.executable, "-c", code, "view", "--no-browser", "--port", "0", *map(str, words)]
    around = {**os.environ, "PYTHONUNBUFFERED": "1", **there}
    with subprocess.Popen(typed, stdout=subprocess.PIPE, text=True, env=around) as process:
        try:
            assert process.stdout is not None
            told = re.search(r"http://\S+", process.stdout.readline())
            assert told is not None
            yield told[0]
        finally:
            process.send_signal(getattr(signal, end))
            assert process.wait(60) == 0


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as address:
        yield address


def ask(url: str, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, str(answer.headers["Content-Security-Policy"])
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, ""


def test_only_this_machine_is_served_and_no_file_that_was_not_handed_in(url: str, sample: Path) -> None:
    status, policy = ask(url)
    assert status == 200
    assert "default-src 'self'" in policy
    assert ask(url, Host="evil.example")[0] == 400
    for path in (sample / "low.png", Path("/etc/passwd")):
        assert ask(f"{url}gradio_api/file={path}")[0] in (403, 404)


def test_an_address_that_is_taken_is_one_line(url: str) -> None:
    done = crispdepth("view", "--no-browser", "--port", url.rsplit(":")[-1].strip("/"))
    assert done.returncode == 2
    assert "--port" in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_gradio_the_pip_line_is_told() -> None:
    code = "import sys; sys.modules['gradio'] = None; from crispdepth.cli import main; sys.argv[1:] = ['view']; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install 'crispdepth[view]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_confidence_is_told_apart_by_its_name(sample: Path, tmp_path: Path) -> None:
    (tmp_path / "Confidence_01.png").write_bytes(png_bytes(np.full((24, 32), 2, np.uint8)))
    found = told_apart([tmp_path / "Confidence_01.png", sample / "rgb.png", sample / "low.png"])
    assert {role: path.name for role, path in found.items()} == {
        "confidence": "Confidence_01.png",
        "rgb": "rgb.png",
        "low": "low.png",
    }
    shutil.copy(sample / "rgb.png", tmp_path / "conference.png")
    assert list(told_apart([tmp_path / "conference.png"])) == ["rgb"]


def test_what_the_page_hides_or_says_twice(desk: Desk, sample: Path) -> None:
    run = desk.begin("symbiotic-small", {"rgb": sample / "rgb.png"}, {"unit": "mm"})  # the box is hidden, not emptied
    assert run.settings.unit is None
    with pytest.raises(InputError, match="typed and handed in as a file"):
        desk.begin("bicubic", pair(sample) | {"intrinsics": sample / "intrinsics.json"}, {"intrinsics": "9,9,6,4"})


def test_an_example_is_known_by_its_place(desk: Desk, sample: Path) -> None:
    files = desk.example("another, 4 times smaller")
    assert all(desk.is_example(str(path)) for path in files.values())
    assert desk.example("another, 4 times smaller") == files
    assert not any(
        desk.is_example(path) for path in (None, str(sample / "low.png"), str(desk.folder / "a" / "low.png"))
    )


def in_metres(sample: Path, folder: Path) -> tuple[Path, Path]:
    """Depth and picture of the sample as files that need no unit; and a folder, ``there``, for what a server leaves."""
    (folder / "there").mkdir()
    write_depth(folder / "low.exr", read_depth(sample / "low.png", "mm").depth)
    return folder / "low.exr", sample / "rgb.png"


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="a system without terminals that hang up")
def test_a_terminal_that_is_closed_in_the_middle_of_a_run_leaves_no_files(
    new_page: Callable[..., Any], sample: Path, tmp_path: Path
) -> None:
    with serving(*in_metres(sample, tmp_path), end="SIGHUP", slow=True, TMPDIR=str(tmp_path / "there")) as url:
        page = new_page(url)
        page.click("#go:enabled")
        page.wait_for_selector("#lines:has-text('sharpening')")
        page.context.close()
    assert not [path for path in (tmp_path / "there").rglob("*") if path.is_file()]


def test_sigterm_leaves_no_files_behind(sample: Path, tmp_path: Path) -> None:
    with serving(sample / "low.png", TMPDIR=str(tmp_path)):
        assert len(list(tmp_path.glob("crispdepth-view-*"))) == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


# ------------------------------------------------------------------------------- the page


def test_a_field_that_a_message_names_is_on_the_page(url: str) -> None:
    with urllib.request.urlopen(f"{url}config", timeout=60) as answer:
        words = answer.read().decode()
    for name in re.findall("“([^”]+)”", " ".join(FIELDS.values())):
        assert name in words, name


def no_browser(reason: str) -> None:
    """Skip; but fail where a browser is promised, as ``.ci/run`` does: there nothing is skipped unseen."""
    if os.environ.get("CRISPDEPTH_BROWSER"):
        pytest.fail(f"CRISPDEPTH_BROWSER is set, but there is {reason}")
    pytest.skip(reason)


def test_a_missing_browser_is_a_failure_where_one_is_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CRISPDEPTH_BROWSER", raising=False)
    with pytest.raises(pytest.skip.Exception):
        no_browser("none")
    monkeypatch.setenv("CRISPDEPTH_BROWSER", "1")
    with pytest.raises(pytest.fail.Exception, match="CRISPDEPTH_BROWSER is set"):
        no_browser("none")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        no_browser("no chromium on this machine's PATH")
    if importlib.util.find_spec("playwright") is None:
        no_browser("no playwright: pip install playwright")
    sync_api = importlib.import_module("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        flags = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield started
        started.close()


@pytest.fixture
def new_page(browser: Any, url: str) -> Iterator[Callable[..., Any]]:
    """A page of a new user each time; whatever it asks of another machine, or complains of, fails the test."""
    contexts: list[Any] = []
    wrong: list[str] = []

    def make(address: str = url) -> Any:
        context = browser.new_context(viewport={"width": 1300, "height": 1000}, accept_downloads=True)
        contexts.append(context)
        page = context.new_page()
        inside = (address, f"blob:{address}", "data:")
        page.on("request", lambda request: None if request.url.startswith(inside) else wrong.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(address)
        page.wait_for_selector("#go")
        return page

    yield make
    for context in contexts:
        context.close()
    assert not wrong


def until(true: Callable[[], bool]) -> None:
    for _ in range(300):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("it does not happen within 15 seconds")


def at_rest(page: Any, what: str) -> dict[str, float]:
    """Where a picture lies, once it is there and has come to rest: a click may else miss its pixel."""
    page.wait_for_function("what => document.querySelector(what)?.naturalWidth > 0", arg=what)
    boxes: list[dict[str, float]] = []

    def rests() -> bool:
        boxes.append(page.locator(what).bounding_box())
        return len(boxes) > 4 and all(box == boxes[-1] for box in boxes[-4:])

    until(rests)
    return boxes[-1]


def reads(page: Any, box: str, words: str) -> None:
    """Wait until a box of text holds ``words``."""
    until(lambda: words in page.input_value(f"{box} textarea"))


def choose(page: Any, **files: Path) -> None:
    for role, path in files.items():
        if role not in ("low", "rgb") and not page.is_visible(f"#file-{role}"):
            page.click("#others button")
        box = page.locator(f"#file-{role}")
        if box.locator("button[aria-label='Clear']").count():
            box.locator("button[aria-label='Clear']").click()
        box.locator("input[type=file]").set_input_files(path)
        page.wait_for_selector(f"#file-{role}:has-text('{path.stem}')")


def pick(page: Any, field: str, option: str) -> None:
    page.click(f"{field} input")
    page.click(f"{field} [role=option][aria-label='{option}']")


MM = "mm: millimetres"


BUSY = """() => {
    window.busy = false
    const watch = () => { window.busy ||= document.querySelector("#cancel") !== null }
    new MutationObserver(watch).observe(document.body, {childList: true, subtree: true})
}"""


def sharpen(page: Any) -> None:
    page.evaluate(BUSY)  # the button may come and go between two looks
    page.click("#go:enabled")
    until(lambda: page.evaluate("window.busy"))
    page.wait_for_selector("#cancel", state="hidden")
    assert page.is_hidden("#error"), page.text_content("#error")


def complaint(page: Any) -> str:
    """The message on the page, when it is there and a new run could begin."""
    page.wait_for_selector("#error")
    page.wait_for_selector("#go:enabled")
    return str(page.text_content("#error .prose, #error .html-container, #error").strip())


def tab(page: Any, name: str) -> None:
    page.click(f"[role=tab]:text-is('{name}')")


def shade(page: Any, selector: str) -> np.ndarray:
    """Pixels of one element as the screen shows it."""
    from io import BytesIO

    from PIL import Image

    return np.asarray(Image.open(BytesIO(page.locator(selector).first.screenshot())).convert("RGB"), dtype=np.int32)


def save(page: Any, name: str) -> bytes:
    tab(page, "Download")
    for kind in page.locator("#kinds input:checked").all():
        kind.uncheck()
    page.locator("#kinds label", has_text=f"{name}:").locator("input").check()
    page.click("#make")
    stem, ending = name.rsplit(".")
    row = page.locator("#made tr.file", has_text=stem).filter(has_text=f".{ending}")
    with page.expect_download() as waiting:
        row.locator("a").click()
    return Path(waiting.value.path()).read_bytes()


def test_from_files_to_slider_space_distance_and_download(
    new_page: Callable[..., Any], sample: Path, tmp_path: Path
) -> None:
    page = new_page()
    assert page.is_disabled("#go")
    choose(page, low=sample / "low.png", rgb=sample / "rgb.png", truth=sample / "truth.png")
    pick(page, "#unit", MM)
    assert page.input_value("#model input") == "crisp"
    page.click("#camera button")
    page.get_by_label("or fx,fy,cx,cy in pixels of the picture").fill(INTRINSICS)
    sharpen(page)
    assert "RMSE against the truth" in page.input_value("#lines textarea")
    assert (page.input_value("#left input"), page.input_value("#right input")) == ("depth as it came", "crisp")

    # The slider: far to the right the low map covers all, far to the left nothing.
    page.wait_for_selector("#slider img")
    seen = []
    for share in (0.98, 0.02):
        box = page.locator("#slider .slider-wrap").bounding_box()
        handle = page.locator("#slider [role=slider], #slider .inner").first.bounding_box()
        page.mouse.move(handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + share * box["width"], handle["y"], steps=4)
        page.mouse.up()
        seen.append(shade(page, "#slider")[60:-60, 60:-60])
    coarse = [float((np.abs(np.diff(x, axis=1)).sum(-1) > 0).mean()) for x in seen]
    assert coarse[0] < coarse[1]  # the low map is made of squares
    assert page.locator("#legend i").first.bounding_box()["width"] > 100
    before = page.text_content("#legend")
    pick(page, "#right", "error")
    until(lambda: "error" in page.text_content("#legend") and page.text_content("#legend") != before)
    pick(page, "#right", "crisp")

    # Two clicks: the distance that geometry says, from the file that was downloaded.
    (tmp_path / "got.npy").write_bytes(save(page, "sharp.npy"))
    depth = np.load(tmp_path / "got.npy")
    fx, fy, cx, cy = (float(v) for v in INTRINSICS.split(","))
    tab(page, "Measure")
    places = []
    for u, v in ((20, 70), (100, 30)):
        box = at_rest(page, "#clickable img")
        page.mouse.click(box["x"] + (u + 0.5) / 128 * box["width"], box["y"] + (v + 0.5) / 96 * box["height"])
        reads(page, "#measured", f"({u}, {v})")
        places.append(np.array([(u - cx) / fx, (v - cy) / fy, 1]) * depth[v, u])
    told = page.input_value("#measured textarea")
    assert f"distance {np.linalg.norm(places[1] - places[0]):.3f} m" in told
    assert f"depth {depth[70, 20]:.3f} m" in told

    # In space: something is there, it turns, and its points can be seen alone.
    page.wait_for_selector("#space canvas")
    background = np.array([15, 18, 20])

    def filled() -> float:
        return float((np.abs(shade(page, "#space canvas")[60:] - background).sum(-1) > 30).mean())

    until(lambda: filled() > 0.05)
    page.wait_for_selector("#note:has-text('with the intrinsics given')")
    first = shade(page, "#space canvas")
    box = page.locator("#space canvas").bounding_box()
    page.mouse.move(box["x"] + 300, box["y"] + 300)
    page.mouse.down()
    page.mouse.move(box["x"] + 400, box["y"] + 300, steps=5)
    page.mouse.up()
    until(lambda: bool((shade(page, "#space canvas") != first).any()))
    solid = filled()
    page.get_by_label("points", exact=True).check()
    until(lambda: 0 < filled() < 0.9 * solid)

    tab(page, "Histogram")
    page.wait_for_selector("#plot canvas, #plot svg.marks")
    for name in ("sharp.png", "sharp.exr", "error.exr"):
        assert save(page, name) == predicted(sample, tmp_path, name), name


def test_a_bad_file_is_told_as_the_command_tells_it(
    new_page: Callable[..., Any], sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "half.png").write_bytes((sample / "low.png").read_bytes()[:300])
    (tmp_path / "text.png").write_text("this is no picture")
    (tmp_path / "<b>odd.png").write_text("this is no picture")
    shutil.copy(sample / "low.png", "low.png")
    shutil.copy(sample / "rgb.png", "rgb.png")
    page = new_page()
    choose(page, rgb=tmp_path / "rgb.png")
    for name in ("low.png", "half.png", "text.png"):
        choose(page, low=tmp_path / name)
        page.click("#go:enabled")
        unit = ["--unit", "mm"] if name != "low.png" else []
        told = crispdepth("predict", "--low", name, "--rgb", "rgb.png", "-o", "o.png", *unit).stderr.strip()
        page.wait_for_selector(f"#error:has-text('{name}')")
        assert f"error: {complaint(page)}" == on_page(told)
        if name == "low.png":
            pick(page, "#unit", MM)
    choose(page, low=sample / "low.png")
    sharpen(page)  # the page is not stuck
    choose(page, low=tmp_path / "half.png")
    page.click("#go:enabled")
    page.wait_for_selector("#error:has-text('half.png')")
    assert complaint(page).endswith("Below is still the result before.")


def test_a_confidence_that_does_not_tell_its_scale_is_given_one(
    new_page: Callable[..., Any], sample: Path, tmp_path: Path
) -> None:
    sure = np.full(read_depth(sample / "low.png", "mm").depth.shape, 100, np.uint8)
    sure[:, :16] = 30  # below half
    (tmp_path / "conf100.png").write_bytes(png_bytes(sure))
    page = new_page()
    choose(page, low=sample / "low.png", rgb=sample / "rgb.png", confidence=tmp_path / "conf100.png")
    pick(page, "#unit", MM)
    pick(page, "#model", "bicubic")
    page.click("#go:enabled")
    assert complaint(page) == "conf100.png: confidence ends at 100: add “Full confidence” 100 or 255"
    page.click("#more button")
    page.get_by_label("Least confidence").fill("half")
    page.click("#go:enabled")
    page.wait_for_selector("#error:has-text('“Least confidence”')")
    assert complaint(page) == "“Least confidence” 'half' is no number"
    page.get_by_label("Least confidence").fill("")
    page.get_by_label("Full confidence").fill("100")
    sharpen(page)
    assert "trusted  conf100.png, 0..100" in page.input_value("#lines textarea")


def test_two_users_at_once_each_get_their_own(new_page: Callable[..., Any], sample: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    low = read_depth(sample / "low.png", "mm")
    write_depth(other / "low.png", low.depth[::-1, ::-1] * 2, low.valid[::-1, ::-1])
    write_rgb(other / "rgb.png", np.round(read_rgb(sample / "rgb.png")[::-1, ::-1] * 255).astype(np.uint8))
    pages = [(new_page(), sample), (new_page(), other)]
    for page, folder in pages:
        choose(page, low=folder / "low.png", rgb=folder / "rgb.png")
        pick(page, "#unit", MM)
    for page, _ in pages:
        page.click("#go:enabled")
    got = []
    for page, folder in pages:
        page.wait_for_selector("#slider img")
        got.append(save(page, "sharp.npy"))
        assert got[-1] == predicted(folder, tmp_path, "sharp.npy")
    assert got[0] != got[1]


def test_long_work_shows_how_far_it_is_and_can_be_cancelled(
    new_page: Callable[..., Any], sample: Path, tmp_path: Path
) -> None:
    with serving(*in_metres(sample, tmp_path), slow=True) as url:
        running, waiting = new_page(url), new_page(url)
        running.click("#go:enabled")
        running.wait_for_selector("#lines:has-text('sharpening')")
        waiting.click("#go:enabled")
        for page in (waiting, running):  # one that has not begun is cancelled, too
            page.click("#cancel")
            page.wait_for_selector("#cancel", state="hidden")
            assert complaint(page) == "cancelled"
            assert page.is_enabled("#go")
            assert page.locator("#slider img").count() == 0


def test_files_dropped_together_find_their_places_and_only_rows_that_matter_are_there(
    new_page: Callable[..., Any], sample: Path, tmp_path: Path
) -> None:
    page = new_page()

    def drop(*paths: Path) -> None:
        page.locator("#dropped input[type=file]").set_input_files(list(paths))

    drop(sample / "rgb.png")
    page.wait_for_selector("#file-rgb:has-text('rgb')")
    for row in ("#unit", "#scale", "#more"):
        page.wait_for_selector(row, state="hidden")
    assert page.input_value("#model input") == "symbiotic-small"
    drop(sample / "low.png", sample / "truth.png")
    page.wait_for_selector("#file-low:has-text('low')")
    page.wait_for_selector("#others:has-text('truth given')")
    page.click("#others button")
    page.wait_for_selector("#file-truth:has-text('truth')")
    page.wait_for_selector("#unit")
    until(lambda: page.input_value("#model input") == "crisp")
    pick(page, "#model", "fgs")
    choose(page, truth=sample / "truth.png")  # what was chosen stays
    assert page.input_value("#model input") == "fgs"
    pick(page, "#unit", MM)
    sharpen(page)
    assert page.input_value("#right input") == "fgs"
    shutil.copy(sample / "rgb.png", tmp_path / "second.png")
    drop(sample / "rgb.png", tmp_path / "second.png")
    told = "second.png: there is one rgb already (rgb.png): give one of them"
    assert page.text_content("[data-testid=toast-text]").strip() == told


def test_an_example_is_sharpened_and_files_of_the_command_line_are_there(
    new_page: Callable[..., Any], sample: Path
) -> None:
    page = new_page()
    pick(page, "#example", "another, 4 times smaller")
    page.wait_for_selector("#file-low:has-text('low')")
    until(lambda: page.input_value("#unit input").startswith("mm"))
    pick(page, "#model", "bicubic")
    sharpen(page)
    assert "RMSE against the truth" in page.input_value("#lines textarea")
    choose(page, low=sample / "low.png")  # a file of one's own: nothing of the example stays beside it
    page.wait_for_selector("#file-rgb:not(:has-text('rgb'))")
    until(lambda: page.input_value("#unit input").startswith("as the file says"))
    assert page.input_value("#example input") == ""
    until(lambda: page.input_value("#scale textarea, #scale input") == "4")
    page.locator("#unit input").fill("realsense:0.00025")
    page.keyboard.press("Enter")
    sharpen(page)
    read = re.search(r"unit realsense:0.00025, median (\S+) m", page.input_value("#lines textarea"))
    assert read is not None
    assert not page.locator("#file-truth").is_visible()
    with serving(sample / "low.png", sample / "rgb.png") as url:
        page = new_page(url)
        for role in ("low", "rgb"):
            page.wait_for_selector(f"#file-{role}:has-text('{role}')")
        assert page.input_value("#model input") == "crisp"
        assert page.is_enabled("#go")
