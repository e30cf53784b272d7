"""What the camera sees of traced scenes: paint, light and shadow, then lens, noise and compression."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

from crispdepth.data.raycast import ROOM, Rays, Things, Triple, shadow
from crispdepth.data.textures import MIPS, Dice

KERNEL = 9  # pixels a side of the blur
TO_LUMA = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


@dataclass(frozen=True)
class Looks:
    """How each thing looks, the room's six faces first (b scenes, n things)."""

    to_local: torch.Tensor  # (b, n, 3, 3)
    eye: torch.Tensor  # (b, n, 3)
    half: torch.Tensor  # (b, n, 3) half sizes in metres
    colours: torch.Tensor  # (b, n, 9) three linear colours
    pattern: torch.Tensor  # (b, n) long
    repeats: torch.Tensor  # (b, n) patterns per metre
    shift: torch.Tensor  # (b, n, 2)
    fitted: torch.Tensor  # (b, n) bool: one pattern covers the whole thing, as a poster does
    gloss: torch.Tensor  # (b, n) 0..1
    patterns: torch.Tensor  # (p, 3, s, s) from `pattern_bank`


@dataclass(frozen=True)
class Light:
    """The light of each scene: from all around, from far away, and from a lamp."""

    ambient: torch.Tensor  # (b,)
    sun: torch.Tensor  # (b, 3) direction towards it, of length 1
    sun_strength: torch.Tensor  # (b,)
    softness: torch.Tensor  # (b,) metres: how soft the shadows are
    lamp: torch.Tensor  # (b, 3) place
    lamp_strength: torch.Tensor  # (b,)
    reach: torch.Tensor  # (b,) metres from the lamp at which half is left
    blinds: torch.Tensor  # (b, 2, 4) the plane through which the sun shines: p·e + offset
    blinds_mask: torch.Tensor  # (b,) long: which silhouette hangs in that plane
    blinds_dark: torch.Tensor  # (b,) 0 where there is none


def wide(values: torch.Tensor) -> torch.Tensor:
    """(b,) to (b, 1, 1)."""
    return values[:, None, None]


