"""Deprecated operations: their headers (RFC 9745, RFC 8594, RFC 8288), and how they end.

The contract has the dates and the replacement. Deprecated operations behave like all others until they end.
An operation that has ended is in the contract with the response 410 alone, and has no handler. What the
public documentation has (`x-documented`) never ends within a version.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import quote

from handlers.contract.document import Document, RawOperation
from handlers.contract.errors import ContractError, OperationEnded

SINCE, UNTIL, REPLACEMENT = "x-deprecated-at", "x-sunset", "x-replacement"
DOCUMENTED = "x-documented"
NOTICE = timedelta(days=180)
"""How long a deprecated part works at least."""
_GONE = "410"


@dataclass(frozen=True)
class Deprecation:
    """The deprecation of one operation.

    Attributes:
        until: The sunset; None for what never ends within this version.
        successor: A URL path, possibly with placeholders; None if no operation replaces it.
        replacement: An operationId or a sentence.
    """

    since: datetime
    until: datetime | None
    docs_url: str
    successor: str | None
    replacement: str | None

    def headers(self, path_values: Mapping[str, str]) -> dict[str, str]:
        """Return the headers of a response. `path_values` fill the placeholders of the successor."""
        links = [f'<{self.docs_url}>; rel="deprecation"; type="text/html"']
        if self.successor is not None:
            # Path values come from the client: unquoted, `>` or `,` would end the link (header injection).
            quoted = {name: quote(value, safe="") for name, value in path_values.items()}
            links.append(f'<{self.successor.format_map(quoted)}>; rel="successor-version"')
        # RFC 9745 uses a structured date, RFC 8594 an HTTP date.
        headers = {"deprecation": f"@{int(self.since.timestamp())}", "link": ", ".join(links)}
        if self.until is not None:
            headers["sunset"] = format_datetime(self.until, usegmt=True)
        return headers

    def build_error(self, operation_id: str) -> OperationEnded:
        """Return the error for a request to the operation after it has ended."""
        members = {}
        detail = f"`{operation_id}` has ended"
        if self.until is not None:
            members["sunset"] = f"{self.until:%Y-%m-%dT%H:%M:%SZ}"
            detail += f" on {self.until:%Y-%m-%d}"
        if self.replacement is not None:
            members["replacement"] = self.replacement
            detail += f": use `{self.replacement}`" if is_name(self.replacement) else f". {self.replacement}"
        return OperationEnded(detail, members=members)


def has_ended(definition: Mapping[str, Any]) -> bool:
    """Return whether an operation has ended: its contract has the response 410, and none below 400."""
    responses = definition.get("responses", {})
    return _GONE in responses and not any(str(status) < "400" for status in responses)


def is_name(replacement: str) -> bool:
    """Return whether `x-replacement` is the name of a part of the contract, not a sentence."""
    return not any(map(str.isspace, replacement))


def find_deprecations(document: Document) -> dict[str, Deprecation]:
    """Return the deprecations by operationId.

    Raises:
        ContractError: Lists every operation for which `find_deprecation_errors` returns something, and every
            one that has ended and is not deprecated.
    """
    operations = {raw.operation_id: raw for raw in document.operations()}
    deprecations: dict[str, Deprecation] = {}
    errors: list[str] = []
    for raw in operations.values():
        own_errors = find_deprecation_errors(raw.definition, operations)
        errors += [f"{raw.operation_id} {error}" for error in own_errors]
        if raw.definition.get("deprecated") and not own_errors:
            deprecations[raw.operation_id] = _build_deprecation(raw, operations, document.base_path)
    if errors:
        raise ContractError("deprecations in the contract are invalid:\n  " + "\n  ".join(errors))
    return deprecations


def find_deprecation_errors(node: Mapping[str, Any], names: Collection[str]) -> list[str]:
    """Return what is wrong with the deprecation of an operation, a parameter or a property.

    Args:
        node: The operation, the parameter, or the schema of the property.
        names: What can replace it: the operationIds, or the parameters or properties beside it.
    """
    if not node.get("deprecated"):
        extensions = [name for name in (SINCE, UNTIL, REPLACEMENT) if name in node]
        errors = [f"is not deprecated and has {name}: remove it, or deprecate it" for name in extensions]
        if has_ended(node):
            errors.append(f"has only the response 410 and is not deprecated: add {UNTIL}, or its responses")
        return errors
    errors, times = [], {}
    is_documented = bool(node.get(DOCUMENTED))
    for name in (SINCE,) if is_documented else (SINCE, UNTIL):
        try:
            times[name] = parse_time(node.get(name))
        except ValueError:
            errors.append(f"is deprecated and needs {name}: a time in UTC such as '2026-12-31T23:59:59Z'")
    if is_documented and UNTIL in node:
        errors.append(f"is in the public documentation ({DOCUMENTED}), so it never ends: remove {UNTIL}")
    if is_documented and has_ended(node):
        errors.append(
            f"is in the public documentation ({DOCUMENTED}), so it never ends: restore its responses"
        )
    if not errors and UNTIL in times and times[UNTIL] < times[SINCE] + NOTICE:
        first = f"{times[SINCE] + NOTICE:%Y-%m-%dT%H:%M:%SZ}"
        errors.append(f"ends less than {NOTICE.days} days after {SINCE}: write '{first}' or later")
    replacement = node.get(REPLACEMENT)
    if replacement is None and not is_documented:
        errors.append(f"is deprecated and needs {REPLACEMENT}: the name of what replaces it, or a sentence")
    if replacement is not None and is_name(replacement) and replacement not in names:
        errors.append(f"is replaced by {replacement}, which does not exist: correct it, or write a sentence")
    return errors


def parse_time(text: object) -> datetime:
    """Return a time in UTC. Raises ValueError for anything else, also for another offset."""
    time = datetime.fromisoformat(str(text))
    if time.utcoffset() != timedelta(0):
        raise ValueError("not in UTC")
    return time


def _build_deprecation(
    raw: RawOperation, operations: Mapping[str, RawOperation], base_path: str
) -> Deprecation:
    until: str | None = raw.definition.get(UNTIL)
    replacement: str = raw.definition.get(REPLACEMENT, "")
    return Deprecation(
        parse_time(raw.definition[SINCE]),
        None if until is None else parse_time(until),
        _docs_url(raw, base_path),
        _successor_url(operations[replacement], raw, base_path) if replacement in operations else None,
        replacement or None,
    )


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
