"""Write the reports of a run: JUnit for CI systems, HTML for people, JSON for programs."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from sartiq_conformance import __version__

PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{server}: {verdict}</title>
<style>
:root {{ color-scheme: light dark }}
:root {{ --failed: light-dark(#b3261e, #ff8a80); --passed: light-dark(#1b6e3c, #7fd89b) }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }}
h1, h2, td, pre {{ overflow-wrap: anywhere }}
h1 {{ font-size: 1.4rem }}
h2 {{ font-size: 1rem }}
.failed {{ color: var(--failed) }}
.passed {{ color: var(--passed) }}
section {{ border-left: .25rem solid var(--failed); padding-left: 1rem; margin: 2rem 0 }}
pre {{ white-space: pre-wrap; margin: 0 }}
summary {{ cursor: pointer }}
dl {{ display: grid; grid-template-columns: max-content auto; gap: 0 1rem }}
dd {{ margin: 0 }}
table {{ border-collapse: collapse; width: 100%; margin-top: 1rem }}
th, td {{ text-align: left; vertical-align: top; padding: .2rem 1rem .2rem 0 }}
tr {{ border-bottom: 1px solid #8884 }}
td:first-child, td:last-child {{ white-space: nowrap }}
th:last-child, td:last-child {{ text-align: right; padding-right: 0 }}
</style>
<h1>Conformance of {server}</h1>
<p class="{outcome}"><strong>{verdict}</strong></p>
<dl>
<dt>Started</dt><dd>{started}, {seconds:.0f} s</dd>
<dt>Server</dt><dd>version {server_version}</dd>
<dt>Contract</dt><dd>{contract}, version {contract_version}</dd>
<dt>Kit</dt><dd>version {kit_version}, seed {seed}</dd>
</dl>
<table><thead><tr><th>Part</th><th>Checks</th><th>Failed</th><th>Time</th></tr></thead><tbody>
{summary}</tbody></table>
{findings}<details>
<summary>{passed} passed</summary>
<table><thead><tr><th>Part</th><th>Check</th><th>Time</th></tr></thead><tbody>
{rows}</tbody></table>
</details>
</html>
"""


@dataclass(frozen=True)
class Result:
    """The result of one check. `problem` is empty if it passed; with `is_defect` it is one of the kit."""

    part: str
    name: str
    seconds: float
    problem: str = ""
    is_defect: bool = False

    @property
    def outcome(self) -> str:
        """`passed`, `failed`, or `error` after a defect of the kit."""
        if not self.problem:
            return "passed"
        return "error" if self.is_defect else "failed"


@dataclass
class Run:
    """A run of the kit: what was checked against what, and the results so far."""

    server: str
    contract: str
    seed: int
    started_at: datetime
    examples: int = 0
    seconds: float = 0
    server_version: str = "unknown"
    contract_version: str = "unknown"
    organization_id: str = ""
    results: list[Result] = field(default_factory=list)
    stopped_by: str = ""
    """Why the run ended before its last check."""
    left_behind: list[str] = field(default_factory=list)
    """The paths of the rows that were not deleted."""
    status: int = 0
    """The exit status."""


def group_by_part(results: list[Result]) -> dict[str, list[Result]]:
    """Return the results of each part, in the order of the run."""
    grouped: dict[str, list[Result]] = {}
    for result in results:
        grouped.setdefault(result.part, []).append(result)
    return grouped


