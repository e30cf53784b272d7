"""Lu: 6 pairs of 480x640 from a time-of-flight camera, 8-bit depth (Lu, Ren and Liu 2014)."""

from __future__ import annotations

from pathlib import Path

from crispdepth.data.folder import Readers
from crispdepth.data.middlebury import colour_depth_pairs

LAYOUT = "RGBD_NN_output_color.png beside RGBD_NN_output_depth.png"


def samples(root: Path) -> Readers:
    """The pairs as collected for DKN and its successors."""
    return colour_depth_pairs(root, "RGBD_")
