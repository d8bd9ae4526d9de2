"""`make faults`: break what the server depends on while clients work, and check what it has acknowledged.

`processes` starts PostgreSQL, Redis, an API server, two workers and beat, and breaks Redis, PostgreSQL and
workers during 200 generations. The other faults (`outages.py`) break one dependency of a server while three
clients write. The exit status is 0 if nothing that was acknowledged is lost, duplicated or charged wrongly,
each response is one of the contract and not a 500, and the server recovers by itself. On failure, the run
prints the cause and keeps the logs.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from db.base import utc_now
from db.session import Database
from tests.resilience.outages import OUTAGES, Finding, run_outage
from tests.resilience.workload import (
    AcceptedGenerations,
    count_ended,
    evaluate,
    has_running_generation,
    make_tenants,
    open_database,
    request_all,
)
from tools.servers.processes import (
    JobsProcess,
    PostgresServer,
    RedisServer,
    build_environment,
    report_logs,
    run_jobs_processes,
    run_postgres,
    run_redis,
    wait_until,
)
from tools.servers.server import running_server

PROCESSES = "processes"
FAULTS = (PROCESSES, *OUTAGES)
Faults = dict[str, Callable[[], object]]

TENANTS = 5
SEED = 2041
LEASE_SECONDS = 5
OUTAGE_SECONDS = 3
MAX_SECONDS = 1_800


def restart_broker(broker: RedisServer) -> None:
    """Stop Redis for `OUTAGE_SECONDS`."""
    broker.stop()
    time.sleep(OUTAGE_SECONDS)
    broker.start()


def kill_worker(worker: JobsProcess) -> None:
    """Kill a worker, and start it again after `OUTAGE_SECONDS`."""
    worker.kill()
    time.sleep(OUTAGE_SECONDS)
    worker.start()


def pause_worker(worker: JobsProcess, database: Database) -> None:
    """Pause a worker that has leased a generation until its lease has expired, then resume it."""
    wait_until(lambda: has_running_generation(database, worker), "the worker has leased a generation")
    worker.pause()
    time.sleep(2 * LEASE_SECONDS)
    worker.resume()


def build_faults(
    broker: RedisServer, cluster: PostgresServer, workers: list[JobsProcess], database: Database
) -> Faults:
    """Return the faults in their order. Without workers, only the database is restarted."""
    if not workers:
        return {"database restarted": cluster.restart}
    return {
        "Redis flushed": broker.flush,
        "broker restarted": lambda: restart_broker(broker),
        "worker killed": lambda: kill_worker(workers[0]),
        "database restarted": cluster.restart,
        "worker paused beyond its lease": lambda: pause_worker(workers[1], database),
    }


def inject_faults(count_done: Callable[[], int], total: int, faults: Faults) -> None:
    """Inject the faults, spread evenly over the work."""
    for number, (name, inject) in enumerate(faults.items(), start=1):
        share = total * number // (len(faults) + 1)
        wait_until(lambda share=share: count_done() >= share, f"{share} generations have ended", MAX_SECONDS)
        print(f"  {count_done():>4} done: {name}", flush=True)
        inject()


def run_once(folder: Path, count: int, breaking: bool, worker_count: int) -> bool:
    """Run once and print the counts; return whether all of them are right.

    Args:
        folder: The folder for files and logs.
        count: The number of generations.
        breaking: Whether to inject faults.
        worker_count: The number of workers; with 0, the server runs the generations itself.
    """
    with report_logs(folder), run_postgres(folder / "postgresql") as cluster, run_redis() as broker:
        environment = build_environment(folder, cluster.url, broker, LEASE_SECONDS=str(LEASE_SECONDS))
        if worker_count == 0:
            environment["CELERY_BROKER_URL"] = ""
        commands = [*["worker"] * worker_count, "beat"] if worker_count else []
        with (
            running_server(folder, **environment) as server,
            run_jobs_processes(folder, environment, *commands) as processes,
        ):
            workers = processes[:worker_count]
            wait_until(lambda: all(worker.is_ready() for worker in workers), "the workers are ready")
            tenants = make_tenants(cluster.url, folder / "media", TENANTS, count // TENANTS)
            accepted, began = AcceptedGenerations(), utc_now()
            requesting = threading.Thread(
                target=request_all, args=(server.origin, tenants, 1, accepted), daemon=True
            )
            requesting.start()
            with open_database(cluster.url) as database:
                count_done = partial(count_ended, database, accepted)
                if breaking:
                    inject_faults(count_done, count, build_faults(broker, cluster, workers, database))
                wait_until(
                    lambda: accepted.done.is_set() and count_done() >= len(accepted.generation_ids),
                    "all generations have ended",
                    MAX_SECONDS,
                    lambda: (
                        f"{count_done()} of {len(accepted.generation_ids)} accepted generations have ended"
                    ),
                )
            verdict = evaluate(cluster.url, tenants, accepted, began)
    print(verdict.table(), flush=True)
    return verdict.is_good and verdict.accepted == count


def main(arguments: list[str] | None = None) -> int:
    """Parse the options, run once, and return the exit status: 0 if all counts are right."""
    parser = argparse.ArgumentParser(prog="make faults ARGS=...", description=__doc__)
    parser.add_argument("faults", nargs="*", help=f"some of: {', '.join(FAULTS)}; by default all")
    parser.add_argument("--seed", type=int, default=SEED, help="of the times at which faults begin")
    parser.add_argument("--count", type=int, default=200, help="generations")
    parser.add_argument("--workers", type=int, default=2, help="worker processes; 0 for the server alone")
    parser.add_argument("--calm", action="store_true", help="inject no faults, to measure the speed")
    options = parser.parse_args(arguments)
    if options.workers == 1 and not options.calm:
        parser.error("two workers are needed, because one is killed: pass --workers 2 or --calm")
    if unknown := set(options.faults) - set(FAULTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    folder = Path(tempfile.mkdtemp(prefix="sartiq-faults-"))
    # The user of PostgreSQL reads its folder below.
    folder.chmod(0o755)
    failed = []
    for name in options.faults or FAULTS:
        passed = False
        try:
            if name == PROCESSES:
                print(f"{options.count} generations, {options.workers} workers", flush=True)
                passed = run_once(folder / name, options.count, not options.calm, options.workers)
            else:
                passed = print_finding(name, run_outage(name, folder / name, options.seed))
        finally:
            if passed:
                shutil.rmtree(folder / name, ignore_errors=True)
            else:
                failed.append(name)
                print(f"FAILED: {name}; the logs are in {folder / name}", flush=True)
    if not failed:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"failed: {', '.join(failed)}" if failed else "passed")
    return int(bool(failed))


def print_finding(name: str, finding: Finding) -> bool:
    """Print the counts of an outage; return whether nothing is wrong."""
    statuses = ", ".join(f"{status}: {count}" for status, count in sorted(finding.statuses.items()))
    print(
        f"{name:<18} {finding.acknowledged:>4} writes acknowledged, {finding.acknowledged_during} of them"
        f" during the fault, recovered after {finding.recovery_seconds:.1f} s; {statuses}",
        flush=True,
    )
    for late in finding.late:
        print(f"  late, not lost: {late}", flush=True)
    for failure, count in Counter(finding.failures).most_common(20):
        print(f"  {count} x {failure}", flush=True)
    return not finding.failures


if __name__ == "__main__":
    raise SystemExit(main())
