"""Writes the archive of an export: the manifest and the originals, each checked while it is copied.

The same content makes the same bytes: nothing in them tells when or by whom the archive was made. However
many pictures there are, one piece of one of them is in memory.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

from db.errors import NotFound
from studio.media.storage import Storage

CHUNK_BYTES = 1 << 20
COLUMNS = (
    "file_name", "product", "sku", "shot_type", "look", "sha256", "width", "height", "content_type",
    "file_size", "seed", "model", "provider", "prediction_id", "shot_id", "provenance",
)  # fmt: skip
"""The columns of the manifest; its JSON has the same names."""

_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
_REGULAR_FILE_MODE = 0o100644 << 16
_UNIX = 3
# A cell that begins with one of these is a formula to a spreadsheet, or hides one behind a line break.
_FORMULA_PREFIXES = ("=", "+", "-", "@", "\t", "\r", "\n")


class SourceFileMissing(Exception):
    """The file of a picture is gone, or its bytes are not those that were ordered."""


@dataclass(frozen=True)
class ArchiveEntry:
    """A picture of the order: where its bytes are, what they are, and its entry in the manifest."""

    key: str
    file_name: str
    content_hash: str
    file_size: int
    facts: dict[str, Any]


def write_archive(
    target: BinaryIO,
    storage: Storage,
    shooting: dict[str, Any],
    entries: Sequence[ArchiveEntry],
    report_progress: Callable[[int], object],
) -> None:
    """Write a ZIP with the manifest of these pictures and their originals.

    `tell` hears with every piece how many pictures are whole; what it raises ends the writing. PictureLost
    when an original is not what it was.
    """
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        archive.writestr(_build_zip_info("manifest.json"), build_manifest_json(shooting, entries))
        archive.writestr(_build_zip_info("manifest.csv"), build_manifest_csv(entries))
        for done, picture in enumerate(entries):
            _copy_file(archive, storage, picture, partial(report_progress, done))


def build_manifest_json(shooting: dict[str, Any], entries: Sequence[ArchiveEntry]) -> bytes:
    """What is in the archive, for programs."""
    files = [{"file_name": picture.file_name, **picture.facts} for picture in entries]
    manifest = {"shooting": shooting, "files": files}
    return json.dumps(manifest, ensure_ascii=False, indent=2, sort_keys=True).encode() + b"\n"


def build_manifest_csv(entries: Sequence[ArchiveEntry]) -> bytes:
    """What is in the archive, for spreadsheets: UTF-8 with the mark by which they know it (RFC 4180)."""
    target = io.StringIO(newline="")
    writer = csv.writer(target)
    writer.writerow(COLUMNS)
    for picture in entries:
        facts = {"file_name": picture.file_name, **picture.facts}
        writer.writerow([_format_cell(facts[column]) for column in COLUMNS])
    return target.getvalue().encode("utf-8-sig")


def _format_cell(value: object) -> object:
    if value is None or isinstance(value, int):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return f"'{text}" if text.startswith(_FORMULA_PREFIXES) else text


def _copy_file(
    archive: zipfile.ZipFile, storage: Storage, item: ArchiveEntry, report_progress: Callable[[], object]
) -> None:
    entry = _build_zip_info(item.file_name)
    entry.file_size = item.file_size  # lets zipfile see whether the entry needs Zip64
    digest, size = hashlib.sha256(), 0
    try:
        source = storage.path(item.key).open("rb")
    except (NotFound, FileNotFoundError) as error:
        raise SourceFileMissing(item.key) from error
    with source, archive.open(entry, "w") as inside:
        while piece := source.read(CHUNK_BYTES):
            size += len(piece)
            if size > item.file_size:
                break
            digest.update(piece)
            inside.write(piece)
            report_progress()
    if (size, digest.hexdigest()) != (item.file_size, item.content_hash):
        raise SourceFileMissing(item.key)


def _build_zip_info(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _ZIP_EPOCH)
    entry.create_system, entry.external_attr = _UNIX, _REGULAR_FILE_MODE
    return entry
