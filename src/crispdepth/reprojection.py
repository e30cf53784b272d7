"""Depth as another camera sees it: patches of surface through a z-buffer, nothing doubled, nothing bleeding through."""

from __future__ import annotations

import math

import numpy as np
import torch

from crispdepth.geometry import Camera, flying_pixels
from crispdepth.types import Depth, InputError, Mask, Size

JUMP = 0.05  # of the nearer depth: two readings farther apart are two surfaces
LARGEST_PX = 32  # a reading that covers more of the new image is seen too obliquely, or from too near
THROUGH_PX = 2  # background with foreground this near on opposite sides is seen through it


def size_seen(camera: Camera, target: Camera) -> Size:
    """The size at which ``target`` has about the pixels per degree of ``camera``; never more than its own."""
    scale = math.sqrt(camera.fx_px * camera.fy_px / (target.fx_px * target.fy_px))
    scale = min(1.0, scale)
    return max(1, round(target.height * scale)), max(1, round(target.width * scale))


def reproject(depth: Depth, valid: Mask, camera: Camera, target: Camera, extrinsics: np.ndarray) -> tuple[Depth, Mask]:
    """A depth map (1, 1, h, w) of ``camera`` as ``target`` sees it: (1, 1, target.height, target.width) and its mask.

    ``extrinsics`` (4, 4) takes points of ``camera`` to points of ``target``, metres. Flying pixels are dropped
    first. Each reading is a patch of its whole pixel, bent towards the neighbours on its own surface (inverse depth
    is linear across a plane, so planes stay exact) and cut where the depth jumps; patches go through a z-buffer, so
    nothing is seen twice and no gap opens within a surface. What shows through a hole in the foreground, and did
    not before, is dropped. Where nothing was measured for the new view, there is a hole. Raises InputError where a
    reading covers more than LARGEST_PX of ``target``'s pixels, all else being equal.
    """
    covers = math.sqrt(target.fx_px * target.fy_px / (camera.fx_px * camera.fy_px))
    if 2 * covers > LARGEST_PX:  # seen from half as far, it must still be drawn
        height, width = size_seen(camera, target)
        raise InputError(
            f"a reading covers {covers:.0f} pixels of the target's: reproject to target.resized(({height}, {width})), "
            "and sharpen or enlarge that"
        )
    valid = valid & ~flying_pixels(depth, valid) & (depth > 0)
    seen = valid[0, 0].numpy()
    inverse = np.where(seen, 1 / np.where(seen, depth[0, 0].numpy().astype(np.float64), 1), 0)
    move = np.asarray(extrinsics, dtype=np.float64)
    size = (target.height, target.width)
    patches = _Patches(inverse, seen, camera)
    front = patches.drawn(seen, target, move)
    narrow = patches.drawn(seen & _between(inverse), target, move)  # in a gap already for the first camera
    front[_between(front) & (narrow < front)] = 0
    result = np.where(front > 0, 1 / np.where(front > 0, front, 1), 0).astype(np.float32)
    return torch.from_numpy(result).view(1, 1, *size), torch.from_numpy(front > 0).view(1, 1, *size)


def _between(inverse: np.ndarray) -> np.ndarray:
    """Where something nearer by more than JUMP stands within THROUGH_PX on opposite sides; 0 is a hole."""
    found = np.zeros(inverse.shape, dtype=bool)
    padded = np.pad(inverse, THROUGH_PX)
    height, width = inverse.shape

    def nearest(dy: int, dx: int) -> np.ndarray:
        steps = [(THROUGH_PX + k * dy, THROUGH_PX + k * dx) for k in range(1, THROUGH_PX + 1)]
        return np.max([padded[y : y + height, x : x + width] for y, x in steps], axis=0)

    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        found |= np.minimum(nearest(dy, dx), nearest(-dy, -dx)) > (1 + JUMP) * inverse
    return found & (inverse > 0)


