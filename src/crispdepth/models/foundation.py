"""Depth Anything V2 (metric) and Prompt Depth Anything: weights of others, loaded by Transformers from the hub."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from crispdepth.extras import late
from crispdepth.geometry import extremes, fill, resize_rgb
from crispdepth.models.pretrained import pretrained
from crispdepth.types import Depth, InputError, Mask, Model, Rgb, Size

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as their preprocessors say
PATCH = 14


class DepthAnything(Model):
    """Depth Anything V2, metric (Yang et al. 2024): one RGB picture to metres.

    ``name``: on the Hugging Face hub, or a folder saved by Transformers; ``side``: the network sees the picture with
    one side near it, both multiples of 14, as its authors' preprocessor does. Raises InputError when the weights
    cannot be had, or are relative ones.
    """

    inputs: ClassVar[tuple[str, ...]] = ("rgb",)

    def __init__(self, name: str, side: int = 518) -> None:
        super().__init__()
        self.network = _loaded("DepthAnythingForDepthEstimation", name)
        if self.network.config.depth_estimation_type != "metric":
            raise InputError(f"{name} gives relative depth: name weights with Metric in their name")
        self.side = side

    def forward(self, rgb: Rgb) -> Depth:
        """(b, 3, H, W) to metres (b, 1, H, W)."""
        return _resized(self.network(_normalised(rgb, self.side)).predicted_depth[:, None], rgb)


class PromptDepthAnything(Model):
    """Prompt Depth Anything (Lin et al., CVPR 2025): RGB and a low-resolution depth map to sharp depth.

    As ``DepthAnything``; the low map's holes are filled smoothly first, and its range is taken out and put back
    here, so that flat maps and maps without a reading are safe.
    """

    inputs: ClassVar[tuple[str, ...]] = ("low", "rgb")

    def __init__(self, name: str, side: int = 756) -> None:
        super().__init__()
        self.network = _loaded("PromptDepthAnythingForDepthEstimation", name)
        self.side = side

    def forward(self, low: Depth, valid: Mask, rgb: Rgb) -> Depth:
        """``low`` (b, 1, h, w), its mask, ``rgb`` (b, 3, H, W) to depth (b, 1, H, W) in the unit of ``low``."""
        bottom, top = extremes(low, valid)
        some, span = top >= bottom, top - bottom
        sloped = some & (span > 0)
        x = fill(torch.where(valid & sloped, (low - bottom) / torch.where(sloped, span, 1), 0), valid)
        corner = torch.zeros_like(x)
        corner[..., 0, 0] = 1
        prompt = torch.where(sloped, x, corner)  # a range of 0 gives NaN there; what comes of the corner is not used
        found = _resized(self.network(_normalised(rgb, self.side), prompt_depth=prompt).predicted_depth[:, None], rgb)
        depth = torch.where(sloped, found * torch.where(sloped, span, 1) + bottom, bottom)
        return torch.where(some, depth, 0)


def _loaded(kind: str, name: str) -> Any:
    network = getattr(late("transformers"), kind)
    try:
        return pretrained(network, name).eval()
    except InputError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        text = (str(error).strip().splitlines() or [""])[0]
        raise InputError(f"the weights {name} could not be loaded (is the network there?): {text}") from error


def _normalised(rgb: Rgb, side: int) -> torch.Tensor:
    """The picture as the network wants it: scaled by whichever side needs less of it to be ``side``."""
    height, width = rgb.shape[-2:]
    scale = min((side / height, side / width), key=lambda s: abs(1 - s))
    size: Size = (max(1, round(height * scale / PATCH)) * PATCH, max(1, round(width * scale / PATCH)) * PATCH)
    mean, deviation = (torch.tensor(v, device=rgb.device).view(1, 3, 1, 1) for v in (MEAN, DEVIATION))
    return (resize_rgb(rgb, size) - mean) / deviation


def _resized(depth: Depth, rgb: Rgb) -> Depth:
    return F.interpolate(depth, rgb.shape[-2:], mode="bilinear")
