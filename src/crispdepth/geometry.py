"""Camera; metres to points; hole-safe resize and fill; depth edges, hard or flying."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F

from crispdepth.exportable import exporting, resized
from crispdepth.types import Depth, Mask, Rgb, Size

EDGE_LEVELS, EDGE_SHARE = 4, 0.02  # the least that both sides of an edge differ by; share of the depth
LEVELS_OF_RANGE = 32, 255  # a map of so many whole levels is one in levels; of fewer or more, hardly of 8 bits
STEPPED = 0.55  # of what differs within 2 pixels, found within 1: 0.5 across a plane, 1 at a step
LEAST_ON = 0.25  # of an inverse depth at the border: a surface that would go on to less ends there
LEVELS = 12  # halvings of an exported graph's `fill`: low maps of up to 4096 pixels a side
RIDDLED = 0.05  # of a low map: so many scattered holes are worth a second run
KERNELS = ("bicubic", "bicubic-plain", "average", "nearest")


@dataclass(frozen=True)
class Camera:
    """A pinhole camera for images of ``width`` x ``height`` pixels; pixel (0, 0) is centred at (0, 0).

    ``fx_px``, ``fy_px``: focal lengths; ``cx_px``, ``cy_px``: principal point; all in pixels.
    """

    fx_px: float
    fy_px: float
    cx_px: float
    cy_px: float
    width: int
    height: int

    @classmethod
    def centred(cls, f_px: float, size: Size) -> Self:
        """Square pixels, the axis through the middle."""
        height, width = size
        return cls(f_px, f_px, (width - 1) / 2, (height - 1) / 2, width, height)

    @classmethod
    def from_fov(cls, fov_deg: float, size: Size) -> Self:
        """Square pixels, the axis through the middle, ``fov_deg`` across the longer side."""
        height, width = size
        return cls.centred(0.5 * max(height, width) / math.tan(math.radians(fov_deg) / 2), size)

    def resized(self, size: Size) -> Self:
        """The same camera after its image was resized to ``size`` (pixel centres at half a pixel)."""
        height, width = size
        sx, sy = width / self.width, height / self.height
        cx_px, cy_px = (self.cx_px + 0.5) * sx - 0.5, (self.cy_px + 0.5) * sy - 0.5
        return type(self)(self.fx_px * sx, self.fy_px * sy, cx_px, cy_px, width, height)

    def matrix(self) -> torch.Tensor:
        """The intrinsics as a (1, 3, 3) tensor, pixels."""
        rows = [[self.fx_px, 0, self.cx_px], [0, self.fy_px, self.cy_px], [0, 0, 1]]
        return torch.tensor([rows], dtype=torch.float32)


@dataclass(frozen=True)
class LearntCamera:
    """That whose depth a network of pictures alone gives: ``focal_px``, in pixels of a picture that was shrunk to
    ``side`` pixels where it was longer."""

    focal_px: float
    side: int

    def shrink(self, size: Size) -> float:
        """What a picture of ``size`` (height, width) is made smaller by, 1 or less."""
        return min(1.0, self.side / max(size))

    def focal_for(self, size: Size) -> float:
        """The focal length, in pixels of a picture of ``size``, for which the depth is in metres."""
        return self.focal_px / self.shrink(size)

    def for_focal(self, depth: Depth, focal_px: float) -> Depth:
        """Metres for a camera of ``focal_px``, in pixels of a picture as large as ``depth``."""
        return depth * (focal_px / self.focal_for((depth.shape[-2], depth.shape[-1])))


def points(depth: Depth, intrinsics: torch.Tensor) -> torch.Tensor:
    """Depth in metres and intrinsics (b, 3, 3) in pixels to points (b, 3, h, w): x right, y down, z ahead."""
    height, width = depth.shape[-2:]
    u = torch.arange(width, dtype=depth.dtype, device=depth.device).view(1, 1, 1, -1)
    v = torch.arange(height, dtype=depth.dtype, device=depth.device).view(1, 1, -1, 1)
    fx, fy, cx, cy = (intrinsics[:, i, j].view(-1, 1, 1, 1) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    return torch.cat([(u - cx) / fx * depth, (v - cy) / fy * depth, depth], dim=1)


def planar(distance: torch.Tensor, intrinsics: torch.Tensor) -> Depth:
    """Distance along each pixel's ray, (b, 1, h, w) metres, to depth along the optical axis; intrinsics (b, 3, 3)."""
    return distance / points(torch.ones_like(distance), intrinsics).norm(dim=1, keepdim=True)


