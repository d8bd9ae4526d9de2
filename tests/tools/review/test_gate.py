"""The gate against broken clients catches every seeded edit that breaks one, and none that does not.

All breaking edits are made in one document and all harmless ones in another, each where no other is: so each
must be told with its own operation and its own words, and the comparer runs twice instead of fifty times.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tools.review.changes import Change, list_changes, operation_ids_by_path
from tests.tools.review.seeded_changes import (
    BREAKING_CHANGES,
    HARMLESS_CHANGES,
    BreakingChange,
    HarmlessChange,
)


@pytest.fixture(scope="module")
def findings(contract, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[set[str], str]]:
    """What the gate says of all breaking edits: the operations concerned, and the words."""
    edited = contract()
    for edit in BREAKING_CHANGES:
        edit.make(edited)
    ids = operation_ids_by_path(contract())
    return [
        ({ids[name] for name in change.operations if name in ids}, change.text)
        for change in list_changes(contract(), edited, tmp_path_factory.mktemp("breaking"))
        if change.impact == "breaking"
    ]


@pytest.fixture(scope="module")
def harmless(contract, tmp_path_factory: pytest.TempPathFactory) -> list[Change]:
    edited = contract()
    for edit in HARMLESS_CHANGES:
        edit.make(edited)
    return list_changes(contract(), edited, tmp_path_factory.mktemp("harmless"))


def test_there_are_enough_edits_and_none_is_there_twice() -> None:
    assert len(BREAKING_CHANGES) >= 23
    assert len(HARMLESS_CHANGES) >= 10
    names = [edit.name for edit in (*BREAKING_CHANGES, *HARMLESS_CHANGES)]
    assert len(set(names)) == len(names)
    operations = [edit.operation for edit in BREAKING_CHANGES]
    assert len(set(operations)) == len(operations)


@pytest.mark.parametrize("edit", BREAKING_CHANGES, ids=lambda edit: edit.name)
def test_what_breaks_a_client_is_caught(edit: BreakingChange, findings: list[tuple[set[str], str]]) -> None:
    said = [text for operations, text in findings if edit.operation in operations]
    assert [text for text in said if edit.words in text], said


def test_nothing_else_is_caught_beside_the_edits(findings: list[tuple[set[str], str]]) -> None:
    edited = {edit.operation for edit in BREAKING_CHANGES}
    assert [text for operations, text in findings if not operations & edited] == []


@pytest.mark.parametrize("edit", HARMLESS_CHANGES, ids=lambda edit: edit.name)
def test_what_breaks_no_client_changes_the_contract(edit: HarmlessChange, contract) -> None:
    edited = contract()
    edit.make(edited)
    assert edited != contract()


def test_what_breaks_no_client_is_not_caught(harmless: list[Change]) -> None:
    assert [change for change in harmless if change.impact == "breaking"] == []


def test_what_breaks_no_client_is_told_all_the_same(harmless: list[Change]) -> None:
    impacts = {change.text: change.impact for change in harmless}
    assert impacts["`list_regions` is new."] == "added"
    assert impacts["`Session.city` is new."] == "added"
    assert impacts["The query parameter `limit`: maximum is `200`, was `20`."] == "changed"
    assert impacts["`list_audit_events` is for these too: member."] == "added"
    assert impacts["The operation takes `ApiKey` too."] == "added"
    assert impacts["The operation is deprecated."] == "deprecated"
    assert impacts["`Brand.name` has another example."] == "wording"
    assert "PageOfSubscriptions" not in str(harmless)


def test_the_same_contract_has_not_changed(contract, tmp_path: Path) -> None:
    assert list_changes(contract(), contract(), tmp_path) == []
