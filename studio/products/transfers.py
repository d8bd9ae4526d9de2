"""Transfer products, brands, styles, subjects and guidelines to another tenant.

A row moves with what its deletion would delete: the photos of a product with their cut-outs, the base images
of a subject. These are found from the foreign keys, so a new table needs no change here. Stored images move,
too, unless the new tenant has the same image. No reference across tenants may remain: the row moves only if
no row of its tenant refers to it or shows its images, and if the new tenant can use what it refers to.

Writers lock the rows that they refer to (`db.tenancy.get_references`), so none is added during a transfer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

from sqlalchemy import Column, ColumnElement, and_, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import joinedload

from db.audit import record_transfer
from db.base import Base, Owned, utc_now
from db.caller import current_caller, require_permission_in
from db.errors import InUse, NotFound, ScopeMismatch
from db.models.brands import Brand
from db.models.guidelines import Guidelines
from db.models.media import MediaResource, Upload
from db.models.organizations import Organization
from db.models.products import Product, ProductImage
from db.models.styles import Style
from db.models.subjects import Subject
from db.queries.references import (
    describe_conflict,
    describe_references,
    foreign_keys,
    resource_type,
    select_references,
)
from db.session import current_session
from db.tenancy import get_references
from studio.catalog.visibility import sync_media_visibility
from studio.cutouts.requests import request_cutout
from studio.webhooks.events import emit_product_event

Transferable: TypeAlias = Brand | Guidelines | Product | Style | Subject

MAX_ATTEMPTS = 3
"""How often images are moved if requests store the same images in the new tenant at the same time."""


class _Tenant(NamedTuple):
    """An organization with the owner of a row there, or without one the personal resources of the owner."""

    organization_id: UUID | None
    owner_id: UUID | None

    def owns(self, model: type[Owned]) -> ColumnElement[bool]:
        """Return the condition that a row belongs to this tenant."""
        if self.organization_id is not None:
            return model.organization_id == self.organization_id
        return and_(model.organization_id.is_(None), model.owner_id == self.owner_id)


_Parts: TypeAlias = "dict[type[Owned], list[UUID]]"
"""The ids of the rows that move, by their model; the transferred row comes first."""


def transfer(row: Transferable, organization_id: UUID | None) -> None:
    """Move a locked row to an organization, or without one to the personal resources of the caller.

    Nothing changes if it is there already. Read the row again afterwards: its images may be other ones.

    Raises:
        NotFound: The caller is not a member of the organization.
        PermissionDenied: The caller may not create such a row there.
        InUse: A row of the present tenant refers to the row, or shows one of its images.
        ScopeMismatch: The row refers to one that the new tenant cannot use.
        SlugTaken, SkuTaken: The value is in use in the new tenant.
    """
    require_permission_in(organization_id)
    caller_id = current_caller().user_id
    old, new = _Tenant(row.organization_id, row.owner_id), _Tenant(organization_id, caller_id)
    if old.organization_id == organization_id and (organization_id or old.owner_id == new.owner_id):
        return
    parts = _lock_parts(row)
    media_ids = _list_media_ids(parts)
    _require_unused(row, parts, media_ids, old)
    _require_usable_references(parts, new)
    record_transfer(row, organization_id, caller_id)
    # For each tenant it is another event.
    if isinstance(row, Product):
        emit_product_event("product.deleted", row)
    row.organization_id, row.owner_id = new
    # First, because a unique value can be taken.
    current_session().flush()
    if isinstance(row, Product):
        emit_product_event("product.created", row)
    for model, ids in parts.items():
        if model is not type(row):
            _update(model, ids, new)
    replaced = _move_images(parts, media_ids, old, new) if media_ids else {}
    if getattr(row, "public", False):
        sync_media_visibility(*media_ids, *replaced.values())
    current_session().expire_all()


def _lock_parts(row: Transferable) -> _Parts:
    """Return the row and all that belongs to it. Writers lock the row first, so no part is added."""
    parts: _Parts = {type(row): [row.id]}
    pending: list[type[Owned]] = [type(row)]
    while pending:
        parent = pending.pop()
        for model, key in _list_owned_keys(parent):
            # unscoped: what belongs to a row that was loaded for the caller
            query = select(model.id).where(key.in_(parts[parent])).order_by(model.id)
            parts[model] = list(current_session().scalars(query.with_for_update()))
            pending.append(model)
    return parts


def _list_owned_keys(parent: type[Owned]) -> list[tuple[type[Owned], Column[Any]]]:
    """Return the models whose rows the database deletes with those of `parent`, each with the foreign key."""
    models = [mapper.class_ for mapper in Base.registry.mappers if issubclass(mapper.class_, Owned)]
    return [
        (model, key.parent)
        for model in models
        for key in foreign_keys(model)
        if key.column.table is parent.__table__ and key.ondelete == "CASCADE"
    ]


def _list_media_ids(parts: _Parts) -> list[UUID]:
    """Return the ids of the stored images that the parts show."""
    found: set[UUID] = set()
    for column, ids in _list_columns(parts, MediaResource):
        # unscoped: columns of the parts
        found.update(current_session().scalars(select(column).where(_id_column(column).in_(ids))))
    return sorted(found - {None})


def _list_columns(parts: _Parts, target: type[Owned]) -> list[tuple[Column[Any], list[UUID]]]:
    """Return the columns of the parts that refer to rows of `target`, each with the ids of the parts."""
    return [
        (key.parent, ids)
        for model, ids in parts.items()
        for key in foreign_keys(model)
        if key.column.table is target.__table__
    ]


def _id_column(column: Column[Any]) -> Column[Any]:
    return column.table.c["id"]


def _require_unused(row: Transferable, parts: _Parts, media_ids: Sequence[UUID], old: _Tenant) -> None:
    """Check that no other row of the old tenant refers to the row or shows its images.

    Raises:
        InUse: There are such rows; the error names them.
    """
    references = select_references(type(row), [row.id], ("CASCADE",))
    if conflicts := describe_references(_limit_to(references, parts, old)):
        raise InUse(
            "Other resources of the current organization or user refer to this one", conflicts_with=conflicts
        )
    if not media_ids:
        return
    shown = dict(_limit_to(select_references(MediaResource, media_ids, ("CASCADE",)), parts, old))
    # An upload that became an image expires within a day, and the image has a URL of its own.
    shown.pop(Upload, None)
    conflicts = describe_references(shown)
    if old.organization_id is not None:
        logo = select(Organization.id).where(
            Organization.id == old.organization_id, Organization.logo_media_id.in_(media_ids)
        )
        if organization_id := current_session().scalar(logo):
            conflicts.append(describe_conflict("organization", [organization_id]))
    if conflicts:
        raise InUse(
            "Other resources of the current organization or user use the same image", conflicts_with=conflicts
        )


def _limit_to(
    references: Mapping[type[Owned], ColumnElement[bool]], parts: _Parts, tenant: _Tenant
) -> dict[type[Owned], ColumnElement[bool]]:
    return {
        model: and_(refers, tenant.owns(model), model.id.not_in(parts.get(model, [])))
        for model, refers in references.items()
    }


def _require_usable_references(parts: _Parts, new: _Tenant) -> None:
    """Check that the rows which the parts refer to are public or belong to the new tenant, and lock them.

    Raises:
        ScopeMismatch: One does not; the error names it.
    """
    for model, ids in _list_referenced_ids(parts).items():
        try:
            get_references(model, sorted(ids), new.organization_id, new.owner_id, lock=True)
        except (NotFound, ScopeMismatch) as error:
            conflict = describe_conflict(resource_type(model), [error.value])
            raise ScopeMismatch(
                "The new organization or user cannot use what the resource refers to: clear the reference",
                conflicts_with=[conflict],
            ) from error


def _list_referenced_ids(parts: _Parts) -> dict[type[Owned], set[UUID]]:
    """Return the ids of the rows that the parts and their lists refer to, without images and other parts."""
    models = {
        mapper.local_table: mapper.class_
        for mapper in Base.registry.mappers
        if issubclass(mapper.class_, Owned) and mapper.class_ not in (MediaResource, *parts)
    }
    found: dict[type[Owned], set[UUID]] = defaultdict(set)
    outgoing = [(*key, ids) for model, ids in parts.items() for key in _list_outgoing_keys(model)]
    for key, owning, ids in outgoing:
        if target := models.get(key.column.table):
            # unscoped: columns of the parts
            values = current_session().scalars(select(key.parent).where(owning.in_(ids)))
            found[target].update(value for value in values if value is not None)
    return {target: ids for target, ids in found.items() if ids}


def _list_outgoing_keys(model: type[Owned]) -> list[tuple[Any, Column[Any]]]:
    """Return the foreign keys of a model and of its lists, each with the column that has the row's id."""
    keys: list[tuple[Any, Column[Any]]] = [(key, _id_column(key.parent)) for key in foreign_keys(model)]
    links = [mapper.class_ for mapper in Base.registry.mappers if not issubclass(mapper.class_, Owned)]
    return keys + [
        (key, owning.parent)
        for link in links
        for owning in foreign_keys(link)
        if owning.column.table is model.__table__ and owning.ondelete == "CASCADE"
        for key in foreign_keys(link)
        if key is not owning
    ]


