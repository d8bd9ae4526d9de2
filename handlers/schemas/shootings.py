"""Serialize shootings, looks and the results of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from marshmallow import Schema, fields

from handlers.schemas.fields import LabeledSchema, Timestamp, Uuid, UuidList
from handlers.schemas.serializer import get_list_serializer, list_attribute_paths
from studio.generations.batch import ShotResult
from studio.shootings.shootings import aggregate_shot_status


class ShootingSchema(LabeledSchema):
    """A shooting with the aggregated status of its shots."""

    name = fields.Raw()
    description = fields.Raw()
    due_date = Timestamp()
    archived = fields.Raw()
    season = fields.Raw()
    collection = fields.Raw()
    brand = fields.Raw()
    brand_id = Uuid()
    default_guidelines_id = Uuid()
    phase = fields.Raw()
    require_test_shooting = fields.Raw()
    shot_status = fields.Function(aggregate_shot_status)
    looks_count = fields.Raw()
    shots_count = fields.Raw(attribute="shot_counts.total")
    shots_approved_count = fields.Raw(attribute="shot_counts.approved")


class LookShotSchema(Schema):
    """A summary of a shot, as part of a look."""

    id = Uuid()
    shot_type_id = Uuid()
    status = fields.Raw()
    external_id = fields.Raw()


class LookShots(fields.Field[Any]):
    """The shots of a look, in the order of its shot types."""

    attribute_paths = tuple(list_attribute_paths(LookShotSchema()))

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> list[dict[str, Any]]:
        order = {shot_type_id: index for index, shot_type_id in enumerate(obj.shot_type_ids)}
        shots = sorted(value, key=lambda shot: order.get(shot.shot_type_id, len(order)))
        return get_list_serializer(LookShotSchema)(shots)


class LookSchema(LabeledSchema):
    """A look with its shots in the order of its shot types."""

    shooting_id = Uuid()
    main_product_id = Uuid()
    subject_id = Uuid()
    style_id = Uuid()
    shot_type_ids = UuidList()
    product_ids = UuidList()
    guidelines_ids = UuidList()
    notes = fields.Raw()
    shots = LookShots()
    product = fields.Raw()


def serialize_batch(results: Sequence[ShotResult], validate_only: bool = False) -> dict[str, Any]:
    """Return the result of each shot of a batch; a dry run has no generation ids."""
    accepted = sum(1 for result in results if result.error is None)
    return {
        "cost_credits": sum(result.cost_credits for result in results),
        "accepted_count": accepted,
        "refused_count": len(results) - accepted,
        "results": [_serialize_result(result, validate_only) for result in results],
    }


def _serialize_result(result: ShotResult, validate_only: bool) -> dict[str, Any]:
    error = result.error
    generation_id = None if validate_only or result.generation_id is None else str(result.generation_id)
    return {
        "shot_id": str(result.shot_id),
        "generation_id": generation_id,
        "cost_credits": result.cost_credits,
        "error": None if error is None else {"code": error.code, "detail": error.detail},
    }
