"""Writes what a run found: JUnit for machines, HTML for people."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from xml.etree import ElementTree


@dataclass(frozen=True)
class Result:
    """One check: its part and name, how long it took, and what was wrong, if anything."""

    part: str
    name: str
    seconds: float
    problem: str = ""


def write_junit(path: Path, results: list[Result]) -> None:
    """Write one suite for each part."""
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


def write_html(path: Path, server: str, results: list[Result]) -> None:
    """Write one page that needs nothing else: what failed first."""
    failed = [result for result in results if result.problem]
    rows = "\n".join(
        f"<tr><td>{'failed' if one.problem else 'passed'}<td>{escape(one.part)}<td>{escape(one.name)}"
        f"<td>{one.seconds:.2f} s<td><pre>{escape(one.problem)}</pre>"
        for one in sorted(results, key=lambda one: not one.problem)
    )
    path.write_text(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Conformance</title>"
        "<style>body{font:16px sans-serif;margin:2em}td{padding:.2em .8em;vertical-align:top}"
        "pre{white-space:pre-wrap;margin:0}</style>"
        f"<h1>{escape(server)}</h1><p>{len(results)} checks, {len(failed)} failed.</p>"
        f"<table><tr><th>Result<th>Part<th>Check<th>Time<th>Problem\n{rows}</table></html>\n",
        encoding="utf-8",
    )
