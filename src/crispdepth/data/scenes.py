"""Made-up rooms and tabletops with exact depth: the data our own networks are trained on."""

from __future__ import annotations

from dataclasses import replace

import torch

from crispdepth.data.layout import CLASSES, FURNITURE, PARTS, Stage, closer, eye_level, new_rays, new_stage, new_things
from crispdepth.data.raycast import ROOM, Things, trace
from crispdepth.data.shading import Light, Looks, photograph, shade
from crispdepth.data.textures import MIPS, PATTERNS, Dice, pattern_bank, silhouette_bank
from crispdepth.types import Sample

__all__ = ["CLASSES", "scenes"]


def scenes(
    batch: int,
    height: int,
    width: int,
    seed: int,
    device: torch.device | str = "cpu",
    zoom: float = 1.0,
    true_size: bool = False,
) -> Sample:
    """``batch`` made-up scenes: the same for the same arguments, every time.

    rgb (b, 3, h, w) in 0..1; depth (b, 1, h, w) exact metres along the optical axis at each pixel's centre,
    without holes; classes (b, 1, h, w), numbers into CLASSES; intrinsics (b, 3, 3) in pixels.

    ``zoom``: each shows a part of its scene, as a square cut from a picture 1 to so many times as large does. A small
    square of a whole scene has many more depth edges than the same number of pixels of a real photo.

    ``true_size``: rooms from eye level, where all things have their usual size, so that one picture tells how far they
    are. Otherwise sizes are shares of the picture: a scene and the same scene twice as large look alike.
    """
    dice = Dice(seed, device)
    with torch.inference_mode(), torch.autocast(dice.device.type, enabled=False):
        stage = (eye_level if true_size else new_stage)(dice, batch, height, width)
        silhouettes = silhouette_bank(dice, 2 + batch // 6, 96 if max(height, width) <= 256 else 160)
        things, half, classes = new_things(dice, stage, silhouettes)
        patterns = pattern_bank(dice, 2 + batch // 6, 128 if max(height, width) <= 256 else 256)
        looks = new_looks(dice, stage, things, half, patterns)
        light = new_light(dice, stage, len(silhouettes))
        if zoom > 1:  # what is small in the whole scene may fill the part
            stage, things = closer(dice, stage, zoom), replace(things, small=frozenset())
        rays = new_rays(stage, height, width)
        depth, seen = trace(things, rays, (stage.low, stage.high), stage.near)
        rgb = photograph(dice, shade(things, looks, light, rays, depth, seen, stage.f_px))
        labels = classes.gather(1, seen.flatten(1)).view_as(seen).to(torch.uint8)
        intrinsics = torch.zeros(batch, 3, 3, device=dice.device)
        intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = stage.f_px
        middle = torch.tensor([width - 1, height - 1], device=dice.device) / 2
        intrinsics[:, :2, 2], intrinsics[:, 2, 2] = middle - stage.aside * stage.f_px[:, None], 1
    return Sample(
        rgb=rgb.clone(),
        depth=depth[:, None].clone(),
        depth_valid=torch.ones_like(depth[:, None], dtype=torch.bool),
        classes=labels[:, None].clone(),
        intrinsics=intrinsics.clone(),
        name=f"scenes {seed}",
    )


def new_looks(dice: Dice, stage: Stage, things: Things, half: torch.Tensor, patterns: torch.Tensor) -> Looks:
    """Paint for the room and all things; some take the paint of what stands behind them."""
    b, k = things.present.shape
    n = ROOM + k
    room_half = (stage.high - stage.low) / 2
    room_local = torch.diag_embed(1 / room_half)[:, None].expand(b, ROOM, 3, 3)
    room_eye = (-(stage.high + stage.low) / 2 / room_half)[:, None].expand(b, ROOM, 3)
    all_half = torch.cat([room_half[:, None].expand(b, ROOM, 3), half], 1)
    colours = new_colours(dice, b, n)
    per_kind = len(patterns) // len(PATTERNS) // MIPS
    kind = dice.below(len(PATTERNS), b, n)
    kind[:, :ROOM] = dice.among([0, 0, 0, 1, 3, 4, 5, 7, 7], b, ROOM).long()  # walls are mostly calm
    pattern = kind * per_kind + dice.below(per_kind, b, n)
    size = all_half[..., :2].amax(-1)
    repeats = dice.spread(0.3, 4, b, n) / size.clamp(max=3)
    source = sources(dice, b, k)
    colours = colours.gather(1, source[..., None].expand(b, n, 9))
    pattern, repeats = pattern.gather(1, source), repeats.gather(1, source)
    gloss = dice.between(0, 0.8, b, n) * dice.chance(0.3, b, n)
    return Looks(
        to_local=torch.cat([room_local, things.to_local], 1),
        eye=torch.cat([room_eye, things.eye], 1),
        half=all_half,
        colours=colours,
        pattern=pattern,
        repeats=repeats,
        shift=dice.between(0, 2, b, n, 2),
        fitted=dice.chance(0.3, b, n) & (torch.arange(n, device=dice.device) >= ROOM),
        gloss=gloss,
        patterns=patterns,
    )


def new_colours(dice: Dice, b: int, n: int) -> torch.Tensor:
    """Three linear colours a thing (b, n, 9); a scene has a palette, from all alike to anything goes."""

    def paint() -> torch.Tensor:
        tint = dice.between(0, 1, b, n, 3) ** 1.5
        tint = tint / tint.amax(-1, keepdim=True)
        warm = tint.sort(-1, descending=True).values  # wood, skin, clay, paper
        tint = torch.where(dice.chance(0.45, b, n, 1), warm, tint)
        grey = torch.ones_like(tint)
        vivid = dice.between(0.25, 1.9, b, 1, 1) * dice.between(0.1, 1.2, b, n, 1)
        vivid[:, :ROOM] *= 0.6  # walls are seldom loud
        return dice.spread(0.05, 0.95, b, n, 1, towards_low=0.75) * grey.lerp(tint, vivid.clamp(max=0.97))

    first = paint()
    main = first[:, ROOM - 1 : ROOM]
    first = first.lerp(main, dice.between(0, 0.97, b, 1, 1) ** 3)
    contrast = dice.spread(0.06, 1, b, n, 1, towards_low=0.8)
    contrast[:, :ROOM] *= 0.6
    return torch.cat([first, first.lerp(paint(), contrast), first.lerp(paint(), (contrast * 1.5).clamp(max=1))], 2)


def sources(dice: Dice, b: int, k: int) -> torch.Tensor:
    """Whose paint each thing takes (b, 6 + k): mostly its own; a part that of its piece; some the room's."""
    own = torch.arange(ROOM + k, device=dice.device).expand(b, ROOM + k)
    walls = torch.where(dice.chance(0.75, b, ROOM) & (own[:, :ROOM] != 3), 5, own[:, :ROOM])
    piece = (own[:, ROOM:] - ROOM) // PARTS * PARTS + ROOM
    in_piece = (piece < ROOM + FURNITURE * PARTS) & dice.chance(0.85, b, k)
    things = torch.where(in_piece, piece, own[:, ROOM:])
    alike = dice.chance(0.12, b, 1) & dice.chance(0.85, b, k)  # a pile of pots, a heap of rocks
    things = torch.where(alike, ROOM + FURNITURE * PARTS, things)
    hidden = dice.chance(dice.between(0, 0.45, b, 1), b, k)
    things = torch.where(hidden, torch.where(dice.chance(0.6, b, k), 5, 3), things)
    return torch.cat([walls, things], 1)


def new_light(dice: Dice, stage: Stage, silhouettes: int) -> Light:
    """Sun through windows, lamps, cloudy days; most light comes from above."""
    b = len(stage.f_px)
    sun = torch.stack([dice.normal(b), -dice.between(0.4, 2.5, b), -dice.normal(b) - 0.5], 1)
    sun = sun / sun.norm(dim=1, keepdim=True)
    far = stage.high[:, 2]
    lamp = stage.low + (stage.high - stage.low) * dice.between(0.1, 0.9, b, 3)
    lamp[:, 1] = stage.low[:, 1] * dice.between(0.2, 0.95, b)
    sideways = torch.linalg.cross(sun, torch.tensor([0.3, 0.1, 1.0], device=dice.device).expand(b, 3), dim=1)
    sideways = sideways / sideways.norm(dim=1, keepdim=True)
    upwards = torch.linalg.cross(sun, sideways, dim=1)
    rate = dice.spread(0.6, 3, b, 1) / far[:, None]
    place = torch.stack([sideways, upwards], 1) * rate[:, None]
    offset = -(place @ (stage.turn[:, :, 2:] * far[:, None, None] * 0.7)) + dice.between(-0.5, 0.5, b, 2, 1)
    return Light(
        ambient=dice.between(0.2, 0.9, b),
        sun=sun,
        sun_strength=dice.between(0.2, 1.6, b) * dice.chance(0.75, b),
        softness=far * dice.spread(0.003, 0.12, b),
        lamp=lamp,
        lamp_strength=dice.between(0, 1.2, b),
        reach=far * dice.between(0.3, 1.5, b),
        blinds=torch.cat([place, offset], 2),
        blinds_mask=dice.below(silhouettes, b),
        blinds_dark=dice.between(0.5, 1, b) * dice.chance(0.3, b),
    )
