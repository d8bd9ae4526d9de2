"""Create exports: select the predictions and freeze file names and manifest in one transaction.

A worker writes the archive later from what is frozen here. Knows no worker and no HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Select, func, select

from db.base import new_id
from db.errors import Conflict, NotFound, ScopeMismatch
from db.models.brands import Brand
from db.models.destinations import DeliveryState, Destination
from db.models.exports import Export, ExportItem, ExportStatus
from db.models.generations import Prediction, PredictionStatus
from db.models.media import MediaResource
from db.models.organizations import Organization
from db.models.presets import ShotType
from db.models.products import Product, ProductImage
from db.models.shootings import Look, Shooting, Shot
from db.models.users import User
from db.session import after_commit, current_session
from db.tenancy import get_references, select_visible
from studio.billing.storage import require_storage
from studio.exports.names import FileNames, render_template
from studio.infrastructure.pubsub import EXPORTS
from studio.state_machines import DELIVERABLE, NotApproved

MAX_PREDICTIONS = 500
MAX_OPEN_EXPORTS = 10


class NothingToExport(Conflict):
    """The request names no predictions, and the shooting has no approved one that is not exported yet."""

    code = "nothing_to_export"
    default_detail = "The shooting has no approved prediction that has not been exported"


class ExportTooLarge(Conflict):
    """More predictions are approved than an archive can hold."""

    code = "export_too_large"
    default_detail = f"More than {MAX_PREDICTIONS} predictions are approved: pass some in `prediction_ids`"


class TooManyExports(Conflict):
    """The tenant has the maximum of open exports."""

    code = "too_many_exports"
    default_detail = f"At most {MAX_OPEN_EXPORTS} exports may be open at a time"


@dataclass(frozen=True)
class ExportRequest:
    """What a client requests: the properties of `ExportCreate` in the contract and their defaults."""

    prediction_ids: Sequence[UUID] | None = None
    """The predictions; None for all that are approved and not exported yet."""
    name_template: str = "{sku}_{shot_type}"
    destination_id: UUID | None = None
    """Where the files are delivered to when the archive is complete; None for nowhere."""


class SelectedPrediction(NamedTuple):
    """A prediction with the rows that its manifest entry and file name describe."""

    prediction: Prediction
    shot: Shot
    look: Look
    product: Product
    brand: str | None
    shot_type: ShotType
    media: MediaResource


@dataclass(frozen=True)
class ExportSelection:
    """The predictions that a request leads to, in the order of looks and shots."""

    shooting: Shooting
    name_template: str
    predictions: tuple[SelectedPrediction, ...]
    look_numbers: Mapping[UUID, int]
    """The position of each look in the shooting, from 1."""
    alt_texts: Mapping[tuple[UUID, UUID], str]
    """The alternative texts of the products' photos, by the ids of the product and of the stored photo."""


def create_export(shooting: Shooting, request: ExportRequest, export_id: UUID | None = None) -> Export:
    """Create a pending export with its contents frozen.

    Args:
        shooting: The shooting, visible to the caller.
        request: The request.
        export_id: The id of the export, if it is known in advance.

    Raises:
        NotFound: A prediction does not exist or is not visible to the caller.
        ScopeMismatch: A prediction belongs to another shooting.
        NotApproved: A prediction is in review or rejected.
        TooManyExports: The tenant has the maximum of open exports.
        NothingToExport: There are no predictions to export.
        ExportTooLarge: There are more predictions than an archive can hold.
        NotFound, ScopeMismatch: The destination is not visible, or belongs to another tenant.
    """
    destination_id = _find_destination_id(shooting, request.destination_id)
    export = _freeze(_resolve(shooting, request))
    if destination_id is not None:
        export.destination_id, export.delivery_status = destination_id, DeliveryState.PENDING
    export.id = export_id or new_id()
    current_session().add(export)
    current_session().flush()
    after_commit(EXPORTS.notify)
    return export


