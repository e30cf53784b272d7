"""The large job on a real Ray cluster of several processes, a worker killed in the middle."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_cli import crispdepth, refused
from test_scale import files, frames, job

from crispdepth.scale.bulk import run_bulk
from crispdepth.scale.session import Done
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
    with pytest.raises(InputError, match="no room for a worker of 99 CPUs"):
        run_bulk(job(source, tmp_path / "out", "bicubic", chunk=8), OnRay("auto", cpus=99))
