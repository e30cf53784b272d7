"""The endless stream of training examples: scenes made on the device that trains, or pictures, as sensors see them."""

from __future__ import annotations

import json
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch.utils.data import IterableDataset, get_worker_info

from crispdepth.data.augmentation import easy, sensed
from crispdepth.data.folder import Readers
from crispdepth.data.nearfarmix import UNLABELLED
from crispdepth.data.scenes import CLASSES, scenes
from crispdepth.data.sets import find
from crispdepth.data.textures import Dice
from crispdepth.geometry import fill, resize_rgb
from crispdepth.training.recipes import Recipe
from crispdepth.types import InputError, Sample

TRAINING_SEED = 1_000_000  # seeds for tuning, validation and measuring begin at 1,800,000,000
TRIES = 16
Batch = dict[str, torch.Tensor]
Make = Callable[[Any, int, torch.device | str, "Source"], Batch]  # (recipe, step, device, source): see `example`


class Source(Protocol):
    """Where pictures and their depth come from: ``count`` of ``side`` x ``side`` pixels, a function of ``seed``.

    ``says``: which pictures these are, wherever they lie: a run goes on with the same alone.
    ``class_names``: what the numbers in its classes mean; empty where there are none. ``zoom``: as for `scenes`;
    squares of photos are parts of them anyway.
    """

    says: str
    class_names: tuple[str, ...]

    def __call__(self, count: int, side: int, seed: int, device: torch.device | str, zoom: float = 1.0) -> Sample: ...


class Scenes:
    """Made-up scenes, made on the device that asks; ``folder`` keeps them for other steps and runs.

    ``labels``: only about this share of the pictures shows its classes, the others' are UNLABELLED; None: all do.
    ``true_size``: as for `scenes`.
    """

    says = "scenes"
    class_names = CLASSES

    def __init__(self, folder: Path | None = None, labels: float | None = None, true_size: bool = False) -> None:
        self.folder = folder
        self.labels = labels
        self.true_size = true_size

    def __call__(self, count: int, side: int, seed: int, device: torch.device | str, zoom: float = 1.0) -> Sample:
        words = f"-zoom{zoom:g}" * (zoom > 1) + "-true_size" * self.true_size
        name = f"{count}x{side}x{side}-{seed}{words}.safetensors"
        path = None if self.folder is None else self.folder / name
        kept = load_file(path, device=str(device)) if path is not None and path.is_file() else {}
        if "intrinsics" in kept or (kept and self.labels is None):  # earlier versions kept no cameras
            made = Sample(**{**kept, "rgb": kept["rgb"].float() / 255})  # type: ignore[arg-type]
        else:
            made = scenes(count, side, side, seed, device, zoom, self.true_size)
            if path is not None:
                made = _keep(made, path)
        if self.labels is None or made.classes is None:
            return made
        seen = torch.tensor([may_be_seen(f"scenes {seed}-{i}", self.labels) for i in range(count)])
        hidden = torch.full_like(made.classes, UNLABELLED)
        return replace(made, classes=torch.where(seen.view(-1, 1, 1, 1).to(made.classes.device), made.classes, hidden))


def _keep(made: Sample, path: Path) -> Sample:
    """What ``path`` will give when it is read."""
    assert made.rgb is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    maps = {"depth": made.depth, "classes": made.classes, "intrinsics": made.intrinsics}
    tensors = {name: x.contiguous() for name, x in maps.items() if x is not None}
    rgb = (made.rgb * 255).round().to(torch.uint8)
    part.write_bytes(save({"rgb": rgb, **tensors}))
    part.replace(path)
    return replace(made, rgb=rgb.float() / 255)


def may_be_seen(name: str, share: float) -> bool:
    """Whether a picture's labels are among the ``share`` that is not hidden; by its name, so always the same."""
    return zlib.crc32(name.encode()) < share * 2**32


