"""The normalized image that the studio stores, and the limits and media types of image files.

This module imports nothing of the project and no image library: every other module of the package may use it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields

MAX_FILE_BYTES = 50 * 1024 * 1024
MAX_PIXELS = 64_000_000

CONTAINER_FORMATS = frozenset({"AVIF", "HEIC"})
"""The formats that only the subprocess of `sandbox` opens, because their containers are complex, too."""

CONTENT_TYPES = {
    "jpg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "avif": "image/avif",
    "gif": "image/gif",
}
EXTENSIONS_BY_TYPE = {
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/webp": "webp",
    "image/avif": "avif",
    "image/gif": "gif",
    "image/heic": "heic",
    "image/heif": "heif",
}
"""The extensions of accepted files. HEIC is stored in another format: see `normalization`."""


@dataclass(frozen=True)
class StoredImage:
    """A normalized image: the bytes to store and the columns that describe them."""

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

    def to_bytes(self) -> bytes:
        """Return the columns as a line of JSON, followed by the bytes."""
        columns = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "data"}
        return json.dumps(columns).encode("ascii") + b"\n" + self.data

    @classmethod
    def from_bytes(cls, stored: bytes) -> StoredImage | None:
        """Return the image that `to_bytes` was called on; None for the file of an image without columns."""
        columns, _, data = stored.partition(b"\n")
        # No image format starts with a brace.
        return cls(data=data, **json.loads(columns)) if columns.startswith(b"{") else None
