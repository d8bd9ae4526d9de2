"""Orders an export: which pictures it holds, how their files are called, and what the manifest says of them.

All of it is frozen when it is ordered. Knows no worker and no HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import UUID

from sqlalchemy import Row, Select, func, select

from db.errors import Conflict, NotFound, ScopeMismatch
from db.models.exports import Export, ExportItem, ExportStatus
from db.models.generations import Prediction, PredictionStatus
from db.models.media import MediaResource
from db.models.organizations import Organization
from db.models.presets import ShotType
from db.models.products import Product
from db.models.shootings import Look, Shooting, Shot
from db.models.users import User
from db.session import after_commit, current_session
from db.tenancy import select_visible
from studio.exports.names import FileNames, render_template
from studio.pubsub import EXPORTS
from studio.state_machines import DELIVERABLE

MAX_PREDICTIONS = 500
MAX_OPEN_EXPORTS = 10
DEFAULT_TEMPLATE = "{sku}_{shot_type}"


class NothingToExport(Conflict):
    """No pictures were named, and the shooting has no approved one that was not exported yet."""

    code = "nothing_to_export"
    default_detail = "The shooting has no approved picture that was not exported yet"


class NotApproved(Conflict):
    """A picture that was named is in review or rejected."""

    code = "not_approved"
    default_detail = "Only approved pictures can be exported"


class ExportTooLarge(Conflict):
    """More pictures are approved than one archive holds."""

    code = "export_too_large"
    default_detail = f"More than {MAX_PREDICTIONS} pictures are approved; name those that you want"


class TooManyExports(Conflict):
    """The scope has as many open exports as one may have."""

    code = "too_many_exports"
    default_detail = f"At most {MAX_OPEN_EXPORTS} exports may be open at a time"


def create_export(
    shooting: Shooting,
    prediction_ids: Sequence[UUID] | None = None,
    name_template: str = DEFAULT_TEMPLATE,
) -> Export:
    """The new pending export of a shooting that was loaded scoped, its contents frozen.

    NotFound for a picture that the caller cannot see; ScopeMismatch for one of another shooting; NotApproved,
    NothingToExport, ExportTooLarge, TooManyExports.
    """
    if prediction_ids is not None:
        _require_deliverable(shooting, prediction_ids)
    _require_capacity(shooting)
    found = current_session().execute(_select_predictions(shooting, prediction_ids)).all()
    if not found:
        raise NothingToExport()
    if len(found) > MAX_PREDICTIONS:
        raise ExportTooLarge()
    export = Export(
        owner_id=shooting.owner_id,
        organization_id=shooting.organization_id,
        shooting_id=shooting.id,
        shooting_name=shooting.name,
        name_template=name_template,
        predictions_count=len(found),
        items=list(_build_items(shooting, name_template, found)),
    )
    current_session().add(export)
    current_session().flush()
    after_commit(EXPORTS.notify)
    return export


def _require_deliverable(shooting: Shooting, prediction_ids: Sequence[UUID]) -> None:
    named = select_visible(Prediction).where(Prediction.id.in_(prediction_ids))
    named = named.outerjoin(Shot, Shot.id == Prediction.shot_id)
    seen = current_session().execute(named.with_only_columns(Shot.shooting_id, Prediction.status)).all()
    if len(seen) < len(set(prediction_ids)):
        raise NotFound()
    if any(shooting_id != shooting.id for shooting_id, _ in seen):
        raise ScopeMismatch("A picture belongs to another shooting")
    if any(status not in DELIVERABLE for _, status in seen):
        raise NotApproved()


def _require_capacity(shooting: Shooting) -> None:
    """TooManyExports when the scope has its share; orders of one scope come here one after the other."""
    tenant = Organization if shooting.organization_id else User
    tenant_id = shooting.organization_id or shooting.owner_id
    # A lock that is not in the way of those who only refer to the tenant.
    current_session().execute(select(tenant.id).where(tenant.id == tenant_id).with_for_update(key_share=True))
    # unscoped: a number, of the scope of a shooting that was loaded scoped
    opened = select(func.count(Export.id)).where(
        Export.organization_id == shooting.organization_id,
        *([] if shooting.organization_id else [Export.owner_id == shooting.owner_id]),
        Export.status.in_((ExportStatus.PENDING, ExportStatus.RUNNING)),
    )
    if (current_session().scalar(opened) or 0) >= MAX_OPEN_EXPORTS:
        raise TooManyExports()


def _select_predictions(
    shooting: Shooting, prediction_ids: Sequence[UUID] | None
) -> Select[Prediction, Shot, str, str | None, str, MediaResource]:
    """The pictures in the order of looks and shots, with all that the manifest says of them."""
    # unscoped: pictures of a shooting that was loaded scoped
    chosen = (
        select(
            Prediction, Shot, Product.name, Product.sku, ShotType.slug, MediaResource
        )  # unscoped: see above
        .join(Shot, Shot.id == Prediction.shot_id)
        .join(Look, Look.id == Shot.look_id)
        .join(Product, Product.id == Look.main_product_id)
        .join(ShotType, ShotType.id == Shot.shot_type_id)
        .join(MediaResource, MediaResource.id == Prediction.media_id)
        .where(Shot.shooting_id == shooting.id)
        .order_by(Look.id, Shot.id, Prediction.id)
        .limit(MAX_PREDICTIONS + 1)
    )
    if prediction_ids is None:
        return chosen.where(Prediction.status == PredictionStatus.APPROVED)
    return chosen.where(Prediction.id.in_(prediction_ids))


def _build_items(
    shooting: Shooting,
    template: str,
    found: Sequence[Row[Prediction, Shot, str, str | None, str, MediaResource]],
) -> Iterator[ExportItem]:
    names, numbers = FileNames(), _number_looks(shooting)
    for position, (prediction, shot, product, sku, shot_type, media) in enumerate(found, 1):
        facts = {
            "product": product,
            "sku": sku,
            "shot_type": shot_type,
            "look": numbers[shot.look_id],
            "sha256": media.content_hash,
            "file_size": media.file_size,
            "width": prediction.width,
            "height": prediction.height,
            "content_type": media.content_type,
            "seed": prediction.seed,
            "model": prediction.provenance.get("model"),
            "provider": prediction.provenance.get("provider"),
            "provenance": prediction.provenance,
            "prediction_id": str(prediction.id),
            "shot_id": str(shot.id),
        }
        wanted = render_template(
            template,
            {
                "product": product,
                "sku": sku or product,
                "shot_type": shot_type,
                "look": str(facts["look"]),
                "index": f"{position:03}",
                "shooting": shooting.name,
                "prediction": str(prediction.id),
            },
        )
        yield ExportItem(
            position=position,
            media_id=media.id,
            prediction_id=prediction.id,
            file_name=names.reserve(wanted, media.extension),
            content_hash=media.content_hash,
            file_size=media.file_size,
            facts=facts,
        )


def _number_looks(shooting: Shooting) -> dict[UUID, int]:
    # unscoped: looks of a shooting that was loaded scoped
    looks = select(Look.id).where(Look.shooting_id == shooting.id).order_by(Look.id)  # unscoped: see above
    return {look_id: number for number, look_id in enumerate(current_session().scalars(looks), 1)}
