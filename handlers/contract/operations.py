"""One operation of the contract, compiled: its parameters, request bodies and responses."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from handlers.contract.coercion import ConverterCompiler
from handlers.contract.deprecation import Deprecation, find_deprecations
from handlers.contract.document import Document
from handlers.contract.errors import ContractError
from handlers.contract.parameters import Parameters
from handlers.contract.request_bodies import BodyLimits, RequestBody
from handlers.contract.responses import ResponseCompiler, Responses
from handlers.contract.schema_compiler import SchemaCompiler

API_KEY_SCHEME = "ApiKey"
"""The name of the security scheme of API keys in the contract."""
PROBE_TAG = "utils"
"""The tag of the operations that monitoring calls: health, readiness and version."""


@dataclass(frozen=True, eq=False)
class Operation:
    """An operation and everything that serving it needs, compiled."""

    operation_id: str
    method: str
    path: str
    tag: str
    permission: str | None
    is_superuser_only: bool
    is_public: bool
    accepts_api_key: bool
    accepts_guest: bool
    is_signed: bool
    is_audited: bool
    parameters: Parameters
    request_body: RequestBody
    responses: Responses
    deprecation: Deprecation | None

    @property
    def is_rate_limited(self) -> bool:
        """Whether rate limits apply: the contract declares 429 for the operation."""
        return self.responses.declares(429)

    @property
    def is_probe(self) -> bool:
        """Whether the operation tells how the server is. It must work while all request threads are busy."""
        return self.tag == PROBE_TAG and self.is_public

    @property
    def has_body(self) -> bool:
        """Whether requests have a body."""
        return bool(self.request_body.contents)

    @property
    def arguments(self) -> list[str]:
        """The argument names that the handler must have."""
        return [*self.parameters.arguments, *(["body"] if self.has_body else [])]

    @property
    def accepts_idempotency_key(self) -> bool:
        """Whether a request may send `Idempotency-Key`."""
        return "Idempotency-Key" in self.parameters.headers

    def framework_statuses(self) -> set[int]:
        """Return the statuses that the framework itself may respond with, without calling the handler."""
        statuses = {400, 422, 500}
        if not self.is_public:
            statuses.add(401)
        if self.is_superuser_only or self.accepts_api_key:
            statuses.add(403)
        if self.responses.media_types:
            statuses.add(406)
        if self.has_body:
            statuses |= {413, 415}
        # 409: the key is in use by a request that still runs.
        if self.accepts_idempotency_key:
            statuses.add(409)
        return statuses


def compile_operations(
    document: Document, limits: BodyLimits, superuser_permissions: Collection[str]
) -> list[Operation]:
    """Compile all operations of the contract.

    Args:
        document: The contract.
        limits: The size and time limits of request bodies.
        superuser_permissions: The permissions that only superusers have. Their operations must declare 403.

    Raises:
        ContractError: The document is not OpenAPI 3.1, or an operation, which the message names, does not
            compile, has no single tag, or does not declare a status that the framework may respond with.
    """
    version = str(document.spec.get("openapi"))
    if not version.startswith("3.1."):
        # `nullable` of 3.0 means nothing in 3.1: the schemas would refuse every null.
        raise ContractError(f"the contract must be OpenAPI 3.1, not {version}")
    schema_compiler, converter_compiler = SchemaCompiler(document), ConverterCompiler(document)
    response_compiler = ResponseCompiler(document, schema_compiler)
    deprecations = find_deprecations(document)
    operations = []
    for raw in document.operations():
        tags = raw.definition.get("tags", [])
        if len(tags) != 1:
            raise ContractError(f"{raw.operation_id} needs one tag, which names its module, not {tags}")
        # An operation without `security` inherits that of the document; an empty list makes it public.
        security = raw.definition.get("security", document.spec.get("security") or [])
        permission = raw.definition.get("x-permission")
        operations.append(
            Operation(
                operation_id=raw.operation_id,
                method=raw.method,
                path=raw.path,
                tag=tags[0],
                permission=permission,
                is_superuser_only=permission in superuser_permissions,
                is_public=not security,
                accepts_api_key=any(API_KEY_SCHEME in schemes for schemes in security),
                accepts_guest=raw.definition.get("x-guest-access", False),
                is_signed=raw.definition.get("x-signed-body", False),
                is_audited=raw.method not in ("GET", "HEAD") and "x-not-audited" not in raw.definition,
                parameters=Parameters(document, schema_compiler, converter_compiler, raw),
                request_body=RequestBody(document, schema_compiler, converter_compiler, raw, limits),
                responses=Responses(response_compiler, raw),
                deprecation=deprecations.get(raw.operation_id),
            )
        )
    _check_declared_statuses(operations)
    return operations


def _check_declared_statuses(operations: list[Operation]) -> None:
    """Raise ContractError unless every status that the framework may respond with is declared."""
    errors = [
        f"{operation.operation_id} does not declare {status}"
        for operation in operations
        for status in sorted(operation.framework_statuses())
        if not operation.responses.declares(status)
    ]
    if errors:
        raise ContractError("the contract lacks responses of the framework:\n  " + "\n  ".join(errors))
