"""Resolve what a request body refers to: the tenant of the new row, ids of other rows, and images.

Each reference is checked against the tenant of the row that refers to it. The module knows no resource.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Uuid, any_, bindparam, select

from db.base import Owned
from db.caller import current_caller, require_permission_in
from db.models.exports import Export, ExportItem
from db.models.generations import Generation, Prediction
from db.models.media import MediaResource
from db.models.shootings import Look, Shot
from db.tenancy import get_references
from handlers.common.context import current_settings, current_storage
from studio.media.fetching import FetchedImage
from studio.media.ingest import ingest_upload, resolve_file_url
from studio.media.stored_image import StoredImage

# unscoped: only narrows a list that is already filtered by tenant
SHOTS_OF_SHOOTING = select(Shot.id).where(Shot.shooting_id == bindparam("shooting_id"))
"""The ids of the shots of the shooting in the filter `shooting_id`."""

_PRODUCTS = any_(bindparam("products", type_=ARRAY(Uuid())))
# unscoped: these only narrow lists that are already filtered by tenant
_LOOKS = select(Look.id).where(Look.main_product_id == _PRODUCTS)  # unscoped: see above
_GENERATIONS = select(Generation.id).where(Generation.product_id == _PRODUCTS)  # unscoped: see above
_EXPORTED = (
    select(ExportItem.export_id)
    .join(Prediction, Prediction.id == ExportItem.prediction_id)
    .where(Prediction.generation_id.in_(_GENERATIONS))
)
OF_PRODUCTS: Mapping[str, ColumnElement[bool]] = {
    "looks": Look.main_product_id == _PRODUCTS,
    "shots": Shot.look_id.in_(_LOOKS),
    "generations": Generation.product_id == _PRODUCTS,
    "predictions": Prediction.generation_id.in_(_GENERATIONS),
    "exports": Export.id.in_(_EXPORTED),
}
"""The conditions that rows of a table show one of the products of `read_products`."""


def resolve_ownership(organization_id: UUID | None) -> dict[str, UUID | None]:
    """Return the `owner_id` and `organization_id` of a new row.

    Args:
        organization_id: The organization that the row is created in; None creates a personal row.

    Raises:
        NotFound: The caller is not a member of the organization.
        PermissionDenied: The caller's role may not create rows there.
    """
    require_permission_in(organization_id)
    return {"owner_id": current_caller().user_id, "organization_id": organization_id}


def precheck_create(organization_id: UUID | None = None, **_: Any) -> None:
    """Check whether the caller may create a row; the precheck of creating handlers."""
    resolve_ownership(organization_id)


def check_references(row: Owned, body: Mapping[str, Any], **models: type[Owned]) -> None:
    """Check the ids in a body, single ids and lists of ids; null refers to nothing.

    Args:
        row: The row that refers to the others.
        body: The request body.
        models: The model by the name of the property that holds its ids.

    Raises:
        NotFound: The caller cannot see a row.
        ScopeMismatch: A row belongs to another tenant than `row`.
    """
    for name, model in models.items():
        value = body.get(name)
        row_ids = [row_id for row_id in (value if isinstance(value, list) else [value]) if row_id]
        if row_ids:
            get_references(model, row_ids, row.organization_id, row.owner_id, lock=True)


def deduplicate_ids(body: dict[str, Any], *names: str) -> None:
    """Remove repeated ids from the lists of a body, in place.

    `uniqueItems` of the contract compares text, so two spellings of one UUID pass it.
    """
    body.update({name: list(dict.fromkeys(body[name])) for name in names if name in body})


def resolve_images(row: Owned, body: Mapping[str, Any], **attributes: str) -> dict[str, Any]:
    """Return a body in which image URLs are replaced by the images.

    Args:
        row: The row that the images are for.
        body: The request body.
        attributes: The attribute of the row by the name of the property: `cover_image="cover_media"`.

    Raises:
        TargetNotAllowed, NotFound, ScopeMismatch: As `studio.media.ingest.resolve_file_url`.
    """
    changes = {name: value for name, value in body.items() if name not in attributes}
    for name, attribute in attributes.items():
        if name in body:
            changes[attribute] = resolve_image(body[name], row.organization_id, row.owner_id)
    return changes


def resolve_image(
    url: str | None, organization_id: UUID | None, owner_id: UUID | None = None
) -> MediaResource | None:
    """Return the image of a URL for a row of a tenant, as `accept_image`; None for None."""
    return None if url is None else accept_image(url, organization_id, owner_id)


def accept_image(
    source: StoredImage | str,
    organization_id: UUID | None,
    owner_id: UUID | None = None,
    public: bool = False,
) -> MediaResource:
    """Return the stored image of an upload, of a fetched image or of a URL of this server.

    Args:
        source: The image, or its URL.
        organization_id: The organization of the row that shows the image; None if that is personal.
        owner_id: The owner of this row. An image that a superuser adds to a personal row belongs to its
            owner. None stands for the caller.
        public: Whether other tenants may read the image.
    """
    image = source.image if isinstance(source, FetchedImage) else source
    if isinstance(image, StoredImage):
        return ingest_upload(current_storage(), image, organization_id, owner_id, public)
    public_url = current_settings().public_url
    return resolve_file_url(current_storage(), public_url, image, organization_id, owner_id)
