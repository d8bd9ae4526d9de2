"""What the contract, or HTTP itself, does not let in; `handlers/pipeline/errors.py` turns each into a
problem."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from handlers.contract.json_pointer import join_pointer


class ContractError(Exception):
    """The contract and the code do not fit; raised at start, never while serving."""


class ResponseViolation(Exception):
    """An answer of ours is not what the contract says: the caller gets a 500, the log the violation."""

    def __init__(self, operation_id: str, kind: str, message: str) -> None:
        super().__init__(f"{operation_id} {message}")
        self.operation_id, self.kind = operation_id, kind


class RequestError(Exception):
    """A request that goes no further."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "malformed_request"
    default_detail: ClassVar[str] = "The request is malformed"

    def __init__(self, detail: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        self.detail = detail or self.default_detail
        self.headers = headers or {}
        super().__init__(self.detail)


class BadRequest(RequestError):
    """Not JSON, not UTF-8, not multipart ...: there is nothing that a schema could be held against."""


class PathNotFound(RequestError):
    """No operation lives there."""

    status = 404
    code = "not_found"
    default_detail = "Not found"


class MethodNotAllowed(RequestError):
    """The path exists, this method does not."""

    status = 405
    code = "method_not_allowed"
    default_detail = "Method not allowed"


class NotAcceptable(RequestError):
    """The caller accepts none of the media types that the operation answers with."""

    status = 406
    code = "not_acceptable"
    default_detail = "None of the accepted media types is available"


class RequestTimeout(RequestError):
    """The body does not come, or comes more slowly than a client of today sends."""

    status = 408
    code = "request_timeout"
    default_detail = "The request body did not come in time"

    def __init__(self) -> None:
        # What is still to come would be taken for the next request (RFC 9110, 15.5.9).
        super().__init__(headers={"Connection": "close"})


class ContentTooLarge(RequestError):
    """The body exceeds the limit of its kind."""

    status = 413
    code = "too_large"
    default_detail = "The request body is too large"


class UnsupportedMediaType(RequestError):
    """The body comes without a media type, with one that the operation does not take, or not in UTF-8."""

    status = 415
    code = "unsupported_media_type"
    default_detail = "The media type of the request body is not supported"


class ServiceUnavailable(RequestError):
    """Something that the server needs does not answer; the caller should come back."""

    status = 503
    code = "unavailable"
    default_detail = "The service is temporarily unavailable"

    def __init__(self) -> None:
        super().__init__(headers={"Retry-After": "5"})


class TookTooLong(ServiceUnavailable):
    """The request was worked on for longer than a request may take; nothing of it is kept."""

    code = "took_too_long"
    default_detail = "The request took too long and was given up"


@dataclass(frozen=True)
class Violation:
    """One way in which a request breaks the contract. `loc` begins with body, query, path or header."""

    loc: tuple[str | int, ...]
    msg: str
    type: str
    input: Any = None
    has_input: bool = False
    ctx: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the violation as it is told; `pointer` (RFC 6901) leads into what `loc` begins with."""
        told: dict[str, Any] = {"loc": list(self.loc), "msg": self.msg, "type": self.type}
        if self.has_input:
            told["input"] = self.input
        if self.ctx:
            told["ctx"] = dict(self.ctx)
        told["pointer"] = join_pointer(self.loc[1:])
        return told


class ValidationFailed(RequestError):
    """The request is well formed and breaks the contract's schemas; it names all violations."""

    status = 422
    code = "invalid_request"
    default_detail = "The request does not match the contract"

    def __init__(self, violations: Iterable[Violation]) -> None:
        super().__init__()
        self.violations: Sequence[Violation] = list(violations)
