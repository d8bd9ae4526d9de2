"""Test generations that a Compute API renders: polling, idempotent submission, cancellation and callbacks."""

from __future__ import annotations

import io
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from PIL import Image
from sqlalchemy import select

from db.base import utc_now
from db.caller import caller_context
from db.models import Generation
from db.session import Database, current_session
from studio.generations.inputs import StrategyNotSupported
from studio.generations.lifecycle import cancel_generation
from studio.generations.worker import polling, queue, remote
from studio.generations.worker.executor import GenerationExecutor, GenerationWorkers
from studio.infrastructure.http_client import SafeHttpClient
from studio.infrastructure.storage import LocalDisk, media_key
from studio.infrastructure.telemetry.context import new_trace, parse_traceparent, use_trace
from studio.providers import compute
from tests.studio.compute_fixtures import (
    TOOLS,
    list_predictions,
    load_generation,
    update_generation,
    use_compute,
)
from tests.studio.conftest import CommittingStudio
from tests.support import factories
from tests.support.concurrency import wait_for
from tests.support.digital_source_types import (
    VOCABULARY,
    build_foreign_packet,
    encode_with_packet,
    read_source_type,
)
from tests.support.queues import build_worker, keep_lease
from tests.support.scenarios import (
    HEIGHT,
    WIDTH,
    PhotographedProduct,
    create_pending_generation,
    request_generation,
)
from tests.support.servers.compute import ComputeServer, StubResponse, small_image


def test_a_compute_api_renders_the_requested_images_and_occupies_no_worker_between_polls(
    database: Database,
    remote_scenario: PhotographedProduct,
    server: ComputeServer,
    executor: GenerationExecutor,
) -> None:
    generation_id = create_pending_generation(database, remote_scenario, extra_prompt="on a beach", steps=12)
    assert executor.run_next()
    parked = load_generation(database, generation_id)
    assert (parked.status, parked.lease_owner, parked.remote_task_id) == ("running", None, "task_0")
    request = server.task.request
    assert (request["entity_id"], request["num_outputs"], request["steps"]) == (str(generation_id), 2, 12)
    assert (request["width"], request["height"], request["seed"]) == (WIDTH, HEIGHT, 7)
    assert request["prompt"].endswith("on a beach")
    assert request["input_image_url"].startswith("data:image/jpeg;base64,")
    server.task.status, server.task.progress = "running", 0.65
    assert executor.run_next()
    assert load_generation(database, generation_id).progress == 65
    server.finish()
    assert executor.run_next()
    done = load_generation(database, generation_id)
    assert (done.status, done.progress, done.attempts, done.cost_credits) == ("completed", 100, 1, 2)
    predictions = list_predictions(database, generation_id)
    assert [(one.seed, one.width, one.height, one.content_type) for one in predictions] == [
        (100, WIDTH, HEIGHT, "image/webp"),
        (101, WIDTH, HEIGHT, "image/webp"),
    ]
    provenance = predictions[0].provenance
    assert (provenance["provider"], provenance["ignored_inputs"]) == ("COMPUTE", [])
    assert provenance["digital_source_type"] == "trainedAlgorithmicMedia"
    assert 0 < predictions[0].quality["score"] <= 1
    assert not executor.run_next()


@pytest.mark.parametrize(
    ("marked", "stored"),
    [
        ("compositeWithTrainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia"),
        ("algorithmicMedia", "algorithmicMedia"),
        # The provider copied the metadata of the photo that it got.
        ("digitalCapture", "trainedAlgorithmicMedia"),
    ],
)
def test_how_the_provider_says_that_it_made_an_image_is_kept_without_other_metadata(
    database: Database,
    storage: LocalDisk,
    remote_scenario: PhotographedProduct,
    server: ComputeServer,
    executor: GenerationExecutor,
    marked: str,
    stored: str,
) -> None:
    with Image.open(io.BytesIO(small_image())) as image:
        file = encode_with_packet(image, "PNG", build_foreign_packet(VOCABULARY + marked))
    server.image_response = StubResponse(body=file)
    generation_id = create_pending_generation(database, remote_scenario, batch_size=1)
    assert executor.run_next()
    server.finish()
    assert executor.run_next()
    (prediction,) = list_predictions(database, generation_id)
    assert prediction.provenance["digital_source_type"] == stored
    data = storage.read(media_key(prediction.media_id, "webp"))
    assert read_source_type(data) == stored
    assert b"Secret Town" not in data


