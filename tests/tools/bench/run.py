"""`make bench`: how fast the server is beside what others would write, with the same rows and checks.

It ends with 1 when a target is missed, and with 2 when it could not measure.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests.e2e.server import ROOT, ServerDidNotStart
from tests.resilience.processes import DependencyMissing
from tests.tools.bench.closed_loop import require_wrk
from tests.tools.bench.conformance_check import find_failures
from tests.tools.bench.environment import (
    DATABASE_CORE,
    SERVER_CORE,
    BenchEnvironment,
    BenchServer,
    run_environment,
    run_server,
)
from tests.tools.bench.feature_costs import measure_costs
from tests.tools.bench.measurements import FULL, QUICK, BenchmarkRun, Plan, ServerResults
from tests.tools.bench.progress import Progress
from tests.tools.bench.report import Report, replace_costs_table
from tests.tools.bench.rows import Scale
from tests.tools.bench.servers import BENCH_PYTHON, SERVERS, ServerSpec
from tests.tools.bench.targets import Run, list_verdicts
from tests.tools.bench.workers import measure_workers

QUICK_SCALE, FULL_SCALE = Scale(100, 1_000), Scale(200, 5_000)
RESULTS, PERFORMANCE_PAGE = Path(__file__).with_name("results.md"), ROOT / "docs" / "performance.md"
PLOT = Path(__file__).with_name("plot.py")
logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class NonConformingServer(Exception):
    """A contender does otherwise than the contract says; the message lists where."""


def require_cores() -> None:
    """Raise NotThere where the server cannot have a core of its own."""
    if not {SERVER_CORE, DATABASE_CORE} <= os.sched_getaffinity(0):
        raise DependencyMissing("two cores, one for the server and one for PostgreSQL and the load")


def require_conformance(environment: BenchEnvironment, server: BenchServer) -> BenchServer:
    """Return the server, which keeps the contract; Unfit says where it does not."""
    with httpx.Client(base_url=server.url, timeout=60) as client:
        found = list(find_failures(client, environment.scale))
    if found:
        raise NonConformingServer("\n  ".join([f"{server.spec.title} does not pass the check:", *found]))
    lacks = ", ".join(server.spec.omissions)
    print(f"{server.spec.title} passes the check" + (f"; it has no {lacks}" if lacks else ""))
    return server


def compare_servers(
    environment: BenchEnvironment, specs: Sequence[ServerSpec], plan: Plan, progress: Progress
) -> tuple[dict[str, ServerResults], dict[str, str]]:
    """Measure the contenders; return what was seen of each, and who failed at what."""
    failed = {}
    with contextlib.ExitStack() as running:
        servers = []
        for contender in specs:
            progress.report(f"start and check: {contender.title}")
            try:
                servers.append(
                    require_conformance(
                        environment, running.enter_context(run_server(environment, contender))
                    )
                )
            except (NonConformingServer, ServerDidNotStart) as error:
                if contender.is_ours:
                    raise
                print(error, file=sys.stderr)
                failed[contender.title] = " ".join(str(error).split())[:200]
        measuring = BenchmarkRun(environment, servers, plan, progress)
        return measuring.run(), {**failed, **measuring.failed}


def try_measure(name: str, failed: dict[str, str], measure: Callable[[], Result]) -> Result | None:
    """Return what was measured; None when it failed, so that what was measured before is not lost."""
    try:
        return measure()
    except Exception as error:
        logger.exception("%s could not be measured", name)
        failed[name] = repr(error)
        return None


def run_benchmark(specs: Sequence[ServerSpec], plan: Plan, scale: Scale) -> bool:
    """Measure, write the results, and return whether every target was met."""
    progress = Progress(plan.expected_seconds(len(specs), scale.rows))
    progress.report(f"make {scale.rows:,} rows")
    with (
        tempfile.TemporaryDirectory(prefix="sartiq-bench-") as folder,
        run_environment(Path(folder), scale) as stage,
    ):
        seen, failed = compare_servers(stage, specs, plan, progress)
        stage.copy("whole")
        progress.report("one worker and two")
        workers = try_measure(
            "one worker and two",
            failed,
            partial(measure_workers, stage, "whole", plan.worker_rounds, plan.seconds),
        )
        progress.report("what each guarantee costs")
        costs = try_measure(
            "what each guarantee costs", failed, partial(measure_costs, stage, "whole", plan.cost_seconds)
        )
    run = Run(seen, costs, workers, failed)
    found = list(list_verdicts(run))
    report = Report(specs, run, plan, scale)
    text = "\n".join(report.lines(found)).rstrip() + "\n"
    print(text)
    # A part of a run is not what others go by.
    if len(specs) == len(SERVERS):
        RESULTS.write_text(text, encoding="utf-8")
        page = replace_costs_table(text, PERFORMANCE_PAGE.read_text(encoding="utf-8"))
        PERFORMANCE_PAGE.write_text(page, encoding="utf-8")
        draw_plot(report.plot_data())
    return all(each.is_met for each in found)


def draw_plot(measured: dict[str, Any]) -> None:
    """Draw the plot beside the results."""
    plot = [str(BENCH_PYTHON), str(PLOT), str(RESULTS.with_suffix(".svg"))]
    subprocess.run(plot, input=json.dumps(measured), text=True, check=True)


def main() -> int:
    """Measure and return the exit status."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument("--full", action="store_true", help="a million rows, and half an hour")
    parser.add_argument(
        "--only", nargs="+", default=[], help="peers to measure beside ours; nothing is written"
    )
    options = parser.parse_args()
    contenders = [each for each in SERVERS if each.is_ours or not options.only or each.name in options.only]
    try:
        require_cores()
        require_wrk()
        is_met = run_benchmark(
            contenders, FULL if options.full else QUICK, FULL_SCALE if options.full else QUICK_SCALE
        )
    except DependencyMissing as missing:
        print(f"Not measured, for want of {missing}", file=sys.stderr)
        return 2
    except (NonConformingServer, ServerDidNotStart) as error:
        print(f"Not measured: {error}", file=sys.stderr)
        return 2
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
