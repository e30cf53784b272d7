"""How often --align auto finds a known shift on real pairs, and leaves what is in place.

    python examples/try_align.py [--data FOLDER] [--page docs/sensors.md] [--quick]

Each pair's depth, shrunken x4, x8 and x16, is put out of place by (3, -2) and (-5, 4) px, and left in place. FOLDER has
living_room/, middlebury/, lu/ and rgbd_holes/ (TUM: holes, and out of place a little by itself); without it there is
nothing to try, and that is said.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

from crispdepth import io
from crispdepth.bench.report import write_between
from crispdepth.careful import depth_shift
from crispdepth.degradation import downsample

SCALES, SHIFTS, EDGE_PX = (4, 8, 16), ((3, -2), (-5, 4)), 16  # a multiple of every scale
PAIRS = (
    ("living room", "living_room/color/*.*", "living_room/depth_mm/*.png", "mm"),
    ("Middlebury", "middlebury/*color.png", "middlebury/*depth.png", "relative"),
    ("Lu", "lu/*color.png", "lu/*depth.png", "relative"),
    ("TUM", "rgbd_holes/*color.png", "rgbd_holes/*depth_5000.png", "tum"),
)
HEAD = "| pairs | scale | shifts found to 1 px | left alone | wrong | in place, and moved |\n|---|---|---|---|---|---|"
MOST = 6  # pairs of each kind, from the first to the last


def found(depth: io.DepthFile, rgb: torch.Tensor, shift: tuple[int, int], scale: int) -> tuple[int, int]:
    """What --align auto finds where the depth must move by ``shift`` to fit the picture."""
    height, width = (n // EDGE_PX * EDGE_PX - 2 * EDGE_PX for n in depth.depth.shape)
    right, down = shift
    moved = (..., slice(EDGE_PX + down, EDGE_PX + down + height), slice(EDGE_PX + right, EDGE_PX + right + width))
    here = (..., slice(EDGE_PX, EDGE_PX + height), slice(EDGE_PX, EDGE_PX + width))
    values, valid = (torch.from_numpy(x)[None, None][moved].contiguous() for x in (depth.depth, depth.valid))
    low, seen = downsample(values, valid, scale)
    return depth_shift(low, seen, rgb[here].contiguous())


def row(name: str, pairs: list[tuple[io.DepthFile, torch.Tensor]], scale: int) -> str:
    """A line of the table: what was found of the shifts of some pairs, and what was moved though it was in place."""
    right = left = 0
    for depth, rgb in pairs:
        for shift in SHIFTS:
            got = found(depth, rgb, shift, scale)
            near = max(abs(a - b) for a, b in zip(got, shift, strict=True)) <= 1
            right, left = right + near, left + (not near and got == (0, 0))
    count = len(pairs) * len(SHIFTS)
    moved = sum(found(depth, rgb, (0, 0), scale) != (0, 0) for depth, rgb in pairs)
    cells = f"{right} of {count} | {left} | {count - right - left} | {moved} of {len(pairs)}"
    return f"| {len(pairs)} of {name} | x{scale} | {cells} |"


def real_pairs(data: Path, most: int) -> dict[str, list[tuple[io.DepthFile, torch.Tensor]]]:
    """Depth and picture of up to ``most`` of each of PAIRS that lies in ``data``, from the first to the last."""
    found: dict[str, list[tuple[io.DepthFile, torch.Tensor]]] = {}
    for name, colours, depths, unit in PAIRS:
        files = list(zip(sorted(data.glob(colours)), sorted(data.glob(depths)), strict=True))
        files = files[:: -(-len(files) // most)] if files else []
        pairs = [(io.read_depth(d, unit), torch.from_numpy(io.read_rgb(c)).permute(2, 0, 1)[None]) for c, d in files]
        found |= {name: pairs} if pairs else {}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("CRISPDEPTH_DATA", "../shared/data")))
    parser.add_argument("--page", type=Path, help="put the table between its marks in this page")
    parser.add_argument("--quick", action="store_true", help="one pair of each kind, at x4")
    asked = parser.parse_args()
    rows = [HEAD]
    for name, pairs in real_pairs(asked.data, 1 if asked.quick else MOST).items():
        rows += [row(name, pairs, scale) for scale in (SCALES[:1] if asked.quick else SCALES)]
    if len(rows) == 1:
        print(f"no real data at {asked.data}: nothing tried (--data FOLDER)")
        return
    print("\n".join(rows))
    if asked.page is not None:
        write_between(asked.page, "align", "\n".join(rows))


if __name__ == "__main__":
    main()
