"""The Prometheus metrics of a process, and the port that serves them.

Labels have few values: no ids and no paths. Each process has its own port; Prometheus adds up the processes.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
    values,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector
from sqlalchemy import ColumnElement, QueuePool, and_, case, func, select, text
from sqlalchemy.exc import SQLAlchemyError

from db.audit_partitions import DEFAULT_PARTITION
from db.base import utc_now
from db.engine import build_engine
from db.models.generations import Generation, GenerationStatus
from db.session import Database
from studio.infrastructure.settings import Settings, set_metrics_folder
from studio.infrastructure.storage import free_share
from studio.state_machines import GENERATION_STATES, OPEN_GENERATION

logger = logging.getLogger(__name__)

UNMATCHED = "unmatched"
"""The operation label of requests that match no operation of the contract."""
METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
QUEUE_CACHE_SECONDS = 3.0
UNLEASED_AFTER = timedelta(seconds=60)
"""How long a generation may wait for a worker before it counts as unleased. Free workers poll every 10 s."""

# The timestamps of the first increments would double the number of time series.
disable_created_metrics()

_requests = Counter(
    "sartiq_requests",
    f"Responses. `operation` is the `operationId`, or `{UNMATCHED}`. `status` is `aborted` if the client "
    "disconnected before the response",
    ["operation", "method", "status"],
)
_durations = Histogram(
    "sartiq_request_duration_seconds",
    "Seconds until the response starts, without the wait that the client requested",
    ["operation"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 60),
)
_in_progress = Gauge(
    "sartiq_requests_in_progress",
    "Requests in progress, including long polling and streams",
    multiprocess_mode="livesum",
)
_defects = Counter(
    "sartiq_contract_defects",
    "Responses that violate the contract, which are not sent. `kind` is what violates it: `status`, "
    "`header`, `media_type`, `body` or `encoding`",
    ["operation", "kind"],
)
_problems = Counter(
    "sartiq_problems",
    "Responses with a status above 399. `code` is the problem code. `limit` is what rejected a request with "
    "429 or 503, else empty",
    ["status", "code", "limit"],
)
_unknown_values = Counter(
    "sartiq_unknown_values",
    "Responses with a value that a newer release has written, of an enumeration that may grow. They are sent",
    ["operation"],
)
_rate_limited = Counter("sartiq_rate_limited", "Requests that a rate limit rejects", ["policy"])
GENERATION_OUTCOMES = tuple(status for status, following in GENERATION_STATES.items() if not following)
DELIVERY_OUTCOMES = ("delivered", "retried", "failed")
EMAIL_OUTCOMES = ("sent", "retried", "failed")
PERIODIC_TASK_OUTCOMES = ("completed", "failed")
PROVIDER_SIGN_IN_OUTCOMES = (
    "completed",
    *("provider_unavailable", "sign_in_rejected", "sign_in_canceled", "sign_in_expired"),
)


def _quote(values: tuple[str, ...]) -> str:
    return ", ".join(f"`{value}`" for value in values)


_generations = Counter(
    "sartiq_generations", f"Generations that ended: {_quote(GENERATION_OUTCOMES)}", ["outcome"]
)
_generation_durations = Histogram(
    "sartiq_generation_duration_seconds",
    "Seconds from the first lease of a generation to its predictions",
    buckets=(0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 900, 3600),
)
_recoveries = Counter("sartiq_lease_recoveries", "Rows of all queues that are taken over from a lost worker")
_deliveries = Counter(
    "sartiq_webhook_deliveries",
    f"Attempts to deliver a webhook message: {_quote(DELIVERY_OUTCOMES)}",
    ["outcome"],
)
_emails = Counter("sartiq_emails", f"Attempts to send an e-mail: {_quote(EMAIL_OUTCOMES)}", ["outcome"])
_periodic_tasks = Counter(
    "sartiq_periodic_task_runs",
    f"Runs of periodic tasks in this process: {_quote(PERIODIC_TASK_OUTCOMES)}",
    ["task", "outcome"],
)
_provider_sign_ins = Counter(
    "sartiq_provider_sign_ins",
    f"Sign-ins through identity providers of organizations: {_quote(PROVIDER_SIGN_IN_OUTCOMES)}",
    ["outcome"],
)
_outbound = Counter(
    "sartiq_outbound_calls", "Requests to other servers: `2xx` to `5xx`, or the error", ["outcome"]
)


# The size of the rows: it costs no scan, and needs no privilege.
_DEFAULT_PARTITION_BYTES = text(f"SELECT pg_relation_size(to_regclass('public.{DEFAULT_PARTITION}'))")

OWN_METRICS: tuple[Counter | Gauge | Histogram, ...] = (
    _requests, _durations, _in_progress, _problems, _rate_limited, _defects, _unknown_values,
    _generations, _generation_durations, _recoveries, _deliveries, _emails, _periodic_tasks, _outbound,
    _provider_sign_ins,
)  # fmt: skip


def _create_series() -> None:
    # Each series exists from the start with the value 0: `rate()` needs it to see the first increment.
    for outcome in GENERATION_OUTCOMES:
        _generations.labels(outcome)
    for outcome in DELIVERY_OUTCOMES:
        _deliveries.labels(outcome)
    for outcome in EMAIL_OUTCOMES:
        _emails.labels(outcome)
    for outcome in PROVIDER_SIGN_IN_OUTCOMES:
        _provider_sign_ins.labels(outcome)


_create_series()


def share_values(folder: str, slot: int, database: Database) -> Callable[[], None]:
    """Keep the values of this worker in files, which the process that serves all metrics adds up.

    A worker continues the counts of the one that had its slot before, so that no sum ever decreases.

    Args:
        folder: The folder of the files.
        slot: The number of the worker, unique among those that run.
        database: The database whose connection pool is measured.

    Returns:
        A function that records the size and use of the connection pool at the time of the call.
    """
    with_labels = [metric for metric in OWN_METRICS if metric._labelnames]
    for metric in with_labels:
        metric.clear()
    set_metrics_folder(folder)
    values.ValueClass = values.MultiProcessValue(lambda: slot)
    for metric in set(OWN_METRICS).difference(with_labels):
        metric._metric_init()
    _create_series()
    families = list(PoolCollector(database).describe())
    gauges = [
        Gauge(family.name, family.documentation, registry=None, multiprocess_mode="livesum")
        for family in families
    ]

    def record_pool() -> None:
        for gauge, family in zip(gauges, PoolCollector(database).collect(), strict=False):
            gauge.set(family.samples[0].value)

    return record_pool


def share_registry(folder: str) -> CollectorRegistry:
    """Return a registry with the sums of what the workers keep in a folder, and their use of the machine."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, folder)
    registry.register(SiblingCollector())
    return registry


