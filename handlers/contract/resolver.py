"""From the contract to functions: a tag names a module, an operationId a function, parameters its arguments.

Everything that does not fit is told at start, all of it at once.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from connexion.resolver import Resolution, Resolver

from handlers.common.permissions import Permission, is_self_authenticating, required_permission
from handlers.common.responses import ApiResponse
from handlers.contract.errors import ContractError
from handlers.contract.operations import Operation
from handlers.pipeline.endpoint import Endpoint

Handler = Callable[..., ApiResponse]


class ContractResolver(Resolver):
    """Gives Connexion the endpoint of an operation; endpoints are built before."""

    def __init__(self, endpoints: Mapping[str, Endpoint]) -> None:
        super().__init__()
        self._endpoints = endpoints

    def resolve(self, operation: Any) -> Resolution:
        """Return the endpoint under the operation's own id."""
        return Resolution(self._endpoints[operation.operation_id], operation.operation_id)


def find_handlers(operations: list[Operation], package: str) -> dict[str, Handler]:
    """Return the handler of every operation from the modules of `package`.

    ContractError lists every unknown tag, missing function, and argument or permission that differs.
    """
    handlers: dict[str, Handler] = {}
    complaints: list[str] = []
    modules = {
        tag: _load_module(tag, package, complaints) for tag in dict.fromkeys(op.tag for op in operations)
    }
    for operation in operations:
        module = modules[operation.tag]
        if module is None:
            continue
        handler = getattr(module, operation.operation_id, None)
        if not callable(handler):
            complaints.append(f"{module.__name__} has no function {operation.operation_id}")
            continue
        complaints += _find_argument_errors(operation, handler) + _find_permission_errors(operation, handler)
        handlers[operation.operation_id] = handler
    if complaints:
        raise ContractError("the handlers do not fit the contract:\n  " + "\n  ".join(complaints))
    return handlers


def _load_module(tag: str, package: str, errors: list[str]) -> ModuleType | None:
    name = f"{package}.{tag.replace('-', '_')}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        errors.append(f"the tag {tag} needs a module {name}")
        return None


def _find_argument_errors(operation: Operation, handler: Handler) -> list[str]:
    parameters = inspect.signature(handler).parameters.values()
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes_rest = any(p.kind is p.VAR_KEYWORD for p in parameters)
    wanted = set(operation.arguments)
    complaints = [
        f"{operation.operation_id} has the argument {name}, the contract no such parameter"
        for name in sorted(named - wanted)
    ]
    if not takes_rest:
        complaints += [
            f"{operation.operation_id} lacks the argument {name}, which the contract has"
            for name in sorted(wanted - named)
        ]
    return complaints


def _find_permission_errors(operation: Operation, handler: Handler) -> list[str]:
    if operation.permission is not None and operation.permission not in set(Permission):
        return [f"{operation.operation_id} needs {operation.permission}, which is no permission"]
    if required_permission(handler) != operation.permission:
        named = required_permission(handler)
        return [f"{operation.operation_id} requires {named}, the contract says {operation.permission}"]
    if is_self_authenticating(handler) and not operation.is_public:
        return [
            f"{operation.operation_id} checks a proof of its own, the contract says that it wants a token"
        ]
    return []
