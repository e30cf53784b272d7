"""Middlebury: the usual 30 pairs of about 370x430, and the six large ones; 8-bit disparity."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from crispdepth.data.folder import Readers, read_pair

LAYOUT = "Middlebury_NN_output_color.png beside Middlebury_NN_output_depth.png"
LARGE_LAYOUT = "NAME_color.png beside NAME_big.png (8-bit disparity, about 1088x1376)"
NOISY_LAYOUT = "NAME_color.png, NAME_big.png and the noisy low map NAME_depth_K_n.png, 2**K times smaller"


def colour_depth_pairs(root: Path, prefix: str, truth: str = "_depth.png", low: str | None = None) -> Readers:
    """Files ``{prefix}*_color.png`` beside ``{prefix}*{truth}``, depth in 8-bit levels, none missing.

    ``low``: how the names of the sensor's low maps end; pairs without one are left out.
    """
    readers: Readers = {}
    for rgb in sorted(root.glob(f"{prefix}*_color.png")):
        name = rgb.name.removesuffix("_color.png")
        depth = root / (name + truth)
        low_path = None if low is None else root / (name + low)
        if depth.is_file() and (low_path is None or low_path.is_file()):
            readers[name] = partial(read_pair, rgb, depth, "relative", name, low_path)
    return readers


def samples(root: Path) -> Readers:
    """Scharstein and Pal 2007, Hirschmüller and Scharstein 2007, as collected for DKN and its successors."""
    return colour_depth_pairs(root, "Middlebury_")


def large_samples(root: Path) -> Readers:
    """Art, Books, Dolls, Laundry, Moebius, Reindeer at full size, as the CTKT protocol uses them."""
    return colour_depth_pairs(root, "", "_big.png")


def noisy_samples(root: Path, power: int) -> Readers:
    """The large pairs with low maps as a time-of-flight camera sees them, 2**power times smaller (Park et al. 2011)."""
    return colour_depth_pairs(root, "", "_big.png", f"_depth_{power}_n.png")
