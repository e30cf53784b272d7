"""What the viewer works on: files handed in, runs in a queue, and what is shown, measured and downloaded of them."""

from __future__ import annotations

import itertools
import queue
import re
import secrets
import shutil
import tempfile
import threading
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from crispdepth import io, picture
from crispdepth.atomic import opened, shown
from crispdepth.batch import read, worked
from crispdepth.data.sample import write_sample
from crispdepth.formats.png_tiff import png_bytes
from crispdepth.geometry import Camera, points
from crispdepth.inference import predict
from crispdepth.intrinsics import read_intrinsics
from crispdepth.job import Job, Settings, intrinsics_of
from crispdepth.mesh import grid_mesh, write_mesh
from crispdepth.models.catalog import CATALOG, load
from crispdepth.outputs import Work, camera_of, kept_of, outputs_of, read_truth, write_all
from crispdepth.types import InputError, Model

RUNS_KEPT = 6  # finished results in memory: about 80 MB each for a phone's 1440x1920
FILES_KEPT = 64  # on disk
SHOWN_MESH_PX = 480  # the longer side of the mesh on the page; downloads have every pixel
BINS = 80  # of the histogram

ROLES = ("low", "rgb", "truth", "confidence", "intrinsics")  # what a file can be
EXAMPLES = {  # scenes made on the spot: seed, scale, what to see
    "a room, 8 times smaller": (7, 8),
    "another, 4 times smaller": (12, 4),
    "a third, 16 times smaller": (21, 16),
}
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
    "confidence.png": ("out_confidence", "confidence, 0..255"),
    "error.exr": ("out_confidence", "expected error, metres"),
}


class Cancelled(Exception):
    """The person at the page no longer wants this run."""


@dataclass(eq=False)
class Run:
    """One run: ``state`` goes from waiting over running to done, failed or cancelled; ``share`` 0..1 is how far.

    ``lines`` are those of the command; ``error`` is its one line; ``images`` PNG files by name, of the result's view.
    """

    name: str
    model: str
    job: Job
    settings: Settings
    folder: Path
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


