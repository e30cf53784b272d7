"""What it brings that a low map is made clean before a network sees it: scattered holes, and noise.

    python examples/try_cleaning.py [--data FOLDER] [--page docs/sensors.md] [--quick]

Holes: RMSE with a second run as a share of that of one run, by the share of readings that are missing at random, on
made-up scenes for tuning only, at x8. Noise: MAD on the noisy maps of Middlebury with the noise left in and taken out;
FOLDER has middlebury_large/, and without it that table is left out, and that is said.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

from crispdepth.bench.evaluation import protocol_named
from crispdepth.bench.report import write_between
from crispdepth.bench.robust import Fault
from crispdepth.careful import careful
from crispdepth.data.sets import TUNING_SEED, find, scene_samples
from crispdepth.metrics import mad, rmse
from crispdepth.models.catalog import load
from crispdepth.options import Options

MODELS = ("crisp", "crisp-tiny", "ctkt")
HOLES, SCENES, SCALE = (0.1, 0.3, 0.6, 0.8), 6, 8
NOISY = (4, 8, 16)


def holes(quick: bool) -> str:
    """The first table."""
    shares, count = (HOLES[1:2], 1) if quick else (HOLES, SCENES)
    heads = " | ".join(f"{share:.0%} missing" for share in shares)
    lines = [f"| RMSE, two runs over one | {heads} |", "|---" * (len(shares) + 1) + "|"]
    for name in MODELS:
        model, cells = load(name), []
        for share in shares:
            off = torch.zeros(2)
            for seed, read in enumerate(scene_samples(TUNING_SEED, count).values()):
                sample = read()
                assert sample.depth is not None
                seen = Fault(holes=share).sensed(sample, SCALE, seed)
                size = (sample.depth.shape[-2], sample.depth.shape[-1])
                made = [careful(model, seen, size, Options(once=once)) for once in (True, False)]
                off += torch.tensor(
                    [float(rmse(x.depth, sample.depth, torch.ones_like(sample.depth) > 0)) for x in made]
                )
            cells.append(f"{off[1] / off[0]:.2f}" if made[1].twice else "runs once")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def noise(folder: Path, quick: bool) -> str:
    """The second table."""
    scales, row = NOISY[-1:] if quick else NOISY, protocol_named("park")
    lines = [f"| MAD, levels: left in, taken out | {' | '.join(f'x{s}' for s in scales)} |"]
    lines.append("|---" * (len(scales) + 1) + "|")
    for name in MODELS[-1:] if quick else MODELS:
        model, cells = load(name), []
        for scale in scales:
            set_name, off = f"middlebury_noisy_x{scale}", []
            for read in find(set_name, folder).values():
                for sample in row.prepare(read(), scale, set_name, "levels"):
                    assert sample.depth is not None
                    assert sample.depth_valid is not None
                    size = (sample.depth.shape[-2], sample.depth.shape[-1])
                    made = [careful(model, sample, size, Options(denoise=denoise)).depth for denoise in ("off", "auto")]
                    off.append(torch.tensor([float(mad(x, sample.depth, sample.depth_valid)) for x in made]))
            before, after = torch.stack(off).mean(0).tolist()
            cells.append(f"{before:.2f}, {after:.2f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("CRISPDEPTH_DATA", "../shared/data")))
    parser.add_argument("--page", type=Path)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    tables = {"scattered": holes(given.quick)}
    if (given.data / "middlebury_large").is_dir():
        tables["noisy"] = noise(given.data / "middlebury_large", given.quick)
    else:
        print(f"{given.data} has no middlebury_large/: the noisy maps are left out")
    for mark, table in tables.items():
        print(f"{table}\n")
        if given.page:
            write_between(given.page, mark, table)


if __name__ == "__main__":
    main()
