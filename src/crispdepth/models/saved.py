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

from crispdepth.types import InputError

Network = TypeVar("Network", bound=nn.Module)


def read(path: Path, name: str, build: Callable[[dict[str, Any]], Network]) -> Network:
    """The network saved at ``path``; ``build`` makes it from its config's fields; ``name`` is its class.

    Raises InputError when the file is missing or holds anything but exactly this network's weights.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist: the weights are missing (install crispdepth again)")
    try:
        with safe_open(str(path), framework="pt") as file:
            config = json.loads((file.metadata() or {})["config"])
            tensors = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
        network = build({k: tuple(v) if isinstance(v, list) else v for k, v in config.items()})
        network.load_state_dict(tensors)
    except InputError:
        raise
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} holds no weights of {name} ({error}): save them with {name}.save") from error
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def write(network: nn.Module, path: Path, word: str, config: Any, dtype: torch.dtype = torch.float16) -> None:
    """``network``'s weights as ``dtype``; ``word`` says in the header which model it is (catalog.SAVED)."""
    tensors = {k: v.detach().to(dtype).contiguous().cpu() for k, v in network.state_dict().items()}
    save_file(tensors, path, metadata={"model": word, "config": json.dumps(asdict(config))})
