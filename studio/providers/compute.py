"""The provider COMPUTE: a Compute API that makes pictures elsewhere, spoken to over HTTP.

It knows the other side's words and what can go wrong between here and there; it knows no rows. What is
repeated is safe to repeat: an order carries a key by which the other side knows it again. What comes back is
judged, never trusted.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from db.errors import TargetNotAllowed
from studio.media.picture import MAX_FILE_BYTES
from studio.media.picture import MAX_PIXELS as LARGEST_PICTURE
from studio.outbound import Outbound, OutboundFailed, Reply

logger = logging.getLogger(__name__)

PROVIDER = "COMPUTE"
TASK_TYPES: Mapping[str, str] = {
    "GENERATE": "GENERATION",
    "EDITING": "EDITING",
    "REFINE": "REFINE",
    "BACKGROUND_FIXING": "BACKGROUND_FIX",
    "IMAGE_ADJUSTING": "IMAGE_ADJUSTER",
    "FACE_FIXING": "FACE_ENHANCER",
}
"""Strategy -> type of the task there. Films are left out: what comes back must be pictures."""
STRATEGIES = frozenset(TASK_TYPES)
MAX_PIXELS = LARGEST_PICTURE
MAX_SIDE = 8_192
MAX_SEED = 4_294_967_295
HONOURS = frozenset(
    {
        *("steps", "subject_lora_weight", "product_lora_weight", "product2_lora_weight", "style_lora_weight"),
        *("lighting", "framing", "perspective", "background", "tone", "pose", "extra_prompt"),
        *("negative_prompt", "generated_prompt", "subject_description", "product_description"),
    }
)
_DESCRIBING = (
    "product_description subject_description framing perspective pose background lighting tone extra_prompt"
)
_WEIGHTS = ("subject_lora_weight", "product_lora_weight", "product2_lora_weight", "style_lora_weight")

REQUEST_SECONDS = 10.0
PICTURE_SECONDS = 30.0
TRIES = 3
LONGEST_PAUSE_SECONDS = 2.0
FAILURES_TO_OPEN = 5
OPEN_SECONDS = 30.0
_MAX_ANSWER = 1_000_000
_RUNNING = {"pending": "running", "queued": "running", "running": "running", "canceling": "running"}
_ENDED = {"completed": "completed", "failed": "failed", "canceled": "canceled", "cancelled": "canceled"}


class ComputeUnavailable(Exception):
    """The Compute API does not answer, not with sense, or not to us; others may carry out the order."""


class OrderRefused(ComputeUnavailable):
    """The Compute API answered, and does not do this: repeating changes nothing."""


class TaskUnknown(OrderRefused):
    """The Compute API has no task of this id, or no longer."""


@dataclass(frozen=True)
class Access:
    """Where a Compute API is and how it knows us, as a model's provider settings say."""

    base_url: str
    api_key: str | None = None
    webhook_url: str | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any] | None) -> Access:
        """Read provider settings; OrderRefused when they name no address."""
        settings = config or {}
        base_url = str(settings.get("base_url") or "").rstrip("/")
        if not base_url:
            raise OrderRefused("the model's provider settings name no base_url")
        return cls(base_url, settings.get("api_key") or None, settings.get("webhook_url") or None)


@dataclass(frozen=True)
class RemotePicture:
    """A finished picture over there."""

    url: str
    seed: int | None


@dataclass(frozen=True)
class RemoteTask:
    """What the Compute API says of a task: running, completed, failed or canceled; progress is 0..100."""

    status: str
    progress: int
    pictures: tuple[RemotePicture, ...] = ()


def order_of(
    strategy: str, inputs: Mapping[str, Any], seed: int, batch_size: int, pictures: Mapping[str, str]
) -> dict[str, Any]:
    """The task for a generation's frozen inputs; `pictures` are its photographs as data: addresses."""
    asked, scene = inputs["asked"], inputs["scene"]
    order = {
        "task_type": TASK_TYPES[strategy],
        "prompt": _prompt(asked),
        "negative_prompt": asked.get("negative_prompt") or "",
        "num_outputs": batch_size,
        "steps": asked.get("steps", 30),
        "seed": seed,
        "width": scene["width"],
        "height": scene["height"],
        **{name: asked[name] for name in _WEIGHTS if name in asked},
        **pictures,
    }
    return order


def _prompt(asked: Mapping[str, Any]) -> str:
    if asked.get("generated_prompt"):
        return str(asked["generated_prompt"])
    parts = [str(asked[name]) for name in _DESCRIBING.split() if asked.get(name)]
    return ", ".join(["Studio photograph of the product", *parts])[:4_000]


