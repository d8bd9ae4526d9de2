"""Response schemas are rewritten for faster validation and accept the same values."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest

from handlers.contract.schema_compiler import translate

ANY = r"^[^\x00]*$"
URL = r"^https?://[^\x00]+$"
PREFIXES = ("", "https://", "http://", " https://", "x")
SUFFIXES = ("", "a", "a\nb", "\x00", "a\x00", "\n\x00b", "\n", "€\U0001f600", "a" * 41)


@pytest.mark.parametrize("nullable", [False, True])
@pytest.mark.parametrize("pattern", [ANY, URL])
def test_a_pattern_that_forbids_nul_accepts_the_same_texts_in_both_directions(
    pattern: str, nullable: bool
) -> None:
    kind = ["string", "null"] if nullable else "string"
    schema = {"type": kind, "maxLength": 40, "pattern": pattern}
    request, response = (
        jsonschema_rs.Draft202012Validator(translate(schema, direction))
        for direction in ("request", "response")
    )
    values: list[Any] = [None, 7, *(prefix + suffix for prefix in PREFIXES for suffix in SUFFIXES)]
    assert [response.is_valid(value) for value in values] == [request.is_valid(value) for value in values]
    assert {request.is_valid(value) for value in values} == {True, False}


def test_a_not_of_the_schema_is_kept() -> None:
    schema = {"type": "string", "pattern": ANY, "not": {"enum": ["null"]}}
    response = jsonschema_rs.Draft202012Validator(translate(schema, "response"))
    assert [response.is_valid(value) for value in ("a", "null", "\x00")] == [True, False, False]
