"""What a model runs on: engine, device and precision, chosen by what this machine has, and said in one line."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from crispdepth.export import Sizes, converted
from crispdepth.extras import late
from crispdepth.graphs import SUFFIXES, Graph, enlargement
from crispdepth.models.catalog import DEFAULT_WITHOUT_LOW, load
from crispdepth.models.ensemble import plus
from crispdepth.types import Depth, InputError, Local, Model, Size

ENGINES = {"torch": "torch", "compile": "torch", "onnx": "onnxruntime", "openvino": "openvino"}  # our word: the package
PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "float16": torch.float16}
# what a model says of itself, if it does
TOLD = ("inputs", "kind", "bytes_per_pixel", "wants_clean", "leaves_relief", "class_names", "for_focal", "focal_for")
HALVED = ("Crisp", "Ctkt")  # classes for which 16 bits were measured; `auto` gives the others float32


@dataclass(frozen=True)
class Machine:
    """What decides. ``cuda``: so many GPUs that torch can use; ``mps``: Apple's; ``bf16``: AMX or AVX512-BF16."""

    cuda: int = 0
    mps: bool = False
    bf16: bool = False

    @classmethod
    def here(cls) -> Machine:
        """This one."""
        able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return cls(
            cuda=torch.cuda.device_count() if torch.cuda.is_available() else 0,
            mps=torch.backends.mps.is_available(),
            bf16=any(able.get(word) for word in ("amx_bf16", "amx_tile", "avx512_bf16")),
        )


@dataclass(frozen=True)
class Wanted:
    """What was asked for, "auto" where it was left open: ``engine`` (ENGINES), ``device`` (torch's word: cpu, cuda,
    cuda:1, mps), ``precision`` (PRECISIONS)."""

    engine: str = "auto"
    device: str = "auto"
    precision: str = "auto"

    def __post_init__(self) -> None:
        for what, word, known in (("engine", self.engine, ENGINES), ("precision", self.precision, PRECISIONS)):
            if word not in ("auto", *known):
                raise InputError.unknown(what, word, ["auto", *known])
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device):
            raise InputError.unknown("device", self.device, ["auto", "cpu", "cuda", "cuda:1", "mps"])


@dataclass(frozen=True)
class Choice:
    """What was taken, and ``why``."""

    engine: str
    device: str
    precision: str
    why: str

    def __str__(self) -> str:
        return f"{self.engine}, {self.device}, {self.precision}: {self.why}"


def lines_of(name: str, choice: Choice) -> list[str]:
    """What to say of the model called ``name`` and what it runs on."""
    lines = [f"model    {name}", f"engine   {choice}"]
    if name == DEFAULT_WITHOUT_LOW:
        lines.append(
            "note     it has seen made-up rooms alone, no photo: docs/rgb-only.md names what is better at photos"
        )
    return lines


def choose(wanted: Wanted, model: Model, machine: Machine) -> Choice:
    """The engine for ``model``. Raises InputError for what this machine, or the engine, cannot do.

    Torch unless another engine is asked for (compiling takes minutes, and else none was faster where it was measured,
    docs/engines.md), on CUDA, then MPS (never float64 there), then the CPU: bf16 where it multiplies such matrices
    itself, else float32.
    """
    name = type(model.single).__name__
    graph = wanted.engine in ("onnx", "openvino")
    if graph and wanted.device not in ("auto", "cpu"):
        raise InputError(f"--engine {wanted.engine} runs on the cpu here: leave --device out, or take --engine torch")
    if graph and wanted.precision not in ("auto", "float32"):
        raise InputError(f"--engine {wanted.engine} runs in float32: 8 bits by `crispdepth export --int8`")
    for device, there in (("cuda", machine.cuda), ("mps", machine.mps)):
        if wanted.device.partition(":")[0] == device and not there:
            raise InputError(f"torch finds no {device} device here: leave --device out")
    if wanted.device.startswith("cuda:") and int(wanted.device[5:]) >= machine.cuda:
        last = f"cuda:{machine.cuda - 1}"
        raise InputError(f"torch finds no {wanted.device} here, the last is {last}: take that, or leave --device out")
    if graph:
        return Choice(wanted.engine, "cpu", "float32", "as asked for")
    weights = any(True for _ in model.parameters())
    if not weights:
        return Choice("torch", "cpu", "float32", "a filter without weights")
    device = wanted.device
    if device == "auto":
        device = "cuda" if machine.cuda else "mps" if machine.mps else "cpu"
    precision, why = wanted.precision, "as asked for"
    if precision == "auto":
        precision, why = _precision(device, name, machine)
    return Choice("compile" if wanted.engine == "compile" else "torch", device, precision, why)


