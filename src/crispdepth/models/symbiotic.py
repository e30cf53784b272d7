"""Symbiotic: metric depth and semantic classes from one RGB picture, each task helping the other."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import nn

from crispdepth.extras import late
from crispdepth.geometry import LearntCamera, resize_rgb
from crispdepth.models import saved
from crispdepth.models.pretrained import UNUSED, pretrained
from crispdepth.types import Classes, Depth, InputError, Model, Rgb, Size

STRIDES = (4, 8, 16, 32)  # of the four levels
COARSEST = STRIDES[-1]  # pictures are padded to multiples of it
HEAD = 32  # channels of one attention head
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet: what encoders from the hub expect
NOT_SHAPE = ("id2label", "label2id", "architectures", "transformers_version", "dtype", "torch_dtype", "_name_or_path")

# What `SymbioticConfig.encoder` may name: a backbone's configuration in Transformers' own words.
ENCODERS: dict[str, dict[str, Any]] = {
    "resnet-3m": {  # two of our own, named by their parameters
        "model_type": "resnet",
        "embedding_size": 32,
        "hidden_sizes": [32, 64, 128, 256],
        "depths": [2, 2, 2, 2],
        "layer_type": "basic",
    },
    "resnet-700k": {
        "model_type": "resnet",
        "embedding_size": 24,
        "hidden_sizes": [24, 48, 96, 160],
        "depths": [1, 1, 1, 1],
        "layer_type": "basic",
    },
    "convnext-2m": {  # two more; layer scale as for a start from random weights
        "model_type": "convnext",
        "hidden_sizes": [32, 64, 128, 256],
        "depths": [1, 2, 4, 3],
        "layer_scale_init_value": 0.1,
    },
    "convnext-500k": {
        "model_type": "convnext",
        "hidden_sizes": [24, 48, 96, 160],
        "depths": [1, 1, 2, 1],
        "layer_scale_init_value": 0.1,
    },
    "swin-tiny": {"model_type": "swin"},
    "swin-large": {
        "model_type": "swin",
        "embed_dim": 192,
        "depths": [2, 2, 18, 2],
        "num_heads": [6, 12, 24, 48],
        "window_size": 12,
        "image_size": 384,
    },
    "convnext-large": {"model_type": "convnext", "hidden_sizes": [192, 384, 768, 1536], "depths": [3, 3, 27, 3]},
    "dinov2-small": {"model_type": "dinov2", "hidden_size": 384, "num_attention_heads": 6, "image_size": 518},
}


@dataclass(frozen=True)
class SymbioticConfig:
    """``encoder``: a name in ENCODERS, or the JSON of a Transformers backbone's configuration (``model_type`` …).

    ``classes``: what the semantic head tells apart. ``width``: channels of each task at every level.
    ``exchange``: what passes between the tasks, a name in EXCHANGES, at the levels of ``exchange_strides``; the finest
    costs more than all others. ``pairs``: block and grid attentions in each LG-CAT block (N_s in the paper).
    ``expansion``: of FusedMBConv. ``max_depth_m``: the farthest depth there is.

    ``side``: pictures with a longer side than this are shrunk to it first. ``focal_px``: the focal length, in pixels
    of the picture at that scale, of the camera whose depth the network gives; see ``Symbiotic.for_focal``.
    """

    encoder: str = "swin-large"
    classes: tuple[str, ...] = ()
    width: int = 128
    exchange: str = "dss"
    exchange_strides: tuple[int, ...] = STRIDES
    pairs: int = 1
    expansion: int = 4
    max_depth_m: float = 10.0
    side: int = 640
    focal_px: float = 518.9


SMALL_CONFIG = SymbioticConfig(
    encoder="resnet-3m",
    width=48,
    exchange_strides=(8, 16, 32),
    expansion=2,
    side=128,
    focal_px=111.0,  # 60 degrees across
)
TINY_CONFIG = replace(SMALL_CONFIG, encoder="resnet-700k", width=32)


class Encoder(nn.Module):
    """A backbone of Transformers: RGB (b, 3, h, w), sides multiples of 32, to four maps at 1/4, 1/8, 1/16, 1/32.

    Plain vision transformers (DINOv2), whose maps all have one size, are shown the picture at the size that gives
    16 pixels to a patch; four of their layers, spread evenly, are resized to the four levels.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, words: dict[str, Any]) -> None:
        super().__init__()
        self.backbone = late("transformers").AutoBackbone.from_config(_backbone_config(words))
        self.plain = not hasattr(self.backbone.config, "depths")  # layers, but no stages of them
        for name, value in (("mean", MEAN), ("deviation", DEVIATION)):
            self.register_buffer(name, torch.tensor(value).view(1, 3, 1, 1), persistent=False)
        self.freeze_unused()

    def freeze_unused(self) -> None:
        """Parameters that no output depends on are no parameters to learn."""
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(not any(word in name for word in UNUSED))

    def forward(self, rgb: Rgb) -> list[torch.Tensor]:
        height, width = rgb.shape[-2:]
        if self.plain:
            patch = self.backbone.config.patch_size
            rgb = resize_rgb(rgb, (height // 16 * patch, width // 16 * patch))
        maps = self.backbone((rgb - self.mean) / self.deviation).feature_maps
        return [_bilinear(x, (height // s, width // s)) for x, s in zip(maps, STRIDES, strict=True)]


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel of (b, c, h, w)."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class FusedMBConv(nn.Module):
    """A 3x3 convolution that widens, a 1x1 that narrows, and a shortcut (Tan and Le 2021); no batch norm."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(width)
        self.widen = nn.Conv2d(width, expansion * width, 3, padding=1)
        self.narrow = nn.Conv2d(expansion * width, width, 1)

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        return y + self.narrow(F.gelu(self.widen(self.norm(y))))


def partitioned(x: torch.Tensor, window: Size, grid: bool) -> torch.Tensor:
    """(b, h, w, c) to groups (b·n, tokens, c) that attend among themselves; MaxViT (Tu et al. 2022), section 3.2.

    Blocks are windows of ``window`` neighbouring pixels; a grid takes ``window`` pixels spread over the whole map.
    """
    b, h, w, c = x.shape
    p, q = window
    if grid:
        return x.view(b, p, h // p, q, w // q, c).permute(0, 2, 4, 1, 3, 5).reshape(-1, p * q, c)
    return x.view(b, h // p, p, w // q, q, c).transpose(2, 3).reshape(-1, p * q, c)


def joined(groups: torch.Tensor, size: Size, window: Size, grid: bool) -> torch.Tensor:
    """The reverse of ``partitioned``: (b·n, tokens, c) to (b, *size, c)."""
    (h, w), (p, q), c = size, window, groups.shape[-1]
    if grid:
        return groups.view(-1, h // p, w // q, p, q, c).permute(0, 3, 1, 4, 2, 5).reshape(-1, h, w, c)
    return groups.view(-1, h // p, w // q, p, q, c).transpose(2, 3).reshape(-1, h, w, c)


class CrossAttention(nn.Module):
    """One task asks, the other answers itself anew: y + attention(Q = x, K = V = y), then a perceptron; pre-norm.

    ``grid``: over the sparse global grid, else within local windows. Maps are (b, h, w, c).
    """

    def __init__(self, width: int, grid: bool) -> None:
        super().__init__()
        self.grid, self.heads = grid, max(1, width // HEAD)
        self.norm_x, self.norm_y = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.perceptron = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: torch.Tensor, y: torch.Tensor, window: Size, seen: torch.Tensor | None) -> torch.Tensor:
        """``seen`` (1, h, w, 1) is False where the picture was padded: nobody attends to that."""
        size = (y.shape[1], y.shape[2])
        q = self._heads(self.query(partitioned(self.norm_x(x), window, self.grid)))
        k, v = (self._heads(t) for t in self.key_value(partitioned(self.norm_y(y), window, self.grid)).chunk(2, -1))
        allowed = None
        if seen is not None:
            allowed = partitioned(seen, window, self.grid).mT[:, None]  # (n, 1, 1, tokens)
            allowed = (allowed | ~allowed.any(-1, keepdim=True)).repeat(len(y), 1, 1, 1)
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed).transpose(1, 2).flatten(2)
        y = y + joined(self.out(found), size, window, self.grid)
        return y + self.perceptron(y)

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class LgCat(nn.Module):
    """LG-CAT, the local-global cross-attention block of the DSS module: refines task y by what task x asks.

    ``pairs`` times block then grid attention, queries always from x, keys and values from y as it has become by
    then; FusedMBConv at the end. With windows as ``window_of`` gives them, one pair reaches the whole map.
    """

    def __init__(self, config: SymbioticConfig) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(
            CrossAttention(config.width, grid) for _ in range(config.pairs) for grid in (False, True)
        )
        self.convolution = FusedMBConv(config.width, config.expansion)

    def forward(self, x: torch.Tensor, y: torch.Tensor, cells: int, seen: torch.Tensor | None) -> torch.Tensor:
        """Maps (b, c, h, w), ``seen`` (1, 1, h, w); ``cells``: pixels of this level across one at 1/32."""
        grid = (y.shape[-2] // cells, y.shape[-1] // cells)
        window = window_of(grid, cells)
        asked, y = x.movedim(1, -1), y.movedim(1, -1)
        last = None if seen is None else seen.movedim(1, -1)
        for attention in self.attentions:
            y = attention(asked, y, grid if attention.grid else window, last)
        return self.convolution(y.movedim(-1, 1))


def window_of(grid: Size, cells: int) -> Size:
    """The local window for a map of ``grid`` · ``cells`` pixels: as large as the grid, that is 1/32 of the picture.

    A grid of g takes every ``cells``-th pixel, so a window of at least ``cells`` holds a pixel of every grid, and
    block then grid reaches everything. Pictures under 32 · cells pixels, where g is smaller, get windows of ``cells``.
    """
    return max(grid[0], cells), max(grid[1], cells)


class Concat(nn.Module):
    """Task y with the channels of task x beside it, mixed by a 1x1 convolution, and a shortcut."""

    def __init__(self, config: SymbioticConfig) -> None:
        super().__init__()
        self.norm = ChannelNorm(2 * config.width)
        self.mix = nn.Conv2d(2 * config.width, config.width, 1)

    def forward(self, x: torch.Tensor, y: torch.Tensor, cells: int, seen: torch.Tensor | None) -> torch.Tensor:
        return y + self.mix(self.norm(torch.cat([x, y], 1)))


class Ccam(nn.Module):
    """Cross-channel attention, after Bansal et al. 2022: each channel of y gathers those channels of x it is like.

    The affinity of two channels is the cosine over all pixels, sharpened by a learnt factor and made a softmax; the
    paper's own module has no released code, and this is its idea in the form of El-Nouby et al. 2021 (XCiT).
    """

    def __init__(self, config: SymbioticConfig) -> None:
        super().__init__()
        width = config.width
        self.norm_x, self.norm_y = ChannelNorm(width), ChannelNorm(width)
        self.query, self.key, self.value, self.out = (nn.Conv2d(width, width, 1) for _ in range(4))
        self.sharpness = nn.Parameter(torch.tensor(4.0))

    def forward(self, x: torch.Tensor, y: torch.Tensor, cells: int, seen: torch.Tensor | None) -> torch.Tensor:
        asked, own = self.norm_x(x), self.norm_y(y)
        q, k = self.query(own), self.key(asked)
        if seen is not None:
            q, k = q * seen, k * seen
        q, k = (F.normalize(t.flatten(2), dim=-1) for t in (q, k))
        affinity = (self.sharpness * q @ k.mT).softmax(-1)
        return y + self.out((affinity @ self.value(asked).flatten(2)).view_as(y))


EXCHANGES: dict[str, Callable[[SymbioticConfig], nn.Module] | None] = {
    "none": None,
    "concat": Concat,
    "ccam": Ccam,
    "dss": LgCat,
}


class Exchange(nn.Module):
    """Both directions at once, from the same inputs: semantics refines depth, depth refines semantics."""

    def __init__(self, config: SymbioticConfig, stride: int) -> None:
        super().__init__()
        kind = EXCHANGES[config.exchange] if stride in config.exchange_strides else None
        self.to_depth: nn.Module | None = None if kind is None else kind(config)
        self.to_semantics: nn.Module | None = None if kind is None else kind(config)

    def forward(
        self, depth: torch.Tensor, semantics: torch.Tensor, cells: int, seen: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (b, c, h, w) of both tasks, refined."""
        if self.to_depth is not None and self.to_semantics is not None:
            depth, semantics = (
                self.to_depth(semantics, depth, cells, seen),
                self.to_semantics(depth, semantics, cells, seen),
            )
        return (depth, semantics) if seen is None else (depth * seen, semantics * seen)


class Decoder(nn.Module):
    """One task's way up: 1x1 necks to one width, each level added to the enlarged coarser one and smoothed."""

    def __init__(self, channels: list[int], config: SymbioticConfig, outputs: int) -> None:
        super().__init__()
        width = config.width
        self.necks = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.smooth = nn.ModuleList(
            nn.Sequential(ChannelNorm(width), nn.GELU(), nn.Conv2d(width, width, 3, padding=1)) for _ in channels
        )
        self.head = nn.Sequential(
            ChannelNorm(width), nn.Conv2d(width, width, 3, padding=1), nn.GELU(), nn.Conv2d(width, outputs, 1)
        )

    def step(self, level: int, found: torch.Tensor, coarser: torch.Tensor | None) -> torch.Tensor:
        """The features of ``level`` from the encoder's map there and this task's features one level below."""
        y = self.necks[level](found)
        if coarser is not None:
            y = y + _bilinear(coarser, (y.shape[-2], y.shape[-1]))
        return y + self.smooth[level](y)


class Symbiotic(Model):
    """The Symbiotic Transformer (WACV 2024, arXiv 2308.14400): one RGB picture to metric depth and classes.

    An encoder of Transformers gives maps at 1/4 to 1/32. Each task has its own necks and its own decoder, from
    coarse to fine; at every level a DSS module (depth-semantics symbiosis) of two LG-CAT blocks lets each task
    refine the other, or another exchange in its place. Depth is a sigmoid times the largest depth, classes are
    logits; both are read at 1/4 and enlarged bilinearly. The paper's code was never released: what its text leaves
    open (widths, norms, decoder, window sizes) is our choice. Any size: pictures are padded to multiples of 32 at
    the right and below, and what was padded is attended to by no one.
    """

    inputs: ClassVar[tuple[str, ...]] = ("rgb",)
    one_size: ClassVar[bool] = True

    def __init__(self, config: SymbioticConfig) -> None:
        super().__init__()
        if config.exchange not in EXCHANGES:
            raise InputError.unknown("exchange", config.exchange, EXCHANGES)
        if not set(config.exchange_strides) <= set(STRIDES):
            raise InputError(f"exchange_strides {config.exchange_strides}: choose from {STRIDES}")
        if not 1 <= len(config.classes) <= 255:
            raise InputError(f"Symbiotic needs 1 to 255 classes, not {len(config.classes)}: name them")
        self.config = config
        self.encoder = Encoder(_words(config.encoder))
        channels = list(self.encoder.backbone.channels)
        self.depth = Decoder(channels, config, 1)
        self.semantics = Decoder(channels, config, len(config.classes))
        self.exchanges = nn.ModuleList(Exchange(config, stride) for stride in STRIDES)
        with torch.no_grad():
            self.depth.head[-1].bias.fill_(-2.0)  # type: ignore[operator]  # an eighth of the farthest

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the class numbers mean."""
        return self.config.classes

    def forward(self, rgb: Rgb) -> Depth:
        """(b, 3, H, W) of any size to depth (b, 1, H, W), metres for a focal length of ``config.focal_px``."""
        depth, _ = self.depth_and_logits(self.at_scale(rgb))
        return _bilinear(depth, (rgb.shape[-2], rgb.shape[-1]))

    def depth_and_classes(self, rgb: Rgb) -> tuple[Depth, Classes]:
        """As ``forward``, and the likeliest class of every pixel (b, 1, H, W), uint8."""
        size = (rgb.shape[-2], rgb.shape[-1])
        depth, logits = self.depth_and_logits(self.at_scale(rgb))
        return _bilinear(depth, size), likeliest(logits, size)

    def depth_and_logits(self, rgb: Rgb) -> tuple[Depth, torch.Tensor]:
        """(b, 3, H, W) to depth (b, 1, H, W) and class logits (b, K, H, W), at the size that is given, unshrunk."""
        height, width = rgb.shape[-2:]
        padded = F.pad(rgb, (0, -width % COARSEST, 0, -height % COARSEST), mode="replicate")
        whole = padded.shape[-2:] == rgb.shape[-2:]
        maps = self.encoder(padded)
        depth: torch.Tensor | None = None
        semantics: torch.Tensor | None = None
        for level in (3, 2, 1, 0):
            stride = STRIDES[level]
            seen = None if whole else _seen(maps[level], (height, width), stride)
            depth, semantics = self.exchanges[level](
                self.depth.step(level, maps[level], depth),
                self.semantics.step(level, maps[level], semantics),
                COARSEST // stride,
                seen,
            )
        share, logits = (
            F.interpolate(part.head(y), scale_factor=STRIDES[0], mode="bilinear")[..., :height, :width]
            for part, y in ((self.depth, depth), (self.semantics, semantics))
        )
        return self.config.max_depth_m * share.sigmoid().clamp(min=1e-4), logits

    def for_focal(self, depth: Depth, focal_px: float) -> Depth:
        """Metres for a camera of ``focal_px`` (in pixels of the picture, whose size ``depth`` has).

        A thing looks as large from twice as far through twice the focal length: one picture cannot tell them apart,
        so the network gives depth for one focal length, and the true one rescales it.
        """
        return self.own_camera.for_focal(depth, focal_px)

    def focal_for(self, size: Size) -> float:
        """The focal length, in pixels of a picture of ``size``, for which ``forward`` gives metres."""
        return self.own_camera.focal_for(size)

    @property
    def own_camera(self) -> LearntCamera:
        """The one whose depth ``forward`` gives."""
        return LearntCamera(self.config.focal_px, self.config.side)

    def at_scale(self, rgb: Rgb) -> Rgb:
        """The picture no larger than ``config.side``."""
        size = (rgb.shape[-2], rgb.shape[-1])
        scale = self.own_camera.shrink(size)
        return resize_rgb(rgb, (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))))

    @classmethod
    def with_hub_encoder(cls, config: SymbioticConfig, name: str) -> Self:
        """A network whose encoder has the weights called ``name`` on the Hugging Face hub, or saved in a folder.

        The encoder's shape is theirs, whatever ``config.encoder`` says; all else starts from random weights.
        Raises InputError when there are none, they are no backbone's, or some are missing.
        """
        transformers = late("transformers")
        try:
            found = transformers.AutoConfig.from_pretrained(name)
            words = {k: v for k, v in found.to_diff_dict().items() if k not in NOT_SHAPE}
            network = cls(replace(config, encoder=json.dumps({"model_type": found.model_type, **words})))
            empty = network.encoder.backbone
            # checkpoints with a classifier's head normalise the last map alone: a backbone's own norms begin as new
            norms = ("hidden_states_norms",)
            network.encoder.backbone = pretrained(type(empty), name, norms, config=empty.config)
        except InputError:
            raise
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise InputError(f"no encoder could be loaded from {name}: {' '.join(str(error).split())[:200]}") from error
        network.encoder.freeze_unused()
        return network

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """The network saved at ``path``. Raises InputError when it is missing or not one of ours."""
        return saved.read(path, "Symbiotic", lambda fields: cls(SymbioticConfig(**fields)))

    def save(self, path: Path) -> None:
        """Weights in half precision and the config, as safetensors."""
        config = replace(self.config, encoder=json.dumps(_words(self.config.encoder)))
        saved.write(self, path, "symbiotic", config)


def likeliest(logits: torch.Tensor, size: Size) -> Classes:
    """Logits (b, K, h, w) to the class of every pixel of ``size``, class by class: K maps of a photo are too many."""
    best = _bilinear(logits[:, :1], size)
    classes = torch.zeros_like(best, dtype=torch.uint8)
    for number in range(1, logits.shape[1]):
        value = _bilinear(logits[:, number : number + 1], size)
        classes = torch.where(value > best, number, classes).to(torch.uint8)
        best = torch.maximum(best, value)
    return classes


def _words(encoder: str) -> dict[str, Any]:
    """The configuration an encoder's name or JSON stands for. Raises InputError offering the nearest name."""
    if not encoder.lstrip().startswith("{"):
        if encoder not in ENCODERS:
            raise InputError.unknown("encoder", encoder, ENCODERS)
        return ENCODERS[encoder]
    try:
        words = json.loads(encoder)
    except ValueError as error:
        raise InputError(
            f"encoder {encoder[:60]!r} is no JSON ({error}): write a name or a backbone's config"
        ) from error
    if "model_type" not in words:
        raise InputError("the encoder's configuration has no model_type: add one, such as swin, convnext or dinov2")
    return words


def _backbone_config(words: dict[str, Any]) -> Any:
    """Transformers' configuration with four maps asked for: every stage, or four layers spread evenly."""
    others = {k: v for k, v in words.items() if k not in ("model_type", "out_features", "out_indices", "stage_names")}
    try:
        config = late("transformers").AutoConfig.for_model(words["model_type"], **others)
        last = len(config.stage_names) - 1
    except (ValueError, AttributeError) as error:
        raise InputError(
            f"{words['model_type']} is no backbone of Transformers: choose swin, convnext, dinov2 …"
        ) from error
    config.out_indices = [math.ceil(last * (i + 1) / 4) for i in range(4)]
    return config


def _bilinear(x: torch.Tensor, size: Size) -> torch.Tensor:
    return x if tuple(x.shape[-2:]) == tuple(size) else F.interpolate(x, size, mode="bilinear")


def _seen(features: torch.Tensor, size: Size, stride: int) -> torch.Tensor:
    """(1, 1, h, w) True where a pixel of ``features`` saw any of the picture of ``size`` before padding."""
    seen = torch.zeros(1, 1, *features.shape[-2:], dtype=torch.bool, device=features.device)
    seen[..., : -(-size[0] // stride), : -(-size[1] // stride)] = True
    return seen
