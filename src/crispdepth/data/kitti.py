"""KITTI depth, Eigen's split: street scenes with 652 sparse test maps (Geiger et al. 2013, Uhrig et al. 2017).

Pictures of the raw data with the improved truth: 16-bit PNG, metres = v / 256, and 0 for the many pixels without a
reading. 45 of the 697 test lines name no truth ("None") and are left out. Pictures come whole, 370-376 x 1224-1242.
What figures are measured on is a protocol's business: the KB crop (the lowest 352 rows, the middle 1216 columns),
Garg's crop, and the cap of 80 m. The truth is too sparse to make low maps from: most of their pixels are holes.
"""

from __future__ import annotations

from pathlib import Path

from crispdepth.data.folder import Readers, listed_pairs

TEST_LISTS = ("kitti_eigen_test_files_with_gt.txt", "eigen_test_files_with_gt.txt", "kitti_eigen_test.txt")
TRAIN_LISTS = ("kitti_eigen_train_files_with_gt.txt", "eigen_train_files_with_gt.txt", "kitti_eigen_train.txt")
LAYOUT = (
    f"{TEST_LISTS[0]} (lines: rgb depth focal) beside raw/DATE/DRIVE/image_02/data/N.png and "
    f"gts/DRIVE/proj_depth/groundtruth/image_02/N.png; to learn from: {TRAIN_LISTS[0]}"
)
# As AdaBins keeps them, as the Monocular Depth Toolbox does, as BTS does, and as the archives unpack.
RGB_FOLDERS = ("raw", "input", ".")
DEPTH_FOLDERS = (
    "gts",
    "gt_depth",
    "data_depth_annotated",
    "data_depth_annotated/train",
    "data_depth_annotated/val",
    "train",
    "val",
    ".",
)


def samples(root: Path) -> Readers:
    """The listed test pairs that have a truth."""
    return listed_pairs(root, TEST_LISTS, RGB_FOLDERS, DEPTH_FOLDERS, "kitti")


def training_samples(root: Path) -> Readers:
    """The listed training pairs, left camera."""
    return listed_pairs(root, TRAIN_LISTS, RGB_FOLDERS, DEPTH_FOLDERS, "kitti")
