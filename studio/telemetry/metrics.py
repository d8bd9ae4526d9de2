"""What can be measured from outside, by name, and the port at which Prometheus reads it.

Labels have few values: no ids, no paths. One process has one port; what Prometheus sees of several
processes it adds up itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, disable_created_metrics, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import QueuePool, func, select
from sqlalchemy.exc import SQLAlchemyError

from db.base import utc_now
from db.engine import build_engine
from db.models.generations import Generation
from db.session import Database
from studio.state_machines import GENERATION_STATES, OPEN_GENERATION

logger = logging.getLogger(__name__)

UNMATCHED = "unmatched"
"""The one operation of all requests that no operation of the contract was found for."""
METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
QUEUE_CACHE_SECONDS = 3.0

# Only timestamps of the first count, which nobody asks for and which double the lines.
disable_created_metrics()

_requests = Counter("sartiq_requests", "Requests answered", ["operation", "method", "status"])
_durations = Histogram(
    "sartiq_request_duration_seconds",
    "Time until the answer began, without what the caller asked to wait",
    ["operation"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 60),
)
_in_progress = Gauge("sartiq_requests_in_progress", "Requests being worked on, waiting and streaming too")
_defects = Counter(
    "sartiq_contract_defects", "Answers that broke the contract and were not sent", ["operation", "kind"]
)
_rate_limited = Counter("sartiq_rate_limited", "Requests refused by a limit", ["policy"])
_generations = Counter("sartiq_generations", "Generations that ended, by how they did", ["outcome"])
_generation_durations = Histogram(
    "sartiq_generation_duration_seconds",
    "Time from the first worker's claim to the completed pictures",
    buckets=(0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 900, 3600),
)
_recoveries = Counter("sartiq_lease_recoveries", "Generations taken over from a worker that was lost")
_deliveries = Counter("sartiq_webhook_deliveries", "Attempts to deliver a webhook, by outcome", ["outcome"])
_outbound = Counter("sartiq_outbound_calls", "Calls to servers of others", ["outcome"])


# Known from the start, so that the first one is seen as a change.
for _outcome in (status for status, following in GENERATION_STATES.items() if not following):
    _generations.labels(_outcome)
for _outcome in ("delivered", "retried", "failed"):
    _deliveries.labels(_outcome)


def record_request_start() -> None:
    """A request is being worked on."""
    _in_progress.inc()


def record_request_end(operation_id: str | None, method: str, status: int, seconds: float | None) -> None:
    """A request was answered after `seconds`; status 0 and None when its client went away before."""
    operation = operation_id or UNMATCHED
    _in_progress.dec()
    known = method if method in METHODS else "other"
    _requests.labels(operation, known, str(status) if status else "aborted").inc()
    if seconds is not None:
        _durations.labels(operation).observe(max(0.0, seconds))


def count_contract_defect(operation_id: str, kind: str) -> None:
    """An answer broke the contract in its `kind`: status, header, media_type, body or encoding."""
    _defects.labels(operation_id, kind).inc()


def count_rate_limited(policy: str) -> None:
    """A request was refused by the limit of this name."""
    _rate_limited.labels(policy).inc()


def count_generation(outcome: str, seconds: float | None) -> None:
    """A generation ended as `outcome`; `seconds` is how long it was worked on. To be called after commit."""
    _generations.labels(outcome).inc()
    if outcome == "completed" and seconds is not None:
        _generation_durations.observe(seconds)


def count_lease_recovery() -> None:
    """A generation was taken over from a lost worker. To be called after commit."""
    _recoveries.inc()


def count_webhook_delivery(outcome: str) -> None:
    """One attempt to deliver a webhook ended: `delivered`, `retried` (it will be tried again) or `failed`."""
    _deliveries.labels(outcome).inc()


def count_outbound_call(outcome: str) -> None:
    """A call to somebody else's server ended: `2xx` to `5xx`, or the reason why no answer came."""
    _outbound.labels(outcome).inc()


class QueueCollector(Collector):
    """The depth of the queue and the age of its head, read when somebody asks, at most every few seconds.

    The queue is one for all processes, so each tells the same number. A database that is away leaves a gap.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._rows: list[Any] = []
        self._read_at = float("-inf")

    def describe(self) -> list[Metric]:
        """The families, without asking the database."""
        return list(_queue_families([]))

    def collect(self) -> Iterator[Metric]:
        """The families with their values."""
        with self._lock:
            if time.monotonic() - self._read_at > QUEUE_CACHE_SECONDS:
                try:
                    self._rows = self._read()
                except SQLAlchemyError as error:
                    logger.warning("the depth of the queue cannot be read: %s", type(error).__name__)
                    return
                self._read_at = time.monotonic()
            rows = self._rows
        yield from _queue_families(rows)

    def _read(self) -> list[Any]:
        with self._database.transaction(write=False) as reading:
            # unscoped: numbers, of everybody's rows
            counting = select(Generation.status, func.count(), func.min(Generation.created_at))
            open_ones = counting.where(Generation.status.in_(OPEN_GENERATION)).group_by(Generation.status)
            return list(reading.execute(open_ones))


def _queue_families(rows: list[Any]) -> Iterator[Metric]:
    depth = GaugeMetricFamily("sartiq_queue_depth", "Generations that are not over", labels=["status"])
    age = GaugeMetricFamily("sartiq_queue_oldest_pending_seconds", "Age of the oldest pending generation")
    counts = {status: (count, oldest) for status, count, oldest in rows}
    for status in OPEN_GENERATION:
        depth.add_metric([status], counts.get(status, (0,))[0])
    oldest = counts["pending"][1] if "pending" in counts else None
    age.add_metric([], max(0.0, (utc_now() - oldest).total_seconds()) if oldest else 0.0)
    yield depth
    yield age


class PoolCollector(Collector):
    """How many connections to the database the threads of this process hold."""

    def __init__(self, database: Database) -> None:
        self._pool = database.engine.pool

    def describe(self) -> list[Metric]:
        """The families, whatever the pool."""
        return list(self._families(0, 0))

    def collect(self) -> Iterator[Metric]:
        """The families with their values; none where connections are not pooled."""
        if isinstance(self._pool, QueuePool):
            yield from self._families(self._pool.checkedout(), self._pool.size())

    @staticmethod
    def _families(held: int, size: int) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "sartiq_database_connections_in_use", "Database connections in use", value=held
        )
        yield GaugeMetricFamily(
            "sartiq_database_connections_max", "Database connections that can be in use", value=size
        )


class MetricsServer:
    """Serves the metrics of this process over HTTP, at every path; `start` and `stop` once each.

    Port 0 serves nothing. OSError when the port is taken: whoever starts a process notices.
    """

    def __init__(self, host: str, port: int, database: Database, database_url: str) -> None:
        self._host, self._port = host, port
        self._app_database, self._url = database, database_url
        self._collectors: list[Collector] = []

    def start(self) -> None:
        """Listen."""
        if self._port == 0:
            return
        try:
            self._server, self._thread = start_http_server(self._port, self._host)
        except OSError as error:
            message = f"the metrics cannot be served at {self._host}:{self._port}: {error.strerror}"
            raise OSError(error.errno, message) from error
        # A connection of its own: it is asked when all others are busy, too.
        self._database = Database(build_engine(self._url, pool_size=1))
        self._collectors = [PoolCollector(self._app_database), QueueCollector(self._database)]
        for collector in self._collectors:
            REGISTRY.register(collector)

    def stop(self) -> None:
        """Close the port."""
        if not self._collectors:
            return
        for collector in self._collectors:
            REGISTRY.unregister(collector)
        self._collectors = []
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._database.dispose()
