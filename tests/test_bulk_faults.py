"""What goes wrong in a large job: a fault of one item is kept with its reason, one of everything stops the job."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from test_scale import files, frames, job

from crispdepth import atomic
from crispdepth.job import Settings
from crispdepth.scale import bulk, session
from crispdepth.scale.bulk import run_bulk
from crispdepth.scale.plan import find
from crispdepth.scale.session import Bulk, Done, Session, staging
from crispdepth.scale.stores import Store
from crispdepth.types import InputError


def quick(source: Path, target: Path, chunk: int = 3) -> Bulk:
    return job(source, target, "bicubic", chunk)


def bad_ones(target: Path) -> dict[str, str]:
    lines = (target / "quarantine.jsonl").read_text().splitlines()
    return {row["name"]: row["reason"] for row in map(json.loads, lines)}


def listed(source: Path, names: list[str], low: dict[str, str] | None = None) -> Path:
    """A list of the frames in ``source`` under other names; ``low``: other files for some of these names."""
    found = {kind: [str(path) for path in sorted((source / kind).rglob("*.png"))] for kind in ("low", "rgb")}
    found["low"] = [(low or {}).get(name, path) for name, path in zip(names, found["low"], strict=True)]
    pq.write_table(pa.table(found | {"name": names}), source / "list.parquet")
    return source / "list.parquet"


def failing(when: Callable[[int], bool], error: Exception) -> Callable[..., Any]:
    """``batch.worked``, with ``error`` at the calls (from 0) that ``when`` says."""
    calls = iter(range(1000))
    worked = session.batch.worked

    def work(*words: Any) -> Any:
        if when(next(calls)):
            raise error
        return worked(*words)

    return work


# ------------------------------------------------------------------------------- the process

KILLED_BY_AN_ITEM = """
import os, signal, sys
from pathlib import Path
from crispdepth.job import Settings
from crispdepth.scale import session
from crispdepth.scale.bulk import run_bulk
from crispdepth.scale.session import Bulk
read = session.batch.read
def deadly(job, settings):
    if Path(job.low).read_bytes() == Path(sys.argv[3]).read_bytes():
        os.kill(os.getpid(), signal.SIGKILL)
    return read(job, settings)
session.batch.read = deadly
print(sorted(run_bulk(Bulk(sys.argv[1], sys.argv[2], "bicubic", Settings(unit="mm"), chunk=4)).items()))
"""


def test_an_item_that_kills_its_process_is_found_and_left_out(tmp_path: Path) -> None:
    source, target = frames(tmp_path / "in", 9), tmp_path / "out"
    deadly = source / "low" / "a" / "004.png"
    words = [sys.executable, "-c", KILLED_BY_AN_ITEM, str(source), str(target), str(deadly)]
    runs = [subprocess.run(words, capture_output=True, text=True, check=False) for _ in range(4)]
    assert [run.returncode for run in runs] == [-9, -9, -9, 0], runs[-1].stderr
    assert runs[-1].stdout == "[('done', 8), ('quarantined', 1)]\n"
    assert bad_ones(target) == {"a/004": "the process died 2 times while it did this"}
    assert not (target / session.WORK).exists()
    run_bulk(quick(source, tmp_path / "undisturbed", chunk=4))
    expected, made = (files(folder / "depth") for folder in (tmp_path / "undisturbed", target))
    assert {name: data for name, data in expected.items() if name != "a/004.png"} == made


KILLED_IN_PREPARATION = """
import os, signal, sys
from crispdepth import engines
from crispdepth.engines import Wanted
from crispdepth.job import Settings
from crispdepth.models import crisp
from crispdepth.scale.bulk import run_bulk
from crispdepth.scale.session import Bulk
made, source, target, model = engines.Converted._made, *sys.argv[1:]
def killed(*words):
    os.kill(os.getpid(), signal.SIGKILL)
