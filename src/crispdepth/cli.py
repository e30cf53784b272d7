"""The command: predict, batch, evaluate, bench…, train, export, convert, hub, view, names, info. No logic here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crispdepth.memory import keep_freed, ran_short
from crispdepth.types import InputError, Size

if TYPE_CHECKING:
    from collections.abc import Callable

app = typer.Typer(
    name="crispdepth",
    help="Give it what the sensor gave you, and get sharp metric depth.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Out = Annotated[Path, typer.Option("-o", "--out", help="Where the depth goes: .png .tif .exr .pfm .npy .npz")]
hub_app = typer.Typer(help="Weights on the Hugging Face hub.", add_completion=False, rich_markup_mode=None)
app.add_typer(hub_app, name="hub")

ODD = ("align", "kernel", "note")  # lines that are said of every file of a folder
SPELLINGS = {  # what others call our options
    **dict.fromkeys(("--depth", "--lidar", "--in", "--input"), "depth goes by --low, its picture by --rgb"),
    **dict.fromkeys(("--color", "--colour", "--image", "--img", "--photo"), "the colour picture goes by --rgb"),
    "--output": "what is written goes by -o or --out",
}
Root = Annotated[Path | None, typer.Option(help="The folder of the data set")]


def main() -> None:
    """Entry point: a user's mistake is one line on stderr and exit code 2, never a traceback."""
    keep_freed()
    try:
        sys.exit(app(sys.argv[1:] or ["--help"], standalone_mode=False))
    except InputError as error:
        _fail(str(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)  # Ctrl-C: temporary files are gone already
    except (MemoryError, RuntimeError) as error:
        if not ran_short(error):
            raise
        _fail("not enough memory: ask for less with --size, or use a smaller picture", 2)
    except BrokenPipeError:
        sys.stderr.close()  # the reader went away (`| head`): nothing to say, no one to say it to
        sys.exit(1)
    except Exception as error:
        message = getattr(error, "format_message", None)  # what typer raises for a word it does not understand
        if message is None:
            raise
        _fail(f"{_cured(error, message())} (see --help)", 2)


def _cured(error: Exception, message: str) -> str:
    """What typer says of a word that it does not understand, and what to write instead where we know better."""
    option = getattr(error, "option_name", "")
    if option in SPELLINGS:
        return f"No such option: {option}; {SPELLINGS[option]}"
    if "unexpected extra" in message:
        return f"{message}; files go by option, a pattern in quotes: --low 'depth/*.png' --rgb photo.jpg"
    return message


def _fail(message: str, code: int) -> None:
    typer.echo("error: " + " ".join(message.split()), err=True)
    sys.exit(code)


def _size(text: str | None) -> Size | None:
    """``WxH`` to (height, width)."""
    if text is None:
        return None
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdecimal() and height.isdecimal()) or len(text) > 20:
        raise InputError(f"--size {text!r} is not understood: write WIDTHxHEIGHT, such as 640x480")
    if not (int(width) and int(height)):
        raise InputError(f"size {text} is empty: both sides must be at least 1")
    return int(height), int(width)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


