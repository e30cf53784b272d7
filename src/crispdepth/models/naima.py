"""NAIMA: guided super-resolution by semantic tokens (arXiv 2604.04407), exact with the authors' checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeAlias

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from crispdepth.exportable import Spectrum, exporting, irfft2, resized, rfft2
from crispdepth.geometry import normalised, restored
from crispdepth.layers.attention import ATTENTIONS
from crispdepth.layers.blocks import KERNELS, BackProjection
from crispdepth.layers.strips import overwritten, spread, thrifty
from crispdepth.models import saved
from crispdepth.models.naima_released import refuse, renamed, unwrapped
from crispdepth.models.pretrained import pretrained
from crispdepth.types import Depth, InputError, Mask, MissingPackage, Model, Rgb, Size

try:
    from transformers import Dinov2Config, Dinov2Model
except ImportError as error:
    raise MissingPackage("NAIMA needs Transformers: pip install 'crispdepth[naima]'") from error

AnySpectrum: TypeAlias = Any  # a complex tensor (b, c, bins), or a Spectrum while a graph is made
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and standard deviation of red, green, blue
TINY = 1e-8  # added to spectra by the released code
BINS = 8192  # of a spectrum, fused at once
SHARP = 10.0  # a learnt temperature's start: the logit of a token that is just like the query
Pair: TypeAlias = tuple[torch.Tensor, torch.Tensor]  # depth features, RGB features


@dataclass(frozen=True)
class NaimaConfig:
    """``scale``: 2, 4, 8 or 16; ``width``: the paper's C, feature channels.

    ``encoder``, ``upsampler``: residual blocks in each depth encoder of a GTA and of the upsampler.
    ``token_channels``, ``token_blocks``, ``token_heads``, ``patch`` (pixels): the vision transformer (ViT-S/14);
    ``grid``: patches along a side of the picture its position embedding was made for; ``layers``: whose tokens
    are taken, counted from 0. ``attention``: a row of ``ATTENTIONS``; they differ in cost only. ``tile``: larger
    pictures are taken in overlapping squares of so many pixels, which bounds the memory (0: whole).

    Ideas of ours, off as released: ``any_scale``: the low map comes with a plane that tells its true ratio, so one
    network serves all, brought to ``scale`` first; ``padded``: the token convolution sees a border of zeros, so
    that tokens stay above their pixels; ``temperature``: the attention's sharpness is learnt, from ``SHARP`` on;
    ``own``: each place also hears the token above it, not only those that look alike; ``circle``: phases are
    fused as points on the circle, which has no jump at ±π; ``sized``: position embedding interpolated to the
    exact size; ``detail``: the upsampler sees the last RGB features, which else reach it through the low resolution
    alone; ``enlarged``: the RGB branch sees the low map too, enlarged; ``stem``: the picture is folded (``stem`` x
    ``stem`` pixels to one place), so that what is costly happens on so many times shorter sides, and the low map is
    ``ratio`` times smaller than the picture.
    """

    scale: int = 8
    width: int = 48
    encoder: int = 6
    upsampler: int = 8
    token_channels: int = 384
    token_blocks: int = 12
    token_heads: int = 6
    patch: int = 14
    grid: int = 32
    layers: tuple[int, int, int, int] = (2, 5, 8, 11)
    attention: str = "fused"
    tile: int = 0
    any_scale: bool = False
    padded: bool = False
    temperature: bool = False
    own: bool = False
    circle: bool = False
    sized: bool = False
    detail: bool = False
    enlarged: bool = False
    stem: int = 1

    def __post_init__(self) -> None:
        if self.scale not in KERNELS:
            raise InputError(f"NAIMA has no scale {self.scale}: choose from {', '.join(map(str, KERNELS))}")
        if self.attention not in ATTENTIONS:
            raise InputError.unknown("attention", self.attention, ATTENTIONS)
        if self.stem < 1:
            raise InputError(f"stem={self.stem} is too small: 1 (not folded) or more")
        for name in ("width", "token_channels", "token_blocks", "token_heads", "patch", "grid"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} is too small: 1 or more")
        if self.token_channels % self.token_heads:
            raise InputError(
                f"token_channels={self.token_channels} must be a multiple of {self.token_heads} token_heads"
            )
        if len(self.layers) != 4 or not all(0 <= layer < self.token_blocks for layer in self.layers):
            raise InputError(
                f"layers={list(self.layers)} must be four of 0 to {self.token_blocks - 1}, token_blocks less one"
            )
        if self.tile and self.tile < 4 * self.step:
            raise InputError(f"tile={self.tile} is too small: {4 * self.step} pixels at least")
        if self.temperature and self.attention == "linear":
            raise InputError("linear attention needs small logits, which a learnt temperature gives up: take fused")

    @property
    def ratio(self) -> int:
        """How many times smaller than the picture the low map is for ``network``."""
        return self.scale * self.stem

    @property
    def step(self) -> int:
        """Sides of the picture for ``network`` are multiples of so many pixels."""
        return math.lcm(self.patch, self.ratio)


class Tokens(nn.Module):
    """DINOv2, frozen: standardised RGB (b, 3, H, W) to the four layers' patch tokens (b, channels, H/14, W/14)."""

    def __init__(self, config: NaimaConfig) -> None:
        super().__init__()
        self.config = config
        shape = Dinov2Config(
            hidden_size=config.token_channels,
            num_hidden_layers=config.token_blocks,
            num_attention_heads=config.token_heads,
            image_size=config.grid * config.patch,
            patch_size=config.patch,
            use_mask_token=False,
        )
        self.vit = Dinov2Model(shape).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Frozen: stays in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, rgb: Rgb) -> list[torch.Tensor]:
        """Standardised ``rgb`` (b, 3, H, W) to four maps (b, channels, H/patch, W/patch), without gradients."""
        return self.every(rgb)

    def every(self, rgb: Rgb) -> list[torch.Tensor]:
        """As ``forward``, with gradients: for training the transformer itself."""
        size = (rgb.shape[-2] // self.config.patch, rgb.shape[-1] // self.config.patch)
        patches = self.vit.embeddings.patch_embeddings(rgb)
        first = self.vit.embeddings.cls_token.expand(len(rgb), -1, -1)
        x = torch.cat([first, patches], dim=1) + self._positions(size)
        taken = {}
        for index, layer in enumerate(self.vit.encoder.layer[: max(self.config.layers) + 1]):
            x = layer(x)
            taken[index] = x
        tokens = (self.vit.layernorm(taken[index])[:, 1:] for index in self.config.layers)
        return [t.transpose(1, 2).unflatten(2, size) for t in tokens]

    def pretrained(self, source: str) -> None:
        """Take the weights at ``source``: a .safetensors of `crispdepth train naima-tokens` or of a whole Naima, or a
        name on the hub.

        A position embedding for another grid is left as it is: random, as in the released code. Set ``grid`` to
        the one it was made for (37 for DINOv2) to keep it. Raises InputError when it is not of this shape.
        """
        path = Path(source)
        try:
            if path.suffix == ".safetensors":
                kept = load_file(path)
                start = next((s for s in ("tokens.vit.", "vit.") if any(key.startswith(s) for key in kept)), "")
                tensors = {key.removeprefix(start): x.float() for key, x in kept.items() if key.startswith(start)}
            else:
                tensors = pretrained(Dinov2Model, source).state_dict()
        except InputError:
            raise
        except (OSError, SafetensorError, ValueError) as error:
            raise InputError(f"found no vision transformer at {source}: {error}") from error
        own = self.vit.state_dict()
        positions = "embeddings.position_embeddings"
        if tensors.get(positions, own[positions]).shape != own[positions].shape:
            tensors[positions] = own[positions]
        try:
            self.vit.load_state_dict({key: x for key, x in tensors.items() if not key.endswith("mask_token")})
        except RuntimeError as error:
            raise InputError(f"{source} is a transformer of another shape than the config's: {error}") from error

    def _positions(self, size: Size) -> torch.Tensor:
        """The position embedding for ``size`` patches, (1, 1 + patches, channels).

        The released code interpolates by the factor (size + 0.1) / grid, which also moves the samples.
        """
        embedding, grid = self.vit.embeddings.position_embeddings, self.config.grid
        if size == (grid, grid):
            return embedding
        plane = embedding[:, 1:].transpose(1, 2).unflatten(2, (grid, grid))
        if self.config.sized:
            plane = F.interpolate(plane, size, mode="bicubic", align_corners=False)
        else:
            factors = ((size[0] + 0.1) / grid, (size[1] + 0.1) / grid)
            plane = F.interpolate(plane, scale_factor=factors, mode="bicubic", align_corners=False)
        return torch.cat([embedding[:, :1], plane.flatten(2).transpose(1, 2)], dim=1)


class Rcab(nn.Module):
    """Residual channel attention block (Zhang et al. 2018); (b, c, h, w) to the same, written over it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _conv3(width, width), _conv3(width, width)
        narrow = max(1, width // 16)
        self.squeeze, self.excite = nn.Conv2d(width, narrow, 1), nn.Conv2d(narrow, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(_leaky(self.first(x), 0.2))
        gate = self.excite(F.relu(self.squeeze(y.mean(dim=(2, 3), keepdim=True)))).sigmoid()
        return overwritten(lambda x, y: torch.addcmul(x, y, gate), x, y)


class DepthEncoder(nn.Module):
    """``count`` Rcabs and a convolution, plus the input."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Rcab(width) for _ in range(count)), _conv3(width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return overwritten(torch.add, self.blocks(x.clone() if thrifty(x) else x), x)


class RgbEncoder(nn.Module):
    """Two convolutions, plus the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _conv3(width, width), _conv3(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return overwritten(torch.add, self.second(_leaky(self.first(x), 0.2)), x)


class TokenEncoder(nn.Module):
    """Tokens (b, channels, H/14, W/14) to C features at the size of the low-resolution map."""

    def __init__(self, config: NaimaConfig) -> None:
        super().__init__()
        wide = 16 * config.width
        self.proj1 = nn.Conv2d(config.token_channels, wide, 3, padding=int(config.padded))
        self.proj2 = nn.Conv2d(wide, wide, 1)

    def forward(self, tokens: torch.Tensor, size: Size) -> torch.Tensor:
        x = F.pixel_shuffle(self.proj2(self.proj1(tokens)), 4)
        return F.interpolate(x, size, mode="bilinear", align_corners=False)


class TokenAttention(nn.Module):
    """depth + alpha · softmax(q·k / √c) v, q from the depth features, k and v from the token map, q and k of length 1.

    k and v are linear in the C channels t of the token map, whatever c is: q·k = (Kᵀq)·t / |Kt| and
    Σ w·Vt = V·Σ w·t. So the attention itself runs in C channels, which is the same and up to 3 times cheaper.
    """

    def __init__(self, channels: int, config: NaimaConfig) -> None:
        super().__init__()
        self.attend, self.scale = ATTENTIONS[config.attention], channels**-0.5
        self.q_proj = nn.Conv2d(channels, channels, 1, bias=False)
        self.k_proj = nn.Conv2d(config.width, channels, 1, bias=False)
        self.v_proj = nn.Conv2d(config.width, channels, 1, bias=False)
        self.alpha = nn.Parameter(torch.zeros(()))
        start = torch.tensor(math.log(SHARP / self.scale))
        self.log_sharpness = nn.Parameter(start) if config.temperature else None
        self.own = nn.Conv2d(config.width, channels, 1, bias=False) if config.own else None

    def forward(self, depth: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        q = F.normalize(self.q_proj(depth), dim=1, eps=1e-6)
        if self.log_sharpness is not None:
            q = q * self.log_sharpness.exp()
        q = F.conv_transpose2d(q, self.k_proj.weight)  # Kᵀq
        k = tokens / self.k_proj(tokens).norm(dim=1, keepdim=True).clamp(min=1e-6)
        q, k, v = (x.flatten(2).transpose(1, 2) for x in (q, k, tokens))
        mixed = self.attend(q, k, v, self.scale).transpose(1, 2).unflatten(2, depth.shape[-2:])
        heard = self.v_proj(mixed)
        if self.own is not None:
            heard = heard + self.own(tokens)
        return depth + self.alpha * heard


class Gta(nn.Module):
    """Guided Token Attention: depth features (b, channels, h, w) told of the tokens; RGB features encoded on."""

    def __init__(self, channels: int, config: NaimaConfig, last: bool = False) -> None:
        super().__init__()
        self.depth_encoder = DepthEncoder(channels, config.encoder)
        self.token_encoder = TokenEncoder(config)
        self.attention = TokenAttention(channels, config)
        self.rgb_encoder = nn.Identity() if last else RgbEncoder(config.width)

    def forward(self, depth: torch.Tensor, tokens: torch.Tensor, rgb: torch.Tensor) -> Pair:
        depth = self.depth_encoder(depth)
        size = (depth.shape[-2], depth.shape[-1])
        return self.attention(depth, self.token_encoder(tokens, size)), self.rgb_encoder(rgb)


class UnetConv(nn.Module):
    """Two convolutions, plus a 1x1 convolution of the input, which is run with the first."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.first, self.second = _conv3(channels, width), _conv3(width, width)
        self.identity = nn.Conv2d(channels, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = torch.cat([self.first.weight, F.pad(self.identity.weight, (1, 1, 1, 1))])
        bias = torch.cat([_bias(self.first), _bias(self.identity)])
        y, same = F.conv2d(x, weight, bias, padding=1).chunk(2, dim=1)
        return _leaky(self.second(F.leaky_relu(y, 0.1)), 0.1) + same


class DenseBlock(nn.Module):
    """(b, channels, h, w) to (b, width, h, w); two steps of ``growth`` channels each are seen by the last."""

    def __init__(self, channels: int, width: int, growth: int = 8) -> None:
        super().__init__()
        self.conv1, self.conv2 = UnetConv(channels, growth), UnetConv(growth, growth)
        self.conv3 = _conv3(channels + 2 * growth, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x1 = _leaky(self.conv1(x), 0.2)
        x2 = _leaky(self.conv2(x1), 0.2)
        return _leaky(self.conv3(torch.cat([x, x1, x2], dim=1)), 0.2)


class InvertibleBlock(nn.Module):
    """An affine coupling (Glow, Kingma and Dhariwal 2018), run forward only; (b, channels, h, w) to the same.

    The released code learns the 1x1 convolution ``mix`` by its LU factors; here it is one matrix.
    """

    def __init__(self, channels: int, split: int) -> None:
        super().__init__()
        self.split = split
        self.mix = nn.Conv2d(channels, channels, 1, bias=False)
        nn.init.orthogonal_(self.mix.weight)
        self.f = DenseBlock(channels - split, split)
        self.g, self.h = DenseBlock(split, channels - split), DenseBlock(split, channels - split)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x1, x2 = F.conv2d(x, self.mix.weight[: self.split]), F.conv2d(x, self.mix.weight[self.split :])
        y1 = overwritten(torch.add, x1, self.f(x2))
        return torch.cat([y1, overwritten(_coupled, x2, self.h(y1), self.g(y1))], dim=1)


class SpectrumFusion(nn.Module):
    """The paper's FreDiff: two spectra (b, channels, bins), of depth and of RGB, to one, bin by bin."""

    def __init__(self, depth: int, rgb: int, width: int) -> None:
        super().__init__()
        self.pre_depth, self.pre_rgb = nn.Conv2d(depth, width, 1), nn.Conv2d(rgb, width, 1)
        self.keep = _two_conv1(width, width, width)
        self.differ = _two_conv1(width, width, width)
        self.post = nn.Conv2d(2 * width, width, 1)

    def forward(self, depth: torch.Tensor, rgb: torch.Tensor) -> torch.Tensor:
        d, g = _mixed(self.pre_depth, depth), _mixed(self.pre_rgb, rgb)
        keep, last_keep = _ends(self.keep)
        differ, last_differ = _ends(self.differ)
        kept = _leaky(_mixed(keep, d), 0.1)
        different = _leaky(_mixed(differ, (g - d).abs()), 0.1)
        # post(cat(last_keep(kept), last_differ(different))), as one matrix for each
        a, b = self.post.weight.flatten(1).chunk(2, dim=1)
        bias = a @ _bias(last_keep) + b @ _bias(last_differ) + _bias(self.post)
        a, b = a @ last_keep.weight.flatten(1), b @ last_differ.weight.flatten(1)
        return a @ kept + b @ different + bias[:, None]


class FrequencyFusion(nn.Module):
    """The paper's SDB: depth (b, channels, H, W) and RGB features fused as amplitudes and phases of their spectra."""

    def __init__(self, channels: int, config: NaimaConfig) -> None:
        super().__init__()
        rgb, times = config.width, 2 if config.circle else 1
        self.circle = config.circle
        self.pre_depth, self.pre_rgb = nn.Conv2d(channels, channels, 1), nn.Conv2d(rgb, rgb, 1)
        self.amplitude = SpectrumFusion(channels, rgb, channels)
        self.phase = SpectrumFusion(times * channels, times * rgb, times * channels)
        self.post = nn.Conv2d(channels, channels, 1)

    def forward(self, depth: torch.Tensor, rgb: torch.Tensor) -> torch.Tensor:
        size = depth.shape[-2:]
        both = ((self.pre_depth, depth), (self.pre_rgb, rgb))
        d, g = (_spectrum(_mixed(conv, x).unflatten(2, size) + TINY).flatten(2) for conv, x in both)
        fused = overwritten(self._fused, d, g, step=BINS).unflatten(2, (size[0], -1))
        if exporting():
            planes = irfft2(fused, (size[0], size[1])).abs()
        else:
            planes = torch.cat([torch.fft.irfft2(part, s=size).abs_() for part in fused.split(8, dim=1)], dim=1)
        weight = self.post.weight.flatten(1).t().expand(len(planes), -1, -1)
        pixels = torch.baddbmm(_bias(self.post), planes.flatten(2).transpose(1, 2), weight)
        return pixels.unflatten(1, size).permute(0, 3, 1, 2)

    def _fused(self, d: AnySpectrum, g: AnySpectrum) -> AnySpectrum:
        """Two complex spectra (b, channels, bins) to one."""
        amplitude = self.amplitude(d.abs(), g.abs())
        if self.circle:
            x, y = self.phase(_on_circle(d), _on_circle(g)).chunk(2, dim=1)
            length = (x.square() + y.square() + TINY).sqrt()
            cosine, sine = x / length, y / length
        else:
            phase = self.phase(d.angle(), g.angle())
            cosine, sine = phase.cos(), phase.sin()
        real, imag = amplitude * cosine + 2 * TINY, amplitude * sine + TINY
        return Spectrum(real, imag) if exporting() else torch.complex(real, imag)


class Bridge(nn.Module):
    """Depth features (b, channels, h, w) meet RGB features at full resolution, in space and in frequency."""

    def __init__(self, channels: int, config: NaimaConfig) -> None:
        super().__init__()
        rgb = config.width
        self.up = BackProjection(channels, channels, config.scale, up=True)
        self.down = BackProjection(channels, channels, config.scale, up=False)
        self.rgb_next, self.rgb_in = _conv3(rgb, rgb), nn.Conv2d(rgb, rgb, 1)
        self.space = nn.Sequential(InvertibleBlock(channels + rgb, channels), nn.Conv2d(channels + rgb, channels, 1))
        self.frequency = FrequencyFusion(channels, config)
        self.fuse = nn.Sequential(InvertibleBlock(2 * channels, channels), nn.Conv2d(2 * channels, channels, 1))
        self.gate = _two_conv1(channels, channels // 2, channels)

    def forward(self, depth: torch.Tensor, rgb: torch.Tensor) -> Pair:
        """The new depth features, low resolution, and the next RGB features, full resolution."""
        large = self.up(depth)
        rgb = self.rgb_next(rgb)
        r = self.rgb_in(rgb)
        both = torch.cat([self.space(torch.cat([large, r], dim=1)), self.frequency(large, r)], dim=1)
        fused = self.fuse(both)
        mean = fused.mean(dim=(2, 3), keepdim=True)
        gate = self.gate(spread(fused, mean) + mean).sigmoid()
        return self.down(overwritten(lambda x, y: torch.addcmul(x, y, gate), large, fused)), rgb


class Upsampler(nn.Module):
    """Features (b, 3C, h, w) to the residual depth (b, stem², H, W): the costly part, all at full resolution."""

    def __init__(self, config: NaimaConfig) -> None:
        super().__init__()
        c = config.width
        self.project = BackProjection(3 * c, 2 * c, config.scale, up=True)
        self.encoders = nn.Sequential(*(DepthEncoder(2 * c, config.upsampler) for _ in range(3)))
        self.narrow, self.last = _conv3(2 * c, c), _conv3(c, config.stem**2)
        self.detail = _conv3(c, 2 * c) if config.detail else None

    def forward(self, x: torch.Tensor, rgb: torch.Tensor) -> torch.Tensor:
        x = self.project(x)
        if self.detail is not None:
            x = x + self.detail(rgb)
        return self.last(_leaky(self.narrow(self.encoders(x)), 0.2))


class Naima(Model):
    """RGB and low-resolution depth to sharp depth: frozen DINOv2 tokens tell where an edge is one of things.

    ``network`` is the released forward: standardised RGB whose sides are multiples of 14 and of the scale, and a
    low map in 0..1, exactly ``scale`` times smaller. ``forward`` takes what a sensor gives: metres, holes, any
    size and ratio. Names follow the paper's data flow: GTA1..4 with bridges between them, then the upsampler.
    """

    inputs: ClassVar[tuple[str, ...]] = ("low", "rgb")
    one_size: ClassVar[bool] = True
    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, config: NaimaConfig = NaimaConfig()) -> None:
        super().__init__()
        self.config = config
        c = config.width
        self.tokens = Tokens(config)
        self.conv_depth = _conv3(2 if config.any_scale else 1, c)
        self.conv_rgb = _conv3((3 + config.enlarged) * config.stem**2, c)
        self.gta1, self.gta2 = Gta(c, config), Gta(2 * c, config)
        self.gta3, self.gta4 = Gta(2 * c, config), Gta(3 * c, config, last=True)
        self.conv1, self.conv2 = nn.Conv2d(c, c, 1), nn.Conv2d(2 * c, 2 * c, 1)
        self.conv3 = nn.Conv2d(2 * c, 3 * c, 1)
        self.bridge1, self.bridge2, self.bridge3 = (Bridge(i * c, config) for i in (1, 2, 3))
        self.reshape, self.project = nn.Conv2d(4 * c, 2 * c, 1), _conv3(c, 2 * c)
        self.upsampler = Upsampler(config)
        for name, values in zip(("mean", "deviation"), IMAGENET, strict=True):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def network(self, rgb: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
        """As released: standardised ``rgb`` (b, 3, H, W), ``low`` (b, 1, H/s, W/s) in 0..1, to (b, 1, H, W)."""
        enlarged = _bicubic(low[:, :1], (rgb.shape[-2], rgb.shape[-1]))
        return self.residual(self._seen(rgb, enlarged), low) + enlarged

    def residual(self, seen: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
        """What ``network`` adds to the bicubic enlargement of ``low``; ``seen``: what the RGB branch sees."""
        tokens = self.tokens(seen[:, :3])
        depth1 = _leaky(self.conv_depth(low), 0.2)
        rgb1 = _leaky(self.conv_rgb(F.pixel_unshuffle(seen, self.config.stem)), 0.2)
        d, r = self.gta1(depth1, tokens[0], rgb1)
        b, rgb2 = self.bridge1(self.conv1(d), r)
        d, r = self.gta2(torch.cat([d, b + depth1], dim=1), tokens[1], rgb2)
        b, rgb3 = self.bridge2(self.conv2(d), r)
        depth3 = self.reshape(torch.cat([d, b + self.project(depth1)], dim=1))
        d, r = self.gta3(depth3, tokens[2], rgb3)
        b, rgb4 = self.bridge3(self.conv3(d), r)
        d, _ = self.gta4(b, tokens[3], rgb4)
        return F.pixel_shuffle(self.upsampler(d, rgb4), self.config.stem)

    def forward(self, low: Depth, valid: Mask, rgb: Rgb) -> Depth:
        """``low`` (b, 1, h, w), its mask, ``rgb`` (b, 3, H, W) to depth (b, 1, H, W) in the unit of ``low``.

        Normalised by the readings' own smallest and largest, holes filled. Another ratio than ``scale`` is brought
        to it first; sides that do not divide are padded with the border's own values and cut off again.
        """
        size = (rgb.shape[-2], rgb.shape[-1])
        x, middle, span = normalised(low, valid)
        x = x + 0.5  # 0..1, as the released code has it
        enlarged = _bicubic(x, size)
        seen = self._seen((rgb - self.mean) / self.deviation, enlarged)
        padded = F.pad(seen, self._border(size), mode="replicate")
        small = self._at_scale(x, enlarged)
        if self.config.any_scale:
            ratio = math.sqrt(size[0] / x.shape[-2] * size[1] / x.shape[-1])
            small = torch.cat([small, torch.full_like(small, math.log2(ratio / self.config.ratio))], dim=1)
        residual = self._in_tiles(padded, small)[..., : size[0], : size[1]]
        return restored(enlarged + residual - 0.5, valid, middle, span)

    def _seen(self, rgb: torch.Tensor, enlarged: torch.Tensor) -> torch.Tensor:
        return torch.cat([rgb, enlarged - 0.5], dim=1) if self.config.enlarged else rgb

    def _in_tiles(self, seen: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
        """``residual`` of overlapping squares, blended linearly; of the whole where it is small enough."""
        step, scale = self.config.step, self.config.ratio
        tile = self.config.tile // step * step
        height, width = seen.shape[-2:]
        if not tile or max(height, width) <= tile:
            return self.residual(seen, low)
        total, weight = seen.new_zeros(len(seen), 1, height, width), seen.new_zeros(1, 1, height, width)
        for top, tall in _windows(height, tile, step):
            for left, wide in _windows(width, tile, step):
                here = (..., slice(top, top + tall), slice(left, left + wide))
                rows = slice(top // scale, (top + tall) // scale)
                columns = slice(left // scale, (left + wide) // scale)
                share = _hat(tall, seen)[:, None] * _hat(wide, seen)
                total[here] += share * self.residual(seen[here], low[..., rows, columns])
                weight[here] += share
        return total / weight

    def _border(self, size: Size) -> tuple[int, int, int, int]:
        """Pixels to add left, right, above, below, so that patches and low pixels divide the sides."""
        step = self.config.step
        least = 1 if self.config.padded else 3  # patches that the token convolution needs
        height, width = (max(n, least * self.config.patch) for n in size)
        return (0, width + -width % step - size[1], 0, height + -height % step - size[0])

    def _at_scale(self, x: Depth, enlarged: Depth) -> Depth:
        """The low map ``x`` for the padded picture: ``scale`` times smaller than it, pixel on pixel."""
        scale, size = self.config.ratio, (enlarged.shape[-2], enlarged.shape[-1])
        border = self._border(size)
        if size == (scale * x.shape[-2], scale * x.shape[-1]):
            return F.pad(x, (0, border[1] // scale, 0, border[3] // scale), mode="replicate")
        padded = F.pad(enlarged, border, mode="replicate")
        small = (padded.shape[-2] // scale, padded.shape[-1] // scale)
        if exporting():
            return resized(padded, small, "bicubic")
        return F.interpolate(padded, small, mode="bicubic", align_corners=False, antialias=True)

    @torch.no_grad()
    def calmed(self) -> Self:
        """Weights to begin a training with: what is new says nothing yet, so the output is bicubic's.

        Convolutions keep the size of what passes through them (He et al. 2015): torch's own start leaves a hundredth of
        it by the third bridge. Residual blocks, bridges and what tokens say end in zeros (as Fixup, Zhang et al. 2019).
        """
        twice = [part for part in self.modules() if isinstance(part, BackProjection)]  # two ways are added up there
        linear = {conv for part in twice for conv in (part.conv1, part.conv2, part.conv3)}
        for name, layer in self.named_modules():
            if name.startswith("tokens.") or not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                continue
            heard = layer.in_channels * layer.kernel_size[0] ** 2
            if isinstance(layer, nn.ConvTranspose2d):
                heard //= layer.stride[0] ** 2
            if not name.endswith(".mix"):
                layer.weight.normal_(0, math.sqrt((1 if layer in linear else 2) / heard))
            if layer.bias is not None:
                layer.bias.zero_()
        silent: list[nn.Module | None] = [self.upsampler.last]
        for part in self.modules():
            if isinstance(part, Rcab | RgbEncoder):
                silent.append(part.second)
            elif isinstance(part, DepthEncoder):
                part.blocks[-1].weight.mul_(0.1)  # type: ignore[operator]
            elif isinstance(part, Bridge):
                silent.append(part.fuse[1])
            elif isinstance(part, TokenAttention):
                part.alpha.fill_(1)
                silent += [part.v_proj, part.own]
        for weight in (w for layer in silent if layer is not None for w in layer.parameters()):
            weight.zero_()
        return self

    @classmethod
    def from_file(cls, path: Path, **switches: Any) -> Self:
        """The network saved at ``path``; ``switches`` replace fields of its config (attention="linear").

        Raises InputError when the file is missing or not one of ours.
        """
        return saved.read(path, "Naima", lambda fields: cls(NaimaConfig(**{**fields, **switches})))

    def save(self, path: Path, dtype: torch.dtype = torch.float32) -> None:
        """Weights and the config, as safetensors."""
        saved.write(self, path, "naima", self.config, dtype)


def released_scale(state_dict: Mapping[str, Any]) -> int:
    """The scale an authors' checkpoint is for, by the size of its kernels. Raises InputError where there is none."""
    tensors = unwrapped(state_dict)
    weight = tensors.get("bridge1.upBlock.conv_1.0.weight")
    found = [s for s, (size, _, _) in KERNELS.items() if weight is not None and weight.shape[-1:] == (size,)]
    if not found:
        raise InputError("this is no checkpoint of NAIMA: it holds no bridge1.upBlock.conv_1.0.weight of its shape")
    return found[0]


def from_released(state_dict: Mapping[str, Any], scale: int, attention: str = "fused") -> Naima:
    """The network of the authors' checkpoint for one ``scale``, in evaluation mode.

    ``state_dict``: as loaded, or still wrapped in ``model`` or ``state_dict``, or with ``module.`` before each
    name. Every tensor must find its place: InputError names those left over or missing, and a wrong scale.
    """
    tensors = unwrapped(state_dict)
    try:
        width, grid = len(tensors["conv_depth.weight"]), math.isqrt(tensors["semantics_encoder.pos_embed"].shape[1])
        kernel = tensors["bridge1.upBlock.conv_1.0.weight"].shape[-1]
    except (KeyError, IndexError, TypeError) as error:
        names = "conv_depth.weight, semantics_encoder.pos_embed or bridge1.upBlock.conv_1.0.weight"
        raise InputError(f"this is no checkpoint of NAIMA: {names} is missing, or of another shape") from error
    config = NaimaConfig(scale=scale, width=width, grid=grid, attention=attention)
    found = [s for s, (size, _, _) in KERNELS.items() if size == kernel]
    if found != [scale]:
        raise InputError(f"this checkpoint's kernels are {kernel}x{kernel}, of scale {found}: it is not for x{scale}")
    tensors = renamed(tensors)
    model = Naima(config)
    wanted = set(model.state_dict())
    refuse("left over in the checkpoint", set(tensors) - wanted)
    refuse("missing from the checkpoint", wanted - set(tensors))
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(f"a tensor of the checkpoint has another shape: {error}") from error
    return model.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]


SMALL_CONFIG = NaimaConfig(
    scale=2,
    width=24,
    encoder=1,
    upsampler=2,
    token_channels=96,
    token_blocks=6,
    token_heads=3,
    patch=8,
    grid=20,
    layers=(1, 2, 3, 5),
    any_scale=True,
    padded=True,
    temperature=True,
    own=True,
    circle=True,
    sized=True,
    detail=True,
    enlarged=True,
    stem=4,
    tile=1280,
)


def _windows(length: int, tile: int, step: int) -> list[tuple[int, int]]:
    """(start, length) of windows of ``tile`` over ``length``, a quarter overlapping; multiples of ``step``."""
    if length <= tile:
        return [(0, length)]
    stride = max(step, tile * 3 // 4 // step * step)
    return [(min(start, length - tile), tile) for start in range(0, length - tile + stride, stride)]


def _hat(length: int, like: torch.Tensor) -> torch.Tensor:
    """Rising from the one end and falling to the other, over a quarter each; never 0."""
    place = torch.arange(length, device=like.device, dtype=like.dtype) + 0.5
    return (torch.minimum(place, length - place) / (length / 4)).clamp(max=1)


def _conv3(channels: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 3, padding=1)


def _two_conv1(channels: int, narrow: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, narrow, 1), nn.LeakyReLU(0.1), nn.Conv2d(narrow, width, 1))


def _ends(two: nn.Sequential) -> tuple[nn.Conv2d, nn.Conv2d]:
    """The two convolutions of a ``_two_conv1``."""
    first, last = two[0], two[2]
    assert isinstance(first, nn.Conv2d)
    assert isinstance(last, nn.Conv2d)
    return first, last


def _bias(conv: nn.Conv2d) -> torch.Tensor:
    assert conv.bias is not None
    return conv.bias


def _leaky(x: torch.Tensor, slope: float) -> torch.Tensor:
    """leaky_relu, written over what a convolution has just made."""
    return F.leaky_relu(x, slope, inplace=True)


def _mixed(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """A 1x1 convolution of ``x`` (b, n, ...) in whatever layout, as planes (b, m, pixels)."""
    weight = conv.weight.flatten(1).expand(len(x), -1, -1)
    return torch.baddbmm(_bias(conv)[:, None], weight, x.flatten(2))


def _coupled(x: torch.Tensor, h: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    return x * torch.exp(0.8 * (2 * torch.sigmoid(h) - 1)) + g


def _bicubic(x: torch.Tensor, size: Size) -> torch.Tensor:
    return F.interpolate(x, size, mode="bicubic", align_corners=False)


def _spectrum(x: torch.Tensor) -> AnySpectrum:
    """rfft2 (b, c, H, W/2 + 1), its real bins with imaginary part +0: rounding would choose between phase +π and -π."""
    spectrum = rfft2(x.float()) if exporting() else torch.fft.rfft2(x.float())
    imag = spectrum.imag
    height, width = x.shape[-2:]
    for row in {0, height // 2} if height % 2 == 0 else {0}:
        for column in {0, width // 2} if width % 2 == 0 else {0}:
            imag[..., row, column] = 0
    return spectrum


def _on_circle(spectrum: AnySpectrum) -> torch.Tensor:
    """Cosine and sine of the phase of (b, c, bins), (b, 2c, bins)."""
    length = spectrum.abs() + TINY
    return torch.cat([spectrum.real / length, spectrum.imag / length], dim=1)
