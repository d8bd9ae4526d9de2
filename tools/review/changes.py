"""Compare two bundles: as any two documents, and by what only this project's contract has."""

from __future__ import annotations

import datetime
from typing import Any

from tools.conformance.sartiq_conformance.diff.change import Change, merge_changes
from tools.conformance.sartiq_conformance.diff.changes import find_changes
from tools.conformance.sartiq_conformance.diff.open_enumerations import close_enumerations
from tools.conformance.sartiq_conformance.diff.usage import ComponentUsage
from tools.project import METHODS
from tools.review.access_changes import list_access_changes
from tools.review.deprecations import list_sunset_changes, take_ended
from tools.review.name_changes import list_name_changes

Node = dict[str, Any]
DEPRECATION_HEADERS = ("Deprecation", "DeprecationLink", "Sunset")


def list_changes(base: Node, revision: Node, now: datetime.datetime | None = None) -> list[Change]:
    """Return the changes from one bundle to another, breaking ones first.

    Args:
        base: The earlier bundle.
        revision: The later one.
        now: The time at which sunsets are past or not; by default the current one.

    Raises:
        DocumentError: A bundle has a part in a wrong place, or a reference to nothing.
    """
    base, revision = close_enumerations(base), close_enumerations(revision)
    used = ComponentUsage(base)

    def find_operations(pointer: str) -> tuple[str, ...]:
        return used.find_operations(pointer)[0]

    _drop_deprecation_headers(base)
    _drop_deprecation_headers(revision)
    ended = [*take_ended(base, revision, now), *list_sunset_changes(base, revision, now)]
    return merge_changes(
        [
            *find_changes(base, revision),
            *list_access_changes(base, revision),
            *list_name_changes(base, revision, find_operations),
            *(Change(impact, find_operations(pointer), text, pointer) for impact, text, pointer in ended),
        ]
    )


def _drop_deprecation_headers(contract: Node) -> None:
    """Leave out the headers that say the same as `deprecated` and the dates."""
    for item in contract.get("paths", {}).values():
        for method in (method for method in METHODS if method in item):
            for response in item[method].get("responses", {}).values():
                headers = response.get("headers", {})
                for name in list(headers):
                    if headers[name].get("$ref", "").rpartition("/")[2] in DEPRECATION_HEADERS:
                        del headers[name]