@app.command()
def predict(
    out: Out,
    low: Annotated[
        str | None, typer.Option(help="Low-resolution depth: a file, a folder, a quoted pattern, a recording")
    ] = None,
    rgb: Annotated[str | None, typer.Option(help="The colour picture of the same view; or all there is")] = None,
    unit: Annotated[
        str | None,
        typer.Option(help="What the values of --low are: mm m kitti tum sunrgbd realsense:SCALE disparity relative"),
    ] = None,
    out_unit: Annotated[str | None, typer.Option(help="What is written; 16-bit files: mm by default")] = None,
    model: Annotated[str | None, typer.Option(help="See `crispdepth names`; a file of weights; hf:owner/name")] = None,
    size: Annotated[str | None, typer.Option(help="Size of the result, WxH; by default that of --rgb")] = None,
    scale: Annotated[float | None, typer.Option(help="Or so many times the size of --low")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw a comparison into this .png or .jpg")] = None,
    points: Annotated[Path | None, typer.Option(help="Write a point cloud into this .ply")] = None,
    mesh: Annotated[Path | None, typer.Option(help="Write a mesh, depth edges cut, into this .ply or .glb")] = None,
    intrinsics: Annotated[
        str | None,
        typer.Option(
            "--intrinsics", "--rgb-intrinsics", help="fx,fy,cx,cy in pixels of --rgb (of --low without it), or a file"
        ),
    ] = None,
    depth_intrinsics: Annotated[
        str | None, typer.Option(help="Those of --low, when another camera took it: it is brought into --rgb's")
    ] = None,
    extrinsics: Annotated[
        str | None, typer.Option(help="From the depth camera to the colour camera: R|t in metres, 4x4; .json .txt")
    ] = None,
    fov: Annotated[float, typer.Option(help="Degrees across the longer side, without --intrinsics")] = 60.0,
    align: Annotated[
        str | None,
        typer.Option(
            help="Where they are a few px apart, guide: the model sees --rgb moved onto --low; auto: the result "
            "is moved onto --rgb; look: you are told; off. By default guide for our guided networks, off for others"
        ),
    ] = None,
    denoise: Annotated[
        str, typer.Option(help="auto: noise above 0.5 % of the range is taken out first, for our networks; on off")
    ] = "auto",
    kernel: Annotated[
        str,
        typer.Option(
            help="average: each reading is the mean of what it covers; bicubic: blurred more; points: one pixel of it, "
            "the first or last; auto"
        ),
    ] = "auto",
    once: Annotated[
        bool, typer.Option("--once", help="Run our networks once even where holes are scattered or readings are means")
    ] = False,
    levels: Annotated[
        bool, typer.Option("--levels", help="The truth is in whole levels, as 8-bit disparity: the result, too (ctkt)")
    ] = False,
    hard_edges: Annotated[
        bool, typer.Option("--hard-edges", help="Move pixels on depth edges to the near or the far side")
    ] = False,
    calib: Annotated[
        str | None, typer.Option(help="Middlebury's calib.txt: --low is its disparity, and becomes metres")
    ] = None,
    focal: Annotated[
        float | None, typer.Option(help="Focal length in pixels of --rgb: sets the scale of depth from it alone")
    ] = None,
    classes: Annotated[Path | None, typer.Option(help="Without --low: write what is what into this .png")] = None,
    truth: Annotated[Path | None, typer.Option(help="True depth to compare with (same unit)")] = None,
    confidence: Annotated[
        str | None, typer.Option(help="The sensor's own confidence: ARKit's 0 1 2, or 0..255, or floats of 0..1")
    ] = None,
    confidence_max: Annotated[
        float | None, typer.Option(help="What it says where it is sure, where its values do not tell: 100, 255 …")
    ] = None,
    min_confidence: Annotated[
        float | None, typer.Option(help="Readings below it are holes; by default 1 of ARKit's 2, 0.5 of 0..1")
    ] = None,
    out_confidence: Annotated[
        Path | None, typer.Option(help="Write the result's confidence (.png) or expected error (.exr .npy) here")
    ] = None,
    keep_holes: Annotated[bool, typer.Option(help="Leave holes instead of filling them")] = False,
    max_hole_px: Annotated[int | None, typer.Option(help="Leave holes wider than so many pixels of the result")] = None,
    nan_holes: Annotated[bool, typer.Option(help="NaN and inf in npy and tif files mean no reading")] = False,
    suffix: Annotated[str, typer.Option(help="Extension of the results, when there are many files")] = ".png",
    engine: Annotated[
        str, typer.Option(help="auto torch compile onnx openvino: what computes, see docs/engines.md")
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto cpu cuda mps")] = "auto",
    precision: Annotated[str, typer.Option(help="auto float32 bf16 float16")] = "auto",
    video: Annotated[
        bool, typer.Option("--video", help="The files are frames of one film: steady depth over time")
    ] = False,
    film: Annotated[
        Path | None, typer.Option(help="With --video: picture and depth side by side, into this .mp4")
    ] = None,
    fps: Annotated[float, typer.Option(help="Frames a second of --film")] = 30.0,
) -> None:
    """Sharpen a low-resolution depth map with its colour picture, or guess depth from a picture alone.

    crispdepth predict --low depth.png --unit mm --rgb photo.jpg -o sharp.png --picture view.png

    crispdepth predict --rgb photo.jpg -o depth.png --classes classes.png --picture view.png

    Many files at once: --low 'depth/*.png' --rgb 'photos/*.jpg' -o FOLDER, paired by name.
    """
    from crispdepth import batch, engines
    from crispdepth.models import catalog
    from crispdepth.video import check_film

    wanted = engines.Wanted(engine, device, precision)
    settings = batch.Settings(
        unit=unit,
        out_unit=out_unit,
        size=_size(size),
        scale=scale,
        intrinsics=intrinsics,
        fov_deg=fov,
        keep_holes=keep_holes,
        nan_holes=nan_holes,
        min_confidence=min_confidence,
        confidence_max=confidence_max,
        max_hole_px=max_hole_px,
        depth_intrinsics=depth_intrinsics,
        extrinsics=extrinsics,
        align=align,
        denoise=denoise,
        kernel=kernel,
        once=once,
        levels=levels,
        hard_edges=hard_edges,
        calib=calib,
        focal_px=focal,
    )
    job = batch.Job(
        low=_path(low),
        out=out,
        rgb=_path(rgb),
        picture=picture,
        points=points,
        truth=truth,
        confidence=_path(confidence),
        out_confidence=out_confidence,
        mesh=mesh,
        classes=classes,
    )
    many = batch.is_many(str(job.start))
    if (video and not many) or (film and not video):
        raise InputError("--video is for many frames and --film is for --video: --low 'depth/*.png' --video")
    if suffix != ".png" and not many:
        raise InputError("--suffix is for many files: give -o the extension")
    if fps != 30 and not film:
        raise InputError("--fps is for --film: add --film preview.mp4, or leave it out")
    if video and rgb is None:
        raise InputError("--video follows things by their colours: pass --rgb")
    if film:
        check_film(film, fps)
    jobs, lonely = batch.pair(job, suffix) if many else ([job], [])
    model = model or catalog.default(jobs[0].low is not None, jobs[0].rgb is not None)
    if many:
        settings, notes = batch.settled(jobs, settings, video)  # first: as below
        loaded, choice = engines.opened(model, wanted)
        typer.echo("\n".join(engines.lines_of(model, choice)))

        def run(done: Callable[[list[str]], None]) -> list[str]:
            if not video:
                return batch.run_all(jobs, loaded, settings, done)
            failures = batch.run_video(jobs, loaded, settings, (film, fps) if film else None, done)
            if film and not any(film.name in line for line in failures):
                notes.append(f"wrote    {film}")
            return failures

        _predict_many(len(jobs), lonely, run, notes)
        return
    found = batch.read(job, settings)  # first: a wrong unit shall not cost the fetching of a model
    loaded, choice = engines.opened(model, wanted)
    for line in [*engines.lines_of(model, choice), *batch.finished(found, loaded)]:
        typer.echo(line)


def _predict_many(
    count: int, lonely: list[str], run: Callable[[Callable[[list[str]], None]], list[str]], notes: list[str]
) -> None:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("predict", total=count)

        written = 0

        def done(lines: list[str]) -> None:
            nonlocal written
            progress.advance(task)
            for i, line in enumerate(lines):  # of the others size, unit, median, holes and what is odd
                if not written or i == 0 or line.startswith(ODD) or "is assumed" in line:
                    typer.echo(line)
            written += bool(lines)

        failures = run(done)
    typer.echo("\n".join([f"{written} of {count} files written", *notes]))
    for line in [*(f"failed   {text}" for text in failures), *(f"unpaired {text}" for text in lonely)]:
        typer.echo(line, err=True)
    if failures or lonely:
        raise typer.Exit(1)


@app.command("batch")
def batch_many(
    source: Annotated[str, typer.Argument(help="A folder or URL with low/ and rgb/, a .parquet list, .tar files")],
    target: Annotated[str, typer.Argument(help="The folder or URL (s3://…) to write to; run again, it goes on")],
    unit: Annotated[str | None, typer.Option(help="What the values of low are, as in predict")] = None,
    out_unit: Annotated[str | None, typer.Option(help="What is written; 16-bit files: mm by default")] = None,
    model: Annotated[str | None, typer.Option(help="See `crispdepth names`, or a file of weights")] = None,
    size: Annotated[str | None, typer.Option(help="Size of the results, WxH; by default that of rgb")] = None,
    scale: Annotated[float | None, typer.Option(help="Or so many times the size of low")] = None,
    align: Annotated[str | None, typer.Option(help="guide auto off, as in predict")] = None,
    denoise: Annotated[str, typer.Option(help="auto on off, as in predict")] = "auto",
    kernel: Annotated[str, typer.Option(help="auto bicubic average points, as in predict")] = "auto",
    once: Annotated[bool, typer.Option("--once", help="As in predict")] = False,
    levels: Annotated[bool, typer.Option("--levels", help="As in predict")] = False,
    hard_edges: Annotated[bool, typer.Option("--hard-edges", help="As in predict")] = False,
    min_confidence: Annotated[float | None, typer.Option(help="As in predict; confidence/ holds the files")] = None,
    confidence_max: Annotated[float | None, typer.Option(help="As in predict")] = None,
    keep_holes: Annotated[bool, typer.Option(help="Leave holes instead of filling them")] = False,
    max_hole_px: Annotated[int | None, typer.Option(help="Leave holes wider than so many pixels of the result")] = None,
    nan_holes: Annotated[bool, typer.Option(help="NaN and inf in npy and tif files mean no reading")] = False,
    suffix: Annotated[str, typer.Option(help="Extension of the results")] = ".png",
    chunk: Annotated[int, typer.Option(help="Items a commit: so many are done again after a kill, at most")] = 64,
    ray: Annotated[str | None, typer.Option(help="Work on this Ray cluster: HOST:PORT, auto, or local")] = None,
    workers: Annotated[int, typer.Option(help="Ray workers; 0: as many as fit")] = 0,
    cpus: Annotated[float, typer.Option(help="CPUs of each Ray worker")] = 1,
    gpus: Annotated[float, typer.Option(help="GPUs of each Ray worker")] = 0,
    engine: Annotated[str, typer.Option(help="auto torch compile onnx openvino, as in predict")] = "auto",
    device: Annotated[str, typer.Option(help="auto cpu cuda mps: of each worker")] = "auto",
    precision: Annotated[
        str, typer.Option(help="auto float32 bf16 float16; auto may differ where machines differ")
    ] = "auto",
) -> None:
    """Sharpen very many depth maps, in folders or object stores; killed anywhere, it goes on when run again.

    crispdepth batch s3://bucket/frames s3://bucket/sharp --unit mm
    """
    from crispdepth.batch import Settings
    from crispdepth.engines import Wanted
    from crispdepth.models import catalog

    bulk, on_ray = _scale(ray is not None)
    if align == "look":
        raise InputError(
            "--align look only tells, and batch tells nothing of single files: leave it out, or guide auto off"
        )
    if model is None:
        from crispdepth.scale.plan import has_pictures

        model = catalog.default(low=True, rgb=has_pictures(source))
        typer.echo(f"model    {model}")
    settings = Settings(
        unit=unit,
        out_unit=out_unit,
        size=_size(size),
        scale=scale,
        keep_holes=keep_holes,
        nan_holes=nan_holes,
        min_confidence=min_confidence,
        confidence_max=confidence_max,
        max_hole_px=max_hole_px,
        align=align,
        denoise=denoise,
        kernel=kernel,
        once=once,
        levels=levels,
        hard_edges=hard_edges,
    )
    job = bulk.Bulk(source, target, model, settings, suffix, chunk, Wanted(engine, device, precision))
    runner = bulk.here if ray is None else on_ray.OnRay(ray, workers, cpus, gpus)
    _batch(bulk.run_bulk, job, runner)


def _scale(with_ray: bool) -> tuple[Any, Any]:
    """The rooms that need pyarrow and, if asked for, Ray; or how to get them."""
    if sys.platform == "win32":  # it has no locks as ``alone`` takes them
        raise InputError("batch needs Linux or macOS: on Windows, run it in WSL")
    from crispdepth.extras import late

    bulk = late("crispdepth.scale.bulk")
    return bulk, late("crispdepth.scale.ray_job") if with_ray else None


def _batch(run_bulk: Any, job: Any, runner: Any) -> None:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("batch", total=None)
        engines: set[str] = set()  # of workers on machines that differ

        def update(behind: int, total: int, done: Any) -> None:
            bar.update(task, completed=behind, total=total)
            if done and done.engine not in engines:
                engines.add(done.engine)
                typer.echo(f"engine   {done.engine}")

        counts = run_bulk(job, runner, update)
    bad = counts["quarantined"]
    typer.echo(f"{counts['done']} of {counts.total()} items done: {job.target}/manifest.parquet")
    if bad:
        typer.echo(f"quarantined {bad}, with the reasons in {job.target}/quarantine.jsonl", err=True)
        raise typer.Exit(1)


@app.command()
def evaluate(
    model: Annotated[str, typer.Option(help="See `crispdepth names`")],
    set_name: Annotated[str, typer.Option("--set", help="See `crispdepth names`")],
    root: Root = None,
    scale: Annotated[float | None, typer.Option(help="Low map smaller by this factor; by default 8")] = None,
    protocol: Annotated[
        str | None, typer.Option(help="How the low map is made and what is cut; by default the set's own, or fdsr")
    ] = None,
    unit: Annotated[str | None, typer.Option(help="Of the depth files; set `folder` only")] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write every figure here")] = None,
) -> None:
    """Measure a model on a data set under a named protocol."""
    from crispdepth.bench import evaluation, report
    from crispdepth.data.folder import unpaired
    from crispdepth.models import catalog

    if json_path is not None:
        report.check_json(json_path)
    loaded = catalog.load(model)
    if scale is not None and "low" not in loaded.inputs:
        raise InputError(f"--scale says how small the low map is, and {model} sees none: leave it out")
    with report.progress_bar(f"{model} on {set_name}") as progress:
        result = evaluation.evaluate(
            loaded,
            set_name,
            root,
            8 if scale is None else scale,
            protocol,
            name=model,
            unit=unit,
            progress=progress,
        )
    typer.echo(report.table([result]))
    if scale is not None and result.scale != scale:
        typer.echo(f"note     protocol {result.protocol} takes the sensor's own maps: x{result.scale:g}, not --scale")
    if json_path is not None:
        report.write_json(json_path, result.as_json())
        typer.echo(f"wrote {json_path}")
    for line in result.failed:
        typer.echo(f"failed   {line}", err=True)
    for path in unpaired(root) if set_name == "folder" and root is not None else []:
        typer.echo(f"unpaired {path}", err=True)
    if result.failed:
        raise typer.Exit(1)


@app.command()
def bench(
    root: Annotated[Path, typer.Option(help="A folder with the folders middlebury/ and lu/ in it")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The page to write")] = Path("docs/numbers.md"),
    readme: Annotated[Path | None, typer.Option(help="A page whose short table is renewed too")] = None,
    figures: Annotated[Path | None, typer.Option(help="A .json with the short figures of `crispdepth info`")] = None,
    models: Annotated[str, typer.Option(help="Measure these alone, commas between; other rows stay")] = "",
) -> None:
    """Measure every model of the catalog on every set found, and write docs/numbers.md."""
    from crispdepth.bench import report

    names = [name.strip() for name in models.split(",") if name.strip()]
    report.write_numbers(root, out, readme, figures=figures, models=names)
    typer.echo(f"wrote {out}")


@app.command("bench-speed")
def bench_speed(
    models: Annotated[str, typer.Option(help="Names, with commas between; see `crispdepth names`")] = "",
    size: Annotated[str | None, typer.Option(help="Size of the result, WxH; by default 640x480 and 1440x1920")] = None,
    scale: Annotated[float, typer.Option(help="Low map smaller by this factor")] = 8,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write every figure here")] = None,
    engines: Annotated[
        bool, typer.Option("--engines", help="Instead: --models (crisp) by every engine, at 640x480 or --size")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu cuda cuda:1 mps")] = "cpu",
    out: Annotated[Path | None, typer.Option("-o", "--out", help="A page to put the tables in")] = None,
) -> None:
    """Time models side by side, and measure their memory, on this machine."""
    from crispdepth.bench import report, speed
    from crispdepth.models.catalog import at_hand, sharpeners

    if json_path is not None:
        report.check_json(json_path)
    wanted = _size(size)
    speed.check_device(device)
    if engines:
        _bench_engines([name.strip() for name in (models or "crisp").split(",")], wanted, scale, device, json_path, out)
        return
    if out is not None:
        report.around(out, "speed")
    names, left_out = ([name.strip() for name in models.split(",")], []) if models else at_hand(sharpeners())
    for line in left_out:
        typer.echo(line, err=True)
    results = []
    for each in speed.SIZES if wanted is None else (wanted,):
        with report.progress_bar(f"{each[1]}x{each[0]}") as progress:
            results.append(speed.measure(names, each, scale, device=device, progress=progress))
        typer.echo(speed.table(results[-1]) + "\n")
    if out is not None:
        report.write_between(out, "speed", "\n\n".join(speed.table(result) for result in results))
        typer.echo(f"wrote {out}")
    if json_path is not None:
        report.write_json(json_path, speed.as_json(results))
        typer.echo(f"wrote {json_path}")


def _bench_engines(
    names: list[str], size: Size | None, scale: float, device: str, json_path: Path | None, out: Path | None
) -> None:
    from crispdepth.bench import report, speed

    if out is not None:
        report.around(out, "engines")
    results = []
    for name in names:
        with report.progress_bar(f"{name} by every engine") as progress:
            results.append(speed.measure_engines(name, size or speed.SIZES[0], scale, device=device, progress=progress))
    text = "\n\n".join(speed.engines_table(result) for result in results)
    typer.echo(text)
    if out is not None:
        report.write_between(out, "engines", text)
        typer.echo(f"wrote {out}")
    if json_path is not None:
        report.write_json(json_path, {"results": results})
        typer.echo(f"wrote {json_path}")


@app.command("bench-export")
def bench_export(
    size: Annotated[str, typer.Option(help="The picture, WxH, of networks that have a file for one size")] = "160x112",
    out: Annotated[Path | None, typer.Option("-o", "--out", help="A page to put the table in")] = None,
) -> None:
    """Measure how far the ONNX file is from torch: crisp, ctkt, symbiotic-small, naima-small, and a made-up NAIMA."""
    from crispdepth.bench import agreement, report

    wanted = _size(size)
    assert wanted is not None
    if out is not None:
        report.around(out, "export")
    with report.progress_bar("networks") as progress:
        text = agreement.table(agreement.measure(wanted, progress=progress))
    typer.echo(text)
    if out is not None:
        report.write_between(out, "export", text)
        typer.echo(f"wrote {out}")


@app.command("bench-memory")
def bench_memory(
    model: Annotated[str, typer.Option(help="See `crispdepth names`, or a file of weights")] = "crisp",
    size: Annotated[str, typer.Option(help="Sizes of the result, WxH, with commas between")] = "8192x6144",
    scale: Annotated[float, typer.Option(help="Low map smaller by this factor")] = 32,
    out_confidence: Annotated[bool, typer.Option("--out-confidence", help="Write the confidence, too")] = False,
) -> None:
    """Measure the peak memory of the command `predict`, from files to a file."""
    from crispdepth.bench import speed

    for text in size.split(","):
        wanted = _size(text)
        assert wanted is not None
        peak = speed.command_peak_mb(model, wanted, scale, out_confidence)
        typer.echo(
            f"{model} {text} x{scale:g}: {peak:.0f} MB, {1e6 * peak / (wanted[0] * wanted[1]):.0f} bytes a pixel"
        )


@app.command("bench-video")
def bench_video(
    rgb: Annotated[str | None, typer.Option(help="The folder of a film's pictures; else made-up films")] = None,
    depth: Annotated[str | None, typer.Option(help="And that of its true depth, paired by name")] = None,
    unit: Annotated[str, typer.Option(help="What the values of --depth are")] = "mm",
    model: Annotated[str, typer.Option(help="See `crispdepth names`")] = "crisp",
    scale: Annotated[float, typer.Option(help="Low map smaller by this factor")] = 8,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write every figure here")] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Write the table into this page, between its flicker marks")
    ] = None,
) -> None:
    """Measure flicker and error of a film, steadied and frame by frame."""
    from crispdepth.bench import flickering, report

    if json_path is not None:
        report.check_json(json_path)
    films = flickering.made() if rgb is None else [flickering.filmed(rgb, depth, unit)]
    mark = "flicker" if rgb is None else f"flicker {films[0].name}"
    if out is not None:
        report.around(out, mark)
    with report.progress_bar("frames") as progress:
        result = flickering.measure(model, films, scale, progress)
    typer.echo(flickering.table(result))
    if out is not None:
        report.write_between(out, mark, flickering.table(result))
    if json_path is not None:
        report.write_json(json_path, result)


@app.command("bench-robust")
def bench_robust(
    models: Annotated[str, typer.Option(help="Names, with commas between")] = "crisp,guided,fgs,bicubic",
    set_name: Annotated[str, typer.Option("--set", help="See `crispdepth names`")] = "scenes",
    root: Root = None,
    unit: Annotated[str | None, typer.Option(help="Of the depth files; set `folder` only")] = None,
    scale: Annotated[float, typer.Option(help="Low map smaller by this factor")] = 8,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write every figure here")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Write the table into this page")] = None,
) -> None:
    """Measure what holes, noise, rounding, a shifted picture and other kernels cost."""
    from crispdepth.bench import report, robust
    from crispdepth.bench.evaluation import unit_of_maps
    from crispdepth.data.sets import find

    if json_path is not None:
        report.check_json(json_path)
    if out is not None:
        report.check_text_output(out)
    readers = find(set_name, root, unit)
    with report.progress_bar(f"faults on {set_name}") as progress:
        result = robust.measure([name.strip() for name in models.split(",")], readers, scale, progress)
    metric = unit_of_maps(set_name, unit) == "m"
    heading = f"{set_name} x{scale:g}, {len(readers)} images, border cut: 6 px, mean of per-image values; clean: 1"
    text = robust.table(result, heading, 100 if metric else 1, "cm" if metric else "levels")
    typer.echo(text)
    if out is not None:
        report.write_text(out, f"# Robustness\n\nWritten by `make bench-robust`.\n\n{text}\n")
    if json_path is not None:
        report.write_json(json_path, robust.as_json(result, heading))


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="crisp, ctkt, naima_x8, symbiotic-small …, see docs/train.md")],
    changes: Annotated[list[str] | None, typer.Argument(help="KEY=VALUE, such as steps=500 sensors.holed=0.4")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The run's folder; by default runs/RECIPE")] = None,
    accelerator: Annotated[str, typer.Option(help="Lightning's word: auto cpu gpu mps")] = "auto",
    devices: Annotated[int, typer.Option(help="GPUs (or processes on a CPU) on each node")] = 1,
    nodes: Annotated[int, typer.Option(help="Machines")] = 1,
    data: Annotated[
        str, typer.Option(help="scenes, or a data set to learn from: nyu, folder …; several: scenes,nyu=FOLDER")
    ] = "scenes",
    root: Root = None,
    unit: Annotated[str | None, typer.Option(help="Of the depth files; data `folder` only")] = None,
    scenes_folder: Annotated[Path | None, typer.Option(help="Keep made scenes here for other runs")] = None,
    report: Annotated[Path | None, typer.Option(help="Also log shares on middlebury/ and lu/ in this folder")] = None,
) -> None:
    """Train a network, on made-up scenes or on --data; run it again to go on where it stopped."""
    from crispdepth.training import examples, recipes, run

    chosen = recipes.changed(recipes.find(recipe), changes or [])
    folder = out or Path("runs") / recipe
    source = examples.source(data, root, unit, scenes_folder)
    done = run.is_finished(chosen, folder)
    try:
        path = run.train(chosen, folder, accelerator, devices, nodes, source, report)
    except KeyboardInterrupt as stop:
        typer.echo(str(stop) or "stopped before the first step", err=True)
        raise typer.Exit(130) from None
    if done:
        typer.echo(f"note     {folder} was finished before, and nothing is learnt anew")
    typer.echo(f"wrote {path}")


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="See `crispdepth names`, or a file of weights")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The .onnx, or .xml for OpenVINO, to write")],
    int8: Annotated[bool, typer.Option("--int8", help="Convolutions in 8 bits (.xml)")] = False,
    scale: Annotated[
        float | None, typer.Option(help="The enlargement, 8 by default; a file of crisp or ctkt serves some around it")
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="WxH of the picture: a file for this size alone (naima, symbiotic)")
    ] = None,
) -> None:
    """Write a network as ONNX or OpenVINO IR, for any size or for one, checked against torch."""
    from crispdepth import export as exporting
    from crispdepth.models import catalog

    for line in exporting.export(catalog.load(model), out, scale, int8, _size(size)):
        typer.echo(line)


