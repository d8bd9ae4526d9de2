"""`make bench`: compare the server with peers on other frameworks, with the same rows and the same contract.

The exit status is 1 if a request or a measurement failed or a rule is broken, and 2 if nothing could be
measured. A missed target is shown as missed and does not change it.
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

from tools.bench.calm import Steadiness, measure_busy_share, wait_until_calm
from tools.bench.closed_loop import require_wrk
from tools.bench.conformance_check import find_failures
from tools.bench.environment import (
    BOTH_CORES,
    BenchEnvironment,
    BenchServer,
    run_environment,
    run_server,
)
from tools.bench.feature_costs import measure_costs
from tools.bench.measurements import FULL, QUICK, BenchmarkRun, Plan, ServerResults
from tools.bench.progress import Progress
from tools.bench.report import Report, replace_tables
from tools.bench.rows import Scale
from tools.bench.servers import BENCH_PYTHON, QUICK_SERVERS, SERVERS, ServerSpec
from tools.bench.shop import ShopResults, measure_shop
from tools.bench.targets import Run, list_verdicts
from tools.bench.workers import measure_workers
from tools.servers.processes import DependencyMissing
from tools.servers.server import REPORTS, ROOT, ServerDidNotStart

QUICK_SCALE, FULL_SCALE = Scale(100, 1_000), Scale(200, 5_000)
RESULTS, PERFORMANCE_PAGE = Path(__file__).with_name("results.md"), ROOT / "docs" / "performance.md"
FULL_RESULTS = RESULTS.with_name("results-full.md")
PLOT = Path(__file__).with_name("plot.py")
REPORT = REPORTS / "bench.md"
MAX_WAIT_SECONDS = 300
SHOP_SHARE, SHOP_BATCHES = 20, 1
"""A shop imports this part of the rows of the other measurements, and approves this many batches."""
logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class NonConformingServer(Exception):
    """A server does not conform to the contract. The message lists the failed checks."""


def require_cores() -> None:
    """Raise `DependencyMissing` on a machine with one core."""
    if not set(BOTH_CORES) <= os.sched_getaffinity(0):
        raise DependencyMissing("a second core: PostgreSQL and the load generator need their own")


def require_conformance(environment: BenchEnvironment, server: BenchServer) -> BenchServer:
    """Return the server if it conforms to the contract.

    Raises:
        NonConformingServer: A check failed.
    """
    with httpx.Client(base_url=server.url, timeout=60) as client:
        failures = list(find_failures(client, environment.scale, server.spec.missing))
    if failures:
        raise NonConformingServer("\n  ".join([f"{server.spec.title} does not pass the check:", *failures]))
    omissions = ", ".join(server.spec.omissions)
    print(f"{server.spec.title} passes the check" + (f"; it has no {omissions}" if omissions else ""))
    return server


def compare_servers(
    environment: BenchEnvironment,
    specs: Sequence[ServerSpec],
    plan: Plan,
    progress: Progress,
    steadiness: Steadiness,
) -> tuple[dict[str, ServerResults], dict[str, str]]:
    """Measure the servers; return the results by name, and the errors by title."""
    failed = {}
    with contextlib.ExitStack() as running:
        servers = []
        for spec in specs:
            progress.report(f"start and check: {spec.title}")
            try:
                server = running.enter_context(run_server(environment, spec))
                servers.append(require_conformance(environment, server))
            except (NonConformingServer, ServerDidNotStart) as error:
                if spec.is_ours:
                    raise
                print(error, file=sys.stderr)
                failed[spec.title] = " ".join(str(error).split())[:200]
        benchmark_run = BenchmarkRun(environment, servers, plan, progress, steadiness)
        return benchmark_run.run(), {**failed, **benchmark_run.failed}


def measure_shop_on_both_cores(environment: BenchEnvironment, scale: Scale) -> ShopResults:
    """Measure imports, batches and the change feed on an empty database."""
    environment.run("CREATE DATABASE shop OWNER sartiq")
    with environment.using_both_cores():
        rows = scale.rows // SHOP_SHARE
        return measure_shop(environment.url("shop"), environment.folder / "shop", rows, SHOP_BATCHES)


def try_measure(name: str, failed: dict[str, str], measure: Callable[[], Result]) -> Result | None:
    """Return the result, or None after an error, so that earlier results are not lost."""
    try:
        return measure()
    except Exception as error:
        logger.exception("%s could not be measured", name)
        failed[name] = repr(error)
        return None


def run_benchmark(
    specs: Sequence[ServerSpec], plan: Plan, scale: Scale, results_file: Path | None, wait_seconds: float
) -> bool:
    """Measure, write the results, and return whether no rule is broken.

    Args:
        results_file: The committed file of the results, or None if they are not complete.
        wait_seconds: The longest time to wait for a calm machine.
    """
    progress = Progress(plan.expected_seconds(len(specs), scale.rows))
    steadiness = Steadiness(
        wait_until_calm(wait_seconds, progress.report, partial(measure_busy_share, BOTH_CORES))
    )
    progress.report(f"create {scale.rows:,} rows")
    with (
        tempfile.TemporaryDirectory(prefix="sartiq-bench-") as folder,
        run_environment(Path(folder), scale) as environment,
    ):
        results, failed = compare_servers(environment, specs, plan, progress, steadiness)
        environment.copy("whole")
        progress.report("one and two workers")
        workers = try_measure(
            "one and two workers",
            failed,
            partial(measure_workers, environment, "whole", plan.worker_rounds, plan.seconds),
        )
        progress.report("cost of each guarantee")
        costs = try_measure(
            "cost of each guarantee", failed, partial(measure_costs, environment, "whole", plan.cost_seconds)
        )
        progress.report("imports, batches and the change feed of a shop")
        shop = try_measure("a shop", failed, partial(measure_shop_on_both_cores, environment, scale))
    run = Run(results, costs, workers, failed, shop)
    verdicts = list(list_verdicts(run, specs))
    report = Report(specs, run, plan, scale, steadiness)
    plot = (results_file or RESULTS).with_suffix(".svg").name
    text = "\n".join(report.lines(verdicts, plot)).rstrip() + "\n"
    print(text)
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(text, encoding="utf-8")
    if results_file is not None:
        publish(text, results_file, steadiness, report.plot_data())
    return all(each.is_met for each in verdicts if each.target.is_rule)


def publish(text: str, results_file: Path, steadiness: Steadiness, plot_data: dict[str, Any]) -> None:
    """Write the results, their plot, and the tables of the performance page.

    A shared machine is not steady for an hour, so the complete run is always written and lists its unsteady
    rounds. The tables of the page are those of the short run.
    """
    if results_file == RESULTS:
        if not steadiness.is_steady:
            print(f"The machine was not steady, so only {REPORT.relative_to(ROOT)} has these results.")
            return
        page = replace_tables(text, PERFORMANCE_PAGE.read_text(encoding="utf-8"))
        PERFORMANCE_PAGE.write_text(page, encoding="utf-8")
    results_file.write_text(text, encoding="utf-8")
    draw_plot(plot_data, results_file.with_suffix(".svg"))


def draw_plot(data: dict[str, Any], path: Path) -> None:
    """Write the plot to a file."""
    command = [str(BENCH_PYTHON), str(PLOT), str(path)]
    subprocess.run(command, input=json.dumps(data), text=True, check=True)


def main() -> int:
    """Measure and return the exit status."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument(
        "--full",
        action="store_true",
        help="measure every server and operation with a million rows, in 80 minutes",
    )
    parser.add_argument("--only", nargs="+", default=[], help="measure only these peers and write no results")
    parser.add_argument(
        "--wait",
        type=float,
        default=MAX_WAIT_SECONDS,
        metavar="SECONDS",
        help="the longest wait for a calm machine",
    )
    options = parser.parse_args()
    specs = [each for each in SERVERS if each.is_ours or each.name in options.only]
    if not options.only:
        specs = list(SERVERS if options.full else QUICK_SERVERS)
    try:
        require_cores()
        require_wrk()
        plan, scale = (FULL, FULL_SCALE) if options.full else (QUICK, QUICK_SCALE)
        results_file = FULL_RESULTS if options.full else RESULTS
        is_met = run_benchmark(specs, plan, scale, None if options.only else results_file, options.wait)
    except DependencyMissing as missing:
        print(f"Not measured: missing {missing}", file=sys.stderr)
        return 2
    except (NonConformingServer, ServerDidNotStart) as error:
        print(f"Not measured: {error}", file=sys.stderr)
        return 2
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
