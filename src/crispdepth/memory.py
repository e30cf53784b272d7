"""keep_freed: memory that a tensor gave back is the next one's, not the system's; ran_short: if it was too little."""

from __future__ import annotations

import ctypes
import re
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4  # names of glibc's <malloc.h>, mallopt(3)
MOST = 2**31 - 1
SHORT = re.compile(r"out of memory|DefaultCPUAllocator|Insufficient memory")  # CUDA's and MPS', the CPU's, OpenCV's
USUAL = {MMAP_MAX: 65_536, MMAP_THRESHOLD: 2**25, TRIM_THRESHOLD: 2**26}  # where glibc's own rules soon end


def keep_freed(keep: bool = True) -> bool:
    """Have this process keep the memory that it frees, for its next tensors; whether that could be done.

    A large tensor is else pages of its own, which Linux clears at their first touch, in every layer of every frame
    anew: a sixth of Crisp's time at 1440x1920, a fifth of NAIMA's. What is kept is at most what was in use at once,
    and the gaps between. Only glibc can be asked to. It concerns the whole process, so the command does it; in Python
    it is yours to call. ``keep`` False: from now on as it was before.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    wanted = {MMAP_MAX: 0, TRIM_THRESHOLD: MOST} if keep else USUAL
    return all(mallopt(name, value) for name, value in wanted.items())


def ran_short(error: BaseException) -> bool:
    """Whether ``error`` says that there was too little memory: torch has no class for all of these."""
    return isinstance(error, MemoryError) or bool(SHORT.search(str(error)))
