"""Requests with an Idempotency-Key (draft-ietf-httpapi-idempotency-key-header-07) happen once.

This module knows what two equal requests are and what is said to the second one; the turns themselves are
`studio/idempotency.py`. Handlers notice nothing of it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, BinaryIO
from uuid import UUID

import orjson
from sqlalchemy import Row

from db.errors import PermissionDenied, Refused, TargetNotAllowed, Unauthenticated
from db.tenancy import current_caller, granted_scope, require_scope
from handlers.answers import Encoded, encode_json
from handlers.contract.call import Call
from handlers.contract.refusals import Invalid, RequestRefused, Violation
from handlers.current import current_request_id, current_settings
from handlers.errors import MEDIA_TYPE, problem_for
from handlers.uploaded import UploadedFile
from studio.idempotency import AtWork, Slot, Turn, give_up, hold, keep_answer, take_turn
from studio.media.fetching import ImageNotFetched, ImageNotUsable

logger = logging.getLogger(__name__)

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"

_CHUNK_BYTES = 1_048_576
_KEPT_PROBLEMS = (404, 409)
"""What a handler found in the database. Bytes that are no picture are none the next time either."""

_PASSING = (Unauthenticated, PermissionDenied, TargetNotAllowed, ImageNotFetched, ImageNotUsable)
"""Permission can be given, a token renewed, and other servers repent: then the same request deserves another
answer."""


class IdempotencyKeyInProgress(RequestRefused):
    """The first request with this key has not been answered yet."""

    status = 409
    code = "idempotency_key_in_progress"
    default_detail = "A request with this Idempotency-Key is still being worked on"

    def __init__(self) -> None:
        super().__init__(headers={"Retry-After": "1"})


class IdempotencyKeyReused(Invalid):
    """The key came with another request before."""

    code = "idempotency_key_reused"

    def __init__(self) -> None:
        told = "Was used for a request with other content"
        super().__init__([Violation(("header", HEADER), told, self.code)])


@dataclass
class Once:
    """The key of a request that is to happen once, and its turn as soon as the request has it."""

    operation_id: str
    key: str
    turn: Turn | None = None

    def begin(self, call: Call, is_held: bool = False) -> Encoded | None:
        """Take the turn, unless the request has it, or return the answer that the key's first request got.

        In the running transaction, as the caller; a turn that is held outlives it. IdempotencyKeyInProgress
        while there is no answer, IdempotencyKeyReused for another request; NotFound or PermissionDenied when
        the caller may no longer do what was asked.
        """
        if self.turn is not None:
            return None
        fingerprint = fingerprint_of(call.arguments)
        try:
            found = take_turn(self._slot(call), fingerprint)
            if isinstance(found, Turn):
                if is_held:
                    hold(found)
                self.turn = found
                return None
        except AtWork as error:
            raise IdempotencyKeyInProgress() from error
        if found.scope_id is not None:
            require_scope(found.scope_id)
        if not hmac.compare_digest(found.fingerprint, fingerprint):
            raise IdempotencyKeyReused()
        if found.status is None:
            raise IdempotencyKeyInProgress()
        return _replay(found)

    def _slot(self, call: Call) -> Slot:
        caller = current_caller()
        # An API key has keys of its own: it must not be told what its maker was answered.
        owned_key = self.key if caller.api_key_id is None else f"{caller.api_key_id} {self.key}"
        return Slot(
            user_id=caller.user_id,
            organization_id=call.arguments.get("organization_id"),
            operation_id=self.operation_id,
            key_hash=hashlib.sha256(owned_key.encode("utf-8")).hexdigest(),
        )


def _replay(row: Row[Any]) -> Encoded:
    headers, body = {**(row.headers or {}), REPLAYED: "true"}, _veil(row.body or b"", row.turn)
    media_type = headers.pop("Content-Type")
    if media_type == MEDIA_TYPE:
        # It belongs to this request: everything else of the problem is as it was.
        body = encode_json({**orjson.loads(body), "request_id": current_request_id()})
    return Encoded(row.status or 500, media_type, headers, body)


def fingerprint_of(arguments: dict[str, Any]) -> str:
    """Return what two requests with the same content have in common, files compared by their bytes.

    Keyed with the server's secret: bodies hold passwords, which a plain hash would let one guess.
    """
    canonical = json.dumps(arguments, sort_keys=True, separators=(",", ":"), default=_plain)
    secret = current_settings().secret_key.encode("utf-8")
    return hmac.new(secret, canonical.encode("ascii"), hashlib.sha256).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, UploadedFile):
        return [value.filename, value.content_type, _hash_of(value.file)]
    return _hash_of(value) if hasattr(value, "read") else str(value)


def _hash_of(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    file.seek(0)
    return digest.hexdigest()


def act(once: Once | None, handler: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Call the handler; note in the turn on whose rows it was allowed to work, even when it raises."""
    if once is None or once.turn is None:
        return handler(**arguments)
    try:
        return handler(**arguments)
    finally:
        once.turn.scope_id = granted_scope()


def keep(turn: Turn, encoded: Encoded) -> None:
    """Keep the answer in the running transaction, with the change that it tells of.

    IdempotencyKeyInProgress, which rolls the change back, when another send has taken over meanwhile.
    """
    headers = {**encoded.headers, "Content-Type": encoded.media_type}
    if not keep_answer(turn, encoded.status, headers, _veil(encoded.body or b"", turn.token)):
        raise IdempotencyKeyInProgress()


def _veil(body: bytes, token: UUID) -> bytes:
    """Return the body under a pad that only the server's secret makes; once more lifts it again.

    An answer may hold a secret that is shown once: whoever reads the database alone shall not find it there.
    A token names one attempt, which keeps one answer, so no pad is used twice.
    """
    seed = hmac.digest(current_settings().secret_key.encode("utf-8"), b"kept answer" + token.bytes, "sha256")
    pad = hashlib.shake_256(seed).digest(len(body))
    return (int.from_bytes(body) ^ int.from_bytes(pad)).to_bytes(len(body))


def settle(turn: Turn, error: Exception, transaction: Callable[[bool], AbstractContextManager[Any]]) -> None:
    """Keep what the handler refused by what it found, free the key after everything else.

    In a transaction of its own, after the rollback. IdempotencyKeyInProgress when another send has taken the
    turn meanwhile: only what is kept is told. A failure is logged: the key is free, or will be when its lease
    is over.
    """
    is_kept = True
    try:
        with transaction(True):
            problem = _kept_problem(error)
            if problem is None:
                give_up(turn)
            else:
                status, headers, body = problem
                is_kept = keep_answer(turn, status, headers, _veil(body, turn.token))
    except Exception:
        logger.exception("the answer to a request with an idempotency key was not kept")
    if not is_kept:
        raise IdempotencyKeyInProgress() from error


def _kept_problem(error: Exception) -> tuple[int, dict[str, str], bytes] | None:
    if not isinstance(error, Refused) or isinstance(error, _PASSING):
        return None
    problem = problem_for(error)
    if problem.status not in _KEPT_PROBLEMS:
        return None
    headers = {**problem.headers, "Cache-Control": "no-store", "Content-Type": MEDIA_TYPE}
    return problem.status, headers, problem.to_bytes(current_settings().public_url)
