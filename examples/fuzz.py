"""Damaged files given to every reader: nothing but an InputError may come out, quickly, in little memory.

    python examples/fuzz.py [--inputs 200000] [--seconds 100] [--seed 0] [--quick] [--page docs/sensors.md]

Small good files of every kind are mutated (bytes changed, cut, doubled, moved, mixed with one another) and read. What
counts as a fault: any other exception, over LONGEST_S for one file, over MOST_BYTES more memory than before, or the
death of the process that reads. The file at fault is kept and named; the exit status is 1. Ends after so many inputs
or seconds, whichever is first. --page: what came of it, into that page, too.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from crispdepth import convert, io
from crispdepth.bench.report import write_between
from crispdepth.data.hypersim import distances
from crispdepth.data.nyu import mat_samples
from crispdepth.intrinsics import read_extrinsics, read_intrinsics, read_stereo
from crispdepth.models import saved
from crispdepth.models.crisp import TINY_CONFIG, Crisp
from crispdepth.models.naima import released_scale
from crispdepth.recordings import recording
from crispdepth.scale.plan import find
from crispdepth.types import InputError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from heif_files import heic

LONGEST_S, MOST_BYTES = 2.0, 2**30
DEAD_S = 20.0  # without a sign of life the reading process is stopped
UNITS = ("mm", "sunrgbd", "relative", "disparity", "m", None)


def samples(folder: Path) -> None:
    """One small file of every format and kind that some reader takes."""
    depth = np.linspace(0.5, 4, 15 * 17, dtype=np.float32).reshape(15, 17)
    depth[0, :2] = 0
    for name in ("a.png", "a.tif", "a.exr", "a.pfm", "a.npy", "a.npz"):
        io.write_depth(folder / name, depth)
    colour = np.random.default_rng(0).integers(0, 255, (15, 17, 3), np.uint8)
    for name in ("c.png", "c.jpg", "c.webp", "c.bmp", "c.tif"):
        Image.fromarray(colour).save(folder / name)
    for name in ("d.png", "d.tif"):
        cv2.imwrite(str(folder / name), colour.astype(np.uint16) * 257)
    for kind in (0, 1, 2):
        (folder / f"e{kind}.heic").write_bytes(heic(np.tile(colour, (5, 5, 1)), colour[:, :, 0], kind, (0.5, 4.0)))
    Image.fromarray(colour[:, :, 0] % 3).save(folder / "level.png")
    Image.fromarray(colour).convert("P").save(folder / "label.png")
    camera = {"fx": 50.0, "fy": 51.0, "cx": 8.0, "cy": 7.0, "width": 17, "height": 15}
    (folder / "k.json").write_text(json.dumps(camera))
    (folder / "k.yaml").write_text("".join(f"{key}: {value}\n" for key, value in camera.items()))
    (folder / "k.pincam").write_text("17 15 50 51 8 7\n")
    (folder / "calib.txt").write_text(
        "cam0=[50 0 8; 0 51 7; 0 0 1]\ncam1=[50 0 9; 0 51 7; 0 0 1]\ndoffs=1\nbaseline=100\nwidth=17\nheight=15\n"
    )
    (folder / "move.txt").write_text("1 0 0 0.1\n0 1 0 0\n0 0 1 0\n")
    (folder / "move.json").write_text(json.dumps({"R": np.eye(3).tolist(), "t": [0.1, 0, 0]}))
    (folder / "associations.txt").write_text("1.0 rgb/c.png 1.1 depth/a.png\n2.0 rgb/d.png 2.1 depth/b.png\n")
    with h5py.File(folder / "nyu.mat", "w") as file:
        file["images"], file["depths"] = colour.transpose(2, 1, 0)[None], depth.T[None]
    with h5py.File(folder / "view.hdf5", "w") as file:
        file.create_dataset("dataset", data=depth, chunks=(5, 17), compression="gzip")
    rows = [{"low": f"low/{i}.png", "rgb": f"rgb/{i}.jpg", "name": f"n{i}"} for i in range(3)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "list.parquet")
    with tarfile.open(folder / "shard.tar", "w") as tar:
        for name in ("a.png", "c.jpg"):
            tar.add(folder / name, f"0.{'low' if name == 'a.png' else 'rgb'}{Path(name).suffix}")
    Crisp(TINY_CONFIG).save(folder / "w.safetensors")
    weights = {"module.bridge1.upBlock.conv_1.0.weight": torch.randn(3, 3, 6, 6), "module.n": torch.ones(5)}
    for zipped in (True, False):
        torch.save({"model": weights}, folder / f"zipped_{zipped}.pth", _use_new_zipfile_serialization=zipped)


def readers(path: Path, dice: random.Random) -> list[Callable[[], Any]]:
    """Who reads a file of that name."""
    suffix = path.suffix
    if suffix == ".safetensors":
        return [lambda: saved.read(path, "Crisp", lambda fields: Crisp(type(TINY_CONFIG)(**fields)))]
    if suffix == ".pth":
        return [lambda: released_scale(convert.read(path))]
    if suffix == ".mat":
        return [lambda: [read() for read in mat_samples(path).values()]]
    if suffix == ".hdf5":
        return [lambda: distances(path), lambda: io.read_depth(path)]
    if suffix in (".parquet", ".tar"):
        return [lambda: list(find(str(path)))]
    if suffix in (".json", ".yaml", ".pincam", ".txt"):
        camera = [lambda: read_intrinsics(str(path)), lambda: read_extrinsics(str(path))]
        return [*camera, lambda: read_stereo(str(path)), lambda: recording(path)] if suffix == ".txt" else camera
    unit = dice.choice(UNITS)
    both = [lambda: io.read_depth(path, unit, nan_holes=dice.random() < 0.5), lambda: io.read_rgb(path)]
    return [*both, lambda: io.read_confidence(path), lambda: io.read_label(path)] if suffix == ".png" else both


def mutated(good: bytes, other: bytes, dice: random.Random) -> bytes:
    """``good`` with one to six things done to it; most near its beginning, where headers are."""
    data = bytearray(good)
    for _ in range(dice.choice((1, 1, 1, 2, 3, 6))):
        if not data:
            break
        at = dice.randrange(min(len(data), dice.choice((16, 64, 300, len(data)))))
        kind = dice.randrange(8)
        if kind < 3:
            data[at] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
        elif kind == 3:
            data[at] ^= 1 << dice.randrange(8)
        elif kind == 4:
            number = dice.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 65536, dice.randrange(2**32)))
            data[at : at + 4] = number.to_bytes(4, dice.choice(("little", "big")))
        elif kind == 5:
            del data[at : at + dice.choice((1, 4, 100, len(data)))]
        elif kind == 6:
            data[at:at] = data[at : at + dice.choice((1, 8, 64))]
        else:
            start = dice.randrange(len(other))
            data[at : at + 16] = other[start : start + 16]
    return bytes(data)


def work(folder: Path, inputs: int, seconds: float, seed: int, count: Synchronized, faults: Any) -> None:
    """Mutate and read, in a process of its own; ``count`` goes up with each input."""
    dice, end = random.Random(seed), time.monotonic() + seconds
    files = [(path.name, path.read_bytes()) for path in sorted((folder / "good").iterdir())]
    small = [f for f in files if len(f[1]) < 20_000]
    base = _peak()
    while count.value < inputs and time.monotonic() < end:
        name, content = dice.choice(small if dice.random() < 0.8 else files)
        victim = folder / f"victim{Path(name).suffix}"
        victim.write_bytes(mutated(content, dice.choice(small)[1], dice))
        for read in readers(victim, dice):
            start, why = time.monotonic(), ""
            try:
                read()
            except InputError as error:
                why = "its message has two lines" if "\n" in str(error) else ""
            except Exception as error:
                why = f"{type(error).__name__}: {error}"[:200]
            taken = time.monotonic() - start
            why = why or (f"took {taken:.1f} s" if taken > LONGEST_S else "")
            if _peak() - base > MOST_BYTES:
                why, base = why or "took over 1 GB", _peak()
            if why:
                kept = folder / f"fault{count.value}{victim.suffix}"
                shutil.copy(victim, kept)
                faults.append(f"{kept} (from {name}): {why}")
        victim.unlink()
        count.value += 1


def _peak() -> int:
    """The most memory this process has held, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--inputs", type=int, default=200_000)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--page", type=Path, help="put the line between its marks in this page")
    asked = parser.parse_args()
    if asked.quick:
        asked.inputs, asked.seconds = 400, 5
    folder = Path(tempfile.mkdtemp(prefix="crispdepth-fuzz-"))
    (folder / "good").mkdir()
    samples(folder / "good")
    kinds = sorted({path.suffix for path in (folder / "good").iterdir()})
    context: Any = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    start = time.monotonic()
    with multiprocessing.Manager() as manager:
        faults, count = manager.list(), context.Value("q", 0)
        process = context.Process(target=work, args=(folder, asked.inputs, asked.seconds, asked.seed, count, faults))
        process.start()
        before, since = -1, time.monotonic()
        while process.is_alive():
            process.join(0.2)
            if count.value != before:
                before, since = count.value, time.monotonic()
            elif time.monotonic() - since > DEAD_S:
                process.kill()
                process.join()
        found = list(faults)
    if process.exitcode != 0:
        victim = next(iter(folder.glob("victim*")), folder)
        found.append(f"{victim}: the reading process ended with {process.exitcode}")
    print(line := f"{count.value:,} inputs in {time.monotonic() - start:.0f} s, seed {asked.seed}: {len(found)} faults")
    if asked.page is not None:
        write_between(asked.page, "fuzz", f"{line} (damaged {' '.join(kinds)}).")
    for line in found[:20]:
        print(line)
    if not found:
        shutil.rmtree(folder)
    return 1 if found else 0


if __name__ == "__main__" and main():
    sys.exit(1)
