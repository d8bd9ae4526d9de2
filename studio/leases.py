"""Leases: the time-limited ownership of a queued row by one worker. Four queues share these functions.

The row is the queue: generations, exports, cut-outs and webhook endpoints have columns for their lease. A
worker leases a row by writing a random token and an end time into it, and every later write requires the
token. A worker whose lease has expired can therefore no longer change the row that another worker has taken
over. No transaction is open between these writes.

`FOR UPDATE SKIP LOCKED` gives concurrent workers different rows.

Knows no table: a queue passes its model and its conditions.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import chain, repeat
from typing import Any, Protocol, TypeVar

from sqlalchemy import ColumnElement, Select, case, func, or_, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapped, aliased

from db.base import Base, Identified, affected_one, utc_now
from db.engine import is_database_unavailable
from db.session import Database, current_session

logger = logging.getLogger(__name__)

Row = TypeVar("Row", bound=Base)
Result = TypeVar("Result")

TURN_MEMORY = timedelta(hours=1)
"""How long a tenant that was served comes after tenants that were not."""
OUTAGE_RETRY_SECONDS = 0.5
"""The time between two attempts to record something during an outage of the database."""


class Leasable(Protocol):
    """A row with the usual lease columns."""

    lease_owner: str | None
    lease_expires_at: datetime | None


class Release(Protocol):
    """Returns a row to its queue, if it is still leased."""

    def __call__(self, *, counts_attempt: bool) -> object:
        """Release the row; the attempt that ends is used up if `counts_attempt`."""


def new_token() -> str:
    """Return a token for one lease: it names the host and the process, and ends in 64 random bits."""
    return f"{socket.gethostname()[:40]}:{os.getpid()}:{secrets.token_hex(8)}"


def is_expired(expires_at: Mapped[datetime | None]) -> ColumnElement[bool]:
    """Return the condition that a lease has expired, so that another worker may take the row over."""
    return expires_at < utc_now()


def count_available(database: Database, available: Select[Any], limit: int) -> int:
    """Return how many rows can be leased now, counted up to `limit`.

    It only reads: idle workers poll, and take no row locks.

    Args:
        database: The database of the queue.
        available: A query for the ids of the available rows.
        limit: Where to stop counting.
    """
    with database.transaction(write=False) as reading:
        return reading.scalar(select(func.count()).select_from(available.limit(limit).subquery())) or 0


def select_in_turn(model: Any, available: ColumnElement[bool], *order: ColumnElement[Any]) -> Select[Any]:
    """Return the query for the next row of a queue that serves its tenants in turn.

    Args:
        model: The queue, with `organization_id`, `owner_id` and the time of the last lease, `leased_at`.
        available: The condition of rows that can be leased.
        order: The order among the rows of tenants that were served equally long ago.
    """
    leased = aliased(model)
    tenant = func.coalesce(leased.organization_id, leased.owner_id)
    turns = (
        select(tenant.label("tenant"), func.max(leased.leased_at).label("turn"))
        .where(leased.leased_at > utc_now() - TURN_MEMORY)
        .group_by(tenant)
        .subquery()
    )
    own_tenant = func.coalesce(model.organization_id, model.owner_id)
    # unscoped: workers serve every tenant
    rows = select(model).outerjoin(turns, turns.c.tenant == own_tenant).where(available)
    return rows.order_by(turns.c.turn.asc().nulls_first(), *order)


def lock_next(query: Select[Row], model: type[Row], key_share: bool = False) -> Row | None:
    """Return the first row of a query that no other transaction has locked, and lock it.

    Args:
        query: The available rows, in the order in which they are leased.
        model: The table to lock, if the query joins others.
        key_share: Use the lock that foreign keys to the row do not wait for.
    """
    locking = query.limit(1).with_for_update(of=model, skip_locked=True, key_share=key_share)
    return current_session().scalar(locking)


def acquire(row: Leasable, token: str, lease_duration: timedelta) -> None:
    """Lease a locked row to `token`."""
    row.lease_owner, row.lease_expires_at = token, utc_now() + lease_duration


def renew(
    database: Database,
    model: type[Identified],
    owned_by: Iterable[ColumnElement[bool]],
    lease_duration: timedelta,
    values: dict[str, Any] | None = None,
) -> bool:
    """Extend a lease from now on, and set `values` with it.

    `updated_at` moves only if one of `values` changes that is not in `internal_columns` of the model.

    Args:
        database: The database of the queue.
        model: The table of the row.
        owned_by: The condition that the row still belongs to the lease.
        lease_duration: How long the lease lasts from now on.
        values: Other columns to set.

    Returns:
        Whether the row still belonged to the lease.
    """
    values = values or {}
    columns = model.__table__.columns
    seen = [columns[name] != value for name, value in values.items() if name not in model.internal_columns]
    updated_at = case((or_(*seen), utc_now()), else_=model.updated_at) if seen else model.updated_at
    with database.transaction(write=True) as writing:
        changed = writing.execute(
            update(model)
            .where(*owned_by)
            .values(**values, updated_at=updated_at, lease_expires_at=utc_now() + lease_duration)
            .execution_options(synchronize_session=False)
        )
        return affected_one(changed)


def renew_despite_outage(renew_lease: Callable[[], bool], description: str) -> bool:
    """Call `renew_lease`, and return True if the database cannot be reached.

    An outage of the database does not undo the work. The token decides when the result is recorded.

    Args:
        renew_lease: Extends the lease and returns whether the row still belongs to it.
        description: What is leased, for the log.
    """
    try:
        return renew_lease()
    except SQLAlchemyError:
        logger.warning("the lease of %s was not renewed", description, exc_info=True)
        return True


def retry_in_outage(
    write: Callable[[], Result],
    lease_duration: timedelta,
    description: str,
    aborting: threading.Event | None = None,
) -> Result:
    """Call `write`, and call it again during an outage of the database, for as long as a lease lasts.

    Repeated writes are harmless: they require the token of the lease.

    Args:
        write: Records something about a leased row.
        lease_duration: How long a lease lasts.
        description: What is recorded, for the log.
        aborting: Ends the retries when it is set.
    """
    aborting, ends_at = aborting or threading.Event(), time.monotonic() + lease_duration.total_seconds()
    while True:
        try:
            return write()
        except Exception as error:
            if not is_database_unavailable(error) or time.monotonic() > ends_at or aborting.is_set():
                raise
            logger.warning("%s was not recorded, retrying", description, exc_info=True)
            aborting.wait(OUTAGE_RETRY_SECONDS)


def release_after_outage(release: Release, lease_duration: timedelta, description: str) -> None:
    """Return a row to its queue whose work ended because the database failed. It is no error of the row.

    The attempt counts if the database works at once, because then the cause can be this row. An outage uses
    up none, unless it lasts longer than a lease: then a worker takes the row over.

    Args:
        release: Returns the row to its queue.
        lease_duration: How long a lease lasts.
        description: What is leased, for the log.
    """
    counts_attempt = chain([True], repeat(False))
    try:
        retry_in_outage(
            lambda: release(counts_attempt=next(counts_attempt)),
            lease_duration,
            f"the release of {description}",
        )
    except Exception as error:
        if not is_database_unavailable(error):
            raise
        logger.warning("%s is released when its lease has expired", description, exc_info=True)


@contextmanager
def keep(renew_lease: Callable[[], bool], lease_duration: timedelta, description: str) -> Iterator[None]:
    """Renew a lease from a thread within the block, however long the block takes.

    Args:
        renew_lease: Extends the lease and returns whether the row still belongs to it.
        lease_duration: How long each renewal lasts.
        description: What is leased, for the log.
    """
    is_over = threading.Event()

    def renew_until_over() -> None:
        while not is_over.wait(lease_duration.total_seconds() / 3):
            renew_despite_outage(renew_lease, description)

    thread = threading.Thread(target=renew_until_over, name="lease-renewal", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def lock_leased(
    model: type[Row], owned_by: Iterable[ColumnElement[bool]], key_share: bool = False
) -> Row | None:
    """Return the leased row and lock it, or None if it no longer belongs to the lease.

    Args:
        model: The table of the row.
        owned_by: The condition that the row still belongs to the lease.
        key_share: Use the lock that foreign keys to the row do not wait for.
    """
    query = select(model).where(*owned_by).with_for_update(of=model, key_share=key_share)
    return current_session().scalar(query.execution_options(populate_existing=True))
