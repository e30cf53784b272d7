"""Pixel-wise sums over large maps, strip by strip and over their own input: no new memory, and the cache holds them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from crispdepth.exportable import exporting

ROWS = 16


def thrifty(x: torch.Tensor) -> bool:
    """Whether ``x`` may be written over: on the CPU, no gradient asked for, nothing being traced."""
    traced = torch.compiler.is_compiling() or exporting()
    return not traced and not torch.is_grad_enabled() and x.device.type == "cpu"


def overwritten(
    f: Callable[..., torch.Tensor], x: torch.Tensor, *others: torch.Tensor, step: int = ROWS
) -> torch.Tensor:
    """f(x, *others), all of one length along axis 2, on which f must work place by place; its result is shaped like x.

    Where ``thrifty``, it is written over ``x``, ``step`` rows at a time: the caller must be done with ``x``.
    """
    if not thrifty(x):
        return f(x, *others)
    for part, *rest in zip(*(t.split(step, dim=2) for t in (x, *others)), strict=True):
        part.copy_(f(part, *rest))
    return x


def spread(x: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Standard deviation around ``mean`` (b, c, 1, 1) of the pixels of each channel, (b, c, 1, 1)."""
    if not thrifty(x):
        return x.std(dim=(2, 3), keepdim=True, correction=0)
    squares = (((part - mean) ** 2).sum(dim=(2, 3), keepdim=True) for part in x.split(ROWS, dim=2))
    return (sum(squares, torch.zeros_like(mean)) / x[0, 0].numel()).sqrt()  # torch's own is 10 times slower here
