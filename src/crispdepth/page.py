"""What is on the viewer's page, in Gradio, and what happens where it is touched."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd

from crispdepth.desk import EXAMPLES, Desk
from crispdepth.findings import (
    DOWNLOADS,
    Cancelled,
    Point,
    Run,
    compared,
    download,
    histogram,
    legend,
    marked,
    measure,
    offered,
    pixel,
    said,
    surface,
    work_of,
)
from crispdepth.job import DEFAULT_FOV_DEG
from crispdepth.roles import told_apart
from crispdepth.types import InputError
from crispdepth.units import UNITS

ROLES = {  # of files handed in: their boxes
    "low": "Depth (16-bit PNG, TIFF, EXR, npy, …)",
    "rgb": "Colour picture of the same view",
    "truth": "True depth, to see the error; same unit",
    "confidence": "Confidence: 0 1 2, or 0..255",
    "intrinsics": "Intrinsics: .json .yaml .pincam .txt",
}
OUT_UNITS = [u.name for u in UNITS.values() if u.integer and u.metres is not None and ":" not in u.name]
OTHERS = "Truth, confidence, intrinsics"
ALONE = "4"  # times as large, where there is no picture to say it
BOX_PX = 128
CLICK = "Click a point for its depth; click a second one for the distance between them."


def page(desk: Desk, given: Mapping[str, Path], here: bool) -> gr.Blocks:
    """The page, with the files of the command line in their boxes; ``here``: for this machine alone."""
    with gr.Blocks(title="crispdepth", analytics_enabled=False, fill_width=True) as blocks:
        whose = "Your files stay on this machine." if here else "Your files go to the machine that serves this page."
        gr.Markdown(f"# crispdepth\nWhat the sensor gave you in, sharp metric depth out. {whose}")
        with gr.Row():
            with gr.Column(scale=1, min_width=320):
                fields = _fields(desk, given)
            with gr.Column(scale=3, min_width=480):
                with gr.Row():
                    fields["go"] = gr.Button(
                        "Sharpen", variant="primary", interactive=bool(desk.choices(given)[0]), elem_id="go"
                    )
                    fields["cancel"] = gr.Button("Cancel", variant="stop", visible=False, elem_id="cancel")
                results = _results(desk)
        _files_and_models(desk, fields)
        _runs(desk, fields, results)
        _looking(desk, results)
    return blocks


def _fields(desk: Desk, given: Mapping[str, Path]) -> dict[str, Any]:
    """What a person hands in and chooses, by name."""
    names, usual = desk.choices(given)
    units = [("as the file says (floats: metres)", "")]
    units += [(f"{unit.name}: {unit.text.split(':')[0]}", unit.name) for unit in UNITS.values() if ":" not in unit.name]
    units.insert(-2, ("realsense:0.001, or another number of metres", "realsense:0.001"))
    boxes: dict[str, Any] = {}
    made: dict[str, Any] = {"boxes": boxes}

    def box(role: str) -> None:
        boxes[role] = gr.File(value=_path(given.get(role)), label=ROLES[role], height=BOX_PX, elem_id=f"file-{role}")

    made["dropped"] = gr.File(
        label="All files at once: they are told apart", file_count="multiple", height=BOX_PX, elem_id="dropped"
    )
    box("low")
    box("rgb")
    with gr.Accordion(OTHERS, open=bool(given.keys() - {"low", "rgb"}), elem_id="others") as made["others"]:
        for role in ("truth", "confidence", "intrinsics"):
            box(role)
    made["example"] = gr.Dropdown(list(EXAMPLES), value=None, label="Or an example: a made-up scene", elem_id="example")
    made["unit"] = gr.Dropdown(units, value="", label="Unit of the depth file", allow_custom_value=True, elem_id="unit")
    made["model"] = gr.Dropdown(
        names, value=usual, label="Model", info=desk.about(usual), allow_custom_value=True, elem_id="model"
    )
    made["scale"] = gr.Textbox(
        ALONE if given.keys() >= {"low"} and "rgb" not in given else "",
        label="Times as large as the depth",
        placeholder="the picture's size",
        elem_id="scale",
    )
    with gr.Accordion("Holes, confidence, alignment", open=False, elem_id="more") as made["more"]:
        made["keep_holes"] = gr.Checkbox(label="leave holes instead of filling them")
        made["nan_holes"] = gr.Checkbox(label="NaN and inf mean no reading")
        made["align"] = gr.Checkbox(label="move the depth onto the picture where it is a few px off")
        made["denoise"] = gr.Checkbox(True, label="take noise out of the depth first")
        made["again"] = gr.Checkbox(True, label="run twice where holes are scattered or readings are means")
        made["levels"] = gr.Checkbox(label="the truth is in whole levels, as 8-bit disparity: the result too (ctkt)")
        made["hard_edges"] = gr.Checkbox(label="hard edges: what hangs between near and far moves to one side")
        made["min_confidence"] = gr.Textbox(label="Least confidence", placeholder="1 of ARKit's 2, or 0.5")
        made["confidence_max"] = gr.Textbox(
            label="Full confidence", placeholder="100 or 255, if the file does not tell"
        )
    with gr.Accordion("Camera, if no file tells it", open=False, elem_id="camera"):
        made["fov_deg"] = gr.Textbox(f"{DEFAULT_FOV_DEG:g}", label="field of view in degrees, of the longer side")
        made["intrinsics"] = gr.Textbox(label="or fx,fy,cx,cy in pixels of the picture")
        made["focal_px"] = gr.Textbox(label="or, for a picture alone, its focal length in pixels")
    return made


def _results(desk: Desk) -> dict[str, Any]:
    """What a person sees of a result, by name."""
    made: dict[str, Any] = {"run": gr.State(), "shown": gr.State(delete_callback=desk.drop), "points": gr.State([])}
    made["error"] = gr.HTML(visible=False, elem_id="error")
    made["lines"] = gr.Textbox(label="What was done", lines=5, max_lines=9, elem_id="lines")
    with gr.Tabs() as made["tabs"]:
        with gr.Tab("Compare", id="compare"):
            with gr.Row():
                made["left"] = gr.Dropdown([], label="left", elem_id="left")
                made["right"] = gr.Dropdown([], label="right", elem_id="right")
                made["zoom"] = gr.Dropdown(
                    [("whole", 1), ("4 times, around the point measured", 4), ("16 times, around it", 16)],
                    value=1,
                    label="size",
                    elem_id="zoom",
                )
            made["legend"] = gr.HTML(elem_id="legend")
            made["slider"] = gr.ImageSlider(
                label="drag the line",
                format="png",
                interactive=False,
                buttons=["fullscreen"],
                max_height=720,
                elem_id="slider",
            )
        with gr.Tab("Measure", id="measure"):
            made["measured"] = gr.Textbox(
                CLICK,
                label="Depth and distance in the result, whatever picture is below",
                lines=3,
                elem_id="measured",
            )
            made["clickable"] = gr.Image(
                show_label=False,
                format="png",
                interactive=False,
                buttons=["fullscreen"],
                elem_id="clickable",
            )
        with gr.Tab("Histogram", id="histogram"):
            made["histogram"] = gr.LinePlot(
                x="depth", y="share", color="of", y_title="% of the pixels", height=360, elem_id="plot"
            )
        with gr.Tab("Download", id="download"):
            gr.Markdown("Byte for byte what `crispdepth predict` writes.")
            made["kinds"] = gr.CheckboxGroup([], label="Files", show_select_all=True, elem_id="kinds")
            made["out_unit"] = gr.Dropdown(
                OUT_UNITS, value=OUT_UNITS[0], label="Unit of the 16-bit PNG", elem_id="out-unit"
            )
            made["make"] = gr.Button("Make them", elem_id="make")
            made["made"] = gr.File(
                label="Click a size to download", file_count="multiple", interactive=False, elem_id="made"
            )
    gr.Markdown("### In space")
    made["mode"] = gr.Radio([("surface", "solid"), ("points", "point_cloud"), "wireframe"], value="solid", label="as")
    made["space"] = gr.Model3D(
        label="drag to turn, wheel to come closer",
        clear_color=(0.06, 0.07, 0.08, 1),
        height=560,
        elem_id="space",
    )
    made["note"] = gr.Markdown(elem_id="note")
    return made


# ------------------------------------------------------------------------------- files in, models to choose


def _files_and_models(desk: Desk, fields: Mapping[str, Any]) -> None:
    boxes, model = fields["boxes"], fields["model"]
    paths = list(boxes.values())
    picked = gr.State()  # the model that a person chose: it stays while it can be used

    def choose(picked: str | None, times: str, *files: str | None) -> list[Any]:
        """Only models whose inputs are all there can be chosen, and only rows that matter are shown."""
        given = {role for role, file in zip(boxes, files, strict=True) if file}
        names, usual = desk.choices(given)
        name = picked if picked in names else usual
        alone = given >= {"rgb"} and "low" not in given
        unit = gr.update(visible=not alone or "truth" in given)
        size = times if times not in ("", ALONE) else ALONE if "low" in given and "rgb" not in given else ""
        others = [role for role in boxes if role in given and role not in ("low", "rgb")]
        return [
            gr.update(choices=names, value=name, info=desk.about(name)),
            unit,
            gr.update(visible=not alone, value=size),
            gr.update(label=f"{OTHERS}{': ' if others else ''}{' and '.join(others)}{' given' if others else ''}"),
            gr.update(visible=not alone),
            gr.update(interactive=bool(names)),
        ]

    def own(*files: str | None) -> list[Any]:
        """An example's files and unit go when a person hands in others; what came meanwhile stays."""
        gone = [desk.is_example(file) for file in files]
        words = ["", None] if any(gone) else [gr.skip()] * 2
        return [*words, *(None if each else gr.skip() for each in gone)]

    def sort(dropped: list[str], *files: str | None) -> list[Any]:
        there = files[0] is not None and not desk.is_example(files[0])
        with _refused(desk):
            found = told_apart(map(Path, dropped), there)
        unit, name, *rest = own(*files)
        kept = dict(zip(boxes, rest, strict=True))
        return [None, unit, name, *(_path(found[role]) if role in found else kept[role] for role in boxes)]

    def example(name: str) -> list[Any]:
        found = desk.example(name)
        return ["mm", *(_path(found.get(role)) for role in boxes)]

    chosen = [model, *(fields[name] for name in ("unit", "scale", "others", "more", "go"))]
    # Gradio shows an error only of what goes through its queue; nothing here waits for a run.
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
    gr.on(
        [box.change for box in paths],
        choose,
        [picked, fields["scale"], *paths],
        chosen,
        trigger_mode="always_last",
        **quiet,
    )
    model.input(lambda name: (name, gr.update(info=desk.about(name))), model, [picked, model], **quiet)
    dropped = fields["dropped"]
    words = [fields["unit"], fields["example"]]
    sorting = dropped.upload(sort, [dropped, *paths], [dropped, *words, *paths], **quiet)
    sorting.failure(lambda: None, None, dropped, **quiet)
    gr.on([box.upload for box in (boxes["low"], boxes["rgb"])], own, paths, [*words, *paths], **quiet)
    fields["example"].input(example, fields["example"], [fields["unit"], *paths], api_visibility="private")


