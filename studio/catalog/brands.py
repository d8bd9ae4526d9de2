"""Delete brands."""

from __future__ import annotations

from sqlalchemy import update

from db.models.brands import Brand
from db.models.products import Product
from db.models.shootings import Shooting
from db.session import current_session


def delete_brand(brand: Brand) -> None:
    """Delete a locked brand. Its products and shootings stay, without a brand.

    The foreign keys would clear the references too. The updates also change `updated_at`, which clients use
    to synchronize.
    """
    for model in (Product, Shooting):
        # unscoped: rows that refer to a brand belong to its tenant
        current_session().execute(update(model).where(model.brand_id == brand.id).values(brand_id=None))
    current_session().delete(brand)
    current_session().flush()
