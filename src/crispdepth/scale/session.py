"""One process at work on a large job: chunk after chunk, each committed whole; a bad item never stops the others."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from crispdepth import batch
from crispdepth.atomic import shown
from crispdepth.engines import Wanted, opened
from crispdepth.job import Job, Settings
from crispdepth.outputs import Output, outputs_of, write_all
from crispdepth.scale.manifest import DONE, Row, write_part
from crispdepth.scale.overlap import overlapped
from crispdepth.scale.plan import INPUTS, QUARANTINED, Item, Plan
from crispdepth.scale.stores import Store, fetch
from crispdepth.types import InputError

WORK, DEPTH = "_work", "depth"  # what is gone when the job is finished; where results are
PLAN = f"{WORK}/plan.parquet"
TELLING = 8  # if of so many first items none can be done, the fault is in the question


@dataclass(frozen=True)
class Bulk:
    """A large job: from ``source`` (``plan.find``) to the folder ``target`` (``Store``), ``chunk`` items a commit.

    ``model``: a name or a file of weights, or an exported one; ``wanted``: what each worker runs it on. Results are
    ``depth/NAME`` and ``suffix``.
    """

    source: str
    target: str
    model: str
    settings: Settings
    suffix: str = ".png"
    chunk: int = 64
    wanted: Wanted = field(default_factory=Wanted)


@dataclass(frozen=True)
class Done:
    """A chunk that is committed: its number, items, how many of them are quarantined, the process that did it."""

    number: int
    items: int
    bad: int
    process: int


@dataclass(frozen=True)
class _At:
    """An item on its way through: what it is so far, or why it cannot be done."""

    number: int
    item: Item
    read: batch.Read | None = None
    output: Output | None = None
    width: int = 0
    height: int = 0
    reason: str | None = None


class Session:
    """The model, the plan, and a folder to stage files in; ``do`` does the work."""

    def __init__(self, bulk: Bulk) -> None:
        self.bulk = bulk
        self.store = Store(bulk.target)
        self.model, _ = opened(bulk.model, bulk.wanted)
        self.plan = Plan(self.store.open(PLAN))

    def do(self, numbers: Iterable[int]) -> Iterator[Done]:
        """Chunks by number, each reported once its files and then its part are in the store.

        A chunk whose part is there already is skipped. Raises InputError when not even the first items work, and
        when the results cannot be written; when the store fails, what ``stores.is_of_the_store``.
        """
        with staging(self.store) as name:
            folder = Path(name)
            rows: list[Row] = []
            todo = (number for number in numbers if not self.store.exists(part_name(number)))
            items = (_At(number, item) for number in todo for item in self.plan.chunk(number))

            def read(at: _At) -> _At:
                return self._read(at, folder)

            for at, row in overlapped(items, read, self._work, self._write):
                rows.append(row)
                if len(rows) == min(TELLING, self.plan.items) and at.number == 0:
                    _check_first(rows)
                if len(rows) == self.plan.size_of(at.number):
                    write_part(rows, folder / "part")
                    self.store.put(folder / "part", part_name(at.number))
                    bad = sum(row.status == QUARANTINED for row in rows)
                    yield Done(at.number, len(rows), bad, os.getpid())
                    rows = []

    def _read(self, at: _At, folder: Path) -> _At:
        """In a thread: fetch and decode."""
        item, suffix = at.item, self.bulk.suffix
        if item.fault:
            return replace(at, reason=item.fault)
        files: dict[str, Path] = {}
        urls = {word: getattr(item, word) for word in INPUTS if getattr(item, word)}
        with tempfile.TemporaryDirectory(dir=folder) as name:
            try:
                for word, url in urls.items():
                    files[word] = fetch(url, Path(name), word)
                out = folder / (hashlib.sha256(item.name.encode()).hexdigest()[:32] + suffix)
                return replace(
                    at,
                    read=batch.read(
                        Job(files.get("low"), out, files.get("rgb"), confidence=files.get("confidence")),
                        self.bulk.settings,
                    ),
                )
            except (InputError, MemoryError) as error:
                return replace(at, reason=_line(error, {path: urls[word] for word, path in files.items()}))

    def _work(self, at: _At) -> _At:
        """Here: the model."""
        if at.read is None:
            return at
        try:
            work, _ = batch.worked(at.read, self.model)
            outputs, _ = outputs_of(work)
        except (InputError, MemoryError, RuntimeError) as error:
            return replace(at, read=None, reason=_line(error, {}))
        height, width = work.result.depth.shape
        return replace(at, read=None, output=outputs[0], width=width, height=height)

    def _write(self, at: _At) -> tuple[_At, Row]:
        """In a thread: encode, then into the store."""
        item = at.item
        row = Row(item.name, QUARANTINED, at.reason, low=item.low, rgb=item.rgb, confidence=item.confidence)
        if at.output is None:
            return at, row
        staged, name = at.output.path, f"{DEPTH}/{item.name}{self.bulk.suffix}"
        try:
            write_all([at.output])
        except InputError as error:
            if _is_of_the_disk(error):
                raise
            return at, replace(row, reason=_line(error, {staged: name}))
        with staged.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = staged.stat().st_size
        self.store.put(staged, name)
        return at, replace(row, status=DONE, out=name, bytes=size, sha256=digest, width=at.width, height=at.height)


def staging(store: Store) -> tempfile.TemporaryDirectory[str]:
    """A folder for files on their way into ``store``: if it is local in its ``_work``, on the same disk."""
    inside = Path(store.root) / WORK if store.is_local else None
    if inside is not None:
        inside.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(dir=inside, prefix="staging-")


def part_name(number: int) -> str:
    """The file that says chunk ``number`` is done."""
    return f"{WORK}/part-{number:08d}.parquet"


def _line(error: BaseException, files: dict[Path, str]) -> str:
    """What went wrong, in one line that a second run would repeat: of the files' URLs, not of their copies."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    for path, url in files.items():
        text = text.replace(shown(path), shown(url))
    return text


def _is_of_the_disk(error: BaseException | None) -> bool:
    """Whether an OSError is behind it: then it is no fault of the item."""
    while error is not None:
        if isinstance(error, OSError):
            return True
        error = error.__cause__
    return False


def _check_first(rows: list[Row]) -> None:
    if all(row.status == QUARANTINED for row in rows):
        raise InputError(f"none of the first {len(rows)} items can be done: {rows[0].name}: {rows[0].reason}")