# ------------------------------------------------------------------------------- a run


def _runs(desk: Desk, fields: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    boxes = fields["boxes"]
    options = [
        name
        for name in fields
        if name not in ("boxes", "dropped", "example", "model", "others", "more", "go", "cancel")
    ]
    busy = [fields["go"], fields["cancel"]]
    idle = (gr.update(interactive=True), gr.update(visible=False))

    def begin(before: Run | None, model: str | None, *values: Any) -> dict[Any, Any]:
        files = {role: Path(path) for role, path in zip(boxes, values, strict=False) if path}
        wishes = dict(zip(options, values[len(boxes) :], strict=True))
        try:
            run = desk.begin(model, files, wishes)
        except InputError as error:
            return {results["run"]: None, results["error"]: _problem(desk.told(error), before)}
        off, on = gr.update(interactive=False), gr.update(visible=True)
        return {
            results["run"]: run,
            results["error"]: gr.update(visible=False),
            fields["go"]: off,
            fields["cancel"]: on,
        }

    def work(
        run: Run | None,
        before: Run | None,
        left: str | None,
        right: str | None,
        mode: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  # Gradio looks for it here
    ) -> dict[Any, Any]:
        if run is None:  # refused before any work
            return {results["run"]: None}
        run.tell = lambda share, stage: progress(share, desc=stage)
        try:
            desk.carry_out(run)
            names, (space, note) = offered(run), surface(run, mode)
        except (InputError, Cancelled) as error:
            text = "cancelled" if isinstance(error, Cancelled) else desk.told(error, run)
            return {results["error"]: _problem(text, before)}
        desk.drop(before)
        views = list(run.views)
        left, right = left if left in views else views[0], right if right in views else Path(run.model).name
        news = {
            "shown": run,
            "points": [],
            "lines": "\n".join(run.lines),
            "tabs": gr.update(selected="compare"),
            "left": gr.update(choices=views, value=left),
            "right": gr.update(choices=views, value=right),
            "zoom": 1,
            "legend": legend(run, left, right),
            "slider": compared(run, left, right, 1, []),
            "measured": CLICK,
            "clickable": marked(run, right, []),
            "space": gr.update(value=_path(space), display_mode=mode),
            "note": note,
            "histogram": gr.update(value=pd.DataFrame(histogram(run)), x_title=f"depth, {work_of(run).result.unit}"),
            "kinds": gr.update(choices=[(f"{name}: {DOWNLOADS[name][1]}", name) for name in names], value=[]),
            "made": None,
        }
        return {results[name]: value for name, value in news.items()}

    def stop(run: Run | None, before: Run | None) -> tuple[Any, ...]:
        if run is not None:
            run.stopped = True
        return (_problem("cancelled", before), *idle)

    private: dict[str, Any] = {"api_visibility": "private"}
    asked = [results["shown"], fields["model"], *boxes.values(), *(fields[name] for name in options)]
    begun = fields["go"].click(
        begin,
        asked,
        [results["run"], results["error"], *busy],
        concurrency_limit=None,
        show_progress="hidden",
        **private,
    )
    working = begun.success(
        work,
        [results[name] for name in ("run", "shown", "left", "right", "mode")],
        list(results.values()),
        show_progress_on=[results["lines"]],
        concurrency_id="model",
        **private,
    )
    for after in (working.then, working.failure):  # done or cancelled; failed
        after(lambda: idle, None, busy, queue=False, show_progress="hidden", **private)
    fields["cancel"].click(
        stop, [results["run"], results["shown"]], [results["error"], *busy], queue=False, cancels=[working], **private
    )


def _problem(text: str, before: Run | None = None) -> Any:
    """What went wrong, above the result; and whose the result is, if there is one."""
    below = "" if before is None or before.over else "\nBelow is still the result before."
    return gr.update(value=html.escape(text + below), visible=True)


@contextmanager
def _refused(desk: Desk, run: Run | None = None) -> Iterator[None]:
    """What cannot be done, as a message that goes by itself."""
    try:
        yield
    except InputError as error:
        text = html.escape(desk.told(error, run))
        raise gr.Error(text, title="This did not work", print_exception=False) from error


# ------------------------------------------------------------------------------- looking at the result


def _looking(desk: Desk, results: Mapping[str, Any]) -> None:
    def compare(run: Run | None, left: str, right: str, zoom: int, points: list[Point]) -> list[Any]:
        if run is None:
            return [gr.skip()] * 3
        with _refused(desk, run):
            image = marked(run, right, points)
            return [compared(run, left, right, zoom, points), legend(run, left, right), image]

    def click(run: Run | None, right: str, points: list[Point], event: gr.SelectData) -> list[Any]:
        if run is None:
            return [gr.skip()] * 3
        with _refused(desk, run):
            points = [*(points if len(points) == 1 else []), pixel(run, event.index)]
            return [points, said(measure(run, points)), marked(run, right, points)]

    def turn(run: Run | None, mode: str) -> list[Any]:
        if run is None:
            return [gr.skip()] * 2
        with _refused(desk, run):
            path, note = surface(run, mode)  # a file for each mode: Gradio heeds a mode when it loads a file
        return [gr.update(value=_path(path), display_mode=mode), note]

    def make(run: Run | None, names: list[str], out_unit: str) -> list[str]:
        with _refused(desk, run):
            if run is None or not names:
                raise InputError("choose the files first" if run is not None else "there is no result yet")
            metres = work_of(run).result.unit == "m"
            return [str(download(run, name, out_unit if name == "sharp.png" and metres else None)) for name in names]

    private: dict[str, Any] = {"api_visibility": "private"}
    shown, left, right, zoom, points = (results[name] for name in ("shown", "left", "right", "zoom", "points"))
    gr.on(
        [left.input, right.input, zoom.input],
        compare,
        [shown, left, right, zoom, points],
        [results["slider"], results["legend"], results["clickable"]],
        show_progress="hidden",
        **private,
    )
    results["clickable"].select(
        click,
        [shown, right, points],
        [points, results["measured"], results["clickable"]],
        show_progress="hidden",
        **private,
    )
    results["mode"].input(
        turn, [shown, results["mode"]], [results["space"], results["note"]], show_progress="hidden", **private
    )
    results["make"].click(make, [shown, results["kinds"], results["out_unit"]], results["made"], **private)


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path)
