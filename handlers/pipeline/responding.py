"""Encode and validate the response of a handler, and describe its rejection, for writes and reads alike."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson

from db.caller import Caller
from db.errors import (
    ApiKeyNotAllowed,
    DomainError,
    GuestNotAllowed,
    NotFound,
    OrganizationSuspended,
    PermissionDenied,
    ProviderSessionNotAllowed,
    ProviderSignInRequired,
    SecondFactorEnrollmentRequired,
)
from handlers.common.context import current_request
from handlers.common.preconditions import find_range, matches_if_none_match
from handlers.common.responses import ApiResponse, EncodedResponse, compress, encode_json, strong_etag
from handlers.contract.errors import ResponseViolation
from handlers.pipeline.error_places import find_place
from handlers.pipeline.policies import ServedOperation
from handlers.pipeline.request_context import RequestContext
from handlers.pipeline.unknown_values import is_defect

# A 304 repeats all other headers. Browsers replace the headers of their copy by those of the 304 (RFC 9111,
# section 4.3.4), so the default of a header that is missing here would replace the copy's own value.
_NOT_IN_304 = ("content-encoding", "content-length")

_OTHER_CREDENTIAL = (
    ApiKeyNotAllowed,
    OrganizationSuspended,
    ProviderSessionNotAllowed,
    ProviderSignInRequired,
    SecondFactorEnrollmentRequired,
)


def respond(operation: ServedOperation, context: RequestContext, response: ApiResponse) -> EncodedResponse:
    """Encode and validate a response; turn it into a 304 if the client has a current copy.

    Raises:
        ResponseViolation: The response does not match the contract.
        RangeNotSatisfiable: The request wants a part of a file that it does not have.
    """
    headers = dict(response.headers)
    raw = _encode(operation, response)
    if response.with_etag and raw is not None:
        headers["ETag"] = strong_etag(raw)
    if response.temporary_file is not None:
        context.files_to_close.append(response.temporary_file)
    value = response.body
    status, media_type = response.status, response.media_type
    if isinstance(value, Path):
        headers["Content-Length"] = str(value.stat().st_size)
        context.file = value if current_request().method != "HEAD" else None
        headers |= {"Accept-Ranges": "bytes"} if operation.responses.declares(206) else {}
    if status == 200 and _is_not_modified(operation, headers):
        status, raw, value, context.file = 304, None, None, None
        headers = {name: text for name, text in headers.items() if name.lower() not in _NOT_IN_304}
    elif isinstance(value, Path) and operation.responses.declares(206):
        status = _choose_part(context, headers, value.stat().st_size)
    encoded = EncodedResponse(status, media_type, headers, raw)
    validate_response(operation, context, encoded, value)
    context.watched = response.watched
    return compress(encoded) if response.may_compress else encoded


def _choose_part(context: RequestContext, headers: dict[str, str], size: int) -> int:
    """Send the part of a file that the request wants, if it wants one; return the status."""
    part = find_range(size, headers["ETag"])
    if part is None:
        return 200
    start, end = part
    context.file_part = part
    headers |= {"Content-Length": str(end - start), "Content-Range": f"bytes {start}-{end - 1}/{size}"}
    return 206


def validate_response(
    operation: ServedOperation, context: RequestContext, encoded: EncodedResponse, value: Any
) -> None:
    """Compare a response with the contract; `value` is its body before it was encoded.

    Raises:
        ResponseViolation: The response does not match the contract.
    """
    headers = {name.lower(): text for name, text in encoded.headers.items()}
    # Including the headers that `response_validation` adds to every response.
    mismatch = operation.responses.find_mismatch(
        encoded.status, encoded.media_type, context.merge_headers(headers), value, encoded.body
    )
    if mismatch is not None and is_defect(operation.operation_id, mismatch):
        message = f"returned {encoded.status}: {mismatch}"
        raise ResponseViolation(operation.operation_id, mismatch.kind, message)


def require_access(operation: ServedOperation, context: RequestContext, caller: Caller) -> None:
    """Check what the credential alone decides, before any row is read; record the organization that it names.

    Raises:
        PermissionDenied: The caller can never call this operation, whatever the row.
    """
    if caller.guest is not None:
        context.organization_id = caller.guest.organization_id
        _require_guest_access(operation, caller)
    if caller.api_key_id is not None and not operation.accepts_api_key:
        context.organization_id = caller.key_organization_id
        raise ApiKeyNotAllowed()
    if caller.provider_organization_id is not None:
        context.organization_id = caller.provider_organization_id
        if operation.is_about_account:
            raise ProviderSessionNotAllowed()
    if operation.is_superuser_only and not caller.is_superuser:
        raise PermissionDenied()
    # A key's scopes are checked before any row is read: handlers rely on every role's right to read, which a
    # key may lack.
    if caller.api_key_id is not None:
        context.organization_id = caller.key_organization_id
    if caller.api_key_id and not caller.has_permission(operation.permission, context.organization_id):
        raise PermissionDenied()


def _require_guest_access(operation: ServedOperation, caller: Caller) -> None:
    """Raise an error unless the operation is for guests, and for the guests of this link.

    A link that an API key made can lack permissions that other guests have. Like the scopes of a key, they
    are checked before any row is read.
    """
    if not operation.accepts_guest:
        raise GuestNotAllowed()
    if operation.permission not in caller.personal_permissions:
        raise PermissionDenied()


def describe_rejection(operation: ServedOperation, context: RequestContext, error: Exception) -> None:
    """Add the members that name the place and the permission to a domain error."""
    if not isinstance(error, DomainError):
        return
    if error.value is not None:
        error.members |= find_place(context.arguments, error.value) or _path_parameter(operation, error)
    # A request that lacks a parameter, such as the organization of an API key, may have the permission. No
    # permission makes up for the wrong kind of credential or an organization that is withheld.
    is_other_kind = isinstance(error, _OTHER_CREDENTIAL) or "parameter" in error.members
    lacks_permission = isinstance(error, PermissionDenied) and not is_other_kind
    if lacks_permission and operation.permission is not None:
        error.members["required_permission"] = operation.permission
        if context.caller is not None and context.caller.api_key_id is not None:
            error.members["required_scope"] = operation.permission


def _path_parameter(operation: ServedOperation, error: DomainError) -> dict[str, str]:
    """Return the place of a missing row that the request does not name itself: the first in the path.

    A replay that is denied must look like a request that is denied (`IdempotentRequest.acquire`).
    """
    names = re.findall(r"\{(\w+)\}", operation.path)
    return {"parameter": names[0]} if names and isinstance(error, NotFound) else {}


def _encode(operation: ServedOperation, response: ApiResponse) -> bytes | None:
    """Return the bytes of the body, None if there is no body or it is a file."""
    if response.compressed_body is not None:
        return response.compressed_body
    if response.body is None or isinstance(response.body, Path):
        return None
    if isinstance(response.body, bytes):
        return response.body
    try:
        return encode_json(response.body)
    except (orjson.JSONEncodeError, TypeError) as error:
        raise ResponseViolation(
            operation.operation_id, "encoding", f"the body cannot be encoded: {error}"
        ) from error


def _is_not_modified(operation: ServedOperation, headers: dict[str, str]) -> bool:
    return (
        operation.method == "GET"
        and operation.responses.declares(304)
        and matches_if_none_match(current_request().find_header(b"if-none-match"), headers.get("ETag"))
    )
