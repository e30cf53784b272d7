"""Before and after on real sensors: a phone's LiDAR, a D435 looking at glass, a Kinect's holes.

    python examples/look_at_sensors.py [--data FOLDER] [-o looks] [--quick] [--page docs/sensors.md]

Draws a comparison for each, and prints the D435's RMSE inside and outside the glass against the same scene painted
opaque. --page: instead, how far what the D435 reads through glass is believed, into that page. FOLDER has the folders
lidar/, d435/ and rgbd_holes/; without it there is nothing to draw, and that is said.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import cv2
import numpy as np
import torch

from crispdepth import io
from crispdepth.batch import Job, Settings, run
from crispdepth.bench.report import write_between
from crispdepth.inference import predict
from crispdepth.metrics import rmse
from crispdepth.models.catalog import load
from crispdepth.types import Model

TRIES = (
    ("phone", "lidar/phone_depth_mm.png", "lidar/phone_color.jpg", "mm"),
    ("tum 1", "rgbd_holes/tum_1_depth_5000.png", "rgbd_holes/tum_1_color.png", "tum"),
    ("tum 2", "rgbd_holes/tum_2_depth_5000.png", "rgbd_holes/tum_2_color.png", "tum"),
)
GLASS = ("000000080", "000000130")
OFF, AROUND_PX, HOLES = 0.05, 61, 0.1  # of the depth: wrong; beside holes: over a tenth of so wide a square
BELIEVED = (
    "| where it reads | pixels | RMSE read, cm | sharpened | off by over 5 % | their confidence | the others' "
    "| beside holes | the others |\n|---|---|---|---|---|---|---|---|---|"
)


def draw(name: str, low: Path, rgb: Path, unit: str, model: Model, out: Path) -> None:
    """A comparison, and the depth itself."""
    stem = out / name.replace(" ", "_")
    job = Job(low, stem.with_suffix(".png"), rgb, picture=stem.with_name(f"{stem.name}_view.jpg"))
    for line in run(job, model, Settings(unit=unit)):
        print(f"{name:10} {line}")


def off_cm(depth: np.ndarray, truth: io.DepthFile, where: np.ndarray) -> str:
    """RMSE in centimetres over the pixels ``where`` that the truth knows."""
    prediction, target, valid = (torch.from_numpy(x)[None, None] for x in (depth, truth.depth, truth.valid & where))
    return f"{100 * float(rmse(prediction, target, valid)):6.2f}" if valid.any() else "     –"


def glass(number: str, folder: Path, model: Model, out: Path) -> list[str]:
    """Rows of a table: what was measured, what became of it, and what becomes of it where glass is made a hole."""
    sensor = io.read_depth(folder / f"{number}-transparent-depth-img.exr", "m")
    truth = io.read_depth(folder / f"{number}-opaque-depth-img.exr", "m")
    rgb = io.read_rgb(folder / f"{number}-transparent-rgb-img.jpg")
    mask = io.read_confidence(folder / f"{number}-mask.png") > 0
    plain = predict(model, low=sensor.depth, valid=sensor.valid, rgb=rgb)
    without = predict(model, low=sensor.depth, valid=sensor.valid & ~mask, rgb=rgb)
    draw(f"d435 {number}", folder / f"{number}-transparent-depth-img.exr", folder / f"{number}-transparent-rgb-img.jpg",
         "m", model, out)  # fmt: skip
    assert plain.confidence is not None
    read = sensor.valid
    rows = [
        ("as measured, where there is a reading", sensor.depth, read),
        ("sharpened, same pixels", plain.depth, read),
        ("sharpened, holes filled", plain.depth, np.ones_like(read)),
        ("sharpened, glass taken out first", without.depth, np.ones_like(read)),
    ]
    found = [
        f"| {number} | {what} | {off_cm(d, truth, w & mask)} | {off_cm(d, truth, w & ~mask)} |" for what, d, w in rows
    ]
    sure, unsure = plain.confidence[~mask].mean(), plain.confidence[mask].mean()
    return [*found, f"| {number} | mean confidence | {unsure:.2f} | {sure:.2f} |"]


def believed(number: str, folder: Path, model: Model) -> list[str]:
    """Rows of a table: where the sensor reads something, how wrong it is, and how sure ``model`` is of it."""
    sensor = io.read_depth(folder / f"{number}-transparent-depth-img.exr", "m")
    truth = io.read_depth(folder / f"{number}-opaque-depth-img.exr", "m")
    glass = io.read_confidence(folder / f"{number}-mask.png") > 0
    rgb = io.read_rgb(folder / f"{number}-transparent-rgb-img.jpg")
    found = predict(model, low=sensor.depth, valid=sensor.valid, rgb=rgb)
    assert found.confidence is not None
    off = np.abs(sensor.depth - truth.depth) > OFF * truth.depth
    beside = cv2.blur((~sensor.valid).astype(np.float32), (AROUND_PX, AROUND_PX)) > HOLES
    rows = []
    for name, where in (("glass", glass), ("elsewhere", ~glass)):
        read = where & sensor.valid & truth.valid
        wrong, right = read & off, read & ~off
        shares = [f"{found.confidence[w].mean():.2f}" if w.any() else "–" for w in (wrong, right)]
        shares += [f"{beside[w].mean():.0%}" if w.any() else "–" for w in (wrong, right)]
        words = [f"{number}, {name}", str(read.sum()), off_cm(sensor.depth, truth, read).strip()]
        words += [off_cm(found.depth, truth, read).strip(), f"{wrong.sum() / read.sum():.1%}", *shares]
        rows.append(f"| {' | '.join(words)} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    default = Path(os.environ.get("CRISPDEPTH_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("-o", "--out", type=Path, default=Path("looks"))
    parser.add_argument("--quick", action="store_true", help="one small picture, by bicubic")
    parser.add_argument("--page", type=Path, help="write only the table of readings on glass, between its marks")
    asked = parser.parse_args()
    if not asked.data.is_dir():
        print(f"no real data at {asked.data}: nothing drawn (--data FOLDER)")
        return
    if asked.page is not None:
        rows = [row for number in GLASS for row in believed(number, asked.data / "d435", load("crisp"))]
        table = "\n".join(["**two scenes of a D435, crisp at the sensor's own 1280x720**", "", BELIEVED, *rows])
        write_between(asked.page, "glass", table)
        print(table)
        return
    asked.out.mkdir(exist_ok=True)
    model = load("bicubic" if asked.quick else "crisp")
    for name, low, rgb, unit in TRIES[-1:] if asked.quick else TRIES:
        draw(name, asked.data / low, asked.data / rgb, unit, model, asked.out)
    if not asked.quick:
        print("| RMSE, cm | D435 | inside the glass mask | outside |\n|---|---|---|---|")
        for number in GLASS:
            print("\n".join(glass(number, asked.data / "d435", model, asked.out)))


if __name__ == "__main__":
    main()
