"""The provider COMPUTE: a Compute API that makes pictures elsewhere, spoken to over HTTP.

It knows the other side's words and what can go wrong between here and there; it knows no rows. What is
repeated is safe to repeat: an order carries a key by which the other side knows it again. What comes back is
judged, never trusted.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from db.errors import TargetNotAllowed
from studio.http_client import HttpClientError, HttpResponse, SafeHttpClient
from studio.media.stored_image import MAX_FILE_BYTES
from studio.media.stored_image import MAX_PIXELS as LARGEST_PICTURE
from studio.telemetry.context import current_trace_headers

if TYPE_CHECKING:
    from studio.providers.circuit_breaker import CircuitBreaker

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
SUPPORTED_INPUTS = frozenset(
    {
        *("steps", "subject_lora_weight", "product_lora_weight", "product2_lora_weight", "style_lora_weight"),
        *("lighting", "framing", "perspective", "background", "tone", "pose", "extra_prompt"),
        *("negative_prompt", "generated_prompt", "subject_description", "product_description"),
    }
)
_PROMPT_INPUTS = (
    "product_description subject_description framing perspective pose background lighting tone extra_prompt"
)
_WEIGHTS = ("subject_lora_weight", "product_lora_weight", "product2_lora_weight", "style_lora_weight")

REQUEST_TIMEOUT_SECONDS = 10.0
IMAGE_TIMEOUT_SECONDS = 30.0
MAX_ATTEMPTS = 3
MAX_BACKOFF_SECONDS = 2.0
CIRCUIT_FAILURE_THRESHOLD = 5
CIRCUIT_OPEN_SECONDS = 30.0
_MAX_RESPONSE_BYTES = 1_000_000
_RUNNING = {"pending": "running", "queued": "running", "running": "running", "canceling": "running"}
_ENDED = {"completed": "completed", "failed": "failed", "canceled": "canceled", "cancelled": "canceled"}


class ComputeUnavailable(Exception):
    """The Compute API does not answer, not with sense, or not to us; others may carry out the order."""


class TaskRejected(ComputeUnavailable):
    """The Compute API answered, and does not do this: repeating changes nothing."""


class TaskNotFound(TaskRejected):
    """The Compute API has no task of this id, or no longer."""


@dataclass(frozen=True)
class ComputeConfig:
    """Where a Compute API is and how it knows us, as a model's provider settings say."""

    base_url: str
    api_key: str | None = None
    webhook_url: str | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | None) -> ComputeConfig:
        """Read provider settings; OrderRefused when they name no address."""
        settings = config or {}
        base_url = str(settings.get("base_url") or "").rstrip("/")
        if not base_url:
            raise TaskRejected("the model's provider settings name no base_url")
        return cls(base_url, settings.get("api_key") or None, settings.get("webhook_url") or None)


@dataclass(frozen=True)
class RemoteImage:
    """A finished picture over there."""

    url: str
    seed: int | None


@dataclass(frozen=True)
class RemoteTask:
    """What the Compute API says of a task: running, completed, failed or canceled; progress is 0..100."""

    status: str
    progress: int
    images: tuple[RemoteImage, ...] = ()


def build_task(
    strategy: str, inputs: Mapping[str, Any], seed: int, batch_size: int, images: Mapping[str, str]
) -> dict[str, Any]:
    """The task for a generation's frozen inputs; `pictures` are its photographs as data: addresses."""
    asked, scene = inputs["asked"], inputs["scene"]
    order = {
        "task_type": TASK_TYPES[strategy],
        "prompt": _build_prompt(asked),
        "negative_prompt": asked.get("negative_prompt") or "",
        "num_outputs": batch_size,
        "steps": asked.get("steps", 30),
        "seed": seed,
        "width": scene["width"],
        "height": scene["height"],
        **{name: asked[name] for name in _WEIGHTS if name in asked},
        **images,
    }
    return order


def _build_prompt(requested: Mapping[str, Any]) -> str:
    if requested.get("generated_prompt"):
        return str(requested["generated_prompt"])
    parts = [str(requested[name]) for name in _PROMPT_INPUTS.split() if requested.get(name)]
    return ", ".join(["Studio photograph of the product", *parts])[:4_000]


