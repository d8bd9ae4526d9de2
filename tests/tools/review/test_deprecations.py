"""What the gate says of deprecated parts: their dates, and what leaves the contract when."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from tools.review.changes import list_changes
from tools.review.deprecations import GUIDE, find_overdue, find_wrong_deprecations, list_sunset_changes
from tools.review.source_map import SourceMap
from tools.review.tools import SOURCE

NOW = datetime(2027, 7, 1, tzinfo=UTC)
PAST = {
    "deprecated": True,
    "x-deprecated-at": "2026-12-01T00:00:00Z",
    "x-sunset": "2027-06-30T00:00:00Z",
    "x-replacement": "Nothing replaces it.",
}
FUTURE = PAST | {"x-sunset": "2027-07-02T00:00:00Z"}
ENDED = {"410": {"description": "The operation has ended."}}
TEXT = {"type": "string"}


def build_contract(**things: dict[str, Any]) -> dict[str, Any]:
    """Return a contract with an operation for each name, which returns a thing."""
    schema = {"$ref": "#/components/schemas/Thing"}
    ok = {"200": {"description": "A thing.", "content": {"application/json": {"schema": schema}}}}
    paths = {
        f"/{name}": {"get": {"operationId": name, "tags": ["things"], "responses": ok, **thing}}
        for name, thing in things.items()
    }
    return {
        "openapi": "3.1.1",
        "info": {"title": "Things", "version": "1.0.0", "description": "Things."},
        "servers": [{"url": "/api/v1"}],
        "tags": [{"name": "things"}],
        "paths": paths,
        "components": {"schemas": {"Thing": {"type": "object", "properties": {"id": TEXT}}}},
        "x-permissions": {},
    }


def find_changes(base: dict[str, Any], revision: dict[str, Any]) -> dict[str, str]:
    return {one.text: one.impact for one in list_changes(base, revision, NOW)}


def test_an_operation_may_end_after_its_sunset_and_leave_after_its_410() -> None:
    base = build_contract(kept={}, late=PAST, early=FUTURE, plain={}, gone=PAST, last=PAST)
    base["paths"]["/last"]["get"]["responses"] = ENDED
    revision = copy.deepcopy(base)
    for name in ("late", "early", "plain"):
        revision["paths"][f"/{name}"]["get"]["responses"] = ENDED
    for name in ("gone", "last"):
        del revision["paths"][f"/{name}"]
    assert find_changes(base, revision) == {
        "`late` has ended: it returns 410.": "removed",
        "`early` has ended: it returns 410. Its sunset is 2027-07-02T00:00:00Z.": "breaking",
        "`plain` has ended: it returns 410. It was not deprecated.": "breaking",
        "`gone` was removed: in the first release after its sunset it must return 410.": "breaking",
        "`last` was removed.": "removed",
    }


def test_parameters_and_properties_may_leave_after_their_sunset() -> None:
    def query(name: str, dates: dict[str, Any]) -> dict[str, Any]:
        return {"name": name, "in": "query", "required": False, "schema": TEXT, **dates}

    base = build_contract(get_thing={"parameters": [query("late", PAST), query("early", FUTURE)]})
    thing = base["components"]["schemas"]["Thing"]
    thing["properties"] |= {"late_name": TEXT | PAST, "early_name": TEXT | FUTURE}
    thing["required"] = ["id", "late_name"]
    revision = build_contract(get_thing={})
    revision["components"]["schemas"]["Thing"]["required"] = ["id"]
    found = find_changes(base, revision)
    assert {text for text, impact in found.items() if impact == "removed"} == {
        "The query parameter `late` was removed after its sunset.",
        "`Thing.late_name` was removed after its sunset.",
    }
    assert {text for text, impact in found.items() if impact == "breaking"} == {
        "The query parameter `early` was removed.",
        "`Thing.early_name` was removed.",
    }


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        (
            PAST,
            FUTURE,
            ("changed", "The operation ends on `2027-07-02T00:00:00Z`, was `2027-06-30T00:00:00Z`."),
        ),
        (
            FUTURE,
            PAST,
            ("breaking", "The operation ends on `2027-06-30T00:00:00Z`, was `2027-07-02T00:00:00Z`."),
        ),
        ({}, PAST, ("breaking", "The operation is deprecated and ends at once.")),
        (
            {"x-documented": True},
            {},
            ("breaking", "The operation is no longer in the public documentation (`x-documented`)."),
        ),
    ],
)
def test_a_sunset_moves_only_to_a_later_time(
    before: dict[str, Any], after: dict[str, Any], change: tuple[str, str]
) -> None:
    base, revision = build_contract(get_thing=before), build_contract(get_thing=after)
    assert [found[:2] for found in list_sunset_changes(base, revision, NOW)] == [change]


def test_what_is_wrong_with_the_dates_has_file_and_line(contract: Callable[[], dict[str, Any]]) -> None:
    edited, sources = contract(), SourceMap(SOURCE.parent)
    brand = edited["components"]["schemas"]["Brand"]["properties"]
    brand["name"] |= {"deprecated": True}
    brand["slug"] |= PAST | {"x-replacement": "nmae"}
    edited["paths"]["/brands/"]["get"] |= FUTURE | {"responses": ENDED}
    found = find_wrong_deprecations(edited, sources, NOW)
    assert [finding.place for finding in found] == [
        "openapi/paths/brands.yaml:2",
        *[sources.find_schema("Brand/properties/name")] * 3,
        sources.find_schema("Brand/properties/slug"),
    ]
    assert [finding.text for finding in found] == [
        "list_brands has no responses before its sunset: restore them until 2027-07-02T00:00:00Z",
        "`Brand.name` is deprecated and needs x-deprecated-at: a time in UTC such as '2026-12-31T23:59:59Z'",
        "`Brand.name` is deprecated and needs x-sunset: a time in UTC such as '2026-12-31T23:59:59Z'",
        "`Brand.name` is deprecated and needs x-replacement: the name of what replaces it, or a sentence",
        "`Brand.slug` is replaced by nmae, which does not exist: correct it, or write a sentence",
    ]


def test_an_operation_past_its_sunset_must_end_with_the_next_release() -> None:
    contract = build_contract(late=PAST, early=FUTURE, ended=PAST)
    contract["paths"]["/ended"]["get"]["responses"] = ENDED
    assert find_overdue(contract, NOW) == [
        f"`late` ended on 2027-06-30T00:00:00Z: write `responses: {{}}` ({GUIDE})"
    ]
