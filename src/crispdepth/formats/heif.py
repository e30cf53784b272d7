"""HEIC: a phone's photo, and the depth that its portrait mode keeps inside (pillow-heif, an optional library)."""

from __future__ import annotations

from typing import IO, Any

import numpy as np
import pillow_heif

from crispdepth.formats.raw import Raw, check_size, decoding
from crispdepth.types import InputError

INVERSE_Z, DISPARITY, Z = 0, 1, 2  # representations of ISO/IEC 23008-2, D.2.35; 3 is a curve of its own


def read_heif_colour(file: IO[bytes]) -> np.ndarray:
    """(H, W, 3) uint8, upright, alpha dropped."""
    with decoding("HEIC"):
        image = _opened(file)
        return np.asarray(image.to_pillow().convert("RGB"))


def read_heif_depth(file: IO[bytes]) -> Raw:
    """The depth beside the photo: metres where the file says how near and far its ends are, disparity where it counts
    shifts (an iPhone's portraits), else relative. Raises InputError for a photo without any."""
    with decoding("HEIC"):
        depths = [depth for depth in _opened(file).info.get("depth_images", []) if depth is not None]
        if not depths:
            raise InputError("is a photo without depth inside: take it in portrait mode, or give the depth as a file")
        check_size(depths[0].size[1], depths[0].size[0])
        image = depths[0].to_pillow()
        values = np.asarray(image if image.mode.startswith("I;16") else image.convert("L"))
    return in_its_unit(values / np.iinfo(values.dtype).max, depths[0].info.get("metadata") or {})


def in_its_unit(shares: np.ndarray, said: dict[str, Any]) -> Raw:
    """Stored ``shares``, 0..1, as what the file says of them: ``representation_type``, ``z_near`` … ``d_max``."""
    kind = said.get("representation_type")
    near, far, least, most = (said.get(word) for word in ("z_near", "z_far", "d_min", "d_max"))
    if kind in (INVERSE_Z, Z) and near is not None and far is not None and 0 < near < far:
        depth = near + shares * (far - near) if kind == Z else 1 / (1 / far + shares * (1 / near - 1 / far))
        return Raw(depth.astype(np.float32), unit="m")
    if kind == DISPARITY and least is not None and most is not None and least < most:
        return Raw((least + shares * (most - least)).astype(np.float32), unit="disparity")
    return Raw(shares.astype(np.float32), unit="relative")


def _opened(file: IO[bytes]) -> pillow_heif.HeifFile:
    image = pillow_heif.open_heif(file)
    check_size(image.size[1], image.size[0])  # before anything is decoded
    return image
