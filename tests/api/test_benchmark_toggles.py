"""What the benchmark switches off between two requests is what each request asks for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from tests.support.databases import create_database
from tests.support.requirements import skip_or_fail
from tests.tools.bench.feature_toggles import FEATURES, FunctionTimer, disabled
from tests.tools.bench.in_process import HOST, InProcessServer, run_in_process_server
from tests.tools.bench.open_loop import encode_requests
from tests.tools.bench.operations import OPERATIONS_BY_NAME
from tests.tools.bench.profile import SCALE, prepare_database

CREATED = b"HTTP/1.1 201 "


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessServer]:
    folder: Path = tmp_path_factory.mktemp("inside")
    try:
        with create_database("postgresql", folder) as url:
            prepare_database(url)
            with run_in_process_server(folder, url) as found:
                yield found
    except OperationalError as error:
        skip_or_fail(f"a PostgreSQL that lets TEST_POSTGRESQL_URL in: {error.orig}")


@pytest.fixture(scope="module")
def creations(server: InProcessServer) -> Iterator[bytes]:
    return encode_requests(OPERATIONS_BY_NAME["create"].requests(server.client(), SCALE), HOST)


@pytest.mark.parametrize("part", FEATURES)
def test_a_request_asks_for_each_guarantee_when_it_comes(
    server: InProcessServer, creations: Iterator[bytes], part: str
) -> None:
    """What was fetched at the start would go on working, and be measured as if it cost nothing."""
    clock = FunctionTimer(part)
    with clock.measuring():
        assert server.send(next(creations)).startswith(CREATED)
    assert clock.calls > 0
    assert clock.seconds > 0


@pytest.mark.parametrize("part", FEATURES)
def test_without_a_guarantee_a_request_is_answered_as_before(
    server: InProcessServer, creations: Iterator[bytes], part: str
) -> None:
    with disabled(part):
        assert server.send(next(creations)).startswith(CREATED)
