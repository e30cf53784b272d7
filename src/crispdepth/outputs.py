"""What one job writes, made from its result: depth, confidence, classes, a comparison to look at, points, a mesh."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from crispdepth import io, picture
from crispdepth.atomic import atomic
from crispdepth.geometry import Camera, depth_edges, wide_holes
from crispdepth.inference import predict
from crispdepth.job import Job, Settings, intrinsics_of, read_depth
from crispdepth.mesh import Mesh, grid_mesh, point_cloud, write_mesh
from crispdepth.metrics import absrel, rmse
from crispdepth.models.catalog import load
from crispdepth.types import InputError, Prediction, Size

FAR_APART = 3.0  # medians of result and truth: mostly a wrong unit


@dataclass(frozen=True)
class Work:
    """What one job has in hand while it is being written up."""

    job: Job
    settings: Settings
    low: io.DepthFile | None
    rgb: np.ndarray | None  # (H, W, 3) float in 0..1, at the result's size
    rgb_size: Size  # of the picture as it was read, else of the low map: intrinsics are for that
    result: Prediction


@dataclass(frozen=True)
class Output:
    """A file to be written: its name, what it is, and its writer."""

    path: Path
    what: str
    write: Callable[[Path], None]


def outputs_of(work: Work) -> tuple[list[Output], list[str]]:
    """What to write and what to say; everything that can fail but the disk fails here."""
    job, result = work.job, work.result
    kept, notes = kept_of(work)
    height, width = result.depth.shape
    write = partial(io.write_depth, depth=result.depth, valid=kept, unit=result.unit, out_unit=work.settings.out_unit)
    outputs = [Output(job.out, f"depth {width}x{height}", write)]
    if job.classes is not None:
        outputs.append(_classes(result, job.classes))
    truth = None if job.truth is None else read_truth(work)
    base = None
    if work.low is not None and (truth is not None or job.picture is not None):
        base = predict(
            load("bicubic"), low=work.low.depth, valid=work.low.valid, unit=result.unit, size=(height, width)
        )
    if truth is not None:
        moved = work.settings.align == "auto" and result.shift_px != (0, 0)
        notes.append(_error_line(result, base, truth, moved))
    if job.out_confidence is not None:
        outputs.append(_confidence(work, job.out_confidence, kept))
    if job.picture is not None:
        image = _view(work, base, truth, kept)
        outputs.append(Output(job.picture, "picture", partial(io.write_rgb, rgb=image)))
    if job.points is not None:
        (xyz, colours), note = _cloud(work)
        notes.append(note)
        write = partial(io.write_points, points=xyz, colours=colours)
        outputs.append(Output(job.points, f"{len(xyz)} points", write))
    if job.mesh is not None:
        surface, note = _surface(work)
        notes.append(note)
        outputs.append(Output(job.mesh, f"{len(surface.vertices)} vertices", partial(write_mesh, mesh=surface)))
    return outputs, notes


def write_all(outputs: Sequence[Output]) -> list[str]:
    """Write every file to a temporary name first; rename them together at the end. Returns a line for each."""
    lines = []
    with ExitStack() as stack:
        for output in outputs:
            temporary = stack.enter_context(atomic(output.path))
            output.write(temporary)
            lines.append(f"wrote    {output.path} ({output.what}, {_bytes(temporary.stat().st_size)})")
    return lines


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def kept_of(work: Work) -> tuple[np.ndarray, list[str]]:
    """Where the result keeps a value, (H, W) bool, and what to say of the holes. None is kept at or below 0."""
    result, settings = work.result, work.settings
    valid, usable = result.valid, np.ones_like(result.valid)
    if result.unit != "relative":
        usable = result.depth > 0
    lines = []
    if not usable.all():
        lines.append(f"holes    {np.sum(~usable)} pixels came out at or below 0, beside a steep edge: left as holes")
    unseen = 1 - (valid | ~usable).mean()
    if not unseen:
        return usable, lines
    kept, what = usable, "filled from around (--keep-holes leaves them)"
    if settings.keep_holes:
        kept, what = valid, "left as holes"
    elif settings.max_hole_px is not None:
        kept = usable & ~wide_holes(torch.from_numpy(valid)[None, None], settings.max_hole_px)[0, 0].numpy()
        what = (
            f"{1 - kept.mean():.1%} in holes wider than {settings.max_hole_px} px left, the others filled from around"
        )
    return kept, [*lines, f"holes    {unseen:.1%} of the result lies where nothing was measured: {what}"]


def _classes(result: Prediction, path: Path, most: int = 3) -> Output:
    """The map of classes; to be said of it, those that cover most of the picture."""
    assert result.classes is not None
    counts = np.bincount(result.classes.ravel(), minlength=len(result.class_names))
    found = [i for i in np.argsort(-counts, kind="stable")[:most] if counts[i]]
    shares = ", ".join(f"{result.class_names[i]} {counts[i] / result.classes.size:.0%}" for i in found)
    palette = picture.class_colours(len(result.class_names))
    return Output(path, f"classes: {shares}", partial(io.write_label, classes=result.classes, colours=palette))


def _confidence(work: Work, path: Path, kept: np.ndarray) -> Output:
    result = work.result
    if result.confidence is None:
        raise InputError(f"--out-confidence counts in shares of the depth, which {result.unit} has not: give --unit")
    if path.suffix.lower() != ".png" and result.error is None:
        raise InputError(f"{path}: this model does not estimate its error: write a .png, or use --model crisp")
    what = "confidence" if path.suffix.lower() == ".png" else f"expected error, {result.unit}"
    write = partial(io.write_confidence, confidence=result.confidence, error=result.error, valid=kept)
    return Output(path, what, write)


def read_truth(work: Work) -> io.DepthFile:
    """The truth of a job that names one, of the result's size and unit. Raises InputError."""
    assert work.job.truth is not None
    truth = read_depth(work.job.truth, work.job, work.settings)
    if truth.depth.shape != work.result.depth.shape:
        (h, w), (rh, rw) = truth.depth.shape, work.result.depth.shape
        raise InputError(f"{work.job.truth}: truth is {w}x{h}, the result {rw}x{rh}: they must have one size")
    if truth.depth_unit != work.result.unit:
        raise InputError(f"{work.job.truth}: truth is in {truth.depth_unit}, the result in {work.result.unit}")
    return truth


