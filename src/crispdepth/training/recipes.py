"""RECIPES: how each of our networks is trained; a recipe with some fields changed by words."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any, TypeVar

from crispdepth.data.augmentation import Sensors
from crispdepth.data.layout import CLASSES
from crispdepth.data.nearfarmix import MIXES, Threshold
from crispdepth.degradation import LARGEST_SCALE
from crispdepth.models import symbiotic
from crispdepth.models.crisp import TINY_CONFIG, CrispConfig
from crispdepth.models.ctkt import CtktConfig, DENetConfig
from crispdepth.models.naima import SMALL_CONFIG as NAIMA_SMALL
from crispdepth.models.naima import NaimaConfig
from crispdepth.models.symbiotic import SymbioticConfig
from crispdepth.types import InputError

OPTIMIZERS = ("adamw", "muon")
ROLES = ("pixel", "soft", "image", "denet")  # who teaches whom in CTKT, see CtktRecipe
AnyRecipe = TypeVar("AnyRecipe", bound="Recipe")


@dataclass(frozen=True)
class Recipe:
    """What every network's recipe says. The same recipe on the same machine gives the same run.

    ``start``: weights to begin with, a file or a model of the catalog (empty: random ones). ``patches``: (pictures,
    side in pixels) of each step, taken in turn. ``distinct``: so many steps' scenes are made, then shown again with
    new sensors (0: every step has scenes of its own). ``skipped``: so many steps' scenes are left out, which the
    weights of ``start`` have seen. ``zoom``: made-up pictures show parts of their scenes, up to so many times closer.
    ``ramp``: the share of examples with any scale and sensor grows from none to all over so many examples; the others
    are clean and x8: with the whole mixture from the start, nothing was learnt in 400 steps. ``scales``: the limits of
    the enlargement. ``learning_rate`` rises for ``warmup`` steps, then falls to 0 along a cosine, or to 0.3 of itself
    at each of ``milestones``. ``optimizer``: one of OPTIMIZERS. ``clip``: largest norm of the gradient. ``ema``: share
    of the old average kept at each step; the average is what is saved. ``precision``: in Lightning's words.
    """

    sensors: Sensors = field(default_factory=Sensors)
    start: str = ""
    patches: tuple[tuple[int, int], ...] = ((8, 160), (8, 160), (8, 160), (3, 256))
    steps: int = 9_000
    distinct: int = 1_920
    skipped: int = 0
    zoom: float = 1.0
    ramp: int = 1500
    scales: tuple[float, float] = (1.5, 32.0)
    optimizer: str = "adamw"
    learning_rate: float = 6e-4
    warmup: int = 200
    milestones: tuple[int, ...] = ()
    weight_decay: float = 1e-4
    clip: float = 10.0
    ema: float = 0.999
    precision: str = "32-true"
    seed: int = 0
    validate_every: int = 750
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        """Raise InputError for numbers that no training could begin with."""
        least = dict.fromkeys(("distinct", "skipped", "ramp", "warmup", "weight_decay", "clip", "seed"), 0)
        least |= {f.name: 0 for f in dataclasses.fields(self) if f.name.endswith(("_weight", "_ramp"))}
        least |= dict.fromkeys(("steps", "validate_every", "checkpoint_every", "zoom"), 1)
        for name, bound in least.items():
            if not getattr(self, name) >= bound:
                raise InputError(f"{name}={getattr(self, name):g} is out of range: {bound} or more")
        network = getattr(self, "network", None)
        for name, value in (vars(network) if network else {}).items():
            bound = int(name in ("width", "stages"))
            if isinstance(value, int) and value < bound:
                raise InputError(f"network.{name}={value} is out of range: {bound} or more")
        if self.optimizer not in OPTIMIZERS:
            raise InputError.unknown("optimizer", self.optimizer, OPTIMIZERS)
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate={self.learning_rate:g} is out of range: above 0")
        if not 0 <= self.ema < 1:
            raise InputError(f"ema={self.ema:g} is out of range: 0 to below 1")
        if len(self.scales) != 2 or not 1 <= self.scales[0] <= self.scales[1]:
            raise InputError(f"scales={list(self.scales)} are not understood: write the least and the largest, [4, 8]")
        if not self.scales[1] <= LARGEST_SCALE or not all(
            isinstance(step, int) and step > 0 for step in self.milestones
        ):
            raise InputError(f"scales end at {LARGEST_SCALE}, and milestones are steps, from 1 on: change them")
        if not self.patches or any(len(patch) != 2 or min(patch) < 1 for patch in self.patches):
            raise InputError(f"patches={list(self.patches)} are not understood: write [[pictures, side], …]")
        if any(side < 8 * self.scales[0] for _, side in self.patches):
            raise InputError(
                f"patches need {8 * self.scales[0]:g} pixels a side or more, for 8x8 low pixels: change them"
            )

    def drawn(self, step: int) -> int:
        """The number of the scenes that are shown at ``step``."""
        return self.skipped + (step % self.distinct if self.distinct else step)


@dataclass(frozen=True)
class CrispRecipe(Recipe):
    """``relative``: errors count as shares of bicubic's, image by image. The weights are those of the loss's parts;
    ``side_weight`` is for the depth after each stage but the last.

    ``expected_error_weight`` is small: a few pixels that are far off have gradients that drown all others.
    """

    sensors: Sensors = field(
        default_factory=lambda: Sensors(noisy=0.15, holed=0.2, misaligned=0.1, soft_depth=0.85, bent=0.5, turned=0.4)
    )
    network: CrispConfig = field(default_factory=CrispConfig)
    zoom: float = 4.0
    clip: float = 1.0
    relative: bool = True
    root_square_weight: float = 0.5
    expected_error_weight: float = 0.02
    side_weight: float = 0.1


@dataclass(frozen=True)
class NaimaRecipe(Recipe):
    """``tokens``: the vision transformer's weights: a file, a name on the hub, or ``naima-small`` for those inside the
    package (empty: random, frozen).

    ``calm``: begins as bicubic, see ``Naima.calmed``; else with torch's own random weights, as published.
    ``blind``: alpha stays 0, so that no token is heard: the paper's claim is that this is worse.
    ``root_square_weight``: of RMSE, which the published loss lacks: without it edges count too little to be
    learnt in a short time. ``relative``: errors count as shares of bicubic's, image by image.
    """

    network: NaimaConfig = field(default_factory=NaimaConfig)
    tokens: str = ""
    calm: bool = False
    blind: bool = False
    sobel_weight: float = 0.1
    root_square_weight: float = 0.0
    relative: bool = False


@dataclass(frozen=True)
class TokensRecipe(Recipe):
    """Of the vision transformer whose tokens a network will read; ``network`` is that network's config."""

    network: NaimaConfig = field(default_factory=lambda: NAIMA_SMALL)


