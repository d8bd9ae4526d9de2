"""The life of a generation on both databases: canceled, expired, retried, and never paid or ended twice."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import time_machine
from sqlalchemy import func, select

from db.base import utc_now
from db.errors import InvalidTransition
from db.models import Generation, Prediction, Shot, Subscription
from db.session import Database, session
from db.tenancy import use_caller
from studio import lifecycle
from studio.generation import request_generation
from studio.jobs import painting, queue
from studio.jobs.workers import RenderWorkers
from studio.lifecycle import advance
from studio.media.storage import LocalDisk
from studio.orders import place_order, repeat_order
from studio.states import GENERATION_STATES
from tests import factories
from tests.production import LEASE, Production, work_off
from tests.racing import at_once
from tests.studio.conftest import Lasting

PAST = timedelta(seconds=-1)
COST = 2


def order(database: Database, production: Production, **asked: Any) -> Generation:
    """A generation of the production's shot, paid for and pending."""
    with acting(database, production):
        shot = session().scalars(select(Shot).where(Shot.id == production.shot.id)).one()
        asked = {"shot_id": shot.id, "seed": 7, "batch_size": COST, **asked}
        return request_generation(asked, shot.organization_id, shot, lambda *_: None)


@contextmanager
def acting(database: Database, production: Production) -> Iterator[None]:
    caller = factories.caller_of(production.owner, {production.organization: "owner"})
    with database.transaction(write=True), use_caller(caller, None):
        yield


def cancel(database: Database, generation: Generation) -> str:
    """What the generation is after it was canceled."""
    with database.transaction(write=True) as writing:
        locked = select(Generation).where(Generation.id == generation.id).with_for_update(of=Generation)
        row = writing.scalars(locked).one()
        lifecycle.request_cancel(row)
        return row.status


def cancel_if_open(database: Database, generation: Generation) -> str:
    """As `cancel`, for a generation that may be completed."""
    try:
        return cancel(database, generation)
    except InvalidTransition:
        return "completed"


def outcome(database: Database, production: Production, generation: Generation) -> tuple[Any, ...]:
    """State, cost, what the subscription has used, the shot's state, and the number of pictures."""
    with database.transaction(write=False) as reading:
        row = reading.scalars(select(Generation).where(Generation.id == generation.id)).one()
        used = reading.scalar(
            select(Subscription.credits_used).where(Subscription.id == production.subscription.id)
        )
        shot = reading.scalar(select(Shot.status).where(Shot.id == production.shot.id))
        pictures = select(func.count()).where(Prediction.generation_id == row.id)
        return row.status, row.cost_credits, used, shot, reading.scalar(pictures)


