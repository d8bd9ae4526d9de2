"""The commands behind `make backup` and `make restore`: save and restore all rows and files, and verify both.

A backup is a folder: `tables/` with the rows of each table as COPY writes them, the files of the media
storage under their keys, `SHA256SUMS`, and `manifest.json`, which is written last. Release 0.2.0 saved the
rows in `database.sqlite` (format 1); such a backup can be restored, too. Knows no HTTP.

Rows and files are not saved at the same moment, and no row may lack its file. Files never change. A file is
stored before its row is committed and is deleted after its row. So all files are copied first, then the
rows, then the files that were stored meanwhile: a file of a saved row was there at the moment of the snapshot
and is in the first copy, or it is newer than that and is in the second one.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from db.base import utc_now
from db.copy_database import (
    CopyFailed,
    CopyRejected,
    Digests,
    RowSource,
    TableDigest,
    Tables,
    digest_lines,
    fill_database,
    has_mark,
    list_tables,
    open_snapshot,
    read_lines,
    remove_mark,
    require_empty_database,
)
from db.embedded import EmbeddedDatabaseError
from db.engine import build_engine
from db.errors import NotFound
from db.migrations import head_revision, upgrade
from db.migrations.locks import MigrationBlocked
from db.rls.setup import RolesMissing
from db.session import Database
from db.sqlite_file import REVISION as SQLITE_REVISION
from db.sqlite_file import open_file
from studio.infrastructure.database import use_database
from studio.infrastructure.settings import PRIVATE_UMASK, InvalidSettings, Settings, load_env_file
from studio.infrastructure.storage import LocalDisk, Storage, StoredFile, sync_folder, temporary_key
from studio.infrastructure.storage_backends import open_storage
from studio.media.referenced_files import CHUNK_BYTES, find_file_error, list_referenced_files
from studio.seed.published_accounts import deactivate_published_accounts

FORMAT = 2
SQLITE_FORMAT = 1
"""The format of release 0.2.0 and before, with the rows in an SQLite file."""
MAX_SNAPSHOTS = 3
"""How often the rows are saved again because a file was deleted before it could be copied."""
MAX_LISTED_FILES = 20

_MANIFEST, _SUMS, _TABLES, _SQLITE = "manifest.json", "SHA256SUMS", "tables", "database.sqlite"
# Marks a media storage to which a restore has not ended, and holds the hash of its `SHA256SUMS`. No upload
# has this id, so garbage collection deletes the file after a day.
_UNFINISHED = temporary_key(UUID(int=0))
_MEDIA_FOLDERS = ("media", "exports", "imports", "temp")


class BackupRejected(Exception):
    """Nothing was written; the message explains why."""


class BackupDamaged(Exception):
    """A backup has changed, or it differs from the database or the files. The message names what differs."""


REJECTIONS = (
    InvalidSettings,
    BackupRejected,
    CopyRejected,
    EmbeddedDatabaseError,
    MigrationBlocked,
    RolesMissing,
)
"""Errors that leave everything as it was, because settings, files or databases do not allow the command."""
FAILURES = (CopyFailed, DBAPIError, psycopg.Error, OSError)
"""Errors in the middle of a command."""


@dataclass(frozen=True)
class Manifest:
    """What a backup contains."""

    revision: str
    """The revision of the schema."""
    created_at: str
    """When the rows were saved (RFC 3339)."""
    sums: str
    """The SHA-256 of `SHA256SUMS`, in which every other file is listed."""
    tables: dict[str, list[Any]]
    """The number of rows and the digest of each table."""
    columns: dict[str, list[str]]
    """The columns of each table, in the order in which its file has them. Empty in format 1."""
    damaged_files: dict[str, str]
    """Files of rows that were already missing or wrong in the media storage, and what is wrong."""
    format: int = FORMAT

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of a backup.

        Raises:
            BackupRejected: There is no complete backup, or a newer release or one before 0.2.0 made it.
        """
        try:
            values: dict[str, Any] = json.loads((folder / _MANIFEST).read_bytes())
            manifest = cls(**{"columns": {}, **values})
        except (OSError, ValueError, TypeError) as error:
            raise BackupRejected(f"{folder} is not a complete backup: {error}") from error
        if manifest.format > FORMAT or manifest.revision > head_revision():
            raise BackupRejected(
                f"{folder} was made by a newer release, with schema {manifest.revision} instead of "
                f"{head_revision()}: restore it with that release"
            )
        if manifest.format == SQLITE_FORMAT and manifest.revision != SQLITE_REVISION:
            raise BackupRejected(
                f"{folder} was made by a release before 0.2.0, with schema {manifest.revision}: restore it "
                "with release 0.2.0, and save it again there"
            )
        return manifest


