"""`make release` writes a release, or rejects a version that is too low for the changes."""

from __future__ import annotations

import datetime
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tools.conformance.sartiq_conformance.diff.change import Change, required_bump
from tools.conformance.sartiq_conformance.diff.report import Comparison
from tools.review.allowed_breaks import clear_allowed_breaks, load_allowed_breaks
from tools.review.feed import ATOM, build_atom, build_json_feed, parse_releases, write_feeds
from tools.review.release import (
    CHANGELOG,
    HEAD,
    MENTIONS,
    ReleaseRejected,
    check_version,
    prepend_section,
    render_section,
)
from tools.review.releases import FOLDER, find_release
from tools.review.review import is_new_major

NAMES = ("GET /brands/",)
ADDED = Change("added", NAMES, "`Brand.color` is new.", "#/components/schemas/Brand/properties/color")
CHANGED = Change("changed", NAMES, "`Brand.name` can be longer.", "#/components/schemas/Brand")
BREAKING = Change("breaking", NAMES, "`Brand.slug` was removed.", "#/components/schemas/Brand")
DEPRECATED = Change("deprecated", NAMES, "The operation is deprecated.", "#/paths/~1brands~1/get")
WIDER = Change("security", NAMES, "`list_brands` also accepts `ApiKey`.", "#/paths/~1brands~1/get")
RENAMED = Change("imports", NAMES, "The tag is `styles`, was `brands`.", "#/paths/~1brands~1/get")
WORDING = Change("wording", NAMES, "`Brand.name` has a different example.", "#/components/schemas/Brand")


@pytest.mark.parametrize(
    ("version", "changes"),
    [
        ("2.0.0", [BREAKING, ADDED]),
        ("3.1.2", [BREAKING]),
        ("1.3.0", [ADDED]),
        ("1.3.0", [DEPRECATED]),
        ("2.0.0", [ADDED]),
        ("1.2.4", [CHANGED]),
        ("1.2.4", [WORDING]),
        ("1.3.0", [CHANGED]),
    ],
)
def test_a_version_that_is_high_enough_is_accepted(version: str, changes: list[Change]) -> None:
    check_version(version, "1.2.3", changes)


@pytest.mark.parametrize(
    ("version", "changes", "expected_message"),
    [
        ("1.3.0", [BREAKING, ADDED], "1.3.0 is too low: breaking changes require at least 2.0.0"),
        ("1.2.4", [ADDED, CHANGED], "1.2.4 is too low: additions require at least 1.3.0"),
        ("1.2.4", [DEPRECATED], "1.2.4 is too low: deprecations require at least 1.3.0"),
        ("1.2.4", [WIDER], "1.2.4 is too low: security-relevant changes require at least 1.3.0"),
        ("1.2.4", [RENAMED], "1.2.4 is too low: changed import paths require at least 1.3.0"),
        ("1.2.3", [CHANGED], "not higher than 1.2.3"),
        ("1.1.9", [ADDED], "not higher than 1.2.3"),
        ("2.0.0", [], "Nothing has changed since 1.2.3"),
        ("", [ADDED], r"not a version of three numbers, .* `make release VERSION=1\.4\.0`"),
        ("1.3", [ADDED], "not a version"),
        ("v1.3.0", [ADDED], "not a version"),
        ("1.03.0", [ADDED], "not a version"),
    ],
)
def test_an_invalid_or_too_low_version_is_rejected_with_the_reason(
    version: str, changes: list[Change], expected_message: str
) -> None:
    with pytest.raises(ReleaseRejected, match=expected_message):
        check_version(version, "1.2.3", changes)


def test_a_rejected_break_below_1_0_says_how_to_allow_it() -> None:
    with pytest.raises(
        ReleaseRejected, match=r"1\.0\.0\. Below 1\.0, openapi/allowed-breaks\.yaml can allow them"
    ):
        check_version("0.2.1", "0.2.0", [BREAKING])
    with pytest.raises(ReleaseRejected) as rejected:
        check_version("1.3.0", "1.2.3", [BREAKING])
    assert "allowed-breaks" not in str(rejected.value)


def test_an_allowed_break_requires_a_minor_version_and_is_listed_with_its_reason() -> None:
    reasons = {BREAKING: "Slugs were not unique."}
    check_version("0.2.0", "0.1.0", [BREAKING], reasons)
    with pytest.raises(ReleaseRejected, match=r"0\.1\.1 is too low: additions require at least 0\.2\.0"):
        check_version("0.1.1", "0.1.0", [BREAKING], reasons)
    comparison = Comparison("Released", "", "0.1.0", [BREAKING], {"GET /brands/": "list_brands"})
    comparison.reasons = reasons
    section = render_section("0.2.0", datetime.date(2026, 12, 24), comparison, 166)
    assert "- Slugs were not unique.\n  - `Brand.slug` was removed.\n" in section


