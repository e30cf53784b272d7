"""How noisy a depth map is, told from the map alone; and the same map without the noise."""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from crispdepth.geometry import fill
from crispdepth.types import Depth, Mask

DENOISE = ("auto", "on", "off")  # what predict may be asked for
NOISY = 0.005  # of the range: less is left in. Rough things may look like more at x16: then little is lost
NOISY_STEPS = 1.5  # of those the readings come in: less is rounding
QUIET = 0.2  # the share of pixels that are looked at: those where least happens, so that edges and things play no part
QUIET_NORMAL = 0.2533  # below this |x| lies that share of a normal distribution
LEAST_PIXELS, MOST_PIXELS = 64, 100_000  # fewer tell nothing, more nothing else
STRENGTH = 0.7  # of the noise: the difference of two patches at which one counts 1/e for the other
PATCH, SEARCH = 5, 15  # pixels, sides of squares: what is compared, and where what is alike is looked for


def noise_of(depth: Depth, valid: Mask) -> float:
    """The standard deviation of the noise in ``depth`` (1, 1, h, w), in its unit; 0 where nothing tells.

    Immerkær, Fast noise variance estimation, CVIU 1996: a second difference along both axes vanishes on planes and
    edges along an axis, and multiplies white noise by 6. Instead of its mean, what the quietest fifth of the pixels
    stays below: a cluttered map is not taken for a noisy one. Only 3x3 readings without a hole tell anything.
    What it says of a map without noise is the roughness of the things in it.
    """
    if min(depth.shape[-2:]) < 3:
        return 0.0
    second = depth.new_tensor([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]])[None, None]
    found = F.conv2d(torch.where(valid, depth, 0), second).abs() / 6
    whole = F.conv2d(valid.to(depth.dtype), torch.ones_like(second)) > 8.5
    told = found[whole]
    if told.numel() < LEAST_PIXELS:
        return 0.0
    told = _few(told)
    return float(told.kthvalue(max(1, round(QUIET * told.numel()))).values) / QUIET_NORMAL


def calmed(depth: Depth, valid: Mask, sigma: float) -> Depth:
    """``depth`` (1, 1, h, w) without noise of standard deviation ``sigma``; what is not ``valid`` stays as it is.

    Non-local means (Buades, Coll and Morel, CVPR 2005; OpenCV's, on 16 bits of the range): each pixel becomes the mean
    of those around it, by how alike the patches around both are (settings: examples/tune_denoising.py).
    """
    whole = fill(depth, valid)[0, 0].cpu().numpy()
    bottom, span = float(whole.min()), float(np.ptp(whole))
    if not span:
        return depth
    steps = np.round((whole - bottom) * (65535 / span)).astype(np.uint16)
    calm = cv2.fastNlMeansDenoising(steps, [STRENGTH * sigma * 65535 / span], None, PATCH, SEARCH, cv2.NORM_L1)
    made = torch.from_numpy(calm.astype(np.float32) * (span / 65535) + bottom)[None, None].to(depth)
    return torch.where(valid, made, depth)


def noisy(sigma: float, depth: Depth, valid: Mask) -> bool:
    """Whether noise of standard deviation ``sigma`` is clearly there: more than NOISY of the range, and no rounding."""
    read = depth[valid]
    if not sigma or sigma < NOISY * float(read.max() - read.min()):
        return False
    return sigma >= NOISY_STEPS * step_of(read)


def step_of(read: torch.Tensor) -> float:
    """The step in which readings come: the least difference between two; 0 where all are the same."""
    steps = _few(read).unique().diff()
    return float(steps.min()) if len(steps) else 0.0


def _few(x: torch.Tensor) -> torch.Tensor:
    """Up to MOST_PIXELS of them, from the first to the last."""
    return x[:: max(1, -(-x.numel() // MOST_PIXELS))]
