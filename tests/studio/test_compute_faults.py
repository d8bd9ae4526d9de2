"""Test that generations end, are refunded or use the fallback provider when a Compute API fails."""

from __future__ import annotations

import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from db.base import utc_now
from db.session import Database
from studio.generations.worker import remote
from studio.generations.worker.executor import GenerationExecutor
from studio.infrastructure.http_client import SafeHttpClient
from studio.infrastructure.storage import LocalDisk
from studio.providers import compute
from tests.studio.compute_fixtures import (
    assert_refunded,
    list_predictions,
    load_generation,
    update_generation,
    use_compute,
)
from tests.support.queues import build_worker
from tests.support.scenarios import PhotographedProduct, create_pending_generation
from tests.support.servers.compute import ComputeServer, StubResponse, json_response, run_compute_server
from tools.servers.http_recorder import run_http_recorder

HANG_RELEASED = threading.Event()
OPEN_SECONDS = 0.5


def hang_connection(connection: Any) -> None:
    HANG_RELEASED.wait(2)


BROKEN_RESPONSES = {
    "500": StubResponse(500),
    "not JSON": StubResponse(200, b"<html>"),
    "not an object": json_response([]),
    "no id": json_response({"status": "pending"}),
    "an id that is not a string": json_response({"id": {"a": 1}, "status": "pending"}),
    "unauthorized": json_response({}, 401),
    "rejected": json_response({}, 422),
    "a redirect": StubResponse(302, headers={"Location": "http://169.254.169.254/"}),
    "hangs": StubResponse(write=hang_connection),
    "closes the connection": StubResponse(write=lambda connection: connection.close()),
    "too large": StubResponse(200, b" " * 2_000_000),
}


def test_a_generation_that_the_provider_does_not_accept_fails_and_is_refunded(
    database: Database,
    remote_scenario: PhotographedProduct,
    server: ComputeServer,
    storage: LocalDisk,
    monkeypatch: pytest.MonkeyPatch,
    subtests: pytest.Subtests,
) -> None:
    for fault, response in BROKEN_RESPONSES.items():
        monkeypatch.setattr(compute, "REQUEST_TIMEOUT_SECONDS", 0.2 if fault == "hangs" else 10)
        server.permanent_fault = response
        # One executor for each fault: an open circuit would hide the next fault.
        executor = GenerationExecutor(
            build_worker(database, storage), 1, http_client=SafeHttpClient([server.server.host])
        )
        with subtests.test(fault):
            generation_id = create_pending_generation(database, remote_scenario)
            assert executor.run_next()
            assert_refunded(database, remote_scenario, generation_id)
            assert not executor.run_next()
        executor.close()


def test_a_generation_is_refunded_if_the_base_url_of_its_model_is_missing_or_not_allowed(
    database: Database,
    remote_scenario: PhotographedProduct,
    server: ComputeServer,
    executor: GenerationExecutor,
    subtests: pytest.Subtests,
) -> None:
    config: Any
    for config in (None, {}, {"base_url": "http://127.0.0.1:1/"}, {"base_url": "nonsense"}):
        use_compute(remote_scenario, server, provider_config=config)
        with subtests.test(str(config)):
            generation_id = create_pending_generation(database, remote_scenario)
            assert executor.run_next()
            assert_refunded(database, remote_scenario, generation_id)


def test_temporary_errors_of_the_provider_are_retried(
    database: Database,
    remote_scenario: PhotographedProduct,
    server: ComputeServer,
    executor: GenerationExecutor,
) -> None:
    server.next_faults.extend([StubResponse(500), StubResponse(200, b"{")])
    generation_id = create_pending_generation(database, remote_scenario)
    assert executor.run_next()
    assert len(server.tasks) == 1
    server.next_faults.extend([StubResponse(503)] * compute.MAX_ATTEMPTS)
    assert executor.run_next()
    assert load_generation(database, generation_id).remote_failures == 1
    server.finish()
    assert executor.run_next()
    assert load_generation(database, generation_id).status == "completed"


def test_a_generation_is_refunded_after_the_maximum_of_failed_polls(
    database: Database,
    remote_scenario: PhotographedProduct,
    server: ComputeServer,
    executor: GenerationExecutor,
) -> None:
    generation_id = create_pending_generation(database, remote_scenario)
    assert executor.run_next()
    server.permanent_fault = StubResponse(500)
    for _ in range(remote.MAX_FAILURES):
        assert load_generation(database, generation_id).status == "running"
        assert executor.run_next()
    assert_refunded(database, remote_scenario, generation_id)


