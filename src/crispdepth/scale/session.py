"""One process at work on a large job: chunk after chunk, each committed whole; a bad item never stops the others."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import tempfile
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import cv2

from crispdepth import batch
from crispdepth.atomic import held_folder, shown, sweep
from crispdepth.engines import Converted, Wanted, opened
from crispdepth.job import Job, Settings
from crispdepth.memory import ran_short
from crispdepth.outputs import Output, outputs_of, write_all
from crispdepth.scale.manifest import DONE, Row, write_part
from crispdepth.scale.overlap import overlapped
from crispdepth.scale.plan import INPUTS, QUARANTINED, Item, Plan
from crispdepth.scale.stores import Store, fetch, is_of_the_store
from crispdepth.scale.suspects import DEADLY, Suspects
from crispdepth.types import InputError

STAGING = "crispdepth-staging-"  # begins the names of folders on the way to a store
WORK, DEPTH = "_work", "depth"  # what is gone when the job is finished; where results are
PLAN = f"{WORK}/plan.parquet"
TELLING = 8  # if of so many first items none can be done, the fault may be in the question
OTHERS = 16  # so many, spread over the plan, are tried to tell what is wrong: an item, or all of it
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
OF_THE_NAME = (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)  # too long, or a file where a folder is
DEVICE = re.compile(r"\b(cuda|cudnn|cublas|hip|mps|xpu)", re.IGNORECASE)  # what accelerators' errors name
NOT_OURS = re.compile(r"(?<!\S)--(low|rgb|confidence)(?![\w-])")  # options of predict; here they are an item's files


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
    """A chunk that is committed: its number, items, how many of them are quarantined, the process that did it, and what
    engine, device and precision that chose."""

    number: int
    items: int
    bad: int
    process: int
    engine: str = ""


@dataclass(frozen=True)
class _At:
    """An item on its way through: what it is so far, or why it cannot be done.

    ``place``: its number in the plan. ``doubt``: what may be wrong with everything, not with this item.
    """

    number: int
    place: int
    item: Item
    read: batch.Read | None = None
    output: Output | None = None
    width: int = 0
    height: int = 0
    reason: str | None = None
    doubt: Exception | None = None


class Session:
    """The model, the plan, and a folder to stage files in; ``do`` does the work."""

    def __init__(self, bulk: Bulk) -> None:
        self.bulk = bulk
        self.store = Store(bulk.target)
        self.model, self.choice = opened(bulk.model, bulk.wanted)
        single = self.model.single
        self.network = (single.in_levels if bulk.settings.levels else None) or single  # which an engine runs
        self.plan = Plan(self.store.open(PLAN))
        self.settings = self._settled()
        self.asked_rightly = False  # once it is known that not every item fails

    def _settled(self) -> Settings:
        """The settings, with the end of the confidence's scale told from the first items, alike in every process."""
        settings = self.bulk.settings
        urls = [item.confidence for item in self.plan.chunk(0)[:TELLING] if item.confidence and not item.fault]
        if settings.confidence_max is not None or not urls:
            return settings
        with staging(self.store) as name:
            files = []
            for number, url in enumerate(urls):
                (Path(name) / str(number)).mkdir()
                try:
                    files.append(fetch(url, Path(name) / str(number), "confidence"))
                except Exception as error:  # said when its turn comes
                    if not (isinstance(error, InputError) or is_of_the_store(error)):
                        raise
            return replace(settings, confidence_max=batch.confidence_max(files))

    def do(self, numbers: Iterable[int]) -> Iterator[Done]:
        """Chunks by number, each reported once its files and then its part are in the store.

        A chunk whose part is there already is skipped. Raises InputError when none of the first items here works, nor
        any other that is tried, and when the results cannot be written; when the store or the device fails, what
        ``stores.is_of_the_store``.
        """
        with staging(self.store) as name:
            folder = Path(name)
            rows: list[Row] = []
            todo = (number for number in numbers if not self.store.exists(part_name(number)))
            for at, row in self._each(todo, folder):
                rows.append(row)
                whole = len(rows) == self.plan.size_of(at.number)
                if not self.asked_rightly and (whole or len(rows) == TELLING):
                    self._check(rows, range(at.place + 1 - len(rows), at.place + 1), folder)
                    self.asked_rightly = True
                if whole:
                    write_part(rows, folder / "part")
                    self.store.put(folder / "part", part_name(at.number))
                    bad = sum(row.status == QUARANTINED for row in rows)
                    yield Done(at.number, len(rows), bad, os.getpid(), str(self.choice))
                    rows = []

    def _each(self, numbers: Iterable[int], folder: Path) -> Iterator[tuple[_At, Row]]:
        """The items of these chunks, done; one by one in chunks that were begun before."""
        suspects = Suspects(self.store, WORK, folder)

        def read(at: _At) -> _At:
            return self._read(at, folder)

        def work(at: _At) -> _At:
            return self._judged(self._work(at), folder)

        for again, chunks in groupby(((suspects.begin(n), n) for n in numbers), key=itemgetter(0)):
            items = (at for _, number in chunks for at in self._chunk(number))
            if not again:
                yield from overlapped(items, read, work, self._write)
                continue
            for at in items:
                with suspects.alone(at.number, at.place) as deaths:
                    fault = f"the process died {deaths} times while it did this" if deaths >= DEADLY else at.item.fault
                    at = read(replace(at, item=replace(at.item, fault=fault)))
                if at.read is not None and isinstance(self.network, Converted) and (sizes := batch.sizes(at.read)):
                    self.network.prepare(*sizes)  # takes minutes: whoever dies there has no item in hand
                with suspects.alone(at.number, at.place):
                    done = self._write(work(at))
                yield done

    def _chunk(self, number: int) -> list[_At]:
        before = number * self.bulk.chunk
        return [_At(number, before + i, item) for i, item in enumerate(self.plan.chunk(number))]

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
                        self.settings,
                    ),
                )
            except (InputError, MemoryError, cv2.error) as error:
                return replace(at, reason=_line(error, {path: urls[word] for word, path in files.items()}))
            except Exception as error:
                if not is_of_the_store(error) or getattr(error, "errno", None) in DISK_FULL:
                    raise
                reason = f"{shown(' '.join(urls.values()))}: cannot be fetched: {_line(error, {})}"
                return replace(at, reason=reason, doubt=error)

    def _work(self, at: _At) -> _At:
        """Here: the model."""
        if at.read is None:
            return at
        try:
            work, _ = batch.worked(at.read, self.model)
            outputs, _ = outputs_of(work)
        except (InputError, MemoryError, cv2.error) as error:
            return replace(at, read=None, reason=_line(error, {}))
        except RuntimeError as error:
            line = _line(error, {})
            if ran_short(error):
                return replace(at, read=None, reason=line)
            doubt = OSError(f"{at.item.name}: {line}: is the device well? see to it, or start it anew")
            if DEVICE.search(str(error)):
                raise doubt from error
            return replace(at, read=None, reason=line, doubt=doubt)
        height, width = work.result.depth.shape
        return replace(at, read=None, output=outputs[0], width=width, height=height)

    def _judged(self, at: _At, folder: Path) -> _At:
        """The item as it is, if what failed is its own fault: another one works. Raises its doubt if none does."""
        if at.doubt is not None and not self._another_works((at.place,), folder):
            raise at.doubt
        return at

    def _check(self, first: list[Row], places: range, folder: Path) -> None:
        """Raise InputError if nothing was ever done, and neither the ``first`` items seen here, at ``places`` of the
        plan, nor others can be: ask otherwise."""
        if any(row.status == DONE for row in first) or self.store.names(DEPTH):
            return
        if not self._another_works(places, folder):
            name, reason = first[0].name, first[0].reason
            raise InputError(f"none of the items tried can be done: {name}: {reason}")

    def _another_works(self, but: Container[int], folder: Path) -> bool:
        """Whether an item can be done of the first TELLING and OTHERS spread over the plan, the last among them."""
        last = self.plan.items - 1
        for place in sorted({min(i, last) for i in range(TELLING)} | {last * i // (OTHERS - 1) for i in range(OTHERS)}):
            if place not in but:
                at = self._chunk(place // self.bulk.chunk)[place % self.bulk.chunk]
                if self._work(self._read(at, folder)).output is not None:
                    return True
        return False

    def _write(self, at: _At) -> tuple[_At, Row]:
        """In a thread: encode, then into the store."""
        item = at.item
        row = Row(item.name, QUARANTINED, at.reason, low=item.low, rgb=item.rgb, confidence=item.confidence)
        if at.output is None:
            return at, row
        staged, name = at.output.path, f"{DEPTH}/{item.name}{self.bulk.suffix}"
        try:
            write_all([at.output])
        except (InputError, MemoryError) as error:
            if _is_of_the_disk(error):
                raise
            return at, replace(row, reason=_line(error, {staged: name}))
        with staged.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = staged.stat().st_size
        try:
            self.store.put(staged, name)
        except OSError as error:
            if error.errno not in OF_THE_NAME:
                raise
            staged.unlink()
            return at, replace(row, reason=f"{shown(name)}: no file can be called so ({error.strerror}): rename it")
        return at, replace(row, status=DONE, out=name, bytes=size, sha256=digest, width=at.width, height=at.height)


@contextmanager
def staging(store: Store) -> Iterator[str]:
    """A folder for files on their way into ``store``: if it is local in its ``_work``, on the same disk.

    Else in the system's temporary folder, where those that killed processes have left are removed first.
    """
    if store.is_local:
        inside = Path(store.root) / WORK
        inside.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=inside, prefix="staging-") as name:
            yield name
        return
    inside = Path(tempfile.gettempdir())
    sweep(inside, STAGING)
    with held_folder(inside, STAGING) as folder:
        yield str(folder)


def part_name(number: int) -> str:
    """The file that says chunk ``number`` is done."""
    return f"{WORK}/part-{number:08d}.parquet"


def _line(error: BaseException, files: dict[Path, str]) -> str:
    """What went wrong, in one line that a second run would repeat: of the files' URLs, not of their copies, and of
    the options of ``batch``, not of ``predict``."""
    text = NOT_OURS.sub(r"its \1", str(error).splitlines()[0]) if str(error) else type(error).__name__
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
