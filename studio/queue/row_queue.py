"""RowQueue: lease the rows of a table one by one, and record how each attempt ended.

The row is the queue. A worker leases a row by writing a random token and an end time into it, and every later
write requires the token: a worker whose lease has expired can no longer change the row that another one has
taken over. No transaction is open between these writes. `FOR UPDATE SKIP LOCKED` gives concurrent workers
different rows.

`lease_expires_at` is the time until which no other worker may take the row: the end of a lease or, without a
`lease_owner`, of the delay after a failed attempt.

An attempt counts when it begins, so that a row that kills its workers is not tried for ever. An attempt that
ended for a reason outside of the row, such as an outage of the database, does not count.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Select, and_, case, func, literal, or_, select, true, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import aliased

from db.base import Base, Identified, utc_now
from db.engine import is_database_unavailable
from db.session import Database, after_commit, current_session, savepoint
from studio.infrastructure.telemetry.metrics import count_lease_recovery
from studio.queue.retries import WORK, RetryPolicy

logger = logging.getLogger(__name__)

Row = TypeVar("Row", bound=Identified)
AnyRow = TypeVar("AnyRow", bound=Base)
Error = Any
"""What a queue stores as the reason of a failure; None if the attempts of a row are used up."""

PENDING, RUNNING = "pending", "running"
TURN_MEMORY = timedelta(hours=1)
"""How long a tenant that was served comes after tenants that were not."""
MAX_ENDED = 100
"""The most rows without attempts left that one call ends in its transaction."""
TIME_LIMIT = timedelta(hours=1)


class Interrupted(Exception):
    """The work must stop, and its attempt does not count: the process ends, or others have their turn."""


class LeaseLost(Interrupted):
    """The row was deleted, has ended, or belongs to another worker."""


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A row that one worker has leased. Each queue adds, as plain values, what its work needs."""

    row_id: Any
    token: str
    counts: bool = True
    """Whether this lease is an attempt."""


Leased = TypeVar("Leased", bound=Lease)