def _move_images(parts: _Parts, media_ids: Sequence[UUID], old: _Tenant, new: _Tenant) -> dict[UUID, UUID]:
    """Move the images of the old tenant; return the ids of those that the new tenant has, by the old ids."""
    # unscoped: images of a row that was loaded for the caller. Public images of others stay where they are.
    query = select(MediaResource.id, MediaResource.content_hash).where(
        MediaResource.id.in_(media_ids), old.owns(MediaResource)
    )
    images = current_session().execute(query.order_by(MediaResource.id).with_for_update()).all()
    for _ in range(MAX_ATTEMPTS - 1):
        try:
            with current_session().begin_nested():
                return _move_or_replace(parts, images, new)
        except IntegrityError:
            # Another request stored one of the images in the new tenant.
            continue
    return _move_or_replace(parts, images, new)


def _move_or_replace(parts: _Parts, images: Sequence[Any], new: _Tenant) -> dict[UUID, UUID]:
    hashes = [image.content_hash for image in images]
    # unscoped: images of the new tenant, in which the caller may create rows
    same = select(MediaResource.content_hash, MediaResource.id).where(
        new.owns(MediaResource), MediaResource.content_hash.in_(hashes)
    )
    found = current_session().execute(same.with_for_update(key_share=True)).all()
    present = {image.content_hash: image.id for image in found}
    # compared: content hashes of images, which are no secrets
    replaced = {image.id: present[image.content_hash] for image in images if image.content_hash in present}
    _update(MediaResource, [image.id for image in images if image.id not in replaced], new)
    # Garbage collection deletes old images without a referring row; these get one.
    _update(MediaResource, list(replaced.values()))
    for column, ids in _list_columns(parts, MediaResource):
        for old_id, new_id in replaced.items():
            shows = and_(_id_column(column).in_(ids), column == old_id)
            current_session().execute(update(column.table).where(shows).values({column.name: new_id}))
    if replaced and ProductImage in parts:
        _request_cutouts(parts[ProductImage], list(replaced.values()))
    return replaced


def _update(model: type[Owned], ids: Sequence[UUID], tenant: _Tenant | None = None) -> None:
    """Move rows to a tenant, or without one only set the time of their last change."""
    if ids:
        moved = {} if tenant is None else tenant._asdict()
        # unscoped: rows that were locked for the caller
        statement = update(model).where(model.id.in_(ids)).values(**moved, updated_at=utc_now())
        current_session().execute(statement.execution_options(synchronize_session=False))


def _request_cutouts(image_ids: Sequence[UUID], media_ids: Sequence[UUID]) -> None:
    """Queue the cut-outs of photos whose stored photo or mask was replaced."""
    query = (
        select(ProductImage)  # unscoped: parts of a product that was loaded for the caller
        .where(
            ProductImage.id.in_(image_ids),
            or_(ProductImage.media_id.in_(media_ids), ProductImage.mask_media_id.in_(media_ids)),
        )
        .options(joinedload(ProductImage.cutout))
        .execution_options(populate_existing=True)
    )
    for image in current_session().scalars(query):
        request_cutout(image)
    current_session().flush()
