"""PNG and TIFF as depth, labels or colours; JPEG, WebP and BMP as colours."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import IO

import cv2
import numpy as np
from PIL import (
    BmpImagePlugin,
    Image,
    ImageFile,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from crispdepth.formats.raw import DEFLATE_RATIO, TRUNCATED, Raw, check_size, decoding, exactly, muted
from crispdepth.types import InputError

_PLUGINS: dict[str, Callable[[IO[bytes]], ImageFile.ImageFile]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
}
PICTURES = tuple(_PLUGINS)


def _check_png(file: IO[bytes]) -> tuple[int, int]:
    """Walks the chunks, checks lengths and checksums (Pillow skips those); gives (bits, colour type)."""
    head = exactly(file, 33)
    if head[12:16] != b"IHDR":
        raise InputError("damaged PNG (no header); export it again")
    width, height, bits, colour = struct.unpack(">IIBB", head[16:26])
    check_size(height, width)
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 1)
    file.seek(8)
    kind, packed = b"", 0
    while kind != b"IEND":
        length, kind = struct.unpack(">I4s", exactly(file, 8))
        body, (crc,) = exactly(file, length), struct.unpack(">I", exactly(file, 4))
        if kind[:1].isupper() and zlib.crc32(body, zlib.crc32(kind)) != crc:
            raise InputError("damaged PNG (a checksum is wrong); copy or export it again")
        packed += length if kind == b"IDAT" else 0
    if height * (1 + (width * channels * bits + 7) // 8) > DEFLATE_RATIO * packed:
        raise InputError(TRUNCATED)
    file.seek(0)
    return bits, colour


def _open(file: IO[bytes], kind: str) -> ImageFile.ImageFile:
    """The decoded picture. The plugin itself, since ``Image.open`` warns at a pixel limit of its own."""
    try:
        image = _PLUGINS[kind](file)
    except SyntaxError as error:
        if "unknown pixel mode" not in str(error):
            raise
        raise InputError("has a kind of pixels that is not read here (64 bits?); save it as 32-bit floats") from error
    check_size(image.height, image.width)
    length = file.seek(0, os.SEEK_END)
    most = 8 if image.info.get("compression") == "raw" else 2**16  # pixels that a byte can hold
    if kind in ("TIFF", "JPEG") and image.height * image.width > most * length:
        raise InputError(TRUNCATED)
    image.load()
    return image


def _is_deep_colour(image: Image.Image, kind: str, bits: tuple[int, int]) -> bool:
    """16 bits in several channels: Pillow would cut them to 8."""
    if kind == "PNG":
        return bits[0] == 16 and bits[1] != 0
    tags = getattr(image, "tag_v2", {})
    return kind == "TIFF" and len(tags.get(258, (8,))) > 1 and max(tags.get(258, (8,))) == 16


def _deep_colour(file: IO[bytes], flags: int) -> np.ndarray:
    """(H, W, 3 or 4) uint16, decoded by OpenCV with its ``flags``."""
    file.seek(0)
    with muted():
        pixels = cv2.imdecode(np.frombuffer(file.read(), np.uint8), flags)
    if pixels is None or pixels.ndim != 3 or pixels.dtype != np.uint16:
        raise InputError("a 16-bit colour picture of an unusual kind; save it as plain RGB")
    return pixels[:, :, [2, 1, 0, 3][: pixels.shape[2]]]


def _pixels(image: Image.Image) -> np.ndarray:
    """(H, W) or (H, W, C) in native byte order."""
    array = np.asarray(image)
    return array.astype(array.dtype.newbyteorder("="))


def read_png_depth(file: IO[bytes]) -> Raw:
    """8- or 16-bit grey PNG; RGB with three equal channels counts as grey."""
    bits = _check_png(file)
    if bits[1] == 3:
        raise InputError("is a palette picture, not depth; save it as 16-bit grey")
    if bits[0] < 8:
        raise InputError(f"has {bits[0]} bits per pixel, too few for depth; save it as 16-bit grey")
    return _read_picture_depth(file, "PNG", bits)


def read_tiff_depth(file: IO[bytes]) -> Raw:
    """One page: 8, 16 or 32-bit grey, integer or floating."""
    return _read_picture_depth(file, "TIFF", (0, 0))


def is_deep_grey(file: IO[bytes], kind: str) -> bool:
    """Whether the header of a picture says grey of more than 8 bits."""
    with decoding(kind):
        mode = _PLUGINS[kind](file).mode
    return mode in ("I", "F") or mode.startswith("I;16")


def _read_picture_depth(file: IO[bytes], kind: str, bits: tuple[int, int]) -> Raw:
    with decoding(kind):
        image = _open(file, kind)
        if kind == "TIFF":
            _check_depth_tiff(image)
        if _is_deep_colour(image, kind, bits):
            values = _deep_colour(file, cv2.IMREAD_UNCHANGED)
        elif image.mode in ("L", "I", "F", "RGB", "RGBA", "LA") or image.mode.startswith("I;16"):
            values = _pixels(image)
        else:
            raise InputError(f"is a {image.mode} picture, not depth; save it as 16-bit grey")
    if values.ndim == 2:
        return Raw(values)
    grey = values[:, :, 0]
    if values.shape[2] >= 3 and not ((grey == values[:, :, 1]) & (grey == values[:, :, 2])).all():
        raise InputError("is a colour picture, not depth; give the depth map, not its colouring")
    if values.shape[2] in (2, 4) and (values[:, :, -1] < np.iinfo(values.dtype).max).any():
        raise InputError("is half transparent, which depth cannot be; save it as 16-bit grey")
    return Raw(np.ascontiguousarray(grey))


def _check_depth_tiff(image: ImageFile.ImageFile) -> None:
    if getattr(image, "is_animated", False):
        raise InputError("is a TIFF of several pages; save the depth page alone")
    if "jpeg" in str(image.info.get("compression", "")).lower():
        raise InputError("is a TIFF with lossy JPEG inside, which ruins depth; save it without")


def read_png_label(file: IO[bytes]) -> np.ndarray:
    """(H, W) uint8 of an 8-bit grey or palette PNG: the stored numbers, not the palette's colours."""
    bits = _check_png(file)
    if bits not in ((8, 0), (8, 3)):
        raise InputError("is no label map; give an 8-bit grey or palette PNG")
    with decoding("PNG"):
        return _pixels(_open(file, "PNG"))


