"""The plain NAIMA: the authors' tensors by name, and their numbers."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from reference.naima_plain import filled, filling, inputs, kind

PARITY = Path(os.environ.get("CRISPDEPTH_PARITY", Path(__file__).resolve().parents[2] / "shared" / "parity"))
if not PARITY.is_dir():
    pytest.skip(f"no parity fixture at {PARITY} (set CRISPDEPTH_PARITY)", allow_module_level=True)


def off(made: torch.Tensor, name: str) -> float:
    """Largest difference from the released code's output, as a share of its largest value."""
    wanted = torch.from_numpy(np.load(PARITY / "naima_expected.npz")[name])
    return float((made - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("scale", [4, 8, 16])
def test_the_plain_network_holds_the_authors_tensors_and_gives_their_output(scale: int) -> None:
    network = filled(scale)
    layout = json.loads((PARITY / f"naima_x{scale}_keys.json").read_text(encoding="utf-8"))
    ours = {key: {"shape": list(tensor.shape), "kind": kind(key)} for key, tensor in network.state_dict().items()}
    assert ours == {key: {"shape": row["shape"], "kind": row["kind"]} for key, row in layout.items()}
    with torch.inference_mode():
        assert off(network(*inputs(scale, 112, 112)), f"x{scale}_112x112") < 1e-4


def test_the_plain_phases_are_the_authors() -> None:
    network = filled(8)
    for key, tensor in network.state_dict().items():
        if kind(key) == "zero":
            tensor.copy_(filling(key, tensor.shape, "weight"))
    dice = np.random.Generator(np.random.PCG64(zlib.crc32(b"dev-sdb-0")))
    depth, rgb = (torch.from_numpy(dice.standard_normal((1, 48, 16, 24), dtype=np.float32)) for _ in range(2))
    with torch.inference_mode():
        assert off(network.bridge1.fre_process(depth, rgb), "sdb_bridge1_x8_16x24") < 1e-5
