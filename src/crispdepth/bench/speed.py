"""Time and memory of models side by side, interleaved, in units of one convolution; of one model by every engine."""

from __future__ import annotations

import multiprocessing
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

try:
    import resource
except ModuleNotFoundError:  # Windows
    resource = None  # type: ignore[assignment]

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from crispdepth.careful import sharpened
from crispdepth.data.scenes import scenes
from crispdepth.degradation import check_scale, downsample
from crispdepth.engines import Choice, Compiled, Machine, Wanted, choose, prepared
from crispdepth.export import AGREE, Sizes, converted, held_back_rmse
from crispdepth.graphs import Graph
from crispdepth.inference import predict
from crispdepth.io import write_depth, write_rgb
from crispdepth.memory import keep_freed
from crispdepth.models.catalog import load
from crispdepth.types import InputError, Model, Sample, Size

SIZES: tuple[Size, ...] = ((480, 640), (1920, 1440))  # a sensor's frame, a phone's picture held upright
ROUNDS = 7
GRAPHS = {"ONNX Runtime": (".onnx", False), "OpenVINO": (".xml", False), "OpenVINO int8": (".xml", True)}


def measure(
    names: list[str],
    size: Size,
    scale: float = 8,
    rounds: int = ROUNDS,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Milliseconds (median of ``rounds``, after one round to warm up) and peak memory of each model.

    ``unit_conv_ms``: one 3x3 convolution, 64 channels in and out, 320x240, float32, torch's own layout;
    ``unit_conv_channels_last_ms``: the same in the layout our networks use. A machine's mood changes times,
    hardly their ratio: models and units take turns. ``gflop``: what the model multiplies and adds; ``least_units``: the
    same in units, so many it would take where all of it were as fast as the unit. ``auto_ms``, ``auto_units``: in the
    ``precision`` that the command takes here by itself, where that is not float32. ``peak_mb``: the most memory (RSS)
    that a fresh process held, Python and torch included, from loading the model to the end of one map on the CPU.

    ``device``: as ``check_device`` takes it, units too; a model's time has the way of its tensors there and back in it.
    """
    keep_freed()  # as the command does: else times, the unit's too, depend on what happened to be freed before
    models = {name: _on(load(name), device) for name in names}
    jobs: dict[str, Callable[[], object]] = {"unit": _unit(False, device), "unit channels_last": _unit(True, device)}
    jobs |= {f"model {name}": _job(model, size, scale) for name, model in models.items()}
    gflop = {name: _gflop(job) for name, job in jobs.items()}
    choices = {name: choose(Wanted("torch", device), load(name), Machine.here()) for name in names}
    for name, choice in choices.items():
        if choice.precision != "float32":
            jobs[f"auto {name}"] = _job(prepared(load(name), choice), size, scale)
    ms: dict[str, list[float]] = {name: [] for name in jobs}
    with torch.inference_mode():
        for done in range(rounds + 1):
            for name, job in jobs.items():
                start = time.perf_counter()
                job()
                ms[name].append(1e3 * (time.perf_counter() - start))
            if progress:
                progress(done + 1, rounds + 1)
    middle = {name: statistics.median(values[1:]) for name, values in ms.items()}
    return {
        "size": f"{size[1]}x{size[0]}",
        "scale": scale,
        "device": device,
        "threads": torch.get_num_threads(),
        "unit_conv_ms": round(middle["unit"], 2),
        "unit_conv_channels_last_ms": round(middle["unit channels_last"], 2),
        "models": {
            name: {
                "ms": round(middle[f"model {name}"], 2),
                "units": round(middle[f"model {name}"] / middle["unit"], 2),
                "gflop": round(gflop[f"model {name}"], 2),
                "least_units": round(gflop[f"model {name}"] / gflop["unit"], 2),
                "precision": choices[name].precision,
                "auto_ms": round(middle.get(f"auto {name}", middle[f"model {name}"]), 2),
                "auto_units": round(middle.get(f"auto {name}", middle[f"model {name}"]) / middle["unit"], 2),
                "peak_mb": round(peak_mb(name, size, scale), 1),
                "parameters": sum(p.numel() for p in model.parameters()),
            }
            for name, model in models.items()
        },
    }


def check_device(device: str) -> None:
    """Raises InputError for a ``device`` (torch's word: cpu, cuda, cuda:1, mps) that is not here."""
    if device == "auto":
        raise InputError("--device auto would not say what was measured: name it, cpu, cuda or mps")
    choose(Wanted("torch", device), Model(), Machine.here())


def _on(model: Model, device: str, precision: str = "float32") -> Model:
    """``model`` there; a filter without weights stays on the CPU."""
    weights = any(True for _ in model.parameters())
    return prepared(model, Choice("torch", device, precision, "measured")) if weights else model


def _gflop(job: Callable[[], object]) -> float:
    """10^9 multiplications and additions of the convolutions and matrix products of one run."""
    with FlopCounterMode(display=False) as counter:
        job()
    return counter.get_total_flops() / 1e9


def _unit(channels_last: bool, device: str) -> Callable[[], object]:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    conv = nn.Conv2d(64, 64, 3, padding=1).to(device, memory_format=layout)  # type: ignore[call-overload]
    x = torch.rand(1, 64, 240, 320, device=device).contiguous(memory_format=layout)
    if device == "cpu":
        return lambda: conv(x)
    return lambda: (conv(x), getattr(torch, device.partition(":")[0]).synchronize())  # it works on after the call


def _job(model: Model, size: Size, scale: float) -> Callable[[], object]:
    """One run of the model on one made-up scene."""
    sample = _scene(size, scale)
    return lambda: sharpened(model, sample)


def _scene(size: Size, scale: float) -> Sample:
    check_scale(scale)
    scene = scenes(1, *size, seed=0)
    assert scene.depth is not None
    low, valid = downsample(scene.depth, torch.ones_like(scene.depth, dtype=torch.bool), scale)
    return Sample(rgb=scene.rgb, low=low, valid=valid)


def measure_engines(
    name: str,
    size: Size,
    scale: float = 8,
    rounds: int = ROUNDS,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """One model by every engine, taking turns: milliseconds (median of ``rounds``, after one to warm up), the largest
    difference from torch as a share of the depth's range, and, where that is more than rounding, what it does to the
    RMSE on held-back scenes. An engine that is not here is named with why; 16 bits are there where the CPU computes in
    bf16, and on CUDA. ``device``: where torch runs (``check_device``), the tensors' way there and back in its time; the
    other engines have the CPU.
    """
    keep_freed()  # as the command does: else times depend on what happened to be freed before
    model, sample = load(name), _scene(size, scale)
    sizes = (
        Sizes(size, (sample.low.shape[-2], sample.low.shape[-1])) if model.one_size and sample.low is not None else None
    )
    runners = {"torch": _on(load(name), device), "torch.compile": _on(_compiled(name), device)}
    half = "float16" if device.startswith("cuda") else "bf16" if device == "cpu" and Machine.here().bf16 else ""
    if half:
        runners[f"torch {half}"] = _on(load(name), device, half)
        runners[f"torch.compile {half}"] = _on(_compiled(name), device, half)
    absent = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (label, (suffix, int8)) in enumerate(GRAPHS.items()):
            path = Path(folder) / str(number) / f"model{suffix}"
            path.parent.mkdir()
            try:
                if int8 and sizes:
                    raise InputError(f"int8 is calibrated at several sizes, and a file of {name} has one")
                converted(model, path, scale, int8, sizes)
                runners[label] = Graph(path)
            except InputError as error:
                absent[label] = str(error)
        ms: dict[str, list[float]] = {label: [] for label in runners}
        made = {}
        for done in range(rounds + 1):
            for label, runner in runners.items():
                if label in absent:
                    continue
                start = time.perf_counter()
                try:
                    made[label] = sharpened(runner, sample)
                except InputError as error:  # no C++ compiler, say
                    absent[label] = str(error)
                ms[label].append(1e3 * (time.perf_counter() - start))
            if progress:
                progress(done + 1, rounds + 1)
        expected = made["torch"]
        span = float(expected.max() - expected.min())
        off = {label: float((depth - expected).abs().max()) / span for label, depth in made.items()}
        exact = held_back_rmse(model, scale)
        cost = {label: held_back_rmse(runners[label], scale) / exact - 1 for label in made if off[label] > AGREE}
    return {
        "model": name,
        "device": device,
        "size": f"{size[1]}x{size[0]}",
        "scale": scale,
        "threads": torch.get_num_threads(),
        "processor": processor(),
        "engines": {
            label: {
                "ms": round(statistics.median(ms[label][1:]), 2),
                "deviation": off[label],
                "rmse_change": cost.get(label, 0.0),
            }
            for label in made
        },
        "absent": absent,
    }


def _compiled(name: str) -> Model:
    return Compiled(load(name))


def processor() -> str:
    """What this machine calls its processor."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def device_name(device: str) -> str:
    """What to call it in a heading."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return "the CPU" if device == "cpu" else device


def engines_table(result: dict[str, Any]) -> str:
    """``measure_engines`` as a Markdown table, its conditions in the heading."""
    head = (
        f"{result['model']}, {result['size']}, x{result['scale']:g}, {result['threads']} threads, {result['processor']}"
    )
    if result["device"] != "cpu":
        head += f", torch on {device_name(result['device'])}"
    columns = ("engine", "ms", "pictures/s", "times torch", "differs by, of the range", "RMSE on scenes")
    rows = [f"**{head}**", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    eager = result["engines"]["torch"]["ms"]
    for label, figures in result["engines"].items():
        ms = figures["ms"]
        off, cost = figures["deviation"], figures["rmse_change"]
        rows.append(f"| {label} | {ms:.0f} | {1e3 / ms:.1f} | {eager / ms:.2f} | {off:.1e} | {cost:+.2%} |")
    return "\n".join([*rows, *(f"\n{label}: {why}" for label, why in result["absent"].items())])


def peak_mb(name: str, size: Size, scale: float) -> float:
    """Peak memory in megabytes (10^6) of a fresh process that loads the model and sharpens one map by ``predict``."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_here, (name, size, scale))


def _peak_here(name: str, size: Size, scale: float) -> float:
    keep_freed()  # as the command does
    model = load(name)
    small = (max(1, round(size[0] / scale)), max(1, round(size[1] / scale)))
    generator = np.random.default_rng(0)
    rgb = generator.integers(0, 255, (*size, 3), np.uint8)
    predict(model, low=generator.random(small, np.float32) + 1, rgb=rgb)
    return held_mb()


def held_mb() -> float:
    """The most memory (RSS) that this process has held, megabytes."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    if resource is None:
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if platform.system() == "Darwin" else peak * 1024 / 1e6


_COMMAND = (
    "import atexit; from crispdepth import cli; from crispdepth.bench.speed import held_mb; "
    "atexit.register(lambda: print('peak', held_mb())); cli.main()"
)


def command_peak_mb(model: str, size: Size, scale: float, out_confidence: bool = False) -> float:
    """Peak memory in megabytes (10^6) of ``crispdepth predict`` from files to a file, or to two with
    ``out_confidence``. Raises InputError as it does."""
    check_scale(scale)
    small = (max(1, round(size[0] / scale)), max(1, round(size[1] / scale)))
    generator = np.random.default_rng(0)
    rgb = generator.integers(0, 255, (size[0] // 16 + 1, size[1] // 16 + 1, 3), np.uint8)
    rgb = rgb.repeat(16, axis=0).repeat(16, axis=1)
    with tempfile.TemporaryDirectory() as folder:
        low, colours, out = (Path(folder) / name for name in ("low.npy", "rgb.jpg", "out.png"))
        write_depth(low, generator.random(small, np.float32) + 1)
        write_rgb(colours, np.ascontiguousarray(rgb[: size[0], : size[1]]))
        words = ["predict", "--model", model, "--low", str(low), "--rgb", str(colours), "-o", str(out)]
        words += ["--out-confidence", str(out.with_name("trust.png"))] if out_confidence else []
        done = subprocess.run([sys.executable, "-c", _COMMAND, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(done.stderr.strip().removeprefix("error: "))
    return float(done.stdout.split()[-1])


def table(result: dict[str, Any]) -> str:
    """One size's figures as a Markdown table, its conditions in the heading."""
    where = device_name(result["device"])
    head = (
        f"{result['size']}, x{result['scale']:g}, {result['threads']} threads, float32 on {where}; "
        f"1 unit = {result['unit_conv_ms']:g} ms"
    )
    columns = ("model", "parameters", "ms", "units", "GFLOP, least units", "as the command runs it", "peak memory, MB")
    rows = [f"**{head}**", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, x in result["models"].items():
        million = f"{x['parameters'] / 1e6:.2f} M" if x["parameters"] else "–"
        work = f"{x['gflop']:.1f}, {x['least_units']:.2f}" if x["gflop"] else "–"
        run = f"{x['auto_ms']:.0f} ms, {x['auto_units']:.2f} units ({x['precision']})"
        rows.append(f"| {name} | {million} | {x['ms']:.0f} | {x['units']:.2f} | {work} | {run} | {x['peak_mb']:.0f} |")
    return "\n".join(rows)


def as_json(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The first size's figures, and all sizes' under ``sizes``."""
    return {**results[0], "sizes": {result["size"]: result for result in results}}
