"""One contract that every row of the catalog passes."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

from crispdepth.degradation import downsample
from crispdepth.models.catalog import CATALOG, load
from crispdepth.types import Model, Sample

KINDS = ("metric", "scale", "affine")
SIZE = (48, 64)

every_model = pytest.mark.parametrize("name", CATALOG)


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
def test_inputs_are_forwards_parameters_and_samples_fields(name: str) -> None:
    model = load(name)
    companions = {"valid", "size"}  # the mask rides with low; size stands in where no rgb tells it
    parameters = set(inspect.signature(model.forward).parameters)
    assert parameters - companions == set(model.inputs)
    assert set(model.inputs) <= set(Sample.__dataclass_fields__)
    assert model.inputs == CATALOG[name].inputs
    assert ("valid" in parameters) == ("low" in model.inputs)
    assert ("size" in parameters) == ("rgb" not in model.inputs)
    assert model.kind in KINDS


@every_model
@pytest.mark.parametrize("size", [(48, 64), (47, 61), (33, 90)])
def test_the_result_has_the_size_asked_for_and_is_finite(name: str, size: tuple[int, int]) -> None:
    model = load(name)
    depth = model(**inputs_of(model, size))
    assert depth.shape == (1, 1, *size)
    assert depth.dtype == torch.float32
    assert depth.isfinite().all()


@every_model
def test_a_batch_of_two_is_two_batches_of_one(name: str) -> None:
    model = load(name)
    both = inputs_of(model, batch=2)
    result = model(**both)
    for i in range(2):
        one = {k: v if k == "size" else v[i : i + 1] for k, v in both.items()}
        torch.testing.assert_close(model(**one), result[i : i + 1])


@every_model
@pytest.mark.parametrize("factor", [1e-3, 7.5, 5000.0])
def test_metric_models_scale_with_their_input(name: str, factor: float) -> None:
    model = load(name)
    if model.kind != "metric":
        pytest.skip("not metric")
    inputs = inputs_of(model)
    expected = model(**inputs) * factor
    torch.testing.assert_close(model(**{**inputs, "low": inputs["low"] * factor}), expected, rtol=1e-4, atol=0)


@every_model
def test_a_flat_map_stays_flat(name: str) -> None:
    model = load(name)
    inputs = inputs_of(model)
    depth = model(**{**inputs, "low": torch.full_like(inputs["low"], 2.5)})
    torch.testing.assert_close(depth, torch.full_like(depth, 2.5), rtol=1e-4, atol=0)


@every_model
def test_a_map_without_a_reading_gives_zeros_not_nan(name: str) -> None:
    model = load(name)
    inputs = inputs_of(model)
    assert (model(**{**inputs, "valid": torch.zeros_like(inputs["valid"])}) == 0).all()


@every_model
def test_the_value_under_a_hole_never_matters(name: str) -> None:
    model = load(name)
    inputs = inputs_of(model)
    valid = torch.rand(inputs["valid"].shape, generator=torch.Generator().manual_seed(2)) > 0.3
    a = model(**{**inputs, "valid": valid, "low": torch.where(valid, inputs["low"], 0)})
    b = model(**{**inputs, "valid": valid, "low": torch.where(valid, inputs["low"], torch.nan)})
    assert a.isfinite().all()
    torch.testing.assert_close(a, b, rtol=0, atol=0)


@every_model
@pytest.mark.parametrize("share", [0.3, 0.8])
def test_holes_do_not_break_the_result(name: str, share: float) -> None:
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


@every_model
@pytest.mark.parametrize("scale", [1, 1.5, 3.5, 16])
def test_any_scale_works(name: str, scale: float) -> None:
    model = load(name)
    assert model(**inputs_of(model, scale=scale)).isfinite().all()


@every_model
def test_a_low_map_of_one_pixel_works(name: str) -> None:
    model = load(name)
    inputs = inputs_of(model)
    one = {**inputs, "low": inputs["low"][..., :1, :1], "valid": inputs["valid"][..., :1, :1]}
    depth = model(**one)
    torch.testing.assert_close(depth, inputs["low"][..., :1, :1].expand_as(depth), rtol=1e-4, atol=0)


@every_model
def test_with_colours_that_say_nothing_the_result_is_near_bicubic(name: str) -> None:
    model, bicubic = load(name), load("bicubic")
    inputs = inputs_of(model)
    if "rgb" in inputs:
        inputs["rgb"] = torch.full_like(inputs["rgb"], 0.5)
    plain = bicubic(**inputs_of(bicubic))
    assert (model(**inputs) - plain).abs().mean() < 0.05


@every_model
def test_gradients_reach_every_parameter(name: str) -> None:
    model = load(name)
    if not list(model.parameters()):
        pytest.skip("a filter without weights")
    model(**inputs_of(model, scale=8)).square().mean().backward()  # x8: a cascade of x2 and x4 uses both its parts
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


@every_model
def test_the_row_names_its_source_and_licence(name: str) -> None:
    assert CATALOG[name].source
    assert CATALOG[name].licence


@every_model
def test_an_expected_error_comes_with_the_same_depth_in_its_unit(name: str) -> None:
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
