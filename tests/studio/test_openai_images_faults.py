"""Test that generations end, wait or use the fallback when a server with an Images API misbehaves."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from email.utils import formatdate
from typing import Any

import pytest
from PIL import Image

from db.base import utc_now
from db.session import Database
from studio.cutouts import photos
from studio.generations.worker import images
from studio.generations.worker.image_edits import check_image
from studio.generations.worker.remote import PROVIDER_ERROR
from studio.infrastructure.http_client import SafeHttpClient
from studio.infrastructure.storage import LocalDisk
from studio.providers import openai_images_client
from studio.providers.openai_images import EditRequest, ImagesConfig, ImagesUnavailable, RequestRejected
from studio.providers.openai_images import ImagesServer as ServerSettings
from studio.providers.openai_images_client import ImagesClient, RateLimited, ReceivedImage, ServerFailed
from studio.rendering import cut_out_product
from studio.rendering.model import FRAMED_CROP
from tests.studio.compute_fixtures import (
    assert_refunded,
    list_predictions,
    load_generation,
    update_generation,
)
from tests.studio.images_fixtures import assert_failed, run_generation, running_executor, use_images
from tests.studio.test_compute import cancel
from tests.studio.test_compute_faults import INVALID_IMAGES
from tests.support.scenarios import PhotographedProduct, create_pending_generation
from tests.support.servers.compute import json_response
from tests.support.servers.images import (
    KEY,
    ImagesRequest,
    ImagesServer,
    error_response,
    images_response,
    paint,
    run_images_server,
)
from tools.servers.http_recorder import StubResponse, run_http_recorder

pytestmark = pytest.mark.usefixtures("color_masks")

RELEASED = threading.Event()
REQUEST = EditRequest("a bag", "", (64, 64), 1, [paint((64, 64))])


@pytest.fixture
def images_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ImagesServer]:
    """Yield a running server; generations that wait for it are due at once."""
    monkeypatch.setattr(images, "MIN_RETRY_SECONDS", 0.0)
    with run_images_server() as running:
        yield running


def hang(connection: Any) -> None:
    """Send the start of a response and then nothing."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
    RELEASED.wait(3)


REJECTIONS = {
    "wrong key": error_response(401, "invalid_api_key"),
    "unknown parameter": error_response(400, "unknown_parameter"),
    "a framework's error": json_response({"detail": "Invalid size format"}, 422),
    "no credit": error_response(429, "insufficient_quota", "insufficient_quota"),
    "credit limit": error_response(400, "billing_hard_limit_reached"),
    "payment required": StubResponse(402),
    "a redirect": StubResponse(302, headers={"Location": "http://169.254.169.254/"}),
}
FAILURES = {
    "500": error_response(500, "server_error"),
    "503 without a body": StubResponse(503),
    "truncated JSON": StubResponse(200, b'{"data": [{"b64_json": "aGFsZg=='),
    "deep JSON": StubResponse(200, b"[" * 100_000),
    "not an object": json_response([]),
    "no images": json_response({"data": []}),
    "no data": json_response({"created": 1}),
    "an entry that is no object": json_response({"data": ["aGFsZg=="]}),
    "an entry without an image": json_response({"data": [{"revised_prompt": "a bag"}]}),
    "invalid base64": json_response({"data": [{"b64_json": "a?="}]}),
    "a URL that is no text": json_response({"data": [{"url": {"a": 1}}]}),
    "closes the connection": StubResponse(write=lambda connection: connection.close()),
    "hangs": StubResponse(write=hang),
}


def build_client(server: ImagesServer, **config: str) -> tuple[ImagesClient, ImagesConfig]:
    """Return a client that may connect to the server, and the configuration of its model."""
    entries = ImagesConfig.from_config({**server.config, **config}, ServerSettings())
    return ImagesClient(SafeHttpClient([server.server.host])), entries


@pytest.mark.parametrize("name", REJECTIONS)
def test_a_rejected_request_is_no_failure_of_the_server(name: str, images_server: ImagesServer) -> None:
    client, config = build_client(images_server)
    images_server.permanent_response = REJECTIONS[name]
    with pytest.raises(RequestRejected) as error:
        client.render(config, REQUEST, 1, "key")
    assert (error.value.max_failures, KEY in str(error.value)) == (0, False)


@pytest.mark.parametrize("name", FAILURES)
def test_an_unusable_response_is_a_failure_of_the_server(name: str, images_server: ImagesServer) -> None:
    client, config = build_client(images_server, timeout_seconds="1" if name == "hangs" else "30")
    images_server.permanent_response = FAILURES[name]
    with pytest.raises(ServerFailed) as error:
        client.render(config, REQUEST, 1, "key")
    assert KEY not in str(error.value)