@dataclass(eq=False)
class RowQueue(Generic[Row, Leased]):
    """A table whose rows are jobs, and what is special about it.

    All callables run in a write transaction, with the row locked.
    """

    name: str
    """What a row is, for logs: "export"."""
    model: type[Row]
    take: Callable[[Row, str], Leased | None]
    """Returns the lease of a row that an attempt was started of, with this token; None to leave the row."""
    end_failed: Callable[[Row, Error], object]
    """Ends a row as failed."""
    order: Callable[[], tuple[ColumnElement[Any], ...]] = tuple
    """The order among rows of tenants that were served equally long ago."""
    condition: Callable[[], ColumnElement[bool]] = true
    """What else must hold for a row that can be leased."""
    choose: Callable[[], Row | None] | None = None
    """Returns the next row, locked; by default, tenants take turns."""
    start: Callable[[Row], object] | None = None
    """Marks a row as running; by default sets its status."""
    requeue: Callable[[Row, datetime | None, Error], object] | None = None
    """Makes a row available again, at a time or at once, and records why the attempt failed."""
    progress_values: Callable[[int], Mapping[str, Any]] | None = None
    """The columns to set for a progress of 0 to 99."""
    retries: RetryPolicy = WORK
    permanent: Mapping[type[Exception], Callable[[Any], Error]] = field(default_factory=dict)
    """Exceptions of the work that no retry can mend, with the error to store. Every other one is retried."""
    time_limit: timedelta = TIME_LIMIT
    """How long one attempt may take."""
    status: str | None = "status"
    """The column of the status; None if rows have no status of their own."""
    attempts: str | None = "attempts"
    """The column with the number of attempts; None if `take` counts them in another table."""
    counts_failures_only: bool = False
    """Whether an attempt counts when it has failed, or its worker was lost, instead of when it begins."""
    open_statuses: tuple[str, ...] = (PENDING, RUNNING)
    """The statuses of rows that can be leased."""
    leased_statuses: tuple[str, ...] = (RUNNING,)
    counts: Callable[[Row], bool] = lambda _row: True
    """Whether leasing this row is an attempt."""
    key_share: bool = False
    """Whether rows are locked with the lock that foreign keys to them do not wait for."""
    writes_files: bool = True
    """Whether no row is leased while the storage cannot be written."""

    def available(self) -> ColumnElement[bool]:
        """Return the condition of rows that can be leased now."""
        model: Any = self.model
        is_free = or_(model.lease_expires_at.is_(None), model.lease_expires_at <= utc_now())
        is_open = self._status().in_(self.open_statuses) if self.status else true()
        return and_(is_open, is_free, self.condition())

    def count_available(
        self, database: Database, limit: int, available: ColumnElement[bool] | None = None
    ) -> int:
        """Return how many rows can be leased now, counted up to `limit`.

        It only reads: idle workers poll, and take no row locks.
        """
        with database.transaction(write=False) as reading:
            condition = self.available() if available is None else available
            # unscoped: workers serve every tenant
            rows = select(self.model.id).where(condition).limit(limit)
            return reading.scalar(select(func.count()).select_from(rows.subquery())) or 0

    def lease_next(
        self, database: Database, lease_duration: timedelta, choose: Callable[[], Row | None] | None = None
    ) -> Leased | None:
        """Lease the next row, or return None if there is none.

        A row whose attempts are used up fails instead. That is a row whose last worker was lost: otherwise it
        fails at the end of its last attempt.

        Args:
            database: The database of the queue.
            lease_duration: How long the lease lasts.
            choose: Replaces `choose` of the queue.
        """
        choose = choose or self.choose or self._choose_in_turn
        try:
            with database.transaction(write=True) as session:
                for _ in range(MAX_ENDED):
                    row = choose()
                    if row is None:
                        return None
                    lease = self._start_attempt(row, lease_duration)
                    if lease is not None:
                        return lease
                    session.flush()
        except (IntegrityError, LeaseLost):
            # A unique index allows one running row of its kind, and another worker was faster; or what the
            # row belongs to has ended.
            logger.debug("%s was not leased", self.name, exc_info=True)
        return None

    def renew(
        self, database: Database, lease: Lease, lease_duration: timedelta, progress: int | None = None
    ) -> bool:
        """Extend the lease, and record the progress; return whether the work may go on.

        `updated_at` moves only if a column changes that is not in `internal_columns` of the model.
        """
        model: Any = self.model
        columns = self.model.__table__.columns
        with database.transaction(write=True) as writing:
            values: Mapping[str, Any] = {}
            if progress is not None and self.progress_values is not None:
                values = self.progress_values(progress)
            visible = values.keys() - model.internal_columns
            seen = [columns[name] != values[name] for name in sorted(visible)]
            updated_at = case((or_(*seen), utc_now()), else_=model.updated_at) if seen else model.updated_at
            status = self._status() if self.status else literal(RUNNING)
            renewed = writing.execute(
                update(model)  # unscoped: the leased row
                .where(*self.owned_by(lease))
                .values(**values, updated_at=updated_at, lease_expires_at=utc_now() + lease_duration)
                .returning(status)
                .execution_options(synchronize_session=False)
            )
            return renewed.scalar_one_or_none() == RUNNING

    def lock(self, lease: Lease) -> Row:
        """Return the leased row, locked.

        Raises:
            LeaseLost: The row no longer belongs to the lease.
        """
        query = select(self.model).where(*self.owned_by(lease))  # unscoped: the leased row
        query = query.with_for_update(of=self.model, key_share=self.key_share)
        row = current_session().scalar(query.execution_options(populate_existing=True))
        if row is None:
            raise LeaseLost(f"{self.name} {lease.row_id}")
        return row

    def release(
        self,
        database: Database,
        lease: Lease,
        *,
        counts_attempt: bool,
        error: Error = None,
        retry_after: timedelta | None = None,
    ) -> bool:
        """Return the row to its queue; return False if it is no longer leased.

        Args:
            database: The database of the queue.
            lease: The lease.
            counts_attempt: Whether the attempt counts. Then the next one is delayed, and the row fails if it
                was the last one.
            error: Why the attempt failed.
            retry_after: The shortest delay.
        """
        try:
            with database.transaction(write=True):
                self._set_back(self.lock(lease), lease.counts, counts_attempt, error, retry_after)
        except LeaseLost:
            return False
        return True

    def fail(self, database: Database, lease: Lease, error: Error) -> bool:
        """End the row as failed; return False if it is no longer leased."""
        try:
            with database.transaction(write=True):
                self._end_failed(self.lock(lease), error)
        except LeaseLost:
            return False
        return True

    def owned_by(self, lease: Lease) -> tuple[ColumnElement[bool], ...]:
        """Return the conditions that a row still belongs to the lease."""
        model: Any = self.model
        # compared: by the database, and no client sends a token
        owned = (model.id == lease.row_id, model.lease_owner == lease.token)
        return (*owned, self._status().in_(self.leased_statuses)) if self.status else owned

    def _status(self) -> Any:
        return getattr(self.model, self.status or "")

    def _choose_in_turn(self) -> Row | None:
        query = select_in_turn(self.model, self.available(), *self.order())
        return lock_next(query, self.model, self.key_share)

    def _start_attempt(self, row: Any, lease_duration: timedelta) -> Leased | None:
        counts, token = self.counts(row), new_token()
        is_lost = counts and row.lease_owner is not None
        if is_lost:
            after_commit(count_lease_recovery)
        if is_lost and self.counts_failures_only:
            self._add_attempts(row, 1)
        if counts and self._get_attempts(row) >= self.retries.max_attempts:
            self._end_failed(row, None)
            return None
        if counts and not self.counts_failures_only:
            self._add_attempts(row, 1)
        if self.start is not None:
            self.start(row)
        elif self.status:
            setattr(row, self.status, RUNNING)
        row.lease_owner, row.lease_expires_at = token, utc_now() + lease_duration
        if hasattr(row, "leased_at"):
            row.leased_at = utc_now()
        try:
            with savepoint():
                lease = self.take(row, token)
            if lease is None:
                row.lease_owner = row.lease_expires_at = None
                return None
            return replace(lease, counts=counts)
        except Exception as error:
            if is_database_unavailable(error):
                raise
            # The row itself is broken. It must not keep the others from being leased.
            logger.exception("%s %s cannot be read", self.name, row.id)
            self._set_back(row, counts, counts_attempt=True)
            return None

    def _get_attempts(self, row: Any) -> int:
        return getattr(row, self.attempts) if self.attempts else 0

    def _add_attempts(self, row: Any, number: int) -> None:
        if self.attempts:
            setattr(row, self.attempts, max(0, getattr(row, self.attempts) + number))

    def _set_back(
        self,
        row: Any,
        lease_counts: bool,
        counts_attempt: bool,
        error: Error = None,
        retry_after: timedelta | None = None,
    ) -> None:
        available_at = None
        if counts_attempt:
            self._add_attempts(row, int(self.counts_failures_only or not lease_counts))
            attempts = self._get_attempts(row)
            if attempts >= self.retries.max_attempts:
                self._end_failed(row, error)
                return
            available_at = utc_now() + self.retries.delay_after(attempts, retry_after)
        elif lease_counts and not self.counts_failures_only:
            self._add_attempts(row, -1)
        row.lease_owner, row.lease_expires_at = None, available_at
        if self.requeue is not None:
            self.requeue(row, available_at, error)
        elif self.status:
            setattr(row, self.status, PENDING)

    def _end_failed(self, row: Any, error: Error) -> None:
        row.lease_owner = row.lease_expires_at = None
        self.end_failed(row, error)


