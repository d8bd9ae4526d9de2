"""The features that the benchmark can disable between two requests: each request must look them up again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.bench.feature_toggles import FEATURES, FunctionTimer, disabled
from tools.bench.in_process import HOST, InProcessServer, run_in_process_server
from tools.bench.open_loop import encode_requests
from tools.bench.operations import OPERATIONS_BY_NAME
from tools.bench.profile import SCALE, prepare_database
from tools.servers.databases import create_database

pytestmark = pytest.mark.slow("it measures as `make bench` does")

CREATED = b"HTTP/1.1 201 "


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessServer]:
    folder: Path = tmp_path_factory.mktemp("inside")
    with create_database() as url:
        prepare_database(url)
        with run_in_process_server(folder, url) as server:
            yield server


@pytest.fixture(scope="module")
def creations(server: InProcessServer) -> Iterator[bytes]:
    return encode_requests(OPERATIONS_BY_NAME["create"].requests(server.client(), SCALE), HOST)


@pytest.mark.parametrize("feature", FEATURES)
def test_each_request_calls_the_functions_of_every_feature(
    server: InProcessServer, creations: Iterator[bytes], feature: str
) -> None:
    """A function that is bound at start could not be disabled, and its cost would be measured as zero."""
    timer = FunctionTimer(feature)
    with timer.measuring():
        assert server.send(next(creations)).startswith(CREATED)
    assert timer.calls > 0
    assert timer.seconds > 0


@pytest.mark.parametrize("feature", FEATURES)
def test_a_request_succeeds_with_any_feature_disabled(
    server: InProcessServer, creations: Iterator[bytes], feature: str
) -> None:
    with disabled(feature):
        assert server.send(next(creations)).startswith(CREATED)
