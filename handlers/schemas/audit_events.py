"""Serialize audit events."""

from marshmallow import fields

from handlers.schemas.fields import IdentifiedSchema, Uuid


class AuditEventSchema(IdentifiedSchema):
    """An event of the audit log."""

    organization_id = Uuid()
    actor_type = fields.Raw()
    actor_id = Uuid()
    actor_email = fields.Raw()
    action = fields.Raw()
    target_type = fields.Raw()
    target_id = Uuid()
    outcome = fields.Raw()
    reason = fields.Raw()
    changes = fields.Raw()
    address = fields.Raw()
    request_id = fields.Raw()
    count = fields.Raw()