@pytest.mark.parametrize(
    ("response", "requests"),
    [
        (error_response(401, "invalid_api_key"), 1),
        (images_response(paint((384, 256))), 1),
        (error_response(500, "server_error"), 3),
        (images_response(INVALID_IMAGES["bomb"]), 3),
    ],
)
def test_a_failed_server_is_asked_three_times_and_a_rejected_request_is_not_repeated(
    response: StubResponse,
    requests: int,
    database: Database,
    storage: LocalDisk,
    scenario: PhotographedProduct,
    images_server: ImagesServer,
) -> None:
    use_images(scenario, images_server)
    images_server.permanent_response = response
    generation_id = run_generation(database, storage, scenario, images_server, batch_size=1)
    assert_refunded(database, scenario, generation_id)
    assert list_predictions(database, generation_id) == []
    assert load_generation(database, generation_id).attempts == 1
    assert len(images_server.requests) == requests


@pytest.mark.parametrize("name", ["svg", "bomb", "broken"])
def test_bytes_that_are_no_image_are_not_decoded(name: str) -> None:
    received = ReceivedImage(INVALID_IMAGES[name], {}, 1)
    with pytest.raises(ServerFailed, match="not a usable image"):
        check_image(received)


def test_a_response_that_is_too_large_is_not_requested_again(
    images_server: ImagesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_images_client, "_MAX_RESPONSE_BYTES", 10_000)
    client, config = build_client(images_server)
    images_server.permanent_response = StubResponse(200, b" " * 20_000)
    # The server would charge for the same images again.
    with pytest.raises(RequestRejected, match="10000 bytes"):
        client.render(config, REQUEST, 1, "key")


@pytest.mark.parametrize("code", ["moderation_blocked", "contentFilter"])
def test_rejected_content_fails_the_generation_without_charge_and_without_fallback(
    code: str,
    database: Database,
    storage: LocalDisk,
    scenario: PhotographedProduct,
    images_server: ImagesServer,
) -> None:
    scenario.model.fallback_provider = "LOCAL_STUDIO"
    use_images(scenario, images_server)
    images_server.permanent_response = error_response(400, code, "image_generation_user_error")
    generation_id = run_generation(database, storage, scenario, images_server, extra_prompt="refuse this")
    assert_failed(database, generation_id, images.REJECTED_ERROR)
    assert len(images_server.requests) == 1


def test_a_generation_waits_as_long_as_a_rate_limit_says_and_holds_no_worker(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct, images_server: ImagesServer
) -> None:
    use_images(scenario, images_server)
    images_server.next_responses.append(
        error_response(429, "rate_limit_exceeded", headers={"Retry-After": "90"})
    )
    with running_executor(database, storage, images_server) as executor:
        generation_id = create_pending_generation(database, scenario, batch_size=1)
        started = utc_now()
        assert executor.run_next()
        parked = load_generation(database, generation_id)
        assert (parked.status, parked.lease_owner, parked.remote_failures) == ("running", None, 1)
        assert parked.lease_expires_at is not None
        wait = parked.lease_expires_at - started
        assert timedelta(seconds=90) <= wait <= timedelta(seconds=130)
        assert not executor.run_next()
        update_generation(database, generation_id, lease_expires_at=utc_now() - timedelta(seconds=1))
        assert executor.run_next()
    done = load_generation(database, generation_id)
    assert (done.status, done.attempts, len(list_predictions(database, generation_id))) == ("completed", 1, 1)


def test_a_generation_that_waits_can_be_canceled(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct, images_server: ImagesServer
) -> None:
    use_images(scenario, images_server)
    images_server.permanent_response = error_response(429, None, headers={"Retry-After": "90"})
    with running_executor(database, storage, images_server) as executor:
        generation_id = create_pending_generation(database, scenario)
        assert executor.run_next()
        cancel(database, generation_id)
        assert executor.run_next()
    assert load_generation(database, generation_id).status == "canceled"
    assert len(images_server.requests) == 1


def test_a_generation_that_is_canceled_between_two_requests_sends_no_further_one(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct, images_server: ImagesServer
) -> None:
    use_images(scenario, images_server, max_images_per_request="1")

    def cancel_meanwhile(request: ImagesRequest) -> StubResponse:
        cancel(database, generation_id)
        return images_response(paint(request.size))

    images_server.next_responses.append(cancel_meanwhile)
    with running_executor(database, storage, images_server) as executor:
        generation_id = create_pending_generation(database, scenario, batch_size=2)
        assert executor.run_next()
    assert load_generation(database, generation_id).status == "canceled"
    assert len(images_server.requests) == 1


def test_the_local_studio_takes_over_from_a_failed_server(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct, images_server: ImagesServer
) -> None:
    scenario.model.fallback_provider = "LOCAL_STUDIO"
    use_images(scenario, images_server)
    images_server.permanent_response = error_response(401, "invalid_api_key")
    generation_id = run_generation(database, storage, scenario, images_server, extra_prompt="on a beach")
    provenance = list_predictions(database, generation_id)[0].provenance
    assert (provenance["provider"], provenance["settings"]["fallback_of"]) == (
        "LOCAL_STUDIO",
        "OPENAI_IMAGES",
    )
    assert provenance["ignored_inputs"] == ["extra_prompt"]


