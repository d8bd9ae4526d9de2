"""Execute requests with an Idempotency-Key once (draft-ietf-httpapi-idempotency-key-header-07).

This module decides which requests are equal, which responses are stored, and how a stored response is
encrypted and replayed. `studio.infrastructure.idempotency` has the locks and the rows. Handlers do not call
this module.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO
from uuid import UUID

import orjson

from db.caller import acting_for_tenant, current_caller, first_grant, require_grant
from db.errors import DomainError, PermissionDenied, TargetNotAllowed, Unauthenticated
from handlers.common.context import current_request_id, current_settings
from handlers.common.responses import EncodedResponse, encode_json
from handlers.contract.errors import RequestError, ServiceUnavailable, ValidationFailed, Violation
from handlers.contract.request_bodies import UploadedFile
from handlers.pipeline.admission.limits import Limit
from handlers.pipeline.errors import MEDIA_TYPE, build_problem
from handlers.pipeline.request_context import RequestContext
from studio.infrastructure.idempotency import (
    IdempotencyLock,
    IdempotencyNamespace,
    RequestInProgress,
    StoredKey,
    acquire,
    persist_lock,
    release,
    store_response,
)
from studio.media.fetching import ImageNotFetched, ImageNotUsable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

logger = logging.getLogger(__name__)

HEADER = "Idempotency-Key"
FIELD = HEADER.lower().encode()
REPLAYED = "Idempotency-Replayed"

_CHUNK_BYTES = 1_048_576
_AES_GCM = b"\x01"
"""The version of the format of stored responses, their first byte."""
_NONCE_BYTES = 12

_STORED_STATUSES = (404, 409)
"""Statuses of errors that depend on the database. Validation errors are the same on every attempt anyway."""

_RETRYABLE = (Unauthenticated, PermissionDenied, TargetNotAllowed, ImageNotFetched, ImageNotUsable)
"""Errors that are not stored: a permission can be granted, a token renewed, and another server recover."""


class IdempotencyKeyInProgress(RequestError):
    """The first request with this key is still running."""

    status = 409
    code = "idempotency_key_in_progress"
    default_detail = "The first request with this Idempotency-Key is still running"

    def __init__(self) -> None:
        super().__init__(headers={"Retry-After": "1"})


class IdempotencyKeyReused(ValidationFailed):
    """The key was used for a request with other content."""

    code = "idempotency_key_reused"

    def __init__(self) -> None:
        message = "Was used for a request with other content"
        super().__init__([Violation(("header", HEADER), message, self.code)])


class StoredResponseUnreadable(ServiceUnavailable):
    """The stored response cannot be decrypted; the request was executed, so it must not run again."""

    default_detail = (
        "The stored response of this Idempotency-Key cannot be read; the request is not run again"
    )


@dataclass
class IdempotentRequest:
    """A request with an Idempotency-Key; `lock` is set once the request has acquired it."""

    operation_id: str
    key: str
    lock: IdempotencyLock | None = None

    def acquire(self, context: RequestContext, persist: bool = False) -> EncodedResponse | None:
        """Acquire the lock of the key in the running transaction, or return the stored response.

        Args:
            context: the request; its caller is the current caller.
            persist: keep the lock beyond the transaction, until its lease expires.

        Returns:
            None if the request has the lock, else the response of the first request with the key.

        Raises:
            IdempotencyKeyInProgress: the first request is still running.
            IdempotencyKeyReused: the first request had other content.
            NotFound, PermissionDenied: the caller has lost access to the rows of the first request.
            StoredResponseUnreadable: the stored response cannot be decrypted.
        """
        if self.lock is not None:
            return None
        fingerprints = request_fingerprints(context.arguments)
        try:
            namespace = self._namespace(context)
            with acting_for_tenant():
                result = acquire(namespace, fingerprints)
                if isinstance(result, IdempotencyLock):
                    if persist:
                        persist_lock(result)
                    self.lock = result
                    return None
        except RequestInProgress as error:
            raise IdempotencyKeyInProgress() from error
        # Before the comparison: a caller without access must not learn whether a request was made.
        if result.scope_id is not None:
            require_grant(result.scope_id)
        if not any(hmac.compare_digest(result.fingerprint, each) for each in fingerprints):
            raise IdempotencyKeyReused()
        if result.status is None:
            raise IdempotencyKeyInProgress()
        return _replay(result, namespace)

    def _namespace(self, context: RequestContext) -> IdempotencyNamespace:
        caller = current_caller()
        # API keys, review links and sessions of providers have namespaces of their own: they must not receive
        # the stored responses of their creators and accounts.
        credential_id = caller.api_key_id or (caller.guest and caller.guest.link_id)
        credential_id = credential_id or caller.provider_organization_id
        qualified_key = self.key if credential_id is None else f"{credential_id} {self.key}"
        return IdempotencyNamespace(
            user_id=caller.guest.created_by_id if caller.guest else caller.user_id,
            organization_id=context.arguments.get("organization_id"),
            operation_id=self.operation_id,
            key_hash=hashlib.sha256(qualified_key.encode("utf-8")).hexdigest(),
        )


def _replay(row: StoredKey, namespace: IdempotencyNamespace) -> EncodedResponse:
    body = _decrypt(row, namespace)
    headers = {**row.headers, REPLAYED: "true"}
    media_type = headers.pop("Content-Type")
    if media_type == MEDIA_TYPE:
        # The request id is that of this request; the other members are those of the first one.
        body = encode_json({**orjson.loads(body), "request_id": current_request_id()})
    return EncodedResponse(row.status, media_type, headers, body)


def request_fingerprints(arguments: dict[str, Any]) -> list[str]:
    """Return keyed hashes of a request's arguments, equal for requests with the same content.

    Files are compared by their bytes. Each hash is keyed with one of the server's secrets, the current one
    first, because bodies contain passwords, which could be guessed from a plain hash.
    """
    canonical = _encode_canonically(arguments).encode("ascii")
    return [_keyed_hash(key, canonical).hex() for key in current_settings().secret_keys]


def _keyed_hash(secret: str, message: bytes) -> bytes:
    digest = _keyed_state(secret).copy()
    digest.update(message)
    return digest.digest()


@lru_cache(maxsize=8)
def _keyed_state(secret: str) -> hmac.HMAC:
    # Copied for each hash: keying takes four fifths of the time of a short one.
    return hmac.new(secret.encode("utf-8"), digestmod="sha256")


def _to_json(value: Any) -> Any:
    if isinstance(value, UploadedFile):
        return [value.filename, value.content_type, _hash_file(value.file)]
    return _hash_file(value) if hasattr(value, "read") else str(value)


# `json.dumps` would build an encoder with each call.
_encode_canonically = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=_to_json).encode
_encode_sorted = json.JSONEncoder(sort_keys=True).encode


def _hash_file(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    file.seek(0)
    return digest.hexdigest()


def call_handler(
    idempotent_request: IdempotentRequest | None, handler: Callable[..., Any], arguments: dict[str, Any]
) -> Any:
    """Call the handler, and record in the lock whose rows it was authorized for, even if it raises."""
    if idempotent_request is None or idempotent_request.lock is None:
        return handler(**arguments)
    try:
        return handler(**arguments)
    finally:
        idempotent_request.lock.scope_id = first_grant()


def store_encoded_response(
    lock: IdempotencyLock, encoded: EncodedResponse, events: Sequence[Mapping[str, Any]]
) -> None:
    """Store the response in the running transaction, together with the change that it describes.

    Args:
        lock: the lock of the key.
        encoded: the response.
        events: the audit events of the request.

    Raises:
        IdempotencyKeyInProgress: another request has taken over the key; raising rolls the change back.
    """
    headers = {**encoded.headers, "Content-Type": encoded.media_type}
    if not _store(lock, encoded.status, headers, encoded.body or b"", events):
        raise IdempotencyKeyInProgress()


def _store(
    lock: IdempotencyLock,
    status: int,
    headers: dict[str, str],
    body: bytes,
    events: Sequence[Mapping[str, Any]] = (),
) -> bool:
    encrypted = _encrypt(body, lock.token, _associated_data(lock.namespace, status, headers))
    with acting_for_tenant():
        return store_response(lock, status, headers, encrypted, events)


def _encrypt(body: bytes, token: UUID, associated_data: bytes) -> bytes:
    """Return a version byte, the nonce and the body encrypted with AES-256-GCM.

    A response may contain a secret that is shown once, which must not be readable in the database.
    """
    nonce = secrets.token_bytes(_NONCE_BYTES)
    cipher = _cipher(current_settings().secret_key, token)
    return _AES_GCM + nonce + cipher.encrypt(nonce, body, associated_data)


def _decrypt(row: StoredKey, namespace: IdempotencyNamespace) -> bytes:
    """Return the body of a stored response.

    Raises:
        StoredResponseUnreadable: the row was changed or truncated, or is encrypted with another secret.
    """
    for secret_key in current_settings().secret_keys:
        body = _decrypt_with(secret_key, row, namespace)
        # The old format is not authenticated. All responses are JSON objects, which a wrong pad does not
        # produce.
        if _is_json_object(body):
            return body
    logger.error("stored response of %s cannot be decrypted", namespace.operation_id)
    raise StoredResponseUnreadable(Limit.STORED_RESPONSE)


def _decrypt_with(secret: str, row: StoredKey, namespace: IdempotencyNamespace) -> bytes:
    stored = row.body or b""
    if stored.startswith(_AES_GCM):
        nonce, ciphertext = stored[1 : 1 + _NONCE_BYTES], stored[1 + _NONCE_BYTES :]
        associated_data = _associated_data(namespace, row.status, row.headers)
        # Imported here, as in `_cipher`.
        from cryptography.exceptions import InvalidTag

        try:
            return _cipher(secret, row.turn).decrypt(nonce, ciphertext, associated_data)
        except (InvalidTag, ValueError):
            pass  # One in 256 rows of the old format starts with this byte, too.
    return _decrypt_unauthenticated(secret.encode("utf-8"), stored, row.turn)


def _decrypt_unauthenticated(secret: bytes, stored: bytes, token: UUID) -> bytes:
    """Decrypt a response of version 0.1.0 and before: an XOR with a pad derived from the secret.

    Remove this function in the second release after 0.1.0: rows of this format expire 24 hours (`RETENTION`)
    after the last server that writes it has stopped.
    """
    seed = hmac.digest(secret, b"kept answer" + token.bytes, "sha256")
    pad = hashlib.shake_256(seed).digest(len(stored))
    return (int.from_bytes(stored) ^ int.from_bytes(pad)).to_bytes(len(stored))


def _is_json_object(body: bytes) -> bool:
    try:
        return isinstance(orjson.loads(body), dict)
    except orjson.JSONDecodeError:
        return False


def _cipher(secret: str, token: UUID) -> AESGCM:
    # Imported here: the package takes 9 MB of a process, also of one that no client sends a key to.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    # A token stores one response. A key per token keeps nonces from repeating (NIST SP 800-38D, section 8.3).
    return AESGCM(_keyed_hash(secret, b"stored idempotent response" + token.bytes))


def _associated_data(namespace: IdempotencyNamespace, status: int, headers: dict[str, str]) -> bytes:
    """Return what the encryption authenticates besides the body, so that no row passes for another one."""
    names = [str(value) for value in namespace.columns().values()]
    return _encode_sorted([*names, status, headers]).encode("ascii")


def store_or_release(
    lock: IdempotencyLock, error: Exception, transaction: Callable[[bool], AbstractContextManager[Any]]
) -> None:
    """Store an error that depends on the database; release the key after any other error.

    Runs after the rollback, in a transaction of its own. If that fails, the failure is logged: the key is
    free, or will be when its lease expires.

    Raises:
        IdempotencyKeyInProgress: another request has taken over the key, so the error is not stored.
    """
    is_stored = True
    try:
        with transaction(True):
            problem = _storable_problem(error)
            if problem is None:
                release(lock)
            else:
                status, headers, body = problem
                is_stored = _store(lock, status, headers, body)
    except Exception:
        logger.exception("storing the error response of an idempotency key failed")
    if not is_stored:
        # A client must only see an error that a retry would repeat.
        raise IdempotencyKeyInProgress() from error


def _storable_problem(error: Exception) -> tuple[int, dict[str, str], bytes] | None:
    if not isinstance(error, DomainError) or isinstance(error, _RETRYABLE):
        return None
    problem = build_problem(error)
    if problem.status not in _STORED_STATUSES:
        return None
    headers = {**problem.headers, "Cache-Control": "no-store", "Content-Type": MEDIA_TYPE}
    return problem.status, headers, problem.to_bytes(current_settings().public_url)
