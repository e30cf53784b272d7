"""RGB-D-D: 405 test pairs of 384x512 with a phone's own map of 144x192 (He et al., CVPR 2021)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from crispdepth.data.folder import Readers, read_pair

CATEGORIES = ("models", "plants", "portraits")  # 40 + 68 + 297 test pairs; those of `lights` are not among the 405
LAYOUT = (
    "CATEGORY/CATEGORY_test/ID/ID_RGB.jpg, ID_HR_gt.png and ID_LR_fill_depth.png, CATEGORY = models, plants, portraits "
    "(or Test/RGBDD_RGB/, RGBDD_GT/, RGBDD_LR/); to learn from: CATEGORY_train (or Train)"
)


def samples(root: Path) -> Readers:
    """The test pairs, 16-bit millimetres, in the authors' folders or in the flat ones of SPFNet and others."""
    return _by_category(root, "test") or _flat(root / "Test")


def training_samples(root: Path) -> Readers:
    """The 2215 training pairs (249 models, 380 plants, 1586 portraits)."""
    return _by_category(root, "train") or _flat(root / "Train")


def _by_category(root: Path, part: str) -> Readers:
    readers: Readers = {}
    for category in CATEGORIES:
        for rgb in sorted((root / category / f"{category}_{part}").glob("*/*_RGB.jpg")):
            _add(readers, f"{category}/{rgb.parent.name}", rgb, rgb.parent, rgb.parent)
    return readers


def _flat(folder: Path) -> Readers:
    readers: Readers = {}
    for rgb in sorted((folder / "RGBDD_RGB").glob("*_RGB.jpg")):
        _add(readers, rgb.name.removesuffix("_RGB.jpg"), rgb, folder / "RGBDD_GT", folder / "RGBDD_LR")
    return readers


def _add(readers: Readers, name: str, rgb: Path, truths: Path, lows: Path) -> None:
    """One pair, if its truth is there; without a low map where that is not."""
    stem = rgb.name.removesuffix("_RGB.jpg")
    depth, low = truths / f"{stem}_HR_gt.png", lows / f"{stem}_LR_fill_depth.png"
    if depth.is_file():
        readers[name] = partial(read_pair, rgb, depth, "mm", name, low if low.is_file() else None)
