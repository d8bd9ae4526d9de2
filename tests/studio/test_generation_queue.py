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

from db.models import Generation, Shot, Subscription
from db.session import Database
from studio.generations.worker import queue, render_job
from studio.generations.worker.executor import GenerationWorkers
from studio.infrastructure.storage import LocalDisk
from studio.queue.row_queue import Interrupted
from tests.support.concurrency import wait_for
from tests.support.queues import LEASE, PAST, build_worker, keep_lease
from tests.support.scenarios import PhotographedProduct, create_pending_generation, get_row


def credits_used(database: Database, scenario: PhotographedProduct) -> int:
    return int(get_row(database, Subscription, scenario.subscription.id).credits_used)


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


def wait_for_status(database: Database, generation_id: UUID, status: str) -> None:
    wait_for(lambda: get_row(database, Generation, generation_id).status == status, 30)


def test_a_missing_photo_fails_the_generation_and_restores_the_shot(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct
) -> None:
    generation_id = create_pending_generation(database, scenario)
    storage.delete_folder(f"media/{scenario.media.id}")
    workers = GenerationWorkers(build_worker(database, storage), 1)
    workers.start()
    wait_for_status(database, generation_id, "failed")
    workers.stop()
    failed = get_row(database, Generation, generation_id)
    assert (failed.error["category"], failed.cost_credits) == ("input", 0)
    assert get_row(database, Shot, scenario.shot.id).status == "pending"
    assert credits_used(database, scenario) == 0


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
