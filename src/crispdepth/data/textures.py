"""What things are cut out of and painted with: banks of random silhouettes and patterns."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.nn import functional

MIPS = 4  # how often each pattern is kept, each time half as sharp


class Dice:
    """Random numbers from one seed on one device; the global generator is never touched."""

    def __init__(self, seed: int, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self.generator = torch.Generator(device=self.device)
        self.generator.manual_seed(seed)

    def between(self, low: float, high: float, *shape: int) -> torch.Tensor:
        """Uniform in low..high."""
        return torch.rand(shape, generator=self.generator, device=self.device) * (high - low) + low

    def spread(self, low: float, high: float, *shape: int, towards_low: float = 1.0) -> torch.Tensor:
        """Log-uniform in low..high; ``towards_low`` above 1 prefers small values."""
        return low * (high / low) ** self.between(0, 1, *shape) ** towards_low

    def chance(self, share: float | torch.Tensor, *shape: int) -> torch.Tensor:
        """True for about ``share`` of the draws."""
        return self.between(0, 1, *shape) < share

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator, device=self.device)

    def below(self, count: int, *shape: int) -> torch.Tensor:
        """Whole numbers in 0..count-1."""
        return torch.randint(0, count, shape, generator=self.generator, device=self.device)

    def among(self, values: list[float], *shape: int) -> torch.Tensor:
        return torch.tensor(values, device=self.device)[self.below(len(values), *shape)]

    def noise(self, count: int, cells: int, size: int) -> torch.Tensor:
        """Smooth noise (count, size, size), about -1..1, with ``cells`` bumps a side."""
        coarse = self.normal(count, 1, cells + 1, cells + 1)
        fine = functional.interpolate(coarse, (size, size), mode="bicubic", align_corners=True)
        return fine[:, 0].mul_(0.6).clamp_(-1.5, 1.5)


def square_grid(size: int, dice: Dice) -> tuple[torch.Tensor, torch.Tensor]:
    """u (1, 1, s) to the right and v (1, s, 1) downwards, -1..1 at pixel centres."""
    line = (torch.arange(size, device=dice.device) * 2 + 1) / size - 1
    return line[None, None, :], line[None, :, None]


def each(values: torch.Tensor) -> torch.Tensor:
    """(n,) to (n, 1, 1)."""
    return values[:, None, None]


def turned(dice: Dice, count: int, size: int, most: float = math.pi) -> tuple[torch.Tensor, torch.Tensor]:
    """The square's u and v, each (count, s, s), turned by a random angle up to ``most``."""
    u, v = square_grid(size, dice)
    angle = each(dice.between(-most, most, count))
    return u * angle.cos() - v * angle.sin(), u * angle.sin() + v * angle.cos()


# Silhouettes: fields (n, s, s) in -1..1, positive inside.


def superellipses(dice: Dice, count: int, size: int) -> torch.Tensor:
    u, v = square_grid(size, dice)
    power = each(dice.among([1.0, 1.5, 2.0, 2.0, 4.0, 20.0, 20.0], count))
    wobble = each(dice.between(0, 0.45, count) * dice.chance(0.6, count))
    radius = (u.abs() ** power + v.abs() ** power) ** (1 / power)
    return 0.97 - radius * (1 + wobble * (dice.noise(count, 5, size) + 0.6).clamp(min=0))


def figures(dice: Dice, count: int, size: int) -> torch.Tensor:
    """A head, a body, limbs: blobs strung together."""
    u, v = square_grid(size, dice)
    field = 1 - ((u / 0.42) ** 2 + ((v - 0.15) / 0.6) ** 2).sqrt() + dice.noise(count, 4, size) * 0.1
    for part in range(7):
        x, y = each(dice.between(-0.7, 0.7, count)), each(dice.between(-0.7, 0.8, count))
        x, y = (x * 0.2, y * 0 - 0.62) if part == 0 else (x, y)
        wide, tall = each(dice.between(0.1, 0.35, count)), each(dice.between(0.1, 0.35, count))
        lean = each(dice.between(-0.8, 0.8, count))
        p, q = u - x, v - y
        blob = 1 - (((p + q * lean) / wide) ** 2 + ((q - p * lean) / tall) ** 2).sqrt()
        field = torch.logaddexp(field * 6, blob * 6) / 6 if part % 2 else torch.maximum(field, blob)
    return field


