"""What an exported graph cannot say as torch does, said with the same values: resizing as products with matrices."""

from __future__ import annotations

import torch

from crispdepth.types import Size


def exporting() -> bool:
    """Whether the model is being turned into a graph that must hold for every size: no branch may look at one."""
    return torch.jit.is_tracing()


def ratio(many: int, few: int) -> torch.Tensor:
    """many / few as a float32 tensor without axes."""
    return _number(many).to(torch.float32) / _number(few).to(torch.float32)


def _number(n: int) -> torch.Tensor:
    """A side as a tensor without axes; in a trace it is one already, and stays what it is: the input's size."""
    return n if isinstance(n, torch.Tensor) else torch.tensor(n)


def resized(x: torch.Tensor, size: Size, kernel: str) -> torch.Tensor:
    """``x`` (b, c, h, w) to (b, c, *size), as F.interpolate: ``bicubic`` antialiased, ``bilinear``, or ``area``."""
    matrix = {"bicubic": _bicubic, "bilinear": _bilinear, "area": _area}[kernel]
    rows = matrix(x.shape[-2], size[0]).to(x).transpose(0, 1)
    columns = matrix(x.shape[-1], size[1]).to(x).transpose(0, 1)
    return ((x @ columns).transpose(-1, -2) @ rows).transpose(-1, -2)  # engines are best at a matrix on the right


def _bicubic(old: int, new: int) -> torch.Tensor:
    """Keys' kernel, a = -0.5, as wide as the pixels of the coarser side: (new, old), each row sums to 1.

    The distance of two pixel centres, old · (i + ½) / new - (j + ½), is a ratio of whole numbers: nothing is rounded
    before the last division.
    """
    i, j = 2 * torch.arange(new) + 1, 2 * torch.arange(old) + 1
    finer = torch.maximum(_number(old), _number(new))
    x = ((i * old)[:, None] - (j * new)[None]).abs().to(torch.float32) / (2 * finer)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    weight = torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
    return weight / weight.sum(dim=1, keepdim=True)


def _bilinear(old: int, new: int) -> torch.Tensor:
    """The two pixels around each new one's centre; beyond the outermost centres, these alone: (new, old)."""
    unit = 2 * _number(new)  # of a pixel's side
    place = ((2 * torch.arange(new) + 1) * old - new).clamp(min=0)
    place = torch.minimum(place, unit * (old - 1))
    return (1 - (place[:, None] - unit * torch.arange(old)[None]).abs().to(torch.float32) / unit).clamp(min=0)


def _area(old: int, new: int) -> torch.Tensor:
    """The mean of the pixels that each new one touches, as adaptive pooling has it: (new, old)."""
    i, j = torch.arange(new)[:, None], torch.arange(old)[None]
    touched = ((j + 1) * new > i * old) & (j * new < (i + 1) * old)
    weight = touched.to(torch.float32)
    return weight / weight.sum(dim=1, keepdim=True)
