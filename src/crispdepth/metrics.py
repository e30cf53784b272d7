"""RMSE, MAD, AbsRel, log errors, deltas, edge RMSE, flying pixels, flicker: (prediction, target, valid); mIoU."""

from __future__ import annotations

from collections.abc import Callable

import torch

from crispdepth.geometry import depth_edges, grow, local_range
from crispdepth.types import Classes, Depth, Mask

Metric = Callable[[Depth, Depth, Mask], torch.Tensor]


def _mean(x: torch.Tensor, valid: Mask) -> torch.Tensor:
    """Mean over the valid pixels of each image, in float64; NaN where there are none. (b, 1, h, w) to (b,)."""
    x = _exact(x)
    valid = valid.to(x.device)
    total = torch.where(valid, x, 0).sum(dim=(1, 2, 3))
    count = valid.sum(dim=(1, 2, 3))
    return torch.where(count > 0, total / count.clamp(min=1), torch.nan)


def _exact(x: torch.Tensor) -> torch.Tensor:
    """In float64; on the CPU where the device has none (MPS)."""
    return (x.cpu() if x.device.type == "mps" else x).double()


def rmse(prediction: Depth, target: Depth, valid: Mask) -> torch.Tensor:
    """Root of the mean squared error, in the maps' own unit. (b, 1, h, w) each, to (b,)."""
    return mse(prediction, target, valid).sqrt()


def mse(prediction: Depth, target: Depth, valid: Mask) -> torch.Tensor:
    """Mean squared error, in the square of the maps' own unit."""
    return _mean(_exact(prediction - target).square(), valid)


def mad(prediction: Depth, target: Depth, valid: Mask) -> torch.Tensor:
    """Mean absolute difference (MAE elsewhere), in the maps' own unit."""
    return _mean((prediction - target).abs(), valid)


def mad_rounded(prediction: Depth, target: Depth, valid: Mask) -> torch.Tensor:
    """``mad`` of what an 8-bit file would hold of the prediction: whole levels, 0 to 255. For sets of levels."""
    return mad(prediction.round().clamp(0, 255), target, valid)


def absrel(prediction: Depth, target: Depth, valid: Mask) -> torch.Tensor:
    """Mean of |prediction - target| / target over pixels whose target is above 0."""
    valid = valid & (target > 0)
    return _mean((prediction - target).abs() / torch.where(valid, target, 1), valid)


def _positive(prediction: Depth, target: Depth, valid: Mask) -> tuple[Depth, Depth, Mask]:
    """Both above 0 everywhere, and the mask of targets that were."""
    tiny = torch.finfo(torch.float32).tiny
    return prediction.clamp(min=tiny), target.clamp(min=tiny), valid & (target > 0)


def _within(prediction: Depth, target: Depth, valid: Mask, factor: float) -> torch.Tensor:
    p, t, valid = _positive(prediction, target, valid)
    return _mean(torch.maximum(p / t, t / p) < factor, valid)


def delta1(prediction: Depth, target: Depth, valid: Mask) -> torch.Tensor:
    """Share of pixels with max(prediction / target, target / prediction) < 1.25 (Eigen et al. 2014)."""
    return _within(prediction, target, valid, 1.25)


def delta2(prediction: Depth, target: Depth, valid: Mask) -> torch.Tensor:
    """As ``delta1``, < 1.25²."""
    return _within(prediction, target, valid, 1.25**2)


def delta3(prediction: Depth, target: Depth, valid: Mask) -> torch.Tensor:
    """As ``delta1``, < 1.25³."""
    return _within(prediction, target, valid, 1.25**3)


def log10(prediction: Depth, target: Depth, valid: Mask) -> torch.Tensor:
    """Mean of |log10 prediction - log10 target| over pixels whose target is above 0 (NYUv2's tables)."""
    p, t, valid = _positive(prediction, target, valid)
    return _mean((p.log10() - t.log10()).abs(), valid)


def rmse_log(prediction: Depth, target: Depth, valid: Mask) -> torch.Tensor:
    """Root of the mean of (ln prediction - ln target)² over pixels whose target is above 0 (KITTI's tables)."""
    p, t, valid = _positive(prediction, target, valid)
    return _mean(_exact(p.log() - t.log()).square(), valid).sqrt()


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
    return _mean(between, edges)


def confusion(prediction: Classes, target: Classes, count: int) -> torch.Tensor:
    """How often each true class (row) was called what (column) over the labelled pixels: (count, count), int64.

    (b, 1, h, w) each, numbers below ``count``; 255 in the target is unlabelled. Add those of several images up.
    """
    labelled = target != 255
    pairs = target[labelled].long() * count + prediction[labelled].long()
    return torch.bincount(pairs, minlength=count * count).view(count, count)


def mean_iou(table: torch.Tensor, count: int | None = None) -> float:
    """mIoU: intersection over union, mean over the classes that occur in truth; NaN without any (a ``confusion``).

    ``count``: of the first classes, which alone are averaged.
    """
    hits, true, called = table.diagonal().double(), table.sum(1), table.sum(0)
    there = (true > 0)[:count]
    return float((hits / (true + called - hits))[:count][there].mean())


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
    "mad_rounded": mad_rounded,
    "absrel": absrel,
    "delta1": delta1,
    "delta2": delta2,
    "delta3": delta3,
    "log10": log10,
    "rmse_log": rmse_log,
    "edge_rmse": edge_rmse,
    "flying": flying,
}
