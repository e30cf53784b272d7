"""Training against exact depth: the loss, the optimiser, validation on held-out scenes."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from PIL import Image

from crispdepth.data.scenes import scenes
from crispdepth.data.sets import find
from crispdepth.degradation import crop_to_multiple, downsample
from crispdepth.losses import absolute, expected_error, root_square
from crispdepth.metrics import rmse
from crispdepth.models.classical import Bicubic
from crispdepth.models.crisp import Crisp
from crispdepth.picture import Panel, Range, comparison, depth_panel, error_panel, rgb_panel
from crispdepth.training.examples import Batch, example
from crispdepth.training.recipes import Recipe
from crispdepth.types import Depth, InputError, Rgb

EASIEST = 0.01  # of the depth's range: what bicubic gets wrong by less than this hardly counts
TYPICAL = 0.06  # bicubic's error over all examples
REPORTED = ("middlebury", "lu")
VALIDATION_SEED = 1_800_000_000
VALIDATION_SCENES, VALIDATION_SIZE, VALIDATION_SCALES = 12, (240, 320), (4, 8, 16)


class Supervised(pl.LightningModule):
    """A Crisp network in training; ``folder`` receives its weights and pictures at every validation.

    ``report``: a folder with real test sets, whose shares are logged and decide nothing.
    """

    def __init__(
        self, recipe: Recipe, folder: Path, scenes_folder: Path | None = None, report: Path | None = None
    ) -> None:
        super().__init__()
        self.report = report
        self.recipe = recipe
        self.folder = folder
        self.scenes_folder = scenes_folder
        self.network = Crisp(recipe.network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if recipe.start:
            self.network = Crisp.from_file(Path(recipe.start))
            if self.network.config != recipe.network:
                raise InputError(f"{recipe.start} holds a network of another shape: {self.network.config}")

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        """One step's loss: every image's error as a share of bicubic's, so that none outweighs the others."""
        if "number" in batch:
            batch = example(self.recipe, int(batch["number"]), self.device, self.scenes_folder)
        low, valid, rgb, target = batch["low"], batch["valid"], batch["rgb"], batch["depth"]
        depth, error = (x.float() for x in self.network.estimate(low, valid, rgb))
        plain = Bicubic()(low, valid, (rgb.shape[-2], rgb.shape[-1]))
        difficulty = root_square(plain, target) + EASIEST
        if not self.recipe.relative:
            difficulty = torch.full_like(difficulty, TYPICAL)
        off = (absolute(depth, target) / difficulty).mean()
        root = (root_square(depth, target) / difficulty).mean()
        surprise = expected_error(error.clamp(min=1e-4), depth, target).mean()
        self.log_dict({"absolute": off, "rmse": root, "expected_error": surprise}, prog_bar=True)
        return off + self.recipe.root_square_weight * root + self.recipe.expected_error_weight * surprise

    def validation_step(self, _: Any, __: int) -> None:
        """RMSE as a share of bicubic's on held-out scenes; the averaged weights are in place here."""
        batches = {"share": _validation_scenes(self.device)}
        for name in REPORTED if self.report else ():
            batches[f"report_{name}"] = _real_samples(name, self.report, self.device)
        for name, samples in batches.items():
            for scale in VALIDATION_SCALES:
                self.log(
                    f"{name}_x{scale}", _share_of_bicubic(self.network, samples, scale), prog_bar=True, batch_size=1
                )
        if self.trainer.is_global_zero and not self.trainer.sanity_checking:
            save_weights(self.network, self.folder)
            self._draw()

    def _draw(self) -> None:
        panels: list[Panel] = []
        for rgb, depth in _validation_scenes(self.device)[:3]:
            low, valid = downsample(depth, torch.ones_like(depth, dtype=torch.bool), 8)
            with torch.inference_mode():
                made = self.network(low, valid, rgb).float().cpu()[0, 0].numpy()
            truth, small = depth.cpu()[0, 0].numpy(), low.cpu()[0, 0].numpy()
            span = Range.of(truth, truth > 0)
            wrong = Range(0, (span.high - span.low) / 10)
            panels += [
                rgb_panel(rgb.cpu()[0].permute(1, 2, 0).numpy()),
                depth_panel(small, valid.cpu()[0, 0].numpy(), span, "low, x8"),
                depth_panel(made, truth > 0, span, f"step {self.global_step}"),
                error_panel(made, truth, truth > 0, wrong, "error"),
            ]
        pictures = self.folder / "pictures"
        pictures.mkdir(exist_ok=True)
        Image.fromarray(comparison(panels, columns=4)).save(pictures / f"step-{self.global_step:06d}.png")

    def configure_optimizers(self) -> Any:
        """AdamW; the learning rate rises, then falls along a cosine."""
        recipe = self.recipe
        optimizer = torch.optim.AdamW(
            self.network.parameters(), recipe.learning_rate, betas=(0.9, 0.99), weight_decay=recipe.weight_decay
        )

        def share(step: int) -> float:
            rise = min(1.0, (step + 1) / max(1, recipe.warmup))
            return rise * 0.5 * (1 + math.cos(math.pi * min(1.0, step / recipe.steps)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def save_weights(network: Crisp, folder: Path) -> Path:
    """``weights.safetensors`` in ``folder``, replaced whole."""
    path = folder / "weights.safetensors"
    part = path.with_suffix(".part")
    network.save(part)
    part.replace(path)
    return path


def write_recipe(recipe: Recipe, folder: Path) -> None:
    """``recipe.json``: what made these weights."""
    (folder / "recipe.json").write_text(json.dumps(asdict(recipe), indent=1) + "\n")


Pairs = tuple[tuple[Rgb, Depth], ...]  # pictures one by one: their sizes may differ


@lru_cache(maxsize=2)
def _validation_scenes(device: torch.device) -> Pairs:
    made = scenes(VALIDATION_SCENES, *VALIDATION_SIZE, VALIDATION_SEED)
    assert made.rgb is not None
    assert made.depth is not None
    return tuple(zip(made.rgb.to(device).split(1), made.depth.to(device).split(1), strict=True))


@lru_cache(maxsize=4)
def _real_samples(name: str, root: Path, device: torch.device) -> Pairs:
    samples = [read() for read in find(name, root / name).values()]
    return tuple((s.rgb.to(device), s.depth.to(device)) for s in samples if s.rgb is not None and s.depth is not None)


def _share_of_bicubic(network: Crisp, pairs: Pairs, scale: int) -> float:
    """Mean of per-image RMSE over bicubic's, antialiased low maps, 6 pixels cut."""
    ours, bicubic = 0.0, 0.0
    for rgb, depth in pairs:
        rgb, depth = crop_to_multiple(rgb, scale), crop_to_multiple(depth, scale)
        low, valid = downsample(depth, torch.ones_like(depth, dtype=torch.bool), scale)
        inner = torch.zeros_like(depth, dtype=torch.bool)
        inner[..., 6:-6, 6:-6] = True
        with torch.inference_mode():
            ours += float(rmse(network(low, valid, rgb).float(), depth, inner))
            bicubic += float(rmse(Bicubic()(low, valid, (depth.shape[-2], depth.shape[-1])), depth, inner))
    return ours / bicubic
