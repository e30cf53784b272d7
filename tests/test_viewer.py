"""The viewer: what its server answers, and the page in a real browser (Chromium through Playwright, no window)."""

from __future__ import annotations

import json
import shutil
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

from crispdepth.data.sample import write_sample
from crispdepth.desk import DOWNLOADS, told_apart
from crispdepth.io import read_depth, read_rgb, write_depth, write_rgb
from crispdepth.models.crisp import TINY_CONFIG, Crisp
from crispdepth.types import InputError
from crispdepth.viewer import Server, serving

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine's PATH")
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
    for name in DOWNLOADS:
        if name != "error.exr":  # fgs does not estimate its error
            ours = ask(server, f"api/runs/{token}/files/{name}")
            assert ours == predicted(sample, tmp_path, name, "--model", "fgs"), name
    kitti = ask(server, f"api/runs/{token}/files/sharp.png?out_unit=kitti")
    assert kitti == predicted(sample, tmp_path, "sharp.png", "--model", "fgs", "--out-unit", "kitti")
    assert "--model crisp" in refusal(server, f"api/runs/{token}/files/error.exr")


def test_depth_alone_is_enlarged_and_a_hole_that_is_left_has_no_depth(server: Server, sample: Path) -> None:
    files = hand_in(server, sample, low="low.png")
    wanted = {"model": "bicubic", "unit": "mm", "files": files, "scale": "2", "keep_holes": True}
    token = ask(server, "api/runs", wanted)["run"]
    told = finished(server, token)
    assert (told["width"], told["height"], told["views"]) == (64, 48, ["depth", "low", "bicubic"])
    hole = ask(server, f"api/runs/{token}/point?at=25,21")["points"][0]
    assert (hole["depth"], hole["xyz"]) == (None, None)
    assert "needs the colour picture" in refusal(server, "api/runs", wanted | {"model": "crisp"})


def test_what_is_no_metre_has_no_space(server: Server, sample: Path) -> None:
    files = hand_in(server, sample, low="low.png")
    token = ask(server, "api/runs", {"model": "bicubic", "unit": "relative", "files": files, "scale": "2"})["run"]
    told = finished(server, token)
    assert "relative" in told["surface"]
    assert ask(server, f"api/runs/{token}/point?at=1,1;5,5")["distance"] is None


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
    with pytest.raises(InputError, match="one rgb already"):
        told_apart([sample / "rgb.png", sample / "rgb.png"])
    with pytest.raises(InputError, match="no such file"):
        told_apart([tmp_path / "none.png"])


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


# ------------------------------------------------------------------------------- the page


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
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


@in_browser
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


@in_browser
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
        assert f"error: {page.text_content('#error')}" == told
        page.wait_for_selector("#go:enabled")
    page.select_option("#unit", "mm")
    sharpen(page)  # the page is not stuck
    assert page.is_hidden("#error")


@in_browser
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


@in_browser
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
