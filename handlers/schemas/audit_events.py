"""Serialize audit events."""

from typing import Any

from marshmallow import fields

from db.caller import current_caller
from db.models.audit import ActorType
from handlers.schemas.fields import IdentifiedSchema, Uuid


class _OfActor(fields.Raw):
    """A value about the actor. Only superusers see it if the actor belongs to the operator of the server."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> Any:
        if value is None or not _is_staff(obj) or current_caller().is_superuser:
            return value if value is None or isinstance(value, str) else str(value)
        return None


def _is_staff(event: Any) -> bool:
    if event.actor_type == ActorType.OPERATOR:
        return True
    # Release 0.2.0 did not tell. Nobody else acts on the account of a user, who alone reads such events.
    is_user = event.actor_type == ActorType.USER and event.organization_id is None
    return is_user and str(event.actor_id) != str(current_caller().user_id)


class AuditEventSchema(IdentifiedSchema):
    """An event of the audit log."""

    organization_id = Uuid()
    actor_type = fields.Raw()
    actor_id = _OfActor()
    actor_email = _OfActor()
    action = fields.Raw()
    target_type = fields.Raw()
    target_id = Uuid()
    outcome = fields.Raw()
    reason = fields.Raw()
    changes = fields.Raw()
    address = _OfActor()
    request_id = fields.Raw()
    count = fields.Raw()
