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
from crispdepth.inference import predict
from crispdepth.metrics import METRICS
from crispdepth.types import InputError, Model, Sample


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
    failed: list[str] = field(default_factory=list)  # pairs that could not be read, and why

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
    model: Model,
    set_name: str,
    root: Path | None = None,
    scale: float = 8,
    protocol: str = "fdsr",
    *,
    name: str = "",
    unit: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Run ``model`` over every image of a set and measure it.

    ``root``: the set's folder (``crispdepth info SET`` tells its layout); ``unit``: of the files, for set
    ``folder`` only; ``progress(done, total)`` is called after each image. A pair that cannot be read is named in
    ``failed`` and does not stop the others. Raises InputError for unknown names, missing files, a scale
    below 1, and when no pair could be read.
    """
    if not 1 <= scale <= 64:
        raise InputError(f"scale {scale:g} is out of range: 1 to 64")
    row = protocol_named(protocol)
    readers = find(set_name, root, unit)
    map_unit = _map_unit(set_name, unit)
    images: list[dict[str, Any]] = []
    failed: list[str] = []
    for done, (key, read) in enumerate(readers.items(), start=1):
        try:
            for sample in row.prepare(read(), scale, set_name, map_unit):
                images.append(_measure(model, sample, row, set_name, map_unit))
        except InputError as error:
            failed.append(f"{key}: {error}")
        if progress:
            progress(done, len(readers))
    if not images:
        raise InputError(f"no pair of {set_name} could be measured; the first: {failed[0]}")
    means = {m: _mean([image[m] for image in images]) for m in METRICS}
    unread = f" ({len(failed)} could not be read)" if failed else ""
    shown_unit = "cm" if map_unit == "m" else map_unit
    described = f"protocol {protocol} ({row.describe(set_name, shown_unit)})"
    heading = f"{set_name} x{scale:g}, {len(images)} images{unread}, {described}"
    return Evaluation(name, set_name, scale, protocol, shown_unit, heading, means, images, failed)


def _map_unit(set_name: str, unit: str | None) -> str:
    """``m`` or ``levels``: what the set's maps hold once read."""
    return SETS[set_name].unit or ("levels" if unit in ("relative", "disparity") else "m")


def _mean(values: list[float]) -> float:
    finite = [v for v in values if math.isfinite(v)]
    return sum(finite) / len(finite) if finite else math.nan


def _measure(model: Model, sample: Sample, row: Protocol, set_name: str, map_unit: str) -> dict[str, Any]:
    assert sample.depth is not None
    assert sample.depth_valid is not None
    size = (sample.depth.shape[-2], sample.depth.shape[-1])
    unit = "m" if map_unit == "m" else "relative"
    out = predict(model, low=sample.low, rgb=sample.rgb, valid=sample.valid, unit=unit, size=size)
    prediction = torch.from_numpy(out.depth)[None, None]
    target, valid = sample.depth, sample.depth_valid
    if row.clip_output:
        prediction = prediction.clamp(float(target[valid].min()), float(target[valid].max()))
    if row.measure_m and map_unit == "m":
        valid = valid & (target >= row.measure_m[0]) & (target <= row.measure_m[1])
    b = row.border(set_name)
    cut = (..., slice(b, size[0] - b), slice(b, size[1] - b))
    per_metre = 100 if map_unit == "m" else 1  # cm
    args = (prediction[cut] * per_metre, target[cut] * per_metre, valid[cut])
    return {"name": sample.name, **{m: float(f(*args)) for m, f in METRICS.items()}}
