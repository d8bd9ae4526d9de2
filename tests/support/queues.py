"""Run the queues of a test: the worker of its process, and writes that require a lease."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import pytest

from db.session import Database
from studio.infrastructure.storage import Storage
from studio.queue.retries import RetryPolicy
from studio.queue.row_queue import LeaseLost
from studio.queue.running import Heartbeat, Worker

LEASE = timedelta(seconds=60)
PAST = timedelta(seconds=-1)
"""The duration of a lease whose worker is lost."""


def build_worker(
    database: Database, storage: Storage | None = None, lease_duration: timedelta = LEASE
) -> Worker:
    """Return the worker of a process; work that needs no files runs without a storage."""
    return Worker(database, cast(Storage, storage), lease_duration)


def keep_lease(worker: Worker, renew: Callable[[int | None], bool] = lambda _progress: True) -> Heartbeat:
    """Return the heartbeat of a lease, which is not lost unless `renew` says so."""
    return Heartbeat(worker, renew, timedelta(hours=1), "the row of a test")


def retry_after_seconds(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Replace all delays after failed attempts, but not those that a server asks for."""

    def delay_after(_policy: RetryPolicy, _attempts: int, retry_after: timedelta | None = None) -> timedelta:
        return max(timedelta(seconds=seconds), retry_after or timedelta(0))

    monkeypatch.setattr(RetryPolicy, "delay_after", delay_after)


def try_record(database: Database, record: Callable[..., object], *arguments: Any) -> bool:
    """Record the result of a leased row in a transaction; return False if the lease is lost."""
    try:
        with database.transaction(write=True):
            record(*arguments)
    except LeaseLost:
        return False
    return True
