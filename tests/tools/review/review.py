"""One review of the contract: everything that is looked at, side by side, and whether it may go on."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.tools.review import checks, tools
from tests.tools.review.changes import Change, list_changes, operation_ids_by_path
from tests.tools.review.checks import Finding, Node
from tests.tools.review.source_map import SourceMap

MAIN = ("origin/main", "main")
# Two cores do the work; a third worker starts while another waits for its process.
MAX_PARALLEL = 3


@dataclass
class Comparison:
    """The contract beside an earlier one; `changes` is None when there is none to compare with."""

    name: str
    since: str
    version: str = ""
    changes: list[Change] | None = None
    ids: dict[str, str] = field(default_factory=dict)
    places: dict[Change, str] = field(default_factory=dict)

    @property
    def breaking(self) -> list[Change]:
        """The changes that break a client."""
        return [change for change in self.changes or [] if change.impact == "breaking"]

    def summary(self) -> str:
        """Return the comparison in a line."""
        if self.changes is None:
            return self.since
        counts = {}
        for change in self.changes:
            counts[change.impact] = counts.get(change.impact, 0) + 1
        said = ", ".join(f"{count} {impact}" for impact, count in counts.items())
        return f"{said or 'nothing changed'} {self.since}"


@dataclass
class Review:
    """What a review found."""

    version: str
    operations_count: int
    is_stale: bool
    findings: dict[str, list[Finding]]
    missing_handlers: list[Finding]
    missing_examples: list[Finding]
    comparisons: list[Comparison]

    def tables(self) -> Iterator[tuple[str, list[Finding]]]:
        """Give the findings of each kind with a title."""
        yield from self.findings.items()
        yield "Not served yet: the contract and the handlers differ", self.missing_handlers
        yield "Without example", self.missing_examples

    def list_distinct_comparisons(self) -> Iterator[Comparison]:
        """Give the comparisons with something to tell, as one where both have the same."""
        some = [comparison for comparison in self.comparisons if comparison.changes]
        if len(some) == 2 and some[0].changes == some[1].changes:
            some = [replace(some[0], since=f"{some[0].since}, and {some[1].since}")]
        yield from some

    @property
    def failures(self) -> list[str]:
        """Why the contract may not go on, a sentence each."""
        found = [f"{name} found {len(some)}." for name, some in self.findings.items() if some]
        if self.is_stale:
            found.append("openapi/openapi.json is not what the sources say: run `make openapi`.")
        # What was never released was promised to nobody, so only the release is a gate.
        released = self.comparisons[0]
        if released.breaking and not is_new_major(released.version, self.version):
            count = len(released.breaking)
            changes = f"{count} changes break" if count > 1 else "A change breaks"
            found.append(
                f"{changes} clients of {released.version}, and info.version {self.version} is no new major."
            )
        return found


def is_new_major(released: str, version: str) -> bool:
    """Whether a version may break what a released one promised."""
    return int(version.split(".")[0]) > int(released.split(".")[0])


def review_contract() -> Review:
    """Look at the contract as it is on the disk; ToolFailed when it cannot be bundled."""
    sources = SourceMap(tools.SOURCE.parent)
    with tempfile.TemporaryDirectory(prefix="review-") as name, ThreadPoolExecutor(MAX_PARALLEL) as pool:
        folder = Path(name)
        lint = pool.submit(checks.redocly_findings)
        fresh = folder / "openapi.json"
        contract = tools.build_bundle(tools.SOURCE, fresh)
        spectral = pool.submit(checks.spectral_findings, fresh, folder, sources)
        rules = pool.submit(checks.architecture_findings, fresh, folder, sources)
        compared = [
            pool.submit(_compare, comparison, text, contract, folder)
            for comparison, text in (_compare_with_released(), _compare_with_main())
        ]
        handlers = checks.find_missing_handlers(contract, sources)
        examples = checks.find_missing_examples(contract, sources)
        return Review(
            version=contract["info"]["version"],
            operations_count=len(operation_ids_by_path(contract)),
            is_stale=not tools.BUNDLE.exists() or tools.BUNDLE.read_bytes() != fresh.read_bytes(),
            findings={
                "Redocly": lint.result(),
                "Spectral": spectral.result(),
                "Project rules": rules.result(),
            },
            missing_handlers=handlers,
            missing_examples=examples,
            comparisons=[_add_places(one.result(), sources) for one in compared],
        )


def _compare_with_released() -> tuple[Comparison, str | None]:
    if not tools.RELEASED.exists():
        return Comparison(
            "Released", "no release yet: openapi/released/v1.json is not there, nothing is gated"
        ), None
    text = tools.RELEASED.read_text(encoding="utf-8")
    version = json.loads(text)["info"]["version"]
    return Comparison("Released", f"since {version}, the last release", version), text


def _compare_with_main() -> tuple[Comparison, str | None]:
    for branch in MAIN:
        # Where the work began: what others have added since is none of its changes.
        start = _git("merge-base", "HEAD", branch)
        shown = _git("show", f"{start.stdout.strip()}:openapi/openapi.json")
        if start.returncode == 0 and shown.returncode == 0:
            return Comparison("Main", f"since {branch}"), shown.stdout
    return Comparison("Main", f"neither {' nor '.join(MAIN)} is here: not compared"), None


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], cwd=tools.ROOT, capture_output=True, text=True)


def _compare(comparison: Comparison, text: str | None, contract: Node, folder: Path) -> Comparison:
    if text is not None:
        base = json.loads(text)
        comparison.ids = operation_ids_by_path(base) | operation_ids_by_path(contract)
        own = Path(tempfile.mkdtemp(dir=folder))
        comparison.changes = [] if base == contract else list_changes(base, contract, own)
    return comparison


def _add_places(comparison: Comparison, sources: SourceMap) -> Comparison:
    comparison.places = {change: sources.find_pointer(change.pointer) for change in comparison.changes or []}
    return comparison
