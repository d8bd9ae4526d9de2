"""Check a contract: two linters, the rules of this project, handlers and examples for every operation."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tools.project import PROBLEMS, RULES, RULES_FOLDER, Document, list_mismatches
from tools.review import tools
from tools.review.linter_texts import explain_problem
from tools.review.source_map import SourceMap

STRUCTURAL_RULES = {
    "struct",
    "no-unresolved-refs",
    "operation-operationId",
    "operation-operationId-unique",
    "operation-tag-defined",
    "rule/each-status-is-listed",
    "rule/operation-has-responses",
}
"""Redocly's rules that the other checks rely on: they read operationIds, tags and statuses."""
CONSEQUENCES = (
    *("(no-invalid-schema-examples)", "(no-invalid-media-type-examples)", "(path-parameters-defined)"),
    *("(no-required-schema-properties-undefined)", "(operation-2xx-response)"),
)
"""How the findings end that a broken structure alone can cause."""
MIN_SHARED = 5
"""At least this number of findings that say the same become one."""
MAX_SUBJECTS = 5
COMPOSITIONS = ("allOf", "anyOf", "oneOf")

Node = dict[str, Any]


class Finding(NamedTuple):
    """A problem, and its place: file and line, or an empty text."""

    place: str
    text: str


def group_findings(findings: list[Finding]) -> list[Finding]:
    """Return the findings, with one in place of many that differ only in their places or subjects."""
    groups: dict[str, list[Finding]] = {}
    for one in findings:
        groups.setdefault(one.text.partition(": ")[2] or one.text, []).append(one)
    return [one for shared, same in groups.items() for one in _join_findings(shared, same)]


def _join_findings(shared: str, same: list[Finding]) -> list[Finding]:
    if len(same) < MIN_SHARED:
        return same
    subjects = list(filter(None, dict.fromkeys(one.text.removesuffix(shared)[:-2] for one in same)))
    names = f", such as {', '.join(subjects[:MAX_SUBJECTS])}" if subjects else ""
    return [Finding(same[0].place, f"{len(same)} places{names}: {shared}")]


def redocly_findings(
    folder: Path = tools.SOURCE.parent, is_outdated: Callable[[], bool] | None = None
) -> list[Finding]:
    """Return the findings of Redocly in the sources in a folder: see `tools.run_redocly_lint`."""
    found = []
    for problem in tools.run_redocly_lint(folder / tools.SOURCE.name, is_outdated):
        location = problem["location"][0]
        file = Path(os.path.normpath(tools.ROOT / location["source"]["ref"]))
        name = file.relative_to(folder.parent).as_posix() if file.is_relative_to(folder.parent) else str(file)
        line = location.get("start", {}).get("line", 1)
        message = explain_problem(problem["message"], problem["ruleId"], file, line)
        found.append(Finding(f"{name}:{line}", f"{message} ({problem['ruleId']})"))
    return list(dict.fromkeys(found))


def has_structural_findings(findings: list[Finding]) -> bool:
    """Return whether a finding of Redocly breaks the structure that the other checks rely on."""
    return any(map(_is_structural, findings))


def leave_causes(findings: list[Finding]) -> list[Finding]:
    """Return the findings without those that follow from a broken structure in the same file."""
    broken = {one.place.rpartition(":")[0] for one in findings if _is_structural(one)}
    return [
        one
        for one in findings
        if not one.text.endswith(CONSEQUENCES) or one.place.rpartition(":")[0] not in broken
    ]


def _is_structural(finding: Finding) -> bool:
    return any(finding.text.endswith(f"({rule})") for rule in STRUCTURAL_RULES)


def spectral_findings(bundle: Path, folder: Path, sources: SourceMap) -> list[Finding]:
    """Return the findings of Spectral in a bundle."""
    return [
        Finding(sources.find_path([str(step) for step in one["path"]]), f"{one['message']} ({one['code']})")
        for one in tools.run_spectral(bundle, folder)
    ]


