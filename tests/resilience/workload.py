"""The requests of tenants while processes break, and the check of the database afterwards."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median
from uuid import UUID

import httpx
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from db.base import utc_now
from db.engine import build_engine
from db.models import Generation, Prediction, Shot, Subscription
from db.models.generations import GenerationStatus
from db.session import Database
from studio.accounts.identity.passwords import hash_password
from studio.infrastructure.storage import LocalDisk
from tests.support import factories
from tests.support.scenarios import make_photographed_product
from tools.demo import Api
from tools.servers.processes import JobsProcess

PASSWORD = "a password of the resilience tests"
FINAL_STATES = ("completed", "failed", "canceled", "expired")


@dataclass(frozen=True)
class Tenant:
    """A tenant with pending shots and enough credits for all of them."""

    email: str
    subscription_id: UUID
    shots: tuple[UUID, ...]


@dataclass
class AcceptedGenerations:
    """The generations that the server has accepted so far; `done` is set when there are no more."""

    generation_ids: list[UUID] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Verdict:
    """The counts of a run. `lost`, `duplicated`, `credits_off` and `shots_off` must be 0."""

    accepted: int
    completed: int
    ended_otherwise: int
    lost: int
    duplicated: int
    credits_off: int
    shots_off: int
    seconds: float
    seconds_to_start: float
    attempts: int

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.duplicated or self.credits_off or self.shots_off)

    def table(self) -> str:
        """Return the counts as a table of text."""
        rows = {
            "accepted": self.accepted,
            "completed": self.completed,
            "failed, canceled or expired": self.ended_otherwise,
            "lost": self.lost,
            "duplicated": self.duplicated,
            "credits off": self.credits_off,
            "shots off": self.shots_off,
            "attempts": self.attempts,
            "seconds": f"{self.seconds:.0f}",
            "generations a minute": f"{60 * self.completed / self.seconds:.0f}",
            "median seconds from request to start": f"{self.seconds_to_start:.1f}",
        }
        return "\n".join(f"  {name:<36} {value}" for name, value in rows.items())


@contextlib.contextmanager
def open_database(url: str) -> Iterator[Database]:
    """Open the database of the processes under test."""
    database = Database(build_engine(url, pool_size=4))
    try:
        yield database
    finally:
        database.dispose()


def make_tenants(database_url: str, media: Path, count: int, shots: int) -> list[Tenant]:
    """Create tenants with an organization, a product with photos, and pending shots."""
    password, storage, tenants = hash_password(PASSWORD), LocalDisk(media), []
    with open_database(database_url) as database:
        for _ in range(count):
            with database.transaction(write=True):
                # A unique e-mail address: the factories count from 1 in every process.
                scenario = make_photographed_product(storage, None)
                scenario.owner.email = f"{uuid.uuid4().hex}@example.com"
                scenario.owner.hashed_password = password
                scenario.subscription.credits_total = 10 * shots
                more = [factories.make_shot(scenario.look).id for _ in range(shots - 1)]
                tenants.append(
                    Tenant(scenario.owner.email, scenario.subscription.id, (scenario.shot.id, *more))
                )
    return tenants


def request_all(url: str, tenants: list[Tenant], num_predictions: int, accepted: AcceptedGenerations) -> None:
    """Request a generation of every shot, all tenants in parallel.

    A request without a response is sent again with the same idempotency key.
    """
    try:
        with ThreadPoolExecutor(len(tenants)) as pool:
            for _ in pool.map(
                lambda tenant: _request_tenant(url, tenant, num_predictions, accepted), tenants
            ):
                pass
    finally:
        accepted.done.set()


def _request_tenant(url: str, tenant: Tenant, num_predictions: int, accepted: AcceptedGenerations) -> None:
    with Api(url) as api:
        api.sign_in(tenant.email, PASSWORD)
        for shot_id in tenant.shots:
            generation = _post_until_accepted(
                api.client, f"/shots/{shot_id}/generate", {"num_predictions": num_predictions}
            )
            accepted.generation_ids.append(UUID(generation["id"]))


def _post_until_accepted(client: httpx.Client, path: str, body: dict[str, int]) -> dict[str, str]:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            response = client.post(path, json=body, headers=key)
            if response.status_code == 202:
                return dict(response.json())
            # The database is unavailable, or the first request with this key is still running.
            assert response.status_code in (409, 500, 503), response.text
        time.sleep(0.3)
    raise AssertionError(f"{path} was not accepted")


def count_ended(database: Database, accepted: AcceptedGenerations) -> int:
    """Return how many of the accepted generations have ended, or 0 while the database is unavailable."""
    ended = Generation.id.in_(accepted.generation_ids), Generation.status.in_(FINAL_STATES)
    with contextlib.suppress(OperationalError), database.transaction(write=False) as reading:
        return reading.scalar(select(func.count()).select_from(Generation).where(*ended)) or 0
    return 0


def evaluate(
    database_url: str, tenants: list[Tenant], accepted: AcceptedGenerations, began: datetime
) -> Verdict:
    """Compare the stored rows with the accepted generations."""
    shots = [shot_id for tenant in tenants for shot_id in tenant.shots]
    with open_database(database_url) as database, database.transaction(write=False) as reading:
        rows = list(reading.scalars(select(Generation).where(Generation.shot_id.in_(shots))))
        stored = {
            generation_id: sorted(indexes)
            for generation_id, indexes in _indexes(reading, [row.id for row in rows]).items()
        }
        used = {
            row.id: row.credits_used
            for row in reading.scalars(
                select(Subscription).where(
                    Subscription.id.in_([tenant.subscription_id for tenant in tenants])
                )
            )
        }
        states = {row.id: row for row in reading.scalars(select(Shot).where(Shot.id.in_(shots)))}
    known = {row.id: row for row in rows}
    completed = [row for row in rows if row.status == "completed"]
    expected = {row.id: list(range(row.batch_size)) if row.status == "completed" else [] for row in rows}
    costs = {tenant.subscription_id: 0 for tenant in tenants}
    for row in rows:
        costs[row.subscription_id] += row.cost_credits
    ended = [row.completed_at for row in rows if row.completed_at is not None]
    waits = [(row.started_at - row.created_at).total_seconds() for row in rows if row.started_at is not None]
    return Verdict(
        accepted=len(accepted.generation_ids),
        completed=len(completed),
        ended_otherwise=len([row for row in rows if row.status in FINAL_STATES]) - len(completed),
        lost=sum(
            generation_id not in known or known[generation_id].status not in FINAL_STATES
            for generation_id in accepted.generation_ids
        ),
        duplicated=len(known.keys() - set(accepted.generation_ids))
        + sum(stored.get(generation_id, []) != expected[generation_id] for generation_id in known),
        credits_off=sum(abs(used[subscription_id] - cost) for subscription_id, cost in costs.items()),
        shots_off=sum(
            states[row.shot_id].status != ("pending_review" if row.status == "completed" else "pending")
            for row in rows
        ),
        seconds=(max(ended) - began).total_seconds() if ended else 0,
        seconds_to_start=median(waits) if waits else 0,
        attempts=sum(row.attempts for row in rows),
    )


def _indexes(reading: Session, generation_ids: list[UUID]) -> dict[UUID, list[int]]:
    indexes: dict[UUID, list[int]] = {}
    pairs = select(Prediction.generation_id, Prediction.index)
    for generation_id, index in reading.execute(pairs.where(Prediction.generation_id.in_(generation_ids))):
        indexes.setdefault(generation_id, []).append(index)
    return indexes


def has_running_generation(database: Database, process: JobsProcess) -> bool:
    """Return whether a worker has leased a generation: its token contains the process id."""
    # unscoped: of any tenant
    running = select(Generation.id).where(
        Generation.status == GenerationStatus.RUNNING,
        Generation.lease_owner.contains(f":{process.pid}:"),
        Generation.lease_expires_at > utc_now(),
    )
    with database.transaction(write=False) as reading:
        return reading.scalar(running.limit(1)) is not None
