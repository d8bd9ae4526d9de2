"""Database files of release 0.2.0, the last one that used SQLite.

`sqlite/release_0_2_0.sql.gz` is the dump of one (`iterdump` of the module `sqlite3`). That release (commit
6d2bbc48) wrote its rows: the presets and demo data of `python -m handlers --prepare-only`, then `create_rows`
and `fill_empty_tables` of its `tests/support/filled_server.py`, so that no table is empty and references are
circular. Afterwards, statements set values that databases write differently, and the hashes of files: the
content of each file is the id in its key.
"""

from __future__ import annotations

import gzip
import sqlite3
from contextlib import closing
from pathlib import Path
from uuid import UUID

from studio.infrastructure.storage import Storage, export_key, media_key

_DUMP = Path(__file__).parent / "sqlite" / "release_0_2_0.sql.gz"


def write_release_file(path: Path, *statements: str) -> Path:
    """Write a database file as release 0.2.0 leaves it, change it with statements, and return its path."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(gzip.decompress(_DUMP.read_bytes()).decode())
        connection.execute("PRAGMA journal_mode=WAL")
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    return path


def write_referenced_files(path: Path, storage: Storage) -> list[str]:
    """Write the files that rows of such a database refer to, and return their keys."""
    with closing(sqlite3.connect(path)) as connection:
        keys = [
            media_key(UUID(media_id), extension)
            for media_id, extension in connection.execute("SELECT id, extension FROM media_resources")
        ]
        for table in ("exports", "account_exports"):
            rows = connection.execute(f"SELECT id FROM {table} WHERE status = 'completed'")  # noqa: S608 - constants
            keys += [export_key(UUID(export_id)) for (export_id,) in rows]
    for key in keys:
        storage.write(key, key.split("/")[1].encode())
    return keys
