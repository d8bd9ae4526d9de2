"""The provider COMPUTE: the HTTP client of a Compute API, which renders on another server.

It maps inputs and responses and handles failures: retries, a circuit breaker, and validation of everything
that comes back. Every retry is safe, because a request to create a task has an idempotency key. Knows no
rows.
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
from studio.infrastructure.http_client import HttpClientError, HttpResponse, SafeHttpClient
from studio.infrastructure.telemetry.context import current_trace_headers
from studio.media.digital_source_type import DigitalSourceType
from studio.media.stored_image import MAX_FILE_BYTES
from studio.media.stored_image import MAX_PIXELS as MAX_IMAGE_PIXELS

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
"""Strategy -> task type of the Compute API. Videos are not supported."""
STRATEGIES = frozenset(TASK_TYPES)
MAX_PIXELS = MAX_IMAGE_PIXELS
MAX_SIDE = 8_192
MAX_SEED = 4_294_967_295
SOURCE_TYPE = DigitalSourceType.TRAINED_ALGORITHMIC_MEDIA
"""How a Compute API makes images, unless its files say otherwise."""
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
    """The Compute API is unreachable or its response is unusable; a fallback provider may render instead."""


class TaskRejected(ComputeUnavailable):
    """The Compute API rejects the request. A retry would not help."""


class TaskNotFound(TaskRejected):
    """The Compute API has no task with this id."""


@dataclass(frozen=True)
class ComputeConfig:
    """The URL and the credentials of a Compute API, from a model's provider configuration."""

    base_url: str
    api_key: str | None = None
    webhook_url: str | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | None) -> ComputeConfig:
        """Read a provider configuration.

        Raises:
            TaskRejected: It has no `base_url`.
        """
        settings = config or {}
        base_url = str(settings.get("base_url") or "").rstrip("/")
        if not base_url:
            raise TaskRejected("the model's provider configuration has no base_url")
        return cls(base_url, settings.get("api_key") or None, settings.get("webhook_url") or None)


@dataclass(frozen=True)
class RemoteImage:
    """A finished image on the Compute API's server."""

    url: str
    seed: int | None


@dataclass(frozen=True)
class RemoteTask:
    """The state of a task."""

    status: str
    """`running`, `completed`, `failed` or `canceled`."""
    progress: int
    """In percent."""
    images: tuple[RemoteImage, ...] = ()


def build_task(
    strategy: str, inputs: Mapping[str, Any], seed: int, batch_size: int, images: Mapping[str, str]
) -> dict[str, Any]:
    """Return the body that creates a task.

    Args:
        strategy: The strategy of the generation.
        inputs: The fixed inputs of the generation.
        seed: The seed of the first image.
        batch_size: The number of images.
        images: The input images as data URLs, by field name.
    """
    requested, scene = inputs["asked"], inputs["scene"]
    return {
        "task_type": TASK_TYPES[strategy],
        "prompt": _build_prompt(requested),
        "negative_prompt": requested.get("negative_prompt") or "",
        "num_outputs": batch_size,
        "steps": requested.get("steps", 30),
        "seed": seed,
        "width": scene["width"],
        "height": scene["height"],
        **{name: requested[name] for name in _WEIGHTS if name in requested},
        **images,
    }


def _build_prompt(requested: Mapping[str, Any]) -> str:
    if requested.get("generated_prompt"):
        return str(requested["generated_prompt"])
    parts = [str(requested[name]) for name in _PROMPT_INPUTS.split() if requested.get(name)]
    return ", ".join(["Studio photograph of the product", *parts])[:4_000]


