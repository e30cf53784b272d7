"""DIML/CVL RGB-D, indoor: about 500 test and 1600 training pairs from a Kinect v2 (Cho et al. 2021).

This is the sample release: 756x1344 (HR) and 288x512 (LR), depth in 16-bit millimetres, 0 for holes. What its raw
maps are called could not be checked: their names are formed like those of the filled ones, and they are taken only
where a filled one is missing. depth_vi/ holds pictures of depth, no depth. The full release (col/, up_png/,
raw_png/ by date) has no published split: hand it over as set `folder`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from crispdepth.data.folder import Readers, find_file, read_pair

LAYOUT = (
    "test/HR/SCENE/color/N_c.png beside SCENE/depth_filled/N_depth_filled.png (or depth_raw/N_depth_raw.png; "
    "LR for HR; all of it in indoor/); to learn from: train/"
)


def samples(root: Path) -> Readers:
    """The test pairs; the large ones (HR) where both sizes are there."""
    return _part(root, "test")


def training_samples(root: Path) -> Readers:
    """The training pairs, likewise."""
    return _part(root, "train")


def _part(root: Path, part: str) -> Readers:
    for folder in (base / part / quality for quality in ("HR", "LR", ".") for base in (root, root / "indoor")):
        readers: Readers = {}
        for rgb in sorted(folder.glob("*/color/*_c.png")):
            scene, stem = rgb.parent.parent, rgb.name.removesuffix("_c.png")
            depth = find_file([scene], f"depth_filled/{stem}_depth_filled.png")
            depth = depth or find_file([scene], f"depth_raw/{stem}_depth_raw.png")
            if depth:
                name = f"{scene.name}/{stem}"
                readers[name] = partial(read_pair, rgb, depth, "mm", name)
        if readers:
            return readers
    return {}