def stars(dice: Dice, count: int, size: int) -> torch.Tensor:
    """Polygons and stars of 3 to 9 points."""
    u, v = turned(dice, count, size)
    points = each(dice.below(7, count) + 3)
    angle = torch.atan2(v, u) * points / (2 * math.pi)
    fold = (angle - angle.floor() - 0.5).abs() * 2  # 1 at a point, 0 between two
    inner = each(torch.where(dice.chance(0.4, count), (math.pi / points[:, 0, 0]).cos(), dice.between(0.3, 0.7, count)))
    edge = inner / (inner * fold + (1 - fold)).clamp(min=0.1)
    return 0.97 - (u * u + v * v).sqrt() / edge.clamp(max=1)


def leaves(dice: Dice, count: int, size: int) -> torch.Tensor:
    """A plant: narrow leaves from stems that start below."""
    u, v = square_grid(size, dice)
    field = torch.full((count, size, size), -1.0, device=dice.device)
    slim = dice.between(0.05, 0.25, count)
    for _ in range(12):
        angle = dice.between(-2.2, 2.2, count)
        x, y = dice.between(-0.35, 0.35, count), dice.between(-0.4, 0.8, count)
        length = dice.between(0.4, 1.0, count)
        p, q = u - each(x), v - each(y)
        along = (p * each(angle.sin()) - q * each(angle.cos())) / each(length)
        bend = each(dice.between(-0.4, 0.4, count)) * along * along
        across = (p * each(angle.cos()) + q * each(angle.sin()) + bend).abs()
        leaf = each(slim) * (4 * along * (1 - along)) - across
        field = torch.maximum(field, leaf * 6)
    return field


def foliage(dice: Dice, count: int, size: int) -> torch.Tensor:
    """Islands and holes: a bush, crumpled lace."""
    u, v = square_grid(size, dice)
    fine = dice.noise(count, 9, size) + dice.noise(count, 20, size) * 0.6
    return torch.minimum(fine + each(dice.between(-0.3, 0.4, count)), 0.95 - (u * u + v * v).sqrt())


def lattices(dice: Dice, count: int, size: int) -> torch.Tensor:
    """Slats, bars, fences, trellises."""
    u, v = turned(dice, count, size, 0.8)
    u0, v0 = square_grid(size, dice)
    field = torch.full((count, size, size), -1.0, device=dice.device)
    only = dice.below(3, count)
    for which, way in enumerate((u, v)):
        cells = each(dice.between(1.0, 5.0, count))
        bars = each(dice.between(0.12, 0.5, count)) - ((way * cells) % 1 - 0.5).abs() * 2
        field = torch.maximum(field, bars.masked_fill(each(only) == which, -1.0))
    frame = torch.maximum(u0.abs(), v0.abs())
    framed = torch.maximum(field, (frame - each(dice.between(0.8, 0.93, count))) * 8)
    return torch.minimum(torch.where(each(dice.chance(0.5, count)), framed, field), 0.98 - frame)


def rings(dice: Dice, count: int, size: int) -> torch.Tensor:
    """Hoops, frames, handles, backs of chairs: things with a hole to see through."""
    u, v = square_grid(size, dice)
    power = each(dice.among([2.0, 2.0, 20.0], count))
    radius = (u.abs() ** power + v.abs() ** power) ** (1 / power)
    radius = radius * (1 + each(dice.between(0, 0.2, count)) * (dice.noise(count, 4, size) + 0.6).clamp(min=0))
    return torch.minimum(0.97 - radius, radius - each(dice.between(0.45, 0.88, count))) * 4


