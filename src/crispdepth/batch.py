"""Files in, files out: one job, or a whole folder paired by name; nothing half-written, nothing lost."""

from __future__ import annotations

import glob
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from crispdepth import io
from crispdepth.atomic import check_folder, make_folder
from crispdepth.careful import alignment
from crispdepth.confidence import ends, scale_of, trusted
from crispdepth.data.folder import FILES, by_stem, files_in, in_order, only, stem, stem_without_unit
from crispdepth.geometry import resize_rgb
from crispdepth.inference import Words, alike, predict
from crispdepth.intrinsics import read_extrinsics, read_intrinsics
from crispdepth.job import Job, Settings, check, check_sized, intrinsics_of, read_depth
from crispdepth.options import Options
from crispdepth.outputs import Work, kept_of, outputs_of, write_all
from crispdepth.picture import Range
from crispdepth.recordings import LINE, Frame, recording
from crispdepth.reprojection import reproject, size_seen
from crispdepth.types import InputError, Model, Prediction, Size
from crispdepth.video import SteadyFilm, check_sides, film, film_frame

SPAN_FRAMES, SPAN_VALUES = 50, 20_000  # frames looked at for the colours of a film, readings of each
USUAL_M = (0.15, 300.0)  # medians beyond are mostly a wrong unit
ONE_SHIFT = " (one shift for the whole film)"
FAULTS = (InputError, OSError, MemoryError, RuntimeError, cv2.error)  # of one file, which do not stop the others


@dataclass(frozen=True)
class Read:
    """What one job has read, before the model sees it. Without ``low`` the depth comes from ``rgb`` alone."""

    job: Job
    settings: Settings
    low: io.DepthFile | None
    rgb: np.ndarray | None  # (H, W, 3) float in 0..1, as in its file
    lines: list[str]


def run(job: Job, model: Model, settings: Settings) -> list[str]:
    """Do one job and write its files, all or none. Returns the lines to show a person.

    Raises InputError for anything wrong with the input; nothing has been written then.
    """
    return finished(read(job, settings), model)


def finished(read: Read, model: Model) -> list[str]:
    """What is left of ``run`` when its files are read: a wrong one costs no loading of the model."""
    work, lines = worked(read, model)
    return lines + written(work)


def read(job: Job, settings: Settings) -> Read:
    """The first third of ``run``: the files, checked, the depth in the picture's camera. Raises InputError."""
    check(job, settings)
    if job.low is None:
        io.check_unit(job.out, "m", settings.out_unit)
        alone = io.read_rgb(job.start)
        _check_read(job, settings, alone.shape[:2])
        return Read(job, settings, None, alone, [f"rgb      {job.start.name}: {alone.shape[1]}x{alone.shape[0]}"])
    try:
        low, lines = _read_low(job.low, job, settings)
    except InputError as error:
        if job.rgb is None or not io.is_depth(job.rgb):
            raise
        raise InputError(f"{error}; {job.rgb.name} holds depth: are --low and --rgb swapped?") from None
    io.check_holds(job.out, low, settings.out_unit)
    check_sized(job, settings)
    rgb = None if job.rgb is None else io.read_rgb(job.rgb)
    if rgb is not None and job.rgb is not None and io.is_depth(job.rgb):
        lines.append(f"note     {job.rgb.name} is 16-bit grey, as depth is: was a colour picture meant?")
    if rgb is not None and job.rgb is not None:
        lines.append(f"rgb      {job.rgb.name}: {rgb.shape[1]}x{rgb.shape[0]}")
        if settings.depth_intrinsics is not None:
            low, line = _in_colour_camera(low, job, settings, rgb.shape[:2])
            lines.append(line)
        if low.depth.shape[0] > rgb.shape[0] and settings.size is None and settings.scale is None:
            lines.append("note     the depth is larger than the picture: --scale 1 keeps its detail")
    _check_read(job, settings, low.depth.shape if rgb is None else rgb.shape[:2])
    return Read(job, settings, low, rgb, lines)


def _check_read(job: Job, settings: Settings, size: Size) -> None:
    """Raise InputError for what else the outputs need, while nothing is done yet: the camera of pictures of ``size``,
    and the truth."""
    known = intrinsics_of(job, settings) if job.points or job.mesh else None
    if known is not None:
        known.camera(size)
    if job.truth is not None:
        read_depth(job.truth, job, settings)


