"""TokensTask: a small vision transformer learns from scenes what things are and how far, for NAIMA to read."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from crispdepth.data.augmentation import flipped, recoloured
from crispdepth.data.layout import CLASSES
from crispdepth.data.scenes import scenes
from crispdepth.data.textures import Dice
from crispdepth.models.naima import IMAGENET, NaimaConfig, Tokens
from crispdepth.training.examples import TRAINING_SEED, Batch, Source
from crispdepth.training.recipes import Recipe, TokensRecipe
from crispdepth.training.task import VALIDATION_SEED, Task, save_weights
from crispdepth.types import InputError, Sample

FINE = 4  # each patch says what is seen in 4 x 4 places
JUMP = 0.03  # of the distance: a larger change between neighbours is an edge of depth


class Reader(nn.Module):
    """The transformer and what is only there while it learns: one linear layer for class, distance and edge."""

    def __init__(self, config: NaimaConfig) -> None:
        super().__init__()
        self.tokens = Tokens(config)
        self.tokens.vit.requires_grad_(True)
        self.heads = nn.ModuleList(
            nn.Conv2d(config.token_channels, (len(CLASSES) + 2) * FINE**2, 1) for _ in config.layers
        )
        mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in IMAGENET)
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)

    def forward(self, rgb: torch.Tensor) -> list[torch.Tensor]:
        """``rgb`` (b, 3, H, W) in 0..1 to class logits, relative distance and edge logit, once for each of the layers.

        Each (b, classes + 2, FINE H / patch, FINE W / patch).
        """
        taken = self.tokens.every((rgb - self.mean) / self.deviation)  # type: ignore[operator]
        return [F.pixel_shuffle(head(x), FINE) for head, x in zip(self.heads, taken, strict=True)]

    def save(self, path: Path) -> None:
        """The transformer alone, in half precision."""
        tensors = {f"vit.{k}": x.detach().half().contiguous().cpu() for k, x in self.tokens.vit.state_dict().items()}
        save_file(tensors, path, metadata={"model": "naima-tokens"})


class TokensTask(Task):
    """Cross-entropy of the classes, L1 of the inverse distance up to scale and shift, cross-entropy of depth edges.

    Every layer that NAIMA reads learns all three, the last with full weight.
    """

    draws_alone: ClassVar[bool] = True

    def __init__(
        self, recipe: TokensRecipe, folder: Path, source: Source | None = None, report: Path | None = None
    ) -> None:
        if recipe.start:
            raise InputError(f"tokens begin at random, not with start={recipe.start}: leave it out")
        if report is not None:
            raise InputError("--report measures depth, and tokens give none: leave it out")
        super().__init__(recipe, folder, source, report)
        if not self.source.class_names:
            raise InputError("tokens learn classes, and these pictures show none: leave out --data, scenes show theirs")
        self.network = Reader(recipe.network)

    def training_step(self, batch: Batch, number: int) -> torch.Tensor:
        """Scenes as they are, mirrored and recoloured: no low map is needed."""
        step = int(batch["number"])
        count, side = self.recipe.patches[step % len(self.recipe.patches)]
        drawn = self.recipe.drawn(step)
        exact = self.source(count, side, TRAINING_SEED + drawn, self.device, self.recipe.zoom)
        return self.loss(_seen(exact, Dice(self.recipe.seed * 1_000_003 + step, self.device), self.recipe))

    def loss(self, batch: Batch) -> torch.Tensor:
        """The sum over layers of what each gets wrong."""
        total = torch.zeros((), device=self.device)
        outputs = self.network(batch["rgb"])
        for index, output in enumerate(outputs):
            parts = _wrong(output, batch)
            total = total + sum(parts.values()) * (1.0 if index == len(outputs) - 1 else 0.3)
        self.log_dict({k: v.detach() for k, v in parts.items()}, prog_bar=True, batch_size=1)
        return total

    def validation_step(self, _: Any, __: int) -> None:
        """The last layer's share of right classes, and its losses, on scenes that training never draws."""
        batch = _validation(self.device)
        with torch.inference_mode():
            output = self.network(batch["rgb"])[-1]
        labels = _at(batch["classes"], output)
        right = (output[:, : len(CLASSES)].argmax(1, keepdim=True) == labels).float().mean()
        self.log_dict(
            {"right": right, **{f"held_{k}": v for k, v in _wrong(output, batch).items()}}, prog_bar=True, batch_size=1
        )
        save_weights(self.network, self.folder)


def _seen(exact: Sample, dice: Dice, recipe: Recipe) -> Batch:
    assert exact.rgb is not None
    assert exact.depth is not None
    assert exact.classes is not None, "these scenes were kept without classes: name another --scenes-folder"
    rgb, depth, classes = flipped(dice, 0.0, exact.rgb, exact.depth, exact.classes)
    return {"rgb": recoloured(dice, rgb, recipe.sensors), "depth": depth, "classes": classes}


@lru_cache(maxsize=1)
def _validation(device: torch.device) -> Batch:
    made = scenes(8, 160, 160, VALIDATION_SEED, device)
    assert made.rgb is not None
    assert made.depth is not None
    assert made.classes is not None
    return {"rgb": made.rgb, "depth": made.depth, "classes": made.classes}


def _at(x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x.float(), output.shape[-2:], mode="nearest-exact").to(x.dtype)


def _wrong(output: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
    """The three losses of one layer's ``output``."""
    kinds, distance, edge = output.split([len(CLASSES), 1, 1], dim=1)
    inverse = 1 / batch["depth"].clamp(min=1e-3)
    span = inverse.amax(dim=(1, 2, 3), keepdim=True) - inverse.amin(dim=(1, 2, 3), keepdim=True)
    inverse = (inverse - inverse.mean(dim=(1, 2, 3), keepdim=True)) / span.clamp(min=1e-6)
    off = distance - _at(inverse, output)
    off = off - off.flatten(1).median(dim=1).values.view(-1, 1, 1, 1)
    # an edge is seen in a place when any of its pixels differs from the next by JUMP
    depth = batch["depth"]
    nearest, farthest = -F.max_pool2d(-depth, 3, 1, 1), F.max_pool2d(depth, 3, 1, 1)
    jump = F.adaptive_max_pool2d((farthest / nearest > 1 + JUMP).float(), output.shape[-2:])
    return {
        "classes": F.cross_entropy(kinds, _at(batch["classes"], output)[:, 0].long(), ignore_index=255),
        "distance": 4 * off.abs().mean(),
        "edges": F.binary_cross_entropy_with_logits(edge, jump),
    }
