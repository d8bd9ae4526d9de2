"""Count what requests cost the parts that all processes share, and the CPU time of each part."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg
import redis
import sqlalchemy
from sqlalchemy import make_url

from tools.bench.processes import own_cpu_seconds, process_tree

PROGRAMS = {"python": "servers", "postgres": "PostgreSQL", "pgbouncer": "PgBouncer", "redis-server": "Redis"}
PROGRAMS["haproxy"] = "HAProxy"
HEADS = ("Per request", "transactions", "statements", "bytes of WAL", "commands of Redis")
CPU_HEADS = ("Microseconds of CPU per request", *PROGRAMS.values())


@dataclass(frozen=True)
class SharedCosts:
    """Counts since a start, or of some requests, and the CPU seconds by `PROGRAMS`."""

    transactions: int
    statements: int
    wal_bytes: int
    redis_commands: int
    cpu_seconds: Mapping[str, float]

    def __sub__(self, other: SharedCosts) -> SharedCosts:
        return SharedCosts(
            self.transactions - other.transactions,
            self.statements - other.statements,
            self.wal_bytes - other.wal_bytes,
            self.redis_commands - other.redis_commands,
            {name: used - other.cpu_seconds[name] for name, used in self.cpu_seconds.items()},
        )

    def list_counts(self, requests: int) -> Iterator[str]:
        """Yield the cells of a table with `HEADS`, but the first."""
        numbers = (self.transactions, self.statements, self.wal_bytes, self.redis_commands)
        for number, digits in zip(numbers, (1, 1, 0, 1), strict=True):
            yield f"{number / max(1, requests):,.{digits}f}"

    def list_cpu(self, requests: int) -> Iterator[str]:
        """Yield the cells of a table with `CPU_HEADS`, but the first."""
        for name in PROGRAMS:
            yield f"{1e6 * self.cpu_seconds[name] / max(1, requests):,.0f}"


@dataclass(frozen=True)
class CostCounter:
    """Reads the counts of the parts.

    Attributes:
        pooled_url: A database behind PgBouncer, whose console its login may read (`stats_users`).
        admin_url: The same database for a superuser.
        redis_port: The port of Redis.
        postgres_id: The parent of PostgreSQL's processes. The other programs are children of this process.
    """

    pooled_url: str
    admin_url: str
    redis_port: int
    postgres_id: int

    def read(self) -> SharedCosts:
        """Return the counts since the start of the parts."""
        url = make_url(self.pooled_url)
        # The console knows only simple queries outside of transactions.
        console = {"host": url.host, "port": url.port, "user": url.username, "dbname": "pgbouncer"}
        with psycopg.connect(**console, autocommit=True) as connection:
            cursor = psycopg.ClientCursor(connection).execute("SHOW STATS_TOTALS")
            names = [column.name for column in cursor.description or ()]
            (row,) = (row for row in cursor if row[0] == url.database)
            stats = dict(zip(names, row, strict=True))
        engine = sqlalchemy.create_engine(self.admin_url)
        with engine.connect() as admin:
            wal = admin.scalar(sqlalchemy.text("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"))
        engine.dispose()
        with redis.Redis(port=self.redis_port) as client:
            commands = client.info("stats")["total_commands_processed"]
        return SharedCosts(
            int(stats["xact_count"]), int(stats["query_count"]), int(wal), int(commands), self._read_cpu()
        )

    def _read_cpu(self) -> dict[str, float]:
        seconds = dict.fromkeys(PROGRAMS, 0.0)
        own_id = os.getpid()
        for each in (*process_tree(own_id), *process_tree(self.postgres_id)):
            with contextlib.suppress(OSError):  # it has ended since
                program = Path(f"/proc/{each}/comm").read_text(encoding="ascii").strip()
                name = next((name for name in PROGRAMS if program.startswith(name)), None)
                if name is not None and each != own_id:
                    seconds[name] += own_cpu_seconds(each)
        return seconds
