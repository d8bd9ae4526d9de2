"""What is done again and again beside the requests, in one table: `UPKEEP`.

To add something, write a function of one `Workplace` that does what is due and returns, and put it into the
table with a pause. In a server that works for itself a thread calls it after every pause; where Celery is the
engine, beat does, on whichever worker is free. So it may run twice at the same moment and be killed at any
point: each step must be whole, and what must happen once is decided by a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from db.base import utc_now
from db.row_counts.queries import compact_counts, delete_zero_counts
from db.session import Database
from studio.exports.worker import run_pending_exports
from studio.generations.worker.callbacks import delete_old_callbacks
from studio.generations.worker.queue import expire_overdue
from studio.http_client import SafeHttpClient
from studio.idempotency import delete_expired_keys
from studio.media.garbage_collection import delete_unreferenced
from studio.media.storage import Storage
from studio.pubsub import EXPORTS, Topic
from studio.rate_limits.attempts import delete_expired_attempts
from studio.settings import Settings
from studio.webhooks.queue import delete_old_deliveries


@dataclass(frozen=True)
class Services:
    """What background work of one process has at hand."""

    settings: Settings
    database: Database
    storage: Storage
    http_client: SafeHttpClient


@dataclass(frozen=True)
class MaintenanceTask:
    """Something to do after every pause; the name is unique and goes into logs.

    News of `woken_by` in the same process end the pause.
    """

    name: str
    run: Callable[[Services], object]
    interval_seconds: float
    trigger: Topic | None = None


EXPORT_SECONDS = 2
COUNTS_SECONDS = 2
"""A list reads the changes of so many seconds besides the total."""


def _run_exports(services: Services) -> None:
    run_pending_exports(
        services.database, services.storage, timedelta(seconds=services.settings.lease_seconds)
    )


def _compact_counts(services: Services) -> None:
    # SQLite adds up at once (`db/row_counts/triggers.py`), and to open this would take the turn of who
    # does write.
    more = services.database.engine.dialect.name != "sqlite"
    while more:
        with services.database.transaction(write=True) as session:
            more = compact_counts(session.connection())


def _delete_empty_counts(services: Services) -> None:
    with services.database.transaction(write=True):
        delete_zero_counts()


MAINTENANCE_TASKS = (
    MaintenanceTask("settling", lambda at: expire_overdue(at.database), 1),
    MaintenanceTask("adding up counts", _compact_counts, COUNTS_SECONDS),
    MaintenanceTask("forgetting counts", _delete_empty_counts, 3_600),
    MaintenanceTask("forgetting", lambda at: delete_expired_keys(at.database), 600),
    MaintenanceTask("forgetting tries", lambda at: delete_expired_attempts(at.database, utc_now()), 600),
    MaintenanceTask("exporting", _run_exports, EXPORT_SECONDS, trigger=EXPORTS),
    MaintenanceTask("sweeping", lambda at: delete_unreferenced(at.database, at.storage, utc_now()), 3_600),
    MaintenanceTask("forgetting call-backs", lambda at: delete_old_callbacks(at.database), 3_600),
    MaintenanceTask("forgetting webhooks", lambda at: delete_old_deliveries(at.database), 3_600),
)
