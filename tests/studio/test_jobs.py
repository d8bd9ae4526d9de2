"""The queue: a claim is a lease with a token, and whoever lost it changes nothing any more."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from db.models import Generation, Prediction, Shot, Subscription
from db.session import Database, session
from db.tenancy import use_caller
from studio.generation import request_generation
from studio.jobs import painting, queue
from studio.jobs.workers import RenderWorkers
from studio.media.storage import LocalDisk
from tests import factories
from tests.production import LEASE, Production, work_off

PAST = timedelta(seconds=-1)


def order(database: Database, production: Production, **asked: Any) -> UUID:
    """A generation of the production's shot, paid for and pending."""
    caller = factories.caller_of(production.owner, {production.organization: "owner"})
    with database.transaction(write=True), use_caller(caller, None):
        shot = session().scalars(select(Shot).where(Shot.id == production.shot.id)).one()
        asked = {"shot_id": shot.id, "seed": 7, "batch_size": 2, **asked}
        return request_generation(asked, shot.organization_id, shot, lambda *_: None).id


def row(database: Database, model: type[Any], row_id: UUID) -> Any:
    with database.transaction(write=False) as reading:
        return reading.scalars(
            select(model).where(model.id == row_id).execution_options(populate_existing=True)
        ).one()


def credits_used(database: Database, production: Production) -> int:
    return int(row(database, Subscription, production.subscription.id).credits_used)


def painted(database: Database, storage: LocalDisk, claim: queue.Claim) -> list[queue.Made]:
    with ThreadPoolExecutor(2) as painters:
        return painting.Painting(
            database, storage, painters, claim, LEASE, given_up=lambda: False
        ).carry_out()


def test_a_claimed_generation_is_nobody_elses(database: Database, production: Production) -> None:
    generation_id = order(database, production)
    claim = queue.claim_next(database, "first", LEASE)
    assert claim is not None
    assert claim.generation_id == generation_id
    assert queue.count_work(database, 1) == 0
    assert queue.claim_next(database, "second", LEASE) is None
    running = row(database, Generation, generation_id)
    assert (running.status, running.attempts, running.lease_owner) == ("running", 1, "first")


def test_an_expired_lease_is_claimed_again_and_its_owner_can_finish_nothing(
    database: Database, storage: LocalDisk, production: Production
) -> None:
    generation_id = order(database, production)
    lost = queue.claim_next(database, "first", PAST)
    assert lost is not None
    taken = queue.claim_next(database, "second", LEASE)
    assert taken is not None
    assert not queue.renew(database, lost, 50, LEASE)
    assert not queue.finish(database, storage, lost, painted(database, storage, taken))
    queue.fail(database, lost, queue.INTERNAL_ERROR)
    assert row(database, Generation, generation_id).status == "running"
    assert queue.finish(database, storage, taken, painted(database, storage, taken))
    assert not queue.finish(database, storage, taken, [])
    done = row(database, Generation, generation_id)
    assert (done.status, done.attempts, done.lease_owner) == ("completed", 2, None)
    with database.transaction(write=False) as reading:
        indexes = reading.scalars(
            select(Prediction.index)
            .where(Prediction.generation_id == generation_id)
            .order_by(Prediction.index)
        ).all()
    assert indexes == [0, 1]


def test_a_generation_that_kills_its_workers_three_times_fails_and_is_paid_back(
    database: Database, production: Production
) -> None:
    generation_id = order(database, production)
    assert credits_used(database, production) == 2
    for number in range(queue.MAX_CLAIMS):
        assert queue.claim_next(database, f"victim {number}", PAST) is not None
    assert queue.claim_next(database, "survivor", LEASE) is None
    failed = row(database, Generation, generation_id)
    assert (failed.status, failed.error, failed.cost_credits) == ("failed", queue.INTERNAL_ERROR, 0)
    assert row(database, Shot, production.shot.id).status == "pending"
    assert credits_used(database, production) == 0


