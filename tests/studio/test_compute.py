"""Generations that a Compute API makes: parked between looks, made once, ended there as here."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from db.base import utc_now
from db.models import Generation
from db.session import Database, session
from db.tenancy import use_caller
from studio.generation import StrategyNotSupported, request_generation
from studio.jobs import parking, queue, remote
from studio.jobs.workers import RenderWorkers
from studio.jobs.workshop import Workshop
from studio.lifecycle import request_cancel
from studio.outbound import Outbound
from studio.providers import compute
from tests import factories
from tests.compute_server import Answer, ComputeServer
from tests.production import HEIGHT, WIDTH, Production
from tests.studio.compute_house import (
    TOOLS,
    change,
    order,
    pictures,
    row,
    use_compute,
    wait_until,
)
from tests.studio.conftest import Lasting


def test_pictures_of_a_compute_api_come_in_as_ordered_and_hold_no_worker_meanwhile(
    database: Database, made_elsewhere: Production, server: ComputeServer, workshop: Workshop
) -> None:
    generation_id = order(database, made_elsewhere, extra_prompt="on a beach", steps=12)
    assert workshop.work_off_next()
    parked = row(database, generation_id)
    assert (parked.status, parked.lease_owner, parked.remote_task_id) == ("running", None, "task_0")
    told = server.task.order
    assert (told["entity_id"], told["num_outputs"], told["steps"]) == (str(generation_id), 2, 12)
    assert (told["width"], told["height"], told["seed"]) == (WIDTH, HEIGHT, 7)
    assert told["prompt"].endswith("on a beach")
    assert told["input_image_url"].startswith("data:image/jpeg;base64,")
    server.task.status, server.task.progress = "running", 0.65
    assert workshop.work_off_next()
    assert row(database, generation_id).progress == 65
    server.finish()
    assert workshop.work_off_next()
    done = row(database, generation_id)
    assert (done.status, done.progress, done.attempts, done.cost_credits) == ("completed", 100, 1, 2)
    made = pictures(database, generation_id)
    assert [(one.seed, one.width, one.height, one.content_type) for one in made] == [
        (100, WIDTH, HEIGHT, "image/webp"),
        (101, WIDTH, HEIGHT, "image/webp"),
    ]
    told = made[0].provenance
    assert (told["provider"], told["ignored_inputs"]) == ("COMPUTE", [])
    assert 0 < made[0].quality["score"] <= 1
    assert not workshop.work_off_next()


class Killed(BaseException):
    """The process ends here."""


def test_a_worker_that_dies_after_ordering_makes_no_second_task(
    database: Database,
    made_elsewhere: Production,
    server: ComputeServer,
    workshop: Workshop,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generation_id = order(database, made_elsewhere)

    def die(*_: Any, **__: Any) -> bool:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(parking, "park", die)
        with pytest.raises(Killed):
            workshop.work_off_next()
    change(database, generation_id, lease_expires_at=utc_now() - timedelta(seconds=1))
    assert workshop.work_off_next()
    assert (len(server.tasks), server.asked_for("POST", "/tasks/")) == (1, 2)
    assert row(database, generation_id).attempts == 2


def cancel(database: Database, generation_id: UUID) -> None:
    with database.transaction(write=True):
        locked = select(Generation).where(Generation.id == generation_id).with_for_update(of=Generation)
        request_cancel(session().scalars(locked).one())


def test_canceling_a_parked_generation_cancels_its_task_at_the_next_step(
    database: Database, made_elsewhere: Production, server: ComputeServer, workshop: Workshop
) -> None:
    generation_id = order(database, made_elsewhere)
    assert workshop.work_off_next()
    change(database, generation_id, lease_expires_at=utc_now() + timedelta(minutes=5))
    assert not workshop.work_off_next()
    cancel(database, generation_id)
    assert queue.settle_overdue(database) == 0
    assert workshop.work_off_next()
    assert (server.task.status, row(database, generation_id).status) == ("canceled", "canceled")


def test_canceling_ends_though_the_provider_does_not_answer(
    database: Database, made_elsewhere: Production, server: ComputeServer, workshop: Workshop
) -> None:
    generation_id = order(database, made_elsewhere)
    assert workshop.work_off_next()
    server.broken = Answer(500)
    cancel(database, generation_id)
    assert workshop.work_off_next()
    assert row(database, generation_id).status == "canceled"


def test_canceling_ends_though_no_worker_is_left(
    database: Database, made_elsewhere: Production, workshop: Workshop
) -> None:
    generation_id = order(database, made_elsewhere)
    assert workshop.work_off_next()
    cancel(database, generation_id)
    change(database, generation_id, lease_expires_at=utc_now() - 2 * queue.LAST_STEP)
    assert queue.settle_overdue(database) == 1
    assert row(database, generation_id).status == "canceled"


def test_past_its_deadline_the_task_is_canceled_and_the_credits_come_back(
    database: Database, made_elsewhere: Production, server: ComputeServer, workshop: Workshop
) -> None:
    generation_id = order(database, made_elsewhere)
    assert workshop.work_off_next()
    change(database, generation_id, deadline_at=utc_now())
    assert queue.settle_overdue(database) == 0
    assert workshop.work_off_next()
    expired = row(database, generation_id)
    assert (server.task.status, expired.status, expired.cost_credits) == ("canceled", "expired", 0)


def test_news_of_a_task_make_it_due_and_progress_never_goes_back(
    database: Database, made_elsewhere: Production, server: ComputeServer, workshop: Workshop
) -> None:
    generation_id = order(database, made_elsewhere)
    assert workshop.work_off_next()
    change(database, generation_id, lease_expires_at=utc_now() + timedelta(minutes=5))
    for task_id, entity_id in (("task_9", None), ("task_0", UUID(int=9))):
        with database.transaction(write=True):
            parking.look_now(task_id, entity_id, 50)
        assert not workshop.work_off_next()
    before = row(database, generation_id).revision
    for progress in (80, 30, None, 80):
        with database.transaction(write=True):
            parking.look_now("task_0", generation_id, progress)
    told = row(database, generation_id)
    assert (told.progress, told.revision) == (80, before + 1)
    assert workshop.work_off_next()
    assert row(database, generation_id).progress == 80


def test_news_that_come_during_a_look_make_the_task_due_again(
    database: Database,
    made_elsewhere: Production,
    server: ComputeServer,
    workshop: Workshop,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generation_id = order(database, made_elsewhere)
    assert workshop.work_off_next()
    monkeypatch.setattr(remote, "FIRST_PAUSE_SECONDS", 60.0)
    look = compute.Compute.look

    def look_while_news_come(*arguments: Any) -> compute.RemoteTask:
        found = look(*arguments)
        with database.transaction(write=True):
            parking.look_now("task_0", generation_id, 50)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(compute.Compute, "look", look_while_news_come)
        assert workshop.work_off_next()
    assert row(database, generation_id).progress == 50
    assert workshop.work_off_next()
    assert not workshop.work_off_next()


def test_a_step_that_lasts_keeps_its_lease(
    database: Database, made_elsewhere: Production, workshop: Workshop
) -> None:
    generation_id = order(database, made_elsewhere)
    lease = timedelta(milliseconds=300)
    claim = queue.claim_next(database, "slow", lease)
    assert claim is not None
    with parking.held(database, claim, lease):
        first = row(database, generation_id).lease_expires_at
        wait_until(lambda: row(database, generation_id).lease_expires_at > first + 2 * lease)


def test_many_remote_tasks_leave_the_one_worker_free_for_others(
    lasting: Lasting, server: ComputeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE_SECONDS", 0.2)
    database, production = lasting.database, lasting.production
    with database.transaction(write=True):
        local = factories.make_generation_model()
        elsewhere = factories.make_generation_model(
            provider="COMPUTE", provider_config=server.config, tool_types=TOOLS
        )
    caller = factories.caller_of(production.owner, {production.organization: "owner"})

    def ask(model_id: UUID) -> UUID:
        asked = {"product_id": production.product.id, "model_id": model_id, "width": 64, "height": 64}
        with database.transaction(write=True), use_caller(caller, None):
            return request_generation(asked, production.organization.id, None, lambda *_: None).id

    remote_ids = [ask(elsewhere.id) for _ in range(4)]
    local_id = ask(local.id)
    outbound = Outbound([server.server.host])
    workers = RenderWorkers(database, lasting.storage, 1, 60, outbound=outbound)
    workers.start()
    try:
        wait_until(lambda: row(database, local_id).status == "completed")
        assert {row(database, one).status for one in remote_ids} == {"running"}
        for task in server.tasks.values():
            task.images = [{"url": f"{server.server.url}/images/0.jpg"}]
            task.status = "completed"
        wait_until(lambda: {row(database, one).status for one in remote_ids} == {"completed"})
    finally:
        workers.stop()
    assert len(server.tasks) == 4


def test_what_a_model_can_be_asked_for_depends_on_its_provider(
    database: Database, made_elsewhere: Production, server: ComputeServer
) -> None:
    source = factories.make_prediction(
        factories.make_generation(made_elsewhere.shot, status="completed"), media_id=made_elsewhere.media.id
    )
    asked = {"shot_id": None, "source_prediction_id": source.id, "batch_size": 1}
    caller = factories.caller_of(made_elsewhere.owner, {made_elsewhere.organization: "owner"})

    def ask(strategy: str) -> Generation:
        with database.transaction(write=True), use_caller(caller, None):
            wanted = {**asked, "generation_strategy": strategy}
            return request_generation(wanted, made_elsewhere.organization.id, None, lambda *_: None)

    for strategy in ("EDITING", "FACE_FIXING", "REFINE"):
        assert ask(strategy).inputs["model"]["provider"] == "COMPUTE"
    with pytest.raises(StrategyNotSupported):
        ask("VIDEO")
    use_compute(made_elsewhere, server, provider="LOCAL_STUDIO")
    with pytest.raises(StrategyNotSupported):
        ask("EDITING")
