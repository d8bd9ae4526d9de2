"""Limit the number of images of a product or subject, because responses list all of them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, func, select

from db.errors import Conflict
from db.models.products import ProductImage
from db.models.subjects import SubjectBaseImage
from db.session import current_session

MAX_IMAGES: dict[Any, int] = {ProductImage: 100, SubjectBaseImage: 200}


class TooManyImages(Conflict):
    """The product or subject has the maximum number of images."""

    code = "too_many_images"
    default_detail = "The maximum number of images is reached: delete an image first"


def require_image_capacity(
    model: type[ProductImage] | type[SubjectBaseImage], parent: ColumnElement[bool]
) -> None:
    """Check that another image can be added to a product or subject, which the caller has locked.

    Args:
        model: The model of the images.
        parent: The condition that selects the images of the parent.

    Raises:
        TooManyImages: The parent has the maximum number of images.
    """
    # unscoped: counts the images of a row that was loaded for the caller
    count = current_session().scalar(select(func.count()).select_from(model).where(parent)) or 0
    if count >= MAX_IMAGES[model]:
        raise TooManyImages(limit=MAX_IMAGES[model])
