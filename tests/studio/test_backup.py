"""Test that a backup holds every row and file, that a restore proves it, and what both reject."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, text

from db.base import Base
from db.copy_database import TableDigest, connect_to_all_rows, digest_tables, list_tables
from db.embedded import use_cluster
from db.engine import build_engine
from db.migrations import head_revision, is_current, upgrade
from db.rls.owners import OwnersChanged
from studio.accounts.identity.passwords import PUBLISHED_PASSWORDS
from studio.commands import backup
from studio.infrastructure.database import FOLDER
from studio.infrastructure.settings import Settings
from studio.infrastructure.storage import LocalDisk, data_file_key, import_results_key
from tests.support.filled_server import fill_server
from tests.support.forks import kill_this_process, run_in_fork
from tests.support.old_schema import migrated_to_0_2_0
from tests.support.row_counts import actual_counts, has_rows, stored_counts
from tests.support.sqlite_files import write_referenced_files, write_release_file
from tools.servers.databases import DatabaseFactory, create_database

pytestmark = pytest.mark.usefixtures("small_chunks")

UPLOAD = "temp/01890000-0000-7000-8000-000000000001"
DATA_FILE = data_file_key(UUID(int=1))
IMPORT_RESULTS = import_results_key(UUID(int=2))
ANOTHER_MOMENT = pytest.mark.slow("it kills another restore, at another moment")


@dataclass
class Installation:
    """A server's settings: its database and its data folder."""

    url: str
    folder: Path
    monkeypatch: pytest.MonkeyPatch

    @property
    def storage(self) -> LocalDisk:
        """The media storage."""
        return LocalDisk(self.folder / "media")

    def run(self, *arguments: str | Path) -> int:
        """Run the command with the settings of this server, and return its exit status."""
        self.monkeypatch.setenv("DATA_DIR", str(self.folder))
        self.monkeypatch.setenv("DATABASE_URL", self.url)
        return backup.main([str(argument) for argument in arguments])

    def digest(self) -> dict[str, TableDigest]:
        """Return the digest of each table."""
        return digest_database(self.url)

    def execute(self, *statements: str) -> None:
        """Execute statements as the owner of the tables."""
        execute(self.url, *statements)

    def list_content(self) -> dict[str, bytes]:
        """Return the content of all files of the media storage, by key."""
        root = self.storage.root
        return {
            path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
        }

    def is_empty(self) -> bool:
        """Return whether there is no file and no row."""
        return not self.list_content() and not has_rows(self.url)


def execute(url: str, *statements: str) -> None:
    """Execute statements as the owner of the tables."""
    with connect_to_all_rows(url) as connection:
        for statement in statements:
            connection.execute(text(statement))
        connection.commit()


def digest_database(url: str) -> dict[str, TableDigest]:
    """Return the digest of each table."""
    with connect_to_all_rows(url) as connection:
        return digest_tables(connection, list_tables(connection))


