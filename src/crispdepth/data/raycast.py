"""Where rays meet boxes, rounds and sheets: exact planar depth, which thing was hit, and shadows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

# Every scene has the same slots; a slot that is not `present` in a scene is simply never hit.
ROOM = 6  # things 0..5 are the faces of the room: left, right, ceiling, floor, behind, front
Triple = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Things:
    """Everything that a ray can hit, in the order: boxes, rounds, sheets (b scenes, k slots).

    A box is |x|, |y|, |z| ≤ 1 in its own frame, less what its two cuts take away (|cut·p| ≤ 1).
    A round is x² + z² ≤ a + b·y + c·y² with |y| ≤ 1: ball, cylinder, cone, dome, vase; the last are hollow.
    A sheet is the part of the plane z = 0 inside a silhouette, raised towards the camera by a relief.
    """

    centre: torch.Tensor  # (b, k, 3) metres
    to_local: torch.Tensor  # (b, k, 3, 3) turns and scales world into the thing's own frame
    eye: torch.Tensor  # (b, k, 3) the camera, which is the world's origin, in that frame
    present: torch.Tensor  # (b, k) bool
    boxes: int  # how many of the slots are boxes
    cuts: torch.Tensor  # (b, n, 2, 3): the last n boxes are cut
    profile: torch.Tensor  # (b, rounds, 3): a, b, c
    shells: int  # how many of the rounds, the last ones, have no lids
    mask: torch.Tensor  # (b, sheets) long: which silhouette
    relief: torch.Tensor  # (b, sheets) metres
    small: frozenset[int]  # slots of things that surely fit into a third of the picture's width and height
    silhouettes: torch.Tensor  # (m, 4, s, s): inside where the first is positive; height; its slopes

    @property
    def rounds(self) -> int:
        return self.profile.shape[1]

    @property
    def sheets(self) -> int:
        return self.mask.shape[1]


@dataclass(frozen=True)
class Rays:
    """One ray per pixel, (x, y, 1) in the camera's frame, so that a ray's parameter is planar Z."""

    x: torch.Tensor  # (b, 1, w)
    y: torch.Tensor  # (b, h, 1)
    turn: torch.Tensor  # (b, 3, 3) camera to world

    def window(self, centre: torch.Tensor) -> tuple[Rays, torch.Tensor]:
        """The rays of a third of the picture around the point ``centre`` (b, 3), and their numbers (b, n)."""
        h, w = self.y.shape[1], self.x.shape[2]
        x, y, z = (centre[:, None] @ self.turn)[:, 0].unbind(1)
        step = (self.x[:, 0, -1] - self.x[:, 0, 0]) / (w - 1)
        part = [torch.arange((size + 2) // 3, device=z.device) for size in (h, w)]
        index = []
        for at, start, steps in ((y, self.y[:, 0, 0], part[0]), (x, self.x[:, 0, 0], part[1])):
            size = h if at is y else w
            first = (at / z.clamp(min=1e-3) - start) / step - len(steps) / 2
            index.append(first.round().clamp(0, size - len(steps)).long()[:, None] + steps)
        rows, columns = index
        rays = Rays(self.x.gather(2, columns[:, None]), self.y.gather(1, rows[..., None]), self.turn)
        return rays, (rows[..., None] * w + columns[:, None]).flatten(1)

    def along(self, to_local: torch.Tensor) -> Triple:
        """The rays' directions, three of (b, h, w), after the map ``to_local`` (b, 3, 3) of the world."""
        m = product(to_local, self.turn)[..., None, None]
        first, second, third = (m[:, i, 0] * self.x + m[:, i, 2] + m[:, i, 1] * self.y for i in range(3))
        return first, second, third


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Matrix product of small matrices (..., i, j) and (..., j, k), exact whatever a trainer sets for TF32."""
    return (a[..., :, :, None] * b[..., None, :, :]).sum(-2)


def column(values: torch.Tensor) -> torch.Tensor:
    """(b,) to (b, 1, 1)."""
    return values[:, None, None]


def slab(eye: torch.Tensor, direction: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where a ray enters and leaves -1..1 along one axis."""
    reach = direction.reciprocal()
    middle = reach * -eye
    reach.abs_()
    return middle - reach, middle.add_(reach)


