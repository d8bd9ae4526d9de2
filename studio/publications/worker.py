"""Make the variants of published images, outside of transactions. The row is the queue (see `studio.leases`).

Tenants take turns, as with cut-outs: a tenant that publishes thousands of images delays another one by one
image. Any number of processes may run this on one database.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import joinedload

from db.base import utc_now
from db.engine import is_database_unavailable
from db.errors import NotFound
from db.models.generations import Prediction, PredictionPublication, PublicationStatus
from db.session import Database
from studio import leases
from studio.fair_slots import Requester, account_name
from studio.media.memory_gate import LOAD_SLOTS, load_slot
from studio.media.storage import Storage, is_storage_unavailable, is_storage_working
from studio.media.variants import OriginalImage, make_variants
from studio.publications.files import list_published_variants, to_original

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
MAX_RUN_SECONDS = 30.0
"""After this time a run leases no further publication, so that other periodic tasks get its thread."""


@dataclass(frozen=True)
class Lease:
    """A publication that one worker has leased, as plain values: no transaction stays open for it."""

    publication_id: UUID
    token: str
    owner_id: UUID
    original: OriginalImage


def run_pending_publications(database: Database, storage: Storage, lease_duration: timedelta) -> int:
    """Make the variants of pending publications, and return how many publications were completed.

    Raises:
        OSError: The storage is unreachable or full. The publications stay pending.
    """
    completed, ends_at = 0, time.monotonic() + MAX_RUN_SECONDS
    while time.monotonic() < ends_at and count_available(database, 1):
        storage.check()
        lease = lease_next(database, leases.new_token(), lease_duration)
        if lease is not None:
            completed += _run(database, storage, lease, lease_duration)
    return completed


def count_available(database: Database, limit: int) -> int:
    """Return how many publications can be leased now, counted up to `limit`."""
    # unscoped: workers make the variants of every tenant
    return leases.count_available(database, select(PredictionPublication.id).where(_available()), limit)


def lease_next(database: Database, token: str, lease_duration: timedelta) -> Lease | None:
    """Lease the next publication to `token`, or return None if there is none.

    A publication that was leased `MAX_ATTEMPTS` times without an end fails instead: its stored image remains.
    """
    with database.transaction(write=True) as session:
        publication = leases.lock_next(_select_next(), PredictionPublication)
        if publication is None:
            return None
        publication.leased_at = utc_now()
        if publication.attempts >= MAX_ATTEMPTS:
            _end(publication, PublicationStatus.FAILED)
            return None
        publication.status = PublicationStatus.RUNNING
        publication.attempts += 1
        leases.acquire(publication, token, lease_duration)
        # unscoped: the prediction of the leased publication
        query = select(Prediction).where(Prediction.id == publication.prediction_id)
        prediction = session.scalars(query.options(joinedload(Prediction.media))).one()
        return Lease(publication.id, token, publication.owner_id, to_original(prediction.media))


def _run(database: Database, storage: Storage, lease: Lease, lease_duration: timedelta) -> bool:
    """Make the variants of a leased publication; return whether this call completed it."""
    renew = partial(leases.renew, database, PredictionPublication, _owned_by(lease), lease_duration)
    name, record = f"publication {lease.publication_id}", partial(_record, database, lease)
    release = partial(record, PublicationStatus.PENDING)
    try:
        with leases.keep(renew, lease_duration, name):
            _make_variants(storage, lease)
        return record(PublicationStatus.COMPLETED)
    except NotFound:
        # Deleted meanwhile, with the publication; or lost.
        record(PublicationStatus.FAILED)
    except Exception as error:
        if is_database_unavailable(error):
            leases.release_after_outage(release, lease_duration, name)
            raise
        if is_storage_unavailable(error):
            # If the storage works, the cause can be this image. Else it keeps the attempt.
            release(counts_attempt=is_storage_working(storage))
            raise
        logger.exception("variants of %s were not made", name)
        release(counts_attempt=True)
    return False


def _make_variants(storage: Storage, lease: Lease) -> None:
    requester, is_complete = Requester.of(account_name(lease.owner_id)), False
    variants = list_published_variants(lease.original)
    while not is_complete:
        # The slot is returned after each variant while an upload or a request waits for one.
        with load_slot(requester=requester):
            is_complete = make_variants(
                storage, lease.original, variants, lambda: not LOAD_SLOTS.has_waiting()
            )


def _record(database: Database, lease: Lease, status: PublicationStatus, counts_attempt: bool = True) -> bool:
    """Record how an attempt ended; return whether the publication was still leased."""
    with database.transaction(write=True):
        publication = leases.lock_leased(PredictionPublication, _owned_by(lease))
        if publication is None:
            return False
        publication.attempts -= not counts_attempt
        _end(publication, status)
        return True


def _end(publication: PredictionPublication, status: PublicationStatus) -> None:
    publication.status = status
    publication.lease_owner = publication.lease_expires_at = None


def _available() -> ColumnElement[bool]:
    is_lost = leases.is_expired(PredictionPublication.lease_expires_at)
    lost = and_(PredictionPublication.status == PublicationStatus.RUNNING, is_lost)
    return or_(PredictionPublication.status == PublicationStatus.PENDING, lost)


def _select_next() -> Any:
    """Return the query for the next publication: tenants in turn, and the oldest request of a tenant."""
    queue = PredictionPublication
    return leases.select_in_turn(queue, _available(), queue.requested_at.asc(), queue.id.asc())


def _owned_by(lease: Lease) -> tuple[ColumnElement[bool], ...]:
    return (
        PredictionPublication.id == lease.publication_id,
        PredictionPublication.lease_owner == lease.token,
        PredictionPublication.status == PublicationStatus.RUNNING,
    )
