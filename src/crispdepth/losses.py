"""What training minimises: one function each, (prediction, target) to one value per image."""

from __future__ import annotations

import torch

from crispdepth.types import Depth


def absolute(prediction: Depth, target: Depth) -> torch.Tensor:
    """Mean absolute error. (b, 1, h, w) each, to (b,)."""
    return (prediction - target).abs().mean(dim=(1, 2, 3))


def root_square(prediction: Depth, target: Depth) -> torch.Tensor:
    """RMSE: what benchmarks measure, image by image. (b, 1, h, w) each, to (b,)."""
    return ((prediction - target).square().mean(dim=(1, 2, 3)) + 1e-10).sqrt()


def expected_error(error: Depth, prediction: Depth, target: Depth) -> torch.Tensor:
    """Negative log-likelihood of a Laplace distribution of mean absolute deviation ``error`` (Kendall and Gal 2017).

    Teaches ``error`` to be the size of the true error; no gradient reaches ``prediction``. To (b,).
    """
    off = (prediction - target).abs().detach()
    return (off / error + error.log()).mean(dim=(1, 2, 3))