@dataclass(frozen=True)
class CtktRecipe(Recipe):
    """DSRNet (``network``) learns beside DENet (``estimator``, which no weight above 0 needs: then DSRNet is alone).

    The loss is the sum of six terms, each times its weight: ``resolution`` and ``estimation``, each network's mean
    absolute error (and ``root_square_weight`` of DSRNet's RMSE: without it edges count too little at first);
    ``side``, that of their side outputs; ``output`` and ``affinity``, what they teach each other: depth, and which
    places look alike; ``structure``, the structure prediction. ``output`` and ``affinity`` grow from 0 over the
    share ``exchange_ramp`` of the steps. ``roles``: who teaches, the one that is right: at each ``pixel``; there, but
    in proportion (``soft``); over the whole ``image``; or ``denet``, always DENet, or who stands in for it. (Were it
    always DSRNet, DSRNet would learn nothing from it.) ``uncertainty``: the structure prediction trusts whichever
    network errs less.

    ``agreeing``: what DENet's depth lacks beside the low map is added to it before it is judged and teaches. So it is
    asked only for what the low map lacks, and not how far anything is, which no part of a picture tells.
    ``estimator_start``: DENet's weights to begin with, ``estimator.safetensors`` in the folder of another run.
    ``guided_teacher``: a trained model that sees low map and picture, such as ``crisp``, teaches depth, not DENet; or
    ``truth``, for comparison: so much comes of the exchange's weight in the loss alone.

    ``relative``: DSRNet's errors count as shares of bicubic's, image by image. What is in levels (``in_levels``) has
    no RMSE in its loss and no guided teacher: its median is asked for, and those teachers draw no steps.

    The picture is exact: DENet learns nothing from one that is out of place.
    """

    sensors: Sensors = field(
        default_factory=lambda: Sensors(
            whole=1.0, kernels=0.15, rounded=0.5, blurred=0.03, misaligned=0.0, soft_rgb=0.0, fattened=0.0,
            bent=0.0, stepped=0.1, soft_depth=0.5, eight_bit=0.4, whole_scales=(2, 4, 4, 4, 8, 8, 8, 16, 16),
        )
    )  # fmt: skip
    patches: tuple[tuple[int, int], ...] = ((4, 160),)
    distinct: int = 3_000
    learning_rate: float = 1.5e-3
    ramp: int = 300
    ema: float = 0.998
    network: CtktConfig = field(default_factory=CtktConfig)
    estimator: DENetConfig = field(default_factory=DENetConfig)
    clip: float = 1.0
    relative: bool = True
    roles: str = "pixel"
    uncertainty: bool = True
    agreeing: bool = False
    estimator_start: str = ""
    guided_teacher: str = ""
    exchange_ramp: float = 0.1
    resolution_weight: float = 1.0
    root_square_weight: float = 0.5
    estimation_weight: float = 1.0
    side_weight: float = 0.1
    output_weight: float = 0.1
    affinity_weight: float = 0.1
    structure_weight: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.roles not in ROLES:
            raise InputError.unknown("roles", self.roles, ROLES)

    @property
    def joint(self) -> bool:
        """Whether DENet is needed at all."""
        asked = [self.estimation_weight, self.affinity_weight, self.structure_weight]
        return any(asked) or bool(self.output_weight and not self.guided_teacher)


