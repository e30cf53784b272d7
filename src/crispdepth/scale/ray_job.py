"""The same large job on a Ray cluster: actors hold the model, each chunk goes to whoever is free."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.exceptions import RayError

from crispdepth.memory import keep_freed
from crispdepth.scale.session import Bulk, Done, Session
from crispdepth.scale.stores import is_of_the_store
from crispdepth.types import InputError

BLOCKS_A_WORKER = 16  # a worker that dies loses at most its block, less the chunks it had committed


@dataclass(frozen=True)
class OnRay:
    """A Runner (``bulk.run_bulk``): ``workers`` actors on the cluster at ``address``, each with so many CPUs and GPUs.

    ``address``: as Ray takes it: ``auto``, ``HOST:PORT``, ``ray://HOST:10001``, or ``local`` for a cluster on this
    machine that ends with the job. ``workers`` 0: as many as fit. A worker that dies is replaced, and its
    chunks are done by another; source and target must be readable from every machine, and crispdepth installed there.
    """

    address: str
    workers: int = 0
    cpus: float = 1
    gpus: float = 0

    def __call__(self, bulk: Bulk, numbers: list[int]) -> Iterator[Done]:
        """Do the chunks. Raises InputError for a cluster that is not there or too small, and what a worker says."""
        mine = not ray.is_initialized()
        if mine:
            _connect(self.address)
        DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        try:
            room = self._room()
            workers = self.workers or room
            blocks = min(len(numbers), BLOCKS_A_WORKER * workers)
            pending = ray.data.from_items([{"number": n} for n in numbers], override_num_blocks=blocks)
            done = pending.map_batches(
                _Worker,
                fn_constructor_args=(bulk,),
                batch_size=None,
                compute=ActorPoolStrategy(size=min(workers, blocks)),
                num_cpus=self.cpus,
                num_gpus=self.gpus,
            )
            with _rows(done) as rows:
                for row in rows:
                    error = row.pop("error")
                    if error:
                        raise InputError(error)
                    yield Done(**row)
        finally:
            if mine:
                ray.shutdown()

    def _room(self) -> int:
        """How many workers fit. Raises InputError where not one does: Ray itself would wait for ever."""
        asked = {word: n for word, n in (("CPU", self.cpus), ("GPU", self.gpus)) if n}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        room = sum(min((int(node.get(word, 0) / n) for word, n in asked.items()), default=0) for node in nodes)
        if not room:
            most = " and ".join(f"{max(node.get(word, 0) for node in nodes):g} {word}s" for word in asked or ("CPU",))
            raise InputError(
                f"the Ray cluster has no room for a worker of {self.cpus:g} CPUs and {self.gpus:g} GPUs: ask for less "
                f"by --cpus and --gpus (its machines have up to {most})"
            )
        return room


class _Worker:
    """An actor: one Session; it is handed numbers of chunks and says what it did of them, one by one."""

    def __init__(self, bulk: Bulk) -> None:
        keep_freed()
        self.session = Session(bulk)

    def __call__(self, rows: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
        try:
            for done in self.session.do(int(number) for number in rows["number"]):
                yield _columns(done, "")
        except Exception as error:
            if not isinstance(error, InputError) and not is_of_the_store(error):
                raise
            yield _columns(Done(-1, 0, 0, os.getpid()), str(error) or type(error).__name__)


def _columns(done: Done, error: str) -> dict[str, Any]:
    return {name: np.array([value]) for name, value in (asdict(done) | {"error": error}).items()}


@contextmanager
def _rows(dataset: Dataset) -> Iterator[Iterator[dict[str, Any]]]:
    """The rows, and afterwards none of the threads that fetched them is at work: one that asks Ray anything when Ray is
    shut down ends the whole process, with exit code 1 and without a word."""
    before = set(threading.enumerate())
    try:
        with closing(row for row in dataset.iter_rows()) as rows:
            yield rows
    finally:
        for thread in set(threading.enumerate()) - before:
            if thread.name != "Prefetcher":  # it waits for ever, and asks nothing
                thread.join(60)


def _connect(address: str) -> None:
    """Join the cluster, or start a ``local`` one. Raises InputError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    with tempfile.TemporaryFile() as said:
        try:
            if colon and port.isdigit():
                socket.create_connection((host, int(port)), timeout=10).close()  # Ray itself would try for minutes
            with _stderr_into(said.fileno()) if colon else nullcontext():
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ValueError, RayError) as error:
            said.seek(0)
            if b"InvalidAuthToken" in said.read() or isinstance(error, RayError):
                cure = "set RAY_AUTH_MODE=token, and have its token in ~/.ray/auth_token or RAY_AUTH_TOKEN"
                raise InputError(f"the Ray cluster at {address} asks for a token: {cure}") from error
            raise InputError(f"no Ray cluster at {address} ({error}): start one with `ray start --head`") from error


@contextmanager
def _stderr_into(file: int) -> Iterator[None]:
    """What this process's libraries write to stderr goes into an open file: Ray's core says there, and only there, why
    it cannot join, once a second."""
    kept = os.dup(2)
    os.dup2(file, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
