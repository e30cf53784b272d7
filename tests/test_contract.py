"""One contract that every row of the catalog passes."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import transformers

from crispdepth.degradation import downsample
from crispdepth.models import catalog
from crispdepth.models.catalog import CATALOG
from crispdepth.models.foundation import DepthAnything, PromptDepthAnything
from crispdepth.models.symbiotic import SMALL_CONFIG, Symbiotic
from crispdepth.types import InputError, Model, Sample

KINDS = ("metric", "scale", "affine")
SIZE = (48, 64)

UNTRAINED = "symbiotic"  # random weights of the small shape: what no row may hold
every_row = pytest.mark.parametrize("name", CATALOG)
every_model = pytest.mark.parametrize("name", [*CATALOG, UNTRAINED])
OTHERS_UNUSED = ("mask_token", "layernorm", "fusion_stage.layers.0.residual_layer1", "reassemble_stage.layers")
OTHERS = [name for name, row in CATALOG.items() if row.hub]  # weights to fetch: here tiny random ones in their stead
sharpener = pytest.mark.parametrize("name", [name for name, row in CATALOG.items() if "low" in row.inputs])
trained_sharpener = pytest.mark.parametrize("name", catalog.sharpeners())


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A folder for each kind of hub model, with random weights of a tiny shape, as Transformers saves them."""
    torch.manual_seed(0)
    hub: Any = transformers
    backbone = hub.Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=56,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
    )
    shape: dict[str, Any] = {
        "backbone_config": backbone,
        "reassemble_hidden_size": 16,
        "neck_hidden_sizes": [8, 8, 8, 8],
        "fusion_hidden_size": 8,
        "head_hidden_size": 8,
        "depth_estimation_type": "metric",
        "max_depth": 20,
    }
    folders = {}
    for kind in ("DepthAnything", "PromptDepthAnything"):
        folder = tmp_path_factory.mktemp(kind)
        config = getattr(transformers, f"{kind}Config")(**shape)
        getattr(transformers, f"{kind}ForDepthEstimation")(config).save_pretrained(folder)
        folders[kind] = str(folder)
    return folders


@pytest.fixture
def load(tiny_weights: dict[str, str]) -> Callable[[str], Model]:
    """``catalog.load``; hub models with tiny weights."""

    def made(name: str) -> Model:
        if name == UNTRAINED:
            torch.manual_seed(0)
            return Symbiotic(dataclasses.replace(SMALL_CONFIG, classes=("floor", "wall"))).eval()
        build = CATALOG[name].build
        if CATALOG[name].hub:
            assert isinstance(build, partial)
            assert isinstance(build.func, type)
            return build.func(tiny_weights[build.func.__name__], side=56).eval()
        return catalog.load(name)

    return made