def resize(depth: Depth, valid: Mask, size: Size, kernel: str = "bicubic") -> tuple[Depth, Mask]:
    """Resize a depth map of (b, 1, h, w) to ``size`` without letting a hole leak into its neighbours.

    ``bicubic`` is antialiased, a = -0.5 (what PIL does, both ways); ``bicubic-plain`` is not, a = -0.75, on
    4 x 4 pixels whatever the scale (OpenCV's; it aliases); ``average`` weighs by area;
    ``nearest`` picks the pixel under the centre. Holes get weight 0 (normalised convolution, Knutsson and
    Westin 1993); where less than half the kernel's weight saw a reading, the result is a hole, of value 0.
    """
    if kernel not in KERNELS:
        raise ValueError(f"unknown kernel {kernel!r}; choose from {', '.join(KERNELS)}")
    weight = valid.to(depth.dtype)
    total = _resample(torch.where(valid, depth, 0), size, kernel)
    weight = _resample(weight, size, kernel)
    seen = weight > 0.5
    return torch.where(seen, total / torch.where(seen, weight, 1), 0), seen


def _resample(x: torch.Tensor, size: Size, kernel: str) -> torch.Tensor:
    if kernel == "bicubic" and exporting():
        return resized(x, size, kernel)
    if kernel == "bicubic":
        return _antialiased(x, size, kernel)
    if kernel == "bicubic-plain":
        return F.interpolate(x, size, mode="bicubic", align_corners=False)
    return F.interpolate(x, size, mode="area" if kernel == "average" else "nearest-exact")


def resize_rgb(rgb: Rgb, size: Size) -> Rgb:
    """Colours at another size, antialiased bilinear (no overshoot)."""
    if tuple(rgb.shape[-2:]) == tuple(size):
        return rgb
    return _antialiased(rgb, size, "bilinear")


def _antialiased(x: torch.Tensor, size: Size, mode: str) -> torch.Tensor:
    if not exporting() and size[1] == 1:  # torch on a CPU (2.13) makes all rows of a single column the first one
        turned = F.interpolate(x.mT.contiguous(), (size[1], size[0]), mode=mode, align_corners=False, antialias=True)
        return turned.mT
    return F.interpolate(x, size, mode=mode, align_corners=False, antialias=True)


def enlarge(depth: Depth, size: Size, kernel: str = "bicubic") -> Depth:
    """A map without holes at another size (as ``resize``, which also takes holes)."""
    return _resample(depth, size, kernel)


def missing(depth: Depth, low: Depth, valid: Mask) -> Depth:
    """What the measurement ``low`` (b, 1, h, w) says beyond the shrunken ``depth``; 0 in its holes."""
    return torch.where(valid, low - enlarge(depth, (low.shape[-2], low.shape[-1])), 0)


def fill(depth: Depth, valid: Mask, levels: int = LEVELS) -> Depth:
    """Every hole filled smoothly from the readings around it; readings are kept as they are.

    Push-pull (Gortler et al. 1996): average the readings into ever coarser maps until no hole is left,
    then hand the coarse values down. A map without any reading comes back as zeros.
    An exported graph cannot look whether a hole is left: it always halves ``levels`` times, to the same result.
    """
    if not exporting() and (bool(valid.all()) or min(depth.shape[-2:]) < 1):
        return depth
    depth = torch.where(valid, depth, 0)
    if levels == 0 if exporting() else (not bool(valid.any()) or max(depth.shape[-2:]) == 1):
        return depth
    weight, total = (F.avg_pool2d(F.pad(x, (0, 1, 0, 1)), 2) for x in (valid.to(depth.dtype), depth))  # sides / 2, up
    coarse = total / weight.clamp(min=1e-6)
    coarse = fill(coarse, weight > 0, levels - 1)
    smooth = F.interpolate(coarse, depth.shape[-2:], mode="bilinear", align_corners=False)
    return torch.where(valid, depth, smooth)


