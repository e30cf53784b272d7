"""One run of the viewer: what is shown, measured and downloaded of its result."""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

import cv2
import numpy as np
import torch

from crispdepth import picture
from crispdepth.geometry import Camera, points
from crispdepth.inference import predict
from crispdepth.job import Job, Settings
from crispdepth.mesh import grid_mesh, write_mesh
from crispdepth.models.catalog import load
from crispdepth.outputs import Work, camera_of, outputs_of, read_truth, write_all
from crispdepth.types import InputError

SHOWN_PX = 1280  # the longer side of a picture on the page
SHOWN_MESH_PX = 480  # the longer side of the mesh on the page; downloads have every pixel
BINS = 80  # of the histogram
Point = tuple[int, int]  # column and row of a pixel of the result

BLACK, WHITE = (0, 0, 0), (255, 255, 255)

DOWNLOADS = {  # name: the field of Job that asks for it, and what it is
    "sharp.png": ("out", "16-bit PNG"),
    "sharp.exr": ("out", "EXR, floats"),
    "sharp.tif": ("out", "TIFF, floats"),
    "sharp.pfm": ("out", "PFM, floats"),
    "sharp.npy": ("out", "numpy, floats"),
    "sharp.npz": ("out", "numpy with mask and unit"),
    "cloud.ply": ("points", "point cloud"),
    "mesh.glb": ("mesh", "mesh for any 3-D program"),
    "mesh.ply": ("mesh", "mesh, camera's axes"),
    "view.png": ("picture", "comparison to look at"),
    "classes.png": ("classes", "what is what, by number"),
    "confidence.png": ("out_confidence", "confidence, 0..255"),
    "error.exr": ("out_confidence", "expected error, floats"),
}


FIELDS = {  # of the page, by the option that a message names; longer ones first
    "--unit": "“Unit of the depth file”",
    "--size WxH or --scale S": "“Times as large as the depth”",
    "--scale": "“Times as large as the depth”",
    "--size": "“Times as large as the depth”",
    "--keep-holes": "“leave holes”",
    "--nan-holes": "“NaN and inf mean no reading”",
    "--align auto": "“move the depth”",
    "--denoise off": "“take noise out” unticked",
    "--once": "“run twice” unticked",
    "--levels": "“whole levels”",
    "--hard-edges": "“hard edges”",
    "--min-confidence": "“Least confidence”",
    "--confidence-max": "“Full confidence”",
    "--confidence": "the confidence",
    "--intrinsics": "“Intrinsics”",
    "--fov": "“field of view”",
    "--focal": "“focal length”",
    "--out-unit": "“Unit of the 16-bit PNG”",
    "--model": "“Model”",
    "--low": "the depth",
    "--rgb": "the picture",
    "--truth": "the truth",
}


class Cancelled(Exception):
    """The person at the page no longer wants this run."""


@dataclass(eq=False)
class Run:
    """One run. ``tell`` hears how far it is, 0..1, and at what; ``stopped`` says that nobody waits for it any more.

    ``files``: what was handed in, by role. ``lines`` are those of the command, ``views`` pictures of the result's view
    by name. ``work`` and ``kept`` are there when it is done.
    """

    model: str
    job: Job
    settings: Settings
    folder: Path
    files: Mapping[str, Path]
    tell: Callable[[float, str], object] = lambda share, stage: None
    stopped: bool = False
    over: bool = False  # the result is no longer kept
    lines: list[str] = field(default_factory=list)
    work: Work | None = None
    kept: np.ndarray | None = None
    views: dict[str, picture.Panel] = field(default_factory=dict)

    def reach(self, stage: str, share: float) -> None:
        """Say how far it is. Raises Cancelled when nobody waits for it."""
        if self.stopped:
            raise Cancelled
        self.tell(share, stage)

    def forget(self) -> None:
        """Let go of the result and remove its files."""
        self.work, self.kept, self.views, self.over = None, None, {}, True
        shutil.rmtree(self.folder, ignore_errors=True)


