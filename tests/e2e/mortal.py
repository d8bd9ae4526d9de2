"""A server that dies twice of what it is asked, and is started again each time: `python -m tests.e2e.mortal`.

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

import handlers.command as server
from handlers import idempotency
from handlers.contract.endpoint import Endpoint
from studio import idempotency as turns
from studio.settings import Settings

DIE_BEFORE_COMMIT, DIE_BEFORE_ANSWER = "die-before-the-commit", "die-before-the-answer"
LEASE = timedelta(seconds=2)
LIVES = 3


def fatal(work: Callable[..., Any], key: str) -> Callable[..., Any]:
    """The same work, but of one key nobody hears the result."""

    def work_and_die(*arguments: Any) -> Any:
        result = work(*arguments)
        if request.headers.get(idempotency.HEADER) == key:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return work_and_die


def live(settings: Settings, is_mortal: bool) -> int:
    """Serve until told to end, or dead."""
    turns.LEASE = LEASE
    if is_mortal:
        idempotency.keep = fatal(idempotency.keep, DIE_BEFORE_COMMIT)
        Endpoint._serve_once = fatal(Endpoint._serve_once, DIE_BEFORE_ANSWER)
    return server.serve(settings)


def main() -> int:
    """Give the server one life after the other; what it needs is made once."""
    settings = Settings.from_environment()
    server.prepare(settings)
    for life in range(LIVES):
        child = os.fork()
        if child == 0:
            os._exit(live(settings, is_mortal=life + 1 < LIVES))
        signal.signal(signal.SIGTERM, lambda *_, child=child: os.kill(child, signal.SIGTERM))
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            break
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
