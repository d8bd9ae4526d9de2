"""Validate parameters and body against the contract and pass them to the endpoint."""

from __future__ import annotations

import re
from functools import lru_cache

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.contract.errors import NotAcceptable, PathNotFound, ValidationFailed
from handlers.contract.operations import Operation
from handlers.contract.request_bodies import ClientDisconnected
from handlers.pipeline.request_context import REQUEST_CONTEXT, RequestContext


class RequestValidation:
    """Read and validate a request; store its arguments and claims in the request context."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Validate one request.

        Raises:
            ValidationFailed: with the violations of parameters and body together.
            NotAcceptable: the Accept header excludes every media type of the operation.
        """
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        context: RequestContext = scope[REQUEST_CONTEXT]
        operation = context.operation
        if operation is None:
            raise PathNotFound()
        context.claims = scope["extensions"].get("connexion_context", {}).get("token_info")
        headers = Headers(raw=scope["headers"])
        _require_acceptable(operation, ", ".join(headers.getlist("accept")))
        arguments, violations = operation.parameters.read(
            context.path_values, scope["query_string"], scope["headers"]
        )
        if operation.has_body:
            if operation.is_signed:
                receive = _capture_body(receive, context)
            try:
                arguments["body"], body_violations = await operation.request_body.read(
                    headers, receive, context.files_to_close
                )
            except ClientDisconnected:
                return
            violations = violations + body_violations
        if violations:
            raise ValidationFailed(violations)
        context.arguments = arguments
        await self.app(scope, receive, send)


def _capture_body(receive: Receive, context: RequestContext) -> Receive:
    """Return a `receive` that also stores the raw bytes: a signature covers them, not the parsed value."""

    async def receive_and_capture() -> Message:
        message = await receive()
        context.signed_body += message.get("body", b"")
        return message

    return receive_and_capture


def _require_acceptable(operation: Operation, accept: str) -> None:
    offered = operation.responses.media_types
    if accept and offered and not _is_acceptable(accept, offered) and operation.responses.declares(406):
        raise NotAcceptable()


@lru_cache(maxsize=512)
def _is_acceptable(accept: str, offered: frozenset[str]) -> bool:
    """Return whether an Accept header (RFC 9110, section 12.5.1) allows one of the media types.

    A malformed header allows all of them. `docs/decisions/0005-accept-is-parsed-here.md` says why Werkzeug's
    parser is not used.
    """
    weights: dict[str, float] = {}
    for part in accept.split(","):
        media_range, _, parameters = part.partition(";")
        weight = re.search(r"(?:^|;)\s*q\s*=\s*([0-9.]+)", parameters)
        if "/" in media_range:
            try:
                weights[media_range.strip().lower()] = float(weight[1]) if weight else 1.0
            except ValueError:
                return True
    if not weights:
        return True
    for media_type in offered:
        # The most specific range decides, even if it has a lower weight.
        ranges = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
        if next((weights[media_range] for media_range in ranges if media_range in weights), 0) > 0:
            return True
    return False
