"""Generations that a Compute API makes: parked between looks, made once, ended there as here."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from db.base import utc_now
from db.models import Generation
from db.session import Database, current_session
from db.tenancy import caller_context
from studio.generations.inputs import StrategyNotSupported
from studio.generations.lifecycle import cancel_generation
from studio.generations.worker import polling, queue, remote
from studio.generations.worker.executor import GenerationExecutor, GenerationWorkers
from studio.http_client import SafeHttpClient
from studio.providers import compute
from studio.telemetry.context import new_trace, parse_traceparent, use_trace
from tests.studio.compute_fixtures import (
    TOOLS,
    create_remote_generation,
    list_predictions,
    load_generation,
    update_generation,
    use_compute,
    wait_until,
)
from tests.studio.conftest import CommittingStudio
from tests.support import factories
from tests.support.scenarios import HEIGHT, WIDTH, PhotographedProduct, request_generation
from tests.support.servers.compute import ComputeServer, StubResponse


def test_pictures_of_a_compute_api_come_in_as_ordered_and_hold_no_worker_meanwhile(
    database: Database,
    remote_scenario: PhotographedProduct,
    server: ComputeServer,
    executor: GenerationExecutor,
) -> None:
    generation_id = create_remote_generation(database, remote_scenario, extra_prompt="on a beach", steps=12)
    assert executor.run_next()
    parked = load_generation(database, generation_id)
    assert (parked.status, parked.lease_owner, parked.remote_task_id) == ("running", None, "task_0")
    told = server.task.request
    assert (told["entity_id"], told["num_outputs"], told["steps"]) == (str(generation_id), 2, 12)
    assert (told["width"], told["height"], told["seed"]) == (WIDTH, HEIGHT, 7)
    assert told["prompt"].endswith("on a beach")
    assert told["input_image_url"].startswith("data:image/jpeg;base64,")
    server.task.status, server.task.progress = "running", 0.65
    assert executor.run_next()
    assert load_generation(database, generation_id).progress == 65
    server.finish()
    assert executor.run_next()
    done = load_generation(database, generation_id)
    assert (done.status, done.progress, done.attempts, done.cost_credits) == ("completed", 100, 1, 2)
    made = list_predictions(database, generation_id)
    assert [(one.seed, one.width, one.height, one.content_type) for one in made] == [
        (100, WIDTH, HEIGHT, "image/webp"),
        (101, WIDTH, HEIGHT, "image/webp"),
    ]
    told = made[0].provenance
    assert (told["provider"], told["ignored_inputs"]) == ("COMPUTE", [])
    assert 0 < made[0].quality["score"] <= 1
    assert not executor.run_next()


def test_a_request_to_the_provider_continues_the_trace_of_the_generation(
    database: Database,
    remote_scenario: PhotographedProduct,
    server: ComputeServer,
    executor: GenerationExecutor,
) -> None:
    trace = new_trace()
    with use_trace(trace):
        create_remote_generation(database, remote_scenario)
    assert executor.run_next()
    sent = parse_traceparent(server.server.requests[0].headers["traceparent"])
    assert sent is not None
    assert (sent.trace_id, sent.span_id == trace.span_id) == (trace.trace_id, False)


class ProcessKilled(BaseException):
    """The process ends here."""


def test_a_worker_that_dies_after_ordering_makes_no_second_task(
    database: Database,
    remote_scenario: PhotographedProduct,
    server: ComputeServer,
    executor: GenerationExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generation_id = create_remote_generation(database, remote_scenario)

    def die(*_: Any, **__: Any) -> bool:
        raise ProcessKilled

    with monkeypatch.context() as patch:
        patch.setattr(polling, "schedule_poll", die)
        with pytest.raises(ProcessKilled):
            executor.run_next()
    update_generation(database, generation_id, lease_expires_at=utc_now() - timedelta(seconds=1))
    assert executor.run_next()
    assert (len(server.tasks), server.count_requests("POST", "/tasks/")) == (1, 2)
    assert load_generation(database, generation_id).attempts == 2


def cancel(database: Database, generation_id: UUID) -> None:
    with database.transaction(write=True):
        locked = select(Generation).where(Generation.id == generation_id).with_for_update(of=Generation)
        cancel_generation(current_session().scalars(locked).one())


def test_canceling_a_parked_generation_cancels_its_task_at_the_next_step(
    database: Database,
    remote_scenario: PhotographedProduct,
    server: ComputeServer,
    executor: GenerationExecutor,
) -> None:
    generation_id = create_remote_generation(database, remote_scenario)
    assert executor.run_next()
    update_generation(database, generation_id, lease_expires_at=utc_now() + timedelta(minutes=5))
    assert not executor.run_next()
    cancel(database, generation_id)
    assert queue.expire_overdue(database) == 0
    assert executor.run_next()
    assert (server.task.status, load_generation(database, generation_id).status) == ("canceled", "canceled")


def test_canceling_ends_though_the_provider_does_not_answer(
    database: Database,
    remote_scenario: PhotographedProduct,
    server: ComputeServer,
    executor: GenerationExecutor,
) -> None:
    generation_id = create_remote_generation(database, remote_scenario)
    assert executor.run_next()
    server.permanent_fault = StubResponse(500)
    cancel(database, generation_id)
    assert executor.run_next()
    assert load_generation(database, generation_id).status == "canceled"


def test_canceling_ends_though_no_worker_is_left(
    database: Database, remote_scenario: PhotographedProduct, executor: GenerationExecutor
) -> None:
    generation_id = create_remote_generation(database, remote_scenario)
    assert executor.run_next()
    cancel(database, generation_id)
    update_generation(database, generation_id, lease_expires_at=utc_now() - 2 * queue.CLEANUP_GRACE)
    assert queue.expire_overdue(database) == 1
    assert load_generation(database, generation_id).status == "canceled"


def test_past_its_deadline_the_task_is_canceled_and_the_credits_come_back(
    database: Database,
    remote_scenario: PhotographedProduct,
    server: ComputeServer,
    executor: GenerationExecutor,
) -> None:
    generation_id = create_remote_generation(database, remote_scenario)
    assert executor.run_next()
    update_generation(database, generation_id, deadline_at=utc_now())
    assert queue.expire_overdue(database) == 0
    assert executor.run_next()
    expired = load_generation(database, generation_id)
    assert (server.task.status, expired.status, expired.cost_credits) == ("canceled", "expired", 0)


def test_news_of_a_task_make_it_due_and_progress_never_goes_back(
    database: Database,
    remote_scenario: PhotographedProduct,
    server: ComputeServer,
    executor: GenerationExecutor,
) -> None:
    generation_id = create_remote_generation(database, remote_scenario)
    assert executor.run_next()
    update_generation(database, generation_id, lease_expires_at=utc_now() + timedelta(minutes=5))
    for task_id, entity_id in (("task_9", None), ("task_0", UUID(int=9))):
        with database.transaction(write=True):
            polling.poll_now(task_id, entity_id, 50)
        assert not executor.run_next()
    before = load_generation(database, generation_id).revision
    for progress in (80, 30, None, 80):
        with database.transaction(write=True):
            polling.poll_now("task_0", generation_id, progress)
    told = load_generation(database, generation_id)
    assert (told.progress, told.revision) == (80, before + 1)
    assert executor.run_next()
    assert load_generation(database, generation_id).progress == 80


def test_news_that_come_during_a_look_make_the_task_due_again(
    database: Database,
    remote_scenario: PhotographedProduct,
    server: ComputeServer,
    executor: GenerationExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generation_id = create_remote_generation(database, remote_scenario)
    assert executor.run_next()
    monkeypatch.setattr(remote, "MIN_POLL_SECONDS", 60.0)
    look = compute.ComputeClient.get_task

    def look_while_news_come(*arguments: Any) -> compute.RemoteTask:
        found = look(*arguments)
        with database.transaction(write=True):
            polling.poll_now("task_0", generation_id, 50)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(compute.ComputeClient, "get_task", look_while_news_come)
        assert executor.run_next()
    assert load_generation(database, generation_id).progress == 50
    assert executor.run_next()
    assert not executor.run_next()


def test_a_step_that_lasts_keeps_its_lease(
    database: Database, remote_scenario: PhotographedProduct, executor: GenerationExecutor
) -> None:
    generation_id = create_remote_generation(database, remote_scenario)
    lease = timedelta(milliseconds=300)
    claim = queue.lease_next(database, "slow", lease)
    assert claim is not None
    with polling.keep_lease(database, claim, lease):
        first = load_generation(database, generation_id).lease_expires_at
        wait_until(lambda: load_generation(database, generation_id).lease_expires_at > first + 2 * lease)


def test_many_remote_tasks_leave_the_one_worker_free_for_others(
    committing_studio: CommittingStudio, server: ComputeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "MIN_POLL_SECONDS", 0.2)
    database, production = committing_studio.database, committing_studio.scenario
    with database.transaction(write=True):
        local = factories.make_generation_model()
        elsewhere = factories.make_generation_model(
            provider="COMPUTE", provider_config=server.config, tool_types=TOOLS
        )
    caller = factories.build_caller(production.owner, {production.organization: "owner"})

    def ask(model_id: UUID) -> UUID:
        asked = {"product_id": production.product.id, "model_id": model_id, "width": 64, "height": 64}
        with database.transaction(write=True), caller_context(caller, None):
            return request_generation(asked, production.organization.id, None).id

    remote_ids = [ask(elsewhere.id) for _ in range(4)]
    local_id = ask(local.id)
    outbound = SafeHttpClient([server.server.host])
    workers = GenerationWorkers(database, committing_studio.storage, 1, 60, http_client=outbound)
    workers.start()
    try:
        wait_until(lambda: load_generation(database, local_id).status == "completed")
        assert {load_generation(database, one).status for one in remote_ids} == {"running"}
        for task in server.tasks.values():
            task.images = [{"url": f"{server.server.url}/images/0.jpg"}]
            task.status = "completed"
        wait_until(lambda: {load_generation(database, one).status for one in remote_ids} == {"completed"})
    finally:
        workers.stop()
    assert len(server.tasks) == 4


def test_what_a_model_can_be_asked_for_depends_on_its_provider(
    database: Database, remote_scenario: PhotographedProduct, server: ComputeServer
) -> None:
    source = factories.make_prediction(
        factories.make_generation(remote_scenario.shot, status="completed"), media_id=remote_scenario.media.id
    )
    asked = {"shot_id": None, "source_prediction_id": source.id, "batch_size": 1}
    caller = factories.build_caller(remote_scenario.owner, {remote_scenario.organization: "owner"})

    def ask(strategy: str) -> Generation:
        with database.transaction(write=True), caller_context(caller, None):
            wanted = {**asked, "generation_strategy": strategy}
            return request_generation(wanted, remote_scenario.organization.id, None)

    for strategy in ("EDITING", "FACE_FIXING", "REFINE"):
        assert ask(strategy).inputs["model"]["provider"] == "COMPUTE"
    with pytest.raises(StrategyNotSupported):
        ask("VIDEO")
    use_compute(remote_scenario, server, provider="LOCAL_STUDIO")
    with pytest.raises(StrategyNotSupported):
        ask("EDITING")
