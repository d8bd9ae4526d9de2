"""The audit log of an organization and of an account. The pipeline writes it; this module only reads it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import SQLColumnExpression, bindparam, select

from db.audit import DENIAL_WINDOW
from db.base import utc_now
from db.caller import current_caller
from db.libpq.statements import Query
from db.models.audit import ActorType, AuditEvent, Outcome
from db.rls.session_role import sql_literal
from handlers.common.pagination import ListQuery
from handlers.common.permissions import Permission, requires
from handlers.common.reads import Reading, Step, read_permission_in
from handlers.common.responses import ApiResponse
from handlers.schemas.audit_events import AuditEventSchema

MAX_CLOCK_SKEW = timedelta(days=1)
"""Lists end so long after now: PostgreSQL then reads no partitions of later months."""

_FILTERS: dict[str, SQLColumnExpression[Any]] = {
    "actor_id": AuditEvent.actor_id,
    "action": AuditEvent.action,
    "target_type": AuditEvent.target_type,
    "target_id": AuditEvent.target_id,
    "outcome": AuditEvent.outcome,
    # A literal, which the index of the few denied requests needs.
    "is_denied": AuditEvent.outcome == sql_literal(Outcome.REFUSED),
    # Who asks for the events of an id must not learn that it is one of the staff.
    "except_type": AuditEvent.actor_type != bindparam("except_type"),
    "created_before": AuditEvent.created_at < bindparam("created_before"),
    # Only the creation time is indexed. An event changes for at most `DENIAL_WINDOW`.
    "recorded_after": AuditEvent.created_at > bindparam("recorded_after"),
}
_IS_PRESENT = {"until": AuditEvent.created_at < bindparam("until")}
# An audit log only grows, so its count is always capped.
ORGANIZATION_EVENTS = ListQuery(
    AuditEvent,
    AuditEventSchema,
    filters=_FILTERS,
    parent={"organization_id": AuditEvent.organization_id, **_IS_PRESENT},
    capped_count=True,
)
_ANY_EVENT = select(AuditEvent.id).where(AuditEvent.organization_id == bindparam("organization_id")).limit(1)
ACCOUNT_EVENTS = replace(ORGANIZATION_EVENTS, parent={"account_id": AuditEvent.account_id, **_IS_PRESENT})


@requires(Permission.AUDIT_READ)
def list_audit_events(organization_id: UUID, **params: Any) -> Reading[ApiResponse]:
    """List the audit events of an organization."""
    caller = current_caller()
    may_read_any = caller.is_superuser and organization_id not in caller.withheld
    # Superusers can also read the log of a deleted organization.
    if not may_read_any or not (yield from _has_events(organization_id)):
        yield from read_permission_in(organization_id)
    page = _limit_scan({**params, "organization_id": organization_id})
    return (yield from ORGANIZATION_EVENTS.read_page(page))


@requires(Permission.ACCOUNT_SELF)
def list_own_audit_events(**params: Any) -> Reading[ApiResponse]:
    """List the audit events of the caller's account and personal rows."""
    page = _limit_scan({**params, "account_id": current_caller().user_id})
    return (yield from ACCOUNT_EVENTS.read_page(page))


def _limit_scan(params: dict[str, Any]) -> dict[str, Any]:
    """Limit the time, hide the staff, and name the condition of the index of denied requests.

    Before `recorded_after`, no event has changed after `updated_after`.
    """
    updated_after, is_denied = params.get("updated_after"), params.get("outcome") == Outcome.REFUSED
    is_guess = params.get("actor_id") is not None and not current_caller().is_superuser
    return {
        **params,
        "except_type": ActorType.OPERATOR if is_guess else None,
        "recorded_after": updated_after and updated_after - DENIAL_WINDOW,
        "is_denied": is_denied or None,
        "until": utc_now() + MAX_CLOCK_SKEW,
    }


def _has_events(organization_id: UUID) -> Reading[bool]:
    (found,) = yield Step([Query(_ANY_EVENT, {"organization_id": organization_id})])
    return bool(found)
