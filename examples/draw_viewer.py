"""The pictures of docs/viewer.md: the page of `crispdepth view` in a real browser, on a made-up scene.

    python examples/draw_viewer.py [-o docs] [--quick]

A file that is refused, a result, two points of it, the same in space, and depth from a picture alone (where there are
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
from crispdepth.models.catalog import CATALOG
from crispdepth.viewer import serving

VIEWPORT = {"width": 1280, "height": 960}
WAIT_MS = 600_000


def chosen(page: Any, **files: Path) -> None:
    """Files in their places."""
    for role, path in files.items():
        page.locator(f"#file-{role} input[type=file]").set_input_files(path)
        page.wait_for_selector(f"#file-{role}:has-text('{path.stem}')")


def picked(page: Any, field: str, option: str) -> None:
    """An option of a list."""
    page.click(f"{field} input")
    page.click(f"{field} [role=option]:has-text('{option}')")


def sharpened(page: Any) -> None:
    """A result on the page."""
    page.click("#go:enabled")
    page.wait_for_selector("#cancel", state="visible")
    page.wait_for_selector("#cancel", state="hidden")
    page.wait_for_selector("#slider img")
    page.wait_for_timeout(1000)


def drawn(page: Any, out: Path, name: str) -> None:
    """What the window shows, as a JPEG."""
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "shot.png"
        page.screenshot(path=whole)
        Image.open(whole).convert("RGB").save(out / f"viewer-{name}.jpg", quality=82, optimize=True)
    print(f"wrote {out / f'viewer-{name}.jpg'}")


def depth_and_picture(page: Any, sample: Path, out: Path) -> None:
    """The refusal first, while nothing else is there; then the result, two points of it, and its surface."""
    chosen(page, low=sample / "low.png", rgb=sample / "rgb.png")
    page.click("#others button")
    chosen(page, truth=sample / "truth.png", intrinsics=sample / "intrinsics.json")
    page.click("#others button")
    page.click("#go:enabled")
    page.wait_for_selector("#error")
    page.wait_for_timeout(500)
    drawn(page, out, "error")
    picked(page, "#unit", "mm: ")
    sharpened(page)
    page.evaluate("() => window.scrollTo(0, 0)")
    drawn(page, out, "result")
    page.click("[role=tab]:text-is('Measure')")
    for across, down in ((0.3, 0.6), (0.8, 0.4)):
        box = page.locator("#clickable img").bounding_box()
        page.mouse.click(box["x"] + across * box["width"], box["y"] + down * box["height"])
        page.wait_for_timeout(1000)
    drawn(page, out, "measure")
    page.wait_for_selector("#space canvas")
    page.locator("#note").scroll_into_view_if_needed()
    page.wait_for_timeout(4000)
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
    with tempfile.TemporaryDirectory() as folder, serving(own=own) as url, api.sync_playwright() as playwright:
        sample = Path(folder)
        write_sample(sample, 8, 7, (96, 128) if wanted.quick else (480, 640))
        flags = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page(viewport=VIEWPORT)
        page.set_default_timeout(WAIT_MS)
        page.goto(url)
        page.wait_for_selector("#go")
        depth_and_picture(page, sample, wanted.out)
        if own or any(row.inputs == ("rgb",) and not row.hub for row in CATALOG.values()):
            page.reload()
            page.wait_for_selector("#go")
            chosen(page, rgb=sample / "rgb.png")
            sharpened(page)
            picked(page, "#right", "classes")
            page.wait_for_timeout(1000)
            drawn(page, wanted.out, "alone")
        browser.close()


if __name__ == "__main__":
    main()
