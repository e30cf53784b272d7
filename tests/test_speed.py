"""bench-speed and bench-robust: what they report, not how fast this machine is."""

from __future__ import annotations

import sys
from functools import partial

import pytest
import torch

from crispdepth.bench import robust, speed
from crispdepth.data.scenes import scenes
from crispdepth.engines import Machine
from crispdepth.models.catalog import at_hand, sharpeners
from crispdepth.types import Sample


def test_models_are_timed_beside_one_convolution() -> None:
    result = speed.measure(["bicubic", "guided"], (48, 64), 4, rounds=1)
    assert result["unit_conv_ms"] > 0
    assert set(result["models"]) == {"bicubic", "guided"}
    for figures in result["models"].values():
        assert figures["ms"] > 0
        assert 50 < figures["peak_mb"] < 4000  # Python and torch are counted
        assert figures["parameters"] == 0
    assert "| guided | – |" in speed.table(result)
    assert speed.as_json([result])["sizes"] == {"64x48": result}


def test_what_is_not_installed_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert at_hand(sharpeners()) == (sharpeners(), [])
    for module in ("transformers", "crispdepth.models.naima"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "transformers", None)
    found, left_out = at_hand(["crisp-tiny", "naima-small", "bicubic"])
    assert found == ["crisp-tiny", "bicubic"]
    assert [line.partition(":")[0] for line in left_out] == ["naima-small is left out"]
    assert "pip install 'crispdepth[naima]'" in left_out[0]


def test_the_least_that_a_network_could_take_is_told_and_how_the_command_runs_it() -> None:
    result = speed.measure(["crisp-tiny"], (48, 64), 4, rounds=1)
    figures = result["models"]["crisp-tiny"]
    unit = 2 * 9 * 64 * 64 * 240 * 320 / 1e9
    assert figures["least_units"] == pytest.approx(figures["gflop"] / unit, abs=0.006)
    assert 0 < figures["gflop"] < 1
    assert figures["precision"] == ("bf16" if Machine.here().bf16 else "float32")
    assert (figures["auto_ms"] == figures["ms"]) == (figures["precision"] == "float32")


def one(seed: int) -> Sample:
    return scenes(1, 96, 96, seed)


def test_faults_are_measured_beside_the_clean_map() -> None:
    result = robust.measure(["bicubic"], {"a": partial(one, 1), "b": partial(one, 2)}, scale=4)
    errors = result["bicubic"]
    assert set(errors) == set(robust.FAULTS) - {"enlarged 4 times"}  # that is the clean row
    assert errors["95% holes"] > errors["30% holes"] > errors["clean"]
    assert errors["noise 5.0% of the range"] > errors["clean"]
    assert errors["picture shifted by 4 px"] == pytest.approx(errors["clean"])  # bicubic sees no picture
    assert "| clean | " in robust.table(result, "scenes", 100, "cm")


def test_a_fault_changes_only_what_it_names() -> None:
    sample = one(1)
    clean, holed = (robust.FAULTS[name].sensed(sample, 4, seed=1) for name in ("clean", "30% holes"))
    assert clean.valid is not None
    assert holed.valid is not None
    assert clean.low is not None
    assert holed.low is not None
    assert clean.valid.all()
    assert 0.2 < float((~holed.valid).float().mean()) < 0.4
    torch.testing.assert_close(holed.low[holed.valid], clean.low[holed.valid])
