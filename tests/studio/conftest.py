"""A small studio with its files, for the tests that make pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from db.session import Database
from studio.jobs import remote
from studio.jobs.workshop import Workshop
from studio.media.storage import LocalDisk
from studio.outbound import Outbound
from studio.providers import compute
from tests.compute_server import ComputeServer, compute_server
from tests.listening import listening
from tests.production import Production, make_production
from tests.receiving import Receiver
from tests.studio.compute_house import use_compute


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
def lasting(own_database: Database, storage: LocalDisk) -> Lasting:
    """For tests of concurrency."""
    with own_database.transaction(write=True):
        production = make_production(storage, None)
    return Lasting(own_database, storage, production)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A client's server for webhooks."""
    made = Receiver()
    with listening(made.respond) as made.at:
        yield made


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be waited for: every parked row is due at once."""
    monkeypatch.setattr(remote, "FIRST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(compute, "LONGEST_PAUSE_SECONDS", 0.01)


@pytest.fixture
def server(impatient: None) -> Iterator[ComputeServer]:
    """A Compute API."""
    with compute_server() as running:
        yield running


@pytest.fixture
def made_elsewhere(production: Production, server: ComputeServer) -> Production:
    """The production, whose model is now one of the Compute API."""
    return use_compute(production, server)


@pytest.fixture
def workshop(database: Database, storage: LocalDisk, server: ComputeServer) -> Iterator[Workshop]:
    """A workshop that may reach the Compute API."""
    made = Workshop(database, storage, 1, 60, outbound=Outbound([server.server.host]))
    yield made
    made.close()
