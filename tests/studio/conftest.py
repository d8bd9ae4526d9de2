"""A small studio with its files, for the tests that make pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from db.session import Database
from studio.generations.worker import remote
from studio.generations.worker.executor import GenerationExecutor
from studio.http_client import SafeHttpClient
from studio.media.storage import LocalDisk
from studio.providers import compute
from tests.studio.compute_fixtures import use_compute
from tests.support.scenarios import PhotographedProduct, make_photographed_product
from tests.support.servers.compute import ComputeServer, run_compute_server
from tests.support.servers.http_recorder import run_http_recorder
from tests.support.servers.webhook_receiver import WebhookReceiver


@pytest.fixture
def storage(tmp_path: Path) -> LocalDisk:
    return LocalDisk(tmp_path / "media")


@pytest.fixture
def scenario(database: Database, storage: LocalDisk) -> PhotographedProduct:
    return make_photographed_product(storage, database)


class CommittingStudio(NamedTuple):
    """A studio on a database of its own, whose threads have connections of their own and commit."""

    database: Database
    storage: LocalDisk
    scenario: PhotographedProduct


@pytest.fixture
def committing_studio(own_database: Database, storage: LocalDisk) -> CommittingStudio:
    """For tests of concurrency."""
    with own_database.transaction(write=True):
        production = make_photographed_product(storage, None)
    return CommittingStudio(own_database, storage, production)


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    """A client's server for webhooks."""
    made = WebhookReceiver()
    with run_http_recorder(made.respond) as made.recorder:
        yield made


@pytest.fixture
def immediate_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be waited for: every parked row is due at once."""
    monkeypatch.setattr(remote, "MIN_POLL_SECONDS", 0.0)
    monkeypatch.setattr(compute, "MAX_BACKOFF_SECONDS", 0.01)


@pytest.fixture
def server(immediate_polling: None) -> Iterator[ComputeServer]:
    """A Compute API."""
    with run_compute_server() as running:
        yield running


@pytest.fixture
def remote_scenario(scenario: PhotographedProduct, server: ComputeServer) -> PhotographedProduct:
    """The production, whose model is now one of the Compute API."""
    return use_compute(scenario, server)


@pytest.fixture
def executor(database: Database, storage: LocalDisk, server: ComputeServer) -> Iterator[GenerationExecutor]:
    """A workshop that may reach the Compute API."""
    made = GenerationExecutor(database, storage, 1, 60, http_client=SafeHttpClient([server.server.host]))
    yield made
    made.close()
