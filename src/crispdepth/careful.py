"""careful: what a model makes of one low map, its faults told and allowed for before, and mended after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import torch

from crispdepth.detail import put_back
from crispdepth.geometry import (
    EDGE_LEVELS,
    EDGE_SHARE,
    LEVELS_OF_RANGE,
    enlarge,
    hardened,
    level_step,
    missing,
    riddled,
)
from crispdepth.kernel import as_bicubic, as_taken, averaged, pointed
from crispdepth.models.catalog import load
from crispdepth.noise import calmed, noise_of, noisy
from crispdepth.options import USUAL, Options
from crispdepth.shift import CORNER, corner_shift, looks, moved, residual_shift
from crispdepth.tiles import TILE_FROM, tileable, tiled
from crispdepth.types import Depth, InputError, Mask, Model, Rgb, Sample, Size

ROWS = 256
LEFT = 0.15  # of the noise: about what is left of it in the result (examples/expected_error.py)


class Careful(NamedTuple):
    """``depth`` and ``error`` as ``estimated`` gives them, the ``noise`` that was taken out of the low map first (its
    standard deviation; 0: none), whether its readings were taken for means (``averaged``) and its scattered holes were
    filled (``twice``) in a second run, and by how many pixels the depth must move right and down to fit the picture
    (``shift``): by as many the picture was moved left and up before the model saw it, unless ``align`` was "look".
    ``corner``: as many, where readings are single pixels, so that the map itself lies elsewhere than it seems."""

    depth: Depth
    error: Depth | None
    noise: float
    averaged: bool
    twice: bool
    shift: tuple[int, int]
    corner: tuple[int, int] = (0, 0)


def careful(model: Model, sample: Sample, size: Size | None = None, options: Options = USUAL) -> Careful:
    """As ``estimated``, of one low map; the ``options`` as in ``predict``, but the depth stays where it is.

    1. Noise is taken out of the low map (noise.py), and the picture is put in place (shift.py): onto single pixels if
       that is what was read, by default not elsewhere if it may be.
    2. A second run, where it is needed, sees scattered holes filled and means turned into what the model takes readings
       for (kernel.py), both by the result of the first, taken down to the low map. A model that takes the mean of
       several views is run on one first; the views then see a map that also has what the first run lacked of it.
    3. Fine relief that the model left out is put back (detail.py), or levels that it drew are made whole; edges are
       hardened if asked for, and those of levels.

    The expected error is that of the first run if the second saw what was not measured, and grows by what is left of
    the noise.
    """
    options.check(picture=sample.rgb is not None)
    levels = options.levels
    model = _told_of_levels(model, sample) if levels else model
    sample, noise = denoised(model, sample, options.denoise)
    sample, shift, corner = _placed(model, sample, options, noise)
    low, valid = sample.low, sample.valid
    if options.once or low is None or valid is None:
        depth, error = estimated(model, sample, size)
        depth = _finished(model, depth, sample, noise, options)
        return Careful(depth, _with_noise(error, noise), noise, False, False, shift, corner)
    first = model.single if model.wants_clean else model
    depth, error = estimated(first, sample, size)
    holes, means = model.wants_clean and riddled(valid), _means(model, options.kernel, depth, low, valid, noise)
    seen, everywhere = low, valid
    if means:
        seen = as_bicubic(depth, low)
    elif first is not model and not noise and not levels and as_taken(depth, low, valid):
        seen = low + missing(depth, low, valid)
    if holes:
        everywhere = torch.ones_like(valid)
        filled = enlarge(depth, (low.shape[-2], low.shape[-1]))
        seen = torch.where(valid, seen, filled.round() if levels else filled)
    if holes or means or first is not model:
        again = replace(sample, low=torch.where(everywhere, seen, 0), valid=everywhere)
        depth, expected = estimated(model, again, size)
        error = error if holes or means else expected
    depth = _finished(model, depth, sample, noise, options)
    return Careful(depth, _with_noise(error, noise), noise, means, holes, shift, corner)


def _told_of_levels(model: Model, sample: Sample) -> Model:
    """``model``, told of levels. Raises InputError if it has learnt none, or the map is in none."""
    told = model.in_levels
    if told is None:
        raise InputError("this model draws no levels: take --model ctkt, or leave --levels (levels=…) out")
    if sample.low is None or sample.valid is None or not level_step(sample.low, sample.valid).any():
        least, most = LEVELS_OF_RANGE
        raise InputError(
            f"--levels (levels=…) is for whole numbers, {least} to {most} from least to most, as 8-bit disparity has "
            "them: leave it out"
        )
    return told


def _finished(model: Model, depth: Depth, sample: Sample, noise: float, options: Options) -> Depth:
    """``depth`` with the fine relief that ``model`` left out and, if asked for, hard edges; or in whole ``levels``, its
    edges hard: the median of what can only be whole, which the least absolute error asks for, is whole."""
    if options.levels:
        return _hardened(depth, EDGE_LEVELS, 0.0).round()
    if not noise and model.leaves_relief and sample.low is not None and sample.valid is not None:
        depth = put_back(depth, sample.low, sample.valid)
    return _hardened(depth, EDGE_SHARE * float(depth.abs().max()) / 4, EDGE_SHARE) if options.hard_edges else depth


def _hardened(depth: Depth, least: float, share: float) -> Depth:
    """``hardened``, ROWS at a time: maps may be huge."""
    tops = range(0, depth.shape[-2], ROWS)
    strips = (hardened(depth[..., max(0, top - 1) : top + ROWS + 1, :], least, share) for top in tops)
    return torch.cat([x[..., min(top, 1) :, :][..., :ROWS, :] for top, x in zip(tops, strips, strict=True)], -2)


def _with_noise(error: Depth | None, noise: float) -> Depth | None:
    """The expected error and what is left of noise that the model has not seen."""
    return torch.hypot(error, torch.tensor(LEFT * noise)) if error is not None and noise else error


def _means(model: Model, kernel: str, depth: Depth, low: Depth, valid: Mask, noise: float) -> bool:
    """Whether the model shall see ``low`` turned by ``as_bicubic``."""
    if kernel != "auto" or not model.wants_clean:
        return kernel == "average"
    return (
        not noise and averaged(depth, low, valid, "rgb" in model.inputs) and not noisy(noise_of(low, valid), low, valid)
    )


def denoised(model: Model, sample: Sample, denoise: str = "auto") -> tuple[Sample, float]:
    """``sample``, of one low map, without the noise that ``model`` shall not see, and that noise's standard deviation.

    ``denoise`` as in ``predict``. 0: nothing was changed, also where so few readings lie side by side that nothing
    tells how much noise there is.
    """
    low, valid = sample.low, sample.valid
    if low is None or valid is None or denoise == "off" or (denoise == "auto" and not model.wants_clean):
        return sample, 0.0
    noise = noise_of(low, valid)
    if not noise or (denoise == "auto" and not noisy(noise, low, valid)):
        return sample, 0.0
    return replace(sample, low=calmed(low, valid, noise)), noise


def _placed(
    model: Model, sample: Sample, options: Options, noise: float
) -> tuple[Sample, tuple[int, int], tuple[int, int]]:
    """``sample`` with its picture where the depth is, and by how much the depth would have to move to fit it instead:
    as asked for by ``options.align``, and since its readings are single pixels (``Careful.corner``). ``noise`` was
    taken out already.

    By whole pixels, so that nothing is blurred.
    """
    low, valid, rgb = sample.low, sample.valid, sample.rgb
    wanted, known, shift = alignment(model, options.align), options.kernel == "points", options.shift
    if (wanted == "off" and not known) or low is None or valid is None or rgb is None:
        return sample, (0, 0), (0, 0)
    draw = _drawing(low, valid, "off" if noise else options.denoise)
    perhaps = options.kernel == "auto" and options.align is None
    if known or (perhaps and _pointed(draw, low, valid, rgb)):
        _, size = looks(rgb, valid)[-1]
        corner = corner_shift(draw(size), valid, rgb, 0.0 if known else CORNER)
        return replace(sample, rgb=moved(rgb, (-corner[0], -corner[1]))), (0, 0), corner
    if shift is None:
        shift = residual_shift(draw, valid, rgb)
    seen = sample if wanted == "look" else replace(sample, rgb=moved(rgb, (-shift[0], -shift[1])))
    return seen, shift, (0, 0)


def _pointed(draw: Callable[[Size], Depth], low: Depth, valid: Mask, rgb: Rgb) -> bool:
    """Whether the readings may be single pixels (``kernel.pointed``), and are not noisy."""
    _, size = looks(rgb, valid)[0]
    return pointed(draw(size), low, valid) and not noisy(noise_of(low, valid), low, valid)


def alignment(model: Model, align: str | None) -> str:
    """What is done about a picture out of place: ``align``, or by default "guide" for our guided networks and "off" for
    others."""
    usual = "guide" if model.wants_clean and "rgb" in model.inputs else "off"
    return usual if align is None else align


def depth_shift(low: Depth, valid: Mask, rgb: Rgb, denoise: str = "auto") -> tuple[int, int]:
    """By how many pixels of ``rgb`` the depth must move right and down to fit it; (0, 0) unless that is clear.

    The depth's edges are those that ``ctkt`` sees, which knows no picture (``shift.residual_shift``).
    """
    return residual_shift(_drawing(low, valid, denoise), valid, rgb)


def _drawing(low: Depth, valid: Mask, denoise: str) -> Callable[[Size], Depth]:
    """The depth at any size, drawn by ``ctkt``, once each."""
    return cache(lambda size: careful(_ctkt(), Sample(low=low, valid=valid), size, Options(denoise=denoise)).depth)


@cache
def _ctkt() -> Model:
    return load("ctkt")


def sharpened(model: Model, sample: Sample, size: Size | None = None) -> Depth:
    """Tensors in, tensor out: ``model`` on the parts of ``sample`` that it asks for, without gradients.

    ``size`` (H, W) is for models without RGB; None means the size of the sample's ``rgb``.
    """
    return estimated(model, sample, size)[0]


def estimated(model: Model, sample: Sample, size: Size | None = None) -> tuple[Depth, Depth | None]:
    """As ``sharpened``, and the error the model expects, (b, 1, H, W) too; None where it does not estimate it."""
    there = device_of(model)
    inputs: dict[str, Any] = {name: getattr(sample, name).to(there) for name in model.inputs}
    if "low" in inputs and sample.valid is not None:
        inputs["valid"] = sample.valid.to(there)
    rgb: Rgb | None = inputs.get("rgb")
    if rgb is None:
        if size is None:
            assert sample.rgb is not None
            size = (sample.rgb.shape[-2], sample.rgb.shape[-1])
        inputs["size"] = size
    estimate = getattr(model, "estimate", None)
    with torch.inference_mode():
        local: Any = getattr(model, "local", None)
        whole = size if rgb is None else (rgb.shape[-2], rgb.shape[-1])
        if local is not None and whole is not None and _by_tiles(sample, whole):
            depth, error = tiled(local(inputs["low"], inputs["valid"], rgb), rgb, whole)
        else:
            depth, error = (model(**inputs), None) if estimate is None else estimate(**inputs)
    back = next(x for x in (sample.low, sample.rgb) if x is not None).device
    return depth.to(back), None if error is None else error.to(back)


def device_of(model: Model) -> torch.device:
    """Where ``model`` was moved to; the CPU for one without weights."""
    return next((part.device for part in model.parameters()), torch.device("cpu"))


def _by_tiles(sample: Sample, size: Size) -> bool:
    """Whether a result of ``size`` is so large that it is made in tiles, and can be."""
    if sample.low is None or len(sample.low) > 1:
        return False
    low = (sample.low.shape[-2], sample.low.shape[-1])
    return size[0] * size[1] >= TILE_FROM and tileable(low, size) is not None
