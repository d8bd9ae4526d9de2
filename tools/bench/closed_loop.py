"""The closed loop: wrk sends requests over a number of connections as fast as the server responds."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.bench.environment import BenchServer
from tools.bench.operations import RUN, Operation, Request
from tools.bench.processes import cpu_seconds, cpu_seconds_by_process
from tools.servers.processes import DependencyMissing

SCRIPT = Path(__file__).with_suffix(".lua")


@dataclass(frozen=True)
class LoadResult:
    """The result of one measurement."""

    requests: int
    seconds: float
    unexpected: int
    failed_connections: int
    cpu_seconds: float
    first_unexpected: str = ""
    database_cpu_seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Return the requests per second; a run without any response counts as one request."""
        return max(1, self.requests) / self.seconds

    @property
    def errors(self) -> int:
        """Return the number of responses with an unexpected status and of failed connections."""
        return self.unexpected + self.failed_connections

    @property
    def cpu_seconds_per_1000(self) -> float:
        """Return the CPU seconds of the server's processes per 1,000 requests."""
        return 1000 * self.cpu_seconds / max(1, self.requests)

    @property
    def database_cpu_seconds_per_1000(self) -> float:
        """Return the CPU seconds of PostgreSQL's processes per 1,000 requests."""
        return 1000 * self.database_cpu_seconds / max(1, self.requests)


def require_wrk() -> None:
    """Raise `DependencyMissing` if wrk is not installed."""
    if shutil.which("wrk") is None:
        raise DependencyMissing("wrk, which generates the load (make services installs it)")


def run_load(
    server: BenchServer,
    operation: Operation,
    requests: Sequence[Request],
    connections: int,
    seconds: int,
    database_process_id: int | None = None,
) -> LoadResult:
    """Send requests as fast as the server responds, and return the result.

    Args:
        database_process_id: The parent of PostgreSQL's processes, whose CPU time is measured, too.
    """
    run = uuid.uuid4().hex
    with tempfile.NamedTemporaryFile("w", suffix=".requests") as file:
        for each in requests:
            key = each.key.replace(RUN, run)
            print(each.method, each.path, each.token, each.body, each.tag, key, sep="\t", file=file)
        file.flush()
        options = ["-t", "1", "-c", str(connections), "-d", f"{seconds}s", "--timeout", "20s"]
        script_arguments = [file.name, str(operation.status)]
        if operation.changes_etag:
            script_arguments.append("feeds_back")
        command = ["wrk", *options, "-s", str(SCRIPT), server.url, "--", *script_arguments]
        before = cpu_seconds(server.process_id)
        database_before = cpu_seconds_by_process(database_process_id) if database_process_id else {}
        completed = subprocess.run(command, check=True, capture_output=True, text=True)
        used = cpu_seconds(server.process_id) - before
        database_after = cpu_seconds_by_process(database_process_id) if database_process_id else {}
    # A backend that ended in between is left out: nothing tells what it used.
    database_used = sum(database_after[each] - database_before.get(each, 0.0) for each in database_after)
    line = next(line for line in completed.stdout.splitlines() if line.startswith("measured\t"))
    _, count, microseconds, unexpected, broken, first = line.split("\t")
    return LoadResult(
        int(count), int(microseconds) / 1e6, int(unexpected), int(broken), used, first, database_used
    )
