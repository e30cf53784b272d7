"""Recordings in their published layout, frame by frame: TUM RGB-D, ARKitScenes, Open3D (Azure Kinect)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from crispdepth.atomic import shown
from crispdepth.data.folder import by_stem, files_in, in_order, list_lines
from crispdepth.types import InputError

SAME_MOMENT_MS = 2  # ARKitScenes rounds one moment to different milliseconds
OPEN3D_COLOURS = ("color", "image", "rgb")
OPEN3D_CAMERAS = ("intrinsic.json", "camera_intrinsic.json", "intrinsics.json")
LINE = "1.0 rgb/a.jpg 1.0 depth/a.png"
LISTED = f"a .txt is read as a list of frames, with lines such as {LINE} (depth in 1/5000 m, or as --unit says)"
ARKIT_COLOURS = ("wide", "color", "vga_wide", "lowres_wide")  # the largest first


@dataclass(frozen=True)
class Frame:
    """One moment of a recording: its depth, picture, and what else there is."""

    name: str
    low: Path
    rgb: Path
    confidence: Path | None = None
    intrinsics: Path | None = None


@dataclass(frozen=True)
class Recording:
    """Frames, the unit that the layout prescribes for their depth, and a line for each picture without depth."""

    frames: list[Frame]
    unit: str
    lonely: list[str]


def recording(path: Path) -> Recording | None:
    """The recording at ``path``; None where it is none. Raises InputError for a damaged one.

    ``path``: an associations file of TUM RGB-D's associate.py, or a folder with one or with ARKitScenes'
    ``lowres_depth/`` in it, or one as Open3D's reconstruction system and its Azure Kinect recorder make it: ``color/``
    (or ``image/``, ``rgb/``) beside ``depth/`` and an ``intrinsic.json``.
    """
    if path.is_dir() and (path / "lowres_depth").is_dir():
        return _arkit(path)
    if path.is_dir():
        listed = [path / name for name in ("associations.txt", "associate.txt") if (path / name).is_file()]
        return _tum(listed[0]) if listed else _open3d(path)
    return _tum(path) if path.suffix.lower() == ".txt" else None


def _tum(path: Path) -> Recording:
    """Lines of ``time file time file``, colour and depth in either order: depth is the one in a folder of that name."""
    if not path.is_file():
        raise InputError(f"{shown(path)}: no such file; check the path")
    frames, lonely = [], []
    for words in list_lines(path.parent, [path.name], at_least=1):
        if words[0].startswith("#"):
            continue
        if len(words) < 4:
            raise InputError(f"{shown(path)}: {LISTED}, not {shown(' '.join(words))[:60]!r}")
        files = sorted((words[1], words[3]), key=lambda name: "depth" in name.lower())
        if "depth" in files[0].lower() or "depth" not in files[1].lower():
            which = f"which of {shown(files[0])} and {shown(files[1])} is depth? name its folder depth"
            raise InputError(f"{shown(path)}: {LISTED}: {which}")
        rgb, low = (path.parent / name for name in files)
        if low.is_file() and rgb.is_file():
            frames.append(Frame(low.stem, low, rgb))
        else:
            lonely.append(f"{low if rgb.is_file() else rgb}: is listed in {path.name}, but is not there")
    return _checked(Recording(frames, "tum", lonely), path)


def _open3d(root: Path) -> Recording | None:
    """Pictures and depth in millimetres, paired by name; in the order of the numbers in their names, as Open3D does,
    where both are as many and most names differ: Redwood's hold the time, which is the same at the start alone."""
    camera = next((root / name for name in OPEN3D_CAMERAS if (root / name).is_file()), None)
    folder = next((root / name for name in OPEN3D_COLOURS if (root / name).is_dir()), None)
    if camera is None or folder is None or not (root / "depth").is_dir():
        return None
    rgbs, lows = files_in(folder), files_in(root / "depth")
    by_name = by_stem(lows, attrgetter("stem"))
    pairs = [(rgb, by_name[rgb.stem]) for rgb in rgbs if rgb.stem in by_name]
    if len(rgbs) == len(lows) and 2 * len(pairs) < len(rgbs):
        rgbs, lows = ([files[i] for i in in_order([path.name for path in files])] for files in (rgbs, lows))
        pairs = list(zip(rgbs, lows, strict=True))
    used = {path for pair in pairs for path in pair}
    lonely = [f"{path}: has no partner of that name" for path in (*rgbs, *lows) if path not in used]
    frames = [Frame(rgb.stem, low, rgb, intrinsics=camera) for rgb, low in pairs]
    return _checked(Recording(frames, "mm", lonely), root)


def _arkit(root: Path) -> Recording:
    """``lowres_depth/``, ``confidence/``, colours and ``.pincam`` files, named VIDEO_SECONDS, at one moment each."""
    folder = next((name for name in ARKIT_COLOURS if (root / name).is_dir()), None)
    if folder is None:
        raise InputError(f"{shown(root)}: has lowres_depth, but no colours: download {' or '.join(ARKIT_COLOURS)}")
    lows, sure = _by_time(files_in(root / "lowres_depth")), _by_time(_files(root / "confidence", ".png"))
    cameras = _by_time(_files(root / f"{folder}_intrinsics", ".pincam"))
    frames, lonely = [], []
    for ms, rgb in sorted(_by_time(files_in(root / folder)).items()):
        low = _at(lows, ms)
        if low is None:
            lonely.append(f"{rgb}: has no depth at its time")
        else:
            frames.append(Frame(rgb.stem, low, rgb, _at(sure, ms), _at(cameras, ms)))
    return _checked(Recording(frames, "mm", lonely), root)


def _checked(found: Recording, path: Path) -> Recording:
    names = [frame.name for frame in found.frames]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise InputError(f"{shown(path)}: {twice} is there twice: take one out")
    if not found.frames:
        raise InputError(f"{shown(path)}: no picture has its depth beside it: check that both are there")
    return found


def _files(folder: Path, suffix: str) -> list[Path]:
    return sorted(folder.glob(f"*{suffix}")) if folder.is_dir() else []


def _by_time(paths: Iterable[Path]) -> dict[int, Path]:
    """By the milliseconds at the end of the name, as in 41069021_305.244.png."""
    found = {}
    for path in paths:
        try:
            found[round(1000 * float(path.stem.rpartition("_")[2]))] = path
        except (ValueError, OverflowError) as error:
            raise InputError(f"{shown(path)}: its name does not end in _SECONDS as ARKitScenes' do") from error
    return found


def _at(files: dict[int, Path], ms: int) -> Path | None:
    """The file of that moment, up to SAME_MOMENT_MS."""
    times = sorted(range(ms - SAME_MOMENT_MS, ms + SAME_MOMENT_MS + 1), key=lambda t: abs(t - ms))
    return next((files[t] for t in times if t in files), None)
