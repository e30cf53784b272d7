"""Job and Settings: the files of one prediction and what is asked for; contradictions are said before any work."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from crispdepth import io
from crispdepth.atomic import check_output
from crispdepth.degradation import LARGEST_SCALE
from crispdepth.intrinsics import MOST_FOCAL_PX, Intrinsics, read_intrinsics, read_stereo
from crispdepth.mesh import MESH_SUFFIXES
from crispdepth.options import Options
from crispdepth.picture import Range
from crispdepth.types import InputError, Size

DEFAULT_FOV_DEG = 60.0  # across the longer side, when no intrinsics are given


@dataclass(frozen=True)
class Job:
    """The files of one prediction: ``low``, ``rgb``, ``confidence`` are read, ``truth`` is only compared with.

    Without ``low`` depth is found in ``rgb`` alone. For many files each field is a folder or a pattern: see
    ``batch.pair``. ``intrinsics`` and ``unit`` are what a recording says of this file; those of Settings come first.
    ``new_folders``: folders that the outputs lack are made once there is something to write.
    """

    low: Path | None
    out: Path
    rgb: Path | None = None
    picture: Path | None = None
    points: Path | None = None
    truth: Path | None = None
    confidence: Path | None = None
    out_confidence: Path | None = None
    mesh: Path | None = None
    classes: Path | None = None
    intrinsics: str | None = None
    unit: str | None = None
    new_folders: bool = False

    @property
    def start(self) -> Path:
        """What the depth is made from: ``low``, or ``rgb`` where there is none. Raises InputError without either."""
        first = self.low or self.rgb
        if first is None:
            raise InputError("there is nothing to start from: give --low, or --rgb alone")
        return first

    @property
    def inputs(self) -> dict[str, Path]:
        """What is read, by the field's name."""
        named = {"low": self.low, "rgb": self.rgb, "confidence": self.confidence, "truth": self.truth}
        return {name: path for name, path in named.items() if path is not None}

    @property
    def outputs(self) -> list[tuple[Path, tuple[str, ...]]]:
        """What is written, each with the extensions it may have."""
        wanted = (
            (self.out, io.DEPTH_SUFFIXES),
            (self.picture, io.PICTURE_SUFFIXES),
            (self.points, (".ply",)),
            (self.out_confidence, io.CONFIDENCE_SUFFIXES),
            (self.mesh, MESH_SUFFIXES),
            (self.classes, (".png",)),
        )
        return [(path, suffixes) for path, suffixes in wanted if path is not None]


@dataclass(frozen=True)
class Settings(Options):
    """What is the same for every job: the options of ``predict``, and the rest.

    ``size`` is (height, width); ``intrinsics`` as ``read_intrinsics``; ``min_confidence``, ``confidence_max`` as in
    ``predict``; ``max_hole_px``: holes wider than this stay holes, ``keep_holes``: all of them. ``depth_intrinsics``:
    of the camera that took the depth; ``extrinsics`` (as ``read_extrinsics``; None: the same place) lead to that of
    ``intrinsics``.
    ``calib``: a Middlebury calib.txt, which turns disparity into metres. ``focal_px``: in pixels of the picture, for
    depth from it alone; the focal length of ``intrinsics`` serves too. ``span``: the colours of pictures, where they
    shall be the same in all.
    """

    unit: str | None = None
    out_unit: str | None = None
    size: Size | None = None
    scale: float | None = None
    intrinsics: str | None = None
    fov_deg: float = DEFAULT_FOV_DEG
    keep_holes: bool = False
    nan_holes: bool = False
    min_confidence: float | None = None
    confidence_max: float | None = None
    max_hole_px: int | None = None
    depth_intrinsics: str | None = None
    extrinsics: str | None = None
    calib: str | None = None
    focal_px: float | None = None
    span: Range | None = None