def forget_worker(folder: str, slot: int) -> None:
    """Leave out the gauges of a worker that has ended; its counts stay in the sums."""
    mark_process_dead(slot, folder)


def record_request_start() -> None:
    """Count the start of a request."""
    _in_progress.inc()


def record_request_end(operation_id: str | None, method: str, status: int, seconds: float | None) -> None:
    """Record the end of a request.

    Args:
        operation_id: The operation, or None if none matches.
        method: The HTTP method.
        status: The status of the response, or 0 if the client disconnected before it started.
        seconds: The time until the response started, or None if the client disconnected before.
    """
    operation = operation_id or UNMATCHED
    _in_progress.dec()
    method_label = method if method in METHODS else "other"
    _requests.labels(operation, method_label, str(status) if status else "aborted").inc()
    if seconds is not None:
        _durations.labels(operation).observe(max(0.0, seconds))


def count_problem(status: int, code: str, limit: str | None) -> None:
    """Count a response with a status above 399.

    Args:
        status: The status of the response.
        code: The problem code.
        limit: What rejected the request, or None if the code says it.
    """
    _problems.labels(str(status), code, limit or "").inc()


def count_contract_defect(operation_id: str, kind: str) -> None:
    """Count a response that violates the contract.

    Args:
        operation_id: The operation.
        kind: What violates the contract: `status`, `header`, `media_type`, `body` or `encoding`.
    """
    _defects.labels(operation_id, kind).inc()


def count_unknown_value(operation_id: str) -> None:
    """Count a response with a value of an extensible enumeration that the contract does not list."""
    _unknown_values.labels(operation_id).inc()


def count_rate_limited(policy: str) -> None:
    """Count a request that the rate limit of this name rejects."""
    _rate_limited.labels(policy).inc()


def count_generation(outcome: str, seconds: float | None) -> None:
    """Count an ended generation; call it after the commit.

    Args:
        outcome: The final status.
        seconds: The time since the start of the first attempt, or None if there was none.
    """
    _generations.labels(outcome).inc()
    if outcome == "completed" and seconds is not None:
        _generation_durations.observe(seconds)


def count_lease_recovery() -> None:
    """Count a row of a queue that was taken over from a lost worker; call it after the commit."""
    _recoveries.inc()


def count_webhook_delivery(outcome: str) -> None:
    """Count an attempt to deliver a webhook, by outcome: `delivered`, `retried` (later) or `failed`."""
    _deliveries.labels(outcome).inc()


