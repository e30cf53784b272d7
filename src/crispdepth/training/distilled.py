"""CtktTask: depth super-resolution and depth estimation learn side by side and teach each other."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from crispdepth.degradation import crop_to_multiple, downsample
from crispdepth.geometry import EDGE_LEVELS, enlarge, fill, hardened, missing, normalised, restored
from crispdepth.losses import absolute, root_square
from crispdepth.models import saved
from crispdepth.models.catalog import load
from crispdepth.models.classical import Bicubic
from crispdepth.models.ctkt import Ctkt, DENet, DENetConfig
from crispdepth.picture import Panel, Range, colours, depth_panel, error_panel
from crispdepth.training.examples import Batch, Source
from crispdepth.training.recipes import CtktRecipe
from crispdepth.training.task import Pairs, Task, begun
from crispdepth.types import Depth, InputError, Mask, Model, Rgb, Size

SOFTNESS = 0.02  # of the depth's range: the difference of errors at which soft roles are 0.73 to 0.27
AFFINITY_SIDE = 16  # places along each side whose likeness is compared
EDGE = 0.05  # of the depth's range a pixel: the slope that counts as half an edge
HIDDEN = 24  # channels of the structure prediction
TYPICAL = 0.03  # of the depth's range: bicubic's mean error over all examples
EASIEST = 0.003  # what bicubic gets wrong by less than this hardly counts
TRUTH = "truth"  # as a guided teacher
ESTIMATOR = "estimator.safetensors"
TERMS = ("resolution", "estimation", "side", "output", "affinity", "structure")
EXCHANGED = ("output", "affinity")  # grow from 0: at first both networks have little to teach


class Outputs(NamedTuple):
    """What a network says: ``depth`` and side outputs (b, 1, H, W) in the unit of the target; each stage's features."""

    depth: Depth
    sides: list[Depth]
    stages: list[torch.Tensor]


def error(prediction: Depth, target: Depth) -> Depth:
    """How far off each pixel is; without gradient."""
    return (prediction - target).abs().detach()


def who_learns(sr_off: torch.Tensor, de_off: torch.Tensor, roles: str) -> torch.Tensor:
    """How much DSRNet learns from DENet, 0..1, from both networks' errors (b, 1, ., .); DENet learns by the rest.

    The one that errs more learns, each pixel for itself, or, if ``roles`` are ``image``, each image as a whole
    (b, 1, 1, 1). ``soft``: in proportion. ``denet``: DSRNet always learns. The paper's own rule could not be read from
    what is public; one role for each image makes DSRNet the teacher nearly always, since it has seen the depth.
    """
    if roles == "image":
        sr_off, de_off = (off.mean(dim=(1, 2, 3), keepdim=True) for off in (sr_off, de_off))
    if roles == "denet":
        return torch.ones_like(sr_off)
    if roles == "soft":
        return torch.sigmoid((sr_off - de_off) / SOFTNESS)
    return (de_off < sr_off).to(sr_off.dtype)


def exchange(sr: torch.Tensor, de: torch.Tensor, sr_learns: torch.Tensor) -> torch.Tensor:
    """How far both are apart, as one value; only who learns feels it, the teacher gets no gradient."""
    return (sr_learns * (sr - de.detach()).abs() + (1 - sr_learns) * (de - sr.detach()).abs()).mean()


def agreed(depth: Depth, low: Depth, valid: Mask) -> Depth:
    """``depth`` (b, 1, H, W) with what it lacks beside the readings added, enlarged: shrunken, it is nearly ``low``.

    In holes what is lacking around them is added, handed on smoothly.
    """
    return depth + enlarge(fill(missing(depth, low, valid), valid), (depth.shape[-2], depth.shape[-1]))


def affinity(features: torch.Tensor) -> torch.Tensor:
    """How alike any two of 16 x 16 places look: features (b, c, h, w) to cosines (b, 1, 256, 256)."""
    places = F.normalize(F.adaptive_avg_pool2d(features.float(), AFFINITY_SIDE).flatten(2), dim=1)
    return (places.transpose(1, 2) @ places).unsqueeze(1)


def between(off: Depth) -> torch.Tensor:
    """Errors (b, 1, H, W) as those of pairs of places, the mean of both: (b, 1, 256, 256), as ``affinity`` has them."""
    places = F.adaptive_avg_pool2d(off, AFFINITY_SIDE).flatten(2)
    return (places.unsqueeze(-1) + places.unsqueeze(-2)) / 2


