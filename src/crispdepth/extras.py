"""Modules that need an optional library: imported when they are asked for, with the pip line when it is missing."""

from __future__ import annotations

import importlib
from typing import Any

from crispdepth.types import MissingPackage

# library: the extra of pyproject.toml that brings it
EXTRAS = {
    **dict.fromkeys(("transformers", "huggingface_hub"), "hub"),
    **dict.fromkeys(("pyarrow", "fsspec", "ray"), "scale"),
    **dict.fromkeys(("onnx", "onnxruntime", "onnxscript"), "onnx"),
    "openvino": "openvino",
    "nncf": "int8",
    "gradio": "view",
    "pillow_heif": "heic",
}


def late(module: str) -> Any:
    """The module called ``module``, imported now.

    Raises MissingPackage with the pip line when a library of EXTRAS is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        library = (error.name or "").split(".")[0]
        if library not in EXTRAS:
            raise
        raise MissingPackage(f"this needs {library}: pip install 'crispdepth[{EXTRAS[library]}]'") from error
