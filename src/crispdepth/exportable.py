"""What an exported graph cannot say as torch does, said as products with matrices: resizing and Fourier transforms."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from crispdepth.types import Size


def exporting() -> bool:
    """Whether the model is being turned into a graph: no branch may look at a value, nor, where the graph must hold for
    every size (a trace), at a size."""
    return torch.jit.is_tracing() or torch.compiler.is_exporting()


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


class Spectrum(NamedTuple):
    """What complex tensors do here, by their real and imaginary parts: graphs have no complex numbers."""

    real: torch.Tensor
    imag: torch.Tensor

    def abs(self) -> torch.Tensor:
        return (self.real.square() + self.imag.square()).sqrt()

    def angle(self) -> torch.Tensor:
        return torch.atan2(self.imag, self.real)

    def flatten(self, start: int) -> Spectrum:
        return Spectrum(self.real.flatten(start), self.imag.flatten(start))

    def unflatten(self, axis: int, size: Size) -> Spectrum:
        return Spectrum(self.real.unflatten(axis, size), self.imag.unflatten(axis, size))


def rfft2(x: torch.Tensor) -> Spectrum:
    """torch.fft.rfft2 of ``x`` (b, c, h, w): (b, c, h, w // 2 + 1)."""
    height, width = x.shape[-2:]
    cosine, sine = _waves(width, width // 2 + 1, x)
    real, imag = x @ cosine, -(x @ sine)
    cosine, sine = _waves(height, height, x)
    return Spectrum(cosine @ real + sine @ imag, cosine @ imag - sine @ real)


def irfft2(x: Spectrum, size: Size) -> torch.Tensor:
    """torch.fft.irfft2 of ``x`` (b, c, h, w // 2 + 1), for ``size`` = (h, w)."""
    height, width = size
    cosine, sine = _waves(height, height, x.real)
    real, imag = cosine @ x.real - sine @ x.imag, cosine @ x.imag + sine @ x.real
    cosine, sine = _waves(width, width // 2 + 1, real)
    weight = torch.full((width // 2 + 1,), 2.0)  # a bin stands for two, of which one is not given
    weight[0] = 1
    if width % 2 == 0:
        weight[-1] = 1
    cosine, sine = (wave * weight.to(wave) for wave in (cosine, sine))
    return (real @ cosine.mT - imag @ sine.mT) / (height * width)


def _waves(length: int, count: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of 2π · j · k / length, (length, count); j · k is taken modulo length: exact for long sides."""
    turns = torch.arange(length)[:, None] * torch.arange(count) % length
    angle = 2 * math.pi * turns.double() / length
    return angle.cos().to(like), angle.sin().to(like)
