"""Task: what all trainings share: examples on the device, validation on held-out scenes, pictures, the optimiser."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, TypeAlias, TypeVar

import lightning.pytorch as pl
import torch
from PIL import Image
from torch import nn

from crispdepth.careful import sharpened
from crispdepth.data.scenes import scenes
from crispdepth.data.sets import find
from crispdepth.degradation import crop_to_multiple, downsample
from crispdepth.metrics import rmse
from crispdepth.models.catalog import load
from crispdepth.models.classical import Bicubic
from crispdepth.models.crisp import Crisp
from crispdepth.models.ctkt import Ctkt
from crispdepth.picture import Panel, Range, comparison, depth_panel, error_panel, rgb_panel
from crispdepth.training.examples import Batch, Scenes, Source, example
from crispdepth.training.muon import BETAS, Muon
from crispdepth.training.recipes import Recipe
from crispdepth.types import Depth, InputError, Model, Rgb, Sample

WEIGHTS = "weights.safetensors"
REPORTED = ("middlebury", "lu")
VALIDATION_SEED = 1_800_000_000
VALIDATION_SCENES, VALIDATION_SIZE = 12, (240, 320)

Pairs: TypeAlias = tuple[tuple[Rgb, Depth], ...]  # pictures one by one: their sizes may differ
Network = TypeVar("Network", bound=Model)


class Task(pl.LightningModule):
    """One network in training; ``folder`` receives its weights and pictures at every validation.

    A subclass sets ``network``, which can ``save`` itself, and says the ``loss`` of a batch; ``make`` makes batches.
    ``report``: a folder with real test sets, whose shares are logged and decide nothing.
    """

    network: Any
    scales: ClassVar[tuple[int, ...]] = (4, 8, 16)  # of validation
    draws_alone: ClassVar[bool] = False  # makes its own examples from the step's number
    ends: ClassVar[tuple[str, ...]] = ()  # how the names of first and last layers begin: see Muon

    def __init__(self, recipe: Recipe, folder: Path, source: Source | None = None, report: Path | None = None) -> None:
        super().__init__()
        self.recipe = recipe
        self.folder = folder
        self.source = source or Scenes()
        self.report = report

    @staticmethod
    def make(recipe: Any, step: int, device: torch.device | str, source: Source) -> Batch:
        """The batch of one step, a function of its arguments alone."""
        return example(recipe, step, device, source)

    def loss(self, batch: Batch) -> torch.Tensor:
        """One value to minimise."""
        raise NotImplementedError

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        """One step's loss, of a batch or of its number."""
        if "number" in batch:
            batch = self.make(self.recipe, int(batch["number"]), self.device, self.source)
        loss = self.loss(batch)
        if not loss.isfinite():
            cure = "begin anew in another folder, with less learning_rate"
            raise InputError(f"the loss is {float(loss)} at step {self.global_step}: {cure}")
        return loss

    def validation_step(self, _: Any, __: int) -> None:
        """RMSE as a share of bicubic's on held-out scenes; the averaged weights are in place here."""
        batches = {"share": _validation_scenes(self.device)}
        for name in REPORTED if self.report else ():
            batches[f"report_{name}"] = _real_samples(name, self.report, self.device)
        for name, samples in batches.items():
            for scale in self.scales:
                share = _share_of_bicubic(self.network, samples, scale)
                self.log(f"{name}_x{scale}", share, prog_bar=True, batch_size=1)
        for name, value in self.further(batches["share"]).items():
            self.log(name, value, prog_bar=True, batch_size=1)
        if self.trainer.is_global_zero and not self.trainer.sanity_checking:
            self.save()
            self.draw()

    def save(self) -> None:
        """What was learnt, into ``folder``."""
        save_weights(self.network, self.folder)

    def further(self, pairs: Pairs) -> dict[str, float]:
        """More figures on the validation scenes, by name, to be logged; none unless a subclass has some."""
        return {}

    def draw(self) -> None:
        """The middle scale's results on three validation scenes, as a picture in ``folder``."""
        scale = self.scales[len(self.scales) // 2]
        panels: list[Panel] = []
        for rgb, depth in _validation_scenes(self.device)[:3]:
            panels += self.panels(rgb, depth, scale)
        self.write_picture(panels, columns=4)

    def panels(self, rgb: Rgb, depth: Depth, scale: int) -> list[Panel]:
        """What ``draw`` shows of one scene, in whole rows of four."""
        low, valid = downsample(depth, torch.ones_like(depth, dtype=torch.bool), scale)
        made = sharpened(self.network, Sample(rgb=rgb, low=low, valid=valid)).float().cpu()[0, 0].numpy()
        truth, small = depth.cpu()[0, 0].numpy(), low.cpu()[0, 0].numpy()
        span = Range.of(truth, truth > 0)
        wrong = Range(0, (span.high - span.low) / 10)
        return [
            rgb_panel(rgb.cpu()[0].permute(1, 2, 0).numpy()),
            depth_panel(small, valid.cpu()[0, 0].numpy(), span, f"low, x{scale}"),
            depth_panel(made, truth > 0, span, f"step {self.global_step}"),
            error_panel(made, truth, truth > 0, wrong, "error"),
        ]

    def write_picture(self, panels: list[Panel], columns: int, name: str = "step") -> None:
        """``pictures/NAME-STEP.png`` in ``folder``."""
        pictures = self.folder / "pictures"
        pictures.mkdir(exist_ok=True)
        Image.fromarray(comparison(panels, columns=columns)).save(pictures / f"{name}-{self.global_step:06d}.png")

    def untouched(self) -> torch.Tensor | float:
        """0, of all weights where several processes train: they wait for each one's gradient, and a step of a network
        that enlarges by x2 and x4 may use only one of the two."""
        return (
            0 * sum((p.sum() for p in self.parameters()), torch.zeros((), device=self.device))
            if self.trainer.world_size > 1
            else 0.0
        )

    def configure_optimizers(self) -> Any:
        """AdamW, or Muon; the learning rate rises, then falls along a cosine or by milestones."""
        recipe = self.recipe
        rate, decay = recipe.learning_rate, recipe.weight_decay
        learnt = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        optimizer: torch.optim.Optimizer
        if recipe.optimizer == "muon":
            optimizer = Muon(learnt, rate, decay, self.ends)
        else:
            optimizer = torch.optim.AdamW([p for _, p in learnt], rate, betas=BETAS, weight_decay=decay)

        def share(step: int) -> float:
            rise = min(1.0, (step + 1) / max(1, recipe.warmup))
            if recipe.milestones:
                return rise * 0.3 ** sum(step >= milestone for milestone in recipe.milestones)
            return rise * 0.5 * (1 + math.cos(math.pi * min(1.0, step / recipe.steps)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def begun(kind: type[Network], config: Any, start: str) -> Network:
    """A network of ``kind``: random, or what ``start`` names, a model of the catalog or a file of weights.

    That must have this ``config``, or, a Crisp, all of it but ``early``, or, a Ctkt, no number above it; or be a Ctkt
    with DSRNets of this shape, for a Crisp, which begins with them and is told of no steps. What is new says nothing at
    first, so that the network begins with what that one says. Raises InputError.
    """
    if not start:
        return kind(config)
    before: Any = load(start)
    if isinstance(before, Ctkt) and issubclass(kind, Crisp):
        shape = (before.config.stages, before.config.blocks, before.config.width)
        if shape != (config.stages, config.blocks, config.width):
            raise InputError(f"the DSRNets of start={start} have another shape: {before.config}")
        network = kind(config)
        shapes = {name: x.shape for name, x in network.state_dict().items()}
        parts = {name: x[:, : shapes[name][1]] if x.ndim == 4 else x for name, x in before.state_dict().items()}
        network.load_state_dict(parts, strict=False)
        return network.train()
    if not isinstance(before, kind):
        raise InputError(f"start={start} is a {type(before).__name__}, and {kind.__name__} is to be trained")
    if isinstance(before, Crisp) and replace(before.config, early=True) == config:
        early = kind(config)
        early.load_state_dict(before.state_dict(), strict=False)  # what is new begins as 0
        return early.train()
    if before.config == config:
        return before.train()
    if isinstance(before, Ctkt) and all(n <= getattr(config, name) for name, n in asdict(before.config).items()):
        return grown(before, kind(config)).train()
    raise InputError(f"{start} holds a network of another shape: {before.config}")


def grown(before: nn.Module, network: Network) -> Network:
    """``network``, which is ``before`` with more channels, residual blocks or stages, says what that one says.

    What was there is copied and does not hear the new channels; new blocks add nothing. All of it may be learnt
    (Net2Net, Chen et al., ICLR 2016; residual blocks that begin as nothing: Goyal et al. 2017).
    """
    old = before.state_dict()
    with torch.no_grad():
        for name, new in network.state_dict().items():  # the network's own memory
            if name in old:
                was = old[name]
                new[tuple(slice(n) for n in was.shape)] = was
                if new.ndim == 4:
                    new[: was.shape[0], was.shape[1] :] = 0
            elif ".second." in name:
                new.zero_()
    return network


def save_weights(network: Any, folder: Path) -> Path:
    """``weights.safetensors`` in ``folder``, replaced whole."""
    path = folder / WEIGHTS
    part = path.with_suffix(".part")
    network.save(part)
    part.replace(path)
    return path


def write_recipe(recipe: Recipe, data: str, folder: Path) -> None:
    """``recipe.json``: what made these weights, from which ``data`` (``Source.says``)."""
    part = folder / f"recipe.{os.getpid()}.part"
    part.write_text(json.dumps({"data": data} | asdict(recipe), indent=1) + "\n")
    part.replace(folder / "recipe.json")  # another process of this training may be reading it


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


def _share_of_bicubic(network: Model, pairs: Pairs, scale: int) -> float:
    """Mean of per-image RMSE over bicubic's, antialiased low maps, 6 pixels cut."""
    ours, bicubic = 0.0, 0.0
    for rgb, depth in pairs:
        rgb, depth = crop_to_multiple(rgb, scale), crop_to_multiple(depth, scale)
        low, valid = downsample(depth, torch.ones_like(depth, dtype=torch.bool), scale)
        inner = torch.zeros_like(depth, dtype=torch.bool)
        inner[..., 6:-6, 6:-6] = True
        made = sharpened(network, Sample(rgb=rgb, low=low, valid=valid)).float()
        ours += float(rmse(made, depth, inner))
        with torch.inference_mode():
            bicubic += float(rmse(Bicubic()(low, valid, (depth.shape[-2], depth.shape[-1])), depth, inner))
    return ours / bicubic