def one_line(error: BaseException, folder: Path, run: Run | None = None) -> str:
    """What the command would say, with a file's own name in place of where the page put it, inside ``folder``, and
    the page's words in place of its options."""
    text = " ".join(str(error).split()) or type(error).__name__
    for path in () if run is None else run.files.values():
        text = text.replace(str(path), path.name)
    text = re.sub(re.escape(str(folder)) + r"[\\/][\w-]+[\\/]", "", text)
    if not isinstance(error, InputError):
        return f"{text} ({type(error).__name__}; please report this)"
    return on_page(text)


def on_page(text: str) -> str:
    """A line of the command's with FIELDS in place of options, and without Python's words, such as (size=…)."""
    text = re.sub(r" \(\w+=(?:\([^()]*\)|[^()])*\)", "", text)
    return re.sub(rf"(?<!\w)(?:{'|'.join(FIELDS)})(?![\w-])", lambda option: FIELDS[option[0]], text)


# ------------------------------------------------------------------------------- what is shown


def draw(run: Run, work: Work, kept: np.ndarray) -> None:
    """The pictures of the page, in one range of colours."""
    result, low = work.result, work.low
    measured = (result.depth, kept) if low is None else (low.depth, low.valid)
    span = picture.Range.of(*measured, result.unit)
    panels = []
    if low is not None:
        panels.append(picture.depth_panel(low.depth, low.valid, span, "depth as it came"))
    if work.rgb is not None:
        panels.append(picture.rgb_panel(work.rgb, "colour picture"))
    panels.append(picture.depth_panel(result.depth, kept, span, PurePath(run.model).name))
    if low is not None and run.model != "bicubic":
        size = (result.depth.shape[0], result.depth.shape[1])
        base = predict(load("bicubic"), low=low.depth, valid=low.valid, unit=result.unit, size=size)
        panels.append(picture.depth_panel(base.depth, np.ones_like(kept), span, "bicubic"))
    if result.classes is not None:
        panels.append(picture.class_panel(result.classes, result.class_names, "classes"))
    if work.job.truth is not None:
        truth = read_truth(work)
        worst = picture.Range(0, max(0.1 * (span.high - span.low), 1e-6), result.unit)
        panels.append(picture.depth_panel(truth.depth, truth.valid, span, "truth"))
        panels.append(picture.error_panel(result.depth, truth.depth, truth.valid & kept, worst, "error"))
    run.views = {panel.title: panel for panel in panels}


