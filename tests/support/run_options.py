"""Which tests a run includes, and how long it may take.

`make test` leaves out the tests marked `slow`, and repetitions on SQLite of tests that run the same Python
code on PostgreSQL. `make test-all` (`--long`) runs everything. At the end, the run prints its duration beside
the budget, and the modules that took longest.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from db.engine import build_engine
from tests.support.databases import admin_url

BUDGET_SECONDS = 240
"""How long a contributor waits for `make test` on two cores."""
SLOWEST_MODULES = 8
SLOW_FOLDERS = ("e2e", "resilience")
"""Their tests start server processes."""

# Transactions, locks and migrations depend on the database. Tests with these fixtures run on both.
COMMITTING_FIXTURES = frozenset(("own_database_url", "committing_database", "empty_database_url"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option `--long`."""
    parser.addoption(
        "--long",
        action="store_true",
        help="run everything: slow tests, long forms, and every test on both databases",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers, and measure the duration in the process that prints the summary."""
    config.addinivalue_line(
        "markers",
        "both_databases: run on SQLite and on PostgreSQL, because SQL, locks or policies can differ",
    )
    config.addinivalue_line("markers", "slow(reason): run with --long only")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(DurationBudget(), "duration-budget")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect slow tests and repetitions on the second database, unless `--long` is set."""
    # Slow files start first: a process that starts one last would leave the others without work.
    items.sort(key=lambda item: item.path.parent.name not in SLOW_FOLDERS)
    if config.getoption("--long"):
        return
    deselected = [item for item in items if _is_slow(item)]
    if any(_database_kind(item) for item in items):
        first = "postgresql" if os.environ.get("CI") == "true" or _has_postgresql() else "sqlite"
        ids = {item.nodeid for item in items}
        deselected += [item for item in items if _is_repetition(item, first, ids)]
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        left_out = set(deselected)
        items[:] = [item for item in items if item not in left_out]


def _has_postgresql() -> bool:
    server = build_engine(admin_url(), pool_size=1)
    try:
        with server.connect() as connection:
            connection.execute(text("SELECT 1"))
        return True
    except OperationalError:
        return False
    finally:
        server.dispose()


def _is_slow(item: pytest.Item) -> bool:
    marker = item.get_closest_marker("slow")
    if marker is not None and not marker.args:
        raise pytest.UsageError(f"{item.nodeid}: `slow` needs a reason")
    return marker is not None


def _is_repetition(item: pytest.Item, first: str, ids: set[str]) -> bool:
    """Return whether a test runs on the first database, too, and cannot differ on this one."""
    kind = _database_kind(item)
    if kind is None or kind == first or _differs(item):
        return False
    return item.nodeid.replace(kind, first) in ids


def _database_kind(item: pytest.Item) -> str | None:
    parameters: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    return parameters.get("database_kind")


def _differs(item: pytest.Item) -> bool:
    fixtures: list[str] = getattr(item, "fixturenames", [])
    if item.path.parent.name == "db":
        return True
    return item.get_closest_marker("both_databases") is not None or not COMMITTING_FIXTURES.isdisjoint(
        fixtures
    )


class DurationBudget:
    """Pytest plugin that prints the duration of a complete run beside its budget."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.seconds: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add up the duration of setup, test and teardown by module."""
        self.seconds[report.location[0]] += report.duration

    def pytest_terminal_summary(self, terminalreporter: Any, config: pytest.Config) -> None:
        """Print the duration if the run took long enough for a reader to care."""
        seconds = time.monotonic() - self.started
        if seconds < BUDGET_SECONDS / 4:
            return
        budget = "" if config.getoption("--long") else f" (budget: {BUDGET_SECONDS} s on two quiet cores)"
        terminalreporter.section(f"{seconds:.0f} s{budget}")
        for module, duration in self.seconds.most_common(SLOWEST_MODULES):
            terminalreporter.write_line(f"{duration:6.1f} s  {module}")
