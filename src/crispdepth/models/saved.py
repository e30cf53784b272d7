"""Weights in files, the network's shape in the header, read strictly."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from crispdepth.atomic import opened
from crispdepth.types import InputError, MissingPackage

MOST_HEADER = 2**24  # bytes
MOST_TENSORS = 20_000
MOST_PARAMETERS = 2**31
LARGEST_WORD = 2**14  # in a config: more channels, blocks or pixels than any of our networks has
TYPES = {"F16": 2, "BF16": 2, "F32": 4}  # bytes of a number
Network = TypeVar("Network", bound=nn.Module)


def read(path: Path, name: str, build: Callable[[dict[str, Any]], Network]) -> Network:
    """The network saved at ``path``; ``build`` makes it from its config's fields; ``name`` is its class.

    Nothing is allocated before the file's header, its config and every tensor's shape fit each other. Raises
    InputError when the file is missing or holds anything but exactly this network's weights.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist: the weights are missing (install crispdepth again)")
    words, shapes = header(path)
    try:
        config = json.loads(words["config"])
        _check_config(config)
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
        with torch.device("meta"):  # its shapes, without a byte of memory for them
            wanted = {key: tuple(x.shape) for key, x in build(fields).state_dict().items()}
        if wanted != shapes:
            odd = sorted(k for k in wanted.keys() | shapes.keys() if wanted.get(k) != shapes.get(k))
            raise ValueError(f"{len(odd)} tensors differ from its config, such as {odd[0]}")
        with safe_open(str(path), framework="pt") as file:
            tensors = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
        odd = [key for key, x in tensors.items() if not x.isfinite().all()]
        if odd:
            raise ValueError(f"{odd[0]} is NaN or inf: a training gone wrong")
        network = build(fields)
        network.load_state_dict(tensors)
    except MissingPackage:
        raise
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, RecursionError) as error:
        words_of = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path} holds no weights of {name} ({words_of}): save them with {name}.save") from error
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def header(path: Path) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """The words in a safetensors file's header, and each tensor's shape; nothing else is read or allocated.

    The format: 8 bytes of header length, the header as JSON, the tensors' bytes without gap. Raises InputError for a
    header that is too long, promises more than the file holds, or numbers of another type than TYPES.
    """
    with opened(path) as file:
        try:
            return _header(file, os.fstat(file.fileno()).st_size)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError("is no safetensors file (its header is damaged); copy or export it again") from error


def _header(file: IO[bytes], size: int) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    length = int.from_bytes(file.read(8), "little")
    if size < 10 or length > min(MOST_HEADER, size - 8):
        raise InputError("is no safetensors file (its header's length is wrong); copy or export it again")
    rows = json.loads(file.read(length))
    words = rows.pop("__metadata__", {})
    if not all(isinstance(word, str) for word in words.values()) or len(rows) > MOST_TENSORS:
        raise InputError("is no file of weights (its header says too much); copy or export it again")
    shapes, spans = {}, []
    for key, row in rows.items():
        shape, (start, end) = tuple(row["shape"]), row["data_offsets"]
        if row["dtype"] not in TYPES or not all(type(n) is int and n >= 0 for n in (*shape, start, end)):
            raise InputError(f"is no file of weights ({row['dtype']} numbers); save it as F16 or F32")
        if end - start != math.prod(shape) * TYPES[row["dtype"]] or math.prod(shape) > MOST_PARAMETERS:
            raise InputError("is damaged (a tensor's size is wrong); copy or export it again")
        shapes[key] = shape
        spans.append((start, end))
    ends = [0, *(end for _, end in sorted(spans))]
    if [start for start, _ in sorted(spans)] != ends[:-1] or ends[-1] != size - 8 - length:
        raise InputError("is damaged (it holds fewer or more bytes than it promises); copy or export it again")
    return words, shapes


def _check_config(x: Any, depth: int = 0) -> None:
    """Raise ValueError for numbers in a config that would make a network of absurd size."""
    if depth > 4 or (isinstance(x, list) and len(x) > 64) or (isinstance(x, str) and len(x) > 20_000):
        raise ValueError("its config is too long")
    if isinstance(x, int | float) and not -LARGEST_WORD <= x <= LARGEST_WORD:
        raise ValueError(f"its config says {x:g}, which no network of ours needs")
    for part in x.values() if isinstance(x, dict) else x if isinstance(x, list) else ():
        _check_config(part, depth + 1)


def write(network: nn.Module, path: Path, word: str, config: Any, dtype: torch.dtype = torch.float16) -> None:
    """``network``'s weights as ``dtype``; ``word`` says in the header which model it is (catalog.SAVED).

    Batch norm's counters of steps, which nobody reads, are 0: 16 bits cannot hold them.
    """
    state = {k: v if v.is_floating_point() else torch.zeros_like(v) for k, v in network.state_dict().items()}
    tensors = {k: v.detach().to(dtype).contiguous().cpu() for k, v in state.items()}
    path.write_bytes(save(tensors, metadata={"model": word, "config": json.dumps(asdict(config))}))
