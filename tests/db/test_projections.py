"""Test projections, which read columns, references and collections of rows by their paths."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from db.base import Identified
from db.fast_path.projections import Projection, Record
from db.models import Brand, Product, ProductImage, Shot
from db.session import Database, current_session
from tests.support import factories as make


def fetch_records(model: type[Identified], *paths: str) -> list[Record]:
    """Return the records of all rows of a model, oldest first."""
    projection = Projection(model, paths)
    rows = current_session().execute(projection.apply(select(model).order_by(model.id))).all()
    return projection.fetch_records(rows)


def test_paths_follow_references_and_collections(database: Database) -> None:
    brand = make.make_brand(logo_media=make.make_media())
    first, second = make.make_product(brand_id=brand.id), make.make_product()
    media = make.make_media()
    for type_ in ("FRONT", "BACK"):
        make.make(ProductImage(owner_id=first.owner_id, product_id=first.id, media_id=media.id, type=type_))
    with database.transaction(write=False):
        one, other = fetch_records(
            Product, "name", "brand.logo_media.width", "images.type", "images.media.id"
        )
    assert (one.id, one.name) == (str(first.id), first.name)
    assert one.brand.logo_media.width == brand.logo_media.width
    assert [(image.type, image.media.id) for image in one.images] == [
        ("FRONT", str(media.id)),
        ("BACK", str(media.id)),
    ]
    assert (other.id, other.brand, other.images) == (str(second.id), None, [])


def test_a_null_reference_is_none(database: Database) -> None:
    brand = make.make_brand()
    make.make_product(brand_id=brand.id)
    with database.transaction(write=False):
        (product,) = fetch_records(Product, "brand.name", "brand.logo_media.width")
    assert (product.brand.name, product.brand.logo_media) == (brand.name, None)


def test_no_rows_give_no_records(database: Database) -> None:
    with database.transaction(write=False):
        assert fetch_records(Product, "name", "images.type") == []


def test_an_unknown_path_raises_when_the_projection_is_built() -> None:
    with pytest.raises(AttributeError):
        Projection(Brand, ["colour"])
    with pytest.raises(TypeError, match="images"):
        Projection(Shot, ["look.main_product.images.type"])