class Pictures:
    """Random squares of a data set's samples, with their holes filled smoothly (depth_valid says where).

    ``class_names``: what their classes mean; those of the share ``labels`` of the pictures may be seen.
    ``longest``: pictures with a longer side are shrunk to it first. ``focal_px``: the focal length, in pixels of the
    shrunk picture, of a camera that the sample does not tell of.
    """

    def __init__(
        self,
        readers: Readers,
        class_names: tuple[str, ...] = (),
        longest: int | None = None,
        labels: float = 1.0,
        focal_px: float = 0.0,
    ) -> None:
        self.readers = readers
        self.says = f"{len(readers)} pictures {zlib.crc32(json.dumps(sorted(readers)).encode()):08x}"
        self.class_names = class_names
        self.longest = longest
        self.labels = labels
        self.focal_px = focal_px
        self.told: set[str] = set()

    def __call__(self, count: int, side: int, seed: int, device: torch.device | str, zoom: float = 1.0) -> Sample:
        dice = Dice(seed, "cpu")
        names = list(self.readers)
        parts: list[tuple[torch.Tensor, ...]] = []
        for _ in range(count):
            name, sample = self._read(names, dice)
            if not may_be_seen(name, self.labels):
                sample = replace(sample, classes=None)
            parts.append(_square(shrunk(sample, self.longest), side, dice, self.focal_px))
        rgb, depth, known, classes, matrix = (torch.cat(part).to(device) for part in zip(*parts, strict=True))
        return Sample(
            rgb=rgb,
            depth=depth,
            depth_valid=known,
            classes=classes if self.class_names else None,
            intrinsics=matrix if bool((matrix[:, 0, 0] > 0).all()) else None,
        )

    def _read(self, names: list[str], dice: Dice) -> tuple[str, Sample]:
        """Some sample; one that cannot be read is told once and left out. Raises InputError after TRIES in a row."""
        for tries in range(TRIES):
            name = names[int(dice.below(len(names), 1))]
            try:
                return name, self.readers[name]()
            except InputError as error:
                if name not in self.told:
                    sys.stderr.write(f"left out {name}: {error}\n")
                    self.told.add(name)
                if tries == TRIES - 1:
                    raise
        raise AssertionError


