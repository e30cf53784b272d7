"""Is the error that crisp expects the error it makes? On held-back made-up scenes at x8, with holes in the low map; and
with noise, which is taken out first.

    python examples/expected_error.py [--quick]

Prints the mean of both, where there are readings and inside holes of 7 x 7 low pixels, and by noise.
"""

from __future__ import annotations

import sys

import torch

from crispdepth.careful import estimated
from crispdepth.data.sets import find
from crispdepth.degradation import downsample, punch_holes
from crispdepth.geometry import resize
from crispdepth.inference import predict
from crispdepth.models.catalog import load
from crispdepth.types import Sample

SCALE, HOLED, RADIUS = 8, 0.2, 3
NOISE = (0.01, 0.03)  # shares of the range


def main() -> None:
    model, sums = load("crisp"), torch.zeros(2 + len(NOISE), 3, dtype=torch.float64)
    readers = list(find("scenes", None).values())
    for number, read in enumerate(readers[:1] if "--quick" in sys.argv else readers):
        sample = read()
        assert sample.depth is not None
        assert sample.depth_valid is not None
        assert sample.rgb is not None
        low, valid = downsample(sample.depth, sample.depth_valid, SCALE)
        for row, share in enumerate(NOISE, start=2):
            grain = torch.randn(low.shape, generator=torch.Generator().manual_seed(number))
            noisy = low + share * (low.max() - low.min()) * grain
            found = predict(model, low=noisy, rgb=sample.rgb)
            assert found.error is not None
            off = (torch.from_numpy(found.depth) - sample.depth[0, 0]).abs()
            sums[row] += torch.tensor([float(off.sum()), float(found.error.sum()), off.numel()])
        valid = punch_holes(valid, HOLED, torch.Generator().manual_seed(number), RADIUS)
        made, expected = estimated(model, Sample(rgb=sample.rgb, low=torch.where(valid, low, 0), valid=valid))
        assert expected is not None
        seen, _ = resize(valid.float(), torch.ones_like(valid), (made.shape[-2], made.shape[-1]), "nearest")
        error = (made - sample.depth).abs()
        for row, where in enumerate((seen > 0, seen == 0)):
            sums[row] += torch.stack([error[where].sum(), expected[where].sum(), where.sum().double()]).double()
    words = ("readings", "holes", *(f"noise {share:.0%}" for share in NOISE))
    for word, (error, expected, count) in zip(words, sums.tolist(), strict=True):
        print(f"{word:9} error made {100 * error / count:.2f} cm, expected {100 * expected / count:.2f} cm")


if __name__ == "__main__":
    main()
