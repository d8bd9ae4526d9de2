"""The scenario of a mock server: rules for responses, generations and webhooks, each for a number of times.

`openapi/mock.yaml` is the contract of a scenario. The document is valid when it comes here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

EVERY = "*"
"""The name in a rule that stands for every operation, or for every type of event."""
LISTS = ("responses", "generations", "webhooks")

Document = Mapping[str, Any]
Rule = Mapping[str, Any]


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
            self._rules = {name: list(document.get(name, ())) for name in LISTS}
            self._used = {name: [0] * len(rules) for name, rules in self._rules.items()}

    def reset(self) -> None:
        """Return to the scenario at the start."""
        self.replace(self._initial)

    def describe(self) -> dict[str, Any]:
        """Return the rules, each with the number of times that it was used."""
        with self._lock:
            return {
                name: [{**rule, "used": used} for rule, used in zip(rules, self._used[name], strict=True)]
                for name, rules in self._rules.items()
            }

    def take_response(self, operation_id: str, *, with_every: bool) -> Rule | None:
        """Use the next rule for a request to an operation, if there is one.

        Args:
            operation_id: The operation.
            with_every: Whether rules for every operation apply to this one.
        """
        names = {operation_id, EVERY} if with_every else {operation_id}
        return self._take("responses", lambda rule: rule["operation"] in names)

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
                if matches(rule) and used[index] < rule.get("times", used[index] + 1):
                    used[index] += 1
                    return rule
        return None