def sizes(read: Read) -> tuple[Size, Size] | None:
    """(H, W) of the low map and of the result that ``worked`` will make of it; None without them."""
    size = _size(read) or (None if read.rgb is None else read.rgb.shape[:2])
    return None if read.low is None or size is None else (read.low.depth.shape, size)


def worked(read: Read, model: Model) -> tuple[Work, list[str]]:
    """The second third: the model's result, ready for ``outputs_of``, and the lines so far. Raises InputError."""
    if read.job.classes is not None and not hasattr(model, "depth_and_classes"):
        raise InputError("this model tells no classes apart: leave out --classes, or give --rgb alone")
    settings, low, rgb, lines = read.settings, read.low, read.rgb, list(read.lines)
    if low is None:
        assert rgb is not None
        result, line = _from_rgb(rgb, read.job, model, settings)
        lines.append(line)
    else:
        result = predict(model, **_words(read, low), **Options.words(settings))
        if settings.align in ("guide", "auto") or result.shift_px != (0, 0):
            done = alignment(model, settings.align)
            lines.append(_align_line(result.shift_px, done) + ("" if settings.shift is None else ONE_SHIFT))
        lines += _noise_lines(result, settings.denoise)
        if result.averaged:
            lines.append("kernel   readings are means of what their pixels cover: the model ran twice, to allow for it")
        if result.corner_px != (0, 0):
            lines.append(
                f"kernel   readings are single pixels: to lie on them, the depth was moved {_way(result.corner_px)}"
            )
        elif settings.kernel == "points":
            lines.append("kernel   no corner of the low pixels fits the picture: the depth stays where it was")
        if result.twice:
            lines.append("holes    single readings are missing all over: the model ran twice, to fill them first")
    own = result.depth if low is None else low.depth  # the only camera that is known without a picture
    rgb_size = own.shape if rgb is None else rgb.shape[:2]
    at_size = None if rgb is None else _at_size(rgb, result.depth.shape)
    return Work(read.job, settings, low, at_size, rgb_size, result), lines


def _words(read: Read, low: io.DepthFile) -> Words:
    """What is read, in the words of ``predict``."""
    return {"low": low.depth, "valid": low.valid, "unit": low.depth_unit, "rgb": read.rgb, "size": _size(read)}


def _noise_lines(result: Prediction, denoise: str) -> list[str]:
    if result.noise:
        return [f"noise    {result.noise:.3g} {result.unit} was taken out of the depth first (--denoise off leaves it)"]
    if denoise == "on":
        return ["noise    none is to be seen in the depth, or too few readings lie side by side to tell: left as it is"]
    return []


def written(work: Work) -> list[str]:
    """The last third: the files, all or none, and what to say of them. Raises InputError."""
    outputs, notes = outputs_of(work)
    for output in outputs if work.job.new_folders else ():
        make_folder(output.path.parent)
    return notes + write_all(outputs)


def _size(read: Read) -> Size | None:
    """The size that was asked for, if one was."""
    if read.settings.scale is None or read.low is None:
        return read.settings.size
    height, width = read.low.depth.shape
    return round(height * read.settings.scale), round(width * read.settings.scale)


def _from_rgb(rgb: np.ndarray, job: Job, model: Model, settings: Settings) -> tuple[Prediction, str]:
    """Depth from the picture alone, and what to say of it."""
    known, focal_px = intrinsics_of(job, settings), settings.focal_px
    if focal_px is None and known is not None and hasattr(model, "for_focal"):
        focal_px = known.camera((rgb.shape[0], rgb.shape[1])).fx_px
    result = predict(model, rgb=rgb, size=settings.size, focal_px=focal_px)
    return result, _about_scale(model, result, rgb.shape[:2], focal_px)


def _about_scale(model: Model, result: Prediction, size: Size, focal_px: float | None) -> str:
    """What metres rest on when nothing was measured."""
    line = f"depth    median {np.median(result.depth):.4g} m, guessed from the picture alone"
    if focal_px is not None:
        return f"{line}, for a focal length of {focal_px:g} px"
    focal_for: Any = getattr(model, "focal_for", None)
    if focal_for is not None:
        return f"{line}; right for a focal length of {focal_for(size):.0f} px only (--focal says the true one)"
    return line


