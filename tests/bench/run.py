"""`make bench`: how fast the server is beside what others would write, with the same rows and checks.

It ends with 1 when a target is missed, and with 2 when it could not measure.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import httpx

from tests.bench.blackbox import failures
from tests.bench.closed_loop import require_wrk
from tests.bench.contenders import BENCH_PYTHON, CONTENDERS, Contender
from tests.bench.guarantees import measure_costs
from tests.bench.measuring import FULL, QUICK, Measuring, Plan
from tests.bench.report import Report
from tests.bench.rows import Scale
from tests.bench.serving import OTHER_CORE, SERVER_CORE, Serving, Stage, serving, set_up
from tests.bench.targets import verdicts
from tests.e2e.server import ServerDidNotStart
from tests.faults.stage import NotThere

QUICK_SCALE, FULL_SCALE = Scale(100, 1_000), Scale(200, 5_000)
RESULTS = Path(__file__).with_name("results.md")
PLOT = Path(__file__).with_name("plot.py")


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


def measure(contenders: Sequence[Contender], plan: Plan, scale: Scale) -> bool:
    """Measure, write the results, and return whether every target was met."""
    with (
        tempfile.TemporaryDirectory(prefix="sartiq-bench-") as folder,
        set_up(Path(folder), scale) as stage,
    ):
        with contextlib.ExitStack() as running:
            servers = [running.enter_context(serving(stage, each)) for each in contenders]
            seen = Measuring(stage, [checked(stage, server) for server in servers], plan).run()
        print("what each guarantee costs", flush=True)
        costs = measure_costs(stage, plan.cost_rounds)
    found = list(verdicts(seen, costs))
    report = Report(contenders, seen, costs, plan, scale)
    text = "\n".join(report.lines(found)).rstrip() + "\n"
    RESULTS.write_text(text, encoding="utf-8")
    plot = [str(BENCH_PYTHON), str(PLOT), str(RESULTS.with_suffix(".svg"))]
    subprocess.run(plot, input=json.dumps(report.drawing()), text=True, check=True)
    print(text)
    return all(each.is_met for each in found)


def main() -> int:
    """Measure and return the exit status."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument("--full", action="store_true", help="a million rows, and 40 minutes")
    parser.add_argument("--only", nargs="+", default=[], help="peers to measure beside ours")
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
