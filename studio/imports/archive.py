"""Open the ZIP file with the images of an import, within bounds, and read one entry at a time.

The file comes from a client. What the reading of its directory or of an entry may cost is checked before:
a small file can describe millions of entries, or entries that are a thousand times larger than they are
stored (ZIP bombs). Entries are never extracted to a path. Knows nothing of images and rows.
"""

from __future__ import annotations

import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from db.errors import NotFound
from studio.imports.problems import ImportFileError, build_problem
from studio.media.fetching import ImageNotUsable
from studio.media.stored_image import MAX_FILE_BYTES

MAX_ENTRIES = 20_000
MAX_DIRECTORY_BYTES = 4 * 1024 * 1024
"""The size of the directory. `zipfile` reads all of it, however many entries the file announces."""
MAX_TOTAL_BYTES = 1024 * 1024 * 1024
"""The size of all entries together, uncompressed."""
MAX_RATIO = 20
"""How much larger all entries together may be than the file. Images are compressed already."""
_MIN_RATIO_BYTES = 1024 * 1024
"""Below this size, the ratio does not matter."""

_END = struct.Struct("<4s4H2LH")
_END_SIGNATURE = b"PK\x05\x06"
_ZIP64_SIGNATURE = b"PK\x06\x07"
_ZIP64_LOCATOR_BYTES = 20
_MAX_COMMENT_BYTES = 65_535
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ENCRYPTED = 0x1
_INVALID = "The file of `images_zip_url` is not a valid ZIP file"


class ImageArchive:
    """An open ZIP file whose entries were checked. Threads can share it.

    Args:
        path: The file.

    Raises:
        ImportFileError: The file is not a ZIP file, or breaks a rule.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            _require_small_directory(file)
        try:
            self._file = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
            raise _reject(400, "malformed_request", _INVALID) from error
        try:
            self._entries = _check_entries(self._file.infolist(), path.stat().st_size)
        except BaseException:
            self._file.close()
            raise

    @property
    def names(self) -> frozenset[str]:
        """The normalized names of the entries."""
        return frozenset(self._entries)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, name: str) -> bytes:
        """Return the content of an entry.

        Raises:
            NotFound: There is no such entry.
            ImageNotUsable: The entry is damaged.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise NotFound("The ZIP file has no such entry")
        try:
            with self._file.open(entry) as file:
                # With a size: without one, `zipfile` inflates more than the entry announces and cuts it.
                content = file.read(entry.file_size + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise ImageNotUsable("The entry of the ZIP file is damaged") from error
        if len(content) != entry.file_size:
            raise ImageNotUsable("The entry of the ZIP file is incomplete")
        return content


def normalize_name(name: str) -> str:
    """Return the name by which an entry is found: composed characters, slashes, no `./` at the start.

    Some systems store decomposed characters, and others backslashes.
    """
    return unicodedata.normalize("NFC", name).replace("\\", "/").removeprefix("./")


def _require_small_directory(file: BinaryIO) -> None:
    """Check the size of the directory that the end of the file announces, before anything reads it.

    Raises:
        ImportFileError: There is no directory, or it is too large.
    """
    size = file.seek(0, 2)
    file.seek(max(0, size - _END.size - _MAX_COMMENT_BYTES - _ZIP64_LOCATOR_BYTES))
    tail = file.read()
    # As `zipfile` does: first without a comment, then the last signature.
    place = len(tail) - _END.size
    if place < 0 or tail[place : place + 4] != _END_SIGNATURE or tail[-2:] != b"\0\0":
        place = tail.rfind(_END_SIGNATURE)
    record = tail[place : place + _END.size] if place >= 0 else b""
    if len(record) != _END.size:
        raise _reject(400, "malformed_request", _INVALID)
    if tail[max(0, place - _ZIP64_LOCATOR_BYTES) :].startswith(_ZIP64_SIGNATURE):
        detail = "The ZIP file has the extension ZIP64, which it does not need: create it without"
        raise _reject(422, "invalid_request", detail)
    _, _, _, _, count, directory_bytes, _, _ = _END.unpack(record)
    if count > MAX_ENTRIES or directory_bytes > MAX_DIRECTORY_BYTES:
        raise _reject(413, "too_large", f"The ZIP file has more than {MAX_ENTRIES:,} entries: split it")


def _check_entries(entries: Iterable[zipfile.ZipInfo], stored_bytes: int) -> dict[str, zipfile.ZipInfo]:
    """Return the files among the entries by their names.

    Raises:
        ImportFileError: An entry breaks a rule, or all together are too large.
    """
    found: dict[str, zipfile.ZipInfo] = {}
    total = 0
    for count, entry in enumerate(entries, 1):
        name = normalize_name(entry.orig_filename)
        if reason := _find_reason(entry, name):
            raise _reject(422, "invalid_request", f"The entry `{name[:200]}` of the ZIP file {reason}")
        total += entry.file_size
        if count > MAX_ENTRIES:
            raise _reject(413, "too_large", f"The ZIP file has more than {MAX_ENTRIES:,} entries: split it")
        if total > MAX_TOTAL_BYTES:
            limit = MAX_TOTAL_BYTES // 1024**2
            raise _reject(
                413, "too_large", f"The entries of the ZIP file have more than {limit:,} MB: split it"
            )
        if total > max(_MIN_RATIO_BYTES, MAX_RATIO * stored_bytes):
            detail = f"The entries of the ZIP file are more than {MAX_RATIO} times larger than the file"
            raise _reject(413, "too_large", detail)
        if name.endswith("/"):
            continue
        if name in found:
            raise _reject(422, "invalid_request", f"The ZIP file has two entries `{name[:200]}`")
        found[name] = entry
    return found


def _find_reason(entry: zipfile.ZipInfo, name: str) -> str | None:
    """Return why an entry is rejected, None if it is not."""
    parts = name.removesuffix("/").split("/")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if "\0" in name or name.startswith("/") or ":" in parts[0] or ".." in parts or "" in parts:
        return "has a name that is not a relative path: use paths without `..` and drive letters"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device: store the file itself"
    if entry.flag_bits & _ENCRYPTED:
        return "is encrypted: create the ZIP file without a password"
    if entry.compress_type not in _METHODS:
        return "is compressed with another method than Deflate: create the ZIP file with Deflate"
    if entry.file_size > MAX_FILE_BYTES:
        return f"has more than {MAX_FILE_BYTES:,} bytes"
    return None


def _reject(status: int, code: str, detail: str) -> ImportFileError:
    return ImportFileError(build_problem(status, code, detail))
