"""How the noise is taken out of low maps: non-local means of several strengths and patches, by what crisp makes of it.

    python examples/tune_denoising.py [--page docs/sensors.md] [--quick]

Error of crisp's result with the noise taken out first, as a share of the same without (geometric mean over scenes made
for tuning only, 640x480, noise new in each): RMSE and mean absolute error. Strength and patch in noise.py were chosen
by a trial like it on six other scenes; the search window, of which 9 is better here, was kept for the large smooth
surfaces of two Middlebury scenes.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

import torch

from crispdepth import noise
from crispdepth.bench.report import write_between
from crispdepth.careful import sharpened
from crispdepth.data.sets import TUNING_SEED, scene_samples
from crispdepth.degradation import downsample
from crispdepth.models.catalog import load
from crispdepth.types import Sample

SETTINGS = [*itertools.product((0.5, 0.7, 0.85, 1.0), (3, 5), (15,)), (0.7, 7, 15), (0.7, 5, 9), (0.7, 5, 21)]
CASES = ((4, 0.03), (8, 0.01), (8, 0.03), (16, 0.03))  # scale, noise as a share of the range


def seen(scene: Sample, scale: int, share: float, seed: int) -> Sample:
    """The scene as a sensor sees it whose noise is ``share`` of the range."""
    assert scene.depth is not None
    low, valid = downsample(scene.depth, torch.ones_like(scene.depth, dtype=torch.bool), scale)
    grain = torch.randn(low.shape, generator=torch.Generator().manual_seed(seed))
    return Sample(rgb=scene.rgb, low=low + share * (low.max() - low.min()) * grain, valid=valid)


def errors(scene: Sample, sample: Sample) -> torch.Tensor:
    """RMSE and mean absolute error of crisp, as logarithms."""
    assert scene.depth is not None
    off = sharpened(load("crisp"), sample) - scene.depth
    return torch.stack([off.square().mean().sqrt(), off.abs().mean()]).log()


def shares(scenes: list[Sample], scale: int, share: float) -> Iterator[str]:
    """A cell for each of SETTINGS."""
    made = [seen(scene, scale, share, seed) for seed, scene in enumerate(scenes)]
    plain = [errors(scene, sample) for scene, sample in zip(scenes, made, strict=True)]
    ours = noise.STRENGTH, noise.PATCH, noise.SEARCH
    for setting in SETTINGS:
        noise.STRENGTH, noise.PATCH, noise.SEARCH = setting
        gains = []
        for scene, sample, was in zip(scenes, made, plain, strict=True):
            assert sample.low is not None
            assert sample.valid is not None
            low = noise.calmed(sample.low, sample.valid, noise.noise_of(sample.low, sample.valid))
            gains.append(errors(scene, Sample(rgb=sample.rgb, low=low, valid=sample.valid)) - was)
        rmse, off = torch.stack(gains).mean(0).exp().tolist()
        yield f"{rmse:.2f}, {off:.2f}"
    noise.STRENGTH, noise.PATCH, noise.SEARCH = ours


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--page", type=Path)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    cases = CASES[3:] if given.quick else CASES
    scenes = [read() for read in scene_samples(TUNING_SEED, 1 if given.quick else 4).values()]
    columns = [list(shares(scenes, *case)) for case in cases]
    heads = " | ".join(f"x{scale}, {share:.0%}" for scale, share in cases)
    lines = [f"| strength, patch, search | {heads} |", "|---" * (len(cases) + 1) + "|"]
    for setting, cells in zip(SETTINGS, zip(*columns, strict=True), strict=True):
        chosen = " (ours)" if setting == (noise.STRENGTH, noise.PATCH, noise.SEARCH) else ""
        lines.append(f"| {setting[0]:g}, {setting[1]}, {setting[2]}{chosen} | {' | '.join(cells)} |")
    table = "\n".join(lines)
    print(table)
    if given.page:
        write_between(given.page, "denoising", table)


if __name__ == "__main__":
    main()
