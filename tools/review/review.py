"""One review of the contract: run all checks concurrently and decide whether the contract passes."""

from __future__ import annotations

import datetime
import json
import subprocess
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from tools.conformance.sartiq_conformance.diff.accepted import AcceptedChange, format_entries
from tools.conformance.sartiq_conformance.diff.change import Change
from tools.conformance.sartiq_conformance.diff.report import Comparison
from tools.conformance.sartiq_conformance.diff.usage import operation_ids_by_path
from tools.review import checks, tools
from tools.review.allowed_breaks import (
    find_invalid_dates,
    find_stale_entries,
    load_allowed_breaks,
    split_allowed,
)
from tools.review.api_usage import describe_uses
from tools.review.changes import list_changes
from tools.review.checks import Finding, Node
from tools.review.deprecations import find_wrong_deprecations
from tools.review.releases import find_release
from tools.review.shapes import find_shape_errors
from tools.review.source_map import SourceMap
from tools.review.yaml_errors import YamlError, find_yaml_errors
from tools.standard_parts import StandardPartsError

T = TypeVar("T")
MAIN = ("origin/main", "main")
NOT_COMPARED = "not compared: the comparison failed, see below"
# Chosen for two cores: a third worker can start while another one waits for its process.
MAX_PARALLEL = 3


@dataclass
class Review:
    """The results of a review."""

    version: str
    operations_count: int
    is_stale: bool
    findings: dict[str, list[Finding]]
    missing_handlers: list[Finding]
    missing_examples: list[Finding]
    comparisons: list[Comparison]
    allowed_breaks: list[AcceptedChange] = field(default_factory=list)
    today: datetime.date = field(default_factory=datetime.date.today)

    def tables(self) -> Iterator[tuple[str, list[Finding]]]:
        """Yield the findings of each check with a title."""
        yield from self.findings.items()
        yield "Missing or mismatched handlers", self.missing_handlers
        yield "Missing examples", self.missing_examples

    def list_distinct_comparisons(self) -> Iterator[Comparison]:
        """Yield the comparisons that have changes, that with the branch first: they are the author's own.

        Two comparisons with equal changes become one.
        """
        distinct = [comparison for comparison in self.comparisons if comparison.changes]
        if len(distinct) == 2 and distinct[0].changes == distinct[1].changes:
            distinct = [replace(distinct[0], since=f"{distinct[0].since}, and {distinct[1].since}")]
        yield from reversed(distinct)

    @property
    def is_compared_with_branch(self) -> bool:
        """Return whether there is a branch to compare with, so that the author's own changes are known."""
        return self.comparisons[-1].changes is not None

    @property
    def not_allowed(self) -> list[Change]:
        """Return the changes that break clients of the last release and that nothing allows."""
        # Clients depend only on released contracts, so unreleased changes may be broken again.
        released = self.comparisons[0]
        not_allowed, _ = split_allowed(released.breaking, self.allowed_breaks, released.version, released.ids)
        return [] if is_new_major(released.version or "0", self.version) else not_allowed

    @property
    def entries_to_allow(self) -> list[str]:
        """Return the lines of openapi/allowed-breaks.yaml that would allow them, below version 1.0."""
        released = self.comparisons[0]
        if not self.version.startswith("0.") or not self.not_allowed:
            return []
        return format_entries(self.not_allowed, released.ids, self.today)

    @property
    def failures(self) -> list[str]:
        """Return the reasons why the contract does not pass, one sentence each."""
        reasons = [f"Findings of {name}: {len(found)}." for name, found in self.findings.items() if found]
        if self.is_stale:
            reasons.append("openapi/openapi.json differs from its sources: run `make openapi`.")
        released = self.comparisons[0]
        if count := len(self.not_allowed):
            changes = f"{count} changes break" if count > 1 else "A change breaks"
            version = f"info.version {self.version} is not a new major version"
            is_early = self.version.startswith("0.")
            way_out = (
                "Below 1.0, openapi/allowed-breaks.yaml can allow it, with a reason."
                if is_early
                else "Deprecate what you want to remove, and remove it after its sunset."
            )
            reasons.append(f"{changes} clients of {released.version}, but {version}. {way_out}")
        reasons += find_stale_entries(released.breaking, self.allowed_breaks, self.today, released.ids)
        return reasons


