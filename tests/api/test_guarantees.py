"""What the benchmark switches off between two requests is what each request asks for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from tests.absent import lacking
from tests.bench.inside import HOST, Inside, inside
from tests.bench.open_loop import wires
from tests.bench.operations import NAMED
from tests.bench.profile import SCALE, prepare
from tests.bench.without import PARTS, Clock, left_away
from tests.databases import fresh_database

CREATED = b"HTTP/1.1 201 "


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    folder: Path = tmp_path_factory.mktemp("inside")
    try:
        with fresh_database("postgresql", folder) as url:
            prepare(url)
            with inside(folder, url) as found:
                yield found
    except OperationalError as error:
        lacking(f"a PostgreSQL that lets TEST_POSTGRESQL_URL in: {error.orig}")


@pytest.fixture(scope="module")
def creations(server: Inside) -> Iterator[bytes]:
    return wires(NAMED["create"].requests(server.client(), SCALE), HOST)


@pytest.mark.parametrize("part", PARTS)
def test_a_request_asks_for_each_guarantee_when_it_comes(
    server: Inside, creations: Iterator[bytes], part: str
) -> None:
    """What was fetched at the start would go on working, and be measured as if it cost nothing."""
    clock = Clock(part)
    with clock.running():
        assert server.ask(next(creations)).startswith(CREATED)
    assert clock.calls > 0
    assert clock.seconds > 0


@pytest.mark.parametrize("part", PARTS)
def test_without_a_guarantee_a_request_is_answered_as_before(
    server: Inside, creations: Iterator[bytes], part: str
) -> None:
    with left_away(part):
        assert server.ask(next(creations)).startswith(CREATED)
