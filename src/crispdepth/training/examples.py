"""The endless stream of training examples: scenes made on the device that trains, seen by random sensors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import IterableDataset, get_worker_info

from crispdepth.data.augmentation import EASY, sensed
from crispdepth.data.scenes import scenes
from crispdepth.data.textures import Dice
from crispdepth.training.recipes import Recipe
from crispdepth.types import Sample

TRAINING_SEED = 1_000_000  # seeds for tuning, validation and measuring begin at 1,800,000,000
Batch = dict[str, torch.Tensor]


def example(recipe: Recipe, step: int, device: torch.device | str, scenes_folder: Path | None = None) -> Batch:
    """The batch of one step: rgb, low, valid, depth, made on ``device``; a function of its arguments alone."""
    count, side = recipe.patches[step % len(recipe.patches)]
    drawn = step % recipe.distinct if recipe.distinct else step
    exact = _kept_scenes(count, side, TRAINING_SEED + drawn, device, scenes_folder)
    dice = Dice(recipe.seed * 1_000_003 + step, device)
    limits = (6.0 if side > 200 else 1.5, min(32.0, side / 8))  # a low map of 8 pixels a side at least
    sensors = recipe.sensors
    if not dice.chance(min(1.0, step / max(1, recipe.ramp)), 1):
        limits, sensors = (8.0, 8.0), EASY
    with torch.inference_mode():
        seen = sensed(exact, dice, sensors, limits)
    assert seen.rgb is not None
    assert seen.low is not None
    assert seen.valid is not None
    assert seen.depth is not None
    parts = {"rgb": seen.rgb, "low": seen.low, "valid": seen.valid, "depth": seen.depth}
    return {name: part.clone() for name, part in parts.items()}


def _kept_scenes(count: int, side: int, seed: int, device: torch.device | str, folder: Path | None) -> Sample:
    """Scenes from the folder where an earlier step or run left them, else made, and left there."""
    path = None if folder is None else folder / f"{count}x{side}x{side}-{seed}.safetensors"
    if path is not None and path.is_file():
        kept = load_file(path, device=str(device))
        return Sample(rgb=kept["rgb"].float() / 255, depth=kept["depth"])
    made = scenes(count, side, side, seed, device)
    if path is not None and made.rgb is not None and made.depth is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        save_file({"rgb": (made.rgb * 255).round().to(torch.uint8), "depth": made.depth.contiguous()}, part)
        part.replace(path)
    return made


class Stream(IterableDataset[Batch]):
    """Batches from step ``start`` on, without end.

    On a GPU a batch is only its step: the model makes the example on its own device. In ``world`` processes
    each takes every ``world``-th example.
    """

    def __init__(
        self, recipe: Recipe, start: int, on_device: bool, scenes_folder: Path | None, rank: int = 0, world: int = 1
    ) -> None:
        self.recipe = recipe
        self.start = start
        self.on_device = on_device
        self.scenes_folder = scenes_folder
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
                yield example(self.recipe, number, "cpu", self.scenes_folder)
            step += stride
