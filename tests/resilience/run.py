"""`make faults`: break Redis, PostgreSQL and workers amid 200 generations, and count what is left.

Everything is real and of its own: a PostgreSQL cluster, a Redis, the server, two workers and beat. The exit
status is 0 when nothing was lost, doubled or charged wrongly.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from db.base import utc_now
from db.session import Database
from tests.e2e.server import running_server
from tests.resilience.processes import (
    JobsProcess,
    PostgresServer,
    RedisServer,
    build_environment,
    has_running_generation,
    run_jobs_processes,
    run_postgres,
    run_redis,
    wait_until,
)
from tests.resilience.workload import (
    AcceptedGenerations,
    count_ended,
    evaluate,
    make_tenants,
    open_database,
    request_all,
)

Faults = dict[str, Callable[[], object]]

TENANTS = 5
LEASE_SECONDS = 5
OUTAGE_SECONDS = 3
MAX_SECONDS = 1_800


def restart_broker(broker: RedisServer) -> None:
    """Take Redis away for a moment."""
    broker.stop()
    time.sleep(OUTAGE_SECONDS)
    broker.start()


def kill_worker(worker: JobsProcess) -> None:
    """Kill a worker in the middle of its work and start it again."""
    worker.kill()
    time.sleep(OUTAGE_SECONDS)
    worker.start()


def pause_worker(worker: JobsProcess, database: Database) -> None:
    """Stop a worker that has something in hand until others have taken it over, then let it go on."""
    wait_until(lambda: has_running_generation(database, worker), "the worker has work in hand")
    worker.pause()
    time.sleep(2 * LEASE_SECONDS)
    worker.resume()


def build_faults(
    broker: RedisServer, cluster: PostgresServer, workers: list[JobsProcess], database: Database
) -> Faults:
    """What happens, in this order and evenly spread; a server that works for itself needs no more."""
    if not workers:
        return {"database restarted": cluster.restart}
    return {
        "Redis emptied": broker.flush,
        "broker restarted": lambda: restart_broker(broker),
        "worker killed": lambda: kill_worker(workers[0]),
        "database restarted": cluster.restart,
        "worker paused beyond its lease": lambda: pause_worker(workers[1], database),
    }


def inject_faults(count_done: Callable[[], int], total: int, faults: Faults) -> None:
    """Let one thing after the other happen, each when its share of the work is done."""
    for number, (name, happen) in enumerate(faults.items(), start=1):
        share = total * number // (len(faults) + 1)
        wait_until(lambda share=share: count_done() >= share, f"{share} are done", MAX_SECONDS)
        print(f"  {count_done():>4} done: {name}", flush=True)
        happen()


def run_once(folder: Path, count: int, breaking: bool, worker_count: int) -> bool:
    """One run, by the server alone when there are no workers; True when everything is as it has to be."""
    with run_postgres(folder / "postgresql") as cluster, run_redis() as broker:
        environment = build_environment(folder, cluster.url, broker, LEASE_SECONDS=str(LEASE_SECONDS))
        if worker_count == 0:
            environment["CELERY_BROKER_URL"] = ""
        commands = [*["worker"] * worker_count, "beat"] if worker_count else []
        with (
            running_server(folder, **environment) as server,
            run_jobs_processes(folder, environment, *commands) as all_,
        ):
            workers = all_[:worker_count]
            wait_until(lambda: all(worker.is_ready() for worker in workers), "the workers are ready")
            tenants = make_tenants(cluster.url, folder / "media", TENANTS, count // TENANTS)
            accepted, began = AcceptedGenerations(), utc_now()
            ordering = threading.Thread(
                target=request_all, args=(server.origin, tenants, 1, accepted), daemon=True
            )
            ordering.start()
            with open_database(cluster.url) as database:
                count_done = partial(count_ended, database, accepted)
                if breaking:
                    inject_faults(count_done, count, build_faults(broker, cluster, workers, database))
                wait_until(
                    lambda: accepted.done.is_set() and count_done() >= len(accepted.generation_ids),
                    "all is done",
                    MAX_SECONDS,
                )
            verdict = evaluate(cluster.url, tenants, accepted, began)
    print(verdict.table(), flush=True)
    return verdict.is_good and verdict.accepted == count


def main(arguments: list[str] | None = None) -> int:
    """Run it; return 0 when nothing was lost."""
    parser = argparse.ArgumentParser(prog="make faults ARGS=...", description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="generations")
    parser.add_argument("--workers", type=int, default=2, help="worker processes; 0 for the server alone")
    parser.add_argument("--calm", action="store_true", help="break nothing: how fast is it?")
    options = parser.parse_args(arguments)
    if options.workers == 1 and not options.calm:
        parser.error("two workers are needed when one is to be killed")
    with tempfile.TemporaryDirectory(prefix="sartiq-faults-", ignore_cleanup_errors=True) as name:
        print(f"{options.count} generations, {options.workers} workers", flush=True)
        passed = run_once(Path(name), options.count, not options.calm, options.workers)
    print("passed" if passed else "FAILED")
    return int(not passed)


if __name__ == "__main__":
    raise SystemExit(main())
