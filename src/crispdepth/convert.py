"""convert: authors' checkpoints to our own files of weights."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from crispdepth.models.naima import Naima, from_released, released_scale
from crispdepth.types import InputError, Model

SYSTEMS = ("naima",)


def convert(system: str, checkpoint: Path, out: Path, scale: int | None = None) -> list[str]:
    """Write the authors' ``checkpoint`` of ``system`` as our weights into ``out``; lines that say what it holds.

    Pickled files are read by torch's ``weights_only`` loader, which runs no code. Raises InputError for a file
    that is none, a tensor that finds no place, and a scale that is not the file's.
    """
    if system not in SYSTEMS:
        raise InputError.unknown("system", system, SYSTEMS)
    if out.suffix != ".safetensors":
        raise InputError(f"-o {out} must end in .safetensors")
    if not out.parent.is_dir():
        raise InputError(f"the folder {out.parent} does not exist: make it first")
    tensors = _read(checkpoint)
    model = from_released(tensors, released_scale(tensors) if scale is None else scale)
    part = out.with_suffix(".part")
    try:
        model.save(part)
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
    return _lines(model, out)


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise InputError(f"{path} does not exist: name the authors' checkpoint")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError, ValueError) as error:
        raise InputError(
            f"{path} is no checkpoint of plain tensors: give the authors' .pth, or its state_dict saved by torch.save"
        ) from error
    if not isinstance(found, Mapping):
        raise InputError(f"{path} holds a {type(found).__name__}, not a state_dict")
    return found


def _lines(model: Model, out: Path) -> list[str]:
    count = sum(p.numel() for p in model.parameters())
    scale = model.config.scale if isinstance(model, Naima) else 0
    return [f"wrote {out}: x{scale}, {count:,} parameters", f"use it: crispdepth predict --model {out} …"]
