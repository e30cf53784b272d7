"""A model measured on a data set under a named protocol, image by image."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from crispdepth.bench.protocol import PROTOCOLS, Protocol
from crispdepth.data.sets import SETS, find
from crispdepth.degradation import check_scale
from crispdepth.geometry import level_step
from crispdepth.inference import predict
from crispdepth.metrics import METRICS, confusion, mean_iou
from crispdepth.models.catalog import as_model
from crispdepth.types import Classes, InputError, Model, Prediction, Sample


@dataclass(frozen=True)
class Evaluation:
    """Figures of one model on one set at one scale under one protocol: means, and every image's own."""

    model: str
    set: str
    scale: float
    protocol: str
    unit: str  # "cm" or "levels": of rmse, mad, edge_rmse (mse: its square)
    heading: str
    metrics: dict[str, float]
    images: list[dict[str, Any]]
    failed: list[str] = field(default_factory=list)  # pairs that could not be read or measured, and why

    def as_json(self) -> dict[str, Any]:
        """Plain values for ``json.dump``; a metric without a value (NaN) is None."""
        plain = asdict(self)
        plain["metrics"] = {k: _json_number(v) for k, v in self.metrics.items()}
        plain["images"] = [{k: _json_number(v) for k, v in image.items()} for image in self.images]
        return plain


def _json_number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def protocol_named(name: str) -> Protocol:
    """A row of PROTOCOLS. Raises InputError naming the nearest for an unknown one."""
    if name not in PROTOCOLS:
        raise InputError.unknown("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def evaluate(
    model: Model | str | Path,
    set_name: str,
    root: Path | str | None = None,
    scale: float = 8,
    protocol: str | None = None,
    *,
    name: str = "",
    unit: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Run ``model``, or the catalog's of that name, over every image of a set and measure it. ``name``: what the
    result calls it; by default that name, or its class.

    ``protocol``: by default ``usual_protocol``. ``root``: the set's folder (``crispdepth info SET`` tells its
    layout); ``unit``: of the files, for set ``folder`` only; ``progress(done, total)`` is called after each image. A
    pair that cannot be read is named in ``failed`` and does not stop the others. ``scale`` plays no part for models
    of a picture alone, nor where the protocol takes the sensor's own maps: theirs is told then. Raises InputError for
    unknown names, missing files, a scale below 1, a protocol that does not fit the model, and when no pair could be
    read.
    """
    name = name or (str(model) if isinstance(model, str | Path) else type(model).__name__)
    model = as_model(model)
    root = Path(root) if isinstance(root, str) else root
    check_scale(scale)
    protocol = protocol or usual_protocol(model, set_name)
    row = protocol_named(protocol)
    alone = "low" not in model.inputs
    if alone != (row.kernel == "none"):
        fitting = ", ".join(other for other, r in PROTOCOLS.items() if (r.kernel == "none") == alone)
        raise InputError(
            f"protocol {protocol} does not fit what this model takes ({', '.join(model.inputs)}): {fitting}"
        )
    readers = find(set_name, root, unit)
    map_unit = unit_of_maps(set_name, unit)
    if alone and map_unit != "m":
        raise InputError(f"{set_name} holds {map_unit}, no metres: depth from a picture alone cannot be measured on it")
    shared = [c for c in SETS[set_name].class_names if c in getattr(model, "class_names", ())]
    table = torch.zeros(len(shared) + 1, len(shared) + 1, dtype=torch.int64)
    images: list[dict[str, Any]] = []
    failed: list[str] = []
    seen: list[float] = []  # how much each image's low map is enlarged
    for done, (key, read) in enumerate(readers.items(), start=1):
        try:
            parts = [
                (_predicted(model, sample, map_unit, row.levels), sample)
                for sample in row.prepare(read(), scale, set_name, map_unit)
            ]
            images += [_measure(out, sample, row, set_name, map_unit) for out, sample in parts]
        except InputError as error:  # of a part, too: half of an image would be another mean
            failed.append(f"{key}: {error}")
            parts = []
        for out, sample in parts:
            if sample.low is not None:
                seen.append(out.depth.shape[-1] / sample.low.shape[-1])
            if shared and out.classes is not None and sample.classes is not None:
                table += _shared_confusion(out, sample.classes, SETS[set_name].class_names, shared)
        if progress:
            progress(done, len(readers))
    if not images:
        raise InputError(f"no pair of {set_name} could be measured; the first: {failed[0]}")
    means = {m: _mean([image[m] for image in images]) for m in row.metrics}
    unread = f" ({len(failed)} left out)" if failed else ""
    shown_unit = "cm" if map_unit == "m" else map_unit
    about = row.describe(set_name, shown_unit)
    if table[: len(shared)].any():
        means["miou"] = mean_iou(table, len(shared))
        about += f"; mIoU of the {len(shared)} classes that set and model both know, over all labelled pixels"
    if row.kernel_of(map_unit) == "given":  # whatever was asked for
        scale = float(f"{_mean(seen):.2g}")
    times = "" if alone else f" x{scale:g}"
    heading = f"{set_name}{times}, {len(images)} images{unread}, protocol {protocol} ({about})"
    return Evaluation(name, set_name, scale, protocol, shown_unit, heading, means, images, failed)


def usual_protocol(model: Model, set_name: str) -> str:
    """The set's own protocol; without one ``fdsr`` for models that sharpen a low map, ``rgb`` for a picture alone."""
    alone = "low" not in model.inputs
    own = (name for name, row in PROTOCOLS.items() if set_name in row.sets and (row.kernel == "none") == alone)
    return next(own, "rgb" if alone else "fdsr")


