"""Return a generic 500 problem when an outer middleware raises before the response has started."""

from __future__ import annotations

import logging
import secrets

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.pipeline.errors import MEDIA_TYPE, Problem, internal_error
from handlers.pipeline.middleware.security_headers import default_headers
from studio.telemetry.context import LogContext, current_log_context, set_log_context

logger = logging.getLogger(__name__)


class ErrorBoundary:
    """Answers with the neutral problem when a layer outside of the envelope fails before it has answered.

    There is one around each of them, so that those further out see and count that answer.
    """

    def __init__(self, app: ASGIApp, *, public_url: str) -> None:
        self.app = app
        self._public_url = public_url
        self._headers = [*default_headers(public_url), (b"cache-control", b"no-store")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; what fails after the answer began is raised, and the server breaks it off."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        has_begun = False

        async def send_and_note(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        except Exception:
            if has_begun:
                raise
            logger.exception("a layer outside of the envelope failed")
            await self._send_problem(scope["method"], send)

    async def _send_problem(self, method: str, send: Send) -> None:
        work = current_log_context()
        if work is None:
            work = LogContext(request_id=secrets.token_hex(10))
            set_log_context(work)
        start, body = to_messages(internal_error(), self._public_url)
        told = (b"x-request-id", str(work.request_id).encode())
        await send({**start, "headers": [*start["headers"], *self._headers, told]})
        await send({**body, "body": b""} if method == "HEAD" else body)


def to_messages(problem: Problem, public_url: str) -> tuple[Message, Message]:
    """Return a problem as the two messages of an answer."""
    body = problem.to_bytes(public_url)
    told = {"content-type": MEDIA_TYPE, "content-length": str(len(body)), **problem.headers}
    headers = [(name.lower().encode(), value.encode()) for name, value in told.items()]
    start = {"type": "http.response.start", "status": problem.status, "headers": headers}
    return start, {"type": "http.response.body", "body": body}
