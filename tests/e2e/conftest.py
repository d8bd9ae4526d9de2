"""One real server with the demo's rows for the tests that ask it over HTTP and leave no trace."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.server import RunningServer, running_server


@pytest.fixture(scope="package")
def demo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server in a process of its own, on an SQLite file, with the demo accounts."""
    with running_server(tmp_path_factory.mktemp("server"), SARTIQ_ENV="development") as server:
        yield server
