"""The pictures of docs/gallery.md, from made-up scenes of seeds that training never draws.

    python examples/gallery.py [-o docs/gallery] [--quick]

Each shows colours, what the sensor gave, bicubic, and crispdepth, with the same colours for the same depth and
metres under each. --quick makes them small.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import crispdepth as cd
from crispdepth import picture
from crispdepth.data.sets import HELD_BACK_SEED
from crispdepth.degradation import add_noise, downsample, punch_holes
from crispdepth.geometry import points

WIDTH_PX = 1200  # of a finished picture
TURN_DEG = (14.0, -22.0)  # of the clouds: down, to the side


def seen(seed: int, size: tuple[int, int], scale: int, noise: float, holes: float) -> tuple[cd.Sample, cd.Sample]:
    """A scene, and what a sensor ``scale`` times coarser sees of it: noise as a share of depth², square holes."""
    scene = cd.scenes(1, *size, HELD_BACK_SEED + 1000 + seed)
    assert scene.depth is not None
    assert scene.depth_valid is not None
    dice = torch.Generator().manual_seed(seed)
    low, valid = downsample(scene.depth, scene.depth_valid, scale, "average")
    low = add_noise(low, noise, dice, power=2)
    return scene, cd.Sample(low=low, valid=punch_holes(valid, holes, dice, radius=1) if holes else valid)


def maps(scene: cd.Sample, given: cd.Sample, models: tuple[str, ...]) -> dict[str, cd.Prediction]:
    """Each model's prediction, by name."""
    assert scene.rgb is not None
    assert given.low is not None
    size = (scene.rgb.shape[-2], scene.rgb.shape[-1])
    return {n: cd.predict(n, low=given.low, rgb=scene.rgb, valid=given.valid, unit="m", size=size) for n in models}


def side_by_side(scene: cd.Sample, given: cd.Sample, detail: tuple[float, float] | None = None) -> np.ndarray:
    """Colours, low, bicubic, crispdepth, truth, error; ``detail``: only the part around (y, x), 0..1."""
    assert scene.rgb is not None
    assert scene.depth is not None
    assert given.low is not None
    assert given.valid is not None
    made = maps(scene, given, ("bicubic", "crisp"))
    truth, low, known = scene.depth[0, 0].numpy(), given.low[0, 0].numpy(), given.valid[0, 0].numpy()
    everywhere = np.ones(truth.shape, dtype=bool)
    span = picture.Range.of(truth, everywhere)
    reach = picture.Range(0, 0.1 * (span.high - span.low))
    panels = [
        picture.rgb_panel(scene.rgb[0].permute(1, 2, 0).numpy()),
        picture.depth_panel(low, known, span, f"sensor, {low.shape[1]}x{low.shape[0]}"),
        picture.depth_panel(made["bicubic"].depth, everywhere, span, "bicubic"),
        picture.depth_panel(made["crisp"].depth, everywhere, span, "crispdepth"),
        picture.depth_panel(truth, everywhere, span, "truth"),
        picture.error_panel(made["crisp"].depth, truth, everywhere, reach, "error of crispdepth"),
    ]
    if detail is not None:
        height, width = truth.shape[0] * 2 // 5, truth.shape[1] * 2 // 5
        top, left = (round(detail[0] * (truth.shape[0] - height)), round(detail[1] * (truth.shape[1] - width)))
        panels = [picture.cropped(p, (top, left, height, width), truth.shape, "detail") for p in panels]
        panels = [replace(p, image=p.image.repeat(2, axis=0).repeat(2, axis=1)) for p in panels]
    return picture.comparison(panels)


def trust(scene: cd.Sample, given: cd.Sample) -> np.ndarray:
    """A noisy map with holes, what becomes of it, the error it expects and the error it makes."""
    assert scene.rgb is not None
    assert scene.depth is not None
    assert given.low is not None
    assert given.valid is not None
    made, truth = maps(scene, given, ("crisp",))["crisp"], scene.depth[0, 0].numpy()
    assert made.error is not None
    everywhere = np.ones(truth.shape, dtype=bool)
    span = picture.Range.of(truth, everywhere)
    reach = picture.Range(0, 0.1 * (span.high - span.low))
    low, known = given.low[0, 0].numpy(), given.valid[0, 0].numpy()
    return picture.comparison([
        picture.rgb_panel(scene.rgb[0].permute(1, 2, 0).numpy()),
        picture.depth_panel(low, known, span, f"sensor, {low.shape[1]}x{low.shape[0]}, {1 - known.mean():.0%} holes"),
        picture.depth_panel(made.depth, everywhere, span, "crispdepth"),
        picture.depth_panel(truth, everywhere, span, "truth"),
        picture.error_panel(made.error, np.zeros_like(truth), everywhere, reach, "error it expects"),
        picture.error_panel(made.depth, truth, everywhere, reach, "error it makes"),
    ])  # fmt: skip


