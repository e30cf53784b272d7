"""Made-up scenes filmed by a moving camera, with exact depth and poses: what video is tuned and tested on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from crispdepth.data.layout import new_rays, new_stage, new_things, rotation
from crispdepth.data.raycast import trace
from crispdepth.data.scenes import new_light, new_looks
from crispdepth.data.shading import photograph, shade
from crispdepth.data.textures import Dice, pattern_bank, silhouette_bank
from crispdepth.types import Mask, Sample

SWAY = 0.25  # of the nearest thing's distance: how far the camera goes to each side, in FULL_TURN frames
FULL_TURN = 60
LOOK_DEG = 2.0  # how far it looks to each side
GRAIN = 0.006  # of white: noise that is new in each frame


@dataclass(frozen=True)
class Shot:
    """Frames of one scene, each a Sample as of ``scenes(1, …)``, and where the camera stood.

    ``poses``: (n, 4, 4) float64, camera to world, metres.
    """

    frames: list[Sample]
    poses: torch.Tensor


def shot(frames: int, height: int, width: int, seed: int) -> Shot:
    """One scene filmed in ``frames`` pictures of ``height`` x ``width``: the same for the same arguments.

    The camera sways, comes nearer and looks around, a few pixels a frame, as a hand would hold it.
    """
    dice = Dice(seed, "cpu")
    with torch.inference_mode():
        stage = new_stage(dice, 1, height, width)
        silhouettes = silhouette_bank(dice, 2, 96 if max(height, width) <= 256 else 160)
        things, half, _ = new_things(dice, stage, silhouettes)
        patterns = pattern_bank(dice, 2, 128 if max(height, width) <= 256 else 256)
        looks = new_looks(dice, stage, things, half, patterns)
        light = new_light(dice, stage, len(silhouettes))
        phase = dice.between(0, 2 * math.pi, 5)
        samples, poses = [], []
        for number in range(frames):
            wave = (phase + number * 2 * math.pi / FULL_TURN * torch.tensor([1.0, 0.8, 1.2, 0.9, 1.1])).sin()
            away = (wave[:3] * SWAY * float(stage.near) * torch.tensor([1.0, 0.4, 0.6]))[None]
            look = (wave[3:] * math.radians(LOOK_DEG))[:, None]
            # The world's origin is the camera: so all else moves the other way.
            here = replace(stage, turn=stage.turn @ rotation(look[0], look[1], 0 * look[0]))
            moved = replace(
                things,
                centre=things.centre - away[:, None],
                eye=things.eye + (things.to_local @ away[0]).view_as(things.eye),
            )
            seen_looks = replace(looks, eye=looks.eye + (looks.to_local @ away[0]).view_as(looks.eye))
            blinds = light.blinds.clone()
            blinds[..., 3] += (blinds[..., :3] * away[:, None]).sum(-1)
            seen_light = replace(light, lamp=light.lamp - away, blinds=blinds)
            rays = new_rays(here, height, width)
            depth, seen = trace(moved, rays, (stage.low - away, stage.high - away), stage.near * (1 - SWAY))
            linear = shade(moved, seen_looks, seen_light, rays, depth, seen, stage.f_px)
            rgb = photograph(Dice(seed, "cpu"), linear)  # one lens, one exposure
            rgb = (rgb + GRAIN * torch.randn(rgb.shape, generator=dice.generator)).clamp(0, 1)
            k = torch.zeros(1, 3, 3)
            k[0, 0, 0] = k[0, 1, 1] = float(stage.f_px)
            k[0, 0, 2], k[0, 1, 2], k[0, 2, 2] = (width - 1) / 2, (height - 1) / 2, 1
            valid = torch.ones_like(depth[:, None], dtype=torch.bool)
            samples.append(
                Sample(
                    rgb=rgb.clone(),
                    depth=depth[:, None].clone(),
                    depth_valid=valid,
                    intrinsics=k,
                    name=f"{seed}/{number}",
                )
            )
            pose = torch.eye(4, dtype=torch.float64)
            pose[:3, :3], pose[:3, 3] = here.turn[0].double(), away[0].double()
            poses.append(pose)
    return Shot(samples, torch.stack(poses))


def way_back(film: Shot, number: int) -> tuple[torch.Tensor, Mask]:
    """Where each pixel of frame ``number`` was in the frame before: columns and rows (2, h, w), and if it was seen.

    Exact, from depth and poses; a pixel was not seen when it was outside the picture or something stood before it
    (by more than 1 % of its depth).
    """
    now, before = film.frames[number], film.frames[number - 1]
    assert now.depth is not None
    assert before.depth is not None
    assert now.intrinsics is not None
    k = now.intrinsics[0].double()
    height, width = now.depth.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([columns, rows, torch.ones_like(rows)]).double().flatten(1)
    move = film.poses[number - 1].inverse() @ film.poses[number]
    there = move[:3, :3] @ (k.inverse() @ pixels * now.depth.double().flatten()) + move[:3, 3:]
    place = (k @ there)[:2] / there[2].clamp(min=1e-6)
    x, y = (p.round().long() for p in place)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height) & (there[2] > 0)
    stood = before.depth[0, 0].double()[y.clamp(0, height - 1), x.clamp(0, width - 1)]
    seen = inside & ((stood - there[2]).abs() < 0.01 * there[2])
    return place.view(2, height, width).float(), seen.view(1, 1, height, width)