def write_junit(path: Path, run: Run) -> None:
    """Write a JUnit report with one suite per part. Its properties repeat the run."""
    properties = {
        "server": run.server,
        "server version": run.server_version,
        "contract": run.contract,
        "contract version": run.contract_version,
        "kit version": __version__,
        "seed": str(run.seed),
        "examples": str(run.examples),
    }
    if run.stopped_by:
        properties["stopped"] = run.stopped_by
    timestamp = run.started_at.strftime("%Y-%m-%dT%H:%M:%S")
    root = ElementTree.Element(
        "testsuites", name="sartiq-conformance", **count_results(run.results), time=f"{run.seconds:.3f}"
    )
    for part, own in group_by_part(run.results).items():
        seconds = sum(result.seconds for result in own)
        suite = ElementTree.SubElement(
            root, "testsuite", name=part, **count_results(own), time=f"{seconds:.3f}", timestamp=timestamp
        )
        listed = ElementTree.SubElement(suite, "properties")
        for name, value in properties.items():
            ElementTree.SubElement(listed, "property", name=name, value=value)
        for result in own:
            case = ElementTree.SubElement(
                suite, "testcase", classname=part, name=result.name, time=f"{result.seconds:.3f}"
            )
            if result.problem:
                message = result.problem.splitlines()[0]
                kind = "error" if result.is_defect else "failure"
                ElementTree.SubElement(case, kind, message=message).text = result.problem
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def count_results(results: list[Result]) -> dict[str, str]:
    """Return the counts of a JUnit suite."""
    return {
        "tests": str(len(results)),
        "failures": str(sum(result.outcome == "failed" for result in results)),
        "errors": str(sum(result.outcome == "error" for result in results)),
    }


def write_json(path: Path, run: Run) -> None:
    """Write a JSON report. `format` is increased when a member changes its meaning or is removed."""
    outcomes = [result.outcome for result in run.results]
    report: dict[str, Any] = {
        "format": 1,
        "status": run.status,
        "stopped": run.stopped_by or None,
        "server": {"url": run.server, "version": run.server_version},
        "contract": {"source": run.contract, "version": run.contract_version},
        "kit": {"version": __version__},
        "seed": run.seed,
        "examples": run.examples,
        "started_at": run.started_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "seconds": round(run.seconds, 3),
        "organization_id": run.organization_id,
        "left_behind": run.left_behind,
        "counts": {outcome: outcomes.count(outcome) for outcome in ("passed", "failed", "error")},
        "checks": [
            {
                "part": result.part,
                "name": result.name,
                "outcome": result.outcome,
                "seconds": round(result.seconds, 3),
                "problem": result.problem or None,
            }
            for result in run.results
        ],
    }
    path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_html(path: Path, run: Run) -> None:
    """Write a self-contained page: the parts, the failed checks with their problems, then the passed ones."""
    failed = [result for result in run.results if result.problem]
    findings = "".join(
        f"<section><h2>{escape(one.part)}: {escape(one.name)}</h2>\n"
        f"<pre>{escape(one.problem)}</pre>\n</section>\n"
        for one in failed
    )
    summary = "".join(
        f"<tr><td>{escape(part)}</td><td>{len(own)}</td><td>{sum(bool(one.problem) for one in own)}</td>"
        f"<td>{sum(one.seconds for one in own):.1f} s</td></tr>\n"
        for part, own in group_by_part(run.results).items()
    )
    rows = "".join(
        f"<tr><td>{escape(one.part)}</td><td>{escape(one.name)}</td><td>{one.seconds:.2f} s</td></tr>\n"
        for one in run.results
        if not one.problem
    )
    page = PAGE.format(
        server=escape(run.server),
        seed=run.seed,
        started=f"{run.started_at:%Y-%m-%d %H:%M} UTC",
        seconds=run.seconds,
        server_version=escape(run.server_version),
        contract=escape(run.contract),
        contract_version=escape(run.contract_version),
        kit_version=escape(__version__),
        verdict=escape(summarize(run)),
        outcome="failed" if failed or run.stopped_by else "passed",
        summary=summary,
        findings=findings,
        passed=len(run.results) - len(failed),
        rows=rows,
    )
    path.write_text(page, encoding="utf-8")


def summarize(run: Run) -> str:
    """Return the result of a run in one sentence."""
    outcomes = [result.outcome for result in run.results]
    failed, unknown = outcomes.count("failed"), outcomes.count("error")
    if failed:
        verdict = "does not conform"
    elif unknown or run.stopped_by:
        verdict = "conforms, as far as it was checked"
    else:
        verdict = "conforms"
    not_checked = f", {unknown} not checked because of a defect of the kit" if unknown else ""
    stopped = f", {run.stopped_by}" if run.stopped_by else ""
    return f"{len(run.results)} checks, {failed} failed{not_checked}{stopped}: the server {verdict}."
