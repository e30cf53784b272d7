"""What the viewer works on: the models to choose from, examples, and a run from files and wishes to its result."""

from __future__ import annotations

import re
import secrets
import shutil
import tempfile
import threading
import time
import traceback
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from crispdepth.atomic import shown
from crispdepth.batch import read, worked
from crispdepth.data.sample import write_sample
from crispdepth.engines import Wanted, lines_of, opened
from crispdepth.findings import Cancelled, Run, draw, on_page, one_line
from crispdepth.intrinsics import read_intrinsics
from crispdepth.job import Job, Settings
from crispdepth.memory import ran_short
from crispdepth.models.catalog import CATALOG, default
from crispdepth.outputs import kept_of, outputs_of
from crispdepth.types import InputError, Model

RUNS_KEPT = 6  # results in memory, of all pages: about 80 MB each for a phone's 1440x1920

EXAMPLES = {  # scenes made on the spot: seed, scale, what to see
    "a room, 8 times smaller": (7, 8),
    "another, 4 times smaller": (12, 4),
    "a third, 16 times smaller": (21, 16),
}
NUMBERS = {  # fields of the page, by the command's names
    "scale": "scale",
    "fov_deg": "fov",
    "focal_px": "focal",
    "min_confidence": "min-confidence",
    "confidence_max": "confidence-max",
}
EXAMPLE_FILES = {"low": "low.png", "rgb": "rgb.png", "truth": "truth.png", "intrinsics": "intrinsics.json"}


