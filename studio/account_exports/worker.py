"""Write the archives of pending account exports, outside of transactions.

An archive has a JSON file per section, the images, and a manifest. Memory use does not depend on the number
of rows, apart from the directory of the ZIP file. The queue is in `studio.exports.queue`.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime
from functools import partial
from typing import Any, BinaryIO
from uuid import UUID

from db.base import utc_now
from db.session import Database
from studio.account_exports.sections import IMAGES, Section, count_rows, list_sections, read_pages
from studio.exports.archive import ArchiveEntry, SourceFileMissing, build_zip_info, copy_file
from studio.exports.queue import ACCOUNT_EXPORTS, AccountExportLease, complete_account_export
from studio.exports.worker import write_leased
from studio.infrastructure.storage import Storage, media_key
from studio.queue.running import Heartbeat, Worker, run_pending

FORMAT = 1
"""Increases when names in the archive change their meaning."""


def run_pending_account_exports(worker: Worker) -> int:
    """Write the archives of pending account exports; return how many were completed.

    Raises:
        OSError: The storage is unreachable or full. The exports stay pending.
    """
    return run_pending(worker, ACCOUNT_EXPORTS, partial(run_account_export, worker))


def run_account_export(worker: Worker, lease: AccountExportLease) -> bool:
    """Write the archive of a leased account export; return whether this call completed it."""
    write = partial(_write_archive, database=worker.database, storage=worker.storage, lease=lease)
    return write_leased(worker, ACCOUNT_EXPORTS, lease, write, complete_account_export)


def _write_archive(
    target: BinaryIO, heartbeat: Heartbeat, database: Database, storage: Storage, lease: AccountExportLease
) -> None:
    sections = list_sections(lease.user_id)
    counts = [count_rows(database, section) for section in sections]
    images = next(section for section in sections if section.name == IMAGES)
    total, done = sum(counts) + counts[sections.index(images)], 0

    def report(parts: int) -> None:
        nonlocal done
        done += parts
        heartbeat.report(done, total)

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
