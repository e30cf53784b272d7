"""CATALOG: every model by name, what it needs, its licence; load."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from crispdepth.models import classical, saved
from crispdepth.models.crisp import Crisp
from crispdepth.models.ctkt import Ctkt
from crispdepth.types import InputError, Model

DEFAULT = "crisp"
DEFAULT_WITHOUT_RGB = "bicubic"
WEIGHTS = Path(__file__).resolve().parents[1] / "weights"  # inside the package, a card (.md) beside each file


@dataclass(frozen=True)
class Entry:
    """One row of CATALOG. ``inputs`` and ``kind`` are the class's own words; ``source`` is the paper."""

    build: Callable[[], Model]
    task: str
    source: str
    licence: str = "Apache-2.0"


def load(name: str) -> Model:
    """The model called ``name``, or the one saved at the path ``name`` (.safetensors), in evaluation mode.

    Raises InputError offering the nearest name, and for a file that holds no model of ours.
    """
    if name.endswith(".safetensors"):
        return _saved(Path(name)).eval()
    if name not in CATALOG:
        raise InputError.unknown("model", name, CATALOG)
    return CATALOG[name].build().eval()


def _saved(path: Path) -> Model:
    if not path.is_file():
        raise InputError(f"{path} does not exist: name a file of weights, or a model of `crispdepth names`")
    kind = saved.header(path)[0].get("model", "")
    if kind not in SAVED:
        raise InputError(f"{path} does not say which model it holds: it must be one that crispdepth saved")
    return SAVED[kind](path)


def _late(module: str, name: str, *words: object) -> Any:
    """``crispdepth.models.MODULE``'s NAME called with ``words``: for models whose import takes seconds."""
    owner: Any = importlib.import_module(f"crispdepth.models.{module}")
    for part in name.split("."):
        owner = getattr(owner, part)
    return owner(*words)


SAVED: dict[str, Callable[[Path], Model]] = {  # by the word in the file's header
    "crisp": Crisp.from_file,
    "ctkt": Ctkt.from_file,
    "naima": partial(_late, "naima", "Naima.from_file"),
}

CATALOG: dict[str, Entry] = {
    "crisp": Entry(
        build=partial(Crisp.from_file, WEIGHTS / "crisp.safetensors"),
        task="RGB + low depth: the default",
        source="crispdepth's own network, trained on made-up scenes only (crispdepth train crisp)",
    ),
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