def _read_low(path: Path, job: Job, settings: Settings) -> tuple[io.DepthFile, list[str]]:
    """The low map without the readings that its sensor does not trust, and what to say of it."""
    low = read_depth(path, job, settings)
    lines = [
        f"low      {path.name}: {low.depth.shape[1]}x{low.depth.shape[0]}, unit {low.unit}, "
        f"median {low.median:.4g} {low.depth_unit}, holes {low.holes:.1%}"
    ]
    if low.note:
        lines.append(f"note     {low.note}")
    eight_bit = low.stored == "uint8" and settings.calib is None
    if low.depth_unit == "m" and (eight_bit or not USUAL_M[0] <= low.median <= USUAL_M[1]):
        kind = " of 8-bit values" if eight_bit else ""
        lines.append(f"note     a median of {low.median:.4g} m{kind} is unusual: does the file really hold {low.unit}?")
    if job.confidence is None:
        return low, lines
    values = io.read_confidence(job.confidence)
    if values.shape != low.valid.shape:
        (h, w), (lh, lw) = values.shape, low.valid.shape
        raise InputError(f"{job.confidence}: is {w}x{h}, the depth {lw}x{lh}: they must have one size")
    try:
        scale = scale_of(values, settings.confidence_max)
        valid = low.valid & trusted(values, settings.min_confidence, scale.full)
    except InputError as error:
        raise InputError(f"{job.confidence}: {error}") from error
    if not valid.any():
        raise InputError(f"{job.confidence}: no reading is trusted enough: ask for less with --min-confidence")
    lost = 1 - valid.sum() / low.valid.sum()
    lines.append(
        f"trusted  {job.confidence.name}, {scale.name}: {lost:.1%} of the readings are below --min-confidence: holes"
    )
    return replace(low, depth=np.where(valid, low.depth, np.float32(0)), valid=valid), lines


def _in_colour_camera(low: io.DepthFile, job: Job, settings: Settings, rgb_size: Size) -> tuple[io.DepthFile, str]:
    """The low map as the colour camera sees it, near its own resolution, and what to say of it."""
    known = intrinsics_of(job, settings)
    assert known is not None
    assert settings.depth_intrinsics is not None
    if low.depth_unit != "m":
        raise InputError(f"--depth-intrinsics needs depth in metres, and this is {low.depth_unit}: give its --unit")
    camera = read_intrinsics(settings.depth_intrinsics).camera(low.depth.shape)
    colour = known.camera(rgb_size)
    target = colour.resized(size_seen(camera, colour))
    move = np.eye(4) if settings.extrinsics is None else read_extrinsics(settings.extrinsics)
    before, seen = torch.from_numpy(low.depth)[None, None], torch.from_numpy(low.valid)[None, None]
    depth, valid = (part[0, 0].numpy() for part in reproject(before, seen, camera, target, move))
    if not valid.any():
        raise InputError("nothing of the depth is in the picture's view: check --extrinsics and both intrinsics")
    doubts = {
        "--depth-intrinsics": read_intrinsics(settings.depth_intrinsics).doubt(low.depth.shape),
        "--rgb-intrinsics": known.doubt(rgb_size),
    }
    doubt = "".join(f"; {name}: {odd}" for name, odd in doubts.items() if odd)
    sizes = f"{camera.width}x{camera.height} of the depth camera to {target.width}x{target.height} of the picture's"
    return replace(low, depth=depth, valid=valid), f"moved    {sizes}, holes {1 - valid.mean():.1%}{doubt}"


def _way(shift: tuple[int, int]) -> str:
    right, down = shift
    words = [(right, "right" if right > 0 else "left"), (down, "down" if down > 0 else "up")]
    return " and ".join(f"{abs(px)} px {way}" for px, way in words if px)


def _align_line(shift: tuple[int, int], align: str) -> str:
    way = _way(shift)
    if not way:
        return "align    no shift between depth and picture is clear: nothing was moved"
    return {
        "look": f"align    the depth would fit the picture better {way} from where it is: --align auto moves it there",
        "guide": f"align    the depth would fit the picture {way} from where it is: the model saw the picture moved; "
        "--align auto moves the depth, too",
        "auto": f"align    the depth was moved {way} to fit the picture",
    }[align]


def _at_size(rgb: np.ndarray, size: Size) -> np.ndarray:
    """(h, w, 3) colours at another size."""
    return resize_rgb(torch.from_numpy(rgb).permute(2, 0, 1)[None], size)[0].permute(1, 2, 0).numpy()


# ------------------------------------------------------------------------------- many files


