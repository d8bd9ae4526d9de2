"""A file that came with a request, as handlers see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO


@dataclass(frozen=True)
class UploadedFile:
    """A binary field of a multipart body. `size` is in bytes; `file` is seekable and stands at its start.

    The endpoint closes it when the request has ended. `filename` and `content_type` are what the client said.
    """

    filename: str
    content_type: str
    size: int
    file: BinaryIO
