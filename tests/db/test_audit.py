"""Test that the audit log is append-only for every role and masks columns that may hold a secret."""

from __future__ import annotations

import pytest
from sqlalchemy import TextClause, delete, text, update
from sqlalchemy.exc import DBAPIError

from db.audit import _logged_columns, is_secret
from db.base import Base, Identified
from db.models import AuditEvent
from db.rls.session_role import bypass_rls
from db.session import Database
from tests.support import factories

TRIGGER_ERROR = "neither changed nor deleted"
PRIVILEGE_ERROR = "permission denied"

STATEMENTS = {
    "update": "UPDATE audit_events SET actor_email = 'nobody@example.com'",
    "delete": "DELETE FROM audit_events",
    "delete without its trigger": "TRUNCATE audit_events",
}


@pytest.fixture(params=STATEMENTS)
def statement(request: pytest.FixtureRequest) -> TextClause:
    """Return a statement that changes or deletes events."""
    return text(STATEMENTS[request.param])


def test_s24_the_server_cannot_change_or_delete_an_event(database: Database, statement: TextClause) -> None:
    event = factories.make_audit_event(actor_email="ada@example.com")
    with pytest.raises(DBAPIError, match=PRIVILEGE_ERROR), database.transaction(write=True) as writing:
        writing.execute(statement)
    with database.transaction(write=False) as reading:
        assert reading.get_one(AuditEvent, event.id).actor_email == "ada@example.com"


def test_s24_the_owner_of_the_tables_cannot_change_or_delete_an_event(
    database: Database, statement: TextClause
) -> None:
    event = factories.make_audit_event(actor_email="ada@example.com")
    with database.transaction(write=True) as writing:
        bypass_rls(writing.connection())
        with pytest.raises(DBAPIError, match=TRIGGER_ERROR), writing.begin_nested():
            writing.execute(statement)
        assert writing.get_one(AuditEvent, event.id).actor_email == "ada@example.com"


def test_s24_the_session_rejects_changes_and_deletions_of_an_event(database: Database) -> None:
    event = factories.make_audit_event()
    with pytest.raises(RuntimeError, match=TRIGGER_ERROR), database.transaction(write=True) as writing:
        writing.get_one(AuditEvent, event.id).outcome = "refused"
    with pytest.raises(RuntimeError, match=TRIGGER_ERROR), database.transaction(write=True) as writing:
        writing.delete(writing.get_one(AuditEvent, event.id))
    for statement in (update(AuditEvent).values(outcome="refused"), delete(AuditEvent)):
        with pytest.raises(RuntimeError, match=TRIGGER_ERROR), database.transaction(write=True) as writing:
            writing.execute(statement)


def test_an_event_outlives_its_organization_and_its_actor(database: Database) -> None:
    organization = factories.make_organization()
    event = factories.make_audit_event(organization, actor_id=organization.owner_id)
    with database.transaction(write=True) as writing:
        writing.execute(text("DELETE FROM memberships"))
        writing.execute(text("DELETE FROM organizations"))
        writing.execute(text("DELETE FROM users"))
    with database.transaction(write=False) as reading:
        found = reading.get_one(AuditEvent, event.id)
        assert (found.organization_id, found.actor_id) == (organization.id, organization.owner_id)


# Only a lower bound: new columns are masked by their names.
MASKED = {
    ("destinations", "access_key_hint"),
    ("destinations", "credentials"),
    ("destinations", "credentials_key"),
    ("email_changes", "token_hash"),
    ("generation_models", "fallback_provider_config"),
    ("generation_models", "provider_config"),
    ("idempotency_keys", "key_hash"),
    ("invitations", "token_hash"),
    ("password_reset_tokens", "token_hash"),
    ("refresh_tokens", "token_hash"),
    ("users", "hashed_password"),
    ("webhook_endpoints", "previous_secret_salt"),
    ("webhook_endpoints", "previous_secret_expires_at"),
    ("webhook_endpoints", "secret_salt"),
}


def test_s24_every_column_that_may_hold_a_secret_is_masked() -> None:
    logged = {
        (mapper.local_table.name, name)
        for mapper in Base.registry.mappers
        if issubclass(mapper.class_, Identified)
        for name in _logged_columns(mapper.class_)
    }
    assert {column for column in logged if is_secret(column[1])} >= MASKED
