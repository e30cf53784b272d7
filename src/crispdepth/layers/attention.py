"""Attention of n queries to m keys: materialised, fused, or at a cost linear in n and m."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

CHUNK = 2048  # positions whose products the linear attention holds at once


def exact(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
    """softmax(scale · q kᵀ) v as written: (b, n, c), (b, m, c), (b, m, d) to (b, n, d); holds n x m weights."""
    return (scale * q @ k.transpose(-1, -2)).softmax(dim=-1) @ v


def fused(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
    """As ``exact`` up to rounding, computed in tiles by PyTorch: the n x m weights are never held."""
    q, k, v = (x.contiguous().unsqueeze(1) for x in (q, k, v))  # the kernels want an axis of heads, and no gaps
    return F.scaled_dot_product_attention(q, k, v, scale=scale).squeeze(1)


def linear(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
    """As ``exact`` with exp(x) ≈ 1 + x + x²/2, where x = scale · q · (k - mean of k), at a cost linear in n and m.

    A shift of all keys changes no weight of the softmax, and makes x small. 1, x and x² are dot products: of nothing,
    of q and of all products of two entries of q, so keys and values are summed up once, for all queries.
    How far off: ``linear_error``. It pays where n and m are well above c² (2304 products for c = 48).
    """
    k = k - k.mean(dim=1, keepdim=True)
    v = torch.cat([v, torch.ones_like(v[..., :1])], dim=-1)  # the last column adds up the weights
    once, twice = k.transpose(-1, -2) @ v, torch.zeros_like(v[:, :1])
    for keys, values in zip(k.split(CHUNK, dim=1), v.split(CHUNK, dim=1), strict=True):
        twice = twice + _products(keys).transpose(-1, -2) @ values
    q = scale * q
    squares = torch.cat([_products(part) @ twice for part in q.split(CHUNK, dim=1)], dim=1)
    out = v.sum(dim=1, keepdim=True) + q @ once + squares / 2
    return out[..., :-1] / out[..., -1:]


def linear_error(q: torch.Tensor, k: torch.Tensor, scale: float) -> torch.Tensor:
    """How far ``linear`` may be off, at most, as a share of the range of the values in each channel; no axes.

    With r the largest |x|, no weight is off by more than the share e = exp(r) · r³ / 6 (Taylor's remainder), so
    no weighted mean by more than e / (1 - e).
    """
    reach = scale * q.norm(dim=-1).max() * (k - k.mean(dim=1, keepdim=True)).norm(dim=-1).max()
    share = reach.exp() * reach**3 / 6
    return torch.where(share < 1, share / (1 - share), torch.inf)


def _products(x: torch.Tensor) -> torch.Tensor:
    """x_a x_b for all a and b: (b, n, c) to (b, n, c²)."""
    return (x[..., :, None] * x[..., None, :]).flatten(-2)


ATTENTIONS: dict[str, Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor]] = {
    "exact": exact,
    "fused": fused,
    "linear": linear,
}