def test_a_product_without_a_clear_outline_is_not_sent(
    database: Database,
    storage: LocalDisk,
    scenario: PhotographedProduct,
    images_server: ImagesServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_images(scenario, images_server)
    framed = replace(cut_out_product(Image.new("RGB", (64, 64)), 64), method=FRAMED_CROP)
    monkeypatch.setattr(photos, "cut_out_photo", lambda *_: framed)
    generation_id = run_generation(database, storage, scenario, images_server)
    assert_failed(database, generation_id, images.NOT_CUT_OUT_ERROR)
    assert images_server.requests == []


@pytest.mark.parametrize("by_redirect", [False, True])
def test_an_image_is_not_fetched_from_a_host_that_is_not_allowed(
    by_redirect: bool,
    database: Database,
    storage: LocalDisk,
    scenario: PhotographedProduct,
    images_server: ImagesServer,
) -> None:
    use_images(scenario, images_server)
    with run_http_recorder(lambda request: StubResponse(body=paint((64, 64)))) as canary:
        url = f"{canary.url}/secret"
        if by_redirect:
            images_server.files["/image.png"] = StubResponse(302, headers={"Location": url})
            url = f"{images_server.server.url}/image.png"
        images_server.permanent_response = json_response({"data": [{"url": url}]})
        generation_id = run_generation(database, storage, scenario, images_server, batch_size=1)
        assert canary.requests == []
    assert_failed(database, generation_id, PROVIDER_ERROR)


def test_an_image_is_fetched_from_its_url_without_the_key(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct, images_server: ImagesServer
) -> None:
    use_images(scenario, images_server)
    images_server.files["/generated/1.png"] = StubResponse(body=paint((256, 384)))
    url = f"{images_server.server.url}/generated/1.png"
    images_server.permanent_response = json_response({"data": [{"url": url}], "usage": "none"})
    generation_id = run_generation(database, storage, scenario, images_server, batch_size=1)
    assert load_generation(database, generation_id).status == "completed"
    download = images_server.server.requests[-1]
    assert (download.method, download.headers.get("authorization")) == ("GET", None)
    assert "usage" not in list_predictions(database, generation_id)[0].provenance["settings"]


def test_credentials_and_texts_of_the_server_are_not_logged(
    database: Database,
    storage: LocalDisk,
    scenario: PhotographedProduct,
    images_server: ImagesServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    use_images(scenario, images_server)
    for response in (error_response(401, "invalid_api_key"), error_response(500, f"key {KEY}")):
        images_server.permanent_response = response
        with caplog.at_level(logging.DEBUG):
            generation_id = run_generation(database, storage, scenario, images_server, batch_size=1)
        assert KEY not in json.dumps(load_generation(database, generation_id).error)
    assert "HTTP 401 invalid_api_key" in caplog.text
    assert KEY not in caplog.text


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("7", 7.0, 7.0),
        ("999999", 600.0, 600.0),
        (formatdate(time.time() + 3600, usegmt=True), 600.0, 600.0),
        (formatdate(time.time() - 60, usegmt=True), 0.0, 0.0),
    ],
    ids=["seconds", "too long", "date", "past date"],
)
def test_the_time_of_a_rate_limit_is_bounded(
    value: str, least: float, most: float, images_server: ImagesServer
) -> None:
    client, config = build_client(images_server)
    images_server.permanent_response = error_response(429, None, headers={"Retry-After": value})
    with pytest.raises(RateLimited) as error:
        client.render(config, REQUEST, 1, "key")
    assert error.value.retry_after is not None
    assert least <= error.value.retry_after <= most


@pytest.mark.parametrize("value", ["", "soon", "-5", "1e9"])
def test_a_time_that_is_none_is_ignored(value: str, images_server: ImagesServer) -> None:
    client, config = build_client(images_server)
    images_server.permanent_response = error_response(429, None, headers={"Retry-After": value})
    with pytest.raises(RateLimited) as error:
        client.render(config, REQUEST, 1, "key")
    assert error.value.retry_after is None


def test_the_circuit_opens_for_a_failed_server_but_not_for_rate_limits(images_server: ImagesServer) -> None:
    client, config = build_client(images_server)
    for status, is_open in ((429, False), (500, True)):
        images_server.permanent_response = StubResponse(status)
        for _ in range(openai_images_client.CIRCUIT_FAILURE_THRESHOLD):
            with pytest.raises(ImagesUnavailable, match=str(status)):
                client.render(config, REQUEST, 1, "key")
        requests = len(images_server.requests)
        with pytest.raises(ImagesUnavailable):
            client.render(config, REQUEST, 1, "key")
        assert (len(images_server.requests) == requests) == is_open
