"""How fast `crispdepth batch` is with 1 and 2 workers here, and what 10^6 and 10^9 frames would then need.

Measures a job of made-up 640x480 frames, low maps x8, in this process without overlap, with it, and with --ray on one
and on two Ray workers; only time between the first commit and the last counts. Then prints the cost model
(crispdepth.scale.forecast) with what was measured and with the prices given, next to its simulation.

    python examples/measure_scale.py --ray -o docs/scale.md    # on a quiet machine: some minutes
    python examples/measure_scale.py --ray --model fgs --items 400 --prices 0.05 0.023 0.4 5
    python examples/measure_scale.py --quick

The four prices are examples, not anybody's: a worker's hour, 10^9 bytes for a month, a million reads, a million writes.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from crispdepth import io
from crispdepth.bench.report import write_between
from crispdepth.bench.speed import processor
from crispdepth.data.scenes import scenes
from crispdepth.degradation import downsample
from crispdepth.job import Settings
from crispdepth.scale import session
from crispdepth.scale.bulk import Runner, here, run_bulk
from crispdepth.scale.forecast import Cluster, Prices, Work, hours, money, simulate, storage_gb, workers_for
from crispdepth.scale.session import Bulk, Done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="crisp")
    parser.add_argument("--items", type=int, default=160)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--prices", type=float, nargs=4, default=(0.05, 0.023, 0.4, 5.0))
    parser.add_argument("-o", "--out", type=Path, help="a page with <!-- measured --> marks, for the tables")
    parser.add_argument("--quick", action="store_true", help="few small frames")
    words = parser.parse_args()
    items, size, chunk = (24, (96, 128), 4) if words.quick else (words.items, (480, 640), 8)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        in_bytes = make_frames(folder / "frames", items, size)
        bulk = Bulk(str(folder / "frames"), "", words.model, Settings(unit="mm"), chunk=chunk)
        runners: dict[str, Runner] = {"one after the other": alone, "overlapped": here}
        speeds = {text: speed(bulk, folder / text.replace(" ", "-"), runner) for text, runner in runners.items()}
        if words.ray:
            speeds |= on_ray(bulk, folder)
        base, two = speeds.get("Ray, 1 worker", speeds["overlapped"]), speeds.get("Ray, 2 workers")
        efficiency = min(1.0, two / base / 2) if two else 1.0
        results = [path.stat().st_size for path in (folder / "overlapped" / "depth").iterdir()]
        work = Work(1 / base, in_bytes / items, float(np.mean(results)))
        head = f"{words.model}, {items} frames of {size[1]}x{size[0]}, x8, chunks of {chunk}, {processor()}"
        lines = [f"**{head}**", "", "| how | frames/s |", "|---|---|"]
        lines += [f"| {text} | {value:.2f} |" for text, value in speeds.items()]
        lines += ["", f"Efficiency of two workers: {efficiency:.2f}" + ("." if two else " (not measured: --ray).")]
        prices = Prices(*words.prices)
        lines += ["", f"Prices, examples only: {prices}.", "", table(work, efficiency, prices, quick=words.quick)]
        print("\n".join(lines))
        if words.out:
            write_between(words.out, "measured", "\n".join(lines))


def make_frames(folder: Path, count: int, size: tuple[int, int]) -> int:
    """A few made-up scenes, again and again under other names; how many bytes."""
    different, total = min(count, 8), 0
    for kind in ("low", "rgb"):
        (folder / kind).mkdir(parents=True)
    for number in range(different):
        made = scenes(1, *size, seed=1_900_000_000 + number)
        assert made.rgb is not None
        assert made.depth is not None
        low, valid = downsample(made.depth, made.depth > 0, 8)
        rgb = (made.rgb[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        for copy in range(number, count, different):
            io.write_depth(folder / "low" / f"{copy:06d}.png", low[0, 0].numpy(), valid[0, 0].numpy())
            io.write_rgb(folder / "rgb" / f"{copy:06d}.jpg", rgb)
    for path in folder.rglob("*.*"):
        total += path.stat().st_size
    return total


def alone(bulk: Bulk, numbers: list[int]) -> Iterator[Done]:
    """A Runner without overlap, to see what it brings."""
    before = session.overlapped
    session.overlapped = _one_by_one  # type: ignore[assignment]
    try:
        yield from here(bulk, numbers)
    finally:
        session.overlapped = before


def _one_by_one(items: Iterator, read: Callable, work: Callable, write: Callable) -> Iterator:
    return (write(work(read(item))) for item in items)


def speed(bulk: Bulk, target: Path, runner: Runner) -> float:
    """Frames a second between the first commit and the last."""
    moments: list[tuple[float, int]] = []

    def note(behind: int, total: int, done: Done | None) -> None:
        if done is not None:
            moments.append((time.monotonic(), behind))

    run_bulk(Bulk(bulk.source, str(target), bulk.model, bulk.settings, chunk=bulk.chunk), runner, note)
    (begin, first), (end, last) = moments[0], moments[-1]
    return (last - first) / (end - begin)


def on_ray(bulk: Bulk, folder: Path) -> dict[str, float]:
    import ray  # noqa: PLC0415

    from crispdepth.scale.ray_job import OnRay  # noqa: PLC0415 - Ray takes seconds to import

    ray.init("local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    found = {}
    for workers in (1, 2):
        text = f"Ray, {workers} worker{'s' * (workers > 1)}"
        found[text] = speed(bulk, folder / f"ray-{workers}", OnRay("auto", workers, cpus=0.5))
    ray.shutdown()
    return found


def table(work: Work, efficiency: float, prices: Prices, quick: bool) -> str:
    """10^6 and 10^9 frames within a day and within a month, by formula and simulated."""
    lines = [
        f"Measured: {work.seconds * 1e3:.1f} ms a frame and worker, {work.bytes_in / 1e3:.0f} kB in, "
        f"{work.bytes_out / 1e3:.0f} kB out; efficiency {efficiency:.2f}; a worker dies every 100 hours.",
        "",
        "| frames | within | workers | hours | worker-hours | read, GB | written, GB | money | simulated: hours "
        "(useful share of paid time; deaths) |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for items, text in ((1e6, "10^6"), (1e9, "10^9")):
        for within, words in ((24, "a day"), (720, "30 days")):
            one = Cluster(1, efficiency, 30, 0.01)
            count = workers_for(items, work, one, within)
            cluster = Cluster(count, efficiency, one.start_s, one.kills_an_hour)
            needed = hours(items, work, cluster)
            # at most 200,000 chunks are simulated: larger ones stand for many
            part = 1e-3 if quick else 1.0
            coarse = Work(work.seconds, work.bytes_in, work.bytes_out, chunk=max(64, int(items * part / 200_000)))
            seen = simulate(int(items * part), coarse, Cluster(max(1, int(count * part)), efficiency, 30, 0.01))
            read, written = storage_gb(items, work)
            cost = money(items, work, cluster, prices)
            lines.append(
                f"| {text} | {words} | {count} | {needed:.1f} | {count * needed:.0f} | {read:.0f} | {written:.0f} "
                f"| {cost:.0f} | {seen.hours:.1f} ({seen.efficiency:.2f}; {seen.deaths}) |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
