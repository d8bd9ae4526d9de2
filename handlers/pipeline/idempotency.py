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

from db.errors import DomainError, PermissionDenied, TargetNotAllowed, Unauthenticated
from db.tenancy import current_caller, first_grant, require_grant
from handlers.common.context import current_request_id, current_settings
from handlers.common.responses import EncodedResponse, encode_json
from handlers.contract.errors import RequestError, ValidationFailed, Violation
from handlers.contract.request_bodies import UploadedFile
from handlers.pipeline.errors import MEDIA_TYPE, build_problem
from handlers.pipeline.request_context import RequestContext
from studio.idempotency import (
    IdempotencyLock,
    IdempotencyNamespace,
    RequestInProgress,
    acquire,
    persist_lock,
    release,
    store_response,
)
from studio.media.fetching import ImageNotFetched, ImageNotUsable

logger = logging.getLogger(__name__)

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"

_CHUNK_BYTES = 1_048_576
_STORED_STATUSES = (404, 409)
"""What a handler found in the database. Bytes that are no picture are none the next time either."""

_RETRYABLE = (Unauthenticated, PermissionDenied, TargetNotAllowed, ImageNotFetched, ImageNotUsable)
"""Permission can be given, a token renewed, and other servers repent: then the same request deserves another
answer."""


class IdempotencyKeyInProgress(RequestError):
    """The first request with this key has not been answered yet."""

    status = 409
    code = "idempotency_key_in_progress"
    default_detail = "A request with this Idempotency-Key is still being worked on"

    def __init__(self) -> None:
        super().__init__(headers={"Retry-After": "1"})


class IdempotencyKeyReused(ValidationFailed):
    """The key came with another request before."""

    code = "idempotency_key_reused"

    def __init__(self) -> None:
        told = "Was used for a request with other content"
        super().__init__([Violation(("header", HEADER), told, self.code)])


@dataclass
class IdempotentRequest:
    """The key of a request that is to happen once, and its turn as soon as the request has it."""

    operation_id: str
    key: str
    lock: IdempotencyLock | None = None

    def acquire(self, call: RequestContext, persist: bool = False) -> EncodedResponse | None:
        """Take the turn, unless the request has it, or return the answer that the key's first request got.

        In the running transaction, as the caller; a turn that is held outlives it. IdempotencyKeyInProgress
        while there is no answer, IdempotencyKeyReused for another request; NotFound or PermissionDenied when
        the caller may no longer do what was asked.
        """
        if self.lock is not None:
            return None
        fingerprint = request_fingerprint(call.arguments)
        try:
            found = acquire(self._namespace(call), fingerprint)
            if isinstance(found, IdempotencyLock):
                if persist:
                    persist_lock(found)
                self.lock = found
                return None
        except RequestInProgress as error:
            raise IdempotencyKeyInProgress() from error
        if found.scope_id is not None:
            require_grant(found.scope_id)
        if not hmac.compare_digest(found.fingerprint, fingerprint):
            raise IdempotencyKeyReused()
        if found.status is None:
            raise IdempotencyKeyInProgress()
        return _replay(found)

    def _namespace(self, call: RequestContext) -> IdempotencyNamespace:
        caller = current_caller()
        # An API key has keys of its own: it must not be told what its maker was answered.
        owned_key = self.key if caller.api_key_id is None else f"{caller.api_key_id} {self.key}"
        return IdempotencyNamespace(
            user_id=caller.user_id,
            organization_id=call.arguments.get("organization_id"),
            operation_id=self.operation_id,
            key_hash=hashlib.sha256(owned_key.encode("utf-8")).hexdigest(),
        )


def _replay(row: Row[Any]) -> EncodedResponse:
    headers, body = {**(row.headers or {}), REPLAYED: "true"}, _encrypt(row.body or b"", row.turn)
    media_type = headers.pop("Content-Type")
    if media_type == MEDIA_TYPE:
        # It belongs to this request: everything else of the problem is as it was.
        body = encode_json({**orjson.loads(body), "request_id": current_request_id()})
    return EncodedResponse(row.status or 500, media_type, headers, body)


def request_fingerprint(arguments: dict[str, Any]) -> str:
    """Return what two requests with the same content have in common, files compared by their bytes.

    Keyed with the server's secret: bodies hold passwords, which a plain hash would let one guess.
    """
    canonical = json.dumps(arguments, sort_keys=True, separators=(",", ":"), default=_to_json)
    secret = current_settings().secret_key.encode("utf-8")
    return hmac.new(secret, canonical.encode("ascii"), hashlib.sha256).hexdigest()


def _to_json(value: Any) -> Any:
    if isinstance(value, UploadedFile):
        return [value.filename, value.content_type, _hash_file(value.file)]
    return _hash_file(value) if hasattr(value, "read") else str(value)


def _hash_file(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    file.seek(0)
    return digest.hexdigest()


def call_handler(
    idempotent_request: IdempotentRequest | None, handler: Callable[..., Any], arguments: dict[str, Any]
) -> Any:
    """Call the handler; note in the turn on whose rows it was allowed to work, even when it raises."""
    if idempotent_request is None or idempotent_request.lock is None:
        return handler(**arguments)
    try:
        return handler(**arguments)
    finally:
        idempotent_request.lock.scope_id = first_grant()


def store_encoded_response(lock: IdempotencyLock, encoded: EncodedResponse) -> None:
    """Keep the answer in the running transaction, with the change that it tells of.

    IdempotencyKeyInProgress, which rolls the change back, when another send has taken over meanwhile.
    """
    headers = {**encoded.headers, "Content-Type": encoded.media_type}
    if not store_response(lock, encoded.status, headers, _encrypt(encoded.body or b"", lock.token)):
        raise IdempotencyKeyInProgress()


def _encrypt(body: bytes, token: UUID) -> bytes:
    """Return the body under a pad that only the server's secret makes; once more lifts it again.

    An answer may hold a secret that is shown once: whoever reads the database alone shall not find it there.
    A token names one attempt, which keeps one answer, so no pad is used twice.
    """
    seed = hmac.digest(current_settings().secret_key.encode("utf-8"), b"kept answer" + token.bytes, "sha256")
    pad = hashlib.shake_256(seed).digest(len(body))
    return (int.from_bytes(body) ^ int.from_bytes(pad)).to_bytes(len(body))


def store_or_release(
    lock: IdempotencyLock, error: Exception, transaction: Callable[[bool], AbstractContextManager[Any]]
) -> None:
    """Keep what the handler refused by what it found, free the key after everything else.

    In a transaction of its own, after the rollback. IdempotencyKeyInProgress when another send has taken the
    turn meanwhile: only what is kept is told. A failure is logged: the key is free, or will be when its lease
    is over.
    """
    is_kept = True
    try:
        with transaction(True):
            problem = _storable_problem(error)
            if problem is None:
                release(lock)
            else:
                status, headers, body = problem
                is_kept = store_response(lock, status, headers, _encrypt(body, lock.token))
    except Exception:
        logger.exception("the answer to a request with an idempotency key was not kept")
    if not is_kept:
        raise IdempotencyKeyInProgress() from error


def _storable_problem(error: Exception) -> tuple[int, dict[str, str], bytes] | None:
    if not isinstance(error, DomainError) or isinstance(error, _RETRYABLE):
        return None
    problem = build_problem(error)
    if problem.status not in _STORED_STATUSES:
        return None
    headers = {**problem.headers, "Cache-Control": "no-store", "Content-Type": MEDIA_TYPE}
    return problem.status, headers, problem.to_bytes(current_settings().public_url)
