"""Tests that the commands of `make upgrade` find what they look for."""

from __future__ import annotations

import sys
from pathlib import Path

import psycopg
import pytest

from tests.upgrade.databases import compare_schemas
from tests.upgrade.release import Release, UpgradeFailed

MIGRATION = """
import psycopg

def upgrade(url):
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        connection.execute("{statement}")
"""


@pytest.fixture(autouse=True)
def _one_migration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give this tree a migration that creates one table: `make upgrade` runs the real ones."""

    def upgrade(url: str) -> None:
        with psycopg.connect(url.replace("+psycopg", "")) as connection:
            connection.execute("CREATE TABLE migrated (id integer)")

    monkeypatch.setattr("tests.upgrade.databases.upgrade", upgrade)


@pytest.fixture
def release(tmp_path: Path) -> Release:
    """Return a release whose migration runs the statement that a test writes to it."""
    (tmp_path / "db").mkdir()
    return Release(tmp_path, sys.executable)


def write_migration(release: Release, statement: str) -> None:
    (release.folder / "db" / "migrations.py").write_text(MIGRATION.format(statement=statement))


def test_a_schema_that_differs_from_a_fresh_one_fails_the_upgrade(release: Release) -> None:
    write_migration(release, "CREATE DOMAIN left_over AS text")
    with pytest.raises(UpgradeFailed) as caught:
        compare_schemas(release)
    assert "\n  -CREATE DOMAIN public.left_over AS text;\n" in str(caught.value)
    assert "+CREATE" not in str(caught.value)


def test_a_migration_of_a_release_that_fails_ends_with_its_reason(release: Release) -> None:
    write_migration(release, "DROP TABLE absent")
    with pytest.raises(UpgradeFailed, match='table "absent" does not exist'):
        compare_schemas(release)
