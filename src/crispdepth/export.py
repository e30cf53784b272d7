"""export: a network as ONNX or OpenVINO IR, of any size, checked against torch; int8 with its cost stated."""

from __future__ import annotations

import inspect
import logging
import shutil
import tempfile
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from crispdepth.atomic import atomic, check_output
from crispdepth.careful import estimated
from crispdepth.data.scenes import scenes
from crispdepth.degradation import check_scale, downsample
from crispdepth.extras import late
from crispdepth.geometry import LearntCamera
from crispdepth.graphs import SUFFIXES, Graph, core
from crispdepth.metrics import rmse
from crispdepth.models.ensemble import SelfEnsemble
from crispdepth.types import InputError, Model, Sample, Size

OPSET = 18
AGREE = 1e-4  # largest difference from torch that is accepted, as a share of the depth's range
BY_ITSELF = (
    "note     elsewhere OpenVINO computes in bf16 where it can, farther off: {'INFERENCE_PRECISION_HINT': 'f32'} "
    "in compile_model makes it exact"
)
ODD: tuple[tuple[int, Size, float, float], ...] = (  # batch, size, enlargement, share of holes
    (1, (47, 61), 8, 0.3),
    (2, (96, 70), 3.3, 0.0),
    (1, (33, 90), 16, 0.8),
    (3, (29, 31), 1, 0.1),
)
CONVOLUTIONS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData")
TALKATIVE = ("torch.onnx._internal.exporter._registration", "onnxscript.optimizer._constant_folding")  # of no matter
KEPT = 3  # last convolutions that stay in float beside everything that is no convolution
CALIBRATION, HELD_BACK = range(1000, 1012), range(2000, 2008)  # seeds of scenes
SCENE: Size = (240, 320)
WORST = 1.1  # int8 may cost so many times the RMSE


class Sizes(NamedTuple):
    """What a file for one picture is for: the size of the picture, and that of the low map."""

    picture: Size
    low: Size


def export(
    model: Model, path: Path, scale: float | None = None, int8: bool = False, size: Size | None = None
) -> list[str]:
    """Write ``model`` to ``path``: .onnx, or OpenVINO's .xml with a .bin beside it. Returns lines to show a person.

    Batch, heights and widths stay free. ``scale`` (8): the enlargement, for models that go another way for each
    (``Crisp``, ``Ctkt``); the file says which it serves. ``int8`` (.xml): convolutions in 8 bits but the last ones;
    calibrated on made-up scenes. ``size``: a file for one picture of (H, W) from a low map ``scale`` (8) times smaller:
    the only one that ``Naima`` and ``Symbiotic`` can have, and what some devices want of all.

    The file is run at odd sizes, or at ``size``, beside torch first; where it differs by more than AGREE (int8: where
    RMSE on held-back scenes grows more than WORST times), InputError is raised and nothing is written. It is also
    raised for a filter without weights and where a package is missing.
    """
    check_output(path, [], SUFFIXES)
    if isinstance(model, Graph):
        raise InputError("this is an exported file already: name the model or the weights that it was made from")
    if isinstance(model, SelfEnsemble):
        raise InputError("a name with + is a network run on eight views: export the network, leave the + out")
    if int8 and path.suffix != ".xml":
        raise InputError(f"--int8 writes OpenVINO's files: call it {path.with_suffix('.xml').name}")
    if scale is not None:
        check_scale(scale)
    if int8 and size is not None:
        raise InputError("--int8 is calibrated at several sizes: leave --size out")
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / f"model{path.suffix}"
        line = converted(model, made, scale, int8, None if size is None else _sizes(size, scale or 8))
        graph = Graph(made)
        files = sorted(made.parent.glob("model.*"))
        with ExitStack() as stack:
            for file in files:
                shutil.copyfile(file, stack.enter_context(atomic(path.with_suffix(file.suffix))))
        megabytes = sum(file.stat().st_size for file in files) / 1e6
    free = "any size" if graph.scales[1] == float("inf") else f"any size, {graph.enlarges}"
    if size is not None:
        free = ", ".join(f"{name} {width}x{height}" for name, (height, width) in graph.shapes.items())
    notes = [] if path.suffix == ".onnx" else [BY_ITSELF]
    inputs = [name for name in _words(model) if size is None or name != "size"]  # of one size, none is asked for
    return [f"inputs   {', '.join(inputs)}; {free}", line, f"wrote    {path} ({megabytes:.1f} MB)", *notes]


