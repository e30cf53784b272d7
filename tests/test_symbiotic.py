"""Symbiotic: sizes, receptive fields, exchanges, encoders, weights; and the command with one picture."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import transformers as typed_transformers
from PIL import ImageDraw
from safetensors.torch import load_file, save_file
from test_cli import crispdepth, refused

from crispdepth.bench.evaluation import evaluate
from crispdepth.bench.protocol import PROTOCOLS
from crispdepth.data import sets
from crispdepth.data.scenes import CLASSES, scenes
from crispdepth.extras import late
from crispdepth.inference import predict
from crispdepth.io import read_depth, read_label, read_rgb, write_depth, write_label, write_rgb
from crispdepth.losses import cross_entropy, silog
from crispdepth.models.catalog import load
from crispdepth.models.symbiotic import (
    ENCODERS,
    EXCHANGES,
    SMALL_CONFIG,
    STRIDES,
    CrossAttention,
    Exchange,
    LgCat,
    Symbiotic,
    SymbioticConfig,
    joined,
    likeliest,
    partitioned,
    window_of,
)
from crispdepth.picture import HOLE, LEGEND_PX, class_colours, class_panel, comparison
from crispdepth.training import task
from crispdepth.training.examples import TRAINING_SEED, Pictures, Scenes, Several
from crispdepth.training.recipes import SemiRecipe, find
from crispdepth.training.run import train
from crispdepth.training.semi import SemiTask, _at_scale, begun, lesson
from crispdepth.training.teacher import taught, teacher_named
from crispdepth.types import InputError, Sample

transformers: Any = typed_transformers  # whose configurations take more words than their types say
TINY_ENCODERS: dict[str, dict[str, Any]] = {
    "convnext": {"model_type": "convnext", "hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]},
    "resnet": {
        "model_type": "resnet",
        "embedding_size": 8,
        "hidden_sizes": [8, 8, 8, 8],
        "depths": [1, 1, 1, 1],
        "layer_type": "basic",
    },
    "swin": {"model_type": "swin", "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4},
    "dinov2": {
        "model_type": "dinov2",
        "hidden_size": 16,
        "num_hidden_layers": 5,
        "num_attention_heads": 2,
        "image_size": 56,
    },
}
TINY = SymbioticConfig(
    encoder=json.dumps(TINY_ENCODERS["convnext"]), classes=("floor", "wall", "thing"), width=32, expansion=1, side=128
)


def network(**changes: Any) -> Symbiotic:
    torch.manual_seed(0)
    return Symbiotic(dataclasses.replace(TINY, **changes)).eval()


def test_batch_norm_comes_back_from_a_file(tmp_path: Path) -> None:
    model = network(encoder=json.dumps(TINY_ENCODERS["resnet"])).train()
    for _ in range(3):
        model(picture(64, 64, 2))
    model.save(tmp_path / "a.safetensors")
    again = Symbiotic.from_file(tmp_path / "a.safetensors").eval()
    torch.testing.assert_close(again(picture(64, 64)), model.eval()(picture(64, 64)), rtol=5e-3, atol=1e-3)


def picture(height: int, width: int, count: int = 1) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", TINY_ENCODERS)
def test_every_kind_of_encoder_gives_depth_and_classes_of_the_pictures_size(kind: str) -> None:
    model = network(encoder=json.dumps(TINY_ENCODERS[kind]))
    depth, logits = model.depth_and_logits(picture(45, 70))
    assert depth.shape == (1, 1, 45, 70)
    assert logits.shape == (1, 3, 45, 70)
    assert 0 < depth.min().item() <= depth.max().item() < TINY.max_depth_m
    (depth.square().mean() + logits.square().mean()).backward()
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing


@pytest.mark.parametrize("name", ENCODERS)
def test_the_named_encoders_are_backbones_of_transformers(name: str) -> None:
    with torch.device("meta"):
        model = Symbiotic(dataclasses.replace(TINY, encoder=name))
    assert len(model.encoder.backbone.channels) == 4


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_every_exchange_works_with_padding_and_none_passes_nothing_on(exchange: str) -> None:
    model = network(exchange=exchange)
    rgb = picture(40, 70)
    depth, logits = model.depth_and_logits(rgb)
    assert depth.isfinite().all()
    assert logits.isfinite().all()
    with torch.no_grad():
        model.semantics.necks[0].bias.add_(torch.linspace(-3, 3, TINY.width))  # type: ignore[operator]
    other, _ = model.depth_and_logits(rgb)
    assert bool((other == depth).all()) == (exchange == "none")


@pytest.mark.parametrize("size", [(480, 640), (160, 224), (64, 96), (352, 1216)])
@pytest.mark.parametrize("stride", STRIDES)
def test_one_block_and_one_grid_reach_the_whole_map(size: tuple[int, int], stride: int) -> None:
    height, width = size[0] // stride, size[1] // stride
    cells = 32 // stride
    grid = (height // cells, width // cells)
    window = window_of(grid, cells)
    seen = torch.zeros(1, height, width, 1)
    seen[0, height // 3, width // 2] = 1  # reaches those that attend to it, then those that attend to these
    for size_of, sparse in ((window, False), (grid, True)):
        groups = partitioned(seen, size_of, sparse)
        seen = joined(groups.amax(1, keepdim=True).expand_as(groups), (height, width), size_of, sparse)
    assert bool((seen == 1).all())
    if min(grid) >= cells:
        assert window == grid  # the rule of the paper's blocks: 1/32 of the picture


def test_a_fixed_window_of_7_reaches_little() -> None:
    seen = torch.zeros(1, 126, 161, 1)
    seen[0, 40, 80] = 1
    for sparse in (False, True):
        groups = partitioned(seen, (7, 7), sparse)
        seen = joined(groups.amax(1, keepdim=True).expand_as(groups), (126, 161), (7, 7), sparse)
    assert float(seen.mean()) < 0.15


def test_the_block_really_depends_on_every_pixel_of_the_other_task() -> None:
    config = dataclasses.replace(TINY, width=8, expansion=1)
    torch.manual_seed(0)
    block = LgCat(config)
    x, y = (torch.randn(1, 8, 24, 32, requires_grad=True) for _ in range(2))
    block(x, y, 4, None)[0, :, 11, 20].square().sum().backward()
    assert y.grad is not None
    assert bool((y.grad.abs().sum(1) > 0).all())
    assert x.grad is not None
    assert bool((x.grad.abs().sum(1) > 0).any())


def test_queries_stay_those_of_the_other_task_while_keys_and_values_move_on() -> None:
    torch.manual_seed(0)
    block = LgCat(dataclasses.replace(TINY, pairs=2))
    x, y = (torch.randn(1, TINY.width, 8, 8) for _ in range(2))
    given: list[Any] = []
    gotten: list[torch.Tensor] = []

    def watch(_: Any, inputs: Any, output: torch.Tensor) -> None:
        given.append(inputs)
        gotten.append(output)

    for attention in block.attentions:
        attention.register_forward_hook(watch)
    block(x, y, 2, None)
    assert len(given) == 4
    for (asked, own, *_), before in zip(given, [y.movedim(1, -1), *gotten], strict=False):
        assert torch.equal(asked, x.movedim(1, -1))
        assert torch.equal(own, before)


@pytest.mark.parametrize("exchange", ["concat", "ccam", "dss"])
def test_both_directions_of_an_exchange_start_from_the_same_inputs(exchange: str) -> None:
    torch.manual_seed(0)
    both = Exchange(dataclasses.replace(TINY, exchange=exchange), 8)
    depth, semantics = (torch.randn(1, TINY.width, 8, 8) for _ in range(2))
    refined = both(depth, semantics, 4, None)
    assert both.to_depth is not None
    assert both.to_semantics is not None
    assert torch.equal(refined[0], both.to_depth(semantics, depth, 4, None))
    assert torch.equal(refined[1], both.to_semantics(depth, semantics, 4, None))


@pytest.mark.parametrize("grid", [False, True])
def test_parting_and_joining_give_the_map_back(grid: bool) -> None:
    x = torch.arange(2 * 12 * 20 * 3.0).view(2, 12, 20, 3)
    groups = partitioned(x, (3, 5), grid)
    assert groups.shape == (2 * 4 * 4, 15, 3)
    assert torch.equal(joined(groups, (12, 20), (3, 5), grid), x)


def test_nobody_attends_to_the_padding() -> None:
    torch.manual_seed(0)
    attention = CrossAttention(32, grid=False)
    x, y = torch.randn(2, 4, 4, 32), torch.randn(2, 4, 4, 32)
    seen = torch.ones(1, 4, 4, 1, dtype=torch.bool)
    seen[:, :, 3] = False
    changed = torch.where(seen, y, 100 * torch.randn(2, 4, 4, 32))
    a, b = (attention(x, t, (2, 2), seen) for t in (y, changed))
    torch.testing.assert_close(a[:, :, :3], b[:, :, :3])
    assert a.isfinite().all()


def test_a_large_picture_is_seen_at_the_networks_own_scale() -> None:
    model = network()
    rgb = picture(150, 200)
    depth, classes = model.depth_and_classes(rgb)
    assert depth.shape == classes.shape == (1, 1, 150, 200)
    assert classes.dtype == torch.uint8
    assert int(classes.max()) < 3
    assert torch.equal(depth, model(rgb))


def test_the_likeliest_class_is_the_largest_logit() -> None:
    logits = torch.randn(2, 5, 6, 8, generator=torch.Generator().manual_seed(0))
    large = torch.nn.functional.interpolate(logits, (12, 20), mode="bilinear")
    assert torch.equal(likeliest(logits, (12, 20)), large.argmax(1, keepdim=True).to(torch.uint8))


def test_twice_the_focal_length_is_twice_the_depth_at_any_size_of_the_picture() -> None:
    model = network(focal_px=100.0, side=128)
    depth = torch.ones(1, 1, 96, 128)
    assert float(model.for_focal(depth, 200.0).mean()) == pytest.approx(2.0)
    assert float(model.for_focal(torch.ones(1, 1, 960, 1280), 1000.0).mean()) == pytest.approx(1.0)
    assert model.focal_for((960, 1280)) == pytest.approx(1000.0)


def test_words_that_a_training_on_pictures_alone_cannot_heed_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--report"):
        SemiTask(RECIPE, tmp_path, report=tmp_path)


def test_saved_weights_come_back_the_same(tmp_path: Path) -> None:
    model = network(encoder=json.dumps(TINY_ENCODERS["swin"]))
    model.save(tmp_path / "a.safetensors")
    again = Symbiotic.from_file(tmp_path / "a.safetensors").eval()
    assert again.config.classes == TINY.classes
    torch.testing.assert_close(again(picture(32, 64)), model(picture(32, 64)), rtol=0.01, atol=0.01)
    with pytest.raises(InputError, match="does not exist"):
        Symbiotic.from_file(tmp_path / "b.safetensors")
    (tmp_path / "c.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(InputError, match="no safetensors file"):
        Symbiotic.from_file(tmp_path / "c.safetensors")


def test_an_encoder_saved_as_on_the_hub_brings_its_shape_and_its_weights(tmp_path: Path) -> None:
    backbone = network(encoder=json.dumps(TINY_ENCODERS["swin"])).encoder.backbone
    backbone.save_pretrained(tmp_path)
    model = Symbiotic.with_hub_encoder(TINY, str(tmp_path))
    for (name, ours), theirs in zip(model.encoder.backbone.named_parameters(), backbone.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    model.save(tmp_path / "a.safetensors")
    assert json.loads(Symbiotic.from_file(tmp_path / "a.safetensors").config.encoder)["embed_dim"] == 8
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no encoder could be loaded"):
        Symbiotic.with_hub_encoder(TINY, str(tmp_path / "empty"))


@pytest.mark.parametrize("kind", TINY_ENCODERS)
def test_a_classifiers_weights_make_an_encoder_but_not_with_some_missing(kind: str, tmp_path: Path) -> None:
    config = transformers.AutoConfig.for_model(**TINY_ENCODERS[kind])
    transformers.AutoModelForImageClassification.from_config(config).save_pretrained(tmp_path)
    Symbiotic.with_hub_encoder(TINY, str(tmp_path))
    whole = load_file(tmp_path / "model.safetensors")
    lost = next(name for name in whole if ".encoder." in name and name.endswith(".weight"))
    save_file({k: v for k, v in whole.items() if k != lost}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 weights of .*Backbone, such as .*: name a checkpoint"):
        Symbiotic.with_hub_encoder(TINY, str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "cure"),
    [
        ({"encoder": "swin-tniy"}, "did you mean swin-tiny"),
        ({"encoder": "{'a': 1}"}, "no JSON"),
        ({"encoder": "{}"}, "model_type"),
        ({"encoder": '{"model_type": "bert"}'}, "no backbone"),
        ({"exchange": "dsss"}, "did you mean dss"),
        ({"classes": ()}, "1 to 255 classes"),
        ({"exchange_strides": (2, 4)}, "choose from"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_with_its_cure(changes: dict[str, Any], cure: str) -> None:
    with pytest.raises(InputError, match=cure):
        network(**changes)


# ------------------------------------------------------------------------------- training

RECIPE = SemiRecipe(
    network=dataclasses.replace(TINY, classes=CLASSES, side=64, focal_px=55.0),
    patches=((3, 64),),
    steps=2,
    distinct=4,
    learning_rate=0.002,
    warmup=1,
    validate_every=2,
    checkpoint_every=2,
)


@pytest.fixture
def small_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "VALIDATION_SCENES", 2)
    monkeypatch.setattr(task, "VALIDATION_SIZE", (48, 64))


def held(folder: Path) -> dict[str, str]:
    """The last line of figures with a validation in it."""
    [path] = folder.glob("metrics/*/metrics.csv")
    return [row for row in csv.DictReader(path.read_text().splitlines()) if row.get("absrel")][-1]


def pairs(count: int, classes: bool = False, size: tuple[int, int] = (48, 64)) -> dict[str, Any]:
    """Readers of a few scenes as a data set would give them, with a hole in each."""
    made = scenes(count, *size, seed=3)
    assert made.rgb is not None and made.depth is not None and made.classes is not None  # noqa: PT018
    known = torch.ones_like(made.depth, dtype=torch.bool)
    known[..., :8, ::2] = False
    readers = {}
    for i in range(count):
        part = Sample(
            rgb=made.rgb[i : i + 1],
            depth=torch.where(known, made.depth, 0)[i : i + 1],
            depth_valid=known[i : i + 1],
            classes=made.classes[i : i + 1] if classes else None,
            name=f"drive/{i}",
        )
        readers[part.name] = partial(dataclasses.replace, part)
    return readers


def segformer_config(classes: int = 5) -> Any:
    return transformers.SegformerConfig(
        num_labels=classes,
        hidden_sizes=[8, 8, 8, 8],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=8,
    )


def segmentation_model(folder: Path, classes: int = 5) -> str:
    """A tiny SegFormer with random weights, saved as models of the hub are."""
    torch.manual_seed(1)
    model = transformers.SegformerForSemanticSegmentation(segformer_config(classes))
    torch.nn.init.normal_(model.decode_head.classifier.weight, std=3.0)  # surer in some places than in others
    model.save_pretrained(folder)
    return str(folder)


def test_the_recipe_weighs_and_mixes_as_its_page_says() -> None:
    for recipe in (SemiRecipe(), find("symbiotic"), find("symbiotic-small")):
        assert isinstance(recipe, SemiRecipe)
        assert (recipe.depth_weight, recipe.classes_weight, recipe.classes_ramp) == (10.0, 0.5, 0.1)
        assert (recipe.mix, recipe.mixed, recipe.mix_until) == ("nearfarmix", 0.5, 0.9)


def test_a_lesson_has_depth_for_one_camera_and_hides_labels_by_name() -> None:
    batch = lesson(RECIPE, 1, "cpu", Scenes(labels=1.0))
    exact = scenes(3, 64, 64, TRAINING_SEED + 1)
    assert exact.depth is not None
    assert exact.intrinsics is not None
    expected = exact.depth * (55.0 / exact.intrinsics[:, 0, 0]).view(-1, 1, 1, 1)
    turned = torch.where((batch["depth"] == expected).flatten(1).all(1).view(-1, 1, 1, 1), expected, expected.flip(-1))
    assert torch.equal(batch["depth"], turned)
    assert torch.equal(batch["known"], turned <= RECIPE.network.max_depth_m)
    assert (batch["classes"] != 255).all()
    few = [lesson(RECIPE, step, "cpu", Scenes(labels=0.3))["classes"] for step in range(4)]
    seen = [bool((c != 255).any()) for labels in few for c in labels]
    assert 0 < sum(seen) < 12
    again = [lesson(RECIPE, step, "cpu", Scenes(labels=0.3))["classes"] for step in range(4)]
    assert all(torch.equal(a, b) for a, b in zip(few, again, strict=True))


def test_kept_scenes_come_back_with_their_classes_and_cameras(tmp_path: Path) -> None:
    first, again = (lesson(RECIPE, 1, "cpu", Scenes(tmp_path, labels=1.0)) for _ in range(2))
    for name in ("depth", "known", "classes"):
        assert torch.equal(first[name], again[name]), name


@pytest.mark.usefixtures("small_validation")
def test_a_run_on_scenes_then_a_student_of_it_with_few_labels(tmp_path: Path) -> None:
    few = dataclasses.replace(RECIPE, labels=0.3)
    teacher = train(few, tmp_path / "few", accelerator="cpu", workers=0)
    assert Symbiotic.from_file(teacher).class_names == CLASSES
    assert list((tmp_path / "few" / "pictures").glob("step-*.png"))
    assert float(held(tmp_path / "few")["rmse"]) > 0
    assert 0 <= float(held(tmp_path / "few")["miou"]) <= 1
    student = SemiTask(dataclasses.replace(few, teacher=str(teacher), confidence=0.0), tmp_path / "student")
    batch = lesson(few, 1, "cpu", student.source)
    hidden = (batch["classes"] == 255).flatten(1).all(1)
    assert hidden.any()
    filled = student.classes_of(batch)
    assert (filled[hidden] != 255).all()
    assert torch.equal(filled[~hidden], batch["classes"][~hidden])
    unsure = SemiTask(dataclasses.replace(few, teacher=str(teacher), confidence=1.1), tmp_path / "unsure")
    assert torch.equal(unsure.classes_of(batch), batch["classes"])


@pytest.mark.usefixtures("small_validation")
def test_one_run_on_data_sets_with_and_without_labels(tmp_path: Path) -> None:
    name = segmentation_model(tmp_path / "teacher")
    recipe = dataclasses.replace(
        RECIPE, teacher=name, confidence=0.0, network=dataclasses.replace(RECIPE.network, classes=())
    )
    source = Several([Scenes(), Pictures(pairs(3))])
    weights = train(recipe, tmp_path / "run", accelerator="cpu", source=source, workers=0)
    model = Symbiotic.from_file(weights)
    assert model.class_names == tuple(f"LABEL_{i}" for i in range(5))
    assert float(held(tmp_path / "run")["miou_against_teacher"]) >= 0
    kept = sorted(p.name for p in (tmp_path / "run" / "labels").rglob("*.png"))
    assert kept == [f"drive%2F{i}{end}" for i in range(3) for end in (".confidence.png", ".png")]
    again = train(
        dataclasses.replace(recipe, start=str(weights), steps=1, validate_every=1),
        tmp_path / "again",
        accelerator="cpu",
        source=Pictures(pairs(3)),
        workers=0,
    )
    assert again.is_file()


def test_the_teacher_is_shown_the_picture_as_it_is(tmp_path: Path) -> None:
    name = segmentation_model(tmp_path, len(CLASSES))
    teacher = teacher_named(name)
    teacher.class_names = CLASSES
    batch = lesson(RECIPE, 1, "cpu", Scenes(labels=0.0))
    guessed, sure = teacher(batch["rgb"])
    confidence = float(sure.median())
    student = SemiTask(dataclasses.replace(RECIPE, confidence=confidence), tmp_path)
    student.teacher = teacher
    found = student.classes_of(batch)
    assert 0.2 < float((sure >= confidence).float().mean()) < 0.8
    assert len(guessed.unique()) > 1
    assert torch.equal(found, torch.where(sure >= confidence, guessed, 255))
    assert (batch["classes"] == 255).all()


def test_the_teachers_labels_are_cached_with_their_confidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = teacher_named(segmentation_model(tmp_path / "teacher"))
    readers = pairs(1)
    classes, sure = teacher(readers["drive/0"]().rgb)

    def labels(who: Any, confidence: float) -> torch.Tensor:
        [read] = taught(readers, who, "some/teacher", tmp_path, confidence).values()
        return read().classes  # type: ignore[return-value]

    assert torch.equal(labels(teacher, 0.0), classes)
    assert read_label(tmp_path / "some%2Fteacher" / "drive%2F0.confidence.png").max() == round(float(sure.max()) * 255)
    strict = labels(teacher, float(sure.median()))
    left = strict.ne(255)
    assert 0.2 < float(left.float().mean()) < 0.8
    assert torch.equal(strict[left], classes[left])
    monkeypatch.setattr(type(teacher), "__call__", None)
    assert torch.equal(labels(teacher, 0.0), classes)  # nobody is asked again
    others = {"drive/0": pairs(2)["drive/1"]}
    with pytest.raises(InputError, match="labels of other pictures, or by another teacher: delete it"):
        taught(others, teacher, "some/teacher", tmp_path, 0.0)
    with pytest.raises(InputError, match="labels of other pictures, or by another teacher: delete it"):
        labels(teacher_named(segmentation_model(tmp_path / "other", 3)), 0.0)


@pytest.mark.parametrize("kind", ["SegformerForImageClassification", "SegformerModel"])
def test_weights_without_a_segmentation_head_are_no_teacher(kind: str, tmp_path: Path) -> None:
    getattr(transformers, kind)(segformer_config()).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"lacks \d+ weights of SegformerForSemanticSegmentation, such as decode_head"):
        teacher_named(str(tmp_path))


def test_a_mask_classifier_teaches_too(tmp_path: Path) -> None:
    torch.manual_seed(1)
    swin = transformers.SwinConfig(
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 1, 1],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = transformers.Mask2FormerConfig(
        backbone_config=swin,
        num_labels=4,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        dim_feedforward=16,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=6,
    )
    transformers.Mask2FormerForUniversalSegmentation(config).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    used = {k: v for k, v in weights.items() if "swin.layernorm" not in k}  # older releases saved none
    assert len(used) == len(weights) - 2
    save_file(used, tmp_path / "model.safetensors", {"format": "pt"})
    classes, sure = teacher_named(str(tmp_path))(picture(40, 60))
    assert classes.shape == sure.shape == (1, 1, 40, 60)
    assert int(classes.max()) < 4
    assert 0 <= float(sure.min()) <= float(sure.max()) <= 1


def test_mixing_stops_for_the_last_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student = SemiTask(dataclasses.replace(RECIPE, steps=10, mixed=1.0, tinted=0.0), tmp_path)
    seen: list[torch.Tensor] = []
    estimate = student.network.depth_and_logits

    def watched(rgb: torch.Tensor) -> Any:
        seen.append(rgb)
        return estimate(rgb)

    monkeypatch.setattr(student.network, "depth_and_logits", watched)
    monkeypatch.setattr(SemiTask, "log_dict", lambda *_, **__: None)
    batch = lesson(RECIPE, 1, "cpu", student.source)
    for step in (0, 8, 9):
        monkeypatch.setattr(SemiTask, "global_step", step)
        assert student.loss(batch).isfinite()
    assert [bool((rgb == batch["rgb"]).all()) for rgb in seen] == [False, False, True]


@pytest.mark.parametrize(("step", "ramp"), [(3, 0.4), (9, 1.0), (50, 1.0)])
def test_the_loss_is_silog_and_a_growing_share_of_cross_entropy(
    step: int, ramp: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = SemiTask(dataclasses.replace(RECIPE, steps=100, mix="", tinted=0.0), tmp_path)
    monkeypatch.setattr(SemiTask, "log_dict", lambda *_, **__: None)
    monkeypatch.setattr(SemiTask, "global_step", step)
    batch = lesson(RECIPE, 1, "cpu", Scenes(labels=1.0))
    batch["classes"][0] = 255  # counts as no picture, not as one of 0
    with torch.no_grad():
        depth, logits = student.network.depth_and_logits(batch["rgb"])
        gap = (depth.log() - batch["depth"].log())[batch["known"]]
        of_depth = (gap.square().mean() - 0.85 * gap.mean().square()).sqrt()
        of_classes = torch.nn.functional.cross_entropy(logits[1:], batch["classes"][1:, 0].long())
        assert float(of_classes) > 1
        assert float(student.loss(batch)) == pytest.approx(float(10 * of_depth + ramp * 0.5 * of_classes), rel=1e-4)


def test_depth_alone_teaches_and_no_reading_teaches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student = SemiTask(dataclasses.replace(RECIPE, mix=""), tmp_path)
    logged: dict[str, torch.Tensor] = {}
    monkeypatch.setattr(SemiTask, "log_dict", lambda _, values, **__: logged.update(values))
    batch = lesson(RECIPE, 1, "cpu", Pictures(pairs(2)))
    assert (batch["classes"] == 255).all()
    assert not batch["known"].all()
    student.loss(batch)
    assert logged["silog"].item() > 0
    assert logged["cross_entropy"].item() == 0
    batch["known"] = torch.zeros_like(batch["known"])
    assert student.loss(batch).item() == 0


def test_weights_to_begin_with_may_tell_other_classes_apart(tmp_path: Path) -> None:
    before = network()
    before.save(tmp_path / "a.safetensors")
    recipe = dataclasses.replace(RECIPE, start=str(tmp_path / "a.safetensors"))
    torch.manual_seed(5)
    after = begun(recipe, recipe.network)
    assert after.class_names == CLASSES
    torch.testing.assert_close(after.depth.head[1].weight, before.depth.head[1].weight, rtol=0.01, atol=1e-3)
    with pytest.raises(InputError, match="another shape"):
        begun(recipe, dataclasses.replace(recipe.network, width=64))


@pytest.mark.parametrize(
    ("changes", "cure"),
    [
        ({"mix": "nearfrmix"}, "did you mean nearfarmix"),
        ({"teacher": "nobody.safetensors"}, "does not exist"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(changes: dict[str, Any], cure: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=cure):
        SemiTask(dataclasses.replace(RECIPE, **changes), tmp_path)


def test_a_teacher_and_a_network_must_speak_of_the_same_classes(tmp_path: Path) -> None:
    name = segmentation_model(tmp_path)
    with pytest.raises(InputError, match=r"network\.classes empty"):
        SemiTask(dataclasses.replace(RECIPE, teacher=name), tmp_path)
    nothing = dataclasses.replace(RECIPE, network=dataclasses.replace(RECIPE.network, classes=()))
    with pytest.raises(InputError, match="name a teacher"):
        SemiTask(nothing, tmp_path, Pictures(pairs(1)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no segmentation model"):
        teacher_named(str(tmp_path / "empty"))


def test_it_learns_two_scenes_by_heart() -> None:
    made = scenes(2, 64, 64, seed=11)
    assert made.rgb is not None and made.depth is not None and made.classes is not None  # noqa: PT018
    known = torch.ones_like(made.depth, dtype=torch.bool)
    model = network(classes=CLASSES, max_depth_m=20.0).train()
    learner = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(25):
        depth, logits = model.depth_and_logits(made.rgb)
        loss = 10 * silog(depth, made.depth, known) + cross_entropy(logits, made.classes).mean()
        learner.zero_grad()
        loss.backward()
        learner.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_losses_are_what_their_names_say() -> None:
    target = torch.tensor([1.0, 2.0, 4.0, 0.0]).view(1, 1, 2, 2)
    valid = target > 0
    twice = torch.where(valid, 2 * target, 9.0)
    assert float(silog(twice, target, valid, balance=1.0)) == pytest.approx(0, abs=1e-3)
    assert float(silog(twice, target, valid, balance=0.0)) == pytest.approx(math.log(2))
    assert float(silog(twice, target, torch.zeros_like(valid))) == 0
    one_of_two = torch.cat([twice, target]), torch.cat([target, target]), torch.cat([valid, valid])
    assert float(silog(*one_of_two, balance=1.0)) == pytest.approx(math.log(2) / 2)  # they have no scale in common
    logits = torch.zeros(2, 4, 2, 2)
    classes = torch.full((2, 1, 2, 2), 255, dtype=torch.uint8)
    classes[0, 0, 0, 0] = 3
    assert cross_entropy(logits, classes).tolist() == pytest.approx([math.log(4), 0])


# ------------------------------------------------------------------------------- from one picture


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    network(classes=CLASSES, side=64, focal_px=55.0).save(tmp_path / "w.safetensors")
    write_rgb(tmp_path / "photo.png", (picture(60, 80)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8))
    return tmp_path / "w.safetensors"


def test_one_picture_gives_depth_classes_a_drawing_and_points(weights: Path, tmp_path: Path) -> None:
    words = ["predict", "--rgb", tmp_path / "photo.png", "--model", weights, "-o", tmp_path / "d.png"]
    words += ["--classes", tmp_path / "c.png", "--picture", tmp_path / "v.png", "--points", tmp_path / "p.ply"]
    done = crispdepth(*words)
    assert done.returncode == 0, done.stderr
    assert "right for a focal length of 69 px only" in done.stdout  # 55 px at a side of 64 are 68.75 at 80
    assert "guessed from the picture alone" in done.stdout
    depth = read_depth(tmp_path / "d.png", "mm").depth
    assert depth.shape == (60, 80)
    model = Symbiotic.from_file(weights).eval()
    with torch.inference_mode():
        rgb = torch.from_numpy(read_rgb(tmp_path / "photo.png")).permute(2, 0, 1)[None]
        expected, classes = model.depth_and_classes(rgb)
    assert np.abs(depth - expected[0, 0].numpy()).max() < 0.001
    assert np.array_equal(read_label(tmp_path / "c.png"), classes[0, 0].numpy())
    assert len(np.unique(read_rgb(tmp_path / "c.png").reshape(-1, 3), axis=0)) == len(classes.unique())
    assert read_rgb(tmp_path / "v.png").shape[1] > 3 * 240
    assert (tmp_path / "p.ply").stat().st_size > 1000


@pytest.mark.parametrize(("count", "levels"), [(24, 34), (150, 25), (255, 20)])
def test_the_colours_of_many_classes_are_told_apart_and_stay_the_same(count: int, levels: int) -> None:
    colours = class_colours(count).astype(float)
    assert (colours[count:] == HOLE).all()
    colours = colours[: count + 1]  # with that of no class
    distance = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
    assert distance[~np.eye(count + 1, dtype=bool)].min() >= levels
    assert np.array_equal(class_colours(24)[:24], colours[:24])
    assert colours[[0, 1, 2, 23]].tolist() == [[255, 128, 128], [64, 82, 128], [157, 199, 99], [144, 199, 10]]


@pytest.mark.parametrize(("width", "names"), [(640, CLASSES), (640, CLASSES[:8]), (320, [f"c{i}" for i in range(150)])])
def test_the_legend_says_how_many_classes_it_has_no_room_for(
    width: int, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = class_panel(np.arange(width * 480).reshape(480, width).astype(np.uint16) % len(names), names, "classes")
    written: list[str] = []
    draw = ImageDraw.ImageDraw.text

    def text(self: ImageDraw.ImageDraw, at: tuple[int, int], words: str, **how: Any) -> None:
        assert at[0] + self.textlength(words, font=how["font"]) <= 8 + width
        assert at[1] + 17 <= 8 + 480 + LEGEND_PX
        written.append(words)
        draw(self, at, words, **how)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    sheet = comparison([panel])
    shown = len(written) - (1 if len(names) == 8 else 2)  # without the title, and without the count
    ending = [] if len(names) == 8 else [f"and {len(names) - shown} more"]
    assert shown >= 8
    assert written == ["classes", *(name for name, _ in panel.legend[:shown]), *ending]
    drawn = {tuple(colour) for colour in sheet[8 + 480 :].reshape(-1, 3).tolist()}
    assert all(colour in drawn for _, colour in panel.legend[:shown])


def test_the_drawing_names_the_classes_that_are_there_the_largest_first() -> None:
    classes = np.array([[2, 2, 0], [2, 255, 0]], dtype=np.uint8)
    panel = class_panel(classes, ("floor", "wall", "thing"), "classes")
    assert panel.legend == (("thing", tuple(panel.image[0, 0])), ("floor", tuple(panel.image[0, 2])))
    unnamed = dataclasses.replace(panel, legend=())
    assert not np.array_equal(comparison([panel]), comparison([unnamed]))


def test_the_focal_length_sets_the_scale(weights: Path, tmp_path: Path) -> None:
    medians = []
    for extra in (["--focal", 68.75], ["--focal", 137.5], ["--intrinsics", "137.5,137.5,40,30"]):
        done = crispdepth(
            "predict", "--rgb", tmp_path / "photo.png", "--model", weights, "-o", tmp_path / "d.exr", *extra
        )
        assert done.returncode == 0, done.stderr
        medians.append(read_depth(tmp_path / "d.exr").median)
    plain = predict(Symbiotic.from_file(weights).eval(), rgb=tmp_path / "photo.png").depth
    assert medians[0] == pytest.approx(float(np.median(plain)), rel=1e-5)
    assert medians[1] == pytest.approx(2 * medians[0], rel=1e-5)
    assert medians[2] == pytest.approx(medians[1], rel=1e-5)
    height, width = read_rgb(tmp_path / "photo.png").shape[:2]  # a camera measured at twice the size
    camera = {"fx": 275.0, "fy": 275.0, "cx": width, "cy": height, "width": 2 * width, "height": 2 * height}
    (tmp_path / "k.json").write_text(json.dumps(camera))
    words = ["--rgb", tmp_path / "photo.png", "--model", weights, "-o", tmp_path / "d.exr"]
    done = crispdepth("predict", *words, "--intrinsics", tmp_path / "k.json")
    assert "for a focal length of 137.5 px" in done.stdout
    assert read_depth(tmp_path / "d.exr").median == pytest.approx(medians[1], rel=1e-5)


def test_a_folder_of_pictures_gives_a_folder_of_results(weights: Path, tmp_path: Path) -> None:
    for part in ("photos", "out"):
        (tmp_path / part).mkdir()
    for name in ("one", "two"):
        (tmp_path / "photos" / f"{name}.png").write_bytes((tmp_path / "photo.png").read_bytes())
    (tmp_path / "photos" / "three.png").write_bytes(b"none")
    out = tmp_path / "out"
    done = crispdepth("predict", "--rgb", tmp_path / "photos", "--model", weights, "-o", out, "--classes", out)
    assert done.returncode == 1
    assert "2 of 3" in done.stdout
    assert "three.png" in done.stderr
    assert sorted(p.name for p in out.iterdir()) == ["one.png", "one_classes.png", "two.png", "two_classes.png"]


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        (["-o", "o.png"], "give --low, or --rgb alone"),
        (["--rgb", "photo.png", "-o", "o.png", "--model", "w.safetensors", "--align", "auto"], "add --low"),
        (["--rgb", "photo.png", "-o", "o.png", "--model", "crisp"], "--low"),
        (["--rgb", "photo.png", "-o", "o.png", "--model", "w.safetensors", "--focal", "-3"], "in pixels of --rgb"),
        (["--rgb", "photo.png", "-o", "o.png", "--model", "w.safetensors", "--scale", "2"], "--size"),
        (["--rgb", "photo.png", "-o", "o.png", "--model", "w.safetensors", "--classes", "c.jpg"], ".png"),
        (["--rgb", "photo.png", "-o", "o.png", "--model", "w.safetensors", "--classes", "o.png"], "one name"),
        (["--rgb", "photo.png", "--low", "low.npy", "-o", "o.png", "--model", "w.safetensors"], "leave out --low"),
        (["--rgb", "photo.png", "--low", "low.npy", "-o", "o.png", "--focal", "60"], "leave it out"),
        (["--rgb", "photo.png", "--low", "low.npy", "-o", "o.png", "--classes", "c.png"], "leave out --classes"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], cure: str
) -> None:
    assert weights.is_file()
    np.save(tmp_path / "low.npy", np.ones((6, 8), dtype=np.float32))
    monkeypatch.chdir(tmp_path)
    before = sorted(p.name for p in tmp_path.iterdir())
    refused(crispdepth("predict", *words), cure)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_without_transformers_the_pip_line_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    photo = tmp_path / "x.png"
    write_rgb(photo, np.zeros((8, 8, 3), np.uint8))
    monkeypatch.setitem(sys.modules, "transformers", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"pip install 'crispdepth\[hub\]'"):
        late("transformers")
    words = ["--rgb", photo, "-o", tmp_path / "y.png", "--model", "prompt-depth-anything-small"]
    refused(crispdepth("predict", *words), "pip install")
    refused(crispdepth("predict", *words[:4]), r"^error: this needs transformers: pip install 'crispdepth\[hub\]'$")


def test_info_says_whose_licence_it_is_and_fetches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crispdepth.about.load", None)
    large = crispdepth("info", "depth-anything-v2-large.indoor").stdout
    assert "depth-anything/Depth-Anything-V2-Metric-Indoor-Large-hf" in large
    assert "needs      --rgb" in large
    unsaid, prompt = "not said with these weights; the", "Apache-2.0, as their page says"
    licences = {
        "depth-anything-v2-small.indoor": f"{unsaid} small ones they began with are Apache-2.0",
        "depth-anything-v2-large.indoor": f"{unsaid} large ones they began with are CC BY-NC 4.0: no commercial use",
        "prompt-depth-anything-small": prompt,
        "prompt-depth-anything-large": f"{prompt}; begun from Depth Anything V2 large, which is CC BY-NC 4.0",
    }
    for name, licence in licences.items():
        assert f"  licence    {licence}" in crispdepth("info", name).stdout.splitlines(), name


# ------------------------------------------------------------------------------- measured


def layout(folder: Path, kind: str) -> Path:
    """A tiny data set as ``nyu`` (the labelled .mat) or ``kitti`` (lists beside raw and gts) is laid out."""
    folder.mkdir()
    made = scenes(3, 64, 96, seed=9)
    assert made.rgb is not None and made.depth is not None  # noqa: PT018
    if kind == "nyu":
        with h5py.File(folder / "nyu_depth_v2_labeled.mat", "w") as file:
            file["images"] = (made.rgb * 255).to(torch.uint8).transpose(2, 3).numpy()
            file["depths"] = made.depth[:, 0].transpose(1, 2).numpy()
        return folder
    lines = []
    for i in range(3):
        rgb = folder / "raw" / f"day/drive/image_02/data/{i}.png"
        depth = folder / "gts" / f"drive/proj_depth/groundtruth/image_02/{i}.png"
        for path in (rgb, depth):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_rgb(rgb, (made.rgb[i].permute(1, 2, 0).numpy() * 255).astype(np.uint8))
        sparse = np.random.default_rng(i).uniform(size=(64, 96)) < 0.1
        write_depth(depth, made.depth[i, 0].numpy(), sparse, out_unit="kitti")
        lines.append(f"{rgb.relative_to(folder / 'raw')} {depth.relative_to(folder / 'gts')} 721.5")
    for name in ("kitti_eigen_train_files_with_gt.txt", "kitti_eigen_test_files_with_gt.txt"):
        (folder / name).write_text("\n".join(lines))
    return folder


def test_a_list_and_the_mat_and_a_folder_tell_their_camera(tmp_path: Path) -> None:
    for kind, focal_px in (("nyu", 518.858), ("kitti", 721.5)):
        readers = sets.find(kind, layout(tmp_path / kind, kind), None, part="train")
        for read in readers.values():
            matrix = read().intrinsics
            assert matrix is not None
            assert float(matrix[0, 0, 0]) == pytest.approx(focal_px)
    mine = tmp_path / "mine"
    for side in ("rgb", "depth"):
        (mine / side).mkdir(parents=True)
    write_rgb(mine / "rgb" / "a.png", np.zeros((24, 32, 3), np.uint8))
    write_depth(mine / "depth" / "a.png", np.ones((24, 32), np.float32), out_unit="mm")
    assert sets.find("folder", mine, "mm")["a"]().intrinsics is None
    camera = {"fx": 50, "fy": 50, "cx": 31.5, "cy": 23.5, "width": 64, "height": 48}
    (mine / "intrinsics.json").write_text(json.dumps(camera))
    matrix = sets.find("folder", mine, "mm")["a"]().intrinsics
    assert matrix is not None
    assert float(matrix[0, 0, 0]) == 25  # of half that size


@pytest.mark.parametrize("known", [True, False])
def test_lessons_and_validation_see_depth_through_the_same_camera(known: bool) -> None:
    config = dataclasses.replace(TINY, side=64, focal_px=55.0)
    rgb, depth = torch.zeros(1, 3, 96, 128), torch.full((1, 1, 96, 128), 3.0)
    camera = torch.tensor([[[120.0, 0, 64], [0, 120, 48], [0, 0, 1]]]) if known else None
    sample = Sample(rgb=rgb, depth=depth, intrinsics=camera, name="a")
    recipe = SemiRecipe(network=config, patches=((2, 60),), tinted=0.0)
    pictures = Pictures({"a": lambda: sample}, (), config.side, 1.0, config.focal_px)
    learnt = lesson(recipe, 0, "cpu", pictures)["depth"]
    shown = _at_scale(sample, config, labelled=False).depth
    assert shown is not None
    assert float(shown.mean()) == pytest.approx(3 * 55 / 60 if known else 3)
    enlarged = 60 / 48  # what a square of 60 does to 48 rows
    assert float(learnt.mean()) == pytest.approx(float(shown.mean()) / enlarged)


def test_what_cannot_be_learnt_from_a_set_is_told_before_training(tmp_path: Path) -> None:
    def deep(depth_m: float) -> Pictures:
        sample = Sample(rgb=torch.zeros(1, 3, 32, 32), depth=torch.full((1, 1, 32, 32), depth_m), name="a")
        return Pictures({"a": lambda: sample})

    recipe = SemiRecipe(network=dataclasses.replace(TINY, classes=("wall", "floor")), patches=((2, 32),))
    with pytest.raises(InputError, match=r"teacher=NAME.*classes_weight=0"):
        SemiTask(recipe, tmp_path, deep(2))
    alone = dataclasses.replace(recipe, classes_weight=0.0)
    assert len(SemiTask(alone, tmp_path, deep(2)).held_back) == 1
    with pytest.raises(InputError, match="max_depth_m=50"):
        SemiTask(alone, tmp_path, deep(42))


def test_the_systems_name_stands_for_the_weights_in_the_package() -> None:
    assert crispdepth("info", "symbiotic").stdout == crispdepth("info", "symbiotic-small").stdout
    assert load("symbiotic").state_dict().keys() == load("symbiotic-small").state_dict().keys()


def test_a_teachers_labels_of_two_sets_stay_apart(tmp_path: Path) -> None:
    def one(seed: int, size: tuple[int, int]) -> Pictures:
        made = dataclasses.replace(scenes(1, *size, seed), classes=None, name="0")
        return Pictures({"0": lambda: made})

    teacher = segmentation_model(tmp_path / "teacher")
    recipe = SemiRecipe(
        network=dataclasses.replace(TINY, classes=(), focal_px=50.0), teacher=str(teacher), patches=((2, 32),)
    )
    SemiTask(recipe, tmp_path / "run", Several([one(1, (32, 48)), one(2, (48, 32))]))
    labels = {read_label(p).shape for p in (tmp_path / "run" / "labels").rglob("0.png")}
    assert labels == {(32, 48), (48, 32)}
    [path] = (tmp_path / "run" / "labels" / "0").rglob("0.png")
    write_label(path, np.zeros((8, 8), np.uint8))
    with pytest.raises(InputError, match="labels of another picture"):
        SemiTask(recipe, tmp_path / "run", one(1, (32, 48)))


@pytest.mark.usefixtures("small_validation")
@pytest.mark.parametrize("kind", ["scenes", "nyu", "kitti"])
def test_one_command_trains_on_each_layout(kind: str, tmp_path: Path) -> None:
    words = ["train", "symbiotic-small", "steps=1", "validate_every=1", "patches=[[2, 64]]", "-o", tmp_path / "run"]
    words += [f"network.encoder={TINY.encoder}", "network.width=32", "--accelerator", "cpu"]
    if kind != "scenes":
        words += ["--data", kind, "--root", layout(tmp_path / "data", kind)]
        words += ["network.classes=[]", f"teacher={segmentation_model(tmp_path / 'teacher')}", "confidence=0.0"]
    done = crispdepth(*words)
    assert done.returncode == 0, done.stderr
    assert Symbiotic.from_file(tmp_path / "run" / "weights.safetensors").config.side == SMALL_CONFIG.side
    assert ("miou" if kind == "scenes" else "miou_against_teacher") in held(tmp_path / "run")


def test_evaluate_measures_under_the_sets_own_protocol(weights: Path, tmp_path: Path) -> None:
    root = layout(tmp_path / "kitti", "kitti")
    done = crispdepth("evaluate", "--model", weights, "--set", "kitti", "--root", root)
    assert done.returncode == 0, done.stderr
    assert "3 images, protocol garg (no low map" in done.stdout
    assert "truth within 0.001–80 m" in done.stdout
    assert "RMSlog" in done.stdout
    wrong = crispdepth("evaluate", "--model", weights, "--set", "kitti", "--root", root, "--protocol", "fdsr")
    refused(wrong, "rgb, eigen, garg")
    words = ["--model", weights, "--set", "kitti", "--root", root, "--scale", 4]
    refused(crispdepth("evaluate", *words), "--scale says how small the low map is")
    refused(
        crispdepth("evaluate", "--model", "bicubic", "--set", "kitti", "--root", root, "--protocol", "garg"), "fdsr"
    )


def test_the_windows_are_eigens_and_gargs() -> None:
    depth = torch.ones(1, 1, 480, 640)
    [shown] = PROTOCOLS["eigen"].prepare(Sample(rgb=depth.expand(-1, 3, -1, -1), depth=depth), 1, "nyu", "m")
    assert shown.depth_valid is not None
    expected = torch.zeros_like(shown.depth_valid)
    expected[..., 45:471, 41:601] = True
    assert torch.equal(shown.depth_valid, expected)
    depth = torch.arange(375.0).view(1, 1, 375, 1).expand(1, 1, 375, 1242) + 1
    [shown] = PROTOCOLS["garg"].prepare(Sample(rgb=depth.expand(-1, 3, -1, -1), depth=depth), 1, "kitti", "m")
    assert shown.depth is not None
    assert shown.depth_valid is not None
    assert shown.depth.shape == (1, 1, 352, 1216)
    assert float(shown.depth[0, 0, 0, 0]) == 24  # 23 rows are cut above
    rows, columns = (
        shown.depth_valid[0, 0].any(1).nonzero().flatten(),
        shown.depth_valid[0, 0].any(0).nonzero().flatten(),
    )
    assert (int(rows[0]) + 23, int(rows[-1]) + 24) == (153, 371)
    assert (int(columns[0]) + 13, int(columns[-1]) + 14) == (44, 1197)


def test_evaluate_measures_depth_and_the_classes_both_know(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(classes=("sofa", "wall", "sky"), side=64, focal_px=55.0)
    sample = dataclasses.replace(scenes(1, 60, 80, seed=4), name="a")
    monkeypatch.setattr("crispdepth.bench.evaluation.find", lambda *_: {"a": lambda: sample})
    result = evaluate(model, "scenes")
    assert result.protocol == "rgb"
    assert "the 2 classes that set and model both know" in result.heading
    assert sample.rgb is not None and sample.depth is not None and sample.classes is not None  # noqa: PT018
    assert sample.intrinsics is not None
    with torch.inference_mode():
        depth, classes = model.depth_and_classes(sample.rgb)
        depth = model.for_focal(depth, float(sample.intrinsics[0, 0, 0]))
    truth, called = sample.classes.numpy(), classes.numpy()
    wall, sofa = CLASSES.index("wall"), CLASSES.index("sofa")
    ious = []
    for true, mine in ((wall, 1), (sofa, 0)):
        if (truth == true).any():  # also what is called so elsewhere counts against it
            ious.append(((truth == true) & (called == mine)).sum() / ((truth == true) | (called == mine)).sum())
    assert result.metrics["miou"] == pytest.approx(np.mean(ious))
    error = (depth - sample.depth).square().mean().sqrt() * 100
    assert result.metrics["rmse"] == pytest.approx(float(error), rel=1e-4)


def test_the_real_image_of_nyu_is_measured(real_data: Path, weights: Path) -> None:
    done = crispdepth("evaluate", "--model", weights, "--set", "nyu", "--root", real_data / "nyu")
    assert done.returncode == 0, done.stderr
    assert "1 images, protocol eigen" in done.stdout
    assert "the 7 classes that set and model both know" in done.stdout


def test_the_small_network_is_small() -> None:
    model = Symbiotic(dataclasses.replace(SMALL_CONFIG, classes=CLASSES))
    assert 2e6 < sum(p.numel() for p in model.parameters()) < 6e6  # in half precision 12 MB
    assert [exchange.to_depth is not None for exchange in model.exchanges] == [False, True, True, True]


PUBLISHED = """
import dataclasses, re, sys
from pathlib import Path
import torch
from crispdepth.losses import cross_entropy, silog
from crispdepth.training.recipes import find
from crispdepth.training.semi import begun
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 2**20
torch.set_num_threads(1)
torch.manual_seed(0)
recipe = dataclasses.replace(find("symbiotic"), encoder_weights="")
classes = tuple(map(str, range(150)))  # as many as the teacher's
network = begun(recipe, dataclasses.replace(recipe.network, classes=classes)).eval()
rgb, target = torch.rand(1, 3, 480, 640), 1 + 8 * torch.rand(1, 1, 480, 640)
with torch.inference_mode():
    depth, logits = network.depth_and_logits(rgb)
assert depth.dtype == torch.float32 and depth.shape == target.shape and logits.shape == (1, 150, 480, 640)
forward = peak()
del depth, logits
learner = torch.optim.AdamW([p for p in network.train().parameters() if p.requires_grad], recipe.learning_rate)
depth, logits = network.depth_and_logits(rgb)
of_classes = cross_entropy(logits, torch.randint(150, (1, 1, 480, 640))).mean()
loss = recipe.depth_weight * silog(depth, target, target > 0) + recipe.classes_weight * of_classes
loss.backward()
learner.step()
assert loss.isfinite()
print(sum(p.numel() for p in network.parameters()) / 1e6, forward, peak())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory where Linux tells it")
def test_the_published_size_runs_and_takes_a_step_in_the_memory_its_page_says() -> None:
    done = subprocess.run([sys.executable, "-c", PUBLISHED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    millions, forward, step = map(float, done.stdout.split())
    sys.stdout.write(f"{millions:.1f} M parameters; peak of forward {forward:.2f} GiB, of step {step:.2f} GiB\n")
    assert 200 < millions < 212
    assert forward < 3
    assert step < 10
