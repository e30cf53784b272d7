"""Which of some files is what: a picture, depth, its truth, its confidence, intrinsics; by what they hold."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from crispdepth import io
from crispdepth.atomic import opened, shown
from crispdepth.intrinsics import read_intrinsics
from crispdepth.types import InputError

CONFIDENCE = re.compile(r"(?<![a-z])conf(idence)?(?![a-z])")  # a word of the name: conference.png is a picture


def told_apart(paths: Iterable[Path], depth_there: bool = False) -> dict[str, Path]:
    """Files by role: a colour picture, depth, a larger depth as its truth, intrinsics; a confidence by its name.

    Grey 8-bit pictures count as depth only where there is none of more bits: beside it (or where ``depth_there`` says
    that there is one already) they are what an infrared camera saw. Raises InputError for a file that cannot be read,
    a text that holds no intrinsics, and for more files of a kind than there are roles.
    """
    found: dict[str, Path] = {}
    grey = []
    for path in paths:
        with opened(path):
            pass
        if path.suffix.lower() in (".json", ".yaml", ".yml", ".pincam", ".txt"):
            read_intrinsics(path)
            _add(found, "intrinsics", path)
        elif CONFIDENCE.search(path.stem.lower()):
            _add(found, "confidence", path)
        elif _is_colour(path):
            _add(found, "rgb", path)
        else:
            grey.append(path)
    if len(grey) == 1 and not depth_there:
        return found | {"low": grey[0]}
    maps = {path: io.read_depth(path, "relative", nan_holes=True) for path in grey}
    deep = [path for path in maps if maps[path].stored != "uint8"]
    if deep or depth_there:
        for path in maps:
            if path not in deep:
                _add(found, "rgb", path)
    depths = sorted(deep if deep or depth_there else maps, key=lambda path: maps[path].depth.size)
    if len(depths) > 2:
        raise InputError(f"{len(depths)} depth maps are too many: give one, and its truth if there is one")
    return found | dict(zip(("low", "truth"), depths, strict=False))


def _add(found: dict[str, Path], role: str, path: Path) -> None:
    if role in found:
        raise InputError(f"{shown(path)}: there is one {role} already ({shown(found[role].name)}): give one of them")
    found[role] = path


def _is_colour(path: Path) -> bool:
    if path.suffix.lower() in (".jpg", ".jpeg", ".webp", ".bmp"):
        return True
    try:
        rgb = io.read_rgb(path)
    except InputError:
        return False
    return bool((rgb[..., :1] != rgb).any())