def is_many(pattern: str) -> bool:
    """Whether ``--low`` (or ``--rgb`` alone) means many files: a folder, a list (.txt), a pattern with * ? [."""
    path = Path(pattern)
    return path.is_dir() or path.suffix.lower() == ".txt" or (not Path(pattern).exists() and glob.has_magic(pattern))


def expand(pattern: str, kind: str = "rgb") -> list[Path]:
    """The files a folder or a pattern stands for; of a mixed folder those of a ``kind``, as ``Job`` calls it.

    Raises InputError when there is none.
    """
    if Path(pattern).is_dir():
        found = only(kind, files_in(Path(pattern)))
    else:
        found = sorted(Path(p) for p in glob.glob(pattern) if not Path(p).is_dir())  # a broken link is said, not lost
    if not found:
        raise InputError(f"{pattern}: no file matches; quote the pattern and check the folder")
    return found


def pair(wanted: Job, suffix: str = ".png") -> tuple[list[Job], list[str]]:
    """Jobs for many files paired by stem, and a line for each file without a partner.

    Where one kind of input is all there is, nothing is paired: there is a job for each file, under its own name.

    ``wanted`` has a folder or a pattern for each input, and a folder, made when needed, for each output; there the
    files are ``STEM.png`` (``suffix``), ``STEM_view.png``, ``STEM.ply``, ``STEM_confidence.png``,
    ``STEM_classes.png`` and ``STEM.glb``. ``low`` may also be a recording (``recordings.recording``), which names its
    pictures itself. Raises InputError when nothing pairs, a folder is a file or read-only, or a result would take the
    place of a file that was given.
    """
    if suffix.lower() not in io.DEPTH_SUFFIXES:
        raise InputError(f"--suffix {suffix!r} is no depth file: use one of {', '.join(io.DEPTH_SUFFIXES)}")
    if wanted.truth is not None:
        raise InputError("--truth compares one file: leave it out for many")
    recorded = None if wanted.low is None else recording(wanted.low)
    for folder, suffixes in wanted.outputs:
        if not folder.is_dir() and (folder.exists() or folder.suffix.lower() in suffixes):
            raise InputError(f"{folder}: is a file's name: many inputs need a folder to go to, such as results")
        check_folder(folder)
    if recorded is not None:
        if set(wanted.inputs) > {"low"}:
            raise InputError(f"{wanted.low}: a recording names its pictures itself: leave out --rgb and --confidence")
        jobs = [_of_frame(wanted, suffix, frame, recorded.unit) for frame in recorded.frames]
        given = {path for job in jobs for path in job.inputs.values()}
        _check_spared(jobs, given)
        _check_apart(jobs, {path.parent for path in given})
        return jobs, recorded.lonely
    # depth_256 may be frame 256: the second way is for names that the first does not pair
    for naming in (stem, stem_without_unit) if len(wanted.inputs) > 1 else (attrgetter("stem"),):
        found = {name: by_stem(expand(str(path), name), naming) for name, path in wanted.inputs.items()}
        pairs = _partners(found, "low" if wanted.start is wanted.low else "rgb")
        if pairs:
            break
    else:
        words = " with one of ".join(str(path) for path in wanted.inputs.values())
        firsts = " and ".join(f"{next(iter(files))!r}" for files in found.values())
        raise InputError(
            f"no file of {words} pairs by its name: the first are called {firsts} without words such as depth, rgb, "
            "color; give each two files of one name (000.png with 000.jpg, a_depth.png with a_color.jpg), or --low a "
            f"list.txt of lines such as {LINE} (depth in 1/5000 m, unless --unit says otherwise)"
        )
    jobs = [replace(_named(wanted, name, suffix), **inputs) for name, inputs in pairs.items()]
    given = {path for files in found.values() for path in files.values()}
    given |= {path for folder in wanted.inputs.values() if folder.is_dir() for path in files_in(folder)}
    _check_spared(jobs, given)
    _check_apart(jobs, wanted.inputs.values())
    known_by = naming if len(wanted.inputs) > 1 else stem
    used = {known_by(path) for inputs in pairs.values() for path in inputs.values()}
    lonely = sorted(path for path in given if known_by(path) not in used)
    return jobs, [f"{path}: has no partner of that name" for path in lonely]


