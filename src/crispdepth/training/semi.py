"""SemiTask: depth and classes from pictures, some of them labelled, the others by a teacher (Symbiotic)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from crispdepth.data.nearfarmix import MIXES, UNLABELLED, Mix, mixed, nearfarmix
from crispdepth.data.scenes import CLASSES, scenes
from crispdepth.data.textures import Dice
from crispdepth.losses import cross_entropy, silog
from crispdepth.metrics import METRICS, confusion, mean_iou
from crispdepth.models.symbiotic import Symbiotic, SymbioticConfig
from crispdepth.picture import Panel, Range, class_panel, depth_panel, rgb_panel
from crispdepth.training import task
from crispdepth.training.examples import (
    TRAINING_SEED,
    Batch,
    Pictures,
    Scenes,
    Several,
    Source,
    shrunk,
)
from crispdepth.training.recipes import SemiRecipe
from crispdepth.training.teacher import Teacher, own_weights, taught, teacher_named
from crispdepth.types import InputError, Rgb, Sample

MEASURED = ("rmse", "absrel", "delta1")
SHAPES = ((1.0, 1.0), (0.75, 1.0), (0.75, 1.0), (1.0, 0.75))  # of a batch: the middle of its squares, by height, width
HELD_BACK = 20  # every so many pictures of a data set one is kept for validation
MOST_HELD_BACK = 24
LEAST_WITHIN = 0.5  # of a held-back picture's readings that the network can say
SHAPE = (
    "encoder",
    "width",
    "exchange",
    "exchange_strides",
    "pairs",
    "expansion",
)  # of a network: what weights depend on


def lesson(recipe: SemiRecipe, step: int, device: torch.device | str, source: Source) -> Batch:
    """The batch of one step: rgb, depth in metres for the network's focal length, known, classes (255: unlabelled).

    ``known`` is False where there is no reading and beyond the network's farthest depth; depth is filled there.
    ``step`` seeds what the task draws. Most batches show only the middle of their squares, in one of SHAPES: how high a
    thing stands in a picture tells how far it is, and photos are seldom square.
    """
    count, side = recipe.patches[step % len(recipe.patches)]
    drawn = recipe.drawn(step)
    exact = source(count, side, TRAINING_SEED + drawn, device, recipe.zoom)
    assert exact.rgb is not None
    assert exact.depth is not None
    depth = for_one_camera(exact, recipe.network)
    known = torch.ones_like(depth, dtype=torch.bool) if exact.depth_valid is None else exact.depth_valid
    known = known & (depth > 0) & (depth <= recipe.network.max_depth_m)
    classes = exact.classes
    if classes is None:
        classes = torch.full_like(known, UNLABELLED, dtype=torch.uint8)
    dice = Dice(recipe.seed * 1_000_003 + step, depth.device)
    turned = dice.chance(0.5, count, 1, 1, 1)
    rows, columns = (_middle(side, share) for share in SHAPES[int(dice.below(len(SHAPES), 1))])
    maps = {"rgb": exact.rgb, "depth": depth, "known": known, "classes": classes}
    batch = {name: torch.where(turned, x.flip(-1), x)[..., rows, columns] for name, x in maps.items()}
    return {**batch, "step": torch.tensor(step)}


def _middle(side: int, share: float) -> slice:
    """The middle ``share`` of a side."""
    cut = round(side * (1 - share) / 2)
    return slice(cut, side - cut)


def for_one_camera(sample: Sample, config: SymbioticConfig) -> torch.Tensor:
    """Depth as a camera of the network's focal length would need it to see the same; unchanged without intrinsics."""
    assert sample.depth is not None
    if sample.intrinsics is None:
        return sample.depth
    return sample.depth * (config.focal_px / sample.intrinsics[:, 0, 0]).view(-1, 1, 1, 1)


