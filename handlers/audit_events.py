"""The audit log of an organization and of an account. The pipeline writes it; this module only reads it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, SQLColumnExpression, bindparam, select

from db.audit import DENIAL_WINDOW
from db.caller import current_caller
from db.models.audit import AuditEvent
from db.queries.organizations import get_organization
from db.session import current_session
from handlers.common.pagination import ListQuery
from handlers.common.permissions import Permission, requires
from handlers.common.responses import ApiResponse
from handlers.schemas.audit_events import AuditEventSchema

_FILTERS: dict[str, SQLColumnExpression[Any]] = {
    "actor_id": AuditEvent.actor_id,
    "action": AuditEvent.action,
    "target_type": AuditEvent.target_type,
    "target_id": AuditEvent.target_id,
    "outcome": AuditEvent.outcome,
    "created_before": AuditEvent.created_at < bindparam("created_before"),
    # Only the creation time is indexed. An event changes for at most `DENIAL_WINDOW`.
    "recorded_after": AuditEvent.created_at > bindparam("recorded_after"),
}
# An audit log only grows, so its count is always capped.
ORGANIZATION_EVENTS = ListQuery(
    AuditEvent,
    AuditEventSchema,
    filters=_FILTERS,
    parent={"organization_id": AuditEvent.organization_id},
    capped_count=True,
)
ACCOUNT_EVENTS = replace(ORGANIZATION_EVENTS, parent={"account_id": AuditEvent.account_id})


@requires(Permission.AUDIT_READ)
def list_audit_events(organization_id: UUID, **params: Any) -> ApiResponse:
    """List the audit events of an organization."""
    # Superusers can also read the log of a deleted organization.
    if not current_caller().is_superuser or not _has_events(AuditEvent.organization_id == organization_id):
        get_organization(organization_id)
    return ORGANIZATION_EVENTS.list_response(_limit_scan({**params, "organization_id": organization_id}))


@requires(Permission.ACCOUNT_SELF)
def list_own_audit_events(**params: Any) -> ApiResponse:
    """List the audit events of the caller's account and personal rows."""
    return ACCOUNT_EVENTS.list_response(_limit_scan({**params, "account_id": current_caller().user_id}))


def _limit_scan(params: dict[str, Any]) -> dict[str, Any]:
    """Add the creation time before which no event has changed after `updated_after`."""
    updated_after = params.get("updated_after")
    return {**params, "recorded_after": updated_after and updated_after - DENIAL_WINDOW}


def _has_events(condition: ColumnElement[bool]) -> bool:
    return current_session().scalar(select(AuditEvent.id).where(condition).limit(1)) is not None
