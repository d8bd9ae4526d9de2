"""One request in its thread: transaction, caller, permission, handler, check of the answer, commit.

Returning commits, raising rolls back. An answer that breaks the contract raises, so nothing of it is kept.
What takes its time, such as decoding a picture, is done before that transaction. A request with an
Idempotency-Key takes its turn within it, or, where something comes before it, in a short one of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from flask import Response, request
from werkzeug.datastructures import Headers

from db.actors import NOBODY, SYSTEM
from db.audit import Trail
from db.errors import PermissionDenied, Unauthenticated
from db.tenancy import Caller, current_organization
from handlers import idempotency
from handlers.answers import Answer, Encoded, encode_json, strong_etag
from handlers.auditing import Auditing
from handlers.conditional import none_match
from handlers.contract.call import CALL, Call
from handlers.contract.operations import Operation
from handlers.contract.refusals import ContractBroken, TookTooLong
from handlers.idempotency import Once
from handlers.limiting import count_organization
from handlers.observing import acting_as
from handlers.permissions import SUPERUSER_ONLY, checks_proof_itself
from handlers.preparing import preparation_of
from handlers.trying import counted, counting_of
from studio.limits.limits import Limits

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

Transaction = Callable[..., AbstractContextManager[Any]]
CallerLoader = Callable[[dict[str, Any]], Caller]

# What describes a body that is not sent. All else a 304 says again: browsers put its headers in the place of
# those of their copy (RFC 9111, 4.3.4), and one left out would be that of answers with none of their own.
_NOT_IN_304 = ("content-encoding", "content-length")


class Endpoint:
    """The view function of one operation. What it needs of the database is handed in."""

    def __init__(
        self,
        operation: Operation,
        handler: Callable[..., Answer],
        transaction: Transaction,
        load_caller: CallerLoader,
        limits: Limits,
        auditing: Auditing | None = None,
    ) -> None:
        self._operation = operation
        self._handler = handler
        self._preparation = preparation_of(handler)
        self._counting = counting_of(handler)
        self._transaction = transaction
        self._load_caller = load_caller
        self._limits = limits
        self._auditing = auditing
        # Of a request with a token, only who is calling is read as the system; then it is the caller's.
        self._actor = NOBODY if operation.is_open and not checks_proof_itself(handler) else SYSTEM
        self._writes = operation.method not in ("GET", "HEAD")
        # Flask and Connexion name views by this.
        self.__name__ = operation.operation_id

    def __call__(self, **_path_values: Any) -> Response:
        """Serve the request at hand; whatever is raised rolls back and becomes a problem."""
        call: Call = request.environ[CALL]
        key = request.headers.get(idempotency.HEADER) if self._operation.takes_idempotency_key else None
        with counted(self._counting, call, self._transaction):
            response = self._serve(call) if key is None else self._serve_once(call, key)
        call.checked = True
        return response

    def _serve(self, call: Call, once: Once | None = None) -> Response:
        arguments, before = call.arguments, self._preparation
        if before is not None and before.is_needed(arguments):
            with self._transaction(False, self._actor), self._as_caller(call):
                idempotency.act(once, before.look, arguments)
            arguments = before.prepare(arguments)
        with self._transaction(self._writes, self._actor), self._as_caller(call) as trail:
            first = None if once is None else once.begin(call)
            if first is not None:
                return self._again(call, first)
            encoded = self._respond(call, idempotency.act(once, self._handler, arguments))
            if once is not None and once.turn is not None:
                idempotency.keep(once.turn, encoded)
            if trail is not None and self._auditing is not None:
                self._auditing.record(call, trail, encoded)
            # Before the commit, as everything that may fail.
            response = _build(encoded)
            if not call.claim_ending():
                raise TookTooLong
            return response

    def _serve_once(self, call: Call, key: str) -> Response:
        """Serve the first request with this key, and answer the others as it was answered."""
        once, before = Once(self._operation.operation_id, key), self._preparation
        try:
            if before is not None and before.is_needed(call.arguments):
                # While it prepares no transaction is open that would keep others from doing the same.
                with self._transaction(True), self._as_caller(call):
                    first = once.begin(call, is_held=True)
                if first is not None:
                    return self._again(call, first)
            return self._serve(call, once)
        except Exception as error:
            if once.turn is not None:
                idempotency.settle(once.turn, error, self._transaction)
            raise

    def _again(self, call: Call, first: Encoded) -> Response:
        self._check(call, first, orjson.loads(first.body or b"null"))
        return _build(first)

    @contextmanager
    def _as_caller(self, call: Call) -> Iterator[Trail | None]:
        """Let the handler be the caller within the block; raise when the caller may never do this.

        What happens there is followed for the audit log, and a refusal written down.
        """
        watching = nullcontext() if self._auditing is None else self._auditing.watching(call)
        with watching as trail:
            if self._operation.is_open:
                yield trail
                return
            if call.claims is None:
                raise Unauthenticated()
            call.caller = caller = self._load_caller(call.claims)
            if self._operation.permission in SUPERUSER_ONLY and not caller.is_superuser:
                raise PermissionDenied()
            # A key, before any row is looked for: many handlers count on every role's right to read.
            call.organization_id = caller.key_organization_id
            if caller.api_key_id and not caller.may(self._operation.permission, call.organization_id):
                raise PermissionDenied()
            count = partial(count_organization, self._limits, call)
            with acting_as(caller, self._operation.permission, count):
                try:
                    yield trail
                finally:
                    call.organization_id = current_organization()

    def _respond(self, call: Call, answer: Answer) -> Encoded:
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
            headers = {name: text for name, text in headers.items() if name.lower() not in _NOT_IN_304}
        encoded = Encoded(status, media_type, headers, raw)
        self._check(call, encoded, value)
        call.watch = answer.watch
        return encoded

    def _encode(self, answer: Answer) -> bytes | None:
        """Return the bytes of the body as they are sent, None for no body and for files."""
        if answer.packed is not None:
            return answer.packed
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

    def _check(self, call: Call, encoded: Encoded, value: Any) -> None:
        lowered = {name.lower(): text for name, text in encoded.headers.items()}
        # With what the envelope adds to every answer.
        violation = self._operation.responses.violation(
            encoded.status, encoded.media_type, call.complete(lowered), value, encoded.body
        )
        if violation is not None:
            words = f"answered {encoded.status}: {violation}"
            raise ContractBroken(self._operation.operation_id, violation.kind, words)


class _Complete(Response):
    """An answer whose headers are sent as they are: they were checked, and Werkzeug would only copy them."""

    def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:
        """Return them."""
        return self.headers


def _build(encoded: Encoded) -> Response:
    response = _Complete(
        encoded.body or b"", encoded.status, encoded.headers, content_type=encoded.media_type
    )
    if encoded.status in (204, 304):
        del response.headers["Content-Type"]
        del response.headers["Content-Length"]
    elif encoded.body is None and "Content-Length" in encoded.headers:
        # A file: the bridge streams it, so the length of the empty body is none.
        response.headers["Content-Length"] = encoded.headers["Content-Length"]
    return response
