"""Test projections, which read columns, references and collections of rows by their paths."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select

from db.base import Identified
from db.fast_path.projections import Projection, Record
from db.models import Brand, Product, ProductImage, Shot, Style
from db.session import Database, current_session
from tests.support import factories as make


def fetch_records(model: type[Identified], *paths: str) -> list[Record]:
    """Return the records of all rows of a model, oldest first."""
    projection = Projection(model, paths)
    rows = current_session().execute(projection.apply(select(model).order_by(model.id))).all()
    queries = projection.collection_queries([row[0] for row in rows])
    collections = [current_session().execute(*query).all() for query in queries]
    return projection.build_records(rows, collections)


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


def test_times_are_text_in_rfc_3339_unless_every_column_is_read(database: Database) -> None:
    whole, exact = datetime(2026, 1, 2, tzinfo=UTC), datetime(1999, 12, 31, 23, 59, 59, 1, tzinfo=UTC)
    make.make_style(created_at=whole, archived_at=exact)
    make.make_style(created_at=exact, archived_at=None)
    with database.transaction(write=False):
        records = fetch_records(Style, "created_at", "archived_at")
        (unchanged, _) = fetch_records(Style, "created_at", "*")
    assert [(record.created_at, record.archived_at) for record in records] == [
        ("2026-01-02T00:00:00.000000Z", "1999-12-31T23:59:59.000001Z"),
        ("1999-12-31T23:59:59.000001Z", None),
    ]
    assert (unchanged.created_at, unchanged.archived_at) == (whole, exact)


def test_json_columns_are_loaded_as_they_were_stored(database: Database) -> None:
    product = make.make_product()
    stored: list[dict[str, Any] | None] = [
        None,
        {},
        {"größe": "👕", "half": "\ud83d", "empty": {}, "number": 2**70, "share": 0.1, "\x00": None},
    ]
    for region in stored:
        values = {"product_id": product.id, "media_id": make.make_media().id, "type": "FRONT"}
        make.make(ProductImage(owner_id=product.owner_id, region=region, **values))
    with database.transaction(write=False):
        assert [record.region for record in fetch_records(ProductImage, "region")] == stored
        assert (
            list(current_session().scalars(select(ProductImage.region).order_by(ProductImage.id))) == stored
        )


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
