"""Test the scheduler: priorities, fairness between tenants, and generations that have waited too long."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import func, select

from db.base import utc_now
from db.models import Generation, Organization
from db.session import Database
from studio.generations.worker import queue
from studio.generations.worker.scheduling import STARVATION_AFTER, select_next
from tests.support import factories
from tests.support.concurrency import run_concurrently
from tests.support.queues import LEASE


def make_waiting_generation(organization: Organization, minutes: float = 0, **values: Any) -> UUID:
    """Create a pending generation of an organization that has waited for some time."""
    created_at = utc_now() - timedelta(minutes=minutes)
    return factories.make_generation(organization=organization, created_at=created_at, **values).id


def lease_next(database: Database, max_running: int = 0, duration: timedelta = LEASE) -> UUID | None:
    lease = queue.GENERATIONS.lease_next(database, duration, partial(select_next, max_running))
    return lease.row_id if lease else None


def test_a_higher_priority_goes_first_and_then_the_older_generation(database: Database) -> None:
    one = factories.make_organization()
    younger, older, urgent = (
        make_waiting_generation(one, 1),
        make_waiting_generation(one, 2),
        make_waiting_generation(one, priority=5),
    )
    assert [lease_next(database) for _ in range(4)] == [urgent, older, younger, None]


def test_at_equal_priority_the_tenant_with_fewer_running_generations_goes_first(database: Database) -> None:
    busy, idle = factories.make_organization(), factories.make_organization()
    first, second = make_waiting_generation(busy, 5), make_waiting_generation(busy, 4)
    late = make_waiting_generation(idle, 1)
    assert [lease_next(database) for _ in range(3)] == [first, late, second]


def test_each_owner_of_personal_generations_is_a_tenant(database: Database) -> None:
    one, other = factories.make_user(), factories.make_user()
    generation_ids = [factories.make_generation(owner=owner).id for owner in (one, one, other)]
    assert [lease_next(database, max_running=1) for _ in range(3)] == [
        generation_ids[0],
        generation_ids[2],
        None,
    ]


def test_a_tenant_with_the_maximum_of_running_generations_waits_whatever_its_priority(
    database: Database,
) -> None:
    large, small = factories.make_organization(), factories.make_organization()
    urgent = [make_waiting_generation(large, 5 - number, priority=9) for number in range(3)]
    normal = make_waiting_generation(small)
    assert [lease_next(database, max_running=2) for _ in range(4)] == [*urgent[:2], normal, None]
    assert queue.GENERATIONS.count_available(database, 10) == 1


def test_a_starving_generation_goes_before_every_priority(database: Database) -> None:
    large, small = factories.make_organization(), factories.make_organization()
    limit = STARVATION_AFTER.total_seconds() / 60
    urgent = [make_waiting_generation(large, minutes, priority=9) for minutes in (limit + 2, 3)]
    starving = make_waiting_generation(small, limit + 1)
    assert [lease_next(database) for _ in range(3)] == [urgent[0], starving, urgent[1]]


def test_generations_of_a_lost_worker_run_first_and_count_towards_the_limit(database: Database) -> None:
    one = factories.make_organization()
    lost, waiting = make_waiting_generation(one, 2), make_waiting_generation(one, 1, priority=9)
    urgent = lease_next(database, max_running=2, duration=timedelta(seconds=-1))
    assert urgent == waiting
    assert lease_next(database, max_running=1) == urgent
    assert lease_next(database, max_running=1) is None
    assert lease_next(database, max_running=2) == lost


def test_concurrent_workers_lease_up_to_the_limit_and_never_beyond(
    own_database: Database,
) -> None:
    with own_database.transaction(write=True):
        tenants = [factories.make_organization(factories.make_user()) for _ in range(2)]
        generation_ids = [make_waiting_generation(tenant) for tenant in tenants for _ in range(12)]

    def lease_all() -> list[UUID]:
        found = []
        while (generation_id := lease_next(own_database, max_running=3)) is not None:
            found.append(generation_id)
        return found

    found = [generation_id for some in run_concurrently(*[lease_all] * 4) for generation_id in some]
    assert len(set(found) & set(generation_ids)) == len(found) == 6
    with own_database.transaction(write=False) as reading:
        running = select(Generation.organization_id, func.count()).where(Generation.id.in_(found))
        counts = reading.execute(running.group_by(Generation.organization_id)).all()
    assert [count for _, count in counts] == [3, 3]