def _error_line(result: Prediction, base: Prediction | None, truth: io.DepthFile, moved: bool) -> str:
    scale, sign = (100, "cm") if result.unit == "m" else (1, result.unit)
    target, valid = torch.from_numpy(truth.depth)[None, None], torch.from_numpy(truth.valid)[None, None]
    both = [torch.from_numpy(p.depth)[None, None] for p in (result, base) if p is not None]
    errors = [f"{float(rmse(depth, target, valid)) * scale:.2f} {sign}" for depth in both]
    beside = f"AbsRel {float(absrel(both[0], target, valid)):.3f}" if base is None else f"bicubic {errors[1]}"
    ours, theirs = float(np.median(result.depth)), truth.median
    apart = base is not None and result.unit == "m" and not 1 / FAR_APART < ours / theirs < FAR_APART
    hint = f"; its median is {theirs:.3g} m, not {ours:.3g}: does it hold what --unit says?" if apart else ""
    hint += "; the result was moved, the truth was not" if moved else ""
    return f"error    RMSE against the truth {errors[0]}; {beside}{hint}"


def _view(work: Work, base: Prediction | None, truth: io.DepthFile | None, valid: np.ndarray) -> np.ndarray:
    """RGB, low, bicubic, ours, and with a truth the truth and the error; details at full size below.

    From a picture alone: RGB, depth and classes.
    """
    result = work.result
    panels = [] if work.rgb is None else [picture.rgb_panel(work.rgb)]
    if work.low is None or base is None:
        span = work.settings.span or picture.Range.of(result.depth, valid, result.unit)
    else:
        span = work.settings.span or picture.Range.of(work.low.depth, work.low.valid, result.unit)
        h, w = work.low.depth.shape
        panels += [
            picture.depth_panel(work.low.depth, work.low.valid, span, f"low, {w}x{h}"),
            picture.depth_panel(base.depth, np.ones_like(valid), span, "bicubic"),
        ]
    panels.append(picture.depth_panel(result.depth, valid, span, "crispdepth"))
    if result.classes is not None:
        panels.append(picture.class_panel(result.classes, result.class_names, "classes"))
    if truth is not None:
        worst = picture.Range(0, max(0.1 * (span.high - span.low), 1e-6), result.unit)
        panels += [
            picture.depth_panel(truth.depth, truth.valid, span, "truth"),
            picture.error_panel(result.depth, truth.depth, truth.valid, worst, "error of crispdepth"),
        ]
    columns = 3 if len(panels) in (3, 5, 6) else 2
    sheet = picture.comparison(panels, columns)
    if max(result.depth.shape) <= picture.PANEL_PX or work.low is None:
        return sheet
    window = _busiest(result)
    details = [picture.cropped(p, window, result.depth.shape, "detail") for p in panels]
    return picture.stacked([sheet, picture.comparison(details, columns)])