def _precision(device: str, name: str, machine: Machine) -> tuple[str, str]:
    if name not in HALVED:
        return "float32", "16 bits were not measured for this model"
    if device.startswith("cuda"):
        return "float16", "mixed precision on the GPU"
    if device == "cpu" and machine.bf16:
        return "bf16", "this CPU multiplies bf16 matrices itself"
    return "float32", "no 16-bit units in this CPU" if device == "cpu" else "mixed precision was not measured there"


def opened(name: str, wanted: Wanted = Wanted(), machine: Machine | None = None) -> tuple[Model, Choice]:
    """The model called ``name``, ready to run, and what it runs on.

    What ONNX Runtime and OpenVINO say is checked when their files are made: as torch, to 1e-4 of the depth's range.
    """
    if Path(name).suffix in SUFFIXES:
        engine = "onnx" if name.endswith(".onnx") else "openvino"
        if wanted.engine not in ("auto", engine):
            raise InputError(f"{name} is a file for --engine {engine}: leave --engine out")
        choose(Wanted(engine, wanted.device, wanted.precision), Model(), machine or Machine.here())
        return load(name), Choice(engine, "cpu", "as the file has it", "an exported file")
    model = load(name)
    choice = choose(wanted, model, machine or Machine.here())
    return prepared(model, choice), choice


def prepared(model: Model, choice: Choice) -> Model:
    """``model`` as ``choice`` says; tensors on the CPU in and out, whatever it runs on."""
    if model.single is not model:
        return plus(prepared(model.single, choice))
    if choice.engine == "compile":
        model = Compiled(model)
    elif choice.engine != "torch":
        late(ENGINES[choice.engine])
        return Converted(model, choice.engine)
    if choice.device == "cpu" and choice.precision == "float32":
        return model
    return OnDevice(model, choice.device, PRECISIONS[choice.precision])


class Compiled(Model):
    """A model compiled by torch for each size when it first comes; its run raises InputError where that fails.

    A size of its own is faster than any size, and all that compiles. It takes about a minute and a C++ compiler. Parts
    of huge maps (``local``) run as they are: they would be compiled anew for each map.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        vars(self).update(_told(model))
        self.model = model
        self._run = _compiling(torch.compile(model.forward, dynamic=False))
        for name in ("estimate", "depth_and_classes"):
            if hasattr(model, name):
                vars(self)[name] = _compiling(torch.compile(getattr(model, name), dynamic=False))
        if hasattr(model, "local"):
            self.local = model.local

    def forward(self, **parts: Any) -> Depth:
        """As the model's own."""
        depth: Depth = self._run(**parts)
        return depth

    @cached_property
    def in_levels(self) -> Model | None:
        """The model that is told of levels, compiled, too."""
        told = self.model.in_levels
        return None if told is None else Compiled(told)


def _compiling(call: Callable[..., Any]) -> Callable[..., Any]:
    def run(*parts: Any, **named: Any) -> Any:
        try:
            return call(*parts, **named)
        except RuntimeError as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            why = " ".join(str(error).split())[:200]
            raise InputError(f"torch could not compile this model here: take --engine torch ({why})") from error

    return run


