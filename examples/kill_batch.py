"""`crispdepth batch` killed with kill -9 at random moments, against a run nobody disturbed: the same files?

Makes N small frames (some of them broken), runs the command once undisturbed and watches its memory; then runs it
again and again, each time killed at a random moment, until it ends by itself; then, with --ray, on a Ray cluster of
two workers on this machine, one of which is killed. Compares all bytes of all files.

    python examples/kill_batch.py --items 2000 --kills 10 --ray -o docs/scale.md
    python examples/kill_batch.py --items 5000 --kills 0 --model crisp-tiny --plot docs/batch-memory.svg
    python examples/kill_batch.py --quick
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from crispdepth.bench.report import write_between
from crispdepth.job import Settings
from crispdepth.scale.bulk import run_bulk
from crispdepth.scale.session import Bulk, Done

SIZE, SCALE = (120, 160), 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--model", default="bicubic")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ray", action="store_true", help="also on Ray, a worker killed in the middle")
    parser.add_argument("--plot", type=Path, help="draw the memory of the undisturbed run into this .svg")
    parser.add_argument("-o", "--out", type=Path, help="a page with <!-- killed --> marks, for what happened")
    parser.add_argument("--quick", action="store_true", help="few frames, one kill")
    words = parser.parse_args()
    told: list[str] = []

    def tell(line: str) -> None:
        print(line, flush=True)
        told.append(f"- {line}")

    items, kills = (48, 1) if words.quick else (words.items, words.kills)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bad = make_frames(folder / "frames", items)
        shape = f"{SIZE[1]}x{SIZE[0]}, low maps {SCALE} times smaller"
        tell(f"{words.model}: {items} frames of {shape}; {bad} of them broken")
        command = batch_command(folder / "frames", words.model)
        seconds, memory = undisturbed([*command, str(folder / "whole")])
        expected = digests(folder / "whole")
        tell(f"undisturbed: {seconds:.1f} s with the start, {len(expected)} files; {steadiness(memory)}")
        if words.plot:
            words.plot.write_text(plot(memory, items), encoding="utf-8")
        if kills:
            moments = disturbed([*command, str(folder / "killed")], kills, seconds, random.Random(words.seed))
            same = sameness(digests(folder / "killed"), expected)
            tell(f"kill -9 at {', '.join(moments) or 'no'} results; then to the end: {same}")
        if words.ray:
            what = on_ray(folder / "frames", folder / "ray", words.model)
            tell(f"on Ray, {what}: {sameness(digests(folder / 'ray'), expected)}")
    if words.out:
        write_between(words.out, "killed", "\n".join(told))


def make_frames(folder: Path, count: int) -> int:
    """Smooth random depth in millimetres and a picture that follows it; every 97th is broken. How many are."""
    dice = np.random.default_rng(0)
    rows, columns = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    for kind in ("low", "rgb"):
        (folder / kind).mkdir(parents=True)
    bad = 0
    for number in range(count):
        tilt, far = dice.uniform(-4, 4, 2), dice.uniform(1000, 5000)
        edge = columns > dice.integers(20, SIZE[1] - 20)
        depth = np.clip(far + tilt[0] * rows + tilt[1] * columns + 800 * edge, 1, 65535)
        rgb = np.repeat((60 + 120 * edge[..., None] + dice.integers(0, 20, (*SIZE, 1))).astype(np.uint8), 3, 2)
        Image.fromarray(rgb).save(folder / "rgb" / f"{number:06d}.png")
        low = folder / "low" / f"{number:06d}.png"
        Image.fromarray(depth[SCALE // 2 :: SCALE, SCALE // 2 :: SCALE].astype(np.uint16)).save(low)
        if number % 97 == 96:
            low.write_bytes(low.read_bytes()[:40])
            bad += 1
    return bad


def batch_command(source: Path, model: str) -> list[str]:
    return [sys.executable, "-m", "crispdepth.cli", "batch", "--unit", "mm", "--model", model, str(source)]


def undisturbed(command: list[str]) -> tuple[float, list[tuple[int, float]]]:
    """Seconds, and the process's memory as (results written by then, MB)."""
    start, target, memory = time.monotonic(), Path(command[-1]), []
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        count, used = results(target), resident_mb(process.pid)
        if count and used:
            memory.append((count, used))
        time.sleep(0.1)
    if process.returncode not in (0, 1):  # 1: some were broken, as they should be
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return time.monotonic() - start, memory