def _busiest(result: Prediction, side: int = 320) -> tuple[int, int, int, int]:
    """Top, left, height, width of the window with the most depth edges: where sharpness shows."""
    depth = torch.from_numpy(result.depth)[None, None]
    edges = depth_edges(depth, torch.ones_like(depth, dtype=torch.bool)).float()
    height, width = min(side, depth.shape[-2]), min(side, depth.shape[-1])
    step = 16
    counts = F.avg_pool2d(edges, (height, width), stride=step)[0, 0]
    best = int(counts.argmax())
    return best // counts.shape[1] * step, best % counts.shape[1] * step, height, width


def camera_of(work: Work) -> tuple[Camera, str]:
    """The camera of the result's pixels, and what to say of it. Raises InputError."""
    size = work.result.depth.shape
    known, focal_px = intrinsics_of(work.job, work.settings), work.settings.focal_px
    if known is None and focal_px is not None:
        return Camera.centred(focal_px * size[1] / work.rgb_size[1], size), "with the focal length given"
    if known is None:
        camera = Camera.from_fov(work.settings.fov_deg, size)
        note = f"a {work.settings.fov_deg:g}° field of view is assumed, so shapes may be stretched: --intrinsics"
        return camera, note
    doubt = known.doubt(work.rgb_size)
    note = f"with the intrinsics given{'; ' if doubt else ''}{doubt}"
    return known.camera(work.rgb_size).resized(size), note


def _cloud(work: Work) -> tuple[tuple[np.ndarray, np.ndarray | None], str]:
    """Points (n, 3) in metres and their colours, without filled and flying pixels; and what to say."""
    result = work.result
    _check_metres("--points", result)
    camera, note = camera_of(work)
    seen = result.valid & (result.depth > 0)
    xyz, colours = point_cloud(result.depth, camera, seen, work.rgb)
    filled = f"{int((~seen).sum())} unmeasured and " if not seen.all() else ""
    return (xyz, colours), f"points   {filled}{int(seen.sum()) - len(xyz)} flying pixels left out; {note}"


def _surface(work: Work) -> tuple[Mesh, str]:
    """The mesh of what was measured, and what to say."""
    result = work.result
    _check_metres("--mesh", result)
    camera, note = camera_of(work)
    surface = grid_mesh(result.depth, result.valid, camera, work.rgb)
    return surface, f"mesh     {len(surface.triangles)} triangles, none across a depth edge; {note}"


def _check_metres(option: str, result: Prediction) -> None:
    if result.unit != "m":
        cure = "--calib makes metres of Middlebury's" if result.unit == "disparity" else "give its --unit"
        raise InputError(f"{option} needs depth in metres, and this depth is {result.unit}: {cure}")