class SavedRows:
    """The rows of a backup: a `RowSource` of `db.copy_database`."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder, self._columns, self.revision = folder, manifest.columns, manifest.revision

    def list_columns(self) -> Mapping[str, list[str]]:
        """Return the columns of each table."""
        return self._columns

    def read_lines(self, table: str, _: Tables) -> Iterator[bytes]:
        """Yield the rows of a table as lines of COPY."""
        with (self._folder / _file_of(table)).open("rb") as file:
            yield from file


class FileCopies:
    """Copies files of one storage to another and keeps their SHA-256."""

    def __init__(self, source: Storage, target: Storage) -> None:
        self._source, self._target = source, target
        self._modified: dict[str, datetime] = {}
        self.hashes: dict[str, str] = {}

    def copy_new_files(self) -> None:
        """Copy the files that are new or have changed since the last call."""
        for file in _list_stored_files(self._source):
            if _is_partial(file.key) or self._modified.get(file.key) == file.modified_at:
                continue
            try:
                self.hashes[file.key] = self._copy(file.key)
            except NotFound:  # deleted since it was listed
                continue
            self._modified[file.key] = file.modified_at

    def _copy(self, key: str) -> str:
        digest = hashlib.sha256()
        with self._source.path(key).open("rb") as file, self._target.open_writer(key) as copy:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                copy.write(chunk)
        return digest.hexdigest()


def create_backup(settings: Settings, folder: Path) -> Manifest:
    """Save the rows and files of a server, which may be running, in a new or empty folder.

    After an error the folder is deleted.

    Raises:
        BackupRejected: The folder is not empty, or another user owns the data folder of the server.
        BackupDamaged: The backup differs from the database or the media storage.
        CopyRejected: As `open_snapshot`.
        EmbeddedDatabaseError: As `use_database`.
    """
    require_owner_of_data(settings)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BackupRejected(f"{folder} is not an empty folder")
    # Password hashes and photos are in it.
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    try:
        with use_database(settings) as settings:
            return save_all(owner_url(settings), open_storage(settings), folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def save_all(url: str, storage: Storage, folder: Path) -> Manifest:
    """Save the rows and files of a server in an empty folder; raise as `create_backup`."""
    backup, copies = LocalDisk(folder), FileCopies(storage, LocalDisk(folder))
    copies.copy_new_files()
    for _ in range(MAX_SNAPSHOTS):
        created_at = utc_now()
        columns, digests, references = save_rows(url, folder)
        copies.copy_new_files()
        damaged_files = {
            key: error for key, digest in references if (error := find_file_error(backup, key, digest))
        }
        # An export that a client deletes right after the snapshot has no row in the next one.
        if not damaged_files:
            break
    # compared: no secrets, but the digests of tables.
    different = [name for name in columns if _digest_rows(folder / _file_of(name)) != digests[name]]
    if different:
        raise BackupDamaged(f"these tables were not saved as they are: {', '.join(different)}")
    verify_files(folder, copies.hashes)
    hashes = {**copies.hashes, **{_file_of(name): _hash_file(folder / _file_of(name)) for name in columns}}
    sums = "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items())).encode()
    manifest = Manifest(
        revision=head_revision(),
        created_at=created_at.isoformat(),
        sums=hashlib.sha256(sums).hexdigest(),
        tables={name: [digest.rows, str(digest)] for name, digest in digests.items()},
        columns=columns,
        damaged_files=damaged_files,
    )
    _write_file(folder / _SUMS, [sums])
    _write_file(folder / _MANIFEST, [json.dumps(asdict(manifest), indent=2).encode()])
    return manifest


def save_rows(
    url: str, folder: Path
) -> tuple[dict[str, list[str]], dict[str, TableDigest], list[tuple[str, str]]]:
    """Save the rows of all tables as they are at one moment.

    Returns:
        The columns of each table, its digest, and the key and hash of each file that rows refer to.

    Raises:
        CopyRejected: As `open_snapshot`.
    """
    (folder / _TABLES).mkdir(mode=0o700, exist_ok=True)
    digests: dict[str, TableDigest] = {}
    with open_snapshot(url) as connection:
        columns = {table: list(names) for table, names in list_tables(connection).items()}
        for table, names in columns.items():
            digests[table] = TableDigest()
            lines = _count_lines(read_lines(connection, table, names), digests[table])
            _write_file(folder / _file_of(table), lines)
        return columns, digests, list(list_referenced_files(connection))


def restore_backup(settings: Settings, folder: Path, keeps_demo_passwords: bool = False) -> Manifest:
    """Restore a backup to an empty database and an empty media storage; if it fails, both are empty again.

    If the process is killed, the next call with the same backup completes the restore.

    Args:
        settings: The settings of the server.
        folder: The backup.
        keeps_demo_passwords: Whether demo accounts with their published passwords stay as they are. Otherwise
            they are deactivated, and their addresses are printed.

    Raises:
        BackupRejected, CopyRejected: The backup is incomplete, the database or the storage is not empty,
            another user owns the data folder of the server, or another restore is running.
        BackupDamaged: The backup is not as it was made, or what was restored differs from it.
        CopyFailed: PostgreSQL rejected a row.
        RolesMissing, MigrationBlocked: As `db.migrations.upgrade`.
        EmbeddedDatabaseError: As `use_database`.
    """
    require_owner_of_data(settings)
    manifest = Manifest.read(folder)
    with lock_folder(settings.data_dir), use_database(settings) as settings:
        storage, url = open_storage(settings), owner_url(settings)
        is_continued = _is_unfinished(storage, manifest)
        # Only what follows the rows is missing.
        has_rows = is_continued and has_mark(url, manifest.sums)
        if not has_rows:
            require_empty_database(url, manifest.revision)
        storage.prepare()
        hashes = read_sums(folder, manifest)
        _require_no_other_file(storage, hashes if is_continued else {})
        verify_files(folder, hashes)
        if has_rows:
            require_files(hashes, storage)
        else:
            restore_all(folder, manifest, hashes, storage, url)
        upgrade(url)
        if not keeps_demo_passwords:
            deactivate_demo_accounts(url)
        storage.delete(_UNFINISHED)
        remove_mark(url)
    return manifest


def restore_all(
    folder: Path, manifest: Manifest, hashes: Mapping[str, str], storage: Storage, url: str
) -> None:
    """Restore files and rows of a verified backup, with the schema that it has."""

    def accept(connection: Connection, _: Digests, restored: Digests) -> bool:
        _require_rows(manifest, restored)
        # compared: the operator has files and rows, so constant time is not needed.
        wrong = {key for key, digest in list_referenced_files(connection) if hashes.get(key) != digest}
        if wrong != manifest.damaged_files.keys():
            raise BackupDamaged("rows refer to other files than the backup has")
        return True

    storage.write(_UNFINISHED, manifest.sums.encode())
    copies = FileCopies(LocalDisk(folder), storage)
    media = {name: digest for name, digest in hashes.items() if _is_media(name)}
    try:
        # Files first: the server must not find a row without its file.
        copies.copy_new_files()
        different = {name for name, _ in copies.hashes.items() ^ media.items()}
        if different:
            raise BackupDamaged(_describe_files(different))
        require_files(hashes, storage)
        with open_rows(folder, manifest) as rows:
            if not fill_database(url, rows, accept, manifest.sums):
                raise BackupDamaged("PostgreSQL has stored other rows than the backup has")
    except BaseException:
        for key in {*copies.hashes, *media}:
            storage.delete(key)
        storage.delete(_UNFINISHED)
        raise


@contextmanager
def open_rows(folder: Path, manifest: Manifest) -> Iterator[RowSource]:
    """Yield the rows of a backup of either format."""
    if manifest.format == SQLITE_FORMAT:
        with open_file(folder / _SQLITE) as rows:
            yield rows
    else:
        yield SavedRows(folder, manifest)


def owner_url(settings: Settings) -> str:
    """Return the URL of the database with the login that owns its tables."""
    return settings.migration_database_url or settings.database_url


def deactivate_demo_accounts(url: str) -> None:
    """Deactivate the demo accounts that have their published passwords, and print them."""
    database = Database(build_engine(url, pool_size=1))
    try:
        deactivated = deactivate_published_accounts(database)
    finally:
        database.dispose()
    if deactivated:
        print(f"Deactivated in the copy, with an unusable password: {', '.join(deactivated)}.")
        print("To keep demo accounts, start again with --keep-demo-passwords and an empty target.")


def require_files(hashes: Mapping[str, str], storage: Storage) -> None:
    """Read the restored files.

    Raises:
        BackupDamaged: A file differs.
    """
    wrong = [
        key for key, digest in hashes.items() if _is_media(key) and find_file_error(storage, key, digest)
    ]
    if wrong:
        raise BackupDamaged(_describe_files(wrong))


def _is_unfinished(storage: Storage, manifest: Manifest) -> bool:
    """Return whether an earlier restore of this backup was killed.

    Raises:
        BackupRejected: One of another backup was.
    """
    try:
        sums = storage.read(_UNFINISHED).decode()
    except NotFound:
        return False
    # compared: the operator has both files, so constant time is not needed.
    if sums != manifest.sums:
        raise BackupRejected(
            "the media storage has files of an unfinished restore of another backup: restore that one, or "
            "delete all files"
        )
    return True


def _require_no_other_file(storage: Storage, hashes: Mapping[str, str]) -> None:
    """Check that the storage has no files but these, and delete partial ones of a restore that was killed.

    Raises:
        BackupRejected: There is another file.
    """
    keys = {file.key for file in _list_stored_files(storage)} - {_UNFINISHED, *hashes}
    for key in sorted(keys, key=_is_partial):
        if not hashes or not _is_partial(key):
            raise BackupRejected(f"the media storage is not empty: it has a file {key}")
        storage.delete(key)


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Let no other process of this machine restore to a data folder within the block.

    Raises:
        BackupRejected: One does.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise BackupRejected(f"another restore is running in {folder}") from None
    finally:
        os.close(descriptor)


def require_owner_of_data(settings: Settings) -> None:
    """Check that this process runs as the user of the server.

    The commands write below the data folder: a database, a cache of S3, the restored files. Under umask 077
    the server cannot read what another user, such as root, writes there.

    Raises:
        BackupRejected: Another user owns the data folder.
    """
    folder = settings.data_dir
    if folder.exists() and (user_id := folder.stat().st_uid) != os.geteuid():
        raise BackupRejected(
            f"{folder} belongs to the user with the id {user_id}: run this command as that user"
        )


def read_sums(folder: Path, manifest: Manifest) -> dict[str, str]:
    """Return the SHA-256 of each file of a backup.

    Raises:
        BackupDamaged: `SHA256SUMS` is missing or has changed.
    """
    try:
        content = (folder / _SUMS).read_bytes()
    except OSError as error:
        raise BackupDamaged(f"{_SUMS} cannot be read: {error}") from error
    # compared: the operator has both files, so constant time is not needed.
    if hashlib.sha256(content).hexdigest() != manifest.sums:
        raise BackupDamaged(f"{_SUMS} has changed since the backup was made")
    lines = (line.split("  ", 1) for line in content.decode().splitlines())
    return {name: digest for digest, name in lines}


def verify_files(folder: Path, hashes: Mapping[str, str]) -> None:
    """Read files below a folder.

    Raises:
        BackupDamaged: A file is missing or has another SHA-256.
    """
    wrong = []
    for name, digest in hashes.items():
        try:
            # compared: the operator has the files and their hashes, so constant time is not needed.
            if _hash_file(folder / name) != digest:
                wrong.append(f"{name} has changed")
        except OSError as error:
            wrong.append(f"{name} cannot be read ({error.strerror})")
    if wrong:
        listing = "; ".join(wrong[:MAX_LISTED_FILES])
        raise BackupDamaged(f"{len(wrong)} of {len(hashes)} files of {folder}: {listing}")


def _list_stored_files(storage: Storage) -> Iterator[StoredFile]:
    """Yield all files, also the partial files that a crash leaves behind."""
    return chain.from_iterable(storage.list_files(folder) for folder in _MEDIA_FOLDERS)


def _file_of(table: str) -> str:
    return f"{_TABLES}/{table}.copy"


def _is_media(name: str) -> bool:
    """Return whether a file of a backup is a file of the media storage."""
    return name.partition("/")[0] in _MEDIA_FOLDERS


def _count_lines(lines: Iterable[bytes], digest: TableDigest) -> Iterator[bytes]:
    """Yield the lines, and add them to a digest."""
    for line in lines:
        digest.add(line)
        yield line


def _is_partial(key: str) -> bool:
    return key.rpartition("/")[2].startswith(".")


def _write_file(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file durably: after a crash it is complete or absent."""
    partial = path.with_name(f".{path.name}")
    with partial.open("wb") as file:
        file.writelines(chunks)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync_folder(path.parent)


