"""RMSE, MSE, MAD, AbsRel, delta, edge RMSE, flying pixels, flicker: (prediction, target, valid) to values."""

from __future__ import annotations

from collections.abc import Callable

import torch

from crispdepth.geometry import depth_edges, grow, local_range
from crispdepth.types import Depth, Mask

Metric = Callable[[Depth, Depth, Mask], torch.Tensor]


def _mean(x: torch.Tensor, valid: Mask) -> torch.Tensor:
    """Mean over the valid pixels of each image, in float64; NaN where there are none. (b, 1, h, w) to (b,)."""
    total = torch.where(valid, x, 0).double().sum(dim=(1, 2, 3))
    count = valid.sum(dim=(1, 2, 3))
    return torch.where(count > 0, total / count.clamp(min=1), torch.nan)


def rmse(prediction: Depth, target: Depth, valid: Mask) -> torch.Tensor:
    """Root of the mean squared error, in the maps' own unit. (b, 1, h, w) each, to (b,)."""
    return mse(prediction, target, valid).sqrt()


def mse(prediction: Depth, target: Depth, valid: Mask) -> torch.Tensor:
    """Mean squared error, in the square of the maps' own unit."""
    return _mean((prediction - target).double().square(), valid)


def mad(prediction: Depth, target: Depth, valid: Mask) -> torch.Tensor:
    """Mean absolute difference (MAE elsewhere), in the maps' own unit."""
    return _mean((prediction - target).abs(), valid)


def absrel(prediction: Depth, target: Depth, valid: Mask) -> torch.Tensor:
    """Mean of |prediction - target| / target over pixels whose target is above 0."""
    valid = valid & (target > 0)
    return _mean((prediction - target).abs() / torch.where(valid, target, 1), valid)


def delta1(prediction: Depth, target: Depth, valid: Mask) -> torch.Tensor:
    """Share of pixels with max(prediction / target, target / prediction) < 1.25 (Eigen et al. 2014)."""
    valid = valid & (target > 0)
    tiny = torch.finfo(torch.float32).tiny
    p, t = prediction.clamp(min=tiny), target.clamp(min=tiny)
    return _mean((torch.maximum(p / t, t / p) < 1.25).double(), valid)


def edge_rmse(prediction: Depth, target: Depth, valid: Mask) -> torch.Tensor:
    """RMSE within 3 pixels of the target's depth edges (``geometry.depth_edges``); NaN without edges."""
    return rmse(prediction, target, valid & grow(depth_edges(target, valid), 3))


def flying(prediction: Depth, target: Depth, valid: Mask) -> torch.Tensor:
    """Share of pixels within 3 of a true edge that hang between the two true surfaces; NaN without edges.

    A pixel flies when it lies in the middle half between the nearest and the farthest true reading within
    3 pixels, while the truth itself does not: it would be a speck in the air of a point cloud.
    """
    edges = valid & grow(depth_edges(target, valid), 3)
    near, far = local_range(target, valid, radius=3)
    low, high = near + 0.25 * (far - near), far - 0.25 * (far - near)
    between = (prediction > low) & (prediction < high) & ~((target > low) & (target < high))
    return _mean(between.double(), edges)


def flicker(error: Depth, before: Depth, valid: Mask) -> torch.Tensor:
    """Temporal RMSE along the motion: how much the error of a depth map changes from one frame to the next.

    ``error``: prediction - target of this frame; ``before``: the same of the frame before, carried along the motion
    into this one; ``valid``: where the motion is known and both frames show the same thing. 0 for a map that is
    wrong by the same amount in both: what does not move does not flicker.
    """
    return rmse(error, before, valid)


METRICS: dict[str, Metric] = {
    "rmse": rmse,
    "mse": mse,
    "mad": mad,
    "absrel": absrel,
    "delta1": delta1,
    "edge_rmse": edge_rmse,
    "flying": flying,
}
