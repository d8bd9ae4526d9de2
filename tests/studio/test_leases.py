"""Test the lease functions that the three queues share; the tests of each queue cover its rows."""

from __future__ import annotations

import os
import threading
from datetime import timedelta

import pytest
from sqlalchemy.exc import OperationalError

from studio import leases

LEASE = timedelta(seconds=60)


def test_each_token_names_its_process_and_is_unique() -> None:
    first, second = leases.new_token(), leases.new_token()
    assert f":{os.getpid()}:" in first
    assert first != second
    # The column of webhook endpoints is the shortest: 100 characters.
    assert len(first) <= 100


@pytest.mark.parametrize("is_leased", [True, False])
def test_a_renewal_returns_whether_the_row_is_still_leased(is_leased: bool) -> None:
    assert leases.renew_despite_outage(lambda: is_leased, "export 1") == is_leased


def test_an_outage_of_the_database_does_not_end_a_lease(caplog: pytest.LogCaptureFixture) -> None:
    def renew() -> bool:
        raise OperationalError("UPDATE", {}, Exception("server closed the connection"))

    assert leases.renew_despite_outage(renew, "export 1")
    assert "the lease of export 1 was not renewed" in caplog.text


def test_any_other_error_of_a_renewal_is_raised() -> None:
    def renew() -> bool:
        raise ValueError("a defect")

    with pytest.raises(ValueError, match="a defect"):
        leases.renew_despite_outage(renew, "export 1")


def test_only_an_outage_is_a_reason_to_record_something_again() -> None:
    def write() -> None:
        raise ValueError("a defect")

    with pytest.raises(ValueError, match="a defect"):
        leases.retry_in_outage(write, LEASE, "the end of export 1")


def test_a_process_that_ends_does_not_wait_for_the_database() -> None:
    aborting, failures = threading.Event(), []

    def write() -> None:
        failures.append(OperationalError("UPDATE", {}, Exception("server closed the connection")))
        aborting.set()
        raise failures[-1]

    with pytest.raises(OperationalError) as raised:
        leases.retry_in_outage(write, LEASE, "the end of export 1", aborting)
    assert failures == [raised.value]


def test_a_defect_in_the_release_after_an_outage_is_raised() -> None:
    def release(*, counts_attempt: bool) -> None:
        raise ValueError(f"a defect of {counts_attempt}")

    with pytest.raises(ValueError, match="a defect of True"):
        leases.release_after_outage(release, LEASE, "export 1")
