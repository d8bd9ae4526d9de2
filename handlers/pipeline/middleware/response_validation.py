"""Validate responses that no endpoint has validated, and add the headers that every response carries."""

from __future__ import annotations

import logging

from anyio import to_thread
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.contract.operations import Operation
from handlers.contract.request_bodies import MAX_EVENT_LOOP_BYTES
from handlers.contract.responses import SchemaMismatch
from handlers.pipeline.errors import Problem, build_problem, internal_error
from handlers.pipeline.middleware.error_boundary import to_messages
from handlers.pipeline.request_context import REQUEST_CONTEXT, RequestContext
from handlers.pipeline.unknown_values import is_defect
from studio.infrastructure.telemetry.metrics import count_contract_defect

logger = logging.getLogger(__name__)


class ResponseValidation:
    """Add the request id to every response and replace responses that the contract does not declare."""

    def __init__(self, app: ASGIApp, *, public_url: str) -> None:
        self.app = app
        self.public_url = public_url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; raise only if the response has already started."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        context: RequestContext = scope[REQUEST_CONTEXT]
        validating_send = _ValidatingSend(context, scope["method"], send, self.public_url)
        try:
            await self.app(
                {**scope, "extensions": dict(scope.get("extensions") or {})}, receive, validating_send
            )
        except Exception as error:  # noqa: BLE001 - the last resort: the error handlers themselves failed
            await validating_send.send_error(error)
        finally:
            for file in context.files_to_close:
                file.close()


class _ValidatingSend:
    """An ASGI `send` that buffers unvalidated responses and validates them before it sends them."""

    def __init__(self, context: RequestContext, method: str, send: Send, public_url: str) -> None:
        self._context, self._method, self._send, self._public_url = context, method, send, public_url
        self._buffered_start: tuple[Operation, Message] | None = None
        self._body = b""
        self._has_started = False

    async def __call__(self, message: Message) -> None:
        """Send or buffer one ASGI message of the response."""
        if message["type"] == "http.response.start":
            operation = self._context.operation
            if self._context.is_validated or operation is None:
                await self._send_start(message)
            else:
                self._buffered_start = operation, message
        elif self._buffered_start is None:
            await self._send_body(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._send_buffered(*self._buffered_start)

    async def _send_buffered(self, operation: Operation, start: Message) -> None:
        """Send the buffered response if it matches the contract; else log a defect and send a 500 problem."""
        self._buffered_start = None
        if len(self._body) > MAX_EVENT_LOOP_BYTES:
            mismatch = await to_thread.run_sync(self._find_mismatch, operation, start)
        else:
            mismatch = self._find_mismatch(operation, start)
        if mismatch is not None and is_defect(operation.operation_id, mismatch):
            logger.error(
                "contract violation: %s returned %s: %s", operation.operation_id, start["status"], mismatch
            )
            count_contract_defect(operation.operation_id, mismatch.kind)
            # An undeclared 500 is sent as it is: replacing it by another 500 changes nothing.
            if start["status"] != 500:
                await self._send_problem(internal_error())
                return
        await self._send_start(start)
        await self._send_body({"type": "http.response.body", "body": self._body})

    def _find_mismatch(self, operation: Operation, start: Message) -> SchemaMismatch | None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in start["headers"]}
        media_type = headers.get("content-type", "")
        headers = self._context.merge_headers(headers)
        return operation.responses.find_mismatch(start["status"], media_type, headers, self._body, self._body)

    async def send_error(self, error: Exception) -> None:
        """Send the problem for an exception, or re-raise it if the response has already started."""
        try:
            problem = build_problem(error)
        except Exception:
            logger.exception("building the problem for an exception failed")
            problem = internal_error()
        if self._has_started:
            # The client detects the error by the missing end of the body.
            raise error
        await self._send_problem(problem)

    async def _send_problem(self, problem: Problem) -> None:
        start, body = to_messages(problem, self._public_url)
        await self._send_start(start)
        await self._send_body(body)

    async def _send_start(self, message: Message) -> None:
        self._has_started = True
        headers = [pair for pair in message["headers"] if pair[0] != b"x-request-id"]
        # A second `Link` field extends the list of the first (RFC 8288, section 3.5).
        headers += [
            (name.encode(), value.encode()) for name, value in self._context.response_headers().items()
        ]
        await self._send({**message, "headers": headers})

    async def _send_body(self, message: Message) -> None:
        await self._send({**message, "body": b""} if self._method == "HEAD" else message)
