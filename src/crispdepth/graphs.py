"""Exported files (.onnx, OpenVINO's .xml) as models: run by ONNX Runtime or OpenVINO, tensors in and out."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crispdepth.extras import late
from crispdepth.geometry import LearntCamera
from crispdepth.types import Depth, InputError, Model, Size

SUFFIXES = (".onnx", ".xml")
COMPANIONS = ("valid", "size")  # inputs that a model's ``inputs`` do not list
KEPT = 4  # sizes that stay compiled
Run = Callable[[dict[str, np.ndarray]], list[np.ndarray]]
Opened = tuple[Run, dict[str, list[Any]], int, dict[str, str]]  # inputs with their shapes, outputs, what the file says


class Graph(Model):
    """The file at ``path`` as a model: ``forward``, and ``estimate`` where it has a second output.

    Runs in float32 (int8 where the file says so), with as many threads as torch has. One call at a time.
    Raises InputError where the engine is not installed, or the file is none that ``crispdepth export`` wrote.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        if not path.is_file():
            raise InputError(f"{path} does not exist: make it with `crispdepth export NAME -o {path.name}`")
        opened = _onnx if path.suffix == ".onnx" else _openvino
        self._run, shapes, outputs, about = opened(path)
        self._names = list(shapes)
        if not {"kind", "scales"} <= about.keys():
            raise InputError(f"{path} was not written by `crispdepth export`: its inputs are unknown")
        vars(self).update(inputs=tuple(n for n in self._names if n not in COMPANIONS), kind=about["kind"])
        vars(self).update(wants_clean=about.get("wants") == "clean")  # unsaid in older files, as is the next
        vars(self).update(leaves_relief=about.get("leaves") == "relief")
        vars(self).update(bytes_per_pixel=int(about.get("bytes_per_pixel", self.bytes_per_pixel)))
        self.scales = tuple(float(word) for word in about["scales"].split(".."))
        if "camera" in about:  # unsaid in older files, too
            focal_px, side = about["camera"].split()
            camera = LearntCamera(float(focal_px), int(side))
            vars(self).update(for_focal=camera.for_focal, focal_for=camera.focal_for)
        self.shapes: dict[str, Size] = {}  # (H, W) of its inputs, where it is for one size of picture
        if "size" in about:
            height, width = map(int, about["size"].split("x"))
            self.shapes = {name: (int(shape[-2]), int(shape[-1])) for name, shape in shapes.items()}
            self.shapes["size"] = (height, width)
        if outputs > 1:
            self.estimate = self._both

    def forward(self, **parts: Any) -> Depth:
        """What the model's own ``forward`` takes, by name, to depth (b, 1, H, W)."""
        return self._both(**parts)[0]

    def _both(self, **parts: Any) -> tuple[Depth, ...]:
        if refusal := self._refusal(parts):
            raise InputError(refusal)
        given = {name: np.ascontiguousarray(_array(parts[name])) for name in self._names}
        if not self.shapes:
            return tuple(torch.from_numpy(x) for x in self._run(given))
        count = max(len(x) for x in given.values() if x.ndim == 4)  # a file for one size holds one picture
        each = [self._run({n: x[i : i + 1] if x.ndim == 4 else x for n, x in given.items()}) for i in range(count)]
        return tuple(torch.from_numpy(np.concatenate(outputs)) for outputs in zip(*each, strict=True))

    @property
    def enlarges(self) -> str:
        """How many times, in words."""
        least, most = self.scales
        return f"{least:.3g} to {most:.3g} times" if least > 0.01 else f"up to {most:.3g} times"

    def serves(self, parts: dict[str, Any]) -> bool:
        """Whether the file is right for these inputs."""
        return self._refusal(parts) is None

    def _refusal(self, parts: dict[str, Any]) -> str | None:
        for name, (height, width) in self.shapes.items():
            if name not in parts:
                continue
            h, w = parts[name] if name == "size" else parts[name].shape[-2:]
            if (int(h), int(w)) != (height, width):
                what = "a result" if name == "size" else name
                return f"this file is for {what} of {width}x{height} pixels, not {w}x{h}: export another with --size"
        scale = enlargement(parts)
        if scale is not None and not self.scales[0] <= scale <= self.scales[1]:
            return f"this file enlarges {self.enlarges}, not {scale:.3g} times: export another with --scale {scale:.3g}"
        return None


