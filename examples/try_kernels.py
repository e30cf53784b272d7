"""What it costs that readings are means of what their pixels cover, and what it brings that our networks allow for it.

    python examples/try_kernels.py [--page docs/sensors.md] [--quick]

Low maps of made-up scenes, for measuring only, averaged instead of bicubic. RMSE as multiples of that from bicubic
maps: taken for bicubic ones, with the kernel told from the result, and told by hand; and how often it was told, of
averaged maps and, wrongly, of bicubic ones. The same for maps whose readings are single pixels of what they cover.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from crispdepth.bench.report import write_between
from crispdepth.bench.robust import Fault
from crispdepth.careful import careful
from crispdepth.data.sets import scene_samples
from crispdepth.metrics import rmse
from crispdepth.models.catalog import load
from crispdepth.options import Options
from crispdepth.shift import moved
from crispdepth.types import Model, Sample

MODELS, SCALES, SCENES = ("crisp", "crisp-tiny", "ctkt"), (2, 4, 8, 16), 12
PIXELS = {"first": lambda scale: 0, "middle": lambda scale: scale // 2, "last": lambda scale: scale - 1}


def run(model: Model, sample: Sample, kernel: str) -> tuple[float, bool]:
    """RMSE, and whether the readings were taken for means."""
    assert sample.depth is not None
    assert sample.depth_valid is not None
    made = careful(model, sample, (sample.depth.shape[-2], sample.depth.shape[-1]), Options(kernel=kernel))
    return float(rmse(made.depth, sample.depth, sample.depth_valid)), made.averaged


def row(name: str, scale: int, scenes: list[Sample]) -> str:
    """A line of the table."""
    model = load(name)
    usual = [run(model, Fault().sensed(scene, scale, 0), "auto") for scene in scenes]
    means = [Fault(kernel="average").sensed(scene, scale, 0) for scene in scenes]
    made = {kernel: [run(model, sample, kernel) for sample in means] for kernel in ("bicubic", "auto", "average")}
    clean = sum(off for off, _ in usual)
    cells = [f"{sum(off for off, _ in runs) / clean:.2f}" for runs in made.values()]
    told = [sum(told for _, told in runs) for runs in (made["auto"], usual)]
    return f"| {name} | x{scale} | {' | '.join(cells)} | {told[0]} of {len(scenes)} | {told[1]} of {len(scenes)} |"


def of_points(scene: Sample, scale: int, pixel: str) -> Sample:
    """``scene`` with a low map of one pixel of every ``scale`` x ``scale``."""
    seen = Fault().sensed(scene, scale, 0)
    assert seen.depth is not None
    at = PIXELS[pixel](scale)
    return replace(seen, low=seen.depth[..., at::scale, at::scale].contiguous())


def points_run(model: Model, sample: Sample, kernel: str) -> tuple[float, bool]:
    """RMSE, and whether the readings were taken for first or last pixels."""
    assert sample.depth is not None
    assert sample.depth_valid is not None
    made = careful(model, sample, options=Options(kernel=kernel))
    off = rmse(moved(made.depth, made.corner), sample.depth, sample.depth_valid)
    return float(off), made.corner != (0, 0)


def points_row(name: str, scale: int, pixel: str, scenes: list[Sample]) -> str:
    """A line of the second table."""
    model = load(name)
    clean = sum(points_run(model, Fault().sensed(scene, scale, 0), "bicubic")[0] for scene in scenes)
    samples = [of_points(scene, scale, pixel) for scene in scenes]
    made = {
        kernel: [points_run(model, sample, kernel) for sample in samples] for kernel in ("bicubic", "auto", "points")
    }
    cells = [f"{sum(off for off, _ in runs) / clean:.2f}" for runs in made.values()]
    told = sum(told for _, told in made["auto"])
    return f"| {name} | x{scale} | {pixel} | {' | '.join(cells)} | {told} of {len(scenes)} |"


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--page", type=Path)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    lines = ["| model | scale | `--kernel bicubic` | `auto` | `average` | told of means | of bicubic maps |"]
    lines.append("|---|---|---|---|---|---|---|")
    scenes = [read() for read in list(scene_samples().values())[: 1 if given.quick else SCENES]]
    for name in MODELS[1:2] if given.quick else MODELS:
        lines += [row(name, scale, scenes) for scale in (SCALES[1:2] if given.quick else SCALES)]
    points = [
        "| model | scale | pixel read | `--kernel bicubic` | `auto` | `points` | told |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in MODELS[1:2] if given.quick else MODELS[:2]:
        for scale in SCALES[2:3] if given.quick else SCALES[1:]:
            points += [points_row(name, scale, pixel, scenes) for pixel in PIXELS]
    print("\n".join([*lines, "", *points]))
    if given.page:
        write_between(given.page, "kernels", "\n".join(lines))
        write_between(given.page, "points", "\n".join(points))


if __name__ == "__main__":
    main()
