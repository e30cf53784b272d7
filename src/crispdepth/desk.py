"""What the viewer works on: files handed in, and runs that wait for one another in a queue."""

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
from contextlib import suppress
from dataclasses import replace
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from torch import nn

from crispdepth.atomic import shown
from crispdepth.batch import read, worked
from crispdepth.data.sample import write_sample
from crispdepth.engines import Wanted, lines_of, opened
from crispdepth.findings import Cancelled, Run, draw, on_page, one_line, show_surface, work_of
from crispdepth.intrinsics import read_intrinsics
from crispdepth.job import Job, Settings, check
from crispdepth.models.catalog import CATALOG, default
from crispdepth.outputs import camera_of, kept_of, outputs_of
from crispdepth.roles import told_apart
from crispdepth.types import InputError, Model

RUNS_KEPT = 6  # finished results in memory: about 80 MB each for a phone's 1440x1920
FILES_KEPT = 64  # on disk

EXAMPLES = {  # scenes made on the spot: seed, scale, what to see
    "a room, 8 times smaller": (7, 8),
    "another, 4 times smaller": (12, 4),
    "a third, 16 times smaller": (21, 16),
}


class Desk:
    """Files and runs of everyone at the page, each found only by its own unguessable name; one run at a time.

    ``models``: what may be asked for: the catalog's, and ``own``, such as files of weights. Raises InputError for one
    that cannot be loaded.
    """

    def __init__(self, own: Iterable[str] = ()) -> None:
        self.own = tuple(own)
        plain = Wanted(device="cpu", precision="float32")
        self.models = {name: opened(name, plain)[0].inputs for name in self.own}
        self.models |= {name: row.inputs for name, row in CATALOG.items()}
        self.folder = Path(tempfile.mkdtemp(prefix="crispdepth-view-"))
        self.files: dict[str, Path] = {}
        self.lent: dict[Path, str] = {}
        self.runs: dict[str, Run] = {}
        self.lock = threading.RLock()
        self.made = threading.Lock()  # one example is made at a time
        self.queue: queue.Queue[Run | None] = queue.Queue()
        self.worker = threading.Thread(target=self._work, daemon=True)
        self.worker.start()

    def close(self) -> None:
        """Stops what runs and removes every file that was handed in."""
        for run in self.runs.values():
            run.stop.set()
        self.queue.put(None)
        try:
            self.worker.join(timeout=60)
        finally:
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
            needed = {each for run in self.runs.values() for each in run.files.values()} | self.lent.keys()
            for old in [each for each in self.files if self.files[each] not in needed][:-FILES_KEPT]:
                shutil.rmtree(self.files.pop(old).parent, ignore_errors=True)
        return token

    def lend(self, path: Path) -> str:
        """The token of a file that stays where it is: an example's, or one of the command line."""
        with self.lock:
            token = self.lent.setdefault(path, secrets.token_urlsafe(16))
            self.files[token] = path
        return token

    def roles(self, tokens: Iterable[object], depth_there: bool) -> dict[str, dict[str, str]]:
        """Token and name by role of files handed in together, as ``told_apart``. Raises InputError."""
        paths = {self._file(token): str(token) for token in tokens}
        try:
            found = told_apart(paths, depth_there)
        except InputError as error:
            raise InputError(one_line(error, self.folder)) from error
        return {role: {"token": paths[path], "name": path.name} for role, path in found.items()}

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
        with self.lock:
            given = {role: self._file(token) for role, token in (asked.get("files") or {}).items() if token}
            for role in self.models[model]:
                if role not in given:
                    what = {"low": "the low-resolution depth", "rgb": "the colour picture"}.get(role, role)
                    raise InputError(f"{model} needs {what}: hand it in, or choose another model")
            if "low" in given and "low" not in self.models[model]:
                raise InputError(f"{model} looks at the picture alone: take the depth away, or choose another model")
            return self._queued(model, given, _settings(asked, given))

    def _queued(self, model: str, given: Mapping[str, Path], settings: Settings) -> str:
        token = secrets.token_urlsafe(16)
        folder = self.folder / token
        job = Job(
            low=given.get("low"),
            out=folder / "sharp.npy",  # holds what a PNG cannot; that is told at its download
            rgb=given.get("rgb"),
            points=folder / "cloud.ply",
            truth=given.get("truth"),
            confidence=given.get("confidence"),
        )
        folder.mkdir()
        run = Run(token, model, job, settings, folder, given)
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

    def cancel(self, run: Run) -> None:
        """End a run: at once where it waits, before its next layer where it runs."""
        run.stop.set()
        with self.lock:
            if run.state == "waiting":
                run.state, run.error = "cancelled", "cancelled"

    def set_camera(self, run: Run, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Another camera for a run that is done: intrinsics as text, a focal length, or a field of view.

        Gives the new facts; or ``run``, the token of a new one, where depth from a picture alone depends on it.
        Raises InputError.
        """
        work = work_of(run)
        if not any(asked.get(name) for name in ("fov_deg", "focal", "intrinsics")):
            raise InputError("write the field of view in degrees, or fx,fy,cx,cy in pixels of the picture")
        before, new = run.settings, _settings(asked, {})
        changed = replace(before, intrinsics=new.intrinsics, fov_deg=new.fov_deg, focal_px=new.focal_px)
        check(run.job, changed)
        if work.low is None and any((each.intrinsics, each.focal_px) != (None, None) for each in (before, changed)):
            return {"run": self._queued(run.model, run.files, changed)}
        with run.writing:
            camera_of(replace(work, settings=changed))
            run.settings, run.work = changed, replace(work, settings=changed)
            show_surface(run)
        return run.facts

    def waiting_before(self, run: Run) -> int:
        """How many runs come first."""
        with self.lock:
            earlier = itertools.takewhile(lambda each: each is not run, self.runs.values())
            return sum(not each.over for each in earlier)

    def _work(self) -> None:
        while (run := self.queue.get()) is not None:
            with self.lock:
                if run.over:
                    continue
                run.state = "running"
            try:
                _carry_out(run)
                run.state, run.share, run.stage = "done", 1.0, ""
            except Cancelled:
                run.state, run.error = "cancelled", "cancelled"
            except (MemoryError, RuntimeError) as error:
                short = isinstance(error, MemoryError) or "memory" in str(error)
                cure = "not enough memory: ask for fewer times as large as the depth, or use a smaller picture"
                run.state, run.error = "failed", cure if short else one_line(error, self.folder, run)
            except Exception as error:
                if not isinstance(error, InputError | OSError):
                    traceback.print_exception(error)  # ours, not the user's
                run.state, run.error = "failed", one_line(error, self.folder, run)
            if run.state != "done":
                run.work = None


def defaults() -> dict[str, str]:
    """The model that is usual for what is given; nothing where there is none."""
    found = {}
    for given in ("low+rgb", "low", "rgb"):
        with suppress(InputError):
            found[given] = default("low" in given, "rgb" in given)
    return found


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
        focal_px=number("focal"),
        keep_holes=bool(asked.get("keep_holes")),
        nan_holes=bool(asked.get("nan_holes")),
        align="auto" if asked.get("align") else None,
        min_confidence=number("min_confidence") if "confidence" in given else None,
        confidence_max=number("confidence_max") if "confidence" in given else None,
    )


def _carry_out(run: Run) -> None:
    """The whole of one run, into ``run``. Raises InputError, Cancelled."""
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
    run.work = replace(work, job=run.job)
    draw(run, run.work, run.kept)
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
