"""The audit log, which is read here and never written: an organization's, and everybody's own."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, select

from db.models.audit import AuditEvent
from db.queries.organizations import get_organization
from db.session import session
from db.tenancy import current_caller
from handlers.answers import Answer
from handlers.paging import page
from handlers.permissions import Permission, requires
from handlers.schemas.audit_events import AuditEventSchema


@requires(Permission.AUDIT_READ)
def list_audit_events(organization_id: UUID, **listing: Any) -> Answer:
    """What was done to the rows of one organization."""
    of_organization = AuditEvent.organization_id == organization_id
    # Superusers read the log of an organization that is gone, too.
    if not current_caller().is_superuser or not _is_any(of_organization):
        get_organization(organization_id)
    return _page(of_organization, listing)


@requires(Permission.ACCOUNT_SELF)
def list_own_audit_events(**listing: Any) -> Answer:
    """What happened to the caller's account and personal rows."""
    return _page(AuditEvent.account_id == current_caller().user_id, listing)


def _is_any(scope: ColumnElement[bool]) -> bool:
    return session().scalar(select(AuditEvent.id).where(scope).limit(1)) is not None


def _page(scope: ColumnElement[bool], listing: dict[str, Any]) -> Answer:
    named = ("actor_id", "action", "target_type", "target_id", "outcome")
    given = [getattr(AuditEvent, name) == listing[name] for name in named if listing.get(name) is not None]
    if listing.get("created_before") is not None:
        given.append(AuditEvent.created_at < listing["created_before"])
    # An event never changes, and the indexes have one time.
    if listing.get("updated_after") is not None:
        given.append(AuditEvent.created_at > listing["updated_after"])
    query = select(AuditEvent).where(scope, *given)
    # Logs grow without end: two filters and more let the count stop.
    rest = {**listing, "updated_after": None}
    return page(query, AuditEvent, AuditEventSchema, rest, filters=max(2, len(given)))
