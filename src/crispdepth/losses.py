"""What training minimises: one function each, (prediction, target) to one value per image."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from crispdepth.types import Depth


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