def test_the_fallback_provider_runs_the_generation_and_the_provenance_names_both(
    database: Database,
    remote_scenario: PhotographedProduct,
    server: ComputeServer,
    executor: GenerationExecutor,
) -> None:
    use_compute(remote_scenario, server, fallback_provider="LOCAL_STUDIO")
    server.permanent_fault = StubResponse(500)
    generation_id = create_pending_generation(database, remote_scenario, extra_prompt="on a beach")
    assert executor.run_next()
    pending = load_generation(database, generation_id)
    assert (pending.status, pending.fallen_back, pending.cost_credits) == ("pending", True, 2)
    assert executor.run_next()
    provenance = list_predictions(database, generation_id)[0].provenance
    assert (provenance["provider"], provenance["settings"]["fallback_of"]) == ("LOCAL_STUDIO", "COMPUTE")
    assert provenance["ignored_inputs"] == ["extra_prompt"]


def test_another_compute_api_can_be_the_fallback(
    database: Database, remote_scenario: PhotographedProduct, server: ComputeServer, storage: LocalDisk
) -> None:
    with run_compute_server() as second:
        use_compute(
            remote_scenario, server, fallback_provider="COMPUTE", fallback_provider_config=second.config
        )
        server.permanent_fault = StubResponse(500)
        generation_id = create_pending_generation(database, remote_scenario)
        executor = GenerationExecutor(
            build_worker(database, storage),
            1,
            http_client=SafeHttpClient([server.server.host, second.server.host]),
        )
        for _ in range(2):
            assert executor.run_next()
        second.finish()
        assert executor.run_next()
        executor.close()
        assert load_generation(database, generation_id).status == "completed"


@pytest.fixture
def config(server: ComputeServer) -> compute.ComputeConfig:
    """Return the provider settings of a model that uses `server`."""
    return compute.ComputeConfig.from_config(server.config)


@pytest.fixture
def client(server: ComputeServer, monkeypatch: pytest.MonkeyPatch) -> compute.ComputeClient:
    """Return a client whose circuits stay open for half a second."""
    monkeypatch.setattr(compute, "CIRCUIT_OPEN_SECONDS", OPEN_SECONDS)
    return compute.ComputeClient(SafeHttpClient([server.server.host]))


def open_circuit(client: compute.ComputeClient, config: compute.ComputeConfig, server: ComputeServer) -> None:
    """Make requests fail until the circuit of the provider is open."""
    server.permanent_fault = StubResponse(500)
    for _ in range(2):
        with pytest.raises(compute.ComputeUnavailable):
            client.get_task(config, "task_0")
    assert len(server.server.requests) == compute.CIRCUIT_FAILURE_THRESHOLD


def test_an_open_circuit_sends_no_requests_until_the_next_probe(
    server: ComputeServer, client: compute.ComputeClient, config: compute.ComputeConfig
) -> None:
    open_circuit(client, config, server)
    requests = len(server.server.requests)
    for _ in range(5):
        with pytest.raises(compute.ComputeUnavailable, match="circuit"):
            client.get_task(config, "task_0")
    assert len(server.server.requests) == requests
    server.permanent_fault = None
    time.sleep(OPEN_SECONDS)
    # A task that the provider does not know proves that the provider works: the circuit closes.
    for _ in range(2):
        with pytest.raises(compute.TaskNotFound):
            client.get_task(config, "task_0")


def test_a_probe_that_fails_opens_the_circuit_again(
    server: ComputeServer, client: compute.ComputeClient, config: compute.ComputeConfig
) -> None:
    open_circuit(client, config, server)
    time.sleep(OPEN_SECONDS)
    requests = len(server.server.requests)
    for _ in range(3):
        with pytest.raises(compute.ComputeUnavailable):
            client.get_task(config, "task_0")
    assert len(server.server.requests) == requests + 1


@pytest.mark.parametrize("succeeds", [True, False])
def test_one_request_probes_a_provider_while_the_others_are_rejected_at_once(
    server: ComputeServer, client: compute.ComputeClient, config: compute.ComputeConfig, succeeds: bool
) -> None:
    open_circuit(client, config, server)
    time.sleep(OPEN_SECONDS)
    requests = len(server.server.requests)
    arrived, released = threading.Event(), threading.Event()

    def hold(connection: Any) -> None:
        arrived.set()
        released.wait(5)
        status = b"404 Not Found" if succeeds else b"500 Internal Server Error"
        connection.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        connection.close()

    server.permanent_fault = StubResponse(write=hold)
    with ThreadPoolExecutor(1) as pool:
        probe = pool.submit(client.get_task, config, "task_0")
        assert arrived.wait(5)
        for _ in range(5):
            with pytest.raises(compute.ComputeUnavailable, match="circuit"):
                client.get_task(config, "task_0")
        assert len(server.server.requests) == requests + 1
        server.permanent_fault = None
        released.set()
        assert isinstance(probe.exception(5), compute.TaskNotFound) == succeeds
    with pytest.raises(compute.ComputeUnavailable) as error:
        client.get_task(config, "task_0")
    assert isinstance(error.value, compute.TaskNotFound) == succeeds