class Desk:
    """Files and runs of everyone at the page, each found only by its own unguessable name; one run at a time.

    ``models``: what may be asked for: the catalog's, and ``own``, such as files of weights. Raises InputError for one
    that cannot be loaded.
    """

    def __init__(self, own: Iterable[str] = ()) -> None:
        self.own = tuple(own)
        self.models = {name: load(name).inputs for name in self.own} | {n: row.inputs for n, row in CATALOG.items()}
        self.folder = Path(tempfile.mkdtemp(prefix="crispdepth-view-"))
        self.files: dict[str, Path] = {}
        self.runs: dict[str, Run] = {}
        self.lock = threading.Lock()
        self.made = threading.Lock()  # one example is made at a time
        self.queue: queue.Queue[Run | None] = queue.Queue()
        self.worker = threading.Thread(target=self._work, daemon=True)
        self.worker.start()

    def close(self) -> None:
        """Stops what runs and removes every file that was handed in."""
        for run in self.runs.values():
            run.stop.set()
        self.queue.put(None)
        self.worker.join(timeout=60)
        shutil.rmtree(self.folder, ignore_errors=True)

    # ------------------------------------------------------------------------------- files

    def keep(self, name: str, data: BufferedIOBase, length: int) -> str:
        """Store ``length`` bytes of ``data`` as a file called ``name``; the token to ask for it by."""
        token = secrets.token_urlsafe(16)
        folder = self.folder / token
        folder.mkdir()
        path = folder / (shown(Path(name).name).replace("/", "_")[-80:].lstrip(".") or "file")
        with open(path, "wb") as file:
            while length > 0 and (part := data.read(min(length, 2**20))):
                file.write(part)
                length -= len(part)
        if length:
            raise InputError(f"{path.name}: only a part of it arrived; choose it again")
        with self.lock:
            self.files[token] = path
            for old in list(self.files)[:-FILES_KEPT]:
                self._forget(self.files.pop(old))
        return token

    def _forget(self, path: Path) -> None:
        if path.parent.parent == self.folder:  # not an example, nor a file of the command line
            shutil.rmtree(path.parent, ignore_errors=True)

    def lend(self, path: Path) -> str:
        """The token of a file that stays where it is."""
        token = secrets.token_urlsafe(16)
        with self.lock:
            self.files[token] = path
        return token

    def example(self, name: str) -> dict[str, str]:
        """Tokens by role of a made-up scene; made when first asked for."""
        if name not in EXAMPLES:
            raise InputError.unknown("example", name, EXAMPLES)
        seed, scale = EXAMPLES[name]
        folder = self.folder / f"example {seed}" / "examples"
        with self.made:
            if not (folder / "intrinsics.json").is_file():  # written last
                write_sample(folder, scale, seed, (480, 640))
        names = {"low": "low.png", "rgb": "rgb.png", "truth": "truth.png", "intrinsics": "intrinsics.json"}
        return {role: self.lend(folder / file) for role, file in names.items()}

    # ------------------------------------------------------------------------------- runs

    def submit(self, asked: Mapping[str, Any]) -> str:
        """Queue a run; the token to ask for it by. ``asked`` has ``model``, ``files`` (role: token) and options.

        Raises InputError for what can be known before any work.
        """
        model = str(asked.get("model", ""))
        if model not in self.models:
            raise InputError.unknown("model", model, self.models)
        given = {role: self._file(token) for role, token in (asked.get("files") or {}).items() if token}
        for role in self.models[model]:
            if role not in given:
                what = {"low": "the low-resolution depth", "rgb": "the colour picture"}.get(role, role)
                raise InputError(f"{model} needs {what}: hand it in, or choose another model")
        token = secrets.token_urlsafe(16)
        folder = self.folder / token
        folder.mkdir()
        job = Job(
            low=given.get("low"),
            out=folder / "sharp.png",
            rgb=given.get("rgb"),
            points=folder / "cloud.ply",
            truth=given.get("truth"),
            confidence=given.get("confidence"),
        )
        run = Run(token, model, job, _settings(asked, given), folder)
        with self.lock:
            self.runs[token] = run
            over = [name for name, each in self.runs.items() if each.over]
            for old in over[:-RUNS_KEPT]:
                shutil.rmtree(self.runs.pop(old).folder, ignore_errors=True)
        self.queue.put(run)
        return token

    def _file(self, token: object) -> Path:
        with self.lock:
            path = self.files.get(str(token))
        if path is None:
            raise InputError("a file handed in earlier is no longer here: choose it again")
        return path

    def run(self, token: str) -> Run:
        """Raises InputError for one that is not, or no longer, here."""
        with self.lock:
            run = self.runs.get(token)
        if run is None:
            raise InputError("this result is no longer kept: run it again")
        return run

    def waiting_before(self, run: Run) -> int:
        """How many runs come first."""
        with self.lock:
            earlier = itertools.takewhile(lambda each: each is not run, self.runs.values())
            return sum(not each.over for each in earlier)

    def _work(self) -> None:
        while (run := self.queue.get()) is not None:
            try:
                run.reach("reading the files", 0.02)
                run.state = "running"
                _carry_out(run)
                run.state, run.share, run.stage = "done", 1.0, ""
            except Cancelled:
                run.state, run.error = "cancelled", "cancelled"
            except (MemoryError, RuntimeError) as error:
                short = isinstance(error, MemoryError) or "memory" in str(error)
                cure = "not enough memory: ask for fewer times as large as the depth, or use a smaller picture"
                run.state, run.error = "failed", cure if short else one_line(error, run)
            except Exception as error:
                if not isinstance(error, InputError | OSError):
                    traceback.print_exception(error)  # ours, not the user's
                run.state, run.error = "failed", one_line(error, run)
            if run.state != "done":
                run.work = None


def one_line(error: BaseException, run: Run | None = None) -> str:
    """What the command would say, with a file's own name in place of where the page put it."""
    text = " ".join(str(error).split()) or type(error).__name__
    for path in [] if run is None else run.job.inputs.values():
        text = text.replace(str(path), path.name)
    return text if isinstance(error, InputError) else f"{text} ({type(error).__name__}; please report this)"


def _settings(asked: Mapping[str, Any], given: Mapping[str, Path]) -> Settings:
    """The options of the page as the command's. Raises InputError."""

    def number(name: str) -> float | None:
        text = str(asked.get(name) or "").strip()
        try:
            return float(text) if text else None
        except ValueError as error:
            raise InputError(f"{name.replace('_', ' ')} {text!r} is no number") from error

    typed = str(asked.get("intrinsics") or "").strip()
    if typed and not re.fullmatch(r"[-+\d.,eE\s]+", typed):  # a path would be one of this machine
        raise InputError(f"intrinsics '{shown(typed)}' are not four numbers; write fx,fy,cx,cy, or hand in a file")
    intrinsics = typed or (str(given["intrinsics"]) if "intrinsics" in given else None)
    if intrinsics is not None:
        try:
            read_intrinsics(intrinsics)
        except InputError as error:
            raise InputError(str(error).replace(intrinsics, Path(intrinsics).name)) from error
    return Settings(
        unit=str(asked.get("unit") or "") or None,
        scale=number("scale"),
        intrinsics=intrinsics,
        fov_deg=number("fov_deg") or Settings.fov_deg,
        keep_holes=bool(asked.get("keep_holes")),
        nan_holes=bool(asked.get("nan_holes")),
        align="auto" if asked.get("align") else None,
        min_confidence=number("min_confidence") if "confidence" in given else None,
    )