def rule_findings(bundle: Path, folder: Path, sources: SourceMap) -> list[Finding]:
    """Run the project rules, which are tests, on a bundle and return their findings."""
    report = folder / "rules.xml"
    outcome = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "--quiet",
            f"--junitxml={report}",
            "-p",
            "no:cacheprovider",
            # Neither the fixtures for databases nor plugins are needed: a fifth of the time.
            f"--confcutdir={RULES_FOLDER}",
            # Tests of the rules seed mistakes, which the contract may have. They say nothing about it.
            *("-k", "not is_found and not are_found"),
            *RULES,
        ],
        cwd=tools.ROOT,
        env=os.environ | {"REVIEWED_BUNDLE": str(bundle), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
    )
    if not report.exists():
        raise tools.ToolFailed(outcome.stdout + outcome.stderr)
    found = []
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 - pytest has just written it
        for failure in [*case.iter("failure"), *case.iter("error")]:
            rule = re.sub(r"^test_(s\d+_)?", "", case.get("name", "")).replace("_", " ")
            # The attribute has only the first lines of a long message.
            lines = re.findall(r"^E {3,}(.*)", failure.text or "", re.MULTILINE)
            for item in parse_failures("\n".join(lines) or failure.get("message", "")):
                place, text = split_place(item)
                if kind := re.match(r"(?!Assertion|Failed)[A-Z]\w*(Error|Exception|Iteration)\b", text):
                    # What a rule does not expect is no finding of it.
                    text = f"this rule itself failed ({kind[0]}): fix it in {case.get('classname')}, {text}"
                found.append(Finding(place or find_place(item, sources), f"{text} ({rule})"))
    return found


def parse_failures(message: str) -> list[str]:
    """Return the findings that a failed test lists, one per line, or its comparison if it lists none."""
    lines = [line.strip() for line in message.removeprefix("AssertionError:").splitlines()]
    listed = []
    for line in lines:
        if line.startswith("assert "):
            break
        listed.append(line)
    return [line for line in listed if line] or [" ".join(filter(None, lines))[:300]]


def split_place(text: str) -> tuple[str, str]:
    """Return the file and line at the start of a text, which may be missing, and the rest of it."""
    match = re.match(r"(openapi/\S+\.yaml:\d+) (.*)", text)
    return (match[1], match[2]) if match else ("", text)


def find_place(text: str, sources: SourceMap) -> str:
    """Return the place of the first word of a text: a pointer, an operationId, or a path in a schema."""
    first = re.split(r"[ :]", text, maxsplit=1)[0]
    if first.startswith("#/"):
        return sources.find_pointer(first)
    return sources.find_operation(first.split("/")[0]) or sources.find_schema(first) or ""


def find_missing_handlers(contract: Node, sources: SourceMap) -> list[Finding]:
    """Return the operations without a handler and the handlers that do not match the contract."""
    return [
        Finding(next(filter(None, map(sources.find_operation, line.split())), ""), line)
        for line in list_mismatches(contract)
    ]


def find_missing_problems(contract: Node, sources: SourceMap) -> list[Finding]:
    """Return the problem codes that the server does not know, so that nothing raises them."""
    text = (
        "handlers/pipeline/problem_types.py has no problem `{}`: add its meaning, and the code that raises it"
    )
    return [
        Finding(sources.find_in_file("problem-codes.yaml", [code]), text.format(code))
        for code in contract.get("x-problem-codes", {})
        if code not in PROBLEMS
    ]


def find_missing_examples(contract: Node, sources: SourceMap) -> list[Finding]:
    """Return the request bodies and successful responses without an example."""
    found = []
    document = Document(contract)
    for operation in document.operations():
        if operation.definition["tags"] == ["documentation"]:
            continue  # The responses are whole documents.
        bodies = {"the request body": document.resolve(operation.definition.get("requestBody", {}))}
        responses = {
            f"the response {status}": document.resolve(response)
            for status, response in operation.definition["responses"].items()
            if status < "300"
        }
        for name, node in (bodies | responses).items():
            for media_type, media in node.get("content", {}).items():
                if not (
                    {"example", "examples"} & set(media) or has_example(document, media.get("schema", {}))
                ):
                    place = sources.find_operation(operation.operation_id) or ""
                    found.append(
                        Finding(place, f"{operation.operation_id}: no example of {name} as {media_type}")
                    )
    return found


def has_example(document: Document, schema: Node) -> bool:
    """Return whether a schema or all of its parts have an example. Binary data needs none."""
    schema = document.resolve(schema)
    if "example" in schema or "enum" in schema or schema.get("format") == "binary":
        return True
    for word in COMPOSITIONS:
        if word in schema:
            return all(has_example(document, one) for one in schema[word])
    if "items" in schema:
        return has_example(document, schema["items"])
    parts: list[Any] = list(schema.get("properties", {}).values())
    return bool(parts) and all(has_example(document, part) for part in parts)
