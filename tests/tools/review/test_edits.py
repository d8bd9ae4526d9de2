"""Every verdict of the gate: each seeded edit of the bundle has its changes, and each mistake one sentence.

Edits that do not touch the same operation or component are made in one document: that makes
a few comparisons and not a hundred. What is reported for a document is what its edits list, and nothing else.
"""

from __future__ import annotations

import datetime
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tools.review.seeded_changes import (
    BREAKS,
    BROKEN_YAML,
    EDITS,
    FOR_THE_LINTER,
    VOCABULARY,
    WRONG_EXPRESSIONS,
    WRONG_SHAPES,
    Contract,
    Edit,
    SourceEdit,
    put,
)
from tools.conformance.sartiq_conformance.diff.report import Comparison
from tools.preview.sources import Sources
from tools.project import PROBLEMS, ROLES
from tools.review.access_changes import list_access_changes
from tools.review.allowed_breaks import find_invalid_dates, load_allowed_breaks
from tools.review.changes import list_changes
from tools.review.checks import has_structural_findings, leave_causes, redocly_findings
from tools.review.report import render_markdown, render_text
from tools.review.review import Review
from tools.review.runtime_expressions import find_wrong_expressions
from tools.review.shapes import SHAPES, find_shape_errors
from tools.review.source_map import SourceMap
from tools.review.tools import ROOT
from tools.review.yaml_errors import find_errors_of_file, load_yaml

MAX_TOUCHED = 40
"""An edit that touches more has a document of its own."""
TODAY = datetime.date(2026, 12, 3)
DEPTHS = {"paths": 3, "components": 3, "webhooks": 2}


