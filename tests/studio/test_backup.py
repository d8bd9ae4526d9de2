"""Test that a backup holds every row and file, that a restore proves it, and what both refuse."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from db import copy_database as copying
from db.base import Base
from db.copy_database import TableDigest, copy_database, digest_tables, open_snapshot
from db.engine import build_engine
from db.migrations import downgrade, head_revision, is_current, upgrade
from db.rls.owners import OwnersChanged
from db.rls.session_role import bypass_rls
from studio import backup
from studio.media.storage import LocalDisk
from studio.settings import Settings
from tests.e2e.server import ROOT
from tests.support.databases import create_database
from tests.support.filled_server import fill_server_folder
from tests.support.row_counts import actual_counts, stored_counts

pytestmark = pytest.mark.usefixtures("small_batches")

UPLOAD = "temp/01890000-0000-7000-8000-000000000001"
ANOTHER_KIND = pytest.mark.slow("it repeats a test on another kind of database")
ANOTHER_MOMENT = pytest.mark.slow("it kills another process, at another moment")


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
        """Run `python -m studio.backup` with the settings of this server, and return its exit status."""
        self.monkeypatch.setenv("DATA_DIR", str(self.folder))
        self.monkeypatch.setenv("DATABASE_URL", self.url)
        return backup.main([str(argument) for argument in arguments])

    def digest(self) -> dict[str, TableDigest]:
        """Return the digest of each table."""
        engine = build_engine(self.url, pool_size=1)
        with engine.connect() as connection:
            bypass_rls(connection)
            digests = digest_tables(connection)
        engine.dispose()
        return digests

    def execute(self, *statements: str) -> None:
        """Execute statements as the owner of the tables."""
        engine = build_engine(self.url, pool_size=1)
        with engine.begin() as connection:
            bypass_rls(connection)
            for statement in statements:
                connection.execute(text(statement))
        engine.dispose()

    def list_content(self) -> dict[str, bytes]:
        """Return the content of all files of the media storage, by key."""
        root = self.storage.root
        return {
            path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
        }

    def is_empty(self) -> bool:
        """Return whether there is no file, and no row or no database."""
        if self.url.startswith("sqlite"):
            return not self.list_content() and not (self.folder / "sartiq.db").exists()
        engine = build_engine(self.url, pool_size=1)
        with engine.connect() as connection:
            has_tables = connection.scalar(text("SELECT to_regclass('brands')")) is not None
        engine.dispose()
        return not self.list_content() and not (has_tables and any(d.rows for d in self.digest().values()))


Install = Callable[[str, bool], Installation]


@pytest.fixture(scope="module")
def server_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder with a row in every table of its SQLite database."""
    folder = fill_server_folder(tmp_path_factory.mktemp("server"))
    storage = LocalDisk(folder / "media")
    media_id = next(iter(storage.list_files("media"))).key.split("/")[1]
    storage.write(f"media/{media_id}/variants/64.webp", b"a variant")
    storage.write(UPLOAD, b"an upload")
    (storage.root / "media" / media_id / ".file.jpg.0011223344556677").write_bytes(b"of a crash")
    return folder


@pytest.fixture(scope="module")
def filled_postgresql(server_folder: Path) -> Iterator[str]:
    """Yield the URL of a PostgreSQL database with the same rows. Tests use copies."""
    with create_database() as url:
        assert copy_database(f"sqlite:///{server_folder / 'sartiq.db'}", url, lambda _, reports: True)
        yield url