def is_new_major(released: str, version: str) -> bool:
    """Return whether the version has a higher major number, so that it may have breaking changes."""
    return int(version.split(".")[0]) > int(released.split(".")[0])


class ReviewStopped(Exception):
    """The contract is broken so that the other checks would fail or be wrong. The findings say where."""

    def __init__(self, findings: list[Finding]) -> None:
        super().__init__(f"{len(findings)} findings")
        self.findings = checks.group_findings(findings)


def review_contract(base: str | None = None, usage: Sequence[Node] | None = None) -> Review:
    """Review the contract in the working tree.

    Args:
        base: The branch to compare with, instead of the main branch.
        usage: The API usage of all organizations, to say whom each break would hit.

    Raises:
        ReviewStopped: The YAML or the structure of the contract is broken.
        ToolFailed: A tool failed, or openapi/allowed-breaks.yaml cannot be read.
    """
    folder = tools.SOURCE.parent
    if errors := find_yaml_errors(folder):
        raise ReviewStopped([to_finding(error) for error in errors])
    shapes = [to_finding(error) for error in find_shape_errors(folder) or find_invalid_dates()]
    with tempfile.TemporaryDirectory(prefix="review-") as name, ThreadPoolExecutor(MAX_PARALLEL) as pool:
        folder = Path(name)
        linting = pool.submit(checks.redocly_findings)
        bundling = pool.submit(tools.build_bundle, tools.SOURCE, folder / "openapi.json")
        lint = linting.result()
        if shapes or checks.has_structural_findings(lint):
            places = {one.place for one in shapes}
            others = [one for one in checks.leave_causes(lint) if one.place not in places]
            raise ReviewStopped([*shapes, *others])
        try:
            contract = bundling.result()
        except StandardPartsError as error:
            raise ReviewStopped([*lint, Finding(error.place, error.message)]) from error
        review = _run_checks(pool, folder, contract, lint, (base,) if base else MAIN)
    if usage is not None:
        for comparison in review.comparisons:
            comparison.uses = describe_uses(comparison.breaking, usage, comparison.ids)
    return review


def _run_checks(
    pool: ThreadPoolExecutor, folder: Path, contract: Node, lint: list[Finding], branches: Sequence[str]
) -> Review:
    failed: list[Finding] = []

    def collect(check: str, get: Callable[[], T], other: T) -> T:
        """Return a result, or another value if the check fails: it must not hide what the others find."""
        try:
            return get()
        except Exception as error:  # noqa: BLE001 - a traceback says nothing to the author of the contract
            failed.append(describe_failure(error, check))
            return other

    allowed = load_allowed_breaks()
    sources = SourceMap(tools.SOURCE.parent)
    fresh = folder / "openapi.json"
    spectral = pool.submit(checks.spectral_findings, fresh, folder, sources)
    rules = pool.submit(checks.rule_findings, fresh, folder, sources)
    compared = [
        (pool.submit(_compare, comparison, text, contract), comparison)
        for comparison, text in (_compare_with_released(contract), _compare_with_branch(branches))
    ]
    nothing: list[Finding] = []
    deprecations = collect("Deprecations", lambda: find_wrong_deprecations(contract, sources), nothing)
    handlers = collect("Handlers", lambda: checks.find_missing_handlers(contract, sources), nothing)
    # The server does not start with wrong deprecations of operations, either.
    named = {one.text for one in deprecations}
    handlers = [
        *(one for one in handlers if one.text not in named),
        *collect("Problems", lambda: checks.find_missing_problems(contract, sources), nothing),
    ]
    examples = collect("Examples", lambda: checks.find_missing_examples(contract, sources), nothing)
    comparisons = [
        _add_places(collect(f"Changes {one.since}", future.result, replace(one, since=NOT_COMPARED)), sources)
        for future, one in compared
    ]
    findings = {
        "Redocly": lint,
        "Spectral": collect("Spectral", spectral.result, nothing),
        "Project rules": [*deprecations, *collect("Project rules", rules.result, nothing)],
    }
    findings |= {"Failed checks": failed} if failed else {}
    for comparison in comparisons:
        _, comparison.reasons = split_allowed(
            comparison.breaking, allowed, comparisons[0].version, comparison.ids
        )
    return Review(
        version=contract["info"]["version"],
        operations_count=len(operation_ids_by_path(contract)),
        is_stale=not tools.BUNDLE.exists() or tools.BUNDLE.read_bytes() != fresh.read_bytes(),
        findings={name: checks.group_findings(found) for name, found in findings.items()},
        missing_handlers=checks.group_findings(handlers),
        missing_examples=checks.group_findings(examples),
        comparisons=comparisons,
        allowed_breaks=allowed,
    )


