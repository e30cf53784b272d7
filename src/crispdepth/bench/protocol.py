"""PROTOCOLS: how a benchmark makes its low map, cuts its border, and averages; a number needs its row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from dataclasses import replace as replace_fields

import torch
import torch.nn.functional as F

from crispdepth.degradation import crop_to_multiple, downsample
from crispdepth.types import InputError, Sample, Size

OF_SHARPNESS = ("rmse", "mse", "mad", "absrel", "delta1", "edge_rmse", "flying")
OF_LEVELS = ("mad", "mad_rounded", "rmse", "edge_rmse", "flying")  # papers do not say whether they round
OF_PICTURES = ("absrel", "rmse", "log10", "rmse_log", "delta1", "delta2", "delta3")


@dataclass(frozen=True)
class Protocol:
    """One row of PROTOCOLS; the law is that no figure is shown without it.

    ``kernel`` makes the low map of sets in metres, ``kernel_levels`` that of 8-bit sets ("levels"), where
    ``*-8bit`` means that the low map is rounded to whole levels. ``given``: the sensor's own low map; ``none``: there
    is no low map, for depth from a picture alone.
    ``border_px`` is cut from each side before measuring (``borders`` names exceptions by data set).
    ``clip_truth_m``: the truth of a set is clipped to this range first, by data set.
    ``measure_m``: only pixels whose truth lies in this range count. ``clip_output``: predictions are
    clipped to that range, or else to the truth's. ``crop_px``: the frame is cut into squares of this side,
    each measured as an image of its own. ``square_px``: the frame is padded right and below with black, and with the
    low map's smallest value, to the next square whose side is a multiple of this (and of the scale); only the frame is
    measured.
    ``window``: only pixels count whose row and column lie within these shares of the frame (top, bottom, left,
    right). ``lowest_px``: so many of the frame's lowest rows and middle columns are shown to the model (the KB
    crop); the window is still that of the whole. ``levels``: models that can are asked for whole levels
    (``Model.in_levels``), in sets that hold such. ``metrics``: what is measured. ``sets``: whose usual protocol
    it is. ``normalisation`` says what the authors did before their network; it changes no linear kernel, and our models
    normalise by the low map alone, since nobody has the truth's range. The average is always the mean of per-image
    values.
    """

    used_by: str
    kernel: str = "bicubic"
    kernel_levels: str = "bicubic"
    border_px: int = 6
    borders: Mapping[str, int] = field(default_factory=dict)
    clip_truth_m: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    measure_m: tuple[float, float] | None = None
    clip_output: bool = False
    crop_px: int | None = None
    square_px: int | None = None
    window: tuple[float, float, float, float] | None = None
    lowest_px: Size | None = None
    levels: bool = False
    metrics: tuple[str, ...] = OF_SHARPNESS
    sets: tuple[str, ...] = ()
    headline: str = "rmse"
    normalisation: str = "the low map's own range"

    def kernel_of(self, unit: str) -> str:
        """How the low map of a set in ``unit`` is made."""
        return self.kernel_levels if unit == "levels" else self.kernel

    def border(self, set_name: str) -> int:
        """Pixels cut from each side of every image of ``set_name``."""
        return self.borders.get(set_name, self.border_px)

    def describe(self, set_name: str, unit: str) -> str:
        """The heading every table prints: kernel, rounding, border, unit, average."""
        kernel = self.kernel_of(unit)
        parts = [
            "no low map" if kernel == "none" else f"low map: {kernel}",
            f"border cut: {self.border(set_name)} px",
            f"unit: {unit}",
        ]
        if self.measure_m:
            parts.append("truth within {:g}–{:g} m".format(*self.measure_m))
        if set_name in self.clip_truth_m:
            parts.append("truth clipped to {:g}–{:g} m".format(*self.clip_truth_m[set_name]))
        if self.clip_output:
            parts.append(f"output clipped to {'that' if self.measure_m else 'the true'} range")
        if self.lowest_px:
            parts.append("of each frame the lowest {} rows and middle {} columns".format(*self.lowest_px))
        if self.window:
            top, bottom, left, right = self.window
            parts.append(f"rows {top:.3f}–{bottom:.3f}, columns {left:.3f}–{right:.3f} of the frame")
        if self.crop_px:
            parts.append(f"squares of {self.crop_px} px")
        if self.levels and unit == "levels":
            parts.append("whole levels asked of models that draw them")
        if self.square_px:
            parts.append(f"padded to a square of n x {self.square_px} px")
        return " · ".join([*parts, "mean of per-image values"])

    def prepare(self, sample: Sample, scale: float, set_name: str, unit: str) -> Iterator[Sample]:
        """The images this protocol measures, each with a low map made from its truth.

        Raises InputError when the protocol needs the sensor's own map and the sample has none, or 8 bits and it has
        more.
        """
        kernel = self.kernel_of(unit)
        for part in _squares(sample, self.crop_px) if self.crop_px else [sample]:
            if kernel == "none":
                yield _shown(part, self.window, self.lowest_px)
                continue
            if kernel == "given":
                yield _with_given_low(part, set_name)
                continue
            if kernel.endswith("8bit"):
                _check_levels(part)
            made = _degrade(part, scale, kernel, self.clip_truth_m.get(set_name))
            yield _squared(made, self.square_px, self.border(set_name), scale) if self.square_px else made


def _cropped(sample: Sample, top: int, left: int, height: int, width: int) -> Sample:
    def cut(x: torch.Tensor | None) -> torch.Tensor | None:
        return None if x is None else x[..., top : top + height, left : left + width]

    return replace_fields(
        sample,
        rgb=cut(sample.rgb),
        depth=cut(sample.depth),
        depth_valid=cut(sample.depth_valid),
        classes=cut(sample.classes),
    )


def _squares(sample: Sample, side: int) -> Iterator[Sample]:
    """Squares side by side from the upper left corner; what is left over at the far sides is not measured."""
    assert sample.depth is not None
    height, width = sample.depth.shape[-2:]
    if height < side or width < side:
        raise InputError(f"{sample.name} is {width}x{height}: this protocol needs at least {side}x{side}")
    for top in range(0, height - side + 1, side):
        for left in range(0, width - side + 1, side):
            part = _cropped(sample, top, left, side, side)
            yield replace_fields(part, name=f"{sample.name}+{top}+{left}")


def _shown(sample: Sample, window: tuple[float, float, float, float] | None, lowest_px: Size | None) -> Sample:
    """What of a frame is shown, and in its mask what of that is measured."""
    assert sample.depth is not None
    height, width = sample.depth.shape[-2:]
    valid = torch.ones_like(sample.depth, dtype=torch.bool) if sample.depth_valid is None else sample.depth_valid
    if window:
        top, bottom = (int(share * height + 1e-6) for share in window[:2])
        left, right = (int(share * width + 1e-6) for share in window[2:])
        inside = torch.zeros_like(valid)
        inside[..., top:bottom, left:right] = True
        valid = valid & inside
    sample = replace_fields(sample, low=None, valid=None, depth_valid=valid)
    if lowest_px is None:
        return sample
    tall, wide = min(height, lowest_px[0]), min(width, lowest_px[1])
    return _cropped(sample, height - tall, (width - wide) // 2, tall, wide)


def _with_given_low(sample: Sample, set_name: str) -> Sample:
    if sample.low is None:
        where = f"`crispdepth info {set_name}` says where it would lie"
        raise InputError(f"has no low map of its own, which this protocol needs: {where}")
    return sample


def _squared(sample: Sample, step: int, border: int, scale: float) -> Sample:
    """``sample`` padded to a square; truth counts within the frame alone, ``border`` pixels from its sides.

    Its side is a multiple of ``step``, and of ``scale``: a low map that covered more would be stretched against it.
    Raises InputError for a scale that is no whole number.
    """
    if scale != round(scale):
        raise InputError(f"this protocol pads to whole low pixels, and x{scale:g} has none: take a whole --scale")
    step = math.lcm(step, round(scale))
    assert sample.depth is not None
    assert sample.depth_valid is not None
    assert sample.low is not None
    assert sample.valid is not None
    height, width = sample.depth.shape[-2:]
    side = math.ceil(max(height, width) / step) * step
    small = (side // round(scale), side // round(scale))

    def padded(x: torch.Tensor | None, size: Size, value: float = 0.0) -> torch.Tensor | None:
        return None if x is None else F.pad(x, (0, size[1] - x.shape[-1], 0, size[0] - x.shape[-2]), value=value)

    inner = torch.zeros_like(sample.depth_valid)
    inner[..., border : height - border, border : width - border] = True
    least = float(sample.low[sample.valid].min()) if bool(sample.valid.any()) else 0.0
    return replace_fields(
        sample,
        rgb=padded(sample.rgb, (side, side)),
        depth=padded(sample.depth, (side, side)),
        depth_valid=padded(sample.depth_valid & inner, (side, side)),
        classes=padded(sample.classes, (side, side), 255),
        low=padded(sample.low, small, least),
        valid=padded(sample.valid, small, True),
    )


def _check_levels(sample: Sample) -> None:
    """Raise InputError for a truth that is in no whole levels of 0..255: rounded, it would be another."""
    assert sample.depth is not None
    if bool((sample.depth != sample.depth.round().clamp(0, 255)).any()):
        raise InputError("this protocol rounds to 8 bits, and the truth holds more: take one that does not (dctnet)")


def _degrade(sample: Sample, scale: float, kernel: str, clip_truth_m: tuple[float, float] | None = None) -> Sample:
    assert sample.depth is not None
    assert sample.depth_valid is not None
    height, width = crop_to_multiple(sample.depth, scale).shape[-2:]
    part = _cropped(sample, 0, 0, height, width)
    assert part.depth is not None
    assert part.depth_valid is not None
    depth = part.depth.clamp(*clip_truth_m) if clip_truth_m else part.depth
    low, valid = downsample(depth, part.depth_valid, scale, kernel)
    return replace_fields(part, depth=depth, low=low, valid=valid)


PROTOCOLS: dict[str, Protocol] = {
    "fdsr": Protocol(
        used_by="FDSR, SUFT, SGNet, SPFNet",
        kernel_levels="bicubic-8bit",
        normalisation="NYU: truth's range; RGB-D-D: low map's range; Middlebury, Lu: / 255",
    ),
    "dctnet": Protocol(
        used_by="DCTNet, HCGNet",
        border_px=0,
        borders={"nyu": 6, "nyu_eigen": 6},
        clip_output=True,
        normalisation="truth's range",
    ),
    "naima": Protocol(
        used_by="NAIMA, WAVE",
        # RGB-D-D is clipped by category there; those ranges are not known here, so rgbdd is not clipped
        clip_truth_m={"nyu": (0.1, 10.0), "nyu_eigen": (0.1, 10.0), "tofdsr": (0.1, 6.0)},
        square_px=112,  # the released evaluation; whether it pads before or after standardising is not known
        normalisation="clipped truth's range; Middlebury, Lu: / 255",
    ),
    "dada": Protocol(
        used_by="GraphSR, DADA",
        kernel="average",
        kernel_levels="average",
        border_px=0,
        crop_px=256,
        headline="mse",
        normalisation="standard deviation over the whole set",
    ),
    "djf": Protocol(
        used_by="DJF, PAC",
        kernel="strided",
        kernel_levels="strided",
        normalisation="truth's range",
    ),
    "tofdsr": Protocol(
        used_by="TOFDSR, DORNet (a phone's real low map)",
        sets=("tofdsr",),
        kernel="given",
        kernel_levels="given",
        measure_m=(0.1, 5.0),
        normalisation="0–5 m",
    ),
    "park": Protocol(
        used_by="Park et al. 2011, Ferstl et al. 2013 (noisy low maps that come with the set)",
        sets=("middlebury_noisy_x4", "middlebury_noisy_x8", "middlebury_noisy_x16"),
        kernel="given",
        kernel_levels="given",
        border_px=0,
        headline="mad",
    ),
    "ctkt": Protocol(
        used_by="CTKT, PMBANet, HCGNet",
        kernel_levels="bicubic-8bit",
        border_px=0,
        levels=True,
        metrics=OF_LEVELS,
        headline="mad",
    ),
    "rgb": Protocol(
        used_by="depth from a picture alone, whole frames",
        kernel="none",
        kernel_levels="none",
        border_px=0,
        metrics=OF_PICTURES,
        headline="absrel",
        normalisation="none",
    ),
    "eigen": Protocol(
        used_by="BTS, AdaBins, PixelFormer, iDisc, Symbiotic on NYUv2 (Eigen et al. 2014)",
        kernel="none",
        kernel_levels="none",
        border_px=0,
        measure_m=(1e-3, 10.0),
        clip_output=True,
        window=(45 / 480, 471 / 480, 41 / 640, 601 / 640),
        metrics=OF_PICTURES,
        sets=("nyu", "nyu_eigen"),
        headline="absrel",
        normalisation="none",
    ),
    "garg": Protocol(
        used_by="BTS, AdaBins, PixelFormer, iDisc, Symbiotic on KITTI (Garg et al. 2016)",
        kernel="none",
        kernel_levels="none",
        border_px=0,
        measure_m=(1e-3, 80.0),
        clip_output=True,
        window=(0.40810811, 0.99189189, 0.03594771, 0.96405229),
        lowest_px=(352, 1216),
        metrics=OF_PICTURES,
        sets=("kitti",),
        headline="absrel",
        normalisation="none",
    ),
}
