"""Whose turn it is: picks the generation that a worker gets next, so that nobody starves.

First comes what a lost worker left and what is made elsewhere and due, then what has waited for longer than
`PATIENCE`, then what has the highest priority. Among equals it is a tenant with the least work in hand, and
of that the oldest. A tenant that has as much in hand as one may have has to wait, whatever its priority.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, case, func, or_, select
from sqlalchemy.orm import Session, defer

from db.base import utc_now
from db.models.generations import Generation, GenerationStatus
from studio import leases

STARVATION_AFTER = timedelta(minutes=10)
SCHEDULING_TIMEOUT = "30s"
_ADVISORY_LOCK_ID = 0x5A7271
"""Number of the lock under which PostgreSQL lets one claim after the other choose."""

Tenant = tuple[UUID | None, UUID | None]
"""An organization, or the owner of personal rows; the other one is None."""


def before_deadline() -> ColumnElement[bool]:
    """The condition that the deadline, if there is one, is not over."""
    return or_(Generation.deadline_at.is_(None), Generation.deadline_at > utc_now())


def is_reclaimable() -> ColumnElement[bool]:
    """The condition that nobody works on a generation that has begun, and it is time that somebody does.

    A worker had it and let its lease run out, or it is made elsewhere and the next look is due: also past its
    deadline or to be canceled, for then it has one step left, which ends it there.
    """
    is_due, is_remote = leases.is_expired(Generation.lease_expires_at), Generation.remote_task_id.is_not(None)
    running = and_(Generation.status == GenerationStatus.RUNNING, or_(before_deadline(), is_remote))
    parked = and_(is_remote, Generation.lease_owner.is_(None))
    return and_(is_due, or_(running, and_(Generation.status == GenerationStatus.CANCELING, parked)))


def is_awaiting_poll(generation: Generation) -> bool:
    """Whether a generation is made elsewhere and nobody looks at it at the moment."""
    begun = generation.status != GenerationStatus.PENDING
    return begun and generation.remote_task_id is not None and generation.lease_owner is None


def select_next(writing: Session, max_running: int) -> Generation | None:
    """The generation to claim now, its row locked; None when there is none or each tenant has enough in hand.

    No tenant gets a generation beyond `max_running` at a time, however many claim at once; 0 sets no limit.
    """
    _acquire_scheduling_lock(writing)
    left = _select_first(is_reclaimable(), Generation.priority.desc())
    if left is not None:
        # Counted as in hand all along, so that the limit holds even when its worker wakes up again.
        return left
    in_hand = _count_running(writing)
    levels = sorted(count for count in {0, *in_hand.values()} if not max_running or count < max_running)
    peers = _top_priority(writing, _runs_at_most(levels[-1], in_hand))
    if peers is None:
        return None
    found = (_select_first(peers & _runs_at_most(level, in_hand)) for level in levels)
    return next((generation for generation in found if generation is not None), None)


def _acquire_scheduling_lock(writing: Session) -> None:
    """Wait until no other claim is choosing; SQLite has one writer anyway."""
    if writing.get_bind().dialect.name == "postgresql":
        # A process that hangs in the middle of its claim must not hold up all others.
        patience = func.set_config("idle_in_transaction_session_timeout", SCHEDULING_TIMEOUT, True)
        writing.execute(select(patience, func.pg_advisory_xact_lock(_ADVISORY_LOCK_ID)))


def _count_running(writing: Session) -> dict[Tenant, int]:
    personal = case((Generation.organization_id.is_(None), Generation.owner_id))
    in_hand = Generation.status.in_((GenerationStatus.RUNNING, GenerationStatus.CANCELING))
    # unscoped: a number for each tenant
    counted = select(Generation.organization_id, personal, func.count()).where(in_hand)
    counted = counted.group_by(Generation.organization_id, personal)
    return {(organization, owner): count for organization, owner, count in writing.execute(counted)}


def _top_priority(writing: Session, allowed: ColumnElement[bool]) -> ColumnElement[bool] | None:
    """The condition that those meet who come before all others; None when nobody waits."""
    waiting = and_(Generation.status == GenerationStatus.PENDING, before_deadline())
    overdue = and_(waiting, Generation.created_at <= utc_now() - STARVATION_AFTER)
    # unscoped: workers work for everybody
    if writing.scalar(select(Generation.id).where(overdue, allowed).limit(1)) is not None:
        return overdue
    # unscoped: workers work for everybody
    highest = select(Generation.priority).where(waiting, allowed)
    priority = writing.scalar(highest.order_by(Generation.priority.desc()).limit(1))
    return None if priority is None else and_(waiting, Generation.priority == priority)


def _runs_at_most(level: int, running: Mapping[Tenant, int]) -> ColumnElement[bool]:
    """The condition that a tenant has at most so much in hand."""
    busier = [scope for scope, count in running.items() if count > level]
    organizations = [organization for organization, _ in busier if organization is not None]
    owners = [owner for _, owner in busier if owner is not None]
    personal = Generation.organization_id.is_(None)
    return and_(
        or_(personal, Generation.organization_id.not_in(organizations)),
        or_(~personal, Generation.owner_id.not_in(owners)),
    )


def _select_first(condition: ColumnElement[bool], *order_by: ColumnElement[Any]) -> Generation | None:
    # unscoped: workers work for everybody
    first = select(Generation).where(condition).options(defer(Generation.queue_position))
    first = first.order_by(*order_by, Generation.created_at, Generation.id)
    return leases.lock_next(first, Generation)
