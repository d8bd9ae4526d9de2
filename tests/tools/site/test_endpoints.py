"""The pages of the contract have a section, with its anchor, for each operation and each schema."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tools.site.endpoints import build_reference_navigation, load_contract, render_reference, title_of
from tools.site.make_targets import render_make_targets
from tools.site.schema_text import describe_type, list_limits, render_properties


@pytest.fixture(scope="module")
def contract() -> dict[str, Any]:
    """Return the bundle with code samples."""
    return load_contract()


@pytest.fixture(scope="module")
def pages(contract: dict[str, Any]) -> dict[str, str]:
    """Return the rendered pages."""
    return render_reference(contract)


def link(name: str) -> str:
    return f"[{name}](x.md#{name})"


def test_each_operation_and_schema_has_one_section(contract: dict[str, Any], pages: dict[str, str]) -> None:
    anchors = re.findall(r"^## .* \{ #(\w+) \}$", "\n".join(pages.values()), re.MULTILINE)
    operations = [
        operation["operationId"]
        for item in contract["paths"].values()
        for operation in item.values()
        if "operationId" in operation
    ]
    assert sorted(anchors) == sorted([*operations, *contract["components"]["schemas"]])


def test_the_navigation_lists_each_page(contract: dict[str, Any], pages: dict[str, str]) -> None:
    listed = [
        path
        for section in build_reference_navigation(contract)
        for entries in section.values()
        for entry in entries
        for path in entry.values()
    ]
    assert sorted(listed) == sorted(pages)


def test_an_operation_has_its_request_permission_bodies_and_a_sample(pages: dict[str, str]) -> None:
    page = pages["reference/operations/shots.md"]
    section = page[page.index("## Generate predictions for a shot { #generate_shot }") :].split("\n## ")[0]
    for text in (
        "`POST /api/v1/shots/{shot_id}/generate`",
        "Returns 409 `shot_busy` if the shot has an open generation",
        "Operation `generate_shot`. Permission `shots:generate`: admin, member, owner, personal, superuser.",
        "| `shot_id` | path | string (uuid) | ID of the shot. (required) |",
        "Request body (optional): `application/json`, [ShotGenerate](../schemas/shots.md#ShotGenerate).",
        "| 202 | `application/json` [Generation](../schemas/generations.md#Generation) | The queued",
        "```sh\ncurl",
    ):
        assert text in section


def test_a_schema_has_a_table_of_its_properties() -> None:
    schema = {
        "type": "object",
        "required": ["a"],
        "properties": {
            "a": {"type": "string", "maxLength": 9, "description": "One | two."},
            "b": {"type": ["array", "null"], "items": {"$ref": "#/components/schemas/B"}, "maxItems": 2},
            "c": {"type": "object", "properties": {"d": {"type": "boolean", "default": True}}},
        },
    }
    assert render_properties(schema, link)[2:] == [
        "| `a` | string | yes | One \\| two. (at most 9 characters) |",
        "| `b` | array of [B](x.md#B) or null |  | (at most 2 items) |",
        "| `c` | object |  |  |",
        "| `c.d` | boolean |  | (default `true`) |",
    ]


def test_types_and_limits_of_values() -> None:
    assert describe_type({"type": "string", "format": "uuid"}, link) == "string (uuid)"
    assert describe_type({"anyOf": [{"type": "string"}, {"type": "null"}]}, link) == "string or null"
    assert (
        describe_type({"allOf": [{"$ref": "#/components/schemas/A"}], "default": "x"}, link) == "[A](x.md#A)"
    )
    assert describe_type({"type": "object", "additionalProperties": {"type": "string"}}, link) == (
        "object with values: string"
    )
    assert describe_type({}, link) == "any value"
    assert list_limits({"enum": ["A", "B"], "minimum": 0}) == ["one of `A`, `B`", "at least 0"]
    assert list_limits({"minLength": 1, "maxLength": 120}) == ["1 to 120 characters"]
    assert list_limits({"minLength": 4, "maxLength": 4}) == ["exactly 4 characters"]
    assert list_limits({"minItems": 1}) == ["at least 1 item"]
    assert list_limits({"exclusiveMinimum": 0, "maxProperties": 3}) == ["at most 3 properties", "more than 0"]


def test_each_target_of_the_makefile_is_listed() -> None:
    page = render_make_targets()
    for line in (
        "## Run",
        "| `make run` | Start the server on an embedded database (PORT=8000) |",
        "| `make beat` | Start the scheduler of periodic tasks, once for all workers |",
    ):
        assert line in page.splitlines()


def test_a_tag_is_written_as_a_title() -> None:
    assert [title_of(tag) for tag in ("api-keys", "brands")] == ["API keys", "Brands"]
