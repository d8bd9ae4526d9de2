"""What the layers of one request tell each other; it travels in ASGI scope and WSGI environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from handlers.contract.operations import Operation
    from studio.watching import GenerationState

CALL = "sartiq.call"


@dataclass(slots=True)
class Call:
    """One request on its way in, and what its answer needs on the way out."""

    request_id: str
    operation: Operation | None = None
    path_values: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, Any] | None = None
    signed_body: bytes = b""
    """The body as it came, for operations that verify a signature over it."""
    closing: list[Any] = field(default_factory=list)
    """Files of the request, closed when it has ended."""
    file: Path | None = None
    """A file to stream as the body of the answer, after the transaction."""
    waited: float = 0.0
    """Seconds that the answer was held back because the caller asked for it."""
    checked: bool = False
    """Whether the endpoint held the answer against the contract already."""
    watch: GenerationState | None = None
    """The generation that the answer is about, if callers may wait for it or follow it."""
