"""From an exact scene to what some sensor would have given: random scale, kernel, noise, holes, misalignment."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F

from crispdepth.data.textures import Dice
from crispdepth.degradation import add_noise, bicubic_8bit, blur, punch_holes, quantise
from crispdepth.geometry import LEVELS_OF_RANGE, grow, resize
from crispdepth.shift import moved
from crispdepth.types import Depth, InputError, Mask, Rgb, Sample, Size

WHOLE_SCALES = (2, 3, 4, 4, 4, 4, 6, 8, 8, 8, 8, 8, 12, 16, 16, 16, 16, 24, 32)  # drawn evenly: 8 most often
RAGGED_LEVELS, RAGGED_PX = 0.33, 24  # see `ragged`
KERNELS = ("bicubic", "average", "bicubic-plain", "nearest", "last")


@dataclass(frozen=True)
class Sensors:
    """How often (0..1) a training example suffers what; each drawn on its own, most examples stay clean.

    ``whole``: a whole scale from ``whole_scales``, else any from 1.5 to 32, a third of them different along the
    two axes. ``kernels``: drawn from KERNELS, else antialiased bicubic. ``rounded``: 8-bit or coarser steps.
    ``eight_bit``: instead of all that, made as protocol ``ctkt`` does: antialiased bicubic on whole 8-bit levels.
    ``in_levels``: the same without noise, and the true depth is as matching leaves it in a file of 8-bit disparity:
    in whole levels, its steps a little ragged, and no pixel a mixture of near and far; the network is told, and learns
    all that, where ``eight_bit`` alone teaches the surface behind it.
    ``inverse``: disparity instead of depth. ``fattened``: near things a pixel larger than in the picture, on some
    sides, as stereo and structured light see them. ``bent``: silhouettes lie up to two pixels off, here to one side
    and there to the other, and their narrow gaps are closed or their thin ends lost, as a matching window's size
    decides it. ``stepped``: the true depth itself comes in 8-bit steps.
    ``soft_depth``: a pixel on an edge holds a mixture of both sides, as in maps that were made larger and shrunk: a
    blur whose deviation is within ``soft_px``.
    ``turned``: by 90°. ``swapped``, ``grey``: colours. ``brighter``: brightness and contrast by up to this share.
    """

    whole: float = 0.75
    kernels: float = 0.25
    rounded: float = 0.4
    inverse: float = 0.5
    blurred: float = 0.06
    noisy: float = 0.08
    holed: float = 0.15
    misaligned: float = 0.08
    soft_rgb: float = 0.1
    fattened: float = 0.4
    bent: float = 0.4
    stepped: float = 0.15
    soft_depth: float = 0.6
    turned: float = 0.0
    swapped: float = 0.3
    grey: float = 0.06
    brighter: float = 0.0
    eight_bit: float = 0.0
    in_levels: float = 0.0
    soft_px: tuple[float, float] = (0.35, 0.7)
    whole_scales: tuple[int, ...] = WHOLE_SCALES

    def __post_init__(self) -> None:
        """Raise InputError for a share that is none, and for limits that are none."""
        for field in fields(self):
            share = getattr(self, field.name)
            if not isinstance(share, tuple) and not 0 <= share <= 1:
                raise InputError(f"{field.name}={share:g} is out of range: a share, 0 to 1")
        if not self.whole_scales or min(self.whole_scales) < 1:
            raise InputError(
                f"whole_scales={list(self.whole_scales)} are not understood: write such as [4, 8], from 1 on"
            )
        if len(self.soft_px) != 2 or not 0 < self.soft_px[0] <= self.soft_px[1]:
            raise InputError(f"soft_px={list(self.soft_px)} is not understood: write least and largest, [0.4, 0.8]")


def easy(sensors: Sensors) -> Sensors:
    """The same with clean maps, for whole scales."""
    sensors = replace(sensors, whole=1, kernels=0, rounded=0, eight_bit=0, in_levels=0, blurred=0, noisy=0, holed=0)
    return replace(sensors, misaligned=0, soft_rgb=0, fattened=0, bent=0, stepped=0, soft_depth=0)


EASY = easy(Sensors())


@dataclass(frozen=True)
class Seen(Sample):
    """A training example. ``inverse`` (b, 1, 1, 1): True where its depth counts disparity, near things the most.
    ``step`` (b, 1, 1, 1): the one in which its depth comes and the network is told of, else 0."""

    inverse: torch.Tensor | None = None
    step: torch.Tensor | None = None


def sensed(sample: Sample, dice: Dice, sensors: Sensors, scale_limits: tuple[float, float] = (1.5, 32)) -> Seen:
    """A training example from an exact one: ``sample`` needs rgb and depth (b, ., h, w), holes filled.

    One scale and kernel for the batch, all else drawn for each image. The depth is in a unit of its own
    (metres or 1/m, divided by their range): a network that normalises by the low map never notices.
    """
    assert sample.rgb is not None
    assert sample.depth is not None
    known = torch.ones_like(sample.depth, dtype=torch.bool) if sample.depth_valid is None else sample.depth_valid
    levels = None
    if sensors.in_levels and _one(dice, sensors.in_levels):
        levels = _levels(dice, len(sample.depth))
        sensors = replace(sensors, soft_depth=0, stepped=0)
    rgb, depth, known = flipped(dice, sensors.turned, sample.rgb, sample.depth, known)
    depth = bent(dice, fattened(dice, depth, sensors), sensors, mixing=levels is None)
    inverse = dice.chance(sensors.inverse, len(depth), 1, 1, 1)
    depth = in_own_unit(dice, depth, inverse, sensors)
    if levels is not None:
        depth = (ragged(dice, depth, levels) * levels).round() / levels
    low, valid = low_map(
        dice, depth, low_size(dice, (depth.shape[-2], depth.shape[-1]), sensors, scale_limits), sensors, levels
    )
    rgb = recoloured(dice, rgb, sensors)
    step = torch.zeros(len(depth), 1, 1, 1, device=depth.device) if levels is None else 1 / levels
    parts = {"rgb": rgb, "low": low, "valid": valid, "depth": depth, "depth_valid": known}
    return Seen(**parts, name=sample.name, inverse=inverse, step=step)


def _one(dice: Dice, share: float) -> bool:
    return bool(dice.chance(share, 1))


def _some(dice: Dice, share: float) -> bool:
    """Whether any images of a batch are concerned, where a ``share`` of all is: then half of the batch, or more."""
    return _one(dice, min(1.0, 2 * share))


def _those(dice: Dice, share: float, count: int) -> torch.Tensor:
    """Which images of such a batch are, (count, 1, 1, 1)."""
    return dice.chance(max(0.5, share), count, 1, 1, 1)


def flipped(dice: Dice, turned: float, *maps: torch.Tensor) -> list[torch.Tensor]:
    """All maps mirrored left to right half of the time, upside down now and then; a share of them ``turned`` by 90°."""
    axes = [axis for axis, share in ((-1, 0.5), (-2, 0.5 if turned else 0.1)) if _one(dice, share)]
    done = [x.flip(axes) for x in maps] if axes else list(maps)
    return [x.transpose(-1, -2) for x in done] if turned and _one(dice, turned) else done


def fattened(dice: Dice, depth: Depth, sensors: Sensors) -> Depth:
    """Near things grown by up to two pixels to some sides: the smallest depth in a window beside each pixel."""
    if not _some(dice, sensors.fattened):
        return depth
    left, right, above, below = (int(dice.below(3, 1)) * int(dice.below(2, 1)) for _ in range(4))
    around = F.pad(depth, (left, right, above, below), mode="replicate")
    grown = -F.max_pool2d(-around, (1 + above + below, 1 + left + right), stride=1)
    return torch.where(_those(dice, sensors.fattened, len(depth)), grown, depth)


def bent(dice: Dice, depth: Depth, sensors: Sensors, mixing: bool = True) -> Depth:
    """Narrow gaps closed or thin ends lost (opening, closing), then moved by a smooth field of a pixel or two.

    ``mixing``: values between pixels are mixtures (bilinear), else those of the nearest."""
    if not _some(dice, sensors.bent):
        return depth
    count, (height, width) = len(depth), depth.shape[-2:]
    radius = int(dice.below(4, 1))
    nearer = 1.0 if _one(dice, 0.7) else -1.0  # near things grow first, so gaps close; or far ones, so ends are lost
    changed = nearer * _largest(-_largest(-nearer * depth, radius), radius)
    cells = 1 + int(dice.below(max(2, max(height, width) // 8), 1))
    strength = dice.between(0.2, 1.5, 1)
    field = strength * torch.stack([dice.noise(count, cells, max(height, width)) for _ in range(2)], -1)
    rows, columns = torch.meshgrid(*(torch.arange(n, device=depth.device) for n in (height, width)), indexing="ij")
    place = torch.stack([columns, rows], -1) + field[:, :height, :width]
    place = (2 * place + 1) / torch.tensor([width, height], device=depth.device) - 1
    mode = "bilinear" if mixing else "nearest"
    changed = F.grid_sample(changed, place, mode, padding_mode="border", align_corners=False)
    return torch.where(_those(dice, sensors.bent, count), changed, depth)


def _largest(x: torch.Tensor, radius: int) -> torch.Tensor:
    return F.max_pool2d(F.pad(x, (radius,) * 4, mode="replicate"), 1 + 2 * radius, stride=1)


def in_own_unit(dice: Dice, depth: Depth, inverse: torch.Tensor, sensors: Sensors) -> Depth:
    """Depth, or where asked inverse depth, as a share of its range in each image: 0..1, the near end 0 or 1."""
    values = torch.where(inverse, 1 / depth.clamp(min=1e-3), depth)
    softer = blur(values, float(dice.between(*sensors.soft_px, 1)))
    values = torch.where(dice.chance(sensors.soft_depth, len(depth), 1, 1, 1), softer, values)
    bottom = values.amin(dim=(1, 2, 3), keepdim=True)
    values = (values - bottom) / (values.amax(dim=(1, 2, 3), keepdim=True) - bottom).clamp(min=1e-6)
    steps = torch.round(dice.spread(60, 255, len(depth), 1, 1, 1))
    return torch.where(dice.chance(sensors.stepped, len(depth), 1, 1, 1), quantise(values, steps), values)


def ragged(dice: Dice, depth: Depth, levels: torch.Tensor) -> Depth:
    """``depth`` (0..1) with what matching adds: waves and streaks as fine as a pixel or as wide as RAGGED_PX, twice,
    each with a deviation of up to RAGGED_LEVELS. Steps between levels, smooth on a smooth surface, wander by it."""
    count, (height, width) = len(depth), depth.shape[-2:]
    for _ in range(2):
        cells = [max(1, round(n / float(dice.spread(1, RAGGED_PX, 1)))) for n in (height, width)]
        waves = F.interpolate(dice.normal(count, 1, *cells), (height, width), mode="bilinear", align_corners=False)
        depth = depth + dice.between(0, RAGGED_LEVELS, count, 1, 1, 1) / levels * waves
    return depth.clamp(0, 1)


def low_size(dice: Dice, size: Size, sensors: Sensors, limits: tuple[float, float]) -> Size:
    """The size of the low map for a random scale within ``limits``."""
    whole = [s for s in sensors.whole_scales if limits[0] <= s <= limits[1]]
    if whole and _one(dice, sensors.whole):
        scale = whole[int(dice.below(len(whole), 1))]
        return max(2, size[0] // scale), max(2, size[1] // scale)
    any_scale = float(dice.spread(*limits, 1))
    squeeze = float(dice.between(0.8, 1.25, 1)) if _one(dice, 1 / 3) else 1.0
    return max(2, round(size[0] / any_scale / squeeze)), max(2, round(size[1] / any_scale))


def low_map(
    dice: Dice, depth: Depth, size: Size, sensors: Sensors, levels: torch.Tensor | None = None
) -> tuple[Depth, Mask]:
    """The low map of ``size`` and its mask, as one of many sensors would give it; of so many whole ``levels``, if any
    (b, 1, 1, 1)."""
    b = len(depth)
    source = depth
    if _one(dice, sensors.blurred):
        source = blur(source, float(dice.between(0.2, 0.6, 1)) * depth.shape[-1] / size[1])
    if levels is not None:
        low = _eight_bit(source, size, levels)
    elif sensors.eight_bit and _one(dice, sensors.eight_bit):
        low = _eight_bit(source, size, _levels(dice, b))
    else:
        kernel = KERNELS[int(dice.below(len(KERNELS), 1))] if _one(dice, sensors.kernels) else "bicubic"
        low = _shrunk(source, size, kernel)
        steps = torch.round(dice.spread(60, 255, b, 1, 1, 1))
        low = torch.where(dice.chance(sensors.rounded, b, 1, 1, 1), quantise(low, steps), low)
    noise = dice.spread(0.002, 0.05, b, 1, 1, 1) * dice.chance(0 if levels is not None else sensors.noisy, b, 1, 1, 1)
    low = low + noise * (add_noise(torch.ones_like(low), 1.0, dice.generator) - 1) * (0.3 + low)
    valid = torch.ones_like(low, dtype=torch.bool)
    if _some(dice, sensors.holed):
        valid = torch.where(_those(dice, sensors.holed, b), holes(dice, low), valid)
    return torch.where(valid, low, 0), valid


def _levels(dice: Dice, count: int) -> torch.Tensor:
    """How many of the 256 levels each image has, (b, 1, 1, 1)."""
    return torch.round(dice.spread(*LEVELS_OF_RANGE, count, 1, 1, 1))


def _eight_bit(depth: Depth, size: Size, levels: torch.Tensor) -> Depth:
    """``depth`` (0..1) in so many of the 256 ``levels``, rounded after each pass of the kernel."""
    lowest = torch.floor((255 - levels) / 2)
    low, _ = bicubic_8bit(depth * levels + lowest, torch.ones_like(depth, dtype=torch.bool), size)
    return (low - lowest) / levels


def _shrunk(depth: Depth, size: Size, kernel: str) -> Depth:
    if kernel == "last":  # the far corner of each low pixel, as `strided` takes it
        rows, columns = (
            ((torch.arange(n, device=depth.device) + 1) * (length / n)).ceil().long().clamp(max=length) - 1
            for n, length in zip(size, depth.shape[-2:], strict=True)
        )
        return depth[..., rows, :][..., columns]
    return resize(depth, torch.ones_like(depth, dtype=torch.bool), size, kernel)[0]


def holes(dice: Dice, low: Depth) -> Mask:
    """Single pixels up to 95 %, specks, a whole region, or readings lost along depth edges; never all of them."""
    everywhere = torch.ones_like(low, dtype=torch.bool)
    kind = int(dice.below(4, 1))
    if kind == 0:
        valid = punch_holes(everywhere, float(dice.between(0.05, 0.95, 1)), dice.generator)
    elif kind == 1:
        valid = punch_holes(everywhere, float(dice.between(0.05, 0.5, 1)), dice.generator, radius=1)
    elif kind == 2:
        valid = torch.ones_like(everywhere)
        height, width = low.shape[-2:]
        top, left = int(dice.below(height, 1)), int(dice.below(width, 1))
        tall, wide = (1 + int(n * float(dice.between(0.05, 0.6, 1))) for n in (height, width))
        valid[..., top : top + tall, left : left + wide] = False
    else:
        step = torch.zeros_like(low)
        step[..., :, 1:] = (low[..., :, 1:] - low[..., :, :-1]).abs()
        step[..., 1:, :] = torch.maximum(step[..., 1:, :], (low[..., 1:, :] - low[..., :-1, :]).abs())
        valid = ~grow((step > 0.06) & dice.chance(0.7, *low.shape), int(dice.below(2, 1)))
    return torch.where(valid.flatten(1).any(1)[:, None, None, None], valid, everywhere)


def recoloured(dice: Dice, rgb: Rgb, sensors: Sensors) -> Rgb:
    """Colours swapped, grey, brighter or darker, softer, or a few pixels out of place."""
    if _one(dice, sensors.swapped):
        rgb = rgb[:, torch.randperm(3, generator=dice.generator, device=rgb.device)]
    grey = rgb.mean(1, keepdim=True).expand_as(rgb)
    rgb = torch.where(dice.chance(sensors.grey, len(rgb), 1, 1, 1), grey, rgb)
    if sensors.brighter:
        contrast, brightness = (1 + sensors.brighter * dice.between(-1, 1, len(rgb), 1, 1, 1) for _ in range(2))
        middle = rgb.mean(dim=(1, 2, 3), keepdim=True)
        rgb = ((rgb - middle) * contrast + middle) * brightness
    if _one(dice, sensors.soft_rgb):
        rgb = blur(rgb, float(dice.between(0.5, 2.0, 1)))
    if _some(dice, sensors.misaligned):
        down, right = (int(dice.below(7, 1)) - 3 for _ in range(2))
        rgb = torch.where(_those(dice, sensors.misaligned, len(rgb)), moved(rgb, (right, down)), rgb)
    return rgb.clamp(0, 1)
