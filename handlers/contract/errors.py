"""Errors of requests that break the contract or HTTP, and errors of the contract itself.

`handlers.pipeline.errors` turns each into a problem document (RFC 9457).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from handlers.contract.json_pointer import join_pointer


class ContractError(Exception):
    """The contract is broken or does not match the code. Raised at start, never while serving."""


class ResponseViolation(Exception):
    """A response does not match the contract. The client receives a 500; the log has the mismatch."""

    def __init__(self, operation_id: str, kind: str, message: str) -> None:
        super().__init__(f"{operation_id} {message}")
        self.operation_id, self.kind = operation_id, kind


class RequestError(Exception):
    """A request that is rejected before its handler is called."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "malformed_request"
    default_detail: ClassVar[str] = "The request is malformed"

    def __init__(
        self,
        detail: str | None = None,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        self.detail = detail or self.default_detail
        self.headers = headers or {}
        self.members = members or {}
        """Further members of the problem document."""
        super().__init__(self.detail)


class BadRequest(RequestError):
    """The request cannot be parsed (not JSON, not UTF-8, not multipart), so no schema can be applied."""


class PathNotFound(RequestError):
    """The contract has no such path. `did_you_mean` is a similar path that it has."""

    status = 404
    code = "not_found"
    default_detail = "No operation has this path"

    def __init__(self, did_you_mean: str | None = None) -> None:
        super().__init__(members=None if did_you_mean is None else {"did_you_mean": did_you_mean})


class MethodNotAllowed(RequestError):
    """The path exists, but not with this method."""

    status = 405
    code = "method_not_allowed"
    default_detail = "Method not allowed"


class OperationEnded(RequestError):
    """The operation has ended: the contract has it with the response 410 alone."""

    status = 410
    code = "sunset"
    default_detail = "The operation has ended"


class RangeNotSatisfiable(RequestError):
    """The requested range starts after the end of the file."""

    status = 416
    code = "range_not_satisfiable"

    def __init__(self, size: int) -> None:
        super().__init__(f"The file has {size} bytes", headers={"Content-Range": f"bytes */{size}"})


class NotAcceptable(RequestError):
    """The client accepts none of the media types of the operation's responses."""

    status = 406
    code = "not_acceptable"
    default_detail = "The operation has none of the media types in the Accept header"


class RequestTimeout(RequestError):
    """The request body did not arrive in time. Clients below a minimum rate count as stalled."""

    status = 408
    code = "request_timeout"
    default_detail = "The request body did not arrive in time"

    def __init__(self) -> None:
        # The rest of the body would be read as the next request on the connection (RFC 9110, 15.5.9).
        super().__init__(headers={"Connection": "close"})


class ContentTooLarge(RequestError):
    """The body exceeds the size limit of its media type."""

    status = 413
    code = "too_large"
    default_detail = "The request body is too large"


class UnsupportedMediaType(RequestError):
    """The body has no media type, one that the operation does not accept, or a charset other than UTF-8."""

    status = 415
    code = "unsupported_media_type"
    default_detail = "The media type of the request body is not supported"


class ServiceUnavailable(RequestError):
    """A dependency of the server does not respond, or a limit is reached. The client should retry.

    Attributes:
        limit: What the server lacks, for the log. Clients do not see it.
    """

    status = 503
    code = "unavailable"
    default_detail = "The service is temporarily unavailable"

    def __init__(self, limit: str, detail: str | None = None) -> None:
        self.limit = limit
        super().__init__(detail, headers={"Retry-After": "5"})


class ConnectionRejected(ServiceUnavailable):
    """There are too many connections, or the server is for development and reached at a public address."""


class TookTooLong(ServiceUnavailable):
    """The request exceeded the time limit of the server and was rolled back."""

    code = "took_too_long"
    default_detail = "The request took too long and was aborted"


@dataclass(frozen=True)
class Violation:
    """One way in which a request breaks the contract. `loc` starts with body, query, path or header."""

    loc: tuple[str | int, ...]
    msg: str
    type: str
    input: Any = None
    has_input: bool = False
    ctx: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the violation as problem documents have it.

        `pointer` (RFC 6901) is relative to the part of the request that `loc` starts with.
        """
        document: dict[str, Any] = {"loc": list(self.loc), "msg": self.msg, "type": self.type}
        if self.has_input:
            document["input"] = self.input
        if self.ctx:
            document["ctx"] = dict(self.ctx)
        document["pointer"] = join_pointer(self.loc[1:])
        return document


class ValidationFailed(RequestError):
    """The request was parsed but does not match the schemas of the contract. Lists all violations."""

    status = 422
    code = "invalid_request"
    default_detail = "The request does not match the contract"

    def __init__(self, violations: Iterable[Violation]) -> None:
        super().__init__()
        self.violations: Sequence[Violation] = list(violations)