def _describe_files(keys: Iterable[str]) -> str:
    listing = ", ".join(sorted(keys)[:MAX_LISTED_FILES])
    return f"these files differ from those that were saved: {listing}"


def _digest_rows(path: Path) -> TableDigest:
    with path.open("rb") as file:
        return digest_lines(file)


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _require_rows(manifest: Manifest, digests: Digests) -> None:
    """Check that the restored rows are those that were saved.

    Raises:
        BackupDamaged: A table differs.
    """
    restored = {name: [digest.rows, str(digest)] for name, digest in digests.items()}
    saved = manifest.tables
    if manifest.format == SQLITE_FORMAT:
        # Its digests are of other texts, and it leaves out some tables.
        saved = {name: [rows, restored[name][1]] for name, (rows, _) in saved.items()}
        restored = {name: restored[name] for name in saved}
    different = sorted(
        name for name in saved.keys() | restored.keys() if saved.get(name) != restored.get(name)
    )
    if different:
        raise BackupDamaged(f"these tables differ from the backup: {', '.join(different)}")


def print_manifest(manifest: Manifest, hashes: Iterable[str]) -> None:
    """Print the number of rows of each table, and of files."""
    width = max(map(len, manifest.tables))
    print(f"{'Table':{width}}  {'Rows':>10}  Content")
    for table, (rows, digest) in sorted(manifest.tables.items()):
        print(f"{table:{width}}  {rows:>10}  {digest[:12] if rows else '-'}")
    files = sum(map(_is_media, hashes))
    rows = sum(rows for rows, _ in manifest.tables.values())
    print(f"{rows} rows in {len(manifest.tables)} tables and {files} files, saved at {manifest.created_at}")
    for key, error in list(manifest.damaged_files.items())[:MAX_LISTED_FILES]:
        print(f"The file {key} {error}; so it was when the backup was made")


