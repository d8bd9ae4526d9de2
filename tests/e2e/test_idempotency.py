"""Tests of Idempotency-Key with real servers: concurrent requests, and a server that crashes in between."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.e2e.crashing_server import CRASH_BEFORE_COMMIT, CRASH_BEFORE_RESPONSE
from tests.support.concurrency import run_concurrently
from tools.demo import EMAIL, PASSWORD, Api
from tools.servers.server import RunningServer, running_server, wait_until_ready

SEEDED = "01990000-5eed-7000-8000-"
ORGANIZATION, PRODUCT = f"{SEEDED}000200000001", f"{SEEDED}000500000001"
KEY = "8e03978e-40d5-43e8-bc93-6894a57f9324"
SENDS = 20
SECONDS_TO_WAIT = 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that two keys crash."""
    folder: Path = tmp_path_factory.mktemp("crashing")
    with running_server(folder, "tests.e2e.crashing_server", RENDER_WORKERS="0") as running:
        yield running


@pytest.fixture
def api(server: RunningServer) -> Iterator[Api]:
    """A signed-in client of the crashing server."""
    with Api(server.origin) as client:
        client.sign_in(EMAIL, PASSWORD)
        yield client


def send(api: Api, path: str, body: object, key: str = KEY) -> httpx.Response:
    return api.client.post(path, json=body, headers={"Idempotency-Key": key})


def send_until_completed(api: Api, path: str, body: object, key: str = KEY) -> httpx.Response:
    """Repeat the request while the first one is in progress; return its response."""
    deadline = time.monotonic() + SECONDS_TO_WAIT
    while time.monotonic() < deadline:
        response = send(api, path, body, key)
        if response.status_code != 409:
            return response
        assert response.json()["code"] == "idempotency_key_in_progress", response.text
        time.sleep(0.1)
    raise AssertionError(f"still in progress after {SECONDS_TO_WAIT} s: {response.text}")


def credits_used(api: Api) -> int:
    return sum(plan["credits_used"] for plan in api.get("/subscriptions/")["data"])


@pytest.mark.slow("it starts two servers")
def test_s20_twenty_concurrent_requests_create_and_charge_one_generation(api: Api) -> None:
    path, used = f"/generations/?organization_id={ORGANIZATION}", credits_used(api)
    body = {"product_id": PRODUCT, "batch_size": 2, "width": 64, "height": 64}
    before = api.get("/generations/", organization_id=ORGANIZATION)["count"]
    responses = run_concurrently(*[partial(send, api, path, body)] * SENDS)
    responses.append(send_until_completed(api, path, body))
    accepted = [response for response in responses if response.status_code == 202]
    rejected = [response for response in responses if response.status_code != 202]
    assert {response.content for response in accepted} == {responses[-1].content}
    assert sum("Idempotency-Replayed" not in response.headers for response in accepted) == 1
    assert {response.json()["code"] for response in rejected} <= {"idempotency_key_in_progress"}
    assert api.get("/generations/", organization_id=ORGANIZATION)["count"] == before + 1
    assert credits_used(api) == used + 2


@pytest.mark.slow("it starts three servers")
def test_a_server_killed_before_or_after_its_commit_applies_the_change_once(
    api: Api, server: RunningServer
) -> None:
    for key, committed in ((CRASH_BEFORE_COMMIT, 0), (CRASH_BEFORE_RESPONSE, 1)):
        with pytest.raises(httpx.TransportError):
            send(api, "/products/", {"name": key}, key)
        wait_until_ready(server)
        assert api.get("/products/", q=key)["count"] == committed
    for key, is_replay in ((CRASH_BEFORE_COMMIT, False), (CRASH_BEFORE_RESPONSE, True)):
        response = send_until_completed(api, "/products/", {"name": key}, key)
        assert (response.status_code, response.json()["name"]) == (201, key)
        assert ("Idempotency-Replayed" in response.headers) == is_replay
        rows = api.get("/products/", q=key)["data"]
        assert [row["id"] for row in rows] == [response.json()["id"]]
