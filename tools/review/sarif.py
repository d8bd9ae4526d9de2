"""Format the alerts of a review as SARIF 2.1.0, which GitHub code scanning and editors read.

SARIF: https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any

from tools.review.report import Alert

VERSION = "2.1.0"
SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
WITHOUT_PLACE = "openapi/openapi.yaml:1"
"""Where an alert without a place is shown: GitHub rejects results without a location."""


def render_sarif(alerts: Iterable[Alert], version: str) -> str:
    """Return a SARIF log with one run.

    Args:
        alerts: The alerts of the review; none for a contract that passes, so that GitHub closes earlier ones.
        version: The version of the contract, which is that of the tool.
    """
    alerts = list(alerts)
    rules = {rule_id(alert): alert.title for alert in alerts}
    numbers = {rule: number for number, rule in enumerate(sorted(rules))}
    driver = {
        "name": "make review",
        "version": version,
        "rules": [
            {"id": rule, "name": rule, "shortDescription": {"text": rules[rule]}} for rule in sorted(rules)
        ],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_build_result(alert, numbers) for alert in alerts],
    }
    return json.dumps({"$schema": SCHEMA, "version": VERSION, "runs": [run]}, indent=2) + "\n"


def rule_id(alert: Alert) -> str:
    """Return the id of an alert's rule: its title, and the rule of a linter that ends its text."""
    rule = re.search(r" \(([\w/.-]+)\)$", alert.text)
    title = "-".join(re.findall(r"[a-z]+", alert.title.partition(":")[0].lower()))
    return f"{title}/{rule[1]}" if rule else title


def _build_result(alert: Alert, numbers: dict[str, int]) -> dict[str, Any]:
    rule = rule_id(alert)
    file, _, line = (alert.place or WITHOUT_PLACE).rpartition(":")
    # Without the line, so that GitHub recognizes an alert after other lines have moved it.
    fingerprint = hashlib.sha256(f"{rule} {file} {alert.text}".encode()).hexdigest()
    return {
        "ruleId": rule,
        "ruleIndex": numbers[rule],
        "level": alert.level,
        "message": {"text": alert.text},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": file, "uriBaseId": "%SRCROOT%"},
                    "region": {"startLine": int(line)},
                }
            }
        ],
        "partialFingerprints": {"contractReview/v1": fingerprint},
    }
