"""A migration waits for a lock for seconds, names the session that has it, and tries again."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import make_url, select, text
from sqlalchemy.exc import OperationalError

from db.base import Base
from db.engine import build_engine
from db.migrations import downgrade, head_revision, is_current, locks, upgrade
from db.migrations.locks import MigrationBlocked
from tools.servers.processes import wait_until
from tools.servers.server import ROOT


@pytest.fixture
def quick_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a migration give up after about a second."""
    monkeypatch.setattr(locks, "LOCK_TIMEOUT_MILLISECONDS", 400)
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(locks, "PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(locks, "MAX_ATTEMPTS", 2)


@pytest.fixture
def older_url(own_database_url: str) -> str:
    """Return the URL of a database with the schema before three revisions that change tables."""
    downgrade(own_database_url, "0024")
    return own_database_url


@contextmanager
def reading_session(url: str, table: str) -> Iterator[None]:
    """Hold a lock on a table within the block, as a long report does that reads it."""
    named = make_url(url).update_query_dict({"application_name": "nightly-report"})
    engine = build_engine(named.render_as_string(hide_password=False), pool_size=1)
    with engine.connect() as connection:
        connection.execute(select(Base.metadata.tables[table].c.id))
        yield
        connection.rollback()
    engine.dispose()


class Crossing:
    """A request that has read one table when a migration begins, and then reads one that it has locked.

    Attributes:
        seconds: How long it waited for the second table.
        error: The error that it got instead of rows.
    """

    def __init__(self, url: str, upgrading: threading.Thread, tables: tuple[str, str]) -> None:
        self.error: OperationalError | None = None
        first, second = (text(f"SELECT count(*) FROM {table}") for table in tables)  # noqa: S608 - the table names are constants of this test, which no client sends
        waiting = text(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid <> pg_backend_pid()"
        )
        engine = build_engine(url, pool_size=2)
        with engine.connect() as connection, engine.connect() as observer:
            observer = observer.execution_options(isolation_level="AUTOCOMMIT")
            connection.execute(first)
            upgrading.start()
            wait_until(lambda: observer.scalar(waiting) == 1, "the migration waits for the first table")
            started = time.monotonic()
            try:
                connection.execute(second)
            except OperationalError as error:
                self.error = error
            self.seconds = time.monotonic() - started
        engine.dispose()


def read_revision(url: str) -> str:
    """Return the revision of the schema, and check that the audit log can be read at once."""
    engine = build_engine(url, pool_size=1)
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL lock_timeout = 100"))
        connection.execute(text("SELECT count(*) FROM audit_events"))
        revision = str(connection.scalar(text("SELECT version_num FROM alembic_version")))
    engine.dispose()
    return revision


@pytest.mark.usefixtures("quick_locks")
def test_a_blocked_migration_gives_up_and_names_the_session_that_blocks_it(
    older_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with reading_session(older_url, "audit_events"):
        with pytest.raises(MigrationBlocked) as error:
            upgrade(older_url)
        assert read_revision(older_url) == "0024"
    message = str(error.value)
    assert "nightly-report" in message
    assert "idle in transaction" in message
    assert "SELECT pg_terminate_backend(" in message
    assert [record.levelname for record in caplog.records if "nightly-report" in record.message] == [
        "WARNING"
    ]
    upgrade(older_url)
    assert is_current(older_url)


@pytest.mark.usefixtures("quick_locks")
def test_each_revision_has_a_transaction_of_its_own(older_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "MAX_ATTEMPTS", 100)
    upgrading = threading.Thread(target=upgrade, args=(older_url,))
    with reading_session(older_url, "styles"):
        upgrading.start()
        # The next revision waits for the session, while the audit log of the first one is not locked.
        wait_until(
            lambda: read_revision(older_url) == "0026", "the revision before the blocked one is committed"
        )
    upgrading.join(30)
    assert is_current(older_url)


def test_a_process_that_waited_while_another_one_migrated_has_nothing_to_do(own_database_url: str) -> None:
    # A number instead of "head" skips the check before the lock, as if it had found an older revision.
    upgrade(own_database_url, head_revision())
    assert read_revision(own_database_url) == head_revision()


REQUEST = ("generations", "token_families")
"""Two tables that requests use, in the other order than revision 0058 changes them."""


def test_a_request_that_crosses_a_migration_is_served_and_the_migration_is_repeated(
    own_database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(locks, "PAUSE_SECONDS", 0.1)
    downgrade(own_database_url, "0057")
    upgrading = threading.Thread(target=upgrade, args=(own_database_url, "0058"))
    request = Crossing(own_database_url, upgrading, REQUEST)
    upgrading.join(30)
    assert request.error is None
    assert request.seconds < 2
    assert read_revision(own_database_url) == "0058"
    assert all("waits for a lock of session" in record.message for record in caplog.records)
    assert 1 <= len(caplog.records) < locks.MAX_ATTEMPTS


def test_a_migration_that_postgresql_ends_in_a_deadlock_is_repeated(
    own_database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """PostgreSQL ends the session that has waited for a second first, which is the migration."""
    monkeypatch.setattr(locks, "LOCK_TIMEOUT_MILLISECONDS", 10_000)
    monkeypatch.setattr(locks, "PAUSE_SECONDS", 0.1)
    downgrade(own_database_url, "0057")
    upgrading = threading.Thread(target=upgrade, args=(own_database_url, "0058"))
    request = Crossing(own_database_url, upgrading, REQUEST)
    upgrading.join(30)
    assert request.error is None
    assert read_revision(own_database_url) == "0058"
    assert ["is in a deadlock with session" in record.message for record in caplog.records] == [True]


def test_a_downgrade_is_repeated_like_an_upgrade(
    own_database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(locks, "PAUSE_SECONDS", 0.1)
    downgrading = threading.Thread(target=downgrade, args=(own_database_url, "0057"))
    with reading_session(own_database_url, "token_families"):
        downgrading.start()
        wait_until(lambda: bool(caplog.records), "the first attempt has failed")
    downgrading.join(30)
    assert read_revision(own_database_url) == "0057"
    assert "nightly-report" in caplog.records[0].message


@pytest.mark.slow("it starts processes")
def test_processes_that_start_together_migrate_once(older_url: str) -> None:
    command = [sys.executable, "-c", "import sys; from db.migrations import upgrade; upgrade(sys.argv[1])"]
    processes = [subprocess.Popen([*command, older_url], cwd=ROOT) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert is_current(older_url)


def test_an_index_that_is_built_beside_requests_does_not_wait_for_its_own_migration(
    own_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It waits for transactions that have a snapshot, as that of the watcher has while it reads.
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.0005)
    monkeypatch.setattr(locks, "MAX_ATTEMPTS", 1)
    downgrade(own_database_url, "0051")
    upgrade(own_database_url)
    assert is_current(own_database_url)
