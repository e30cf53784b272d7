"""Any folder of pairs: rgb/ beside depth/ (the truth), low/ (the sensor's own map) if there is one; lists of pairs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from crispdepth.atomic import opened, shown
from crispdepth.geometry import Camera
from crispdepth.intrinsics import Intrinsics, read_intrinsics
from crispdepth.io import read_depth, read_rgb
from crispdepth.types import Depth, InputError, Mask, Rgb, Sample

Readers = dict[str, Callable[[], Sample]]  # name -> reads that sample; nothing is read before it is called

LAYOUT = "rgb/NAME.jpg (or png …) beside depth/NAME.png (or exr, npy …); optional: low/NAME.png, intrinsics.json"
COLOUR_WORDS, DEPTH_WORDS = ("color", "colour", "rgb", "image"), ("depth", "low", "mm", "confidence")
NAMING = re.compile(rf"(?i)(?:^|[_.\-])({'|'.join((*COLOUR_WORDS, *DEPTH_WORDS, 'img'))})(?=$|[_.\-])")
UNIT_NUMBER = re.compile(r"(?i)(depth)[_.\-](?:256|1000|5000)$")
PICTURES = (".jpg", ".jpeg", ".bmp", ".webp")  # these hold no depth
FILES = (".png", ".jpg", ".jpeg", ".heic", ".heif", ".tif", ".tiff", ".exr", ".pfm", ".npy", ".npz", ".bmp", ".webp")


def rgb_tensor(path: Path) -> Rgb:
    """A colour file as (1, 3, h, w) float32 in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(read_rgb(path).transpose(2, 0, 1)))[None]


def depth_tensor(path: Path, unit: str | None) -> tuple[Depth, Mask]:
    """A depth file as (1, 1, h, w) metres (or its own values, for ``relative``), and its mask."""
    read = read_depth(path, unit)
    return torch.from_numpy(read.depth)[None, None], torch.from_numpy(read.valid)[None, None]


def stem(path: Path) -> str:
    """The name that pairs files: without extension and words such as ``_depth``, ``rgb_``, ``-color-``, ``.image``."""
    name, count = NAMING.subn("", path.stem)
    return (name.strip("_.-") if count else name) or path.stem


def stem_without_unit(path: Path) -> str:
    """``stem``, also without a unit's number after the word depth: a_depth_5000, b_depth_256."""
    return stem(path.with_name(UNIT_NUMBER.sub(r"\1", path.stem) + path.suffix))


def _said(path: Path) -> str:
    """What a file says it is: the last such word of its name, or nothing."""
    return next((word.lower() for word in reversed(NAMING.findall(path.stem)) if word.lower() != "img"), "")


def only(kind: str, paths: list[Path]) -> list[Path]:
    """Of a folder that holds pictures beside depth, the files that are ``low``, ``rgb`` or ``confidence`` by the
    words of their names or their format; all where none is."""
    others = {
        "low": (*COLOUR_WORDS, "confidence"),
        "rgb": DEPTH_WORDS,
        "confidence": (*COLOUR_WORDS, "depth", "low", "mm"),
    }[kind]
    kept = [p for p in paths if _said(p) not in others and (kind == "rgb" or p.suffix.lower() not in PICTURES)]
    if kind == "rgb":  # a.jpg beside a.png: the other is its depth
        pictures = {stem(p) for p in kept if p.suffix.lower() in PICTURES}
        kept = [p for p in kept if p.suffix.lower() in PICTURES or stem(p) not in pictures]
    return kept or paths


def by_stem(paths: Iterable[Path], named: Callable[[Path], str] = stem) -> dict[str, Path]:
    """Files by their pairing name, or as ``named``. Raises InputError when two files share one."""
    found: dict[str, Path] = {}
    for path in sorted(paths):
        name = named(path)
        if name in found:
            raise InputError(f"{path.name} and {found[name].name} go by the same name: rename one")
        found[name] = path
    return found


