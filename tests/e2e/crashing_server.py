"""A server that crashes twice and is restarted each time: `python -m tests.e2e.crashing_server`.

A request with one of two Idempotency-Keys kills its process: before the commit of the change, or after the
commit and before the response. The third process does not crash.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from flask import request

import handlers.server.cli as server
from handlers.pipeline import idempotency
from handlers.pipeline.endpoint import Endpoint
from studio.infrastructure import idempotency as idempotency_locks
from studio.infrastructure.settings import Settings

CRASH_BEFORE_COMMIT, CRASH_BEFORE_RESPONSE = "crash-before-commit", "crash-before-response"
LEASE = timedelta(seconds=2)
MAX_STARTS = 3


def crash_after(work: Callable[..., Any], key: str) -> Callable[..., Any]:
    """Return a wrapper of `work` that kills the process after a call for a request with this key."""

    def work_and_crash(*args: Any) -> Any:
        result = work(*args)
        if request.headers.get(idempotency.HEADER) == key:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return work_and_crash


def serve(settings: Settings, may_crash: bool) -> int:
    """Serve until SIGTERM or a crash."""
    idempotency_locks.LEASE_DURATION = LEASE
    if may_crash:
        idempotency.store_encoded_response = crash_after(
            idempotency.store_encoded_response, CRASH_BEFORE_COMMIT
        )
        Endpoint._serve_idempotent = crash_after(Endpoint._serve_idempotent, CRASH_BEFORE_RESPONSE)
    return server.serve(settings)


def main() -> int:
    """Prepare the database once, then start the server again after each crash."""
    settings = Settings.from_environment()
    server.migrate_and_seed(settings)
    for start in range(MAX_STARTS):
        child = os.fork()
        if child == 0:
            os._exit(serve(settings, may_crash=start + 1 < MAX_STARTS))
        signal.signal(signal.SIGTERM, lambda *_, child=child: os.kill(child, signal.SIGTERM))
        _, status = os.waitpid(child, 0)
        # Only SIGKILL is a crash: uvicorn raises SIGTERM again after a regular shutdown.
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            break
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
