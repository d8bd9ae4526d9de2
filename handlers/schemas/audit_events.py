"""How an event of the audit log looks outside."""

from marshmallow import fields

from handlers.schemas.fields import IdentifiedSchema, Identifier


class AuditEventSchema(IdentifiedSchema):
    """One event."""

    organization_id = Identifier()
    actor_type = fields.Raw()
    actor_id = Identifier()
    actor_email = fields.Raw()
    action = fields.Raw()
    target_type = fields.Raw()
    target_id = Identifier()
    outcome = fields.Raw()
    reason = fields.Raw()
    changes = fields.Raw()
    address = fields.Raw()
    request_id = fields.Raw()
