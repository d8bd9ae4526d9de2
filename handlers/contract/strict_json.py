"""Parse strict JSON (RFC 8259): UTF-8, unique keys, no NaN, limited depth and number of items."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import Any

from handlers.contract.errors import BadRequest, ContentTooLarge

MAX_DEPTH = 60
MAX_ITEMS = 1_500
"""The maximum of array items and object members in a body: reporting violations costs time for each. An
operation can have its own (`x-max-items`)."""

_LONE_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@cache
def _too_many_items(max_items: int) -> re.Pattern[bytes]:
    """Return the expression that matches a text with one comma outside of strings more than allowed."""
    # Possessive quantifiers rule out backtracking (ReDoS).
    comma = rb'(?:[^",]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^",]*+)*+,){%d}'
    return re.compile(comma % (max_items + 1), re.DOTALL)


def parse_json(raw: bytes, max_items: int = MAX_ITEMS) -> Any:
    """Return the value of a JSON text.

    Raises:
        BadRequest: Not strict JSON in UTF-8, a repeated key, a number out of range, nesting deeper than
            MAX_DEPTH, or a lone surrogate.
        ContentTooLarge: More than `max_items` items and members.
    """
    # Counting is fast and enough for most bodies; the expression skips commas in strings.
    if raw.count(b",") > max_items and _too_many_items(max_items).match(raw):
        raise ContentTooLarge(f"The body has more than {max_items} items")
    try:
        text = raw.decode("utf-8")
        if text.startswith("\ufeff"):
            raise BadRequest("The body starts with a byte order mark: send UTF-8 without one")
        value = json.loads(
            text,
            object_pairs_hook=_reject_duplicate_keys,
            parse_constant=_reject_constant,
            parse_float=_parse_float,
            parse_int=_parse_int,
        )
    except UnicodeDecodeError:
        raise BadRequest("The body is not UTF-8: send JSON in UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise BadRequest(_describe_error(error)) from None
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _measure_depth(value) > MAX_DEPTH:
        raise BadRequest(f"The body is nested deeper than {MAX_DEPTH} levels")
    if _LONE_SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise BadRequest("The body contains a lone surrogate") from None
    return value


def _describe_error(error: Exception) -> str:
    if isinstance(error, _InvalidJson):
        return str(error)
    if isinstance(error, json.JSONDecodeError):
        return f"The body is not valid JSON: see line {error.lineno}, column {error.colno}"
    return "The body is not valid JSON"


class _InvalidJson(ValueError):
    """A ValueError whose message is safe to return to the client."""


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        repeated = next(name for name, count in counts.items() if count > 1)
        raise _InvalidJson(f"The body has the key {json.dumps(repeated[:100])} more than once in an object")
    return members


def _reject_constant(name: str) -> Any:
    raise _InvalidJson(f"The body contains {name}, which is not valid JSON")


def _parse_float(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise _InvalidJson("The body contains a number that is too large")
    return number


def _parse_int(text: str) -> int:
    # int() takes quadratic time, and no schema of the contract accepts such a number.
    if len(text) > 300:
        raise _InvalidJson("The body contains a number that is too large")
    return int(text)


def _measure_depth(value: Any) -> int:
    # Level by level, without recursion.
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [inner for item in level for inner in _list_children(item)]
    return depth


def _list_children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