@app.command()
def convert(
    system: Annotated[str, typer.Argument(help="Whose checkpoint it is: naima")],
    checkpoint: Annotated[Path, typer.Argument(help="The authors' file, .pth or .safetensors")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The .safetensors to write")],
    scale: Annotated[int | None, typer.Option(help="2, 4, 8 or 16; by default what the file says")] = None,
) -> None:
    """Turn an authors' checkpoint into weights for `predict --model`."""
    from crispdepth import convert as converting

    for line in converting.convert(system, checkpoint, out, scale):
        typer.echo(line)


@hub_app.command("pull")
def hub_pull(
    name: Annotated[str, typer.Argument(help="owner/name, owner/name@VERSION, owner/name/FILE.safetensors")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The .safetensors to write")],
) -> None:
    """Fetch weights from the hub into a file (`predict --model hf:owner/name` does without)."""
    hub, catalog = _hub()
    catalog.load(f"hf:{name.removeprefix('hf:')}")  # refuses what is no model of ours
    for line in hub.pull(name, out):
        typer.echo(line)


@hub_app.command("push")
def hub_push(
    weights: Annotated[Path, typer.Argument(help="The .safetensors to upload")],
    name: Annotated[str, typer.Argument(help="owner/name")],
    card: Annotated[Path | None, typer.Option(help="What they are, as Markdown; by default the .md beside")] = None,
    private: Annotated[bool, typer.Option(help="Only you and whom you let in may see them")] = False,
) -> None:
    """Upload weights and their card to the hub."""
    hub, catalog = _hub()
    if not str(weights).endswith(".safetensors"):
        raise InputError(f"{weights} is no .safetensors file: nothing else is uploaded")
    catalog.load(str(weights))  # refuses what is no model of ours
    for line in hub.push(weights, name, card, private):
        typer.echo(line)


def _hub() -> tuple[Any, Any]:
    from crispdepth import hub
    from crispdepth.models import catalog

    return hub, catalog


@app.command()
def sample(
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder to write into; made if missing")],
    scale: Annotated[int, typer.Option(help="Low map smaller by this factor")] = 8,
    seed: Annotated[int, typer.Option(help="Which scene", min=0, max=2**62)] = 7,
    size: Annotated[str, typer.Option(help="Size of the picture, WxH")] = "640x480",
) -> None:
    """Make up a scene to try things on: rgb.png, low.png, truth.png (millimetres), intrinsics.json."""
    from crispdepth.data.sample import write_sample

    wanted = _size(size)
    assert wanted is not None
    for line in write_sample(out, scale, seed, wanted):
        typer.echo(line)


@app.command()
def view(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Depth, picture, true depth, intrinsics: told apart by what they are")
    ] = None,
    host: Annotated[str, typer.Option(help="This machine only, unless another address is asked for")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: a free one")] = 8765,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Weights of your own to choose on the page, a file or hf:owner/name; repeatable"),
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser")] = True,
) -> None:
    """Show a page to try files on: sharpen, compare, turn in 3-D, measure, download."""
    from crispdepth.extras import late

    viewer = late("crispdepth.viewer")
    viewer.view(files or [], host, port, model or [], browser, typer.echo)


@app.command()
def names() -> None:
    """List the models, data sets, protocols and units."""
    from crispdepth import about

    typer.echo(about.names())


@app.command()
def info(name: Annotated[str, typer.Argument(help="A model, a data set, a protocol or a unit")]) -> None:
    """Say what a model, data set, protocol or unit is: needs, parameters, licence, source."""
    from crispdepth import about

    typer.echo(about.info(name))


if __name__ == "__main__":
    main()
