"""CATALOG: every model by name, what it needs, its licence; load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from crispdepth.extras import late
from crispdepth.graphs import SUFFIXES, Graph
from crispdepth.models import classical, saved
from crispdepth.models.crisp import Crisp
from crispdepth.models.ctkt import Ctkt
from crispdepth.models.ensemble import plus
from crispdepth.models.foundation import DepthAnything, PromptDepthAnything
from crispdepth.models.symbiotic import Symbiotic
from crispdepth.types import InputError, MissingPackage, Model

DEFAULT = "crisp"
DEFAULT_WITHOUT_RGB = "ctkt"
DEFAULT_WITHOUT_LOW = "symbiotic-small"
PLUS = "+"  # after a name: the mean of eight views
SHORT = {"symbiotic": "symbiotic-small"}  # names of systems whose weights in the package are of another size
WEIGHTS = Path(__file__).resolve().parents[1] / "weights"  # inside the package, a card (.md) beside each file


@dataclass(frozen=True)
class Entry:
    """One row of CATALOG. ``source`` is the paper; ``inputs`` what the class says of itself, known without loading.

    ``hub``: the weights' name on the Hugging Face hub, from where they are fetched at first use.
    """

    build: Callable[[], Model]
    task: str
    source: str
    licence: str = "Apache-2.0"
    inputs: tuple[str, ...] = ("low", "rgb")
    hub: str = ""


def load(name: str) -> Model:
    """The model called ``name``, in evaluation mode: a row of CATALOG, a file (.safetensors, or one that
    ``crispdepth export`` wrote), or ``hf:owner/name``.

    A + after any of these asks for the mean of eight views (SelfEnsemble): ``ctkt+``, ``mine.safetensors+``.
    Raises InputError offering the nearest name, and for a file that holds no model of ours.
    """
    if name.endswith(PLUS):
        return plus(load(name.removesuffix(PLUS))).eval()
    name = SHORT.get(name, name)
    if name.startswith("hf:"):
        return _saved(_late("hub", "fetched", name)).eval()
    if name.endswith(".safetensors"):
        return _saved(Path(name)).eval()
    if name.endswith(SUFFIXES):
        return Graph(Path(name)).eval()
    if Path(name).suffix in (".pth", ".pt", ".ckpt", ".bin"):
        raise InputError(f"{name} is no .safetensors file: `crispdepth convert` turns an authors' checkpoint into one")
    if name not in CATALOG and Path(name).is_file():
        raise InputError(f"{name} holds no weights: give a .safetensors of ours, or a name of `crispdepth names`")
    if name not in CATALOG:
        raise InputError.unknown("model", name, CATALOG)
    return CATALOG[name].build().eval()


def as_model(model: Model | str | Path) -> Model:
    """``model``, loaded where it is a name or a path. Raises InputError for what is neither that nor a Model."""
    if isinstance(model, str | Path):
        return load(str(model))
    if not isinstance(model, Model) or not hasattr(model, "inputs"):
        raise InputError(
            f"{type(model).__name__} is no model: pass a name, a file of weights or a crispdepth.types.Model that says "
            "its inputs (docs/add-a-model.md)"
        )
    return model


def default(low: bool, rgb: bool) -> str:
    """The model for what is given: a low map, a picture, or both."""
    if not low:
        return DEFAULT_WITHOUT_LOW
    return DEFAULT if rgb else DEFAULT_WITHOUT_RGB


def sharpeners() -> list[str]:
    """The models that sharpen a low map with nothing to fetch: what benchmarks of such maps measure."""
    return [name for name, row in CATALOG.items() if "low" in row.inputs and not row.hub]


def at_hand(names: list[str]) -> tuple[list[str], list[str]]:
    """Those of ``names`` whose libraries are installed, and for each other one a line that says what to install."""
    found, missing = [], []
    for name in names:
        try:
            load(name)
        except MissingPackage as error:
            missing.append(f"{name} is left out: {error}")
        else:
            found.append(name)
    return found, missing


def _saved(path: Path) -> Model:
    if not path.is_file():
        raise InputError(f"{path} does not exist: name a file of weights, or a model of `crispdepth names`")
    kind = saved.header(path)[0].get("model", "")
    if kind not in SAVED:
        raise InputError(f"{path} does not say which model it holds: it must be one that crispdepth saved")
    return SAVED[kind](path)


def _late(module: str, name: str, *words: object) -> Any:
    """``crispdepth.MODULE``'s NAME called with ``words``: for what takes seconds to import, or may be missing."""
    owner: Any = late(f"crispdepth.{module}")
    for part in name.split("."):
        owner = getattr(owner, part)
    return owner(*words)


