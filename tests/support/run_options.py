"""Which tests a run includes, and how long it may take.

`make test` leaves out the tests marked `slow`; `make test-slow` runs them. `make test-all` (`--long`) runs
everything. At the end, the run prints its duration and CPU time beside the budget.
"""

from __future__ import annotations

import gc
import os
import time
from collections import Counter
from collections.abc import Generator
from typing import Any

import pytest

from tests.support.requirements import MISSING
from tools.servers.databases import server_url

BUDGET_SECONDS = 240
"""How long a contributor waits for `make test` on two cores."""
SLOWEST_MODULES = 8
SLOW_FOLDERS = ("e2e", "resilience")
"""Their tests start server processes."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options `--slow` and `--long`."""
    parser.addoption("--slow", action="store_true", help="run the tests marked slow, too")
    parser.addoption("--long", action="store_true", help="run everything: slow tests and long forms")


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers, and measure the duration in the process that prints the summary."""
    config.addinivalue_line("markers", "slow(reason): run with --slow or --long only")
    config.addinivalue_line("markers", "without_policies: run this module without row-level security")
    if not hasattr(config, "workerinput"):
        if config.getoption("numprocesses", None):
            server_url()  # started before the processes of the run, which share it
        config.pluginmanager.register(DurationBudget(), "duration-budget")
        config.pluginmanager.register(MissingRequirements(), "missing-requirements")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect slow tests, unless the options ask for them."""
    # Slow files start first: a process that starts one last would leave the others without work.
    items.sort(key=lambda item: item.path.parent.name not in SLOW_FOLDERS)
    if config.getoption("--long") or config.getoption("--slow"):
        return
    slow = {item for item in items if _is_slow(item)}
    if slow:
        config.hook.pytest_deselected(items=list(slow))
        items[:] = [item for item in items if item not in slow]


def _is_slow(item: pytest.Item) -> bool:
    marker = item.get_closest_marker("slow")
    if marker is not None and not marker.args:
        raise pytest.UsageError(f"{item.nodeid}: `slow` needs a reason")
    return marker is not None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect tests without the garbage collector, and let it ignore what exists by then and run less often.

    The compiled contract and the collected tests are a million objects that live as long as the process.
    Collecting garbage among them took a fifth of the CPU of the collection of tests.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(100_000, 20, 100)
        gc.enable()


class DurationBudget:
    """Pytest plugin that prints the duration of a complete run beside its budget."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.seconds: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add up the duration of setup, test and teardown by module."""
        self.seconds[report.location[0]] += report.duration

    def pytest_terminal_summary(self, terminalreporter: Any, config: pytest.Config) -> None:
        """Print the duration if the run took long enough for a reader to care.

        The CPU time of all processes but PostgreSQL and Redis depends little on other work on the machine.
        """
        seconds = time.monotonic() - self.started
        if seconds < BUDGET_SECONDS / 4:
            return
        times = os.times()
        cpu_seconds = times.user + times.system + times.children_user + times.children_system
        is_short = not (config.getoption("--long") or config.getoption("--slow"))
        budget = f" (budget: {BUDGET_SECONDS} s on two quiet cores)" if is_short else ""
        terminalreporter.section(f"{seconds:.0f} s with {cpu_seconds:.0f} s of CPU{budget}")
        for module, duration in self.seconds.most_common(SLOWEST_MODULES):
            terminalreporter.write_line(f"{duration:6.1f} s  {module}")


class MissingRequirements:
    """Pytest plugin that prints in one line what was skipped because this machine lacks something."""

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print each requirement with the number of its tests and the command that installs it."""
        reasons = [report.longrepr[2] for report in terminalreporter.stats.get("skipped", ())]
        missing = Counter(reason.partition(MISSING)[2] for reason in reasons if MISSING in reason)
        if missing:
            parts = (f"{count} need {requirement}" for requirement, count in missing.most_common())
            terminalreporter.write_line(f"{missing.total()} tests were skipped: {'; '.join(parts)}.")
