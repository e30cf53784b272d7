"""predict: any array, tensor or file in, a Prediction out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F

from crispdepth.careful import alignment, careful, depth_shift, device_of
from crispdepth.confidence import as_error, from_distance, from_error, trusted
from crispdepth.formats.raw import MAX_PIXELS
from crispdepth.geometry import resize_rgb, riddled
from crispdepth.intrinsics import MOST_FOCAL_PX
from crispdepth.io import decode_depth, read_confidence, read_depth, read_rgb
from crispdepth.models.catalog import as_model
from crispdepth.noise import noise_of, noisy
from crispdepth.options import Options
from crispdepth.shift import moved
from crispdepth.tiles import TILE_FROM, tileable
from crispdepth.types import Depth, InputError, Mask, Model, Prediction, Rgb, Sample, Size

TILED_BYTES_PER_PIXEL = 60  # of the result, in tiles: picture, result and what is made of them (bench-memory)
TILE_BYTES = 1.2e9  # the largest tiles, and Python with its libraries
ASPECT_TOLERANCE = 0.02
ONE_PLANE = 0.01  # of the depth: readings that differ by less


SHIFT_FRAMES, KERNEL_FRAMES = 15, 3  # of a film, looked at for its shift, noise and holes, and for its kernel

Array = np.ndarray | torch.Tensor | str | Path
Words = dict[str, Any]  # of ``predict``: low, valid, unit, rgb, size
Asked = TypeVar("Asked", bound=Options)


def predict(
    model: Model | str | Path,
    low: Array | None = None,
    rgb: Array | None = None,
    valid: np.ndarray | torch.Tensor | None = None,
    unit: str | None = None,
    size: Size | None = None,
    confidence: Array | None = None,
    min_confidence: float | None = None,
    confidence_max: float | None = None,
    align: str | None = None,
    shift: tuple[int, int] | None = None,
    focal_px: float | None = None,
    nan_holes: bool = False,
    denoise: str = "auto",
    kernel: str = "auto",
    once: bool = False,
    levels: bool = False,
    hard_edges: bool = False,
) -> Prediction:
    """Sharpen a low-resolution depth map, or find depth in a picture alone: give it what the sensor gave you.

    ``model``: a catalog name, a file of weights, or a loaded model.
    ``low``: (h, w) depth as a path, numpy array or tensor (axes of length 1 before it are dropped).
    ``rgb``: a path, an (H, W, 3) array (uint8, uint16, or float in 0..1), a grey (H, W) one, or a (3, H, W) tensor.
    ``valid``: (h, w) bool, False where ``low`` has no reading; without it zeros and negatives are holes
    (``relative``: none are).
    ``nan_holes``: NaN and inf in ``low`` mean no reading (in EXR and PFM files they do anyway).
    ``unit``: what the values of ``low`` are, see ``crispdepth names``: ``m``, ``mm``, ``kitti``, ``tum``,
    ``disparity``, ``relative`` …; None means metres for floating-point values, and is refused for integers.
    ``size``: (H, W) of the result; None means the size of ``rgb``.
    ``confidence``: (h, w) of the sensor, a path, array or tensor: ARKit's 0, 1, 2, or 0..255, or floats of 0..1;
    readings below ``min_confidence`` (by default 1 of ARKit's levels, 0.5 of 0..1) count as holes.
    ``confidence_max``: what the sensor says where it is sure, for any other scale, such as 100.
    ``align``: what if depth edges clearly fit those of ``rgb`` better some whole pixels of the result away (up to 10,
    of more than a million pixels more)? "guide" shows the model the picture moved onto the depth, and the result lies
    where the depth was; "auto" then moves the result onto the picture; "look" only tells, in ``Prediction.shift_px``;
    "off" does not look. None: "guide" for our guided networks (Crisp), "off" for others.
    ``shift``: how far right and down the depth must move to fit the picture, where that is known.
    ``denoise``: "auto" takes the noise out of the low map first where it is over 0.5 % of its range, for models
    that want it so (Crisp, Ctkt); "on" any noise for any model, "off" none. ``Prediction.noise`` says how much it was.
    ``kernel``: "average" says that each reading is the mean of what its pixel covers, "bicubic" that it is as if
    shrunken so, which our networks take for granted, "points" that it is that of one pixel, the first or the last of
    what it covers (``d[::8]``, OpenCV's nearest): which one, and so where the depth lies, the picture tells. "auto"
    tells the first two from the result of our networks, the third from what ``ctkt`` makes of the map. Below x3, and
    where no corner fits, points lie where they are.
    ``once``: else our networks run twice where single readings are missing all over (what the first run says in the
    holes counts as read in the second), and where readings are means.
    ``levels``: the true depth is in whole levels, as the 8-bit disparity of ``low``, and so shall the result be (Ctkt
    only); else its smooth surface is drawn.
    ``hard_edges``: pixels on edges are moved to the near or the far side (``geometry.hardened``), where else they may
    be a mixture of both, as in maps that were shrunk; levels have hard edges anyway.
    ``focal_px``: for models of a picture alone that depend on it (Symbiotic): the camera's focal length in pixels of
    ``rgb``; None means the one they learnt with.

    Returns a Prediction whose depth is (H, W) float32 in metres (``relative``, ``disparity``: in the
    input's own values), and how far it can be trusted. Raises InputError, a ValueError whose message names
    the cure, for missing or unreadable input, a depth without a reading, NaN or inf outside the mask, RGB and
    depth of different shape, and sizes beyond this machine's memory.
    """
    model = as_model(model)
    pixels = None if shift is None else _two_pixels(shift)
    options = Options(
        align=align,
        shift=pixels,
        denoise=denoise,
        kernel=kernel,
        once=once,
        levels=levels,
        hard_edges=hard_edges,
    )
    if "low" not in model.inputs:
        if low is not None:
            raise InputError(
                "this model looks at the picture alone: leave out --low (low=…), or choose another --model"
            )
        of_low: dict[str, Any] = {"valid": valid, "unit": unit, "confidence": confidence}
        of_low |= {"min_confidence": min_confidence, "confidence_max": confidence_max, "nan_holes": nan_holes or None}
        of_low |= dict.fromkeys(options.asked(), True)
        for name, given in of_low.items():
            if given is not None:
                raise InputError(f"{name}=… is about measured depth: leave it out, or pass low too")
        return _from_rgb(model, rgb, size, focal_px)
    if focal_px is not None:
        raise InputError(
            "--focal (focal_px=…) is for depth from a picture alone: leave it out, the low map has the scale"
        )
    low_map, mask, unit = _low_tensors(low, valid, unit, nan_holes)
    if confidence is not None:
        mask = mask & _trusted(confidence, min_confidence, confidence_max, mask)
        low_map = torch.where(mask, low_map, 0)
    elif min_confidence is not None or confidence_max is not None:
        name = "min_confidence" if min_confidence is not None else "confidence_max"
        given = f"--{name.replace('_', '-')} ({name}=…)"
        raise InputError(f"{given} is for a sensor's own confidence: add --confidence (confidence=…)")
    options.check(picture=rgb is not None)
    if align == "guide" and "rgb" not in model.inputs:
        raise InputError("align guide shows the model the picture moved, and this one sees none: auto moves the result")
    rgb_map = None if rgb is None else _rgb_tensor(rgb)
    if size is None:
        size = _output_size(model, rgb_map)
    check_size(size, model, (low_map.shape[-2], low_map.shape[-1]))
    if pixels is not None and (abs(pixels[0]) >= size[1] or abs(pixels[1]) >= size[0]):
        raise InputError(f"shift={pixels} moves all out of {size[1]}x{size[0]} pixels: (right, down), in pixels")
    if rgb_map is not None:
        check_aspect((low_map.shape[-2], low_map.shape[-1]), (rgb_map.shape[-2], rgb_map.shape[-1]))
    check_size_asked((low_map.shape[-2], low_map.shape[-1]), size)
    if "rgb" in model.inputs and rgb_map is None:
        raise InputError("this model needs the colour picture: pass --rgb (rgb=…), or use --model bicubic")
    looks = alignment(model, align) != "off" or kernel == "points"
    if rgb_map is not None and ("rgb" in model.inputs or looks):
        rgb_map = resize_rgb(rgb_map, size)
    zero = low_map[mask].min() if hard_edges and unit == "relative" else 0.0  # its own says nothing: edges need one
    seen = Sample(rgb=rgb_map, low=torch.where(mask, low_map - zero, 0), valid=mask)
    with _at_rest(model):
        made = careful(model, seen, size, options)
    _check_made(made.depth, size)
    result = _prediction(made.depth + zero, made.error, low_map, mask, unit)
    result = replace(result, noise=made.noise, averaged=made.averaged, twice=made.twice, shift_px=made.shift)
    if made.corner != (0, 0):
        return _moved(replace(result, corner_px=made.corner), made.corner)
    return _moved(result, made.shift) if align == "auto" else result


def alike(model: Model, frames: Callable[[int], Iterable[Words]], options: Asked) -> Asked:
    """``options`` with all decided once that ``predict`` would decide of each frame of a film by itself.

    ``frames``: up to so many of them, spread over the film. By up to SHIFT_FRAMES: the median of their shifts, whether
    most are noisy, and whether most are full of scattered holes (else none is run twice for them); by up to
    KERNEL_FRAMES: whether their readings are means, or single pixels.
    """
    asked, align = options.align, alignment(model, options.align)
    placed = options.shift is None and align != "off" and options.kernel != "points"
    shifts, noises, holes = [], [], []
    for words in frames(SHIFT_FRAMES):
        low, valid = (torch.from_numpy(words[name])[None, None] for name in ("low", "valid"))
        if not valid.any():
            continue
        noises.append(noisy(noise_of(low, valid), low, valid))
        holes.append(riddled(valid))
        if placed and words["rgb"] is not None:
            rgb = _rgb_tensor(words["rgb"])
            shifts.append(depth_shift(low, valid, resize_rgb(rgb, words["size"] or (rgb.shape[-2], rgb.shape[-1]))))
    if shifts:
        right, down = np.rint(np.median(shifts, axis=0)).astype(int)
        none = asked is None and not right and not down  # and no more looked at
        options = replace(options, shift=None if none else (int(right), int(down)), align="off" if none else align)
    if options.denoise == "auto":
        options = replace(options, denoise="on" if model.wants_clean and _most(noises) else "off")
    if options.kernel == "auto" and model.wants_clean and not options.once:
        means, points, plain = [], [], replace(options, align=asked, shift=None)
        for words in frames(KERNEL_FRAMES):
            with suppress(Exception):  # said when the frame's turn comes
                made = predict(model, **words, **Options.words(plain))
                means.append(made.averaged)
                points.append(made.corner_px != (0, 0))
        options = replace(options, kernel="average" if _most(means) else "bicubic")
        if _most(points):
            options = replace(options, kernel="points", align="off", shift=None)
    filled = _most(holes) or options.kernel == "average"
    return replace(options, once=options.once or not filled)


def _most(told: list[bool]) -> bool:
    return 2 * sum(told) > len(told)


@contextmanager
def _at_rest(model: Model) -> Iterator[None]:
    """No part of ``model`` is in training mode meanwhile: it would draw by chance, or learn means."""
    awake = [part for part in model.modules() if part.training]
    for part in awake:
        part.training = False
    try:
        yield
    finally:
        for part in awake:
            part.training = True


def _check_made(depth: Depth, size: Size) -> None:
    """Raise InputError unless a model gave a map of ``size`` that is finite."""
    if tuple(depth.shape) != (1, 1, *size):
        raise InputError(f"the model gave {tuple(depth.shape)}: forward's depth must be {(1, 1, *size)} here")
    if not depth.isfinite().all():
        raise InputError("the model gave NaN or inf: its weights, or what they were trained on, are bad")


def _two_pixels(shift: Any) -> tuple[int, int]:
    """A shift as a tuple. Raises InputError for what is no two whole numbers."""
    parts = np.asarray(shift)
    if parts.shape != (2,) or parts.dtype.kind not in "iu":
        raise InputError(f"shift={shift} is not understood: two whole numbers of pixels, right and down")
    return int(parts[0]), int(parts[1])


def _moved(result: Prediction, shift: tuple[int, int]) -> Prediction:
    """The result moved right and down; where nothing comes in from, nothing was measured, and nothing is trusted."""
    if shift == (0, 0):
        return result
    height, width = result.depth.shape
    rows, columns = np.arange(height) - shift[1], np.arange(width) - shift[0]
    inside = ((rows >= 0) & (rows < height))[:, None] & (columns >= 0) & (columns < width)

    def at(x: np.ndarray) -> np.ndarray:
        return moved(torch.from_numpy(x), shift).numpy()

    return replace(
        result,
        depth=at(result.depth),
        valid=at(result.valid) & inside,
        confidence=None if result.confidence is None else np.where(inside, at(result.confidence), np.float32(0)),
        error=None if result.error is None else np.where(inside, at(result.error), at(np.abs(result.depth))),
    )


def _prediction(depth: Depth, error: Depth | None, low: Depth, mask: Mask, unit: str) -> Prediction:
    """What ``predict`` returns. Where the readings hardly differ, a network that counts in their range expects no error
    anywhere; but nobody knows what a hole hides: there so much is expected as ``from_distance`` trusts it."""
    height, width = size = (depth.shape[-2], depth.shape[-1])
    seen = F.interpolate(mask.to(torch.uint8), size, mode="nearest-exact")
    values, valid = depth[0, 0].float().numpy(), seen[0, 0].numpy() > 0
    if unit != "relative":
        valid &= values > 0  # a filter may swing below 0 beside an edge: no depth is there
    if error is None:
        share = None if unit == "relative" else from_distance(mask[0, 0].numpy(), (height, width))
        return Prediction(values, valid, unit, share)
    expected = error[0, 0].float().numpy()
    read = low[mask]
    if unit != "relative" and float(read.max() - read.min()) < ONE_PLANE * float(read.mean()):
        expected = np.maximum(expected, as_error(from_distance(mask[0, 0].numpy(), (height, width)), values))
    share = None if unit == "relative" else from_error(expected, values)
    return Prediction(values, valid, unit, share, expected)


def _from_rgb(model: Model, rgb: Array | None, size: Size | None, focal_px: float | None) -> Prediction:
    if rgb is None:
        raise InputError("this model needs the colour picture: pass --rgb (rgb=…)")
    whole = _rgb_tensor(rgb)
    size = size or (whole.shape[-2], whole.shape[-1])
    check_size(size, model, size)
    check_size_asked((whole.shape[-2], whole.shape[-1]), size)
    picture = resize_rgb(whole, size)
    if focal_px is not None and not hasattr(model, "for_focal"):
        raise InputError("this model does not say which focal length its depth is for: leave out --focal (focal_px=…)")
    if focal_px is not None and not 0 < focal_px < MOST_FOCAL_PX:
        raise InputError(f"focal_px={focal_px:g} is out of range: it is in pixels of the picture, above 0")
    both: Any = getattr(model, "depth_and_classes", None)
    with torch.inference_mode(), _at_rest(model):
        picture = picture.to(device_of(model))
        depth, classes = (model(rgb=picture), None) if both is None else both(rgb=picture)
        if focal_px is not None:
            depth = model.for_focal(depth, focal_px * size[1] / whole.shape[-1])  # type: ignore[operator]
    _check_made(depth, size)
    made = Prediction(depth[0, 0].float().cpu().numpy(), np.ones(size, dtype=bool))
    if classes is None:
        return made
    names: Any = model.class_names
    return replace(made, classes=classes[0, 0].cpu().numpy(), class_names=names)


def _low_tensors(
    low: Array | None, valid: np.ndarray | torch.Tensor | None, unit: str | None, nan_holes: bool
) -> tuple[Depth, Mask, str]:
    """Metres (or own values), mask, and what the values are: m, disparity or relative."""
    if low is None:
        raise InputError("there is no low-resolution depth: pass --low (low=…)")
    mask = None if valid is None else _squeeze(valid, "valid").astype(bool)
    if isinstance(low, str | Path):
        read = read_depth(low, unit, nan_holes=nan_holes, valid=mask)
        mask = read.valid if mask is None else mask
    else:
        values = _squeeze(low, "low")
        if values.dtype.kind not in "uif":
            raise InputError(f"low holds {values.dtype} values: it must hold numbers")
        _check_same_shape(mask, values)
        read = decode_depth(values, unit, mask, nan_holes)
        mask = read.valid
    _check_same_shape(mask, read.depth)
    mask = mask & read.valid
    if not mask.any():
        raise InputError("the depth has no reading at all (every pixel is a hole): check valid")
    depth = np.where(mask, read.depth, np.float32(0))
    return torch.from_numpy(depth)[None, None], torch.from_numpy(mask)[None, None], read.depth_unit


def _trusted(confidence: Array, least: float | None, full: float | None, mask: Mask) -> Mask:
    """Where the sensor's own confidence is enough, as a mask like ``mask``."""
    is_file = isinstance(confidence, str | Path)
    values = read_confidence(confidence) if is_file else _squeeze(confidence, "confidence")  # type: ignore[arg-type]
    _check_same_shape(values, mask[0, 0].numpy(), "confidence")
    kept = torch.from_numpy(trusted(values, least, full))[None, None]
    if not (kept & mask).any():
        raise InputError("no reading is trusted enough: ask for less with --min-confidence (min_confidence=…)")
    return kept


def _check_same_shape(mask: np.ndarray | None, values: np.ndarray, what: str = "valid") -> None:
    if mask is not None and mask.shape != values.shape:
        raise InputError(f"{what} is {mask.shape}, but the depth is {values.shape}: they must match")


def _squeeze(x: np.ndarray | torch.Tensor, what: str) -> np.ndarray:
    """To a plain (h, w) array; leading (or one trailing) axes of length 1 are dropped."""
    if np.ma.isMaskedArray(x):
        raise InputError(
            f"{what} is a masked array, whose mask numpy drops: pass what it holds (.data) and valid=~mask"
        )
    array = _plain(x) if isinstance(x, torch.Tensor) else np.asarray(x)
    shape = array.shape
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 or not array.size:
        raise InputError(f"{what} has shape {shape}: it must be (height, width)")
    return array


def _plain(x: torch.Tensor) -> np.ndarray:
    """A tensor as numpy has it, which knows no bfloat16."""
    x = x.detach().cpu()
    return (x.float() if x.dtype == torch.bfloat16 else x).numpy()


def _rgb_tensor(rgb: Array) -> Rgb:
    """(1, 3, h, w) float32 in 0..1."""
    if isinstance(rgb, str | Path):
        rgb = read_rgb(rgb)
    if isinstance(rgb, torch.Tensor):
        array = _plain(rgb)
        array = array[0] if array.ndim == 4 and array.shape[0] == 1 else array
        channels_first = True
    else:
        array, channels_first = np.asarray(rgb), False
    if array.ndim == 2:
        array = np.stack([array] * 3, 0 if channels_first else -1)
    if array.ndim != 3 or array.shape[0 if channels_first else 2] != 3 or not array.size:
        wanted = "(3, height, width)" if channels_first else "(height, width, 3), or (height, width) if grey"
        raise InputError(f"rgb has shape {array.shape}: it must be {wanted}")
    if not channels_first:
        array = array.transpose(2, 0, 1)
    if array.dtype.kind == "u" and array.dtype.itemsize <= 2:
        array = array / np.float32(np.iinfo(array.dtype).max)
    elif array.dtype.kind != "f":
        raise InputError(f"rgb holds {array.dtype} values: use uint8, uint16, or floats in 0..1")
    if not np.isfinite(array).all():
        raise InputError("rgb holds NaN or inf: repair the picture")
    if array.max() > 1.001 or array.min() < -0.001:
        raise InputError(f"rgb floats span {array.min():.3g}..{array.max():.3g}: scale them to 0..1")
    array = array.astype(np.float32, copy=False)  # not brought into another order: it may be huge
    if not array.flags.writeable or min(array.strides) < 0:  # torch takes neither
        array = array.copy()
    return torch.from_numpy(array)[None]


def _output_size(model: Model, rgb: Rgb | None) -> Size:
    if rgb is None:
        need = "--rgb (rgb=…)"
        if "rgb" not in model.inputs:
            need = f"--size WxH or --scale S (size=(H, W)), or {need}"
        raise InputError(f"how large shall the result be? pass {need}")
    return rgb.shape[-2], rgb.shape[-1]


def check_size(size: Size, model: Model, low: Size) -> None:
    """Raise InputError when a result of ``size`` (height, width) from a map of ``low`` would not fit this machine."""
    if not isinstance(size, tuple | list) or len(size) != 2:
        raise InputError(f"size {size!r} is not understood: pass (height, width)")
    height, width = size
    if not all(isinstance(side, int | np.integer) for side in size):
        raise InputError(f"size {size!r} is not understood: pass (height, width), whole numbers")
    if height < 1 or width < 1:
        raise InputError(f"size {width}x{height} is empty: both sides must be at least 1")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 2**34
    pixels = height * width
    need: float = pixels * model.bytes_per_pixel
    if hasattr(model, "local") and pixels >= TILE_FROM and tileable(low, (height, width)):
        need = min(need, TILE_BYTES + pixels * TILED_BYTES_PER_PIXEL)
    less = "ask for less with --size (size=…)"
    if pixels > MAX_PIXELS:
        millions, most = pixels / 1e6, MAX_PIXELS / 1e6
        raise InputError(f"size {width}x{height} is {millions:.0f} megapixels, above the limit of {most:.0f}: {less}")
    if need > memory:
        of = f"{need / 2**30:.1f} GiB and this machine has {memory / 2**30:.1f}"
        raise InputError(f"size {width}x{height} needs about {of}: {less}")


def _one_shape(one: Size, other: Size) -> bool:
    """Whether both sizes can show the same view: one shape, up to a pixel of ``one`` of rounding."""
    ratio = (other[0] / one[0]) / (other[1] / one[1])
    return bool(abs(np.log(ratio)) <= np.log1p(ASPECT_TOLERANCE + 1 / min(one)))


def check_size_asked(given: Size, size: Size) -> None:
    """Raise InputError unless the ``size`` that was asked for has the shape of what was ``given``."""
    if not _one_shape(given, size):
        height, width = size[::-1] if _one_shape(given, size[::-1]) else (size[0], round(size[0] * given[1] / given[0]))
        raise InputError(
            f"size {size[1]}x{size[0]} (width x height) has another shape than what was given, {given[1]}x{given[0]}: "
            f"ask for {width}x{height}, say, with --size (size=…)"
        )


def check_aspect(low: Size, size: Size) -> None:
    """Raise InputError unless depth and picture of these sizes can show the same view."""
    if _one_shape(low, size):
        return
    cure = (
        "one of them seems turned by 90°: rotate it"
        if _one_shape(low, (size[1], size[0]))
        else "crop them to the same view"
    )
    raise InputError(
        f"depth {low[1]}x{low[0]} and picture {size[1]}x{size[0]} differ in shape "
        f"({low[1] / low[0]:.3f} against {size[1] / size[0]:.3f}): {cure}"
    )
