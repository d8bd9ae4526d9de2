"""The command behind `make move-from-sqlite`: move the database file of release 0.2.0 to PostgreSQL.

It fills the empty database of DATABASE_URL, or else creates the embedded one of DATA_DIR, which appears
complete or not at all. The old file does not change. The files of images and exports stay where they are,
because both databases refer to them by the same keys. Knows no HTTP.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from sqlalchemy import Connection, make_url

from db.copy_database import CopyRejected, Digests, fill_database, has_mark, remove_mark
from db.embedded import remove_cluster, stop_cluster, use_cluster
from db.migrations import upgrade
from db.sqlite_file import hold_file
from studio.commands.backup import (
    FAILURES,
    MAX_LISTED_FILES,
    REJECTIONS,
    deactivate_demo_accounts,
    lock_folder,
    owner_url,
    require_owner_of_data,
)
from studio.infrastructure.database import FOLDER, SQLITE_FILE
from studio.infrastructure.settings import PRIVATE_UMASK, VERSION, Settings, load_env_file
from studio.infrastructure.storage import Storage, sync_folder
from studio.infrastructure.storage_backends import open_storage
from studio.media.referenced_files import find_file_error, list_referenced_files

TEMPORARY_FOLDER = "move-from-sqlite"


def move(settings: Settings, source: Path, keeps_demo_passwords: bool) -> bool:
    """Move the rows of a file to PostgreSQL. If the process is killed, the next call completes the move.

    Returns:
        Whether all rows and, for a database of DATABASE_URL, all files are right. If not, nothing was moved.

    Raises:
        CopyRejected: The file is missing, in use or of another revision, or the target is not empty.
        CopyFailed: PostgreSQL rejected a row.
        BackupRejected: Another user owns the data folder, or another process moves or restores to it.
        EmbeddedDatabaseError, RolesMissing, MigrationBlocked: As `use_cluster` and `upgrade`.
    """
    require_owner_of_data(settings)
    url, target = settings.database_url and owner_url(settings), settings.data_dir / FOLDER
    if not url and target.exists():
        raise CopyRejected(f"There is a database in {target} already")
    verify = partial(verify_copy, open_storage(settings), bool(url))
    with (
        lock_folder(settings.data_dir),
        temporary_folder(settings.data_dir) as folder,
        hold_file(source, folder) as rows,
    ):
        if url:
            mark = f"moved from {source.resolve()}"
            if not has_mark(url, mark) and not fill_database(url, rows, verify, mark):
                return False
            upgrade(url)
            if not keeps_demo_passwords:
                deactivate_demo_accounts(url)
            remove_mark(url)
            return True
        with use_cluster(folder / FOLDER, release=VERSION) as cluster:
            if not fill_database(cluster.url, rows, verify):
                return False
            upgrade(cluster.url)
        stop_cluster(folder / FOLDER)
        (folder / FOLDER).rename(target)
        sync_folder(settings.data_dir)
        return True


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Yield a private folder. One that a killed process has left is removed first."""
    folder = parent / TEMPORARY_FOLDER
    remove_folder(folder)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        remove_folder(folder)


def remove_folder(folder: Path) -> None:
    """Remove a folder with a cluster, if it exists. PostgreSQL is stopped first."""
    if folder.exists():
        remove_cluster(folder / FOLDER)
        shutil.rmtree(folder)


def verify_copy(
    storage: Storage, requires_files: bool, connection: Connection, before: Digests, after: Digests
) -> bool:
    """Print the tables, and the files that are missing or wrong. Return whether the copy is complete."""
    width = max(map(len, before))
    print(f"{'Table':{width}}  {'SQLite':>10}  {'PostgreSQL':>10}  Content")
    for table, copy in after.items():
        content = "DIFFERENT" if copy != before[table] else str(copy)[:12] if copy.rows else "-"
        print(f"{table:{width}}  {before[table].rows:>10}  {copy.rows:>10}  {content}")
    files = list(list_referenced_files(connection))
    errors = {key: error for key, digest in files if (error := find_file_error(storage, key, digest))}
    for key, error in list(errors.items())[:MAX_LISTED_FILES]:
        print(f"The file {key} {error}")
    rows = sum(copy.rows for copy in after.values())
    print(f"{rows} rows in {len(after)} tables; {len(files) - len(errors)} of {len(files)} files are right")
    return before == after and not (errors and requires_files)


def main(arguments: list[str] | None = None) -> int:
    """Move the database file of DATA_DIR, or another one.

    Returns:
        The exit status: 0 for success; 1 if the copy failed or differs, and the target is empty again; 2 if
        the settings or the databases do not allow it.
    """
    parser = argparse.ArgumentParser(prog="python -m studio.commands.move_from_sqlite", description=__doc__)
    parser.add_argument(
        "--from", dest="source", type=Path, help=f"the file, by default {SQLITE_FILE} in DATA_DIR"
    )
    parser.add_argument(
        "--keep-demo-passwords",
        action="store_true",
        help="keep demo accounts as they are; production does not start with their published passwords",
    )
    options = parser.parse_args(arguments)
    os.umask(PRIVATE_UMASK)
    try:
        load_env_file()
        settings = Settings.from_environment()
        source = options.source or settings.data_dir / SQLITE_FILE
        url = make_url(owner_url(settings)).render_as_string() if settings.database_url else None
        target = url or settings.data_dir / FOLDER
        print(f"From {source}\nto   {target}\n")
        is_complete = move(settings, source, options.keep_demo_passwords)
    except REJECTIONS as error:
        print(f"Not moved: {error}", file=sys.stderr)
        return 2
    except FAILURES as error:
        print(f"Not moved: {getattr(error, 'orig', error)}", file=sys.stderr)
        return 1
    if not is_complete:
        print("Not moved: the target is empty again.", file=sys.stderr)
        return 1
    print(f"Moved. {source} has not changed; nothing reads it from now on.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
