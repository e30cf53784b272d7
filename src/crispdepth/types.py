"""Model, Sample, Prediction, InputError; the shapes Depth, Rgb, Mask, Classes."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self, TypeAlias

import numpy as np
import torch
from torch import nn

# Axes are always b c h w. These names say what a tensor means; torch checks nothing.
Depth: TypeAlias = torch.Tensor  # (b, 1, h, w) float32, metres along the optical axis (planar Z)
Rgb: TypeAlias = torch.Tensor  # (b, 3, h, w) float32, sRGB values in 0..1
Mask: TypeAlias = torch.Tensor  # (b, 1, h, w) bool, True where there is a reading
Classes: TypeAlias = torch.Tensor  # (b, 1, h, w) uint8, one class per pixel, 255 = unlabelled
Size: TypeAlias = tuple[int, int]  # (height, width) in pixels


class InputError(ValueError):
    """A user's mistake. The message is one line and names the cure; the command exits with 2."""

    @classmethod
    def unknown(cls, what: str, name: str, known: Iterable[str], spellings: Mapping[str, str] | None = None) -> Self:
        """``name`` is no ``what``: offers the nearest, lists the ``known``; ``spellings`` maps other words to these."""
        known, spellings = list(known), spellings or {}
        near = difflib.get_close_matches(str(name), [*known, *spellings], n=1, cutoff=0.45)
        hint = f"; did you mean {spellings.get(near[0], near[0])}?" if near else "."
        return cls(f"unknown {what} {name!r}{hint} Known: {', '.join(known)}")


class MissingPackage(InputError):
    """What is asked for needs a package that is not installed; the message has the pip line."""


class Model(nn.Module):
    """A network or filter that says what it is. The contract test holds every row of the catalog to this.

    ``inputs``: what ``forward`` takes, in the words of Sample's fields. Two companions are not listed:
    ``valid``, the mask that rides with ``low``, and ``size`` (H, W) of the result where no ``rgb`` tells it.
    ``kind``: ``metric`` (k · low gives k · depth; metres where there is no low map), ``scale`` or ``affine``
    (right up to a factor; and a shift).
    A model whose pixels only look around themselves has ``local(low, valid, rgb)`` to a Local: then huge pictures are
    made in tiles. A model that knows how far it may be off also has ``estimate``: as ``forward``, but (depth, expected
    error). One that tells classes apart has ``depth_and_classes`` (as ``forward``, but both) and their ``class_names``;
    one whose depth is for a certain focal length has ``for_focal`` and ``focal_for`` (see Symbiotic).
    """

    inputs: ClassVar[tuple[str, ...]]
    kind: ClassVar[str] = "metric"
    wants_clean: ClassVar[bool] = False  # whether predict calms and completes its low map first
    leaves_relief: ClassVar[bool] = False  # whether predict puts fine relief back that it took for noise
    one_size: ClassVar[bool] = False  # whether an exported file holds but one size of picture
    bytes_per_pixel: ClassVar[int] = 340  # peak memory of the whole process over the result's pixels, without tiles

    @property
    def single(self) -> Model:
        """Itself, or the model of which this one takes the mean over several views."""
        return self

    @property
    def in_levels(self) -> Model | None:
        """The same weights, told that the true depth is in whole levels, as 8-bit disparity; None: it learnt none."""
        return None


@dataclass(frozen=True)
class Local:
    """A model's work after all that needs the whole map was done; what is left looks only around each pixel.

    ``low``: maps (1, c, h, w) on the low grid. ``run``: the same part of each of them, of the picture (None where the
    model sees none), and the part's size (H, W), to depth (1, 1, H, W) and the expected error or None.
    ``halo_low_px``: how far a pixel looks, low pixels.
    """

    low: tuple[torch.Tensor, ...]
    run: Callable[[tuple[torch.Tensor, ...], Rgb | None, Size], tuple[Depth, Depth | None]]
    halo_low_px: int


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


@dataclass(frozen=True)
class Prediction:
    """What ``predict`` hands back: plain numpy, ready to look at or to write.

    ``depth``: (H, W) float32, metres; for units ``disparity`` and ``relative`` the input's own values.
    ``valid``: (H, W) bool, False where the sensor measured nothing nearby and the value was filled in.
    ``unit``: ``"m"``, ``"disparity"`` or ``"relative"``.
    ``confidence``: (H, W) float32, 0..1, None for ``relative`` and where there was no low map: 1 / (1 + error / (1 %
    of the depth)) where the model estimates its error, else 1 / (1 + low pixels to the nearest reading).
    ``error``: (H, W) float32, the mean absolute error to expect, in the unit of ``depth``; None where the model
    does not estimate it.
    ``shift_px``: how far right and down the depth must move to fit the picture; with ``align="auto"`` it was moved,
    with "guide" the model saw the picture moved the other way.
    ``noise``: the standard deviation of the noise that was taken out of the low map first, in the unit of ``depth``; 0
    where it was left as it is.
    ``corner_px``: its readings are single pixels, and the depth was moved right and down by so much to where these lie
    (``kernel`` of ``predict``).
    ``averaged``: its readings were taken for means of what their pixels cover (``kernel`` of ``predict``).
    ``twice``: the model ran twice, since single readings are missing all over: see ``once`` of ``predict``.
    ``classes``: (H, W) uint8, numbers into ``class_names``, from models that tell classes apart; else None.
    """

    depth: np.ndarray
    valid: np.ndarray
    unit: str = "m"
    confidence: np.ndarray | None = None
    error: np.ndarray | None = None
    shift_px: tuple[int, int] = (0, 0)
    noise: float = 0.0
    corner_px: tuple[int, int] = (0, 0)
    averaged: bool = False
    twice: bool = False
    classes: np.ndarray | None = None
    class_names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        height, width = self.depth.shape
        parts = [f"{width}x{height}", f"median {np.median(self.depth):.4g} {self.unit}"]
        if not self.valid.all():
            parts.append(f"{1 - self.valid.mean():.1%} filled")
        parts += [name for name in ("confidence", "error", "classes") if getattr(self, name) is not None]
        return f"Prediction({', '.join(parts)})"
