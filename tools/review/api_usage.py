"""Whom a break would hit: read the API usage of all organizations, and count who uses each broken part."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tools.conformance.sartiq_conformance.diff.change import Change
from tools.review.checks import Node

_OF_PARAMETER = re.compile(r"\b(?:parameters?|headers?) `")
_NAME = re.compile(r"`([^`]+)`")
WAY_OUT = "write pages of `GET /api-usage/` there: one as JSON, an array of them, or one per line"


class UsageUnreadable(Exception):
    """The file has no API usage; the message says what to write there."""


def load_usage(path: Path) -> list[Node]:
    """Return the API usage in a file: pages of `GET /api-usage/`, one, an array of them, or one per line.

    Raises:
        UsageUnreadable: The file cannot be read, or is something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageUnreadable(f"{path} cannot be read ({error}): {WAY_OUT}") from error
    try:
        values = [json.loads(text)]
    except ValueError:
        try:
            values = [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError as error:
            raise UsageUnreadable(f"{path} is not JSON ({error}): {WAY_OUT}") from error
    try:
        pages = [page for value in values for page in (value if isinstance(value, list) else [value])]
        rows = [row for page in pages for row in page["data"]]
        for row in rows:
            _ = [
                row[name]
                for name in ("organization_id", "api_key_id", "operation_id", "kind", "name", "updated_at")
            ]
    except (KeyError, TypeError) as error:
        raise UsageUnreadable(f"{path} has no API usage: {WAY_OUT}") from error
    return rows


def describe_uses(
    changes: Iterable[Change], usage: Sequence[Node], ids: Mapping[str, str]
) -> dict[Change, str]:
    """Return for each breaking change how many organizations and API keys it hits.

    Args:
        changes: All changes.
        usage: What `load_usage` returned.
        ids: The operationIds by `METHOD path`.
    """
    return {
        change: _describe(_select(change, usage, ids)) for change in changes if change.impact == "breaking"
    }


def _select(change: Change, usage: Sequence[Node], ids: Mapping[str, str]) -> list[Node]:
    """Return the use of the changed part; of the operation if the part itself is not counted."""
    names = {ids.get(operation, operation) for operation in change.operations}
    of_operations = [row for row in usage if not names or row["operation_id"] in names]
    # The old name of a part, too, if it has another one now.
    mentioned = set(_NAME.findall(change.text))
    if _OF_PARAMETER.search(change.text):
        return [row for row in of_operations if row["kind"] == "parameter" and row["name"] in mentioned]
    properties = [
        row
        for row in of_operations
        if row["kind"] == "property" and row["name"].rpartition("/")[2] in mentioned
    ]
    return properties or [row for row in of_operations if row["kind"] == "operation"]


def _describe(rows: list[Node]) -> str:
    if not rows:
        return "No API key used it."
    organizations = _count({row["organization_id"] for row in rows}, "organization")
    keys = _count({row["api_key_id"] for row in rows}, "API key")
    what = "the operation" if rows[0]["kind"] == "operation" else "it"
    return f"Used {what}: {organizations} with {keys}, last on {max(row['updated_at'] for row in rows)[:10]}."


def _count(values: set[str], noun: str) -> str:
    return f"{len(values)} {noun}{'s' * (len(values) != 1)}"
