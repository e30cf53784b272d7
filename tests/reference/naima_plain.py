"""NAIMA (arXiv 2604.04407) as its specification reads, step after step, under the names of the authors' checkpoints.

For comparison only: float32, every convolution and every attention weight written out, nothing merged or left out.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

PROJECTIONS = {2: (6, 2, 2), 4: (8, 4, 2), 8: (12, 8, 2), 16: (20, 16, 2)}  # scale: kernel, stride, padding
GRIDS = {2: 30, 4: 30, 8: 32, 16: 32}  # patches along a side of the picture the position embedding was made for
Pair = tuple[torch.Tensor, torch.Tensor]


def conv3(n: int, m: int) -> nn.Conv2d:
    return nn.Conv2d(n, m, 3, padding=1)


def conv1(n: int, m: int) -> nn.Conv2d:
    return nn.Conv2d(n, m, 1)


# DINOv2, ViT-S/14


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gamma


class VitBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn, self.mlp = SelfAttention(width, heads), Mlp(width)
        self.ls1, self.ls2 = LayerScale(width), LayerScale(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, 14, 14)

    def forward(self, rgb: torch.Tensor) -> torch.Tensor:
        return self.proj(rgb).flatten(2).transpose(1, 2)


class Dino(nn.Module):
    def __init__(self, grid: int, width: int = 384, blocks: int = 12, heads: int = 6) -> None:
        super().__init__()
        self.grid = grid
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid * grid, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))
        self.patch_embed = PatchEmbed(width)
        self.blocks = nn.ModuleList(VitBlock(width, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, rgb: torch.Tensor) -> list[torch.Tensor]:
        h, w = rgb.shape[-2] // 14, rgb.shape[-1] // 14
        x = torch.cat([self.cls_token.expand(len(rgb), -1, -1), self.patch_embed(rgb)], dim=1) + self.positions(h, w)
        taken = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in (2, 5, 8, 11):
                taken.append(self.norm(x)[:, 1:])
        return taken

    def positions(self, h: int, w: int) -> torch.Tensor:
        if h == w == self.grid:
            return self.pos_embed
        plane = self.pos_embed[:, 1:].reshape(1, self.grid, self.grid, -1).permute(0, 3, 1, 2)
        factors = ((h + 0.1) / self.grid, (w + 0.1) / self.grid)
        plane = F.interpolate(plane, scale_factor=factors, mode="bicubic", align_corners=False)
        return torch.cat([self.pos_embed[:, :1], plane.flatten(2).transpose(1, 2)], dim=1)


# Guided Token Attention


class ChannelGate(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        few = max(1, n // 16)
        self.conv_du = nn.Sequential(conv1(n, few), nn.ReLU(), conv1(few, n), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.conv_du(x.mean(dim=(2, 3), keepdim=True))


class Rcab(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv3(n, n), nn.LeakyReLU(0.2), conv3(n, n), ChannelGate(n))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) + x


class DepthEncoder(nn.Module):
    def __init__(self, n: int, blocks: int) -> None:
        super().__init__()
        self.att_blocks = nn.Sequential(*(Rcab(n) for _ in range(blocks)), conv3(n, n))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.att_blocks(x) + x


class RgbBody(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv3(n, n), nn.LeakyReLU(0.2), conv3(n, n))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) + x


class RgbEncoder(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.blocks = RgbBody(n)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(x)


class TokenEncoder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj1, self.proj2 = nn.Conv2d(384, 16 * width, 3), conv1(16 * width, 16 * width)

    def forward(self, tokens: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        x = F.pixel_shuffle(self.proj2(self.proj1(tokens)), 4)
        return F.interpolate(x, size, mode="bilinear", align_corners=False)


class Attention(nn.Module):
    def __init__(self, n: int, width: int) -> None:
        super().__init__()
        self.q_proj = nn.Conv2d(n, n, 1, bias=False)
        self.k_proj = nn.Conv2d(width, n, 1, bias=False)
        self.v_proj = nn.Conv2d(width, n, 1, bias=False)
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, depth: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        q = F.normalize(self.q_proj(depth).flatten(2), dim=1, eps=1e-6)
        k = F.normalize(self.k_proj(tokens).flatten(2), dim=1, eps=1e-6)
        v = self.v_proj(tokens).flatten(2)
        weights = (q.transpose(1, 2) @ k / q.shape[1] ** 0.5).softmax(dim=-1)  # (b, N, N)
        return depth + self.alpha * (v @ weights.transpose(1, 2)).unflatten(2, depth.shape[-2:])


class SpatialProjector(nn.Module):
    def __init__(self, n: int, width: int) -> None:
        super().__init__()
        self.token_encoder, self.att = TokenEncoder(width), Attention(n, width)

    def forward(self, depth: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return self.att(depth, self.token_encoder(tokens, (depth.shape[-2], depth.shape[-1])))


class Gta(nn.Module):
    def __init__(self, n: int, width: int) -> None:
        super().__init__()
        self.spatial_projector = SpatialProjector(n, width)
        self.depth_enc, self.rgb_encoder = DepthEncoder(n, 6), RgbEncoder(width)

    def forward(self, depth: torch.Tensor, tokens: torch.Tensor, rgb: torch.Tensor) -> Pair:
        tokens = tokens.transpose(1, 2).unflatten(2, (rgb.shape[-2] // 14, rgb.shape[-1] // 14))
        return self.spatial_projector(self.depth_enc(depth), tokens), self.rgb_encoder(rgb)


# Bridge


class InvertibleConv(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.l, self.u, self.log_s = (nn.Parameter(torch.zeros(shape)) for shape in ((n, n), (n, n), (n,)))
        self.p: torch.Tensor
        self.sign_s: torch.Tensor
        self.register_buffer("p", torch.eye(n))
        self.register_buffer("sign_s", torch.ones(n))

    def weight(self) -> torch.Tensor:
        lower = self.l * torch.ones_like(self.l).tril(-1) + torch.eye(len(self.l), device=self.l.device)
        upper = self.u * torch.ones_like(self.u).triu(1) + torch.diag(self.sign_s * self.log_s.exp())
        return (self.p @ lower @ upper)[..., None, None]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.weight())


class UnetConv(nn.Module):
    def __init__(self, n: int, m: int) -> None:
        super().__init__()
        self.identity, self.conv_1, self.conv_2 = conv1(n, m), conv3(n, m), conv3(m, m)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.leaky_relu(self.conv_1(x), 0.1)
        y = F.leaky_relu(self.conv_2(y), 0.1)
        return y + self.identity(x)


class DenseBlock(nn.Module):
    def __init__(self, n: int, m: int, growth: int = 8) -> None:
        super().__init__()
        self.conv1, self.conv2 = UnetConv(n, growth), UnetConv(growth, growth)
        self.conv3 = conv3(n + 2 * growth, m)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x1 = F.leaky_relu(self.conv1(x), 0.2)
        x2 = F.leaky_relu(self.conv2(x1), 0.2)
        return F.leaky_relu(self.conv3(torch.cat([x, x1, x2], dim=1)), 0.2)


class InvBlock(nn.Module):
    def __init__(self, n: int, split: int) -> None:
        super().__init__()
        self.split = split
        self.invconv = InvertibleConv(n)
        self.F = DenseBlock(n - split, split)
        self.G, self.H = DenseBlock(split, n - split), DenseBlock(split, n - split)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.invconv(x)
        x1, x2 = x[:, : self.split], x[:, self.split :]
        y1 = x1 + self.F(x2)
        s = 0.8 * (2 * torch.sigmoid(self.H(y1)) - 1)
        y2 = x2 * torch.exp(s) + self.G(y1)
        return torch.cat([y1, y2], dim=1)


class FreDiff(nn.Module):
    def __init__(self, n: int, width: int) -> None:
        super().__init__()
        self.pre_dep, self.pre_rgb = conv1(n, n), conv1(width, n)
        self.fuse_c = nn.Sequential(conv1(n, n), nn.LeakyReLU(0.1), conv1(n, n))
        self.fuse_sub = nn.Sequential(conv1(n, n), nn.LeakyReLU(0.1), conv1(n, n))
        self.post = conv1(2 * n, n)

    def forward(self, depth: torch.Tensor, rgb: torch.Tensor) -> torch.Tensor:
        d, g = self.pre_dep(depth), self.pre_rgb(rgb)
        return self.post(torch.cat([self.fuse_c(d), self.fuse_sub(torch.abs(g - d))], dim=1))


class Sdb(nn.Module):
    def __init__(self, n: int, width: int) -> None:
        super().__init__()
        self.pre1, self.pre2, self.post = conv1(n, n), conv1(width, width), conv1(n, n)
        self.amp_fuse, self.pha_fuse = FreDiff(n, width), FreDiff(n, width)

    def forward(self, depth: torch.Tensor, rgb: torch.Tensor) -> torch.Tensor:
        d = torch.fft.rfft2(self.pre1(depth) + 1e-8)
        g = torch.fft.rfft2(self.pre2(rgb) + 1e-8)
        amplitude = self.amp_fuse(torch.abs(d), torch.abs(g))
        phase = self.pha_fuse(torch.angle(d), torch.angle(g))
        real = amplitude * torch.cos(phase) + 1e-8
        imag = amplitude * torch.sin(phase) + 1e-8
        fused = torch.complex(real, imag) + 1e-8
        return self.post(torch.abs(torch.fft.irfft2(fused, s=depth.shape[-2:])))


class BackProjection(nn.Module):
    def __init__(self, n: int, scale: int, up: bool) -> None:
        super().__init__()
        there, back = (nn.ConvTranspose2d, nn.Conv2d) if up else (nn.Conv2d, nn.ConvTranspose2d)
        self.conv_1 = nn.Sequential(there(n, n, *PROJECTIONS[scale]), nn.PReLU(n))
        self.conv_2 = nn.Sequential(back(n, n, *PROJECTIONS[scale]), nn.PReLU(n))
        self.conv_3 = nn.Sequential(there(n, n, *PROJECTIONS[scale]), nn.PReLU(n))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a0 = self.conv_1(x)
        b0 = self.conv_2(a0)
        return a0 + self.conv_3(b0 - x)


class Bridge(nn.Module):
    def __init__(self, n: int, width: int, scale: int) -> None:
        super().__init__()
        self.rgbprocess, self.rgbpre = conv3(width, width), conv1(width, width)
        self.spa_process = nn.Sequential(InvBlock(n + width, n), conv1(n + width, n))
        self.fre_process = Sdb(n, width)
        self.fuse_process = nn.Sequential(InvBlock(2 * n, n), conv1(2 * n, n))
        self.cha_att = nn.Sequential(conv1(n, n // 2), nn.LeakyReLU(0.1), conv1(n // 2, n), nn.Sigmoid())
        self.upBlock, self.downBlock = BackProjection(n, scale, up=True), BackProjection(n, scale, up=False)
        # in the authors' files, but not in the forward pass
        self.spa_att = nn.Sequential(conv3(n, n // 2), nn.LeakyReLU(0.1), conv3(n // 2, n), nn.Sigmoid())
        self.post = conv3(n, n)

    def forward(self, depth: torch.Tensor, rgb: torch.Tensor) -> Pair:
        dp = self.upBlock(depth)
        rgb = self.rgbprocess(rgb)
        r = self.rgbpre(rgb)
        spatial = self.spa_process(torch.cat([dp, r], dim=1))
        frequency = self.fre_process(dp, r)
        fused = self.fuse_process(torch.cat([spatial, frequency], dim=1))
        mean = fused.mean(dim=(2, 3), keepdim=True)
        deviation = (fused - mean).square().mean(dim=(2, 3), keepdim=True).sqrt()
        return self.downBlock(fused * self.cha_att(deviation + mean) + dp), rgb


class Upsampler(nn.Module):
    def __init__(self, width: int, scale: int) -> None:
        super().__init__()
        n, m = 3 * width, 2 * width
        self.upsampler1 = nn.ConvTranspose2d(n, m, *PROJECTIONS[scale])
        self.conv1 = nn.Conv2d(m, n, *PROJECTIONS[scale])
        self.upsampler2 = nn.ConvTranspose2d(n, m, *PROJECTIONS[scale])
        self.act1, self.act2, self.act3 = nn.PReLU(m), nn.PReLU(n), nn.PReLU(m)
        self.enc1, self.enc2, self.enc3 = (DepthEncoder(m, 8) for _ in range(3))
        self.conv2, self.conv3 = conv3(m, width), conv3(width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        u1 = self.act1(self.upsampler1(x))
        u2 = self.act2(self.conv1(u1)) - x
        u3 = self.act3(self.upsampler2(u2))
        x = self.enc3(self.enc2(self.enc1(u1 + u3)))
        return self.conv3(F.leaky_relu(self.conv2(x), 0.2))


class PlainNaima(nn.Module):
    """Standardised RGB (b, 3, H, W) and low depth (b, 1, H/scale, W/scale) in 0..1 to depth (b, 1, H, W)."""

    def __init__(self, scale: int, width: int = 48) -> None:
        super().__init__()
        n = width
        self.scale = scale
        self.semantics_encoder = Dino(GRIDS[scale])
        self.conv_rgb, self.conv_depth = conv3(3, n), conv3(1, n)
        self.GTA1, self.GTA2, self.GTA3, self.GTA4 = (Gta(i * n, n) for i in (1, 2, 2, 3))
        self.bridge1, self.bridge2, self.bridge3 = (Bridge(i * n, n, scale) for i in (1, 2, 3))
        self.conv1x1, self.conv1x1_2, self.conv1x1_3 = conv1(n, n), conv1(2 * n, 2 * n), conv1(2 * n, 3 * n)
        self.reshaper, self.conv_proj = conv1(4 * n, 2 * n), conv3(n, 2 * n)
        self.reshaper2 = conv1(8 * n, 3 * n)  # not in the forward pass
        self.upsampler = Upsampler(n, scale)

    def forward(self, rgb: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
        tokens = self.semantics_encoder(rgb)
        depth1 = F.leaky_relu(self.conv_depth(low), 0.2)
        rgb1 = F.leaky_relu(self.conv_rgb(rgb), 0.2)
        d, r = self.GTA1(depth1, tokens[0], rgb1)
        b, rgb2 = self.bridge1(self.conv1x1(d), r)
        depth2 = torch.cat([d, b + depth1], dim=1)
        d, r = self.GTA2(depth2, tokens[1], rgb2)
        b, rgb3 = self.bridge2(self.conv1x1_2(d), r)
        depth3 = self.reshaper(torch.cat([d, b + self.conv_proj(depth1)], dim=1))
        d, r = self.GTA3(depth3, tokens[2], rgb3)
        depth4, rgb4 = self.bridge3(self.conv1x1_3(d), r)
        d, _ = self.GTA4(depth4, tokens[3], rgb4)
        enlarged = F.interpolate(low, scale_factor=self.scale, mode="bicubic", align_corners=False)
        return self.upsampler(d) + enlarged


# The rule that fills a checkpoint with numbers, the same on every machine: by the first pattern that a name fits.

KINDS = (
    (r"\.pha_fuse\.pre_(dep|rgb)\.weight$", "zero"),  # a phase that rounding turns by 2 pi decides nothing then
    (r"\.invconv\.p$", "permutation"),
    (r"\.invconv\.sign_s$", "sign"),
    (r"\.invconv\.[lu]$", "triangular"),
    (r"\.alpha$", "alpha"),
    (r"norm\d?\.weight$|\.gamma$", "gain"),
    (r"Block\.conv_\d\.1\.weight$|^upsampler\.act\d\.weight$", "prelu"),
    (r"\.bias$|\.log_s$|_token$|\.pos_embed$", "small"),
    (r"\.weight$", "weight"),
)
FILLINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sign": lambda n: np.where(n >= 0, 1, -1),
    "gain": lambda n: 1 + 0.1 * n,
    "prelu": lambda n: 0.25 + 0.05 * n,
    "triangular": lambda n: 0.3 * n / np.sqrt(n.shape[0]),
    "weight": lambda n: n / np.sqrt(np.prod(n.shape[1:])),
    "small": lambda n: 0.02 * n,
}


def kind(key: str) -> str:
    """Which filling the tensor called ``key`` gets."""
    return next(kind for pattern, kind in KINDS if re.search(pattern, key))


def filling(key: str, shape: torch.Size, kind: str) -> torch.Tensor:
    """The numbers of the tensor called ``key``."""
    dice = np.random.Generator(np.random.PCG64(zlib.crc32(f"dev-{key}".encode())))
    if kind == "zero":
        return torch.zeros(shape)
    if kind == "permutation":
        return torch.eye(shape[0])[torch.from_numpy(dice.permutation(shape[0]))]
    if kind == "alpha":
        return torch.full(shape, 0.5)
    drawn = FILLINGS[kind](dice.standard_normal(tuple(shape), dtype=np.float32))
    return torch.from_numpy(np.asarray(drawn, dtype=np.float32))


def filled(scale: int, width: int = 48) -> PlainNaima:
    """The network with a filled checkpoint, in evaluation mode."""
    with torch.device("meta"):
        network = PlainNaima(scale, width)
    tensors = {key: filling(key, tensor.shape, kind(key)) for key, tensor in network.state_dict().items()}
    network.load_state_dict(tensors, assign=True)
    return network.eval()


def inputs(scale: int, height: int, width: int) -> Pair:
    """Standardised RGB and low depth, (1, 3, height, width) and (1, 1, height/scale, width/scale)."""
    dice = np.random.Generator(np.random.PCG64(zlib.crc32(f"dev-input-{height}x{width}-x{scale}".encode())))
    rgb = torch.from_numpy(dice.standard_normal((1, 3, height, width), dtype=np.float32))
    return rgb, torch.from_numpy(dice.random((1, 1, height // scale, width // scale), dtype=np.float32))
