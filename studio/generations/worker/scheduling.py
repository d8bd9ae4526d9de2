"""The fair scheduler: choose the generation that a worker runs next, with fairness between tenants.

The order is: generations whose worker was lost and remote tasks that are due for a poll; generations that
have waited for longer than `STARVATION_AFTER`; the highest priority. Among equals, the tenant with the fewest
running generations comes first, then the one that has waited longest since a generation of it started, and
then its oldest generation. A tenant with the maximum of running generations waits, whatever its priority.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, case, func, or_, select
from sqlalchemy.orm import Session, defer

from db.base import utc_now
from db.models.generations import Generation, GenerationStatus
from db.queries.link_creators import find_creator
from db.session import current_session
from studio.accounts.permissions import Permission, may_go_on
from studio.billing import billing
from studio.generations.lifecycle import PERMISSION_LOST, PLAN_ENDED, transition
from studio.queue.row_queue import is_expired, lock_next, select_in_turn

STARVATION_AFTER = timedelta(minutes=10)
IDLE_TRANSACTION_TIMEOUT = "30s"
"""PostgreSQL ends a transaction that holds the scheduling lock and sends nothing for longer."""
MAX_CANCELED = 100
"""The most generations that one choice cancels in its transaction."""
_ADVISORY_LOCK_ID = 0x5A7271
"""The key of the PostgreSQL advisory lock that serializes the choices."""

_OLDEST_FIRST = (Generation.created_at.asc(), Generation.id.asc())

Tenant = tuple[UUID | None, UUID | None]
"""The id of an organization, or of the owner of personal rows; the other one is None."""


def before_deadline() -> ColumnElement[bool]:
    """Return the condition that a generation has no deadline, or one in the future."""
    return or_(Generation.deadline_at.is_(None), Generation.deadline_at > utc_now())


def is_waiting() -> ColumnElement[bool]:
    """Return the condition that a generation is pending and may start now."""
    is_free = or_(Generation.lease_expires_at.is_(None), Generation.lease_expires_at <= utc_now())
    return and_(Generation.status == GenerationStatus.PENDING, before_deadline(), is_free)


def is_available() -> ColumnElement[bool]:
    """Return the condition that a generation can be leased, unless its tenant has too many running ones."""
    return or_(is_waiting(), is_reclaimable())


def is_reclaimable() -> ColumnElement[bool]:
    """Return the condition that a started generation needs a worker.

    The lease of its worker has expired, or it is a remote task that is due for a poll. A remote task is due
    even past its deadline or while it is being canceled: its last step cancels it at the provider.
    """
    is_due, is_remote = is_expired(Generation), Generation.remote_task_id.is_not(None)
    running = and_(Generation.status == GenerationStatus.RUNNING, or_(before_deadline(), is_remote))
    awaits_poll = and_(is_remote, Generation.lease_owner.is_(None))
    canceling = and_(Generation.status == GenerationStatus.CANCELING, awaits_poll)
    return and_(is_due, or_(running, canceling))


def is_awaiting_poll(generation: Generation) -> bool:
    """Return whether a generation is a remote task that no worker polls at the moment."""
    has_started = generation.status != GenerationStatus.PENDING
    return has_started and generation.remote_task_id is not None and generation.lease_owner is None


def select_next(max_running: int = 0) -> Generation | None:
    """Return the generation to lease next, locked; None if no generation can be leased.

    Args:
        max_running: How many generations of a tenant may run at the same time, however many workers lease
            concurrently; 0 for no limit.
    """
    writing = current_session()
    _acquire_scheduling_lock(writing)
    # unscoped: workers run the generations of every tenant
    lost_or_due = select(Generation).where(is_reclaimable())
    reclaimable = _lock_first(lost_or_due.order_by(Generation.priority.desc(), *_OLDEST_FIRST))
    if reclaimable is not None:
        # It counts as running already: the limit holds even if the lost worker comes back.
        return reclaimable
    running = _count_running(writing)
    levels = sorted(count for count in {0, *running.values()} if not max_running or count < max_running)
    top_priority_condition = _top_priority(writing, _runs_at_most(levels[-1], running))
    if top_priority_condition is None:
        return None
    candidates = (_lock_in_turn(top_priority_condition & _runs_at_most(level, running)) for level in levels)
    return next((generation for generation in candidates if generation is not None), None)


def choose_permitted(max_running: int = 0) -> Generation | None:
    """Return the generation to lease next, as `select_next`, and cancel those that may not go on.

    Rights are read when they are used: since the request, the account may have been removed, deactivated or
    demoted, the API key may have been deleted, the organization suspended, or the plan that paid may have
    ended. A generation that has begun is finished.
    """
    for _ in range(MAX_CANCELED):
        generation = select_next(max_running)
        if generation is None or generation.status != GenerationStatus.PENDING:
            return generation
        requester_id = generation.requested_by_id or generation.owner_id
        creator = find_creator(generation.organization_id, requester_id, generation.api_key_id)
        is_permitted = may_go_on(creator, Permission.SHOTS_GENERATE, Permission.GENERATIONS_WRITE)
        if is_permitted and billing.can_go_on(generation.subscription_id):
            return generation
        error = PLAN_ENDED if is_permitted else PERMISSION_LOST
        transition(generation, GenerationStatus.CANCELED, error)
        current_session().flush()
    return None


def _acquire_scheduling_lock(writing: Session) -> None:
    """Wait until no other transaction chooses a generation."""
    # A process that hangs in its transaction must not block all others.
    timeout = func.set_config("idle_in_transaction_session_timeout", IDLE_TRANSACTION_TIMEOUT, True)
    writing.execute(select(timeout, func.pg_advisory_xact_lock(_ADVISORY_LOCK_ID)))


def _count_running(writing: Session) -> dict[Tenant, int]:
    personal = case((Generation.organization_id.is_(None), Generation.owner_id))
    is_running = Generation.status.in_((GenerationStatus.RUNNING, GenerationStatus.CANCELING))
    # unscoped: counts the rows of every tenant
    counted = select(Generation.organization_id, personal, func.count()).where(is_running)
    counted = counted.group_by(Generation.organization_id, personal)
    return {(organization, owner): count for organization, owner, count in writing.execute(counted)}


def _top_priority(writing: Session, allowed: ColumnElement[bool]) -> ColumnElement[bool] | None:
    """Return the condition of the generations that come first; None if no allowed one waits."""
    waiting = is_waiting()
    overdue = and_(waiting, Generation.created_at <= utc_now() - STARVATION_AFTER)
    # unscoped: workers run the generations of every tenant
    if writing.scalar(select(Generation.id).where(overdue, allowed).limit(1)) is not None:
        return overdue
    # unscoped: workers run the generations of every tenant
    highest = select(Generation.priority).where(waiting, allowed)
    priority = writing.scalar(highest.order_by(Generation.priority.desc()).limit(1))
    return None if priority is None else and_(waiting, Generation.priority == priority)


def _runs_at_most(level: int, running: Mapping[Tenant, int]) -> ColumnElement[bool]:
    """Return the condition that the tenant has at most `level` running generations."""
    busier = [tenant for tenant, count in running.items() if count > level]
    organizations = [organization for organization, _ in busier if organization is not None]
    owners = [owner for _, owner in busier if owner is not None]
    personal = Generation.organization_id.is_(None)
    return and_(
        or_(personal, Generation.organization_id.not_in(organizations)),
        or_(~personal, Generation.owner_id.not_in(owners)),
    )


def _lock_in_turn(condition: ColumnElement[bool]) -> Generation | None:
    return _lock_first(select_in_turn(Generation, condition, *_OLDEST_FIRST, leased_at="started_at"))


def _lock_first(query: Select[Generation]) -> Generation | None:
    estimates = (defer(Generation.queue_position), defer(Generation.start_interval))
    return lock_next(query.options(*estimates), Generation)
