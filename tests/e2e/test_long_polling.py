"""Tests of long polling and event streams with real servers: two processes, time limits and shutdown."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import httpx
import httpx_sse
import pytest

from tests.e2e.generation_steps import prepare_look
from tools.demo import EMAIL, PASSWORD, Api
from tools.servers.server import RunningServer, running_server

NO_WORKERS = {"RENDER_WORKERS": "0"}
WAIT_SECONDS = 30
SECONDS_TO_COMPLETE = 150
"""The first generation of a process loads the renderer: 7 s of CPU, much longer on a busy machine."""


def create_signed_in_api(url: str) -> Api:
    api = Api(url)
    api.sign_in(EMAIL, PASSWORD)
    return api


def create_generation(api: Api) -> str:
    """Create a generation and return its path."""
    shot_id = prepare_look(api, 96, 128)["shots"][0]["id"]
    return f"/generations/{api.post(f'/shots/{shot_id}/generate', json={'num_predictions': 1})['id']}"


def wait_until_it_ends(api: Api, path: str) -> httpx.Response:
    """Wait with `Prefer` until a generation ends. A response before that has used its whole wait."""
    deadline = time.monotonic() + SECONDS_TO_COMPLETE
    while True:
        response = api.client.get(path, headers={"Prefer": f"wait={WAIT_SECONDS}"})
        if response.json()["status"] not in ("pending", "running") or time.monotonic() > deadline:
            return response
        assert response.headers["preference-applied"] == f"wait={WAIT_SECONDS}"


class StreamThread(threading.Thread):
    """A client that reads an event stream to its end; `began` is set at the first event."""

    def __init__(self, api: Api, path: str) -> None:
        super().__init__()
        self.api, self.path = api, path
        self.began, self.events = threading.Event(), []
        self.start()

    def run(self) -> None:
        """Read the stream."""
        with httpx_sse.connect_sse(self.api.client, "GET", f"{self.path}/events") as source:
            for event in source.iter_sse():
                self.events.append(event)
                self.began.set()

    def finish(self) -> list[Any]:
        """Return all events once the stream has ended."""
        self.join(30)
        assert not self.is_alive()
        return self.events


class LongPollThread(threading.Thread):
    """A client that waits for a generation with `Prefer`, longer than any server in these tests allows."""

    def __init__(self, server: RunningServer, api: Api, path: str) -> None:
        super().__init__()
        self.url, self.headers = server.url + path, {**api.client.headers, "Prefer": "wait=50"}
        self.response: httpx.Response | None = None
        self.start()

    def run(self) -> None:
        """Send the request."""
        self.response = httpx.get(self.url, headers=self.headers, timeout=60)

    def finish(self) -> httpx.Response:
        """Wait for the response and return it."""
        self.join(30)
        assert self.response is not None
        return self.response


@pytest.mark.slow("it starts two servers")
def test_changes_of_another_process_reach_waiting_clients(tmp_path: Path, own_database_url: str) -> None:
    with (
        running_server(tmp_path / "idle", DATABASE_URL=own_database_url, **NO_WORKERS) as idle,
        create_signed_in_api(idle.origin) as api,
    ):
        path = create_generation(api)
        following = StreamThread(api, path)
        assert following.began.wait(10)
        with running_server(
            tmp_path / "busy", DATABASE_URL=own_database_url, MEDIA_DIR=str(tmp_path / "idle" / "media")
        ):
            done = wait_until_it_ends(api, path)
            events = following.finish()
    assert done.json()["status"] == "completed"
    assert done.headers["preference-applied"].startswith("wait=")
    assert (events[0].event, events[0].json()["status"]) == ("status", "pending")
    assert (events[-1].event, events[-1].json()["status"]) == ("status", "completed")
    assert events[-1].json()["predictions_count"] == 1
    assert [int(event.id) for event in events] == sorted({int(event.id) for event in events})
    assert events[0].retry == 2_000


@pytest.mark.slow("it waits for limits of seconds")
def test_long_polls_and_streams_end_at_their_limit_and_on_shutdown(
    tmp_path: Path,
) -> None:
    limits = {"MAX_WAIT_SECONDS": "2", "SSE_MAX_SECONDS": "2"}
    with (
        running_server(tmp_path, **limits, **NO_WORKERS) as server,
        create_signed_in_api(server.origin) as api,
    ):
        path = create_generation(api)
        for ends_by_itself in (True, False):
            followers = [StreamThread(api, path) for _ in range(3)]
            waiting = LongPollThread(server, api, path)
            for follower in followers:
                assert follower.began.wait(10)
            began = time.monotonic()
            if not ends_by_itself:
                server.process.terminate()
                server.process.wait(15)
            assert [len(follower.finish()) for follower in followers] == [1, 1, 1]
            answer = waiting.finish()
            assert (answer.status_code, answer.json()["status"]) == (200, "pending")
            if ends_by_itself:
                assert answer.headers["preference-applied"] == "wait=2"
            assert time.monotonic() - began < 10
    assert "Traceback" not in server.log.read_text()