SAVED: dict[str, Callable[[Path], Model]] = {  # by the word in the file's header
    "crisp": Crisp.from_file,
    "ctkt": Ctkt.from_file,
    "naima": partial(_late, "models.naima", "Naima.from_file"),
    "symbiotic": Symbiotic.from_file,
}


def _depth_anything(scene: str, size: str) -> Entry:
    hub = f"depth-anything/Depth-Anything-V2-Metric-{scene.title()}-{size.title()}-hf"
    return Entry(
        build=partial(DepthAnything, hub),
        task=f"RGB alone, {scene}: Depth Anything V2, {size}",
        source="Yang et al., Depth Anything V2, NeurIPS 2024",
        licence=_DEPTH_ANYTHING[size],
        inputs=("rgb",),
        hub=hub,
    )


def _prompt_depth_anything(size: str) -> Entry:
    hub = f"depth-anything/prompt-depth-anything-vit{size[0]}-hf"
    return Entry(
        build=partial(PromptDepthAnything, hub),
        task=f"RGB + low depth of a phone: Prompt Depth Anything, {size}",
        source="Lin et al., Prompting Depth Anything for 4K resolution metric depth estimation, CVPR 2025",
        licence=_PROMPT_DEPTH_ANYTHING[size],
        hub=hub,
    )


def _eight_views(name: str, needs: str, inputs: tuple[str, ...] = ("low", "rgb")) -> Entry:
    return Entry(
        build=partial(load, name + PLUS),
        task=f"{needs}: the mean of what {name} says of eight views; sharper, nine times as long",
        source=f"{name}'s weights; views as in EDSR+ (Lim et al., CVPR workshops 2017)",
        inputs=inputs,
    )


_SCENES = ("indoor", "outdoor")
# The pages of these weights name no licence (DepthAnything/Depth-Anything-V2, issue 245); those they began with do.
_DEPTH_ANYTHING = {
    "small": "not said with these weights; the small ones they began with are Apache-2.0",
    "large": "not said with these weights; the large ones they began with are CC BY-NC 4.0: no commercial use",
}
_PROMPT_DEPTH_ANYTHING = {
    "small": "Apache-2.0, as their page says",
    "large": "Apache-2.0, as their page says; begun from Depth Anything V2 large, which is CC BY-NC 4.0",
}

CATALOG: dict[str, Entry] = {
    "crisp": Entry(
        build=partial(Crisp.from_file, WEIGHTS / "crisp.safetensors"),
        task="RGB + low depth: the default",
        source="crispdepth's own network, trained on made-up scenes only (crispdepth train crisp)",
    ),
    "crisp-tiny": Entry(
        build=partial(Crisp.from_file, WEIGHTS / "crisp-tiny.safetensors"),
        task="RGB + low depth: smaller and faster, less sharp",
        source="crispdepth's own network, trained on made-up scenes only (crispdepth train crisp-tiny)",
    ),
    "ctkt": Entry(
        build=partial(Ctkt.from_file, WEIGHTS / "ctkt.safetensors"),
        task="low depth alone: the default without RGB",
        source="after Sun et al., Cross-task knowledge transfer (CTKT), CVPR 2021; trained on made-up scenes only",
        inputs=("low",),
    ),
    "crisp+": _eight_views("crisp", "RGB + low depth"),
    "ctkt+": _eight_views("ctkt", "low depth alone", ("low",)),
    "naima-small": Entry(
        build=partial(_late, "models.naima", "Naima.from_file", WEIGHTS / "naima-small.safetensors"),
        task="RGB + low depth, told by a vision transformer what things are; needs crispdepth[naima]",
        source="after NAIMA, arXiv 2604.04407, smaller and for any scale; trained on made-up scenes only",
    ),
    "symbiotic-small": Entry(
        build=partial(Symbiotic.from_file, WEIGHTS / "symbiotic-small.safetensors"),
        task="RGB alone: depth and classes, of made-up rooms",
        source="Symbiotic Transformer and NearFarMix, WACV 2024, arXiv 2308.14400; trained on made-up scenes only",
        inputs=("rgb",),
    ),
    "bicubic": Entry(
        build=classical.Bicubic,
        task="low depth alone: smooth enlargement",
        source="Keys, Cubic convolution interpolation, IEEE TASSP 1981",
        inputs=("low",),
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
    **{
        f"depth-anything-v2-{size}.{scene}": _depth_anything(scene, size)
        for size in _DEPTH_ANYTHING
        for scene in _SCENES
    },
    **{f"prompt-depth-anything-{size}": _prompt_depth_anything(size) for size in _PROMPT_DEPTH_ANYTHING},
}
