"""Write the reports of a run: JUnit for CI systems, HTML for people."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from pathlib import Path
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


@dataclass
class Run:
    """A run of the kit: what was checked against what, and the results so far."""

    server: str
    contract: str
    seed: int
    started_at: datetime
    seconds: float = 0
    server_version: str = "unknown"
    contract_version: str = "unknown"
    results: list[Result] = field(default_factory=list)


def group_by_part(results: list[Result]) -> dict[str, list[Result]]:
    """Return the results of each part, in the order of the run."""
    grouped: dict[str, list[Result]] = {}
    for result in results:
        grouped.setdefault(result.part, []).append(result)
    return grouped


def write_junit(path: Path, results: list[Result]) -> None:
    """Write a JUnit report with one suite per part."""
    root = ElementTree.Element("testsuites", name="sartiq-conformance")
    for part, own in group_by_part(results).items():
        counts = {
            "tests": str(len(own)),
            "failures": str(sum(bool(result.problem) and not result.is_defect for result in own)),
            "errors": str(sum(result.is_defect for result in own)),
        }
        suite = ElementTree.SubElement(root, "testsuite", {"name": part, **counts})
        for result in own:
            case = ElementTree.SubElement(
                suite, "testcase", classname=part, name=result.name, time=f"{result.seconds:.3f}"
            )
            if result.problem:
                message = result.problem.splitlines()[0]
                kind = "error" if result.is_defect else "failure"
                ElementTree.SubElement(case, kind, message=message).text = result.problem
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


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
        verdict=summarize(run.results),
        outcome="failed" if failed else "passed",
        summary=summary,
        findings=findings,
        passed=len(run.results) - len(failed),
        rows=rows,
    )
    path.write_text(page, encoding="utf-8")


def summarize(results: list[Result]) -> str:
    """Return the result of a run in one sentence."""
    failed = sum(bool(result.problem) and not result.is_defect for result in results)
    unknown = sum(result.is_defect for result in results)
    verdict = (
        "does not conform" if failed else "conforms, as far as it was checked" if unknown else "conforms"
    )
    not_checked = f", {unknown} not checked because of a defect of the kit" if unknown else ""
    return f"{len(results)} checks, {failed} failed{not_checked}: the server {verdict}."
