"""The endless stream of training examples: scenes made on the device that trains, or pictures, as sensors see them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch.utils.data import IterableDataset, get_worker_info

from crispdepth.data.augmentation import EASY, sensed
from crispdepth.data.folder import Readers
from crispdepth.data.scenes import scenes
from crispdepth.data.sets import find
from crispdepth.data.textures import Dice
from crispdepth.geometry import fill, resize_rgb
from crispdepth.training.recipes import Recipe
from crispdepth.types import InputError, Sample

TRAINING_SEED = 1_000_000  # seeds for tuning, validation and measuring begin at 1,800,000,000
Batch = dict[str, torch.Tensor]


class Source(Protocol):
    """Where pictures and their depth come from: ``count`` of ``side`` x ``side`` pixels, a function of ``seed``."""

    def __call__(self, count: int, side: int, seed: int, device: torch.device | str) -> Sample: ...


class Scenes:
    """Made-up scenes, made on the device that asks; ``folder`` keeps them for other steps and runs."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    def __call__(self, count: int, side: int, seed: int, device: torch.device | str) -> Sample:
        path = None if self.folder is None else self.folder / f"{count}x{side}x{side}-{seed}.safetensors"
        if path is not None and path.is_file():
            kept = load_file(path, device=str(device))
            return Sample(rgb=kept["rgb"].float() / 255, depth=kept["depth"], classes=kept.get("classes"))
        made = scenes(count, side, side, seed, device)
        if path is not None and made.rgb is not None and made.depth is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(f".{os.getpid()}.part")
            maps = {"rgb": (made.rgb * 255).round().to(torch.uint8), "depth": made.depth, "classes": made.classes}
            save_file({name: x.contiguous() for name, x in maps.items() if x is not None}, part)
            part.replace(path)
        return made


class Pictures:
    """Random squares of a data set's samples, with their holes filled smoothly (depth_valid says where)."""

    def __init__(self, readers: Readers) -> None:
        self.readers = list(readers.values())

    def __call__(self, count: int, side: int, seed: int, device: torch.device | str) -> Sample:
        dice = Dice(seed, "cpu")
        parts: list[tuple[torch.Tensor, ...]] = []
        for _ in range(count):
            sample = self.readers[int(dice.below(len(self.readers), 1))]()
            parts.append(_square(sample, side, dice))
        rgb, depth, known = (torch.cat(part).to(device) for part in zip(*parts, strict=True))
        return Sample(rgb=rgb, depth=depth, depth_valid=known)


def source(data: str, root: Path | None, unit: str | None, scenes_folder: Path | None) -> Source:
    """Where the pictures of ``data`` come from: ``scenes``, or the training part of a data set by name."""
    if data == "scenes":
        return Scenes(scenes_folder)
    return Pictures(find(data, root, unit, part="train"))


def _square(sample: Sample, side: int, dice: Dice) -> tuple[torch.Tensor, ...]:
    """A random square of rgb, filled depth and its mask; smaller pictures are enlarged first."""
    if sample.rgb is None or sample.depth is None:
        raise InputError(f"{sample.name} lacks a picture or a depth: training needs both")
    known = torch.ones_like(sample.depth, dtype=torch.bool) if sample.depth_valid is None else sample.depth_valid
    rgb, depth = sample.rgb, fill(torch.where(known, sample.depth, 0), known)
    height, width = depth.shape[-2:]
    if min(height, width) < side:
        size = (max(side, height), max(side, width))
        rgb, depth = resize_rgb(rgb, size), F.interpolate(depth, size, mode="nearest-exact")
        known = F.interpolate(known.float(), size, mode="nearest-exact") > 0
        height, width = size
    top, left = int(dice.below(height - side + 1, 1)), int(dice.below(width - side + 1, 1))
    return tuple(x[..., top : top + side, left : left + side] for x in (rgb, depth, known))


def example(recipe: Recipe, step: int, device: torch.device | str, source: Source) -> Batch:
    """The batch of one step: rgb, low, valid, depth, known, inverse, a function of the arguments alone."""
    count, side = recipe.patches[step % len(recipe.patches)]
    drawn = step % recipe.distinct if recipe.distinct else step
    exact = source(count, side, TRAINING_SEED + drawn, device)
    dice = Dice(recipe.seed * 1_000_003 + step, device)
    least, most = recipe.scales
    limits = (min(most, max(least, 6.0 if side > 200 else 1.5)), min(most, side / 8))  # a low map of 8x8 at least
    sensors = recipe.sensors
    if recipe.ramp and not dice.chance(min(1.0, step / recipe.ramp), 1):
        limits, sensors = (8.0, 8.0), EASY
    with torch.inference_mode():
        seen = sensed(exact, dice, sensors, limits)
    parts = {"rgb": seen.rgb, "low": seen.low, "valid": seen.valid, "depth": seen.depth, "known": seen.depth_valid}
    parts["inverse"] = seen.inverse
    return {name: part.clone() for name, part in parts.items() if part is not None}


class Stream(IterableDataset[Batch]):
    """Batches from step ``start`` on, without end.

    On a GPU a batch is only its step: the task makes the example on its own device. In ``world`` processes
    each takes every ``world``-th example.
    """

    def __init__(
        self, recipe: Recipe, start: int, on_device: bool, source: Source, rank: int = 0, world: int = 1
    ) -> None:
        self.recipe = recipe
        self.start = start
        self.on_device = on_device
        self.source = source
        self.rank = rank
        self.world = world

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
                yield example(self.recipe, number, "cpu", self.source)
            step += stride
