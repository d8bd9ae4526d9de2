"""Match request paths to operations. Knows nothing about methods, which `pipeline.middleware.routing` checks.

A path without placeholders takes precedence over a template (OpenAPI 3.0).
"""

from __future__ import annotations

import re
from typing import Generic, NamedTuple, TypeVar

from handlers.contract.operations import Operation

SomeOperation = TypeVar("SomeOperation", bound=Operation)
_PLACEHOLDER = re.compile(r"\{([^}]*)\}")


class Match(NamedTuple, Generic[SomeOperation]):
    """The operations of one path by method, including HEAD, and the values of its placeholders."""

    operations: dict[str, SomeOperation]
    values: dict[str, str]

    @property
    def allow(self) -> str:
        """The value of the `Allow` header."""
        return ", ".join(sorted({*self.operations, "OPTIONS"}))


class Router(Generic[SomeOperation]):
    """All paths of the contract: a dictionary of the static ones, templates grouped by number of segments."""

    def __init__(self, base_path: str, operations: list[SomeOperation]) -> None:
        self._static: dict[str, dict[str, SomeOperation]] = {}
        self._templates: dict[int, list[tuple[re.Pattern[str], dict[str, SomeOperation]]]] = {}
        by_path: dict[str, dict[str, SomeOperation]] = {}
        for operation in operations:
            methods = by_path.setdefault(base_path + operation.path, {})
            methods[operation.method] = operation
        # A template with fewer placeholders is more specific and is tried first.
        for path, methods in sorted(by_path.items(), key=lambda item: item[0].count("{")):
            if "GET" in methods:
                methods.setdefault("HEAD", methods["GET"])
            if "{" not in path:
                self._static[path] = methods
                continue
            # Values are matched after percent-decoding, so `%2F` in a value is another segment and not found.
            pattern = _PLACEHOLDER.sub(
                lambda match: f"(?P<{match[1]}>[^/]+)",
                re.escape(path).replace(r"\{", "{").replace(r"\}", "}"),
            )
            # Grouped by slashes: a request tries only the templates with its number of segments.
            self._templates.setdefault(path.count("/"), []).append((re.compile(pattern), methods))

    def match(self, path: str) -> Match[SomeOperation] | None:
        """Return the operations at a percent-decoded path, or None."""
        methods = self._static.get(path)
        if methods is not None:
            return Match(methods, {})
        for pattern, methods in self._templates.get(path.count("/"), ()):
            match = pattern.fullmatch(path)
            if match:
                return Match(methods, match.groupdict())
        return None

    def has_static(self, path: str) -> bool:
        """Return whether the contract has exactly this path, without placeholders."""
        return path in self._static
