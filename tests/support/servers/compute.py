"""A fake Compute API on the loopback interface. It follows the API's documentation and can inject faults."""

from __future__ import annotations

import io
import json
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from PIL import Image
from standardwebhooks import Webhook

from tools.servers.http_recorder import (
    HttpRecorder,
    RecordedRequest,
    StubResponse,
    run_http_recorder,
)
from tools.servers.server import COMPUTE_WEBHOOK_SECRET

BASE = "/api/v1"
KEY = "a key of the Compute API"


def small_image() -> bytes:
    """Return a JPEG of 24 by 32 pixels, which is fast to process."""
    target = io.BytesIO()
    Image.new("RGB", (24, 32), "#8a4b3c").save(target, "JPEG")
    return target.getvalue()


def json_response(value: Any, status: int = 200) -> StubResponse:
    """Return a response with a JSON body."""
    return StubResponse(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


@dataclass
class Task:
    """A task that the server stores. Tests change its status."""

    task_id: str
    request: dict[str, Any]
    status: str = "pending"
    progress: float = 0.0
    images: list[dict[str, Any]] | None = None


@dataclass
class ComputeServer:
    """The server's tasks, the requests it has received and the faults it injects."""

    server: HttpRecorder
    tasks: dict[str, Task] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    next_faults: deque[StubResponse] = field(default_factory=deque)
    """Replacements for the next responses, in order."""
    permanent_fault: StubResponse | None = None
    """Replaces every response if set."""
    image_response: StubResponse = field(default_factory=lambda: StubResponse(body=small_image()))

    @property
    def config(self) -> dict[str, str]:
        """The provider settings of a model that this server runs."""
        return {"base_url": self.server.url + BASE, "api_key": KEY}

    @property
    def task(self) -> Task:
        """The only task."""
        (task,) = self.tasks.values()
        return task

    def count_requests(self, method: str, part: str) -> int:
        """Return the number of requests with this method whose path contains `part`."""
        return sum(request.method == method and part in request.path for request in self.server.requests)

    def finish(self, **changes: Any) -> None:
        """Complete the only task with one image per output.

        Args:
            changes: Attributes of the task that get other values.
        """
        task = self.task
        urls = [f"{self.server.url}/images/{number}.jpg" for number in range(task.request["num_outputs"])]
        task.images = [{"url": url, "seed": 100 + number} for number, url in enumerate(urls)]
        task.status, task.progress = "completed", 1.0
        for name, value in changes.items():
            setattr(task, name, value)

    def respond(self, request: RecordedRequest) -> StubResponse:
        """Return the response to one request."""
        if request.path.startswith("/images/"):
            return self.image_response
        if self.next_faults:
            return self.next_faults.popleft()
        if self.permanent_fault is not None:
            return self.permanent_fault
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return json_response({"detail": "Not authenticated"}, 401)
        path = request.path.removeprefix(BASE)
        if request.method == "POST" and path in ("/tasks/generation", "/tasks/"):
            return self._create(request)
        task = self.tasks.get(path.split("/")[2])
        if task is None:
            return json_response({"detail": "Not found"}, 404)
        if path.endswith("/cancel"):
            task.status = "canceled"
        return json_response(serialize_task(task))

    def _create(self, request: RecordedRequest) -> StubResponse:
        task_id = self.keys.setdefault(request.headers["idempotency-key"], f"task_{len(self.keys)}")
        self.tasks.setdefault(task_id, Task(task_id, json.loads(request.body)))
        return json_response(serialize_task(self.tasks[task_id]), 201)


def serialize_task(task: Task) -> dict[str, Any]:
    """Return the API's representation of a task."""
    response = {"id": task.task_id, "type": "generation", "status": task.status, "progress": task.progress}
    return response if task.images is None else {**response, "output": {"images": task.images}}


def signature_headers(body: bytes, message_id: str, at: datetime | None = None) -> dict[str, str]:
    """Return the Standard Webhooks headers that sign a callback."""
    moment = at or datetime.now(UTC)
    signed = Webhook(COMPUTE_WEBHOOK_SECRET).sign(message_id, moment, body.decode())
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": signed,
    }


@contextmanager
def run_compute_server() -> Iterator[ComputeServer]:
    """Run the server within the block."""
    holder: list[ComputeServer] = []
    with run_http_recorder(lambda request: holder[0].respond(request)) as server:
        holder.append(ComputeServer(server))
        yield holder[0]