for run in range(5):
    child = os.fork()
    if child == 0:
        engines.Converted._made = killed if run < 4 else made
        job = Bulk(source, target, model, Settings(unit="mm"), chunk=4, wanted=Wanted("onnx"))
        print(run, sorted(run_bulk(job).items()), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == (signal.SIGKILL if run < 4 else 0), run
"""


@pytest.mark.parametrize("model", ["crisp-tiny", "crisp-tiny+"])
def test_who_dies_while_the_engine_is_prepared_has_no_item_in_hand(model: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    words = [sys.executable, "-c", KILLED_IN_PREPARATION, str(frames(tmp_path / "in", 2)), str(tmp_path / "out"), model]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "4 [('done', 2)]\n"), done.stderr


def test_what_stops_a_job_with_an_error_again_and_again_is_no_death_of_an_item(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = frames(tmp_path / "in", 5)
    for _ in range(5):
        with monkeypatch.context() as patch:
            patch.setattr(session.batch, "worked", failing(lambda call: call >= 2, RuntimeError("CUDA error")))
            with pytest.raises(InputError, match="the job stopped"):
                run_bulk(quick(source, tmp_path / "out", chunk=5))
    assert run_bulk(quick(source, tmp_path / "out", chunk=5)) == {"done": 5}


# ------------------------------------------------------------------------------- the device


@pytest.mark.parametrize("text", ["CUDA error: unspecified launch failure\nmore", "the engine is gone"])
def test_a_dying_device_stops_the_job_which_then_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    source = frames(tmp_path / "in", 9)
    monkeypatch.setattr(session.batch, "worked", failing(lambda call: call >= 4, RuntimeError(text)))
    with pytest.raises(InputError, match=r"the job stopped \(a/008: .*device.*run the same command again") as told:
        run_bulk(quick(source, tmp_path / "out"))
    assert "\n" not in str(told.value)
    monkeypatch.undo()
    assert run_bulk(quick(source, tmp_path / "out")) == {"done": 9}


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("Kernel size can't be greater than actual input size"),
    ],
)
def test_an_item_too_large_or_too_odd_for_the_model_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    source = frames(tmp_path / "in", 3)
    monkeypatch.setattr(session.batch, "worked", failing(lambda call: call == 1, error))
    assert run_bulk(quick(source, tmp_path / "out")) == {"done": 2, "quarantined": 1}
    assert bad_ones(tmp_path / "out") == {"a/002": str(error)}


# ------------------------------------------------------------------------------- the question


@pytest.mark.parametrize("chunk", [3, 4, 64])
def test_a_wrong_question_stops_whatever_the_chunks(tmp_path: Path, chunk: int) -> None:
    source = frames(tmp_path / "in", 20)
    with pytest.raises(InputError, match=r"none of the items tried can be done: a/000.*--unit"):
        run_bulk(Bulk(str(source), str(tmp_path / "out"), "bicubic", Settings(), chunk=chunk))
    assert not (tmp_path / "out").exists()


def test_a_wrong_question_stops_workers_that_are_handed_one_item_at_a_time(tmp_path: Path) -> None:
    source = frames(tmp_path / "in", 20)

    def as_on_ray(job: Bulk, numbers: list[int]) -> Iterator[Done]:
        sessions = [Session(job) for _ in range(3)]
        for number in numbers:
            yield from sessions[number % 3].do([number])

    with pytest.raises(InputError, match=r"none of the items tried can be done: a/000.*--unit"):
        run_bulk(Bulk(str(source), str(tmp_path / "out"), "bicubic", Settings(), chunk=1), as_on_ray)
    assert not (tmp_path / "out").exists()
    bad = frames(tmp_path / "bad", 20, bad=tuple(range(19)))  # all but one
    assert run_bulk(quick(bad, tmp_path / "out", chunk=1), as_on_ray) == {"done": 1, "quarantined": 19}


@pytest.mark.parametrize("chunk", [3, 64])
def test_bad_files_at_the_front_do_not_look_like_a_wrong_question(tmp_path: Path, chunk: int) -> None:
    source = frames(tmp_path / "in", 20, bad=tuple(range(0, 20, 2)))  # all of a/, which comes first
    assert run_bulk(quick(source, tmp_path / "out", chunk)) == {"done": 10, "quarantined": 10}
    assert set(bad_ones(tmp_path / "out")) == {f"a/{i:03d}" for i in range(0, 20, 2)}


# ------------------------------------------------------------------------------- one item


def test_a_name_that_no_file_can_have_stops_nothing(tmp_path: Path) -> None:
    names = ["q", "q.png/r", "n" * 300, "good"]
    source = listed(frames(tmp_path / "in", 4), names)
    assert run_bulk(quick(source, tmp_path / "out", chunk=1)) == {"done": 2, "quarantined": 2}
    reasons = bad_ones(tmp_path / "out")
    (later,) = reasons.keys() & {"q", "q.png/r"}  # two threads write: either may be first
    assert "rename it" in reasons[later]
    assert "File name too long" in reasons["n" * 300]
    assert {p.name for p in (tmp_path / "out" / "depth").iterdir()} == {"q.png", "good.png"}


def test_an_address_that_does_not_answer_stops_nothing(tmp_path: Path) -> None:
    nobody = "http://127.0.0.1:9/low.png"
    source = listed(frames(tmp_path / "in", 4), list("wxyz"), {"x": nobody})
    assert run_bulk(quick(source, tmp_path / "out")) == {"done": 3, "quarantined": 1}
    assert nobody in bad_ones(tmp_path / "out")["x"]
    all_of_them = listed(tmp_path / "in", list("wxyz"), dict.fromkeys("wxyz", nobody))
    with pytest.raises(InputError, match="run the same command again"):
        run_bulk(quick(all_of_them, tmp_path / "none"))


def test_a_full_disk_stops_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = frames(tmp_path / "in", 4)

    def full(store: Store, staged: Path, name: str) -> None:
        if name.startswith("depth/"):
            raise OSError(errno.ENOSPC, "No space left on device")
        put(store, staged, name)

    put = Store.put
    monkeypatch.setattr(Store, "put", full)
    with pytest.raises(InputError, match=r"No space left.*run the same command again"):
        run_bulk(quick(source, tmp_path / "out"))
    monkeypatch.undo()
    assert run_bulk(quick(source, tmp_path / "out")) == {"done": 4}
    assert "quarantine.jsonl" not in files(tmp_path / "out")


@pytest.mark.parametrize(
    "error", [PermissionError(errno.EACCES, "not allowed"), OSError(errno.EROFS, "Read-only file system")]
)
def test_what_does_not_pass_by_itself_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def closed(*_: object) -> None:
        raise error

    monkeypatch.setattr(Store, "put", closed)
    with pytest.raises(InputError, match=r"the job stopped \(.*\): check the names of the folders"):
        run_bulk(quick(frames(tmp_path / "in", 1), tmp_path / "out"))


# ------------------------------------------------------------------------------- the folder


def test_a_lock_that_was_deleted_locks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = frames(tmp_path / "in", 2), tmp_path / "out"
    lock = atomic.fcntl.flock
    opened: list[int] = []

    def late(file: Any, how: int) -> None:
        if not opened:  # between our opening and our locking another one ends, and a third begins
            (target / bulk.LOCK).unlink()
            (target / bulk.LOCK).touch()
        opened.append(file.fileno())
        lock(file, how)

    monkeypatch.setattr(atomic.fcntl, "flock", late)
    assert run_bulk(quick(source, target)) == {"done": 2}
    assert len(opened) == 2
    assert bulk.LOCK not in files(target)


def test_the_job_is_nobodys_while_its_name_is_not_yet_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = frames(tmp_path / "in", 2)
    words = bulk._words
    refusals: list[str] = []

    def meanwhile(asked: Bulk) -> dict[str, Any]:
        if not refusals:
            refusals.append("")
            with pytest.raises(InputError, match="another process is at work"):
                run_bulk(quick(source, tmp_path / "out"))
        return words(asked)

    monkeypatch.setattr(bulk, "_words", meanwhile)
    assert run_bulk(quick(source, tmp_path / "out")) == {"done": 2}


def test_a_result_that_is_gone_is_made_again(tmp_path: Path) -> None:
    source, target = frames(tmp_path / "in", 7, bad=(3,)), tmp_path / "out"
    run_bulk(quick(source, target))
    before = files(target)
    (target / "depth" / "a" / "004.png").unlink()
    seen: list[int] = []
    counts = run_bulk(quick(source, target), progress=lambda behind, total, done: seen.append(total))
    assert (counts, set(seen)) == ({"done": 6, "quarantined": 1}, {1})
    assert files(target) == before
    (target / "depth" / "a" / "004.png").unlink()
    (source / "low" / "a" / "004.png").unlink()
    assert run_bulk(quick(source, target)) == {"done": 5, "quarantined": 2}
    assert "no such file" in bad_ones(target)["a/004"]


def test_a_finished_job_whose_files_were_all_moved_keeps_its_manifest(tmp_path: Path) -> None:
    source, target = frames(tmp_path / "in", 3), tmp_path / "out"
    run_bulk(quick(source, target))
    before = files(target)
    (target / "depth").rename(tmp_path / "moved")
    source.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"none of the items tried can be done: .*no such file"):
        run_bulk(quick(source, target))
    (tmp_path / "moved").rename(target / "depth")
    assert run_bulk(quick(source, target)) == {"done": 3}
    assert files(target) == before


# ------------------------------------------------------------------------------- a list


@pytest.mark.parametrize("column", ["low", "name", "rgb", "status"])
def test_a_column_of_numbers_in_a_list_is_refused(tmp_path: Path, column: str) -> None:
    text = pa.array(["a.png"]).dictionary_encode()  # as pandas writes a category
    pq.write_table(pa.table({"low": text, "name": text} | {column: [0]}), tmp_path / "list.parquet")
    with pytest.raises(InputError, match=f"column {column} is int64, not text: write its values as strings"):
        list(find(str(tmp_path / "list.parquet")))


# ------------------------------------------------------------------------------- what killed processes leave

KILLED_WHILE_STAGING = """
import os, signal
from crispdepth.scale.session import staging
from crispdepth.scale.stores import Store
with staging(Store("memory://there")) as name:
    open(name + "/half", "w").close()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_staging_folders_of_killed_processes_are_swept_and_those_of_living_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    subprocess.run([sys.executable, "-c", KILLED_WHILE_STAGING], check=False)
    (left,) = tmp_path.iterdir()
    (tmp_path / "staging-of-another-program").mkdir()
    with staging(Store("memory://there")) as living:
        for folder in tmp_path.iterdir():
            os.utime(folder, (0, 0))
        with staging(Store("memory://there")):
            assert not left.exists()
            assert Path(living).is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["staging-of-another-program"]
