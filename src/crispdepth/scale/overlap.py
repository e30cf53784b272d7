"""Read, work, write at once: threads on both sides of the model, with few items in hand."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")

AHEAD, THREADS = 4, 2


def overlapped(
    items: Iterable[A], read: Callable[[A], B], work: Callable[[B], C], write: Callable[[C], D], ahead: int = AHEAD
) -> Iterator[D]:
    """``write(work(read(item)))`` of each item, in their order.

    ``work`` runs here, one item at a time; meanwhile threads read the next items and write the last ones, at most
    ``ahead`` on each side, so memory does not grow with their number. The first exception ends it all.
    """
    source = iter(items)
    with ThreadPoolExecutor(THREADS) as readers, ThreadPoolExecutor(THREADS) as writers:
        coming: deque[Future[B]] = deque(readers.submit(read, item) for item in islice(source, ahead))
        going: deque[Future[D]] = deque()
        while coming:
            ready = coming.popleft().result()
            coming.extend(readers.submit(read, item) for item in islice(source, 1))
            going.append(writers.submit(write, work(ready)))
            if len(going) > ahead:
                yield going.popleft().result()
        while going:
            yield going.popleft().result()