def structure(depth: Depth) -> torch.Tensor:
    """Where depth changes, 0..1: g / (g + EDGE), g the slope (Sobel) as a share of each image's range a pixel."""
    across = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], device=depth.device, dtype=depth.dtype) / 8
    kernels = torch.stack([across, across.mT])[:, None]
    slope = F.conv2d(F.pad(depth, (1, 1, 1, 1), mode="replicate"), kernels).norm(dim=1, keepdim=True)
    span = depth.amax(dim=(1, 2, 3), keepdim=True) - depth.amin(dim=(1, 2, 3), keepdim=True)
    g = slope / span.clamp(min=1e-6)
    return g / (g + EDGE)


def trust(sr_off: Depth, de_off: Depth) -> torch.Tensor:
    """DSRNet's share in the fusion, 0..1 at each pixel: exp(-U / mean U) of its error U, over the sum of both's.

    Each network's error counts against its own mean. It takes the truth, so this exists in training only.
    """
    sr_u, de_u = (off / off.mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6) for off in (sr_off, de_off))
    return torch.sigmoid(de_u - sr_u)


def balanced(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross entropy in which structure, which is rare, weighs as much as the rest; one value."""
    rare = target.mean()
    return F.binary_cross_entropy_with_logits(logits, target, weight=target * (1 - rare) + (1 - target) * rare)


class StructureNet(nn.Module):
    """Both networks' last features to one structure map, at twice the size of DENet's (half of the picture's)."""

    def __init__(self, sr_width: int, de_width: int) -> None:
        super().__init__()
        self.from_sr, self.from_de = nn.Conv2d(sr_width, HIDDEN, 1), nn.Conv2d(de_width, HIDDEN, 1)
        layers = [layer for _ in range(3) for layer in (nn.Conv2d(HIDDEN, HIDDEN, 3, padding=1), nn.ReLU())]
        self.read = nn.Sequential(*layers, nn.Conv2d(HIDDEN, 4, 3, padding=1))

    def forward(self, sr: torch.Tensor, de: torch.Tensor, sr_share: torch.Tensor) -> torch.Tensor:
        """Features of DSRNet (any size) and DENet (b, c, h, w), and DSRNet's share, to logits (b, 1, h, w)."""
        size = (de.shape[-2], de.shape[-1])
        share = F.interpolate(sr_share, size, mode="area")
        sr = self.from_sr(F.interpolate(sr, size, mode="area"))
        return F.pixel_shuffle(self.read(share * sr + (1 - share) * self.from_de(de)).float(), 2)


class CtktTask(Task):
    """DSRNet in training, and beside it, until it is saved, DENet and what couples them (Sun et al. 2021)."""

    recipe: CtktRecipe
    scales: ClassVar[tuple[int, ...]] = (2, 4, 8, 16)

    def __init__(
        self, recipe: CtktRecipe, folder: Path, source: Source | None = None, report: Path | None = None
    ) -> None:
        super().__init__(recipe, folder, source, report)
        shape, helper = recipe.network, recipe.estimator
        network = begun(Ctkt, shape, recipe.start)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        named = recipe.guided_teacher not in ("", TRUTH)
        self.teacher = [_guided_teacher(recipe.guided_teacher)] if named else []  # a list: no part of what is learnt
        if not recipe.joint:
            return
        if not len(helper.widths) == len(helper.blocks) == shape.stages:
            raise InputError(
                "each stage of DSRNet is paired with one of DENet: give estimator.widths and estimator.blocks "
                f"{shape.stages} numbers each, as network.stages says"
            )
        estimator = DENet(helper) if not recipe.estimator_start else _read_estimator(recipe.estimator_start, helper)
        self.estimator = estimator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if recipe.structure_weight:
            self.structure_net = StructureNet(shape.width, helper.common)

    def loss(self, batch: Batch) -> torch.Tensor:
        """The weighted sum of ``terms``."""
        recipe, values = self.recipe, self.terms(batch)
        self.log_dict(values, prog_bar=True)
        ramp = min(1.0, (self.global_step + 1) / max(1.0, recipe.exchange_ramp * recipe.steps))
        total = torch.zeros((), device=self.device)
        for name in TERMS:
            if name in values:
                weight = getattr(recipe, f"{name}_weight") * (ramp if name in EXCHANGED else 1.0)
                total = total + weight * values[name]
        return total + self.untouched()

    def terms(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Each term of the loss that has a weight, one value each; and the share of pixels at which DENet teaches."""
        recipe, target, known = self.recipe, batch["depth"], batch["known"]
        size = (target.shape[-2], target.shape[-1])
        sr = _where_known(self.resolved(batch["low"], batch["valid"], size, batch["step"]), target, known)
        weight, smooth = self.difficulty(batch, size), batch["step"] == 0
        off = absolute(sr.depth, target)
        off = off + recipe.root_square_weight * smooth.flatten() * root_square(sr.depth, target)
        values = {"resolution": (off * weight).mean()}
        values["side"] = _mean((absolute(side, target) * weight).mean() for side in sr.sides)
        if recipe.guided_teacher and recipe.output_weight and bool(smooth.any()):
            told = torch.where(known, self.guided(batch["low"], batch["valid"], batch["rgb"], target), target)
            learns = [who_learns(error(side, target), error(told, target), recipe.roles) * smooth for side in sr.sides]
            values["teacher_teaches"] = learns[-1].mean()
            values["output"] = _mean(exchange(side, told, w) for side, w in zip(sr.sides, learns, strict=True))
        if not recipe.joint:
            return values
        de = _where_known(self.estimated(batch["rgb"], batch["inverse"], batch["low"], batch["valid"]), target, known)
        if not recipe.agreeing:  # how hard an image is for bicubic then tells nothing
            weight = torch.ones_like(weight)
        values["estimation"] = (absolute(de.depth, target) * weight).mean()
        values["side"] = values["side"] + _mean((absolute(side, target) * weight).mean() for side in de.sides)
        stages = range(len(sr.sides))
        errors = [(error(sr.sides[i], target), error(de.sides[i], target)) for i in stages]
        learns = [who_learns(*errors[i], recipe.roles) for i in stages]
        values["denet_teaches"] = learns[-1].mean()
        if recipe.output_weight and not recipe.guided_teacher:
            values["output"] = _mean(exchange(sr.sides[i], de.sides[i], learns[i]) for i in stages)
        if recipe.affinity_weight:
            learns = [who_learns(between(errors[i][0]), between(errors[i][1]), recipe.roles) for i in stages]
            alike = [(affinity(sr.stages[i]), affinity(de.stages[i])) for i in stages]
            values["affinity"] = _mean(exchange(*alike[i], learns[i]) for i in stages)
        if recipe.structure_weight:
            logits = self.predicted_structure(sr, de, target)
            half = (logits.shape[-2], logits.shape[-1])
            values["structure"] = balanced(logits, F.interpolate(structure(target), half, mode="area"))
        return values

    def guided(self, low: Depth, valid: Mask, rgb: Rgb, target: Depth) -> Depth:
        """What the guided teacher says, in the unit of ``low``, or the truth in its place; without gradient."""
        with torch.no_grad():
            return self.teacher[0].to(self.device)(low, valid, rgb).float() if self.teacher else target

    def difficulty(self, batch: Batch, size: Size) -> torch.Tensor:
        """A weight for each image, (b,): TYPICAL over bicubic's error, so that no image outweighs the others."""
        if not self.recipe.relative:
            return torch.ones(len(batch["low"]), device=self.device)
        plain = Bicubic()(batch["low"], batch["valid"], size)
        plain = torch.where(batch["known"], plain, batch["depth"])
        return TYPICAL / (absolute(plain, batch["depth"]) + EASIEST)

    def resolved(self, low: Depth, valid: Mask, size: Size, step: torch.Tensor) -> Outputs:
        """DSRNet's answer, in the unit of ``low``, told of its ``step`` (b, 1, 1, 1), 0: none; its side outputs are the
        depth after each stage."""
        x, middle, span = normalised(low, valid)
        made = self.network.enlarged(x, valid, size, step / span.clamp(min=1e-6))
        depth, *sides = (restored(d.float(), valid, middle, span) for d in (made.depth, *made.sides))
        depth = torch.where(step > 0, hardened(depth, EDGE_LEVELS * step), depth)  # as `predict` does
        return Outputs(depth, sides, made.features)

    def estimated(self, rgb: Rgb, inverse: torch.Tensor, low: Depth, valid: Mask) -> Outputs:
        """DENet's answer, in shares of the depth's range, as the low map is; made to agree with it where asked."""
        made = self.estimator(rgb, inverse)
        sides = [side.float() for side in made.sides]
        if self.recipe.agreeing:
            sides = [agreed(side, low, valid) for side in sides]
        return Outputs(sides[-1], sides, made.features)

    def predicted_structure(self, sr: Outputs, de: Outputs, target: Depth) -> torch.Tensor:
        """The structure prediction's logits, (b, 1, h, w), at half the picture's size."""
        share = trust(error(sr.depth, target), error(de.depth, target))
        if not self.recipe.uncertainty:
            share = torch.full_like(share, 0.5)
        return self.structure_net(sr.stages[-1], de.stages[-1], share)

    def further(self, pairs: Pairs) -> dict[str, float]:
        """DENet's mean error on the validation scenes at x8 as a share of that of a flat map, its mean depth, or, where
        DENet agrees with the low map, of bicubic's, which is what a flat map then is."""
        if not self.recipe.joint:
            return {}
        off, flat = 0.0, 0.0
        for rgb, depth in pairs:
            rgb, target = crop_to_multiple(rgb, 8), crop_to_multiple(_own_unit(depth)[0], 8)
            low, valid = downsample(target, torch.ones_like(target, dtype=torch.bool), 8)
            off += float(absolute(self.estimated(rgb, _no(rgb), low, valid).depth, target))
            plain = target.mean().expand_as(target)
            flat += float(absolute(agreed(plain, low, valid) if self.recipe.agreeing else plain, target))
        return {"estimation_share": off / flat}

    def save(self) -> None:
        """DSRNet's weights, and in a file of their own DENet's, which other runs may begin with."""
        super().save()
        if self.recipe.joint:
            part = self.folder / "estimator.part"
            saved.write(self.estimator, part, "denet", self.recipe.estimator)
            part.replace(self.folder / ESTIMATOR)

    def panels(self, rgb: Rgb, depth: Depth, scale: int) -> list[Panel]:
        """DSRNet's answer and, below it, its teacher's, who teaches where, and the structure both networks predict."""
        panels, recipe = super().panels(rgb, depth, scale), self.recipe
        if not (recipe.joint or recipe.guided_teacher):
            return panels
        target, bottom, span = _own_unit(depth)
        low, valid = downsample(target, torch.ones_like(depth, dtype=torch.bool), scale)
        with torch.inference_mode():
            sr = self.resolved(low, valid, (rgb.shape[-2], rgb.shape[-1]), torch.zeros(1, 1, 1, 1, device=rgb.device))
            de = self.estimated(rgb, _no(rgb), low, valid) if recipe.joint else None
            named = "DENet" if de is not None and not recipe.guided_teacher else recipe.guided_teacher
            told = self.guided(low, valid, rgb, target) if de is None or recipe.guided_teacher else de.depth
            off = error(sr.sides[-1], target), error(told, target)
            learns = who_learns(*off, recipe.roles).expand_as(depth)
            edges, word = structure(target), "true structure"
            if de is not None and recipe.structure_weight:
                edges, word = self.predicted_structure(sr, de, target).sigmoid(), "predicted structure"
        truth, made, teaches, drawn = (
            x.float().cpu()[0, 0].numpy() for x in (depth, told * span + bottom, learns, edges)
        )
        everywhere, shares = truth > 0, Range(0, 1, "")
        reach = Range.of(truth, everywhere)
        return [
            *panels,
            depth_panel(made, everywhere, reach, f"{named}, who teaches"),
            error_panel(made, truth, everywhere, Range(0, reach.high - reach.low), "its error (10 x the scale above)"),
            Panel(colours(teaches, everywhere, shares), f"{named} teaches at {teaches.mean():.0%}", shares),
            Panel(colours(drawn, drawn >= 0, shares), word, shares),
        ]


def _read_estimator(path: str, config: DENetConfig) -> DENet:
    """DENet as it is in a file, which must have this shape. Raises InputError."""
    if not Path(path).is_file():
        raise InputError(f"estimator_start={path} does not exist: name {ESTIMATOR} in the folder of another run")
    found = saved.read(Path(path), "DENet", lambda fields: DENet(DENetConfig(**fields)))
    if found.config != config:
        raise InputError(f"{path} holds a DENet of another shape: {found.config}")
    return found


def _guided_teacher(name: str) -> Model:
    """The model called ``name``. Raises InputError for one that sees anything but a low map and a picture."""
    teacher = load(name)
    if set(teacher.inputs) != {"low", "rgb"}:
        raise InputError(f"guided_teacher={name} does not see both a low map and a picture: take crisp")
    return teacher.requires_grad_(False)


def _where_known(outputs: Outputs, target: Depth, known: Mask) -> Outputs:
    """As ``outputs``, right where the truth has holes: nothing is learnt there."""
    depth, *sides = (torch.where(known, d, target) for d in (outputs.depth, *outputs.sides))
    return Outputs(depth, sides, outputs.stages)


def _own_unit(depth: Depth) -> tuple[Depth, torch.Tensor, torch.Tensor]:
    """One map in shares of its range, as in training; its smallest value and its range."""
    bottom = depth.amin()
    span = (depth.amax() - bottom).clamp(min=1e-6)
    return (depth - bottom) / span, bottom, span


def _no(rgb: Rgb) -> torch.Tensor:
    """Depth is asked for, not disparity."""
    return torch.zeros(len(rgb), 1, 1, 1, dtype=torch.bool, device=rgb.device)


def _mean(values: Iterable[torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(values)).mean()
