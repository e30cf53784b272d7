"""Draws NearFarMix and its six rivals on two made-up scenes: picture, depth and classes of each.

python examples/draw_mixes.py [docs/mixes.jpg] [--quick]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from crispdepth.data.nearfarmix import MIXES
from crispdepth.data.scenes import CLASSES, scenes
from crispdepth.data.textures import Dice
from crispdepth.picture import Panel, Range, class_colours, class_panel, colours, comparison
from crispdepth.types import Sample

FIRST, SECOND, DRAW = 40, 49, 110  # seeds of the scenes and of what the mixes draw


def panel(sample: Sample, span: Range, title: str) -> Panel:
    """Picture, depth and classes of one sample side by side."""
    assert sample.rgb is not None
    assert sample.depth is not None
    assert sample.classes is not None
    rgb = np.round(sample.rgb[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    depth = sample.depth[0, 0].numpy()
    labels = class_colours(len(CLASSES))[sample.classes[0, 0].numpy()]
    return Panel(np.concatenate([rgb, colours(depth, depth > 0, span), labels], axis=1), title)


def main() -> None:
    """Draw, and say where it was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", default=Path("mixes.jpg"))
    parser.add_argument("--quick", action="store_true", help="small scenes, to see that it runs")
    asked = parser.parse_args()
    size = (36, 48) if asked.quick else (156, 208)
    first, second = (scenes(1, *size, seed) for seed in (FIRST, SECOND))
    assert first.depth is not None
    assert second.depth is not None
    both = torch.cat([first.depth, second.depth])
    span = Range.of(both.numpy(), both.numpy() > 0)
    assert first.classes is not None
    assert second.classes is not None
    there = class_panel(torch.cat([first.classes, second.classes])[:, 0].flatten(0, 1).numpy(), CLASSES, "")
    panels = [
        replace(panel(first, span, "a scene"), span=span),
        replace(panel(second, span, "another"), legend=there.legend),
    ]
    for name, mix in MIXES.items():
        panels.append(panel(mix(first, second, Dice(DRAW, "cpu")), span, name.replace("_", " ")))
    Image.fromarray(comparison(panels, columns=3)).save(asked.out, quality=88)
    print(f"wrote {asked.out}")


if __name__ == "__main__":
    main()