def enlargement(parts: dict[str, Any]) -> float | None:
    """How many times a model's inputs ask it to enlarge, the mean of both axes; None without a low map."""
    if "low" not in parts:
        return None
    size = parts["size"] if "size" in parts else parts["rgb"].shape[-2:]
    return math.sqrt(size[0] / parts["low"].shape[-2] * size[1] / parts["low"].shape[-1])


def _array(part: Any) -> np.ndarray:
    return part.detach().cpu().numpy() if isinstance(part, torch.Tensor) else np.asarray(part, dtype=np.int64)


def _onnx(path: Path) -> Opened:
    ort = late("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own kinds share no class but this
        raise InputError(f"{path} is no ONNX file that ONNX Runtime can run ({error})") from error
    about = session.get_modelmeta().custom_metadata_map
    shapes = {node.name: node.shape for node in session.get_inputs()}
    return lambda given: session.run(None, given), shapes, len(session.get_outputs()), about


@cache
def core() -> Any:
    """OpenVINO's ``Core``, one for the whole process and to its end.

    Each has a stack for signals of its own, and gives it back as it goes. With several, the one in use may be gone, and
    the next signal (a child that ends, as every data-loading worker does) kills the process.
    """
    return late("openvino").Core()


def _openvino(path: Path) -> Opened:
    ov = late("openvino")
    try:
        runner = _OpenVino(ov, core().read_model(str(path)))
    except RuntimeError as error:
        raise InputError(f"{path} is no file that OpenVINO can run ({error})") from error
    model = runner.model
    words = ("kind", "scales", "size", "wants", "leaves", "bytes_per_pixel")
    about = {key: model.get_rt_info([key]).astype(str) for key in words if model.has_rt_info([key])}
    shapes = {
        node.any_name: [d.get_length() if d.is_static else 0 for d in node.partial_shape] for node in model.inputs
    }
    return runner, shapes, len(model.outputs), about


class _OpenVino:
    """A model compiled for any size; and, as this takes a second, for sizes that come again, at nearly twice the speed.

    The last KEPT of these stay compiled.
    """

    def __init__(self, ov: Any, model: Any) -> None:
        self.ov, self.model = ov, model
        self.settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        self.any_size = self._compiled(model)
        self.seen: dict[tuple[Any, ...], Any] = {}  # None: once

    def __call__(self, given: dict[str, np.ndarray]) -> list[np.ndarray]:
        key = tuple(tuple(x) if name == "size" else x.shape for name, x in given.items())
        request = self.any_size
        if key in self.seen and self.model.is_dynamic():
            request = self.seen.pop(key) or self._compiled(self._at(given))
        self.seen[key] = request if request is not self.any_size else None
        if len(self.seen) > KEPT:
            del self.seen[next(iter(self.seen))]
        names = {node.any_name for node in request.model_inputs}
        request.infer({name: x for name, x in given.items() if name in names})
        return [request.get_output_tensor(i).data.copy() for i in range(len(self.model.outputs))]

    def _at(self, given: dict[str, np.ndarray]) -> Any:
        """The model for these shapes, and for this ``size``, which becomes a constant."""
        fixed = self.model.clone()
        for node in [p for p in fixed.get_parameters() if p.output(0).any_name == "size"]:
            node.output(0).replace(self.ov.opset13.constant(given["size"]).output(0))
            fixed.remove_parameter(node)
        fixed.reshape({node.any_name: list(given[node.any_name].shape) for node in fixed.inputs})
        return fixed

    def _compiled(self, model: Any) -> Any:
        return core().compile_model(model, "CPU", self.settings).create_infer_request()
