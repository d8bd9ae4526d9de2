"""Test that `insert_row` stores the same row as a flush of the session."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import func, inspect, null, select

from db.base import Base, Identified, new_id
from db.errors import SkuTaken
from db.fast_path.insert import insert_row
from db.models import Brand, GenerationModel, Product, ProductImage, Shooting, User
from db.session import Database, current_session
from tests.support.factories import make_media, make_organization, make_user

DUE = datetime(2026, 12, 1, tzinfo=UTC)
Make = Callable[[User], dict[str, Any]]
VALUES: dict[type[Identified], Make] = {
    Product: lambda owner: {"owner_id": owner.id, "name": "Linen dress", "custom_metadata": {"a": "b"}},
    # None is replaced by the default too.
    Shooting: lambda owner: {"owner_id": owner.id, "name": "Spring", "due_date": DUE, "phase": None},
    # One JSON column is None, the others are missing.
    GenerationModel: lambda _: {"name": "Local", "provider": "LOCAL_STUDIO", "provider_config": None},
}
COMMON_COLUMNS = {"id", "created_at", "updated_at"}


def flush(row: Identified) -> None:
    current_session().add(row)
    current_session().flush()


def stored(row: Identified) -> dict[str, Any]:
    """Return the stored values, and which of them are SQL NULL: JSON has a `null` of its own."""
    table = row.__table__
    columns = [column for column in table.c if column.key not in COMMON_COLUMNS]
    nulls = [column.is_(null()).label(f"{column.key} is null") for column in columns]
    found = current_session().execute(select(*columns, *nulls).where(table.c.id == row.id)).one()
    return dict(found._mapping)


@pytest.mark.parametrize("model", VALUES, ids=lambda model: model.__name__)
def test_an_inserted_row_equals_a_flushed_one(database: Database, model: type[Identified]) -> None:
    owner = make_user()
    with database.transaction(write=True):
        inserted, flushed = (model(**VALUES[model](owner)) for _ in range(2))
        insert_row(inserted)
        flush(flushed)
        assert stored(inserted) == stored(flushed)
        for row in (inserted, flushed):
            assert row.id.version == 7
            assert inspect(row).persistent
        columns = [each.key for each in inspect(model).column_attrs if each.key not in COMMON_COLUMNS]
        values = [[getattr(row, name) for name in columns] for row in (inserted, flushed)]
        assert values[0] == values[1]


def test_an_inserted_row_can_be_changed_and_deleted(database: Database) -> None:
    owner = make_user()
    with database.transaction(write=True):
        changed, deleted = (Product(owner_id=owner.id, name="Linen dress") for _ in range(2))
        insert_row(changed)
        insert_row(deleted)
        changed.name = "Wrap dress"
        current_session().delete(deleted)
    with database.transaction(write=False) as reading:
        assert reading.scalars(select(Product.name)).all() == ["Wrap dress"]


def test_related_rows_are_inserted_too(database: Database) -> None:
    media, organization = make_media(), make_organization()
    scope = {"owner_id": organization.owner_id, "organization_id": organization.id}
    with database.transaction(write=True):
        image = ProductImage(**scope, media_id=media.id, type="front")
        insert_row(Product(**scope, name="Linen dress", images=[image]))
    with database.transaction(write=False) as reading:
        (product,) = reading.scalars(select(Product))
        assert reading.scalars(select(ProductImage.product_id)).all() == [product.id]


def test_pending_rows_are_inserted_before_a_row_that_refers_to_them(database: Database) -> None:
    owner, brand_id = make_user(), new_id()
    with database.transaction(write=True) as writing:
        writing.add(Brand(id=brand_id, owner_id=owner.id, name="Atelier", slug="atelier"))
        insert_row(Product(owner_id=owner.id, name="Linen dress", brand_id=brand_id))
    with database.transaction(write=False) as reading:
        assert reading.scalar(select(Product.brand_id)) == brand_id


def test_a_violated_constraint_raises_its_domain_error(database: Database) -> None:
    owner = make_user()
    with pytest.raises(SkuTaken), database.transaction(write=True):
        for _ in range(2):
            insert_row(Product(owner_id=owner.id, name="Linen dress", sku="one"))
    with database.transaction(write=False) as reading:
        assert reading.scalar(select(func.count()).select_from(Product)) == 0


def test_a_read_only_transaction_rejects_an_insert(database: Database) -> None:
    owner = make_user()
    with database.transaction(write=False), pytest.raises(RuntimeError, match="cannot write"):
        insert_row(Product(owner_id=owner.id, name="Linen dress"))


def test_insert_row_supports_every_model() -> None:
    """Check that each column has an attribute, and that no default needs the database."""
    models = [mapper for mapper in Base.registry.mappers if issubclass(mapper.class_, Identified)]
    assert len(models) > 20
    for mapper in models:
        for column in mapper.local_table.c:
            assert mapper.get_property_by_column(column).key, column
            assert column.server_default is None, column
            assert column.default is None or not column.default.is_clause_element, column