def _partners(found: dict[str, dict[str, Path]], first: str) -> dict[str, dict[str, Any]]:
    """By name, the files of every kind where each kind has one; a file is not its own partner."""
    pairs: dict[str, dict[str, Any]] = {}
    for name, path in found[first].items():
        inputs = {kind: files[name] for kind, files in found.items() if name in files}
        if len(inputs) == len(found) and (len(set(inputs.values())) == len(inputs) or io.holds_both(path)):
            pairs[name] = inputs
    return pairs


def _check_apart(jobs: Sequence[Job], places: Iterable[Path]) -> None:
    """Raise InputError where a job would write what would be an input of the next run."""
    places = list(places)
    for path in (path for job in jobs for path, _ in job.outputs):
        if any(_would_be_given(path, place) for place in places):
            raise InputError(f"{path}: would be an input next time: let the results go to another folder")


def _would_be_given(path: Path, place: Path) -> bool:
    """Whether the folder or pattern ``place`` takes in the file ``path``."""
    if place.is_dir():
        return os.path.realpath(path.parent) == os.path.realpath(place) and path.suffix.lower() in FILES
    return Path(os.path.abspath(path)).match(os.path.abspath(place))


def _check_spared(jobs: Sequence[Job], given: Iterable[Path]) -> None:
    """Raise InputError where a job would write over a file that was given, be it another job's, or over a result."""
    taken, made = {os.path.realpath(path) for path in given}, set()
    for path in (path for job in jobs for path, _ in job.outputs):
        real = os.path.realpath(path)
        if real in taken:
            raise InputError(f"{path}: is also an input, or beside them; let the results go to another folder")
        if real in made:
            raise InputError(f"{path}: would be written twice; let --picture, --out-confidence … go to other folders")
        made.add(real)


def _named(wanted: Job, name: str, suffix: str) -> Job:
    """The job whose outputs are called ``name`` in the folders of ``wanted``."""
    return replace(
        wanted,
        new_folders=True,
        out=wanted.out / f"{name}{suffix}",
        picture=wanted.picture and wanted.picture / f"{name}_view.png",
        points=wanted.points and wanted.points / f"{name}.ply",
        out_confidence=wanted.out_confidence and wanted.out_confidence / f"{name}_confidence.png",
        mesh=wanted.mesh and wanted.mesh / f"{name}.glb",
        classes=wanted.classes and wanted.classes / f"{name}_classes.png",
    )


def _of_frame(wanted: Job, suffix: str, frame: Frame, unit: str) -> Job:
    return replace(
        _named(wanted, frame.name, suffix),
        low=frame.low,
        rgb=frame.rgb,
        confidence=frame.confidence,
        intrinsics=None if frame.intrinsics is None else str(frame.intrinsics),
        unit=unit,
    )


def settled(jobs: Sequence[Job], settings: Settings, video: bool = False) -> tuple[Settings, list[str]]:
    """What is the same for all ``jobs`` and must not be told from each alone, and what to say of it.

    The end of the confidence's scale, and of a film the range of its colours. What ``settings`` say already stays.
    Raises InputError, also where nothing says how large the results shall be.
    """
    lines: list[str] = []
    for job in jobs[:1]:
        check_sized(job, settings)
    sure = [job.confidence for job in jobs if job.confidence is not None]
    if sure and settings.confidence_max is None:
        settings = replace(settings, confidence_max=confidence_max(sure))
        if settings.confidence_max is not None:
            lines.append(f"trusted  the confidence of all files ends at {settings.confidence_max:g}")
    if video and settings.span is None:
        settings = replace(settings, span=_span(jobs, settings))
    return settings, lines


