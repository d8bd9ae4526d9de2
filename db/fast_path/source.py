"""Compile functions from source text that other modules generate, as `namedtuple` and `dataclass` do.

A loop over rows with the names of their columns in its text makes no function call per column. The text holds
names of our own models and schemas only, never a value of a request.

Benchmark: `make bench-profile`, columns "list 20" and "list 100".
"""

from __future__ import annotations

from typing import Any


class SourceBuilder:
    """Collects the objects that a generated function refers to, and compiles it."""

    def __init__(self) -> None:
        self._objects: dict[str, Any] = {}
        self._variables = 0

    def refer(self, value: object) -> str:
        """Return the name of an object in the source text."""
        name = f"object_{len(self._objects)}"
        self._objects[name] = value
        return name

    def new_variable(self) -> str:
        """Return the name of a variable that nothing else in the source text uses."""
        self._variables += 1
        return f"value_{self._variables}"

    def compile(self, name: str, source: str) -> Any:
        """Return the function of this name that the source text defines."""
        namespace = dict(self._objects)
        exec(compile(source, f"<generated {name}>", "exec"), namespace)  # noqa: S102 - names of models and schemas
        return namespace[name]
