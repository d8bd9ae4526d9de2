"""Validate parameters and body against the contract and pass them to the endpoint.

A file is stored while it arrives, so requests with files are authorized before their first byte is read.
Other bodies are small, and the endpoint authorizes the request. But if its body is wrong, the request is
authorized first: a caller without the permission gets 403 or 404, and learns nothing about the body.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import lru_cache
from uuid import UUID

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.contract.errors import (
    BadRequest,
    ContentTooLarge,
    NotAcceptable,
    PathNotFound,
    UnsupportedMediaType,
    ValidationFailed,
    Violation,
)
from handlers.contract.operations import Operation
from handlers.contract.request_bodies import ClientDisconnected
from handlers.contract.responses import PROBLEM_JSON
from handlers.contract.used_parts import find_used_properties
from handlers.pipeline.admission.body_limits import BodyTurns, UnfinishedBodies
from handlers.pipeline.policies import ServedOperation
from handlers.pipeline.request_context import REQUEST_CONTEXT, RequestContext
from studio.infrastructure.fair_slots import current_requester

_BODY_ERRORS = (BadRequest, ContentTooLarge, UnsupportedMediaType, ValidationFailed)
"""What a body alone can cause, with the same credential and parameters."""

Authorize = Callable[[ServedOperation, Scope], Awaitable[UUID | None]]
"""Authorizes a request without its body, and returns the account that a signed URL stands for."""


class RequestValidation:
    """Read and validate a request; store its arguments and claims in the request context."""

    def __init__(self, app: ASGIApp, *, authorize: Authorize, unfinished_bodies: UnfinishedBodies) -> None:
        self.app = app
        self.authorize = authorize
        self.unfinished_bodies = unfinished_bodies
        self.body_turns = BodyTurns()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Validate one request.

        Raises:
            ValidationFailed: with the violations of parameters and body together. A file is not read if the
                parameters have violations.
            Unauthenticated, PermissionDenied, NotFound: the body is not valid, and the caller could not make
                the request with another one.
            NotAcceptable: the Accept header excludes every media type of the operation.
            TooManyBodyBytes: too many bytes of unfinished bodies are held.
            TooManyConcurrentRequests: the account of the signed URL runs as many requests as it may, or has
                as many large bodies of JSON.
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
        context.arguments, violations = operation.parameters.read(
            context.path_values, scope["query_string"], scope["headers"]
        )
        if not operation.has_body:
            _require_valid(violations)
            await self.app(scope, receive, send)
            return
        with ExitStack() as until_served:
            try:
                await self._read_body(operation, context, violations, scope, receive, until_served)
            except ClientDisconnected:
                return
            except _BODY_ERRORS:
                # With wrong parameters it is not known which row the request is about.
                if not violations and not operation.is_public:
                    await self.authorize(operation, scope)
                raise
            await self.app(scope, receive, send)

    async def _read_body(
        self,
        operation: ServedOperation,
        context: RequestContext,
        violations: list[Violation],
        scope: Scope,
        receive: Receive,
        until_served: ExitStack,
    ) -> None:
        """Read the body into the arguments; its bytes count until the request is served.

        Raises:
            RequestError: The body, or with it the parameters, are not valid.
            ClientDisconnected: The body is not complete.
        """
        body = operation.request_body.announce(Headers(raw=scope["headers"]))
        is_file, authorized_in = body is not None and body.has_file, 0.0
        if is_file:
            _require_valid(violations)
            started = time.monotonic()
            account_id = await self.authorize(operation, scope)
            authorized_in = time.monotonic() - started
            if account_id is not None and context.owner is not None:
                # Before, the request counted for the address of the client.
                context.owner.assign(account_id)
        count = until_served.enter_context(self.unfinished_bodies.track(current_requester(), is_file))
        try:
            context.arguments["body"], body_violations = await operation.request_body.read(
                body, _watch_body(receive, context, count), context.files_to_close, self.body_turns.run
            )
            _require_valid(violations + operation.parameters.name_places(body_violations))
        except _BODY_ERRORS:
            if is_file:
                await self.body_turns.rest(authorized_in)
            raise
        if paths := operation.deprecated_properties:
            # Before the handler, which may take properties out of the body.
            context.used_properties = find_used_properties(
                operation.operation_id, paths, context.arguments["body"]
            )


def _require_valid(violations: list[Violation]) -> None:
    if violations:
        raise ValidationFailed(violations)


def _watch_body(receive: Receive, context: RequestContext, count: Callable[[int], None]) -> Receive:
    """Return a `receive` that counts the bytes of the body.

    It also stores those of a signed body: its signature covers them, not the parsed value.
    """
    is_signed = context.operation is not None and context.operation.is_signed

    async def receive_and_watch() -> Message:
        message = await receive()
        chunk = message.get("body", b"")
        count(len(chunk))
        if is_signed:
            context.signed_body += chunk
        return message

    return receive_and_watch


def _require_acceptable(operation: Operation, accept: str) -> None:
    offered = operation.responses.media_types
    if not accept or not offered or not operation.responses.declares(406):
        return
    # Some generated clients accept only problem documents when they download a file. RFC 9110,
    # section 12.5.1, lets a server disregard the header.
    if not _is_acceptable(accept, offered) and PROBLEM_JSON not in accept.lower():
        raise NotAcceptable(f"The response is {' or '.join(sorted(offered))}; Accept allows none of them")


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