def check(job: Job, settings: Settings) -> None:
    """Raise InputError for what can be known before any work: outputs, options that contradict."""
    if job.start is not job.low:
        _check_alone(job, settings)
    else:
        settings.check(picture=job.rgb is not None)
    if job.low is not None and settings.focal_px is not None:
        raise InputError("--focal is for depth from a picture alone: leave it out, --low has the scale")
    twice = job.low is not None and job.rgb is not None and os.path.realpath(job.low) == os.path.realpath(job.rgb)
    if twice and not io.holds_both(job.start):
        raise InputError(f"{job.low}: given as --low and as --rgb: name the colour picture, or leave out --rgb")
    for path, suffixes in job.outputs:
        check_output(path, job.inputs.values(), suffixes, job.new_folders)
    if len({os.path.realpath(path) for path, _ in job.outputs}) < len(job.outputs):
        raise InputError("two outputs have one name: give each of them its own")
    if settings.size and settings.scale:
        raise InputError("--size and --scale both say how large the result shall be: give one of them")
    if settings.scale is not None and not 1 <= settings.scale <= LARGEST_SCALE:
        raise InputError(f"--scale {settings.scale:g} is out of range: 1 to {LARGEST_SCALE}")
    if not 1 <= settings.fov_deg <= 170:
        raise InputError(f"--fov {settings.fov_deg:g} is out of range: 1 to 170 degrees")
    if settings.fov_deg != DEFAULT_FOV_DEG and not (job.points or job.mesh):
        raise InputError("--fov is for points and meshes: add --points cloud.ply, or leave it out")
    told = {"--intrinsics": settings.intrinsics, "--focal": settings.focal_px, "--calib": settings.calib}
    told["the recording"] = job.intrinsics
    by = next((name for name, value in told.items() if value is not None), None)
    if settings.fov_deg != DEFAULT_FOV_DEG and by is not None:
        raise InputError(f"--fov is for a camera that nothing tells of, and {by} does: leave it out")
    if settings.focal_px is not None and settings.intrinsics is not None:
        raise InputError("--focal and --intrinsics both say how long the focal length is: give one of them")
    if settings.depth_intrinsics is None and settings.extrinsics is not None:
        raise InputError("--extrinsics lead from the depth's camera to the picture's: add --depth-intrinsics")
    known = settings.intrinsics or job.intrinsics
    if settings.depth_intrinsics is not None and (job.rgb is None or known is None):
        raise InputError("--depth-intrinsics needs the picture's camera too: add --rgb and --rgb-intrinsics")
    used = settings.depth_intrinsics is not None or job.points or job.mesh or job.low is None
    if settings.intrinsics is not None and not used:
        raise InputError("--intrinsics is for points and meshes: add --points cloud.ply, or leave it out")
    if settings.min_confidence is not None and job.confidence is None:
        raise InputError("--min-confidence is for a sensor's own confidence: add --confidence")
    if settings.confidence_max is not None and job.confidence is None:
        raise InputError("--confidence-max is the end of a sensor's own confidence: add --confidence")
    if settings.max_hole_px is not None and settings.max_hole_px < 1:
        raise InputError("--max-hole-px must be at least 1: --keep-holes leaves every hole")
    if settings.max_hole_px is not None and settings.keep_holes:
        raise InputError("--keep-holes leaves every hole, --max-hole-px only the wide ones: give one of them")
    if settings.calib is not None and settings.unit not in (None, "disparity"):
        raise InputError(f"--calib is for disparity, not for {settings.unit}: leave one of them out")


def check_sized(job: Job, settings: Settings) -> None:
    """Raise InputError where nothing says how large the result shall be."""
    if job.rgb is None and settings.size is None and settings.scale is None:
        raise InputError("how large shall the result be? pass --size WxH or --scale S, or --rgb")


def _check_alone(job: Job, settings: Settings) -> None:
    """Raise InputError for what makes no sense when depth is found in a picture alone."""
    if settings.scale is not None:
        raise InputError("--scale counts from --low: say --size instead")
    if settings.focal_px is not None and not 0 < settings.focal_px < MOST_FOCAL_PX:
        raise InputError(f"--focal {settings.focal_px:g} is out of range: it is in pixels of --rgb, above 0")
    of_low = {
        "--confidence": job.confidence,
        "--out-confidence": job.out_confidence,
        **{f"--{name.replace('_', '-')}": True for name in settings.asked()},
        "--depth-intrinsics": settings.depth_intrinsics,
        "--calib": settings.calib,
        "--keep-holes": settings.keep_holes or None,
        "--max-hole-px": settings.max_hole_px,
        "--nan-holes": (settings.nan_holes or None) if job.truth is None else None,
        "--unit": settings.unit if job.truth is None else None,
    }
    for option, value in of_low.items():
        if value is not None:
            raise InputError(f"{option} is about depth that was measured: add --low, or leave it out")


def read_depth(path: Path, job: Job, settings: Settings) -> io.DepthFile:
    """A depth map of this job, in metres where its unit or ``calib`` say how. Raises InputError."""
    if settings.calib is None:
        return io.read_depth(path, settings.unit or job.unit, nan_holes=settings.nan_holes)
    read = io.read_depth(path, "disparity", nan_holes=settings.nan_holes)
    try:
        depth = read_stereo(settings.calib).depth(read.depth, read.valid)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return io.DepthFile(depth, read.valid, "m", read.stored)


def intrinsics_of(job: Job, settings: Settings) -> Intrinsics | None:
    """The camera of the picture, by the first that says it: Settings, the recording, the stereo pair."""
    known = settings.intrinsics or job.intrinsics
    if known is not None:
        return read_intrinsics(known)
    return None if settings.calib is None else read_stereo(settings.calib).left
