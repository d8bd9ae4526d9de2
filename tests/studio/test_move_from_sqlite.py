"""Test that the database file of release 0.2.0 is moved to PostgreSQL as a whole or not at all."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, func, select, text

from db.copy_database import connect_to_all_rows, digest_tables, list_tables
from db.embedded import use_cluster
from db.migrations import is_current
from db.models import RowCount, User
from studio.accounts.identity.passwords import PUBLISHED_PASSWORDS, hash_password, verify_password
from studio.commands import move_from_sqlite
from studio.infrastructure.database import FOLDER, SQLITE_FILE
from studio.infrastructure.settings import Settings
from studio.infrastructure.storage import LocalDisk
from studio.seed.published_accounts import StartRejected, require_no_published_account
from tests.support.forks import kill_this_process, run_in_fork
from tests.support.old_schema import migrated_to_0_2_0
from tests.support.row_counts import actual_counts, has_rows, stored_counts
from tests.support.sqlite_files import write_referenced_files, write_release_file
from tools.servers.databases import DatabaseFactory, create_database

pytestmark = pytest.mark.usefixtures("small_chunks")

BRANDS = "SELECT name, description, id, owner_id, organization_id, created_at FROM brands ORDER BY id"


@dataclass
class OldServer:
    """The data folder of release 0.2.0, with its files."""

    folder: Path
    keys: list[str]

    @property
    def file(self) -> Path:
        """The database file."""
        return self.folder / SQLITE_FILE

    @property
    def storage(self) -> LocalDisk:
        """The media storage."""
        return LocalDisk(self.folder / "media")

    def execute(self, statement: str) -> None:
        """Change the database file."""
        with closing(sqlite3.connect(self.file)) as connection, connection:
            connection.execute(statement)

    def list_files(self) -> dict[str, bytes]:
        """Return the content of the files in the data folder, without those of the embedded database."""
        return {path.name: path.read_bytes() for path in self.folder.iterdir() if path.is_file()}


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OldServer:
    """Return the data folder of a server that was stopped, and use it."""
    folder = tmp_path / "data"
    folder.mkdir()
    file = write_release_file(folder / SQLITE_FILE)
    monkeypatch.setenv("DATA_DIR", str(folder))
    monkeypatch.delenv("DATABASE_URL", raising=False)
    return OldServer(folder, write_referenced_files(file, LocalDisk(folder / "media")))


@pytest.fixture
def target(database_factory: DatabaseFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield the URL of a database with the schema of the file and no rows, which is DATABASE_URL."""
    with create_database(migrated_to_0_2_0(database_factory)) as url:
        monkeypatch.setenv("DATABASE_URL", url)
        yield url


@pytest.fixture(scope="module")
def empty_url(database_factory: DatabaseFactory) -> Iterator[str]:
    """Yield the URL of a database with that schema which several tests use."""
    with create_database(migrated_to_0_2_0(database_factory)) as url:
        yield url