def test_a_release_keeps_the_comment_of_the_allowed_breaks_only(tmp_path: Path) -> None:
    path = tmp_path / "allowed-breaks.yaml"
    path.write_text("# Why.\n- change: a\n  reason: b\n  until: 2027-01-01\n")
    clear_allowed_breaks(path)
    assert path.read_text() == "# Why.\n[]\n"
    assert load_allowed_breaks(path) == []


def test_a_breaking_change_that_is_not_allowed_requires_a_major_version_below_1_0_as_well() -> None:
    """The URL contains v1 from the first release on, so 0.2.0 must not break clients of 0.1.0."""
    with pytest.raises(ReleaseRejected, match=r"at least 1\.0\.0"):
        check_version("0.2.0", "0.1.0", [BREAKING])
    assert not is_new_major("0.1.0", "0.2.0")
    assert is_new_major("0.1.0", "1.0.0")
    assert is_new_major("9.1.0", "10.0.0")


def test_the_change_with_the_highest_impact_decides_the_bump() -> None:
    assert required_bump([WORDING, ADDED, BREAKING]) == "major"
    assert required_bump([CHANGED, ADDED]) == "minor"
    assert required_bump([WORDING]) == "patch"
    assert required_bump([]) is None


def test_the_changelog_starts_with_the_newest_release() -> None:
    ids = {"GET /brands/": "list_brands"}
    changes = [BREAKING, DEPRECATED, ADDED, CHANGED, WORDING]
    comparison = Comparison("Released", "", "1.0.0", changes, ids)
    first = render_section("1.0.0", datetime.date(2026, 11, 25), Comparison("Released", ""), 166)
    second = render_section("2.0.0", datetime.date(2026, 12, 24), comparison, 166)
    assert prepend_section(prepend_section(HEAD, first), second) == (
        f"{HEAD}\n"
        "## 2.0.0 - 2026-12-24\n\n"
        "### Breaking\n\n- `Brand.slug` was removed.\n\n"
        "### Deprecated\n\n- The operation is deprecated (`list_brands`).\n\n"
        "### Added\n\n- New properties\n  - `Brand`: `color`\n\n"
        "### Changed, compatible\n\n- `Brand.name` can be longer.\n\n"
        "1 text of descriptions and examples differs.\n\n"
        "## 1.0.0 - 2026-11-25\n\nThe first release: 166 operations.\n"
    )


def test_every_release_is_kept_and_compared_with_what_follows_it(tmp_path: Path) -> None:
    """After 2.0.0, a fix of 1.4 is still compared with 1.4."""
    assert find_release("1.0.0", tmp_path) is None
    for version in ("0.9.0", "1.4.0", "1.10.0", "2.0.0"):
        (tmp_path / f"{version}.json").write_text("{}")
    expected = {"1.4.1": "1.4.0", "1.9.9": "1.4.0", "1.11.0": "1.10.0", "2.0.0": "2.0.0", "3.0.0": "2.0.0"}
    for version, release in expected.items():
        assert find_release(version, tmp_path) == tmp_path / f"{release}.json"
    assert find_release("2.0.0", tmp_path, is_included=False) == tmp_path / "1.10.0.json"


def test_the_releases_become_an_atom_feed_and_a_json_feed(tmp_path: Path) -> None:
    ids = {"GET /brands/": "list_brands"}
    second = Comparison("Released", "", "1.0.0", [BREAKING], ids)
    changelog = tmp_path / "CHANGELOG.md"
    changelog.write_text(
        prepend_section(
            prepend_section(
                HEAD, render_section("1.0.0", datetime.date(2026, 11, 25), Comparison("Released", ""), 166)
            ),
            render_section("2.0.0", datetime.date(2026, 12, 24), second, 166),
        )
    )
    write_feeds(changelog)
    atom = ElementTree.parse(tmp_path / "changes.atom").getroot()
    names = {"a": ATOM}
    assert [entry.findtext("a:title", "", names) for entry in atom.findall("a:entry", names)] == [
        *("2.0.0, with breaking changes", "1.0.0")
    ]
    assert atom.findtext("a:updated", "", names) == "2026-12-24T00:00:00Z"
    first_entry = atom.findall("a:entry", names)[0]
    assert "`Brand.slug` was removed." in first_entry.findtext("a:content", "", names)
    feed = json.loads((tmp_path / "changes.json").read_text("utf-8"))
    assert feed["version"] == "https://jsonfeed.org/version/1.1"
    assert [item["id"] for item in feed["items"]] == [
        entry.findtext("a:id", "", names) for entry in atom.findall("a:entry", names)
    ]
    assert feed["items"][1]["content_text"] == "The first release: 166 operations."


