"""CATALOG: every model by name, what it needs, its licence; load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from crispdepth.models import classical
from crispdepth.types import InputError, Model

DEFAULT = "fgs"  # the best of the classical filters on held-back scenes, see docs/numbers.md
DEFAULT_WITHOUT_RGB = "bicubic"


@dataclass(frozen=True)
class Entry:
    """One row of CATALOG. ``inputs`` and ``kind`` are the class's own words; ``source`` is the paper."""

    build: Callable[[], Model]
    task: str
    source: str
    licence: str = "Apache-2.0"


def load(name: str) -> Model:
    """The model called ``name``, in evaluation mode. Raises InputError offering the nearest name."""
    if name not in CATALOG:
        raise InputError.unknown("model", name, CATALOG)
    return CATALOG[name].build().eval()


CATALOG: dict[str, Entry] = {
    "bicubic": Entry(
        build=classical.Bicubic,
        task="low depth alone: smooth enlargement",
        source="Keys, Cubic convolution interpolation, IEEE TASSP 1981",
    ),
    "joint-bilateral": Entry(
        build=classical.JointBilateral,
        task="RGB + low depth",
        source="Kopf et al., Joint bilateral upsampling, SIGGRAPH 2007",
    ),
    "guided": Entry(
        build=classical.Guided,
        task="RGB + low depth",
        source="He, Sun and Tang, Guided image filtering, ECCV 2010",
    ),
    "fgs": Entry(
        build=classical.Fgs,
        task="RGB + low depth",
        source="Min et al., Fast global image smoothing, IEEE TIP 2014",
    ),
}
