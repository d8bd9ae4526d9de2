"""Profiles of real requests: every function of the project has a stage, and little time is unassigned."""

from __future__ import annotations

import pytest

from tools.bench.profile import OPERATIONS, SIGN_IN, Profile, format_table, profile_operations
from tools.bench.stages import OURS, REST

pytestmark = pytest.mark.slow("it profiles requests as `make bench-profile` does")

MAX_REST_PERCENT = 10


@pytest.fixture(scope="module")
def measured_profiles() -> list[Profile]:
    return profile_operations(times=3)


def test_every_function_of_the_project_has_a_stage(measured_profiles: list[Profile]) -> None:
    assert set().union(*(profile.unmapped for profile in measured_profiles)) == set()


def test_less_than_ten_percent_of_the_time_is_unassigned(measured_profiles: list[Profile]) -> None:
    assert [profile.title for profile in measured_profiles if profile.share(REST) >= MAX_REST_PERCENT] == []
    assert len(measured_profiles) == len((*OPERATIONS, SIGN_IN))


def test_the_stages_of_a_request_add_up_to_its_work(measured_profiles: list[Profile]) -> None:
    for profile in measured_profiles:
        assert sum(profile.stages.values()) == pytest.approx(profile.work)


def test_a_list_makes_as_many_round_trips_for_100_rows_as_for_20_and_a_wrong_body_makes_one(
    measured_profiles: list[Profile],
) -> None:
    profiles = dict(zip((*OPERATIONS, SIGN_IN), measured_profiles, strict=True))
    assert profiles["list_20"].round_trips == profiles["list_100"].round_trips > 0
    assert profiles["list_20"].calls["psycopg"] < profiles["list_100"].calls["psycopg"]
    # The caller and the permission come before a wrong body, in one message.
    assert profiles["invalid"].round_trips == 1
    assert profiles["create"].calls["audit"] > profiles["read"].calls["audit"]


def test_the_table_has_a_column_for_each_operation(measured_profiles: list[Profile]) -> None:
    head, rule, *rows = format_table(measured_profiles)
    assert {line.count("|") for line in (head, rule, *rows)} == {len(measured_profiles) + 2}
    assert len(rows) > len(OURS)
