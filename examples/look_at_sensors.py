"""Before and after on real sensors: a phone's LiDAR, a D435 looking at glass, a Kinect's holes.

    python examples/look_at_sensors.py [--data FOLDER] [-o looks] [--quick] [--page docs/sensors.md]

Draws a comparison for each. --page: instead, the D435's RMSE inside and outside the glass against the same scene
painted opaque, how far what it reads there is believed, and what taking it out does, into that page. FOLDER has the
folders lidar/, d435/ and rgbd_holes/; without it there is nothing to draw, and that is said.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
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
from crispdepth.types import Model, Prediction

TRIES = (
    ("phone", "lidar/phone_depth_mm.png", "lidar/phone_color.jpg", "mm"),
    ("tum 1", "rgbd_holes/tum_1_depth_5000.png", "rgbd_holes/tum_1_color.png", "tum"),
    ("tum 2", "rgbd_holes/tum_2_depth_5000.png", "rgbd_holes/tum_2_color.png", "tum"),
)
GLASS = ("000000080", "000000130")
OFF, AROUND_PX, HOLES = 0.05, 61, 0.1  # of the depth: wrong; beside holes: over a tenth of so wide a square
CONDITIONS = "two scenes of a D435, crisp at the sensor's own 1280x720"
TAKEN_OUT = (
    "| what | RMSE on the glass, cm | elsewhere | mean confidence on the glass | elsewhere |\n|---|---|---|---|---|"
)
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


@dataclass(frozen=True)
class Scene:
    """What a D435 gave of a scene with glass, its truth (painted opaque), and crisp's results: ``plain``, and
    ``without`` what it read on the glass."""

    number: str
    sensor: io.DepthFile
    truth: io.DepthFile
    glass: np.ndarray
    plain: Prediction
    without: Prediction


def seen(number: str, folder: Path, model: Model) -> Scene:
    """One scene of ``folder``."""
    sensor = io.read_depth(folder / f"{number}-transparent-depth-img.exr", "m")
    truth = io.read_depth(folder / f"{number}-opaque-depth-img.exr", "m")
    rgb = io.read_rgb(folder / f"{number}-transparent-rgb-img.jpg")
    glass = io.read_confidence(folder / f"{number}-mask.png") > 0
    plain, without = (
        predict(model, low=sensor.depth, valid=valid, rgb=rgb) for valid in (sensor.valid, sensor.valid & ~glass)
    )
    return Scene(number, sensor, truth, glass, plain, without)


def taken_out(x: Scene) -> list[str]:
    """Rows of a table: what was measured, what became of it, and what becomes of it where glass is made a hole."""
    read, every = x.sensor.valid, np.ones_like(x.sensor.valid)
    rows = [
        ("as measured, where there is a reading", x.sensor.depth, read, None),
        ("sharpened, same pixels", x.plain.depth, read, x.plain),
        ("sharpened, holes filled", x.plain.depth, every, x.plain),
        ("sharpened, glass taken out first", x.without.depth, every, x.without),
    ]
    lines = []
    for what, depth, where, result in rows:
        cells = [off_cm(depth, x.truth, where & part).strip() for part in (x.glass, ~x.glass)]
        for part in (x.glass, ~x.glass):
            sure = None if result is None else result.confidence
            cells.append("–" if sure is None else f"{sure[where & part].mean():.2f}")
        lines.append(f"| {x.number}, {what} | {' | '.join(cells)} |")
    return lines


def believed(x: Scene) -> list[str]:
    """Rows of a table: where the sensor reads something, how wrong it is, and how sure crisp is of it."""
    assert x.plain.confidence is not None
    off = np.abs(x.sensor.depth - x.truth.depth) > OFF * x.truth.depth
    beside = cv2.blur((~x.sensor.valid).astype(np.float32), (AROUND_PX, AROUND_PX)) > HOLES
    rows = []
    for name, where in (("glass", x.glass), ("elsewhere", ~x.glass)):
        read = where & x.sensor.valid & x.truth.valid
        wrong, right = read & off, read & ~off
        shares = [f"{x.plain.confidence[w].mean():.2f}" if w.any() else "–" for w in (wrong, right)]
        shares += [f"{beside[w].mean():.0%}" if w.any() else "–" for w in (wrong, right)]
        words = [f"{x.number}, {name}", str(read.sum()), off_cm(x.sensor.depth, x.truth, read).strip()]
        words += [off_cm(x.plain.depth, x.truth, read).strip(), f"{wrong.sum() / read.sum():.1%}", *shares]
        rows.append(f"| {' | '.join(words)} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    default = Path(os.environ.get("CRISPDEPTH_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("-o", "--out", type=Path, default=Path("looks"))
    parser.add_argument("--quick", action="store_true", help="one small picture, by bicubic")
    parser.add_argument("--page", type=Path, help="write only the tables of readings on glass, between their marks")
    asked = parser.parse_args()
    if not asked.data.is_dir():
        print(f"no real data at {asked.data}: nothing drawn (--data FOLDER)")
        return
    model = load("bicubic" if asked.quick else "crisp")
    d435 = asked.data / "d435"
    if asked.page is not None:
        scenes = [seen(number, d435, model) for number in GLASS]
        for mark, head, table in (("glass", BELIEVED, believed), ("glass taken out", TAKEN_OUT, taken_out)):
            text = "\n".join([f"**{CONDITIONS}**", "", head, *(row for x in scenes for row in table(x))])
            write_between(asked.page, mark, text)
            print(text)
        return
    asked.out.mkdir(exist_ok=True)
    for name, low, rgb, unit in TRIES[-1:] if asked.quick else TRIES:
        draw(name, asked.data / low, asked.data / rgb, unit, model, asked.out)
    for number in () if asked.quick else GLASS:
        low, rgb = (d435 / f"{number}-transparent-{what}" for what in ("depth-img.exr", "rgb-img.jpg"))
        draw(f"d435 {number}", low, rgb, "m", model, asked.out)


if __name__ == "__main__":
    main()
