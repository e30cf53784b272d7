"""CATALOG: every model by name, what it needs, its licence; load."""

from __future__ import annotations

import difflib
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
    """The model called ``name``, in evaluation mode. Raises InputError offering the nearest names."""
    return entry(name).build().eval()


def entry(name: str) -> Entry:
    """The row of CATALOG called ``name``. Raises InputError offering the nearest names."""
    if name not in CATALOG:
        near = difflib.get_close_matches(name, CATALOG, n=2, cutoff=0.3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise InputError(f"no model {name!r}{hint} Known: {', '.join(CATALOG)}")
    return CATALOG[name]


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