def _resolve(shooting: Shooting, request: ExportRequest) -> ExportSelection:
    if request.prediction_ids is not None:
        _require_deliverable(shooting, request.prediction_ids)
    _require_capacity(shooting)
    require_storage(shooting.organization_id, shooting.owner_id)
    rows = current_session().execute(_select_predictions(shooting, request.prediction_ids)).all()
    if not rows:
        raise NothingToExport()
    if len(rows) > MAX_PREDICTIONS:
        raise ExportTooLarge(limit=MAX_PREDICTIONS)
    return ExportSelection(
        shooting=shooting,
        name_template=request.name_template,
        predictions=tuple(SelectedPrediction(*row) for row in rows),
        look_numbers=_number_looks(shooting),
        alt_texts=_load_alt_texts({row.Product.id for row in rows}),
    )


def _find_destination_id(shooting: Shooting, destination_id: UUID | None) -> UUID | None:
    if destination_id is None:
        return None
    # The lock keeps the destination until the export refers to it.
    owner = (shooting.organization_id, shooting.owner_id)
    return get_references(Destination, [destination_id], *owner, lock=True)[0].id


def _require_deliverable(shooting: Shooting, prediction_ids: Sequence[UUID]) -> None:
    requested = select_visible(Prediction).where(Prediction.id.in_(prediction_ids))
    requested = requested.outerjoin(Shot, Shot.id == Prediction.shot_id)
    columns = requested.with_only_columns(Prediction.id, Shot.shooting_id, Prediction.status)
    found = {row.id: row for row in current_session().execute(columns)}
    for prediction_id in prediction_ids:
        if prediction_id not in found:
            raise NotFound(value=prediction_id)
    for row in found.values():
        if row.shooting_id != shooting.id:
            raise ScopeMismatch("The prediction belongs to another shooting", value=row.id)
        if row.status not in DELIVERABLE:
            raise NotApproved(value=row.id)


def _require_capacity(shooting: Shooting) -> None:
    """Check the number of open exports. The lock makes concurrent requests of a tenant take turns."""
    tenant = Organization if shooting.organization_id else User
    tenant_id = shooting.organization_id or shooting.owner_id
    # FOR NO KEY UPDATE: rows that refer to the tenant can be inserted meanwhile.
    current_session().execute(select(tenant.id).where(tenant.id == tenant_id).with_for_update(key_share=True))
    # unscoped: counts rows of the tenant of a visible shooting
    counted = select(func.count(Export.id)).where(
        Export.organization_id == shooting.organization_id,
        *([] if shooting.organization_id else [Export.owner_id == shooting.owner_id]),
        Export.status.in_((ExportStatus.PENDING, ExportStatus.RUNNING)),
    )
    if (current_session().scalar(counted) or 0) >= MAX_OPEN_EXPORTS:
        raise TooManyExports(limit=MAX_OPEN_EXPORTS)


def _select_predictions(
    shooting: Shooting, prediction_ids: Sequence[UUID] | None
) -> Select[Prediction, Shot, Look, Product, str | None, ShotType, MediaResource]:
    # unscoped: predictions of a visible shooting
    predictions = (
        select(Prediction, Shot, Look, Product, Brand.name, ShotType, MediaResource)  # unscoped: see above
        .join(Shot, Shot.id == Prediction.shot_id)
        .join(Look, Look.id == Shot.look_id)
        .join(Product, Product.id == Look.main_product_id)
        .outerjoin(Brand, Brand.id == Product.brand_id)
        .join(ShotType, ShotType.id == Shot.shot_type_id)
        .join(MediaResource, MediaResource.id == Prediction.media_id)
        .where(Shot.shooting_id == shooting.id)
        .order_by(Look.id, Shot.id, Prediction.id)
        .limit(MAX_PREDICTIONS + 1)
    )
    if prediction_ids is None:
        return predictions.where(Prediction.status == PredictionStatus.APPROVED)
    return predictions.where(Prediction.id.in_(prediction_ids))


