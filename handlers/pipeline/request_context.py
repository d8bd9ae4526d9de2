"""State that the layers of one request share; it travels in the ASGI scope and in the WSGI environment.

It holds values only: no layer is called from here.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uuid import UUID

    from db.caller import Caller
    from handlers.contract.used_parts import Part
    from handlers.pipeline.admission.concurrency import RequestOwner
    from handlers.pipeline.idempotency import IdempotentRequest
    from handlers.pipeline.policies import ServedOperation
    from studio.infrastructure.change_hub import Watched
    from studio.rate_limits.limits import LimitUsage

REQUEST_CONTEXT = "sartiq.request_context"
"""The key in the ASGI scope and the WSGI environment."""


@dataclass(slots=True)
class RequestContext:
    """What is known about one request, and what its response needs."""

    request_id: str
    operation: ServedOperation | None = None
    path_values: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, Any] | None = None
    caller: Caller | None = None
    owner: RequestOwner | None = None
    """Who the request counts for; None for probes."""
    organization_id: UUID | None = None
    """The organization whose rows were accessed last."""
    signed_body: bytes = b""
    """The raw body, for operations that verify a signature over it."""
    files_to_close: list[Any] = field(default_factory=list)
    """Uploaded and temporary files, closed at the end of the request."""
    file: Path | None = None
    """A file to stream as the response body, after the transaction."""
    file_part: tuple[int, int] | None = None
    """The first byte and the end of the part of the file that is sent; None for all of it."""
    wait_seconds: float = 0.0
    """Seconds that the response was delayed by `Prefer: wait`; not part of the latency."""
    is_validated: bool = False
    """Whether the endpoint has already validated the response against the contract."""
    is_repeated: bool = False
    """Whether long polling sends an earlier request again, inside the process."""
    has_lock_slot: bool = False
    """Whether the request may wait for row locks as long as the engine allows (`lock_waits.py`)."""
    awaits_lock_slot: bool = False
    """Whether the request found a row locked and is served again when it has a slot."""
    prepared_arguments: dict[str, Any] | None = None
    """The handler's arguments after slow work, such as decoding a file. It is done once per request."""
    idempotent_request: IdempotentRequest | None = None
    """The holder of the lock that an idempotency key has during slow work."""
    failure: Exception | None = None
    """Why the request cannot be served again: the endpoint releases what it holds and raises it."""
    watched: Watched | None = None
    """What the response describes, if clients may wait for its changes or, for a generation, stream them."""
    used_properties: Sequence[Part] = ()
    """The deprecated properties in the body."""
    limit_usages: list[LimitUsage] = field(default_factory=list)
    """The usage of each rate limit that counted the request."""
    _completion_lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def try_complete(self) -> bool:
        """Return whether the calling thread is the first to complete the request.

        The request thread calls it before it commits, and the event loop when the time limit is reached.
        The first of the two decides how the request ends.
        """
        return self._completion_lock.acquire(blocking=False)

    def reopen(self) -> None:
        """Let the request be completed again, after an attempt that was rolled back."""
        self._completion_lock = threading.Lock()

    def has_consumed(self, policy: str) -> bool:
        """Return whether the rate limit of this name has counted the request."""
        return any(usage.policy.name == policy for usage in self.limit_usages)

    def update_limit_usages(self, limit_usages: list[LimitUsage]) -> None:
        """Replace the recorded usage of these rate limits."""
        newer = {usage.policy.name: usage for usage in limit_usages}
        self.limit_usages = [newer.get(usage.policy.name, usage) for usage in self.limit_usages]

    def response_headers(self) -> dict[str, str]:
        """Return the headers that every response to this request carries, names in lower case."""
        deprecation = self.operation.deprecation if self.operation else None
        deprecation_headers = deprecation.headers(self.path_values) if deprecation else {}
        return {"x-request-id": self.request_id, **self.limit_headers(), **deprecation_headers}

    def merge_headers(self, headers: dict[str, str]) -> dict[str, str]:
        """Return a response's own headers, names in lower case, merged with `response_headers()`."""
        common = self.response_headers()
        if "link" in headers and "link" in common:
            common["link"] = f"{headers['link']}, {common['link']}"
        return {**headers, **common}

    def limit_headers(self) -> dict[str, str]:
        """Return the rate limit headers (draft-ietf-httpapi-ratelimit-headers-10)."""
        if not self.limit_usages:
            return {}
        policies = [
            f'"{usage.policy.name}";q={usage.policy.quota};w={usage.policy.window}'
            for usage in self.limit_usages
        ]
        remaining = [
            f'"{usage.policy.name}";r={usage.remaining};t={usage.reset_seconds}'
            for usage in self.limit_usages
        ]
        return {"ratelimit-policy": ", ".join(policies), "ratelimit": ", ".join(remaining)}
