"""Manual validation of requests. One response reports all violations of a body."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from app.problems import Invalid

Violations = list[dict[str, Any]]
Check = Callable[[Any], str | None]


def violation(place: str, name: str, message: str, kind: str = "invalid") -> dict[str, Any]:
    return {"loc": [place, name], "msg": message, "type": kind}


def text(max_length: int, min_length: int = 0, *, nullable: bool = True) -> Check:
    def check(value: Any) -> str | None:
        if value is None and nullable:
            return None
        if not isinstance(value, str):
            return "Must be a string"
        if not min_length <= len(value) <= max_length:
            return f"Must have {min_length} to {max_length} characters"
        return "Must not contain U+0000" if "\0" in value else None

    return check


def one_of(*words: str | None) -> Check:
    return lambda value: None if value in words else f"Must be one of {', '.join(map(str, words))}"


CREATE_CHECKS: dict[str, Check] = {
    "sku": text(80, 1),
    "name": text(120, 1, nullable=False),
    "description": text(5000),
    "category": text(80, 1),
    "gender": one_of("FEMALE", "MALE", "UNISEX", None),
    "materials": text(500),
    "color": text(80),
}
UPDATE_CHECKS = {**CREATE_CHECKS, "state": one_of("DRAFT", "READY", "ARCHIVED")}


def checked_body(body: Any, checks: Mapping[str, Check], required: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the body. Raises Invalid with all violations."""
    if not isinstance(body, dict):
        raise Invalid([{"loc": ["body"], "msg": "Must be an object", "type": "object_type"}])
    found = [violation("body", name, "Is required", "missing") for name in required if name not in body]
    for name, value in body.items():
        check = checks.get(name)
        message = "Is not known" if check is None else check(value)
        if message is not None:
            found.append(violation("body", name, message))
    if found:
        raise Invalid(found)
    return body


def checked_id(value: str | None, place: str, name: str) -> UUID:
    try:
        return UUID(value or "")
    except ValueError:
        raise Invalid([violation(place, name, "Must be a UUID")]) from None


def checked_number(values: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    value = values.get(name, str(default))
    if not (value.isascii() and value.isdigit() and least <= int(value) <= most):
        raise Invalid([violation("query", name, f"Must be a number from {least} to {most}")])
    return int(value)
