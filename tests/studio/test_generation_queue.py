"""Test the queue of generations: leases, lost workers, release and shutdown."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from db.caller import caller_context
from db.models import Generation, Prediction, Shot, Subscription
from db.session import Database, current_session
from studio.generations.worker import queue, render_job
from studio.generations.worker.executor import GenerationWorkers
from studio.infrastructure.storage import LocalDisk
from studio.queue.row_queue import Interrupted
from tests.support import factories
from tests.support.queues import LEASE, build_worker, keep_lease, try_record
from tests.support.scenarios import (
    PhotographedProduct,
    get_row,
    render_files,
    request_generation,
    run_pending_generations,
)

PAST = timedelta(seconds=-1)


def create_pending_generation(database: Database, scenario: PhotographedProduct, **params: Any) -> UUID:
    """Create a pending generation of the shot of the scenario."""
    caller = factories.build_caller(scenario.owner, {scenario.organization: "owner"})
    with database.transaction(write=True), caller_context(caller, None):
        shot = current_session().scalars(select(Shot).where(Shot.id == scenario.shot.id)).one()
        params = {"shot_id": shot.id, "seed": 7, "batch_size": 2, **params}
        return request_generation(params, shot.organization_id, shot).id


def credits_used(database: Database, scenario: PhotographedProduct) -> int:
    return int(get_row(database, Subscription, scenario.subscription.id).credits_used)


def test_a_leased_generation_is_not_leased_again(database: Database, scenario: PhotographedProduct) -> None:
    generation_id = create_pending_generation(database, scenario)
    lease = queue.GENERATIONS.lease_next(database, LEASE)
    assert lease is not None
    assert lease.row_id == generation_id
    assert queue.GENERATIONS.count_available(database, 1) == 0
    assert queue.GENERATIONS.lease_next(database, LEASE) is None
    running = get_row(database, Generation, generation_id)
    assert (running.status, running.attempts, running.lease_owner) == ("running", 1, lease.token)


def test_after_its_lease_has_expired_a_worker_cannot_complete_the_generation(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct
) -> None:
    generation_id = create_pending_generation(database, scenario)
    lost = queue.GENERATIONS.lease_next(database, PAST)
    assert lost is not None
    lease = queue.GENERATIONS.lease_next(database, LEASE)
    assert lease is not None
    assert not queue.GENERATIONS.renew(database, lost, LEASE, 50)
    assert not try_record(
        database, queue.complete_generation, storage, lost, render_files(database, storage, lease)
    )
    queue.GENERATIONS.fail(database, lost, queue.INTERNAL_ERROR)
    assert get_row(database, Generation, generation_id).status == "running"
    assert try_record(
        database, queue.complete_generation, storage, lease, render_files(database, storage, lease)
    )
    assert not try_record(database, queue.complete_generation, storage, lease, [])
    done = get_row(database, Generation, generation_id)
    assert (done.status, done.attempts, done.lease_owner) == ("completed", 2, None)
    with database.transaction(write=False) as reading:
        indexes = reading.scalars(
            select(Prediction.index)
            .where(Prediction.generation_id == generation_id)
            .order_by(Prediction.index)
        ).all()
    assert indexes == [0, 1]


def test_a_generation_fails_and_is_refunded_after_three_lost_workers(
    database: Database, scenario: PhotographedProduct
) -> None:
    generation_id = create_pending_generation(database, scenario)
    assert credits_used(database, scenario) == 2
    for _ in range(queue.GENERATIONS.retries.max_attempts):
        assert queue.GENERATIONS.lease_next(database, PAST) is not None
    assert queue.GENERATIONS.lease_next(database, LEASE) is None
    failed = get_row(database, Generation, generation_id)
    assert (failed.status, failed.error, failed.cost_credits) == ("failed", queue.INTERNAL_ERROR, 0)
    assert get_row(database, Shot, scenario.shot.id).status == "pending"
    assert credits_used(database, scenario) == 0


def test_a_released_generation_is_pending_and_its_attempt_does_not_count(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct
) -> None:
    generation_id = create_pending_generation(database, scenario)
    lease = queue.GENERATIONS.lease_next(database, LEASE)
    assert lease is not None
    queue.GENERATIONS.release(database, lease, counts_attempt=False)
    pending = get_row(database, Generation, generation_id)
    assert (pending.status, pending.attempts, pending.progress) == ("pending", 0, 0)
    assert run_pending_generations(database, storage) == 1


def test_a_lost_lease_aborts_the_render_job(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct
) -> None:
    create_pending_generation(database, scenario)
    lease = queue.GENERATIONS.lease_next(database, PAST)
    assert lease is not None
    assert queue.GENERATIONS.lease_next(database, LEASE) is not None
    with ThreadPoolExecutor(1) as render_pool:
        worker = build_worker(database, storage, timedelta(milliseconds=4))
        renew = partial(queue.GENERATIONS.renew, database, lease, worker.lease_duration)
        with keep_lease(worker, renew) as heartbeat, pytest.raises(Interrupted):
            render_job.RenderJob(worker, render_pool, lease, heartbeat).run()


def test_a_missing_photo_fails_the_generation_and_restores_the_shot(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct
) -> None:
    generation_id = create_pending_generation(database, scenario)
    storage.delete_folder(f"media/{scenario.media.id}")
    workers = GenerationWorkers(build_worker(database, storage), 1)
    workers.start()
    failed = wait_for_status(database, generation_id, "failed")
    workers.stop()
    assert (failed.error["category"], failed.cost_credits) == ("input", 0)
    assert get_row(database, Shot, scenario.shot.id).status == "pending"
    assert credits_used(database, scenario) == 0


def wait_for_status(database: Database, generation_id: UUID, status: str) -> Any:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        generation = get_row(database, Generation, generation_id)
        if generation.status == status:
            return generation
        time.sleep(0.02)
    raise AssertionError(f"the generation is {generation.status}")


def test_new_generations_wake_workers_which_finish_running_ones_before_they_stop(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "studio.generations.worker.executor.DRAIN_SECONDS", 60
    )  # a busy machine renders slowly
    workers = GenerationWorkers(build_worker(database, storage), 2)
    workers.start()
    generation_id = create_pending_generation(database, scenario)
    wait_for_status(database, generation_id, "running")
    workers.stop()
    assert get_row(database, Generation, generation_id).status == "completed"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("render-worker")]


def test_a_generation_that_exceeds_the_drain_time_returns_to_the_queue(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.generations.worker.executor.DRAIN_SECONDS", 0.1)

    def render_endlessly(_stage: Any, _seed: int, _index: int, report_progress: Any) -> None:
        while True:
            report_progress(0.5)
            time.sleep(0.01)

    monkeypatch.setattr("studio.providers.local_renderer.render_image", render_endlessly)
    workers = GenerationWorkers(build_worker(database, storage, timedelta(seconds=2)), 2)
    workers.start()
    generation_id = create_pending_generation(database, scenario)
    wait_for_status(database, generation_id, "running")
    time.sleep(0.8)
    started = time.monotonic()
    workers.stop()
    assert time.monotonic() - started < 3
    pending = get_row(database, Generation, generation_id)
    assert (pending.status, pending.lease_owner, pending.attempts) == ("pending", None, 0)


def test_concurrent_workers_lease_each_generation_once(committing_database: Database) -> None:
    with committing_database.transaction(write=True) as writing:
        owner = factories.make_user()
        generation_ids = [factories.make_generation(owner=owner).id for _ in range(12)]
        model_ids = [
            generation.model_id
            for generation in writing.scalars(select(Generation).where(Generation.id.in_(generation_ids)))
        ]
    start = threading.Barrier(4)

    def lease_all(number: int) -> list[UUID]:
        start.wait()
        leased = []
        while (lease := queue.GENERATIONS.lease_next(committing_database, LEASE)) is not None:
            leased.append(lease.row_id)
        return leased

    try:
        with ThreadPoolExecutor(4) as pool:
            leased = [row_id for row_ids in pool.map(lease_all, range(4)) for row_id in row_ids]
        assert sorted(leased) == sorted(generation_ids)
    finally:
        with committing_database.transaction(write=True) as writing:
            for model, ids in ((Generation, generation_ids), (factories.GenerationModel, model_ids)):
                for row in writing.scalars(select(model).where(model.id.in_(ids))):
                    writing.delete(row)
            writing.flush()
            writing.delete(writing.merge(owner))
