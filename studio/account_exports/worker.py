"""Write the archives of pending account exports, outside of transactions.

An archive has a JSON file per section, the images, and a manifest. Memory use does not depend on the number
of rows, apart from the directory of the ZIP file. Queue and leases are those of `studio.exports`.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any, BinaryIO, ClassVar
from uuid import UUID

from sqlalchemy import select

from db.base import utc_now
from db.models.account_exports import AccountExport
from db.session import Database
from studio import leases
from studio.account_exports.sections import IMAGES, Section, count_rows, list_sections, read_pages
from studio.exports import queue
from studio.exports.archive import ArchiveEntry, SourceFileMissing, build_zip_info, copy_file
from studio.exports.worker import LEASE_DURATION, Heartbeat, run_leased
from studio.media.storage import Storage, media_key

FORMAT = 1
"""Increases when names in the archive change their meaning."""


@dataclass(frozen=True)
class Lease:
    """An account export that one worker has leased."""

    model: ClassVar[type[queue.Archive]] = AccountExport
    export_id: UUID
    token: str
    user_id: UUID
    requested_at: datetime


def run_pending_account_exports(
    database: Database, storage: Storage, lease_duration: timedelta = LEASE_DURATION
) -> int:
    """Write all pending account exports and return how many were completed.

    Raises:
        OSError: The storage is unreachable or full. The exports stay pending.
    """
    completed = 0
    while queue.count_available(database, 1, AccountExport):
        storage.check()
        lease = lease_next(database, leases.new_token(), lease_duration)
        if lease is not None:
            completed += run_account_export(database, storage, lease, lease_duration)
    return completed


def lease_next(database: Database, token: str, lease_duration: timedelta) -> Lease | None:
    """Lease the account export that has waited longest, or return None if there is none."""
    with database.transaction(write=True):
        row = queue.acquire_next(select(AccountExport), AccountExport, token, lease_duration)
        return None if row is None else Lease(row.id, token, row.user_id, row.created_at)


def run_account_export(database: Database, storage: Storage, lease: Lease, lease_duration: timedelta) -> bool:
    """Write the archive of a leased account export; return whether this call completed it.

    Raises:
        OSError: The storage is unreachable or full; the export is pending again.
    """
    write = partial(_write_archive, database=database, storage=storage, lease=lease)
    return run_leased(
        database, storage, lease, lease_duration, write, partial(_try_complete, database, lease)
    )


def _try_complete(database: Database, lease: Lease, file_size: int, content_hash: str) -> bool:
    with database.transaction(write=True):
        row = queue.lock_leased(lease)
        if row is not None:
            queue.complete(row, file_size, content_hash)
        return row is not None


def _write_archive(
    target: BinaryIO, heartbeat: Heartbeat, database: Database, storage: Storage, lease: Lease
) -> None:
    sections = list_sections(lease.user_id)
    counts = [count_rows(database, section) for section in sections]
    images = next(section for section in sections if section.name == IMAGES)
    total, done = sum(counts) + counts[sections.index(images)], 0

    def report(parts: int) -> None:
        nonlocal done
        done += parts
        heartbeat(done, total)

    manifest: dict[str, Any] = {
        "format": FORMAT,
        "account_id": lease.user_id,
        "requested_at": lease.requested_at,
        "written_at": utc_now(),
    }
    with zipfile.ZipFile(target, "w", allowZip64=True) as archive:
        files = []
        for section in sections:
            name = f"data/{section.name}.json"
            files.append(
                {"file_name": name, "rows": _write_section(archive, database, section, name, report)}
            )
        count, missing = _copy_images(archive, database, storage, images, report)
        manifest |= {"files": files, "images_count": count, "missing_images": missing}
        with _open_compressed(archive, "manifest.json") as file:
            file.write(json.dumps(manifest, indent=2, default=_encode).encode() + b"\n")


def _write_section(
    archive: zipfile.ZipFile,
    database: Database,
    section: Section,
    file_name: str,
    report: Callable[[int], None],
) -> int:
    """Write the rows of a section as a JSON array, and return their number."""
    count = 0
    with _open_compressed(archive, file_name) as file:
        file.write(b"[")
        for page in read_pages(database, section):
            for row in page:
                file.write(b",\n" if count else b"\n")
                file.write(json.dumps(row, ensure_ascii=False, default=_encode).encode())
                count += 1
            report(len(page))
        file.write(b"\n]\n")
    return count


def _copy_images(
    archive: zipfile.ZipFile,
    database: Database,
    storage: Storage,
    images: Section,
    report: Callable[[int], None],
) -> tuple[int, list[UUID]]:
    """Copy the stored images; return their number, and the ids of those that are missing or damaged.

    Those do not stop the rest: the user may have deleted them meanwhile.
    """
    count, missing = 0, list[UUID]()
    for entry_id, entry in _list_images(read_pages(database, images)):
        try:
            copy_file(archive, storage, entry, partial(report, 0))
            count += 1
        except SourceFileMissing:
            missing.append(entry_id)
        report(1)
    return count, missing


def _list_images(pages: Iterator[Sequence[dict[str, Any]]]) -> Iterator[tuple[UUID, ArchiveEntry]]:
    for page in pages:
        for row in page:
            key = media_key(row["id"], row["extension"])
            name = f"images/{row['id']}.{row['extension']}"
            yield row["id"], ArchiveEntry(key, name, row["content_hash"], row["file_size"], {})


def _open_compressed(archive: zipfile.ZipFile, name: str) -> Any:
    info = build_zip_info(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    # The size is not known in advance.
    return archive.open(info, "w", force_zip64=True)


def _encode(value: object) -> str:
    """Return a value that JSON has no type for as text, times as RFC 3339 in UTC."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds").replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    return str(value)
