"""Going back to release 0.2.0: what it knows stays, and everything else is saved before it is dropped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, inspect, text

from db.engine import build_engine
from db.migrations import upgrade
from db.migrations.__main__ import go_back, main
from db.session import Database
from tests.support import factories
from tests.support.old_schema import migrated_to_0_2_0
from tools.servers.databases import DatabaseFactory, create_database

Schema = dict[str, set[str]]


def read_schema(url: str) -> Schema:
    """Return the columns of each table."""
    engine = build_engine(url, pool_size=1)
    try:
        with engine.connect() as connection:
            found = inspect(connection)
            return {
                table: {each["name"] for each in found.get_columns(table)}
                for table in found.get_table_names()
            }
    finally:
        engine.dispose()


def fill(connection: Connection) -> None:
    """Write rows with values that release 0.2.0 does not know."""
    connection.execute(text("SET LOCAL sartiq.migrating = 'on'"))
    connection.execute(
        text(
            "INSERT INTO queued_emails (id, kind, status, attempts, created_at, updated_at)"
            " VALUES (gen_random_uuid(), 'invitation', 'sent', 1, now(), now())"
        )
    )


@pytest.fixture
def old_database_url(database_factory: DatabaseFactory) -> Iterator[str]:
    """Yield the URL of a database with the schema of release 0.2.0."""
    with create_database(migrated_to_0_2_0(database_factory)) as url:
        yield url


def test_everything_that_is_dropped_is_saved_and_the_schema_is_that_of_0_2_0(
    old_database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = old_database_url
    before = read_schema(url)
    upgrade(url)
    after = read_schema(url)
    database = Database(build_engine(url))
    with database.transaction(write=True) as session:
        brand = factories.make_brand()
        fill(session.connection())
    database.dispose()
    folder = tmp_path / "lost"
    assert go_back(url, "0048", folder) == 0
    assert read_schema(url) == before
    saved = {
        path.stem: [json.loads(line) for line in path.read_text().splitlines()] for path in folder.iterdir()
    }
    assert [row["kind"] for row in saved["queued_emails"]] == ["invitation"]
    assert f"        1  {folder / 'queued_emails.jsonl'}" in capsys.readouterr().out
    engine = build_engine(url, pool_size=1)
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL sartiq.migrating = 'on'"))
        assert connection.scalar(text("SELECT name FROM brands")) == brand.name
    engine.dispose()
    # What is dropped without being saved can be made again, or is no data of people.
    derived = {
        "media_checks", "generations.requested_by_id", "product_imports.requested_by_id",
        "product_imports.api_key_id", "uploads.api_key_id", "uploads.stored_bytes",
        "media_resources.variant_bytes", "predictions.reviewer_named_at",
        "memberships.second_factor_from", "second_factor_challenges",
    }  # fmt: skip
    dropped = {table for table in after if table not in before and not table.startswith("audit_events")}
    dropped |= {f"{table}.{column}" for table in before for column in after.get(table, set()) - before[table]}
    kept = set(saved) | {
        f"{table}.{column}" for table, rows in saved.items() for row in rows[:1] for column in row
    }
    assert {name for name in dropped if name not in kept and name.partition(".")[0] not in saved} <= derived
    upgrade(url)
    assert read_schema(url) == after


def test_nothing_is_changed_for_an_older_release_or_an_existing_folder(
    own_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", own_database_url)
    monkeypatch.setenv("SECRET_KEY", "a-secret-key-of-the-tests-0123456789")
    for revision, folder, reason in (
        ("0030", tmp_path / "new", "0030 is older than release 0.2.0"),
        ("0048", tmp_path, "exists: name a new folder"),
    ):
        assert main(["downgrade", revision, "--export", str(folder)]) == 2
        assert reason in capsys.readouterr().err
