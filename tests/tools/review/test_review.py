"""`make review`: its verdict, its findings with their places, and its output."""

from __future__ import annotations

import datetime
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from handlers.common.permissions import Permission
from tests.architecture.bundle import seed
from tools.conformance.sartiq_conformance.diff.accepted import AcceptedChange
from tools.conformance.sartiq_conformance.diff.change import Change, merge_changes
from tools.conformance.sartiq_conformance.diff.report import (
    Comparison,
    format_headline,
    render_changes_markdown,
)
from tools.open_enumerations import open_enumerations
from tools.project import RULES, Document
from tools.review import checks
from tools.review import review as review_module
from tools.review.allowed_breaks import find_stale_entries, load_allowed_breaks, split_allowed
from tools.review.checks import Finding
from tools.review.report import (
    COMMENT_MARK,
    SHORTENED,
    format_annotation,
    list_alerts,
    render_comment,
    render_markdown,
    render_text,
)
from tools.review.review import Review
from tools.review.run import parse_arguments
from tools.review.source_map import SourceMap
from tools.review.tools import BUNDLE, ROOT, SOURCE, ToolFailed, split_json

REMOVED = Change("breaking", ("GET /brands/",), "`Brand.slug` was removed.", "#/components/schemas/Brand")
REASON = "No client reads the value, and the guide has asked for another one since spring."
PLACE = "openapi/components/schemas/brands.yaml:20"


def build_review(version: str = "1.4.0", changes: list[Change] | None = None, **other: object) -> Review:
    """Return a review without findings, with these changes since 1.3.0."""
    released = Comparison("Released", "since 1.3.0, the last release", "1.3.0", changes or [])
    released.ids, released.places = {"GET /brands/": "list_brands"}, {REMOVED: PLACE}
    main = Comparison("Main", "since main", "", [])
    findings = {"Redocly": [], "Spectral": [], "Project rules": []}
    values = {"is_stale": False, "findings": findings, "missing_handlers": [], "missing_examples": []} | other
    return Review(version=version, operations_count=2, comparisons=[released, main], **values)


def test_a_review_without_findings_is_short() -> None:
    text = render_text(build_review(), 5.04)
    assert len(text.splitlines()) == 10
    assert text.endswith("\n\nThe contract passes. (5.0 s)")
    assert build_review().failures == []


def test_a_breaking_change_fails_unless_the_version_is_a_new_major_one() -> None:
    failed = build_review(changes=[REMOVED])
    assert failed.failures == [
        (
            "A change breaks clients of 1.3.0, but info.version 1.4.0 is not a new major version. "
            "Deprecate what you want to remove, and remove it after its sunset."
        )
    ]
    assert build_review("2.0.0", changes=[REMOVED]).failures == []
    early = build_review("0.2.0", changes=[REMOVED])
    early.comparisons[0].version = "0.1.0"
    assert early.failures[0].endswith("Below 1.0, openapi/allowed-breaks.yaml can allow it, with a reason.")
    assert f"      `Brand.slug` was removed.\n          {PLACE}" in render_text(failed, 1)
    assert f"- `GET /brands/` list_brands\n  - `Brand.slug` was removed. ({PLACE})" in render_markdown(failed)


def test_a_break_with_a_reason_is_allowed_below_1_0_until_its_date() -> None:
    allowed = AcceptedChange(REMOVED.text, "Slugs were not unique.", datetime.date(2027, 1, 31))
    review = build_review(changes=[REMOVED], allowed_breaks=[allowed], today=datetime.date(2027, 1, 31))
    released = review.comparisons[0]
    released.version = "0.1.0"
    assert review.failures == []
    released.reasons = {REMOVED: allowed.reason}
    review.comparisons[1].changes = [REMOVED]
    headline = "    Allowed: Slugs were not unique.\n      GET /brands/ list_brands: "
    expected = f"{headline}{REMOVED.text}\n          {PLACE}"
    assert expected in render_text(review, 1)
    review.today = datetime.date(2027, 2, 1)
    assert review.failures == [
        f"openapi/allowed-breaks.yaml allows this change until 2027-01-31 only: {REMOVED.text}"
    ]
    released.version, review.today = "1.0.0", datetime.date(2027, 1, 31)
    assert review.failures == [
        (
            "A change breaks clients of 1.0.0, but info.version 1.4.0 is not a new major version. "
            "Deprecate what you want to remove, and remove it after its sunset."
        )
    ]
    released.changes = []
    assert review.failures == [
        f"openapi/allowed-breaks.yaml allows a change that was not made, remove it: {REMOVED.text}"
    ]


