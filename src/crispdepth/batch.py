"""Files in, files out: one job, or a whole folder paired by stem; nothing half-written, nothing lost."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from crispdepth import io, picture
from crispdepth.atomic import atomic, check_output
from crispdepth.data.folder import by_stem, files_in
from crispdepth.geometry import Camera, depth_edges, flying_pixels, points, resize_rgb
from crispdepth.inference import predict
from crispdepth.intrinsics import read_intrinsics
from crispdepth.metrics import rmse
from crispdepth.models.catalog import load
from crispdepth.types import InputError, Model, Prediction, Size

DEFAULT_FOV_DEG = 60.0  # across the longer side, when no intrinsics are given


@dataclass(frozen=True)
class Job:
    """The files of one prediction; ``truth`` is only compared with."""

    low: Path
    out: Path
    rgb: Path | None = None
    picture: Path | None = None
    points: Path | None = None
    truth: Path | None = None


@dataclass(frozen=True)
class Settings:
    """What is the same for every job. ``size`` is (height, width); ``intrinsics`` as ``read_intrinsics``."""

    unit: str | None = None
    out_unit: str | None = None
    size: Size | None = None
    scale: float | None = None
    intrinsics: str | None = None
    fov_deg: float = DEFAULT_FOV_DEG
    keep_holes: bool = False
    nan_holes: bool = False


def check(job: Job, settings: Settings) -> None:
    """Raise InputError for what can be known before any work: outputs, options that contradict."""
    inputs = [p for p in (job.low, job.rgb, job.truth) if p is not None]
    check_output(job.out, inputs, io.DEPTH_SUFFIXES)
    if job.picture is not None:
        check_output(job.picture, inputs, io.PICTURE_SUFFIXES)
    if job.points is not None:
        check_output(job.points, inputs, (".ply",))
    outputs = [p.resolve() for p in (job.out, job.picture, job.points) if p is not None]
    if len(set(outputs)) < len(outputs):
        raise InputError("two outputs have one name: give the depth and the picture different ones")
    if settings.size and settings.scale:
        raise InputError("--size and --scale both say how large the result shall be: give one of them")
    if settings.scale is not None and not 1 <= settings.scale <= 64:
        raise InputError(f"--scale {settings.scale:g} is out of range: 1 to 64")
    if not 1 <= settings.fov_deg <= 170:
        raise InputError(f"--fov {settings.fov_deg:g} is out of range: 1 to 170 degrees")
    if settings.intrinsics is not None and job.points is None:
        raise InputError("--intrinsics is for the point cloud: add --points cloud.ply, or leave it out")


@dataclass(frozen=True)
class _Work:
    """What one job has in hand while it is being written up."""

    job: Job
    settings: Settings
    low: io.DepthFile
    rgb: np.ndarray | None  # (H, W, 3) float in 0..1, at the result's size
    rgb_size: Size  # of the picture as it was read, which intrinsics are for
    result: Prediction


def run(job: Job, model: Model, settings: Settings) -> list[str]:
    """Do one job and write its files, all or none. Returns the lines to show a person.

    Raises InputError for anything wrong with the input; nothing has been written then.
    """
    check(job, settings)
    low = io.read_depth(job.low, settings.unit, nan_holes=settings.nan_holes)
    height, width = low.depth.shape
    lines = [
        f"low      {job.low.name}: {width}x{height}, unit {low.unit}, "
        f"median {low.median:.4g} {low.depth_unit}, holes {low.holes:.1%}"
    ]
    rgb = None if job.rgb is None else io.read_rgb(job.rgb)
    if rgb is not None and job.rgb is not None:
        lines.append(f"rgb      {job.rgb.name}: {rgb.shape[1]}x{rgb.shape[0]}")
    size = settings.size
    if settings.scale is not None:
        size = (round(height * settings.scale), round(width * settings.scale))
    result = predict(model, low=low.depth, rgb=rgb, valid=low.valid, unit=low.depth_unit, size=size)
    rgb_size = result.depth.shape if rgb is None else rgb.shape[:2]
    at_size = None if rgb is None else _at_size(rgb, result.depth.shape)
    outputs, notes = _outputs(_Work(job, settings, low, at_size, rgb_size, result))
    return lines + notes + _write_all(outputs)


def _outputs(work: _Work) -> tuple[list[tuple[Path, str, Callable[[Path], None]]], list[str]]:
    """What to write, (path, what it is, writer), and what to say; everything that can fail fails here."""
    job, settings, result = work.job, work.settings, work.result
    notes: list[str] = []
    filled = float(1 - result.valid.mean())
    if filled > 0:
        what = "left as holes" if settings.keep_holes else "filled from around (--keep-holes leaves them)"
        notes.append(f"holes    {filled:.1%} of the result had no reading nearby: {what}")
    valid = result.valid if settings.keep_holes else np.ones_like(result.valid)
    write = partial(io.write_depth, depth=result.depth, valid=valid, unit=result.unit, out_unit=settings.out_unit)
    height, width = result.depth.shape
    outputs: list[tuple[Path, str, Callable[[Path], None]]] = [(job.out, f"depth {width}x{height}", write)]
    truth = None if job.truth is None else _read_truth(work)
    base = None
    if truth is not None or job.picture is not None:
        base = predict(
            load("bicubic"),
            low=work.low.depth,
            valid=work.low.valid,
            unit=result.unit,
            size=(height, width),
        )
    if truth is not None and base is not None:
        notes.append(_error_line(result, base, truth))
    if job.picture is not None and base is not None:
        image = _view(work, base, truth, valid)
        outputs.append((job.picture, "picture", partial(io.write_rgb, rgb=image)))
    if job.points is not None:
        cloud, note = _cloud(work)
        notes.append(note)
        outputs.append(
            (
                job.points,
                f"{len(cloud[0])} points",
                partial(io.write_points, points=cloud[0], colours=cloud[1]),
            )
        )
    return outputs, notes


def _write_all(outputs: Sequence[tuple[Path, str, Callable[[Path], None]]]) -> list[str]:
    """Write every file to a temporary name first; rename them together at the end."""
    lines = []
    with ExitStack() as stack:
        for path, what, write in outputs:
            temporary = stack.enter_context(atomic(path))
            write(temporary)
            lines.append(f"wrote    {path} ({what}, {_bytes(temporary.stat().st_size)})")
    return lines


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def _read_truth(work: _Work) -> io.DepthFile:
    assert work.job.truth is not None
    truth = io.read_depth(work.job.truth, work.settings.unit, nan_holes=work.settings.nan_holes)
    if truth.depth.shape != work.result.depth.shape:
        (h, w), (rh, rw) = truth.depth.shape, work.result.depth.shape
        raise InputError(f"{work.job.truth}: truth is {w}x{h}, the result {rw}x{rh}: they must have one size")
    if truth.depth_unit != work.result.unit:
        raise InputError(f"{work.job.truth}: truth is in {truth.depth_unit}, the result in {work.result.unit}")
    return truth


def _error_line(result: Prediction, base: Prediction, truth: io.DepthFile) -> str:
    scale, sign = (100, "cm") if result.unit == "m" else (1, result.unit)
    target, valid = torch.from_numpy(truth.depth)[None, None], torch.from_numpy(truth.valid)[None, None]
    ours, theirs = (float(rmse(torch.from_numpy(p.depth)[None, None], target, valid)) * scale for p in (result, base))
    return f"error    RMSE against the truth {ours:.2f} {sign}; bicubic {theirs:.2f} {sign}"


def _view(work: _Work, base: Prediction, truth: io.DepthFile | None, valid: np.ndarray) -> np.ndarray:
    """RGB, low, bicubic, ours, and with a truth the truth and the error; details at full size below."""
    result = work.result
    span = picture.Range.of(work.low.depth, work.low.valid, result.unit)
    h, w = work.low.depth.shape
    panels = [] if work.rgb is None else [picture.rgb_panel(work.rgb)]
    panels += [
        picture.depth_panel(work.low.depth, work.low.valid, span, f"low, {w}x{h}"),
        picture.depth_panel(base.depth, np.ones_like(valid), span, "bicubic"),
        picture.depth_panel(result.depth, valid, span, "crispdepth"),
    ]
    if truth is not None:
        worst = picture.Range(0, max(0.1 * (span.high - span.low), 1e-6), result.unit)
        panels += [
            picture.depth_panel(truth.depth, truth.valid, span, "truth"),
            picture.error_panel(result.depth, truth.depth, truth.valid, worst, "error of crispdepth"),
        ]
    columns = 3 if len(panels) in (3, 6) else 2
    sheet = picture.comparison(panels, columns)
    if max(result.depth.shape) <= picture.PANEL_PX:
        return sheet
    window = _busiest(result)
    details = [picture.cropped(p, window, result.depth.shape, "detail") for p in panels]
    return picture.stacked([sheet, picture.comparison(details, columns)])


def _at_size(rgb: np.ndarray, size: Size) -> np.ndarray:
    """(h, w, 3) colours at another size."""
    return resize_rgb(torch.from_numpy(rgb).permute(2, 0, 1)[None], size)[0].permute(1, 2, 0).numpy()


def _busiest(result: Prediction, side: int = 320) -> tuple[int, int, int, int]:
    """Top, left, height, width of the window with the most depth edges: where sharpness shows."""
    depth = torch.from_numpy(result.depth)[None, None]
    edges = depth_edges(depth, torch.ones_like(depth, dtype=torch.bool)).float()
    height, width = min(side, depth.shape[-2]), min(side, depth.shape[-1])
    step = 16
    counts = F.avg_pool2d(edges, (height, width), stride=step)[0, 0]
    best = int(counts.argmax())
    return best // counts.shape[1] * step, best % counts.shape[1] * step, height, width


def _camera(work: _Work) -> tuple[Camera, str]:
    height, width = size = work.result.depth.shape
    text = work.settings.intrinsics
    if text is None:
        camera = Camera.from_fov(work.settings.fov_deg, size)
        note = f"a {work.settings.fov_deg:g}° field of view is assumed, so shapes may be stretched: --intrinsics"
        return camera, note
    k = read_intrinsics(text)
    camera = Camera(k.fx, k.fy, k.cx, k.cy, k.width or work.rgb_size[1], k.height or work.rgb_size[0])
    if abs(np.log(camera.width / camera.height * height / width)) > 0.02:
        raise InputError(
            f"intrinsics are for {camera.width}x{camera.height}, the result is {width}x{height}: another shape"
        )
    return camera.resized(size), "with the intrinsics given"


def _cloud(work: _Work) -> tuple[tuple[np.ndarray, np.ndarray | None], str]:
    """Points (n, 3) in metres and their colours, without filled and flying pixels; and what to say."""
    result = work.result
    if result.unit != "m":
        raise InputError(f"--points needs depth in metres, and this depth is {result.unit}: give its --unit")
    depth = torch.from_numpy(result.depth)[None, None]
    mask = torch.from_numpy(result.valid & (result.depth > 0))[None, None]
    flying = flying_pixels(depth, mask)
    keep = (mask & ~flying)[0, 0].numpy()
    camera, note = _camera(work)
    xyz = points(depth, camera.matrix())[0].permute(1, 2, 0).numpy()[keep]
    rgb = None
    if work.rgb is not None:
        rgb = np.round(work.rgb[keep] * 255).astype(np.uint8)
    return (xyz, rgb), f"points   {int(flying.sum())} flying pixels dropped; {note}"


# ------------------------------------------------------------------------------- many files


def is_many(pattern: str) -> bool:
    """Whether a ``--low`` means many files: a folder, or a pattern with * ? [ that is no file's own name."""
    return Path(pattern).is_dir() or (not Path(pattern).exists() and glob.has_magic(pattern))


def expand(pattern: str) -> list[Path]:
    """The files a folder or a pattern stands for. Raises InputError when there is none."""
    if Path(pattern).is_dir():
        found = files_in(Path(pattern))
    else:
        found = sorted(Path(p) for p in glob.glob(pattern) if Path(p).is_file())
    if not found:
        raise InputError(f"{pattern}: no file matches; quote the pattern and check the folder")
    return found


def pair(
    low: str,
    rgb: str | None,
    out: Path,
    *,
    suffix: str = ".png",
    picture_dir: Path | None = None,
    points_dir: Path | None = None,
) -> tuple[list[Job], list[str]]:
    """Jobs for many files paired by stem, and a line for each file without a partner.

    Outputs are ``out/STEM.png`` (``suffix``), ``picture_dir/STEM_view.png`` and ``points_dir/STEM.ply``.
    Raises InputError when nothing pairs or a folder is missing.
    """
    if suffix.lower() not in io.DEPTH_SUFFIXES:
        raise InputError(f"--suffix {suffix!r} is no depth file: use one of {', '.join(io.DEPTH_SUFFIXES)}")
    for folder in filter(None, (out, picture_dir, points_dir)):
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder: create it first (many inputs need a folder to go to)")
    lows = by_stem(expand(low))
    rgbs = by_stem(expand(rgb)) if rgb is not None else {}
    jobs = [
        Job(
            low=path,
            rgb=rgbs.get(name),
            out=out / f"{name}{suffix}",
            picture=picture_dir / f"{name}_view.png" if picture_dir else None,
            points=points_dir / f"{name}.ply" if points_dir else None,
        )
        for name, path in lows.items()
        if rgb is None or name in rgbs
    ]
    if not jobs:
        raise InputError(f"no file of {low} pairs with one of {rgb} by its stem (000.png with 000.jpg)")
    lonely = [] if rgb is None else [lows[n] for n in lows.keys() - rgbs.keys()]
    lonely += [rgbs[n] for n in rgbs.keys() - lows.keys()]
    return jobs, [f"{path}: has no partner of that name" for path in sorted(lonely)]


def run_all(
    jobs: Iterable[Job], model: Model, settings: Settings, progress: Callable[[list[str]], None] | None = None
) -> list[str]:
    """Every job in turn; one that fails is reported at the end and does not stop the others.

    Returns one line for each failure. ``progress`` is called after each job with the lines ``run`` returned,
    none where it failed.
    """
    failures = []
    for job in jobs:
        lines: list[str] = []
        try:
            lines = run(job, model, settings)
        except (InputError, OSError, MemoryError, RuntimeError) as error:
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            failures.append(text if str(job.low) in text or job.low.name in text else f"{job.low}: {text}")
        if progress:
            progress(lines)
    return failures
