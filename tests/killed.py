"""Run a large job in processes that die without a word before their N-th change of the disk.

python killed.py SOURCE FOLDER STRIDE: for N = 0, STRIDE, … a job into FOLDER/N is killed, then run again. Prints, for
each N, which files the kill had left. Ends with the first N that no run reaches.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crispdepth.job import Settings
from crispdepth.scale.bulk import run_bulk
from crispdepth.scale.session import Bulk


def dying_at(step: int) -> None:
    """From now on this process kills itself before its ``step``-th change of the disk."""
    left = [step]

    def counted(change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*words: Any, **named: Any) -> Any:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return change(*words, **named)

        return changed

    for name in ("replace", "rmdir", "mkdir", "unlink"):
        setattr(os, name, counted(getattr(os, name)))


def run(source: str, target: Path, step: int | None) -> int:
    """The job in a process of its own (a fork: this one has run nothing yet); its exit code."""
    child = os.fork()
    if child == 0:
        if step is not None:
            dying_at(step)
        run_bulk(Bulk(source, str(target), "bicubic", Settings(unit="mm"), chunk=2))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(source: str, folder: Path, stride: int) -> None:
    step = 0
    while (code := run(source, folder / str(step), step)) != 0:
        assert code == -signal.SIGKILL, code
        left = {str(p.relative_to(folder)): p.read_bytes().hex() for p in (folder / str(step)).glob("depth/**/*.*")}
        assert run(source, folder / str(step), None) == 0
        sys.stdout.write(json.dumps(left) + "\n")
        sys.stdout.flush()  # before the next fork
        step += stride


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