def test_each_provider_has_a_separate_circuit(server: ComputeServer, config: compute.ComputeConfig) -> None:
    with run_compute_server() as second:
        client = compute.ComputeClient(SafeHttpClient([server.server.host, second.server.host]))
        open_circuit(client, config, server)
        with pytest.raises(compute.ComputeUnavailable, match="circuit"):
            client.get_task(config, "task_0")
        with pytest.raises(compute.TaskNotFound):
            client.get_task(compute.ComputeConfig.from_config(second.config), "task_0")


def test_a_rejected_request_does_not_count_as_a_failure_of_the_provider(
    server: ComputeServer, client: compute.ComputeClient, config: compute.ComputeConfig
) -> None:
    server.permanent_fault = json_response({}, 422)
    for _ in range(compute.CIRCUIT_FAILURE_THRESHOLD + 1):
        with pytest.raises(compute.TaskRejected, match="422"):
            client.get_task(config, "task_0")


def test_a_task_that_the_provider_has_lost_is_refunded(
    database: Database,
    remote_scenario: PhotographedProduct,
    server: ComputeServer,
    executor: GenerationExecutor,
) -> None:
    generation_id = create_pending_generation(database, remote_scenario)
    assert executor.run_next()
    server.tasks.clear()
    assert executor.run_next()
    assert_refunded(database, remote_scenario, generation_id)


@pytest.mark.parametrize("status", ["failed", "canceled"])
def test_a_task_that_ends_without_images_is_refunded(
    status: str,
    database: Database,
    remote_scenario: PhotographedProduct,
    server: ComputeServer,
    executor: GenerationExecutor,
) -> None:
    generation_id = create_pending_generation(database, remote_scenario)
    assert executor.run_next()
    server.task.status = status
    assert executor.run_next()
    assert_refunded(database, remote_scenario, generation_id)


def test_a_task_is_canceled_after_its_maximum_duration(
    database: Database,
    remote_scenario: PhotographedProduct,
    server: ComputeServer,
    executor: GenerationExecutor,
) -> None:
    generation_id = create_pending_generation(database, remote_scenario)
    assert executor.run_next()
    update_generation(database, generation_id, started_at=utc_now() - 2 * remote.MAX_TASK_DURATION)
    server.task.status = "running"
    assert executor.run_next()
    assert server.task.status == "canceled"
    assert_refunded(database, remote_scenario, generation_id)


def build_bomb() -> bytes:
    """Return a PNG file of a few bytes that declares 900 megapixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


INVALID_IMAGES = {
    "svg": b"<svg/>",
    "empty": b"",
    "bomb": build_bomb(),
    "broken": b"\xff\xd8\xff" + b"\0" * 100,
}


def test_a_result_that_is_not_a_valid_image_fails_the_generation(
    database: Database,
    remote_scenario: PhotographedProduct,
    server: ComputeServer,
    executor: GenerationExecutor,
    subtests: pytest.Subtests,
) -> None:
    for name, data in INVALID_IMAGES.items():
        server.tasks.clear()
        with subtests.test(name):
            generation_id = create_pending_generation(database, remote_scenario)
            assert executor.run_next()
            server.image_response = StubResponse(body=data)
            server.finish()
            assert executor.run_next()
            assert_refunded(database, remote_scenario, generation_id)
            assert list_predictions(database, generation_id) == []


def test_a_completed_task_with_missing_images_is_refunded(
    database: Database,
    remote_scenario: PhotographedProduct,
    server: ComputeServer,
    executor: GenerationExecutor,
    subtests: pytest.Subtests,
) -> None:
    images: Any
    for images in (None, [], [{"url": None}], [{}, {}], "images"):
        server.tasks.clear()
        with subtests.test(str(images)):
            generation_id = create_pending_generation(database, remote_scenario)
            assert executor.run_next()
            server.finish(images=images)
            while executor.run_next():
                pass
            assert_refunded(database, remote_scenario, generation_id)


@pytest.mark.parametrize("by_redirect", [False, True])
def test_an_image_is_not_fetched_from_a_host_that_is_not_allowed(
    by_redirect: bool,
    database: Database,
    remote_scenario: PhotographedProduct,
    server: ComputeServer,
    executor: GenerationExecutor,
) -> None:
    with run_http_recorder(lambda request: server.image_response) as canary:
        generation_id = create_pending_generation(database, remote_scenario)
        assert executor.run_next()
        internal_url = f"{canary.url}/secret"
        if by_redirect:
            server.image_response = StubResponse(302, headers={"Location": internal_url})
            server.finish()
        else:
            server.finish(images=[{"url": internal_url, "seed": 1}] * 2)
        while executor.run_next():
            pass
        assert canary.requests == []
    assert_refunded(database, remote_scenario, generation_id)
