"""How far the ONNX file of each network is from torch: a row a network, with what it was run at."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from crispdepth.export import ODD, Sizes, deviation, to_onnx
from crispdepth.graphs import Graph
from crispdepth.models.catalog import load
from crispdepth.models.naima import Naima, NaimaConfig
from crispdepth.types import Model, Size

SCALE, SIZE = 8, (112, 160)  # of networks that have a file for one size alone
NAIMA = NaimaConfig(scale=SCALE, width=16, encoder=2, upsampler=2)


def made_up_naima(config: NaimaConfig = NAIMA) -> Naima:
    """NAIMA with random weights, no part of it zero: the authors' are not ours to bring, and full width takes hours."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Naima(config)
        with torch.no_grad():
            for weight in network.parameters():
                weight.add_(0.02 * torch.randn_like(weight))
    return network.eval()


NETWORKS: dict[str, tuple[str, Callable[[], Model]]] = {
    "crisp": ("its own", partial(load, "crisp")),
    "ctkt": ("its own", partial(load, "ctkt")),
    "symbiotic-small": ("its own", partial(load, "symbiotic-small")),
    "naima-small": ("its own", partial(load, "naima-small")),
    "naima_x8": (f"made up, width {NAIMA.width} instead of {NaimaConfig.width}", made_up_naima),
}


def measure(
    size: Size = SIZE,
    networks: dict[str, tuple[str, Callable[[], Model]]] = NETWORKS,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Each network exported, run by ONNX Runtime and compared; ``size``: the picture of those that have one size.

    ``deviation``: the largest difference from torch, as a share of the depth's range. Raises InputError where a package
    is missing or a network cannot be exported; a difference, however large, is only told.
    """
    rows = []
    for number, (name, (weights, make)) in enumerate(networks.items()):
        model = make()
        sizes = Sizes(size, (size[0] // SCALE, size[1] // SCALE)) if model.one_size else None
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            to_onnx(model, path, SCALE, sizes)
            off = deviation(model, Graph(path), SCALE, sizes)
        rows.append(
            {
                "network": name,
                "weights": weights,
                "parameters": sum(p.numel() for p in model.parameters()),
                "run_at": f"{size[1]}x{size[0]}" if sizes else f"{len(ODD)} odd sizes",
                "deviation": off,
            }
        )
        if progress:
            progress(number + 1, len(networks))
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """``measure`` as a Markdown table."""
    lines = ["| network | weights | parameters | run at | differs by, of the range |", "|---|---|---|---|---|"]
    for row in rows:
        million = f"{row['parameters'] / 1e6:.2f} M"
        lines.append(f"| {row['network']} | {row['weights']} | {million} | {row['run_at']} | {row['deviation']:.1e} |")
    return "\n".join(lines)
