"""What a large job will need: machines, hours, storage and money by formula, and a simulation with workers that die."""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass

HOUR_S = 3600.0
GB = 1e9


@dataclass(frozen=True)
class Work:
    """What one item asks for, measured: seconds of one worker, bytes read and written, requests to the store.

    Reading low and rgb is two requests of the cheap kind, writing the result one of the dear kind.
    """

    seconds: float
    bytes_in: float
    bytes_out: float
    reads: float = 2
    writes: float = 1
    chunk: int = 64


@dataclass(frozen=True)
class Prices:
    """In any one currency; your own contract's, these are none's. A worker: the share of a machine one process has."""

    worker_hour: float
    gb_month: float
    million_reads: float
    million_writes: float


@dataclass(frozen=True)
class Cluster:
    """``efficiency``: of the speed of ``workers`` single workers, the share that is left, 0..1 (measured).

    ``start_s`` passes before a worker is ready; ``kills_an_hour``: how often one worker dies.
    """

    workers: int
    efficiency: float = 1.0
    start_s: float = 10.0
    kills_an_hour: float = 0.0


def hours(items: float, work: Work, cluster: Cluster) -> float:
    """Hours on the clock: start + items · seconds / (workers · efficiency) · (1 + lost share).

    A death costs a start and half a chunk: its share is kills_an_hour · (start_s + chunk · seconds / 2) / 3600.
    """
    lost = cluster.kills_an_hour * (cluster.start_s + work.chunk * work.seconds / 2) / HOUR_S
    busy = items * work.seconds / (cluster.workers * cluster.efficiency)
    return (cluster.start_s + busy * (1 + lost)) / HOUR_S


def workers_for(items: float, work: Work, cluster: Cluster, within_hours: float) -> int:
    """The fewest workers that are done in time; ``cluster.workers`` is not looked at. Raises ValueError if none."""
    one = hours(items, work, Cluster(1, cluster.efficiency, cluster.start_s, cluster.kills_an_hour))
    start = cluster.start_s / HOUR_S
    if within_hours <= start:
        raise ValueError(f"a worker needs {start:.2g} h to start: ask for more than {within_hours:g} h")
    return math.ceil((one - start) / (within_hours - start) - 1e-9)


def storage_gb(items: float, work: Work) -> tuple[float, float]:
    """What is read and what is written, in units of 10^9 bytes."""
    return items * work.bytes_in / GB, items * work.bytes_out / GB


def money(items: float, work: Work, cluster: Cluster, prices: Prices, months: float = 1) -> float:
    """workers · hours · price, plus the results kept for ``months``, plus requests to the store."""
    machines = cluster.workers * hours(items, work, cluster) * prices.worker_hour
    kept = storage_gb(items, work)[1] * prices.gb_month * months
    chunks = items / work.chunk
    requests = (work.reads * items + 3 * chunks) / 1e6 * prices.million_reads
    requests += (work.writes * items + 2 * chunks) / 1e6 * prices.million_writes
    return machines + kept + requests


@dataclass(frozen=True)
class Simulated:
    """``hours`` on the clock, ``efficiency`` (useful work over paid time), items done twice as a share, deaths."""

    hours: float
    efficiency: float
    redone: float
    deaths: int


def simulate(items: int, work: Work, cluster: Cluster, spread: float = 0.1, seed: int = 0) -> Simulated:
    """The job, chunk by chunk: workers take the next chunk when free, die at random, and begin that chunk anew.

    A chunk's time is lognormal about its mean with standard deviation ``spread`` of its logarithm; a worker's life is
    exponential. What the formula leaves out shows here: the end, when some workers have nothing left to do.
    """
    dice = random.Random(seed)
    rate = cluster.kills_an_hour / HOUR_S
    free = [(cluster.start_s, number) for number in range(cluster.workers)]
    heapq.heapify(free)
    left, useful, end, redone, deaths = items, 0.0, 0.0, 0.0, 0
    while left:
        now, worker = heapq.heappop(free)
        size = min(work.chunk, left)
        mean = size * work.seconds / cluster.efficiency
        need = mean * dice.lognormvariate(-(spread**2) / 2, spread)
        life = dice.expovariate(rate) if rate else math.inf
        if life < need:
            deaths += 1
            redone += size * life / need
            heapq.heappush(free, (now + life + cluster.start_s, worker))
            continue
        left -= size
        useful += size * work.seconds
        end = max(end, now + need)
        heapq.heappush(free, (now + need, worker))
    return Simulated(end / HOUR_S, useful / (end * cluster.workers), redone / items, deaths)