@dataclass(frozen=True)
class SemiRecipe(Recipe):
    """Symbiotic: depth from exact depth, classes from labels where there are any and from a teacher elsewhere.

    ``encoder_weights``: the encoder starts with weights of the Hugging Face hub, by name, or in a folder, and has
    their shape. ``labels``: the share of labelled pictures whose labels may be seen. ``teacher``: labels what nobody
    labelled: a file of Symbiotic's own weights, or a segmentation model of Transformers by name; what it is less
    than ``confidence`` sure of counts as unlabelled. Where ``network.classes`` is empty, they are the teacher's, or
    else the data's.

    The loss is ``depth_weight`` · SILog + ``classes_weight`` · cross-entropy, the latter growing from 0 over the
    share ``classes_ramp`` of the steps. ``mix``: one of data/nearfarmix.py's MIXES, or empty; it befalls the share
    ``mixed`` of the pictures, until the share ``mix_until`` of the steps; ``near`` is for nearfarmix. ``tinted``: the
    share of batches with other colours. ``sensors`` and ``ramp`` play no part here.
    """

    network: SymbioticConfig = field(default_factory=SymbioticConfig)
    encoder_weights: str = ""
    labels: float = 1.0
    teacher: str = ""
    confidence: float = 0.6
    depth_weight: float = 10.0
    classes_weight: float = 0.5
    classes_ramp: float = 0.1
    mix: str = "nearfarmix"
    mixed: float = 0.5
    mix_until: float = 0.9
    near: Threshold = field(default_factory=Threshold)
    tinted: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mix and self.mix not in MIXES:
            raise InputError.unknown("mix", self.mix, MIXES)


def find(name: str) -> Recipe:
    """The recipe called ``name``. Raises InputError offering the nearest name."""
    if name not in RECIPES:
        raise InputError.unknown("recipe", name, RECIPES)
    return RECIPES[name]


def changed(recipe: AnyRecipe, words: list[str]) -> AnyRecipe:
    """``recipe`` with fields set by ``KEY=VALUE``, such as ``steps=500`` or ``network.context=0``.

    Raises InputError for a word that is no such pair, a field that does not exist, and a value of another type.
    """
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise InputError(f"{word!r} is not understood: write KEY=VALUE, such as steps=500")
        recipe = _with(recipe, key, key.split("."), text, _keys(recipe))
    return recipe


def _with(part: Any, key: str, path: list[str], text: str, keys: list[str]) -> Any:
    known = {f.name: getattr(part, f.name) for f in dataclasses.fields(part)}
    of_one_length = {
        f.name for f in dataclasses.fields(part) if str(f.type).startswith("tuple") and "..." not in str(f.type)
    }
    if path[0] not in known or dataclasses.is_dataclass(known[path[0]]) != (len(path) > 1):
        raise InputError.unknown("recipe field", key, keys)
    old = known[path[0]]
    new = _with(old, key, path[1:], text, keys) if len(path) > 1 else _parsed(key, text, old)
    if path[0] in of_one_length and len(new) != len(old):
        raise InputError(f"{key}={text} is not understood: write {len(old)} values, such as {json.dumps(old)}")
    return dataclasses.replace(part, **{path[0]: new})


def _keys(part: Any, prefix: str = "") -> list[str]:
    keys = []
    for f in dataclasses.fields(part):
        value = getattr(part, f.name)
        keys += _keys(value, f"{prefix}{f.name}.") if dataclasses.is_dataclass(value) else [prefix + f.name]
    return keys


def _parsed(key: str, text: str, old: Any) -> Any:
    """``text`` as a value like ``old``; nested lists become tuples."""
    if isinstance(old, str):
        return text
    try:
        value = json.loads(text.lower() if isinstance(old, bool) else text)
    except ValueError:
        value = None
    value = _tuples(value)
    if not _fits(value, old):
        raise InputError(f"{key}={text} is not understood: write a value like {json.dumps(old)}")
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    return value


def _fits(value: Any, old: Any) -> bool:
    """Whether ``value`` is of ``old``'s kind, and its parts of those of its first part (of none: numbers or words)."""
    if isinstance(old, tuple):
        return isinstance(value, tuple) and all(
            _fits(part, old[0]) if old else isinstance(part, int | str) for part in value
        )
    if isinstance(old, float):
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return type(value) is type(old)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


