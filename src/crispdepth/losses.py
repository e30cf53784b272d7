"""What training minimises: one function each, (prediction, target) to one value per image (silog: per batch)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from crispdepth.types import Classes, Depth, Mask


def absolute(prediction: Depth, target: Depth) -> torch.Tensor:
    """Mean absolute error. (b, 1, h, w) each, to (b,)."""
    return (prediction - target).abs().mean(dim=(1, 2, 3))


def root_square(prediction: Depth, target: Depth) -> torch.Tensor:
    """RMSE: what benchmarks measure, image by image. (b, 1, h, w) each, to (b,)."""
    return ((prediction - target).square().mean(dim=(1, 2, 3)) + 1e-10).sqrt()


def sobel(prediction: Depth, target: Depth) -> torch.Tensor:
    """Mean absolute error of both Sobel derivatives, added (NAIMA). (b, 1, h, w) each, to (b,)."""
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], device=target.device)
    kernels = torch.stack([across, across.T])[:, None].to(target.dtype)
    slopes = F.conv2d(F.pad(prediction - target, (1, 1, 1, 1), mode="replicate"), kernels)
    return slopes.abs().mean(dim=(2, 3)).sum(dim=1)


def expected_error(error: Depth, prediction: Depth, target: Depth) -> torch.Tensor:
    """Negative log-likelihood of a Laplace distribution of mean absolute deviation ``error`` (Kendall and Gal 2017).

    Teaches ``error`` to be the size of the true error; no gradient reaches ``prediction``. To (b,).
    """
    off = (prediction - target).abs().detach()
    return (off / error + error.log()).mean(dim=(1, 2, 3))


def silog(prediction: Depth, target: Depth, valid: Mask, balance: float = 0.85) -> torch.Tensor:
    """Scale-invariant logarithmic error: sqrt(mean g² - balance · (mean g)²), g = log prediction - log target.

    Eigen et al. 2014 with the root of Lee et al. 2019 (BTS), and as there over all valid pixels of the batch together:
    the scale that all pictures have in common counts little, that by which one differs from the others in full.
    Targets must be above 0. (b, 1, h, w) each, to one value; 0 where nothing is valid.
    """
    g = torch.where(valid, prediction.clamp(min=1e-3).log() - torch.where(valid, target, 1).clamp(min=1e-3).log(), 0)
    count = valid.sum().clamp(min=1)
    mean, square = g.sum() / count, g.square().sum() / count
    return torch.where(valid.any(), (square - balance * mean.square() + 1e-8).sqrt(), 0)


def cross_entropy(logits: torch.Tensor, classes: Classes) -> torch.Tensor:
    """Mean over the labelled pixels (255 is none); 0 for an image without any. (b, K, h, w), (b, 1, h, w) to (b,)."""
    each = F.cross_entropy(logits, classes[:, 0].long(), ignore_index=255, reduction="none")
    return each.sum(dim=(1, 2)) / (classes != 255).sum(dim=(1, 2, 3)).clamp(min=1)
