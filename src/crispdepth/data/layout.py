"""Where everything stands in a made-up scene: the camera, the room, furniture and what lies about."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch.nn import functional

from crispdepth.data.raycast import ROOM, Rays, Things, product
from crispdepth.data.textures import SILHOUETTES, Dice

CLASSES: tuple[str, ...] = (
    "floor",
    "wall",
    "ceiling",
    "table",
    "chair",
    "shelf",
    "carton",
    "books",
    "sofa",
    "stairs",
    "monitor",
    "rack",
    "frame",
    "block",
    "round",
    "sheet",
    "figure",
    "star",
    "plant",
    "bush",
    "lattice",
    "ring",
    "cable",
    "print",
)
ROOM_CLASSES = (1, 1, 2, 0, 1, 1)
SHEET_CLASS = CLASSES.index("sheet")  # the silhouettes' classes follow in their order
FURNITURE = 3  # pieces a scene
# Slots a scene: large ones, and small ones, which cost a quarter of the time.
LOOSE, SMALL_LOOSE, CUT, SMALL_CUT = 3, 5, 2, 2
ROUND, STICKS, SHELLS, SMALL_ROUND = 4, 3, 2, 8
SHEETS, SMALL_SHEETS, PRINTS = 5, 5, 4
SMALL = 0.2  # of half the picture: the radius of a small thing
PARTS = 6  # boxes a piece of furniture

# Furniture in a cube of -1..1, y downwards: (x, y, z, half width, half height, half depth) per part.
LEGS = [(x, 0.05, z, 0.06, 0.95, 0.06) for x in (-0.92, 0.92) for z in (-0.92, 0.92)]
LOW_LEGS = [(x, 0.55, z, 0.07, 0.45, 0.07) for x in (-0.9, 0.9) for z in (-0.9, 0.9)]
POSTS = [(x, 0.0, z, 0.03, 1.0, 0.03) for x in (-0.95, 0.95) for z in (-0.95, 0.95)]
Part = tuple[float, float, float, float, float, float]
PIECES: dict[str, tuple[float, list[Part]]] = {  # where other things stand on it, and its parts
    "table": (-1.0, [(0, -0.95, 0, 1, 0.05, 1), (0, 0.4, 0, 0.9, 0.03, 0.9), *LEGS]),
    "chair": (0.04, [(0, 0.1, 0, 1, 0.06, 1), (0, -0.5, 0.94, 1, 0.5, 0.06), *LOW_LEGS]),
    "shelf": (
        -1.0,
        [(x, 0, 0, 0.05, 1, 1) for x in (-0.95, 0.95)] + [(0, y, 0, 0.95, 0.04, 1) for y in (-0.96, -0.3, 0.3, 0.9)],
    ),
    "carton": (
        0.94,
        [
            (0, 0.97, 0, 1, 0.03, 1),
            (-0.97, 0, 0, 0.03, 1, 1),
            (0.97, 0, 0, 0.03, 1, 1),
            (0, 0, -0.97, 1, 1, 0.03),
            (0, 0, 0.97, 1, 1, 0.03),
            (1.3, -0.98, 0, 0.3, 0.02, 1),
        ],
    ),
    "books": (
        -1.0,
        [(0.12 * math.sin(9 * i), 0.83 - i / 3, 0, 0.95 - 0.1 * (i % 3), 1 / 6, 0.9) for i in range(6)],
    ),
    "sofa": (
        0.0,
        [
            (0, 0.5, 0, 1, 0.5, 1),
            (0, -0.2, 0.8, 1, 0.8, 0.2),
            (-0.9, 0.2, 0, 0.12, 0.8, 1),
            (0.9, 0.2, 0, 0.12, 0.8, 1),
            (-0.42, -0.1, 0.4, 0.35, 0.35, 0.14),
            (0.4, -0.05, 0.45, 0.3, 0.3, 0.12),
        ],
    ),
    "stairs": (-0.66, [(0, (5 - i) / 6, i / 3 - 5 / 6, 1, (i + 1) / 6, 1 / 6) for i in range(6)]),
    "monitor": (
        -1.0,
        [
            (0, -0.35, 0, 1, 0.62, 0.06),
            (0, 0.5, 0, 0.08, 0.4, 0.08),
            (0, 0.95, 0, 0.4, 0.05, 0.4),
            (0, 0.96, -0.9, 0.7, 0.04, 0.25),
            (-1.3, 0.4, 0, 0.18, 0.6, 0.2),
            (1.3, 0.4, 0, 0.18, 0.6, 0.2),
        ],
    ),
    "rack": (-1.0, [(0, -0.97, 0, 1, 0.03, 1), (0, 0.2, 0, 1, 0.03, 1), *POSTS]),
    "frame": (
        -1.0,
        [
            (-0.96, 0, 0, 0.04, 1, 0.06),
            (0.96, 0, 0, 0.04, 1, 0.06),
            (0, -0.96, 0, 1, 0.04, 0.06),
            (0, 0.96, 0, 1, 0.04, 0.06),
            (0, 0, 0, 0.03, 1, 0.04),
            (0, 0, 0, 1, 0.03, 0.04),
        ],
    ),
    "row": (
        -0.9,
        [(-0.84 + i / 3, 0.1 + 0.1 * math.sin(5 * i), 0, 1 / 6.5, 0.9 - 0.1 * math.sin(5 * i), 1) for i in range(6)],
    ),
}
USUAL_SIZES: dict[str, tuple[float, float, float]] = {  # half width, half height, half depth in metres
    "table": (0.65, 0.37, 0.4),
    "chair": (0.23, 0.45, 0.25),
    "shelf": (0.45, 0.9, 0.17),
    "carton": (0.22, 0.16, 0.17),
    "books": (0.13, 0.14, 0.1),
    "sofa": (0.9, 0.42, 0.43),
    "stairs": (0.5, 0.52, 0.8),
    "monitor": (0.28, 0.22, 0.18),
    "rack": (0.4, 0.6, 0.3),
    "frame": (0.45, 1.0, 0.04),
    "row": (0.35, 0.14, 0.1),
}
THING = 0.4  # metres: what half the picture is to the sizes of loose things where all have their usual size
PIECE_CLASSES = tuple(CLASSES.index("books" if name == "row" else name) for name in PIECES)


@dataclass(frozen=True)
class Stage:
    """A camera in a room (b scenes). The world's axes are the room's, y downwards, camera at the origin."""

    low: torch.Tensor  # (b, 3) the room's corners, metres
    high: torch.Tensor  # (b, 3)
    turn: torch.Tensor  # (b, 3, 3) camera to world
    f_px: torch.Tensor  # (b,)
    spread: torch.Tensor  # (b, 2) tangents of half the angle of view, across and down
    near: torch.Tensor  # (b,) metres: nothing is nearer
    closest: torch.Tensor  # (b,) share of the way to the wall at which the nearest things stand
    aside: torch.Tensor  # (b, 2) how far off the optical axis the picture's middle lies, as tangents
    true_size: bool = False  # everything has its usual size, whatever it looks like from here

    def half_picture(self, depth: torch.Tensor) -> torch.Tensor:
        """Metres that fill half the picture's shorter side at a depth (b, k)."""
        return depth * self.spread.amin(1, keepdim=True)

    def unit(self, depth: torch.Tensor) -> torch.Tensor:
        """What the sizes of things at a depth (b, k) are shares of, in metres."""
        return torch.full_like(depth, THING) if self.true_size else self.half_picture(depth)