def disturbed(command: list[str], kills: int, seconds: float, dice: random.Random) -> list[str]:
    """Kill it ``kills`` times, each at a random moment of a share of its time, then let it end."""
    told: list[str] = []
    share = 1.5 * (seconds - start_seconds()) / (kills + 1)
    while len(told) < kills:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(dice.uniform(0.3 * share, share) + start_seconds())
            break  # it was done before we came
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            told.append(str(results(Path(command[-1]))))
    undisturbed(command)
    return told


def start_seconds(found: list[float] = []) -> float:  # noqa: B006 - remembered on purpose
    """What Python and torch take before the first item, measured once."""
    if not found:
        start = time.monotonic()
        subprocess.run([sys.executable, "-c", "import crispdepth"], check=True)
        found.append(time.monotonic() - start)
    return found[0]


def on_ray(source: Path, target: Path, model: str) -> str:
    """The same job on two Ray workers; the one that reports the first third's end is killed. What happened."""
    from crispdepth.scale.ray_job import OnRay  # noqa: PLC0415 - Ray takes seconds to import

    killed: list[str] = []
    workers: set[int] = set()

    def kill_one(behind: int, total: int, done: Done | None) -> None:
        if done is None:
            return
        workers.add(done.process)
        if not killed and behind >= total / 3:
            os.kill(done.process, signal.SIGKILL)
            killed.append(f"worker {done.process} killed at {behind} of {total}")

    start = time.monotonic()
    bulk = Bulk(str(source), str(target), model, Settings(unit="mm"))
    run_bulk(bulk, OnRay("local", workers=2, cpus=0.5), kill_one)
    return f"{killed[0]}, {len(workers)} processes took part, {time.monotonic() - start:.1f} s with the start"


def results(target: Path) -> int:
    return sum(1 for _ in (target / "depth").glob("*.png")) if target.is_dir() else 0


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def sameness(found: dict[str, str], expected: dict[str, str]) -> str:
    """That they are the same, in words. Raises SystemExit where they are not."""
    if found != expected:
        wrong = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        raise SystemExit(f"NOT the same: {', '.join(wrong[:5])} … ({len(wrong)} files)")
    return f"the same {len(found)} files, byte for byte"


def resident_mb(process: int) -> float:
    """Memory of a process (VmRSS); 0 where this system does not tell."""
    status = Path(f"/proc/{process}/status")
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return 0
    return next((float(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0)


def steadiness(memory: list[tuple[int, float]]) -> str:
    """The median memory in the second and in the last quarter of the items."""
    if len(memory) < 8:
        return "too short to judge its memory"
    last = memory[-1][0]
    parts = [[mb for count, mb in memory if a * last <= count <= b * last] for a, b in ((0.25, 0.5), (0.75, 1))]
    middles = [float(np.median(part)) if part else float("nan") for part in parts]
    return f"memory {middles[0]:.0f} MB in the second quarter, {middles[1]:.0f} MB in the last"


def plot(memory: list[tuple[int, float]], items: int) -> str:
    """Memory over items, as SVG, from zero up."""
    width, height, pad = 640, 240, 48
    top = 1.2 * max(mb for _, mb in memory)
    dots = [
        (pad + (width - 2 * pad) * count / items, height - pad - (height - 2 * pad) * mb / top) for count, mb in memory
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in dots)
    texts = [
        (pad, height - 16, "start", "0"),
        (width - pad, height - 16, "end", f"{items} frames"),
        (pad - 6, height - pad, "end", "0"),
        (pad - 6, dots[-1][1], "end", f"{memory[-1][1]:.0f}"),
        (pad, 24, "start", "crispdepth batch: resident memory, MB"),
    ]
    labels = "".join(f'<text x="{x}" y="{y:.0f}" text-anchor="{a}">{text}</text>' for x, y, a, text in texts)
    axes = f"M{pad},{pad} V{height - pad} H{width - pad}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
        f' font-size="12"><rect width="100%" height="100%" fill="white"/><path d="{axes}" fill="none" stroke="#888"/>'
        f'<polyline points="{line}" fill="none" stroke="#06c" stroke-width="1.5"/>{labels}</svg>\n'
    )


if __name__ == "__main__":
    main()