def to_finding(error: YamlError) -> Finding:
    """Return an error in a file as a finding."""
    return Finding(f"{error.file}:{error.line}", error.message)


def describe_failure(error: Exception, check: str = "") -> Finding:
    """Return a finding for a check that failed, at the last line of this project that ran."""
    if isinstance(error, tools.ToolFailed):
        return Finding("", str(error).strip())
    own = [
        Path(frame.filename).relative_to(tools.ROOT).as_posix() + f":{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(tools.ROOT) and ".venv" not in frame.filename
    ]
    place = own[-1] if own else ""
    reason = f"{type(error).__name__}: {error}"
    if place.startswith("handlers/"):
        return Finding(place, f"The handlers cannot be loaded, so that no other one was checked: {reason}")
    return Finding(place, f"The review itself failed{f' ({check})' * bool(check)}: {reason}")


def _compare_with_released(contract: Node) -> tuple[Comparison, str | None]:
    path = find_release(contract["info"]["version"])
    if not path:
        return Comparison("Released", "not compared: there is no release in openapi/released"), None
    text = path.read_text(encoding="utf-8")
    version = json.loads(text)["info"]["version"]
    return Comparison("Released", f"since {version}, the last release", version), text


def _compare_with_branch(branches: Sequence[str]) -> tuple[Comparison, str | None]:
    reason = f"there is no branch {' or '.join(branches)}"
    for branch in filter(has_commit, branches):
        # Compare with the merge base: later changes of the other branch do not belong to this one.
        start = _git("merge-base", "HEAD", branch)
        shown = _git("show", f"{start.stdout.strip()}:openapi/openapi.json")
        if start.returncode:
            reason = f"no commit in common with {branch}; a shallow clone needs `git fetch --unshallow`"
        elif shown.returncode:
            reason = f"{branch} has no openapi/openapi.json"
        else:
            return Comparison("Main", f"since {branch}"), shown.stdout
    return Comparison("Main", f"not compared: {reason}"), None


def has_commit(name: str) -> bool:
    """Return whether a branch, tag or commit exists in this clone."""
    return _git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").returncode == 0


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], cwd=tools.ROOT, capture_output=True, text=True)


def _compare(comparison: Comparison, text: str | None, contract: Node) -> Comparison:
    if text is not None:
        base = json.loads(text)
        comparison.name_operations(base, contract)
        comparison.changes = [] if base == contract else list_changes(base, contract)
    return comparison


def _add_places(comparison: Comparison, sources: SourceMap) -> Comparison:
    comparison.places = {change: sources.find_pointer(change.pointer) for change in comparison.changes or []}
    return comparison
