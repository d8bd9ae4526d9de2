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

from tests.bench.blackbox import failures
from tests.bench.closed_loop import require_wrk
from tests.bench.contenders import BENCH_PYTHON, CONTENDERS, Contender
from tests.bench.guarantees import measure_costs
from tests.bench.measuring import FULL, QUICK, Measuring, Plan, Seen
from tests.bench.progress import Progress
from tests.bench.report import Report, with_costs_of
from tests.bench.rows import Scale
from tests.bench.serving import OTHER_CORE, SERVER_CORE, Serving, Stage, serving, set_up
from tests.bench.targets import Run, verdicts
from tests.bench.workers import measure_workers
from tests.e2e.server import ROOT, ServerDidNotStart
from tests.faults.stage import NotThere

QUICK_SCALE, FULL_SCALE = Scale(100, 1_000), Scale(200, 5_000)
RESULTS, README = Path(__file__).with_name("results.md"), ROOT / "README.md"
PLOT = Path(__file__).with_name("plot.py")
logger = logging.getLogger(__name__)

Measured = TypeVar("Measured")


class Unfit(Exception):
    """A contender does otherwise than the contract says; the message lists where."""


def require_cores() -> None:
    """Raise NotThere where the server cannot have a core of its own."""
    if not {SERVER_CORE, OTHER_CORE} <= os.sched_getaffinity(0):
        raise NotThere("two cores, one for the server and one for PostgreSQL and the load")


def checked(stage: Stage, server: Serving) -> Serving:
    """Return the server, which keeps the contract; Unfit says where it does not."""
    with httpx.Client(base_url=server.url, timeout=60) as client:
        found = list(failures(client, stage.scale))
    if found:
        raise Unfit("\n  ".join([f"{server.contender.title} does not pass the check:", *found]))
    lacks = ", ".join(server.contender.less)
    print(f"{server.contender.title} passes the check" + (f"; it has no {lacks}" if lacks else ""))
    return server


def compare(
    stage: Stage, contenders: Sequence[Contender], plan: Plan, progress: Progress
) -> tuple[dict[str, Seen], dict[str, str]]:
    """Measure the contenders; return what was seen of each, and who failed at what."""
    failed = {}
    with contextlib.ExitStack() as running:
        servers = []
        for contender in contenders:
            progress.tell(f"start and check: {contender.title}")
            try:
                servers.append(checked(stage, running.enter_context(serving(stage, contender))))
            except (Unfit, ServerDidNotStart) as error:
                if contender.is_ours:
                    raise
                print(error, file=sys.stderr)
                failed[contender.title] = " ".join(str(error).split())[:200]
        measuring = Measuring(stage, servers, plan, progress)
        return measuring.run(), {**failed, **measuring.failed}


def attempt(what: str, failed: dict[str, str], measure: Callable[[], Measured]) -> Measured | None:
    """Return what was measured; None when it failed, so that what was measured before is not lost."""
    try:
        return measure()
    except Exception as error:
        logger.exception("%s could not be measured", what)
        failed[what] = repr(error)
        return None


def measure(contenders: Sequence[Contender], plan: Plan, scale: Scale) -> bool:
    """Measure, write the results, and return whether every target was met."""
    progress = Progress(plan.expected_seconds(len(contenders), scale.rows))
    progress.tell(f"make {scale.rows:,} rows")
    with (
        tempfile.TemporaryDirectory(prefix="sartiq-bench-") as folder,
        set_up(Path(folder), scale) as stage,
    ):
        seen, failed = compare(stage, contenders, plan, progress)
        stage.copy("whole")
        progress.tell("one worker and two")
        workers = attempt(
            "one worker and two",
            failed,
            partial(measure_workers, stage, "whole", plan.worker_rounds, plan.seconds),
        )
        progress.tell("what each guarantee costs")
        costs = attempt(
            "what each guarantee costs", failed, partial(measure_costs, stage, "whole", plan.cost_seconds)
        )
    run = Run(seen, costs, workers, failed)
    found = list(verdicts(run))
    report = Report(contenders, run, plan, scale)
    text = "\n".join(report.lines(found)).rstrip() + "\n"
    print(text)
    # A part of a run is not what others go by.
    if len(contenders) == len(CONTENDERS):
        RESULTS.write_text(text, encoding="utf-8")
        README.write_text(with_costs_of(text, README.read_text(encoding="utf-8")), encoding="utf-8")
        draw(report.drawing())
    return all(each.is_met for each in found)


def draw(measured: dict[str, Any]) -> None:
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
    contenders = [
        each for each in CONTENDERS if each.is_ours or not options.only or each.name in options.only
    ]
    try:
        require_cores()
        require_wrk()
        is_met = measure(
            contenders, FULL if options.full else QUICK, FULL_SCALE if options.full else QUICK_SCALE
        )
    except NotThere as missing:
        print(f"Not measured, for want of {missing}", file=sys.stderr)
        return 2
    except (Unfit, ServerDidNotStart) as error:
        print(f"Not measured: {error}", file=sys.stderr)
        return 2
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
