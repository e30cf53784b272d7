"""The authors' checkpoints of NAIMA: their names and tensors under ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from crispdepth.types import InputError

# The authors' names to ours, in this order.
_RENAMES: tuple[tuple[str, str], ...] = (
    (r"^semantics_encoder\.(cls_token)$", r"tokens.vit.embeddings.\1"),
    (r"^semantics_encoder\.pos_embed$", "tokens.vit.embeddings.position_embeddings"),
    (r"^semantics_encoder\.patch_embed\.proj\.", "tokens.vit.embeddings.patch_embeddings.projection."),
    (r"^semantics_encoder\.norm\.", "tokens.vit.layernorm."),
    (r"^semantics_encoder\.blocks\.(\d+)\.", r"tokens.vit.encoder.layer.\1."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"\.ls([12])\.gamma$", r".layer_scale\1.lambda1"),
    (r"^GTA", "gta"),
    (r"\.spatial_projector\.token_encoder\.", ".token_encoder."),
    (r"\.spatial_projector\.att\.", ".attention."),
    (r"\.depth_enc\.", ".depth_encoder."),
    (r"\.rgb_encoder\.blocks\.body\.", ".rgb_encoder.body."),
    (r"^upsampler\.conv2\.", "upsampler.narrow."),
    (r"^upsampler\.conv3\.", "upsampler.last."),
    (r"^upsampler\.conv1\.", "upsampler.project.conv2."),
    (r"^upsampler\.upsampler1\.", "upsampler.project.conv1."),
    (r"^upsampler\.upsampler2\.", "upsampler.project.conv3."),
    (r"^upsampler\.act", "upsampler.project.act"),
    (r"^upsampler\.enc1\.", "upsampler.encoders.0."),
    (r"^upsampler\.enc2\.", "upsampler.encoders.1."),
    (r"^upsampler\.enc3\.", "upsampler.encoders.2."),
    (r"\.att_blocks\.", ".blocks."),
    (r"\.body\.0\.", ".first."),
    (r"\.body\.2\.", ".second."),
    (r"\.body\.3\.conv_du\.0\.", ".squeeze."),
    (r"\.body\.3\.conv_du\.2\.", ".excite."),
    (r"\.rgbprocess\.", ".rgb_next."),
    (r"\.rgbpre\.", ".rgb_in."),
    (r"\.(up|down)Block\.conv_(\d)\.0\.", r".\1.conv\2."),
    (r"\.(up|down)Block\.conv_(\d)\.1\.", r".\1.act\2."),
    (r"\.spa_process\.", ".space."),
    (r"\.fuse_process\.", ".fuse."),
    (r"\.F\.", ".f."),
    (r"\.G\.", ".g."),
    (r"\.H\.", ".h."),
    (r"\.conv_1\.", ".first."),
    (r"\.conv_2\.", ".second."),
    (r"\.fre_process\.", ".frequency."),
    (r"\.pre1\.", ".pre_depth."),
    (r"\.pre2\.", ".pre_rgb."),
    (r"\.amp_fuse\.", ".amplitude."),
    (r"\.pha_fuse\.", ".phase."),
    (r"\.pre_dep\.", ".pre_depth."),
    (r"\.fuse_c\.", ".keep."),
    (r"\.fuse_sub\.", ".differ."),
    (r"\.cha_att\.", ".gate."),
    (r"^conv1x1\.", "conv1."),
    (r"^conv1x1_2\.", "conv2."),
    (r"^conv1x1_3\.", "conv3."),
    (r"^reshaper\.", "reshape."),
    (r"^conv_proj\.", "project."),
)
# In the authors' files, but not in their forward pass.
UNUSED = re.compile(r"^reshaper2\.|^bridge\d\.(spa_att|post)\.|^GTA4\.rgb_encoder\.|\.mask_token$")
_LU = ("p", "l", "u", "sign_s", "log_s")


def unwrapped(state_dict: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors alone, without ``model`` or ``state_dict`` around them or ``module.`` before each name."""
    for key in ("model", "state_dict"):
        if isinstance(state_dict.get(key), Mapping):
            return unwrapped(state_dict[key])
    return {key.removeprefix("module."): tensor for key, tensor in state_dict.items()}


def renamed(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The authors' tensors under our names: q, k, v apart, the LU factors multiplied out, the unused ones dropped."""
    made = {}
    for key, tensor in tensors.items():
        if UNUSED.search(key):
            continue
        stem, _, part = key.rpartition(".")
        if stem.endswith(".invconv") and part in _LU:
            if part == "p":
                refuse("missing from the checkpoint", {f"{stem}.{name}" for name in _LU} - set(tensors))
                factors = {name: tensors[f"{stem}.{name}"].double() for name in _LU}
                made[_our_name(f"{stem.removesuffix('.invconv')}.mix.weight")] = _multiplied(factors)
        elif stem.endswith(".attn.qkv"):
            for name, third in zip("qkv", tensor.chunk(3), strict=True):
                made[_our_name(f"{stem.removesuffix('.attn.qkv')}.attention.{name}_proj.{part}")] = third
        else:
            made[_our_name(key)] = tensor
    return made


def _our_name(key: str) -> str:
    for pattern, ours in _RENAMES:
        key = re.sub(pattern, ours, key)
    return key


def _multiplied(factors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The 1x1 convolution's weight (n, n, 1, 1): P (L + I) (U + diag(sign · exp(log_s)))."""
    lower = factors["l"].tril(-1) + torch.eye(len(factors["l"]), dtype=torch.float64)
    upper = factors["u"].triu(1) + torch.diag(factors["sign_s"] * factors["log_s"].exp())
    return (factors["p"] @ lower @ upper).float()[..., None, None]


def refuse(what: str, names: set[str]) -> None:
    """Raises InputError if there are any ``names``."""
    if names:
        shown = ", ".join(sorted(names)[:5]) + (", …" if len(names) > 5 else "")
        raise InputError(f"{len(names)} tensors are {what}: {shown}")