def test_an_equal_change_of_many_operations_is_one_and_one_entry_allows_it() -> None:
    text, until = "The request body as `application/json` was removed.", datetime.date(2027, 1, 31)
    names = [f"POST /{letter}" for letter in "abcdefghijklm"]
    (change,) = merge_changes(Change("breaking", (name,), text, f"#{name}") for name in names)
    assert (change.operations, change.times, change.more[0]) == (tuple(names), 13, "#POST /b")
    ids = {name: f"create_{name[-1]}" for name in names}
    entry = AcceptedChange(text, "Generators cannot send it.", until)
    assert split_allowed([change], [entry], "0.1.0", ids) == ([change], {})
    (stale,) = find_stale_entries([change], [entry], until, ids)
    assert stale.endswith(f"allows 13 changes by one text, add `operations` (operationIds, or `all`): {text}")
    for operations in ("all", list(ids.values())):
        named = entry._replace(operations=operations)
        assert split_allowed([change], [named], "0.1.0", ids) == ([], {change: entry.reason})
        assert list(find_stale_entries([change], [named], until, ids)) == []
    other = entry._replace(operations=[*list(ids.values())[1:], "create_z"])
    assert split_allowed([change], [other], "0.1.0", ids) == ([change], {})
    (stale,) = find_stale_entries([change], [other], until, ids)
    assert "lists other `operations` than the change has, add create_a and remove create_z: " in stale
    review = build_review("0.2.0", changes=[change])
    review.comparisons[0].version = "0.1.0"
    assert "  operations: all" in review.entries_to_allow
    review.comparisons[0].places = {change: PLACE}
    assert f"          {PLACE}, and 12 other places" in render_text(review, 1).splitlines()


def test_a_value_that_shows_the_break_is_printed() -> None:
    change = REMOVED._replace(example='{"slug": "nord"}')
    assert f"      {REMOVED.text} For example: `{change.example}`." in render_text(
        build_review(changes=[change]), 1
    )


def test_findings_that_say_the_same_are_one() -> None:
    findings = [Finding(f"a.yaml:{number}", f"get_{number}: add a link (rule)") for number in range(30)]
    assert checks.group_findings([*findings, Finding("b.yaml:1", "Other.")]) == [
        Finding("a.yaml:0", "30 places, such as get_0, get_1, get_2, get_3, get_4: add a link (rule)"),
        Finding("b.yaml:1", "Other."),
    ]
    assert checks.group_findings(findings[:4]) == findings[:4]
    same = [Finding(f"a.yaml:{number}", "Write more.") for number in range(5)]
    assert checks.group_findings(same) == [Finding("a.yaml:0", "5 places: Write more.")]


