"""What every format needs: Raw, limits, sniffing, checks, libraries kept quiet."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import IO

import numpy as np

from crispdepth.types import InputError

MAX_PIXELS = 2**26  # 67 megapixels; refused above, from the header, before anything is decoded
TRUNCATED = "the file ends too early (truncated); copy or export it again"
DEFLATE_RATIO = 1032  # zlib cannot pack better than this: a larger promise in a header is a lie


@dataclass(frozen=True)
class Raw:
    """What a depth file holds: ``values`` (H, W), integer or floating, still in the file's own unit."""

    values: np.ndarray
    valid: np.ndarray | None = None  # (H, W) bool, when the file carries a mask
    unit: str | None = None  # when the file names its unit
    nan_is_hole: bool = False  # EXR and PFM: NaN or inf means "no reading"
    note: str = ""  # what was made of the values while they were read


_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"\x76\x2f\x31\x01", "EXR"),
    (b"\x93NUMPY", "npy"),
    (b"PK\x03\x04", "npz"),
    (b"PK\x05\x06", "npz"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF8", "GIF"),
    (b"\x89HDF", "HDF5"),
    (b"MATLAB", "MATLAB"),
    (b"Pf", "PFM"),
    (b"PF", "PFM"),
    (b"BM", "BMP"),
)


def sniff(head: bytes) -> str | None:
    """The format's name from the first 16 bytes, or None when they tell nothing."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:12] == b"ftypavif":
        return "AVIF"
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"mif1", b"hevc"):
        return "HEIC"
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)


def check_size(height: int, width: int) -> None:
    """Refuses empty maps and maps of more than ``MAX_PIXELS`` pixels."""
    if height < 1 or width < 1:
        raise InputError(f"holds no pixels ({width}x{height}); export it again")
    if height * width > MAX_PIXELS:
        raise InputError(f"declares {width}x{height} pixels, more than {MAX_PIXELS}; cut it into tiles")


def exactly(file: IO[bytes], count: int) -> bytes:
    here = file.tell()
    left = file.seek(0, os.SEEK_END) - here
    file.seek(here)
    if count > left:
        raise InputError(TRUNCATED)
    return file.read(count)


logging.getLogger("PIL").addHandler(logging.NullHandler())  # else Python prints its errors on stderr

# Warnings and stderr belong to the whole process, so libraries decode one file at a time.
_LOCK = threading.Lock()


@contextmanager
def muted() -> Iterator[None]:
    """File descriptor 2 points at nothing: libtiff, libpng, OpenEXR print from C on damaged files."""
    try:
        kept = os.dup(2)
    except OSError:  # closed: nobody listens
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def decoding(kind: str) -> Iterator[None]:
    """Library code at work: its warnings are silent, and whatever it raises becomes one InputError."""
    with _LOCK, warnings.catch_warnings(), muted() if kind == "TIFF" else nullcontext():
        warnings.simplefilter("ignore")
        try:
            yield
        except (InputError, KeyboardInterrupt):
            raise
        except MemoryError as error:
            raise InputError("does not fit into memory; cut it into tiles") from error
        except Exception as error:  # Pillow alone raises a dozen types on damaged files
            words = " ".join(str(error).split())[:100] or type(error).__name__
            raise InputError(f"damaged or truncated {kind} ({words}); export it again") from error