def extremes(depth: Depth, valid: Mask) -> tuple[torch.Tensor, torch.Tensor]:
    """The least and the most of each map's readings, both (b, 1, 1, 1); inf and -inf where there are none."""
    bottom = torch.where(valid, depth, torch.inf).amin(dim=(1, 2, 3), keepdim=True)
    return bottom, torch.where(valid, depth, -torch.inf).amax(dim=(1, 2, 3), keepdim=True)


def normalised(low: Depth, valid: Mask) -> tuple[Depth, torch.Tensor, torch.Tensor]:
    """(low - middle) / range, holes filled; middle and range (b, 1, 1, 1), of the readings. A flat map gives 0."""
    bottom, top = extremes(low, valid)
    some = top >= bottom
    middle = torch.where(some, (top + bottom) / 2, 0)
    span = torch.where(some, top - bottom, 0)
    x = torch.where(valid, (low - middle) / torch.where(span > 0, span, 1), 0)
    return fill(x, valid), middle, span


def level_step(low: Depth, valid: Mask) -> torch.Tensor:
    """One level as a share of the range, (b, 1, 1, 1), where ``low`` is in levels: all its readings are whole numbers,
    32 to 255 (LEVELS_OF_RANGE) from least to most; 0 elsewhere. Metres are never so: all whole, and so far apart."""
    bottom, top = extremes(low, valid)
    span = top - bottom
    whole = ~(valid & (low != low.round())).any(dim=-1, keepdim=True).any(dim=-2, keepdim=True)
    in_levels = whole & (span >= LEVELS_OF_RANGE[0]) & (span <= LEVELS_OF_RANGE[1])
    return torch.where(in_levels, 1 / torch.where(in_levels, span, 1), 0)


def hardened(depth: Depth, least: float | torch.Tensor, share: float = 0.0) -> Depth:
    """``depth`` (b, 1, H, W) with the pixels on edges moved towards the nearer of both sides, near and far of the 3x3
    around them: twice as far from the middle, at most all the way.

    A network that is not sure of an edge draws a mixture of both sides, and no surface lies there. What differs by no
    more than ``least`` (a number, or (b, 1, 1, 1)) or than this ``share`` of the depth is no edge and stays; so do
    slopes, whose middle is where they are. One step of a shock filter (Osher and Rudin 1990), or a softer form of
    Kramer and Bruckner's sharpening (1975).
    """
    near, far = local_range(depth, torch.ones_like(depth, dtype=torch.bool), radius=1)
    middle, half = (near + far) / 2, (far - near) / 2
    moved = middle + (2 * (depth - middle)).clamp(-half, half)
    return torch.where((far - near > least) & (far - near > share * depth.abs()), moved, depth)


def restored(depth: Depth, valid: Mask, middle: torch.Tensor, span: torch.Tensor) -> Depth:
    """``normalised`` undone for ``depth`` (b, 1, H, W); a map without any reading gives 0."""
    some = valid.any(dim=-1, keepdim=True).any(dim=-2, keepdim=True)
    return torch.where(some, depth * span + middle, 0)


def riddled(valid: Mask) -> bool:
    """Whether single readings are missing all over: RIDDLED of all are holes half of whose neighbours were read."""
    around = F.avg_pool2d(F.pad(valid.float(), (1, 1, 1, 1)), 3, stride=1) * 9
    return bool((~valid & (around > 3.5)).float().mean() >= RIDDLED)


def wide_holes(valid: Mask, width_px: int) -> Mask:
    """The holes wider than ``width_px``: pixels that lie in an empty square of more pixels than that a side.

    The square must fit into the picture. Narrower parts of a hole, and gaps between readings, are left out.
    """
    side = width_px + 1
    if side > min(valid.shape[-2:]):
        return torch.zeros_like(valid)
    empty = (~valid).float()
    middles = -_square_max(-empty, side)  # 1 where a whole square is empty
    return _square_max(F.pad(middles, (side - 1,) * 4), side) > 0


def _square_max(x: torch.Tensor, side: int) -> torch.Tensor:
    """Maximum over each square of ``side`` pixels that fits in: (…, h - side + 1, w - side + 1)."""
    return F.max_pool2d(F.max_pool2d(x, (1, side), stride=1), (side, 1), stride=1)


