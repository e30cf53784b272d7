"""Depth to colours with a legend, error maps, and comparisons side by side."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

HOLE = (40, 40, 40)
INK, PAPER = (235, 235, 235), (24, 24, 27)
PANEL_PX = 640  # the longer side of one panel
LEGEND_PX = 64
BY_HUE = 24  # classes with colours by the golden section: many more of them would come out nearly equal


@dataclass(frozen=True)
class Range:
    """The values at the two ends of the colour bar, and their unit for the legend."""

    low: float
    high: float
    unit: str = "m"

    @classmethod
    def of(cls, depth: np.ndarray, valid: np.ndarray, unit: str = "m") -> Range:
        """From the 1st to the 99th percentile of the readings: a speck far away must not eat the colours."""
        if not valid.any():
            return cls(0, 1, unit)
        low, high = (float(v) for v in np.percentile(depth[valid], (1, 99)))
        return cls(low, high if high > low else low + max(abs(low) * 0.01, 1e-6), unit)


def colours(depth: np.ndarray, valid: np.ndarray, span: Range, colormap: int = cv2.COLORMAP_VIRIDIS) -> np.ndarray:
    """(H, W) values to (H, W, 3) uint8, perceptually uniform; holes dark grey."""
    scaled = np.clip((depth - span.low) / (span.high - span.low), 0, 1)
    grey = np.round(255 * np.where(valid, scaled, 0)).astype(np.uint8)
    image = cv2.cvtColor(cv2.applyColorMap(grey, colormap), cv2.COLOR_BGR2RGB)
    image[~valid] = HOLE
    return image


def error_colours(error: np.ndarray, valid: np.ndarray, span: Range) -> np.ndarray:
    """(H, W) absolute errors to (H, W, 3) uint8: black is right, bright is wrong."""
    return colours(error, valid, span, cv2.COLORMAP_INFERNO)


@dataclass(frozen=True)
class Panel:
    """One picture of a comparison: ``image`` (h, w, 3) uint8 and what stands under it.

    ``span`` draws a colour bar, ``legend`` names colours, as many as there is room for, and counts the others.
    """

    image: np.ndarray
    title: str
    span: Range | None = None
    colormap: int = cv2.COLORMAP_VIRIDIS
    legend: tuple[tuple[str, tuple[int, int, int]], ...] = ()


def depth_panel(depth: np.ndarray, valid: np.ndarray, span: Range, title: str) -> Panel:
    """A depth map in the colours of ``span``."""
    return Panel(colours(depth, valid, span), title, span)


def error_panel(prediction: np.ndarray, truth: np.ndarray, valid: np.ndarray, span: Range, title: str) -> Panel:
    """|prediction - truth| over the valid pixels."""
    return Panel(error_colours(np.abs(prediction - truth), valid, span), title, span, cv2.COLORMAP_INFERNO)


def class_colours(count: int) -> np.ndarray:
    """(256, 3) uint8: a colour for each of ``count`` classes, neighbours far apart; dark grey for all other numbers.

    A class's colour is the same for every ``count``.
    """
    colours = np.full((256, 3), HOLE, dtype=np.uint8)
    for i in range(min(count, BY_HUE)):
        hue = 0.6180339887 * i % 1  # the golden section; hues come near again after 8 or 13, in another lightness
        rgb = colorsys.hsv_to_rgb(hue, (0.5, 0.95, 0.7)[i // 3 % 3], (1.0, 0.5, 0.78)[i % 3])
        colours[i] = [round(255 * v) for v in rgb]
    if count > BY_HUE:
        colours[BY_HUE:count] = _farthest(count - BY_HUE, np.vstack([colours[:BY_HUE], HOLE]))
    return colours


def _farthest(count: int, taken: np.ndarray) -> np.ndarray:
    """(count, 3) levels: again and again the colour that looks least like any ``taken``, by distance in CIELAB."""
    steps = np.linspace(0, 255, 9).round()
    offered = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    looks = _lab(offered)
    distance = np.min([np.linalg.norm(looks - other, axis=1) for other in _lab(taken)], axis=0)
    chosen = []
    for _ in range(count):
        best = int(distance.argmax())
        chosen.append(offered[best])
        distance = np.minimum(distance, np.linalg.norm(looks - looks[best], axis=1))
    return np.array(chosen)


def _lab(rgb: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.cvtColor((rgb[None] / 255).astype(np.float32), cv2.COLOR_RGB2LAB)[0])


def class_panel(classes: np.ndarray, names: Sequence[str], title: str) -> Panel:
    """(H, W) uint8 class numbers in their colours; the legend names those that are there, the largest first."""
    colours = class_colours(len(names))
    counts = np.bincount(classes.ravel(), minlength=256)[: len(names)]
    order = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    legend = tuple((names[i], (int(colours[i][0]), int(colours[i][1]), int(colours[i][2]))) for i in order)
    return Panel(colours[classes], title, legend=legend)


def rgb_panel(rgb: np.ndarray, title: str = "RGB") -> Panel:
    """(H, W, 3) float in 0..1."""
    return Panel(np.round(np.clip(rgb, 0, 1) * 255).astype(np.uint8), title)


def comparison(panels: list[Panel], columns: int = 3) -> np.ndarray:
    """Panels of one shape side by side, each with its title and legend: (H, W, 3) uint8.

    Every panel is brought to the size of the largest one, 640 pixels at most on the longer side;
    smaller ones by whole pixels, so that a low map shows its true pixels.
    """
    height = max(p.image.shape[0] for p in panels)
    width = max(p.image.shape[1] for p in panels)
    shrink = min(1.0, PANEL_PX / max(height, width)) if max(height, width) > PANEL_PX else 1.0
    grow = max(1.0, 240 / max(height, width))
    size = (max(1, round(width * shrink * grow)), max(1, round(height * shrink * grow)))
    columns = min(columns, len(panels))
    tile_w, tile_h = max(size[0], 240), size[1] + LEGEND_PX
    rows = -(-len(panels) // columns)
    sheet = Image.new("RGB", (columns * (tile_w + 8) + 8, rows * (tile_h + 8) + 8), PAPER)
    for i, panel in enumerate(panels):
        at = (8 + (i % columns) * (tile_w + 8), 8 + (i // columns) * (tile_h + 8))
        _paste(sheet, panel, at, size)
    return np.asarray(sheet)


def _paste(sheet: Image.Image, panel: Panel, at: tuple[int, int], size: tuple[int, int]) -> None:
    x, y = at
    image = Image.fromarray(panel.image)
    smaller = image.width > size[0]
    image = image.resize(size, Image.Resampling.LANCZOS if smaller else Image.Resampling.NEAREST)
    sheet.paste(image, (x, y))
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(15)
    draw.text((x, y + size[1] + 6), panel.title, fill=INK, font=font)
    _name_colours(draw, panel, (x, y + size[1] + 27), max(size[0], 240))
    if panel.span is None:
        return
    low_text, high_text = f"{panel.span.low:.4g}", f"{panel.span.high:.4g} {panel.span.unit}"
    before, after = (round(draw.textlength(text, font=font)) + 6 for text in (low_text, high_text))
    length = min(200, max(size[0], 240) - before - after)
    ramp = np.linspace(panel.span.low, panel.span.high, length, dtype=np.float64)[None].repeat(10, axis=0)
    bar = colours(ramp, np.ones_like(ramp, dtype=bool), panel.span, panel.colormap)
    top = y + size[1] + 30
    draw.text((x, top - 4), low_text, fill=INK, font=font)
    sheet.paste(Image.fromarray(bar), (x + before, top))
    draw.text((x + before + length + 6, top - 4), high_text, fill=INK, font=font)


def _name_colours(draw: ImageDraw.ImageDraw, panel: Panel, at: tuple[int, int], width: int) -> None:
    """Squares of colour with their names, in rows of ``width`` pixels; those LEGEND_PX has no room for are counted."""
    font = ImageFont.load_default(13)
    rooms = [17 + round(draw.textlength(name, font=font)) for name, _ in panel.legend]
    places = _places(rooms, at, width)
    named, more = len(rooms), ""
    while named and places[-1][1] + 17 > at[1] + LEGEND_PX - 27:
        named -= 1
        more = f"and {len(rooms) - named} more"
        places = _places([*rooms[:named], round(draw.textlength(more, font=font))], at, width)
    for (name, colour), (x, y) in zip(panel.legend[:named], places, strict=False):
        draw.rectangle((x, y + 3, x + 11, y + 14), fill=colour)
        draw.text((x + 15, y), name, fill=INK, font=font)
    if more:
        draw.text(places[-1], more, fill=INK, font=font)


def _places(rooms: list[int], at: tuple[int, int], width: int) -> list[tuple[int, int]]:
    """Where things of these widths begin, one after another in rows of ``width`` pixels."""
    places = []
    x, y = at
    for room in rooms:
        if x + room > at[0] + width:
            x, y = at[0], y + 17
        places.append((x, y))
        x += room + 10
    return places


def cropped(panel: Panel, window: tuple[int, int, int, int], size: tuple[int, ...], word: str) -> Panel:
    """The part of a panel that shows ``window`` (top, left, height, width) of an image of ``size``."""
    top, left, height, width = window
    sy, sx = panel.image.shape[0] / size[0], panel.image.shape[1] / size[1]
    rows = slice(int(top * sy), max(int(top * sy) + 1, round((top + height) * sy)))
    columns = slice(int(left * sx), max(int(left * sx) + 1, round((left + width) * sx)))
    return replace(panel, image=panel.image[rows, columns], title=f"{panel.title}, {word}")


def stacked(sheets: list[np.ndarray]) -> np.ndarray:
    """Sheets below one another, on paper as wide as the widest."""
    width = max(s.shape[1] for s in sheets)
    padded = [np.pad(s, ((0, 0), (0, width - s.shape[1]), (0, 0))) for s in sheets]
    for sheet, plain in zip(padded, sheets, strict=True):
        sheet[:, plain.shape[1] :] = PAPER
    return np.concatenate(padded)
