"""export: a network as ONNX or OpenVINO IR, of any size, checked against torch; int8 with its cost stated."""

from __future__ import annotations

import inspect
import shutil
import tempfile
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn

from crispdepth.atomic import atomic, check_output
from crispdepth.data.scenes import scenes
from crispdepth.degradation import downsample
from crispdepth.graphs import SUFFIXES, Graph, needed
from crispdepth.inference import estimated
from crispdepth.metrics import rmse
from crispdepth.types import InputError, Model, Sample, Size

OPSET = 18
AGREE = 1e-4  # largest difference from torch that is accepted, as a share of the depth's range
ODD: tuple[tuple[int, Size, float, float], ...] = (  # batch, size, enlargement, share of holes
    (1, (47, 61), 8, 0.3),
    (2, (96, 70), 3.3, 0.0),
    (1, (33, 90), 16, 0.8),
    (3, (29, 31), 1, 0.1),
)
CONVOLUTIONS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData")
KEPT = 3  # last convolutions that stay in float beside everything that is no convolution
CALIBRATION, HELD_BACK = range(1000, 1012), range(2000, 2008)  # seeds of scenes
SCENE: Size = (240, 320)
WORST = 1.1  # int8 may cost so many times the RMSE


def export(model: Model, path: Path, scale: float | None = None, int8: bool = False) -> list[str]:
    """Write ``model`` to ``path``: .onnx, or OpenVINO's .xml with a .bin beside it. Returns lines to show a person.

    Batch, heights and widths stay free. ``scale``: the enlargement, for models that go another way for each
    (``Ctkt``); the file then says which it serves. ``int8`` (.xml): convolutions in 8 bits but the last ones;
    calibrated on made-up scenes.

    The file is run at odd sizes beside torch first; where it differs by more than AGREE (int8: where RMSE on
    held-back scenes grows more than WORST times), InputError is raised and nothing is written. It is also raised
    for a filter without weights and where a package is missing.
    """
    check_output(path, [], SUFFIXES)
    if int8 and path.suffix != ".xml":
        raise InputError(f"--int8 writes OpenVINO's files: call it {path.with_suffix('.xml').name}")
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / f"model{path.suffix}"
        line = converted(model, made, scale, int8)
        graph = Graph(made)
        files = sorted(made.parent.glob("model.*"))
        with ExitStack() as stack:
            for file in files:
                shutil.copyfile(file, stack.enter_context(atomic(path.with_suffix(file.suffix))))
        size = sum(file.stat().st_size for file in files) / 1e6
    free = "any size" if graph.scales[0] == 0 else f"any size, {graph.scales[0]:.3g} to {graph.scales[1]:.3g} times"
    return [f"inputs   {', '.join(_words(model))}; {free}", line, f"wrote    {path} ({size:.1f} MB)"]


def converted(model: Model, path: Path, scale: float | None = None, int8: bool = False) -> str:
    """``model`` as a file at ``path``, in a folder of its own; checked. Returns a line on how far it differs."""
    onnx_path = path.with_suffix(".onnx")
    ov = needed("openvino", "openvino") if path.suffix == ".xml" else None
    if int8:
        needed("nncf", "int8")
    to_onnx(model, onnx_path, scale or 8)
    if ov is not None:
        graph = ov.Core().read_model(str(onnx_path))
        for key, value in _about(model, scale or 8).items():
            graph.set_rt_info(value, [key])
        ov.save_model(graph, str(path), compress_to_fp16=False)
        onnx_path.unlink()
    worst = deviation(model, Graph(path), scale)
    if not worst <= AGREE:
        raise InputError(
            f"the file differs from torch by {worst:.1e} of the depth's range, {AGREE:g} is accepted: nothing was "
            "written; please report the model and its config"
        )
    line = f"check    differs from torch by {worst:.1e} of the depth's range at most ({len(ODD)} odd sizes)"
    return _quantised(model, path, scale or 8) if int8 else line