def box_depth(eye: torch.Tensor, rays: Triple, cuts: torch.Tensor | None, near: torch.Tensor) -> torch.Tensor:
    """Depth (b, h, w) of the box seen from ``eye`` (b, 3); infinite where missed or nearer than ``near``."""
    enter, leave = slab(column(eye[:, 0]), rays[0])
    walls = [(column(eye[:, i]), rays[i]) for i in (1, 2)]
    for cut in () if cuts is None else cuts.unbind(1):
        cx, cy, cz = (column(c) for c in cut.unbind(1))
        walls.append((column((eye * cut).sum(1)), rays[0] * cx + rays[1] * cy + rays[2] * cz))
    for start, direction in walls:
        low, high = slab(start, direction)
        torch.maximum(enter, low, out=enter)
        torch.minimum(leave, high, out=leave)
    return enter.masked_fill_((enter >= leave) | (enter < near), torch.inf)


def round_roots(eye: torch.Tensor, rays: Triple, profile: torch.Tensor) -> Triple:
    """Where rays cross the round side: the first and the second time, and the quadratic's leading factor."""
    (dx, dy, dz), (ox, oy, oz) = rays, (column(e) for e in eye.unbind(1))
    a, b, c = (column(p) for p in profile.unbind(1))
    square = (dx * dx).addcmul_(dz, dz).addcmul_(dy, dy * -c)
    half = (dx * -ox).addcmul_(dz, -oz).addcmul_(dy, c * oy + b / 2)
    constant = ox * ox + oz * oz - a - b * oy - c * oy * oy
    root = (half * half).addcmul_(square, -constant)
    share = square.reciprocal()
    reach = root.clamp_(min=0).sqrt_().mul_(share).abs_()  # 0 where the ray misses: both crossings are one
    middle = half.mul_(share)
    return middle - reach, middle.add_(reach), square


