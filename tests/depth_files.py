"""What the tests of reading and writing share: a small map, a small picture, and how a file is refused."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from crispdepth import io
from crispdepth.types import InputError


def ramp(height: int = 7, width: int = 9) -> np.ndarray:
    """Metres from 0.5 up, with two holes."""
    depth = np.linspace(0.5, 4, height * width, dtype=np.float32).reshape(height, width)
    depth[0, :2] = 0
    return depth


def picture(height: int = 6, width: int = 8) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)


def png(array: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def refused(path: Path, unit: str | None = "mm", **options: Any) -> str:
    """The one line with which ``path`` is refused."""
    with pytest.raises(InputError) as caught:
        io.read_depth(path, unit, **options)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert ";" in message, f"no cure in: {message}"
    return message
