"""One operation of the contract, compiled: what it takes and what it may answer."""

from __future__ import annotations

from dataclasses import dataclass

from handlers.common.permissions import SUPERUSER_ONLY
from handlers.contract.coercion import ConverterCompiler
from handlers.contract.deprecation import Deprecation, find_deprecations
from handlers.contract.document import Document
from handlers.contract.errors import ContractError
from handlers.contract.parameters import Parameters
from handlers.contract.request_bodies import BodyLimits, RequestBody
from handlers.contract.responses import ResponseCompiler, Responses
from handlers.contract.schema_compiler import SchemaCompiler

API_KEY_SCHEME = "ApiKey"
"""The name that the contract gives the scheme of API keys."""


@dataclass(frozen=True, eq=False)
class Operation:
    """An operation with everything that serving it needs, compiled."""

    operation_id: str
    method: str
    path: str
    tag: str
    permission: str | None
    is_public: bool
    accepts_api_key: bool
    is_signed: bool
    is_audited: bool
    parameters: Parameters
    request_body: RequestBody
    responses: Responses
    deprecation: Deprecation | None

    @property
    def is_rate_limited(self) -> bool:
        """Whether requests are counted, and may be refused because there were too many."""
        return self.responses.declares(429)

    @property
    def has_body(self) -> bool:
        """Whether requests have a body."""
        return bool(self.request_body.contents)

    @property
    def arguments(self) -> list[str]:
        """The names a handler's arguments must have."""
        return [*self.parameters.arguments, *(["body"] if self.has_body else [])]

    @property
    def accepts_idempotency_key(self) -> bool:
        """Whether a request may carry a key by which it happens once, however often it is sent."""
        return "Idempotency-Key" in self.parameters.headers

    def framework_statuses(self) -> set[int]:
        """Return the statuses with which a request may be answered before a handler sees it."""
        statuses = {400, 422, 500}
        if not self.is_public:
            statuses.add(401)
        if self.permission in SUPERUSER_ONLY or self.accepts_api_key:
            statuses.add(403)
        if self.responses.media_types:
            statuses.add(406)
        if self.has_body:
            statuses |= {413, 415}
        if self.accepts_idempotency_key:
            statuses.add(409)
        return statuses


def compile_operations(bundle: Document, limits: BodyLimits) -> list[Operation]:
    """Compile the whole contract; ContractError names the operation that cannot be."""
    translator, planner = SchemaCompiler(bundle), ConverterCompiler(bundle)
    answers = ResponseCompiler(bundle, translator)
    deprecations = find_deprecations(bundle)
    compiled = []
    for raw in bundle.operations():
        tags = raw.definition.get("tags", [])
        if len(tags) != 1:
            raise ContractError(f"{raw.operation_id} needs one tag, which names its module, not {tags}")
        security = raw.definition.get("security", bundle.spec.get("security") or [])
        compiled.append(
            Operation(
                operation_id=raw.operation_id,
                method=raw.method,
                path=raw.path,
                tag=tags[0],
                permission=raw.definition.get("x-permission"),
                is_public=not security,
                accepts_api_key=any(API_KEY_SCHEME in schemes for schemes in security),
                is_signed=raw.definition.get("x-signed-body", False),
                is_audited=raw.method not in ("GET", "HEAD") and "x-not-audited" not in raw.definition,
                parameters=Parameters(bundle, translator, planner, raw),
                request_body=RequestBody(bundle, translator, planner, raw, limits),
                responses=Responses(answers, raw),
                deprecation=deprecations.get(raw.operation_id),
            )
        )
    _require_declared(compiled)
    return compiled


def _require_declared(operations: list[Operation]) -> None:
    """Raise ContractError unless every status that the engine itself answers with is in the contract."""
    complaints = [
        f"{operation.operation_id} does not declare {status}"
        for operation in operations
        for status in sorted(operation.framework_statuses())
        if not operation.responses.declares(status)
    ]
    if complaints:
        raise ContractError("the contract lacks answers that are given:\n  " + "\n  ".join(complaints))