def grow(mask: Mask, radius: int) -> Mask:
    """The mask widened by ``radius`` pixels in every direction (a square)."""
    if radius < 1:
        return mask
    return F.max_pool2d(mask.float(), 2 * radius + 1, stride=1, padding=radius) > 0


def local_range(depth: Depth, valid: Mask, radius: int) -> tuple[Depth, Depth]:
    """Smallest and largest reading within ``radius`` pixels; where there is none, +inf and -inf."""
    near = -_pool_max(torch.where(valid, -depth, -torch.inf), radius)
    far = _pool_max(torch.where(valid, depth, -torch.inf), radius)
    return near, far


def _pool_max(x: torch.Tensor, radius: int) -> torch.Tensor:
    """Maximum over a square window, one axis after the other."""
    k = 2 * radius + 1
    x = F.max_pool2d(x, (1, k), stride=1, padding=(0, radius))
    return F.max_pool2d(x, (k, 1), stride=1, padding=(radius, 0))


def depth_edges(depth: Depth, valid: Mask, jump: float = 0.05) -> Mask:
    """Pixels beside a depth edge: a neighbour (of 4) differs by more than ``jump`` of the nearer of the two.

    Relative to the depth itself, so the answer is the same in metres, millimetres and levels; below 1 % of
    the largest reading the floor of 1 % is used, so that values near 0 make no false edges.
    """
    floor = 0.01 * torch.where(valid, depth, 0).amax(dim=(1, 2, 3), keepdim=True)
    edges = torch.zeros_like(valid)
    for axis in (-1, -2):
        n = depth.shape[axis] - 1
        a, b = depth.narrow(axis, 0, n), depth.narrow(axis, 1, n)
        both = valid.narrow(axis, 0, n) & valid.narrow(axis, 1, n)
        step = both & ((a - b).abs() > jump * torch.maximum(torch.minimum(a, b), floor))
        edges.narrow(axis, 0, n).logical_or_(step)
        edges.narrow(axis, 1, n).logical_or_(step)
    return edges


def flying_pixels(depth: Depth, valid: Mask, jump: float = 0.05) -> Mask:
    """Pixels that hang in the air between two surfaces: drop them from a point cloud.

    Within 2 pixels both a nearer and a farther surface exist, more than twice ``jump`` (relative) apart, and the
    pixel lies in the middle half between them: it belongs to neither. But on a slanted surface all do: there, about
    half of that difference (as a ratio, so that near and far count alike) is found within 1 pixel, on an edge more.
    """
    near, far = local_range(depth, valid, radius=2)
    gap = far - near
    between = (depth > near + 0.25 * gap) & (depth < far - 0.25 * gap)
    if min(depth.shape[-2:]) < 3:
        return torch.zeros_like(valid)
    inverse = _beyond(1 / torch.where(valid, depth, 1).clamp(min=1e-9))  # linear across a plane
    ratio = inverse.clamp(min=1e-9).log()
    there = torch.minimum(*(F.pad(valid.float(), (2,) * 4, mode=mode) for mode in ("reflect", "replicate"))) > 0.5
    wide, close = (
        (high - low)[..., 2:-2, 2:-2] for low, high in (local_range(ratio, there, radius) for radius in (2, 1))
    )
    return valid & (gap > 2 * jump * near) & between & (close > STEPPED * wide)


def _beyond(x: torch.Tensor) -> torch.Tensor:
    """``x`` (b, 1, h, w) above 0 with two pixels more on each side, going on as straight as before; where that would
    soon end at 0, as beside an edge, as at the border."""
    for axis in (-1, -2):
        n = x.shape[axis]
        first, last = x.narrow(axis, 0, 1), x.narrow(axis, n - 1, 1)
        before, after = (x.narrow(axis, at, 2).flip(axis) for at in (1, n - 3))
        ends = [(2 * end - inner, end) for end, inner in ((first, before), (last, after))]
        front, back = (torch.where(on > LEAST_ON * end, on, end) for on, end in ends)
        x = torch.cat([front, x, back], axis)
    return x
