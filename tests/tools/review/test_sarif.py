"""`make review --sarif`: a log that tools for SARIF accept, with a file and a line for each alert."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from tests.tools.review.conftest import RepositoryCopy
from tests.tools.review.test_review import PLACE, REMOVED, build_review
from tools.conformance.sartiq_conformance.diff.change import Change
from tools.review.checks import Finding
from tools.review.report import Alert, list_alerts, list_stopped_alerts
from tools.review.sarif import WITHOUT_PLACE, render_sarif, rule_id

SECTIONS: dict[str, Any] = {
    # The parts of SARIF 2.1.0 (OASIS) that a log of ours has, by the sections of the standard. Objects are
    # closed as in the schema of OASIS, so a misspelled property is an error.
    "sarifLog-3.13": {
        "required": ["version", "runs"],
        "properties": {
            "$schema": {"type": "string", "format": "uri"},
            "version": {"const": "2.1.0"},
            "runs": {"type": "array", "items": {"$ref": "#/$defs/run-3.14"}},
        },
    },
    "run-3.14": {
        "required": ["tool"],
        "properties": {
            "tool": {"$ref": "#/$defs/tool-3.18"},
            "columnKind": {"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
            "results": {"type": "array", "items": {"$ref": "#/$defs/result-3.27"}},
        },
    },
    "tool-3.18": {"required": ["driver"], "properties": {"driver": {"$ref": "#/$defs/toolComponent-3.19"}}},
    "toolComponent-3.19": {
        "required": ["name"],
        "properties": {
            "name": {"type": "string"},
            "version": {"type": "string"},
            "rules": {
                "type": "array",
                "uniqueItems": True,
                "items": {"$ref": "#/$defs/reportingDescriptor-3.49"},
            },
        },
    },
    "reportingDescriptor-3.49": {
        "required": ["id"],
        "properties": {
            "id": {"type": "string"},
            "name": {"type": "string"},
            "shortDescription": {"$ref": "#/$defs/message-3.11"},
        },
    },
    "result-3.27": {
        "required": ["message"],
        "properties": {
            "ruleId": {"type": "string"},
            "ruleIndex": {"type": "integer", "minimum": -1},
            "level": {"enum": ["none", "note", "warning", "error"]},
            "message": {"$ref": "#/$defs/message-3.11"},
            "locations": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/location-3.28"}},
            "partialFingerprints": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    },
    "message-3.11": {"required": ["text"], "properties": {"text": {"type": "string", "minLength": 1}}},
    "location-3.28": {"properties": {"physicalLocation": {"$ref": "#/$defs/physicalLocation-3.29"}}},
    "physicalLocation-3.29": {
        "required": ["artifactLocation"],
        "properties": {
            "artifactLocation": {"$ref": "#/$defs/artifactLocation-3.4"},
            "region": {"$ref": "#/$defs/region-3.30"},
        },
    },
    "artifactLocation-3.4": {
        "properties": {
            "uri": {"type": "string", "pattern": r"^openapi/\S+\.yaml$"},
            "uriBaseId": {"const": "%SRCROOT%"},
        }
    },
    "region-3.30": {"properties": {"startLine": {"type": "integer", "minimum": 1}}},
}
LOG = jsonschema_rs.validator_for(
    {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$ref": "#/$defs/sarifLog-3.13",
        "$defs": {
            name: {"type": "object", "additionalProperties": False, **part} for name, part in SECTIONS.items()
        },
    },
    validate_formats=True,
)


def parse_log(text: str) -> dict[str, Any]:
    """Return the run of a log that is valid."""
    log = json.loads(text)
    assert [f"{error.instance_path} {error.message}" for error in LOG.iter_errors(log)] == []
    run: dict[str, Any] = log["runs"][0]
    return run


def test_findings_and_changes_become_results_with_file_and_line() -> None:
    finding = Finding("openapi/paths/brands.yaml:7", "The operation has no summary. (operation-summary)")
    wider = Change("security", (), "`a` also accepts `ApiKey`.", "#/paths")
    review = build_review(changes=[REMOVED, wider], findings={"Redocly": [finding]})
    review.comparisons[1].changes = [wider]
    run = parse_log(render_sarif(list_alerts(review), "1.4.0"))
    results = [
        (
            result["level"],
            result["ruleId"],
            result["message"]["text"],
            "{uri}:{startLine}".format(
                **result["locations"][0]["physicalLocation"]["artifactLocation"],
                **result["locations"][0]["physicalLocation"]["region"],
            ),
        )
        for result in run["results"]
    ]
    assert results == [
        ("error", "redocly/operation-summary", finding.text, finding.place),
        ("error", "breaking", REMOVED.text, PLACE),
        ("warning", "security-relevant", wider.text, WITHOUT_PLACE),
    ]
    rules = run["tool"]["driver"]["rules"]
    assert [rules[result["ruleIndex"]]["id"] for result in run["results"]] == [row[1] for row in results]


def test_a_fingerprint_stays_when_the_line_moves() -> None:
    def fingerprint(place: str) -> str:
        run = parse_log(render_sarif([Alert("error", "Redocly", place, "Text (a-rule)")], "1"))
        value: str = run["results"][0]["partialFingerprints"]["contractReview/v1"]
        return value

    assert fingerprint("openapi/paths/a.yaml:7") == fingerprint("openapi/paths/a.yaml:9")
    assert fingerprint("openapi/paths/a.yaml:7") != fingerprint("openapi/paths/b.yaml:7")


def test_a_contract_that_passes_has_a_log_without_results() -> None:
    assert parse_log(render_sarif(list_alerts(build_review()), "1.4.0"))["results"] == []


def test_a_review_that_stopped_has_a_log_too() -> None:
    found = [
        Finding("openapi/paths/products.yaml:4", "mapping values are not allowed"),
        Finding("", "Failed"),
    ]
    run = parse_log(render_sarif(list_stopped_alerts(found), "0"))
    assert [result["ruleId"] for result in run["results"]] == ["contract", "contract"]


def test_rules_of_the_project_have_one_id_for_all_their_findings() -> None:
    alert = Alert("error", "Project rules", "", "Brand/name: add maxLength (every string has a maximum)")
    assert rule_id(alert) == "project-rules"


@pytest.mark.slow("it runs the review in a copy of the repository")
def test_the_command_writes_the_log_of_a_broken_contract(repository: RepositoryCopy, tmp_path: Path) -> None:
    repository.edit("openapi/paths/products.yaml", "    operationId: list_products\n", "")
    report = tmp_path / "review.sarif"
    outcome = repository.run("tools.review.run", "--sarif", str(report))
    assert outcome.returncode == 1, outcome.stderr
    run = parse_log(report.read_text(encoding="utf-8"))
    places = [result["locations"][0]["physicalLocation"] for result in run["results"]]
    assert "openapi/paths/products.yaml" in [place["artifactLocation"]["uri"] for place in places]
