"""Read, normalize, open and convert images, loading Pillow on first use.

Pillow and numpy take 18 MB. Modules that are imported at server start call these functions, so that a process
that never handles an image never loads them.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, BinaryIO

from studio.media.stored_image import StoredImage

if TYPE_CHECKING:
    from PIL import Image

    from studio.media.conversion import ImageScaler


def read_image(file: BinaryIO) -> StoredImage:
    """Return the normalized image of a file; see `normalization.read_image`."""
    from studio.media import normalization

    return normalization.read_image(file)


def normalize(data: bytes, max_wait_seconds: float | None = None) -> StoredImage:
    """Return the normalized form of an image file's bytes; see `normalization.normalize`."""
    from studio.media import normalization

    return normalization.normalize(data, max_wait_seconds)


def open_stored(data: bytes) -> Image.Image:
    """Open an image that this server has stored; see `inspection.open_stored`."""
    from studio.media import inspection

    return inspection.open_stored(data)


def open_scaler(source: bytes) -> AbstractContextManager[ImageScaler]:
    """Open a stored image to scale it to several widths; see `conversion.open_scaler`."""
    from studio.media import conversion

    return conversion.open_scaler(source)


def convert_image(source: bytes, width: int, extension: str) -> bytes:
    """Return a stored image in another width and format; see `conversion.convert_image`."""
    from studio.media import conversion

    return conversion.convert_image(source, width, extension)