def test_a_check_that_fails_is_a_finding_and_hides_no_other(
    contract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> list[Finding]:
        raise KeyError("enum")

    (tmp_path / "openapi.json").write_bytes(BUNDLE.read_bytes())
    missing = Finding(PLACE, "no example")
    monkeypatch.setattr(checks, "spectral_findings", fail)
    monkeypatch.setattr(checks, "rule_findings", lambda *_: [Finding(PLACE, "Too long.")])
    monkeypatch.setattr(checks, "find_missing_handlers", fail)
    monkeypatch.setattr(checks, "find_missing_examples", lambda *_: [missing])
    monkeypatch.setattr(review_module, "_compare", fail)
    with ThreadPoolExecutor(2) as pool:
        review = review_module._run_checks(pool, tmp_path, contract(), [], ("HEAD",))
    assert review.findings["Project rules"] == [Finding(PLACE, "Too long.")]
    assert review.missing_examples == [missing]
    assert "Failed checks" in review.findings
    texts = [one.text for one in review.findings["Failed checks"]]
    assert [text.partition(":")[0] for text in texts] == [
        "The review itself failed (Handlers)",
        f"The review itself failed (Changes {review_module._compare_with_released(contract())[0].since})",
        "The review itself failed (Changes since HEAD)",
        "The review itself failed (Spectral)",
    ]
    assert {text.rpartition(": ")[2] for text in texts} == {"'enum'"}
    assert review.failures


def test_a_failure_in_a_handler_has_its_line() -> None:
    code = compile("\n\nPermission.SEASONS_READ\n", str(ROOT / "handlers" / "seasons.py"), "exec")
    try:
        exec(code, {"Permission": Permission})  # noqa: S102 - the code is the constant above
    except AttributeError as error:
        found = review_module.describe_failure(error)
    assert found.place == "handlers/seasons.py:3"
    assert found.text.startswith("The handlers cannot be loaded, so that no other one was checked: Attribute")
    assert "SEASONS_READ" in found.text


def test_one_entry_allows_several_changes_with_one_reason(tmp_path: Path) -> None:
    path = tmp_path / "allowed-breaks.yaml"
    path.write_text(f'- change: [a, b]\n  reason: {REASON}\n  until: "2027-03-31"\n')
    day = datetime.date(2027, 3, 31)
    assert load_allowed_breaks(path) == [AcceptedChange("a", REASON, day), AcceptedChange("b", REASON, day)]


def test_an_entry_of_a_wrong_shape_is_no_reason_to_release(tmp_path: Path) -> None:
    path = tmp_path / "allowed-breaks.yaml"
    for until in ("soon", "2027-02-30"):
        path.write_text(f"# A comment.\n- change: a\n  reason: {REASON}\n  until: {until}\n")
        with pytest.raises(ToolFailed, match=r"allowed-breaks.yaml:4 `until` is "):
            load_allowed_breaks(path)


def test_the_review_prints_the_entries_that_would_allow_the_breaks(tmp_path: Path) -> None:
    bodies = [
        Change("breaking", (name,), "The request body was removed.", "#") for name in ("GET /a", "GET /b")
    ]
    changes = merge_changes([Change("breaking", ("GET /a",), "`A.b` was removed.", "#"), *bodies])
    day = datetime.date(2027, 1, 1)
    review = build_review("0.2.0", changes=changes, today=day)
    released = review.comparisons[0]
    released.version, released.ids = "0.1.0", {"GET /a": "get_a", "GET /b": "get_b"}
    entries = review.entries_to_allow
    assert "\n".join(f"  {line}" for line in entries) in render_text(review, 1)
    assert "\n".join(["```yaml", *entries, "```"]) in render_markdown(review)
    path = tmp_path / "allowed-breaks.yaml"
    path.write_text("\n".join(entries))
    with pytest.raises(ToolFailed, match="`reason` is empty: say in ten words or more"):
        load_allowed_breaks(path)
    path.write_text("\n".join(entries).replace("reason:", f"reason: {REASON}"))
    review.allowed_breaks = load_allowed_breaks(path)
    assert review.failures == []
    assert review.entries_to_allow == []
    review.version = "1.0.0"
    assert review.entries_to_allow == []


def test_an_entry_with_a_typing_mistake_names_the_change_that_was_made() -> None:
    day = datetime.date(2027, 1, 31)
    entry = AcceptedChange(REMOVED.text.rstrip("."), "Slugs were not unique.", day)
    (sentence,) = find_stale_entries([REMOVED], [entry], day, {})
    assert sentence.endswith(f"remove it: {entry.change} The change that was made: {REMOVED.text}")


def test_the_command_line_rejects_a_branch_that_does_not_exist_and_creates_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert parse_arguments(["--base", "HEAD"]).base == "HEAD"
    with pytest.raises(SystemExit):
        parse_arguments(["--base", "origin/mian"])
    assert "there is no branch, tag or commit `origin/mian` here" in capsys.readouterr().err
    report = tmp_path / "reports" / "review.md"
    assert parse_arguments(["--markdown", str(report)]).markdown == report
    assert report.parent.is_dir()
    with pytest.raises(SystemExit):
        parse_arguments(["--comment", str(tmp_path)])
    assert f"{tmp_path} is a folder: name a file" in capsys.readouterr().err


def test_an_unreleased_change_may_be_removed_again() -> None:
    review = build_review()
    review.comparisons[1].changes = [REMOVED]
    assert review.failures == []
    assert "1 breaking since main" in render_text(review, 1)


@pytest.mark.parametrize("name", ["Redocly", "Spectral", "Project rules"])
def test_a_finding_fails_the_review_and_is_shown_with_its_place(name: str) -> None:
    findings = {"Redocly": [], "Spectral": [], "Project rules": []} | {name: [Finding(PLACE, "Too long.")]}
    review = build_review(findings=findings)
    assert review.failures == [f"Findings of {name}: 1."]
    assert f"  Too long.\n      {PLACE}" in render_text(review, 1)
    assert f"- Too long. ({PLACE})" in render_markdown(review)


def test_a_stale_bundle_fails_the_review_and_a_missing_handler_does_not() -> None:
    assert "run `make openapi`" in build_review(is_stale=True).failures[0]
    review = build_review(missing_handlers=[Finding(PLACE, "no function list_regions")])
    assert review.failures == []
    assert "no function list_regions" in render_text(review, 1)


def test_what_many_schemas_share_and_each_reason_are_told_once() -> None:
    opened = [Change("changed", (f"GET /{name}",), f"`{name}`: is open.", "#") for name in "EDCBA"]
    removed = [Change("breaking", ("GET /a",), f"`A.{name}` was removed.", f"#{name}") for name in "xy"]
    comparison = Comparison("Main", "since main", changes=[*opened, *removed], ids={"GET /a": "get_a"})
    comparison.reasons = dict.fromkeys(removed, "It was unused.")
    comparison.places = {removed[0]: "a.yaml:1", removed[1]: "a.yaml:2"}
    assert list(render_changes_markdown(comparison)) == [
        "### Breaking",
        "",
        "- Allowed: It was unused.",
        "  - `GET /a` get_a: `A.x` was removed. `A.y` was removed. (a.yaml:1, a.yaml:2)",
        "",
        "### Changed, compatible",
        "",
        "- 5 schemas: is open.",
        "  - `A`, `B`, `C`, `D`, `E`",
        "",
    ]


def test_a_headline_names_every_operation() -> None:
    ids = {f"GET /{number}": f"get_{number}" for number in range(9)}
    comparison = Comparison("Main", "since main", ids=ids, common=frozenset(ids))
    names = tuple(ids)[:6]
    assert format_headline(names, comparison) == "6 operations: get_0, get_1, get_2, get_3, get_4, get_5"
    assert format_headline(("GET /1",), comparison, mark="`") == "`GET /1` get_1"
    assert format_headline(tuple(ids), comparison) == "All operations"
    assert format_headline((), comparison) == "All operations"
    many = Comparison("Main", "since main", common=frozenset(f"GET /{number}" for number in range(20)))
    names = tuple(f"GET /{number}" for number in range(18))
    assert format_headline(names, many) == "18 operations, all except GET /18, GET /19"


def test_wider_access_and_changed_wording_are_listed() -> None:
    wider = Change("security", ("GET /brands/",), "`list_brands` also accepts `ApiKey`.", "#/paths")
    wording = Change("wording", ("GET /brands/",), "The operation has a different summary: “b”, was “a”", "#")
    review = build_review(changes=[wider, wording])
    review.comparisons[1].changes = [wider, wording]
    assert review.failures == []
    assert "1 security-relevant, 1 of wording since 1.3.0" in render_text(review, 1)
    for line in (
        "  Security-relevant: more access than before",
        "      `list_brands` also accepts `ApiKey`.",
        "  Descriptions and examples: 1",
        "    list_brands: The operation has a different summary: “b”, was “a”",
    ):
        assert line in render_text(review, 1).splitlines()
    markdown = render_markdown(review)
    assert "### Security-relevant: more access than before\n\n- `GET /brands/` list_brands\n" in markdown
    assert "</summary>\n\n- list_brands: The operation has a different summary: “b”, was “a”\n" in markdown


def test_a_report_is_marked_and_shortened_for_a_comment() -> None:
    wording = [
        Change("wording", (), f"`Brand.name` has a different example: “{number}”.", "#")
        for number in range(250)
    ]
    review = build_review(changes=wording)
    review.comparisons[1].changes = wording
    markdown = render_markdown(review)
    assert render_comment(markdown) == COMMENT_MARK + markdown
    short = render_comment(markdown, 2000)
    assert len(short) <= 2020
    assert short.endswith("</details>" + SHORTENED)


def test_findings_and_changes_become_annotations_of_the_changed_lines() -> None:
    finding = Finding("openapi/paths/brands.yaml:7", "50% of\nall")
    wider = Change("security", (), "`a` also accepts `ApiKey`.", "#/paths")
    review = build_review(changes=[REMOVED, wider], findings={"Redocly": [finding]})
    with_new_operation = REMOVED._replace(operations=("GET /brands/", "POST /brands/{brand_id}/transfer"))
    review.comparisons[1].changes = [with_new_operation, wider]
    review.comparisons[1].places = {with_new_operation: PLACE}
    assert [format_annotation(alert) for alert in list_alerts(review)] == [
        "::error file=openapi/paths/brands.yaml,line=7,title=Redocly::50%25 of%0Aall",
        f"::error file={PLACE[:-3]},line=20,title=Breaking::`Brand.slug` was removed.",
        "::warning title=Security-relevant%3A more access than before::`a` also accepts `ApiKey`.",
    ]
    review.comparisons[0].reasons = {REMOVED: "Slugs were not unique."}
    assert [alert.level for alert in list_alerts(review)] == ["error", "warning", "warning"]
    review.comparisons[1].changes = []
    assert [alert.level for alert in list_alerts(review)] == ["error"]
    review.comparisons[1].changes = None
    assert [alert.level for alert in list_alerts(review)] == ["error", "warning", "warning"]


def test_the_changes_of_the_branch_come_first_and_a_comment_keeps_them() -> None:
    earlier = [Change("added", (), f"`get_{number}` is new.", "#") for number in range(250)]
    own = Change("added", (), "`Brand.tagline` is new.", "#")
    review = build_review(changes=[REMOVED, *earlier, own])
    review.comparisons[1].changes = [own]
    markdown = render_markdown(review)
    assert own.text in render_comment(markdown, 2000)
    assert f"`Brand.slug` was removed. ({PLACE})" in markdown
    assert "- New properties\n  - `Brand`: `tagline`" in markdown.partition("<summary>The section")[2]
    text = render_text(review, 1)
    assert text.index(own.text) < text.index(REMOVED.text)
    assert '  251 others: see ARGS="--markdown FILE"' in text.splitlines()
    review.comparisons[0].reasons = {REMOVED: "Slugs were not unique."}
    assert '  252 changes: see ARGS="--markdown FILE"' in render_text(review, 1).splitlines()


def test_the_source_map_finds_every_operation_and_schema(contract) -> None:
    sources = SourceMap(SOURCE.parent)
    lines = {}
    for path in SOURCE.parent.rglob("*.yaml"):
        text = path.read_text(encoding="utf-8").splitlines()
        lines |= {f"openapi/{path.relative_to(SOURCE.parent)}:{n}": line for n, line in enumerate(text, 1)}
    for operation in Document(contract()).operations():
        steps = ["paths", operation.path, operation.method.lower(), "operationId"]
        place = sources.find_path(steps)
        assert lines[place].strip() == f"operationId: {operation.operation_id}"
        assert sources.find_operation(operation.operation_id) == place
    for name in contract()["components"]["schemas"]:
        assert lines[sources.find_schema(name) or ""].strip() == f"{name}:"
    assert lines[sources.find_schema("Brand/properties/name/maxLength") or ""] == "      maxLength: 120"


def test_findings_of_the_project_rules_are_parsed_line_by_line() -> None:
    assert checks.parse_failures("AssertionError: \nBrand/name\nBrand/slug\nassert not ['x']\n") == [
        *("Brand/name", "Brand/slug")
    ]
    assert checks.parse_failures("AssertionError: assert 1 == 2") == ["assert 1 == 2"]
    assert checks.split_place("openapi/paths/a.yaml:7 it is unused") == (
        "openapi/paths/a.yaml:7",
        "it is unused",
    )
    assert checks.split_place("Brand/name") == ("", "Brand/name")


def test_the_reports_of_several_linted_files_are_read() -> None:
    assert split_json('{"a": 1}{"b": 2}\n') == [{"a": 1}, {"b": 2}]
    assert split_json("Failed to parse") == []


def test_missing_examples_and_handlers_are_found(contract) -> None:
    sources, edited = SourceMap(SOURCE.parent), contract()
    open_enumerations(edited)
    assert checks.find_missing_examples(edited, sources) == []
    assert checks.find_missing_handlers(edited, sources) == []
    brand = edited["components"]["schemas"]["BrandCreate"]
    del brand["example"], brand["properties"]["slug"]["example"]
    edited["paths"]["/brands/"]["get"]["operationId"] = "show_brands"
    place = sources.find_operation("create_brand")
    assert checks.find_missing_examples(edited, sources) == [
        Finding(place, "create_brand: no example of the request body as application/json")
    ]
    assert [one.text for one in checks.find_missing_handlers(edited, sources)] == [
        "handlers.brands has no function show_brands"
    ]


def test_the_tests_of_the_rules_are_not_part_of_a_review(monkeypatch: pytest.MonkeyPatch) -> None:
    """They seed mistakes in the contract, which may lack what they change."""
    assert [file for file in RULES if "deepcopy" in Path(ROOT / file).read_text("utf-8")] == []
    assert any("seed(contract)" in Path(ROOT / file).read_text("utf-8") for file in RULES)
    monkeypatch.setenv("REVIEWED_BUNDLE", "openapi.json")
    with pytest.raises(pytest.skip.Exception):
        seed({})


@pytest.mark.slow("it runs the linters in a copy of the repository")
def test_the_command_reports_findings_and_breaking_changes_with_their_places(repository) -> None:
    """Rename a required property, remove a bound and misname an operation in a copy of the repository."""
    released = repository.root / "openapi" / "released" / "0.0.1.json"
    released.parent.mkdir()
    released.write_bytes((repository.root / "openapi" / "openapi.json").read_bytes())
    repository.edit("openapi/components/schemas/exports.yaml", "    - name_template\n", "    - template\n")
    repository.edit("openapi/components/schemas/styles.yaml", "      maximum: 100\n", "")
    repository.edit("openapi/paths/search.yaml", "operationId: search", "operationId: searchEverywhere")
    report = repository.root / "review.md"
    outcome = repository.run("tools.review.run", "--markdown", str(report))
    assert outcome.returncode == 1
    for expected in (
        "openapi.json is STALE",
        "An operationId must be snake_case and start with a verb",
        "openapi/paths/search.yaml:3",
        "Style/properties/contrast: add maxLength to a string, maxItems to an array",
        "`search` is renamed to `searchEverywhere`",
        "3 changes break clients of",
    ):
        assert expected in outcome.stdout, outcome.stdout + outcome.stderr
    assert "### Breaking" in report.read_text(encoding="utf-8")
    assert str(report) in outcome.stdout


@pytest.mark.slow("it runs the linters in a copy of the repository")
def test_the_command_reports_parts_that_do_not_fit_each_other(repository) -> None:
    products = "openapi/paths/products.yaml"
    for name, old, new in (
        (products, "collection:\n", "colors:\n  get: {}\ncollection:\n"),
        (
            "openapi/components/schemas/products.yaml",
            "ProductCreate:\n",
            "Color:\n  type: object\nProductCreate:\n",
        ),
        (products, "operationId: list_product_images\n", "operationId: list_images\n"),
        ("openapi/components/parameters.yaml", "    default: 100\n", "    default: 500\n"),
        ("openapi/workflows/export.arazzo.yaml", "sartiq.create_export", "sartiq.order_export"),
        ("openapi/workflows/export.arazzo.yaml", "$steps.order.outputs.id", "$steps.orders.outputs.id"),
        (products, "            - ARCHIVED\n", "            - RETIRED\n"),
    ):
        repository.edit(name, old, new)
    schemas = repository.read("openapi/components/schemas/products.yaml")
    start = schemas.index("ProductCreate:\n")
    name = "    name: {type: string, maxLength: 240, pattern: '^a', description: A name., example: a}"
    looser = schemas[:start] + re.sub("    name: .*", name, schemas[start:], count=1)
    (repository.root / "openapi/components/schemas/products.yaml").write_text(looser, encoding="utf-8")
    output = repository.run("tools.review.run").stdout
    for text, file in (
        ("openapi.yaml does not name the path item `colors`", products),
        ("nothing refers to `Color`", "openapi/components/schemas/products.yaml"),
        ("links to `list_images`, which does not exist", products),
        ("500 is greater than the maximum of 100", "openapi/components/parameters.yaml"),
        ('"$steps.orders.outputs.id" is not defined', "openapi/workflows/export.arazzo.yaml"),
        ("the step calls `order_export`, which does not exist", "openapi/workflows/export.arazzo.yaml"),
        ("no row can be `RETIRED`", products),
        ("ProductCreate/properties/name: maxLength is 240", "openapi/components/schemas/products.yaml"),
    ):
        lines = output.splitlines()
        found = [number for number, line in enumerate(lines) if text in line]
        assert found, (text, output)
        assert lines[found[0] + 1].startswith(f"      {file}:"), lines[found[0] : found[0] + 2]
