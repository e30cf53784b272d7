"""NYUv2: 1449 labelled pairs of 480x640, metres; the last 449 are the test set."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import torch

from crispdepth.atomic import shown
from crispdepth.data.folder import Readers, read_pair
from crispdepth.io import read_label
from crispdepth.types import InputError, Sample

LAYOUT = "nyu_depth_v2_labeled.mat, or N_color.jpg beside N_depth.npy (optional: N_classes13.png)"
# Of N_classes13.png, from 1 on, 0 being unlabelled: Couprie et al. 2013, in the order of Handa et al. 2016.
CLASSES = (
    "bed",
    "books",
    "ceiling",
    "chair",
    "floor",
    "furniture",
    "objects",
    "picture",
    "sofa",
    "table",
    "tv",
    "wall",
    "window",
)
CAMERA = ((518.858, 0.0, 325.582), (0.0, 519.470, 253.736), (0.0, 0.0, 1.0))  # pixels, as calibrated by its authors
TRAIN = 1000  # pairs 0..999 train, 1000..1448 test, in the order of the .mat (DKN, FDSR, SGNet, NAIMA)


def samples(root: Path) -> Readers:
    """The test pairs, from the labelled .mat (``root`` is it or holds it) or from single files."""
    mat = _mat(root)
    if mat.is_file():
        return mat_samples(mat, first=TRAIN)
    readers: Readers = {}
    for rgb in sorted(root.glob("*_color.jpg")):
        name = rgb.name.removesuffix("_color.jpg")
        if (root / f"{name}_depth.npy").is_file():
            readers[name] = partial(_read_files, root, name)
    return readers


def training_samples(root: Path) -> Readers:
    """The training pairs, from the labelled .mat (``root`` is it or holds it)."""
    return mat_samples(_mat(root), last=TRAIN) if _mat(root).is_file() else {}


def _mat(root: Path) -> Path:
    return root if root.suffix == ".mat" else root / "nyu_depth_v2_labeled.mat"


def mat_samples(mat: Path, first: int = 0, last: int | None = None) -> Readers:
    """Pairs ``first`` to ``last`` (excluded) of the labelled .mat, an HDF5 file with reversed axes."""
    try:
        with h5py.File(mat) as file:
            count = file["depths"].shape[0]
    except (OSError, KeyError, ValueError, AttributeError, IndexError) as error:
        raise InputError(f"{mat} is not NYUv2's labelled .mat (HDF5 with images and depths): {error}") from None
    return {str(i): partial(_read_mat, mat, i) for i in range(count)[first:last]}


def _read_mat(mat: Path, index: int) -> Sample:
    try:
        with h5py.File(mat) as file:
            rgb = np.asarray(file["images"][index], dtype=np.uint8).transpose(0, 2, 1)  # (3, w, h) on disk
            depth = np.asarray(file["depths"][index], dtype=np.float32).T  # (w, h) on disk
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{mat} is damaged at pair {index}: {shown(error)}: download it again") from error
    depth_tensor = torch.from_numpy(np.ascontiguousarray(depth))[None, None]
    return Sample(
        rgb=torch.from_numpy(np.ascontiguousarray(rgb))[None].float() / 255,
        depth=depth_tensor,
        depth_valid=depth_tensor > 0,
        intrinsics=torch.tensor([CAMERA]),
        name=str(index),
    )


def _read_files(root: Path, name: str) -> Sample:
    pair = read_pair(root / f"{name}_color.jpg", root / f"{name}_depth.npy", "m", name)
    sample = replace(pair, intrinsics=torch.tensor([CAMERA]))
    labels = root / f"{name}_classes13.png"
    if not labels.is_file():
        return sample
    classes = read_label(labels) - 1  # 0 on disk = unlabelled, which wraps to 255
    return replace(sample, classes=torch.from_numpy(classes)[None, None])
