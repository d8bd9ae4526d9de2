"""Make the variants of published images, outside of transactions. The row is the queue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import joinedload

from db.errors import NotFound
from db.models.generations import Prediction, PredictionPublication, PublicationStatus
from db.session import current_session
from studio.infrastructure.fair_slots import Requester, account_name
from studio.infrastructure.storage import Storage
from studio.media.memory_gate import LOAD_SLOTS, load_slot
from studio.media.variants import OriginalImage, make_variants
from studio.publications.files import list_published_variants, to_original
from studio.queue.row_queue import Lease, RowQueue
from studio.queue.running import Heartbeat, Worker, run_leased, run_pending


@dataclass(frozen=True, kw_only=True)
class PublicationLease(Lease):
    """A leased publication."""

    owner_id: UUID
    original: OriginalImage


def run_pending_publications(worker: Worker) -> int:
    """Make the variants of pending publications, and return how many publications were completed.

    Raises:
        OSError: The storage is unreachable or full. The publications stay pending.
    """

    def run(lease: PublicationLease) -> bool:
        def work(heartbeat: Heartbeat) -> Callable[[], None]:
            _make_variants(worker.storage, lease, heartbeat)
            return partial(_complete, lease)

        return run_leased(worker, PUBLICATIONS, lease, work)

    return run_pending(worker, PUBLICATIONS, run)


def _make_variants(storage: Storage, lease: PublicationLease, heartbeat: Heartbeat) -> None:
    requester, is_complete = Requester.of(account_name(lease.owner_id)), False
    variants = list_published_variants(lease.original)
    while not is_complete:
        heartbeat.check()
        # The slot is returned after each variant while an upload or a request waits for one.
        with load_slot(requester=requester):
            is_complete = make_variants(
                storage, lease.original, variants, lambda: not LOAD_SLOTS.has_waiting()
            )


def _take(publication: PredictionPublication, token: str) -> PublicationLease:
    # unscoped: the prediction of the leased publication
    query = select(Prediction).where(Prediction.id == publication.prediction_id)
    prediction = current_session().scalars(query.options(joinedload(Prediction.media))).one()
    return PublicationLease(
        row_id=publication.id,
        token=token,
        owner_id=publication.owner_id,
        original=to_original(prediction.media),
    )


def _complete(lease: PublicationLease) -> None:
    publication = PUBLICATIONS.lock(lease)
    publication.status = PublicationStatus.COMPLETED
    publication.lease_owner = publication.lease_expires_at = None


def _fail(publication: PredictionPublication, _error: None) -> None:
    # Its stored image remains.
    publication.status = PublicationStatus.FAILED


PUBLICATIONS = RowQueue(
    name="publication",
    model=PredictionPublication,
    take=_take,
    end_failed=_fail,
    order=lambda: (PredictionPublication.requested_at.asc(), PredictionPublication.id.asc()),
    # The image was deleted meanwhile, with the publication, or is lost.
    permanent={NotFound: lambda _error: None},
)
