"""Return a problem, mostly a generic 500, when an outer middleware raises before the response has started."""

from __future__ import annotations

import logging
import secrets

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.pipeline.errors import MEDIA_TYPE, Problem, build_problem, internal_error, record_problem
from handlers.pipeline.middleware.security_headers import default_headers
from studio.infrastructure.storage import is_storage_unavailable
from studio.infrastructure.telemetry.context import LogContext, current_log_context, set_log_context

logger = logging.getLogger(__name__)


class ErrorBoundary:
    """Turn an exception of the wrapped middleware into a 500 problem, or 503 if no file can be opened.

    The stack has one boundary outside of `observability` and one inside of it, so that failures further
    inside are still logged and counted.
    """

    def __init__(self, app: ASGIApp, *, public_url: str) -> None:
        self.app = app
        self._public_url = public_url
        self._headers = [*default_headers(public_url), (b"cache-control", b"no-store")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; re-raise an exception that occurs after the response has started."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        has_started = False

        async def track_start(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await self.app(scope, receive, track_start)
        except Exception as error:
            if has_started:
                # The server closes the connection: a truncated body must not look complete.
                raise
            if is_storage_unavailable(error):
                problem = build_problem(error)
            else:
                logger.exception("unhandled exception in an outer middleware")
                problem = internal_error()
            await self._send_problem(problem, scope["method"], send)

    async def _send_problem(self, problem: Problem, method: str, send: Send) -> None:
        log_context = current_log_context()
        if log_context is None:
            # The middleware that assigns the request id is the one that failed.
            log_context = LogContext(request_id=secrets.token_hex(10))
            set_log_context(log_context)
        start, body = to_messages(problem, self._public_url)
        request_id = (b"x-request-id", str(log_context.request_id).encode())
        await send({**start, "headers": [*start["headers"], *self._headers, request_id]})
        await send({**body, "body": b""} if method == "HEAD" else body)


def to_messages(problem: Problem, public_url: str) -> tuple[Message, Message]:
    """Return the two ASGI messages of a problem response, and record the problem for the log."""
    record_problem(problem.code, problem.limit)
    body = problem.to_bytes(public_url)
    fields = {"content-type": MEDIA_TYPE, "content-length": str(len(body)), **problem.headers}
    headers = [(name.lower().encode(), value.encode()) for name, value in fields.items()]
    start = {"type": "http.response.start", "status": problem.status, "headers": headers}
    return start, {"type": "http.response.body", "body": body}
