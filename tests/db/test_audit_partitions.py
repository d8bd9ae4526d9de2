"""The audit log has a partition for each month, which only a function of the database creates and drops."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, select, text
from sqlalchemy.exc import DBAPIError

from db.audit_partitions import maintain_partitions, set_retention
from db.base import new_id, utc_now
from db.engine import build_engine
from db.migrations import downgrade, upgrade
from db.models import AuditEvent
from db.rls.session_role import APPLICATION_ROLE, SYSTEM_ROLE, SessionRole, bypass_rls
from db.session import Database, switch_role
from studio.infrastructure.telemetry.metrics import AuditCollector
from tests.architecture.sources import ROOT
from tests.support import factories

PARTITIONS = text("""
SELECT relname, pg_get_expr(relpartbound, oid) FROM pg_inherits JOIN pg_class ON oid = inhrelid
WHERE inhparent = 'audit_events'::regclass ORDER BY relname
""")
FAR = datetime(2200, 1, 1, tzinfo=UTC)


@pytest.fixture
def connection(own_database_url: str) -> Iterator[Connection]:
    """Yield a connection of the owner of the tables, who sees all rows until the first commit."""
    engine = build_engine(own_database_url, pool_size=1)
    with engine.connect() as opened:
        bypass_rls(opened)
        yield opened
    engine.dispose()


def month_after(number: int) -> datetime:
    """Return the first moment of the month that begins so many months after this one."""
    now = utc_now()
    years, month = divmod(now.month - 1 + number, 12)
    return datetime(now.year + years, month + 1, 1, tzinfo=UTC)


def name_of(month: datetime) -> str:
    return f"audit_events_{month:%Y_%m}"


def list_partitions(connection: Connection) -> list[str]:
    return [name for name, _ in connection.execute(PARTITIONS)]


def find_partition(connection: Connection, event: AuditEvent) -> str:
    found = text("SELECT tableoid::regclass::text FROM audit_events WHERE id = :id")
    return str(connection.scalar(found, {"id": event.id}))


def shorten_first(connection: Connection, end: datetime) -> None:
    """Let the first partition end at a time, as if the migration had run that long ago."""
    connection.exec_driver_sql("ALTER TABLE audit_events DETACH PARTITION audit_events_first")
    connection.exec_driver_sql(
        "ALTER TABLE audit_events ATTACH PARTITION audit_events_first "
        f"FOR VALUES FROM (MINVALUE) TO ('{end.isoformat()}')"
    )
    connection.commit()


def read_default_bytes(database: Database) -> float:
    (family,) = AuditCollector(database).collect()
    return family.samples[0].value


def test_there_are_partitions_for_24_months_and_one_for_other_times(connection: Connection) -> None:
    months = [name_of(month_after(number)) for number in range(2, 25)]
    assert list_partitions(connection) == sorted([*months, "audit_events_default", "audit_events_first"])
    bounds = dict(connection.execute(PARTITIONS).all())
    first, last = month_after(2), month_after(24)
    assert bounds["audit_events_first"] == f"FOR VALUES FROM (MINVALUE) TO ('{first:%Y-%m-%d} 00:00:00+00')"
    assert bounds[name_of(last)].startswith(f"FOR VALUES FROM ('{last:%Y-%m-%d} 00:00:00+00') TO (")
    # No role has privileges for a partition.
    privileges = text("SELECT relname FROM pg_class WHERE relispartition AND relacl IS NOT NULL")
    owner = connection.scalar(text("SELECT current_user"))
    for name in connection.scalars(privileges).all():
        granted = text(
            "SELECT DISTINCT grantee::regrole::text FROM pg_class, aclexplode(relacl) WHERE relname = :n"
        )
        assert connection.scalars(granted, {"n": name}).all() == [owner]


def test_an_event_is_stored_in_the_partition_of_its_month(
    own_database: Database, connection: Connection
) -> None:
    with own_database.transaction(write=True):
        now, later, never = (
            factories.make_audit_event(created_at=moment)
            for moment in (utc_now(), month_after(3) - timedelta(microseconds=1), FAR)
        )
    found = [find_partition(connection, event) for event in (now, later, never)]
    assert found == ["audit_events_first", name_of(month_after(2)), "audit_events_default"]


def test_missing_partitions_are_created_for_a_login_that_owns_nothing(
    own_database: Database, connection: Connection
) -> None:
    before = list_partitions(connection)
    gone = [name_of(month_after(24)), name_of(month_after(23)), "audit_events_default"]
    for name in gone:
        connection.exec_driver_sql(f"DROP TABLE {name}")
    connection.commit()
    assert maintain_partitions(own_database) == []
    assert list_partitions(connection) == before
    with own_database.transaction(write=True):
        event = factories.make_audit_event(created_at=month_after(24))
    bypass_rls(connection)
    assert find_partition(connection, event) == gone[0]
    for assignment in ("actor_email = 'nobody'", "created_at = now()"):
        with pytest.raises(DBAPIError, match="neither changed nor deleted"), connection.begin_nested():
            connection.exec_driver_sql(f"UPDATE {gone[0]} SET {assignment}")  # noqa: S608 - names of this module
    for statement in (f"DELETE FROM {gone[0]}", f"TRUNCATE {gone[0]}"):  # noqa: S608 - names of this module
        with pytest.raises(DBAPIError, match="neither changed nor deleted"), connection.begin_nested():
            connection.exec_driver_sql(statement)


def test_nothing_is_dropped_without_a_retention(own_database: Database, connection: Connection) -> None:
    shorten_first(connection, month_after(-200))
    with own_database.transaction(write=True):
        event = factories.make_audit_event(created_at=month_after(-300))
    assert maintain_partitions(own_database) == []
    bypass_rls(connection)
    assert find_partition(connection, event) == "audit_events_first"


def test_a_partition_past_the_retention_is_dropped_and_the_drop_is_an_event(
    own_database: Database, own_database_url: str, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    end = month_after(-3)
    shorten_first(connection, end)
    with own_database.transaction(write=True):
        tenant = factories.make_organization()
        factories.make_audit_event(tenant, created_at=end - timedelta(microseconds=1))
    assert maintain_partitions(own_database) == []
    with own_database.transaction(write=True):
        kept = factories.make_audit_event(tenant, created_at=utc_now())
    set_retention(own_database_url, 4)
    assert maintain_partitions(own_database) == []
    set_retention(own_database_url, 3)
    with caplog.at_level(logging.WARNING):
        assert maintain_partitions(own_database) == ["audit_events_first"]
    assert "dropped the partition audit_events_first" in caplog.text
    assert maintain_partitions(own_database) == []
    with own_database.transaction(write=False) as session:
        first, second = session.scalars(select(AuditEvent).order_by(AuditEvent.created_at)).all()
        assert first.id == kept.id
        assert (second.organization_id, second.account_id, second.actor_id) == (None, None, None)
        assert (second.actor_type, second.action, second.target_type, second.outcome) == (
            "system", "drop_audit_partition", "audit_partition", "succeeded"
        )  # fmt: skip
        name, bound = second.changes
        assert name == {"field": "name", "before": "audit_events_first", "after": None}
        assert datetime.fromisoformat(bound["before"]) == end
    # Events of these months go to the default partition from then on.
    assert "audit_events_first" not in list_partitions(connection)


def test_s24_a_login_that_owns_nothing_can_neither_drop_events_nor_shorten_the_retention(
    own_database: Database,
) -> None:
    retention = "sartiq_audit_retention_months() RETURNS integer LANGUAGE sql RETURN 1"
    with own_database.transaction(write=True) as session:
        for statement, role, error in (
            ("SELECT maintain_audit_partitions()", APPLICATION_ROLE, "permission denied"),
            ("SELECT * FROM audit_events_first", APPLICATION_ROLE, "permission denied"),
            ("SELECT * FROM audit_events_first", SYSTEM_ROLE, "permission denied"),
            ("DROP TABLE audit_events_first", SYSTEM_ROLE, "must be owner"),
            ("ALTER TABLE audit_events DETACH PARTITION audit_events_first", SYSTEM_ROLE, "must be owner"),
            (
                f"CREATE OR REPLACE FUNCTION public.{retention}",
                SYSTEM_ROLE,
                "permission denied|must be owner",
            ),
        ):
            switch_role(SessionRole(role, new_id(), is_superuser=True))
            with pytest.raises(DBAPIError, match=error), session.begin_nested():
                session.execute(text(statement))


def test_events_without_a_partition_are_noticed_and_moved_as_the_documentation_says(
    own_database: Database, connection: Connection, own_database_url: str
) -> None:
    month = month_after(24)
    connection.exec_driver_sql(f"DROP TABLE {name_of(month)}")
    connection.commit()
    assert read_default_bytes(own_database) == 0
    with own_database.transaction(write=True):
        events = [factories.make_audit_event(created_at=month + timedelta(days=day)) for day in range(3)]
    assert read_default_bytes(own_database) > 0
    maintain_partitions(own_database)
    # It cannot be created while its events are elsewhere.
    assert name_of(month) not in list_partitions(connection)
    connection.commit()
    page = (ROOT / "docs/operations/postgresql.md").read_text("utf-8")
    (block,) = re.findall(
        r"^```sql [^\n]*test_audit_partitions[^\n]*\n(.+?)^```", page, re.MULTILINE | re.DOTALL
    )
    engine = build_engine(own_database_url, pool_size=1)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as owner:
        for statement in block.split(";"):
            if statement.strip():
                owner.exec_driver_sql(statement)
    engine.dispose()
    bypass_rls(connection)
    assert {find_partition(connection, event) for event in events} == {name_of(month)}
    assert read_default_bytes(own_database) == 0
    upgrade(own_database_url)


@pytest.mark.parametrize("is_interrupted", [False, True])
def test_events_from_before_the_partitions_are_kept_by_upgrade_and_downgrade(
    own_database: Database, own_database_url: str, connection: Connection, is_interrupted: bool
) -> None:
    with own_database.transaction(write=True):
        for moment in (utc_now() - timedelta(days=2_000), utc_now(), month_after(5)):
            factories.make_audit_event(factories.make_organization(), created_at=moment, address="192.0.2.7")
    before = read_events(connection)
    downgrade(own_database_url, "0051")
    assert read_events(connection) == before
    with pytest.raises(DBAPIError, match="neither changed nor deleted"), connection.begin_nested():
        connection.exec_driver_sql("DELETE FROM audit_events")
    # An event of a far month would not be in the first partition.
    connection.exec_driver_sql("ALTER TABLE audit_events DISABLE TRIGGER USER")
    connection.execute(text("DELETE FROM audit_events WHERE created_at > now() + interval '2 days'"))
    connection.exec_driver_sql("ALTER TABLE audit_events ENABLE TRIGGER USER")
    if is_interrupted:
        # The statements before the swap were committed.
        connection.exec_driver_sql(
            "ALTER TABLE audit_events ADD CONSTRAINT audit_events_bound "
            "CHECK (created_at < '2200-01-01') NOT VALID"
        )
        connection.commit()
        leave_indexes(own_database_url)
    connection.commit()
    upgrade(own_database_url)
    assert read_events(connection) == before[:2]
    assert not connection.scalar(
        text("SELECT count(*) FROM pg_constraint WHERE conname = 'audit_events_bound'")
    )
    assert not connection.scalar(text("SELECT count(*) FROM pg_index WHERE NOT indisvalid"))


def leave_indexes(url: str) -> None:
    """Leave a complete index and an invalid one, as an interrupted migration does."""
    engine = build_engine(url, pool_size=1)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as owner:
        create = "CREATE {} INDEX CONCURRENTLY audit_events_first_{} ON audit_events ({})"
        owner.exec_driver_sql(create.format("", "actor", "actor_id, created_at"))
        with pytest.raises(DBAPIError, match="could not create unique index"):
            owner.exec_driver_sql(create.format("UNIQUE", "target", "action"))
    engine.dispose()


def read_events(connection: Connection) -> list[Any]:
    bypass_rls(connection)
    rows = connection.execute(text("SELECT audit_events::text FROM audit_events ORDER BY created_at")).all()
    connection.commit()
    bypass_rls(connection)
    return list(rows)
