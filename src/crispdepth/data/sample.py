"""A made-up scene written to files, for the demo and for trying things."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from crispdepth import io
from crispdepth.atomic import atomic, make_folder
from crispdepth.data.scenes import scenes
from crispdepth.degradation import crop_to_multiple, downsample
from crispdepth.types import InputError, Size


def write_sample(folder: Path, scale: int, seed: int, size: Size) -> list[str]:
    """Write rgb.png, low.png and truth.png (16-bit millimetres) and intrinsics.json into ``folder``.

    ``low`` is the truth shrunk ``scale`` times (antialiased bicubic). Returns a line for each file.
    Raises InputError for sizes and scales out of range and for a folder that cannot be made.
    """
    if not 1 <= scale <= 32 or min(size) < 2 * scale:
        raise InputError(f"scale {scale} does not fit {size[1]}x{size[0]}: at least 2 low pixels are needed")
    if size[0] * size[1] > 2**24:
        raise InputError(f"{size[1]}x{size[0]} is larger than a sample needs: 16 megapixels at most")
    make_folder(folder)
    scene = scenes(1, size[0], size[1], seed)
    assert scene.rgb is not None
    assert scene.depth is not None
    assert scene.depth_valid is not None
    assert scene.intrinsics is not None
    depth, valid = crop_to_multiple(scene.depth, scale), crop_to_multiple(scene.depth_valid, scale)
    rgb = crop_to_multiple(scene.rgb, scale)[0].permute(1, 2, 0).numpy()
    low, low_valid = downsample(depth, valid, scale)
    io.write_rgb(folder / "rgb.png", np.round(rgb * 255).astype(np.uint8))
    io.write_depth(folder / "truth.png", depth[0, 0].numpy())
    io.write_depth(folder / "low.png", low[0, 0].numpy(), low_valid[0, 0].numpy())
    k, (height, width) = scene.intrinsics[0].tolist(), depth.shape[-2:]
    camera = {"fx": k[0][0], "fy": k[1][1], "cx": k[0][2], "cy": k[1][2], "width": width, "height": height}
    with atomic(folder / "intrinsics.json") as temporary:
        temporary.write_text(json.dumps(camera, indent=2) + "\n", encoding="utf-8")
    names = ("rgb.png", "low.png", "truth.png", "intrinsics.json")
    return [f"wrote    {folder / name}" for name in names]
