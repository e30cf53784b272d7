"""How the classical filters got their settings: a small grid, measured on scenes made for tuning only.

Prints, for each setting, the error relative to bicubic (geometric mean over scenes) for low maps made by
antialiased bicubic, by averaging, by striding, and by averaging with noise, each at x4, x8 and x16. First
stands the mean over bicubic and average, by which the settings in models/classical.py were chosen: a
sensor's pixel gathers light from an area.

    python examples/tune_filters.py [--quick]
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from typing import Any

import torch

from crispdepth.data.sets import TUNING_SEED, scene_samples
from crispdepth.degradation import add_noise, crop_to_multiple, downsample
from crispdepth.metrics import rmse
from crispdepth.models.classical import (
    Bicubic,
    Fgs,
    FgsConfig,
    Guided,
    GuidedConfig,
    GuidedFilter,
    JointBilateral,
    JointBilateralConfig,
)
from crispdepth.types import Depth, Mask, Rgb, Sample

Case = tuple[Depth, Mask, Rgb, Depth]
ROUNDS = ((0, 2), (3, 1), (5, 1), (6, 0))
GRID: dict[str, list[Any]] = {  # lists of GuidedFilters, each with its config
    "fgs": [Fgs(FgsConfig(a, b, *r)) for a, b, r in itertools.product((1.0, 2.0, 3.0), (0.02, 0.03, 0.05), ROUNDS)],
    "guided": [Guided(GuidedConfig(a, b, *r)) for a, b, r in itertools.product((1.0, 1.5, 2.0), (5e-3, 1e-2), ROUNDS)],
    "joint-bilateral": [
        JointBilateral(JointBilateralConfig(a, b, *r))
        for a, b, r in itertools.product((0.35, 0.5), (0.03, 0.05, 0.08), ((0, 2), (1, 1), (2, 0)))
    ],
}
KINDS: dict[str, tuple[str, float]] = {
    "bicubic": ("bicubic", 0.0),
    "average": ("average", 0.0),
    "strided": ("strided", 0.0),
    "noisy": ("average", 0.01),
}


def cases(samples: list[Sample], kernel: str, sigma: float, scale: int) -> Iterator[Case]:
    """Low map, mask, colours and truth of every scene."""
    generator = torch.Generator().manual_seed(0)
    for sample in samples:
        assert sample.depth is not None
        assert sample.rgb is not None
        middle = slice(120, 360), slice(160, 480)
        depth, rgb = (crop_to_multiple(x[:, :, *middle], scale) for x in (sample.depth, sample.rgb))
        low, valid = downsample(depth, torch.ones_like(depth, dtype=torch.bool), scale, kernel)
        yield (add_noise(low, sigma, generator, power=1) if sigma else low), valid, rgb, depth


def ratio(model: GuidedFilter, made: list[Case]) -> float:
    """RMSE over bicubic's, geometric mean over the cases."""
    logs = []
    for low, valid, rgb, depth in made:
        everywhere = torch.ones_like(depth, dtype=torch.bool)
        plain = Bicubic()(low, valid, (depth.shape[-2], depth.shape[-1]))
        logs.append((rmse(model(low, valid, rgb), depth, everywhere) / rmse(plain, depth, everywhere)).log())
    return float(torch.stack(logs).mean().exp())


def main(quick: bool) -> None:
    """Measure the grid and print it, the best setting of each filter marked."""
    count, scales = (2, (8,)) if quick else (8, (4, 8, 16))
    samples = [read() for read in scene_samples(TUNING_SEED, count).values()]
    made = {k: [list(cases(samples, *how, s)) for s in scales] for k, how in KINDS.items()}
    for name, models in GRID.items():
        best: tuple[float, str] | None = None
        for model in models[:1] if quick else models:
            each = {k: sum(ratio(model, c) for c in by_scale) / len(by_scale) for k, by_scale in made.items()}
            mean = (each["bicubic"] + each["average"]) / 2
            print(f"{mean:.3f}", " ".join(f"{k} {v:.3f}" for k, v in each.items()), model.config, flush=True)
            if best is None or mean < best[0]:
                best = mean, str(model.config)
        print(f"best {name}: {best}", flush=True)


if __name__ == "__main__":
    main("--quick" in sys.argv)
