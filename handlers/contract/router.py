"""Which operation lives at a path: the only router. A concrete path wins over a template, in everything."""

from __future__ import annotations

import re
from typing import NamedTuple

from handlers.contract.operations import Operation

_PLACEHOLDER = re.compile(r"\{([^}]*)\}")


class Match(NamedTuple):
    """The operations of one path by method, HEAD included, and the values of its template."""

    operations: dict[str, Operation]
    values: dict[str, str]

    @property
    def allow(self) -> str:
        """The value of the Allow header: every method of the path."""
        return ", ".join(sorted({*self.operations, "OPTIONS"}))


class Router:
    """All paths of the contract, found by name where concrete, by segment count where not."""

    def __init__(self, base_path: str, operations: list[Operation]) -> None:
        self._static: dict[str, dict[str, Operation]] = {}
        self._templates: dict[int, list[tuple[re.Pattern[str], dict[str, Operation]]]] = {}
        by_path: dict[str, dict[str, Operation]] = {}
        for operation in operations:
            methods = by_path.setdefault(base_path + operation.path, {})
            methods[operation.method] = operation
        # Templates with fewer placeholders are the more concrete ones.
        for path, methods in sorted(by_path.items(), key=lambda item: item[0].count("{")):
            if "GET" in methods:
                methods.setdefault("HEAD", methods["GET"])
            if "{" not in path:
                self._static[path] = methods
                continue
            pattern = _PLACEHOLDER.sub(
                lambda match: f"(?P<{match[1]}>[^/]+)",
                re.escape(path).replace(r"\{", "{").replace(r"\}", "}"),
            )
            self._templates.setdefault(path.count("/"), []).append((re.compile(pattern), methods))

    def match(self, path: str) -> Match | None:
        """Return what lives at a decoded path, None when nothing does."""
        methods = self._static.get(path)
        if methods is not None:
            return Match(methods, {})
        for pattern, methods in self._templates.get(path.count("/"), ()):
            match = pattern.fullmatch(path)
            if match:
                return Match(methods, match.groupdict())
        return None

    def has_static(self, path: str) -> bool:
        """Return whether an operation lives at exactly this path, without a template."""
        return path in self._static