def count_email(outcome: str) -> None:
    """Count an attempt to send an e-mail, by outcome: `sent`, `retried` (later) or `failed`."""
    _emails.labels(outcome).inc()


def declare_periodic_task(task: str) -> None:
    """Create the series of a periodic task with the value 0."""
    for outcome in PERIODIC_TASK_OUTCOMES:
        _periodic_tasks.labels(task, outcome)


def count_periodic_task(task: str, outcome: str) -> None:
    """Count a run of a periodic task, by outcome: `completed` or `failed`."""
    _periodic_tasks.labels(task, outcome).inc()


def count_provider_sign_in(outcome: str) -> None:
    """Count a sign-in through an identity provider, by outcome."""
    _provider_sign_ins.labels(outcome).inc()


def count_outbound_call(outcome: str) -> None:
    """Count a request to another server, by the class of its status (`2xx` to `5xx`) or its error."""
    _outbound.labels(outcome).inc()


class QueueCollector(Collector):
    """The depth of the generation queue, its age, and whether workers lease from it, read at each scrape.

    The queue is shared, so all processes report the same numbers. Values are cached for
    `QUEUE_CACHE_SECONDS`. While the database is unavailable, the series are missing.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._rows: list[Any] = []
        self._read_at = float("-inf")

    def describe(self) -> list[Metric]:
        """Return the metric families without a database query."""
        return list(_queue_families([]))

    def collect(self) -> Iterator[Metric]:
        """Return the metric families with their values."""
        with self._lock:
            if time.monotonic() - self._read_at > QUEUE_CACHE_SECONDS:
                try:
                    self._rows = self._read()
                except SQLAlchemyError as error:
                    logger.warning("queue metrics unavailable: %s", type(error).__name__)
                    return
                self._read_at = time.monotonic()
            rows = self._rows
        yield from _queue_families(rows)

    def _read(self) -> list[Any]:
        now = utc_now()
        # The lease of a lost worker expires, and that of a remote task when it is due for a poll. A pending
        # generation with such a time waits for its next attempt: no worker has it.
        is_pending = Generation.status == GenerationStatus.PENDING
        available_at = func.greatest(Generation.created_at, Generation.lease_expires_at)
        waiting_since = case((is_pending, available_at), else_=Generation.lease_expires_at)
        with self._database.transaction(write=False) as reading:
            # unscoped: counts the generations of all tenants
            query = select(
                Generation.status,
                func.count(),
                func.min(Generation.created_at),
                _count_if(and_(~is_pending, Generation.lease_expires_at > now)),
                _count_if(waiting_since < now - UNLEASED_AFTER),
            )
            query = query.where(Generation.status.in_(OPEN_GENERATION)).group_by(Generation.status)
            return list(reading.execute(query))


def _count_if(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.sum(case((condition, 1), else_=0))


def _queue_families(rows: list[Any]) -> Iterator[Metric]:
    depth = GaugeMetricFamily(
        "sartiq_queue_depth", "Generations that have not ended, read every few seconds", labels=["status"]
    )
    age = GaugeMetricFamily(
        "sartiq_queue_oldest_pending_seconds", "Age of the oldest pending generation, in seconds"
    )
    leased = GaugeMetricFamily("sartiq_queue_leased", "Generations that a worker has leased")
    unleased = GaugeMetricFamily(
        "sartiq_queue_unleased",
        "Generations that no worker has leased for a minute: pending ones, and those of a lost worker",
    )
    counts = {status: (count, oldest) for status, count, oldest, *_ in rows}
    for status in OPEN_GENERATION:
        depth.add_metric([status], counts.get(status, (0,))[0])
    oldest = counts["pending"][1] if "pending" in counts else None
    age.add_metric([], max(0.0, (utc_now() - oldest).total_seconds()) if oldest else 0.0)
    leased.add_metric([], sum(row[3] for row in rows))
    unleased.add_metric([], sum(row[4] for row in rows))
    yield from (depth, age, leased, unleased)


class AuditCollector(Collector):
    """The size of the audit log's default partition, read at each scrape; missing without the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def describe(self) -> list[Metric]:
        """Return the metric family without a database query."""
        return [self._family(0)]

    def collect(self) -> Iterator[Metric]:
        """Return the metric family with its value."""
        try:
            with self._database.transaction(write=False) as reading:
                size = reading.scalar(_DEFAULT_PARTITION_BYTES)
        except SQLAlchemyError as error:
            logger.warning("metrics of the audit log unavailable: %s", type(error).__name__)
            return
        yield self._family(size or 0)

    @staticmethod
    def _family(size: int) -> Metric:
        return GaugeMetricFamily(
            "sartiq_audit_default_partition_bytes",
            "Bytes of audit events for whose month there is no partition; all processes report the same",
            value=size,
        )