class SemiTask(task.Task):
    """A Symbiotic network in training."""

    recipe: SemiRecipe

    def __init__(
        self, recipe: SemiRecipe, folder: Path, source: Source | None = None, report: Path | None = None
    ) -> None:
        if report is not None:
            raise InputError("--report measures depth made of low maps, and this learns from pictures: leave it out")
        given = source or Scenes()
        parts: Sequence[Source] = given.sources if isinstance(given, Several) else [given]
        teacher = teacher_named(recipe.teacher) if recipe.teacher else None
        config = replace(recipe.network, classes=_class_names(recipe, teacher, parts))
        prepared = [
            _prepared(part, config, recipe, teacher, folder / "labels" / str(i)) for i, part in enumerate(parts)
        ]
        learnt = [part for part, _ in prepared]
        if recipe.classes_weight and all(isinstance(part, Pictures) and not part.class_names for part in learnt):
            raise InputError(
                "no picture shows its classes, and there is no teacher: name one (teacher=NAME), or say "
                "classes_weight=0 to learn depth alone"
            )
        super().__init__(recipe, folder, learnt[0] if len(learnt) == 1 else Several(learnt), report)
        self.held_back = [sample for _, samples in prepared for sample in samples]
        self.against_teacher = teacher is not None and any(isinstance(part, Pictures) for part in parts)
        self.teacher = teacher
        network = begun(recipe, config)
        self.network: Symbiotic = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.mix = _mix(recipe)

    @staticmethod
    def make(recipe: SemiRecipe, step: int, device: torch.device | str, source: Source) -> Batch:
        """As ``lesson``."""
        return lesson(recipe, step, device, source)

    def loss(self, batch: Batch) -> torch.Tensor:
        """10 · SILog + 0.5 · cross-entropy over what is labelled, on mixed pictures; weights by the recipe."""
        recipe = self.recipe
        torch.manual_seed(recipe.seed * 1_000_003 + int(batch["step"]))  # for what an encoder drops (Swin)
        dice = Dice(recipe.seed * 1_000_003 + int(batch["step"]) + 500_000_009, self.device)
        sample = Sample(
            rgb=batch["rgb"], depth=batch["depth"], depth_valid=batch["known"], classes=self.classes_of(batch)
        )
        if self.mix is not None and self.global_step < recipe.mix_until * recipe.steps:
            sample = mixed(sample, self.mix, dice, recipe.mixed)
        rgb, target, known, classes = sample.rgb, sample.depth, sample.depth_valid, sample.classes
        assert rgb is not None and target is not None and known is not None and classes is not None  # noqa: PT018
        if dice.chance(recipe.tinted, 1):
            rgb = tinted(rgb, dice)
        depth, logits = (x.float() for x in self.network.depth_and_logits(rgb))
        of_depth = silog(depth, target, known)
        some = (classes != UNLABELLED).flatten(1).any(1)
        of_classes = cross_entropy(logits, classes).sum() / some.sum().clamp(min=1)
        ramp = min(1.0, (self.global_step + 1) / max(1.0, recipe.classes_ramp * recipe.steps))
        self.log_dict({"silog": of_depth, "cross_entropy": of_classes}, prog_bar=True)
        return recipe.depth_weight * of_depth + ramp * recipe.classes_weight * of_classes

    def classes_of(self, batch: Batch) -> torch.Tensor:
        """The labels that may be seen; the teacher's, of the clean picture, where a picture has none."""
        classes = batch["classes"]
        labelled = (classes != UNLABELLED).flatten(1).any(1)
        if self.teacher is None or bool(labelled.all()):
            return classes
        guessed, sure = self.teacher(batch["rgb"][~labelled])
        classes = classes.clone()
        classes[~labelled] = torch.where(sure >= self.recipe.confidence, guessed, UNLABELLED).to(torch.uint8)
        return classes

    def validation_step(self, _: Any, __: int) -> None:
        """Depth errors (metres, mean of per-image values) and mIoU on pictures that are never learnt from."""
        count = len(self.network.class_names)
        table = torch.zeros(count, count, dtype=torch.int64)
        values: dict[str, list[float]] = {name: [] for name in MEASURED}
        for sample in self.held_back:
            assert sample.rgb is not None and sample.depth is not None and sample.depth_valid is not None  # noqa: PT018
            depth, classes = self.seen(sample.rgb)
            for name in MEASURED:
                values[name].append(float(METRICS[name](depth, sample.depth, sample.depth_valid)))
            if sample.classes is not None:
                table += confusion(classes, sample.classes, count)
        for name in MEASURED:
            self.log(name, sum(values[name]) / len(values[name]), prog_bar=True, batch_size=1)
        if table.any():
            word = "miou_against_teacher" if self.against_teacher else "miou"
            self.log(word, mean_iou(table), prog_bar=True, batch_size=1)
        if self.trainer.is_global_zero and not self.trainer.sanity_checking:
            task.save_weights(self.network, self.folder)
            self.draw()

    def seen(self, rgb: Rgb) -> tuple[torch.Tensor, torch.Tensor]:
        """Depth and classes of pictures, on the CPU."""
        with torch.inference_mode():
            depth, classes = self.network.depth_and_classes(rgb.to(self.device))
        return depth.float().cpu(), classes.cpu()

    def draw(self) -> None:
        """Picture, true and found depth, true and found classes, of three held-back pictures."""
        panels: list[Panel] = []
        for sample in self.held_back[:3]:
            assert sample.rgb is not None and sample.depth is not None and sample.depth_valid is not None  # noqa: PT018
            found, classes = (x[0, 0].numpy() for x in self.seen(sample.rgb))
            truth, valid = sample.depth[0, 0].numpy(), sample.depth_valid[0, 0].numpy()
            span, names = Range.of(truth, valid), self.network.class_names
            labels = torch.full_like(sample.depth, UNLABELLED) if sample.classes is None else sample.classes
            panels += [
                rgb_panel(sample.rgb[0].permute(1, 2, 0).numpy()),
                depth_panel(truth, valid, span, "true depth"),
                depth_panel(found, found > 0, span, f"step {self.global_step}"),
                class_panel(labels[0, 0].to(torch.uint8).numpy(), names, "labels"),
                class_panel(classes, names, f"step {self.global_step}"),
            ]
        self.write_picture(panels, columns=5)


