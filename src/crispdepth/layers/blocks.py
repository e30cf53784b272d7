"""Back-projection between two resolutions."""

from __future__ import annotations

import torch
from torch import nn

from crispdepth.layers.strips import overwritten

KERNELS = {2: (6, 2, 2), 4: (8, 4, 2), 8: (12, 8, 2), 16: (20, 16, 2)}  # scale: kernel, stride, padding


class BackProjection(nn.Module):
    """Features ``scale`` times larger (``up``) or smaller: projected, projected back, and corrected by what was lost.

    Deep back-projection (Haris et al. 2018): (b, channels, h, w) to (b, width, scale·h, scale·w) or back.
    """

    def __init__(self, channels: int, width: int, scale: int, up: bool) -> None:
        super().__init__()
        kernel, stride, padding = KERNELS[scale]
        there, back = (nn.ConvTranspose2d, nn.Conv2d) if up else (nn.Conv2d, nn.ConvTranspose2d)
        self.conv1 = there(channels, width, kernel, stride, padding)
        self.conv2 = back(width, channels, kernel, stride, padding)
        self.conv3 = there(channels, width, kernel, stride, padding)
        self.act1, self.act2, self.act3 = nn.PReLU(width), nn.PReLU(channels), nn.PReLU(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        projected = overwritten(self.act1, self.conv1(x))
        lost = overwritten(lambda y, x: self.act2(y) - x, self.conv2(projected), x)
        return overwritten(lambda x, y: x + self.act3(y), projected, self.conv3(lost))
