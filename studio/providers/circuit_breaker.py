"""The circuit breaker of a server that a provider calls, shared by the threads of a process.

`pybreaker` imports the Redis client, so callers import this module on their first request, not at start-up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pybreaker import (
    STATE_HALF_OPEN,
    CircuitBreaker,
    CircuitBreakerError,
    CircuitBreakerListener,
    CircuitBreakerState,
)

__all__ = ["CircuitBreaker", "CircuitBreakerError", "build_circuit_breaker"]

Result = TypeVar("Result")


def build_circuit_breaker(
    server: str, failure_threshold: int, open_seconds: float, excluded: type[Exception]
) -> CircuitBreaker:
    """Return a closed circuit breaker, to be used as `with breaker.calling()`.

    After `open_seconds` one caller probes the server, while the others are still rejected. The probe closes
    the circuit or opens it again.

    Args:
        server: The name of the circuit.
        failure_threshold: The number of consecutive failures that opens the circuit.
        open_seconds: How long an open circuit rejects all calls.
        excluded: An exception that proves that the server works: it counts as a success.
    """
    return CircuitBreaker(
        failure_threshold,
        open_seconds,
        exclude=[excluded],
        listeners=[_SingleProbe()],
        name=server,
        # The failure that opens the circuit reaches the caller as it is.
        throw_new_error_on_trip=False,
    )


class _SingleProbe(CircuitBreakerListener):
    """Let one caller probe a half-open circuit: `pybreaker` would let all callers through."""

    def __init__(self) -> None:
        self._is_probing = False

    # `pybreaker` holds the lock of the breaker when it calls `before_call`.
    def before_call(self, cb: CircuitBreaker, func: Callable[..., Result], *args: Any, **kwargs: Any) -> None:
        """Reject the call if another caller is probing the server."""
        if cb.current_state == STATE_HALF_OPEN:
            if self._is_probing:
                raise CircuitBreakerError("another caller is probing the server")
            self._is_probing = True

    def state_change(
        self, cb: CircuitBreaker, old_state: CircuitBreakerState | None, new_state: CircuitBreakerState
    ) -> None:
        """Forget the probe: it has ended, or the next one may start."""
        self._is_probing = False