class Desk:
    """One folder for all that is handed in and made; each run in its own, of an unguessable name.

    ``models``: what may be asked for, and its inputs: the catalog's, and ``own``, such as files of weights. Raises
    InputError for one that cannot be loaded.
    """

    def __init__(self, own: Iterable[str] = ()) -> None:
        self.own = tuple(own)
        plain = Wanted(device="cpu", precision="float32")
        self.models = {name: opened(name, plain)[0].inputs for name in self.own}
        self.models |= {name: row.inputs for name, row in CATALOG.items()}
        self.folder = Path(tempfile.mkdtemp(prefix="crispdepth-view-"))
        self.making = threading.Lock()  # one example is made at a time
        self.runs: list[Run] = []  # that are going on
        self.done: list[Run] = []  # whose results are kept

    def stop(self) -> None:
        """End what runs: torch must not be at work in a thread while the process ends."""
        for _ in range(600):
            for run in (running := list(self.runs)):
                run.stopped = True
            if not running:
                return
            time.sleep(0.1)

    def close(self) -> None:
        """Stops what runs and removes every file that was handed in."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def is_example(self, path: str | None) -> bool:
        """Whether a file is one of an example."""
        return path is not None and Path(path).parent.parent == self.folder and Path(path).parent.name.startswith("ex")

    def example(self, name: str) -> dict[str, Path]:
        """The files of a made-up scene, by role; made when first asked for."""
        seed, scale = EXAMPLES[name]
        folder = self.folder / f"example {seed}"
        with self.making:
            if not (folder / "intrinsics.json").is_file():  # written last
                write_sample(folder, scale, seed, (480, 640))
        return {role: folder / file for role, file in EXAMPLE_FILES.items()}

    def choices(self, given: Iterable[str]) -> tuple[list[str], str | None]:
        """The models that can work with files of these roles, and look at depth if it is there; the usual one."""
        given = set(given)
        names = [
            name
            for name, inputs in self.models.items()
            if given.issuperset(inputs) and ("low" in inputs) == ("low" in given)
        ]
        usual = next((name for name in self.own if name in names), None)
        if usual is None:
            with suppress(InputError):
                usual = default("low" in given, "rgb" in given)
        return names, usual if usual in names else next(iter(names), None)

    def about(self, name: str | None) -> str:
        """One line on a model."""
        if name is None:
            return "choose the files first"
        row = CATALOG.get(name)
        return "of your own" if row is None else row.task + (", fetched at first use" if row.hub else "")

    def begin(self, model: str | None, files: Mapping[str, Path], wishes: Mapping[str, Any]) -> Run:
        """A run that has not yet begun. Raises InputError for what can be known before any work."""
        if model is None or model not in self.models:
            raise InputError.unknown("model", model or "", self.models)
        names, usual = self.choices(files)
        if usual is None:
            raise InputError("there is nothing to start from: hand in depth, or a picture")
        if model not in names:
            model = usual  # a file came a moment ago, and the page has not yet told
        folder = self.folder / secrets.token_urlsafe(16)
        job = Job(
            low=files.get("low"),
            out=folder / "sharp.npy",  # holds what a PNG cannot; that is told at its download
            rgb=files.get("rgb"),
            points=folder / "cloud.ply",
            truth=files.get("truth"),
            confidence=files.get("confidence"),
        )
        settings = _settings(wishes, files)
        folder.mkdir()
        return Run(model, job, settings, folder, files)

    def carry_out(self, run: Run) -> None:
        """The whole of a run. Raises InputError with what the page shows, Cancelled."""
        self.runs.append(run)
        try:
            _carry_out(run)
            self.done.append(run)
            while len(self.done) > RUNS_KEPT:
                self.done.pop(0).forget()
        except (MemoryError, RuntimeError) as error:
            cure = "not enough memory: ask for fewer times as large as the depth, or use a smaller picture"
            raise InputError(cure if ran_short(error) else self.told(error, run)) from error
        except Exception as error:
            if isinstance(error, Cancelled):
                raise
            if not isinstance(error, InputError | OSError):
                traceback.print_exception(error)  # ours, not the user's
            raise InputError(self.told(error, run)) from error
        finally:
            self.runs.remove(run)

    def drop(self, run: Run | None) -> None:
        """Let go of a result that is no longer looked at."""
        if run in self.done:
            self.done.remove(run)
            run.forget()

    def told(self, error: BaseException, run: Run | None = None) -> str:
        """What the page says of an error."""
        return one_line(error, self.folder, run)


def _settings(wishes: Mapping[str, Any], files: Mapping[str, Path]) -> Settings:
    """The options of the page as the command's. Raises InputError."""

    def number(name: str) -> float | None:
        text = str(wishes.get(name) or "").strip()
        try:
            return float(text) if text else None
        except ValueError as error:
            raise InputError(f"--{NUMBERS[name]} {shown(text)!r} is no number") from error

    typed = str(wishes.get("intrinsics") or "").strip()
    if typed and not re.fullmatch(r"[-+\d.,eE\s]+", typed):  # a path would be one of this machine
        raise InputError(f"intrinsics '{shown(typed)}' are not four numbers; write fx,fy,cx,cy, or hand in a file")
    if typed and "intrinsics" in files:
        raise InputError("--intrinsics are typed and handed in as a file, too: leave one of them out")
    intrinsics = typed or (str(files["intrinsics"]) if "intrinsics" in files else None)
    if intrinsics is not None:
        try:
            read_intrinsics(intrinsics)
        except InputError as error:
            raise InputError(str(error).replace(intrinsics, Path(intrinsics).name)) from error
    fov_deg = number("fov_deg")
    depth_there, sure = "low" in files, "confidence" in files
    return Settings(
        unit=(str(wishes.get("unit") or "") or None) if depth_there or "truth" in files else None,
        scale=number("scale") if depth_there else None,
        intrinsics=intrinsics,
        fov_deg=Settings.fov_deg if fov_deg is None else fov_deg,
        focal_px=None if depth_there else number("focal_px"),
        keep_holes=bool(wishes.get("keep_holes")) and depth_there,
        nan_holes=bool(wishes.get("nan_holes")) and depth_there,
        align="auto" if wishes.get("align") and depth_there else None,
        denoise="auto" if wishes.get("denoise", True) or not depth_there else "off",
        once=not wishes.get("again", True) and depth_there,
        levels=bool(wishes.get("levels")) and depth_there,
        hard_edges=bool(wishes.get("hard_edges")) and depth_there,
        min_confidence=number("min_confidence") if sure else None,
        confidence_max=number("confidence_max") if sure else None,
    )


def _carry_out(run: Run) -> None:
    run.reach("reading the files", 0.02)
    found = read(run.job, run.settings)
    run.reach("loading the model", 0.04)
    model, choice = opened(run.model)
    _watch(model, run)
    run.reach("sharpening", 0.08)
    work, lines = worked(found, model)
    run.reach("comparing", 0.9)
    run.kept, _ = kept_of(work)
    _, notes = outputs_of(replace(work, job=replace(run.job, points=None)))
    run.lines = [on_page(line) for line in (*lines_of(run.model, choice), *lines, *notes)]
    run.reach("drawing", 0.93)
    draw(run, work, run.kept)
    run.work = replace(work, job=run.job)


def _watch(model: Model, run: Run) -> None:
    """Progress and a way out before each layer; a filter has none, so it ends before it is cancelled.

    A large map goes through a network tile by tile, nobody says here how many: progress slows down, and never stops.
    """
    total = sum(1 for _ in model.modules())
    seen = 0

    def before(module: nn.Module, _: object) -> None:
        nonlocal seen
        seen += 1
        rounds = seen / max(total, 1)
        run.reach(f"sharpening, step {seen}", 0.08 + 0.8 * (0.8 * rounds if rounds < 1 else 1 - 0.2 / rounds))

    for module in model.modules():
        module.register_forward_pre_hook(before)
