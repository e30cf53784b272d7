"""TOFDSR: 560 test pairs of 384x512 with a phone's own map of 144x192 (TOFDC; Yan et al. 2024, lists of DORNet)."""

from __future__ import annotations

from functools import partial
from pathlib import Path, PurePosixPath

from crispdepth.data.folder import Readers, find_file, list_lines, read_pair

LAYOUT = (
    "TOFDSR_Test.txt (lines: rgb,truth,low) beside TOFDC_split/Test/RGB/ID_rgb_crop.png, GT/ID_tgv_gt_crop.png, "
    "LR_Filled/ID_depth_crop_fill.png; to learn from: TOFDSR_Train.txt"
)


def samples(root: Path) -> Readers:
    """The listed test pairs, 16-bit millimetres; the lists may also lie inside TOFDC_split."""
    return _listed(root, "TOFDSR_Test.txt")


def training_samples(root: Path) -> Readers:
    """The listed training pairs."""
    return _listed(root, "TOFDSR_Train.txt")


def _listed(root: Path, list_name: str) -> Readers:
    """Pairs of one list; one whose low map is not there comes without it."""
    places = (root, root.parent)  # the lines begin with TOFDC_split/, which may be the root itself
    readers: Readers = {}
    for words in list_lines(root, [list_name], at_least=3):
        rgb, depth, low = (find_file(places, word) for word in words[:3])
        if rgb and depth:
            name = PurePosixPath(words[0]).name.removesuffix("_rgb_crop.png")
            readers[name] = partial(read_pair, rgb, depth, "mm", name, low)
    return readers
