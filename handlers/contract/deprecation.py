"""What an operation that is going to end tells: since when, until when, and what takes its place.

Headers of RFC 9745 (`Deprecation`), RFC 8594 (`Sunset`) and RFC 8288 (`Link`); nothing else about it changes.
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
    """The end of one operation. `page` explains it; `successor` is a path, maybe with placeholders."""

    since: datetime
    until: datetime
    docs_url: str
    successor: str | None

    def headers(self, path_values: Mapping[str, str]) -> dict[str, str]:
        """Return what the answer to a request with these values in its path says; names in lower case."""
        links = [f'<{self.docs_url}>; rel="deprecation"; type="text/html"']
        if self.successor is not None:
            quoted = {name: quote(value, safe="") for name, value in path_values.items()}
            links.append(f'<{self.successor.format_map(quoted)}>; rel="successor-version"')
        return {
            "deprecation": f"@{int(self.since.timestamp())}",
            "sunset": format_datetime(self.until, usegmt=True),
            "link": ", ".join(links),
        }


def find_deprecations(bundle: Document) -> dict[str, Deprecation]:
    """Return the deprecated operations by their operationId.

    ContractError lists every one without its dates, with a sunset before its deprecation, with a replacement
    that does not exist, and what an operation that is not deprecated says about its end.
    """
    operations = {raw.operation_id: raw for raw in bundle.operations()}
    found: dict[str, Deprecation] = {}
    complaints: list[str] = []
    for raw in operations.values():
        wrong = _find_errors(raw.definition, operations)
        complaints += [f"{raw.operation_id} {words}" for words in wrong]
        if raw.definition.get("deprecated") and not wrong:
            found[raw.operation_id] = _build_deprecation(raw, operations, bundle.base_path)
    if complaints:
        raise ContractError("the contract ends operations in a wrong way:\n  " + "\n  ".join(complaints))
    return found


def _find_errors(definition: dict[str, Any], operations: Mapping[str, RawOperation]) -> list[str]:
    if not definition.get("deprecated"):
        told = [word for word in (_SINCE, _UNTIL, _REPLACEMENT) if word in definition]
        return [f"is not deprecated and has {word}" for word in told]
    complaints, times = [], []
    for word in (_SINCE, _UNTIL):
        try:
            times.append(_parse_time(definition.get(word)))
        except ValueError:
            complaints.append(f"is deprecated and needs {word}, a time in UTC such as 2026-12-31T23:59:59Z")
    if times != sorted(times):
        complaints.append("ends before it is deprecated")
    replacement = definition.get(_REPLACEMENT)
    if replacement not in (None, *operations):
        complaints.append(f"is replaced by {replacement}, which does not exist")
    return complaints


def _parse_time(text: object) -> datetime:
    """Return a time in UTC; ValueError for anything else."""
    time = datetime.fromisoformat(str(text))
    if time.utcoffset() != timedelta(0):
        raise ValueError("not in UTC")
    return time


def _build_deprecation(
    raw: RawOperation, operations: Mapping[str, RawOperation], base_path: str
) -> Deprecation:
    since, until = (_parse_time(raw.definition[word]) for word in (_SINCE, _UNTIL))
    replacement = raw.definition.get(_REPLACEMENT)
    successor = None if replacement is None else _successor_url(operations[replacement], raw, base_path)
    return Deprecation(since, until, _docs_url(raw, base_path), successor)


def _docs_url(raw: RawOperation, base_path: str) -> str:
    """Return where the documentation page shows an operation."""
    return f"{base_path}/docs#/{raw.definition['tags'][0]}/{raw.operation_id}"


def _successor_url(successor: RawOperation, deprecated: RawOperation, base_path: str) -> str:
    """Return the path of the successor; its page where the old path lacks values that the new one needs."""
    if _path_names(successor) <= _path_names(deprecated):
        return base_path + successor.path
    return _docs_url(successor, base_path)


def _path_names(raw: RawOperation) -> set[str]:
    return {parameter["name"] for parameter in raw.parameters if parameter["in"] == "path"}
