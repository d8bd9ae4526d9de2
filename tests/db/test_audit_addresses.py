"""Test that the address of an audit event can be deleted, and that every other change is rejected."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from db.base import new_id, utc_now
from db.models import AuditEvent
from db.rls.session_role import APPLICATION_ROLE, SYSTEM, SessionRole, bypass_rls
from db.session import Database, switch_role
from studio.review.retention import clear_audit_addresses
from tests.support import factories

OTHER_VALUES: dict[str, Any] = {
    "count": 2,
    "changes": '[{"field": "name"}]',
    "outcome": "refused",
    "updated_at": "2026-01-01 00:00:00",
    "created_at": "2026-01-01 00:00:00",
}
COLUMNS = [column.name for column in AuditEvent.__table__.columns if column.name != "address"]


def make_event(**values: Any) -> AuditEvent:
    changes = [{"field": "name", "before": None, "after": "caf\u00e9 \\u0000"}]
    organization = factories.make_organization()
    return factories.make_audit_event(
        organization, **{"address": "192.0.2.7", "changes": changes, "outcome": "refused", **values}
    )


def read_rows(session: Session) -> list[dict[str, Any]]:
    session.expire_all()
    return [
        dict(row) for row in session.execute(select(AuditEvent.__table__).order_by(AuditEvent.id)).mappings()
    ]


def count_rejections(session: Session, assignment: str) -> None:
    with pytest.raises(DBAPIError, match="neither changed nor deleted"), session.begin_nested():
        session.execute(text(f"UPDATE audit_events SET {assignment}"))  # noqa: S608 - names of this module


def test_the_address_of_old_events_is_deleted_and_nothing_else(database: Database) -> None:
    old = utc_now() - timedelta(days=10)
    with database.transaction(write=True) as session:
        first, other = make_event(created_at=old), make_event(created_at=old)
        make_event(created_at=utc_now())
        before = read_rows(session)
        organization_id = first.organization_id
        assert organization_id is not None
        assert clear_audit_addresses(organization_id, utc_now() - timedelta(days=20)) == 0
        assert clear_audit_addresses(organization_id, utc_now() - timedelta(days=5)) == 1
        assert clear_audit_addresses(organization_id, utc_now() - timedelta(days=5)) == 0
        after = read_rows(session)
        assert [{**row, "address": None} if row["id"] == first.id else row for row in before] == after
        assert {row["address"] for row in after if row["id"] == other.id} == {"192.0.2.7"}


@pytest.mark.parametrize("column", COLUMNS)
def test_s24_an_update_that_changes_another_column_too_is_rejected(database: Database, column: str) -> None:
    with database.transaction(write=True) as session:
        make_event()
        bypass_rls(session.connection())
        before = read_rows(session)
        is_uuid = column in ("id", "organization_id", "account_id", "actor_id", "target_id")
        value = new_id().hex if is_uuid else OTHER_VALUES.get(column, "another")
        literal = value if isinstance(value, int) else f"'{value}'"
        if column == "outcome":
            literal = "'succeeded'"
        count_rejections(session, f"{column} = {literal}, address = NULL")
        if column not in ("count", "updated_at"):
            count_rejections(session, f"{column} = {literal}")
            count_rejections(session, f"{column} = {literal}, count = count + 1")
        assert read_rows(session) == before


def test_s24_an_address_is_only_deleted_never_replaced_or_restored(database: Database) -> None:
    with database.transaction(write=True) as session:
        event = make_event()
        bypass_rls(session.connection())
        count_rejections(session, "address = '198.51.100.1'")
        count_rejections(session, "address = address")
        count_rejections(session, "address = NULL, count = count + 1")
        session.execute(text("UPDATE audit_events SET address = NULL"))
        count_rejections(session, "address = '192.0.2.7'")
        count_rejections(session, "address = NULL")
        assert session.get_one(AuditEvent, event.id).count == 1


def test_s24_only_the_system_role_executes_the_function(database: Database) -> None:
    with database.transaction(write=True) as session:
        event = make_event(created_at=utc_now() - timedelta(days=10))
        assert event.organization_id is not None
        call = text("SELECT sartiq_clear_audit_addresses(:organization, now(), 10)")
        values = {"organization": event.organization_id}
        owner = SessionRole(APPLICATION_ROLE, new_id(), (event.organization_id,), is_superuser=True)
        switch_role(owner)
        for statement in (
            call,
            text("UPDATE audit_events SET address = NULL WHERE true OR :organization IS NULL"),
        ):
            with pytest.raises(DBAPIError, match="permission denied"), session.begin_nested():
                session.execute(statement, values)
        switch_role(SYSTEM)
        assert session.scalar(call, values) == 1
        # The system role cannot set an address, nor change another column.
        for assignment in ("address = 'x'", "actor_email = NULL"):
            with pytest.raises(DBAPIError), session.begin_nested():
                session.execute(text(f"UPDATE audit_events SET {assignment}"))  # noqa: S608 - names of this module
