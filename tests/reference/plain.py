"""Benchmark steps written out plainly with numpy and PIL, for comparison only."""

from __future__ import annotations

import numpy as np
from PIL import Image


def pil_bicubic(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """PIL's own bicubic, on the array's own type (uint8 or float32)."""
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def bicubic_rmse(truth: np.ndarray, scale: int, border: int, eight_bit: bool, clip: bool) -> float:
    """RMSE of PIL bicubic down and up on 8-bit levels, as FDSR's and DCTNet's authors measure."""
    height, width = truth.shape[0] // scale * scale, truth.shape[1] // scale * scale
    truth = truth[:height, :width]
    high = truth if eight_bit else truth.astype(np.float32)
    low = pil_bicubic(high, height // scale, width // scale).astype(np.float32)
    up = pil_bicubic(low, height, width).astype(np.float64)
    if clip:
        up = np.clip(up, truth.min(), truth.max())
    inner = slice(border, height - border), slice(border, width - border)
    return float(np.sqrt(np.mean((up[inner] - truth[inner]) ** 2)))


def masked_average(depth: np.ndarray, valid: np.ndarray, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the readings in each block of scale x scale pixels; a hole where half or fewer are left."""
    height, width = depth.shape[0] // scale, depth.shape[1] // scale
    out, seen = np.zeros((height, width)), np.zeros((height, width), dtype=bool)
    for y in range(height):
        for x in range(width):
            block = np.s_[y * scale : (y + 1) * scale, x * scale : (x + 1) * scale]
            readings = depth[block][valid[block]]
            seen[y, x] = len(readings) > scale * scale / 2
            out[y, x] = readings.mean() if seen[y, x] else 0
    return out, seen


def joint_bilateral(
    low: np.ndarray, valid: np.ndarray, rgb: np.ndarray, guide: np.ndarray, sigmas: tuple[float, float]
) -> np.ndarray:
    """Kopf et al. 2007, eq. 3, pixel by pixel, over 5 x 5 low pixels; rgb (H, W, 3), guide (h, w, 3)."""
    (h, w), (height, width) = low.shape, rgb.shape[:2]
    out = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            at = (y + 0.5) * h / height - 0.5, (x + 0.5) * w / width - 0.5
            centre = min(max(round(at[0]), 0), h - 1), min(max(round(at[1]), 0), w - 1)
            total = weight = 0.0
            for v in range(max(0, centre[0] - 2), min(h, centre[0] + 3)):
                for u in range(max(0, centre[1] - 2), min(w, centre[1] + 3)):
                    if not valid[v, u]:
                        continue
                    distance2 = (v - at[0]) ** 2 + (u - at[1]) ** 2
                    colour2 = float(((guide[v, u] - rgb[y, x]) ** 2).sum())
                    k = np.exp(-0.5 * (distance2 / sigmas[0] ** 2 + colour2 / sigmas[1] ** 2))
                    total, weight = total + k * low[v, u], weight + k
            out[y, x] = total / weight
    return out
