"""Fixtures of the studio tests: storage, a customer's rows, a Compute API and a webhook receiver."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from db.session import Database
from studio.generations.worker import remote
from studio.generations.worker.executor import GenerationExecutor
from studio.infrastructure.http_client import SafeHttpClient
from studio.infrastructure.storage import LocalDisk
from studio.providers import compute
from tests.studio.compute_fixtures import use_compute
from tests.support.filled_server import CHUNK_BYTES
from tests.support.queues import build_worker
from tests.support.scenarios import PhotographedProduct, make_photographed_product
from tests.support.servers.compute import ComputeServer, run_compute_server
from tools.sample_images.photograph import open_small_photo


@pytest.fixture
def storage(tmp_path: Path) -> LocalDisk:
    """Return an empty storage."""
    return LocalDisk(tmp_path / "media")


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """Return a photo of a product."""
    return open_small_photo()


@pytest.fixture(scope="module")
def small_chunks() -> Iterator[None]:
    """Fill databases in small chunks, so that a few rows already take several of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("db.copy_database.CHUNK_BYTES", CHUNK_BYTES)
        yield


class CommittingStudio(NamedTuple):
    """A customer's rows on a database with real commits and one connection per thread."""

    database: Database
    storage: LocalDisk
    scenario: PhotographedProduct


@pytest.fixture
def committing_studio(own_database: Database, storage: LocalDisk) -> CommittingStudio:
    """Return a customer's rows on a separate database, for tests of concurrency."""
    with own_database.transaction(write=True):
        scenario = make_photographed_product(storage, None)
    return CommittingStudio(own_database, storage, scenario)


@pytest.fixture
def immediate_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every parked generation due immediately, and retry requests almost without backoff."""
    monkeypatch.setattr(remote, "MIN_POLL_SECONDS", 0.0)
    monkeypatch.setattr(compute, "MAX_BACKOFF_SECONDS", 0.01)


@pytest.fixture
def server(immediate_polling: None) -> Iterator[ComputeServer]:
    """Yield a running fake Compute API."""
    with run_compute_server() as running:
        yield running


@pytest.fixture
def remote_scenario(scenario: PhotographedProduct, server: ComputeServer) -> PhotographedProduct:
    """Return the rows of `scenario`, with a model of the Compute API."""
    return use_compute(scenario, server)


@pytest.fixture
def executor(database: Database, storage: LocalDisk, server: ComputeServer) -> Iterator[GenerationExecutor]:
    """Yield an executor that is allowed to connect to the Compute API."""
    executor = GenerationExecutor(
        build_worker(database, storage), 1, http_client=SafeHttpClient([server.server.host])
    )
    yield executor
    executor.close()