def main(arguments: list[str] | None = None) -> int:
    """Create or restore a backup, with the settings of the server.

    Returns:
        The exit status: 0 for success; 1 if it failed or something differs; 2 if the settings, the folder or
        the database do not allow it.
    """
    parser = argparse.ArgumentParser(prog="python -m studio.commands.backup", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("create", "save all rows and files in a new folder"),
        ("restore", "restore them to an empty database and media storage"),
    ):
        subparser = commands.add_parser(name, help=text, description=text)
        subparser.add_argument("folder", type=Path)
    subparser.add_argument(
        "--keep-demo-passwords",
        action="store_true",
        help="keep demo accounts as they are; production does not start with their published passwords",
    )
    options = parser.parse_args(arguments)
    past = "saved" if options.command == "create" else "restored"
    os.umask(PRIVATE_UMASK)
    try:
        load_env_file()
        settings = Settings.from_environment()
        if options.command == "create":
            manifest = create_backup(settings, options.folder)
        else:
            manifest = restore_backup(settings, options.folder, options.keep_demo_passwords)
        print_manifest(manifest, read_sums(options.folder, manifest))
    except REJECTIONS as error:
        print(f"Not {past}: {error}", file=sys.stderr)
        return 2
    except (BackupDamaged, *FAILURES) as error:
        print(f"Not {past}: {getattr(error, 'orig', error)}", file=sys.stderr)
        return 1
    if manifest.damaged_files and options.command == "create":
        print("Saved, but files of rows are missing or wrong in the media storage.", file=sys.stderr)
        return 1
    print(f"{past.capitalize()} and verified: {options.folder}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
