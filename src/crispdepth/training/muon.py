"""Muon: AdamW, but matrices take steps of one length in all directions."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

LEAST = 16  # channels on both sides of a matrix: with fewer there is nothing to even out
BETAS = (0.9, 0.99)  # AdamW's
MOMENTUM = 0.95
LENGTH = 0.2  # of a step's root mean square over the learning rate: about AdamW's, so that one rate serves both
QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan's: brings singular values of 0 to 1 near 1 soonest
ROUNDS = 5


class Muon(torch.optim.AdamW):
    """Momentum orthogonalised by Newton and Schulz's iteration (Jordan et al. 2024), its length as AdamW's (Liu et al.
    2025, arXiv 2502.16982), for weights of layers with LEAST channels or more in and out; AdamW for all others, and for
    those whose name begins with one of ``ends``, the first and last layers.

    A convolution is the matrix of its output channels by all that each of them reads.
    """

    def __init__(
        self,
        named: Iterable[tuple[str, nn.Parameter]],
        learning_rate: float,
        weight_decay: float,
        ends: tuple[str, ...] = (),
    ) -> None:
        even: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for name, weight in named:
            matrix = weight.ndim > 1 and min(weight.shape[:2]) >= LEAST and not name.startswith(ends)
            (even if matrix else rest).append(weight)
        groups = [{"params": params, "even": params is even} for params in (even, rest) if params]
        super().__init__(groups, learning_rate, betas=BETAS, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step of all weights."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group["even"]]
        super().step()
        self.param_groups = groups
        for group in groups:
            for weight in group["params"] if group["even"] else ():
                if weight.grad is not None:
                    self._even(weight, weight.grad, group)
        return loss

    def _even(self, weight: nn.Parameter, grad: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        momentum = state["momentum"].lerp_(grad, 1 - MOMENTUM)
        change = orthogonal(grad.lerp(momentum, MOMENTUM).flatten(1))
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.sub_(change.view_as(weight), alpha=group["lr"] * LENGTH * math.sqrt(max(change.shape)))


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """(rows, columns) with the same singular vectors, and all singular values near 1 (0.7 to 1.2); zeros stay zeros."""
    a, b, c = QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(ROUNDS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x