def to_onnx(model: Model, path: Path, scale: float) -> None:
    """``model`` traced, as ONNX at ``path``, unchecked.

    By torch's older, tracing exporter: it keeps every size free. The newer one (torch.export) was tried with crisp:
    it decides by symbolic inequalities between sizes, and took minutes instead of seconds.
    """
    onnx = needed("onnx", "onnx")
    if not any(True for _ in model.parameters()):
        raise InputError("this is a filter without weights: only networks can be exported (crisp, or your own weights)")
    names, words = list(inspect.signature(model.forward).parameters), _words(model)
    sample, size = _sample(model, 1, (61, 75), scale, 0.3, seed=0)
    parts = {"low": sample.low, "valid": sample.valid, "rgb": sample.rgb, "size": torch.tensor(size)}
    outputs = ["depth", "error"] if hasattr(model, "estimate") else ["depth"]
    axes = {name: {0: "batch", 2: f"{word}_height", 3: f"{word}_width"} for name, word in words.items() if word}
    axes |= {name: {0: "batch", 2: "height", 3: "width"} for name in outputs}
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # deprecated; and a line for every branch, which the check covers
        try:
            torch.onnx.export(
                _Positional(model, names),
                tuple(parts[name] for name in names),
                str(path),
                dynamo=False,
                input_names=names,
                output_names=outputs,
                dynamic_axes=axes,
                opset_version=OPSET,
            )
        except (
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:  # an operation that no graph has, a size it cannot follow
            what = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(f"{type(model).__name__} cannot be exported, use --engine torch ({what})") from error
    graph = onnx.load(str(path))
    onnx.helper.set_model_props(graph, _about(model, scale))
    onnx.checker.check_model(graph)
    onnx.save(graph, str(path))


class _Positional(nn.Module):
    """A model whose inputs come in order, ``size`` as a tensor of two numbers."""

    def __init__(self, model: Model, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names
        self.eval()

    def forward(self, *parts: torch.Tensor) -> Any:
        given: dict[str, Any] = dict(zip(self.names, parts, strict=True))
        if "size" in given:
            given["size"] = (given["size"][0], given["size"][1])
        return getattr(self.model, "estimate", self.model.forward)(**given)


def _words(model: Model) -> dict[str, str]:
    """The inputs, each with the word that names its height and width ("": it has none)."""
    words = {"low": "low", "valid": "low", "rgb": "rgb", "size": ""}
    return {name: words[name] for name in inspect.signature(model.forward).parameters}


def _about(model: Model, scale: float) -> dict[str, str]:
    """What is written into the file: kind, and the least and largest enlargement it is right for."""
    served = getattr(model, "served", None)
    least, most = (0.0, float("inf")) if served is None else served(scale)
    return {"kind": model.kind, "scales": f"{least}..{most}"}


def _sample(model: Model, batch: int, size: Size, scale: float, holes: float, seed: int) -> tuple[Sample, Size]:
    """Random maps; ``size`` to go with them."""
    dice = torch.Generator().manual_seed(seed)
    low_size = (max(1, round(size[0] / scale)), max(1, round(size[1] / scale)))
    low = torch.rand(batch, 1, *low_size, generator=dice) + 1
    valid = torch.rand(batch, 1, *low_size, generator=dice) >= holes
    return Sample(rgb=torch.rand(batch, 3, *size, generator=dice), low=low, valid=valid), size


def deviation(model: Model, graph: Model, scale: float | None = None) -> float:
    """The largest difference between two models' outputs at odd sizes, as a share of the first one's range of depth."""
    worst = 0.0
    for seed, (batch, size, any_scale, holes) in enumerate(ODD):
        sample, _ = _sample(model, batch, size, _served(model, scale, any_scale), holes, seed)
        expected = estimated(model, sample, size)
        span = float(expected[0].max() - expected[0].min()) or 1.0
        for _ in range(2):  # a size that comes again may be compiled for
            for a, b in zip(expected, estimated(graph, sample, size), strict=True):
                if a is not None and b is not None:
                    off = float((a - b).abs().max()) / span if a.shape == b.shape else float("inf")
                    worst = max(worst, off if off == off else float("inf"))
    return worst


def _served(model: Model, scale: float | None, any_scale: float) -> float:
    return any_scale if not hasattr(model, "served") else scale or 8


def _quantised(model: Model, path: Path, scale: float) -> str:
    """The .xml at ``path`` in 8 bits, in its own place. Returns a line with what it costs."""
    nncf, ov = needed("nncf", "int8"), needed("openvino", "openvino")
    graph = ov.Core().read_model(str(path))
    names = [node.any_name for node in graph.inputs]
    nodes = graph.get_ordered_ops()
    last = [node.get_friendly_name() for node in nodes if node.get_type_name() in CONVOLUTIONS][-KEPT:]
    other = sorted({node.get_type_name() for node in nodes} - {*CONVOLUTIONS, "Parameter", "Result", "Constant"})
    scales = [_served(model, scale, s) for s in (scale, 4, 16)]
    examples = []
    for number, seed in enumerate(CALIBRATION):
        sample = _scene(seed, scales[number % len(scales)])
        parts = {"low": sample.low, "valid": sample.valid, "rgb": sample.rgb, "size": torch.tensor(SCENE)}
        examples.append({name: parts[name] for name in names})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = nncf.quantize(
            graph,
            nncf.Dataset([{k: x.numpy() for k, x in parts.items() if x is not None} for parts in examples]),
            subset_size=len(examples),
            ignored_scope=nncf.IgnoredScope(names=last, types=other, validate=False),
        )
    for key, value in _about(model, scale).items():
        made.set_rt_info(value, [key])
    beside = path.with_name("int8.xml")  # the file read still holds its weights
    ov.save_model(made, str(beside), compress_to_fp16=False)
    for suffix in (".xml", ".bin"):
        beside.with_suffix(suffix).replace(path.with_suffix(suffix))
    before, after = (_rmse(each, scale) for each in (model, Graph(path)))
    line = (
        f"int8     RMSE {100 * before:.2f} -> {100 * after:.2f} cm, {after / before - 1:+.1%}, "
        f"on {len(HELD_BACK)} scenes x{scale:g} of {SCENE[1]}x{SCENE[0]}; {_count8(nodes)} convolutions in 8 bits"
    )
    if not after <= WORST * before:
        raise InputError(f"{' '.join(line.split())}: more than {WORST:g} times is too much, nothing was written")
    return line


def _count8(nodes: list[Any]) -> int:
    return max(0, sum(node.get_type_name() in CONVOLUTIONS for node in nodes) - KEPT)


def _scene(seed: int, scale: float) -> Sample:
    scene = scenes(1, *SCENE, seed=seed)
    assert scene.depth is not None
    low, valid = downsample(scene.depth, torch.ones_like(scene.depth, dtype=torch.bool), scale)
    return Sample(rgb=scene.rgb, low=low, valid=valid, depth=scene.depth)


def _rmse(model: Model, scale: float) -> float:
    """Mean over held-back scenes, metres."""
    total = 0.0
    for seed in HELD_BACK:
        sample = _scene(seed, scale)
        assert sample.depth is not None
        depth, _ = estimated(model, sample)
        total += float(rmse(depth, sample.depth, torch.ones_like(sample.depth, dtype=torch.bool)).mean())
    return total / len(HELD_BACK)
