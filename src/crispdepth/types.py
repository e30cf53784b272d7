"""Sample, Prediction, InputError; the shapes Depth, Rgb, Mask, Classes."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Self, TypeAlias

import numpy as np
import torch

# Axes are always b c h w. These names say what a tensor means; torch checks nothing.
Depth: TypeAlias = torch.Tensor  # (b, 1, h, w) float32, metres along the optical axis (planar Z)
Rgb: TypeAlias = torch.Tensor  # (b, 3, h, w) float32, sRGB values in 0..1
Mask: TypeAlias = torch.Tensor  # (b, 1, h, w) bool, True where there is a reading
Classes: TypeAlias = torch.Tensor  # (b, 1, h, w) uint8, one class per pixel, 255 = unlabelled
Size: TypeAlias = tuple[int, int]  # (height, width) in pixels


class InputError(ValueError):
    """A user's mistake. The message is one line and names the cure; the command exits with 2."""


@dataclass(frozen=True)
class Sample:
    """What a data set hands over: any part may be missing (None).

    ``low`` and ``valid`` share one size; ``rgb``, ``depth``, ``depth_valid`` and ``classes`` share another.
    A pixel without a reading is False in the mask, and its value in the map means nothing.
    Maps are in metres, or in the file's own values (``levels``) for data sets of 8-bit disparity.
    """

    rgb: Rgb | None = None
    low: Depth | None = None
    valid: Mask | None = None  # mask of `low`
    depth: Depth | None = None
    depth_valid: Mask | None = None  # mask of `depth`
    classes: Classes | None = None
    intrinsics: torch.Tensor | None = None  # (b, 3, 3), pixels of `rgb` and `depth`
    name: str = ""

    def to(self, device: torch.device | str) -> Self:
        """The same sample with every tensor on ``device``."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {k: v.to(device) for k, v in tensors.items() if isinstance(v, torch.Tensor)}
        return replace(self, **moved)


@dataclass(frozen=True)
class Prediction:
    """What ``predict`` hands back: plain numpy, ready to look at or to write.

    ``depth``: (H, W) float32, metres; for units ``disparity`` and ``relative`` the input's own values.
    ``valid``: (H, W) bool, False where the sensor measured nothing nearby and the value was filled in.
    ``unit``: ``"m"``, ``"disparity"`` or ``"relative"``.
    """

    depth: np.ndarray
    valid: np.ndarray
    unit: str = "m"
