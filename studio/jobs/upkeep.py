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
from db.queries.counts import add_up, forget_zeros
from db.session import Database
from studio.exports.work import work_off_exports
from studio.idempotency import forget_expired
from studio.jobs.callbacks import forget_callbacks
from studio.jobs.queue import settle_overdue
from studio.jobs.signal import EXPORTS, Signal
from studio.limits.tries import forget_tries
from studio.media.storage import Storage
from studio.media.sweep import sweep
from studio.outbound import Outbound
from studio.settings import Settings
from studio.webhooks.queue import forget_old


@dataclass(frozen=True)
class Workplace:
    """What background work of one process has at hand."""

    settings: Settings
    database: Database
    storage: Storage
    outbound: Outbound


@dataclass(frozen=True)
class Upkeep:
    """Something to do after every pause; the name is unique and goes into logs.

    News of `woken_by` in the same process end the pause.
    """

    name: str
    work: Callable[[Workplace], object]
    pause_seconds: float
    woken_by: Signal | None = None


EXPORT_SECONDS = 2
COUNTS_SECONDS = 2
"""A list reads the changes of so many seconds besides the total."""


def _work_off_exports(at: Workplace) -> None:
    work_off_exports(at.database, at.storage, timedelta(seconds=at.settings.lease_seconds))


def _add_up_counts(at: Workplace) -> None:
    # SQLite adds up at once (`db/counting.py`), and to open this would take the turn of who does write.
    more = at.database.engine.dialect.name != "sqlite"
    while more:
        with at.database.transaction(write=True) as session:
            more = add_up(session.connection())


def _forget_zeros(at: Workplace) -> None:
    with at.database.transaction(write=True):
        forget_zeros()


UPKEEP = (
    Upkeep("settling", lambda at: settle_overdue(at.database), 1),
    Upkeep("adding up counts", _add_up_counts, COUNTS_SECONDS),
    Upkeep("forgetting counts", _forget_zeros, 3_600),
    Upkeep("forgetting", lambda at: forget_expired(at.database), 600),
    Upkeep("forgetting tries", lambda at: forget_tries(at.database, utc_now()), 600),
    Upkeep("exporting", _work_off_exports, EXPORT_SECONDS, woken_by=EXPORTS),
    Upkeep("sweeping", lambda at: sweep(at.database, at.storage, utc_now()), 3_600),
    Upkeep("forgetting call-backs", lambda at: forget_callbacks(at.database), 3_600),
    Upkeep("forgetting webhooks", lambda at: forget_old(at.database), 3_600),
)