def test_a_request_to_the_provider_continues_the_trace_of_the_generation(
    database: Database,
    remote_scenario: PhotographedProduct,
    server: ComputeServer,
    executor: GenerationExecutor,
) -> None:
    trace = new_trace()
    with use_trace(trace):
        create_pending_generation(database, remote_scenario)
    assert executor.run_next()
    sent = parse_traceparent(server.server.requests[0].headers["traceparent"])
    assert sent is not None
    assert (sent.trace_id, sent.span_id == trace.span_id) == (trace.trace_id, False)


class ProcessKilled(BaseException):
    """Raised to simulate that the process is killed; no `except Exception` catches it."""


def test_a_worker_killed_after_the_submission_creates_no_second_task(
    database: Database,
    remote_scenario: PhotographedProduct,
    server: ComputeServer,
    executor: GenerationExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generation_id = create_pending_generation(database, remote_scenario)

    def kill_process(*_: Any, **__: Any) -> bool:
        raise ProcessKilled

    with monkeypatch.context() as patch:
        patch.setattr(polling, "schedule_poll", kill_process)
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
    generation_id = create_pending_generation(database, remote_scenario)
    assert executor.run_next()
    update_generation(database, generation_id, lease_expires_at=utc_now() + timedelta(minutes=5))
    assert not executor.run_next()
    cancel(database, generation_id)
    assert queue.expire_overdue(database) == 0
    assert executor.run_next()
    assert (server.task.status, load_generation(database, generation_id).status) == ("canceled", "canceled")


def test_canceling_completes_although_the_provider_fails(
    database: Database,
    remote_scenario: PhotographedProduct,
    server: ComputeServer,
    executor: GenerationExecutor,
) -> None:
    generation_id = create_pending_generation(database, remote_scenario)
    assert executor.run_next()
    server.permanent_fault = StubResponse(500)
    cancel(database, generation_id)
    assert executor.run_next()
    assert load_generation(database, generation_id).status == "canceled"


def test_canceling_completes_although_no_worker_is_left(
    database: Database, remote_scenario: PhotographedProduct, executor: GenerationExecutor
) -> None:
    generation_id = create_pending_generation(database, remote_scenario)
    assert executor.run_next()
    cancel(database, generation_id)
    update_generation(database, generation_id, lease_expires_at=utc_now() - 2 * queue.CLEANUP_GRACE)
    assert queue.expire_overdue(database) == 1
    assert load_generation(database, generation_id).status == "canceled"


def test_a_task_past_its_deadline_is_canceled_and_its_credits_are_refunded(
    database: Database,
    remote_scenario: PhotographedProduct,
    server: ComputeServer,
    executor: GenerationExecutor,
) -> None:
    generation_id = create_pending_generation(database, remote_scenario)
    assert executor.run_next()
    update_generation(database, generation_id, deadline_at=utc_now())
    assert queue.expire_overdue(database) == 0
    assert executor.run_next()
    expired = load_generation(database, generation_id)
    assert (server.task.status, expired.status, expired.cost_credits) == ("canceled", "expired", 0)


def test_a_callback_makes_its_task_due_and_progress_never_decreases(
    database: Database,
    remote_scenario: PhotographedProduct,
    server: ComputeServer,
    executor: GenerationExecutor,
) -> None:
    generation_id = create_pending_generation(database, remote_scenario)
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
    after = load_generation(database, generation_id)
    assert (after.progress, after.revision) == (80, before + 1)
    assert executor.run_next()
    assert load_generation(database, generation_id).progress == 80


def test_a_callback_that_arrives_during_a_poll_makes_the_task_due_again(
    database: Database,
    remote_scenario: PhotographedProduct,
    server: ComputeServer,
    executor: GenerationExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generation_id = create_pending_generation(database, remote_scenario)
    assert executor.run_next()
    monkeypatch.setattr(remote, "MIN_POLL_SECONDS", 60.0)
    get_task = compute.ComputeClient.get_task

    def get_task_during_callback(*arguments: Any) -> compute.RemoteTask:
        task = get_task(*arguments)
        with database.transaction(write=True):
            polling.poll_now("task_0", generation_id, 50)
        return task

    with monkeypatch.context() as patch:
        patch.setattr(compute.ComputeClient, "get_task", get_task_during_callback)
        assert executor.run_next()
    assert load_generation(database, generation_id).progress == 50
    assert executor.run_next()
    assert not executor.run_next()


def test_a_long_step_keeps_its_lease(
    database: Database, remote_scenario: PhotographedProduct, executor: GenerationExecutor
) -> None:
    generation_id = create_pending_generation(database, remote_scenario)
    duration = timedelta(milliseconds=300)
    lease = queue.GENERATIONS.lease_next(database, duration)
    assert lease is not None
    worker = build_worker(database, lease_duration=duration)
    with keep_lease(worker, partial(queue.GENERATIONS.renew, database, lease, duration)):
        first = load_generation(database, generation_id).lease_expires_at
        wait_for(lambda: load_generation(database, generation_id).lease_expires_at > first + 2 * duration)


@pytest.mark.slow("it waits for a provider")
def test_remote_tasks_do_not_block_the_only_worker(
    committing_studio: CommittingStudio, server: ComputeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "MIN_POLL_SECONDS", 0.2)
    database, scenario = committing_studio.database, committing_studio.scenario
    with database.transaction(write=True):
        local_model = factories.make_generation_model()
        remote_model = factories.make_generation_model(
            provider="COMPUTE", provider_config=server.config, tool_types=TOOLS
        )
    caller = factories.build_caller(scenario.owner, {scenario.organization: "owner"})

    def request(model_id: UUID) -> UUID:
        params = {"product_id": scenario.product.id, "model_id": model_id, "width": 64, "height": 64}
        with database.transaction(write=True), caller_context(caller, None):
            return request_generation(params, scenario.organization.id, None).id

    remote_ids = [request(remote_model.id) for _ in range(4)]
    local_id = request(local_model.id)
    outbound = SafeHttpClient([server.server.host])
    workers = GenerationWorkers(build_worker(database, committing_studio.storage), 1, http_client=outbound)
    workers.start()
    try:
        wait_for(lambda: load_generation(database, local_id).status == "completed")
        assert {load_generation(database, one).status for one in remote_ids} == {"running"}
        for task in server.tasks.values():
            task.images = [{"url": f"{server.server.url}/images/0.jpg"}]
            task.status = "completed"
        wait_for(lambda: {load_generation(database, one).status for one in remote_ids} == {"completed"})
    finally:
        workers.stop()
    assert len(server.tasks) == 4


def test_the_strategies_of_a_model_depend_on_its_provider(
    database: Database, remote_scenario: PhotographedProduct, server: ComputeServer
) -> None:
    source = factories.make_prediction(
        factories.make_generation(remote_scenario.shot, status="completed"), media_id=remote_scenario.media.id
    )
    params = {"shot_id": None, "source_prediction_id": source.id, "batch_size": 1}
    caller = factories.build_caller(remote_scenario.owner, {remote_scenario.organization: "owner"})

    def request(strategy: str) -> Generation:
        with database.transaction(write=True), caller_context(caller, None):
            strategy_params = {**params, "generation_strategy": strategy}
            return request_generation(strategy_params, remote_scenario.organization.id, None)

    for strategy in ("EDITING", "FACE_FIXING", "REFINE"):
        assert request(strategy).inputs["model"]["provider"] == "COMPUTE"
    with pytest.raises(StrategyNotSupported):
        request("VIDEO")
    use_compute(remote_scenario, server, provider="LOCAL_STUDIO")
    with pytest.raises(StrategyNotSupported):
        request("EDITING")