@dataclass(frozen=True)
class Bodies:
    """Where some things are (b scenes, k things)."""

    centre: torch.Tensor  # (b, k, 3) metres
    half: torch.Tensor  # (b, k, 3) metres
    turn: torch.Tensor  # (b, k, 3, 3) own frame to world
    present: torch.Tensor  # (b, k) bool


@dataclass(frozen=True)
class Habit:
    """How some things stand about."""

    upright: float  # the share that is not tilted
    sizes: tuple[float, float]  # half sizes as shares of half the picture


LARGE_SIZES, SMALL_SIZES = (0.12, 0.5), (0.03, 0.25)


def new_rays(stage: Stage, height: int, width: int) -> Rays:
    """A ray through the centre of each pixel."""
    device = stage.f_px.device
    x = (torch.arange(width, device=device) - (width - 1) / 2) / stage.f_px[:, None] + stage.aside[:, :1]
    y = (torch.arange(height, device=device) - (height - 1) / 2) / stage.f_px[:, None] + stage.aside[:, 1:]
    return Rays(x[:, None, :], y[:, :, None], stage.turn)


def rotation(yaw: torch.Tensor, pitch: torch.Tensor, roll: torch.Tensor) -> torch.Tensor:
    """Rotations (..., 3, 3): roll about z first, then pitch about x (positive looks down), then yaw about y."""
    zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)

    def stack(*values: torch.Tensor) -> torch.Tensor:
        return torch.stack(values, -1).unflatten(-1, (3, 3))

    cy, sy, cp, sp, cr, sr = yaw.cos(), yaw.sin(), pitch.cos(), pitch.sin(), roll.cos(), roll.sin()
    about_y = stack(cy, zero, sy, zero, one, zero, -sy, zero, cy)
    about_x = stack(one, zero, zero, zero, cp, sp, zero, -sp, cp)
    about_z = stack(cr, -sr, zero, sr, cr, zero, zero, zero, one)
    return product(product(about_y, about_x), about_z)


