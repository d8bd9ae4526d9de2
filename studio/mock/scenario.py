"""The scenario of a mock server: rules for responses, generations and webhooks, each for a number of times.

`openapi/mock.yaml` is the contract of a scenario. The document is valid when it comes here.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

EVERY = "*"
"""The name in a rule that stands for every operation, or for every type of event."""
LISTS = ("responses", "generations", "webhooks")

Document = Mapping[str, Any]
Rule = Mapping[str, Any]


@dataclass(frozen=True)
class MockRequest:
    """What conditions of rules compare. Names of headers are in lower case."""

    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None

    def meets(self, condition: Mapping[str, Mapping[str, Any]]) -> bool:
        """Return whether the request has all values of a condition."""
        headers = {name.lower(): value for name, value in condition.get("headers", {}).items()}
        return (
            _has(self.path, condition.get("path", {}))
            and _has(self.query, condition.get("query", {}))
            and _has(self.headers, headers)
            and all(_is_at(self.body, pointer, value) for pointer, value in condition.get("body", {}).items())
        )


class Scenario:
    """The rules and how often each was used. It is thread-safe.

    Args:
        document: The scenario at the start, to which `reset` returns.
    """

    def __init__(self, document: Document | None = None) -> None:
        self._initial = document or {}
        self._lock = threading.Lock()
        self.replace(self._initial)

    def replace(self, document: Document) -> None:
        """Use these rules from now on; none of them has been used."""
        with self._lock:
            self._settings = {"seed": document["seed"]} if "seed" in document else {}
            self._random = random.Random(document.get("seed", 0))  # noqa: S311 - repeatable by its seed, guards nothing
            self._rules = {name: list(document.get(name, ())) for name in LISTS}
            self._used = {name: [0] * len(rules) for name, rules in self._rules.items()}

    def reset(self) -> None:
        """Return to the scenario at the start."""
        self.replace(self._initial)

    def describe(self) -> dict[str, Any]:
        """Return the seed if there is one, and the rules, each with the number of times that it was used."""
        with self._lock:
            rules = {
                name: [{**rule, "used": used} for rule, used in zip(rules, self._used[name], strict=True)]
                for name, rules in self._rules.items()
            }
            return {**self._settings, **rules}

    def compares_bodies(self, operation_id: str) -> bool:
        """Return whether a rule for an operation has a condition on the body."""
        names = {operation_id, EVERY}
        with self._lock:
            return any(
                "body" in rule.get("when", ())
                for rule in self._rules["responses"]
                if rule["operation"] in names
            )

    def take_response(self, operation_id: str, request: MockRequest, *, with_every: bool) -> Rule | None:
        """Use the next rule for a request to an operation, if there is one.

        Args:
            operation_id: The operation.
            request: The request.
            with_every: Whether rules for every operation apply to this one.
        """
        names = {operation_id, EVERY} if with_every else {operation_id}
        return self._take(
            "responses", lambda rule: rule["operation"] in names and request.meets(rule.get("when", {}))
        )

    def take_generation(self) -> Rule | None:
        """Use the next rule for a new generation, if there is one."""
        return self._take("generations", lambda _rule: True)

    def take_webhook(self, event_type: str) -> Rule | None:
        """Use the next rule for a message, if there is one."""
        return self._take("webhooks", lambda rule: rule.get("event", EVERY) in (event_type, EVERY))

    def _take(self, name: str, matches: Callable[[Rule], bool]) -> Rule | None:
        with self._lock:
            used = self._used[name]
            for index, rule in enumerate(self._rules[name]):
                if not matches(rule) or used[index] >= rule.get("times", used[index] + 1):
                    continue
                if "probability" not in rule or self._random.random() < rule["probability"]:
                    used[index] += 1
                    return rule
        return None


def is_certain(rule: Rule) -> bool:
    """Return whether a rule applies to all that it names, so that no later rule for the same does."""
    return "times" not in rule and "when" not in rule and rule.get("probability", 1) == 1


def _has(actual: Mapping[str, str], wanted: Mapping[str, Any]) -> bool:
    return all(name in actual and actual[name] == _to_text(value) for name, value in wanted.items())


def _is_at(value: Any, pointer: str, wanted: Any) -> bool:
    """Return whether a JSON value has another one at a pointer (RFC 6901)."""
    for escaped in pointer.split("/")[1:]:
        step = escaped.replace("~1", "/").replace("~0", "~")
        if isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        elif isinstance(value, dict) and step in value:
            value = value[step]
        else:
            return False
    return not isinstance(value, dict | list) and _to_text(value) == _to_text(wanted)


def _to_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