class PoolCollector(Collector):
    """The number of database connections of this process that are in use, by threads and by reads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def describe(self) -> list[Metric]:
        """Return the metric families, whatever the connection pool."""
        return list(self._families(0, 0))

    def collect(self) -> Iterator[Metric]:
        """Return the metric families with their values, or none if connections are not pooled."""
        database, pool = self._database, self._database.engine.pool
        if isinstance(pool, QueuePool):
            yield from self._families(
                pool.checkedout() + database.reading_connections, pool.size() + database.read_connections
            )

    @staticmethod
    def _families(held: int, size: int) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "sartiq_database_connections_in_use", "Database connections in use by this process", value=held
        )
        yield GaugeMetricFamily(
            "sartiq_database_connections_max", "Database connections of this process at most", value=size
        )


class DiskCollector(Collector):
    """The free share of the disk with the stored files, read at each scrape."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def describe(self) -> list[Metric]:
        """Return the metric family without a look at the disk."""
        return [self._family(0.0)]

    def collect(self) -> Iterator[Metric]:
        """Return the metric family with its value."""
        yield self._family(free_share(self._folder))

    @staticmethod
    def _family(share: float) -> Metric:
        return GaugeMetricFamily(
            "sartiq_media_free_ratio",
            "Free share of the disk of `MEDIA_DIR`; missing with a bucket",
            value=share,
        )


class SiblingCollector(Collector):
    """CPU time, memory and open files of the children of this process's parent, by process id (Linux)."""

    def describe(self) -> list[Metric]:
        """Return no families: nothing else in the registry is about processes."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return the metric families with a series per process."""
        parent = os.getppid()
        with suppress(OSError):
            processes = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
            families: dict[str, Metric] = {}
            for process in processes:
                for family in ProcessCollector(pid=partial(int, process), registry=None).collect():
                    merged = families.setdefault(family.name, family)
                    samples = [sample._replace(labels={"pid": process}) for sample in family.samples]
                    merged.samples = samples if merged is family else [*merged.samples, *samples]
            yield from families.values()


class MetricDescription(NamedTuple):
    """What the reference page says of a metric."""

    name: str
    """The name in queries of Prometheus."""
    kind: str
    labels: tuple[str, ...]
    meaning: str


def describe_metrics() -> Iterator[MetricDescription]:
    """Yield the description of each metric that a process can serve."""
    for collector in OWN_METRICS:
        (family,) = collector.describe()
        suffix = "_total" if family.type == "counter" else ""
        yield MetricDescription(
            family.name + suffix, family.type, tuple(collector._labelnames), family.documentation
        )
    collected = (AuditCollector._family(0), DiskCollector._family(0))
    for family in (*_queue_families([]), *PoolCollector._families(0, 0), *collected):
        labels = {name: None for sample in family.samples for name in sample.labels}
        yield MetricDescription(family.name, family.type, tuple(labels), family.documentation)


class MetricsServer:
    """Serves the metrics of a registry over HTTP at every path; call `start` and `stop` once each.

    Args:
        settings: The settings; with `METRICS_PORT=0` nothing is served.
        database: The database of the process, None to leave out its connection pool.
        registry: The registry.
    """

    def __init__(
        self, settings: Settings, database: Database | None, registry: CollectorRegistry = REGISTRY
    ) -> None:
        self._settings, self._registry = settings, registry
        self._host, self._port = settings.metrics_host, settings.metrics_port
        self._app_database, self._url = database, settings.database_url
        self._collectors: list[Collector] = []

    def start(self) -> None:
        """Start listening.

        Raises:
            OSError: The port is in use, which must stop the start of the process.
        """
        if self._port == 0:
            return
        try:
            self._server, self._thread = start_http_server(self._port, self._host, self._registry)
        except OSError as error:
            message = f"the metrics cannot be served at {self._host}:{self._port}: {error.strerror}"
            raise OSError(error.errno, message) from error
        # A connection of its own: metrics are needed most when all connections of the pool are in use.
        self._database = Database(build_engine(self._url, pool_size=1))
        self._collectors = [QueueCollector(self._database), AuditCollector(self._database)]
        if self._settings.media_url is None:
            self._collectors.append(DiskCollector(self._settings.media_dir))
        if self._app_database is not None:
            self._collectors.append(PoolCollector(self._app_database))
        for collector in self._collectors:
            self._registry.register(collector)

    def stop(self) -> None:
        """Stop listening."""
        if not self._collectors:
            return
        for collector in self._collectors:
            self._registry.unregister(collector)
        self._collectors = []
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._database.dispose()
