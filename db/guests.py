"""The rows that a guest with a review link sees: those of one shooting.

Row-level security has the same rules. A model that is not listed shows a guest no rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, Select, false, or_, select

from db.models.comments import PredictionComment
from db.models.generations import Generation, Prediction
from db.models.media import MediaResource
from db.models.presets import ShotType
from db.models.products import Product, ProductImage
from db.models.shootings import Look, Shooting, Shot


def guest_condition(model: type[Any], shooting_id: Any) -> ColumnElement[bool]:
    """Return the condition that a guest of a shooting sees a row of a model.

    Args:
        model: A model that derives from `Owned`.
        shooting_id: The id of the shooting, or a bind parameter.
    """
    build = _CONDITIONS.get(model)
    return false() if build is None else build(shooting_id)


def _shots(shooting_id: Any) -> Select[Any]:
    return select(Shot.id).where(Shot.shooting_id == shooting_id)  # unscoped: this is the tenant filter


def _predictions(shooting_id: Any) -> Select[Any]:
    # unscoped: this is the tenant filter
    return select(Prediction.id).where(Prediction.shot_id.in_(_shots(shooting_id)))


def _main_products(shooting_id: Any) -> Select[Any]:
    # unscoped: this is the tenant filter
    return select(Look.main_product_id).where(Look.shooting_id == shooting_id)


def _shows_media(shooting_id: Any) -> ColumnElement[bool]:
    """Return the condition that a row is the image of a prediction, or a photo of a main product."""
    predictions = select(Prediction.media_id).where(
        Prediction.shot_id.in_(_shots(shooting_id))
    )  # unscoped: as above
    photos = select(ProductImage.media_id).where(
        ProductImage.product_id.in_(_main_products(shooting_id))
    )  # unscoped: as above
    return or_(MediaResource.id.in_(predictions), MediaResource.id.in_(photos))


# unscoped: this is the tenant filter
_CONDITIONS: dict[type[Any], Callable[[Any], ColumnElement[bool]]] = {
    Shooting: lambda shooting_id: Shooting.id == shooting_id,
    Look: lambda shooting_id: Look.shooting_id == shooting_id,
    Shot: lambda shooting_id: Shot.shooting_id == shooting_id,
    Generation: lambda shooting_id: Generation.shot_id.in_(_shots(shooting_id)),
    Prediction: lambda shooting_id: Prediction.shot_id.in_(_shots(shooting_id)),
    PredictionComment: lambda shooting_id: PredictionComment.prediction_id.in_(_predictions(shooting_id)),
    Product: lambda shooting_id: Product.id.in_(_main_products(shooting_id)),
    ProductImage: lambda shooting_id: ProductImage.product_id.in_(_main_products(shooting_id)),
    MediaResource: _shows_media,
    ShotType: lambda shooting_id: ShotType.id.in_(
        select(Shot.shot_type_id).where(Shot.shooting_id == shooting_id)
    ),
}
