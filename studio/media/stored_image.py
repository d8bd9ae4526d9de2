"""What a picture is once the studio keeps it, how large its file may be, and the doors to who reads files.

Behind the doors are Pillow and numpy, 18 MB. They come with the first file: who only serves never needs them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from PIL import Image

MAX_FILE_BYTES = 50 * 1024 * 1024
MAX_PIXELS = 64_000_000

CONTENT_TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp", "avif": "image/avif"}
EXTENSIONS_BY_TYPE = {
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/webp": "webp",
    "image/avif": "avif",
    "image/gif": "gif",
}


@dataclass(frozen=True)
class StoredImage:
    """A normalised picture: the bytes to store and what the database says about them."""

    data: bytes
    extension: str
    width: int
    height: int
    has_alpha: bool
    dominant_color: str
    content_hash: str

    @property
    def content_type(self) -> str:
        return CONTENT_TYPES[self.extension]


def read_image(file: BinaryIO) -> StoredImage:
    """The picture in a file, as it is stored; NotAnImage, TooLarge or Unreadable when there is none."""
    from studio.media import normalisation

    return normalisation.read_image(file)


def normalise(data: bytes) -> StoredImage:
    """The picture as it is stored; NotAnImage, TooLarge or Unreadable (truncated data included)."""
    from studio.media import normalisation

    return normalisation.normalise(data)


def open_stored(data: bytes) -> Image.Image:
    """A picture that this server has stored, its pixels not yet read; other decoders are not tried."""
    from studio.media import inspection

    return inspection.open_stored(data)
