"""CrispTask, NaimaTask: training a guided network against exact depth."""

from __future__ import annotations

from pathlib import Path

import torch

from crispdepth.losses import absolute, expected_error, root_square, sobel
from crispdepth.models import catalog
from crispdepth.models.classical import Bicubic
from crispdepth.models.crisp import Crisp
from crispdepth.models.naima import Naima
from crispdepth.training.examples import Batch, Source
from crispdepth.training.recipes import CrispRecipe, NaimaRecipe
from crispdepth.training.task import Task, begun

EASIEST = 0.01  # of the depth's range: what bicubic gets wrong by less than this hardly counts
TYPICAL = 0.06  # bicubic's error over all examples


class CrispTask(Task):
    """A Crisp network in training."""

    recipe: CrispRecipe
    ends = ("network.stem", "network.say")

    def __init__(
        self, recipe: CrispRecipe, folder: Path, source: Source | None = None, report: Path | None = None
    ) -> None:
        super().__init__(recipe, folder, source, report)
        network = begun(Crisp, recipe.network, recipe.start)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss(self, batch: Batch) -> torch.Tensor:
        """Every image's error as a share of bicubic's, so that none outweighs the others."""
        low, valid, rgb, target, known = (batch[name] for name in ("low", "valid", "rgb", "depth", "known"))
        made = self.network.staged(low, valid, rgb)
        depth, error = made.depth.float(), made.error.float()
        plain = Bicubic()(low, valid, (rgb.shape[-2], rgb.shape[-1]))
        depth, plain = (torch.where(known, x, target) for x in (depth, plain))
        difficulty = _difficulty(plain, target, self.recipe.relative)
        off = (absolute(depth, target) / difficulty).mean()
        root = (root_square(depth, target) / difficulty).mean()
        sides = [(absolute(torch.where(known, d, target), target) / difficulty).mean() for d in made.sides]
        side = torch.stack(sides).mean() if sides else off
        surprise = expected_error(error.clamp(min=1e-4), depth, target).mean()
        self.log_dict({"absolute": off, "rmse": root, "expected_error": surprise}, prog_bar=True)
        total = off + self.recipe.root_square_weight * root + self.recipe.side_weight * side
        return total + self.recipe.expected_error_weight * surprise + self.untouched()


class NaimaTask(Task):
    """A NAIMA network in training: L1 and 0.1 of L1 of the Sobel derivatives, as published; RMSE too if asked, and
    all of it as shares of bicubic's error."""

    recipe: NaimaRecipe

    def __init__(
        self, recipe: NaimaRecipe, folder: Path, source: Source | None = None, report: Path | None = None
    ) -> None:
        super().__init__(recipe, folder, source, report)
        network = begun(Naima, recipe.network, recipe.start)
        if recipe.calm and not recipe.start:
            network.calmed()
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if recipe.tokens and not recipe.start:  # which has its own
            inside = catalog.WEIGHTS / f"{recipe.tokens}.safetensors"
            self.network.tokens.pretrained(str(inside) if inside.is_file() else recipe.tokens)
        if recipe.blind:
            for gta in (self.network.gta1, self.network.gta2, self.network.gta3, self.network.gta4):
                gta.attention.requires_grad_(False).alpha.zero_()

    def loss(self, batch: Batch) -> torch.Tensor:
        """In shares of each picture's range of depth, or of bicubic's error."""
        low, valid, rgb, target, known = (batch[name] for name in ("low", "valid", "rgb", "depth", "known"))
        depth = torch.where(known, self.network(low, valid, rgb).float(), target)
        difficulty: torch.Tensor | float = 1.0
        if self.recipe.relative:
            plain = torch.where(known, Bicubic()(low, valid, (rgb.shape[-2], rgb.shape[-1])), target)
            difficulty = _difficulty(plain, target, True)
        off, slopes, root = ((f(depth, target) / difficulty).mean() for f in (absolute, sobel, root_square))
        self.log_dict({"absolute": off, "sobel": slopes, "rmse": root}, prog_bar=True)
        return off + self.recipe.sobel_weight * slopes + self.recipe.root_square_weight * root


def _difficulty(plain: torch.Tensor, target: torch.Tensor, relative: bool) -> torch.Tensor:
    """What each image's errors are counted in: what bicubic gets wrong there, or over all images."""
    error = root_square(plain, target) + EASIEST
    return error if relative else torch.full_like(error, TYPICAL)