@pytest.fixture
def empty_target(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield the URL of such a database to which nothing is moved, which is DATABASE_URL."""
    monkeypatch.setenv("DATABASE_URL", empty_url)
    yield empty_url
    assert not has_rows(empty_url)


@pytest.fixture
def new_target(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield the URL of a database without tables, which is DATABASE_URL."""
    with create_database() as url:
        monkeypatch.setenv("DATABASE_URL", url)
        yield url


def count_rows(url: str) -> int:
    """Return the number of rows of all tables."""
    with connect_to_all_rows(url) as connection:
        return sum(digest.rows for digest in digest_tables(connection, list_tables(connection)).values())


def test_every_row_is_moved_unchanged_to_the_schema_of_a_new_database(
    old: OldServer, target: str, own_database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = old.list_files()
    assert move_from_sqlite.main(["--keep-demo-passwords"]) == 0, capsys.readouterr().err
    output = capsys.readouterr().out
    assert "DIFFERENT" not in output
    assert "Deactivated" not in output
    assert "207 rows in 59 tables; 11 of 11 files are right\n" in output
    assert is_current(target)
    assert old.list_files() == before
    assert sorted(path.name for path in old.folder.iterdir()) == ["media", SQLITE_FILE]
    with connect_to_all_rows(target) as connection:
        digests = digest_tables(connection, list_tables(connection))
        # The old release has no such rows, and triggers do not run.
        assert [name for name, digest in digests.items() if not digest.rows] == [
            "api_usage",
            "identity_provider_domains",
            "identity_providers",
            "media_checks",
            "provider_sign_ins",
            "queued_emails",
            "second_factor_challenges",
            "second_factors",
            "user_identities",
        ]
        assert stored_counts(connection) == actual_counts(connection) != {}
        assert connection.scalar(select(func.max(RowCount.entry))) == 0
        assert connection.scalar(text("SELECT count(*) FROM changes")) == 0
        circular = "SELECT count(retry_of_id), count(source_prediction_id) FROM generations"
        assert connection.execute(text(circular)).all() == [(1, 1)]
        # Compared as values, too: the digests are of texts.
        brands = connection.execute(text(BRANDS)).all()
        errors = connection.scalars(text("SELECT error::text FROM generations ORDER BY id")).all()
        bodies = connection.scalars(text("SELECT body FROM idempotency_keys")).all()
        weights = connection.scalars(text("SELECT lora_weight FROM styles ORDER BY id")).all()
        is_active = connection.scalars(text("SELECT is_active FROM users ORDER BY id")).all()
    with closing(sqlite3.connect(old.file)) as file:
        assert [(*row[:2], *map(to_sqlite, row[2:])) for row in brands] == file.execute(BRANDS).fetchall()
        assert errors == [row[0] for row in file.execute("SELECT error FROM generations ORDER BY id")]
        assert bodies == [row[0] for row in file.execute("SELECT body FROM idempotency_keys")]
        assert weights == [row[0] for row in file.execute("SELECT lora_weight FROM styles ORDER BY id")]
        assert is_active == [row[0] == 1 for row in file.execute("SELECT is_active FROM users ORDER BY id")]
    assert list_demo_accounts(target) == dict.fromkeys(PUBLISHED_PASSWORDS, (True, True))
    with pytest.raises(StartRejected):
        require_no_published_account(Settings(environment="production", database_url=target))
    # A second move does not overwrite the rows of the first.
    assert move_from_sqlite.main([]) == 2
    assert "not empty: there are rows in" in capsys.readouterr().err
    assert read_schema(target) == read_schema(own_database_url)
    # The sequences continue after the numbers that were moved.
    with connect_to_all_rows(target) as connection:
        entry = (
            "INSERT INTO pending_touches (table_name, row_id) SELECT 'looks', id FROM looks RETURNING entry"
        )
        assert sorted(connection.scalars(text(entry))) == [2, 3, 4]


def to_sqlite(value: Any) -> Any:
    """Return a value as the old file stores it."""
    if isinstance(value, UUID):
        return value.hex
    return value.strftime("%Y-%m-%d %H:%M:%S.%f") if isinstance(value, datetime) else value


READ_SCHEMA = """
SELECT conrelid::regclass::text, conname::text, convalidated, pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2;
SELECT tgrelid::regclass::text, tgname::text, tgenabled::text
FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1, 2;
SELECT relname::text, relrowsecurity, relforcerowsecurity
FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1;
SELECT obj_description('alembic_version'::regclass, 'pg_class')
"""


def read_schema(url: str) -> list[Any]:
    """Return what a copy changes for its duration."""
    with connect_to_all_rows(url) as connection:
        queries = filter(None, READ_SCHEMA.split(";"))
        return [connection.execute(text(query)).all() for query in queries]


# Changes a brand, only in the log, and then waits until it is killed.
WRITER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA wal_autocheckpoint = 0")
connection.execute("UPDATE brands SET name = 'only in the log' WHERE name = '2'")
connection.commit()
print("committed", flush=True)
time.sleep(60)
"""


def test_a_file_that_another_process_has_opened_is_moved_when_that_ends_with_the_rows_in_its_log(
    old: OldServer, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-c", WRITER, str(old.file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        try:
            assert server.stdout.readline() == b"committed\n"
            status = move_from_sqlite.main([])
        finally:
            server.kill()
    assert status == 2
    error = (
        f"Not moved: Another process has opened {old.file}: stop servers, workers and other commands first\n"
    )
    assert capsys.readouterr().err == error
    before = old.list_files()
    assert before.keys() == {SQLITE_FILE, f"{SQLITE_FILE}-wal", f"{SQLITE_FILE}-shm"}
    assert b"only in the log" not in before[SQLITE_FILE]
    assert move_from_sqlite.main([]) == 0
    assert old.list_files() == before
    with connect_to_all_rows(target) as connection:
        names = "SELECT count(*) FROM brands WHERE name = 'only in the log'"
        assert connection.scalar(text(names)) == 1


def kill_move(point: str) -> None:
    """Run the command, and kill it before it commits rows, migrates, stops the cluster or renames it."""

    def write_and_kill(url: str, *_: object) -> None:
        with connect_to_all_rows(url) as connection:
            connection.exec_driver_sql("CREATE TABLE rows AS SELECT generate_series(1, 1000)")
            kill_this_process()

    def stop_or_kill(folder: Path) -> None:
        if (folder / "data").exists():
            kill_this_process()

    def rename_or_kill(path: Path, target: Path) -> None:
        if target.name == FOLDER:
            kill_this_process()
        os.rename(path, target)

    patches: dict[str, tuple[Any, str, Callable[..., None]]] = {
        "rows": (move_from_sqlite, "fill_database", write_and_kill),
        "schema": (move_from_sqlite, "upgrade", kill_this_process),
        "stop": (move_from_sqlite, "stop_cluster", stop_or_kill),
        "name": (Path, "rename", rename_or_kill),
    }
    setattr(*patches[point])
    move_from_sqlite.main([])


ANOTHER_MOMENT = pytest.mark.slow("it kills another move, at another moment")


@pytest.mark.parametrize(
    "point", ["rows", *(pytest.param(p, marks=ANOTHER_MOMENT) for p in ("stop", "name"))]
)
def test_a_killed_move_leaves_the_file_and_the_next_one_creates_the_embedded_database(
    old: OldServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    monkeypatch.setattr(move_from_sqlite, "use_cluster", partial(use_cluster, is_durable=False))
    before = old.list_files()
    assert run_in_fork(lambda: kill_move(point)) == -signal.SIGKILL
    assert sorted(path.name for path in old.folder.iterdir()) == ["media", "move-from-sqlite", SQLITE_FILE]
    assert old.list_files() == before

    # A file is reported only: the database is for the same folder.
    old.storage.delete(old.keys[0])
    assert move_from_sqlite.main([]) == 0, capsys.readouterr().err
    output = capsys.readouterr().out
    assert f"The file {old.keys[0]} is missing\n207 rows in 59 tables; 10 of 11 files are right\n" in output
    assert sorted(path.name for path in old.folder.iterdir()) == ["media", FOLDER, SQLITE_FILE]
    assert old.list_files() == before
    with use_cluster(old.folder / FOLDER) as cluster:
        assert is_current(cluster.url)
        # And the counts of stored bytes.
        assert count_rows(cluster.url) == 212
        with connect_to_all_rows(cluster.url) as connection:
            active = connection.scalars(select(User.email).where(User.is_active)).all()
        assert set(active) >= set(PUBLISHED_PASSWORDS)
    assert move_from_sqlite.main([]) == 2
    assert f"Not moved: There is a database in {old.folder / FOLDER} already\n" == capsys.readouterr().err


def list_demo_accounts(url: str) -> dict[str, tuple[bool, bool]]:
    """Return for each demo account whether it is active and has its published password."""
    with connect_to_all_rows(url) as connection:
        users = connection.execute(select(User).where(User.email.in_(PUBLISHED_PASSWORDS)))
        return {
            user.email: (
                user.is_active,
                verify_password(user.hashed_password, PUBLISHED_PASSWORDS[user.email]),
            )
            for user in users
        }


def test_the_move_after_a_killed_one_deactivates_demo_accounts_while_the_file_is_locked(
    old: OldServer, target: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = hash_password("a-woollen-coat-in-june")
    old.execute(f"UPDATE users SET hashed_password = '{own}' WHERE email = 'second@example.com'")  # noqa: S608 - our hash
    code = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('SELECT * FROM brands')"
    deactivate, errors = move_from_sqlite.deactivate_demo_accounts, []

    # The last step.
    def open_meanwhile(url: str) -> None:
        process = subprocess.run(
            [sys.executable, "-c", code, str(old.file)], capture_output=True, text=True, check=False
        )
        errors.append(process.stderr.splitlines()[-1])
        deactivate(url)

    assert run_in_fork(lambda: kill_move("schema")) == -signal.SIGKILL
    assert count_rows(target) == 207
    monkeypatch.setattr(move_from_sqlite, "deactivate_demo_accounts", open_meanwhile)
    assert move_from_sqlite.main([]) == 0
    assert is_current(target)
    # A database that is complete is rejected like any other that has rows.
    assert move_from_sqlite.main([]) == 2
    assert errors == ["sqlite3.OperationalError: database is locked"]
    assert list_demo_accounts(target) == {
        "demo@example.com": (False, False),
        "second@example.com": (True, False),
        "admin@example.com": (False, False),
    }
    line = "Deactivated in the copy, with an unusable password: demo@example.com, admin@example.com.\n"
    assert line in capsys.readouterr().out
    require_no_published_account(Settings(environment="production", database_url=target))


@pytest.mark.parametrize(
    ("damage", "error"), [("missing", "is missing"), ("changed", "has other content than its row says")]
)
def test_a_missing_or_changed_file_leaves_the_database_of_the_operator_empty(
    old: OldServer, empty_target: str, capsys: pytest.CaptureFixture[str], damage: str, error: str
) -> None:
    if damage == "missing":
        old.storage.delete(old.keys[-1])
    else:
        old.storage.write(old.keys[-1], b"other bytes")
    assert move_from_sqlite.main([]) == 1
    assert f"The file {old.keys[-1]} {error}" in capsys.readouterr().out


def test_a_row_that_is_stored_otherwise_is_noticed(
    old: OldServer, empty_target: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def change_row(connection: Connection) -> None:
        connection.execute(text("UPDATE brands SET name = 'changed' WHERE name = '2'"))

    monkeypatch.setattr("db.copy_database._reset_sequences", change_row)
    assert move_from_sqlite.main([]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.endswith("DIFFERENT")] == ["brands"]


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        (
            "UPDATE brands SET name = hex(randomblob(100)) WHERE name = '2'",
            "brands: value too long for type character varying(120)",
        ),
        (
            "UPDATE brands SET owner_id = 'unknown' WHERE name = '2'",
            "brands: a value does not have the type of its column",
        ),
        (
            "UPDATE brands SET created_at = 17 WHERE name = '2'",
            "brands: a value does not have the type of its column",
        ),
        (
            "UPDATE brands SET owner_id = hex(randomblob(16)) WHERE name = '2'",
            'brands: insert or update on table "brands" violates foreign key constraint "fk_brands_owner_id"',
        ),
    ],
)
def test_a_value_that_postgresql_rejects_is_named_and_nothing_is_moved(
    old: OldServer, empty_target: str, capsys: pytest.CaptureFixture[str], statement: str, error: str
) -> None:
    old.execute(statement)
    assert move_from_sqlite.main([]) == 1
    assert capsys.readouterr().err == f"Not moved: {error}\n"


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        (
            "UPDATE alembic_version SET version_num = '0031'",
            "schema 0031 instead of 0048, that of release 0.2.0: start that release with it once, stop it",
        ),
        ("DROP TABLE alembic_version", "The SQLite database cannot be read: no such table: alembic_version"),
        (
            "ALTER TABLE brands ADD COLUMN of_a_plugin TEXT",
            "The rows have other columns than their schema: brands.of_a_plugin",
        ),
    ],
)
def test_a_file_of_another_release_is_rejected(
    old: OldServer, empty_target: str, capsys: pytest.CaptureFixture[str], statement: str, error: str
) -> None:
    old.execute(statement)
    assert move_from_sqlite.main([]) == 2
    assert error in capsys.readouterr().err


def test_what_is_no_database_is_rejected(old: OldServer, capsys: pytest.CaptureFixture[str]) -> None:
    missing = old.folder / "other.db"
    assert move_from_sqlite.main(["--from", str(missing)]) == 2
    error = f"Not moved: The SQLite database {missing} cannot be opened: No such file or directory\n"
    assert capsys.readouterr().err == error
    missing.write_bytes(b"x" * 4096)
    assert move_from_sqlite.main(["--from", str(missing)]) == 2
    error = "Not moved: The SQLite database cannot be read: file is not a database\n"
    assert capsys.readouterr().err == error
    assert sorted(path.name for path in old.folder.iterdir()) == ["media", "other.db", SQLITE_FILE]


def test_a_database_of_another_application_is_not_filled(
    old: OldServer, new_target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with connect_to_all_rows(new_target) as connection:
        connection.exec_driver_sql("CREATE TABLE of_another_application (id int)")
        connection.commit()
    assert move_from_sqlite.main([]) == 2
    error = "Not moved: The target is not empty: it has a table of_another_application\n"
    assert capsys.readouterr().err == error


def test_a_database_with_a_newer_schema_is_not_filled(
    old: OldServer, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with connect_to_all_rows(target) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    assert move_from_sqlite.main([]) == 2
    error = "Not moved: The target is not empty: its tables have schema 9999, and the rows have schema 0048\n"
    assert capsys.readouterr().err == error


def test_the_password_of_the_database_is_not_printed(
    old: OldServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://sartiq:secret@127.0.0.1:9/none")
    assert move_from_sqlite.main([]) == 1
    output = capsys.readouterr()
    assert "\nto   postgresql://sartiq:***@127.0.0.1:9/none\n" in output.out
    assert "secret" not in output.out + output.err
