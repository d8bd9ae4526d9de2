"""The changelog of a release says each thing once, for people who use the API."""

from __future__ import annotations

from tools.conformance.sartiq_conformance.diff.change import Change
from tools.conformance.sartiq_conformance.diff.report import Comparison
from tools.review.changelog import MAX_NAMES, list_statements, render_changelog

LIST, GET, WEBHOOK = "GET /brands/", "GET /brands/{brand_id}", "WEBHOOK brand.created"
IDS = {LIST: "list_brands", GET: "get_brand", "GET /looks/": "list_looks"}


def _compare(*changes: tuple[str, tuple[str, ...], str]) -> Comparison:
    listed = [Change(impact, operations, text, "#") for impact, operations, text in changes]
    return Comparison("Released", "", "0.1.0", listed, IDS, frozenset(IDS))


def _list(*changes: tuple[tuple[str, ...], str], impact: str = "changed") -> list[str]:
    comparison = _compare(*((impact, operations, text) for operations, text in changes))
    return list(list_statements(comparison.changes or [], comparison))


def test_additions_are_grouped_by_kind() -> None:
    comparison = _compare(
        ("added", (LIST,), "`list_brands` is new."),
        ("added", (GET,), "`get_brand` is new."),
        ("added", (WEBHOOK,), "`receive_brand_created` is new."),
        ("added", (), "The problem code `in_use` is new."),
        ("added", (), "The problem code `not_sent` is new."),
        ("added", (LIST, GET), "`Brand.color` is new."),
        ("added", (LIST, GET), "`Brand.address.city` is new."),
        ("added", ("GET /looks/",), "`Look.color` is new."),
        ("added", ("GET /looks/",), "`Look.address.city` is new."),
        ("added", (LIST,), "The query parameter `ids` is new."),
        ("added", ("GET /looks/",), "The query parameter `ids` is new."),
        ("added", (LIST,), "The response 409 is new."),
    )
    assert list(render_changelog(comparison)) == [
        "### Added",
        "",
        "- New operations: 2",
        "  - `/brands`: `get_brand`, `list_brands`",
        "- Messages of webhooks that the contract now describes: `brand.created`",
        "- New parameters",
        "  - `list_brands`, `list_looks`: `ids`",
        "- New properties",
        "  - `Brand`, `Look`: `address.city`, `color`",
        "- New problem codes: `in_use`, `not_sent`",
        "- The response 409 is new (`list_brands`).",
        "",
    ]


def test_a_statement_is_listed_once_with_its_subjects() -> None:
    assert _list(
        ((LIST,), "`Brand.kind` can also be `x`."),
        ((GET,), "`Look.kind` can also be `x`."),
        ((LIST,), "`Brand.slug` was removed."),
        ((GET,), "`Look.slug` was removed."),
        ((LIST,), "`A.x`: maxLength is `2`, was `1`."),
        ((LIST,), "`A.x`: pattern is `b`, was `a`."),
    ) == [
        "`Brand.kind`, `Look.kind` can also be `x`.",
        "`Brand.slug`, `Look.slug` were removed.",
        "`A.x`: maxLength is `2`, was `1`; pattern is `b`, was `a`.",
    ]


def test_operations_are_listed_if_the_statement_names_no_schema() -> None:
    many = tuple(f"GET /{number}" for number in range(MAX_NAMES + 1))
    assert _list(
        ((LIST,), "The query parameter `a`: maximum is `2`, was `1`."),
        ((LIST, GET), "The query parameter `b`: maximum is `2`, was `1`."),
        (many, "The response 409 was removed."),
        (tuple(IDS), "The response 418 was removed."),
        ((LIST,), "The request body as `text/csv` is new."),
        ((LIST,), "The request body as `text/plain` is new."),
        ((LIST,), "The link `a` of the response 201 is new."),
        ((LIST,), "The link `b` of the response 201 is new."),
    ) == [
        "The query parameters `a`, `b`: maximum is `2`, was `1` (`list_brands`, `get_brand`).",
        "The response 409 was removed (16 operations).",
        "The response 418 was removed (all operations).",
        "The request body as `text/csv`, `text/plain` is new (`list_brands`).",
        "The links `a`, `b` of the response 201 are new (`list_brands`).",
    ]


def test_only_breaking_changes_list_all_schemas() -> None:
    changes = [((LIST,), f"`S{number}` is deprecated.") for number in range(MAX_NAMES + 5)]
    assert _list(*changes, impact="deprecated")[0].endswith("`S14` and 5 others are deprecated.")
    assert _list(*changes, impact="breaking")[0].endswith("`S18`, `S19` are deprecated.")
