"""What several tests share: the folder of real data, and a small scene."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from crispdepth.data.scenes import scenes
from crispdepth.types import Sample

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of third-party images, which is no part of the project: tests skip without it."""
    folder = Path(os.environ.get("CRISPDEPTH_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set CRISPDEPTH_DATA)")
    return folder


@pytest.fixture(scope="session")
def scene() -> Sample:
    """One small scene."""
    return scenes(1, 96, 128, seed=5)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # the tests run in parallel processes
