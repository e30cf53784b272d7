"""The mean over eight views: what it is made of, that it turns with its input, and that it is better."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch

from crispdepth.bench.evaluation import evaluate
from crispdepth.careful import estimated, sharpened
from crispdepth.data.scenes import scenes
from crispdepth.degradation import downsample
from crispdepth.engines import Machine, OnDevice, Wanted, opened
from crispdepth.export import export
from crispdepth.metrics import rmse
from crispdepth.models.catalog import load
from crispdepth.models.crisp import TINY_CONFIG, Crisp
from crispdepth.models.ensemble import VIEWS, SelfEnsemble, _back, _seen
from crispdepth.tiles import tiled
from crispdepth.types import InputError, Sample


def pair(seed: int = 3, scale: int = 8, size: tuple[int, int] = (64, 96)) -> Sample:
    made = scenes(1, *size, seed=seed)
    assert made.depth is not None
    low, valid = downsample(made.depth, torch.ones_like(made.depth, dtype=torch.bool), scale)
    valid[..., 2, 3] = False
    return Sample(rgb=made.rgb, low=torch.where(valid, low, 0), valid=valid, depth=made.depth)


def turned(sample: Sample, view: tuple[int, bool]) -> Sample:
    return Sample(**{name: _seen(getattr(sample, name), view) for name in ("rgb", "low", "valid")})


def test_eight_views_are_all_different_and_come_back() -> None:
    x = torch.arange(6.0).view(1, 1, 2, 3)
    assert len({(tuple(y.shape), tuple(y.flatten().tolist())) for y in (_seen(x, view) for view in VIEWS)}) == 8
    for view in VIEWS:
        assert _seen((2, 3), view) == tuple(_seen(x, view).shape[-2:])
        torch.testing.assert_close(_back(_seen(x, view), view), x, rtol=0, atol=0)


def test_it_is_the_mean_of_what_the_network_says_of_each_view() -> None:
    network, both, sample = load("crisp-tiny"), load("crisp-tiny+"), pair()
    each = [estimated(network, turned(sample, view)) for view in VIEWS]
    depth, error = estimated(both, sample)
    assert error is not None
    back = [torch.stack([_back(e[i], view) for e, view in zip(each, VIEWS, strict=True)]) for i in (0, 1)]  # type: ignore[arg-type]
    torch.testing.assert_close(depth, back[0].mean(0))
    torch.testing.assert_close(error, back[1].mean(0))
    assert back[0].std(0).max() > 1e-3  # or the mean would say nothing


@pytest.mark.parametrize("name", ["guided+", "fgs+", "joint-bilateral+", "crisp-tiny+"])
def test_each_image_of_a_batch_is_its_own(name: str) -> None:
    model, one, other = load(name), pair(3), pair(4)
    parts = {key: torch.cat([getattr(one, key), getattr(other, key)]) for key in ("low", "valid", "rgb")}
    parts["rgb"][1] *= 0.5
    alone = model(**{key: x[1:] for key, x in parts.items()})
    torch.testing.assert_close(model(**parts)[1:], alone, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("name", ["crisp-tiny+", "ctkt+"])
@pytest.mark.parametrize("view", [(1, False), (2, True), (3, True)])
def test_turned_input_gives_the_turned_result(name: str, view: tuple[int, bool]) -> None:
    model, sample = load(name), pair()
    size = (64, 96)
    straight = sharpened(model, sample, size)
    there = sharpened(model, turned(sample, view), _seen(size, view))
    torch.testing.assert_close(_back(there, view), straight, rtol=1e-5, atol=1e-5)


def test_it_is_better_than_one_view() -> None:
    off = {"crisp-tiny": 0.0, "crisp-tiny+": 0.0}
    for seed in range(8):
        sample = pair(1_900_000_000 + seed, scale=4, size=(128, 160))
        assert sample.depth is not None
        for name in off:
            everywhere = torch.ones_like(sample.depth, dtype=torch.bool)
            off[name] += float(rmse(sharpened(load(name), sample), sample.depth, everywhere))
    assert off["crisp-tiny+"] < off["crisp-tiny"]


def test_on_real_pictures_the_gain_is_larger(real_data: Path) -> None:
    off = [evaluate(name, "lu", str(real_data / "lu"), 4).metrics["rmse"] for name in ("crisp", "crisp+")]
    assert off[1] < 0.98 * off[0]


def test_a_file_can_have_a_plus_and_the_call_is_that_of_the_network(tmp_path: Path) -> None:
    Crisp(TINY_CONFIG).save(tmp_path / "mine.safetensors")
    for name in (f"{tmp_path}/mine.safetensors", "ctkt", "guided"):
        model, both = load(name), load(f"{name}+")
        assert (both.inputs, both.kind) == (model.inputs, model.kind)
        assert list(inspect.signature(both.forward).parameters) == list(inspect.signature(model.forward).parameters)
        assert [hasattr(both, word) for word in ("estimate", "local")] == [
            hasattr(model, word) for word in ("estimate", "local")
        ]
        assert not both.training


def test_what_cannot_have_a_plus_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"sees a picture alone.*leave the \+ out"):
        load("symbiotic+")
    with pytest.raises(InputError, match=r"one \+ is enough"):
        load("ctkt++")
    with pytest.raises(InputError, match=r"did you mean crisp\?"):
        load("crips+")
    with pytest.raises(InputError, match=r"export the network, leave the \+ out"):
        export(load("ctkt+"), tmp_path / "both.onnx")
    assert not list(tmp_path.iterdir())


def test_the_network_inside_runs_as_it_would_alone() -> None:
    model, choice = opened("crisp+", machine=Machine(bf16=True))
    assert isinstance(model, SelfEnsemble)
    assert isinstance(model.model, OnDevice)
    assert choice == opened("crisp", machine=Machine(bf16=True))[1]
    assert choice.precision == "bf16"
    plain: Any = opened("crisp+", Wanted(precision="float32"))[0]
    sample = pair()
    span = 0.02 * float(sample.low.amax() - sample.low[sample.valid].amin())  # type: ignore[index,union-attr]
    torch.testing.assert_close(sharpened(model, sample), sharpened(plain, sample), rtol=0, atol=span)


@pytest.mark.parametrize("name", ["ctkt+", "crisp-tiny+"])
def test_tiles_see_the_holes_that_the_whole_map_has(name: str) -> None:
    sample = pair(size=(8 * 21, 8 * 27))
    assert sample.low is not None
    assert sample.rgb is not None
    valid = torch.rand(sample.low.shape, generator=torch.Generator().manual_seed(0)) > 0.2
    low, size = torch.where(valid, sample.low, 0), (8 * 21, 8 * 27)
    model: Any = load(name)
    rgb = sample.rgb if "rgb" in model.inputs else None
    with torch.inference_mode():
        whole = model(low, valid, size if rgb is None else rgb)
        parts = tiled(model.local(low, valid, rgb), rgb, size)[0]
    torch.testing.assert_close(parts, whole, rtol=0, atol=2e-3 * float(low[valid].max() - low[valid].min()))