def begun(recipe: SemiRecipe, config: SymbioticConfig) -> Symbiotic:
    """The network to train: random, with an encoder of the hub, or going on from saved weights (``recipe.start``).

    Saved weights must have the recipe's shape; where their classes are others, the last layer starts anew.
    """
    if not recipe.start:
        return (
            Symbiotic.with_hub_encoder(config, recipe.encoder_weights) if recipe.encoder_weights else Symbiotic(config)
        )
    before = Symbiotic.from_file(own_weights(recipe.start) or Path(recipe.start))
    shape = Symbiotic(replace(config, encoder=before.config.encoder)) if recipe.encoder_weights else Symbiotic(config)
    weights = before.state_dict()
    if before.class_names != config.classes:
        weights |= {k: v for k, v in shape.state_dict().items() if k.startswith("semantics.head.3.")}
    try:
        shape.load_state_dict(weights)
    except RuntimeError as error:
        shown = {name: getattr(before.config, name) for name in SHAPE}
        raise InputError(f"{recipe.start} holds a network of another shape: {shown}") from error
    return shape


def tinted(rgb: Rgb, dice: Dice) -> Rgb:
    """Brighter or darker, flatter or steeper, and a little off in each colour."""
    count = len(rgb)
    gain = dice.spread(0.8, 1.25, count, 1, 1, 1) * dice.spread(0.9, 1.1, count, 3, 1, 1)
    return (rgb.clamp(min=1e-4) ** dice.spread(0.7, 1.4, count, 1, 1, 1) * gain).clamp(0, 1)


def held_back_scenes(config: SymbioticConfig) -> list[Sample]:
    """Made-up scenes of seeds that training never draws, as the network's camera would see them."""
    seeds = range(task.VALIDATION_SEED, task.VALIDATION_SEED + task.VALIDATION_SCENES)
    made = (scenes(1, *task.VALIDATION_SIZE, seed, true_size=True) for seed in seeds)
    return [_at_scale(sample, config, labelled=config.classes == CLASSES) for sample in made]


def _class_names(recipe: SemiRecipe, teacher: Teacher | None, parts: Sequence[Source]) -> tuple[str, ...]:
    """What the network tells apart: what the recipe says, or the teacher, or the data."""
    said = [recipe.network.classes, teacher.class_names if teacher else (), *(part.class_names for part in parts)]
    names = next((names for names in said if names), ())
    if not names:
        raise InputError("nobody says which classes there are: name a teacher (teacher=NAME), or network.classes")
    if teacher is not None and teacher.class_names != names:
        raise InputError("the teacher tells other classes apart than the network: leave network.classes empty ([])")
    return names


def _prepared(
    source: Source, config: SymbioticConfig, recipe: SemiRecipe, teacher: Teacher | None, labels_folder: Path
) -> tuple[Source, list[Sample]]:
    """A source as the task learns from it, and pictures kept back for validation, at the network's scale."""
    if isinstance(source, Scenes):
        labels = recipe.labels if config.classes == CLASSES else 0.0
        return Scenes(source.folder, labels, true_size=True), held_back_scenes(config)
    if not isinstance(source, Pictures):
        return source, []
    readers, labels = source.readers, recipe.labels
    labelled = source.class_names == config.classes
    if teacher is not None and not labelled:
        readers = taught(readers, teacher, recipe.teacher, labels_folder, recipe.confidence)
        labelled, labels = True, 1.0
    kept = list(readers)[::HELD_BACK][:MOST_HELD_BACK]
    learnt = {name: read for name, read in readers.items() if name not in kept} or readers
    names = config.classes if labelled else ()
    pictures = Pictures(learnt, names, config.side, labels, config.focal_px)
    return pictures, [_at_scale(readers[name](), config, labelled) for name in kept]


def _at_scale(sample: Sample, config: SymbioticConfig, labelled: bool) -> Sample:
    sample = shrunk(sample, config.side)
    depth = for_one_camera(sample, config)
    seen = (depth > 0) if sample.depth_valid is None else sample.depth_valid & (depth > 0)
    known = seen & (depth <= config.max_depth_m)
    if known.sum() < LEAST_WITHIN * seen.sum():
        farthest = 10 * math.ceil(float(depth[seen].max()) / 10)
        raise InputError(
            f"{sample.name}: most of the depth is beyond {config.max_depth_m:g} m, all that the network can say: set "
            f"network.max_depth_m={farthest}, if the depth's unit is right"
        )
    return replace(sample, depth=depth, depth_valid=known, classes=sample.classes if labelled else None)


def _mix(recipe: SemiRecipe) -> Mix | None:
    if recipe.mix == "nearfarmix":
        return partial(nearfarmix, at=recipe.near)
    return MIXES[recipe.mix] if recipe.mix else None
