"""Write the reports of a run: JUnit for CI systems, HTML for people."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from xml.etree import ElementTree

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
table {{ border-collapse: collapse; width: 100%; margin-top: 1rem }}
th, td {{ text-align: left; vertical-align: top; padding: .2rem 1rem .2rem 0 }}
tr {{ border-bottom: 1px solid #8884 }}
td:first-child, td:last-child {{ white-space: nowrap }}
th:last-child, td:last-child {{ text-align: right; padding-right: 0 }}
</style>
<h1>Conformance of {server}</h1>
<p class="{outcome}"><strong>{verdict}</strong></p>
<p>Seed {seed}</p>
{findings}<details>
<summary>{passed} passed</summary>
<table><thead><tr><th>Part<th>Check<th>Time</thead>
{rows}</table>
</details>
</html>
"""


@dataclass(frozen=True)
class Result:
    """The result of one check. `problem` is empty if it passed."""

    part: str
    name: str
    seconds: float
    problem: str = ""


def write_junit(path: Path, results: list[Result]) -> None:
    """Write a JUnit report with one suite per part."""
    root = ElementTree.Element("testsuites", name="sartiq-conformance")
    for part in dict.fromkeys(result.part for result in results):
        own = [result for result in results if result.part == part]
        failures = str(sum(bool(result.problem) for result in own))
        suite = ElementTree.SubElement(root, "testsuite", name=part, tests=str(len(own)), failures=failures)
        for result in own:
            case = ElementTree.SubElement(
                suite, "testcase", classname=part, name=result.name, time=f"{result.seconds:.3f}"
            )
            if result.problem:
                message = result.problem.splitlines()[0]
                ElementTree.SubElement(case, "failure", message=message).text = result.problem
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def write_html(path: Path, server: str, seed: int, results: list[Result]) -> None:
    """Write a self-contained page: first the failed checks with their problems, then the passed ones."""
    failed = [result for result in results if result.problem]
    findings = "".join(
        f"<section><h2>{escape(one.part)}: {escape(one.name)}</h2>\n<pre>{escape(one.problem)}</pre>\n"
        for one in failed
    )
    rows = "".join(
        f"<tr><td>{escape(one.part)}<td>{escape(one.name)}<td>{one.seconds:.2f} s\n"
        for one in results
        if not one.problem
    )
    path.write_text(
        PAGE.format(
            server=escape(server),
            seed=seed,
            verdict=summarize(results),
            outcome="failed" if failed else "passed",
            findings=findings,
            passed=len(results) - len(failed),
            rows=rows,
        ),
        encoding="utf-8",
    )


def summarize(results: list[Result]) -> str:
    """Return the result of a run in one sentence."""
    failed = sum(bool(result.problem) for result in results)
    return (
        f"{len(results)} checks, {failed} failed: the server {'does not conform' if failed else 'conforms'}."
    )
