"""What it brings that fine relief, which our networks leave out, is put back where the readings are flat.

    python examples/try_relief.py [--data FOLDER] [--page docs/sensors.md] [--settings] [--quick]

RMSE with relief put back as a share of that without: on made-up scenes for tuning only; on the same with bumps of
0.3 % of their range added to all they show, in flat places, where there is nothing else to get wrong; and, where
FOLDER has them, on middlebury/ and lu/, protocol fdsr.
--settings prints, for crisp at x8, the same for other values of detail.SHARE and detail.FLAT.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from crispdepth import detail
from crispdepth.bench.evaluation import protocol_named
from crispdepth.bench.report import write_between
from crispdepth.careful import careful
from crispdepth.data.sets import SETS, TUNING_SEED, find, scene_samples
from crispdepth.data.textures import Dice
from crispdepth.geometry import local_range
from crispdepth.metrics import rmse
from crispdepth.models.catalog import load
from crispdepth.types import Depth, Mask, Model, Sample

MODELS, SCALES, SCENES = ("crisp", "crisp-tiny", "ctkt"), (4, 8, 16), 6
ROUGH, RELIEF, BUMPS = "flat places with relief", 0.003, 16  # of the range; along the longer side
WITHIN = {ROUGH: 0.03}
OTHERS = ((0.5, 0.1), (0.75, 0.1), (1.0, 0.1), (0.75, 0.05), (0.75, 0.2))


def shown(data: Path, count: int) -> dict[str, list[tuple[str, Sample]]]:
    """What is measured, by name: for each map its set and the map itself."""
    scenes = [read() for read in scene_samples(TUNING_SEED, count).values()]
    found = {"scenes": [("scenes", x) for x in scenes]}
    found[ROUGH] = [("scenes", rough(x, seed)) for seed, x in enumerate(scenes)]
    for name in ("middlebury", "lu"):
        if (data / name).is_dir():
            found[name] = [(name, read()) for read in list(find(name, data / name).values())[: count * 2]]
        else:
            print(f"{data} has no {name}/: left out")
    return found


def rough(sample: Sample, seed: int) -> Sample:
    """``sample`` with smooth bumps of RELIEF on everything."""
    assert sample.depth is not None
    height, width = sample.depth.shape[-2:]
    bumps = Dice(seed, "cpu").noise(1, BUMPS, max(height, width))[:, None, :height, :width]
    return replace(sample, depth=sample.depth + RELIEF * (sample.depth.max() - sample.depth.min()) * bumps)


def low_maps(maps: list[tuple[str, Sample]], scale: int) -> Iterator[Sample]:
    """Each with its low map."""
    for name, sample in maps:
        yield from protocol_named("fdsr").prepare(sample, scale, name, SETS[name].unit)


def flat(depth: Depth, within: float) -> Mask:
    """Where no pixel in 17x17 is more than ``within`` of the range off another."""
    near, far = local_range(depth, torch.ones_like(depth, dtype=torch.bool), radius=8)
    return far - near <= within * (depth.max() - depth.min())


def gained(model: Model, maps: list[tuple[str, Sample]], scale: int, within: float = 1.0) -> float:
    """Mean RMSE as it is over that with nothing put back, over places that are ``flat``."""
    usual, off = detail.SHARE, []
    for share in (0.0, usual):
        detail.SHARE, total = share, 0.0
        for sample in low_maps(maps, scale):
            assert sample.depth is not None
            assert sample.depth_valid is not None
            made = careful(model, sample, (sample.depth.shape[-2], sample.depth.shape[-1])).depth
            total += float(rmse(made, sample.depth, sample.depth_valid & flat(sample.depth, within)))
        off.append(total)
    return off[1] / off[0]


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("CRISPDEPTH_DATA", "../shared/data")))
    parser.add_argument("--page", type=Path)
    parser.add_argument("--settings", action="store_true")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    sets = shown(given.data, 1 if given.quick else SCENES)
    if given.settings:
        model = load("crisp")
        for detail.SHARE, detail.FLAT in OTHERS:
            cells = [f"{name} {gained(model, maps, 8, WITHIN.get(name, 1)):.3f}" for name, maps in sets.items()]
            print(f"SHARE {detail.SHARE} FLAT {detail.FLAT}: {', '.join(cells)}")
        return
    lines = [
        f"| relief put back, RMSE over that without | scale | {' | '.join(sets)} |",
        "|---" * (len(sets) + 2) + "|",
    ]
    for name in MODELS[1:2] if given.quick else MODELS:
        model = load(name)
        for scale in SCALES[1:2] if given.quick else SCALES:
            cells = [f"{gained(model, maps, scale, WITHIN.get(shown_in, 1)):.3f}" for shown_in, maps in sets.items()]
            lines.append(f"| {name} | x{scale} | {' | '.join(cells)} |")
            print(lines[-1])
    if given.page:
        write_between(given.page, "relief", "\n".join(lines))


if __name__ == "__main__":
    main()
