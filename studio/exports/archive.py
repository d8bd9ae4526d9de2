"""Write the archive of an export: the manifests and the original files, verified while they are copied.

The same contents give the same bytes, unless files are signed: the archive holds no time and no host. Memory
use does not depend on the number or the size of the files; to be signed, one file at a time is in memory.
Knows neither the queue nor the database.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, BinaryIO

from db.errors import NotFound
from studio.exports.content_credentials import FileToSign, SignFile, SigningFailed
from studio.infrastructure.csv_cells import format_cell
from studio.infrastructure.storage import Storage
from studio.providers.registry import PROVIDERS

CHUNK_BYTES = 1 << 20
COLUMNS = (
    "file_name", "product", "sku", "shot_type", "look", "sha256", "width", "height", "content_type",
    "file_size", "seed", "model", "provider", "digital_source_type", "prediction_id", "shot_id", "provenance",
    "product_id", "external_id", "metadata", "brand", "shooting", "shooting_id", "shooting_external_id",
    "look_id", "look_external_id", "shot_external_id", "alt_text",
)  # fmt: skip
"""The columns of the CSV manifest and the keys of the JSON manifest, which has one more for signed files.

New ones come last, because programs may read columns by their position.
"""

_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
_REGULAR_FILE_MODE = 0o100644 << 16
_UNIX = 3


class SourceFileMissing(Exception):
    """The file of a prediction is missing, or its bytes have changed since the export was created."""


@dataclass(frozen=True)
class ArchiveEntry:
    """One file of the archive."""

    key: str
    """The storage key of the original."""
    file_name: str
    content_hash: str
    """The expected SHA-256, in hexadecimal."""
    file_size: int
    facts: dict[str, Any]
    """The entry of the manifest, without `file_name`."""


def write_archive(
    target: BinaryIO,
    storage: Storage,
    shooting: dict[str, Any],
    entries: Sequence[ArchiveEntry],
    report_progress: Callable[[int], object],
    sign_file: SignFile | None = None,
) -> None:
    """Write a ZIP archive with the manifests and the original files, or with signed copies of these.

    Args:
        target: The file to write to. It must be seekable.
        storage: Where the originals are.
        shooting: The shooting's part of the JSON manifest.
        entries: The files, in order.
        report_progress: Called after each chunk with the number of complete files. An exception aborts the
            archive.
        sign_file: Signs each file. The manifests then come last, because they have the hashes of the copies.

    Raises:
        SourceFileMissing: An original is missing or has changed.
        SigningFailed: A file could not be signed.
    """
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        if sign_file is None:
            _write_manifests(archive, shooting, entries)
            for done, entry in enumerate(entries):
                copy_file(archive, storage, entry, partial(report_progress, done))
            return
        signed = []
        for done, entry in enumerate(entries):
            signed.append(_write_signed_file(archive, storage, entry, sign_file))
            report_progress(done)
        _write_manifests(archive, shooting, signed)


def _write_manifests(
    archive: zipfile.ZipFile, shooting: dict[str, Any], entries: Sequence[ArchiveEntry]
) -> None:
    archive.writestr(build_zip_info("manifest.json"), build_manifest_json(shooting, entries))
    archive.writestr(build_zip_info("manifest.csv"), build_manifest_csv(entries))


def build_manifest_json(shooting: dict[str, Any], entries: Sequence[ArchiveEntry]) -> bytes:
    """Return the manifest for programs."""
    files = [{"file_name": entry.file_name, **entry.facts} for entry in entries]
    manifest = {"shooting": shooting, "files": files}
    return json.dumps(manifest, ensure_ascii=False, indent=2, sort_keys=True).encode() + b"\n"


def build_manifest_csv(entries: Sequence[ArchiveEntry]) -> bytes:
    """Return the manifest for spreadsheets (RFC 4180), in UTF-8 with a byte order mark."""
    target = io.StringIO(newline="")
    writer = csv.writer(target)
    # An export that an earlier version has frozen lacks a column: its archive keeps its bytes.
    columns = [name for name in COLUMNS if all(name in ("file_name", *entry.facts) for entry in entries)]
    writer.writerow(columns)
    for entry in entries:
        facts = {"file_name": entry.file_name, **entry.facts}
        writer.writerow([format_cell(facts[column]) for column in columns])
    return target.getvalue().encode("utf-8-sig")


def copy_file(
    archive: zipfile.ZipFile, storage: Storage, entry: ArchiveEntry, report_progress: Callable[[], object]
) -> None:
    """Copy a stored file into the archive, in chunks, and compare its size and hash with the entry.

    Raises:
        SourceFileMissing: The file is missing; or its content differs, and the archive holds a part of it.
    """
    info = build_zip_info(entry.file_name)
    info.file_size = entry.file_size  # zipfile decides by it whether the entry needs Zip64
    digest, size = hashlib.sha256(), 0
    try:
        source = storage.path(entry.key).open("rb")
    except (NotFound, FileNotFoundError) as error:
        raise SourceFileMissing(entry.key) from error
    with source, archive.open(info, "w") as copy:
        while chunk := source.read(CHUNK_BYTES):
            size += len(chunk)
            if size > entry.file_size:
                break
            digest.update(chunk)
            copy.write(chunk)
            report_progress()
    if (size, digest.hexdigest()) != (entry.file_size, entry.content_hash):
        raise SourceFileMissing(entry.key)


def _write_signed_file(
    archive: zipfile.ZipFile, storage: Storage, entry: ArchiveEntry, sign_file: SignFile
) -> ArchiveEntry:
    """Write a signed copy of an original and return its entry. The original is in memory, at most 50 MB."""
    try:
        data = storage.read(entry.key)
    except (NotFound, FileNotFoundError) as error:
        raise SourceFileMissing(entry.key) from error
    if (len(data), hashlib.sha256(data).hexdigest()) != (entry.file_size, entry.content_hash):
        raise SourceFileMissing(entry.key)
    facts = entry.facts
    signed = sign_file(
        FileToSign(
            data=data,
            content_type=facts["content_type"],
            name=entry.file_name,
            digital_source_type=_find_source_type(facts),
            model=facts["model"] or facts["provider"],
        )
    )
    archive.writestr(build_zip_info(entry.file_name), signed)
    content_hash = hashlib.sha256(signed).hexdigest()
    changed = {"sha256": content_hash, "file_size": len(signed), "unsigned_sha256": entry.content_hash}
    return replace(entry, content_hash=content_hash, file_size=len(signed), facts={**facts, **changed})


def _find_source_type(facts: dict[str, Any]) -> str:
    """Return how an image was made; the provider tells it for predictions of 0.1.0."""
    provider = PROVIDERS.get(facts["provider"] or "")
    source_type = facts.get("digital_source_type") or (provider and provider.source_type)
    if source_type is None:
        raise SigningFailed(f"nothing says how prediction {facts['prediction_id']} was made")
    return str(source_type)


def build_zip_info(name: str) -> zipfile.ZipInfo:
    """Return the header of a regular file without a time, so that equal contents give equal bytes."""
    info = zipfile.ZipInfo(name, _ZIP_EPOCH)
    info.create_system, info.external_attr = _UNIX, _REGULAR_FILE_MODE
    return info