def new_stage(dice: Dice, b: int, height: int, width: int) -> Stage:
    """Close-ups of a tabletop before a backdrop, whole rooms, and corners."""
    kind = dice.between(0, 1, b)
    close, corner = kind < 0.5, kind > 0.8
    f_px = 0.5 * max(height, width) / torch.tan(dice.between(20, 37, b).deg2rad())
    spread = torch.stack([0.5 * width / f_px, 0.5 * height / f_px], 1)
    far = torch.where(close, dice.spread(0.6, 3, b), dice.spread(2.2, 9, b))
    floor = torch.where(close, far * dice.between(0.18, 0.5, b), torch.minimum(dice.between(0.8, 1.8, b), far * 0.45))
    ceiling = torch.where(close, far * dice.between(0.6, 2, b), dice.between(0.6, 1.6, b))
    wide = far[:, None] * torch.where(close[:, None], dice.between(0.7, 2.5, b, 2), dice.between(0.35, 1.2, b, 2))
    low = torch.stack([-wide[:, 0], -ceiling, -far * dice.between(0.3, 1, b)], 1)
    high = torch.stack([wide[:, 1], floor, far], 1)
    yaw = torch.where(close, dice.between(-0.4, 0.4, b), dice.between(-0.7, 0.7, b))
    yaw = torch.where(corner, dice.between(0.5, 1.1, b) * dice.among([-1.0, 1.0], b), yaw)
    pitch = torch.where(close, dice.between(-0.05, 0.25, b), dice.between(-0.12, 0.4, b))
    pitch = torch.where(close & dice.chance(0.4, b), dice.between(0.2, 0.7, b), pitch)
    roll = dice.normal(b) * torch.where(dice.chance(0.15, b), 0.15, 0.03)
    closest = torch.where(close, dice.between(0.45, 0.85, b), dice.between(0.25, 0.7, b))
    near = (far * closest * 0.5).clamp(min=0.1)
    return Stage(low, high, rotation(yaw, pitch, roll), f_px, spread, near, closest, torch.zeros_like(spread))


def eye_level(dice: Dice, b: int, height: int, width: int) -> Stage:
    """Rooms as high as rooms are, seen by somebody who stands or sits in them: the floor tells how far things are."""
    f_px = 0.5 * max(height, width) / torch.tan(dice.between(25, 35, b).deg2rad())
    spread = torch.stack([0.5 * width / f_px, 0.5 * height / f_px], 1)
    far, floor = dice.spread(2.2, 7, b), dice.between(1.1, 1.7, b)
    ceiling = dice.between(2.4, 2.9, b) - floor
    wide = dice.spread(1, 4, b, 2)
    low = torch.stack([-wide[:, 0], -ceiling, -far * dice.between(0.3, 1, b)], 1)
    high = torch.stack([wide[:, 1], floor, far], 1)
    corner = dice.chance(0.25, b)
    yaw = torch.where(corner, dice.between(0.5, 1.1, b) * dice.among([-1.0, 1.0], b), dice.between(-0.6, 0.6, b))
    turn = rotation(yaw, dice.between(-0.05, 0.45, b), dice.normal(b) * 0.03)
    closest = dice.between(0.2, 0.6, b)
    near = (far * closest * 0.5).clamp(min=0.5)
    return Stage(low, high, turn, f_px, spread, near, closest, torch.zeros_like(spread), true_size=True)


def closer(dice: Dice, stage: Stage, zoom: float) -> Stage:
    """The camera with 1 to ``zoom`` times the focal length, mostly looking near the middle of what it saw before."""
    by = dice.spread(1, zoom, len(stage.f_px))
    off = (dice.between(-1, 1, *stage.spread.shape) + dice.between(-1, 1, *stage.spread.shape)) / 2
    return replace(stage, f_px=stage.f_px * by, aside=off * stage.spread * (1 - 1 / by[:, None]))


