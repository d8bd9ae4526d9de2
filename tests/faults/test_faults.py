"""What a server tells Celery's workers, on a real Redis that comes and goes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from studio.jobs.celery_app import QUEUE, Courier, make_celery
from studio.settings import Settings
from tests.faults.stage import (
    Broker,
    NotThere,
    own_broker,
)


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """A Redis of its own."""
    try:
        with own_broker() as started:
            yield started
    except NotThere as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing))
        pytest.skip(str(missing))


class Rows:
    """A database in which so much waits."""

    def __init__(self, waiting: int) -> None:
        self.waiting = waiting


@pytest.fixture
def courier(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Courier]:
    """A courier of a server whose database says how much waits."""
    broker.flush()
    monkeypatch.setattr(
        "studio.jobs.celery_app.queue", SimpleNamespace(count_work=lambda rows, _: rows.waiting)
    )
    app = make_celery(Settings(celery_broker_url=broker.url))
    yield Courier(app)
    app.close()


def test_as_many_workers_are_called_as_there_is_work_and_messages_do_not_pile_up(
    broker: Broker, courier: Courier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.jobs.celery_app.MOST_WAITING", 5)
    courier.call_workers(Rows(3))
    assert broker.length(QUEUE) == 3
    courier.call_workers(Rows(9))
    assert broker.length(QUEUE) == 5


def test_a_broker_that_is_away_is_told_once_and_found_again(
    broker: Broker, courier: Courier, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "studio")
    broker.stop()
    for _ in range(3):
        assert not courier.send("work")
    broker.start()
    assert courier.send("work")
    assert courier.send("work")
    assert broker.length(QUEUE) == 2
    told = [record.getMessage()[:22] for record in caplog.records if record.name.startswith("studio")]
    assert told == ["the broker is away; wh", "the broker is back"]
