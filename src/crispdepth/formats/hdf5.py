"""Hypersim's HDF5: distances along each pixel's ray, in metres, as depth along the optical axis; NaN is a hole."""

from __future__ import annotations

from typing import IO

import h5py
import numpy as np
import torch

from crispdepth.formats.raw import Raw, check_size, decoding
from crispdepth.geometry import Camera, planar
from crispdepth.types import InputError

FOV_DEG = 60.0  # of its camera, its axis through the middle: a focal length of 886.81 px at 1024x768


def read_hdf5_depth(file: IO[bytes]) -> Raw:
    """A ``frame.N.depth_meters.hdf5``: one array (h, w) called dataset. Raises InputError."""
    with decoding("HDF5"), h5py.File(file) as opened:
        if not isinstance(opened.get("dataset"), h5py.Dataset) or len(opened["dataset"].shape) != 2:
            raise InputError("is HDF5, but not Hypersim's depth (one array of two axes called dataset); give that")
        check_size(*opened["dataset"].shape)
        if opened["dataset"].dtype.kind != "f":
            raise InputError("holds whole numbers, and Hypersim's depth is floats: save it as .npy and say its unit")
        distance = np.asarray(opened["dataset"], dtype=np.float32)
    camera = Camera.from_fov(FOV_DEG, (distance.shape[0], distance.shape[1]))
    depth = planar(torch.from_numpy(distance)[None, None], camera.matrix())
    return Raw(depth[0, 0].numpy(), nan_is_hole=True, note="distances along the rays of Hypersim's camera, made depth")
