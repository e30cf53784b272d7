"""Weights in files, the network's shape in the header, read strictly."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from crispdepth.atomic import opened
from crispdepth.types import InputError

Network = TypeVar("Network", bound=nn.Module)
MAX_HEADER, MAX_CONFIG = 2**22, 4096  # bytes, characters
MAX_NUMBER = 4096  # of a config: channels, blocks; no network of ours comes near


def read(path: Path, name: str, build: Callable[[dict[str, Any]], Network]) -> Network:
    """The network saved at ``path``; ``build`` makes it from its config's fields; ``name`` is its class.

    Nothing is allocated before the file's header, its config and every tensor's shape fit each other. Raises
    InputError when the file is missing or holds anything but exactly this network's weights.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist: the weights are missing (install crispdepth again)")
    check_header(path)
    try:
        with safe_open(str(path), framework="pt") as file:
            fields = _config((file.metadata() or {})["config"])
            names = list(file.keys())
            with torch.device("meta"):  # shapes without memory
                expected = {key: list(x.shape) for key, x in build(fields).state_dict().items()}
            if {key: list(file.get_slice(key).get_shape()) for key in names} != expected:
                raise ValueError("its tensors are not those of its config")
            tensors = {key: file.get_tensor(key).float() for key in names}
        network = build(fields)
        network.load_state_dict(tensors)
    except InputError:
        raise
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} holds no weights of {name} ({error}): save them with {name}.save") from error
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def check_header(path: Path) -> None:
    """Raise InputError for a header larger than any of ours; the rest is safetensors' own to check."""
    with opened(path) as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER:
        raise InputError(f"{path} is no weights of ours: its header claims {length:,} bytes, {MAX_HEADER:,} at most")


def _config(text: str) -> dict[str, Any]:
    """The fields of a config, lists as tuples. Raises ValueError for more than any network of ours needs."""
    if len(text) > MAX_CONFIG:
        raise ValueError("its config is too long")
    fields = {key: tuple(v) if isinstance(v, list) else v for key, v in json.loads(text).items()}
    for key, value in fields.items():
        numbers = value if isinstance(value, tuple) else (value,)
        if any(isinstance(n, int | float) and not abs(n) <= MAX_NUMBER for n in numbers):
            raise ValueError(f"{key}={value} is out of range")
    return fields


def write(network: nn.Module, path: Path, word: str, config: Any, dtype: torch.dtype = torch.float16) -> None:
    """``network``'s weights as ``dtype``; ``word`` says in the header which model it is (catalog.SAVED)."""
    tensors = {k: v.detach().to(dtype).contiguous().cpu() for k, v in network.state_dict().items()}
    save_file(tensors, path, metadata={"model": word, "config": json.dumps(asdict(config))})