@pytest.fixture(scope="module")
def server(database_factory: DatabaseFactory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Yield the settings of a server with a row in every table. Tests do not change it."""
    folder = tmp_path_factory.mktemp("server")
    with database_factory.copy_migrated() as url:
        fill_server(url, folder)
        storage = LocalDisk(folder / "media")
        media_id = next(iter(storage.list_files("media"))).key.split("/")[1]
        storage.write(f"media/{media_id}/variants/64.webp", b"a variant")
        storage.write(UPLOAD, b"an upload")
        (storage.root / "media" / media_id / ".file.jpg.0011223344556677").write_bytes(b"of a crash")
        storage.write(DATA_FILE, b"rows")
        storage.write(IMPORT_RESULTS, b"results")
        content_hash = hashlib.sha256(b"rows").hexdigest()
        execute(
            url,
            f"UPDATE product_imports SET status = 'pending', file_id = '{UUID(int=1)}', "  # noqa: S608 - all values are constants
            f"file_hash = '{content_hash}', images_file_id = NULL",
        )
        yield Settings(database_url=url, data_dir=folder, media_dir=storage.root)


@pytest.fixture(scope="module")
def digests(server: Settings) -> dict[str, TableDigest]:
    """Return the digests of the tables of the server."""
    return digest_database(server.database_url)


@pytest.fixture(scope="module")
def saved_once(server: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a backup of the server. Tests use copies."""
    folder = tmp_path_factory.mktemp("saved") / "backup"
    backup.create_backup(server, folder)
    return folder


@pytest.fixture
def source(server: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """Return a server with a row in every table. Tests change its files, but not its database."""
    folder = shutil.copytree(server.data_dir, tmp_path / "filled")
    return Installation(server.database_url, folder, monkeypatch)


@pytest.fixture
def filled(source: Installation) -> Iterator[Installation]:
    """Yield a server with a row in every table and a database that only this test uses."""
    with create_database(source.url) as url:
        yield Installation(url, source.folder, source.monkeypatch)


@pytest.fixture
def target(own_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """Return an empty server."""
    return Installation(own_database_url, tmp_path / "empty", monkeypatch)


@pytest.fixture(scope="module")
def empty_url(database_factory: DatabaseFactory) -> Iterator[str]:
    """Yield the URL of a database without rows that several tests use."""
    with database_factory.copy_migrated() as url:
        yield url


@pytest.fixture
def empty_target(empty_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """Return an empty server to which nothing is restored: tests check that its database stays empty."""
    return Installation(empty_url, tmp_path / "empty", monkeypatch)


@pytest.fixture
def target_of_0_2_0(
    database_factory: DatabaseFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Installation]:
    """Yield a server whose empty tables have the schema of release 0.2.0, which its backups need."""
    with create_database(migrated_to_0_2_0(database_factory)) as url:
        yield Installation(url, tmp_path / "new", monkeypatch)


@pytest.fixture
def saved(saved_once: Path, tmp_path: Path) -> Path:
    """Return a copy of a backup of that server."""
    return shutil.copytree(saved_once, tmp_path / "backup")


@pytest.fixture
def synchronized(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the files and folders that are synchronized from now on."""
    synchronized, fsync = [], os.fsync

    def record(descriptor: int) -> None:
        synchronized.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    return synchronized


def test_s32_a_backup_restores_every_row_and_file(
    source: Installation,
    digests: dict[str, TableDigest],
    target: Installation,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    synchronized: list[Path],
) -> None:
    folder = tmp_path / "backup"
    assert source.run("create", folder) == 0, capsys.readouterr().err
    assert f"Saved and verified: {folder}" in capsys.readouterr().out
    assert {path.stat().st_mode & 0o777 for path in (folder, folder / "tables")} == {0o700}
    synchronized.clear()
    assert target.run("restore", folder) == 0, capsys.readouterr().err
    folders = {path for path in target.storage.root.rglob("*") if path.is_dir()}
    assert {target.storage.root, *folders} <= set(synchronized)
    output = capsys.readouterr().out
    assert f"Restored and verified: {folder}" in output
    assert target.digest() == digests
    assert all(digest.rows for digest in digests.values())
    for table, digest in digests.items():
        assert f"\n{table:{max(map(len, digests))}}  {digest.rows:>10}  {digest.digest:064x}"[:-52] in output
    complete = {key: content for key, content in source.list_content().items() if "/." not in key}
    assert target.list_content() == complete
    assert len(complete) == len(source.list_content()) - 1
    assert (complete[DATA_FILE], complete[IMPORT_RESULTS]) == (b"rows", b"results")
    with connect_to_all_rows(target.url) as connection:
        assert stored_counts(connection) == actual_counts(connection) != {}


@pytest.mark.slow("it creates a cluster")
def test_s32_a_backup_is_restored_to_an_embedded_database_and_saved_there(
    digests: dict[str, TableDigest], saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = Installation("", tmp_path / "embedded", monkeypatch)
    assert embedded.run("restore", saved) == 0
    assert embedded.run("create", tmp_path / "again") == 0
    assert read_manifest(tmp_path / "again")["tables"] == read_manifest(saved)["tables"]
    with use_cluster(embedded.folder / FOLDER) as cluster:
        assert Installation(cluster.url, embedded.folder, monkeypatch).digest() == digests


def test_s32_the_files_of_a_backup_can_be_checked_with_sha256sum(saved: Path) -> None:
    names = {path.relative_to(saved).as_posix() for path in saved.rglob("*") if path.is_file()}
    sums = dict(reversed(line.split("  ")) for line in (saved / "SHA256SUMS").read_text().splitlines())
    assert sums.keys() == names - {"SHA256SUMS", "manifest.json"}
    for name, digest in sums.items():
        assert hashlib.sha256((saved / name).read_bytes()).hexdigest() == digest


def test_s32_restore_rejects_a_database_that_is_not_empty(
    source: Installation, digests: dict[str, TableDigest], saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(source.storage.root)
    assert source.run("restore", saved) == 2
    assert "Not restored: The target is not empty" in capsys.readouterr().err
    assert (source.digest(), source.list_content()) == (digests, {})


@pytest.mark.parametrize("key", ["media/01890000-0000-7000-8000-000000000001/.file.jpg.00", "temp/other"])
def test_s32_restore_rejects_a_media_storage_that_is_not_empty(
    empty_target: Installation, saved: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    path = empty_target.storage.root / key
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    assert empty_target.run("restore", saved) == 2
    assert f"Not restored: the media storage is not empty: it has a file {key}" in capsys.readouterr().err
    assert empty_target.list_content() == {key: b"mine"}
    assert not has_rows(empty_target.url)


def test_s32_a_backup_is_not_saved_in_a_folder_that_is_not_empty(
    source: Installation, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in saved.rglob("*") if path.is_file()}
    assert source.run("create", saved) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in saved.rglob("*") if path.is_file()} == before


def test_s32_another_user_than_that_of_the_server_is_rejected(
    source: Installation, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    user_id = source.folder.stat().st_uid
    source.monkeypatch.setattr("os.geteuid", lambda: user_id + 1)
    for command, folder in (("create", tmp_path / "another"), ("restore", saved)):
        assert source.run(command, folder) == 2
        assert f"belongs to the user with the id {user_id}: run this" in capsys.readouterr().err
    assert not (tmp_path / "another").exists()


def change_rows(folder: Path) -> None:
    path = folder / "tables" / "brands.copy"
    path.write_bytes(path.read_bytes().replace(b"slug-7\t", b"changed\t"))


def change_image(folder: Path) -> None:
    next(folder.glob("media/*/file.*")).write_bytes(b"changed")


@pytest.mark.parametrize(
    ("damage", "status", "error"),
    [
        (change_rows, 1, "tables/brands.copy has changed"),
        (change_image, 1, "has changed"),
        (lambda folder: next(folder.glob("exports/*/*")).unlink(), 1, "cannot be read (No such file"),
        (lambda folder: (folder / "temp" / "more").write_bytes(b"x"), 1, "were saved: temp/more"),
        (lambda folder: (folder / "SHA256SUMS").write_text(""), 1, "SHA256SUMS has changed"),
        (lambda folder: (folder / "SHA256SUMS").unlink(), 1, "SHA256SUMS cannot be read"),
        (lambda folder: (folder / "manifest.json").unlink(), 2, "is not a complete backup"),
        (lambda folder: (folder / "manifest.json").write_text("{"), 2, "is not a complete backup"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), 2, "is not a complete backup"),
    ],
)
def test_s32_a_backup_that_has_changed_is_not_restored(
    empty_target: Installation,
    saved: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], object],
    status: int,
    error: str,
) -> None:
    damage(saved)
    assert empty_target.run("restore", saved) == status
    assert error in capsys.readouterr().err
    assert empty_target.is_empty()


def rewrite_manifest(folder: Path, **values: object) -> None:
    """Change the manifest of a backup, and the hashes to its changed files."""
    names = [line.split("  ")[1] for line in (folder / "SHA256SUMS").read_text().splitlines()]
    hashes = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    sums = "".join(f"{digest}  {name}\n" for name, digest in hashes.items()).encode()
    (folder / "SHA256SUMS").write_bytes(sums)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest |= {"sums": hashlib.sha256(sums).hexdigest(), **values}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_s32_a_difference_between_rows_and_manifest_empties_the_target(
    empty_target: Installation, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_rows(saved)
    rewrite_manifest(saved)
    assert empty_target.run("restore", saved) == 1
    assert "Not restored: these tables differ from the backup: brands" in capsys.readouterr().err
    assert empty_target.is_empty()


def test_s32_a_backup_of_an_older_schema_is_upgraded(
    target: Installation, digests: dict[str, TableDigest], saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The next release, whose only new revision adds a column.
    revision = f"{int(head_revision()) + 1:04}"
    upgraded = []

    def upgrade_to_next(url: str, revision: str = "head") -> None:
        upgraded.append(revision)
        upgrade(url, revision)
        if revision == "head":
            target.execute("ALTER TABLE brands ADD COLUMN of_the_next_release TEXT")

    monkeypatch.setattr(backup, "upgrade", upgrade_to_next)
    monkeypatch.setattr("db.copy_database.upgrade", upgrade_to_next)
    monkeypatch.setattr(backup, "head_revision", lambda: revision)
    assert target.run("restore", saved) == 0
    assert upgraded == [head_revision(), "head"]
    restored = target.digest()
    assert restored == {**digests, "brands": restored["brands"]}
    assert restored["brands"].rows == digests["brands"].rows


@pytest.fixture
def saved_by_0_2_0(tmp_path: Path) -> Path:
    """Return a backup of release 0.2.0, whose rows are in an SQLite file."""
    folder = tmp_path / "format-1"
    folder.mkdir()
    file = write_release_file(folder / "database.sqlite", "PRAGMA user_version = 7")
    keys = [file.name, *write_referenced_files(file, LocalDisk(folder))]
    hashes = {key: hashlib.sha256((folder / key).read_bytes()).hexdigest() for key in keys}
    sums = "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items())).encode()
    (folder / "SHA256SUMS").write_bytes(sums)
    manifest = {
        "revision": "0048",
        "created_at": "2026-11-30T10:00:00+00:00",
        "sums": hashlib.sha256(sums).hexdigest(),
        "tables": {"brands": [6, "0" * 64], "users": [4, "0" * 64]},
        "damaged_files": {},
        "format": 1,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_s32_a_backup_of_release_0_2_0_is_restored_and_upgraded(
    target_of_0_2_0: Installation, saved_by_0_2_0: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.name for path in saved_by_0_2_0.iterdir())
    assert target_of_0_2_0.run("restore", saved_by_0_2_0) == 0, capsys.readouterr().err
    output = capsys.readouterr().out
    assert "10 rows in 2 tables and 11 files, saved at 2026-11-30T10:00:00+00:00\n" in output
    assert f"Deactivated in the copy, with an unusable password: {', '.join(PUBLISHED_PASSWORDS)}." in output
    assert is_current(target_of_0_2_0.url)
    # All 207 rows but for a token that was mailed to a demo account, and five counts of stored bytes.
    assert sum(digest.rows for digest in target_of_0_2_0.digest().values()) == 211
    assert len(target_of_0_2_0.list_content()) == 11
    # The backup may be on a read-only medium.
    assert sorted(path.name for path in saved_by_0_2_0.iterdir()) == before


def test_s32_a_backup_of_release_0_2_0_is_restored_as_it_was_saved_or_not_at_all(
    target_of_0_2_0: Installation, saved_by_0_2_0: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = read_manifest(saved_by_0_2_0)
    cases: list[tuple[dict[str, object], int, str]] = [
        ({"revision": "0047"}, 2, "restore it with release 0.2.0, and save it again there"),
        ({"tables": {"brands": [7, "0" * 64]}}, 1, "these tables differ from the backup: brands"),
        ({"damaged_files": {"exports/of/another": "is missing"}}, 1, "rows refer to other files"),
    ]
    for values, status, error in cases:
        rewrite_manifest(saved_by_0_2_0, **{**manifest, **values})
        assert target_of_0_2_0.run("restore", saved_by_0_2_0) == status
        assert error in capsys.readouterr().err
        assert target_of_0_2_0.is_empty()


def test_s32_a_backup_of_a_newer_release_is_rejected(
    empty_target: Installation, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite_manifest(saved, revision="9999")
    assert empty_target.run("restore", saved) == 2
    assert f"with schema 9999 instead of {head_revision()}" in capsys.readouterr().err
    assert empty_target.is_empty()


def test_s32_a_database_without_the_newest_schema_is_not_saved(
    target: Installation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target.execute("UPDATE alembic_version SET version_num = '0047'")
    assert target.run("create", tmp_path / "first") == 2
    assert "--prepare-only" in capsys.readouterr().err
    target.execute("DROP TABLE alembic_version")
    assert target.run("create", tmp_path / "first") == 2
    assert "--prepare-only" in capsys.readouterr().err
    assert not (tmp_path / "first").exists()


def test_s32_a_table_that_is_not_saved_as_it_is_is_named_and_no_backup_remains(
    source: Installation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_rows = backup.save_rows

    def save_and_change(url: str, folder: Path) -> object:
        saved = save_rows(url, folder)
        change_rows(folder)
        return saved

    monkeypatch.setattr(backup, "save_rows", save_and_change)
    assert source.run("create", tmp_path / "backup") == 1
    assert "these tables were not saved as they are: brands" in capsys.readouterr().err
    assert not (tmp_path / "backup").exists()


def test_s32_a_file_that_the_server_has_lost_is_reported_and_the_rest_is_saved(
    target: Installation,
    source: Installation,
    digests: dict[str, TableDigest],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lost = next(iter(source.storage.list_files("exports"))).key
    source.storage.delete(lost)
    assert source.run("create", tmp_path / "backup") == 1
    output = capsys.readouterr()
    assert f"The file {lost} is missing" in output.out
    assert "files of rows are missing or wrong" in output.err
    assert target.run("restore", tmp_path / "backup") == 0
    assert f"The file {lost} is missing" in capsys.readouterr().out
    assert target.digest() == digests


def test_s32_no_row_of_a_backup_lacks_a_file_that_was_stored_or_deleted_meanwhile(
    filled: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = next(iter(filled.storage.list_files("exports"))).key
    content = filled.storage.read(archive)
    media_id, content_hash = "01890000-0000-7000-8000-00000000000a", hashlib.sha256(b"new").hexdigest()
    save_rows, moments = backup.save_rows, []

    def change_meanwhile(url: str, path: Path) -> object:
        if not moments:  # before the rows: an image is stored, then its row
            filled.storage.write(f"media/{media_id}/file.jpg", b"new")
            filled.storage.write(UPLOAD, b"another upload")
            table = Base.metadata.tables["media_resources"]
            names = [c.name for c in table.columns if c.name not in ("id", "content_hash")]
            filled.execute(
                f"INSERT INTO media_resources (id, content_hash, {', '.join(names)}) "  # noqa: S608 - constants
                f"SELECT '{media_id}', '{content_hash}', {', '.join(names)} FROM media_resources "
                "WHERE extension = 'jpg' LIMIT 1"
            )
        rows = save_rows(url, path)
        if not moments:  # after the rows: an export that is in them is deleted with its file
            filled.execute("DELETE FROM export_items", "DELETE FROM exports")
            filled.storage.delete(archive)
        moments.append(path)
        return rows

    monkeypatch.setattr(backup, "save_rows", change_meanwhile)
    assert filled.run("create", tmp_path / "backup") == 0
    assert len(moments) == 1
    saved = LocalDisk(tmp_path / "backup")
    assert saved.read(f"media/{media_id}/file.jpg") == b"new"
    assert saved.read(archive) == content
    # A client may replace the file of an upload that is not in use yet.
    assert saved.read(UPLOAD) == b"another upload"
    assert read_manifest(tmp_path / "backup")["damaged_files"] == {}


def test_s32_the_rows_are_saved_again_if_a_new_file_was_deleted_before_it_was_copied(
    filled: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = next(iter(filled.storage.list_files("exports"))).key
    filled.storage.delete(archive)
    save_rows, moments = backup.save_rows, []

    def finish_and_delete_export(url: str, path: Path) -> object:
        rows = save_rows(url, path)
        if not moments:
            filled.execute("DELETE FROM export_items", "DELETE FROM exports")
        moments.append(path)
        return rows

    monkeypatch.setattr(backup, "save_rows", finish_and_delete_export)
    assert filled.run("create", tmp_path / "backup") == 0
    assert len(moments) == 2
    assert read_manifest(tmp_path / "backup")["tables"]["exports"] == [0, "0" * 64]


def test_s32_the_rows_are_of_one_moment_while_others_are_written(
    filled: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, read_lines, tables = filled.digest(), backup.read_lines, []

    def write_first(connection: Connection, table: str, columns: list[str]) -> Iterator[bytes]:
        if not tables:
            filled.execute("UPDATE brands SET name = 'later' WHERE name = '7'")
        tables.append(table)
        return read_lines(connection, table, columns)

    monkeypatch.setattr(backup, "read_lines", write_first)
    assert filled.run("create", tmp_path / "backup") == 0
    assert tables[0] < "brands"
    saved = read_manifest(tmp_path / "backup")["tables"]
    assert saved == {name: [digest.rows, str(digest)] for name, digest in before.items()}
    assert filled.digest() != before


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a backup."""
    values: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
    return values


def test_s32_a_backup_that_would_miss_protected_rows_is_rejected(
    filled: Installation, digests: dict[str, TableDigest], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for policies in (["brands"], ["audit_events", "brands"]):
        filled.execute(*(f"DROP POLICY IF EXISTS migrating ON {table}" for table in policies))
        assert filled.run("create", tmp_path / "backup") == 2
        hidden = ", ".join(f"{table} (0 of {digests[table].rows} rows)" for table in policies)
        error = capsys.readouterr().err
        assert f"hides rows from this login: {hidden}. " in error
        assert "MIGRATION_DATABASE_URL" in error
        assert not (tmp_path / "backup").exists()


@pytest.fixture(scope="module")
def changed_url(database_factory: DatabaseFactory) -> Iterator[str]:
    """Yield the URL of a database whose owners several tests change, and change back."""
    with database_factory.copy_migrated() as url:
        yield url


GRANT_CREATE = "GRANT CREATE ON SCHEMA public TO sartiq_system"
MIGRATING = "current_setting('sartiq.migrating', true) = 'on'"
FUNCTION = "sartiq_queue_position(priority integer, created_at timestamp with time zone, id uuid)"


@pytest.mark.parametrize(
    ("change", "statement"),
    [
        (
            f"ALTER FUNCTION {FUNCTION} OWNER TO CURRENT_USER",
            f"ALTER FUNCTION public.{FUNCTION} OWNER TO sartiq_system;",
        ),
        (
            "ALTER FUNCTION sartiq_count_brands() OWNER TO CURRENT_USER",
            "ALTER FUNCTION public.sartiq_count_brands() OWNER TO sartiq_system;",
        ),
        (
            f"{GRANT_CREATE}; ALTER FUNCTION sartiq_user_id() OWNER TO sartiq_system",
            "ALTER FUNCTION public.sartiq_user_id() OWNER TO {owner};",
        ),
        (
            f"{GRANT_CREATE}; ALTER FUNCTION maintain_audit_partitions() OWNER TO sartiq_system",
            "ALTER FUNCTION public.maintain_audit_partitions() OWNER TO {owner};",
        ),
        (
            "ALTER POLICY migrating ON brands TO sartiq_app",
            "ALTER POLICY migrating ON public.brands TO {owner};",
        ),
        (
            "DROP POLICY migrating ON brands",
            f"CREATE POLICY migrating ON public.brands TO {{owner}} USING ({MIGRATING});",
        ),
    ],
)
def test_s32_nothing_starts_while_row_level_security_belongs_to_another_role(
    changed_url: str, change: str, statement: str
) -> None:
    upgrade(changed_url)
    engine = build_engine(changed_url, pool_size=1)
    with engine.begin() as connection:
        owner = connection.scalar(text("SELECT current_user"))
        connection.exec_driver_sql(change)
    with pytest.raises(OwnersChanged) as error:
        upgrade(changed_url)
    missing = statement.format(owner=owner)
    assert str(error.value).splitlines()[1:] == [f"    {missing}"]
    with engine.begin() as connection:
        # What a superuser need not do.
        connection.exec_driver_sql(GRANT_CREATE)
        connection.exec_driver_sql(missing)
        connection.exec_driver_sql("REVOKE CREATE ON SCHEMA public FROM sartiq_system")
    engine.dispose()
    upgrade(changed_url)


def test_s32_nothing_starts_if_policies_are_missing(own_database_url: str) -> None:
    execute(own_database_url, "DROP POLICY system ON brands")
    with pytest.raises(OwnersChanged, match=r"tables are missing.*: brands. Restore it again"):
        upgrade(own_database_url)


def kill_restore(target: Installation, folder: Path, point: str) -> None:
    """Run `restore` and kill its process at a moment.

    That is in the middle of the third file, before the rows are committed, before the schema is upgraded, or
    when only the mark of an unfinished restore is left.
    """
    copied, copy, delete = [], backup.FileCopies._copy, LocalDisk.delete

    def copy_or_kill(copies: backup.FileCopies, key: str) -> str:
        copied.append(key)
        if len(copied) == 3:
            with copies._target.open_writer(key) as file:
                file.write(b"half")
                file.flush()
                kill_this_process()
        return copy(copies, key)

    def delete_or_kill(storage: LocalDisk, key: str) -> None:
        if key == backup._UNFINISHED:
            kill_this_process()
        delete(storage, key)

    patches: dict[str, tuple[Any, str, Callable[..., Any]]] = {
        "file": (backup.FileCopies, "_copy", copy_or_kill),
        "rows": (backup, "list_referenced_files", kill_this_process),
        "upgrade": (backup, "upgrade", kill_this_process),
        "end": (LocalDisk, "delete", delete_or_kill),
    }

    def restore() -> None:
        target.monkeypatch.setattr(*patches[point])
        target.run("restore", folder)

    assert run_in_fork(restore) == -signal.SIGKILL


@pytest.mark.parametrize(
    "points", [["file", "end"], *(pytest.param([p], marks=ANOTHER_MOMENT) for p in ("rows", "upgrade"))]
)
def test_s32_a_killed_restore_is_completed_by_the_next_one(
    target: Installation,
    source: Installation,
    digests: dict[str, TableDigest],
    saved: Path,
    capsys: pytest.CaptureFixture[str],
    points: list[str],
) -> None:
    for point in points:
        kill_restore(target, saved, point)
        assert target.list_content()
    assert target.run("restore", saved) == 0, capsys.readouterr().err
    assert target.digest() == digests
    complete = {key: content for key, content in source.list_content().items() if "/." not in key}
    assert target.list_content() == complete
    assert target.run("restore", saved) == 2


@pytest.mark.slow("it kills another restore")
def test_s32_a_killed_restore_of_another_backup_is_rejected(
    target: Installation,
    source: Installation,
    saved: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    another = tmp_path / "another"
    source.storage.write(UPLOAD, b"another upload")
    assert source.run("create", another) == 0
    kill_restore(target, another, "rows")
    before = target.list_content()
    assert target.run("restore", saved) == 2
    assert "an unfinished restore of another backup" in capsys.readouterr().err
    assert target.list_content() == before
    assert target.run("restore", another) == 0


@pytest.mark.slow("it kills another restore")
def test_s32_what_a_server_has_written_after_a_killed_restore_is_kept(
    target: Installation, saved: Path
) -> None:
    kill_restore(target, saved, "end")
    target.execute("UPDATE brands SET name = 'changed' WHERE name = '7'")
    rows, files = target.digest(), target.list_content()
    assert target.run("restore", saved) == 0
    mark = "temp/00000000-0000-0000-0000-000000000000"
    assert (target.digest(), {**target.list_content(), mark: files[mark]}) == (rows, files)


@pytest.mark.slow("it kills another restore")
def test_s32_rows_that_a_server_writes_before_a_killed_restore_is_completed_stop_it(
    target: Installation, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kill_restore(target, saved, "rows")
    target.execute("INSERT INTO try_counts VALUES ('sign_in', 'a', 1)")
    assert target.run("restore", saved) == 2
    assert "The target is not empty: there are rows in try_counts" in capsys.readouterr().err


@pytest.mark.slow("it kills another restore")
def test_s32_a_file_that_is_not_of_the_backup_stops_the_completion_of_a_restore(
    target: Installation, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kill_restore(target, saved, "file")
    target.storage.write("temp/other", b"mine")
    files = target.list_content()
    assert target.run("restore", saved) == 2
    assert "it has a file temp/other" in capsys.readouterr().err
    assert target.list_content() == files


def test_s32_two_restores_do_not_run_at_the_same_time(
    empty_target: Installation,
    saved: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    change_rows(saved)  # The first one writes nothing, too.
    verify, statuses = backup.verify_files, []

    def restore_meanwhile(*arguments: Any) -> None:
        monkeypatch.setattr(backup, "verify_files", verify)
        statuses.append(empty_target.run("restore", saved))
        verify(*arguments)

    monkeypatch.setattr(backup, "verify_files", restore_meanwhile)
    assert (empty_target.run("restore", saved), statuses) == (1, [2])
    error = capsys.readouterr().err
    assert "another restore is running" in error
    assert "tables/brands.copy has changed" in error


def test_s32_a_folder_is_synchronized_after_a_file_in_it_is_renamed(
    tmp_path: Path, synchronized: list[Path]
) -> None:
    backup._write_file(tmp_path / "manifest.json", [b"{}"])
    assert synchronized == [tmp_path / ".manifest.json", tmp_path]
