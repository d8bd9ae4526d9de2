"""`make review` as whoever edits the contract meets it: exact when something is wrong, short when not."""

from __future__ import annotations

import pytest

from tests.review import checks
from tests.review.changes import Change
from tests.review.checks import Finding
from tests.review.places import Sources
from tests.review.reviewing import Comparison, Review
from tests.review.tools import SOURCE
from tests.review.wording import as_markdown, as_text, headline

GONE = Change("breaking", ("GET /brands/",), "`Brand.slug` is gone.", "#/components/schemas/Brand")
PLACE = "openapi/components/schemas/brands.yaml:20"


def reviewed(version: str = "1.4.0", changes: list[Change] | None = None, **other: object) -> Review:
    """Return a review that found nothing but these changes since 1.3.0."""
    released = Comparison("Released", "since 1.3.0, the last release", "1.3.0", changes or [])
    released.ids, released.places = {"GET /brands/": "list_brands"}, {GONE: PLACE}
    main = Comparison("Main", "since main", "", [])
    fine = {"Redocly": [], "Spectral": [], "House": []}
    values = {"is_stale": False, "findings": fine, "without_handler": [], "without_example": []} | other
    return Review(version=version, operations_count=2, comparisons=[released, main], **values)


def test_a_review_that_finds_nothing_is_a_few_lines_long() -> None:
    text = as_text(reviewed(), 5.04)
    assert len(text.splitlines()) == 10
    assert text.endswith("\n\nFine. (5.0 s)")
    assert reviewed().failures == []


def test_what_breaks_clients_fails_unless_the_version_is_a_new_major_one() -> None:
    failed = reviewed(changes=[GONE])
    assert failed.failures == ["A change breaks clients of 1.3.0, and info.version 1.4.0 is no new major."]
    assert reviewed("2.0.0", changes=[GONE]).failures == []
    assert f"      `Brand.slug` is gone.\n          {PLACE}" in as_text(failed, 1)
    assert f"- `GET /brands/` list_brands\n  - `Brand.slug` is gone. ({PLACE})" in as_markdown(failed)


def test_what_was_never_released_may_be_taken_back() -> None:
    review = reviewed()
    review.comparisons[1].changes = [GONE]
    assert review.failures == []
    assert "1 breaking since main" in as_text(review, 1)


@pytest.mark.parametrize("name", ["Redocly", "Spectral", "House"])
def test_a_finding_fails_and_is_shown_with_its_place(name: str) -> None:
    findings = {"Redocly": [], "Spectral": [], "House": []} | {name: [Finding(PLACE, "Too long.")]}
    review = reviewed(findings=findings)
    assert review.failures == [f"{name} found 1."]
    assert f"  Too long.\n      {PLACE}" in as_text(review, 1)
    assert f"- Too long. ({PLACE})" in as_markdown(review)


def test_a_stale_bundle_fails_and_what_is_not_served_yet_does_not() -> None:
    assert "run `make openapi`" in reviewed(is_stale=True).failures[0]
    waiting = reviewed(without_handler=[Finding(PLACE, "no function list_regions")])
    assert waiting.failures == []
    assert "no function list_regions" in as_text(waiting, 1)


def test_many_operations_are_named_by_the_first() -> None:
    ids = {f"GET /{number}": f"get_{number}" for number in range(9)}
    assert headline(tuple(ids), ids) == "9 operations: get_0, get_1, get_2, get_3 and 5 more"
    assert headline(("GET /1",), ids, mark="`") == "`GET /1` get_1"


def test_every_operation_and_schema_is_found_in_its_file(contract) -> None:
    sources = Sources(SOURCE.parent)
    lines = {}
    for path in SOURCE.parent.rglob("*.yaml"):
        text = path.read_text(encoding="utf-8").splitlines()
        lines |= {f"openapi/{path.relative_to(SOURCE.parent)}:{n}": line for n, line in enumerate(text, 1)}
    for operation in checks.operations(contract()):
        steps = ["paths", operation.path, operation.method, "operationId"]
        place = sources.of_steps(steps)
        assert lines[place].strip() == f"operationId: {operation.id}"
        assert sources.of_operation(operation.id) == place
    for name in contract()["components"]["schemas"]:
        assert lines[sources.of_schema(name) or ""].strip() == f"{name}:"
    assert lines[sources.of_schema("Brand/properties/name/maxLength") or ""] == "      maxLength: 120"


def test_what_the_house_complains_of_is_read_line_by_line() -> None:
    assert checks.complaints("AssertionError: \nBrand/name\nBrand/slug\nassert not ['x']\n") == [
        *("Brand/name", "Brand/slug")
    ]
    assert checks.complaints("AssertionError: assert 1 == 2") == ["assert 1 == 2"]


def test_an_operation_without_example_and_one_without_handler_are_listed(contract) -> None:
    sources, edited = Sources(SOURCE.parent), contract()
    assert checks.without_example(edited, sources) == []
    assert checks.without_handler(edited, sources) == []
    brand = edited["components"]["schemas"]["BrandCreate"]
    del brand["example"], brand["properties"]["slug"]["example"]
    edited["paths"]["/brands/"]["get"]["operationId"] = "show_brands"
    place = sources.of_operation("create_brand")
    assert checks.without_example(edited, sources) == [
        Finding(place, "create_brand: no example of its body as application/json")
    ]
    assert [one.text for one in checks.without_handler(edited, sources)] == [
        "handlers.brands has no function show_brands"
    ]


def test_a_reviewer_edits_and_is_told_what_it_means_and_where(workshop) -> None:
    """A property is renamed, a bound and a name are wrong: the whole command, in a copy of the sources."""
    released = workshop.root / "openapi" / "released" / "v1.json"
    released.parent.mkdir()
    released.write_bytes((workshop.root / "openapi" / "openapi.json").read_bytes())
    workshop.edit("openapi/components/schemas/exports.yaml", "    - name_template\n", "    - template\n")
    workshop.edit("openapi/components/schemas/styles.yaml", "      maximum: 100\n", "")
    workshop.edit("openapi/paths/search.yaml", "operationId: search", "operationId: searchEverywhere")
    report = workshop.root / "review.md"
    outcome = workshop.run("tests.review.run", "--markdown", str(report))
    assert outcome.returncode == 1
    for said in (
        "openapi.json is STALE",
        "An operationId is snake_case, a verb first",
        "openapi/paths/search.yaml:3",
        "Style/properties/contrast (strings arrays and numbers are bounded)",
        "`search` is called `searchEverywhere` now",
        "3 changes break clients of",
    ):
        assert said in outcome.stdout, outcome.stdout + outcome.stderr
    assert "### Breaking" in report.read_text(encoding="utf-8")
    assert str(report) in outcome.stdout


def test_a_file_that_cannot_be_read_is_told_with_its_line(workshop) -> None:
    workshop.edit("openapi/paths/brands.yaml", "    operationId: list_brands", "   operationId: list_brands")
    outcome = workshop.run("tests.review.run")
    assert outcome.returncode == 1
    assert "openapi/paths/brands.yaml:4" in outcome.stdout
    assert "could not be read" in outcome.stdout
