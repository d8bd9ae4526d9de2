"""What happens to the things of a brand when the brand goes."""

from __future__ import annotations

from sqlalchemy import update

from db.models.brands import Brand
from db.models.products import Product
from db.models.shootings import Shooting
from db.session import current_session


def delete_brand(brand: Brand) -> None:
    """Delete a brand that was loaded for it; products and shootings stay and count as changed.

    The foreign keys would clear the references too, but clients that synchronise by `updated_at` would
    miss that.
    """
    for model in (Product, Shooting):
        # unscoped: rows that refer to a brand are of its scope
        current_session().execute(update(model).where(model.brand_id == brand.id).values(brand_id=None))
    current_session().delete(brand)
    current_session().flush()
