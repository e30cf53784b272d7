"""One run of the viewer: its state, and what is shown, measured and downloaded of its result."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch

from crispdepth import picture
from crispdepth.formats.png_tiff import png_bytes
from crispdepth.geometry import Camera, points
from crispdepth.inference import predict
from crispdepth.job import Job, Settings, intrinsics_of
from crispdepth.mesh import grid_mesh, write_mesh
from crispdepth.models.catalog import load
from crispdepth.outputs import Work, camera_of, outputs_of, read_truth, write_all
from crispdepth.types import InputError, Prediction

SHOWN_MESH_PX = 480  # the longer side of the mesh on the page; downloads have every pixel
BINS = 80  # of the histogram

DOWNLOADS = {  # name: the field of Job that asks for it, and what it is
    "sharp.png": ("out", "16-bit PNG"),
    "sharp.exr": ("out", "EXR, float metres"),
    "sharp.tif": ("out", "TIFF, float metres"),
    "sharp.pfm": ("out", "PFM, float metres"),
    "sharp.npy": ("out", "numpy, float metres"),
    "sharp.npz": ("out", "numpy with mask and unit"),
    "cloud.ply": ("points", "point cloud"),
    "mesh.glb": ("mesh", "mesh for any 3-D program"),
    "mesh.ply": ("mesh", "mesh, camera's axes"),
    "view.png": ("picture", "comparison to look at"),
    "classes.png": ("classes", "what is what, by number"),
    "confidence.png": ("out_confidence", "confidence, 0..255"),
    "error.exr": ("out_confidence", "expected error, metres"),
}


FIELDS = {  # of the page, by the option that a message names; longer ones first
    "--unit": "“Unit of the depth file”",
    "--size WxH or --scale S": "“Times as large as the depth”",
    "--scale": "“Times as large as the depth”",
    "--size": "“Times as large as the depth”",
    "--keep-holes": "“leave holes”",
    "--nan-holes": "“NaN and inf mean no reading”",
    "--align auto": "“move the depth”",
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
    """One run: ``state`` goes from waiting over running to done, failed or cancelled; ``share`` 0..1 is how far.

    ``files``: what was handed in, by role. ``lines`` are those of the command; ``error`` is its one line; ``images``
    PNG files by name, of the result's view.
    """

    name: str
    model: str
    job: Job
    settings: Settings
    folder: Path
    files: Mapping[str, Path]
    state: str = "waiting"
    stage: str = "waiting for other runs"
    share: float = 0.0
    lines: list[str] = field(default_factory=list)
    error: str = ""
    work: Work | None = None
    kept: np.ndarray | None = None
    images: dict[str, bytes] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)
    writing: threading.Lock = field(default_factory=threading.Lock)

    def reach(self, stage: str, share: float) -> None:
        """Say how far it is. Raises Cancelled when that was asked for."""
        if self.stop.is_set():
            raise Cancelled
        self.stage, self.share = stage, share

    @property
    def over(self) -> bool:
        return self.state in ("done", "failed", "cancelled")


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
    """The pictures, the histogram and the figures of the page."""
    result, low = work.result, work.low
    measured = (result.depth, kept) if low is None else (low.depth, low.valid)
    span = picture.Range.of(*measured, result.unit)
    views = {"depth": picture.colours(result.depth, kept, span)}
    if work.rgb is not None:
        views["rgb"] = np.round(np.clip(work.rgb, 0, 1) * 255).astype(np.uint8)
    if low is not None:
        views["low"] = picture.colours(low.depth, low.valid, span)
        size = (result.depth.shape[0], result.depth.shape[1])
        if run.model != "bicubic":
            base = predict(load("bicubic"), low=low.depth, valid=low.valid, unit=result.unit, size=size)
            views["bicubic"] = picture.colours(base.depth, np.ones_like(kept), span)
    legend: list[list[str]] = []
    if result.classes is not None:
        panel = picture.class_panel(result.classes, result.class_names, "classes")
        views["classes"] = panel.image
        legend = [[name, "#{:02x}{:02x}{:02x}".format(*colour)] for name, colour in panel.legend]
    worst = None
    if work.job.truth is not None:
        truth = read_truth(work)
        worst = picture.Range(0, max(0.1 * (span.high - span.low), 1e-6), result.unit)
        views["truth"] = picture.colours(truth.depth, truth.valid, span)
        views["error"] = picture.error_colours(np.abs(result.depth - truth.depth), truth.valid & kept, worst)
    run.images = {name: png_bytes(np.ascontiguousarray(image)) for name, image in views.items()}
    run.facts = {
        "width": result.depth.shape[1],
        "height": result.depth.shape[0],
        "unit": result.unit,
        "views": list(views),
        "model": PurePath(run.model).name,
        "alone": low is None,
        "classes": legend,
        "downloads": _offered(run, result),
        "range": [span.low, span.high],
        "worst": None if worst is None else worst.high,
        "histogram": _histogram(result.depth[kept], None if low is None else low.depth[low.valid]),
        "median": float(np.median(result.depth[kept])) if kept.any() else None,
    }


def _offered(run: Run, result: Prediction) -> list[str]:
    """The names of DOWNLOADS that the result can be written as."""
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


def _histogram(depth: np.ndarray, low: np.ndarray | None) -> dict[str, Any]:
    """Shares of the pixels in ``BINS`` steps from nearest to farthest, of the result and of what came in."""
    start, end = (float(v) for v in np.percentile(depth, (0.1, 99.9))) if depth.size else (0.0, 1.0)
    end = end if end > start else start + 1e-3
    found: dict[str, Any] = {"start": start, "end": end}
    for name, values in (("depth", depth), ("low", low)):
        if values is not None and values.size:
            counts, _ = np.histogram(np.clip(values, start, end), BINS, (start, end))
            found[name] = (counts / values.size).round(6).tolist()
    return found


def show_surface(run: Run) -> None:
    """The mesh of the page: every k-th pixel, by the writer of ``--mesh``; or why there is none."""
    work = work_of(run)
    camera, note = camera_of(work)
    run.facts |= {"camera": on_page(note), "surface": "", "known_camera": _known(work)}
    run.images.pop("surface", None)
    if work.result.unit != "m":
        run.facts["surface"] = f"3-D needs depth in metres, and this depth is {work.result.unit}: choose its unit"
        return
    step = -(-max(work.result.depth.shape) // SHOWN_MESH_PX)
    depth, valid = (np.ascontiguousarray(x[::step, ::step]) for x in (work.result.depth, work.result.valid))
    rgb = None if work.rgb is None else np.ascontiguousarray(np.clip(work.rgb, 0, 1)[::step, ::step])
    f_px, c_px = (camera.fx_px / step, camera.fy_px / step), (camera.cx_px / step, camera.cy_px / step)
    thinned = Camera(*f_px, *c_px, depth.shape[1], depth.shape[0])
    path = run.folder / "surface.glb"
    try:
        write_mesh(path, grid_mesh(depth, valid, thinned, rgb))
    except InputError as error:
        run.facts["surface"] = str(error)
        return
    run.images["surface"] = path.read_bytes()


def _known(work: Work) -> bool:
    return work.settings.focal_px is not None or intrinsics_of(work.job, work.settings) is not None


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
    with run.writing:
        outputs, _ = outputs_of(replace(work, job=replace(bare, **changes), settings=settings))
        write_all([output for output in outputs if output.path == path])
    return path


def work_of(run: Run) -> Work:
    if run.work is None:
        raise InputError("there is no result yet" if not run.over else run.error)
    return run.work
