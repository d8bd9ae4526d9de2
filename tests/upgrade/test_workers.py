"""Tests that `make upgrade` notices rows that two releases do twice, or take from each other."""

from __future__ import annotations

from datetime import timedelta

import pytest

from db.models.account_exports import AccountExport
from db.session import Database
from studio.exports.queue import ACCOUNT_EXPORTS, complete_account_export
from tests.support import factories
from tests.upgrade.lease_log import QUEUES, check_leases, log_leases, query
from tests.upgrade.release import UpgradeFailed
from tests.upgrade.workers import find_tracebacks

RELEASES = {1: "0.2.0", 2: "this tree"}
OLD, NEW = "host:1:00ff", "host:2:00ff"
LeaseRow = tuple[str, str, str | None, str | None, bool | None, bool]


def lease_and_end(owner: str, name: str, row: str) -> list[LeaseRow]:
    return [(name, row, None, owner, None, False), (name, row, owner, None, True, True)]


def do_some_of_each(*owners: str) -> list[LeaseRow]:
    return [
        change for name in QUEUES for owner in owners for change in lease_and_end(owner, name, f"of {owner}")
    ]


def test_the_rows_of_each_queue_are_counted_by_the_release_that_has_done_them() -> None:
    more = [*lease_and_end(OLD, "exports", "b"), *lease_and_end(NEW, "exports", "c")]
    done = check_leases([*do_some_of_each(OLD, NEW), *more, *lease_and_end(OLD, "imports", "d")], RELEASES)
    assert done["exports"] == {"0.2.0": 2, "this tree": 2}
    assert done["imports"] == {"0.2.0": 2, "this tree": 1}


def test_a_row_whose_lease_has_expired_may_be_taken_and_a_leased_one_may_not() -> None:
    taken: list[LeaseRow] = [
        ("exports", "b", OLD, NEW, False, False),
        ("exports", "b", NEW, None, True, True),
    ]
    assert check_leases([*do_some_of_each(OLD, NEW), *taken], RELEASES)["exports"]["this tree"] == 2
    stolen = ("exports", "b", OLD, NEW, True, False)
    with pytest.raises(UpgradeFailed, match=f"{NEW} took a row of exports that {OLD} had leased"):
        check_leases([*do_some_of_each(OLD, NEW), stolen], RELEASES)


def test_a_row_that_is_done_twice_fails_but_an_endpoint_gets_many_messages() -> None:
    rows = do_some_of_each(OLD, NEW)
    check_leases([*rows, *lease_and_end(NEW, "webhook messages", f"of {OLD}")], RELEASES)
    with pytest.raises(UpgradeFailed, match=r"rows were done twice: \{'generations': 1\}"):
        check_leases([*rows, *lease_and_end(NEW, "generations", f"of {OLD}")], RELEASES)


def test_a_release_that_takes_no_part_in_a_busy_queue_fails() -> None:
    rows = do_some_of_each(OLD, NEW)
    check_leases([row for row in rows if row[0] != "account exports" or row[1] != f"of {OLD}"], RELEASES)
    with pytest.raises(UpgradeFailed, match=r"0\.2\.0 did nothing of the publications"):
        check_leases([row for row in rows if row[0] != "publications" or row[1] != f"of {OLD}"], RELEASES)


def test_the_database_records_each_change_of_a_lease(own_database: Database, own_database_url: str) -> None:
    log_leases(own_database_url)
    with own_database.transaction(write=True) as session:
        session.add(export := AccountExport(user_id=factories.make_user().id))
        session.flush()
        export_id = export.id
    first = ACCOUNT_EXPORTS.lease_next(own_database, timedelta(seconds=-1))
    second = ACCOUNT_EXPORTS.lease_next(own_database, timedelta(minutes=1))
    assert first is not None
    assert second is not None
    with own_database.transaction(write=True):
        complete_account_export(second, 1, "00")
    assert query(own_database_url, "SELECT * FROM lease_log") == [
        ("account exports", export_id, None, first.token, None, False),
        ("account exports", export_id, first.token, second.token, False, False),
        ("account exports", export_id, second.token, None, True, True),
    ]


def test_each_traceback_of_a_log_is_found() -> None:
    first = "\n  File a\nKeyError: 'a'\nINFO done\n"
    head = "Traceback (most recent call last):"
    assert find_tracebacks(f"INFO started\n{head}{first}{head}\nOSError\n") == [f":{first}", ":\nOSError\n"]
    assert find_tracebacks("INFO started\n") == []