def _carry_out(run: Run) -> None:
    """The whole of one run, into ``run``. Raises InputError, Cancelled."""
    run.reach("loading the model", 0.04)
    model = load(run.model)
    _watch(model, run)
    run.reach("sharpening", 0.08)
    work, lines = worked(read(run.job, run.settings), model)
    run.reach("comparing", 0.9)
    run.kept, _ = kept_of(work)
    _, notes = outputs_of(replace(work, job=replace(run.job, points=None)))
    run.lines = [f"model    {run.model}", *lines, *notes]
    run.reach("drawing", 0.93)
    run.work = replace(work, job=run.job)
    _draw(run, run.work, run.kept)
    run.reach("making the surface", 0.96)
    show_surface(run)


def _watch(model: Model, run: Run) -> None:
    """Progress and a way out before each layer; a filter has none, so it ends before it is cancelled."""
    total = sum(1 for _ in model.modules())
    seen = 0

    def before(module: nn.Module, _: object) -> None:
        nonlocal seen
        seen += 1
        run.reach(f"sharpening, step {seen}", 0.08 + 0.8 * min(seen / max(total, 1), 1))

    for module in model.modules():
        module.register_forward_pre_hook(before)


# ------------------------------------------------------------------------------- what is shown


def _draw(run: Run, work: Work, kept: np.ndarray) -> None:
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
        base = predict(load("bicubic"), low=low.depth, valid=low.valid, unit=result.unit, size=size)
        views["bicubic"] = picture.colours(base.depth, np.ones_like(kept), span)
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
        "range": [span.low, span.high],
        "worst": None if worst is None else worst.high,
        "histogram": _histogram(result.depth[kept], None if low is None else low.depth[low.valid]),
        "median": float(np.median(result.depth[kept])) if kept.any() else None,
    }


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
    work = _work_of(run)
    camera, note = camera_of(work)
    run.facts |= {"camera": note, "surface": "", "known_camera": intrinsics_of(work.job, work.settings) is not None}
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


def set_camera(run: Run, asked: Mapping[str, Any]) -> None:
    """Another camera for the same depth: intrinsics as text, or a field of view. Raises InputError."""
    work = _work_of(run)
    if not (asked.get("fov_deg") or asked.get("intrinsics")):
        raise InputError("write the field of view in degrees, or fx,fy,cx,cy in pixels of the picture")
    new = _settings(asked, {})
    if not 1 <= new.fov_deg <= 170:
        raise InputError(f"--fov {new.fov_deg:g} is out of range: 1 to 170 degrees")
    changed = replace(run.settings, intrinsics=new.intrinsics, fov_deg=new.fov_deg)
    with run.writing:
        camera_of(replace(work, settings=changed))
        run.settings, run.work = changed, replace(work, settings=changed)
        show_surface(run)


def measure(run: Run, pixels: Iterable[tuple[int, int]]) -> dict[str, Any]:
    """Depth and place of each pixel (column, row), and how far apart the last two are.

    ``xyz`` in metres as ``geometry.points`` has them; None in a hole, and where depth is not in metres.
    """
    work, kept = _work_of(run), run.kept
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
    work, what = _work_of(run), DOWNLOADS[name][0]
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


def _work_of(run: Run) -> Work:
    if run.work is None:
        raise InputError("there is no result yet" if not run.over else run.error)
    return run.work


# ------------------------------------------------------------------------------- files of the command line


def told_apart(paths: Iterable[Path]) -> dict[str, Path]:
    """Which of some files is what, by role: a colour picture, depth, a larger depth as its truth, intrinsics.

    Raises InputError for a file that cannot be read and for more files of a kind than there are roles.
    """
    found: dict[str, Path] = {}
    depths = []
    for path in paths:
        with opened(path):
            pass
        role = "intrinsics" if path.suffix.lower() in (".json", ".yaml", ".yml", ".pincam", ".txt") else "rgb"
        if role == "rgb" and not _is_colour(path):
            depths.append(path)
        elif role in found:
            raise InputError(
                f"{shown(path)}: there is one {role} already ({shown(found[role].name)}): give one of them"
            )
        else:
            found[role] = path
    if len(depths) > 1:
        depths.sort(key=lambda path: io.read_depth(path, "relative", nan_holes=True).depth.size)
    if len(depths) > 2:
        raise InputError(f"{len(depths)} depth maps are too many: give one, and its truth if there is one")
    return found | dict(zip(("low", "truth"), depths, strict=False))


def _is_colour(path: Path) -> bool:
    if path.suffix.lower() in (".jpg", ".jpeg", ".webp", ".bmp"):
        return True
    try:
        rgb = io.read_rgb(path)
    except InputError:
        return False
    return bool((rgb[..., :1] != rgb).any())
