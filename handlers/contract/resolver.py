"""Find the handler of each operation: the tag names the module, the operationId the function.

Differences between the contract and the handlers stop the start, and one error lists all of them.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any, TypeVar

from connexion.resolver import Resolution, Resolver

from handlers.contract.errors import ContractError
from handlers.contract.operations import Operation

Handler = Callable[..., Any]
SomeOperation = TypeVar("SomeOperation", bound=Operation)


class ContractResolver(Resolver):
    """Give Connexion the endpoint of an operation. All endpoints exist before Connexion asks for them."""

    def __init__(self, endpoints: Mapping[str, Callable[..., Any]]) -> None:
        super().__init__()
        self._endpoints = endpoints

    def resolve(self, operation: Any) -> Resolution:
        """Return the endpoint under the operation's own id."""
        return Resolution(self._endpoints[operation.operation_id], operation.operation_id)


def find_handlers(
    operations: list[SomeOperation],
    package: str,
    find_errors: Callable[[SomeOperation, Handler], Iterable[str]],
) -> dict[str, Handler]:
    """Return the handler of every operation that has not ended, by operationId.

    Args:
        operations: The compiled contract.
        package: The package that has one module per tag. Dashes in tags become underscores.
        find_errors: Returns how a handler differs from what only the application knows of its operation.

    Raises:
        ContractError: Lists every tag without a module, missing function, argument that differs, function of
            an operation that has ended, and error of `find_errors`.
    """
    handlers: dict[str, Handler] = {}
    errors: list[str] = []
    tags = dict.fromkeys(operation.tag for operation in operations if not operation.has_ended)
    modules = {tag: _load_module(tag, package, errors) for tag in tags}
    for operation in operations:
        module = modules.get(operation.tag)
        if module is None:
            continue
        if operation.has_ended and hasattr(module, operation.operation_id):
            errors.append(f"{operation.operation_id} has ended: remove it from {module.__name__}")
        if operation.has_ended:
            continue
        handler = getattr(module, operation.operation_id, None)
        if not callable(handler):
            errors.append(f"{module.__name__} has no function {operation.operation_id}")
            continue
        errors += _find_argument_errors(operation, handler)
        errors += find_errors(operation, handler)
        handlers[operation.operation_id] = handler
    if errors:
        raise ContractError("the handlers do not match the contract:\n  " + "\n  ".join(errors))
    return handlers


def _load_module(tag: str, package: str, errors: list[str]) -> ModuleType | None:
    name = f"{package}.{tag.replace('-', '_')}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # A module that exists but imports something missing has an error of its own.
        if error.name != name:
            raise
        errors.append(f"the tag {tag} needs a module {name}")
        return None


def _find_argument_errors(operation: Operation, handler: Handler) -> list[str]:
    parameters = inspect.signature(handler).parameters.values()
    actual = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    # `**params` may take what the handler passes on unread, such as filters of a list.
    takes_rest = any(p.kind is p.VAR_KEYWORD for p in parameters)
    expected = set(operation.arguments)
    errors = [
        f"{operation.operation_id} has the argument {name}, which the contract does not have"
        for name in sorted(actual - expected)
    ]
    if not takes_rest:
        errors += [
            f"{operation.operation_id} lacks the argument {name}, which the contract has"
            for name in sorted(expected - actual)
        ]
    return errors