def inputs_of(model: Model, size: tuple[int, int] = SIZE, batch: int = 1, scale: float = 4) -> dict[str, Any]:
    """What forward takes, from smooth random maps: depth of 1 to 3 m with a step, colours with the same step."""
    generator = torch.Generator().manual_seed(1)
    depth = torch.rand(batch, 1, *size, generator=generator).cumsum(-1) / size[1] + 1
    depth[..., size[1] // 2 :] += 1
    rgb = torch.rand(batch, 3, *size, generator=generator) * 0.2
    rgb[..., size[1] // 2 :] += 0.6
    low, valid = downsample(depth, torch.ones_like(depth, dtype=torch.bool), scale)
    parts: dict[str, Any] = {"low": low, "valid": valid, "rgb": rgb, "size": size}
    return {name: parts[name] for name in inspect.signature(model.forward).parameters}


@every_model
def test_inputs_are_forwards_parameters_and_samples_fields(name: str, load: Callable[[str], Model]) -> None:
    model = load(name)
    companions = {"valid", "size"}  # the mask rides with low; size stands in where no rgb tells it
    parameters = set(inspect.signature(model.forward).parameters)
    assert parameters - companions == set(model.inputs)
    assert set(model.inputs) <= set(Sample.__dataclass_fields__)
    assert name == UNTRAINED or model.inputs == CATALOG[name].inputs
    assert ("valid" in parameters) == ("low" in model.inputs)
    assert ("size" in parameters) == ("rgb" not in model.inputs)
    assert model.kind in KINDS


@every_model
@pytest.mark.parametrize("size", [(48, 64), (47, 61), (33, 90)])
def test_the_result_has_the_size_asked_for_and_is_finite(
    name: str, size: tuple[int, int], load: Callable[[str], Model]
) -> None:
    model = load(name)
    depth = model(**inputs_of(model, size))
    assert depth.shape == (1, 1, *size)
    assert depth.dtype == torch.float32
    assert depth.isfinite().all()


@every_model
def test_a_batch_of_two_is_two_batches_of_one(name: str, load: Callable[[str], Model]) -> None:
    model = load(name)
    both = inputs_of(model, batch=2)
    result = model(**both)
    for i in range(2):
        one = {k: v if k == "size" else v[i : i + 1] for k, v in both.items()}
        torch.testing.assert_close(model(**one), result[i : i + 1], rtol=1e-5, atol=1e-5)


@sharpener
@pytest.mark.parametrize("factor", [1e-3, 7.5, 5000.0])
def test_metric_models_scale_with_their_input(name: str, factor: float, load: Callable[[str], Model]) -> None:
    model = load(name)
    if model.kind != "metric":
        pytest.skip("not metric")
    inputs = inputs_of(model)
    expected = model(**inputs) * factor
    torch.testing.assert_close(model(**{**inputs, "low": inputs["low"] * factor}), expected, rtol=1e-4, atol=0)


@sharpener
def test_a_flat_map_stays_flat(name: str, load: Callable[[str], Model]) -> None:
    model = load(name)
    inputs = inputs_of(model)
    depth = model(**{**inputs, "low": torch.full_like(inputs["low"], 2.5)})
    torch.testing.assert_close(depth, torch.full_like(depth, 2.5), rtol=1e-4, atol=0)


@sharpener
def test_a_map_without_a_reading_gives_zeros_not_nan(name: str, load: Callable[[str], Model]) -> None:
    model = load(name)
    inputs = inputs_of(model)
    assert (model(**{**inputs, "valid": torch.zeros_like(inputs["valid"])}) == 0).all()


@sharpener
def test_the_value_under_a_hole_never_matters(name: str, load: Callable[[str], Model]) -> None:
    model = load(name)
    inputs = inputs_of(model)
    valid = torch.rand(inputs["valid"].shape, generator=torch.Generator().manual_seed(2)) > 0.3
    a = model(**{**inputs, "valid": valid, "low": torch.where(valid, inputs["low"], 0)})
    b = model(**{**inputs, "valid": valid, "low": torch.where(valid, inputs["low"], torch.nan)})
    assert a.isfinite().all()
    torch.testing.assert_close(a, b, rtol=0, atol=0)


@trained_sharpener
@pytest.mark.parametrize("share", [0.3, 0.8])
def test_holes_do_not_break_the_result(name: str, share: float, load: Callable[[str], Model]) -> None:
    model = load(name)
    inputs = inputs_of(model)
    generator = torch.Generator().manual_seed(3)
    valid = torch.rand(inputs["valid"].shape, generator=generator) > share
    clean, holed = model(**inputs), model(**{**inputs, "valid": valid})
    low, high = inputs["low"].min(), inputs["low"].max()
    slack = 0.5 * (high - low)
    assert holed.min() > low - slack
    assert holed.max() < high + slack
    assert (holed - clean).abs().mean() < 0.15 * (high - low)


@sharpener
@pytest.mark.parametrize("scale", [1, 1.5, 3.5, 16])
def test_any_scale_works(name: str, scale: float, load: Callable[[str], Model]) -> None:
    model = load(name)
    assert model(**inputs_of(model, scale=scale)).isfinite().all()


@sharpener
def test_a_low_map_of_one_pixel_works(name: str, load: Callable[[str], Model]) -> None:
    model = load(name)
    inputs = inputs_of(model)
    one = {**inputs, "low": inputs["low"][..., :1, :1], "valid": inputs["valid"][..., :1, :1]}
    depth = model(**one)
    torch.testing.assert_close(depth, inputs["low"][..., :1, :1].expand_as(depth), rtol=1e-4, atol=0)


@trained_sharpener
def test_with_colours_that_say_nothing_the_result_is_near_bicubic(name: str, load: Callable[[str], Model]) -> None:
    model, bicubic = load(name), load("bicubic")
    inputs = inputs_of(model)
    if "rgb" in inputs:
        inputs["rgb"] = torch.full_like(inputs["rgb"], 0.5)
    plain = bicubic(**inputs_of(bicubic))
    assert (model(**inputs) - plain).abs().mean() < 0.05


@every_model
def test_gradients_reach_every_parameter(name: str, load: Callable[[str], Model]) -> None:
    model = load(name)
    if not list(model.parameters()):
        pytest.skip("a filter without weights")
    for scale in (16, 8, 2):  # steps of x4 and of x2, each of them once the first and once the last
        inputs = inputs_of(model, scale=scale)
        results = model.depth_and_logits(**inputs) if isinstance(model, Symbiotic) else (model(**inputs),)
        sum(x.square().mean() for x in results).backward()  # type: ignore[union-attr]
    frozen = OTHERS_UNUSED if name in OTHERS else ()
    for parameter_name, p in model.named_parameters():
        if p.requires_grad and not any(word in parameter_name for word in frozen):
            assert p.grad is not None, parameter_name
            assert p.grad.isfinite().all()


@every_row
def test_the_row_names_its_source_and_licence(name: str) -> None:
    assert CATALOG[name].source
    assert CATALOG[name].licence


def test_a_checkpoint_that_lacks_a_part_is_refused(tiny_weights: dict[str, str]) -> None:
    """One of Depth Anything has nothing for the low map: Transformers alone would begin that part at random."""
    DepthAnything(tiny_weights["DepthAnything"])
    PromptDepthAnything(tiny_weights["PromptDepthAnything"])
    with pytest.raises(InputError, match=r"lacks 24 weights of PromptDepthAnything.*name a checkpoint"):
        PromptDepthAnything(tiny_weights["DepthAnything"])


@every_model
def test_an_expected_error_comes_with_the_same_depth_in_its_unit(name: str, load: Callable[[str], Model]) -> None:
    model = load(name)
    estimate = getattr(model, "estimate", None)
    if estimate is None:
        pytest.skip("estimates no error")
    inputs = inputs_of(model)
    depth, error = estimate(**inputs)
    torch.testing.assert_close(depth, model(**inputs), rtol=0, atol=0)
    assert error.shape == depth.shape
    assert error.isfinite().all()
    assert error.min() >= 0
    torch.testing.assert_close(estimate(**{**inputs, "low": inputs["low"] * 7.5})[1], error * 7.5, rtol=1e-3, atol=0)