class Converted(Model):
    """A model run by ONNX Runtime or OpenVINO: exported and checked here, once for each range of enlargements (or each
    size of picture) that one file serves, when it is first needed."""

    def __init__(self, model: Model, engine: str) -> None:
        super().__init__()
        vars(self).update(_told(model))
        self.model, self.engine, self.suffix = model, engine, ".onnx" if engine == "onnx" else ".xml"
        self.graphs: list[Graph] = []
        if hasattr(model, "estimate"):
            self.estimate = self._both
        if not hasattr(model, "served") and not model.one_size:
            self._made(None, None)

    def forward(self, **parts: Any) -> Depth:
        """As the model's own."""
        depth: Depth = self._graph(parts).forward(**parts)
        return depth

    @cached_property
    def in_levels(self) -> Model | None:
        """The model that is told of levels, converted, too; once, with its files."""
        told = self.model.in_levels
        return None if told is None else Converted(told, self.engine)

    def prepare(self, low: Size, size: Size) -> None:
        """Make now the file for maps of ``low`` pixels enlarged to ``size``, unless it serves these sizes alone."""
        if not self.model.one_size:
            self._graph({"low": torch.empty(low, device="meta"), "size": size})

    def _both(self, **parts: Any) -> tuple[Depth, ...]:
        made: tuple[Depth, ...] = self._graph(parts).estimate(**parts)
        return made

    def _graph(self, parts: dict[str, Any]) -> Graph:
        for graph in self.graphs:
            if graph.serves(parts):
                return graph
        if not self.model.one_size:
            return self._made(enlargement(parts) if hasattr(self.model, "served") else None, None)
        sizes = (tuple(parts[name].shape[-2:]) for name in ("rgb", "low" if "low" in parts else "rgb"))
        return self._made(enlargement(parts), Sizes(*sizes))

    def _made(self, scale: float | None, sizes: Sizes | None) -> Graph:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"model{self.suffix}"
            converted(self.model, path, scale, sizes=sizes)
            self.graphs.append(Graph(path))
        return self.graphs[-1]


class OnDevice(Model):
    """A model on a GPU, in float32 or with convolutions and products in 16 bits (autocast: depth stays float32)."""

    def __init__(self, model: Model, device: str, dtype: torch.dtype) -> None:
        super().__init__()
        vars(self).update(_told(model))
        self.model, self.device, self.dtype = model.to(device), torch.device(device), dtype
        for name in ("estimate", "depth_and_classes"):
            if hasattr(model, name):
                vars(self)[name] = partial(self._run, getattr(model, name))
        if hasattr(model, "local"):
            self.local = self._local

    def forward(self, **parts: Any) -> Depth:
        """As the model's own."""
        depth: Depth = self._run(self.model, **parts)
        return depth

    @cached_property
    def in_levels(self) -> Model | None:
        """The model that is told of levels, on the same device."""
        told = self.model.in_levels
        return None if told is None else OnDevice(told, str(self.device), self.dtype)

    def _local(self, *parts: torch.Tensor | None) -> Local:
        work: Local = self._run(self.model.local, *parts)  # type: ignore[arg-type]
        return replace(work, run=partial(self._run, work.run))

    def _run(self, call: Callable[..., Any], *parts: Any, **named: Any) -> Any:
        there = {name: _moved(x, self.device) for name, x in named.items()}
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            made = call(*(_moved(x, self.device) for x in parts), **there)
        return _moved(made, torch.device("cpu"), torch.float32)


def _told(model: Model) -> dict[str, Any]:
    """What a model says of itself, for one that runs it elsewhere."""
    return {name: getattr(model, name) for name in TOLD if hasattr(model, name)}


def _moved(x: Any, device: torch.device, dtype: torch.dtype | None = None) -> Any:
    """Tensors, and those in tuples, on ``device``, floating-point ones as ``dtype``; all else as it is."""
    if isinstance(x, tuple):
        return tuple(_moved(part, device, dtype) for part in x)
    if not isinstance(x, torch.Tensor):
        return x
    return x.to(device, dtype if x.is_floating_point() else None)