def _number_looks(shooting: Shooting) -> dict[UUID, int]:
    # unscoped: looks of a visible shooting
    looks = select(Look.id).where(Look.shooting_id == shooting.id).order_by(Look.id)  # unscoped: see above
    return {look_id: number for number, look_id in enumerate(current_session().scalars(looks), 1)}


def _load_alt_texts(product_ids: set[UUID]) -> dict[tuple[UUID, UUID], str]:
    # unscoped: the photos of the products of a visible shooting
    photos = select(ProductImage.product_id, ProductImage.media_id, ProductImage.alt_text)
    photos = photos.where(ProductImage.product_id.in_(product_ids))
    rows = current_session().execute(photos.order_by(ProductImage.position.desc(), ProductImage.id))
    return {(product_id, media_id): text for product_id, media_id, text in rows if text}


def _freeze(selection: ExportSelection) -> Export:
    shooting = selection.shooting
    return Export(
        owner_id=shooting.owner_id,
        organization_id=shooting.organization_id,
        shooting_id=shooting.id,
        shooting_name=shooting.name,
        name_template=selection.name_template,
        predictions_count=len(selection.predictions),
        items=list(_build_items(selection)),
    )


def _build_items(selection: ExportSelection) -> Iterator[ExportItem]:
    names = FileNames()
    for position, selected in enumerate(selection.predictions, 1):
        prediction, product, media = selected.prediction, selected.product, selected.media
        name = render_template(
            selection.name_template,
            {
                "product": product.name,
                "sku": product.sku or product.name,
                "shot_type": selected.shot_type.slug,
                "look": str(selection.look_numbers[selected.look.id]),
                "index": f"{position:03}",
                "shooting": selection.shooting.name,
                "prediction": str(prediction.id),
            },
        )
        yield ExportItem(
            position=position,
            media_id=media.id,
            prediction_id=prediction.id,
            file_name=names.reserve(name, media.extension),
            content_hash=media.content_hash,
            file_size=media.file_size,
            facts=_describe(selection, selected),
        )


def _describe(selection: ExportSelection, selected: SelectedPrediction) -> dict[str, Any]:
    """Return the entry of a prediction in the manifest. Stored JSON keeps its keys."""
    prediction, shot, look, product, brand, shot_type, media = selected
    shooting = selection.shooting
    return {
        "product": product.name,
        "product_id": str(product.id),
        "external_id": product.external_id,
        "sku": product.sku,
        "metadata": product.custom_metadata,
        "brand": brand,
        "shooting": shooting.name,
        "shooting_id": str(shooting.id),
        "shooting_external_id": shooting.external_id,
        "shot_type": shot_type.slug,
        "look": selection.look_numbers[look.id],
        "look_id": str(look.id),
        "look_external_id": look.external_id,
        "shot_id": str(shot.id),
        "shot_external_id": shot.external_id,
        "alt_text": _find_alt_text(selection, selected),
        "sha256": media.content_hash,
        "file_size": media.file_size,
        "width": prediction.width,
        "height": prediction.height,
        "content_type": media.content_type,
        "seed": prediction.seed,
        "model": prediction.provenance.get("model"),
        "provider": prediction.provenance.get("provider"),
        "digital_source_type": prediction.provenance.get("digital_source_type"),
        "provenance": prediction.provenance,
        "prediction_id": str(prediction.id),
        # In the JSON manifest only.
        "shooting_metadata": shooting.custom_metadata,
        "look_metadata": look.custom_metadata,
        "shot_metadata": shot.custom_metadata,
        **({"compliance": prediction.compliance} if prediction.compliance else {}),
    }


def _find_alt_text(selection: ExportSelection, selected: SelectedPrediction) -> str:
    """Return the alternative text of the photo that the image was made from, or else a text from names."""
    for used in selected.prediction.provenance.get("inputs") or ():
        if used.get("kind") == "product_image" and used.get("id"):
            text = selection.alt_texts.get((selected.product.id, UUID(used["id"])))
            if text:
                return text
    return f"{selected.product.name}, {selected.shot_type.name}"
