"""Any folder of pairs: rgb/ beside depth/ (the truth), low/ (the sensor's own map) if there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from crispdepth.io import read_depth, read_rgb
from crispdepth.types import Depth, InputError, Mask, Rgb, Sample

Readers = dict[str, Callable[[], Sample]]  # name -> reads that sample; nothing is read before it is called

LAYOUT = "rgb/NAME.jpg (or png …) beside depth/NAME.png (or exr, npy …); optional: low/NAME.png"
SUFFIXES = ("color", "colour", "rgb", "image", "depth", "low", "mm")  # words that may end a file's stem
FILES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".exr", ".pfm", ".npy", ".npz", ".bmp", ".webp")


def rgb_tensor(path: Path) -> Rgb:
    """A colour file as (1, 3, h, w) float32 in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(read_rgb(path).transpose(2, 0, 1)))[None]


def depth_tensor(path: Path, unit: str | None) -> tuple[Depth, Mask]:
    """A depth file as (1, 1, h, w) metres (or its own values, for ``relative``), and its mask."""
    read = read_depth(path, unit)
    return torch.from_numpy(read.depth)[None, None], torch.from_numpy(read.valid)[None, None]


def stem(path: Path) -> str:
    """The name that pairs files: without extension and without one last word such as ``_depth``, ``_rgb``."""
    head, _, last = path.stem.rpartition("_")
    return head if head and last.lower() in SUFFIXES else path.stem


def by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    """Files by their pairing name. Raises InputError when two files share one."""
    found: dict[str, Path] = {}
    for path in sorted(paths):
        if stem(path) in found:
            raise InputError(f"{path.name} and {found[stem(path)].name} pair by the same name: rename one")
        found[stem(path)] = path
    return found


def files_in(folder: Path) -> list[Path]:
    """The picture and depth files directly inside ``folder``, sorted."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in FILES and not p.name.startswith("."))


def read_pair(rgb_path: Path, depth_path: Path, unit: str | None, name: str, low_path: Path | None = None) -> Sample:
    """One RGB picture and its true depth of the same size; the sensor's low map if its path is given."""
    rgb = rgb_tensor(rgb_path)
    depth, depth_valid = depth_tensor(depth_path, unit)
    if rgb.shape[-2:] != depth.shape[-2:]:
        raise InputError(f"{rgb_path.name} and {depth_path.name} differ in size: true depth must fit its colours")
    low, valid = depth_tensor(low_path, unit) if low_path else (None, None)
    return Sample(rgb=rgb, depth=depth, depth_valid=depth_valid, low=low, valid=valid, name=name)


def samples(root: Path, unit: str | None = None) -> Readers:
    """Pairs by stem from ``root/rgb`` and ``root/depth`` (and ``root/low``); ``unit`` as in ``units.UNITS``."""
    if not (root / "rgb").is_dir() or not (root / "depth").is_dir():
        return {}
    rgbs, depths = by_stem(files_in(root / "rgb")), by_stem(files_in(root / "depth"))
    lows = by_stem(files_in(root / "low")) if (root / "low").is_dir() else {}
    names = sorted(rgbs.keys() & depths.keys())
    return {n: partial(read_pair, rgbs[n], depths[n], unit, n, lows.get(n)) for n in names}
