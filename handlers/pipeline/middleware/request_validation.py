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
    """Reads a request and holds it against the contract; hands arguments and body to the endpoint."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request; raises Invalid with all violations of parameters and body together."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        call: RequestContext = scope[REQUEST_CONTEXT]
        operation = call.operation
        if operation is None:
            raise PathNotFound()
        call.claims = scope["extensions"].get("connexion_context", {}).get("token_info")
        headers = Headers(raw=scope["headers"])
        _require_acceptable(operation, ", ".join(headers.getlist("accept")))
        arguments, violations = operation.parameters.read(
            call.path_values, scope["query_string"], scope["headers"]
        )
        if operation.has_body:
            if operation.is_signed:
                receive = _capture_body(receive, call)
            try:
                arguments["body"], of_body = await operation.request_body.read(
                    headers, receive, call.files_to_close
                )
            except ClientDisconnected:
                return
            violations = violations + of_body
        if violations:
            raise ValidationFailed(violations)
        call.arguments = arguments
        await self.app(scope, receive, send)


def _capture_body(receive: Receive, call: RequestContext) -> Receive:
    """Return a `receive` that notes the bytes as they pass: a signature is over them, not their meaning."""

    async def receive_and_keep() -> Message:
        message = await receive()
        call.signed_body += message.get("body", b"")
        return message

    return receive_and_keep


def _require_acceptable(operation: Operation, accept: str) -> None:
    offered = operation.responses.media_types
    if accept and offered and not _is_acceptable(accept, offered) and operation.responses.declares(406):
        raise NotAcceptable()


@lru_cache(maxsize=512)
def _is_acceptable(accept: str, offered: frozenset[str]) -> bool:
    """Return whether an Accept header (RFC 9110, 12.5.1) takes one of the media types; nonsense takes all."""
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
        ranges = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
        if next((weights[wanted] for wanted in ranges if wanted in weights), 0) > 0:
            return True
    return False