@pytest.fixture(scope="module")
def saved_once(server_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a backup of the server on SQLite. Tests use copies."""
    folder = tmp_path_factory.mktemp("saved") / "backup"
    url = f"sqlite:///{server_folder / 'sartiq.db'}"
    backup.create_backup(
        Settings(database_url=url, data_dir=server_folder, media_dir=server_folder / "media"), folder
    )
    return folder


@pytest.fixture
def install(
    request: pytest.FixtureRequest, server_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Install]:
    """Yield a function that installs a filled or an empty server on a kind of database."""
    with ExitStack() as stack:

        def build(kind: str, is_filled: bool) -> Installation:
            folder = tmp_path / f"{kind}-{'filled' if is_filled else 'empty'}"
            if is_filled:
                shutil.copytree(server_folder, folder)
            url = f"sqlite:///{folder / 'sartiq.db'}"
            if kind == "postgresql":
                template = request.getfixturevalue("filled_postgresql") if is_filled else None
                url = stack.enter_context(create_database(template))
            return Installation(url, folder, monkeypatch)

        yield build


@pytest.fixture
def filled(install: Install) -> Installation:
    """Return a server on SQLite with a row in every table."""
    return install("sqlite", True)


@pytest.fixture
def saved(saved_once: Path, tmp_path: Path) -> Path:
    """Return a copy of a backup of that server."""
    return shutil.copytree(saved_once, tmp_path / "backup")


@pytest.mark.parametrize(
    ("source_kind", "target_kind"),
    [
        ("sqlite", "sqlite"),
        pytest.param("postgresql", "postgresql", marks=ANOTHER_KIND),
        pytest.param("sqlite", "postgresql", marks=ANOTHER_KIND),
        pytest.param("postgresql", "sqlite", marks=ANOTHER_KIND),
    ],
)
def test_s32_a_backup_of_either_database_restores_every_row_and_file_to_either(
    install: Install,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    source_kind: str,
    target_kind: str,
) -> None:
    source, target = install(source_kind, True), install(target_kind, False)
    folder = tmp_path / "backup"
    assert source.run("create", folder) == 0, capsys.readouterr().err
    assert f"Saved and verified: {folder}" in capsys.readouterr().out
    assert folder.stat().st_mode & 0o777 == 0o700
    assert target.run("restore", folder) == 0, capsys.readouterr().err
    output = capsys.readouterr().out
    assert f"Restored and verified: {folder}" in output
    digests = source.digest()
    assert target.digest() == digests
    assert all(digest.rows for digest in digests.values())
    for table, digest in digests.items():
        assert f"\n{table:{max(map(len, digests))}}  {digest.rows:>10}  {digest.digest:064x}"[:-52] in output
    complete = {key: content for key, content in source.list_content().items() if "/." not in key}
    assert target.list_content() == complete
    assert len(complete) == len(source.list_content()) - 1
    engine = build_engine(target.url, pool_size=1)
    with engine.connect() as connection:
        bypass_rls(connection)
        assert stored_counts(connection) == actual_counts(connection) != {}
    engine.dispose()


def test_s32_the_files_of_a_backup_can_be_checked_with_sha256sum(saved: Path) -> None:
    names = {path.relative_to(saved).as_posix() for path in saved.rglob("*") if path.is_file()}
    sums = dict(reversed(line.split("  ")) for line in (saved / "SHA256SUMS").read_text().splitlines())
    assert sums.keys() == names - {"SHA256SUMS", "manifest.json"}
    for name, digest in sums.items():
        assert hashlib.sha256((saved / name).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=ANOTHER_KIND)])
def test_s32_restore_refuses_a_database_that_is_not_empty(
    install: Install, saved: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    target = install(kind, True)
    shutil.rmtree(target.storage.root)
    before = target.digest()
    assert target.run("restore", saved) == 2
    assert "Not restored: The target is not empty" in capsys.readouterr().err
    assert (target.digest(), target.list_content()) == (before, {})


@pytest.mark.parametrize("key", ["media/01890000-0000-7000-8000-000000000001/.file.jpg.00", "temp/other"])
def test_s32_restore_refuses_a_media_storage_that_is_not_empty(
    install: Install, saved: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    target = install("sqlite", False)
    path = target.storage.root / key
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    assert target.run("restore", saved) == 2
    assert f"Not restored: the media storage is not empty: it has a file {key}" in capsys.readouterr().err
    assert target.list_content() == {key: b"mine"}
    assert not (target.folder / "sartiq.db").exists()


def test_s32_a_backup_is_not_saved_in_a_folder_that_is_not_empty(
    filled: Installation, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in saved.rglob("*") if path.is_file()}
    assert filled.run("create", saved) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in saved.rglob("*") if path.is_file()} == before


def test_s32_another_user_than_that_of_the_server_is_refused(
    filled: Installation, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    user_id = filled.folder.stat().st_uid
    filled.monkeypatch.setattr("os.geteuid", lambda: user_id + 1)
    for command, folder in (("create", tmp_path / "another"), ("restore", saved)):
        assert filled.run(command, folder) == 2
        assert f"belongs to the user with the id {user_id}: run this" in capsys.readouterr().err
    assert not (tmp_path / "another").exists()


def change_rows(folder: Path) -> None:
    with sqlite3.connect(folder / "database.sqlite") as connection:
        connection.execute("UPDATE brands SET name = 'changed' WHERE name = '7'")


def change_image(folder: Path) -> None:
    next(folder.glob("media/*/file.*")).write_bytes(b"changed")


@pytest.mark.parametrize(
    ("damage", "status", "error"),
    [
        (change_rows, 1, "database.sqlite has changed"),
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
    install: Install,
    saved: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], object],
    status: int,
    error: str,
) -> None:
    target = install("sqlite", False)
    damage(saved)
    assert target.run("restore", saved) == status
    assert error in capsys.readouterr().err
    assert target.is_empty()


def rewrite_manifest(folder: Path, **values: object) -> None:
    """Change the manifest of a backup, and the hashes to its changed files."""
    names = [line.split("  ")[1] for line in (folder / "SHA256SUMS").read_text().splitlines()]
    hashes = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    sums = "".join(f"{digest}  {name}\n" for name, digest in hashes.items()).encode()
    (folder / "SHA256SUMS").write_bytes(sums)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest |= {"sums": hashlib.sha256(sums).hexdigest(), **values}
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=ANOTHER_KIND)])
def test_s32_a_difference_between_rows_and_manifest_empties_the_target(
    install: Install, saved: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    target = install(kind, False)
    change_rows(saved)
    rewrite_manifest(saved)
    assert target.run("restore", saved) == 1
    assert "Not restored: these tables differ from the backup: brands" in capsys.readouterr().err
    assert target.is_empty()


@pytest.mark.slow("it goes through half of the migrations; tests/db/test_migrations.py covers them")
def test_s32_a_backup_of_an_older_schema_is_upgraded(
    install: Install, filled: Installation, saved: Path
) -> None:
    downgrade(f"sqlite:///{saved / 'database.sqlite'}", "0022")
    rewrite_manifest(saved, revision="0022", tables={"brands": [0, "of the older schema"]})
    target = install("sqlite", False)
    assert target.run("restore", saved) == 0
    # The older schema lacks newer tables.
    assert target.digest()["brands"] == filled.digest()["brands"]
    assert is_current(target.url)


def test_s32_a_backup_of_a_newer_release_is_rejected(
    install: Install, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite_manifest(saved, revision="9999")
    target = install("sqlite", False)
    assert target.run("restore", saved) == 2
    assert f"with schema 9999 instead of {head_revision()}" in capsys.readouterr().err
    assert target.is_empty()


def test_s32_a_database_that_is_missing_or_old_is_not_saved(
    install: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = install("sqlite", False)
    assert source.run("create", tmp_path / "first") == 2
    assert "--prepare-only" in capsys.readouterr().err
    assert source.is_empty()
    source.folder.mkdir(exist_ok=True)
    upgrade(source.url, "0001")
    assert source.run("create", tmp_path / "first") == 2
    assert "--prepare-only" in capsys.readouterr().err
    assert not (tmp_path / "first").exists()


def test_s32_a_table_that_is_not_saved_as_it_is_is_named_and_no_backup_remains(
    filled: Installation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    original = copying.open_snapshot

    def change_and_open(path: Path) -> AbstractContextManager[Connection]:
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE brands SET name = 'changed' WHERE name = '7'")
        return original(path)

    monkeypatch.setattr(copying, "open_snapshot", change_and_open)
    assert filled.run("create", tmp_path / "backup") == 1
    assert "these tables were not saved as they are: brands" in capsys.readouterr().err
    assert not (tmp_path / "backup").exists()


def test_s32_a_file_that_the_server_has_lost_is_reported_and_the_rest_is_saved(
    install: Install, filled: Installation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = next(iter(filled.storage.list_files("exports"))).key
    filled.storage.delete(lost)
    assert filled.run("create", tmp_path / "backup") == 1
    output = capsys.readouterr()
    assert f"The file {lost} is missing" in output.out
    assert "files of rows are missing or wrong" in output.err
    target = install("sqlite", False)
    assert target.run("restore", tmp_path / "backup") == 0
    assert f"The file {lost} is missing" in capsys.readouterr().out
    assert target.digest() == filled.digest()


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=ANOTHER_KIND)])
def test_s32_no_row_of_a_backup_lacks_a_file_that_was_stored_or_deleted_meanwhile(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    source = install(kind, True)
    archive = next(iter(source.storage.list_files("exports"))).key
    content = source.storage.read(archive)
    media_id, content_hash = "01890000-0000-7000-8000-00000000000a", hashlib.sha256(b"new").hexdigest()
    save_snapshot, moments = backup.save_snapshot, []

    def change_meanwhile(url: str, path: Path) -> object:
        if not moments:  # before the rows: an image is stored, then its row
            source.storage.write(f"media/{media_id}/file.jpg", b"new")
            source.storage.write(UPLOAD, b"another upload")
            identifier = f"'{media_id}'" if kind == "postgresql" else f"'{media_id.replace('-', '')}'"
            table = Base.metadata.tables["media_resources"]
            names = [c.name for c in table.columns if c.name not in ("id", "content_hash")]
            source.execute(
                f"INSERT INTO media_resources (id, content_hash, {', '.join(names)}) "  # noqa: S608 - constants
                f"SELECT {identifier}, '{content_hash}', {', '.join(names)} FROM media_resources "
                "WHERE extension = 'jpg' LIMIT 1"
            )
        reports = save_snapshot(url, path)
        if not moments:  # after the rows: an export that is in them is deleted with its file
            source.execute("DELETE FROM export_items", "DELETE FROM exports")
            source.storage.delete(archive)
        moments.append(path)
        return reports

    monkeypatch.setattr(backup, "save_snapshot", change_meanwhile)
    assert source.run("create", tmp_path / "backup") == 0
    assert len(moments) == 1
    saved = LocalDisk(tmp_path / "backup")
    assert saved.read(f"media/{media_id}/file.jpg") == b"new"
    assert saved.read(archive) == content
    # A client may replace the file of an upload that is not in use yet.
    assert saved.read(UPLOAD) == b"another upload"
    assert backup.find_damaged_files(tmp_path / "backup" / "database.sqlite", saved) == {}


def test_s32_the_rows_are_saved_again_if_a_new_file_was_deleted_before_it_was_copied(
    filled: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = next(iter(filled.storage.list_files("exports"))).key
    content = filled.storage.read(archive)
    filled.storage.delete(archive)
    save_snapshot, moments = backup.save_snapshot, []

    def finish_and_delete_export(url: str, path: Path) -> object:
        reports = save_snapshot(url, path)
        if not moments:
            filled.execute("DELETE FROM export_items", "DELETE FROM exports")
        moments.append(content)
        return reports

    monkeypatch.setattr(backup, "save_snapshot", finish_and_delete_export)
    assert filled.run("create", tmp_path / "backup") == 0
    assert len(moments) == 2
    with open_snapshot(tmp_path / "backup" / "database.sqlite") as connection:
        assert digest_tables(connection)["exports"].rows == 0


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=ANOTHER_KIND)])
def test_s32_the_rows_are_of_one_moment_while_others_are_written(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    source = install(kind, True)
    before = source.digest()
    name = "_copy_rows" if kind == "postgresql" else "_copied_tables"
    original, calls = getattr(copying, name), []

    def write_first(*arguments: object) -> object:
        if not calls:
            source.execute("UPDATE brands SET name = 'later' WHERE name = '7'")
        calls.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(copying, name, write_first)
    assert source.run("create", tmp_path / "backup") == 0
    assert calls
    with open_snapshot(tmp_path / "backup" / "database.sqlite") as connection:
        assert digest_tables(connection) == before
    assert source.digest() != before


@pytest.mark.parametrize("policies", [["brands"], ["brands", "audit_events"]])
@pytest.mark.slow("it saves a database twice")
def test_s32_a_backup_that_would_miss_protected_rows_is_refused(
    install: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str], policies: list[str]
) -> None:
    source = install("postgresql", True)
    rows = {name: digest.rows for name, digest in source.digest().items()}
    source.execute(*(f"DROP POLICY migrating ON {table}" for table in policies))
    assert source.run("create", tmp_path / "backup") == 2
    error = capsys.readouterr().err
    for table in policies:
        assert f"{table} (0 of {rows[table]} rows)" in error
    assert "MIGRATION_DATABASE_URL" in error
    assert not (tmp_path / "backup").exists()


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
    own_database_url: str, change: str, statement: str
) -> None:
    upgrade(own_database_url)
    engine = build_engine(own_database_url, pool_size=1)
    with engine.begin() as connection:
        owner = connection.scalar(text("SELECT current_user"))
        connection.exec_driver_sql(change)
    with pytest.raises(OwnersChanged) as error:
        upgrade(own_database_url)
    missing = statement.format(owner=owner)
    assert str(error.value).splitlines()[1:] == [f"    {missing}"]
    with engine.begin() as connection:
        # What a superuser need not do.
        connection.exec_driver_sql(GRANT_CREATE)
        connection.exec_driver_sql(missing)
        connection.exec_driver_sql("REVOKE CREATE ON SCHEMA public FROM sartiq_system")
    engine.dispose()
    upgrade(own_database_url)


def test_s32_nothing_starts_if_policies_are_missing(own_database_url: str) -> None:
    engine = build_engine(own_database_url, pool_size=1)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP POLICY system ON brands")
    engine.dispose()
    with pytest.raises(OwnersChanged, match=r"tables are missing.*: brands. Restore it again"):
        upgrade(own_database_url)


# Runs `restore` and kills its process in the middle of the third file, between files and rows, or when all is
# restored and only the mark of an unfinished restore is left.
KILLED_RESTORE = """
import os, signal, sys
from studio import backup
from studio.media.storage import LocalDisk

point, folder = sys.argv[1:]
copied, copy = [], backup.FileCopies._copy

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def copy_or_kill(self, key):
    copied.append(key)
    if len(copied) == 3:
        with self._target.open_writer(key) as file:
            file.write(b"half")
            file.flush()
            kill()
    return copy(self, key)

if point == "file":
    backup.FileCopies._copy = copy_or_kill
elif point == "rows":
    backup.find_damaged_files = kill
else:
    LocalDisk.delete = kill
backup.main(["restore", folder])
"""


def kill_restore(target: Installation, folder: Path, point: str) -> None:
    environment = {**os.environ, "DATA_DIR": str(target.folder), "DATABASE_URL": target.url}
    command = [sys.executable, "-c", KILLED_RESTORE, point, str(folder)]
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert process.returncode == -signal.SIGKILL, process.stderr


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=ANOTHER_KIND)])
@pytest.mark.parametrize("point", ["file", *(pytest.param(p, marks=ANOTHER_MOMENT) for p in ("rows", "end"))])
def test_s32_a_killed_restore_is_completed_by_the_next_one(
    install: Install,
    filled: Installation,
    saved: Path,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    point: str,
) -> None:
    target = install(kind, False)
    kill_restore(target, saved, point)
    assert target.list_content()
    assert target.run("restore", saved) == 0, capsys.readouterr().err
    assert target.digest() == filled.digest()
    complete = {key: content for key, content in filled.list_content().items() if "/." not in key}
    assert target.list_content() == complete
    assert list(target.folder.glob(".restore-*")) == []
    assert target.run("restore", saved) == 2


@pytest.mark.slow("it starts a process")
def test_s32_a_killed_restore_of_another_backup_is_refused(
    install: Install, filled: Installation, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    another, target = tmp_path / "another", install("sqlite", False)
    filled.storage.write(UPLOAD, b"another upload")
    assert filled.run("create", another) == 0
    kill_restore(target, another, "rows")
    before = target.list_content()
    assert target.run("restore", saved) == 2
    assert "an unfinished restore of another backup" in capsys.readouterr().err
    assert target.list_content() == before
    assert target.run("restore", another) == 0


@pytest.mark.slow("it starts a process")
def test_s32_what_a_server_has_written_after_a_killed_restore_is_kept(
    install: Install, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = install("sqlite", False)
    kill_restore(target, saved, "end")
    target.execute("UPDATE brands SET name = 'changed' WHERE name = '7'")
    rows, files = target.digest(), target.list_content()
    assert target.run("restore", saved) == 2
    assert "The target is not empty" in capsys.readouterr().err
    assert (target.digest(), target.list_content()) == (rows, files)


@pytest.mark.slow("it starts a process")
def test_s32_a_file_that_is_not_of_the_backup_stops_the_completion_of_a_restore(
    install: Install, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = install("sqlite", False)
    kill_restore(target, saved, "file")
    target.storage.write("temp/other", b"mine")
    files = target.list_content()
    assert target.run("restore", saved) == 2
    assert "it has a file temp/other" in capsys.readouterr().err
    assert target.list_content() == files


def test_s32_two_restores_do_not_run_at_the_same_time(
    install: Install, saved: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target, verify, statuses = install("sqlite", False), backup.verify_files, []

    def restore_meanwhile(*arguments: Any) -> None:
        monkeypatch.setattr(backup, "verify_files", verify)
        statuses.append(target.run("restore", saved))
        verify(*arguments)

    monkeypatch.setattr(backup, "verify_files", restore_meanwhile)
    assert (target.run("restore", saved), statuses) == (0, [2])
    assert "another restore is running" in capsys.readouterr().err


def test_s32_folders_are_synchronized_after_files_are_renamed(
    install: Install, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, synchronized, fsync = install("sqlite", False), [], os.fsync

    def record(descriptor: int) -> None:
        synchronized.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    assert target.run("restore", saved) == 0
    last_file = max(synchronized.index(path) for path in synchronized if path.suffix == ".sqlite")
    assert target.folder in synchronized[last_file:]
    folders = {path for path in target.storage.root.rglob("*") if path.is_dir()}
    assert {target.storage.root, *folders} <= set(synchronized)
    synchronized.clear()
    backup._write_file(saved / "manifest.json", b"{}")
    assert synchronized == [saved / ".manifest.json", saved]