_ON_GPU: dict[str, Any] = {
    "patches": ((64, 160), (64, 160), (64, 160), (24, 256)),  # meant for one H200, where it is yet to be run
    "steps": 15_000,
    "distinct": 0,
    "learning_rate": 1e-3,
    "precision": "bf16-mixed",
}

_IN_LEVELS = dataclasses.replace(CtktRecipe().sensors, in_levels=0.4)

NAIMA_SENSORS = Sensors(
    whole=1.0, kernels=0.0, rounded=0.0, inverse=0.0, blurred=0.0, noisy=0.0, holed=0.0, misaligned=0.0,
    soft_rgb=0.0, fattened=0.0, bent=0.0, stepped=0.0, soft_depth=0.0, turned=0.5, swapped=0.0, grey=0.0,
    brighter=0.1,
)  # fmt: skip


def _naima(scale: int, side: int) -> NaimaRecipe:
    """As published: 200 epochs of 1,000 pictures, two at a time, with tokens of DINOv2 from the hub."""
    return NaimaRecipe(
        network=NaimaConfig(scale=scale, grid=side // 14),
        tokens="facebook/dinov2-small",
        sensors=NAIMA_SENSORS,
        patches=((2, side),),
        scales=(scale, scale),
        steps=100_000,
        distinct=0,
        ramp=0,
        learning_rate=1e-4,
        warmup=1,
        milestones=(25_000, 50_000, 75_000),
        weight_decay=0.0,
        ema=0.0,
    )


_SMALL = SemiRecipe(  # for a CPU, on scenes
    network=dataclasses.replace(symbiotic.SMALL_CONFIG, classes=CLASSES),
    patches=((8, 128),),
    steps=5_000,
    distinct=2_500,
    learning_rate=2e-3,
    warmup=100,
    clip=1.0,
    ema=0.998,
    weight_decay=0.01,
)
_PUBLISHED = SemiRecipe(  # the published sizes, for NYUv2; meant for a GPU, where it is yet to be run
    encoder_weights="microsoft/swin-large-patch4-window12-384-in22k",
    teacher="openmmlab/upernet-swin-large",
    patches=((8, 416),),
    steps=75_000,
    distinct=0,
    learning_rate=4e-5,
    warmup=1000,
    weight_decay=0.01,
    clip=0.1,
    precision="bf16-mixed",
    validate_every=2500,
    checkpoint_every=500,
)

RECIPES: dict[str, Recipe] = {
    "crisp": CrispRecipe(start="ctkt", learning_rate=8e-4),
    "crisp-tiny": CrispRecipe(network=TINY_CONFIG, learning_rate=1e-3),
    **{f"naima_x{scale}": _naima(scale, side) for scale, side in ((2, 420), (4, 420), (8, 448), (16, 448))},
    "naima-tokens": TokensRecipe(patches=((8, 160),), steps=3_000, distinct=600, ramp=0, learning_rate=1e-3),
    "naima-small": NaimaRecipe(
        network=NAIMA_SMALL,
        tokens="naima-small",
        patches=((6, 128),),
        sensors=Sensors(
            kernels=0.1,
            rounded=0.2,
            inverse=0.3,
            blurred=0.03,
            noisy=0.05,
            holed=0.1,
            misaligned=0.03,
            soft_rgb=0.05,
            fattened=0.1,
            bent=0.0,
            stepped=0.1,
            soft_depth=0.3,
            swapped=0.1,
            grey=0.03,
        ),
        steps=5_500,
        distinct=2_000,
        zoom=4.0,
        ramp=2_100,
        scales=(1.5, 16.0),
        learning_rate=7e-4,
        clip=1.0,
        ema=0.998,
        calm=True,
        root_square_weight=1.0,
        relative=True,
    ),
    "crisp-gpu": CrispRecipe(start="ctkt", **_ON_GPU),
    "crisp-tiny-gpu": CrispRecipe(network=TINY_CONFIG, **_ON_GPU),
    "ctkt": CtktRecipe(network=CtktConfig(levels=True), sensors=_IN_LEVELS),
    "ctkt-gpu": CtktRecipe(network=CtktConfig(levels=True), sensors=_IN_LEVELS, **_ON_GPU),
    "symbiotic-small": _SMALL,
    "symbiotic-tiny": dataclasses.replace(_SMALL, network=dataclasses.replace(symbiotic.TINY_CONFIG, classes=CLASSES)),
    "symbiotic": _PUBLISHED,
    "symbiotic-kitti": dataclasses.replace(
        _PUBLISHED,
        network=SymbioticConfig(max_depth_m=80.0, side=1242, focal_px=721.5),
        patches=((8, 352),),
    ),
}
