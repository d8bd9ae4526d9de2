"""ZIP files as clients send them, valid and not."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping

Change = Callable[[zipfile.ZipInfo], None]


def build_zip(
    files: Mapping[str, bytes], change: Change | None = None, method: int = zipfile.ZIP_STORED
) -> bytes:
    """Return a ZIP file.

    Args:
        files: The content by the names of the entries.
        change: Changes each entry before it is written.
        method: How the entries are compressed.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = method
            if change is not None:
                change(entry)
            archive.writestr(entry, content)
    return buffer.getvalue()