class _Patches:
    """Each reading of ``inverse`` depth (h, w) as four triangles from its centre to the corners of its pixel."""

    def __init__(self, inverse: np.ndarray, seen: np.ndarray, camera: Camera) -> None:
        self.camera = camera
        self.inverse = inverse
        self.corners = [_corner(inverse, seen, dy, dx) for dy, dx in _AROUND]

    def drawn(self, which: np.ndarray, target: Camera, move: np.ndarray) -> np.ndarray:
        """The inverse depth (H, W) of what ``target`` sees of the readings ``which``; 0 where nothing is."""
        buffer = np.zeros(target.height * target.width)
        v, u = np.nonzero(which)
        centre = self._seen(u, v, self.inverse[which], target, move)
        ring = [
            self._seen(u + 0.5 * dx, v + 0.5 * dy, corner[which], target, move)
            for (dy, dx), corner in zip(_AROUND, self.corners, strict=True)
        ]
        for i in range(4):
            _draw(buffer, np.stack([centre, ring[i], ring[(i + 1) % 4]], axis=1), target)
        return buffer.reshape(target.height, target.width)

    def _seen(self, u: np.ndarray, v: np.ndarray, inverse: np.ndarray, target: Camera, move: np.ndarray) -> np.ndarray:
        """(3, n): column, row and inverse depth of points in ``target``; inverse depth 0 for points behind it."""
        c = self.camera
        ray = np.stack([(u - c.cx_px) / c.fx_px, (v - c.cy_px) / c.fy_px, np.ones_like(inverse)])
        x, y, z = move[:3, :3] @ ray + move[:3, 3:] * inverse
        ahead = z > 1e-6
        z = np.where(ahead, z, 1)
        columns, rows = x / z * target.fx_px + target.cx_px, y / z * target.fy_px + target.cy_px
        return np.stack([columns, rows, np.where(ahead, inverse / z, 0)])


_AROUND = ((-1, -1), (-1, 1), (1, 1), (1, -1))  # the corners of a pixel, clockwise


def _corner(inverse: np.ndarray, seen: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """Inverse depth at one corner of each pixel: the mean of those of the four pixels around it on one surface."""
    height, width = inverse.shape
    values, there = np.pad(inverse, 1), np.pad(seen, 1)
    total, count = inverse.copy(), np.ones_like(inverse)
    for y, x in ((dy, 0), (0, dx), (dy, dx)):
        window = np.s_[1 + y : 1 + y + height, 1 + x : 1 + x + width]
        other = values[window]
        same = there[window] & (np.abs(other - inverse) <= JUMP * np.minimum(other, inverse))
        total += np.where(same, other, 0)
        count += same
    return total / count


def _draw(buffer: np.ndarray, corners: np.ndarray, target: Camera) -> None:
    """Triangles (column row inverse, 3, n) into the z-buffer of inverse depths, the nearest wins.

    A pixel belongs to a triangle when its centre does; across it, inverse depth is linear. Triangles seen from
    behind, or partly behind the camera, are left out.
    """
    x, y, w = corners
    left, right = np.maximum(np.ceil(x.min(0) - 1e-6), 0), np.minimum(np.floor(x.max(0) + 1e-6), target.width - 1)
    top, bottom = np.maximum(np.ceil(y.min(0) - 1e-6), 0), np.minimum(np.floor(y.max(0) + 1e-6), target.height - 1)
    area = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])
    extent = np.maximum(right - left, bottom - top)
    kept = (area > 1e-9) & (w.min(0) > 0) & (extent < LARGEST_PX) & (right >= left) & (bottom >= top)
    if not kept.any():
        return
    x, y, w, area = x[:, kept], y[:, kept], w[:, kept], area[kept]
    left, right, top, bottom = left[kept], right[kept], top[kept], bottom[kept]
    for dy in range(int((bottom - top).max()) + 1):
        for dx in range(int((right - left).max()) + 1):
            some = np.nonzero((left + dx <= right) & (top + dy <= bottom))[0]
            column, row = left[some] + dx, top[some] + dy
            (x0, x1, x2), (y0, y1, y2) = x[:, some], y[:, some]
            second = ((column - x0) * (y2 - y0) - (x2 - x0) * (row - y0)) / area[some]
            third = ((x1 - x0) * (row - y0) - (column - x0) * (y1 - y0)) / area[some]
            share = np.stack([1 - second - third, second, third])
            inside = share.min(0) >= -1e-6
            at = (row[inside] * target.width + column[inside]).astype(np.int64)
            np.maximum.at(buffer, at, (share[:, inside] * w[:, some[inside]]).sum(0))
