"""One request in its thread: transaction, caller, permission, handler, check of the answer, commit.

Returning commits, raising rolls back. An answer that breaks the contract raises, so nothing of it is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import orjson
from flask import Response, request

from db.errors import PermissionDenied, Unauthenticated
from db.tenancy import Caller
from handlers.answers import Answer, encode_json, strong_etag
from handlers.conditional import none_match
from handlers.contract.call import CALL, Call
from handlers.contract.operations import Operation
from handlers.contract.refusals import ContractBroken
from handlers.observing import acting_as
from handlers.permissions import SUPERUSER_ONLY

Transaction = Callable[[bool], AbstractContextManager[Any]]
CallerLoader = Callable[[dict[str, Any]], Caller]

_KEPT_BY_304 = ("etag", "cache-control", "vary", "expires", "content-location")


class Endpoint:
    """The view function of one operation. What it needs of the database is handed in."""

    def __init__(
        self,
        operation: Operation,
        handler: Callable[..., Answer],
        transaction: Transaction,
        load_caller: CallerLoader,
    ) -> None:
        self._operation = operation
        self._handler = handler
        self._transaction = transaction
        self._load_caller = load_caller
        self._writes = operation.method not in ("GET", "HEAD")
        # Flask and Connexion name views by this.
        self.__name__ = operation.operation_id

    def __call__(self, **_path_values: Any) -> Response:
        """Serve the request at hand; whatever is raised rolls back and becomes a problem."""
        call: Call = request.environ[CALL]
        with self._transaction(self._writes), self._as_caller(call):
            answer = self._handler(**call.arguments)
            response = self._respond(call, answer)
        call.checked = True
        return response

    def _as_caller(self, call: Call) -> AbstractContextManager[Any]:
        """Return the context in which the handler is the caller; raise when the caller may never do this."""
        if self._operation.is_open:
            return nullcontext()
        if call.claims is None:
            raise Unauthenticated()
        caller = self._load_caller(call.claims)
        if self._operation.permission in SUPERUSER_ONLY and not caller.is_superuser:
            raise PermissionDenied()
        return acting_as(caller, self._operation.permission)

    def _respond(self, call: Call, answer: Answer) -> Response:
        headers = dict(answer.headers)
        raw = self._encode(answer)
        if answer.tagged and raw is not None:
            headers["ETag"] = strong_etag(raw)
        value = answer.body
        status, media_type = answer.status, answer.media_type
        if isinstance(value, Path):
            headers["Content-Length"] = str(value.stat().st_size)
            call.file = value if request.method != "HEAD" else None
        if status == 200 and self._is_known(headers):
            status, raw, value, call.file = 304, None, None, None
            headers = {name: text for name, text in headers.items() if name.lower() in _KEPT_BY_304}
        self._check(call, status, media_type, headers, value, raw)
        return _build(status, media_type, headers, raw)

    def _encode(self, answer: Answer) -> bytes | None:
        """Return the bytes of the body, None for no body and for files."""
        if answer.body is None or isinstance(answer.body, Path):
            return None
        if isinstance(answer.body, bytes):
            return answer.body
        try:
            return encode_json(answer.body)
        except (orjson.JSONEncodeError, TypeError) as error:
            raise ContractBroken(
                self._operation.operation_id, "encoding", f"the body cannot be encoded: {error}"
            ) from error

    def _is_known(self, headers: dict[str, str]) -> bool:
        return (
            not self._writes
            and self._operation.responses.documents(304)
            and none_match(request.headers.get("If-None-Match"), headers.get("ETag"))
        )

    def _check(
        self, call: Call, status: int, media_type: str, headers: dict[str, str], value: Any, raw: bytes | None
    ) -> None:
        lowered = {name.lower(): text for name, text in headers.items()}
        # The outermost middleware sends it with every answer.
        lowered["x-request-id"] = call.request_id
        violation = self._operation.responses.violation(status, media_type, lowered, value, raw)
        if violation is not None:
            words = f"answered {status}: {violation}"
            raise ContractBroken(self._operation.operation_id, violation.kind, words)


def _build(status: int, media_type: str, headers: dict[str, str], raw: bytes | None) -> Response:
    response = Response(raw or b"", status, headers, content_type=media_type)
    if status in (204, 304):
        del response.headers["Content-Type"]
    elif raw is None and "Content-Length" in headers:
        # A file: the bridge streams it, so Werkzeug must not count the empty body it sees.
        response.headers["Content-Length"] = headers["Content-Length"]
        response.automatically_set_content_length = False
    return response
