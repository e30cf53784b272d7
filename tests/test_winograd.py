"""Winograd's convolution: equal to torch's own, and taken only where it pays."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from crispdepth.layers import winograd
from crispdepth.layers.winograd import LEAST, WIDE, Conv3, filtered


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (5, 7), (61, 130), (3, 500)])
@pytest.mark.parametrize("biased", [True, False])
def test_it_equals_torchs_own_convolution(size: tuple[int, int], biased: bool) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 5, *size), torch.randn(7, 5, 3, 3)
    bias = torch.randn(7) if biased else None
    expected = F.conv2d(x, weight, bias, padding=1)
    torch.testing.assert_close(filtered(x, weight, bias), expected, rtol=0, atol=3e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("width", "side", "taken"), [(WIDE, 56, True), (WIDE - 1, 56, False), (WIDE, 55, False)], ids=str
)
def test_it_is_taken_where_it_pays_and_no_gradient_is_asked_for(
    width: int, side: int, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert side**2 >= LEAST or not taken
    calls: list[torch.Tensor] = []

    def counted(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        calls.append(x)
        return filtered(x, weight, bias)

    monkeypatch.setattr(winograd, "filtered", counted)
    layer, x = Conv3(width, width), torch.randn(1, width, side, side)
    with torch.inference_mode():
        fast = layer(x)
        assert len(calls) == taken
        with torch.autocast("cpu", torch.bfloat16):
            layer(x)
        layer.fast = False
        torch.testing.assert_close(fast, layer(x), rtol=0, atol=3e-5)
    layer.fast = True
    layer(x).sum().backward()
    assert len(calls) == taken
    assert layer.weight.grad is not None