class Several:
    """Several sources in one run: every batch comes from one of them, drawn evenly, so that pictures mix only there."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = list(sources)
        self.says = ", ".join(part.says for part in self.sources)
        self.class_names: tuple[str, ...] = ()  # each has its own

    def __call__(self, count: int, side: int, seed: int, device: torch.device | str, zoom: float = 1.0) -> Sample:
        dice = Dice(seed + 700_000_001, "cpu")  # not the source's own: its first picture would follow from the choice
        return self.sources[int(dice.below(len(self.sources), 1))](count, side, seed, device, zoom)


def source(data: str, root: Path | None, unit: str | None, scenes_folder: Path | None) -> Source:
    """Where the pictures of ``data`` come from: ``scenes``, or the training part of a data set by name.

    Several, with commas between, make one run; then each names its own folder: ``scenes,nyu=FOLDER,folder=FOLDER``.
    Of each set one sample is read: a forgotten unit is told now, not by a run that has begun. Raises InputError.
    """
    if data == "scenes" and (root or unit):
        raise InputError("--root and --unit are of a data set, and made-up scenes need none: add --data folder")
    parts: list[Source] = []
    for word in data.split(","):
        name, equals, own = word.strip().partition("=")
        if name == "scenes":
            parts.append(Scenes(scenes_folder))
        else:
            says = unit if name == "folder" or "," not in data else None
            readers = find(name, Path(own) if equals else root, says, part="train")
            next(iter(readers.values()))()
            parts.append(Pictures(readers))
    return parts[0] if len(parts) == 1 else Several(parts)


def shrunk(sample: Sample, longest: int | None) -> Sample:
    """A sample whose longer side is at most ``longest``: depth and classes of the nearest pixel, camera and all."""
    if sample.rgb is None or sample.depth is None or longest is None or max(sample.depth.shape[-2:]) <= longest:
        return sample
    height, width = sample.depth.shape[-2:]
    scale = longest / max(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))

    def nearest(x: torch.Tensor | None) -> torch.Tensor | None:
        return None if x is None else F.interpolate(x.float(), size, mode="nearest-exact").to(x.dtype)

    matrix = sample.intrinsics
    if matrix is not None:
        matrix = matrix * torch.tensor([[scale], [scale], [1.0]])
    return replace(
        sample,
        rgb=resize_rgb(sample.rgb, size),
        depth=nearest(sample.depth),
        depth_valid=nearest(sample.depth_valid),
        classes=nearest(sample.classes),
        intrinsics=matrix,
    )


def _square(sample: Sample, side: int, dice: Dice, focal_px: float) -> tuple[torch.Tensor, ...]:
    """A random square of rgb, filled depth, its mask and the classes; smaller pictures are enlarged first.

    At the end the intrinsics, (1, 3, 3), of ``focal_px`` where the sample has none.
    """
    if sample.rgb is None or sample.depth is None:
        raise InputError(f"{sample.name} lacks a picture or a depth: training needs both")
    known = torch.ones_like(sample.depth, dtype=torch.bool) if sample.depth_valid is None else sample.depth_valid
    rgb, depth = sample.rgb, fill(torch.where(known, sample.depth, 0), known)
    classes = sample.classes
    if classes is None:
        classes = torch.full_like(known, UNLABELLED, dtype=torch.uint8)
    unknown = torch.diag(torch.tensor([focal_px, focal_px, 1.0]))[None]
    matrix = unknown if sample.intrinsics is None else sample.intrinsics.clone()
    height, width = depth.shape[-2:]
    if min(height, width) < side:
        size = (max(side, round(height * side / width)), max(side, round(width * side / height)))
        matrix[:, 0] *= size[1] / width
        matrix[:, 1] *= size[0] / height
        rgb = resize_rgb(rgb, size)
        depth, known, classes = (
            F.interpolate(x.float(), size, mode="nearest-exact").to(x.dtype) for x in (depth, known, classes)
        )
        height, width = size
    top, left = int(dice.below(height - side + 1, 1)), int(dice.below(width - side + 1, 1))
    parts = tuple(x[..., top : top + side, left : left + side] for x in (rgb, depth, known, classes))
    return (*parts, matrix)


def example(recipe: Recipe, step: int, device: torch.device | str, source: Source) -> Batch:
    """The batch of one step: rgb, low, valid, depth, known, inverse, step, a function of the arguments alone."""
    count, side = recipe.patches[step % len(recipe.patches)]
    drawn = recipe.drawn(step)
    exact = source(count, side, TRAINING_SEED + drawn, device, recipe.zoom)
    dice = Dice(recipe.seed * 1_000_003 + step, device)
    least, most = recipe.scales
    if side > 200 and most > 8:  # large squares are for the large scales, which small ones have no room for
        least = max(least, 6.0)
    limits = (least, min(most, side / 8))  # a low map of 8x8 at least
    sensors = recipe.sensors
    if recipe.ramp and not dice.chance(min(1.0, step / recipe.ramp), 1):
        usual = min(max(8.0, recipe.scales[0]), most)  # x8, or what is nearest to it of what was asked for
        limits, sensors = (usual, usual), easy(recipe.sensors)
    with torch.inference_mode():
        seen = sensed(exact, dice, sensors, limits)
    parts = {"rgb": seen.rgb, "low": seen.low, "valid": seen.valid, "depth": seen.depth, "known": seen.depth_valid}
    parts |= {"inverse": seen.inverse, "step": seen.step}
    return {name: part.clone() for name, part in parts.items() if part is not None}


class Stream(IterableDataset[Batch]):
    """Batches from step ``start`` on, without end.

    On a GPU a batch is only its step: the task makes the example on its own device. In ``world`` processes
    each takes every ``world``-th example.
    """

    def __init__(
        self,
        recipe: Recipe,
        start: int,
        on_device: bool,
        source: Source,
        rank: int = 0,
        world: int = 1,
        make: Make = example,
    ) -> None:
        self.recipe = recipe
        self.start = start
        self.on_device = on_device
        self.source = source
        self.rank = rank
        self.world = world
        self.make = make

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        first, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        if worker:
            torch.set_num_threads(1)
        step = self.start + first
        while True:
            number = step * self.world + self.rank
            if self.on_device:
                yield {"number": torch.tensor(number)}
            else:
                yield self.make(self.recipe, number, "cpu", self.source)
            step += stride
