"""The gate reports each seeded breaking change of the contract and no harmless one.

All breaking edits are made in one document and all harmless ones in another. No two edits change the same
place, so each must be reported for its own operation, and Redocly runs twice instead of fifty times.
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

pytestmark = pytest.mark.slow("it compares the contract with two edited ones")


@pytest.fixture(scope="module")
def findings(contract, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[set[str], str]]:
    """Return the reported breaking changes of all breaking edits: affected operations and text."""
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
    """Return the reported changes of all harmless edits."""
    edited = contract()
    for edit in HARMLESS_CHANGES:
        edit.make(edited)
    return list_changes(contract(), edited, tmp_path_factory.mktemp("harmless"))


def test_the_seeded_edits_are_numerous_and_unique() -> None:
    assert len(BREAKING_CHANGES) >= 23
    assert len(HARMLESS_CHANGES) >= 10
    names = [edit.name for edit in (*BREAKING_CHANGES, *HARMLESS_CHANGES)]
    assert len(set(names)) == len(names)
    operations = [edit.operation for edit in BREAKING_CHANGES]
    assert len(set(operations)) == len(operations)


@pytest.mark.parametrize("edit", BREAKING_CHANGES, ids=lambda edit: edit.name)
def test_a_breaking_edit_is_reported(edit: BreakingChange, findings: list[tuple[set[str], str]]) -> None:
    texts = [text for operations, text in findings if edit.operation in operations]
    assert [text for text in texts if edit.words in text], texts


def test_no_breaking_change_is_reported_for_other_operations(findings: list[tuple[set[str], str]]) -> None:
    edited = {edit.operation for edit in BREAKING_CHANGES}
    assert [text for operations, text in findings if not operations & edited] == []


@pytest.mark.parametrize("edit", HARMLESS_CHANGES, ids=lambda edit: edit.name)
def test_a_harmless_edit_changes_the_contract(edit: HarmlessChange, contract) -> None:
    edited = contract()
    edit.make(edited)
    assert edited != contract()


def test_no_harmless_edit_is_reported_as_breaking(harmless: list[Change]) -> None:
    assert [change for change in harmless if change.impact == "breaking"] == []


def test_harmless_edits_are_reported_with_their_impact(harmless: list[Change]) -> None:
    impacts = {change.text: change.impact for change in harmless}
    assert impacts["`list_regions` is new."] == "added"
    assert impacts["`Session.city` is new."] == "added"
    assert impacts["The query parameter `limit`: maximum is `200`, was `20`."] == "changed"
    assert impacts["`list_audit_events` is now also allowed for: member."] == "added"
    assert impacts["The operation also accepts `ApiKey`."] == "added"
    assert impacts["The operation is deprecated."] == "deprecated"
    assert impacts["`Brand.name` has a different example."] == "wording"
    assert "PageOfSubscriptions" not in str(harmless)


def test_equal_contracts_have_no_changes(contract, tmp_path: Path) -> None:
    assert list_changes(contract(), contract(), tmp_path) == []
