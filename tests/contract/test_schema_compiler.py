"""Schemas of answers mean the same when they are written otherwise, to be checked faster."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest

from handlers.contract.schema_compiler import translate

ANY = r"^[^\x00]*$"
ADDRESS = r"^https?://[^\x00]+$"
PREFIXES = ("", "https://", "http://", " https://", "x")
SUFFIXES = ("", "a", "a\nb", "\x00", "a\x00", "\n\x00b", "\n", "€\U0001f600", "a" * 41)


@pytest.mark.parametrize("nullable", [False, True])
@pytest.mark.parametrize("pattern", [ANY, ADDRESS])
def test_a_text_without_nul_is_the_same_in_both_directions(pattern: str, nullable: bool) -> None:
    schema = {"type": "string", "maxLength": 40, "pattern": pattern, "nullable": nullable}
    request, answer = (
        jsonschema_rs.Draft202012Validator(translate(schema, direction))
        for direction in ("request", "response")
    )
    values: list[Any] = [None, 7, *(beginning + rest for beginning in PREFIXES for rest in SUFFIXES)]
    assert [answer.is_valid(value) for value in values] == [request.is_valid(value) for value in values]
    assert {request.is_valid(value) for value in values} == {True, False}


def test_what_a_schema_forbids_stays_forbidden() -> None:
    schema = {"type": "string", "pattern": ANY, "not": {"enum": ["null"]}}
    answer = jsonschema_rs.Draft202012Validator(translate(schema, "response"))
    assert [answer.is_valid(value) for value in ("a", "null", "\x00")] == [True, False, False]
