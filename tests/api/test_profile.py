"""The profile of real requests: nothing of ours is without a stage, and little is left over."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import OperationalError

from tests.absent import lacking
from tests.bench.profile import KINDS, SIGN_IN, Profile, lines, profiles
from tests.bench.stages import OURS, REST, WAITING

MOST_OF_THE_REST = 10


@pytest.fixture(scope="module")
def found() -> list[Profile]:
    try:
        return profiles(times=3)
    except OperationalError as error:
        lacking(f"a PostgreSQL that lets TEST_POSTGRESQL_URL in: {error.orig}")


def test_every_function_of_ours_has_a_stage(found: list[Profile]) -> None:
    assert set().union(*(profile.unnamed for profile in found)) == set()


def test_little_is_left_over(found: list[Profile]) -> None:
    assert [profile.title for profile in found if profile.share(REST) >= MOST_OF_THE_REST] == []
    assert len(found) == len((*KINDS, SIGN_IN))


def test_the_stages_of_a_request_add_up_to_its_work(found: list[Profile]) -> None:
    for profile in found:
        assert sum(profile.stages.values()) == pytest.approx(profile.work)


def test_a_list_asks_as_often_for_100_rows_as_for_20_and_what_is_invalid_not_at_all(
    found: list[Profile],
) -> None:
    of = dict(zip((*KINDS, SIGN_IN), found, strict=True))
    assert of["list_20"].round_trips == of["list_100"].round_trips > 0
    assert of["list_20"].calls["psycopg"] < of["list_100"].calls["psycopg"]
    assert of["invalid"].round_trips == of["invalid"].calls[WAITING] == 0
    assert of["create"].calls["audit"] > of["read"].calls["audit"]


def test_the_table_has_a_column_for_each_kind(found: list[Profile]) -> None:
    head, rule, *rows = lines(found)
    assert {line.count("|") for line in (head, rule, *rows)} == {len(found) + 2}
    assert len(rows) > len(OURS)