def test_the_committed_feeds_are_built_from_the_changelog() -> None:
    releases = list(parse_releases(CHANGELOG.read_text("utf-8")))
    assert CHANGELOG.read_text("utf-8").startswith(HEAD)
    assert (CHANGELOG.parent / "changes.atom").read_text("utf-8") == build_atom(releases)
    assert (CHANGELOG.parent / "changes.json").read_text("utf-8") == build_json_feed(releases)
    assert {f"{release.version}.json" for release in releases} == {path.name for path in FOLDER.glob("*")}


@pytest.mark.slow("it bundles and reviews the contract twice")
def test_a_release_is_written_and_the_next_one_is_compared_with_it(repository) -> None:
    repository.edit("openapi/paths/brands.yaml", "summary: List brands\n", "summary: List all brands\n")
    rejected = repository.run("tools.review.release", "7.0.0")
    assert rejected.returncode == 1
    assert "uncommitted changes" in rejected.stdout
    assert "openapi/paths/brands.yaml" in rejected.stdout
    assert not (repository.root / "openapi" / "released").exists()

    repository.commit()
    outcome = repository.run("tools.review.release", "7.0.0")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    released = repository.read("openapi/released/7.0.0.json")
    assert json.loads(released)["info"]["version"] == "7.0.0"
    assert released == repository.read("openapi/openapi.json")
    assert 'version = "7.0.0"\n' in repository.read("pyproject.toml")
    assert "\n    newTag: 7.0.0\n" in repository.read("deploy/kubernetes/kustomization.yaml")
    assert '\nversion = "7.0.0"\n' in repository.read("clients/python/pyproject.toml")
    mentions = {name: repository.read(name) for name in MENTIONS}
    assert "sartiq-7.0.0-py3-none-any.whl" in mentions["clients/python/README.md"]
    assert "ref: v7.0.0" in mentions["docs/guides/mock-server.md"]
    assert "--branch v7.0.0 " in mentions["docs/guides/conformance-kit.md"]
    stale = re.compile(r"(?:\bv|sartiq-(?:client-)?)(?!7)\d+\.\d+\.\d+")
    assert not {name: stale.findall(text) for name, text in mentions.items() if stale.search(text)}
    for name in ("openapi-3.0.json", "asyncapi.json"):
        assert '"version": "7.0.0"' in repository.read(f"openapi/{name}")
    assert repository.read("clients/typescript/package.json").count('"version": "7.0.0"') == 1
    assert repository.read("clients/typescript/package-lock.json").count('"version": "7.0.0"') == 2
    assert "\n  version: 7.0.0\n" in repository.read("openapi/openapi.yaml")
    assert re.search(
        r"^The first release: \d+ operations\.$", repository.read("openapi/CHANGELOG.md"), re.MULTILINE
    )
    assert repository.git("status", "--porcelain").split() == [
        *("M", "clients/python/README.md", "M", "clients/python/pyproject.toml"),
        *("M", "clients/typescript/README.md"),
        *("M", "clients/typescript/package-lock.json", "M", "clients/typescript/package.json"),
        *("M", "deploy/kubernetes/kustomization.yaml"),
        *("M", "docs/guides/conformance-kit.md", "M", "docs/guides/mock-server.md"),
        *("M", "docs/guides/typescript-client.md"),
        *("M", "openapi/asyncapi.json"),
        *("M", "openapi/openapi-3.0.json"),
        *("M", "openapi/openapi.json", "M", "openapi/openapi.yaml", "M", "pyproject.toml"),
        *("??", "openapi/CHANGELOG.md", "??", "openapi/changes.atom"),
        *("??", "openapi/changes.json", "??", "openapi/released/"),
    ]

    repository.edit("openapi/components/schemas/shared.yaml", "maxLength: 2000", "maxLength: 200")
    repository.commit()
    too_low = repository.run("tools.review.release", "7.1.0")
    assert too_low.returncode == 1
    assert "7.1.0 is too low: breaking changes require at least 8.0.0" in too_low.stdout
    assert "maxLength is `200`, was `2000`" in too_low.stdout
    assert repository.git("status", "--porcelain") == ""
    again = repository.run("tools.review.release", "7.0.0")
    assert "7.0.0 was released already: openapi/released/7.0.0.json exists." in again.stdout
    assert [one["title"] for one in json.loads(repository.read("openapi/changes.json"))["items"]] == ["7.0.0"]
