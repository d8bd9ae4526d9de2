"""How shootings and looks look outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from marshmallow import Schema, fields

from db.models.shootings import Shooting
from handlers.schemas.compiled import paths_of, reader_of
from handlers.schemas.fields import Identifier, Identifiers, Moment, OwnedSchema
from studio.batches import ShotOrdered
from studio.shootings import shot_status_of


class ShootingSchema(OwnedSchema):
    """A shooting with its shots rolled up."""

    name = fields.Raw()
    description = fields.Raw()
    due_date = Moment()
    archived = fields.Raw()
    season = fields.Raw()
    collection = fields.Raw()
    brand = fields.Raw()
    brand_id = Identifier()
    default_guidelines_id = Identifier()
    phase = fields.Raw()
    require_test_shooting = fields.Raw()
    shot_status = fields.Function(lambda shooting: _shot_status(shooting))
    looks_count = fields.Raw()
    shots_count = fields.Raw()
    shots_approved_count = fields.Raw()


class LookShotSchema(Schema):
    """A shot of a look, in brief."""

    id = Identifier()
    shot_type_id = Identifier()
    status = fields.Raw()


class ShotsOfLook(fields.Field[Any]):
    """The shots of a look in brief, in the order of its shot types."""

    reads = tuple(paths_of(LookShotSchema()))

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> list[dict[str, Any]]:
        places = {shot_type_id: place for place, shot_type_id in enumerate(obj.shot_type_ids)}
        shots = sorted(value, key=lambda shot: places.get(shot.shot_type_id, len(places)))
        return list(map(reader_of(LookShotSchema), shots))


class LookSchema(OwnedSchema):
    """A look with its shots in the order of its shot types."""

    shooting_id = Identifier()
    main_product_id = Identifier()
    subject_id = Identifier()
    style_id = Identifier()
    shot_type_ids = Identifiers()
    product_ids = Identifiers()
    guidelines_ids = Identifiers()
    notes = fields.Raw()
    shots = ShotsOfLook()


def _shot_status(shooting: Shooting) -> str:
    return shot_status_of(shooting)


def present_batch(results: Sequence[ShotOrdered], tried: bool = False) -> dict[str, Any]:
    """What became of the shots of a shooting; what was only tried has left no generation to name."""
    accepted = sum(1 for result in results if result.error is None)
    return {
        "cost_credits": sum(result.cost_credits for result in results),
        "accepted_count": accepted,
        "refused_count": len(results) - accepted,
        "results": [_present_ordered(result, tried) for result in results],
    }


def _present_ordered(result: ShotOrdered, tried: bool) -> dict[str, Any]:
    error = result.error
    named = None if tried or result.generation_id is None else str(result.generation_id)
    return {
        "shot_id": str(result.shot_id),
        "generation_id": named,
        "cost_credits": result.cost_credits,
        "error": None if error is None else {"code": error.code, "detail": error.detail},
    }
