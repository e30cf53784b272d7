"""Hypersim: rendered rooms of 768x1024 with exact depth, 74,619 views split by scene (Roberts et al., ICCV 2021).

The files hold distances along the ray, in metres; NaN is a hole. The camera is 60 degrees wide with its axis through
the middle: a focal length of 886.81 px at 1024x768. Some scenes were rendered with a shifted lens (the authors'
metadata_camera_parameters.csv tells which): there this depth, like that of the loaders published so far, is not
quite planar, and the intrinsics are not quite right.
"""

from __future__ import annotations

import csv
from functools import partial
from io import StringIO
from pathlib import Path

import h5py
import numpy as np
import torch

from crispdepth.atomic import opened
from crispdepth.data.folder import Readers, check_pair, find_file, rgb_tensor
from crispdepth.formats.hdf5 import FOV_DEG
from crispdepth.geometry import Camera, planar
from crispdepth.types import InputError, Sample

SPLIT = "metadata_images_split_scene_v1.csv"
LAYOUT = (
    f"{SPLIT} beside SCENE/images/scene_CAM_final_preview/frame.N.tonemap.jpg (or scene_CAM_final_hdf5/"
    "frame.N.color.hdf5) and scene_CAM_geometry_hdf5/frame.N.depth_meters.hdf5"
)
COLUMNS = ("scene_name", "camera_name", "frame_id", "split_partition_name")


def samples(root: Path) -> Readers:
    """The views whose split is ``test``; scenes lie in ``root`` or root/scenes, the table also in analysis/."""
    return _part(root, "test")


def training_samples(root: Path) -> Readers:
    """The views whose split is ``train``; those of ``val`` are left alone."""
    return _part(root, "train")


def _part(root: Path, part: str) -> Readers:
    table = find_file((root, root / "analysis", root.parent / "analysis"), SPLIT)
    readers: Readers = {}
    for scene, camera, number, split in _rows(table) if table else ():
        if split != part:
            continue
        places = (root / scene / "images", root / "scenes" / scene / "images")
        view, frame = f"scene_{camera}", f"frame.{number:0>4}"
        distance = find_file(places, f"{view}_geometry_hdf5/{frame}.depth_meters.hdf5")
        pictures = ("final_preview/{}.tonemap.jpg", "final_hdf5/{}.tonemap.jpg", "final_hdf5/{}.color.hdf5")
        found = (find_file(places, f"{view}_{picture.format(frame)}") for picture in pictures)
        rgb = next(filter(None, found), None) if distance else None
        if rgb and distance:
            name = f"{scene}/{camera}/{number}"
            readers[name] = partial(_read, rgb, distance, name)
    return readers


def _rows(table: Path) -> list[tuple[str, ...]]:
    with opened(table) as file:
        rows = csv.DictReader(StringIO(file.read().decode("utf-8-sig", "replace").replace("\0", "")))
    missing = set(COLUMNS) - set(rows.fieldnames or ())
    if missing:
        raise InputError(
            f"{table} lacks {', '.join(sorted(missing))}: take the table from github.com/apple/ml-hypersim"
        )
    return [tuple(row[column] or "" for column in COLUMNS) for row in rows]


def _read(rgb_path: Path, distance_path: Path, name: str) -> Sample:
    """One view: planar depth in metres, NaN a hole, and its intrinsics."""
    distance = distances(distance_path)
    seen = np.isfinite(distance) & (distance > 0)
    if not seen.any():
        raise InputError(f"{distance_path} has no reading at all: take its line out of {SPLIT}")
    camera = Camera.from_fov(FOV_DEG, (distance.shape[0], distance.shape[1]))
    depth = planar(torch.from_numpy(np.where(seen, distance, 0))[None, None], camera.matrix())
    if rgb_path.suffix == ".hdf5":
        picture = tone_mapped(_array(rgb_path, axes=3), seen)
        rgb = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None]
    else:
        rgb = rgb_tensor(rgb_path)
    check_pair(rgb, depth, rgb_path, distance_path)
    depth_valid = torch.from_numpy(seen)[None, None]
    return Sample(rgb=rgb, depth=depth, depth_valid=depth_valid, intrinsics=camera.matrix(), name=name)


def distances(path: Path) -> np.ndarray:
    """(h, w) float32, the distances along the ray of one view, NaN where there is none. Raises InputError."""
    return _array(path, axes=2)


def _array(path: Path, axes: int) -> np.ndarray:
    """The one array of a Hypersim file, float32."""
    try:
        with h5py.File(path) as file:
            array = np.asarray(file["dataset"], dtype=np.float32)
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path} is not Hypersim's HDF5 (one array called dataset): {error}") from None
    if array.ndim != axes:
        raise InputError(f"{path} has shape {array.shape}, not {axes} axes: download it again")
    return array


def tone_mapped(colours: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Linear colours (h, w, 3) as a picture in 0..1, as the authors make their previews.

    Scaled so that the 90th percentile of the brightness (CCIR 601) where something was ``seen`` (h, w) becomes
    0.8, after a gamma of 2.2. The authors tell what was seen by their entity map, this by a finite distance.
    """
    colours = np.nan_to_num(colours, posinf=0, neginf=0)
    bright = float(np.percentile((colours @ np.array([0.3, 0.59, 0.11], dtype=np.float32))[seen], 90))
    scale = 0.8**2.2 / bright if bright >= 1e-4 else 0.0
    return np.clip(np.maximum(scale * colours, 0) ** (1 / 2.2), 0, 1).astype(np.float32)
