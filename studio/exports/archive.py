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

PIECE_BYTES = 1 << 20
COLUMNS = (
    "file_name", "product", "sku", "shot_type", "look", "sha256", "width", "height", "content_type",
    "file_size", "seed", "model", "provider", "prediction_id", "shot_id", "provenance",
)  # fmt: skip
"""The columns of the manifest; its JSON has the same names."""

_THE_FIRST_DATE = (1980, 1, 1, 0, 0, 0)
_ORDINARY_FILE = 0o100644 << 16
_UNIX = 3
# A cell that begins with one of these is a formula to a spreadsheet, or hides one behind a line break.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


class PictureLost(Exception):
    """The file of a picture is gone, or its bytes are not those that were ordered."""


@dataclass(frozen=True)
class Picture:
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
    pictures: Sequence[Picture],
    tell: Callable[[int], object],
) -> None:
    """Write a ZIP with the manifest of these pictures and their originals.

    `tell` hears with every piece how many pictures are whole; what it raises ends the writing. PictureLost
    when an original is not what it was.
    """
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        archive.writestr(_entry("manifest.json"), manifest_json(shooting, pictures))
        archive.writestr(_entry("manifest.csv"), manifest_csv(pictures))
        for done, picture in enumerate(pictures):
            _copy(archive, storage, picture, partial(tell, done))


def manifest_json(shooting: dict[str, Any], pictures: Sequence[Picture]) -> bytes:
    """What is in the archive, for programs."""
    files = [{"file_name": picture.file_name, **picture.facts} for picture in pictures]
    manifest = {"shooting": shooting, "files": files}
    return json.dumps(manifest, ensure_ascii=False, indent=2, sort_keys=True).encode() + b"\n"


def manifest_csv(pictures: Sequence[Picture]) -> bytes:
    """What is in the archive, for spreadsheets: UTF-8 with the mark by which they know it (RFC 4180)."""
    target = io.StringIO(newline="")
    writer = csv.writer(target)
    writer.writerow(COLUMNS)
    for picture in pictures:
        facts = {"file_name": picture.file_name, **picture.facts}
        writer.writerow([_cell(facts[column]) for column in COLUMNS])
    return target.getvalue().encode("utf-8-sig")


def _cell(value: object) -> object:
    if value is None or isinstance(value, int):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _copy(archive: zipfile.ZipFile, storage: Storage, picture: Picture, tell: Callable[[], object]) -> None:
    entry = _entry(picture.file_name)
    entry.file_size = picture.file_size  # lets zipfile see whether the entry needs Zip64
    digest, size = hashlib.sha256(), 0
    try:
        source = storage.path(picture.key).open("rb")
    except (NotFound, FileNotFoundError) as error:
        raise PictureLost(picture.key) from error
    with source, archive.open(entry, "w") as inside:
        while piece := source.read(PIECE_BYTES):
            size += len(piece)
            if size > picture.file_size:
                break
            digest.update(piece)
            inside.write(piece)
            tell()
    if (size, digest.hexdigest()) != (picture.file_size, picture.content_hash):
        raise PictureLost(picture.key)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _THE_FIRST_DATE)
    entry.create_system, entry.external_attr = _UNIX, _ORDINARY_FILE
    return entry