def _shared_confusion(out: Prediction, truth: Classes, names: tuple[str, ...], shared: list[str]) -> torch.Tensor:
    """``metrics.confusion`` over the classes of ``shared`` and, at the end, all others, on both sides."""
    assert out.classes is not None

    def renumbered(names: tuple[str, ...]) -> torch.Tensor:
        numbers = [shared.index(name) if name in shared else len(shared) for name in names]
        return torch.tensor(numbers + [255] * (256 - len(numbers)), dtype=torch.uint8)

    called = renumbered(out.class_names)[torch.from_numpy(out.classes).long()]
    return confusion(called[None, None], renumbered(names)[truth.long()], len(shared) + 1)


def unit_of_maps(set_name: str, unit: str | None) -> str:
    """``m`` or ``levels``: what the set's maps hold once read."""
    return SETS[set_name].unit or ("levels" if unit in ("relative", "disparity") else "m")


def _mean(values: list[float]) -> float:
    finite = [v for v in values if math.isfinite(v)]
    return sum(finite) / len(finite) if finite else math.nan


def _predicted(model: Model, sample: Sample, map_unit: str, levels: bool) -> Prediction:
    assert sample.depth is not None
    size = (sample.depth.shape[-2], sample.depth.shape[-1])
    if "low" in model.inputs:
        if sample.low is None:
            raise InputError(f"{sample.name} has no low map, which this model needs")
        unit = "m" if map_unit == "m" else "relative"
        levels = levels and model.in_levels is not None and map_unit == "levels"
        levels = levels and sample.valid is not None and bool(level_step(sample.low, sample.valid).any())
        return predict(model, low=sample.low, rgb=sample.rgb, valid=sample.valid, unit=unit, size=size, levels=levels)
    matrix = sample.intrinsics if hasattr(model, "for_focal") else None
    focal_px = None if matrix is None else float(matrix[0, 0, 0])
    return predict(model, rgb=sample.rgb, size=size, focal_px=focal_px)


def _measure(out: Prediction, sample: Sample, row: Protocol, set_name: str, map_unit: str) -> dict[str, Any]:
    assert sample.depth is not None
    assert sample.depth_valid is not None
    size = out.depth.shape
    prediction = torch.from_numpy(out.depth)[None, None]
    target, valid = sample.depth, sample.depth_valid
    if row.measure_m and map_unit == "m":
        valid = valid & (target >= row.measure_m[0]) & (target <= row.measure_m[1])
    if row.clip_output:
        low, high = row.measure_m or (float(target[valid].min()), float(target[valid].max()))
        prediction = prediction.clamp(low, high)
    b = row.border(set_name)
    if min(size) <= 2 * b:
        raise InputError(f"nothing of {size[1]}x{size[0]} pixels is left inside the border of {b}: leave it out")
    cut = (..., slice(b, size[0] - b), slice(b, size[1] - b))
    if not valid[cut].any():
        raise InputError("no true depth is left to measure under this protocol")
    per_metre = 100 if map_unit == "m" else 1  # cm
    args = (prediction[cut] * per_metre, target[cut] * per_metre, valid[cut])
    figures = {m: float(METRICS[m](*args)) for m in row.metrics}
    if map_unit == "m" and "mad_rounded" in figures:
        figures["mad_rounded"] = math.nan  # metres have no levels
    return {"name": sample.name, **figures}
