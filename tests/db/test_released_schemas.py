"""Tests that revisions create the schemas that they created when they were released.

So a database that a release has migrated is upgraded to the schema that a new database gets: from there on,
both run the same revisions. `make upgrade` does that with the code of the releases.
"""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from db.migrations import upgrade
from tests.support.schemas import dump_schema, list_differences, read_released
from tools.servers.databases import create_database

MAJOR_VERSION = 18
"""The version of PostgreSQL that has printed the stored schemas."""

ROOT = Path(__file__).parents[2]
RELEASED = read_released()


@pytest.mark.parametrize(("version", "revision"), RELEASED)
def test_a_new_database_has_the_schema_of_a_release_at_its_revision(version: str, revision: str) -> None:
    with create_database() as url:
        with psycopg.connect(url.replace("+psycopg", "")) as connection:
            if connection.info.server_version // 10_000 != MAJOR_VERSION:
                # pg_dump of each major version words the same schema differently.
                pytest.skip(f"only PostgreSQL {MAJOR_VERSION} dumps the text that is stored")
        upgrade(url, revision)
        assert not list_differences(RELEASED[version, revision], dump_schema(url))


def test_the_schemas_of_all_releases_are_stored() -> None:
    contracts = (ROOT / "openapi" / "released").glob("*.json")
    assert {version for version, _ in RELEASED} == {path.stem for path in contracts}
