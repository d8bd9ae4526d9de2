"""Whose turn it is: tiers come first, but nobody takes every worker and nobody waits for ever."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, select

from db.base import utc_now
from db.models import Generation, Organization
from db.session import Database
from studio.jobs import queue
from studio.jobs.turns import PATIENCE
from tests import factories
from tests.production import LEASE
from tests.racing import at_once


def wait_in(organization: Organization, minutes: float = 0, **values: Any) -> UUID:
    """A pending generation of this organization that has waited for so long."""
    created_at = utc_now() - timedelta(minutes=minutes)
    return factories.make_generation(organization=organization, created_at=created_at, **values).id


def claimed(database: Database, max_running: int = 0, lease: timedelta = LEASE) -> UUID | None:
    claim = queue.claim_next(database, "a worker", lease, max_running)
    return claim.generation_id if claim else None


def test_a_higher_priority_goes_first_and_then_the_older(database: Database) -> None:
    one = factories.make_organization()
    younger, older, urgent = wait_in(one, 1), wait_in(one, 2), wait_in(one, priority=5)
    assert [claimed(database) for _ in range(4)] == [urgent, older, younger, None]


def test_among_equals_the_tenant_with_less_in_hand_goes_first(database: Database) -> None:
    busy, idle = factories.make_organization(), factories.make_organization()
    first, second = wait_in(busy, 5), wait_in(busy, 4)
    late = wait_in(idle, 1)
    assert [claimed(database) for _ in range(3)] == [first, late, second]


def test_personal_work_is_a_tenant_of_its_own_for_every_owner(database: Database) -> None:
    one, other = factories.make_user(), factories.make_user()
    made = [factories.make_generation(owner=owner).id for owner in (one, one, other)]
    assert [claimed(database, max_running=1) for _ in range(3)] == [made[0], made[2], None]


def test_a_tenant_with_enough_in_hand_waits_whatever_its_priority(database: Database) -> None:
    large, small = factories.make_organization(), factories.make_organization()
    urgent = [wait_in(large, 5 - number, priority=9) for number in range(3)]
    modest = wait_in(small)
    assert [claimed(database, max_running=2) for _ in range(4)] == [*urgent[:2], modest, None]
    assert queue.count_work(database, 10) == 1


def test_what_has_waited_for_long_goes_before_every_priority(database: Database) -> None:
    large, small = factories.make_organization(), factories.make_organization()
    patience = PATIENCE.total_seconds() / 60
    urgent = [wait_in(large, minutes, priority=9) for minutes in (patience + 2, 3)]
    forgotten = wait_in(small, patience + 1)
    assert [claimed(database) for _ in range(3)] == [urgent[0], forgotten, urgent[1]]


def test_what_a_lost_worker_left_goes_first_and_does_not_lift_the_limit(database: Database) -> None:
    one = factories.make_organization()
    lost, waiting = wait_in(one, 2), wait_in(one, 1, priority=9)
    urgent = claimed(database, max_running=2, lease=timedelta(seconds=-1))
    assert urgent == waiting
    assert claimed(database, max_running=1) == urgent
    assert claimed(database, max_running=1) is None
    assert claimed(database, max_running=2) == lost


def test_many_claims_at_once_never_exceed_the_limit_and_leave_nothing_that_may_run(
    own_database: Database,
) -> None:
    with own_database.transaction(write=True):
        tenants = [factories.make_organization(factories.make_user()) for _ in range(2)]
        made = [wait_in(tenant) for tenant in tenants for _ in range(12)]

    def claim_all() -> list[UUID]:
        found = []
        while (generation_id := claimed(own_database, max_running=3)) is not None:
            found.append(generation_id)
        return found

    found = [generation_id for some in at_once(*[claim_all] * 4) for generation_id in some]
    assert len(set(found) & set(made)) == len(found) == 6
    with own_database.transaction(write=False) as reading:
        running = select(Generation.organization_id, func.count()).where(Generation.id.in_(found))
        counts = reading.execute(running.group_by(Generation.organization_id)).all()
    assert [count for _, count in counts] == [3, 3]