def cables(dice: Dice, count: int, size: int) -> torch.Tensor:
    """A few thin curves from left to right."""
    u, v = square_grid(size, dice)
    field = torch.full((count, size, size), -1.0, device=dice.device)
    for _ in range(3):
        knots = dice.between(-0.85, 0.85, count, 1, 6)
        path = functional.interpolate(knots, size, mode="linear", align_corners=True)
        path = functional.avg_pool1d(path, size // 8 * 2 + 1, 1, size // 8, count_include_pad=False)
        slope = torch.gradient(path, dim=-1)[0] * (size / 2)
        thick = each(dice.between(0.02, 0.06, count))
        curve = thick - (v - path).abs() / (1 + slope * slope).sqrt()
        field = torch.maximum(field, curve * 12)
    return field + 0 * u


# In the order of the classes given in `scenes`; the relief differs too.
SILHOUETTES: tuple[Callable[[Dice, int, int], torch.Tensor], ...] = (
    superellipses,
    figures,
    stars,
    leaves,
    foliage,
    lattices,
    rings,
    cables,
)


def silhouette_bank(dice: Dice, count: int, size: int) -> torch.Tensor:
    """(8 * count, 4, s, s): field, height 0..1, and the height's slopes along u and v; kind after kind."""
    field = torch.cat([kind(dice, count, size) for kind in SILHOUETTES]).clamp_(-1, 1)
    total = len(field)
    dome = (field.clamp(0, 1) * 2).clamp(max=1)
    dome = functional.avg_pool2d((2 * dome - dome * dome)[:, None], 5, 1, 2)[:, 0].sqrt_()
    cloth = dice.noise(total, 4, size) * 0.4 + 0.5
    u, _ = turned(dice, total, size, 0.5)
    waves = (u * each(dice.between(4, 16, total)) + cloth * 2).sin_() * 0.4 + 0.5
    which = each(dice.below(4, total))
    height = torch.where(which == 0, torch.zeros_like(dome), torch.where(which == 1, cloth, dome))
    height = torch.where(which == 2, waves, height)
    slope_v, slope_u = torch.gradient(height, spacing=2 / size, dim=(1, 2))
    return torch.stack([field, height, slope_u, slope_v], 1)


# Patterns: (n, 3, s, s) in 0..1: how much of the second colour, of the third, and the brightness.


def stacked(second: torch.Tensor, third: torch.Tensor, bright: torch.Tensor) -> torch.Tensor:
    return torch.stack(torch.broadcast_tensors(second, third, bright), 1)


def cloudy(dice: Dice, count: int, size: int) -> torch.Tensor:
    """Several octaves of noise: plaster, stone, carpet; also almost nothing."""
    noise = torch.zeros(count, size, size, device=dice.device)
    fall = each(dice.between(0.4, 1.1, count))
    for octave in range(5):
        noise = noise + dice.noise(count, 3 * 2**octave, size) * fall**octave
    sharp = each(dice.spread(0.5, 8, count))
    return stacked(torch.sigmoid(noise * sharp), torch.sigmoid(dice.noise(count, 6, size) * 6 - 4), 1 + noise * 0.05)


def checks(dice: Dice, count: int, size: int) -> torch.Tensor:
    u, v = turned(dice, count, size)
    cells = each(dice.between(2, 9, count))
    odd = ((u * cells).floor() + (v * cells).floor()) % 2
    return stacked(odd, 0 * odd, 1 + dice.noise(count, 8, size) * 0.05)


def stripes(dice: Dice, count: int, size: int) -> torch.Tensor:
    """Stripes, gratings, tartan."""
    u, v = turned(dice, count, size)
    one, two = each(dice.spread(2, 14, count)), each(dice.spread(2, 14, count))
    second = ((u * one * math.pi).sin() * each(dice.spread(1, 20, count)) + each(dice.normal(count))).sigmoid()
    third = ((v * two * math.pi).sin() * 8 - 4).sigmoid() * each(dice.chance(0.5, count))
    return stacked(second, third, 1 + dice.noise(count, 30, size) * 0.05)


def wood(dice: Dice, count: int, size: int) -> torch.Tensor:
    """Grain along u, boards across it."""
    u, v = square_grid(size, dice)
    bent = v + dice.noise(count, 3, size) * 0.15 + u * 0
    grain = functional.interpolate(dice.normal(count, 1, size // 2, 5), (size, size), mode="bilinear")[:, 0]
    rings_ = (bent * each(dice.between(10, 40, count))).sin() * 0.3 + grain * 0.25 + 0.4
    board = (v + 1) * each(dice.between(1, 5, count))
    gap = 1 - 0.5 * ((board % 1) < 0.05) * each(dice.chance(0.6, count))
    return stacked(rings_, 0 * rings_, gap * (1 + grain * 0.05))


def tiles(dice: Dice, count: int, size: int) -> torch.Tensor:
    """Bricks, tiles, panes: joints of another colour, each stone of its own brightness."""
    u, v = square_grid(size, dice)
    across, down = each(dice.below(5, count) + 2.0), each(dice.below(9, count) + 2.0)
    row = ((v + 1) / 2 * down).floor()
    x = (u + 1) / 2 * across + row % 2 * 0.5 * each(dice.chance(0.6, count))
    joint = each(dice.between(0.02, 0.1, count))
    near = torch.minimum((x % 1 - 0.5).abs().neg() + 0.5, ((v + 1) / 2 * down % 1 - 0.5).abs().neg() + 0.5)
    own = ((x.floor() * 12.9898 + row * 78.233).sin() * 43758.547) % 1
    return stacked(
        (near < joint).float(),
        own * each(dice.between(0, 0.4, count)),
        1 + dice.noise(count, 30, size) * 0.06,
    )


def prints(dice: Dice, count: int, size: int) -> torch.Tensor:
    """Posters and covers: blobs, bars and flat areas in three colours."""
    u, v = square_grid(size, dice)
    second = torch.zeros(count, size, size, device=dice.device)
    third, bright = second.clone(), second + 1
    for part in range(10):
        x, y = each(dice.between(-1, 1, count)), each(dice.between(-1, 1, count))
        wide, tall = each(dice.spread(0.04, 0.7, count)), each(dice.spread(0.04, 0.7, count))
        round_ = ((u - x) / wide) ** 2 + ((v - y) / tall) ** 2
        block = torch.maximum(((u - x) / wide).abs(), ((v - y) / tall).abs())
        inside = torch.where(each(dice.chance(0.4, count)), round_, block) < 1
        value = each(dice.between(0, 1, count))
        target = (second, third, bright)[part % 3]
        target.copy_(torch.where(inside, value if part % 3 < 2 else value * 0.8 + 0.4, target))
    return stacked(second, third, bright)


def writing(dice: Dice, count: int, size: int) -> torch.Tensor:
    """Lines of marks, like text on a page, with a heading or a picture."""
    u, v = square_grid(size, dice)
    lines = each(dice.below(12, count) + 4.0)
    row, place = ((v + 1) / 2 * lines).floor(), ((v + 1) / 2 * lines) % 1
    letters = (dice.noise(count, 40, size) + 0.3 > 0) & ((place - 0.5).abs() < 0.3)
    words = ((u * each(dice.between(4, 9, count)) + (row * 7.1).sin() * 3).sin() > -0.75) & (u.abs() < 0.85)
    picture = torch.maximum((u - each(dice.between(-1, 1, count))).abs(), (v - each(dice.between(-1, 1, count))).abs())
    third = (picture < each(dice.between(0, 0.6, count))).float()
    return stacked((letters & words & (third == 0)).float(), third, 1 + dice.noise(count, 6, size) * 0.04)


def fabric(dice: Dice, count: int, size: int) -> torch.Tensor:
    """A weave, or speckles as in terrazzo and gravel."""
    u, v = turned(dice, count, size)
    fine = each(dice.between(20, 50, count))
    weave = (u * fine).sin() * (v * fine).sin() * 0.5 + 0.5
    speckle = (dice.noise(count, 36, size) * 5 - 2).sigmoid()
    other = (dice.noise(count, 24, size) * 8 - 5).sigmoid()
    woven = each(dice.chance(0.5, count))
    return stacked(torch.where(woven, weave, speckle), torch.where(woven, 0 * other, other), 1 + 0 * weave)


PATTERNS: tuple[Callable[[Dice, int, int], torch.Tensor], ...] = (
    cloudy,
    checks,
    stripes,
    wood,
    tiles,
    prints,
    writing,
    fabric,
)


def pattern_bank(dice: Dice, count: int, size: int) -> torch.Tensor:
    """(8 * count * MIPS, 3, s, s): each pattern, kind after kind, followed by its blurred copies."""
    sharp = torch.cat([kind(dice, count, size) for kind in PATTERNS])
    levels = [sharp]
    for mip in range(1, MIPS):
        small = functional.avg_pool2d(sharp, 2**mip)
        levels.append(functional.interpolate(small, (size, size)))
    return torch.stack(levels, 1).flatten(0, 1)
