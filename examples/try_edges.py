"""What hard edges (--hard-edges) bring and cost: RMSE and flying pixels with and without.

    python examples/try_edges.py [--data FOLDER] [--page docs/sensors.md] [--quick]

On made-up scenes for tuning, whose depth has hard edges, on the same made soft (a blur of 0.6 px, as maps that were
shrunk have it), and on the real pairs of try_align.py, where FOLDER has them; low maps antialiased bicubic, 6 px cut.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from try_align import real_pairs

from crispdepth.bench.report import write_between
from crispdepth.careful import careful
from crispdepth.data.sets import TUNING_SEED, scene_samples
from crispdepth.degradation import blur, crop_to_multiple, downsample
from crispdepth.metrics import flying, rmse
from crispdepth.models.catalog import load
from crispdepth.options import Options
from crispdepth.types import Model, Sample

MODELS, SCALES, MOST, SOFT_PX, BORDER_PX = ("crisp", "ctkt"), (4, 8, 16), 6, 0.6, 6
HEAD = (
    "| model | pairs | scale | RMSE | with hard edges | of it | flying | with hard edges |\n"
    "|---|---|---|---|---|---|---|---|"
)


def shown(data: Path, most: int) -> dict[str, tuple[int, list[Sample]]]:
    """Exact pairs, by name, and what of their depth's unit is written: 100 for metres, 1 for levels."""
    scenes = [read() for read in scene_samples(TUNING_SEED, most).values()]
    found = {"scenes": (100, scenes), "scenes, soft": (100, [softened(scene) for scene in scenes])}
    for name, pairs in real_pairs(data, most).items():
        samples = [Sample(rgb=rgb, depth=_map(depth.depth), depth_valid=_map(depth.valid)) for depth, rgb in pairs]
        found[name] = (100 if pairs[0][0].depth_unit == "m" else 1, samples)
    return found


def _map(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values)[None, None]


def softened(sample: Sample) -> Sample:
    assert sample.depth is not None
    return replace(sample, depth=blur(sample.depth, SOFT_PX))


def row(model: Model, samples: list[Sample], scale: int, unit: int) -> str:
    """Cells of the table: means over ``samples``, RMSE times ``unit``."""
    figures: list[list[float]] = []
    for sample in samples:
        assert sample.rgb is not None
        assert sample.depth is not None
        assert sample.depth_valid is not None
        rgb, depth, valid = (crop_to_multiple(x, scale) for x in (sample.rgb, sample.depth, sample.depth_valid))
        low, seen = downsample(depth, valid, scale)
        low_map, size = Sample(rgb=rgb, low=low, valid=seen), (depth.shape[-2], depth.shape[-1])
        both = [careful(model, low_map, size, Options(hard_edges=hard)).depth for hard in (False, True)]
        inner = torch.zeros_like(valid)
        inner[..., BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX] = True
        inner &= valid
        figures.append([float(f(x, depth, inner)) for f in (rmse, flying) for x in both])
    soft, hard, soft_flying, hard_flying = torch.tensor(figures, dtype=torch.float64).nanmean(0).tolist()
    return f"{soft * unit:.2f} | {hard * unit:.2f} | {hard / soft:.2f} | {soft_flying:.3f} | {hard_flying:.3f}"


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("CRISPDEPTH_DATA", "../shared/data")))
    parser.add_argument("--page", type=Path, help="put the table between its marks in this page")
    parser.add_argument("--quick", action="store_true", help="one pair of each kind, at x8")
    asked = parser.parse_args()
    rows = [HEAD]
    for name in MODELS:
        model = load(name)
        for pairs, (unit, samples) in shown(asked.data, 1 if asked.quick else MOST).items():
            for scale in SCALES[1:2] if asked.quick else SCALES:
                cells = row(model, samples, scale, unit)
                rows.append(f"| {name} | {len(samples)} of {pairs} | x{scale} | {cells} |")
                print(rows[-1], flush=True)
    if asked.page is not None:
        write_between(asked.page, "edges", "\n".join(rows))


if __name__ == "__main__":
    main()