class ComputeClient:
    """Speaks to Compute APIs, one circuit breaker for each. One per process; share it among threads."""

    def __init__(self, client: SafeHttpClient) -> None:
        self._client = client
        self._circuit_breakers: dict[str, CircuitBreaker] = {}

    def submit(self, config: ComputeConfig, key: str, entity_id: str, task: Mapping[str, Any]) -> str:
        """Create the task, or find the one that was created with the same key; its id."""
        path = "/tasks/generation" if task["task_type"] == "GENERATION" else "/tasks/"
        told = {**task, "entity_id": entity_id}
        if config.webhook_url:
            told["webhook_url"] = config.webhook_url
        answer = self._request(config, "POST", path, told, {"Idempotency-Key": key})
        task_id = answer.get("id")
        if not isinstance(task_id, str) or not 0 < len(task_id) <= 200 or not task_id.isprintable():
            raise ComputeUnavailable("the answer names no task")
        return task_id

    def get_task(self, config: ComputeConfig, task_id: str) -> RemoteTask:
        """How far a task is; TaskUnknown when there is none."""
        answer = self._request(config, "GET", f"/tasks/{quote(task_id, safe='')}")
        status = str(answer.get("status")).lower()
        if status in _RUNNING:
            return RemoteTask(_RUNNING[status], _to_percent(answer.get("progress")))
        if status not in _ENDED:
            raise ComputeUnavailable("the answer names no state of a task")
        pictures = _parse_images(answer) if status == "completed" else ()
        return RemoteTask(_ENDED[status], _to_percent(answer.get("progress")), pictures)

    def cancel(self, config: ComputeConfig, task_id: str) -> None:
        """Ask the other side to stop; that it is not there or has ended is as good."""
        try:
            self._request(config, "POST", f"/tasks/{quote(task_id, safe='')}/cancel", {})
        except TaskRejected:
            logger.info("a task could not be canceled: it is gone or has ended")

    def fetch_image(self, url: str) -> bytes:
        """The bytes of a finished picture; ComputeUnavailable when they cannot be had."""
        try:
            reply = self._client.send(
                "GET", url, timeout_seconds=IMAGE_TIMEOUT_SECONDS, max_bytes=MAX_FILE_BYTES, redirects=3
            )
        except (TargetNotAllowed, HttpClientError) as error:
            raise ComputeUnavailable(f"a picture cannot be fetched: {error}") from error
        if reply.status != 200:
            raise ComputeUnavailable(f"a picture cannot be fetched: {reply.status}")
        return reply.content

    def _request(
        self,
        config: ComputeConfig,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """The answer's JSON object, after a few tries with growing, random pauses between."""
        content = b"" if body is None else json.dumps(body).encode()
        told = {"Accept": "application/json", **current_trace_headers(), **(headers or {})}
        if config.api_key:
            told["Authorization"] = f"Bearer {config.api_key}"
        if body is not None:
            told["Content-Type"] = "application/json"
        for attempt in Retrying(
            stop=stop_after_attempt(MAX_ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.2, max=MAX_BACKOFF_SECONDS),
            retry=retry_if_exception_type(_TransientError),
            reraise=True,
        ):
            with attempt, self._circuit_breaker(config.base_url):
                return self._send(method, config.base_url + path, told, content)
        raise AssertionError("the last try returns or raises")

    def _send(self, method: str, url: str, headers: Mapping[str, str], content: bytes) -> dict[str, Any]:
        try:
            reply = self._client.send(
                method,
                url,
                headers=headers,
                content=content,
                timeout_seconds=REQUEST_TIMEOUT_SECONDS,
                max_bytes=_MAX_RESPONSE_BYTES,
            )
        except TargetNotAllowed as error:
            raise TaskRejected(f"the model's base_url is not allowed: {error}") from error
        except HttpClientError as error:
            raise _TransientError(str(error)) from error
        return _parse_response(reply)

    @contextmanager
    def _circuit_breaker(self, base_url: str) -> Iterator[None]:
        """Count the outcome of the block; raise ComputeUnavailable at once while the circuit is open."""
        # Imported on the first request: pybreaker loads the Redis client, which servers start without.
        from studio.providers.circuit_breaker import CircuitBreakerError, build_circuit_breaker

        breaker = self._circuit_breakers.get(base_url)
        if breaker is None:
            breaker = build_circuit_breaker(
                base_url, CIRCUIT_FAILURE_THRESHOLD, CIRCUIT_OPEN_SECONDS, excluded=TaskRejected
            )
            # `setdefault` is atomic: threads that get here at the same time share one breaker.
            breaker = self._circuit_breakers.setdefault(base_url, breaker)
        try:
            with breaker.calling():
                yield
        except CircuitBreakerError as error:
            raise ComputeUnavailable("the circuit is open") from error


class _TransientError(ComputeUnavailable):
    """A failure that may be over a moment later."""


def _parse_response(response: HttpResponse) -> dict[str, Any]:
    if response.status == 404:
        raise TaskNotFound("not found")
    if response.status in (408, 425, 429) or response.status >= 500:
        raise _TransientError(f"answered {response.status}")
    if not 200 <= response.status < 300:
        raise TaskRejected(f"answered {response.status}")
    try:
        answer = json.loads(response.content)
    except (ValueError, RecursionError) as error:
        raise _TransientError("the answer is not JSON") from error
    if not isinstance(answer, dict):
        raise _TransientError("the answer is not a JSON object")
    return answer


def _to_percent(progress: Any) -> int:
    """The other side counts 0..1; what is no such number says nothing."""
    if isinstance(progress, bool) or not isinstance(progress, int | float) or not 0 <= progress <= 1:
        return 0
    return round(100 * progress)


def _parse_images(response: Mapping[str, Any]) -> tuple[RemoteImage, ...]:
    output = response.get("output")
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
        found.append(RemoteImage(url, seed if known else None))
    return tuple(found)
