"""3x3 convolution by minimal filtering (Winograd; Lavin and Gray, CVPR 2016): a quarter of the multiplications."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from crispdepth.layers.strips import thrifty

STEP, SEEN = 4, 6  # F(4x4, 3x3): squares of 4 x 4 results, each from 6 x 6 pixels
WIDE = 96  # channels from which it is faster than torch's own convolution (examples/naima_speed.py)
LEAST = 56 * 56  # pixels, likewise
TILES = 112  # squares at once: what they need fits a core's cache
_INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_WEIGHT = ((6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24))  # 24ths
_OUTPUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


class Conv3(nn.Conv2d):
    """A 3x3 convolution with a border of zeros; wide ones on a CPU without gradients by minimal filtering.

    The largest difference from torch's own is about 1e-5 of the largest result. ``fast`` switches it.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(channels, width, 3, padding=1)
        self.fast = True

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        pays = min(self.in_channels, self.out_channels) >= WIDE and input.shape[-2] * input.shape[-1] >= LEAST
        full = input.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        if self.fast and pays and full and thrifty(input):
            return filtered(input, self.weight, self.bias)
        return super().forward(input)


def filtered(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """``x`` (b, c, h, w) and ``weight`` (o, c, 3, 3) to (b, o, h, w), channels last: padded by 1, as ``conv2d``.

    Y = Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A of every 6x6 square d, the products summed over the channels as 36 matrices.
    """
    (count, channels, height, width), out = x.shape, len(weight)
    into, turn, back = (torch.kron(m, m) for m in map(torch.tensor, (_INPUT, _WEIGHT, _OUTPUT)))
    into, turn, back = into.float(), turn.float() / 24**2, back.float()
    turned = (turn @ weight.permute(2, 3, 1, 0).reshape(9, -1)).view(SEEN**2, channels, out)
    across = -(-width // STEP)  # squares beside each other
    rows = max(1, TILES // across) * STEP
    made = x.new_empty(count, height, width, out)
    for image, result in zip(x.split(1), made, strict=True):
        for top in range(0, height, rows):
            tall = min(rows, height - top)
            down = -(-tall // STEP)
            strip = _padded(image, top - 1, down * STEP + 2, across * STEP + 2)
            squares = strip.unfold(2, SEEN, STEP).unfold(3, SEEN, STEP)[0].permute(3, 4, 1, 2, 0)
            seen = into @ squares.reshape(SEEN**2, -1)
            summed = torch.bmm(seen.view(SEEN**2, -1, channels), turned)
            part = (back @ summed.view(SEEN**2, -1)).view(STEP, STEP, down, across, out)
            part = part.permute(2, 0, 3, 1, 4).reshape(down * STEP, across * STEP, out)[:tall, :width]
            place = result[top : top + tall]
            place.copy_(part) if bias is None else torch.add(part, bias, out=place)
    return made.permute(0, 3, 1, 2)


def _padded(x: torch.Tensor, top: int, height: int, width: int) -> torch.Tensor:
    """``height`` rows of ``x`` (1, c, h, w) from ``top``, one column more on the left; zeros where it has none."""
    start, end = max(0, top), min(x.shape[2], top + height)
    strip = x[:, :, start:end].contiguous(memory_format=torch.channels_last)
    return F.pad(strip, (1, width - 1 - x.shape[3], start - top, top + height - end))
