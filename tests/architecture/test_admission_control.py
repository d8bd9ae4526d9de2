"""The list of everything that rejects a request is complete: settings, problem codes and tests agree."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from db.errors import RateLimited
from handlers.pipeline.admission.limits import ADMISSION_CONTROLS, Limit
from handlers.pipeline.errors import build_problem
from handlers.pipeline.problem_types import PROBLEMS
from studio.infrastructure.settings import Settings, list_settings
from studio.rate_limits.limits import QuotaPolicies

POLICIES = [policy.name for policy in vars(QuotaPolicies.from_settings(Settings())).values()]
OVERLOAD = {408, 413, 429, 503}
"""The statuses that only admission control has."""


def test_every_limit_is_explained_once() -> None:
    explained = Counter(limit for control in ADMISSION_CONTROLS for limit in control.limits)
    assert explained == Counter(Limit)


def test_every_kind_names_settings_and_problem_codes_that_exist() -> None:
    settings = {variable.name for _, variable in list_settings()}
    for control in ADMISSION_CONTROLS:
        assert set(control.settings) <= settings, control
        assert bool(control.code) == (control.status is not None), control
        assert not control.code or PROBLEMS[control.code].status == control.status, control
        # Several causes share these statuses, so the log must tell them apart.
        assert bool(control.limits) == (control.status in (429, 503)), control


def test_every_problem_code_of_an_overload_has_a_kind() -> None:
    codes = {code for code, problem in PROBLEMS.items() if problem.status in OVERLOAD}
    assert codes <= {control.code for control in ADMISSION_CONTROLS}


def test_a_rate_limit_is_logged_by_the_name_of_its_policy() -> None:
    assert [build_problem(RateLimited(policy, 1)).limit for policy in POLICIES] == POLICIES


def test_every_limit_is_provoked_by_a_test(root: Path) -> None:
    own = Path(__file__).name
    texts = [path.read_text("utf-8") for path in (root / "tests").rglob("test_*.py") if path.name != own]
    missing = {
        limit.name
        for limit in Limit
        if limit not in POLICIES and not any(f"Limit.{limit.name}" in text for text in texts)
    }
    # A real server provokes it, and the test reads its log: tests/e2e/test_connections.py.
    assert missing == {"CONNECTIONS"}