def files_in(folder: Path) -> list[Path]:
    """The picture and depth files directly inside ``folder``, sorted."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in FILES and not p.name.startswith("."))


def in_order(names: Sequence[str]) -> list[int]:
    """Which name comes first, second …: numbers in them count as numbers, so 2 comes before 10."""

    def key(name: str) -> list[tuple[int, int, str]]:
        return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"([0-9]+)", name)]

    return sorted(range(len(names)), key=lambda i: key(names[i]))


def check_pair(rgb: Rgb, depth: Depth, rgb_path: Path, depth_path: Path) -> None:
    """Raise InputError unless a picture and its true depth have one size."""
    if rgb.shape[-2:] != depth.shape[-2:]:
        raise InputError(f"{rgb_path.name} and {depth_path.name} differ in size: true depth must fit its colours")


def read_pair(rgb_path: Path, depth_path: Path, unit: str | None, name: str, low_path: Path | None = None) -> Sample:
    """One RGB picture and its true depth of the same size; the sensor's low map if its path is given."""
    rgb = rgb_tensor(rgb_path)
    depth, depth_valid = depth_tensor(depth_path, unit)
    check_pair(rgb, depth, rgb_path, depth_path)
    low, valid = depth_tensor(low_path, unit) if low_path else (None, None)
    return Sample(rgb=rgb, depth=depth, depth_valid=depth_valid, low=low, valid=valid, name=name)


def samples(root: Path, unit: str | None = None) -> Readers:
    """Pairs by stem from ``root/rgb`` and ``root/depth`` (and ``root/low``); ``unit`` as in ``units.UNITS``.

    ``root/intrinsics.json`` is the camera of all.
    """
    if not (root / "rgb").is_dir() or not (root / "depth").is_dir():
        return {}
    rgbs, depths = by_stem(files_in(root / "rgb")), by_stem(files_in(root / "depth"))
    lows = by_stem(files_in(root / "low")) if (root / "low").is_dir() else {}
    names = sorted(rgbs.keys() & depths.keys())
    readers: Readers = {n: partial(read_pair, rgbs[n], depths[n], unit, n, lows.get(n)) for n in names}
    if not (root / "intrinsics.json").is_file():
        return readers
    camera = read_intrinsics(root / "intrinsics.json")
    return {n: partial(_with_camera, read, camera) for n, read in readers.items()}


def _with_camera(read: Callable[[], Sample], camera: Intrinsics) -> Sample:
    sample = read()
    assert sample.rgb is not None
    return replace(sample, intrinsics=camera.camera((sample.rgb.shape[-2], sample.rgb.shape[-1])).matrix())


def unpaired(root: Path) -> list[Path]:
    """The files of ``root/rgb`` and ``root/depth`` that ``samples`` leaves out, as they have no partner."""
    sides = [by_stem(files_in(root / side)) for side in ("rgb", "depth")]
    return sorted(path for side in sides for name, path in side.items() if not all(name in other for other in sides))


def find_file(places: Iterable[Path], path: str) -> Path | None:
    """``path`` in the first of ``places`` that has such a file; None where none has."""
    return next((place / path for place in places if (place / path).is_file()), None)


def list_lines(root: Path, names: Iterable[str], at_least: int = 2) -> list[list[str]]:
    """The words of each line of a list: the first of ``names`` that is in ``root``; nothing where none is.

    Blanks and commas part words; a leading / is dropped, since paths in lists are relative. Empty lines are
    skipped. Raises InputError for a line of fewer than ``at_least`` words.
    """
    path = next((root / name for name in names if (root / name).is_file()), None)
    if path is None:
        return []
    with opened(path) as file:
        text = file.read().decode("utf-8", "replace")
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = [word.lstrip("/") for word in line.replace(",", " ").split()]
        if 0 < len(words) < at_least:
            raise InputError(f"{shown(path)}, line {number}: names {len(words)} files, not {at_least}: take it out")
        lines += [words] * bool(words)
    return lines


def listed_pairs(
    root: Path, lists: Iterable[str], rgb_folders: Iterable[str], depth_folders: Iterable[str], unit: str
) -> Readers:
    """The pairs of a list whose lines name a picture, its depth, and the focal length in pixels, if they say so.

    Both files are looked for in the named folders of ``root``, in turn. A line without its two files is left out.
    """
    rgb_places, depth_places = [root / f for f in rgb_folders], [root / f for f in depth_folders]
    readers: Readers = {}
    for words in list_lines(root, lists):
        rgb, depth = find_file(rgb_places, words[0]), find_file(depth_places, words[1])
        if rgb and depth:
            name = str(PurePosixPath(words[0]).with_suffix(""))
            readers[name] = partial(_with_focal, partial(read_pair, rgb, depth, unit, name), words[2:3])
    return readers


def _with_focal(read: Callable[[], Sample], words: list[str]) -> Sample:
    """A sample with the camera that a list's third word tells of: its optical axis meets the middle."""
    sample = read()
    try:
        focal_px = float(words[0])
    except (IndexError, ValueError):
        return sample
    if not 0 < focal_px < math.inf:
        return sample
    assert sample.rgb is not None
    height, width = sample.rgb.shape[-2:]
    return replace(sample, intrinsics=Camera.centred(focal_px, (height, width)).matrix())