def spots(dice: Dice, stage: Stage, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points (b, k, 3) that the camera would see in an empty room, and their depth (b, k)."""
    b = len(stage.f_px)
    x, y = (dice.between(-1.05, 1.05, b, k) * stage.spread[:, i, None] for i in (0, 1))
    way = torch.stack([x, y, torch.ones_like(x)], -1) @ stage.turn.mT
    wall = torch.maximum(stage.low[:, None] / way, stage.high[:, None] / way).amin(-1)
    depth = wall * (1 - (1 - stage.closest[:, None]) * dice.between(0, 1, b, k) ** 1.4)
    depth = torch.maximum(depth, stage.near[:, None] * 1.3)
    return way * depth[..., None], depth


def any_turn(dice: Dice, b: int, k: int, upright: float) -> torch.Tensor:
    """Turned about the vertical; all but a share ``upright`` also tilted."""
    tilt = dice.normal(b, k, 2) * 0.7 * ~dice.chance(upright, b, k, 1)
    return rotation(dice.between(-math.pi, math.pi, b, k), tilt[..., 0], tilt[..., 1])


def furniture(dice: Dice, stage: Stage) -> tuple[Bodies, torch.Tensor, Bodies]:
    """The boxes of a few pieces of furniture, their classes (b, k), and the boards that things stand on."""
    b, k = len(stage.f_px), FURNITURE
    parts = torch.tensor([p for _, p in PIECES.values()], device=dice.device)
    boards = torch.tensor([t for t, _ in PIECES.values()], device=dice.device)
    usual = torch.tensor([USUAL_SIZES[name] for name in PIECES], device=dice.device)
    kind = dice.below(len(PIECES), b, k)
    place, depth = spots(dice, stage, k)
    if stage.true_size:
        half = usual[kind] * dice.spread(0.85, 1.2, b, k, 3)
    else:
        size = stage.half_picture(depth) * dice.spread(0.2, 0.8, b, k)
        half = size[..., None] * dice.spread(0.6, 1.6, b, k, 3)
    half[..., 1] = torch.minimum(half[..., 1], (stage.high - stage.low)[:, None, 1] * 0.45)
    floor = stage.high[:, 1, None] - half[..., 1]
    y = torch.where(dice.chance(1.0 if stage.true_size else 0.85, b, k), floor, torch.minimum(floor, place[..., 1]))
    centre = torch.stack([place[..., 0], y, place[..., 2]], -1)
    facing = dice.among([0.0, 0.0, 1.57, 3.14], b, k) + dice.normal(b, k) * 0.4
    turn = rotation(facing, 0 * facing, 0 * facing)
    present = dice.chance(0.75, b, k)
    shape = parts[kind] * (1 + dice.normal(b, k, PARTS, 6) * 0.04)
    offset = (turn[:, :, None] @ (shape[..., :3] * half[:, :, None])[..., None])[..., 0]
    part_centre = (centre[:, :, None] + offset).flatten(1, 2)
    part_turn = turn[:, :, None].expand(b, k, PARTS, 3, 3).flatten(1, 2)
    here = (present[:, :, None] & dice.chance(0.95, b, k, PARTS)).flatten(1, 2)
    boxes = Bodies(part_centre, (shape[..., 3:] * half[:, :, None]).flatten(1, 2), part_turn, here)
    classes = torch.tensor(PIECE_CLASSES, device=dice.device)[kind].repeat_interleave(PARTS, 1)
    top = centre + torch.stack([0 * y, boards[kind] * half[..., 1], 0 * y], -1)
    return boxes, classes, Bodies(top, half, turn, present)


def loose(dice: Dice, stage: Stage, boards: Bodies, shape: torch.Tensor, habit: Habit) -> Bodies:
    """Things of the proportions ``shape`` (b, k, 3) on boards, on the floor, or in mid-air."""
    b, k = shape.shape[:2]
    place, _ = spots(dice, stage, k)
    which = dice.below(FURNITURE, b, k)
    on_board = dice.chance(0.45, b, k) & boards.present.gather(1, which)
    index = which[..., None].expand(b, k, 3)
    top, top_half = boards.centre.gather(1, index), boards.half.gather(1, index)
    aside = top_half * dice.between(-0.8, 0.8, b, k, 3) * torch.tensor([1.0, 0.0, 1.0], device=dice.device)
    turn = boards.turn.gather(1, which[..., None, None].expand(b, k, 3, 3))
    place = torch.where(on_board[..., None], top + (turn @ aside[..., None])[..., 0], place)
    turn = any_turn(dice, b, k, habit.upright)
    share = dice.spread(*habit.sizes, b, k)
    floating = dice.chance(0.04 if stage.true_size else 0.2, b, k) & ~on_board
    base = torch.where(on_board, place[..., 1], stage.high[:, 1, None])
    centre, half = place, shape
    for _ in range(2):  # its size follows from its depth, which changes when it is put down
        far = (centre @ stage.turn[:, :, 2:])[..., 0].clamp(min=0.05)
        half = stage.unit(far)[..., None] * shape * share[..., None]
        if habit.sizes == SMALL_SIZES:
            half = half * (SMALL * stage.half_picture(far) / half.norm(dim=-1)).clamp(max=1)[..., None]
        tall = (turn[..., 1, :].abs() * half).sum(-1)  # half the height as it stands
        y = torch.where(floating, torch.minimum(place[..., 1], base - tall), base - tall)
        centre = torch.stack([place[..., 0], y, place[..., 2]], -1)
    return Bodies(centre, half, turn, dice.chance(dice.between(0.45, 1, b, 1), b, k))


def sheets(dice: Dice, stage: Stage, boards: Bodies, k: int, sizes: tuple[float, float]) -> Bodies:
    """Cut-outs that mostly face the camera; some large ones hang like cloths."""
    b = len(stage.f_px)
    shape = dice.spread(0.5, 1.6, b, k, 3)
    if sizes == LARGE_SIZES:
        shape[:, 0] *= 1 + 2 * dice.chance(0.3, b, 1)
    shape[..., 2] = 0.01
    bodies = loose(dice, stage, boards, shape, Habit(1.0, sizes))
    view = torch.atan2(bodies.centre[..., 0], bodies.centre[..., 2]) + dice.normal(b, k) * 0.6
    lean = dice.normal(b, k, 2) * torch.where(dice.chance(0.4, b, k, 1), 0.5, 0.1)
    half = bodies.half.clone()
    half[..., 2] = 1  # metres, so that the relief is in metres too
    return Bodies(bodies.centre, half, rotation(view, lean[..., 0], lean[..., 1]), bodies.present)


def prints(dice: Dice, stage: Stage) -> Bodies:
    """Posters, rugs and stains flat on walls and floor: edges in colour without edges in depth."""
    b, k = len(stage.f_px), PRINTS
    place, depth = spots(dice, stage, k)
    way = place / depth[..., None]
    hits = torch.maximum(stage.low[:, None] / way, stage.high[:, None] / way)
    wall, axis = hits.min(-1)
    size = stage.unit(wall) * dice.spread(0.1, 0.6, b, k)
    half = size[..., None] * dice.spread(0.6, 1.5, b, k, 3)
    half[..., 2] = 1
    quarter = torch.where(axis == 0, math.pi / 2, 0.0)
    tip = torch.where(axis == 1, math.pi / 2, 0.0)
    slant = dice.normal(b, k) * torch.where(axis == 1, 1.0, 0.03)
    # A hair's breadth before the wall: 0.05 % of the way to it.
    return Bodies(way * (wall * 0.9995)[..., None], half, rotation(quarter, tip, slant), dice.chance(0.5, b, k))


def profiles(dice: Dice, b: int, k: int) -> torch.Tensor:
    """Balls, cylinders, cones, cut cones, domes, barrels, waists: (b, k, 3)."""
    slant = dice.between(-0.45, 0.45, b, k)
    one, zero = torch.ones_like(slant), torch.zeros_like(slant)
    straight = 1 - slant.abs()
    kinds = [
        (one, zero, -one),
        (one, zero, zero),
        (0.25 * one, 0.5 * one, 0.25 * one),
        (straight**2, 2 * straight * slant, slant**2),
        (0.75 * one, 0.5 * one, -0.25 * one),
        (one, zero, -slant.abs() * 1.5),
        (0.4 * one, zero, 0.6 * one),
        (one, zero, -one),
    ]
    table = torch.stack([torch.stack(kind, -1) for kind in kinds], -2)
    which = dice.below(len(kinds), b, k)[..., None, None].expand(b, k, 1, 3)
    return table.gather(2, which)[:, :, 0]


def new_bodies(dice: Dice, stage: Stage) -> tuple[dict[str, Bodies], torch.Tensor]:
    """All that stands in the rooms, family by family in the order of the slots, and the furniture's classes."""
    b = len(stage.f_px)
    parts, classes, boards = furniture(dice, stage)

    def some(k: int, low: float, high: float, upright: float, small: bool = False, turned: bool = False) -> Bodies:
        shape = dice.spread(low, high, b, k, 3)
        if turned:  # as on a lathe, but for a few
            shape = torch.where(dice.chance(0.75, b, k, 1), shape[..., [0, 1, 0]], shape)
        return loose(dice, stage, boards, shape, Habit(upright, SMALL_SIZES if small else LARGE_SIZES))

    slim = torch.stack([dice.spread(0.03, 0.12, b, STICKS), dice.spread(1, 2.5, b, STICKS)], -1)[..., [0, 1, 0]]
    families = {
        "furniture": parts,
        "boxes": some(LOOSE, 0.25, 1.6, 0.8),
        "small boxes": some(SMALL_LOOSE, 0.25, 1.6, 0.8, small=True),
        "cut": some(CUT, 0.6, 1.4, 0.5),
        "small cut": some(SMALL_CUT, 0.6, 1.4, 0.5, small=True),
        "rounds": some(ROUND, 0.5, 1.4, 0.75, turned=True),
        "sticks": loose(dice, stage, boards, slim, Habit(0.3, LARGE_SIZES)),
        "small rounds": some(SMALL_ROUND, 0.4, 1.5, 0.75, small=True, turned=True),
        "shells": some(SHELLS, 0.6, 1.5, 0.7, turned=True),
        "sheets": sheets(dice, stage, boards, SHEETS, LARGE_SIZES),
        "small sheets": sheets(dice, stage, boards, SMALL_SHEETS, SMALL_SIZES),
        "prints": prints(dice, stage),
    }
    return families, classes


def new_things(dice: Dice, stage: Stage, silhouettes: torch.Tensor) -> tuple[Things, torch.Tensor, torch.Tensor]:
    """What rays can hit, its half sizes (b, k, 3), and classes (b, 6 + k) with the room's faces first."""
    b = len(stage.f_px)
    families, part_classes = new_bodies(dice, stage)
    centre, half, turn, present = (
        torch.cat([getattr(family, name) for family in families.values()], 1)
        for name in ("centre", "half", "turn", "present")
    )
    counts = {name: family.half.shape[1] for name, family in families.items()}
    ends = dict(zip(counts, accumulate(counts.values()), strict=True))
    to_local = turn.mT / half[..., None]
    eye = -product(to_local, centre[..., None])[..., 0]
    outside = ((eye.abs() - 1) * half).amax(-1)
    outside[:, ends["shells"] :] = torch.inf  # nobody can be inside a sheet
    per_kind = len(silhouettes) // len(SILHOUETTES)
    mask = dice.below(len(silhouettes), b, SHEETS + SMALL_SHEETS)
    mask = torch.where(dice.chance(0.55, b, 1), mask, mask % (3 * per_kind))  # thin things: not everywhere
    relief = half[:, ends["shells"] : ends["small sheets"], 0] * dice.between(0, 0.5, b, mask.shape[1])
    straight = torch.tensor([1.0, 0.0, 0.0], device=dice.device).expand(b, STICKS, 3)
    profile = [profiles(dice, b, ROUND), straight, profiles(dice, b, SMALL_ROUND + SHELLS)]
    things = Things(
        centre=centre,
        to_local=to_local,
        eye=eye,
        present=present & (outside > stage.near[:, None]),
        boxes=ends["small cut"],
        cuts=dice.normal(b, CUT + SMALL_CUT, 2, 3) * 0.75,
        profile=torch.cat(profile, 1),
        shells=SHELLS,
        mask=torch.cat([mask, dice.below(per_kind, b, PRINTS)], 1),
        relief=functional.pad(relief, (0, PRINTS)),
        small=frozenset(k for n in counts if n.startswith("small") for k in range(ends[n] - counts[n], ends[n])),
        silhouettes=silhouettes,
    )
    of_families = {
        "boxes": "carton",
        "small boxes": "carton",
        "cut": "block",
        "small cut": "block",
        "prints": "print",
    }
    named = [CLASSES.index(of_families.get(name, "round")) for name, n in counts.items() for _ in range(n)]
    classes = torch.tensor([*ROOM_CLASSES, *named], device=dice.device).repeat(b, 1)
    classes[:, ROOM : ROOM + ends["furniture"]] = part_classes
    classes[:, ROOM + ends["shells"] : ROOM + ends["small sheets"]] = SHEET_CLASS + mask // per_kind
    return things, half, classes
