"""The queues as both releases see them in the database, and a log of each change of a lease.

A row keeps no trace of the worker that has done it. Triggers record the owner of each lease when it ends: its
token names the process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from db.rls.session_role import MIGRATING
from tests.upgrade.release import require


@dataclass(frozen=True)
class Queue:
    """A queue, as the database shows it to both releases."""

    table: str
    done: str
    """The condition, of a row NEW whose lease has changed from that of OLD, that the work is done."""
    succeeded: tuple[str, ...] = ("completed",)
    """The statuses that all rows must end with."""
    status: str = "status"
    owner: str = "lease_owner"
    expires_at: str = "lease_expires_at"
    is_busy: bool = True
    """Whether there is so much work that both releases must have done some of it."""
    of_messages: bool = False
    """Whether the leased row is the endpoint, which gets one message after the other."""

    @property
    def rows(self) -> str:
        """The table with the work."""
        return "webhook_deliveries" if self.of_messages else self.table


COMPLETED = "NEW.status = 'completed'"
QUEUES = {
    "generations": Queue("generations", COMPLETED),
    "cut-outs": Queue("product_image_cutouts", COMPLETED),
    "exports": Queue("exports", f"{COMPLETED} AND OLD.status = 'running'"),
    "deliveries": Queue(
        "exports", "NEW.delivery_status = 'delivered'", ("delivered",), status="delivery_status"
    ),
    "account exports": Queue("account_exports", COMPLETED, is_busy=False),
    "imports": Queue("product_imports", "NEW.rows_completed_at IS NOT NULL", is_busy=False),
    "images of imports": Queue("product_import_images", "NEW.status = 'added'", ("added",)),
    "publications": Queue("prediction_publications", COMPLETED),
    "webhook messages": Queue(
        "webhook_endpoints",
        "NEW.claimed_by IS NULL",
        ("delivered",),
        owner="claimed_by",
        expires_at="busy_until",
        of_messages=True,
    ),
}
LOG = """CREATE TABLE lease_log
(queue text, row_id uuid, old_owner text, new_owner text, was_leased bool, is_done bool)"""
TRIGGER = """
CREATE FUNCTION log_lease_{number}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO public.lease_log VALUES ('{name}', NEW.id, OLD.{owner}, NEW.{owner},
        OLD.{expires_at} > clock_timestamp(), OLD.{owner} IS NOT NULL AND {done});
    RETURN NULL;
END $$;
CREATE TRIGGER log_lease_{number} AFTER UPDATE ON {table} FOR EACH ROW
    WHEN (OLD.{owner} IS DISTINCT FROM NEW.{owner}) EXECUTE FUNCTION log_lease_{number}();
"""


def query(url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Run a statement on the rows of all tenants, and return its rows."""
    with psycopg.connect(url.replace("+psycopg", "", 1)) as connection:
        connection.execute("SELECT set_config(%s, 'on', true)", [MIGRATING])
        # A condition of a queue is part of the statement.
        cursor = connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


def log_leases(url: str) -> None:
    """Let the database record each change of a lease: rows keep no trace of the worker that has done them."""
    query(url, LOG)
    for number, (name, queue) in enumerate(QUEUES.items()):
        query(url, TRIGGER.format(number=number, name=name, **vars(queue)))


def count_leased(url: str, pid: int) -> Counter[str]:
    """Return how many rows of each queue a process has leased."""
    counts = Counter[str]()
    for name, queue in QUEUES.items():
        is_open = "" if queue.of_messages else f"AND {queue.status} IN ('running', 'canceling')"
        statement = f"SELECT count(*) FROM {queue.table} WHERE {queue.owner} LIKE %s {is_open}"  # noqa: S608 - constants
        counts[name] = query(url, statement, f"%:{pid}:%")[0][0]
    return +counts


def count_open(url: str, began: datetime) -> Counter[str]:
    """Return how many rows of each queue are not done."""
    counts = Counter[str]()
    for name, queue in QUEUES.items():
        is_open = f"{queue.status} IN ('pending', 'running') AND created_at >= %s"
        statement = f"SELECT count(*) FROM {queue.rows} WHERE {is_open}"  # noqa: S608 - constants
        counts[name] = query(url, statement, began)[0][0]
    return +counts


def check_leases(
    rows: Iterable[tuple[str, Any, str | None, str | None, bool | None, bool]], releases: Mapping[int, str]
) -> dict[str, Counter[str]]:
    """Return how many rows of each queue each release has done.

    Args:
        rows: The rows of `lease_log`.
        releases: The release of each process.

    Raises:
        UpgradeFailed: A worker took a row that another one had leased, a row was done twice, or a release has
            done nothing of a busy queue.
    """
    done = {name: Counter[str]() for name in QUEUES}
    times = Counter[tuple[str, Any]]()
    for name, row_id, old_owner, new_owner, was_leased, is_done in rows:
        require(
            not (old_owner and new_owner and was_leased),
            f"{new_owner} took a row of {name} that {old_owner} had leased",
        )
        if is_done and old_owner:
            done[name][releases[int(old_owner.split(":")[1])]] += 1
            times[name, row_id] += not QUEUES[name].of_messages
    repeated = Counter(name for (name, _), count in times.items() if count > 1)
    require(not repeated, f"rows were done twice: {dict(repeated)}")
    for name, queue in QUEUES.items():
        idle = set(releases.values()) - done[name].keys()
        require(not (queue.is_busy and idle), f"{', '.join(idle)} did nothing of the {name}")
    return done
