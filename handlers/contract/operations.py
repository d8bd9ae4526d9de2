"""One operation of the contract, compiled: its parameters, request bodies and responses.

Extensions and security requirements are kept as they are: the application gives them a meaning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from handlers.contract.coercion import ConverterCompiler
from handlers.contract.deprecation import Deprecation, find_deprecations, has_ended
from handlers.contract.document import Document
from handlers.contract.errors import ContractError
from handlers.contract.parameters import Parameters
from handlers.contract.request_bodies import BodyLimits, RequestBody
from handlers.contract.responses import ResponseCompiler, Responses
from handlers.contract.schema_compiler import SchemaCompiler
from handlers.contract.used_parts import Path, list_deprecated_properties


@dataclass(frozen=True, eq=False)
class Operation:
    """An operation and everything that serving it needs, compiled.

    Attributes:
        security: The alternative security requirements; one of them must be met.
        is_public: Whether there are none.
        deprecated_properties: The paths of the deprecated properties in its body.
        extensions: The members of the operation whose names start with `x-`.
        has_ended: Whether it is served with 410 and has no handler.
    """

    operation_id: str
    method: str
    path: str
    tag: str
    security: Sequence[Mapping[str, Any]]
    is_public: bool
    extensions: Mapping[str, Any]
    parameters: Parameters
    request_body: RequestBody
    responses: Responses
    deprecation: Deprecation | None
    deprecated_properties: Sequence[Path]
    has_ended: bool

    @property
    def has_body(self) -> bool:
        """Whether requests have a body."""
        return bool(self.request_body.contents)

    @property
    def arguments(self) -> list[str]:
        """The argument names that the handler must have."""
        return [*self.parameters.arguments, *(["body"] if self.has_body else [])]

    def framework_statuses(self) -> set[int]:
        """Return the statuses that the framework itself may respond with, without calling the handler.

        An application whose policies add others overrides this.
        """
        if self.has_ended:
            return {410, 500}
        statuses = {400, 422, 500}
        if not self.is_public:
            statuses.add(401)
        if self.responses.media_types:
            statuses.add(406)
        if self.has_body:
            statuses |= {413, 415}
        return statuses


def compile_operations(document: Document, limits: BodyLimits) -> list[Operation]:
    """Compile all operations of the contract. To serve them, call `check_declared_statuses`, too.

    Args:
        document: The contract.
        limits: The size and time limits of request bodies.

    Raises:
        ContractError: The document is not OpenAPI 3.1, or an operation, which the message names, does not
            compile or has no single tag.
    """
    version = str(document.spec.get("openapi"))
    if not version.startswith("3.1."):
        # `nullable` of 3.0 means nothing in 3.1: the schemas would reject every null.
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
        operations.append(
            Operation(
                operation_id=raw.operation_id,
                method=raw.method,
                path=raw.path,
                tag=tags[0],
                security=security,
                is_public=not security,
                extensions={name: raw.definition[name] for name in raw.definition if name.startswith("x-")},
                parameters=Parameters(document, schema_compiler, converter_compiler, raw),
                request_body=RequestBody(document, schema_compiler, converter_compiler, raw, limits),
                responses=Responses(response_compiler, raw),
                deprecation=deprecations.get(raw.operation_id),
                deprecated_properties=tuple(list_deprecated_properties(document, raw)),
                has_ended=has_ended(raw.definition),
            )
        )
    return operations


def check_declared_statuses(operations: Iterable[Operation]) -> None:
    """Raise ContractError unless every status that the framework may respond with is declared."""
    errors = [
        f"{operation.operation_id} does not declare {status}"
        for operation in operations
        for status in sorted(operation.framework_statuses())
        if not operation.responses.declares(status)
    ]
    if errors:
        raise ContractError("the contract lacks responses of the framework:\n  " + "\n  ".join(errors))
