"""How much faster and smaller our NAIMA is than a plain transcription of its specification, and how far from it.

    python examples/naima_speed.py [-o docs/naima.md] [--rounds 3] [--tables speed,memory,deviation] [--quick]

Times tests/reference/naima_plain.py (float32, every attention weight held) and models/naima.py, with the same made-up
weights, one after the other in each round, and prints the medians; float32 but where bf16 is named. Memory is the peak
of a fresh process above what it held before the forward. Nothing else may run meanwhile. Deviation: largest difference
from the plain network's output as a share of its largest value; and from the outputs of the authors' code, where
../shared/parity has them.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from crispdepth.bench.report import write_between
from crispdepth.bench.speed import processor
from crispdepth.memory import keep_freed
from crispdepth.models.naima import Naima, from_released

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from reference.naima_plain import filled, inputs

KEPT = ("ours, freed memory kept", "ours, linear attention, freed memory kept", "ours, bf16")  # the command keeps it
WAYS = {  # our network's attention
    "ours": "fused",
    "ours, freed memory kept": "fused",
    "ours, linear attention": "linear",
    "ours, linear attention, freed memory kept": "linear",
    "ours, bf16": "fused",
    "ours, all weights held": "exact",
}
PARITY = Path(__file__).resolve().parents[2] / "shared" / "parity" / "naima_expected.npz"
Forward = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def network(way: str, scale: int) -> Forward:
    """The plain network, or ours with one of WAYS, with the same weights."""
    plain = filled(scale)
    if way == "plain":
        return plain
    model = from_released(plain.state_dict(), scale, attention=WAYS[way])
    return partial(in_bf16, model) if way == "ours, bf16" else model.network


def in_bf16(model: Naima, rgb: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
    """As `--precision bf16`: convolutions and products in it, the bicubic map and the Fourier transforms in float32."""
    with torch.autocast("cpu", torch.bfloat16):
        return model.network(rgb, low).float()


def alone(call: Callable[..., Any], *words: Any) -> Any:
    """``call`` in a fresh process; None when the system killed it, which it does for memory."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(call, *words).result()
        except BrokenProcessPool:
            return None


def peak_mb(way: str, scale: int, side: int) -> float:
    """Peak memory (10^6 bytes) of one forward, above what the process held before."""
    keep_freed(way in KEPT)
    forward, pair = network(way, scale), inputs(scale, side, side)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak counts from here
    before = _status("VmRSS")
    with torch.inference_mode():
        forward(*pair)
    return _status("VmHWM") - before


def _status(word: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(word)).split()[1]) * 1024 / 1e6


def timed(scale: int, side: int, rounds: int) -> list[str]:
    """Rows of the table of times, of networks that take turns in this process."""
    pair = inputs(scale, side, side)
    forwards = {way: network(way, scale) for way in ("plain", *WAYS)}
    seconds: dict[str, list[float]] = {way: [] for way in forwards}
    made: dict[str, torch.Tensor] = {}
    with torch.inference_mode():
        for _ in range(rounds):
            for way, forward in forwards.items():
                keep_freed(way in KEPT)
                start = time.perf_counter()
                made[way] = forward(*pair)
                seconds[way].append(time.perf_counter() - start)
    base = median(seconds["plain"])
    rows = []
    for way, times in seconds.items():
        off = float((made[way] - made["plain"]).abs().max() / made["plain"].abs().max())
        rows.append(f"| x{scale} | {way} | {median(times):.2f} | {base / median(times):.2f} | {off:.1e} |")
    return rows


def speed(side: int, scales: tuple[int, ...], rounds: int) -> list[str]:
    """The table of times, printed as it grows."""
    lines = [
        f"**{side}x{side}, {torch.get_num_threads()} threads, interleaved in one run, {processor()}**",
        "",
        "| scale | network | seconds | times plain | deviation |",
        "|---|---|---|---|---|",
    ]
    for scale in scales:
        lines += alone(timed, scale, side, rounds) or [f"| x{scale} | killed for memory | – | – | – |"]
        print("\n".join(lines[-len(WAYS) - 1 :]), flush=True)
    return lines


def memory(side: int, scale: int = 4) -> list[str]:
    """The table of memory."""
    peaks = {way: alone(peak_mb, way, scale, side) for way in ("plain", *WAYS)}
    lines = [f"**{side}x{side}, peak memory of one forward above the weights**", ""]
    lines += ["| scale | network | MB | share of plain |", "|---|---|---|---|"]
    for way, peak in peaks.items():
        if peak is None:
            lines.append(f"| x{scale} | {way} | killed for memory | – |")
        else:
            lines.append(f"| x{scale} | {way} | {peak:.0f} | {peak / (peaks['plain'] or math.nan):.2f} |")
    return lines


def deviation(scales: tuple[int, ...], widths: tuple[int, ...]) -> list[str]:
    """The table of largest differences from what the authors' code made."""
    lines = ["**Largest difference from the outputs of the authors' code, as a share of their largest value**", ""]
    lines += [f"| output | {' | '.join(('plain', *WAYS))} |", "|---" * (len(WAYS) + 2) + "|"]
    expected = np.load(PARITY)
    for scale in scales:
        forwards = {way: network(way, scale) for way in ("plain", *WAYS)}
        for width in widths:
            wanted = torch.from_numpy(expected[f"x{scale}_112x{width}"])
            with torch.inference_mode():
                made = [forward(*inputs(scale, 112, width)) for forward in forwards.values()]
            off = [float((x - wanted).abs().max() / wanted.abs().max()) for x in made]
            lines.append(f"| x{scale}, 112x{width} | " + " | ".join(f"{x:.1e}" for x in off) + " |")
    return lines


def main() -> None:
    """Measure, print, and write each table into the page if one is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tables", default="speed,memory,deviation")
    parser.add_argument("--quick", action="store_true", help="small, one round, no memory: to see that it runs")
    asked = parser.parse_args()
    if asked.quick:
        tables = {"speed": partial(speed, 56, (4,), 1), "deviation": partial(deviation, (4,), (112,))}
    else:
        tables = {
            "speed": partial(speed, 448, (4, 8), asked.rounds),
            "memory": partial(memory, 672),
            "deviation": partial(deviation, (4, 8, 16), (112, 224)),
        }
    wanted = asked.tables.split(",")
    if not set(wanted) <= {"speed", "memory", "deviation"}:
        parser.error(f"--tables {asked.tables}: choose from speed, memory and deviation")
    if not PARITY.is_file():
        del tables["deviation"]
    for name in (name for name in tables if name in wanted):
        text = "\n".join(tables[name]())
        print(text, flush=True)
        if asked.out:
            write_between(asked.out, name, text)


if __name__ == "__main__":
    main()
