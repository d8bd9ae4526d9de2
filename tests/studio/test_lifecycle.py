"""Test the life cycle of generations: cancellation, expiry, retry, and their charges and refunds."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import time_machine
from sqlalchemy import func, select

from db.base import utc_now
from db.caller import caller_context
from db.errors import InvalidTransition
from db.models import Generation, Prediction, Shot, Subscription
from db.session import Database, current_session
from studio.generations import lifecycle
from studio.generations.create import create_generation, retry_generation
from studio.generations.lifecycle import transition
from studio.generations.worker import queue
from studio.generations.worker.executor import GenerationWorkers
from studio.infrastructure.storage import LocalDisk
from studio.state_machines import GENERATION_STATES
from tests.studio.conftest import CommittingStudio
from tests.support import factories
from tests.support.concurrency import run_concurrently, wait_for
from tests.support.queues import LEASE, PAST, build_worker, try_record
from tests.support.scenarios import (
    PhotographedProduct,
    create_pending_generation,
    get_row,
    render_files,
    run_pending_generations,
)

COST = 2


def make_pending_generation(database: Database, scenario: PhotographedProduct, **params: Any) -> Generation:
    """Create a pending generation of the shot of the scenario."""
    generation_id = create_pending_generation(database, scenario, batch_size=COST, **params)
    return get_row(database, Generation, generation_id)


@contextmanager
def acting_as_owner(database: Database, scenario: PhotographedProduct) -> Iterator[None]:
    caller = factories.build_caller(scenario.owner, {scenario.organization: "owner"})
    with database.transaction(write=True), caller_context(caller, None):
        yield


def cancel(database: Database, generation: Generation) -> str:
    """Cancel the generation and return its status."""
    with database.transaction(write=True) as writing:
        locked = select(Generation).where(Generation.id == generation.id).with_for_update(of=Generation)
        row = writing.scalars(locked).one()
        lifecycle.cancel_generation(row)
        return row.status


def cancel_if_open(database: Database, generation: Generation) -> str:
    """Cancel the generation unless it is completed; return its status."""
    try:
        return cancel(database, generation)
    except InvalidTransition:
        return "completed"


def get_outcome(database: Database, scenario: PhotographedProduct, generation: Generation) -> tuple[Any, ...]:
    """Return status, cost, used credits, status of the shot and number of predictions."""
    with database.transaction(write=False) as reading:
        row = reading.scalars(select(Generation).where(Generation.id == generation.id)).one()
        used = reading.scalar(
            select(Subscription.credits_used).where(Subscription.id == scenario.subscription.id)
        )
        shot = reading.scalar(select(Shot.status).where(Shot.id == scenario.shot.id))
        predictions = select(func.count()).where(Prediction.generation_id == row.id)
        return row.status, row.cost_credits, used, shot, reading.scalar(predictions)


def test_a_generation_allows_only_the_transitions_of_the_state_machine(database: Database) -> None:
    generation = factories.make_generation()
    with database.transaction(write=True) as writing:
        row = writing.merge(generation)
        for before, after in itertools.product(GENERATION_STATES, GENERATION_STATES):
            row.status, revision = before, row.revision
            if after in GENERATION_STATES[before]:
                transition(row, after)
                assert (row.status, row.revision) == (after, revision + 1)
            else:
                with pytest.raises(InvalidTransition):
                    transition(row, after)


def test_canceling_a_pending_generation_ends_it_and_refunds_the_credits(
    database: Database, scenario: PhotographedProduct
) -> None:
    generation = make_pending_generation(database, scenario)
    assert get_outcome(database, scenario, generation) == ("pending", COST, COST, "generating", 0)
    assert cancel(database, generation) == "canceled"
    assert get_outcome(database, scenario, generation) == ("canceled", 0, 0, "pending", 0)
    assert not queue.GENERATIONS.count_available(database, 1)


def test_canceling_a_released_generation_refunds_the_credits(
    database: Database, scenario: PhotographedProduct
) -> None:
    generation = make_pending_generation(database, scenario)
    lease = queue.GENERATIONS.lease_next(database, LEASE)
    assert lease is not None
    queue.GENERATIONS.release(database, lease, counts_attempt=False)
    assert cancel(database, generation) == "canceled"
    assert get_outcome(database, scenario, generation) == ("canceled", 0, 0, "pending", 0)


class SlowRender:
    """A worker whose rendering ends only when the job is aborted."""

    def __init__(self, database: Database, storage: LocalDisk, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.stopped = threading.Event(), threading.Event()
        monkeypatch.setattr("studio.providers.local_renderer.render_image", self._render)
        self.workers = GenerationWorkers(build_worker(database, storage), 1)

    def _render(
        self, _context: Any, _seed: int, _index: int, report_progress: Callable[[float], None]
    ) -> None:
        self.begun.set()
        try:
            while True:
                report_progress(0.5)
                time.sleep(0.01)
        finally:
            self.stopped.set()


@pytest.fixture
def slow_render(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SlowRender]:
    work = SlowRender(database, storage, monkeypatch)
    work.workers.start()
    yield work
    work.workers.stop()


def test_canceling_a_running_generation_stops_it_at_its_next_step_without_refund(
    database: Database, scenario: PhotographedProduct, slow_render: SlowRender
) -> None:
    generation = make_pending_generation(database, scenario)
    assert slow_render.begun.wait(60)
    requested_at = time.monotonic()
    assert cancel(database, generation) == "canceling"
    wait_for(lambda: get_row(database, Generation, generation.id).status == "canceled", 3)
    assert slow_render.stopped.wait(1)
    assert time.monotonic() - requested_at < 2.5
    assert get_outcome(database, scenario, generation) == ("canceled", COST, COST, "pending", 0)


def test_a_pending_generation_expires_at_its_deadline_and_is_refunded(
    database: Database, scenario: PhotographedProduct
) -> None:
    generation = make_pending_generation(database, scenario, cancel_after_seconds=5)
    with time_machine.travel(utc_now() + timedelta(seconds=4)):
        assert queue.expire_overdue(database) == 0
        assert queue.GENERATIONS.count_available(database, 1)
    with time_machine.travel(utc_now() + timedelta(seconds=6)):
        assert not queue.GENERATIONS.count_available(database, 1)
        assert queue.expire_overdue(database) == 1
        assert queue.expire_overdue(database) == 0
    assert get_outcome(database, scenario, generation) == ("expired", 0, 0, "pending", 0)
    with database.transaction(write=False) as reading:
        error = reading.scalar(select(Generation.error).where(Generation.id == generation.id))
    assert error == lifecycle.EXPIRED_ERROR


def test_a_running_generation_expires_at_its_deadline_and_is_refunded(
    database: Database, scenario: PhotographedProduct, slow_render: SlowRender
) -> None:
    generation = make_pending_generation(database, scenario, cancel_after_seconds=5)
    assert slow_render.begun.wait(60)
    with time_machine.travel(utc_now() + timedelta(seconds=6)):
        assert queue.expire_overdue(database) == 1
    assert slow_render.stopped.wait(3)
    assert get_outcome(database, scenario, generation) == ("expired", 0, 0, "pending", 0)


def test_a_generation_that_expires_before_it_completes_has_no_predictions(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct
) -> None:
    generation = make_pending_generation(database, scenario, cancel_after_seconds=5)
    lease = queue.GENERATIONS.lease_next(database, LEASE)
    assert lease is not None
    files = render_files(database, storage, lease)
    with time_machine.travel(utc_now() + timedelta(seconds=6)):
        queue.expire_overdue(database)
    assert not try_record(database, queue.complete_generation, storage, lease, files)
    assert get_outcome(database, scenario, generation) == ("expired", 0, 0, "pending", 0)


def test_a_canceling_generation_whose_worker_is_lost_is_canceled(
    database: Database, scenario: PhotographedProduct
) -> None:
    generation = make_pending_generation(database, scenario)
    assert queue.GENERATIONS.lease_next(database, PAST) is not None
    assert cancel(database, generation) == "canceling"
    assert queue.GENERATIONS.lease_next(database, LEASE) is None
    assert queue.expire_overdue(database) == 1
    assert get_outcome(database, scenario, generation) == ("canceled", COST, COST, "pending", 0)


def test_a_retry_renders_the_same_images(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct
) -> None:
    first = make_pending_generation(database, scenario, cancel_after_seconds=600)
    cancel(database, first)
    with acting_as_owner(database, scenario):
        shot = current_session().scalars(select(Shot).where(Shot.id == scenario.shot.id)).one()
        before = current_session().scalars(select(Generation).where(Generation.id == first.id)).one()
        again = create_generation(retry_generation(before, shot))
    assert (again.retry_of_id, again.seed, again.batch_size) == (first.id, 7, COST)
    assert (again.inputs, again.attempts) == (first.inputs, 0)
    assert again.deadline_at is not None
    assert first.deadline_at is not None
    assert again.deadline_at > first.deadline_at
    assert run_pending_generations(database, storage) == 1
    assert get_outcome(database, scenario, again) == ("completed", COST, COST, "pending_review", COST)
    assert get_outcome(database, scenario, first)[:2] == ("canceled", 0)


def test_concurrent_cancellations_refund_the_credits_once(committing_studio: CommittingStudio) -> None:
    database, _, scenario = committing_studio
    generation = make_pending_generation(database, scenario)
    assert run_concurrently(*[lambda: cancel(database, generation)] * 6) == ["canceled"] * 6
    assert get_outcome(database, scenario, generation) == ("canceled", 0, 0, "pending", 0)


def test_a_cancellation_during_completion_leaves_all_predictions_or_none(
    committing_studio: CommittingStudio,
) -> None:
    database, storage, scenario = committing_studio
    shot_status, files = "pending", None
    for number in range(1, 6):
        generation = make_pending_generation(database, scenario, seed=number)
        lease = queue.GENERATIONS.lease_next(database, LEASE)
        assert lease is not None
        files = files or render_files(database, storage, lease)
        finished, status = run_concurrently(
            partial(try_record, database, queue.complete_generation, storage, lease, files),
            partial(cancel_if_open, database, generation),
        )
        assert finished
        assert status in ("completed", "canceling")
        is_completed = status == "completed"
        if is_completed:
            shot_status = "pending_review"
        expected = ("completed" if is_completed else "canceled", COST, number * COST, shot_status)
        assert get_outcome(database, scenario, generation) == (*expected, COST if is_completed else 0)
