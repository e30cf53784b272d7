"""The viewer: what its server answers, and the page in a real browser (Chromium through Playwright, no window)."""

from __future__ import annotations

import base64
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
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_cli import crispdepth

from crispdepth import desk
from crispdepth.data.sample import write_sample
from crispdepth.engines import Machine
from crispdepth.findings import DOWNLOADS, FIELDS, on_page
from crispdepth.formats.png_tiff import png_bytes
from crispdepth.io import read_depth, read_label, read_rgb, write_depth, write_rgb
from crispdepth.models.crisp import TINY_CONFIG, Crisp
from crispdepth.models.symbiotic import Symbiotic, SymbioticConfig
from crispdepth.roles import told_apart
from crispdepth.types import InputError
from crispdepth.viewer import PAGE, Server, serving

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
INTRINSICS = "110.5,120.25,70,40"  # not what a field of view would give


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder, 4, 3, (96, 128))
    low = read_depth(folder / "low.png", "mm")
    low.valid[8:14, 10:16] = False
    write_depth(folder / "low.png", low.depth, low.valid)
    return folder


# ------------------------------------------------------------------------------- the server


def ask(server: Server, path: str, data: Any = None, **headers: str) -> Any:
    """JSON (or bytes, for a file) of one request; PUT for bytes, POST for anything else, GET without data."""
    method = "GET" if data is None else "PUT" if isinstance(data, bytes) else "POST"
    body = data if isinstance(data, bytes) or data is None else json.dumps(data).encode()
    request = urllib.request.Request(server.url + path, body, headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        read = answer.read()
        return json.loads(read) if answer.headers["Content-Type"] == "application/json" else read


def refusal(server: Server, path: str, data: Any = None, **headers: str) -> str:
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(server, path, data, **headers)
    with caught.value as answer:
        assert answer.code == 400
        return json.loads(answer.read())["error"]


def hand_in(server: Server, sample: Path, **names: str) -> dict[str, str]:
    return {
        role: ask(server, f"api/files?name={name}", (sample / name).read_bytes())["token"]
        for role, name in names.items()
    }


def finished(server: Server, token: str) -> dict[str, Any]:
    for _ in range(600):
        told = ask(server, f"api/runs/{token}")
        if told["state"] in ("done", "failed", "cancelled"):
            return told
        time.sleep(0.05)
    raise AssertionError("the run does not end")


def ready(server: Server, **asked: Any) -> tuple[str, dict[str, Any]]:
    """A run to its end, which must be a result."""
    token = ask(server, "api/runs", asked)["run"]
    told = finished(server, token)
    assert told["state"] == "done", told
    return token, told


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


def test_every_download_is_the_commands_file_byte_for_byte(server: Server, sample: Path, tmp_path: Path) -> None:
    files = hand_in(server, sample, low="low.png", rgb="rgb.png")
    asked = {"model": "fgs", "unit": "mm", "files": files, "intrinsics": INTRINSICS}
    token = ask(server, "api/runs", asked)["run"]
    told = finished(server, token)
    assert told["state"] == "done", told
    assert any("holes" in line for line in told["lines"])
    assert set(DOWNLOADS) - set(told["downloads"]) == {"error.exr", "classes.png"}  # fgs has neither
    for name in told["downloads"]:
        ours = ask(server, f"api/runs/{token}/files/{name}")
        assert ours == predicted(sample, tmp_path, name, "--model", "fgs"), name
    kitti = ask(server, f"api/runs/{token}/files/sharp.png?out_unit=kitti")
    assert kitti == predicted(sample, tmp_path, "sharp.png", "--model", "fgs", "--out-unit", "kitti")
    refused = refusal(server, f"api/runs/{token}/files/error.exr")
    assert refused.startswith("error.exr: ")  # and no path of the server
    assert "“Model” crisp" in refused
    assert told["model"] == "fgs"


def test_depth_alone_is_enlarged_and_a_hole_that_is_left_has_no_depth(server: Server, sample: Path) -> None:
    files = hand_in(server, sample, low="low.png")
    wanted = {"model": "bicubic", "unit": "mm", "files": files, "scale": "2", "keep_holes": True}
    token = ask(server, "api/runs", wanted)["run"]
    told = finished(server, token)
    assert (told["width"], told["height"], told["views"]) == (64, 48, ["depth", "low"])
    hole = ask(server, f"api/runs/{token}/point?at=25,21")["points"][0]
    assert (hole["depth"], hole["xyz"]) == (None, None)
    assert "needs the colour picture" in refusal(server, "api/runs", wanted | {"model": "crisp"})


def test_what_is_no_metre_has_no_space(server: Server, sample: Path) -> None:
    files = hand_in(server, sample, low="low.png")
    token = ask(server, "api/runs", {"model": "bicubic", "unit": "relative", "files": files, "scale": "2"})["run"]
    told = finished(server, token)
    assert "relative" in told["surface"]
    assert told["downloads"] == ["sharp.exr", "sharp.tif", "sharp.pfm", "sharp.npy", "sharp.npz", "view.png"]
    assert ask(server, f"api/runs/{token}/point?at=1,1;5,5")["distance"] is None


def test_lines_and_messages_name_fields_of_the_page(server: Server, sample: Path, tmp_path: Path) -> None:
    assert on_page("ask for less with --min-confidence (min_confidence=…)") == "ask for less with “Least confidence”"
    assert on_page("a--rgb.png: pass --size WxH or --scale S (size=(H, W)), or --rgb") == (
        "a--rgb.png: pass “Times as large as the depth”, or the picture"
    )
    low, rgb = read_depth(sample / "low.png", "mm"), np.zeros((12, 16, 3), np.uint8)
    write_rgb(tmp_path / "small.png", rgb)  # smaller than the depth
    (tmp_path / "conf.png").write_bytes(png_bytes((low.valid * 2).astype(np.uint8)))
    files = hand_in(server, sample, low="low.png") | hand_in(server, tmp_path, rgb="small.png", confidence="conf.png")
    token, told = ready(server, model="bicubic", unit="mm", files=files)
    said = "\n".join([*told["lines"], told["camera"]])
    assert "filled from around (“leave holes” leaves them)" in said
    assert "below “Least confidence”: holes" in said
    assert "“Times as large as the depth” 1 keeps its detail" in said
    assert "stretched: “Intrinsics”" in said
    assert "--" not in said
    wrong = refusal(server, f"api/runs/{token}/camera", {"fov_deg": "500"})
    assert wrong == "“field of view” 500 is out of range: 1 to 170 degrees"


def test_depth_that_no_png_holds_is_shown_and_told_at_the_download(server: Server, tmp_path: Path) -> None:
    ramp = np.linspace(0.1, 0.9, 12 * 16, dtype=np.float32).reshape(12, 16)
    for name, unit, depth in (("far.npy", "m", 100 * ramp), ("shares.npy", "relative", ramp)):
        np.save(tmp_path / name, depth)
        files = hand_in(server, tmp_path, low=name)
        token, told = ready(server, model="bicubic", unit=unit, scale="2", files=files)
        assert ("sharp.png" in told["downloads"]) == (unit == "m")
        if unit == "m":
            assert "“Unit of the 16-bit PNG” kitti" in refusal(server, f"api/runs/{token}/files/sharp.png")
            ask(server, f"api/runs/{token}/files/sharp.png?out_unit=kitti")


@pytest.mark.parametrize(
    ("change", "cure"),
    [
        ({"model": "crips"}, "did you mean crisp"),
        ({"files": {"low": "nothing", "rgb": "nothing"}}, "choose it again"),
        ({"intrinsics": "/etc/camera.json"}, "not four numbers"),
        ({"intrinsics": "1,2,3"}, "fx,fy,cx,cy"),
        ({"scale": "wide"}, "no number"),
    ],
)
def test_a_wish_that_cannot_be_is_refused_before_any_work(
    server: Server, sample: Path, change: dict[str, Any], cure: str
) -> None:
    files = hand_in(server, sample, low="low.png", rgb="rgb.png")
    assert cure in refusal(server, "api/runs", {"model": "fgs", "unit": "mm", "files": files} | change)


def test_other_pages_and_names_are_refused(server: Server) -> None:
    assert "only" in refusal(server, "api/about", Host="evil.example")
    assert "another page" in refusal(server, "api/examples", {"name": "x"}, Origin="http://evil.example")
    assert "no longer kept" in refusal(server, "api/runs/guessed")
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(server, "..%2Fviewer.py")
    caught.value.close()


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
    with serving(own=[str(mine)]) as server:
        about = ask(server, "api/about")
        assert about["own"] == [str(mine)]
        assert about["models"][0] == {"name": str(mine), "task": "of your own", "inputs": ["low", "rgb"]}
        files = hand_in(server, sample, low="low.png", rgb="rgb.png")
        token = ask(server, "api/runs", {"model": str(mine), "unit": "mm", "files": files})["run"]
        assert finished(server, token)["state"] == "done"
        assert ask(server, f"api/runs/{token}/files/sharp.png") == predicted(
            sample, tmp_path, "sharp.png", "--model", mine
        )
    done = crispdepth("view", "--no-browser", "--model", tmp_path / "none.safetensors")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "none.safetensors" in done.stderr


def test_an_address_that_is_taken_is_one_line(server: Server) -> None:
    done = crispdepth("view", "--no-browser", "--port", server.server_address[1])
    assert done.returncode == 2
    assert "--port" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_machine_with_16_bits_gives_the_commands_file_too(
    server: Server, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Machine, "here", classmethod(lambda cls: cls(bf16=True)))
    files = hand_in(server, sample, low="low.png", rgb="rgb.png")
    token, told = ready(server, model="crisp-tiny", unit="mm", files=files)
    assert told["lines"][1].startswith("engine   torch, cpu, bf16")
    ours = ask(server, f"api/runs/{token}/files/sharp.npy")
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


@pytest.fixture(scope="module")
def own_server(symbiotic: Path) -> Iterator[Server]:
    with serving(own=[str(symbiotic)]) as running:
        yield running


def check_guessed(server: Server, token: str, sample: Path, symbiotic: Path, folder: Path, *more: object) -> None:
    """The downloads are what `crispdepth predict` makes of the picture alone."""
    outputs = {"-o": "sharp.npy", "--points": "cloud.ply", "--classes": "classes.png", "--picture": "view.png"}
    words = [word for option, name in outputs.items() for word in (option, folder / name)]
    done = crispdepth("predict", "--model", symbiotic, "--rgb", sample / "rgb.png", *words, *more)
    assert done.returncode == 0, done.stderr
    for name in outputs.values():
        assert ask(server, f"api/runs/{token}/files/{name}") == (folder / name).read_bytes(), (name, more)


def test_a_picture_alone_gives_depth_and_classes_as_the_command_does(
    own_server: Server, sample: Path, symbiotic: Path, tmp_path: Path
) -> None:
    files = hand_in(own_server, sample, rgb="rgb.png")
    token, told = ready(own_server, model=str(symbiotic), files=files)
    assert (told["views"], told["alone"]) == (["depth", "rgb", "classes"], True)
    assert set(DOWNLOADS) - set(told["downloads"]) == {"confidence.png", "error.exr"}
    check_guessed(own_server, token, sample, symbiotic, tmp_path)
    palette = {name: tuple(bytes.fromhex(colour[1:])) for name, colour in told["classes"]}
    names = np.array(["floor", "wall", "thing"])[read_label(tmp_path / "classes.png")]
    drawn = np.array([palette[str(name)] for name in names.ravel()], np.uint8).reshape(*names.shape, 3)
    assert ask(own_server, f"api/runs/{token}/images/classes") == png_bytes(drawn)
    assert any("(“focal length” says the true one)" in line for line in told["lines"])

    both = files | hand_in(own_server, sample, low="low.png")
    assert "take the depth away" in refusal(own_server, "api/runs", {"model": str(symbiotic), "files": both})
    assert "needs the low-resolution depth" in refusal(own_server, "api/runs", {"model": "crisp", "files": files})


def test_a_picture_alone_is_guessed_by_a_network_that_has_seen_no_photo(
    server: Server, sample: Path, tmp_path: Path
) -> None:
    files = hand_in(server, sample, rgb="rgb.png")
    _, told = ready(server, model="symbiotic-small", files=files)
    done = crispdepth("predict", "--rgb", sample / "rgb.png", "-o", tmp_path / "o.png")
    assert "no photo" in told["lines"][2]
    assert told["lines"][:4] == done.stdout.splitlines()[:4]


def test_the_camera_of_a_picture_alone_sets_its_scale_as_the_command_does(
    own_server: Server, sample: Path, symbiotic: Path, tmp_path: Path
) -> None:
    token, _ = ready(own_server, model=str(symbiotic), files=hand_in(own_server, sample, rgb="rgb.png"))
    plain = ask(own_server, f"api/runs/{token}/files/cloud.ply")
    assert "20°" in ask(own_server, f"api/runs/{token}/camera", {"fov_deg": "20"})["camera"]  # no scale in it
    for asked, words in (
        ({"intrinsics": INTRINSICS}, ["--intrinsics", INTRINSICS]),
        ({"focal": "99"}, ["--focal", "99"]),
        ({"fov_deg": "60"}, []),
    ):
        token = ask(own_server, f"api/runs/{token}/camera", asked)["run"]
        assert finished(own_server, token)["state"] == "done"
        check_guessed(own_server, token, sample, symbiotic, tmp_path, *words)
    assert ask(own_server, f"api/runs/{token}/files/cloud.ply") == plain
    assert "out of range" in refusal(own_server, f"api/runs/{token}/camera", {"focal": "-3"})


def test_a_run_that_waits_is_cancelled_at_once_and_never_begun(server: Server, sample: Path, tmp_path: Path) -> None:
    write_rgb(tmp_path / "rgb.png", np.zeros((960, 1280, 3), np.uint8))
    files = hand_in(server, sample, low="low.png") | hand_in(server, tmp_path, rgb="rgb.png")
    asked = {"model": "crisp", "unit": "mm", "files": files}
    long, short = (ask(server, "api/runs", asked)["run"] for _ in range(2))
    ask(server, f"api/runs/{short}/cancel", {})
    told = ask(server, f"api/runs/{short}")
    assert (told["state"], told["error"]) == ("cancelled", "cancelled")
    assert ask(server, f"api/runs/{long}")["state"] in ("waiting", "running")
    ask(server, f"api/runs/{long}/cancel", {})
    assert finished(server, long)["state"] == "cancelled"
    assert server.desk.run(short).stage == "waiting for other runs"


def test_files_are_read_before_a_model_is_loaded(sample: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.safetensors"
    Crisp(TINY_CONFIG).save(mine)
    with serving(own=[str(mine)]) as server:
        mine.unlink()
        files = hand_in(server, sample, low="low.png", rgb="rgb.png")
        token = ask(server, "api/runs", {"model": str(mine), "files": files})["run"]
        assert "add “Unit of the depth file” with one of" in finished(server, token)["error"]


def test_files_are_lent_once_and_those_of_a_run_stay(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "FILES_KEPT", 2)
    with serving([sample / "low.png", sample / "rgb.png"]) as server:
        given = ask(server, "api/about")["given"]
        assert ask(server, "api/about")["given"] == given
        files = {"low": given["low"]["token"]} | hand_in(server, sample, rgb="rgb.png")
        token = ask(server, "api/runs", {"model": "bicubic", "unit": "mm", "scale": "2", "files": files})["run"]
        loose = [hand_in(server, sample, rgb="rgb.png")["rgb"] for _ in range(4)]
        assert finished(server, token)["state"] == "done"
        assert set(server.desk.files) == {each["token"] for each in given.values()} | {files["rgb"], *loose[2:]}
        assert "choose it again" in refusal(server, "api/roles", {"tokens": loose[:1]})


def test_files_dropped_together_are_told_apart(server: Server, sample: Path, tmp_path: Path) -> None:
    names = {"low.png", "rgb.png", "truth.png"}
    tokens = [hand_in(server, sample, any=name)["any"] for name in names]
    found = ask(server, "api/roles", {"tokens": tokens})
    assert {(role, file["name"]) for role, file in found.items()} == {(name[:-4], name) for name in names}
    write_rgb(tmp_path / "ir.png", np.full((96, 128, 3), 7, np.uint8))
    one = hand_in(server, tmp_path, any="ir.png")["any"]
    assert list(ask(server, "api/roles", {"tokens": [one], "low": False})) == ["low"]
    assert list(ask(server, "api/roles", {"tokens": [one], "low": True})) == ["rgb"]
    told = refusal(server, "api/roles", {"tokens": [one, *tokens]})
    assert told == "ir.png: there is one rgb already (rgb.png): give one of them"


def test_sigterm_leaves_no_files_behind(tmp_path: Path) -> None:
    code = "import sys; from crispdepth.cli import main; sys.argv[1:] = 'view --no-browser --port 0'.split(); main()"
    there = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=there) as process:
        assert process.stdout is not None
        assert "the viewer is at" in process.stdout.readline()
        assert len(list(tmp_path.glob("crispdepth-view-*"))) == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------- the page


def test_a_field_that_a_message_names_is_on_the_page() -> None:
    page = "".join((PAGE / name).read_text(encoding="utf-8") for name in ("index.html", "app.js"))
    for name in re.findall("“([^”]+)”", " ".join(FIELDS.values())):
        assert name in page, name


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
def new_page(browser: Any, server: Server) -> Iterator[Callable[[], Any]]:
    """A page of a new user each time; whatever it asks of another machine, or complains of, fails the test."""
    contexts: list[Any] = []
    wrong: list[str] = []

    def check(request: Any) -> None:
        if not request.url.startswith((server.url, "blob:", "data:")):
            wrong.append(request.url)

    def make() -> Any:
        context = browser.new_context(viewport={"width": 1300, "height": 1000}, accept_downloads=True)
        contexts.append(context)
        page = context.new_page()
        page.on("request", check)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(server.url)
        page.wait_for_selector("#model option", state="attached")
        return page

    yield make
    for context in contexts:
        context.close()
    assert not wrong


def until(true: Callable[[], bool]) -> None:
    """Wait for it in Python: the page's own policy forbids strings that become code."""
    for _ in range(300):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("it does not happen within 15 seconds")


def choose(page: Any, **files: Path) -> None:
    for role, path in files.items():
        page.set_input_files(f"#file-{role}", path)
        page.wait_for_selector(f"#drop-{role}.full small:text-is('{path.name}')")


def sharpen(page: Any) -> None:
    page.click("#go")
    page.wait_for_selector("#below:not([hidden])")
    page.wait_for_selector("#go:enabled")


def shade(page: Any, selector: str) -> np.ndarray:
    """Pixels of one element as the screen shows it."""
    from io import BytesIO

    from PIL import Image

    return np.asarray(Image.open(BytesIO(page.locator(selector).screenshot())).convert("RGB"), dtype=np.int32)


def save(page: Any, name: str) -> bytes:
    with page.expect_download() as waiting:
        page.click(f"#downloads a:text-is('{name}')")
    return Path(waiting.value.path()).read_bytes()


def test_from_files_to_slider_space_distance_and_download(
    new_page: Callable[[], Any], sample: Path, tmp_path: Path
) -> None:
    page = new_page()
    assert page.is_disabled("#go")
    choose(page, low=sample / "low.png", rgb=sample / "rgb.png", truth=sample / "truth.png")
    page.select_option("#unit", "mm")
    assert page.input_value("#model") == "crisp"
    sharpen(page)
    page.fill("#intrinsics", INTRINSICS)
    page.click("#set-camera")
    page.wait_for_selector("#space-note:text-is('with the intrinsics given')")
    page.evaluate("() => window.scrollTo(0, 0)")
    assert "RMSE against the truth" in page.text_content("#lines")

    # The slider: at the far right the low map covers all, at the far left nothing.
    until(lambda: page.evaluate("() => [...document.querySelectorAll('#compare > img')].every((i) => i.naturalWidth)"))
    seen = []
    for share in (0.98, 0.02):
        box = page.locator("#compare").bounding_box()
        handle = page.locator("#handle").bounding_box()
        page.mouse.move(handle["x"] + handle["width"] / 2, handle["y"] + 20)
        page.mouse.down()
        page.mouse.move(box["x"] + share * box["width"], box["y"] + 20, steps=3)
        page.mouse.up()
        seen.append(shade(page, "#compare")[60:-60, 60:-60])
    assert int(page.get_attribute("#handle", "aria-valuenow")) == 2
    coarse = [float((np.abs(np.diff(x, axis=1)).sum(-1) > 0).mean()) for x in seen]
    assert coarse[0] < coarse[1]  # the low map is made of squares
    assert (seen[0] != seen[1]).any()

    # Two clicks: the distance that geometry says, from the file that was downloaded.
    saved = tmp_path / "got.npy"
    saved.write_bytes(save(page, "sharp.npy"))
    depth = np.load(saved)
    fx, fy, cx, cy = (float(v) for v in INTRINSICS.split(","))
    places = []
    page.evaluate("() => window.scrollTo(0, 0)")
    box = page.locator("#compare").bounding_box()
    for u, v in ((20, 70), (100, 30)):
        page.mouse.click(box["x"] + (u + 0.5) / 128 * box["width"], box["y"] + (v + 0.5) / 96 * box["height"])
        page.wait_for_selector(f"#measured:has-text('({u}, {v})')")
        places.append(np.array([(u - cx) / fx, (v - cy) / fy, 1]) * depth[v, u])
    said = page.text_content("#measured")
    assert f"distance {np.linalg.norm(places[1] - places[0]):.3f} m" in said
    assert f"depth {depth[70, 20]:.3f} m" in said

    # In space: something is there, and it turns.
    first = shade(page, "#cloud")
    background = np.array([16, 17, 20])
    assert 0.2 < (np.abs(first - background).sum(-1) > 30).mean() < 0.98
    page.focus("#cloud")
    page.keyboard.press("ArrowRight")
    assert (shade(page, "#cloud") != first).any()
    page.check("input[value=points]")
    assert (np.abs(shade(page, "#cloud") - background).sum(-1) > 30).mean() > 0.05
    page.fill("#fov", "20")
    page.fill("#intrinsics", "")
    page.click("#set-camera")
    page.wait_for_selector("#space-note:has-text('20°')")
    until(lambda: page.text_content("#measured") != said)
    assert f"distance {np.linalg.norm(places[1] - places[0]):.3f} m" not in page.text_content("#measured")

    assert page.locator("#histogram polygon").count() == 1
    for name in ("sharp.png", "sharp.exr", "error.exr"):
        assert save(page, name) == predicted(sample, tmp_path, name), name


def test_a_bad_file_is_told_as_the_command_tells_it(
    new_page: Callable[[], Any], sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "half.png").write_bytes((sample / "low.png").read_bytes()[:300])
    (tmp_path / "text.png").write_text("this is no picture")
    shutil.copy(sample / "low.png", "low.png")
    shutil.copy(sample / "rgb.png", "rgb.png")
    page = new_page()
    choose(page, rgb=tmp_path / "rgb.png")
    for name, unit in (("half.png", "mm"), ("text.png", "mm"), ("low.png", "")):
        choose(page, low=tmp_path / name)
        page.select_option("#unit", unit)
        page.click("#go")
        page.wait_for_selector("#error:not([hidden])")
        words = ["--low", name, "--rgb", "rgb.png", "-o", "o.png", *(["--unit", unit] if unit else [])]
        told = crispdepth("predict", *words).stderr.strip()
        assert f"error: {page.text_content('#error')}" == on_page(told)
        page.wait_for_selector("#go:enabled")
    page.select_option("#unit", "mm")
    sharpen(page)  # the page is not stuck
    assert page.is_hidden("#error")


def test_a_confidence_that_does_not_tell_its_scale_is_given_one(
    new_page: Callable[[], Any], sample: Path, tmp_path: Path
) -> None:
    sure = np.full(read_depth(sample / "low.png", "mm").depth.shape, 100, np.uint8)
    sure[:, :16] = 30  # below half
    (tmp_path / "conf100.png").write_bytes(png_bytes(sure))
    page = new_page()
    choose(page, low=sample / "low.png", rgb=sample / "rgb.png", confidence=tmp_path / "conf100.png")
    page.select_option("#unit", "mm")
    page.select_option("#model", "bicubic")
    page.click("#go")
    page.wait_for_selector("#error:not([hidden])")
    told = "conf100.png: confidence ends at 100: add “Full confidence” 100 or 255"
    assert page.text_content("#error") == told
    page.click("#more summary")
    page.get_by_label("Full confidence").fill("100")
    sharpen(page)
    assert "trusted  conf100.png, 0..100" in page.text_content("#lines")


def test_the_hints_of_the_file_boxes_are_read_whole(new_page: Callable[[], Any], sample: Path, tmp_path: Path) -> None:
    page = new_page()
    page.set_viewport_size({"width": 1400, "height": 1000})
    long = tmp_path / f"{'long' * 15}.png"
    shutil.copy(sample / "low.png", long)
    choose(page, low=long)
    for hint in page.locator(".drop small").all():
        assert hint.evaluate("(box) => box.scrollWidth <= box.clientWidth"), hint.text_content()
        assert hint.bounding_box()["width"] < 300  # the column is no wider for it


def test_two_users_at_once_each_get_their_own(new_page: Callable[[], Any], sample: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    low = read_depth(sample / "low.png", "mm")
    write_depth(other / "low.png", low.depth[::-1, ::-1] * 2, low.valid[::-1, ::-1])
    write_rgb(other / "rgb.png", np.round(read_rgb(sample / "rgb.png")[::-1, ::-1] * 255).astype(np.uint8))
    pages = [(new_page(), sample), (new_page(), other)]
    for page, folder in pages:
        choose(page, low=folder / "low.png", rgb=folder / "rgb.png")
        page.select_option("#unit", "mm")
    for page, _ in pages:
        page.click("#go")
    got = []
    for page, folder in pages:
        page.wait_for_selector("#below:not([hidden])")
        got.append(save(page, "sharp.npy"))
        assert got[-1] == predicted(folder, tmp_path, "sharp.npy")
    assert got[0] != got[1]


def test_long_work_shows_how_far_it_is_and_can_be_cancelled(new_page: Callable[[], Any], tmp_path: Path) -> None:
    depth = np.tile(np.linspace(1, 4, 160, dtype=np.float32), (120, 1))
    write_depth(tmp_path / "low.exr", depth)
    write_rgb(tmp_path / "rgb.png", np.zeros((960, 1280, 3), np.uint8))
    page = new_page()
    choose(page, low=tmp_path / "low.exr", rgb=tmp_path / "rgb.png")
    page.click("#go")
    until(lambda: page.evaluate("() => document.querySelector('#progress').value") > 0.1)
    assert "sharpening" in page.text_content("#stage")
    page.click("#cancel")
    page.wait_for_selector("#error:text-is('cancelled')")
    until(lambda: page.is_hidden("#progress"))
    assert page.is_enabled("#go")
    assert page.is_hidden("#below")


DROP = """async ([where, names]) => {
  const carried = new DataTransfer();
  for (const [name, text] of names) {
    const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
    carried.items.add(new File([bytes], name));
  }
  const drop = new DragEvent("drop", { dataTransfer: carried, bubbles: true, cancelable: true });
  document.querySelector(where).dispatchEvent(drop);
  return drop.defaultPrevented;
}"""


def test_what_is_dropped_anywhere_finds_its_place_and_only_rows_that_matter_are_there(
    new_page: Callable[[], Any], sample: Path
) -> None:
    def drop(where: str, *names: str) -> None:
        files = [[name, base64.b64encode((sample / name).read_bytes()).decode()] for name in names]
        assert page.evaluate(DROP, [where, files])  # the browser does not leave for the file

    page = new_page()
    drop("header", "rgb.png")
    page.wait_for_selector("#drop-rgb.full")
    for row in ("#unit-row", "#scale-row", "#more", "#drop-confidence"):
        assert page.is_hidden(row), row
    offered = page.locator("#model option").all_text_contents()
    assert offered
    assert not {"crisp", "ctkt", "bicubic"} & set(offered)
    drop("#drop-low", "low.png", "truth.png")
    for role, name in (("low", "low.png"), ("truth", "truth.png"), ("rgb", "rgb.png")):
        page.wait_for_selector(f"#drop-{role}.full small:text-is('{name}')")
    assert page.is_visible("#unit-row")
    assert page.input_value("#model") == "crisp"
    assert not set(offered) & set(page.locator("#model option").all_text_contents())
    page.select_option("#unit", "mm")
    page.select_option("#model", "fgs")
    sharpen(page)
    assert page.text_content("#right-tag") == "fgs"
    assert page.is_hidden("#downloads a:text-is('classes.png')")


def test_a_picture_alone_shows_its_classes_and_takes_a_focal_length(
    browser: Any, own_server: Server, sample: Path
) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(own_server.url)
    page.wait_for_selector("#model option", state="attached")
    choose(page, rgb=sample / "rgb.png")
    sharpen(page)
    page.select_option("#right", "classes")
    page.wait_for_selector("#class-legend:has-text('wall')")
    page.fill("#focal", "99")
    page.click("#set-camera")
    page.wait_for_selector("#lines:has-text('for a focal length of 99 px')")
    page.wait_for_selector("#space-note:text-is('with the focal length given')")
    context.close()
