"""SETS: every data set by name, with its unit, layout and source."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from crispdepth.data import (
    diml,
    folder,
    hypersim,
    kitti,
    lu,
    middlebury,
    nyu,
    nyu_eigen,
    rgbdd,
    scenes,
    tofdsr,
)
from crispdepth.data.folder import Readers
from crispdepth.types import InputError, Sample

# Scenes for measuring and for tuning have seeds that training never draws.
HELD_BACK_SEED = 2_000_000_000
TUNING_SEED = 1_900_000_000


@dataclass(frozen=True)
class DataSet:
    """One row of SETS. ``unit``: ``m``, ``levels`` (8-bit), or empty where the user says it (``--unit``).

    ``samples``, to measure on, takes the root folder, and the unit where the user says it; nothing when
    ``made_here``. ``train``, likewise: what may be learnt from, and is never measured; None where nothing may.
    ``class_names``: what the numbers in its classes mean, if it has any.
    """

    unit: str
    samples: Callable[..., Readers]
    layout: str
    source: str
    made_here: bool = False
    train: Callable[..., Readers] | None = None
    class_names: tuple[str, ...] = ()


@lru_cache(maxsize=32)  # a benchmark asks for the same scenes again and again
def _scene(seed: int, true_size: bool) -> Sample:
    return scenes.scenes(1, 480, 640, seed, true_size=true_size)


def scene_samples(first_seed: int = HELD_BACK_SEED, count: int = 24, true_size: bool = False) -> Readers:
    """Made-up scenes of 480x640 from ``count`` seeds; ``true_size`` as for `scenes`."""
    return {str(seed): partial(_scene, seed, true_size) for seed in range(first_seed, first_seed + count)}


def find(name: str, root: Path | None, unit: str | None = None, part: str = "test") -> Readers:
    """The samples of a set by name, unread; ``part``: ``test``, or ``train`` for those to learn from.

    Raises InputError for unknown names, empty folders, and a training part where there is none.
    """
    if name not in SETS:
        raise InputError.unknown("data set", name, SETS, dict.fromkeys(("mine", "own", "custom", "files"), "folder"))
    row = SETS[name]
    if row.unit and unit is not None:
        raise InputError(f"data set {name} has a unit of its own: leave out --unit (unit=…)")
    samples = row.samples if part == "test" else row.train
    if samples is None:
        learnable = ", ".join(other for other, r in SETS.items() if r.train)
        raise InputError(f"data set {name} is for measuring only; to learn from: scenes, {learnable}")
    if row.made_here:
        return samples()
    root = root or _kept(name)
    if root is None:
        raise InputError(
            f"data set {name} needs --root (root=…), a folder with {row.layout} "
            f"(or put it at $CRISPDEPTH_DATA/{name}, where all your data sets are)"
        )
    readers = samples(root) if row.unit else samples(root, unit)
    if not readers:
        where = f"{root}" if root.exists() else f"{root}, which does not exist"
        raise InputError(f"found no pair of {name} in {where}: it needs {row.layout}. {row.source}")
    return readers


def _kept(name: str) -> Path | None:
    """The set's folder under the one that the environment names."""
    around = os.environ.get("CRISPDEPTH_DATA")
    inside = Path(around) / name if around else None
    return inside if inside is not None and inside.is_dir() else None


SETS: dict[str, DataSet] = {
    "scenes": DataSet(
        unit="m",
        samples=scene_samples,
        layout="nothing: they are made on the spot",
        source="Made by crispdepth; free for any use.",
        made_here=True,
        class_names=scenes.CLASSES,
    ),
    "rooms": DataSet(
        unit="m",
        samples=partial(scene_samples, count=64, true_size=True),
        layout="nothing: they are made on the spot",
        source="Made-up rooms from eye level, where all things have their usual size: for depth from a picture alone.",
        made_here=True,
        class_names=scenes.CLASSES,
    ),
    "middlebury": DataSet(
        unit="levels",
        samples=middlebury.samples,
        layout=middlebury.LAYOUT,
        source="The pack used by DKN, FDSR, SGNet; originals: vision.middlebury.edu/stereo, research use.",
    ),
    "middlebury_large": DataSet(
        unit="levels",
        samples=middlebury.large_samples,
        layout=middlebury.LARGE_LAYOUT,
        source="Middlebury 2005 at full size; vision.middlebury.edu/stereo, research use.",
    ),
    **{
        f"middlebury_noisy_x{2**power}": DataSet(
            unit="levels",
            samples=partial(middlebury.noisy_samples, power=power),
            layout=middlebury.NOISY_LAYOUT,
            source="Low maps with a time-of-flight camera's noise: Park et al., ICCV 2011; research use.",
        )
        for power in (2, 3, 4)
    },
    "lu": DataSet(
        unit="levels",
        samples=lu.samples,
        layout=lu.LAYOUT,
        source="The pack used by DKN, FDSR, SGNet; Lu, Ren and Liu, CVPR 2014, research use.",
    ),
    "nyu": DataSet(
        unit="m",
        samples=nyu.samples,
        layout=nyu.LAYOUT,
        source="NYU Depth V2, labelled set; Silberman et al., ECCV 2012, research use.",
        train=nyu.training_samples,
        class_names=nyu.CLASSES,
    ),
    "nyu_eigen": DataSet(
        unit="m",
        samples=nyu_eigen.samples,
        layout=nyu_eigen.LAYOUT,
        source="NYU Depth V2 as BTS and AdaBins unpack it, with their lists (github.com/cleinc/bts); research use.",
        train=nyu_eigen.training_samples,
    ),
    "rgbdd": DataSet(
        unit="m",
        samples=rgbdd.samples,
        layout=rgbdd.LAYOUT,
        source="RGB-D-D: He et al., CVPR 2021, github.com/lingzhi96/RGB-D-D-Dataset; "
        "on a signed agreement, academic and non-commercial use.",
        train=rgbdd.training_samples,
    ),
    "tofdsr": DataSet(
        unit="m",
        samples=tofdsr.samples,
        layout=tofdsr.LAYOUT,
        source="TOFDC: Yan et al., CVPR 2024, yanzq95.github.io/projectpage/TOFDC (its terms are said there); "
        "the lists: github.com/yanzq95/DORNet, folder data.",
        train=tofdsr.training_samples,
    ),
    "diml": DataSet(
        unit="m",
        samples=diml.samples,
        layout=diml.LAYOUT,
        source="DIML/CVL RGB-D, indoor: Cho et al. 2021, dimlrgbd.github.io (its terms are said there).",
        train=diml.training_samples,
    ),
    "hypersim": DataSet(
        unit="m",
        samples=hypersim.samples,
        layout=hypersim.LAYOUT,
        source="Hypersim: Roberts et al., ICCV 2021, github.com/apple/ml-hypersim; CC BY-SA 3.0.",
        train=hypersim.training_samples,
    ),
    "kitti": DataSet(
        unit="m",
        samples=kitti.samples,
        layout=kitti.LAYOUT,
        source="KITTI raw data and annotated depth maps: cvlibs.net/datasets/kitti, CC BY-NC-SA 3.0; "
        "the lists: github.com/cleinc/bts, AdaBins.",
        train=kitti.training_samples,
    ),
    "folder": DataSet(
        unit="",
        samples=folder.samples,
        layout=folder.LAYOUT,
        source="Your own files; say their unit with --unit.",
        train=folder.samples,
    ),
}