class ComputeClient:
    """The client of all Compute APIs, with one circuit breaker per base URL.

    Each process has one client, which its threads share.
    """

    def __init__(self, client: SafeHttpClient) -> None:
        self._client = client
        self._circuit_breakers: dict[str, CircuitBreaker] = {}

    def submit(self, config: ComputeConfig, key: str, entity_id: str, task: Mapping[str, Any]) -> str:
        """Create a task, or find the one that was created with the same key, and return its id.

        Args:
            config: Where to create it.
            key: The idempotency key.
            entity_id: The id that the task's webhooks name.
            task: The body from `build_task`.
        """
        path = "/tasks/generation" if task["task_type"] == "GENERATION" else "/tasks/"
        body = {**task, "entity_id": entity_id}
        if config.webhook_url:
            body["webhook_url"] = config.webhook_url
        response = self._request(config, "POST", path, body, {"Idempotency-Key": key})
        task_id = response.get("id")
        if not isinstance(task_id, str) or not 0 < len(task_id) <= 200 or not task_id.isprintable():
            raise ComputeUnavailable("the response has no task id")
        return task_id

    def get_task(self, config: ComputeConfig, task_id: str) -> RemoteTask:
        """Return the state of a task.

        Raises:
            TaskNotFound: There is no task with this id.
        """
        response = self._request(config, "GET", f"/tasks/{quote(task_id, safe='')}")
        status = str(response.get("status")).lower()
        if status in _RUNNING:
            return RemoteTask(_RUNNING[status], _to_percent(response.get("progress")))
        if status not in _ENDED:
            raise ComputeUnavailable("the response has no known task status")
        images = _parse_images(response) if status == "completed" else ()
        return RemoteTask(_ENDED[status], _to_percent(response.get("progress")), images)

    def cancel(self, config: ComputeConfig, task_id: str) -> None:
        """Cancel a task. A task that has ended or does not exist is no error."""
        try:
            self._request(config, "POST", f"/tasks/{quote(task_id, safe='')}/cancel", {})
        except TaskRejected:
            logger.info("task not canceled: it has ended or does not exist")

    def fetch_image(self, url: str) -> bytes:
        """Download a finished image.

        Raises:
            ComputeUnavailable: The URL is not allowed, or the download fails.
        """
        try:
            response = self._client.send(
                "GET", url, timeout_seconds=IMAGE_TIMEOUT_SECONDS, max_bytes=MAX_FILE_BYTES, redirects=3
            )
        except (TargetNotAllowed, HttpClientError) as error:
            raise ComputeUnavailable(f"an image cannot be downloaded: {error}") from error
        if response.status != 200:
            raise ComputeUnavailable(f"an image cannot be downloaded: HTTP {response.status}")
        return response.content

    def _request(
        self,
        config: ComputeConfig,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Send a request, retry transient errors with backoff and jitter, and return the JSON object."""
        content = b"" if body is None else json.dumps(body).encode()
        all_headers = {"Accept": "application/json", **current_trace_headers(), **(headers or {})}
        if config.api_key:
            all_headers["Authorization"] = f"Bearer {config.api_key}"
        if body is not None:
            all_headers["Content-Type"] = "application/json"
        for attempt in Retrying(
            stop=stop_after_attempt(MAX_ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.2, max=MAX_BACKOFF_SECONDS),
            retry=retry_if_exception_type(_TransientError),
            reraise=True,
        ):
            with attempt, self._circuit_breaker(config.base_url):
                return self._send(method, config.base_url + path, all_headers, content)
        raise AssertionError("the last attempt returns or raises")

    def _send(self, method: str, url: str, headers: Mapping[str, str], content: bytes) -> dict[str, Any]:
        try:
            response = self._client.send(
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
        return _parse_response(response)

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
    """An error after which the same request may succeed."""


def _parse_response(response: HttpResponse) -> dict[str, Any]:
    if response.status == 404:
        raise TaskNotFound("not found")
    if response.status in (408, 425, 429) or response.status >= 500:
        raise _TransientError(f"HTTP {response.status}")
    if not 200 <= response.status < 300:
        raise TaskRejected(f"HTTP {response.status}")
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError) as error:
        raise _TransientError("the response is not JSON") from error
    if not isinstance(body, dict):
        raise _TransientError("the response is not a JSON object")
    return body


def _to_percent(progress: Any) -> int:
    """Convert the progress of a Compute API, a number from 0 to 1. Anything else counts as 0."""
    if isinstance(progress, bool) or not isinstance(progress, int | float) or not 0 <= progress <= 1:
        return 0
    return round(100 * progress)


def _parse_images(response: Mapping[str, Any]) -> tuple[RemoteImage, ...]:
    output = response.get("output")
    images = output.get("images") if isinstance(output, dict) else None
    if not isinstance(images, list):
        raise ComputeUnavailable("the task is completed but has no images")
    remote_images = []
    for image in images:
        url = image.get("url") if isinstance(image, dict) else None
        if not isinstance(url, str):
            raise ComputeUnavailable("the task is completed but an image has no URL")
        seed = image.get("seed")
        is_valid = isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed <= MAX_SEED
        remote_images.append(RemoteImage(url, seed if is_valid else None))
    return tuple(remote_images)