def gathered(table: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Rows of ``table`` (b, n, c) for each pixel of ``seen`` (b, h, w): (c, b, h, w)."""
    b, n, c = table.shape
    flat = (seen + torch.arange(b, device=seen.device)[:, None, None] * n).flatten()
    return table.reshape(b * n, c).T.contiguous().index_select(1, flat).view(c, *seen.shape)


def dot(a: Triple, b: Triple) -> torch.Tensor:
    return (a[0] * b[0]).addcmul_(a[1], b[1]).addcmul_(a[2], b[2])


def local_normals(things: Things, seen: torch.Tensor, place: Triple) -> Triple:
    """Outward normals, of any length, in each thing's own frame at ``place`` in that frame."""
    x, y, z = place
    ax, ay, az = x.abs(), y.abs(), z.abs()
    normal = [x * ((ax >= ay) & (ax >= az)), y * ((ay > ax) & (ay >= az)), z * ((az > ax) & (az > ay))]
    return cut_normals(things, seen, place, normal)


def cut_normals(things: Things, seen: torch.Tensor, place: Triple, normal: list[torch.Tensor]) -> Triple:
    """Replaces the box normals where a cut, a round or a sheet is seen."""
    total = ROOM + things.present.shape[1]
    batch, cut_count = things.cuts.shape[:2]
    first_round = ROOM + things.boxes
    extra = torch.zeros(batch, total, 9, device=seen.device)
    extra[:, first_round - cut_count : first_round, :6] = things.cuts.flatten(2)
    extra[:, first_round : first_round + things.rounds, 6:] = things.profile
    table = gathered(extra, seen)
    best = torch.maximum(torch.maximum(place[0].abs(), place[1].abs()), place[2].abs())
    for cut in ((table[0], table[1], table[2]), (table[3], table[4], table[5])):
        value = dot(cut, place)
        active = value.abs() > best
        normal = [torch.where(active, c * value, n) for c, n in zip(cut, normal, strict=True)]
        best = torch.maximum(best, value.abs())
    is_round = (seen >= first_round) & (seen < first_round + things.rounds)
    lid = place[1].abs() > 0.999
    slope = table[7].mul(-0.5).addcmul_(table[8], -place[1])
    side = (place[0].masked_fill(lid, 0), torch.where(lid, place[1], slope), place[2].masked_fill(lid, 0))
    normal = [torch.where(is_round, s, n) for s, n in zip(side, normal, strict=True)]
    slopes = sheet_slopes(things, seen, place)
    is_sheet = seen >= first_round + things.rounds
    flat = (slopes[0], slopes[1], torch.ones_like(slopes[0]))
    x, y, z = (torch.where(is_sheet, s, n) for s, n in zip(flat, normal, strict=True))
    return x, y, z


def sheet_slopes(things: Things, seen: torch.Tensor, place: Triple) -> tuple[torch.Tensor, torch.Tensor]:
    """How a sheet's relief tilts its normal along u and v (0 on all else)."""
    first = ROOM + things.boxes + things.rounds
    extra = torch.zeros(len(seen), first + things.sheets, 2, device=seen.device)
    extra[:, first:, 0], extra[:, first:, 1] = things.mask.float(), things.relief
    mask, relief = gathered(extra, seen)
    count = things.silhouettes.shape[0]
    grid = torch.stack([place[0], place[1], (mask * 2 + 1) / count - 1], -1)[None]
    bank = things.silhouettes[:, 2:].transpose(0, 1)[None]
    slopes = functional.grid_sample(bank, grid, align_corners=False)[0]
    return slopes[0] * relief, slopes[1] * relief


def surface(
    things: Things, looks: Looks, rays: Rays, depth: torch.Tensor, seen: torch.Tensor
) -> tuple[Triple, Triple, tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    """World points, unit normals towards the camera, pattern coordinates, and the cosine of view."""
    identity = torch.eye(3, device=depth.device).expand(len(depth), 3, 3)
    way = rays.along(identity)
    point = (way[0] * depth, way[1] * depth, way[2] * depth)
    table = gathered(torch.cat([looks.to_local.flatten(2), looks.eye, looks.half], 2), seen)
    rows = [(table[3 * i], table[3 * i + 1], table[3 * i + 2]) for i in range(3)]
    x, y, z = (dot(row, point).add_(table[9 + i]) for i, row in enumerate(rows))
    local = local_normals(things, seen, (x, y, z))
    columns = [(table[i], table[3 + i], table[6 + i]) for i in range(3)]
    nx, ny, nz = (dot(c, local) for c in columns)
    away = dot((nx, ny, nz), way)
    scale = dot((nx, ny, nz), (nx, ny, nz)).clamp_(min=1e-20).rsqrt_()
    scale.mul_(torch.where(away > 0, -1.0, 1.0))
    cosine = (away * scale).neg_().mul_(dot(way, way).rsqrt_())
    place = pattern_place(looks, seen, things, (x, y, z), local, (table[12], table[13], table[14]))
    return point, (nx * scale, ny * scale, nz * scale), place, cosine


def pattern_place(
    looks: Looks, seen: torch.Tensor, things: Things, place: Triple, normal: Triple, half: Triple
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pattern coordinates: one unit is one repeat of the pattern."""
    x, y, z = place
    side, top = normal[0].abs(), normal[1].abs()
    front = normal[2].abs()
    on_side, on_top = (side > front) & (side >= top), (top > front) & (top > side)
    u, u_half = torch.where(on_side, z, x), torch.where(on_side, half[2], half[0])
    v, v_half = torch.where(on_top, z, y), torch.where(on_top, half[2], half[1])
    first = ROOM + things.boxes
    is_round = (seen >= first) & (seen < first + things.rounds)
    turn = torch.atan2(x, z).mul_(2 / math.pi)
    u, v = torch.where(is_round, turn, u), torch.where(is_round, y, v)
    info = torch.cat([looks.repeats[..., None], looks.shift, looks.fitted[..., None].float()], 2)
    repeats, shift_u, shift_v, fitted = gathered(info, seen)
    u_rate = torch.where(fitted > 0, 0.5, u_half * repeats)
    v_rate = torch.where(fitted > 0, 0.5, v_half * repeats)
    return (u * u_rate).add_(shift_u), (v * v_rate).add_(shift_v)


def paint(
    looks: Looks, seen: torch.Tensor, place: tuple[torch.Tensor, torch.Tensor], texels: torch.Tensor
) -> torch.Tensor:
    """Albedo (3, b, h, w). ``texels`` (b, h, w): how many pattern pixels fall on one pixel of the image."""
    level = texels.clamp_(min=1).log2_().clamp_(max=MIPS - 1)
    info = torch.cat([looks.colours, looks.pattern[..., None].float()], 2)
    table = gathered(info, seen)
    count = looks.patterns.shape[0]
    # Mirrored repeats: every pattern joins itself without a seam.
    u, v = (1 - ((p * 0.5 + 0.25) % 1 * 4 - 2).abs() for p in place)
    grid = torch.stack([u, v, ((table[9] * MIPS + level) * 2 + 1) / count - 1], -1)[None]
    bank = looks.patterns.transpose(0, 1)[None]
    second, third, bright = functional.grid_sample(bank, grid, padding_mode="border", align_corners=False)[0]
    albedo = table[0:3].lerp(table[3:6], second[None]).lerp(table[6:9], third[None])
    return albedo.mul_(bright)


def light_up(
    things: Things,
    light: Light,
    point: Triple,
    normal: Triple,
    way: Triple,
    seen: torch.Tensor,
    corner: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Diffuse and glossy light (b, h, w) at each point; ``corner`` (b, h, w) darkens where walls meet."""
    sx, sy, sz = (wide(s) for s in light.sun.unbind(1))
    facing = dot(normal, (sx, sy, sz)).clamp_(min=0)
    lit = sunlit(things, light, point, normal, seen)
    direct = facing.mul_(lit).mul_(wide(light.sun_strength))
    to_lamp = [wide(c) - p for c, p in zip(light.lamp.unbind(1), point, strict=True)]
    square = dot((to_lamp[0], to_lamp[1], to_lamp[2]), (to_lamp[0], to_lamp[1], to_lamp[2]))
    near = square.clamp(min=1e-6).rsqrt_()
    lamp_facing = dot(normal, (to_lamp[0], to_lamp[1], to_lamp[2])).mul_(near).clamp_(min=0)
    fall = 1 / (1 + square / wide(light.reach * light.reach))
    around = (0.8 - 0.2 * normal[1]) * corner * wide(light.ambient)
    diffuse = around.add_(direct).addcmul_(lamp_facing, fall * wide(light.lamp_strength))
    # Blinn-Phong towards the sun only; the lamp's would rarely be seen.
    size = dot(way, way).rsqrt_()
    between = (sx - way[0] * size, sy - way[1] * size, sz - way[2] * size)
    shine = dot(normal, between).clamp_(min=0) * dot(between, between).clamp_(min=1e-6).rsqrt_()
    for _ in range(5):
        shine.square_()
    return diffuse, shine.mul_(lit).mul_(wide(light.sun_strength))


def sunlit(things: Things, light: Light, point: Triple, normal: Triple, seen: torch.Tensor) -> torch.Tensor:
    """How much of the sun reaches each point (b, h, w): 0..1.

    Worked out for every second pixel; the others take the mean of those neighbours that show the same thing,
    so no shadow leaks over an edge.
    """
    px, py, pz = (p[:, ::2, ::2] for p in point)
    start = torch.stack([p + n[:, ::2, ::2] * 2e-3 for p, n in zip((px, py, pz), normal, strict=True)], 1)
    few = shadow(things, start.flatten(2), light.sun, light.softness).view_as(px)
    few *= through_blinds(things, light, (px, py, pz))
    few_seen = seen[:, ::2, ::2].contiguous()
    total, weight = torch.zeros_like(point[0]), torch.full_like(point[0], 1e-6)
    h, w = seen.shape[1:]
    rows, columns = torch.arange(h, device=few.device), torch.arange(w, device=few.device)
    for row in (rows // 2, ((rows + 1) // 2).clamp(max=few.shape[1] - 1)):
        for column in (columns // 2, ((columns + 1) // 2).clamp(max=few.shape[2] - 1)):
            same = (few_seen[:, row][:, :, column] == seen).float()
            near = few[:, row][:, :, column]
            total.addcmul_(same, near)
            weight += same
    return total.addcmul_(near, (weight < 0.5).float()).div_(weight.clamp_(min=1))


def through_blinds(things: Things, light: Light, point: Triple) -> torch.Tensor:
    """The share of sun that comes through a window, a blind or leaves outside the picture."""
    grid = []
    for axis in (0, 1):
        ex, ey, ez, offset = (wide(e) for e in light.blinds[:, axis].unbind(1))
        grid.append((point[0] * ex).addcmul_(point[1], ey).addcmul_(point[2], ez).add_(offset))
    field = things.silhouettes[light.blinds_mask, :1]
    inside = functional.grid_sample(field, torch.stack(grid, -1), align_corners=False)[:, 0]
    return 1 - (inside * 12).clamp_(0, 1).mul_(wide(light.blinds_dark))


def shade(
    things: Things,
    looks: Looks,
    light: Light,
    rays: Rays,
    depth: torch.Tensor,
    seen: torch.Tensor,
    f_px: torch.Tensor,
) -> torch.Tensor:
    """Linear colours (b, 3, h, w) of what was traced; ``f_px`` (b,) is the focal length."""
    point, normal, place, cosine = surface(things, looks, rays, depth, seen)
    size = looks.patterns.shape[-1]
    rate = torch.where(looks.fitted, 0.5 / looks.half[..., :2].amin(-1), looks.repeats)
    texels = gathered(rate[..., None], seen)[0] * depth
    texels = texels.mul_(size / 2 / wide(f_px)).div_(cosine.clamp_(min=0.25))
    albedo = paint(looks, seen, place, texels)
    identity = torch.eye(3, device=depth.device).expand(len(depth), 3, 3)
    corner = room_corners(looks, point)
    diffuse, shine = light_up(things, light, point, normal, rays.along(identity), seen, corner)
    gloss = gathered(looks.gloss[..., None], seen)[0]
    return albedo.mul_(diffuse).add_(shine.mul_(gloss)).transpose(0, 1)


def room_corners(looks: Looks, point: Triple) -> torch.Tensor:
    """Less light reaches the edges of the room: 0.55..1."""
    closest = torch.zeros_like(point[0])
    dark = torch.ones_like(closest)
    for axis in range(3):
        scale, shift = looks.to_local[:, 0, axis, axis], looks.eye[:, 0, axis]
        gap = (1 - (point[axis] * wide(scale) + wide(shift)).abs()) / wide(scale)
        dark.mul_(1 - 0.35 * (gap * -6).clamp_(max=0).exp_())
    return dark.clamp_(0.55).add_(0.1).clamp_(max=1)


# The camera


def photograph(dice: Dice, linear: torch.Tensor) -> torch.Tensor:
    """A photo (b, 3, h, w) in 0..1 of linear colours: exposure, lens, noise, tone, compression."""
    b, _, h, w = linear.shape
    level = linear.mean((1, 2, 3), keepdim=True).clamp_(min=1e-4)
    exposure = dice.spread(0.13, 0.5, b, 1, 1, 1)
    exposure = torch.where(dice.chance(0.18, b, 1, 1, 1), dice.spread(0.012, 0.08, b, 1, 1, 1), exposure)
    warm = dice.between(-0.15, 0.45, b, 1, 1)  # lamps are rather yellow than blue
    balance = torch.cat([1 + warm * 0.5, torch.ones_like(warm), 1 - warm], 1)[..., None]
    balance = balance * (1 + dice.normal(b, 3, 1, 1) * 0.06)
    image = linear * (exposure / level * balance)
    image *= vignette(dice, b, h, w)
    image = noisy(dice, lens(dice, image))
    image = image.clamp_(0, 1).pow_(1 / 2.2)
    curve = dice.between(-0.2, 0.9, b, 1, 1, 1)
    image = image + curve * image * (1 - image) * (2 * image - 1)  # contrast
    grey = image.mean(1, keepdim=True)
    image = grey.lerp(image, dice.between(0.7, 1.35, b, 1, 1, 1))
    return compressed(dice, image.clamp_(0, 1)).clamp_(0, 1)


def vignette(dice: Dice, b: int, h: int, w: int) -> torch.Tensor:
    """Darker corners and slow changes of light over the picture, (b, 1, h, w)."""
    y = torch.linspace(-1, 1, h, device=dice.device)[:, None]
    x = torch.linspace(-1, 1, w, device=dice.device)
    corners = 1 - dice.between(0, 0.35, b, 1, 1, 1) * dice.chance(0.5, b, 1, 1, 1) * (x * x + y * y) / 2
    slow = functional.interpolate(dice.normal(b, 1, 4, 4), (h, w), mode="bicubic", align_corners=True)
    return corners * (slow * dice.between(0, 0.18, b, 1, 1, 1)).exp_()


def lens(dice: Dice, image: torch.Tensor) -> torch.Tensor:
    """Blur of random width, some of it from motion, some sharpened again; slight colour fringes."""
    b, _, h, w = image.shape
    r = KERNEL // 2
    line = torch.arange(-r, r + 1, device=dice.device, dtype=torch.float32)
    sigma = torch.stack([dice.between(0.55, 1.4, b), dice.between(0.55, 1.8, b)], 1)
    sigma = torch.where(dice.chance(0.7, b, 1), sigma[:, :1], sigma)  # mostly the same both ways
    narrow = torch.exp(-0.5 * (line / sigma[..., None]) ** 2)
    broad = torch.exp(-0.5 * (line / (sigma[..., None] + 0.7)) ** 2)
    one, two = (k[:, 0, :, None] * k[:, 1, None, :] for k in (narrow, broad))
    one, two = one / one.sum((1, 2), keepdim=True), two / two.sum((1, 2), keepdim=True)
    sharpen = wide(dice.between(0, 1.2, b) * dice.chance(0.35, b))
    kernel = (one * (1 + sharpen) - two * sharpen).repeat_interleave(3, 0)[:, None]
    padded = functional.pad(image.reshape(1, b * 3, h, w), (r, r, r, r), mode="replicate")
    blurred = functional.conv2d(padded, kernel, groups=b * 3).view(b, 3, h, w)
    fringe = dice.between(-0.4, 0.4, b, 1, 1) * dice.chance(0.3, b, 1, 1)
    red = blurred[:, 0].lerp(blurred[:, 0].roll(1, -1), fringe.clamp(min=0))
    blue = blurred[:, 2].lerp(blurred[:, 2].roll(1, -1), (-fringe).clamp(min=0))
    return torch.stack([red, blurred[:, 1], blue], 1)


def noisy(dice: Dice, image: torch.Tensor) -> torch.Tensor:
    """Shot and read noise, part of it smeared over neighbours as demosaicing does."""
    b, _, h, w = image.shape
    shot = dice.spread(3e-4, 2e-2, b, 1, 1, 1, towards_low=1.3)
    read = dice.spread(3e-4, 6e-3, b, 1, 1, 1, towards_low=1.3)
    grain = dice.normal(b, 3, h, w)
    smear = dice.between(0, 0.5, b, 1, 1, 1) * dice.chance(0.5, b, 1, 1, 1)
    grain[..., 1:] += grain[..., :-1] * smear
    grain[..., 1:, :] += grain[..., :-1, :] * smear
    return grain.mul_((image.clamp(min=0) * shot * shot * 4).add_(read * read).sqrt_()).add_(image)


def compressed(dice: Dice, image: torch.Tensor) -> torch.Tensor:
    """What JPEG does: 8 x 8 cosines in luma and chroma, rounded to random steps (none to strong)."""
    b, _, h, w = image.shape
    to_luma = torch.tensor(TO_LUMA, device=image.device)
    to_rgb = torch.tensor(TO_RGB, device=image.device)
    image = functional.pad(image, (0, -w % 8, 0, -h % 8), mode="replicate")
    rows, columns = image.shape[2] // 8, image.shape[3] // 8
    k = torch.arange(8, device=image.device, dtype=torch.float32)
    cosines = torch.cos((2 * k + 1) * k[:, None] * math.pi / 16) * 0.5
    cosines[0] *= math.sqrt(0.5)
    blocks = (to_luma @ image.flatten(2)).view(b, 3, rows, 8, columns, 8).transpose(3, 4)
    waves = cosines @ blocks @ cosines.T
    step = dice.spread(0.002, 0.05, b, 1, 1, 1, 1, 1) * dice.chance(0.6, b, 1, 1, 1, 1, 1) + 1e-4
    coarser = 1 + (k + k[:, None]) * 0.35  # fine waves are rounded more, and colour more than brightness
    step = step * coarser * torch.tensor([1.0, 1.8, 1.8], device=image.device).view(3, 1, 1, 1, 1)
    waves = (waves / step).round_().mul_(step)
    blocks = (cosines.T @ waves @ cosines).transpose(3, 4).reshape(b, 3, -1)
    return (to_rgb @ blocks).view(b, 3, rows * 8, columns * 8)[..., :h, :w]