def _few(jobs: Sequence[Any], count: int) -> Sequence[Any]:
    """Up to ``count`` of them, from the first to the last."""
    return jobs[:: -(-len(jobs) // count)] if jobs else jobs


def confidence_max(paths: Sequence[Path]) -> float | None:
    """The end of the scale of these maps, told from up to SPAN_FRAMES of them; None where none is read.

    Raises InputError where it cannot be told.
    """
    found = []
    for path in _few(paths, SPAN_FRAMES):
        with suppress(InputError):  # said when its turn comes
            found.append(ends(io.read_confidence(path)))
    return scale_of(np.concatenate(found)).full if found else None


def _alike(jobs: Sequence[Job], model: Model, settings: Settings) -> Settings:
    """What would be decided of each frame of a film by itself, decided once (``inference.alike``)."""

    def few(count: int) -> Iterator[Words]:
        for job in _few(jobs, count):
            with suppress(InputError):  # said when its turn comes
                frame = read(job, settings)
                if frame.low is not None:
                    yield _words(frame, frame.low)

    return alike(model, few, settings)


def run_all(
    jobs: Sequence[Job],
    model: Model,
    settings: Settings,
    progress: Callable[[list[str]], None] | None = None,
) -> list[str]:
    """Every job in turn; one that fails is reported at the end and does not stop the others.

    Returns one line for each failure. ``progress`` is called after each job with the lines ``run`` returned,
    none where it failed. What concerns all is settled first; raises InputError where that fails.
    """
    settings, _ = settled(jobs, settings)
    failures = []
    for job in jobs:
        lines: list[str] = []
        try:
            lines = run(job, model, settings)
        except FAULTS as error:
            failures.append(_failure(job, error))
        if progress:
            progress(lines)
    return failures


def _failure(job: Job, error: BaseException) -> str:
    """What is said at the end of a job that failed: one line that names its file."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    named = str(job.start) in text or job.start.name in text
    return text if named else f"{job.start}: {text}"


def run_video(
    jobs: list[Job],
    model: Model,
    settings: Settings,
    preview: tuple[Path, float] | None = None,
    progress: Callable[[list[str]], None] | None = None,
) -> list[str]:
    """As ``run_all``, for the frames of one film, in the order of the numbers in their names: depth is steadied from
    frame to frame (``video.SteadyFilm``), and what holds for all is decided once (``settled``, ``_alike``).

    ``preview``: an .mp4 of pictures and depth, and its frames a second. A frame that fails is left out of it.
    """
    if any(job.low is None for job in jobs):
        raise InputError("--video steadies depth that was measured: give --low too")
    if settings.size is not None:
        check_sides(settings.size)
    jobs = [jobs[i] for i in in_order([job.start.name for job in jobs])]
    settings, _ = settled(jobs, settings, video=True)
    settings = _alike(jobs, model, settings)
    notes = []
    if settings.align == "look":  # told once, and no more looked at
        if settings.shift not in (None, (0, 0)):
            notes.append(_align_line(settings.shift, settings.align) + ONE_SHIFT)
        settings = replace(settings, align="off", shift=None)
    if preview is None:
        return _frames(jobs, model, settings, progress, None, notes)
    failures: list[str] = []
    try:
        with film(*preview) as show:
            failures += _frames(jobs, model, settings, progress, show, notes)
    except InputError as error:
        failures.append(str(error))
    return failures


def _frames(
    jobs: Sequence[Job],
    model: Model,
    settings: Settings,
    progress: Callable[[list[str]], None] | None,
    show: Callable[[np.ndarray], None] | None,
    notes: Sequence[str],
) -> list[str]:
    """The frames of ``run_video``: each is written when those after it that it waits for have been seen; the first
    that is says ``notes``, too."""
    failures: list[str] = []
    told: list[Job] = []
    steady, waiting = SteadyFilm(), deque[tuple[Work, list[str]]]()

    def write() -> None:
        (work, lines), said = waiting.popleft(), list[str]()
        try:
            result = steady.pop()
            work = replace(work, result=replace(result, depth=result.depth.round()) if settings.levels else result)
            said = [*lines, *(() if told else notes), *written(work)]
            told.append(work.job)
            if show is not None:
                assert settings.span is not None
                show(film_frame(work.result, kept_of(work)[0], work.rgb, settings.span))
        except FAULTS as error:
            failures.append(_failure(work.job, error))
        if progress:
            progress(said)

    for job in jobs:
        try:
            work, lines = worked(read(job, settings), model)
            steady.push(work.result, work.rgb)
        except FAULTS as error:
            failures.append(_failure(job, error))
            if progress:
                progress([])
            continue
        waiting.append((work, lines))
        if steady.full:
            write()
    while waiting:
        write()
    return failures


def _span(jobs: Sequence[Job], settings: Settings) -> Range:
    """The range of colours for all: 1st to 99th percentile of the readings of up to SPAN_FRAMES low maps."""
    values, unit = [np.zeros(0, np.float32)], "m"
    for job in _few(jobs, SPAN_FRAMES):
        with suppress(InputError):  # said when its turn comes
            low = read_depth(job.start, job, settings)
            values.append(low.depth[low.valid][:: max(1, low.valid.size // SPAN_VALUES)])
            unit = low.depth_unit
    together = np.concatenate(values)
    return Range.of(together, np.ones_like(together, dtype=bool), unit)
