"""Encode pixels as JPEG, PNG, WebP or AVIF, with an sRGB profile and no other metadata."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from studio.rendering.color import SRGB_PROFILE
from studio.rendering.model import FileFormat, Pixels

CONTENT_TYPES: dict[FileFormat, str] = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "AVIF": "image/avif",
}


def encode(pixels: Pixels, file_format: FileFormat, quality: int = 90) -> tuple[bytes, str]:
    """Return the encoded file and its media type; the same pixels always give the same bytes.

    Args:
        quality: 1..100; ignored for PNG.
    """
    all_options: dict[FileFormat, dict[str, Any]] = {
        "JPEG": {"quality": quality, "subsampling": 0 if quality >= 88 else 2, "optimize": True},
        "PNG": {"compress_level": 3},
        "WEBP": {"quality": quality, "method": 3},
        # With more threads, the tiles (and so the bytes) depend on the number of cores.
        "AVIF": {"quality": quality, "speed": 8, "max_threads": 1},
    }
    image, options = Image.fromarray(pixels), {"icc_profile": SRGB_PROFILE, **all_options[file_format]}
    target = io.BytesIO()
    try:
        image.save(target, file_format, **options)
    except OSError:
        if not options.pop("optimize", False):
            raise
        # For optimized files Pillow has a buffer of a byte per pixel, which is too small for strong noise.
        target = io.BytesIO()
        image.save(target, file_format, **options)
    return target.getvalue(), CONTENT_TYPES[file_format]
