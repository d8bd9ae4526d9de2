"""What the layers of one request tell each other; it travels in ASGI scope and WSGI environment."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uuid import UUID

    from db.tenancy import Caller
    from handlers.contract.operations import Operation
    from studio.generations.watch import GenerationState
    from studio.rate_limits.limits import LimitUsage

REQUEST_CONTEXT = "sartiq.call"


@dataclass(slots=True)
class RequestContext:
    """One request on its way in, and what its answer needs on the way out."""

    request_id: str
    operation: Operation | None = None
    path_values: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, Any] | None = None
    caller: Caller | None = None
    organization_id: UUID | None = None
    """The organization whose rows were touched last."""
    signed_body: bytes = b""
    """The body as it came, for operations that verify a signature over it."""
    files_to_close: list[Any] = field(default_factory=list)
    """Files of the request, closed when it has ended."""
    file: Path | None = None
    """A file to stream as the body of the answer, after the transaction."""
    wait_seconds: float = 0.0
    """Seconds that the answer was held back because the caller asked for it."""
    is_validated: bool = False
    """Whether the endpoint held the answer against the contract already."""
    watched_generation: GenerationState | None = None
    """The generation that the answer is about, if callers may wait for it or follow it."""
    limit_usages: list[LimitUsage] = field(default_factory=list)
    """How things stand with each limit that counted the request."""
    _completion_lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def try_complete(self) -> bool:
        """Return whether who asks is the first to, and so decides how the request ends.

        The thread that is about to commit asks, and so does the event loop when the time is over.
        """
        return self._completion_lock.acquire(blocking=False)

    def has_consumed(self, policy: str) -> bool:
        """Return whether the limit of this name has counted the request."""
        return any(standing.policy.name == policy for standing in self.limit_usages)

    def update_limit_usages(self, limit_usages: list[LimitUsage]) -> None:
        """Replace how things stand with these limits."""
        newer = {standing.policy.name: standing for standing in limit_usages}
        self.limit_usages = [newer.get(standing.policy.name, standing) for standing in self.limit_usages]

    def response_headers(self) -> dict[str, str]:
        """Return the headers that every answer to this request carries, names in lower case."""
        deprecation = self.operation.deprecation if self.operation else None
        ending = deprecation.headers(self.path_values) if deprecation else {}
        return {"x-request-id": self.request_id, **self.limit_headers(), **ending}

    def merge_headers(self, headers: dict[str, str]) -> dict[str, str]:
        """Return an answer's own headers, names in lower case, with those of every answer to this request."""
        told = self.response_headers()
        if "link" in headers and "link" in told:
            told["link"] = f"{headers['link']}, {told['link']}"
        return {**headers, **told}

    def limit_headers(self) -> dict[str, str]:
        """Return what the answer tells of limits (draft-ietf-httpapi-ratelimit-headers-10)."""
        if not self.limit_usages:
            return {}
        policies = [
            f'"{one.policy.name}";q={one.policy.quota};w={one.policy.window}' for one in self.limit_usages
        ]
        left = [f'"{one.policy.name}";r={one.remaining};t={one.reset_seconds}' for one in self.limit_usages]
        return {"ratelimit-policy": ", ".join(policies), "ratelimit": ", ".join(left)}
