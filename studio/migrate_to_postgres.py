"""The command behind `make move-to-postgres`: copies the database, proves it, and says what it found.

The files of pictures and archives stay where they are, because both databases name them alike; it looks
whether each is there and what it should be. It knows no HTTP.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, make_url, select
from sqlalchemy.exc import DBAPIError

from db.copy_database import CopyFailed, CopyRejected, CopyReport, copy_database
from db.errors import NotFound
from db.models.exports import Export, ExportStatus
from db.models.media import MediaResource
from db.rls.setup import RolesMissing
from studio.media.backends import open_storage
from studio.media.storage import Storage, export_key, media_key
from studio.settings import InvalidSettings, Settings

CHUNK_BYTES = 1 << 20
MAX_LISTED_FILES = 20


def list_files(source: Connection) -> Iterator[tuple[str, str]]:
    """The key and the SHA-256 of every file that the rows of a database refer to."""
    # unscoped: the whole database moves
    pictures: Any = select(MediaResource.id, MediaResource.extension, MediaResource.content_hash)
    for media_id, extension, content_hash in source.execute(pictures):
        yield media_key(media_id, extension), content_hash
    # unscoped: the same
    archives: Any = select(Export.id, Export.content_hash).where(Export.status == ExportStatus.COMPLETED)
    for export_id, content_hash in source.execute(archives):
        yield export_key(export_id), content_hash


def find_file_error(storage: Storage, key: str, content_hash: str) -> str | None:
    """Why a file is not the one that its row means; None when it is."""
    digest = hashlib.sha256()
    try:
        with storage.path(key).open("rb") as file:
            while piece := file.read(CHUNK_BYTES):
                digest.update(piece)
    except NotFound:
        return "is not there"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    # compared: a file of ours with its row
    return None if digest.hexdigest() == content_hash else "has other bytes than its row says"


class Report:
    """Looks at what a move found, prints it, and says whether all of it is right."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def verify(self, source: Connection, tables: list[CopyReport]) -> bool:
        """Print the tables and the files; whether both are the same on both sides."""
        width = max(len(each.table) for each in tables)
        print(f"{'Table':{width}}  {'SQLite':>10}  {'PostgreSQL':>10}  Content")
        for each in tables:
            shown = f"{each.after.digest:064x}"[:12] if each.after.rows else "-"
            verdict = shown if each.is_identical else "DIFFERENT"
            print(f"{each.table:{width}}  {each.before.rows:>10}  {each.after.rows:>10}  {verdict}")
        files = list(list_files(source))
        wrong = [(key, told) for key, sum_ in files if (told := find_file_error(self._storage, key, sum_))]
        for key, told in wrong[:MAX_LISTED_FILES]:
            print(f"The file {key} {told}")
        rows = sum(each.after.rows for each in tables)
        print(
            f"{rows} rows in {len(tables)} tables; {len(files) - len(wrong)} of {len(files)} files are right"
        )
        return not wrong and all(each.is_identical for each in tables)


def main(arguments: list[str] | None = None) -> int:
    """Move the database of DATA_DIR to that of DATABASE_URL, as the owner of its tables.

    The status is 0 when it was moved, 1 when something differs and nothing was kept, 2 when it was refused.
    """
    parser = argparse.ArgumentParser(prog="python -m studio.migrate_to_postgres", description=__doc__)
    parser.add_argument("--from", dest="source", help="address of the SQLite database, that of DATA_DIR")
    options = parser.parse_args(arguments)
    try:
        settings = Settings.from_environment()
        source = options.source or f"sqlite:///{settings.data_dir / 'sartiq.db'}"
        target = settings.migration_database_url or settings.database_url
        print(f"From {source}\nto   {make_url(target).render_as_string(hide_password=True)}\n")
        kept = copy_database(source, target, Report(open_storage(settings)).verify)
    except (InvalidSettings, CopyRejected, RolesMissing) as refusal:
        print(f"Not moved: {refusal}", file=sys.stderr)
        return 2
    except (CopyFailed, DBAPIError) as error:
        print(f"Not moved: {getattr(error, 'orig', error)}", file=sys.stderr)
        return 1
    if not kept:
        print("Not moved: the target is empty again.", file=sys.stderr)
        return 1
    print("Moved. From now on start the server with this DATABASE_URL; the SQLite file was only read.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
