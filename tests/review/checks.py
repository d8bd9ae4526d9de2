"""What a contract must be before it is read: clean for two linters and the house, served and exemplified."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any, NamedTuple

from handlers.contract.bodies import Limits
from handlers.contract.bundle import Bundle
from handlers.contract.operations import compile_operations
from handlers.contract.refusals import ContractError
from handlers.contract.resolver import find_handlers
from tests.house.bundle import COMPOSITIONS, Node, operations, resolved
from tests.review import tools
from tests.review.places import Sources

HOUSE_RULES = ("tests/house/test_contract_rules.py", "tests/house/test_contract_audit.py")


class Finding(NamedTuple):
    """Something to change, and where: file and line, or an empty text."""

    place: str
    text: str


def redocly_findings() -> list[Finding]:
    """Return what Redocly complains of in the sources."""
    found = []
    for problem in tools.linted():
        where = problem["location"][0]
        place = f"{where['source']['ref']}:{where.get('start', {}).get('line', 1)}"
        found.append(Finding(place, f"{problem['message']} ({problem['ruleId']})"))
    return found


def spectral_findings(bundle: Path, folder: Path, sources: Sources) -> list[Finding]:
    """Return what Spectral complains of in a bundle."""
    return [
        Finding(sources.of_steps([str(step) for step in one["path"]]), f"{one['message']} ({one['code']})")
        for one in tools.second_opinion(bundle, folder)
    ]


def house_findings(bundle: Path, folder: Path, sources: Sources) -> list[Finding]:
    """Run the tests of the house about the contract on a bundle, and return what they complain of."""
    report = folder / "house.xml"
    outcome = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "--quiet",
            f"--junitxml={report}",
            "-p",
            "no:cacheprovider",
            *HOUSE_RULES,
        ],
        cwd=tools.ROOT,
        env=os.environ | {"REVIEWED_BUNDLE": str(bundle)},
        capture_output=True,
        text=True,
    )
    if not report.exists():
        raise tools.ToolFailed(outcome.stdout + outcome.stderr)
    found = []
    for case in ElementTree.parse(report).iter("testcase"):
        for failure in [*case.iter("failure"), *case.iter("error")]:
            rule = re.sub(r"^test_(s\d+_)?", "", case.get("name", "")).replace("_", " ")
            for item in complaints(failure.get("message", "")):
                found.append(Finding(place_of(item, sources), f"{item} ({rule})"))
    return found


def complaints(message: str) -> list[str]:
    """Return the lines that a failed test of the house lists, or its comparison where it has none."""
    lines = [line.strip() for line in message.removeprefix("AssertionError:").splitlines()]
    listed = []
    for line in lines:
        if line.startswith("assert "):
            break
        listed.append(line)
    return [line for line in listed if line] or [" ".join(filter(None, lines))[:300]]


def place_of(text: str, sources: Sources) -> str:
    """Return the place of what a text begins with: a pointer, an operationId, or the trail of a schema."""
    first = re.split(r"[ :]", text, maxsplit=1)[0]
    if first.startswith("#/"):
        return sources.where(first)
    return sources.of_operation(first.split("/")[0]) or sources.of_schema(first) or ""


def without_handler(contract: Node, sources: Sources) -> list[Finding]:
    """Return what does not fit between the contract and the handlers."""
    ids = {operation.id for operation in operations(contract)}
    try:
        find_handlers(compile_operations(Bundle(contract), Limits()), "handlers")
    except ContractError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        return [
            Finding(
                sources.of_operation(next((word for word in line.split() if word in ids), "")) or "", line
            )
            for line in lines[1:] or lines
        ]
    return []


def without_example(contract: Node, sources: Sources) -> list[Finding]:
    """Return the bodies and the successful answers of which the contract shows no example."""
    found = []
    for operation in operations(contract):
        if operation.node["tags"] == ["documentation"]:
            continue  # Its answers are whole documents.
        bodies = {"its body": resolved(contract, operation.node.get("requestBody", {}))}
        answers = {
            f"its answer {status}": resolved(contract, response)
            for status, response in operation.node["responses"].items()
            if status < "300"
        }
        for name, thing in (bodies | answers).items():
            for media_type, media in thing.get("content", {}).items():
                if not ({"example", "examples"} & set(media) or is_shown(contract, media.get("schema", {}))):
                    place = sources.of_operation(operation.id) or ""
                    found.append(Finding(place, f"{operation.id}: no example of {name} as {media_type}"))
    return found


def is_shown(contract: Node, schema: Node) -> bool:
    """Whether a schema has an example, or all of its parts have one. Bytes need none."""
    schema = resolved(contract, schema)
    if "example" in schema or "enum" in schema or schema.get("format") == "binary":
        return True
    for word in COMPOSITIONS:
        if word in schema:
            return all(is_shown(contract, one) for one in schema[word])
    if "items" in schema:
        return is_shown(contract, schema["items"])
    parts: list[Any] = list(schema.get("properties", {}).values())
    return bool(parts) and all(is_shown(contract, part) for part in parts)