def compared(run: Run, left: str, right: str, zoom: int, points: Sequence[Point]) -> tuple[np.ndarray, np.ndarray]:
    """Two views in one size, or a ``zoom``-th of each side of them around the last of ``points``, or the middle."""
    height, width = work_of(run).result.depth.shape
    column, row = points[-1] if points else (width // 2, height // 2)
    high, wide = -(-height // zoom), -(-width // zoom)
    top, start = (
        min(max(at - side // 2, 0), most - side) for at, side, most in ((row, high, height), (column, wide, width))
    )
    both = (_at_size(run.views[name].image, width, height) for name in (left, right))
    first, second = (_fitted(image[top : top + high, start : start + wide]) for image in both)
    return first, second


def marked(run: Run, name: str, points: Sequence[Point]) -> np.ndarray:
    """A view with ``points`` and the line between them in it."""
    height, width = work_of(run).result.depth.shape
    image = _fitted(_at_size(run.views[name].image, width, height))
    share = image.shape[1] / width
    spots = [(round((column + 0.5) * share), round((row + 0.5) * share)) for column, row in points]
    for ink, thick in ((BLACK, 4), (WHITE, 2)):
        if len(spots) == 2:
            cv2.line(image, spots[0], spots[1], ink, thick, cv2.LINE_AA)
        for spot in spots:
            cv2.circle(image, spot, 7, ink, thick, cv2.LINE_AA)
    return image


def pixel(run: Run, at: Sequence[float]) -> Point:
    """The result's pixel under a place in the picture that ``marked`` gives."""
    height, width = work_of(run).result.depth.shape
    share = max(width, height) / SHOWN_PX
    return min(int(at[0] * share), width - 1), min(int(at[1] * share), height - 1)


def _at_size(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """A picture by nearest neighbour, so that a low map shows its true pixels."""
    if image.shape[:2] == (height, width):
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)


def _fitted(image: np.ndarray) -> np.ndarray:
    """A copy with a longer side of SHOWN_PX: larger by true pixels, smaller by averages."""
    share = SHOWN_PX / max(image.shape[:2])
    size = max(1, round(image.shape[1] * share)), max(1, round(image.shape[0] * share))
    return cv2.resize(image, size, interpolation=cv2.INTER_NEAREST_EXACT if share >= 1 else cv2.INTER_AREA)


def legend(run: Run, left: str, right: str) -> str:
    """HTML that names the colours of two views."""
    parts = []
    for panel in (run.views[name] for name in dict.fromkeys((left, right))):
        if panel.span is not None:
            ramp = np.linspace(panel.span.low, panel.span.high, 8, dtype=np.float32)[None]
            seen = picture.colours(ramp, ramp >= panel.span.low, panel.span, panel.colormap)[0]
            colours = ", ".join(_hex(colour) for colour in seen)
            low, high = (f"{value:.3g}" for value in (panel.span.low, panel.span.high))
            bar = f'<i style="width: 12em; background: linear-gradient(90deg, {colours})"></i>'
            parts.append(f"{panel.title}: {low} {bar} {high} {panel.span.unit}")
        parts += [f'<i style="background: {_hex(colour)}"></i>{html.escape(name)}' for name, colour in panel.legend]
    return f'<div class="legend">{"".join(f"<span>{part}</span>" for part in parts)}</div>'


def _hex(colour: Sequence[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def offered(run: Run) -> list[str]:
    """The names of DOWNLOADS that the result can be written as."""
    result = work_of(run).result
    metres = result.unit == "m"
    can = {
        "points": metres,
        "mesh": metres,
        "classes": result.classes is not None,
        "out_confidence": result.confidence is not None,
    }
    names = [name for name, (what, _) in DOWNLOADS.items() if can.get(what, True)]
    if result.error is None and "error.exr" in names:
        names.remove("error.exr")
    if not metres:  # whole numbers may be too coarse for it
        try:
            download(run, "sharp.png")
        except InputError:
            names.remove("sharp.png")
    return names


def histogram(run: Run) -> dict[str, list[Any]]:
    """Columns of a table: share of the pixels (%) in ``BINS`` steps of depth, of the result and of what came in."""
    work, kept = work_of(run), run.kept
    assert kept is not None
    depth, low = work.result.depth[kept], None if work.low is None else work.low.depth[work.low.valid]
    start, end = (float(v) for v in np.percentile(depth, (0.1, 99.9))) if depth.size else (0.0, 1.0)
    end = end if end > start else start + 1e-3
    table: dict[str, list[Any]] = {"depth": [], "share": [], "of": []}
    for name, values in (("result", depth), ("what came in", low)):
        if values is not None and values.size:
            counts, edges = np.histogram(np.clip(values, start, end), BINS, (start, end))
            table["depth"] += ((edges[1:] + edges[:-1]) / 2).tolist()
            table["share"] += (100 * counts / values.size).tolist()
            table["of"] += [name] * BINS
    return table


def surface(run: Run, name: str) -> tuple[Path | None, str]:
    """A mesh for the page: every k-th pixel, by the writer of ``--mesh``; and of what camera, or why there is none."""
    work = work_of(run)
    camera, note = camera_of(work)
    if work.result.unit != "m":
        return None, f"3-D needs depth in metres, and this depth is {work.result.unit}: choose its unit"
    step = -(-max(work.result.depth.shape) // SHOWN_MESH_PX)
    depth, valid = (np.ascontiguousarray(x[::step, ::step]) for x in (work.result.depth, work.result.valid))
    rgb = None if work.rgb is None else np.ascontiguousarray(np.clip(work.rgb, 0, 1)[::step, ::step])
    f_px, c_px = (camera.fx_px / step, camera.fy_px / step), (camera.cx_px / step, camera.cy_px / step)
    thinned = Camera(*f_px, *c_px, depth.shape[1], depth.shape[0])
    path = run.folder / f"{name}.glb"
    try:
        write_mesh(path, grid_mesh(depth, valid, thinned, rgb))
    except InputError as error:
        return None, str(error)
    left_out = "What was not measured is left out"
    thinner = " Shown with fewer pixels: mesh.glb has all." if step > 1 else ""
    return path, f"{on_page(note)}. {left_out}.{thinner}"


def measure(run: Run, pixels: Iterable[tuple[int, int]]) -> dict[str, Any]:
    """Depth and place of each pixel (column, row), and how far apart the last two are.

    ``xyz`` in metres as ``geometry.points`` has them; None in a hole, and where depth is not in metres.
    """
    work, kept = work_of(run), run.kept
    assert kept is not None
    height, width = work.result.depth.shape
    camera, _ = camera_of(work)
    xyz = points(torch.from_numpy(work.result.depth)[None, None], camera.matrix())[0].numpy()
    found: list[dict[str, Any]] = []
    for column, row in pixels:
        if not (0 <= column < width and 0 <= row < height):
            raise InputError(f"pixel {column},{row} is outside the picture of {width}x{height}")
        there = bool(kept[row, column])
        place = [float(v) for v in xyz[:, row, column]] if there and work.result.unit == "m" else None
        depth = float(work.result.depth[row, column]) if there else None
        seen = bool(work.result.valid[row, column])
        found.append({"u": column, "v": row, "depth": depth, "measured": seen, "xyz": place})
    last = [np.array(each["xyz"]) for each in found[-2:] if each["xyz"] is not None]
    apart = float(np.linalg.norm(last[1] - last[0])) if len(last) == 2 else None
    return {"points": found, "distance": apart, "unit": work.result.unit}


def said(found: Mapping[str, Any]) -> str:
    """What ``measure`` found, in lines."""
    lines = []
    for point in found["points"]:
        place, depth = f"({point['u']}, {point['v']})", point["depth"]
        if depth is None:
            lines.append(f"{place}: a hole")
            continue
        text = (
            f"pixel {place}: depth {depth:.3f} m"
            if found["unit"] == "m"
            else f"pixel {place}: {depth:.5g} {found['unit']}"
        )
        if point["xyz"] is not None:
            text += ", at x {:.3f}, y {:.3f}, z {:.3f} m".format(*point["xyz"])
        lines.append(text if point["measured"] else f"{text} (filled: nothing was measured nearby)")
    if len(lines) == 2:
        far = found["distance"]
        hole = any(point["depth"] is None for point in found["points"])
        why = "a hole has no depth" if hole else "it needs depth in metres"
        lines.insert(0, f"distance {far:.3f} m" if far is not None else f"no distance: {why}")
    return "\n".join(lines)


# ------------------------------------------------------------------------------- what is downloaded


def download(run: Run, name: str, out_unit: str | None = None) -> Path:
    """The file called ``name`` (of DOWNLOADS), as ``crispdepth predict`` writes it. Raises InputError."""
    if name not in DOWNLOADS:
        raise InputError.unknown("download", name, DOWNLOADS)
    work, what = work_of(run), DOWNLOADS[name][0]
    path = run.folder / name
    bare = replace(
        run.job, out=run.folder / "sharp.npy", points=None, truth=run.job.truth if what == "picture" else None
    )
    changes: dict[str, Any] = {what: path}
    settings = replace(run.settings, out_unit=out_unit if what == "out" else None)
    outputs, _ = outputs_of(replace(work, job=replace(bare, **changes), settings=settings))
    write_all([output for output in outputs if output.path == path])
    return path


def work_of(run: Run) -> Work:
    if run.work is None:
        raise InputError("this result is no longer kept: sharpen it again" if run.over else "there is no result yet")
    return run.work
