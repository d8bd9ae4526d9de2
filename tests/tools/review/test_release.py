"""`make release` freezes what it should, and refuses what it must."""

from __future__ import annotations

import datetime
import json

import pytest

from tests.tools.review.changes import Change, required_bump
from tests.tools.review.release import (
    HEAD,
    ReleaseRejected,
    check_version,
    prepend_section,
    render_section,
)
from tests.tools.review.review import Comparison, is_new_major

NAMES = ("GET /brands/",)
ADDED = Change("added", NAMES, "`Brand.color` is new.", "#/components/schemas/Brand/properties/color")
CHANGED = Change("changed", NAMES, "`Brand.name` can be longer.", "#/components/schemas/Brand")
BROKEN = Change("breaking", NAMES, "`Brand.slug` is gone.", "#/components/schemas/Brand")
OLD = Change("deprecated", NAMES, "The operation is deprecated.", "#/paths/~1brands~1/get")
WORDING = Change("wording", NAMES, "`Brand.name` has another example.", "#/components/schemas/Brand")


@pytest.mark.parametrize(
    ("version", "changes"),
    [
        ("2.0.0", [BROKEN, ADDED]),
        ("3.1.2", [BROKEN]),
        ("1.3.0", [ADDED]),
        ("1.3.0", [OLD]),
        ("2.0.0", [ADDED]),
        ("1.2.4", [CHANGED]),
        ("1.2.4", [WORDING]),
        ("1.3.0", [CHANGED]),
    ],
)
def test_a_version_that_fits_its_changes_is_taken(version: str, changes: list[Change]) -> None:
    check_version(version, "1.2.3", changes)


@pytest.mark.parametrize(
    ("version", "changes", "why"),
    [
        ("1.3.0", [BROKEN, ADDED], "1.3.0 is too low: these changes are breaking, so 2.0.0 at least"),
        ("1.2.4", [ADDED, CHANGED], "1.2.4 is too low: these changes are added, so 1.3.0 at least"),
        ("1.2.4", [OLD], "1.2.4 is too low: these changes are deprecated, so 1.3.0 at least"),
        ("1.2.3", [CHANGED], "not higher than 1.2.3"),
        ("1.1.9", [ADDED], "not higher than 1.2.3"),
        ("2.0.0", [], "Nothing has changed since 1.2.3"),
        ("", [ADDED], r"no version: .* `make release VERSION=1\.4\.0`"),
        ("1.3", [ADDED], "no version"),
        ("v1.3.0", [ADDED], "no version"),
        ("1.03.0", [ADDED], "no version"),
    ],
)
def test_a_version_that_does_not_fit_is_refused_with_the_reason(
    version: str, changes: list[Change], why: str
) -> None:
    with pytest.raises(ReleaseRejected, match=why):
        check_version(version, "1.2.3", changes)


def test_below_1_0_a_broken_client_is_one_too() -> None:
    """The address says v1 from the first release on, so 0.2.0 may not break what 0.1.0 promised."""
    with pytest.raises(ReleaseRejected, match=r"1\.0\.0 at least"):
        check_version("0.2.0", "0.1.0", [BROKEN])
    assert not is_new_major("0.1.0", "0.2.0")
    assert is_new_major("0.1.0", "1.0.0")
    assert is_new_major("9.1.0", "10.0.0")


def test_the_gravest_change_sets_the_version() -> None:
    assert required_bump([WORDING, ADDED, BROKEN]) == "major"
    assert required_bump([CHANGED, ADDED]) == "minor"
    assert required_bump([WORDING]) == "patch"
    assert required_bump([]) is None


def test_the_changelog_has_the_newest_release_on_top() -> None:
    ids = {"GET /brands/": "list_brands"}
    comparison = Comparison("Released", "", "1.0.0", [BROKEN, OLD, ADDED, CHANGED, WORDING], ids)
    first = render_section("1.0.0", datetime.date(2026, 11, 25), Comparison("Released", ""), 166)
    second = render_section("2.0.0", datetime.date(2026, 12, 24), comparison, 166)
    assert prepend_section(prepend_section(HEAD, first), second) == (
        f"{HEAD}\n"
        "## 2.0.0 - 2026-12-24\n\n"
        "### Breaking\n\n- `GET /brands/` list_brands\n  - `Brand.slug` is gone.\n\n"
        "### Deprecated\n\n- `GET /brands/` list_brands\n  - The operation is deprecated.\n\n"
        "### Added\n\n- `GET /brands/` list_brands\n  - `Brand.color` is new.\n\n"
        "### Changed, which no client minds\n\n- `GET /brands/` list_brands\n"
        "  - `Brand.name` can be longer.\n\n"
        "Descriptions and examples changed: 1.\n\n"
        "## 1.0.0 - 2026-11-25\n\nThe first release: 166 operations.\n"
    )


def test_a_release_is_made_and_the_next_one_is_held_against_it(repository) -> None:
    repository.edit("openapi/paths/brands.yaml", "The brands of one scope.", "Brands of one scope.")
    refused = repository.run("tests.tools.review.release", "7.0.0")
    assert refused.returncode == 1
    assert "not committed" in refused.stdout
    assert "openapi/paths/brands.yaml" in refused.stdout
    assert not (repository.root / "openapi" / "released").exists()

    repository.commit()
    made = repository.run("tests.tools.review.release", "7.0.0")
    assert made.returncode == 0, made.stdout + made.stderr
    frozen = repository.read("openapi/released/v1.json")
    assert json.loads(frozen)["info"]["version"] == "7.0.0"
    assert frozen == repository.read("openapi/openapi.json")
    assert 'version = "7.0.0"\n' in repository.read("pyproject.toml")
    assert "\n  version: 7.0.0\n" in repository.read("openapi/openapi.yaml")
    assert "The first release: 1" in repository.read("openapi/CHANGELOG.md")
    assert repository.git("status", "--porcelain").split() == [
        *("M", "openapi/openapi.json", "M", "openapi/openapi.yaml", "M", "pyproject.toml"),
        *("??", "openapi/CHANGELOG.md", "??", "openapi/released/"),
    ]

    repository.edit("openapi/components/schemas/shared.yaml", "maxLength: 2000", "maxLength: 200")
    repository.commit()
    too_low = repository.run("tests.tools.review.release", "7.1.0")
    assert too_low.returncode == 1
    assert "7.1.0 is too low: these changes are breaking, so 8.0.0 at least" in too_low.stdout
    assert "maxLength is `200`, was `2000`" in too_low.stdout
    assert repository.git("status", "--porcelain") == ""
