"""Test the lease functions that the three queues share; the tests of each queue cover its rows."""

from __future__ import annotations

import os

import pytest
from sqlalchemy.exc import OperationalError

from studio import leases

pytestmark = pytest.mark.both_databases


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
