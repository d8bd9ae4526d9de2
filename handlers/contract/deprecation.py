"""Headers of deprecated operations: `Deprecation` (RFC 9745), `Sunset` (RFC 8594) and `Link` (RFC 8288).

The contract has the dates and the replacement. Deprecated operations behave like all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import quote

from handlers.contract.document import Document, RawOperation
from handlers.contract.errors import ContractError

_SINCE, _UNTIL, _REPLACEMENT = "x-deprecated-at", "x-sunset", "x-replacement"


@dataclass(frozen=True)
class Deprecation:
    """The deprecation of one operation. `successor` is a URL path, possibly with placeholders."""

    since: datetime
    until: datetime
    docs_url: str
    successor: str | None

    def headers(self, path_values: Mapping[str, str]) -> dict[str, str]:
        """Return the headers of a response. `path_values` fill the placeholders of the successor."""
        links = [f'<{self.docs_url}>; rel="deprecation"; type="text/html"']
        if self.successor is not None:
            # Path values come from the client: unquoted, `>` or `,` would end the link (header injection).
            quoted = {name: quote(value, safe="") for name, value in path_values.items()}
            links.append(f'<{self.successor.format_map(quoted)}>; rel="successor-version"')
        return {
            # RFC 9745 uses a structured date, RFC 8594 an HTTP date.
            "deprecation": f"@{int(self.since.timestamp())}",
            "sunset": format_datetime(self.until, usegmt=True),
            "link": ", ".join(links),
        }


def find_deprecations(document: Document) -> dict[str, Deprecation]:
    """Return the deprecations by operationId.

    Raises:
        ContractError: Lists every deprecated operation without dates, with a sunset before its deprecation or
            with an unknown replacement, and every other operation that has one of these extensions.
    """
    operations = {raw.operation_id: raw for raw in document.operations()}
    deprecations: dict[str, Deprecation] = {}
    errors: list[str] = []
    for raw in operations.values():
        own_errors = _find_errors(raw.definition, operations)
        errors += [f"{raw.operation_id} {error}" for error in own_errors]
        if raw.definition.get("deprecated") and not own_errors:
            deprecations[raw.operation_id] = _build_deprecation(raw, operations, document.base_path)
    if errors:
        raise ContractError("deprecations in the contract are invalid:\n  " + "\n  ".join(errors))
    return deprecations


def _find_errors(definition: dict[str, Any], operations: Mapping[str, RawOperation]) -> list[str]:
    if not definition.get("deprecated"):
        extensions = [name for name in (_SINCE, _UNTIL, _REPLACEMENT) if name in definition]
        return [f"is not deprecated and has {name}" for name in extensions]
    errors, times = [], []
    for name in (_SINCE, _UNTIL):
        try:
            times.append(_parse_time(definition.get(name)))
        except ValueError:
            errors.append(f"is deprecated and needs {name}, a time in UTC such as 2026-12-31T23:59:59Z")
    # With one time missing, the list is sorted in any case and the error is reported above.
    if times != sorted(times):
        errors.append("ends before it is deprecated")
    replacement = definition.get(_REPLACEMENT)
    if replacement not in (None, *operations):
        errors.append(f"is replaced by {replacement}, which does not exist")
    return errors


def _parse_time(text: object) -> datetime:
    """Return a time in UTC. Raises ValueError for anything else, also for another offset."""
    time = datetime.fromisoformat(str(text))
    if time.utcoffset() != timedelta(0):
        raise ValueError("not in UTC")
    return time


def _build_deprecation(
    raw: RawOperation, operations: Mapping[str, RawOperation], base_path: str
) -> Deprecation:
    since, until = (_parse_time(raw.definition[name]) for name in (_SINCE, _UNTIL))
    replacement = raw.definition.get(_REPLACEMENT)
    successor = None if replacement is None else _successor_url(operations[replacement], raw, base_path)
    return Deprecation(since, until, _docs_url(raw, base_path), successor)


def _docs_url(raw: RawOperation, base_path: str) -> str:
    """Return the URL of an operation on the documentation page."""
    return f"{base_path}/docs#/{raw.definition['tags'][0]}/{raw.operation_id}"


def _successor_url(successor: RawOperation, deprecated: RawOperation, base_path: str) -> str:
    """Return the successor's path, or its documentation if the path needs values that the old one lacks."""
    if _path_names(successor) <= _path_names(deprecated):
        return base_path + successor.path
    return _docs_url(successor, base_path)


def _path_names(raw: RawOperation) -> set[str]:
    return {parameter["name"] for parameter in raw.parameters if parameter["in"] == "path"}
