"""A large job from beginning to end: plan, chunks, manifest; run again, it goes on; one folder, one job."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from crispdepth.atomic import alone
from crispdepth.graphs import SUFFIXES
from crispdepth.io import DEPTH_SUFFIXES
from crispdepth.models.catalog import load
from crispdepth.scale.manifest import MANIFEST, counts_of, gone, write_manifest
from crispdepth.scale.plan import Item, Plan, find, write_plan
from crispdepth.scale.session import DEPTH, PLAN, WORK, Bulk, Done, Session, part_name, staging
from crispdepth.scale.stores import Store, is_of_the_store, may_pass
from crispdepth.types import InputError

JOB, LOCK = "job.json", "job.lock"
Runner = Callable[[Bulk, list[int]], Iterator[Done]]  # does the chunks of these numbers, wherever


def here(bulk: Bulk, numbers: list[int]) -> Iterator[Done]:
    """A Runner: this process does it all."""
    return Session(bulk).do(numbers)


def run_bulk(
    bulk: Bulk, runner: Runner = here, progress: Callable[[int, int, Done | None], None] | None = None
) -> Counter[str]:
    """Do what of ``bulk`` is not done yet. Returns how many items have which status ("done", "quarantined").

    In ``bulk.target`` afterwards: ``depth/``, ``manifest.parquet``, ``quarantine.jsonl`` if anything was bad, and
    ``job.json``. Whenever it is killed, the same call goes on, and ends with the same files; once finished, it makes
    again what is gone of ``depth/``. ``progress`` is called with the number of items that are behind us, that of all,
    and the chunk that was committed just now.

    Raises InputError for a source with nothing in it, a target that holds something else or is being worked on, and
    when the store fails.
    """
    if bulk.chunk < 1:
        raise InputError("--chunk must be at least 1 item")
    if bulk.suffix.lower() not in DEPTH_SUFFIXES:
        raise InputError(f"--suffix {bulk.suffix!r} is no depth file: use one of {', '.join(DEPTH_SUFFIXES)}")
    store = Store(bulk.target)
    store.check_writable()
    is_file = bulk.model.endswith((".safetensors", *SUFFIXES))
    model = str(Path(bulk.model).resolve()) if is_file else bulk.model
    bulk = replace(bulk, target=store.url, model=model)  # a worker may stand in another folder
    _check_model_of(bulk.source, bulk.model)
    try:
        with _alone(store), _mine(bulk, store):
            finished = store.exists(MANIFEST) and not store.exists(PLAN)
            again = list(gone(store, set(store.names(DEPTH)))) if finished else []
            if finished and not again:
                counts = counts_of(store)
            else:
                counts = _go_on(bulk, store, again or find(bulk.source), runner, progress)
            store.remove(PLAN)  # before the parts: what is left of _work then means nothing
            store.remove(WORK)
            return counts
    except Exception as error:
        if not is_of_the_store(error):
            raise
        cure = "check the names of the folders, what you may do there and the credentials"
        if may_pass(error):
            cure = "run the same command again to go on"
        raise InputError(f"the job stopped ({error}): {cure}") from error


def _check_model_of(source: str, model: str) -> None:
    """Raise InputError where ``source`` is the manifest of a job that another model did."""
    place, _, name = source.rpartition("/")
    store = Store(place or ".")
    if name != MANIFEST or not store.exists(JOB):
        return
    had = json.loads(store.read(JOB)).get("model", model)
    if had != model:
        cure = "or a list of your own, where two models' depth in one set is meant"
        raise InputError(f"{source}: its job had --model {had}, not {model}: say that one, {cure}")


def _go_on(
    bulk: Bulk,
    store: Store,
    items: Iterable[Item],
    runner: Runner,
    progress: Callable[[int, int, Done | None], None] | None,
) -> Counter[str]:
    """The plan that is there, or that of ``items``, to its end."""
    if not store.exists(PLAN):
        store.remove(WORK)  # of a finished job that was killed while it tidied up: no part of this plan
    with staging(store) as name:
        folder = Path(name)
        if not store.exists(PLAN):
            write_plan(items, folder / "plan", bulk.chunk)
            store.put(folder / "plan", PLAN)
        with store.open(PLAN) as opened:
            plan = Plan(opened)
            parts = {part_name(number) for number in range(plan.chunks)} & set(store.names(WORK))
            pending = [number for number in range(plan.chunks) if part_name(number) not in parts]
            behind = plan.items - sum(plan.size_of(number) for number in pending)
            if progress:
                progress(behind, plan.items, None)
            for done in runner(bulk, pending) if pending else ():
                behind += done.items
                if progress:
                    progress(behind, plan.items, done)
            return write_manifest(store, [part_name(number) for number in range(plan.chunks)], folder)


@contextmanager
def _mine(bulk: Bulk, store: Store) -> Iterator[None]:
    """The target belongs to this job alone. A wrong question leaves nothing there."""
    text = json.dumps(_words(bulk), indent=1) + "\n"
    if not store.exists(JOB):
        if any(name != LOCK and not name.startswith(f"{WORK}/") for name in store.names()):
            raise InputError(f"{store.url}: holds other files: name a new folder")
        with staging(store) as name:
            (Path(name) / JOB).write_text(text, encoding="utf-8")
            store.put(Path(name) / JOB, JOB)
    before = json.loads(store.read(JOB))
    wrong = [key for key, value in json.loads(text).items() if before.get(key) != value]
    if wrong:
        had = ", ".join(_had(key, before.get(key)) for key in wrong)
        raise InputError(f"{store.url}: holds a job with {had}: ask the same to go on, or name a new folder")
    try:
        yield
    except InputError:
        finished = store.exists(MANIFEST)
        if finished or not store.names(DEPTH):  # the right question may have the folder
            for name in (WORK,) if finished else (WORK, DEPTH, JOB):
                store.remove(name)
        raise


def _had(key: str, value: Any) -> str:
    """A word of the job that is there, as a person would say it."""
    if key == "weights_sha256":
        return "other weights"
    if key == "size" and value:
        value = f"{value[1]}x{value[0]}"
    return f"no {key}" if value is None else f"{key}={value}"


def _alone(store: Store) -> AbstractContextManager[None]:
    """No other process works on the target; nothing of the kind in an object store, which has no locks."""
    return alone(Path(store.root) / LOCK) if store.is_local else nullcontext()


def _words(bulk: Bulk) -> dict[str, Any]:
    """What makes the results what they are."""
    words = asdict(bulk)
    settings, wanted = words.pop("settings"), words.pop("wanted")
    del words["target"]
    words["source"] = Store(bulk.source).url
    digest = hashlib.sha256()
    if bulk.model.endswith(SUFFIXES):
        for path in (Path(bulk.model), Path(bulk.model).with_suffix(".bin")):  # OpenVINO's weights lie beside
            digest.update(path.read_bytes() if path.is_file() else b"")
    else:
        for name, tensor in load(bulk.model).state_dict().items():
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return words | {"weights_sha256": digest.hexdigest()} | wanted | settings