def test_a_released_generation_waits_again_as_if_nothing_had_been(
    database: Database, storage: LocalDisk, production: Production
) -> None:
    generation_id = order(database, production)
    claim = queue.claim_next(database, "leaving", LEASE)
    assert claim is not None
    queue.release(database, claim)
    waiting = row(database, Generation, generation_id)
    assert (waiting.status, waiting.attempts, waiting.progress) == ("pending", 0, 0)
    assert work_off(database, storage) == 1


def test_a_lost_lease_ends_the_painting(
    database: Database, storage: LocalDisk, production: Production
) -> None:
    order(database, production)
    claim = queue.claim_next(database, "first", PAST)
    assert claim is not None
    assert queue.claim_next(database, "second", LEASE) is not None
    with ThreadPoolExecutor(1) as painters:
        work = painting.Painting(
            database, storage, painters, claim, timedelta(milliseconds=4), given_up=lambda: False
        )
        with pytest.raises(painting.Abandoned):
            work.carry_out()


def test_a_vanished_photograph_fails_the_generation_and_returns_the_shot(
    database: Database, storage: LocalDisk, production: Production
) -> None:
    generation_id = order(database, production)
    storage.delete_folder(f"media/{production.media.id}")
    workers = RenderWorkers(database, storage, 1, lease_seconds=60)
    workers.start()
    failed = wait_for(database, generation_id, "failed")
    workers.stop()
    assert (failed.error["category"], failed.cost_credits) == ("input", 0)
    assert row(database, Shot, production.shot.id).status == "pending"
    assert credits_used(database, production) == 0


def wait_for(database: Database, generation_id: UUID, status: str) -> Any:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        generation = row(database, Generation, generation_id)
        if generation.status == status:
            return generation
        time.sleep(0.02)
    raise AssertionError(f"the generation is {generation.status}")


def test_workers_are_woken_by_new_work_and_finish_what_runs_when_told_to_stop(
    database: Database, storage: LocalDisk, production: Production
) -> None:
    workers = RenderWorkers(database, storage, 2, lease_seconds=60)
    workers.start()
    generation_id = order(database, production)
    wait_for(database, generation_id, "running")
    workers.stop()
    assert row(database, Generation, generation_id).status == "completed"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("render-worker")]


def test_work_that_does_not_end_in_time_is_given_back(
    database: Database, storage: LocalDisk, production: Production, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.jobs.workers.DRAIN_SECONDS", 0.1)

    def slow(_stage: Any, _seed: int, _index: int, tell: Any) -> None:
        while True:
            tell(0.5)
            time.sleep(0.01)

    monkeypatch.setattr("studio.providers.local_renderer.make_picture", slow)
    workers = RenderWorkers(database, storage, 2, lease_seconds=2)
    workers.start()
    generation_id = order(database, production)
    wait_for(database, generation_id, "running")
    time.sleep(0.8)
    started = time.monotonic()
    workers.stop()
    assert time.monotonic() - started < 3
    waiting = row(database, Generation, generation_id)
    assert (waiting.status, waiting.lease_owner, waiting.attempts) == ("pending", None, 0)


def test_many_workers_claim_each_generation_once(committing_database: Database) -> None:
    with committing_database.transaction(write=True) as writing:
        owner = factories.make_user()
        made = [factories.make_generation(owner=owner).id for _ in range(12)]
        model_ids = [
            generation.model_id
            for generation in writing.scalars(select(Generation).where(Generation.id.in_(made)))
        ]
    start = threading.Barrier(4)

    def claim_all(number: int) -> list[UUID]:
        start.wait()
        claims = []
        while (claim := queue.claim_next(committing_database, f"worker {number}", LEASE)) is not None:
            claims.append(claim.generation_id)
        return claims

    try:
        with ThreadPoolExecutor(4) as pool:
            claimed = [row_id for claims in pool.map(claim_all, range(4)) for row_id in claims]
        assert sorted(claimed) == sorted(made)
    finally:
        with committing_database.transaction(write=True) as writing:
            for model, ids in ((Generation, made), (factories.GenerationModel, model_ids)):
                for gone in writing.scalars(select(model).where(model.id.in_(ids))):
                    writing.delete(gone)
            writing.flush()
            writing.delete(writing.merge(owner))
