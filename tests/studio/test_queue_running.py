"""Test what runs leased rows, and the table of retries; `test_queues` runs each queue."""

from __future__ import annotations

import os
import time
from datetime import timedelta

import pytest
from sqlalchemy.exc import OperationalError

from studio.infrastructure.storage import LocalDisk
from studio.queue.retries import JITTER, WORK, RetryPolicy
from studio.queue.row_queue import Interrupted, new_token
from studio.queue.running import Heartbeat, TimeLimitExceeded, Worker, retry_in_outage
from tools.servers.processes import wait_until

HOUR = timedelta(hours=1)


def outage() -> OperationalError:
    return OperationalError("UPDATE", {}, Exception("server closed the connection"))


@pytest.fixture
def worker(storage: LocalDisk) -> Worker:
    """Return a process whose leases last so long that a heartbeat comes every ten milliseconds."""
    return Worker(None, storage, timedelta(seconds=0.04))  # type: ignore[arg-type]  # the heartbeat of these tests renews nothing


def test_each_token_names_its_process_and_is_unique() -> None:
    first, second = new_token(), new_token()
    assert f":{os.getpid()}:" in first
    assert first != second
    # The column of webhook endpoints is the shortest: 100 characters.
    assert len(first) <= 100


def wait_for_interruption(heartbeat: Heartbeat, error: type[Exception] = Interrupted) -> None:
    def is_interrupted() -> bool:
        try:
            heartbeat.check()
        except error:
            return True
        return False

    wait_until(is_interrupted, "the heartbeat interrupts the work")


def test_a_lost_lease_interrupts_the_work(worker: Worker) -> None:
    with Heartbeat(worker, lambda _progress: False, HOUR, "export 1") as heartbeat:
        wait_for_interruption(heartbeat)


def test_the_end_of_the_process_interrupts_the_work(worker: Worker) -> None:
    with Heartbeat(worker, lambda _progress: True, HOUR, "export 1") as heartbeat:
        heartbeat.check()
        worker.aborting.set()
        with pytest.raises(Interrupted):
            heartbeat.check()


def test_work_that_takes_too_long_loses_its_lease(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    renewals = list[float]()

    def renew(_progress: int | None) -> bool:
        renewals.append(time.monotonic())
        return True

    ends_at = time.monotonic() + 0.2
    with Heartbeat(worker, renew, timedelta(seconds=0.2), "export 1") as heartbeat:
        wait_for_interruption(heartbeat, TimeLimitExceeded)
        wait_until(lambda: "export 1 takes too long" in caplog.text, "the heartbeat ends")
    assert renewals
    assert max(renewals) < ends_at + worker.lease_duration.total_seconds()


def test_an_outage_of_the_database_does_not_interrupt_the_work(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    def renew(_progress: int | None) -> bool:
        raise outage()

    with Heartbeat(worker, renew, HOUR, "export 1") as heartbeat:
        wait_until(lambda: "the lease of export 1 was not renewed" in caplog.text, "a renewal fails")
        heartbeat.check()


def test_progress_is_recorded_with_the_next_renewal_and_is_never_complete(worker: Worker) -> None:
    recorded = list[int | None]()

    def renew(progress: int | None) -> bool:
        recorded.append(progress)
        return True

    with Heartbeat(worker, renew, HOUR, "export 1") as heartbeat:
        heartbeat.report(1, 4)
        wait_until(lambda: recorded[-1:] == [25], "the progress is recorded")
        heartbeat.report(4, 4)
        wait_until(lambda: recorded[-1:] == [99], "the progress is recorded")


def test_only_an_outage_is_a_reason_to_record_something_again(worker: Worker) -> None:
    def write() -> None:
        raise ValueError("a defect")

    with pytest.raises(ValueError, match="a defect"):
        retry_in_outage(worker, write, "the end of export 1")


def test_a_process_that_ends_does_not_wait_for_the_database(worker: Worker) -> None:
    failures = list[OperationalError]()

    def write() -> None:
        failures.append(outage())
        worker.aborting.set()
        raise failures[-1]

    with pytest.raises(OperationalError) as raised:
        retry_in_outage(worker, write, "the end of export 1")
    assert failures == [raised.value]


def test_delays_spread_so_that_rows_that_failed_together_are_not_retried_together() -> None:
    planned = WORK.delays[0]
    delays = {WORK.delay_after(1) for _ in range(100)}
    assert len(delays) > 90
    assert max(delays) - min(delays) > planned * JITTER
    assert all(abs(delay - planned) <= planned * JITTER for delay in delays)


def test_a_server_can_ask_for_a_longer_delay_but_not_for_a_shorter_one() -> None:
    policy = RetryPolicy((timedelta(seconds=10),))
    assert policy.max_attempts == 2
    assert policy.delay_after(1, timedelta(seconds=60)) == timedelta(seconds=60)
    assert policy.delay_after(1, timedelta(seconds=1)) >= timedelta(seconds=9)
