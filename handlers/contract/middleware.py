"""The rules of HTTP, around Connexion's security: envelope, gate and check, in the order of a request.

The envelope is around the others: no answer that the contract does not know. Only who watches, and who adds
headers, stands further out, each within a last resort. The gate finds the operation or says
why there is none. The check, after security, validates all that a request carries.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import quote

from connexion.middleware.abstract import ROUTING_CONTEXT
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.contract.bodies import ClientGone
from handlers.contract.call import CALL, Call
from handlers.contract.operations import Operation
from handlers.contract.paths import PathTable
from handlers.contract.refusals import (
    Invalid,
    MethodNotAllowed,
    NotAcceptable,
    UnknownPath,
)
from handlers.contract.responses import Breach
from handlers.contract.surface import headers_of_every_answer
from handlers.errors import MEDIA_TYPE, Problem, internal_error, problem_for
from studio.telemetry.context import Work, begin_work, current_work
from studio.telemetry.metrics import count_contract_defect

logger = logging.getLogger(__name__)

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_METHODS = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
_METHODS_OF_PAGES = "GET, HEAD, OPTIONS"


class LastResort:
    """Answers with the neutral problem when a layer outside of the envelope fails before it has answered.

    There is one around each of them, so that those further out see and count that answer.
    """

    def __init__(self, app: ASGIApp, *, public_url: str) -> None:
        self.app = app
        self._public_url = public_url
        self._headers = [*headers_of_every_answer(public_url), (b"cache-control", b"no-store")]

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
        work = current_work()
        if work is None:
            work = Work(request_id=secrets.token_hex(10))
            begin_work(work)
        start, body = _messages_of(internal_error(), self._public_url)
        told = (b"x-request-id", str(work.request_id).encode())
        await send({**start, "headers": [*start["headers"], *self._headers, told]})
        await send({**body, "body": b""} if method == "HEAD" else body)


def _messages_of(problem: Problem, public_url: str) -> tuple[Message, Message]:
    """Return a problem as the two messages of an answer."""
    body = problem.to_bytes(public_url)
    told = {"content-type": MEDIA_TYPE, "content-length": str(len(body)), **problem.headers}
    headers = [(name.lower().encode(), value.encode()) for name, value in told.items()]
    start = {"type": "http.response.start", "status": problem.status, "headers": headers}
    return start, {"type": "http.response.body", "body": body}


class Envelope:
    """Gives every answer its request id and lets no undocumented answer out."""

    def __init__(self, app: ASGIApp, *, public_url: str) -> None:
        self.app = app
        self.public_url = public_url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; nothing is raised to the server."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        call: Call = scope[CALL]
        outlet = _Outlet(call, scope["method"], send, self.public_url)
        try:
            await self.app({**scope, "extensions": dict(scope.get("extensions") or {})}, receive, outlet)
        except Exception as error:  # noqa: BLE001 - the last resort: the error handlers themselves failed
            await outlet.fail(error)
        finally:
            for file in call.closing:
                file.close()


class _Outlet:
    """What an answer goes through last. Answers that no endpoint has checked are held until they are."""

    def __init__(self, call: Call, method: str, send: Send, public_url: str) -> None:
        self._call, self._method, self._send, self._public_url = call, method, send, public_url
        self._held: tuple[Operation, Message] | None = None
        self._body = b""
        self._sent = False

    async def __call__(self, message: Message) -> None:
        """Take one message of the answer."""
        if message["type"] == "http.response.start":
            operation = self._call.operation
            if self._call.checked or operation is None:
                await self._send_start(message)
            else:
                self._held = operation, message
        elif self._held is None:
            await self._send_body(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._release(*self._held)

    async def _release(self, operation: Operation, start: Message) -> None:
        """Send a held answer if the contract knows it, else the neutral problem; log the defect."""
        self._held = None
        violation = self._violation(operation, start)
        if violation is not None:
            logger.error(
                "contract broken: %s answered %s: %s", operation.operation_id, start["status"], violation
            )
            count_contract_defect(operation.operation_id, violation.kind)
            if start["status"] != 500:
                await self._send_problem(internal_error())
                return
        await self._send_start(start)
        await self._send_body({"type": "http.response.body", "body": self._body})

    def _violation(self, operation: Operation, start: Message) -> Breach | None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in start["headers"]}
        media_type = headers.get("content-type", "")
        headers = self._call.complete(headers)
        return operation.responses.violation(start["status"], media_type, headers, self._body, self._body)

    async def fail(self, error: Exception) -> None:
        """Answer with the problem for an error that nothing else caught; too late once something was sent."""
        try:
            problem = problem_for(error)
        except Exception:
            logger.exception("no problem could be made of an error")
            problem = internal_error()
        if self._sent:
            # The client notices by the missing end of the body.
            raise error
        await self._send_problem(problem)

    async def _send_problem(self, problem: Problem) -> None:
        start, body = _messages_of(problem, self._public_url)
        await self._send_start(start)
        await self._send_body(body)

    async def _send_start(self, message: Message) -> None:
        self._sent = True
        headers = [pair for pair in message["headers"] if pair[0] != b"x-request-id"]
        # A second `Link` adds its links to those of the first (RFC 8288, 3.5).
        headers += [(name.encode(), value.encode()) for name, value in self._call.told().items()]
        await self._send({**message, "headers": headers})

    async def _send_body(self, message: Message) -> None:
        await self._send({**message, "body": b""} if self._method == "HEAD" else message)


class Gate:
    """Finds the operation of a request or refuses it, in place of Connexion's routing.

    With one router, security, validation and Flask cannot disagree about what a path means.
    """

    def __init__(
        self, app: ASGIApp, *, table: PathTable, base_path: str, outside: Mapping[str, ASGIApp]
    ) -> None:
        self.app = app
        self.table = table
        self.base_path = base_path
        self.outside = outside

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route one request; raises UnknownPath and MethodNotAllowed."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path, method = scope["path"], scope["method"]
        if path == "*" and method == "OPTIONS":
            await _send_empty(send, 204, b"allow", _METHODS)
            return
        if _CONTROL.search(path) or "//" in path:
            raise UnknownPath()
        place = self.table.find(path)
        if place is None:
            await self._elsewhere(scope, receive, send)
            return
        operation = place.operations.get(method)
        if operation is None and method == "OPTIONS":
            await _send_empty(send, 204, b"allow", place.allow)
            return
        if operation is None:
            raise MethodNotAllowed(headers={"Allow": place.allow})
        call: Call = scope[CALL]
        call.operation, call.path_values = operation, place.values
        routing = {"api_base_path": self.base_path, "operation_id": operation.operation_id}
        scope["extensions"][ROUTING_CONTEXT] = routing
        scope["path_params"] = place.values
        await self.app(scope, receive, send)

    async def _elsewhere(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a page outside of the contract, or lead a collection without its slash to where it lives."""
        page = self.outside.get(scope["path"])
        if page is not None:
            await _show(page, scope, receive, send)
            return
        collection = scope["path"] + "/"
        if not self.table.is_concrete(collection):
            raise UnknownPath()
        query = scope["query_string"].decode("latin-1")
        await _send_empty(send, 308, b"location", quote(collection) + (f"?{query}" if query else ""))