def read_colour(file: IO[bytes], kind: str) -> np.ndarray:
    """(H, W, 3) uint8 or uint16 of any picture in ``PICTURES``: upright, alpha dropped."""
    bits = _check_png(file) if kind == "PNG" else (0, 0)
    with decoding(kind):
        image = _open(file, kind)
        if _is_deep_colour(image, kind, bits):
            return _deep_colour(file, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)  # these flags turn it upright, too
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I;16"):
            return np.repeat(_pixels(upright)[:, :, None], 3, axis=2)
        if upright.mode in ("I", "F"):
            raise InputError("is a 32-bit picture; save the colours with 8 or 16 bits")
        return _pixels(upright.convert("RGB"))


def png_bytes(array: np.ndarray) -> bytes:
    """PNG of (H, W) uint8 or uint16, or (H, W, 3) uint8."""
    buffer = BytesIO()
    Image.fromarray(array).save(buffer, "PNG", compress_level=3)  # half the time, a quarter more bytes
    return buffer.getvalue()


def label_bytes(numbers: np.ndarray, colours: np.ndarray | None) -> bytes:
    """PNG of (H, W) uint8 numbers: grey, or shown in ``colours`` (n, 3) uint8 by a palette."""
    image = Image.fromarray(numbers)
    if colours is not None:
        image.putpalette(colours.astype(np.uint8).tobytes())  # the image becomes one of a palette; numbers stay
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def jpeg_bytes(array: np.ndarray) -> bytes:
    """JPEG of (H, W, 3) uint8, quality 95, colours at full resolution."""
    if max(array.shape) > 65500:
        raise InputError("JPEG ends at 65500 pixels a side; write a .png")
    buffer = BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def tiff_bytes(array: np.ndarray) -> bytes:
    """One-page TIFF of (H, W) uint16 or float32, deflated without loss."""
    buffer = BytesIO()
    Image.fromarray(array).save(buffer, "TIFF", compression="tiff_adobe_deflate")
    return buffer.getvalue()
