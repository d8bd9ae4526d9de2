"""A Compute API for tests, as its documentation says, on the loopback interface; it misbehaves as told."""

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

from tests.e2e.server import COMPUTE_WEBHOOK_SECRET
from tests.listening import Answer, Asked, Listening, listening

BASE = "/api/v1"
KEY = "a key of the Compute API"


def small_picture() -> bytes:
    """Return a picture that costs next to nothing to judge."""
    target = io.BytesIO()
    Image.new("RGB", (24, 32), "#8a4b3c").save(target, "JPEG")
    return target.getvalue()


def as_json(value: Any, status: int = 200) -> Answer:
    """Return an answer with a JSON body."""
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


@dataclass
class Task:
    """A task as the server keeps it; tests move it on."""

    task_id: str
    order: dict[str, Any]
    status: str = "pending"
    progress: float = 0.0
    images: list[dict[str, Any]] | None = None


@dataclass
class ComputeServer:
    """What the server knows, what it was asked, and how it shall misbehave."""

    server: Listening
    tasks: dict[str, Task] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    faults: deque[Answer] = field(default_factory=deque)
    """Given instead of the next answers, one each."""
    broken: Answer | None = None
    """Given instead of every answer."""
    picture: Answer = field(default_factory=lambda: Answer(body=small_picture()))

    @property
    def config(self) -> dict[str, str]:
        """The provider settings of a model that is made here."""
        return {"base_url": self.server.url + BASE, "api_key": KEY}

    @property
    def task(self) -> Task:
        """The one task that there is."""
        (task,) = self.tasks.values()
        return task

    def asked_for(self, method: str, part: str) -> int:
        """Return how many requests of a method had this in their path."""
        return sum(asked.method == method and part in asked.path for asked in self.server.asked)

    def finish(self, **changes: Any) -> None:
        """Complete the one task, with a picture for each output unless others are named."""
        task = self.task
        urls = [f"{self.server.url}/images/{number}.jpg" for number in range(task.order["num_outputs"])]
        task.images = [{"url": url, "seed": 100 + number} for number, url in enumerate(urls)]
        task.status, task.progress = "completed", 1.0
        for name, value in changes.items():
            setattr(task, name, value)

    def respond(self, asked: Asked) -> Answer:
        """Answer one request."""
        if asked.path.startswith("/images/"):
            return self.picture
        if self.faults:
            return self.faults.popleft()
        if self.broken is not None:
            return self.broken
        if asked.headers.get("authorization") != f"Bearer {KEY}":
            return as_json({"detail": "Not authenticated"}, 401)
        path = asked.path.removeprefix(BASE)
        if asked.method == "POST" and path in ("/tasks/generation", "/tasks/"):
            return self._create(asked)
        task = self.tasks.get(path.split("/")[2])
        if task is None:
            return as_json({"detail": "Not found"}, 404)
        if path.endswith("/cancel"):
            task.status = "canceled"
        return as_json(shown(task))

    def _create(self, asked: Asked) -> Answer:
        task_id = self.keys.setdefault(asked.headers["idempotency-key"], f"task_{len(self.keys)}")
        self.tasks.setdefault(task_id, Task(task_id, json.loads(asked.body)))
        return as_json(shown(self.tasks[task_id]), 201)


def shown(task: Task) -> dict[str, Any]:
    """Return a task as the API shows it."""
    answer = {"id": task.task_id, "type": "generation", "status": task.status, "progress": task.progress}
    return answer if task.images is None else {**answer, "output": {"images": task.images}}


def signature(body: bytes, message_id: str, at: datetime | None = None) -> dict[str, str]:
    """Return the headers that sign a call-back as Standard Webhooks says."""
    moment = at or datetime.now(UTC)
    signed = Webhook(COMPUTE_WEBHOOK_SECRET).sign(message_id, moment, body.decode())
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": signed,
    }


@contextmanager
def compute_server() -> Iterator[ComputeServer]:
    """Serve until the block ends."""
    holder: list[ComputeServer] = []
    with listening(lambda asked: holder[0].respond(asked)) as server:
        holder.append(ComputeServer(server))
        yield holder[0]
