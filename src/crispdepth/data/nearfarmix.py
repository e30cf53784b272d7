"""NearFarMix and its six rivals: two pictures, their depth and classes mixed into one; a table of them, MIXES."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from crispdepth.data.textures import Dice
from crispdepth.geometry import fill
from crispdepth.types import Depth, Mask, Sample

UNLABELLED = 255


@dataclass(frozen=True)
class Threshold:
    """Where near ends: drawn evenly from ``low``..``high``, as a share of the sorted readings or in ``metres``."""

    low: float = 0.3
    high: float = 0.7
    metres: bool = False


Mix = Callable[[Sample, Sample, Dice], Sample]
"""``mix(sample, partner, dice)``: samples with rgb (b, 3, h, w), depth, depth_valid and perhaps classes (b, 1, h, w).

Picture i is mixed with the partner's picture i; both must come from one data set and camera, since depth of two
cameras does not go together. Values of depth where there is no reading play no part. Targets of the result may
have holes wherever its sources had.
"""


def nearfarmix(sample: Sample, partner: Sample, dice: Dice, at: Threshold = Threshold()) -> Sample:
    """What is near in ``sample`` in front of all that the partner has elsewhere (NearFarMix, arXiv 2308.14400).

    Published: M1 = [D1 ≤ t], M2 = [D2 > t], Mo = M1·M2, Me = (1 - M1)(1 - M2), and X' = X1·M1 + X2·M2 + X2·Me
    - X2·Mo for X the picture, the depth and the classes. Since M2 + Me - Mo = 1 - M1, that is X1·M1 + X2·(1 - M1),
    which is what is done. Holes are filled for M1 alone: as depth 0 they would all be near. A picture without any
    reading stays as it is.
    """
    depth, valid = _maps(sample)
    t = thresholds(depth, valid, dice, at)
    near = (_dense(depth, valid) <= t) | ~_some(valid)
    return joined(sample, partner, near)


def thresholds(depth: Depth, valid: Mask, dice: Dice, at: Threshold) -> torch.Tensor:
    """One t for each picture, metres, (b, 1, 1, 1); 0 where there is no reading."""
    drawn = dice.between(at.low, at.high, len(depth), 1, 1, 1)
    if at.metres:
        return drawn
    readings = [d[v] for d, v in zip(depth, valid, strict=True)]
    found = [
        torch.quantile(r, q.squeeze()) if len(r) else r.new_zeros(()) for r, q in zip(readings, drawn, strict=True)
    ]
    return torch.stack(found).view(-1, 1, 1, 1)


def cutmix(sample: Sample, partner: Sample, dice: Dice) -> Sample:
    """A rectangle of the partner in the sample; its share of the area is drawn evenly (CutMix, Yun et al. 2019)."""
    depth, _ = _maps(sample)
    side = dice.between(0, 1, len(depth), 1).sqrt()  # of the rectangle, as a share of both sides
    middle = dice.between(0, 1, len(depth), 2)
    return joined(sample, partner, ~_boxes(depth, middle - side / 2, middle + side / 2))


def classmix(sample: Sample, partner: Sample, dice: Dice) -> Sample:
    """Half of the sample's classes in front of the partner (ClassMix, Olsson et al. 2021); unchanged without labels."""
    classes = sample.classes
    if classes is None:
        return sample
    kept = []
    for labels in classes:
        present = labels.unique()
        present = present[present != UNLABELLED]
        order = torch.randperm(len(present), generator=dice.generator, device=present.device)
        chosen = present[order[: (len(present) + 1) // 2]]
        kept.append(torch.isin(labels, chosen) if len(chosen) else torch.ones_like(labels, dtype=torch.bool))
    return joined(sample, partner, torch.stack(kept))


def depthmix(sample: Sample, partner: Sample, dice: Dice) -> Sample:
    """At every pixel the nearer of the two (DepthMix, Hoyer et al. 2021)."""
    (depth, valid), (other, other_valid) = _maps(sample), _maps(partner)
    nearer = _dense(depth, valid) <= _dense(other, other_valid)
    return joined(sample, partner, nearer | ~_some(valid) | ~_some(other_valid))


def affinemix(sample: Sample, partner: Sample, dice: Dice) -> Sample:
    """One class of the sample moved along the axis of the camera (AffineMix, after Bansal et al. 2022).

    At 1/s of its depth a thing appears s times as large, about the middle of the picture; it is shown wherever it
    is then nearer than what was there. s is 1/1.6 to 1.6; the class one that covers 1 % to 50 %. The partner plays
    no part; without such a class nothing changes.
    """
    classes = sample.classes
    if classes is None:
        return sample
    assert sample.rgb is not None
    depth, valid = _maps(sample)
    scale = dice.spread(1 / 1.6, 1.6, len(depth), 1, 1, 1)
    things = torch.stack([_one_class(labels, dice) for labels in classes])
    turn = torch.zeros(len(depth), 2, 3, device=depth.device)
    turn[:, 0, 0] = turn[:, 1, 1] = 1 / scale.flatten()
    places = F.affine_grid(turn, list(depth.shape), align_corners=False)

    def moved(x: torch.Tensor, mode: str = "nearest") -> torch.Tensor:
        return F.grid_sample(x.float(), places, mode=mode, padding_mode="zeros", align_corners=False)

    moved_valid = moved(valid) > 0.5
    nearer = torch.where(moved_valid, moved(torch.where(valid, depth, 0)), 0) / scale
    here = (moved(things) > 0.5) & moved_valid & (nearer < _dense(depth, valid))
    scaled = Sample(
        rgb=moved(sample.rgb, "bilinear"),
        depth=nearer,
        depth_valid=moved_valid,
        classes=moved(classes).round().to(classes.dtype),
    )
    return joined(scaled, sample, here)


def cutdepth(sample: Sample, partner: Sample, dice: Dice) -> Sample:
    """A rectangle of the picture shows the true depth as grey (CutDepth, Ishii and Yamashita 2021)."""
    return _shown(sample, dice, whole_height=False)


def vertical_cutdepth(sample: Sample, partner: Sample, dice: Dice) -> Sample:
    """As CutDepth, over the whole height (Vertical CutDepth, Kim et al. 2022: GLPDepth)."""
    return _shown(sample, dice, whole_height=True)


def mixed(sample: Sample, mix: Mix, dice: Dice, probability: float = 0.5) -> Sample:
    """Each picture of the batch mixed with another one of it, ``probability`` of the time."""
    depth, _ = _maps(sample)
    count = len(depth)
    turn = 1 + int(dice.below(count - 1, 1)) if count > 1 else 0
    after = mix(sample, _rolled(sample, turn), dice)
    return joined(after, sample, dice.chance(probability, count, 1, 1, 1).expand_as(depth))


def joined(first: Sample, second: Sample, mask: Mask) -> Sample:
    """Every map of ``first`` where ``mask`` (b, 1, h, w) is True, of ``second`` elsewhere."""

    def pick(name: str) -> torch.Tensor | None:
        one, other = getattr(first, name), getattr(second, name)
        return None if one is None or other is None else torch.where(mask, one, other)

    return replace(
        first,
        rgb=pick("rgb"),
        depth=pick("depth"),
        depth_valid=pick("depth_valid"),
        classes=pick("classes"),
    )


def _maps(sample: Sample) -> tuple[Depth, Mask]:
    assert sample.depth is not None
    valid = sample.depth_valid
    return sample.depth, torch.ones_like(sample.depth, dtype=torch.bool) if valid is None else valid


def _some(valid: Mask) -> Mask:
    """(b, 1, 1, 1) True where a picture has any reading."""
    return valid.flatten(1).any(1).view(-1, 1, 1, 1)


def _dense(depth: Depth, valid: Mask) -> Depth:
    return fill(torch.where(valid, depth, 0), valid)


def _boxes(like: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> Mask:
    """(b, 1, h, w) True from ``low`` to ``high`` (b, 2), the places (down, right) as shares of the sides."""
    inside = torch.ones_like(like, dtype=torch.bool)
    for axis in (0, 1):
        n = like.shape[2 + axis]
        place = (torch.arange(n, device=like.device) + 0.5) / n
        within = (place >= low[:, axis, None]) & (place < high[:, axis, None])
        inside &= within[:, None, :, None] if axis == 0 else within[:, None, None, :]
    return inside


def _one_class(labels: torch.Tensor, dice: Dice) -> Mask:
    counts = torch.bincount(labels.flatten().long(), minlength=UNLABELLED + 1)[:UNLABELLED]
    share = counts / labels.numel()
    fitting = ((share >= 0.01) & (share <= 0.5)).nonzero().flatten()
    if not len(fitting):
        return torch.zeros_like(labels, dtype=torch.bool)
    return labels == fitting[int(dice.below(len(fitting), 1))]


def _shown(sample: Sample, dice: Dice, whole_height: bool) -> Sample:
    """The corner is drawn evenly, the sides up to 3/4 of what is left to the far ones; white is the largest depth."""
    assert sample.rgb is not None
    depth, valid = _maps(sample)
    low = dice.between(0, 1, len(depth), 2)
    high = low + 0.75 * (1 - low) * dice.between(0, 1, len(depth), 2)
    if whole_height:
        low[:, 0], high[:, 0] = 0, 1
    farthest = torch.where(valid, depth, 0).amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6)
    return replace(sample, rgb=torch.where(_boxes(depth, low, high) & valid, depth / farthest, sample.rgb))


def _rolled(sample: Sample, by: int) -> Sample:
    def roll(x: torch.Tensor | None) -> torch.Tensor | None:
        return None if x is None else x.roll(by, 0)

    return replace(
        sample,
        rgb=roll(sample.rgb),
        depth=roll(sample.depth),
        depth_valid=roll(sample.depth_valid),
        classes=roll(sample.classes),
    )


MIXES: dict[str, Mix] = {
    "nearfarmix": nearfarmix,
    "cutmix": cutmix,
    "classmix": classmix,
    "affinemix": affinemix,
    "depthmix": depthmix,
    "cutdepth": cutdepth,
    "vertical_cutdepth": vertical_cutdepth,
}
