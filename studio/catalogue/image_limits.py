"""How many pictures a product or a subject may have: as many as its answer may list."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, func, select

from db.errors import Conflict
from db.models.products import ProductImage
from db.models.subjects import SubjectBaseImage
from db.session import current_session

MAX_IMAGES: dict[Any, int] = {ProductImage: 100, SubjectBaseImage: 200}


class TooManyImages(Conflict):
    """The product or subject has as many pictures as it may have."""

    code = "too_many_images"
    default_detail = "There is no room for another picture"


def require_image_capacity(
    model: type[ProductImage] | type[SubjectBaseImage], parent: ColumnElement[bool]
) -> None:
    """TooManyImages when the parent, which the caller has locked, is full."""
    # unscoped: counts the pictures of a row that was loaded scoped
    count = current_session().scalar(select(func.count()).select_from(model).where(parent)) or 0
    if count >= MAX_IMAGES[model]:
        raise TooManyImages()
