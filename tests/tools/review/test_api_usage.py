"""`make review --usage`: for each break, how many organizations and API keys use what it breaks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.tools.review.test_review import REMOVED, build_review
from tools.conformance.sartiq_conformance.diff.change import Change
from tools.review.api_usage import UsageUnreadable, describe_uses, load_usage
from tools.review.report import render_markdown, render_text
from tools.review.run import parse_arguments

IDS = {"GET /brands/": "list_brands", "POST /brands/": "create_brand"}


def use(operation_id: str, kind: str = "operation", name: str | None = None, **values: str) -> dict[str, Any]:
    """Return one row of usage."""
    row = {"organization_id": "o1", "api_key_id": "k1", "updated_at": "2026-11-03T14:30:00.000000Z"}
    return row | {"operation_id": operation_id, "kind": kind, "name": name} | values


USAGE = [
    use("list_brands"),
    use("list_brands", api_key_id="k2", updated_at="2026-12-01T00:00:00.000000Z"),
    use("list_brands", "parameter", "q", organization_id="o2", api_key_id="k3"),
    use("create_brand", organization_id="o3", api_key_id="k4"),
    use("create_brand", "property", "logo/url", organization_id="o3", api_key_id="k4"),
]

ONCE, NEVER = "Used it: 1 organization with 1 API key, last on 2026-11-03.", "No API key used it."
TWICE, LAST = "Used the operation:", "last on 2026-12-01."


@pytest.mark.parametrize(
    ("operations", "text", "expected"),
    [
        (("GET /brands/",), "The query parameter `q` was removed.", ONCE),
        (("GET /brands/",), "The query parameter `text` was named `q`; clients pass it by this name.", ONCE),
        (("GET /brands/",), "The query parameter `sort` was removed.", NEVER),
        (("GET /brands/",), "`Brand.slug` was removed.", f"{TWICE} 1 organization with 2 API keys, {LAST}"),
        (("POST /brands/",), "`Logo`: the property `url` was removed.", ONCE),
        (tuple(IDS), "The operation was removed.", f"{TWICE} 2 organizations with 3 API keys, {LAST}"),
        ((), "All need a token.", f"{TWICE} 2 organizations with 3 API keys, {LAST}"),
        (("GET /never/",), "The operation was removed.", NEVER),
    ],
)
def test_a_break_names_who_uses_the_part(operations: tuple[str, ...], text: str, expected: str) -> None:
    change = Change("breaking", operations, text, "#/paths")
    assert describe_uses([change, change._replace(impact="added")], USAGE, IDS) == {change: expected}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"data": USAGE, "next_cursor": None}),
        json.dumps([{"data": USAGE[:2]}, {"data": USAGE[2:]}]),
        f"{json.dumps({'data': USAGE[:2]})}\n\n{json.dumps({'data': USAGE[2:]})}\n",
    ],
)
def test_usage_is_one_page_or_several(tmp_path: Path, text: str) -> None:
    file = tmp_path / "usage.json"
    file.write_text(text)
    assert load_usage(file) == USAGE
    assert parse_arguments(["--usage", str(file)]).usage == USAGE


@pytest.mark.parametrize("text", ["{", "[1]", '{"items": []}', '{"data": [{"operation_id": "a"}]}', None])
def test_another_file_is_an_error_with_the_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None
) -> None:
    file = tmp_path / "usage.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UsageUnreadable):
        load_usage(file)
    with pytest.raises(SystemExit):
        parse_arguments(["--usage", str(file)])
    assert "write pages of `GET /api-usage/` there" in capsys.readouterr().err


def test_the_report_shows_the_use_beside_each_break() -> None:
    review = build_review(changes=[REMOVED])
    review.comparisons[0].uses = describe_uses([REMOVED], USAGE, IDS)
    for text in (render_text(review, 1), render_markdown(review)):
        assert "`Brand.slug` was removed. Used the operation: 1 organization with 2 API keys" in text
