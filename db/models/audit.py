"""The audit log: one event per write, sign-in or denied request. It is append-only."""

from __future__ import annotations

from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Index, String, event, text
from sqlalchemy.orm import Mapped, ORMExecuteState, Session, mapped_column

from db.base import Identified


class ActorType(StrEnum):
    """The credential of the request."""

    USER = "user"
    API_KEY = "api_key"
    GUEST = "guest"
    ANONYMOUS = "anonymous"
    OPERATOR = "operator"
    """A superuser, in a tenant that is not theirs."""


class Outcome(StrEnum):
    """The outcome of the request."""

    SUCCEEDED = "succeeded"
    REFUSED = "refused"


_HAS_ADDRESS = text("address IS NOT NULL")
_DAY = text("CAST(created_at AT TIME ZONE 'UTC' AS date)")


class AuditEvent(Identified):
    """A row is one event; it has no foreign keys because it outlives its actor, target and organization.

    It belongs to the organization whose rows were used, or to the account for personal rows. The session and
    triggers of the database reject changes and deletions. Only `count` of a denied event grows, one by one,
    and the retention of an organization deletes `address`.

    The table has a partition for each month (`db/audit_partitions.py`). Its primary key in the database is
    `id, created_at`, because that of a partitioned table contains what it is partitioned by. Statements that
    limit `created_at` read the partitions of that time only.
    """

    __tablename__ = "audit_events"
    __table_args__ = (
        Index("ix_audit_events_organization", "organization_id", "created_at"),
        Index("ix_audit_events_actor", "actor_id", "created_at"),
        Index("ix_audit_events_action", "organization_id", "action", "created_at"),
        Index("ix_audit_events_target", "target_id", "created_at"),
        Index("ix_audit_events_target_type", "organization_id", "target_type", "created_at"),
        Index(
            "ix_audit_events_denied",
            "organization_id",
            "created_at",
            postgresql_where=text("outcome = 'refused'"),
        ),
        Index(
            "ix_audit_events_account",
            "account_id",
            "created_at",
            postgresql_where=text("account_id IS NOT NULL"),
        ),
        Index("ix_audit_events_address", "organization_id", _DAY, postgresql_where=_HAS_ADDRESS),
    )

    organization_id: Mapped[UUID | None]
    account_id: Mapped[UUID | None]
    actor_type: Mapped[str] = mapped_column(String(20))
    actor_id: Mapped[UUID | None]
    # The address of the user, or of the API key's creator, at the time of the event.
    actor_email: Mapped[str | None] = mapped_column(String(320))
    action: Mapped[str] = mapped_column(String(80))
    target_type: Mapped[str | None] = mapped_column(String(40))
    target_id: Mapped[UUID | None]
    outcome: Mapped[str] = mapped_column(String(20))
    reason: Mapped[str | None] = mapped_column(String(60))
    changes: Mapped[list[Any]] = mapped_column(default=list)
    address: Mapped[str | None] = mapped_column(String(64))
    request_id: Mapped[str] = mapped_column(String(64))
    # More than 1 for denied requests that were repeated within a minute.
    count: Mapped[int] = mapped_column(default=1)


def _reject_row_change(*_: object) -> None:
    raise RuntimeError("events of the audit log are neither changed nor deleted")


def _reject_statement(state: ORMExecuteState) -> None:
    if (state.is_update or state.is_delete) and state.bind_mapper is AuditEvent.__mapper__:
        _reject_row_change()


event.listen(AuditEvent, "before_update", _reject_row_change)
event.listen(AuditEvent, "before_delete", _reject_row_change)
event.listen(Session, "do_orm_execute", _reject_statement)