def list_touched(before: Any, after: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the operations, components and parts of the document that differ."""
    if before == after:
        return
    if len(path) == DEPTHS.get(path[0] if path else "", 2) or not isinstance(before, dict):
        yield path
        return
    for key in before.keys() | after.keys():
        if key in before and key in after:
            yield from list_touched(before[key], after[key], (*path, key))
        else:
            yield (*path, key)


def pack(edits: list[Edit], contract: Callable[[], Contract]) -> list[list[Edit]]:
    """Return groups of edits that do not touch each other."""
    groups: list[tuple[set[tuple[str, ...]], list[Edit]]] = []
    for edit in edits:
        edited = contract()
        edit.make(edited)
        touched = set(list_touched(contract(), edited))
        is_wide = len(touched) > MAX_TOUCHED or not touched or ("security",) in touched
        for others, group in groups if not is_wide else []:
            if not any(one[: len(two)] == two[: len(one)] for one in touched for two in others):
                others |= touched
                group.append(edit)
                break
        else:
            groups.append(({()} if is_wide else touched, [edit]))
    return [group for _, group in groups]


def find_differences(group: list[Edit], contract: Callable[[], Contract]) -> list[str]:
    """Return what is not reported for the edits of one document, and what is reported and not listed."""
    edited = contract()
    for edit in group:
        edit.make(edited)
    reported = {f"{one.impact}: {one.text}" for one in list_changes(contract(), edited)}
    listed = [change for edit in group for change in edit.changes]
    return [
        *(
            f"{edit.name}: not reported: {change}"
            for edit in group
            for change in edit.changes
            if not any(text.startswith(change) for text in reported)
        ),
        *(f"not listed: {text}" for text in reported if not text.startswith(tuple(listed))),
    ]


def test_each_change_of_the_vocabulary_of_json_schema_is_reported_by_its_meaning(
    contract: Callable[[], Contract],
) -> None:
    (first, *_) = pack(VOCABULARY, contract)
    assert len(first) > 10
    assert find_differences(first, contract) == []


@pytest.mark.slow("it compares the contract with twenty edited ones; the test above does it with one")
def test_every_edit_has_its_verdict(
    contract: Callable[[], Contract],
) -> None:
    found = [one for group in pack(EDITS, contract) for one in find_differences(group, contract)]
    assert found == []


@pytest.mark.slow("it compares the contract with three edited ones")
@pytest.mark.parametrize("start", ["N19 ", "N33 ", "N34 "])
def test_one_edit_of_a_shared_part_is_a_short_report_and_one_entry(
    start: str, contract: Callable[[], Contract], tmp_path: Path
) -> None:
    edited = contract()
    next(edit for edit in EDITS if edit.name.startswith(start)).make(edited)
    released = Comparison("Released", "since 0.1.0", "0.1.0", list_changes(contract(), edited))
    released.name_operations(contract(), edited)
    review = Review("0.2.0", 225, False, {}, [], [], [released, Comparison("Main", "")], today=TODAY)
    assert review.not_allowed
    assert len(render_text(review, 1).splitlines()) < 200
    assert len(render_markdown(review).splitlines()) < 200
    assert sum(line.startswith("- change:") for line in review.entries_to_allow) <= 10
    lines = [line.replace("reason:", f"reason: {'word ' * 10}") for line in review.entries_to_allow]
    (tmp_path / BREAKS).write_text("\n".join(lines), encoding="utf-8")
    review.allowed_breaks = load_allowed_breaks(tmp_path / BREAKS)
    assert review.failures == []


def test_a_value_shows_each_break_of_a_schema(contract: Callable[[], Contract]) -> None:
    """The same edits have the same values in each run."""
    edited = contract()
    schemas = edited["components"]["schemas"]
    schemas["BrandCreate"]["properties"]["name"]["maxLength"] = 3
    schemas["ResolutionPresetUpdate"]["dependentRequired"] = {"width": ["height"]}
    schemas["Style"]["properties"]["owner_id"]["type"] = ["string", "integer", "null"]
    schemas["SubjectCreate"]["properties"]["slug"]["allOf"] = [{"not": {"const": "me"}}]
    examples = {one.text: one.example for one in list_changes(contract(), edited) if one.impact == "breaking"}
    assert examples == {
        "`BrandCreate.name`: maxLength is `3`, was `120`.": '"0000"',
        "`ResolutionPresetUpdate` (dependentRequired) is new.": '{"width": 1536}',
        '`Style.owner_id`: type is `["string", "integer", "null"]`, was `["string", "null"]`.': "0",
        "`SubjectCreate.slug`: another condition applies.": '"me"',
    }


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        (
            put("put_upload/operationId", "put_upload"),
            put("put_upload/requestBody/content/text~1csv/x-max-body-bytes", 1000),
            "breaking: The maximum size of `text/csv` in bytes is `1000`, was `209715200`.",
        ),
    ],
)
def test_an_extension_is_judged_by_its_effect(
    before: Callable[[Contract], object],
    after: Callable[[Contract], object],
    change: str,
    contract: Callable[[], Contract],
) -> None:
    base, revision = contract(), contract()
    before(base)
    after(revision)
    found = [f"{one.impact}: {one.text}" for one in list_access_changes(base, revision)]
    assert found == [change]
    assert list(list_access_changes(base, base)) == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the YAML files. Each test restores the file that it edits."""
    target = tmp_path_factory.mktemp("sources") / "openapi"
    shutil.copytree(ROOT / "openapi", target, ignore=shutil.ignore_patterns("*.json", "released"))
    return target


def list_messages(edit: SourceEdit, folder: Path, find: Callable[[Path], list[tuple[int, str]]]) -> None:
    """Make an edit, and check that it has one message, and the line of it."""
    path = folder / edit.file
    before = path.read_bytes()
    text = before.decode()
    assert edit.old in text
    edited = text.replace(edit.old, edit.new, 1) if edit.old else edit.new
    path.write_text(edited, encoding="utf-8")
    try:
        found = find(path)
    finally:
        path.write_bytes(before)
    wanted = edit.line or edit.new.splitlines()[0]
    line = next(number for number, one in enumerate(edited.splitlines(), 1) if wanted in one)
    assert [(line, message[: len(edit.message)]) for line, message in found] == [(line, edit.message)]
    (message,) = (message for _, message in found)
    assert ": " in message, "it says no way out"


@pytest.fixture(scope="module")
def sources(folder: Path) -> Sources:
    """Return the bundler of the copy, which parses a file again only after it has changed."""
    return Sources(folder)


@pytest.mark.parametrize("edit", [*BROKEN_YAML, *WRONG_SHAPES], ids=lambda edit: edit.name)
def test_a_wrong_shape_is_one_sentence_with_its_line_and_the_way_out(edit: SourceEdit, folder: Path) -> None:
    def find(path: Path) -> list[tuple[int, str]]:
        errors = list(find_errors_of_file(path, folder)) or find_shape_errors(folder, edit.file)
        if not errors and edit.file == BREAKS:
            errors = find_invalid_dates(path, TODAY)
        assert {one.file for one in errors} == {f"openapi/{edit.file}"}
        return [(one.line, one.message) for one in errors]

    list_messages(edit, folder, find)


@pytest.mark.parametrize("edit", WRONG_EXPRESSIONS, ids=lambda edit: edit.name)
def test_a_link_or_step_that_does_not_fit_is_one_sentence(
    edit: SourceEdit, folder: Path, sources: Sources, contract: Callable[[], Contract]
) -> None:
    def find(path: Path) -> list[tuple[int, str]]:
        bundle = sources.bundle() if edit.file.startswith("paths/") else contract()
        found = [one.partition(" ") for one in find_wrong_expressions(bundle, SourceMap(folder))]
        assert {place.rpartition(":")[0] for place, _, _ in found} == {f"openapi/{edit.file}"}
        return [(int(place.rpartition(":")[2]), text) for place, _, text in found]

    list_messages(edit, folder, find)


@pytest.mark.slow("it runs the linter")
def test_a_mistake_that_the_linter_finds_is_one_sentence_with_its_line(folder: Path) -> None:
    places = {}
    before = {path: path.read_bytes() for path in folder.rglob("*.yaml")}
    for edit in FOR_THE_LINTER:
        path = folder / edit.file
        text = path.read_text("utf-8")
        assert edit.old in text, edit.name
        path.write_text(text.replace(edit.old, edit.new, 1), encoding="utf-8")
    for edit in FOR_THE_LINTER:
        wanted = edit.line or edit.new.splitlines()[-1 if edit.new.startswith(edit.old) else 0]
        lines = (folder / edit.file).read_text("utf-8").splitlines()
        numbers = [number for number, line in enumerate(lines, 1) if wanted in line]
        # The linter says where a map starts: below its key.
        places[edit] = {f"openapi/{edit.file}:{number + more}" for number in numbers for more in (0, 1)}
    try:
        findings = redocly_findings(folder)
    finally:
        for path, content in before.items():
            path.write_bytes(content)
    assert has_structural_findings(findings)
    causes = leave_causes(findings)
    for edit, lines in places.items():
        found = [one for one in causes if one.place.rpartition(":")[0] == f"openapi/{edit.file}"]
        named = [one for one in found if one.text.startswith(edit.message)]
        assert {one.place for one in named} & lines, (edit.name, found)


def test_the_edits_are_numerous_and_have_names_of_their_own() -> None:
    mistakes = [*WRONG_SHAPES, *BROKEN_YAML, *WRONG_EXPRESSIONS, *FOR_THE_LINTER]
    names = [edit.name for edit in (*EDITS, *mistakes)]
    assert len(EDITS) >= 120
    assert len(mistakes) >= 64
    assert len(set(names)) == len(names)


def test_the_shapes_list_the_roles_and_every_extension_that_is_used() -> None:
    shapes = load_yaml(SHAPES)
    roles = shapes["files"]["permissions.yaml"]["additionalProperties"]["items"]["enum"]
    assert roles == [role for role in ROLES if role not in ("guest", "anonymous")]
    assert find_shape_errors(ROOT / "openapi") == []
    assert load_yaml(ROOT / "openapi" / "problem-codes.yaml").keys() == PROBLEMS.keys()
    used = json.dumps(load_yaml(ROOT / "openapi" / "paths" / "brands.yaml"))
    assert "x-permission" in used