async def _show(page: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve a page outside of the contract: it can be read, and nothing else."""
    if scope["method"] == "OPTIONS":
        await _send_empty(send, 204, b"allow", _METHODS_OF_PAGES)
    elif scope["method"] not in ("GET", "HEAD"):
        raise MethodNotAllowed(headers={"Allow": _METHODS_OF_PAGES})
    else:
        await page(scope, receive, send)


async def _send_empty(send: Send, status: int, name: bytes, value: str) -> None:
    headers = [(name, value.encode("latin-1"))]
    if status != 204:
        headers.append((b"content-length", b"0"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


class Check:
    """Reads a request and holds it against the contract; hands arguments and body to the endpoint."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request; raises Invalid with all violations of parameters and body together."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        call: Call = scope[CALL]
        operation = call.operation
        if operation is None:
            raise UnknownPath()
        call.claims = scope["extensions"].get("connexion_context", {}).get("token_info")
        headers = Headers(raw=scope["headers"])
        _require_acceptable(operation, ", ".join(headers.getlist("accept")))
        arguments, violations = operation.parameters.read(
            call.path_values, scope["query_string"], scope["headers"]
        )
        if operation.takes_body:
            if operation.is_signed:
                receive = _keeping_the_body(receive, call)
            try:
                arguments["body"], of_body = await operation.bodies.read(headers, receive, call.closing)
            except ClientGone:
                return
            violations = violations + of_body
        if violations:
            raise Invalid(violations)
        call.arguments = arguments
        await self.app(scope, receive, send)


def _keeping_the_body(receive: Receive, call: Call) -> Receive:
    """Return a `receive` that notes the bytes as they pass: a signature is over them, not their meaning."""

    async def receive_and_keep() -> Message:
        message = await receive()
        call.signed_body += message.get("body", b"")
        return message

    return receive_and_keep


def _require_acceptable(operation: Operation, accept: str) -> None:
    offered = operation.responses.media_types
    if accept and offered and not _is_acceptable(accept, offered) and operation.responses.documents(406):
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