class Compute:
    """Speaks to Compute APIs, one circuit breaker for each. One per process; share it among threads."""

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound
        self._breakers: Any = None
        # The breakers themselves are not made for threads.
        self._guard = threading.Lock()

    def submit(self, access: Access, key: str, entity_id: str, order: Mapping[str, Any]) -> str:
        """Create the task, or find the one that was created with the same key; its id."""
        path = "/tasks/generation" if order["task_type"] == "GENERATION" else "/tasks/"
        told = {**order, "entity_id": entity_id}
        if access.webhook_url:
            told["webhook_url"] = access.webhook_url
        answer = self._ask(access, "POST", path, told, {"Idempotency-Key": key})
        task_id = answer.get("id")
        if not isinstance(task_id, str) or not 0 < len(task_id) <= 200 or not task_id.isprintable():
            raise ComputeUnavailable("the answer names no task")
        return task_id

    def look(self, access: Access, task_id: str) -> RemoteTask:
        """How far a task is; TaskUnknown when there is none."""
        answer = self._ask(access, "GET", f"/tasks/{quote(task_id, safe='')}")
        status = str(answer.get("status")).lower()
        if status in _RUNNING:
            return RemoteTask(_RUNNING[status], _percent(answer.get("progress")))
        if status not in _ENDED:
            raise ComputeUnavailable("the answer names no state of a task")
        pictures = _pictures(answer) if status == "completed" else ()
        return RemoteTask(_ENDED[status], _percent(answer.get("progress")), pictures)

    def cancel(self, access: Access, task_id: str) -> None:
        """Ask the other side to stop; that it is not there or has ended is as good."""
        try:
            self._ask(access, "POST", f"/tasks/{quote(task_id, safe='')}/cancel", {})
        except OrderRefused:
            logger.info("a task could not be canceled: it is gone or has ended")

    def fetch(self, url: str) -> bytes:
        """The bytes of a finished picture; ComputeUnavailable when they cannot be had."""
        try:
            reply = self._outbound.send(
                "GET", url, timeout_seconds=PICTURE_SECONDS, max_bytes=MAX_FILE_BYTES, redirects=3
            )
        except (TargetNotAllowed, OutboundFailed) as error:
            raise ComputeUnavailable(f"a picture cannot be fetched: {error}") from error
        if reply.status != 200:
            raise ComputeUnavailable(f"a picture cannot be fetched: {reply.status}")
        return reply.content

    def _ask(
        self,
        access: Access,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """The answer's JSON object, after a few tries with growing, random pauses between."""
        content = b"" if body is None else json.dumps(body).encode()
        told = {"Accept": "application/json", **(headers or {})}
        if access.api_key:
            told["Authorization"] = f"Bearer {access.api_key}"
        if body is not None:
            told["Content-Type"] = "application/json"
        for attempt in Retrying(
            stop=stop_after_attempt(TRIES),
            wait=wait_random_exponential(multiplier=0.2, max=LONGEST_PAUSE_SECONDS),
            retry=retry_if_exception_type(_Passing),
            reraise=True,
        ):
            with attempt, self._counted(access.base_url):
                return self._ask_once(method, access.base_url + path, told, content)
        raise AssertionError("the last try returns or raises")

    def _ask_once(self, method: str, url: str, headers: Mapping[str, str], content: bytes) -> dict[str, Any]:
        try:
            reply = self._outbound.send(
                method,
                url,
                headers=headers,
                content=content,
                timeout_seconds=REQUEST_SECONDS,
                max_bytes=_MAX_ANSWER,
            )
        except TargetNotAllowed as error:
            raise OrderRefused(f"the model's base_url is not allowed: {error}") from error
        except OutboundFailed as error:
            raise _Passing(str(error)) from error
        return _read(reply)

    @contextmanager
    def _counted(self, base_url: str) -> Iterator[None]:
        """Count how it goes; ComputeUnavailable at once while too much has failed."""
        # Here, because Purgatory loads the client of Redis, without which servers start.
        from purgatory import SyncCircuitBreakerFactory
        from purgatory.domain.model import OpenedState

        try:
            with self._guard:
                if self._breakers is None:
                    self._breakers = SyncCircuitBreakerFactory(
                        FAILURES_TO_OPEN, OPEN_SECONDS, exclude=[OrderRefused]
                    )
                breaker = self._breakers.get_breaker(base_url)
                breaker.__enter__()
        except OpenedState as error:
            raise ComputeUnavailable("the circuit is open") from error
        try:
            yield
        except BaseException as error:
            with self._guard:
                breaker.__exit__(type(error), error, None)
            raise
        with self._guard:
            breaker.__exit__(None, None, None)


class _Passing(ComputeUnavailable):
    """A failure that may be over a moment later."""


def _read(reply: Reply) -> dict[str, Any]:
    if reply.status == 404:
        raise TaskUnknown("not found")
    if reply.status in (408, 425, 429) or reply.status >= 500:
        raise _Passing(f"answered {reply.status}")
    if not 200 <= reply.status < 300:
        raise OrderRefused(f"answered {reply.status}")
    try:
        answer = json.loads(reply.content)
    except (ValueError, RecursionError) as error:
        raise _Passing("the answer is not JSON") from error
    if not isinstance(answer, dict):
        raise _Passing("the answer is not a JSON object")
    return answer


def _percent(progress: Any) -> int:
    """The other side counts 0..1; what is no such number says nothing."""
    if isinstance(progress, bool) or not isinstance(progress, int | float) or not 0 <= progress <= 1:
        return 0
    return round(100 * progress)


def _pictures(answer: Mapping[str, Any]) -> tuple[RemotePicture, ...]:
    output = answer.get("output")
    images = output.get("images") if isinstance(output, dict) else None
    if not isinstance(images, list):
        raise ComputeUnavailable("the task is completed and has no pictures")
    found = []
    for image in images:
        url = image.get("url") if isinstance(image, dict) else None
        if not isinstance(url, str):
            raise ComputeUnavailable("the task is completed and a picture has no address")
        seed = image.get("seed")
        known = isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed <= MAX_SEED
        found.append(RemotePicture(url, seed if known else None))
    return tuple(found)