def new_token() -> str:
    """Return a token for one lease: it names the host and the process, and ends in 64 random bits."""
    return f"{socket.gethostname()[:40]}:{os.getpid()}:{secrets.token_hex(8)}"


def is_expired(model: Any) -> ColumnElement[bool]:
    """Return the condition that the lease of a row has expired, so that another worker may take it over."""
    return model.lease_expires_at < utc_now()


def select_in_turn(
    model: Any,
    available: ColumnElement[bool],
    *order: ColumnElement[Any],
    leased_at: str = "leased_at",
    before_turn: tuple[ColumnElement[Any], ...] = (),
) -> Select[Any]:
    """Return the query for the next row of a queue that serves its tenants in turn.

    Args:
        model: The table, with `organization_id` and `owner_id`.
        available: The condition of rows that can be leased.
        order: The order among the rows of tenants that were served equally long ago.
        leased_at: The column with the time of the last lease.
        before_turn: What comes before the turn of a tenant.
    """
    leased = aliased(model)
    tenant, time = func.coalesce(leased.organization_id, leased.owner_id), getattr(leased, leased_at)
    turns = (
        select(tenant.label("tenant"), func.max(time).label("turn"))
        .where(time > utc_now() - TURN_MEMORY)
        .group_by(tenant)
        .subquery()
    )
    own_tenant = func.coalesce(model.organization_id, model.owner_id)
    # unscoped: workers serve every tenant
    rows = select(model).outerjoin(turns, turns.c.tenant == own_tenant).where(available)
    return rows.order_by(*before_turn, turns.c.turn.asc().nulls_first(), *order)


def lock_next(query: Select[AnyRow], model: type[AnyRow], key_share: bool = False) -> AnyRow | None:
    """Return the first row of a query that no other transaction has locked, and lock it.

    Args:
        query: The available rows, in the order in which they are leased.
        model: The table to lock, if the query joins others.
        key_share: Use the lock that foreign keys to the row do not wait for.
    """
    locking = query.limit(1).with_for_update(of=model, skip_locked=True, key_share=key_share)
    return current_session().scalar(locking)
