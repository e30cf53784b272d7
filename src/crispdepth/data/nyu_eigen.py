"""NYUv2, Eigen's split: 654 test pairs of 480x640 and 24,231 to learn from, as BTS and AdaBins list them.

Depth is the Kinect's own, 16-bit millimetres with 0 for holes: the test maps are the .mat's rawDepths, not the
filled ones of set `nyu`. BTS blackened the test pictures outside rows 7:474 and columns 7:632. Published figures
are measured within rows 45:471 and columns 41:601 (Eigen's crop) and 0.001 to 10 m; that is a protocol's business,
and nothing is cropped here. The split is not that of `nyu`: what learnt from these training frames may have seen
the rooms of `nyu`'s test pairs.
"""

from __future__ import annotations

from pathlib import Path

from crispdepth.data.folder import Readers, listed_pairs

TEST_LISTS = ("nyudepthv2_test_files_with_gt.txt", "nyu_test.txt")
TRAIN_LISTS = ("nyudepthv2_train_files_with_gt.txt", "nyu_train.txt")
LAYOUT = (
    f"{TEST_LISTS[0]} (lines: rgb depth focal) beside official_splits/test/SCENE/rgb_N.jpg, sync_depth_N.png; "
    f"to learn from: {TRAIN_LISTS[0]} and sync/"
)


def samples(root: Path) -> Readers:
    """The listed test pairs, in official_splits/test, test or ``root`` itself."""
    folders = ("official_splits/test", "test", ".")
    return listed_pairs(root, TEST_LISTS, folders, folders, "mm")


def training_samples(root: Path) -> Readers:
    """The listed training pairs, in sync, train or ``root`` itself."""
    folders = ("sync", "train", ".")
    return listed_pairs(root, TRAIN_LISTS, folders, folders, "mm")
