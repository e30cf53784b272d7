"""The large job on a real Ray cluster of several processes, a worker killed in the middle."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_cli import crispdepth, refused
from test_scale import files, frames, job

from crispdepth.job import Settings
from crispdepth.scale.bulk import run_bulk
from crispdepth.scale.session import Bulk, Done
from crispdepth.types import InputError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of Ray's own


def test_a_cluster_that_is_not_there_is_said(tmp_path: Path) -> None:
    source = frames(tmp_path / "in", 1)
    words = [source, tmp_path / "out", "--unit", "mm", "--model", "bicubic"]
    refused(crispdepth("batch", *words, "--ray", "127.0.0.1:1"), "no Ray cluster at 127.0.0.1:1.*ray start")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


@pytest.fixture
def with_token(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A cluster that `ray start` made in processes of its own: its address, and the environment that has its token."""
    pytest.importorskip("ray")
    port = 6391  # below those that Ray gives its workers
    environment = os.environ | {"RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    with tempfile.TemporaryDirectory() as folder:  # a short path: sockets are in it
        options = ["--num-cpus=1", "--include-dashboard=false", f"--temp-dir={folder}", "--block"]
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", f"--port={port}", *options]
        head = subprocess.Popen(
            command,
            env=environment | {"RAY_AUTH_MODE": "token"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            for _ in range(120):
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                time.sleep(0.5)
            yield f"127.0.0.1:{port}", environment
        finally:
            head.terminate()  # it ends what it has started
            head.wait(60)


def test_a_cluster_that_asks_for_its_token_is_told_from_none(
    tmp_path: Path, with_token: tuple[str, dict[str, str]]
) -> None:
    address, environment = with_token
    source = frames(tmp_path / "in", 3)
    words = [
        "batch",
        source,
        tmp_path / "out",
        "--unit",
        "mm",
        "--model",
        "bicubic",
        "--ray",
        address,
        "--workers",
        "1",
    ]
    command = [sys.executable, "-m", "crispdepth.cli", *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    refused(done, f"the Ray cluster at {address} asks for a token: set RAY_AUTH_MODE=token")
    environment = environment | {"RAY_AUTH_MODE": "token"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, "3 of 3 items done" in done.stdout) == (0, True), done.stderr


def test_a_worker_killed_in_the_middle_changes_no_file(tmp_path: Path, cluster: None) -> None:
    from crispdepth.scale.ray_job import OnRay

    source = frames(tmp_path / "in", 24, bad=(7,))
    run_bulk(job(source, tmp_path / "here", "bicubic", chunk=1))
    killed: list[int] = []
    after: list[Done] = []

    def kill_the_first(behind: int, total: int, done: Done | None) -> None:
        if done is None:
            return
        after.append(done)
        if not killed:
            killed.append(done.process)
            os.kill(done.process, signal.SIGKILL)

    counts = run_bulk(
        job(source, tmp_path / "there", "bicubic", chunk=1), OnRay("auto", workers=2, cpus=1), kill_the_first
    )
    assert counts == {"done": 23, "quarantined": 1}
    assert len({done.process for done in after}) > 1
    assert os.getpid() not in {done.process for done in after}
    assert files(tmp_path / "there") == files(tmp_path / "here")


def test_a_wrong_question_comes_back_from_the_cluster_as_one_line(tmp_path: Path, cluster: None) -> None:
    from crispdepth.scale.ray_job import OnRay

    source = frames(tmp_path / "in", 9, bad=tuple(range(9)))
    with pytest.raises(InputError, match="none of the items tried"):
        run_bulk(job(source, tmp_path / "out", "bicubic", chunk=8), OnRay("auto", workers=1))
    for workers in (0, 1):
        with pytest.raises(InputError, match=r"no room for a worker of 99 CPUs.*--cpus .*have up to 2 CPUs"):
            run_bulk(job(source, tmp_path / "out", "bicubic", chunk=8), OnRay("auto", workers, cpus=99))
    many = frames(tmp_path / "many", 24)
    before = set(threading.enumerate())
    with pytest.raises(InputError, match=r"none of the items tried can be done: .*--unit"):
        run_bulk(Bulk(str(many), str(tmp_path / "out"), "bicubic", Settings(), chunk=1), OnRay("auto", cpus=1))
    assert not (tmp_path / "out").exists()
    # one of Ray Data's threads still at work would end this process at `ray.shutdown`, with exit code 1 and no word
    assert {thread.name for thread in set(threading.enumerate()) - before} <= {"Prefetcher"}