def ended(database: Database, generation: Generation, seconds: float = 10) -> str:
    """The state of a generation once it is final."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with database.transaction(write=False) as reading:
            status = reading.scalar(select(Generation.status).where(Generation.id == generation.id))
        if not GENERATION_STATES[str(status)]:
            return str(status)
        time.sleep(0.02)
    raise AssertionError(f"the generation is still {status}")


def test_a_generation_takes_the_steps_of_the_table_only(database: Database) -> None:
    generation = factories.make_generation()
    with database.transaction(write=True) as writing:
        row = writing.merge(generation)
        for before, after in itertools.product(GENERATION_STATES, GENERATION_STATES):
            row.status, revision = before, row.revision
            if after in GENERATION_STATES[before]:
                advance(row, after)
                assert (row.status, row.revision) == (after, revision + 1)
            else:
                with pytest.raises(InvalidTransition):
                    advance(row, after)


def test_canceling_what_waits_ends_it_at_once_and_returns_the_credits(
    database: Database, production: Production
) -> None:
    generation = order(database, production)
    assert outcome(database, production, generation) == ("pending", COST, COST, "generating", 0)
    assert cancel(database, generation) == "canceled"
    assert outcome(database, production, generation) == ("canceled", 0, 0, "pending", 0)
    assert not queue.count_work(database, 1)


def test_canceling_what_a_worker_gave_back_returns_the_credits_too(
    database: Database, production: Production
) -> None:
    generation = order(database, production)
    claim = queue.claim_next(database, "leaving", LEASE)
    assert claim is not None
    queue.release(database, claim)
    assert cancel(database, generation) == "canceled"
    assert outcome(database, production, generation) == ("canceled", 0, 0, "pending", 0)


class SlowWork:
    """A worker that paints for ever, step by step, until it is told that nobody wants the picture."""

    def __init__(self, database: Database, storage: LocalDisk, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.stopped = threading.Event(), threading.Event()
        monkeypatch.setattr("studio.providers.local_renderer.make_picture", self._paint)
        self.workers = RenderWorkers(database, storage, 1, lease_seconds=60)

    def _paint(self, _stage: Any, _seed: int, _index: int, tell: Callable[[float], None]) -> None:
        self.begun.set()
        try:
            while True:
                tell(0.5)
                time.sleep(0.01)
        finally:
            self.stopped.set()


@pytest.fixture
def slow_work(
    database: Database, storage: LocalDisk, production: Production, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SlowWork]:
    work = SlowWork(database, storage, monkeypatch)
    work.workers.start()
    yield work
    work.workers.stop()


def test_canceling_what_runs_stops_the_work_at_its_next_step_and_stays_paid(
    database: Database, production: Production, slow_work: SlowWork
) -> None:
    generation = order(database, production)
    assert slow_work.begun.wait(10)
    asked_at = time.monotonic()
    assert cancel(database, generation) == "canceling"
    assert ended(database, generation, seconds=3) == "canceled"
    assert slow_work.stopped.wait(1)
    assert time.monotonic() - asked_at < 2.5
    assert outcome(database, production, generation) == ("canceled", COST, COST, "pending", 0)


def test_a_deadline_that_passes_while_it_waits_ends_it_unpaid(
    database: Database, production: Production
) -> None:
    generation = order(database, production, cancel_after_seconds=5)
    with time_machine.travel(utc_now() + timedelta(seconds=4)):
        assert queue.settle_overdue(database) == 0
        assert queue.count_work(database, 1)
    with time_machine.travel(utc_now() + timedelta(seconds=6)):
        assert not queue.count_work(database, 1)
        assert queue.settle_overdue(database) == 1
        assert queue.settle_overdue(database) == 0
    assert outcome(database, production, generation) == ("expired", 0, 0, "pending", 0)
    with database.transaction(write=False) as reading:
        error = reading.scalar(select(Generation.error).where(Generation.id == generation.id))
    assert error == lifecycle.EXPIRED


def test_a_deadline_that_passes_while_it_runs_stops_the_work_unpaid(
    database: Database, production: Production, slow_work: SlowWork
) -> None:
    generation = order(database, production, cancel_after_seconds=5)
    assert slow_work.begun.wait(10)
    with time_machine.travel(utc_now() + timedelta(seconds=6)):
        assert queue.settle_overdue(database) == 1
    assert slow_work.stopped.wait(3)
    assert outcome(database, production, generation) == ("expired", 0, 0, "pending", 0)


def test_what_expired_in_the_last_moment_keeps_no_pictures(
    database: Database, storage: LocalDisk, production: Production
) -> None:
    generation = order(database, production, cancel_after_seconds=5)
    claim = queue.claim_next(database, "slow", LEASE)
    assert claim is not None
    made = painted(database, storage, claim)
    with time_machine.travel(utc_now() + timedelta(seconds=6)):
        queue.settle_overdue(database)
    assert not queue.finish(database, storage, claim, made)
    assert outcome(database, production, generation) == ("expired", 0, 0, "pending", 0)


def test_a_worker_that_is_killed_while_canceling_leaves_nothing_hanging(
    database: Database, production: Production
) -> None:
    generation = order(database, production)
    assert queue.claim_next(database, "victim", PAST) is not None
    assert cancel(database, generation) == "canceling"
    assert queue.claim_next(database, "other", LEASE) is None
    assert queue.settle_overdue(database) == 1
    assert outcome(database, production, generation) == ("canceled", COST, COST, "pending", 0)


def test_a_retry_makes_the_pictures_that_the_first_try_would_have_made(
    database: Database, storage: LocalDisk, production: Production
) -> None:
    first = order(database, production, cancel_after_seconds=600)
    cancel(database, first)
    with acting(database, production):
        shot = session().scalars(select(Shot).where(Shot.id == production.shot.id)).one()
        before = session().scalars(select(Generation).where(Generation.id == first.id)).one()
        again = place_order(repeat_order(before, shot))
    assert (again.retry_of_id, again.seed, again.batch_size) == (first.id, 7, COST)
    assert (again.inputs, again.attempts) == (first.inputs, 0)
    assert again.deadline_at is not None
    assert first.deadline_at is not None
    assert again.deadline_at > first.deadline_at
    assert work_off(database, storage) == 1
    assert outcome(database, production, again) == ("completed", COST, COST, "pending_review", COST)
    assert outcome(database, production, first)[:2] == ("canceled", 0)


def painted(database: Database, storage: LocalDisk, claim: queue.Claim) -> list[queue.Made]:
    with ThreadPoolExecutor(2) as painters:
        return painting.Painting(
            database, storage, painters, claim, LEASE, given_up=lambda: False
        ).carry_out()


def test_parallel_cancels_return_the_credits_once(lasting: Lasting) -> None:
    database, _, production = lasting
    generation = order(database, production)
    assert at_once(*[lambda: cancel(database, generation)] * 6) == ["canceled"] * 6
    assert outcome(database, production, generation) == ("canceled", 0, 0, "pending", 0)


def test_a_cancel_that_races_the_finish_leaves_either_all_or_nothing(lasting: Lasting) -> None:
    database, storage, production = lasting
    shot_before, made = "pending", None
    for number in range(1, 6):
        generation = order(database, production, seed=number)
        claim = queue.claim_next(database, f"worker {number}", LEASE)
        assert claim is not None
        made = made or painted(database, storage, claim)
        finished, told = at_once(
            partial(queue.finish, database, storage, claim, made),
            partial(cancel_if_open, database, generation),
        )
        assert (finished, told) in {(True, "completed"), (False, "canceling")}
        if finished:
            shot_before = "pending_review"
        expected = ("completed" if finished else "canceled", COST, number * COST, shot_before)
        assert outcome(database, production, generation) == (*expected, COST if finished else 0)
