"""The commands behind `make backup` and `make restore`: save and restore all rows and files, and verify both.

A backup is a folder: `database.sqlite` with the rows of either database, the files of the media storage under
their keys, `SHA256SUMS`, and `manifest.json`, which is written last. Knows no HTTP.

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
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError

from db.base import utc_now
from db.change_feed.maintenance import begin_new_feed_of_file
from db.copy_database import (
    CopyFailed,
    CopyRejected,
    TableDigest,
    copy_database,
    digest_tables,
    open_snapshot,
    require_empty_database,
    save_snapshot,
)
from db.engine import build_engine
from db.errors import NotFound
from db.migrations import head_revision, upgrade
from db.migrations.locks import MigrationBlocked
from db.rls.session_role import bypass_rls
from db.rls.setup import RolesMissing
from studio.media.backends import open_storage
from studio.media.referenced_files import CHUNK_BYTES, find_file_error, list_referenced_files
from studio.media.storage import LocalDisk, Storage, StoredFile, sync_folder, temporary_key
from studio.settings import PRIVATE_UMASK, InvalidSettings, Settings, load_env_file

FORMAT = 1
MAX_SNAPSHOTS = 3
"""How often the rows are saved again because a file was deleted before it could be copied."""
MAX_LISTED_FILES = 20

_DATABASE, _MANIFEST, _SUMS = "database.sqlite", "manifest.json", "SHA256SUMS"
# Marks a media storage to which a restore has not ended, and holds the hash of its `SHA256SUMS`. No upload
# has this id, so garbage collection deletes the file after a day.
_UNFINISHED = temporary_key(UUID(int=0))
_TEMPORARY_FOLDER = ".restore-"
_MEDIA_FOLDERS = ("media", "exports", "temp")


class BackupRejected(Exception):
    """Nothing was written; the message explains why."""


class BackupDamaged(Exception):
    """A backup has changed, or it differs from the database or the files. The message names what differs."""


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
    damaged_files: dict[str, str]
    """Files of rows that were already missing or wrong in the media storage, and what is wrong."""
    format: int = FORMAT

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of a backup.

        Raises:
            BackupRejected: There is no complete backup, or a newer release made it.
        """
        try:
            values: dict[str, Any] = json.loads((folder / _MANIFEST).read_bytes())
            manifest = cls(**values)
        except (OSError, ValueError, TypeError) as error:
            raise BackupRejected(f"{folder} is not a complete backup: {error}") from error
        if manifest.format != FORMAT or manifest.revision > head_revision():
            raise BackupRejected(
                f"{folder} was made by a newer release, with schema {manifest.revision} instead of "
                f"{head_revision()}: restore it with that release"
            )
        return manifest


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
        CopyRejected, CopyFailed: As `save_snapshot`.
    """
    require_owner_of_data(settings)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BackupRejected(f"{folder} is not an empty folder")
    # Password hashes and photos are in it.
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    try:
        return save_all(settings, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def save_all(settings: Settings, folder: Path) -> Manifest:
    """Save the rows and files of a server in an empty folder; raise as `create_backup`."""
    backup, snapshot = LocalDisk(folder), folder / _DATABASE
    copies = FileCopies(open_storage(settings), backup)
    copies.copy_new_files()
    for _ in range(MAX_SNAPSHOTS):
        snapshot.unlink(missing_ok=True)
        created_at = utc_now()
        reports = save_snapshot(_owner_url(settings), snapshot)
        copies.copy_new_files()
        damaged_files = find_damaged_files(snapshot, backup)
        # An export that a client deletes right after the snapshot has no row in the next one.
        if not damaged_files:
            break
    different = [report.table for report in reports if not report.is_identical]
    if different:
        raise BackupDamaged(f"these tables were not saved as they are: {', '.join(different)}")
    hashes = {**copies.hashes, _DATABASE: _hash_file(snapshot)}
    verify_files(folder, copies.hashes)
    sums = "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items())).encode()
    manifest = Manifest(
        revision=head_revision(),
        created_at=created_at.isoformat(),
        sums=hashlib.sha256(sums).hexdigest(),
        tables=_describe_tables({report.table: report.after for report in reports}),
        damaged_files=damaged_files,
    )
    _write_file(folder / _SUMS, sums)
    _write_file(folder / _MANIFEST, json.dumps(asdict(manifest), indent=2).encode())
    return manifest


def restore_backup(settings: Settings, folder: Path) -> Manifest:
    """Restore a backup to an empty database and an empty media storage; if it fails, both are empty again.

    If the process is killed, the next call with the same backup completes the restore.

    Raises:
        BackupRejected, CopyRejected: The backup is incomplete, the database or the storage is not empty,
            another user owns the data folder of the server, or another restore is running.
        BackupDamaged: The backup is not as it was made, or what was restored differs from it.
        CopyFailed: PostgreSQL rejected a row.
        RolesMissing: As `db.migrations.upgrade`.
    """
    require_owner_of_data(settings)
    manifest = Manifest.read(folder)
    with lock_folder(settings.data_dir):
        storage, url = open_storage(settings), _owner_url(settings)
        is_continued = _is_unfinished(storage, manifest)
        if not is_continued:
            require_empty_database(url)
        storage.prepare()
        hashes = read_sums(folder, manifest)
        _require_no_other_file(storage, hashes if is_continued else {})
        verify_files(folder, hashes)
        restore_all(folder, manifest, hashes, storage, url, is_continued)
    return manifest


def restore_all(
    folder: Path,
    manifest: Manifest,
    hashes: Mapping[str, str],
    storage: Storage,
    url: str,
    is_continued: bool,
) -> None:
    """Restore files and rows of a verified backup.

    Args:
        is_continued: An earlier restore of this backup was killed. It may have restored anything.
    """
    with prepare_rows(folder / _DATABASE, url, manifest) as (copy, digests):
        if is_continued and not _is_empty_database(url):
            if not _has_rows(url, digests):
                require_empty_database(url)
            # Only the verification of the files, and the mark, are missing.
            require_files(copy, hashes, manifest, storage)
            storage.delete(_UNFINISHED)
            return
        storage.write(_UNFINISHED, manifest.sums.encode())
        copies = FileCopies(LocalDisk(folder), storage)
        try:
            # Files first: the server must not find a row without its file.
            copies.copy_new_files()
            different = {name for name, _ in copies.hashes.items() ^ hashes.items()} - {_DATABASE}
            if different:
                raise BackupDamaged(_describe_files(different))
            require_files(copy, hashes, manifest, storage)
            restore_rows(copy, url)
        except BaseException:
            for key in {*copies.hashes, *hashes} - {_DATABASE}:
                storage.delete(key)
            storage.delete(_UNFINISHED)
            raise
        storage.delete(_UNFINISHED)


@contextmanager
def prepare_rows(
    snapshot: Path, url: str, manifest: Manifest
) -> Iterator[tuple[Path, dict[str, TableDigest]]]:
    """Yield a copy of a snapshot with the newest schema, beside its later place, and its digests.

    Raises:
        BackupDamaged: The rows are not those of the manifest.
    """
    is_sqlite = make_url(url).get_backend_name() == "sqlite"
    target = Path(make_url(url).database or "")
    if is_sqlite:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A killed restore leaves its folder.
        for leftover in target.parent.glob(f"{_TEMPORARY_FOLDER}*"):
            shutil.rmtree(leftover)
    # SQLite renames the file into place, so it is prepared beside its place.
    parent = target.parent if is_sqlite else None
    with tempfile.TemporaryDirectory(prefix=_TEMPORARY_FOLDER, dir=parent) as name:
        copy = Path(name) / _DATABASE
        shutil.copyfile(snapshot, copy)
        if manifest.revision != head_revision():
            upgrade(f"sqlite:///{copy}")
        begin_new_feed_of_file(copy)
        with open_snapshot(copy) as connection:
            digests = digest_tables(connection)
        if manifest.revision == head_revision():
            _require_equal(manifest.tables, _describe_tables(digests))
        yield copy, digests


def require_files(copy: Path, hashes: Mapping[str, str], manifest: Manifest, storage: Storage) -> None:
    """Check the restored files, and that rows refer to no others.

    Raises:
        BackupDamaged: A file differs, or the backup lacks files of rows.
    """
    wrong = [
        key for key, digest in hashes.items() if key != _DATABASE and find_file_error(storage, key, digest)
    ]
    if wrong:
        raise BackupDamaged(_describe_files(wrong))
    if find_damaged_files(copy, storage).keys() != manifest.damaged_files.keys():
        raise BackupDamaged("rows refer to other files than the backup has")


def restore_rows(copy: Path, url: str) -> None:
    """Restore the rows of a prepared snapshot to an empty database, all or none."""
    if make_url(url).get_backend_name() == "sqlite":
        target = Path(make_url(url).database or "")
        with copy.open("rb") as file:
            os.fsync(file.fileno())
        # Checked again: a server may have started in between.
        require_empty_database(url)
        copy.replace(target)
        sync_folder(target.parent)
    elif not copy_database(f"sqlite:///{copy}", url, lambda _, reports: True):
        raise BackupDamaged("PostgreSQL has stored other rows than the backup has")


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


def _is_empty_database(url: str) -> bool:
    try:
        require_empty_database(url)
    except CopyRejected:
        return False
    return True


def _has_rows(url: str, digests: Mapping[str, TableDigest]) -> bool:
    """Return whether a database has exactly these rows, and no server has used it yet."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        path = Path(parsed.database or "")
        if any(path.with_name(path.name + suffix).exists() for suffix in ("-wal", "-shm", "-journal")):
            return False
        with open_snapshot(path) as connection:
            # compared: no secrets, but the digests of tables.
            return digest_tables(connection) == digests
    engine = build_engine(url, pool_size=1)
    try:
        with engine.connect() as connection:
            bypass_rls(connection)
            # compared: no secrets, but the digests of tables.
            return digest_tables(connection) == digests
    finally:
        engine.dispose()


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

    Both commands write below the data folder: a log of SQLite, a cache of S3, the restored files. Under umask
    077 the server cannot read what another user, such as root, writes there.

    Raises:
        BackupRejected: Another user owns the data folder.
    """
    folder = settings.data_dir
    if folder.exists() and (user_id := folder.stat().st_uid) != os.geteuid():
        raise BackupRejected(
            f"{folder} belongs to the user with the id {user_id}: run this command as that user"
        )


def find_damaged_files(snapshot: Path, storage: Storage) -> dict[str, str]:
    """Return the files that rows of a snapshot refer to and that are missing or wrong, and what is wrong."""
    with open_snapshot(snapshot) as connection:
        return {
            key: error
            for key, content_hash in list_referenced_files(connection)
            if (error := find_file_error(storage, key, content_hash))
        }


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


def _is_partial(key: str) -> bool:
    return key.rpartition("/")[2].startswith(".")


def _write_file(path: Path, data: bytes) -> None:
    """Write a file durably: after a crash it is complete or absent."""
    partial = path.with_name(f".{path.name}")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync_folder(path.parent)


def _describe_files(keys: Iterable[str]) -> str:
    listing = ", ".join(sorted(keys)[:MAX_LISTED_FILES])
    return f"these files differ from those that were saved: {listing}"


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _describe_tables(digests: Mapping[str, TableDigest]) -> dict[str, list[Any]]:
    # Lists, because JSON has no tuples.
    return {name: [digest.rows, f"{digest.digest:064x}"] for name, digest in digests.items()}


def _require_equal(saved: Mapping[str, list[Any]], restored: Mapping[str, list[Any]]) -> None:
    different = sorted(
        name for name in saved.keys() | restored.keys() if saved.get(name) != restored.get(name)
    )
    if different:
        raise BackupDamaged(f"these tables differ from the backup: {', '.join(different)}")


def _owner_url(settings: Settings) -> str:
    return settings.migration_database_url or settings.database_url


def print_manifest(manifest: Manifest, hashes: Iterable[str]) -> None:
    """Print the number of rows of each table, and of files."""
    width = max(map(len, manifest.tables))
    print(f"{'Table':{width}}  {'Rows':>10}  Content")
    for table, (rows, digest) in sorted(manifest.tables.items()):
        print(f"{table:{width}}  {rows:>10}  {digest[:12] if rows else '-'}")
    files = sum(name != _DATABASE for name in hashes)
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
    parser = argparse.ArgumentParser(prog="python -m studio.backup", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command: Callable[[Settings, Path], Manifest]
    for name, command, past, text in (
        ("create", create_backup, "saved", "save all rows and files in a new folder"),
        ("restore", restore_backup, "restored", "restore them to an empty database and media storage"),
    ):
        subparser = commands.add_parser(name, help=text, description=text)
        subparser.add_argument("folder", type=Path)
        subparser.set_defaults(run=command, past=past)
    options = parser.parse_args(arguments)
    os.umask(PRIVATE_UMASK)
    try:
        load_env_file()
        settings = Settings.from_environment()
        manifest = options.run(settings, options.folder)
        print_manifest(manifest, read_sums(options.folder, manifest))
    except (InvalidSettings, BackupRejected, CopyRejected, MigrationBlocked, RolesMissing) as error:
        print(f"Not {options.past}: {error}", file=sys.stderr)
        return 2
    except (BackupDamaged, CopyFailed, DBAPIError, OSError) as error:
        print(f"Not {options.past}: {getattr(error, 'orig', error)}", file=sys.stderr)
        return 1
    if manifest.damaged_files and options.run is create_backup:
        print("Saved, but files of rows are missing or wrong in the media storage.", file=sys.stderr)
        return 1
    print(f"{options.past.capitalize()} and verified: {options.folder}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
