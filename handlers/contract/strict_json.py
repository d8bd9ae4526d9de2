"""JSON as RFC 8259 has it and nothing beside: UTF-8, no key twice, no NaN, bounded in depth and in items."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from handlers.contract.errors import BadRequest, ContentTooLarge

MAX_DEPTH = 60
MAX_ITEMS = 1_500
"""Items and members of all arrays and objects together: to tell what is wrong costs time for each."""

_LONE_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
# One more separator than is allowed, outside of strings. Nothing in it is tried twice.
_TOO_MANY_ITEMS = re.compile(
    rb'(?:[^",]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^",]*+)*+,){%d}' % (MAX_ITEMS + 1), re.DOTALL
)


def parse_json(raw: bytes) -> Any:
    """Return the value; Malformed unless it is strict JSON (RFC 8259) in UTF-8 without repeated keys.

    BodyTooLarge for more than MAX_ITEMS items and members.
    """
    if raw.count(b",") > MAX_ITEMS and _TOO_MANY_ITEMS.match(raw):
        raise ContentTooLarge(f"The body holds more than {MAX_ITEMS} items")
    try:
        text = raw.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_reject_duplicate_keys,
            parse_constant=_reject_constant,
            parse_float=_parse_float,
            parse_int=_parse_int,
        )
    except UnicodeDecodeError:
        raise BadRequest("The body is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        detail = str(error) if isinstance(error, _InvalidJson) else "The body is not valid JSON"
        raise BadRequest(detail) from None
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _measure_depth(value) > MAX_DEPTH:
        raise BadRequest(f"The body is nested deeper than {MAX_DEPTH} levels")
    if _LONE_SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise BadRequest("The body holds a lone surrogate") from None
    return value


class _InvalidJson(ValueError):
    """A ValueError whose text may be told."""


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _InvalidJson("The body holds a key twice in one object")
    return members


def _reject_constant(name: str) -> Any:
    raise _InvalidJson(f"The body holds {name}, which is not JSON")


def _parse_float(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise _InvalidJson("The body holds a number that is too large")
    return number


def _parse_int(text: str) -> int:
    if len(text) > 300:
        raise _InvalidJson("The body holds a number that is too large")
    return int(text)


def _measure_depth(value: Any) -> int:
    deepest, level = 0, [value]
    while level:
        deepest += 1
        level = [inner for item in level for inner in _list_children(item)]
    return deepest


def _list_children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