def converted(
    model: Model, path: Path, scale: float | None = None, int8: bool = False, sizes: Sizes | None = None
) -> str:
    """``model`` as a file at ``path``, in a folder of its own; checked. Returns a line on how far it differs."""
    onnx_path = path.with_suffix(".onnx")
    ov = late("openvino") if path.suffix == ".xml" else None
    if int8:
        late("nncf")
    to_onnx(model, onnx_path, scale or 8, sizes)
    if ov is not None:
        graph = core().read_model(str(onnx_path))
        for key, value in _about(model, scale or 8, sizes).items():
            graph.set_rt_info(value, [key])
        ov.save_model(graph, str(path), compress_to_fp16=False)
        onnx_path.unlink()
    worst = deviation(model, Graph(path), scale, sizes)
    if not worst <= AGREE:
        raise InputError(
            f"the file differs from torch by {worst:.1e} of the depth's range, {AGREE:g} is accepted: nothing was "
            "written; please report the model and its config"
        )
    where = f"{len(ODD)} odd sizes" if sizes is None else "with holes and without"
    line = f"check    differs from torch by {worst:.1e} of the depth's range at most ({where})"
    return _quantised(model, path, scale or 8) if int8 else line


def to_onnx(model: Model, path: Path, scale: float, sizes: Sizes | None = None) -> None:
    """``model`` as ONNX at ``path``, unchecked.

    Traced by torch's older exporter, which keeps every size free. The newer one (torch.export) was tried with crisp:
    it decides by symbolic inequalities between sizes, and took minutes instead of seconds. It serves where ``sizes``
    are settled: every branch on them is taken as torch takes it.
    """
    onnx = late("onnx")
    if not any(True for _ in model.parameters()):
        raise InputError("this is a filter without weights: only networks can be exported (crisp, or your own weights)")
    if sizes is None and model.one_size:
        raise InputError(f"a file of {type(model).__name__} holds one size of picture: say which by --size 640x480")
    words = _words(model)
    names = [name for name in words if sizes is None or name != "size"]
    sample = _sample(1, sizes or _sizes((61, 75), scale), 0.3, seed=0)
    parts: dict[str, Any] = {"low": sample.low, "valid": sample.valid, "rgb": sample.rgb}
    parts["size"] = torch.tensor((61, 75))
    outputs = ["depth", "error"] if hasattr(model, "estimate") else ["depth"]
    axes = {name: {0: "batch", 2: f"{word}_height", 3: f"{word}_width"} for name, word in words.items() if word}
    axes |= {name: {0: "batch", 2: "height", 3: "width"} for name in outputs}
    free: dict[str, Any] = {"dynamo": True, "verbose": False, "external_data": False}
    if sizes is None:
        free = {"dynamo": False, "dynamic_axes": axes}
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # deprecated; and a line for every branch, which the check covers
        try:
            torch.onnx.export(
                _Positional(model, names, sizes.picture if sizes else None),
                tuple(parts[name] for name in names),
                str(path),
                input_names=names,
                output_names=outputs,
                opset_version=OPSET,
                **free,
            )
        except (
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:  # an operation that no graph has, a size it cannot follow
            what = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(f"{type(model).__name__} cannot be exported, use --engine torch ({what})") from error
    graph = onnx.load(str(path))
    onnx.helper.set_model_props(graph, _about(model, scale, sizes))
    onnx.checker.check_model(graph)
    onnx.save(graph, str(path))


class _Positional(nn.Module):
    """A model whose inputs come in order, ``size`` as a tensor of two numbers unless it is settled."""

    def __init__(self, model: Model, names: list[str], size: Size | None) -> None:
        super().__init__()
        self.model, self.names, self.size = model, names, size
        self.eval()

    def forward(self, *parts: torch.Tensor) -> Any:
        given: dict[str, Any] = dict(zip(self.names, parts, strict=True))
        if "size" in given:
            given["size"] = (given["size"][0], given["size"][1])
        elif "size" in _words(self.model):
            given["size"] = self.size
        return getattr(self.model, "estimate", self.model.forward)(**given)


def _words(model: Model) -> dict[str, str]:
    """The inputs, each with the word that names its height and width ("": it has none)."""
    words = {"low": "low", "valid": "low", "rgb": "rgb", "size": ""}
    return {name: words[name] for name in inspect.signature(model.forward).parameters}


def _about(model: Model, scale: float, sizes: Sizes | None = None) -> dict[str, str]:
    """What is written into the file: kind, the least and largest enlargement it is right for, the memory that a pixel
    takes, whether it wants a clean low map and leaves relief out, the camera it learnt with, and its only sizes."""
    served = getattr(model, "served", None)
    least, most = (0.0, float("inf")) if served is None else served(scale)
    about = {"kind": model.kind, "scales": f"{least}..{most}", "bytes_per_pixel": str(model.bytes_per_pixel)}
    if model.wants_clean:
        about["wants"] = "clean"
    if model.leaves_relief:
        about["leaves"] = "relief"
    if isinstance(camera := getattr(model, "own_camera", None), LearntCamera):
        about["camera"] = f"{camera.focal_px} {camera.side}"
    if sizes is not None:
        about["size"] = f"{sizes.picture[0]}x{sizes.picture[1]}"
    return about


def _sizes(picture: Size, scale: float) -> Sizes:
    return Sizes(picture, (max(1, round(picture[0] / scale)), max(1, round(picture[1] / scale))))


def _sample(batch: int, sizes: Sizes, holes: float, seed: int) -> Sample:
    """Random maps."""
    dice = torch.Generator().manual_seed(seed)
    low = torch.rand(batch, 1, *sizes.low, generator=dice) + 1
    valid = torch.rand(batch, 1, *sizes.low, generator=dice) >= holes
    return Sample(rgb=torch.rand(batch, 3, *sizes.picture, generator=dice), low=low, valid=valid)


def deviation(model: Model, graph: Model, scale: float | None = None, sizes: Sizes | None = None) -> float:
    """The largest difference between two models' outputs at odd sizes, or at ``sizes``, as a share of the first one's
    range of depth."""
    tried = [(batch, _sizes(size, _served(model, scale, any_scale)), holes) for batch, size, any_scale, holes in ODD]
    if sizes is not None:
        tried = [(1, sizes, holes) for holes in (0.0, 0.5)]
    worst = 0.0
    for seed, (batch, at, holes) in enumerate(tried):
        sample, size = _sample(batch, at, holes, seed), at.picture
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
    nncf, ov = late("nncf"), late("openvino")
    nncf.set_log_level(logging.ERROR)  # else a line for every operation that stays as it was
    graph = core().read_model(str(path))
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
    before, after = (held_back_rmse(each, scale) for each in (model, Graph(path)))
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


def held_back_rmse(model: Model, scale: float) -> float:
    """Mean over scenes that nothing was calibrated on, metres."""
    total = 0.0
    for seed in HELD_BACK:
        sample = _scene(seed, scale)
        assert sample.depth is not None
        depth, _ = estimated(model, sample)
        total += float(rmse(depth, sample.depth, torch.ones_like(sample.depth, dtype=torch.bool)).mean())
    return total / len(HELD_BACK)
