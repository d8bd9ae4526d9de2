"""A server that dies twice of what it is asked, and is started again each time: `python -m
tests.e2e.crashing_server`.

A request with one of two Idempotency-Keys kills its process before the commit of the change, or after it and
before the answer. The third process lives on.
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
from studio import idempotency as turns
from studio.settings import Settings

CRASH_BEFORE_COMMIT, CRASH_BEFORE_RESPONSE = "die-before-the-commit", "die-before-the-answer"
LEASE = timedelta(seconds=2)
MAX_STARTS = 3


def crash_after(work: Callable[..., Any], key: str) -> Callable[..., Any]:
    """The same work, but of one key nobody hears the result."""

    def work_and_die(*arguments: Any) -> Any:
        result = work(*arguments)
        if request.headers.get(idempotency.HEADER) == key:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return work_and_die


def serve(settings: Settings, may_crash: bool) -> int:
    """Serve until told to end, or dead."""
    turns.LEASE_DURATION = LEASE
    if may_crash:
        idempotency.store_encoded_response = crash_after(
            idempotency.store_encoded_response, CRASH_BEFORE_COMMIT
        )
        Endpoint._serve_idempotent = crash_after(Endpoint._serve_idempotent, CRASH_BEFORE_RESPONSE)
    return server.serve(settings)


def main() -> int:
    """Give the server one life after the other; what it needs is made once."""
    settings = Settings.from_environment()
    server.migrate_and_seed(settings)
    for life in range(MAX_STARTS):
        child = os.fork()
        if child == 0:
            os._exit(serve(settings, may_crash=life + 1 < MAX_STARTS))
        signal.signal(signal.SIGTERM, lambda *_, child=child: os.kill(child, signal.SIGTERM))
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            break
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
