"""The pictures of docs/viewer.md: the page of `crispdepth view` in a real browser, on a made-up scene.

    python examples/draw_viewer.py [-o docs] [--quick]

A result with its truth, the same in space, a file that is refused, and depth from a picture alone (where there are
weights: by default the catalog's, or --model). Needs Playwright and a Chromium on the PATH. --quick: a small scene.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from crispdepth.data.sample import write_sample
from crispdepth.desk import defaults
from crispdepth.viewer import serving

VIEWPORT = {"width": 1280, "height": 860}
WAIT_MS = 600_000


def chosen(page: Any, **files: Path) -> None:
    """Files in their places."""
    for role, path in files.items():
        page.set_input_files(f"#file-{role}", path)
        page.wait_for_selector(f"#drop-{role}.full small:text-is('{path.name}')")


def sharpened(page: Any, left: str, right: str) -> None:
    """A result on the page, with these pictures left and right of the line."""
    page.click("#go")
    page.wait_for_selector("#below:not([hidden])")
    page.wait_for_selector("#go:enabled")
    page.select_option("#left", left)
    page.select_option("#right", right)
    page.wait_for_load_state("networkidle")


def drawn(page: Any, out: Path, name: str) -> None:
    """What the window shows, as a JPEG."""
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "shot.png"
        page.screenshot(path=whole)
        Image.open(whole).convert("RGB").save(out / f"viewer-{name}.jpg", quality=82, optimize=True)
    print(f"wrote {out / f'viewer-{name}.jpg'}")


def depth_and_picture(page: Any, sample: Path, out: Path) -> None:
    """The refusal first, while nothing else is there; then the result and its surface."""
    chosen(page, low=sample / "low.png", rgb=sample / "rgb.png", truth=sample / "truth.png")
    chosen(page, intrinsics=sample / "intrinsics.json")
    page.click("#go")
    page.wait_for_selector("#error:not([hidden])")
    page.locator("#error").scroll_into_view_if_needed()
    drawn(page, out, "error")
    page.select_option("#unit", "mm")
    sharpened(page, "low", "depth")
    page.evaluate("() => window.scrollTo(0, 0)")
    box = page.locator("#compare").bounding_box()
    for at in ((0.3, 0.6), (0.8, 0.4)):
        page.mouse.click(box["x"] + at[0] * box["width"], box["y"] + at[1] * box["height"])
        page.wait_for_timeout(500)
    drawn(page, out, "result")
    page.evaluate("() => document.querySelector('#below').scrollIntoView()")
    page.focus("#cloud")
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    drawn(page, out, "space")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, default=Path())
    parser.add_argument("--model", help="weights for a picture alone")
    parser.add_argument("--quick", action="store_true")
    wanted = parser.parse_args()
    wanted.out.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None or importlib.util.find_spec("playwright") is None:
        print("needs a Chromium on the PATH, and: pip install playwright")
        return
    api = importlib.import_module("playwright.sync_api")
    own = [wanted.model] if wanted.model else []
    with tempfile.TemporaryDirectory() as folder, serving(own=own) as server, api.sync_playwright() as playwright:
        sample = Path(folder)
        write_sample(sample, 8, 7, (96, 128) if wanted.quick else (480, 640))
        flags = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page(viewport=VIEWPORT)
        page.set_default_timeout(WAIT_MS)
        page.goto(server.url)
        page.wait_for_selector("#model option", state="attached")
        depth_and_picture(page, sample, wanted.out)
        if own or "rgb" in defaults():
            page.reload()
            page.wait_for_selector("#model option", state="attached")
            chosen(page, rgb=sample / "rgb.png")
            sharpened(page, "rgb", "classes")
            drawn(page, wanted.out, "alone")
        browser.close()


if __name__ == "__main__":
    main()
