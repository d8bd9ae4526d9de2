"""The closed loop: as many requests as a server answers to a number of connections, by wrk."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.resilience.processes import DependencyMissing
from tests.tools.bench.environment import BenchServer
from tests.tools.bench.operations import Operation, Request
from tests.tools.bench.processes import cpu_seconds

SCRIPT = Path(__file__).with_suffix(".lua")


@dataclass(frozen=True)
class LoadResult:
    """What one measurement saw."""

    requests: int
    seconds: float
    unexpected: int
    failed_connections: int
    cpu_seconds: float
    first_unexpected: str = ""

    @property
    def rate(self) -> float:
        """Requests answered in a second, as if one had been where none was: it would have come in the end."""
        return max(1, self.requests) / self.seconds

    @property
    def errors(self) -> int:
        """Answers of another status than is right, and connections that failed."""
        return self.unexpected + self.failed_connections

    @property
    def cpu_seconds_per_1000(self) -> float:
        """Seconds that the server's processes worked for 1,000 requests."""
        return 1000 * self.cpu_seconds / max(1, self.requests)


def require_wrk() -> None:
    """Raise NotThere when wrk is not installed."""
    if shutil.which("wrk") is None:
        raise DependencyMissing("wrk, which makes the load (make services installs it)")


def run_load(
    server: BenchServer, operation: Operation, requests: Sequence[Request], connections: int, seconds: int
) -> LoadResult:
    """Ask as fast as the server answers, and say how fast that is."""
    with tempfile.NamedTemporaryFile("w", suffix=".requests") as file:
        for each in requests:
            print(each.method, each.path, each.token, each.body, each.tag, sep="\t", file=file)
        file.flush()
        options = ["-t", "1", "-c", str(connections), "-d", f"{seconds}s", "--timeout", "20s"]
        told = [file.name, str(operation.status), *(["feeds_back"] if operation.changes_etag else [])]
        command = ["wrk", *options, "-s", str(SCRIPT), server.url, "--", *told]
        before = cpu_seconds(server.process_id)
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        worked = cpu_seconds(server.process_id) - before
    line = next(line for line in done.stdout.splitlines() if line.startswith("measured\t"))
    _, count, microseconds, unexpected, broken, first = line.split("\t")
    return LoadResult(int(count), int(microseconds) / 1e6, int(unexpected), int(broken), worked, first)