def clouds(scene: cd.Sample, given: cd.Sample) -> np.ndarray:
    """The point clouds of bicubic, crispdepth and the truth, turned: flying pixels show as veils between things."""
    assert scene.rgb is not None
    assert scene.depth is not None
    assert scene.intrinsics is not None
    made = maps(scene, given, ("bicubic", "crisp"))
    depths = {"bicubic": made["bicubic"].depth, "crispdepth": made["crisp"].depth, "truth": scene.depth[0, 0].numpy()}
    rgb = scene.rgb[0].permute(1, 2, 0).numpy()
    return picture.comparison([
        picture.Panel(turned(depth, rgb, scene.intrinsics), f"{name}, as points, turned {abs(TURN_DEG[1]):.0f}°")
        for name, depth in depths.items()
    ])  # fmt: skip


def turned(depth: np.ndarray, rgb: np.ndarray, intrinsics: torch.Tensor) -> np.ndarray:
    """The points of ``depth`` (H, W) seen from another place, nearest last: (H, W, 3) uint8."""
    xyz = points(torch.from_numpy(depth)[None, None], intrinsics)[0].flatten(1).numpy()
    pivot = np.array([[0.0], [0.0], [float(np.median(depth))]])
    down, side = np.radians(TURN_DEG)
    about_x = np.array([[1, 0, 0], [0, np.cos(down), -np.sin(down)], [0, np.sin(down), np.cos(down)]])
    about_y = np.array([[np.cos(side), 0, np.sin(side)], [0, 1, 0], [-np.sin(side), 0, np.cos(side)]])
    x, y, z = about_x @ about_y @ (xyz - pivot) + pivot * 1.15
    k, (height, width) = intrinsics[0].numpy(), depth.shape
    u, v = np.round(k[0, 0] * x / z + k[0, 2]).astype(int), np.round(k[1, 1] * y / z + k[1, 2]).astype(int)
    inside = (z > 0.1) & (u >= 0) & (u < width - 1) & (v >= 0) & (v < height - 1)
    order = np.nonzero(inside)[0][np.argsort(-z[inside])]
    sheet = np.full((height, width, 3), 24, dtype=np.uint8)
    colours = np.round(np.clip(rgb, 0, 1) * 255).astype(np.uint8).reshape(-1, 3)[order]
    for dv in (0, 1):
        for du in (0, 1):
            sheet[v[order] + dv, u[order] + du] = colours
    return sheet


def save(image: np.ndarray, path: Path) -> None:
    """As a small JPEG."""
    sheet = Image.fromarray(image)
    if sheet.width > WIDTH_PX:
        sheet = sheet.resize((WIDTH_PX, round(sheet.height * WIDTH_PX / sheet.width)), Image.Resampling.LANCZOS)
    sheet.save(path, quality=82, optimize=True)
    print(f"wrote {path} ({path.stat().st_size // 1000} kB)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, default=Path("gallery"))
    parser.add_argument("--seeds", type=int, nargs=4, default=(15, 19, 14, 16), help="which scenes")
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    size = (96, 128) if asked.quick else (480, 640)
    one, two, three, four = asked.seeds
    save(side_by_side(*seen(one, size, 8, 0.0, 0.0)), asked.out / "x8.jpg")
    save(side_by_side(*seen(two, size, 16, 0.0, 0.0), detail=(0.5, 0.5)), asked.out / "x16-detail.jpg")
    save(trust(*seen(three, size, 4, 0.003, 0.25)), asked.out / "noise-and-holes.jpg")
    save(clouds(*seen(four, size, 8, 0.0, 0.0)), asked.out / "clouds.jpg")


if __name__ == "__main__":
    main()
