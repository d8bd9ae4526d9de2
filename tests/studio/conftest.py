"""A small studio with its files, for the tests that make pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from db.migrations import upgrade
from db.session import Database, make_engine
from studio.media.storage import LocalDisk
from tests.contract.run import fresh_database
from tests.listening import listening
from tests.production import Production, make_production
from tests.receiving import Receiver


@pytest.fixture
def storage(tmp_path: Path) -> LocalDisk:
    return LocalDisk(tmp_path / "media")


@pytest.fixture
def production(database: Database, storage: LocalDisk) -> Production:
    return make_production(storage, database)


class Lasting(NamedTuple):
    """A studio on a database of its own, whose threads have connections of their own and commit."""

    database: Database
    storage: LocalDisk
    production: Production


@pytest.fixture
def lasting(database_kind: str, database_url: str, storage: LocalDisk, tmp_path: Path) -> Iterator[Lasting]:
    """For tests of concurrency; `database_url` skips where there is no server."""
    with fresh_database(database_kind, tmp_path) as url:
        upgrade(url)
        database = Database(make_engine(url, pool_size=8))
        with database.transaction(write=True):
            production = make_production(storage, None)
        yield Lasting(database, storage, production)
        database.dispose()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A client's server for webhooks."""
    made = Receiver()
    with listening(made.respond) as made.at:
        yield made
