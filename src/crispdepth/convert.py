"""convert: authors' checkpoints to our own files of weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file

from crispdepth.atomic import atomic, check_output, shown
from crispdepth.models.naima import Naima, from_released, released_scale
from crispdepth.models.naima_released import unwrapped
from crispdepth.types import InputError, Model

SYSTEMS = ("naima",)


def convert(system: str, checkpoint: Path, out: Path, scale: int | None = None) -> list[str]:
    """Write the authors' ``checkpoint`` of ``system`` as our weights into ``out``; lines that say what it holds.

    Pickled files are read by torch's ``weights_only`` loader, which runs no code. Raises InputError for a file
    that is none, a tensor that finds no place, and a scale that is not the file's.
    """
    if system not in SYSTEMS:
        raise InputError.unknown("system", system, SYSTEMS)
    check_output(out, [checkpoint], (".safetensors",))
    tensors = read(checkpoint)
    model = from_released(tensors, released_scale(tensors) if scale is None else scale)
    with atomic(out) as part:
        model.save(part)
    return _lines(model, out)


def read(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of an authors' checkpoint, by name; pickled or safetensors. Raises InputError."""
    if not path.is_file():
        raise InputError(f"{path} does not exist: name the authors' checkpoint")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a damaged file's pickle protocol
            safe = path.suffix == ".safetensors"
            found = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(found, Mapping):
            raise InputError(f"{path} holds a {type(found).__name__}, not a state_dict: give the authors' .pth")
        tensors = unwrapped(found)
    except InputError:
        raise
    except Exception as error:  # torch's unpickler meets a damaged file with any kind there is
        raise InputError(
            f"{path} is no checkpoint of plain tensors: give the authors' .pth, or its state_dict saved by torch.save"
        ) from error
    other = next((name for name, tensor in tensors.items() if not isinstance(tensor, torch.Tensor)), None)
    if other is not None:
        raise InputError(f"{path}: {shown(other)[:60]} is no tensor: give the authors' .pth, or its state_dict alone")
    return tensors


def _lines(model: Model, out: Path) -> list[str]:
    count = sum(p.numel() for p in model.parameters())
    scale = model.config.scale if isinstance(model, Naima) else 0
    return [f"wrote {out}: x{scale}, {count:,} parameters", f"use it: crispdepth predict --model {out} …"]
