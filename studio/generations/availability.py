"""Reject new generations with rows and images that their tenant may not use any more.

A public row or image of another tenant can be made private, and a public row can be archived. Rows that
refer to it keep the reference, and generations that have begun are finished. New ones are rejected.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, and_, or_, select, union_all

from db.base import Archivable
from db.errors import Conflict
from db.models.media import MediaResource
from db.models.presets import BackgroundPreset, ResolutionPreset, ShotType
from db.models.products import Product
from db.models.styles import Style
from db.models.subjects import Subject
from db.session import query_as_system


class NotAvailable(Conflict):
    """A row or an image is archived, or belongs to another tenant and is not public any more."""

    code = "not_available"
    default_detail = "An input of the generation is archived or no longer public: choose another one"


class Tenant(NamedTuple):
    """The organization of the new generation or, where that is None, the owner of a personal one."""

    organization_id: UUID | None
    owner_id: UUID


_MODELS: dict[str, Any] = {
    "background_preset": BackgroundPreset,
    "product": Product,
    "resolution_preset": ResolutionPreset,
    "shot_type": ShotType,
    "style": Style,
    "subject": Subject,
}
"""The models of rows that can be public, by their kind in the provenance of a generation."""


def require_available(tenant: Tenant, row: Any) -> None:
    """Check that a tenant may use a row or an image that can be public; None is nothing to check.

    Raises:
        NotAvailable: It is archived, or belongs to another tenant and is not public.
    """
    if row is None:
        return
    if getattr(row, "archived_at", None) is not None or not (row.public or is_own(tenant, row)):
        raise NotAvailable(_describe(row), value=row.id)


def is_own(tenant: Tenant, row: Any) -> bool:
    """Return whether a row belongs to the tenant."""
    return row.organization_id == tenant.organization_id and (
        tenant.organization_id is not None or row.owner_id == tenant.owner_id
    )


def require_available_inputs(tenant: Tenant, inputs: Mapping[str, Any]) -> None:
    """Check the rows and images in inputs that were frozen for an earlier generation, with one statement.

    Rows that were deleted meanwhile are no obstacle: the inputs have a copy of what they said.

    Raises:
        NotAvailable: As `require_available`.
    """
    ids: dict[Any, list[UUID]] = {}
    for model, row_id in _list_references(inputs):
        ids.setdefault(model, []).append(row_id)
    unavailable = [
        # unscoped: finds what the tenant may not use
        select(model.id).where(model.id.in_(row_ids), _is_unavailable(model, tenant))
        for model, row_ids in ids.items()
    ]
    # Row-level security hides what is not public any more.
    if unavailable and query_as_system(select(union_all(*unavailable).subquery().c.id)):
        raise NotAvailable()


def _list_references(inputs: Mapping[str, Any]) -> Iterator[tuple[Any, UUID]]:
    """Yield the model and id of each row in frozen inputs that can be public."""
    for row in inputs.get("rows", ()):
        if row["kind"] in _MODELS:
            yield _MODELS[row["kind"]], UUID(row["id"])
    scene = inputs.get("scene", {})
    files = (scene.get("product"), scene.get("subject"), (scene.get("background") or {}).get("image"))
    for file in filter(None, files):
        yield MediaResource, UUID(file["media_id"])


def _is_unavailable(model: Any, tenant: Tenant) -> ColumnElement[bool]:
    if tenant.organization_id is not None:
        is_of_tenant = model.organization_id == tenant.organization_id
    else:
        is_of_tenant = and_(model.organization_id.is_(None), model.owner_id == tenant.owner_id)
    # A system row has no owner, so the comparison with it is null.
    is_foreign = or_(is_of_tenant.is_(False), is_of_tenant.is_(None))
    unavailable: ColumnElement[bool] = and_(model.public.is_(False), is_foreign)
    if issubclass(model, Archivable):
        unavailable = or_(unavailable, model.archived_at.is_not(None))
    return unavailable


def _describe(row: Any) -> str:
    name = {MediaResource: "An image", ShotType: "The shot type"}.get(type(row))
    name = name or f"The {type(row).__name__.removesuffix('Preset').lower()}"
    return f"{name} {row.id} is archived or no longer public: choose another one"
