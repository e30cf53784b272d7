"""Fine relief that a network took for noise, put back where the map of readings is flat and fine enough."""

from __future__ import annotations

import torch

from crispdepth.geometry import enlarge, local_range, missing
from crispdepth.noise import NOISY_STEPS, noise_of, step_of
from crispdepth.types import Depth, Mask

FLAT = 0.1  # of the range: where 3x3 readings span so much, 1/e of what is missing is put back
SHARE = 0.75  # of what is missing: all of it would bring more noise along
FINE = 0.003  # of the range: more noise hides relief
LEAST_STEPS = 64  # of the range: rounding to fewer hides it


def put_back(depth: Depth, low: Depth, valid: Mask) -> Depth:
    """``depth`` (b, 1, H, W) with what the readings ``low`` (1, 1, h, w) say beyond it.

    A step of back-projection (Irani and Peleg, CVGIP 1991), where readings are alike and so tell the same however
    they came about: at edges a wrong guess of that does harm. Networks that learnt of noise leave relief out that is
    no larger than a noise they saw. Nothing is done where noise (FINE) or rounding (LEAST_STEPS) is larger than that.
    """
    read = low[valid]
    span = float(read.max() - read.min()) if len(read) else 0.0
    noise, step = noise_of(low, valid), step_of(read)
    if not span or step * LEAST_STEPS > span or noise > max(FINE * span, NOISY_STEPS * step):
        return depth
    near, far = local_range(low, valid, radius=1)
    flat = torch.exp(-(((far - near) / (FLAT * span)) ** 2))
    lost = torch.where(valid, flat * missing(depth, low, valid), 0)
    return depth + SHARE * enlarge(lost, (depth.shape[-2], depth.shape[-1]))
