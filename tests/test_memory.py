"""Memory that was freed is used again, where the C library can be asked to."""

import subprocess
import sys

import pytest
import torch

from crispdepth.memory import keep_freed, ran_short

FAULTS = """
import resource
from crispdepth.memory import keep_freed
def faults(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        b"x" * 80_000_000
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
given_back = faults(5)
assert keep_freed()
faults(1)
kept = faults(5)
assert keep_freed(False)
faults(1)
print(given_back, kept, faults(5))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux' C library can be asked to")
def test_a_large_array_is_made_of_the_memory_of_the_last() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    given_back, kept, back_again = map(int, done.stdout.split())
    assert given_back > 1000  # five arrays, each of pages of its own
    assert kept < given_back / 20
    assert back_again > given_back / 2


def test_another_system_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed()


def test_too_little_memory_is_told_from_other_faults_that_name_it() -> None:
    with pytest.raises(RuntimeError) as cpu:
        torch.empty(2**60)
    for short in (cpu.value, MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")):
        assert ran_short(short)
    for other in ("CUDA error: an illegal memory access was encountered", "unsupported memory_format option"):
        assert not ran_short(RuntimeError(other))
