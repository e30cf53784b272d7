"""What each fault of a sensor costs each model: holes, noise, rounding, a shifted guide, other kernels, scales."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from crispdepth.careful import careful
from crispdepth.data.folder import Readers
from crispdepth.degradation import (
    KERNELS,
    add_noise,
    check_scale,
    crop_to_multiple,
    downsample,
    punch_holes,
    quantise,
)
from crispdepth.metrics import rmse
from crispdepth.models.catalog import load
from crispdepth.options import Options
from crispdepth.shift import moved
from crispdepth.types import Sample

BORDER_PX = 6  # as protocol fdsr


@dataclass(frozen=True)
class Fault:
    """One row of FAULTS: an otherwise clean low map, antialiased bicubic, with one thing wrong.

    ``holes``: share of low pixels lost, single ones at random; ``noise``: Gaussian, in shares of the low map's
    range; ``steps``: values it is rounded to; ``shift_px``: the picture moved right and down; ``scale``: enlarged so
    many times, whatever the others are (0: as they are); ``align`` as in ``predict``.
    """

    kernel: str = "bicubic"
    holes: float = 0.0
    noise: float = 0.0
    steps: int = 0
    shift_px: int = 0
    scale: float = 0
    align: str | None = None

    def sensed(self, sample: Sample, scale: float, seed: int) -> Sample:
        """``sample`` with the low map and the picture that this sensor gives."""
        assert sample.depth is not None
        assert sample.depth_valid is not None
        assert sample.rgb is not None
        generator = torch.Generator().manual_seed(seed)
        scale = self.scale or scale
        rgb, depth, seen = (crop_to_multiple(x, scale) for x in (sample.rgb, sample.depth, sample.depth_valid))
        low, valid = downsample(depth, seen, scale, self.kernel)
        span = float(low[valid].max() - low[valid].min())
        if self.noise:
            low = add_noise(low, self.noise * span, generator)
        if self.steps:
            low = quantise(low, torch.full((1, 1, 1, 1), float(self.steps)), valid)
        if self.holes:
            valid = punch_holes(valid, self.holes, generator)
        low = torch.where(valid, low, 0)
        return replace(sample, rgb=moved(rgb, (self.shift_px, self.shift_px)), depth=depth, low=low, valid=valid)


FAULTS: dict[str, Fault] = {
    "clean": Fault(),
    **{f"{share:.0%} holes": Fault(holes=share) for share in (0.1, 0.3, 0.6, 0.8, 0.95)},
    **{f"noise {share:.1%} of the range": Fault(noise=share) for share in (0.005, 0.01, 0.02, 0.05)},
    **{f"picture shifted by {px} px": Fault(shift_px=px) for px in (1, 2, 4, 8)},
    **{f"the same {px} px, --align off": Fault(shift_px=px, align="off") for px in (2, 4, 8)},
    **{f"rounded to {steps} steps": Fault(steps=steps) for steps in (255, 63)},
    **{f"low map by {kernel}": Fault(kernel=kernel) for kernel in KERNELS if kernel not in ("bicubic", "bicubic-8bit")},
    **{f"enlarged {scale:g} times": Fault(scale=scale) for scale in (2, 3.5, 4, 8, 16, 32)},
}


def measure(
    names: list[str], readers: Readers, scale: float = 8, progress: Callable[[int, int], None] | None = None
) -> dict[str, dict[str, float]]:
    """Mean of per-image RMSE of each model under each fault, in the unit of the samples."""
    check_scale(scale)
    faults = {name: fault for name, fault in FAULTS.items() if _tells(fault, scale)}
    models = {name: load(name) for name in names}
    totals = {name: dict.fromkeys(faults, 0.0) for name in names}
    for done, read in enumerate(readers.values(), start=1):
        sample = read()
        for fault_name, fault in faults.items():
            seen = fault.sensed(sample, scale, seed=done)
            for name, model in models.items():
                made = careful(model, seen, options=Options(align=fault.align))
                depth = moved(made.depth, made.corner)
                totals[name][fault_name] += _rmse(depth, sample, fault.scale or scale) / len(readers)
        if progress:
            progress(done, len(readers))
    return totals


def _tells(fault: Fault, scale: float) -> bool:
    """Whether the row says something at ``scale``: strides are whole, and the clean row has its own enlargement."""
    return fault.scale != scale and (fault.kernel != "strided" or scale == int(scale))


def _rmse(depth: torch.Tensor, sample: Sample, scale: float) -> float:
    assert sample.depth is not None
    assert sample.depth_valid is not None
    b = BORDER_PX
    parts = (depth, crop_to_multiple(sample.depth, scale), crop_to_multiple(sample.depth_valid, scale))
    return float(rmse(*(x[..., b:-b, b:-b] for x in parts)))


def table(result: dict[str, dict[str, float]], heading: str, per_unit: float, unit: str) -> str:
    """Markdown: the clean row in ``unit`` (``per_unit`` of them to one of the samples'), the others as its multiple."""
    names = list(result)
    lines = [f"**{heading}**", "", "| RMSE | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for fault in result[names[0]]:
        cells = []
        for name in names:
            value, clean = result[name][fault], result[name]["clean"]
            cells.append(f"{value * per_unit:.2f} {unit}" if fault == "clean" else f"{value / clean:.2f}")
        lines.append(f"| {fault} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def as_json(result: dict[str, dict[str, float]], heading: str) -> dict[str, Any]:
    """Plain values for ``json.dump``."""
    return {"heading": heading, "rmse": result}