def round_depth(eye: torch.Tensor, rays: Triple, profile: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
    """Depth (b, h, w) of a solid round body; ``profile`` (b, 3) is a, b, c."""
    first, second, square = round_roots(eye, rays, profile)
    low, high = slab(column(eye[:, 1]), rays[1])
    enter, leave = torch.maximum(first, low), torch.minimum(second, high)
    # Seen steeply, a cone's inside is what lies outside the two crossings.
    steep = square < 0
    over = torch.where(low >= first, torch.maximum(second, low), low)
    enter, leave = torch.where(steep, over, enter), torch.where(steep, high, leave)
    return enter.masked_fill_(~((enter < leave) & (enter > near)), torch.inf)


def shell_depth(eye: torch.Tensor, rays: Triple, profile: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
    """Depth (b, h, w) of a round body without lids: pots, tubes, lampshades; one can look inside."""
    first, second, _ = round_roots(eye, rays, profile)
    depth = torch.full_like(first, torch.inf)
    crossed = second > first
    for side in (second, first):
        good = ((rays[1] * side).add_(column(eye[:, 1])).abs_() <= 1) & (side > near) & crossed
        depth = torch.where(good, side, depth)
    return depth


def sheet_depth(
    eye: torch.Tensor, rays: Triple, silhouette: torch.Tensor, relief: torch.Tensor, near: torch.Tensor
) -> torch.Tensor:
    """Depth (b, h, w) of a sheet cut out by ``silhouette`` (b, 2, s, s) and raised by ``relief`` (b,) metres."""
    depth = -column(eye[:, 2]) / rays[2]
    place = [(rays[i] * depth).add_(column(eye[:, i])) for i in (0, 1)]
    inside = functional.grid_sample(silhouette, torch.stack(place, -1), align_corners=False)
    depth.addcmul_(inside[:, 1], -column(relief))
    return depth.masked_fill_(~((inside[:, 0] > 0) & (depth > near)), torch.inf)


def room_depth(rays: Rays, low: torch.Tensor, high: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth and face (b, h, w) of the room from inside; its corners ``low`` < 0 < ``high`` are (b, 3) metres."""
    identity = torch.eye(3, device=low.device).expand(len(low), 3, 3)
    depth, face = torch.empty(0), torch.empty(0)
    for axis, direction in enumerate(rays.along(identity)):
        reach = direction.reciprocal()
        wall = torch.maximum(reach * column(low[:, axis]), reach * column(high[:, axis]))
        here = (direction > 0).long() + 2 * axis
        closer = wall < depth if axis else torch.ones_like(direction, dtype=torch.bool)
        depth = torch.where(closer, wall, depth) if axis else wall
        face = torch.where(closer, here, face) if axis else here
    return depth, face


def trace(
    things: Things, rays: Rays, room: tuple[torch.Tensor, torch.Tensor], near: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth in metres and the thing that is seen, both (b, h, w); nothing is hit nearer than ``near`` (b,)."""
    depth, seen = room_depth(rays, *room)
    for k in range(things.present.shape[1]):
        if k in things.small:
            few, numbers = rays.window(things.centre[:, k])
            here = thing_depth(things, k, few, near).flatten(1)
            before = depth.flatten(1).gather(1, numbers)
            closer = here < before
            named = seen.flatten(1).gather(1, numbers).masked_fill_(closer, ROOM + k)
            depth.view(len(depth), -1).scatter_(1, numbers, torch.where(closer, here, before))
            seen.view(len(seen), -1).scatter_(1, numbers, named)
            continue
        here = thing_depth(things, k, rays, near)
        closer = here < depth
        depth = torch.where(closer, here, depth)
        seen.masked_fill_(closer, ROOM + k)
    return depth, seen


def thing_depth(things: Things, k: int, rays: Rays, near: torch.Tensor) -> torch.Tensor:
    """Depth (b, h, w) of slot ``k`` alone; infinite where it is not hit or not present."""
    eye, local = things.eye[:, k], rays.along(things.to_local[:, k])
    start = column(torch.where(things.present[:, k], near, torch.inf))
    if k < things.boxes:
        cut = k - things.boxes + things.cuts.shape[1]
        return box_depth(eye, local, things.cuts[:, cut] if cut >= 0 else None, start)
    k -= things.boxes
    if k < things.rounds:
        body = round_depth if k < things.rounds - things.shells else shell_depth
        return body(eye, local, things.profile[:, k], start)
    k -= things.rounds
    silhouette = things.silhouettes[things.mask[:, k], :2]
    return sheet_depth(eye, local, silhouette, things.relief[:, k], start)


def shadow(things: Things, points: torch.Tensor, light: torch.Tensor, softness: torch.Tensor) -> torch.Tensor:
    """How much of a far light in direction ``light`` (b, 3) reaches ``points`` (b, 3, n): (b, n) in 0..1.

    Boxes and rounds darken by how deep the ray goes through them, in metres over ``softness`` (b,): a soft
    border at the price of one division.
    """
    lit = torch.ones_like(points[:, 0])
    for k in range(things.boxes + things.rounds):
        local = torch.baddbmm(things.eye[:, k, :, None], things.to_local[:, k], points)
        toward = (things.to_local[:, k] @ light[:, :, None])[..., 0]
        toward = torch.where(toward.abs() < 1e-4, 1e-4, toward)
        if k < things.boxes:
            inside = box_shadow(local, toward)
        else:
            inside = round_shadow(local, toward, things.profile[:, k - things.boxes])
        inside.mul_((things.present[:, k] / softness)[:, None]).clamp_(0, 1)
        lit.mul_(inside.neg_().add_(1))
    return lit


def box_shadow(local: torch.Tensor, toward: torch.Tensor) -> torch.Tensor:
    """Metres of box (b, n) before points (b, 3, n) on the way ``toward`` (b, 3) the light."""
    reach = 1 / toward[..., None]
    middle = local * -reach
    reach = reach.abs()
    enter = (middle - reach).amax(1).clamp_(min=1e-3)
    return (middle + reach).amin(1).sub_(enter)


def round_shadow(local: torch.Tensor, toward: torch.Tensor, profile: torch.Tensor) -> torch.Tensor:
    """Metres of round body (b, n) before points (b, 3, n) on the way ``toward`` (b, 3) the light."""
    (x, y, z), (dx, dy, dz) = local.unbind(1), (t[:, None] for t in toward.unbind(1))
    a, b, c = (p[:, None] for p in profile.unbind(1))
    square = (dx * dx + dz * dz - c * dy * dy).clamp(min=1e-4)  # a cone lit from its tip has less shadow
    half = (x * dx).addcmul_(z, dz).sub_((y * c + b / 2) * dy).div_(square)
    constant = (x * x).addcmul_(z, z).sub_(y * (y * c + b) + a).div_(square)
    root = (half * half).sub_(constant).clamp_(min=0).sqrt_()
    enter = torch.maximum(-half - root, (-dy.sign() - y) / dy).clamp_(min=1e-3)
    return torch.minimum(root.sub_(half), (dy.sign() - y).div_(dy)).sub_(enter)
