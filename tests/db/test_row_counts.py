"""Test that the cached counts equal COUNT(*), however rows are inserted, changed and deleted."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import (
    Connection,
    Uuid,
    bindparam,
    delete,
    func,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.orm import Session

from db.base import new_id
from db.engine import build_engine
from db.migrations import downgrade, upgrade
from db.models import (
    Brand,
    Generation,
    Organization,
    Prediction,
    Product,
    ProductImport,
    ProductState,
    RowCount,
    Shooting,
    Shot,
    Style,
)
from db.rls.session_role import ANONYMOUS, SYSTEM
from db.row_counts.queries import COUNTED, compact_counts, delete_zero_counts, stored_count
from db.session import Database, rollback_and_continue, switch_role
from tests.support import factories as make
from tests.support.row_counts import actual_counts, stored_counts


@pytest.fixture
def connection(session: Session) -> Connection:
    """Return the connection of `session`."""
    return session.connection()


def make_rows() -> tuple[Organization, Brand]:
    """Create a row in every counted table, for an organization and for its owner personally."""
    owner = make.make_user()
    organization = make.make_organization(owner)
    brand = make.make_brand(organization=organization)
    for scope in ({"organization": organization}, {"owner": owner}):
        make.make_guidelines(**scope)
        shooting = make.make_shooting(**scope, brand_id=brand.id if "organization" in scope else None)
        look = make.make_look(shooting)
        make.make_prediction(make.make_generation(make.make_shot(look)))
        make.make_product(**scope, category="Dresses", state=ProductState.DRAFT)
        make.make_export(shooting)
        make.make_product_import(**scope)
    make.make_brand(owner=owner)
    make.make_product(organization=organization, brand_id=brand.id, category="Ünüsual '%_\\")
    return organization, brand


def assert_counts_match(connection: Connection) -> None:
    assert stored_counts(connection) == actual_counts(connection)


def test_counts_of_every_table_follow_inserts_and_deletes(session: Session, connection: Connection) -> None:
    make_rows()
    session.flush()
    counts = stored_counts(connection)
    assert {(key[0], key[1]) for key in counts} == {
        (model.__tablename__, name) for model, names in COUNTED.items() for name in ("", *names)
    }
    assert_counts_match(connection)
    for model in (Prediction, Generation):
        connection.execute(delete(model))
        assert_counts_match(connection)
    # Cascades of the database delete looks, shots and exports.
    connection.execute(delete(Shooting))
    assert_counts_match(connection)
    left = {"brands", "guidelines", "product_imports", "products"}
    assert {key[0] for key in stored_counts(connection)} == left


@pytest.mark.slow("the migration is released; `make upgrade` runs it on a release with rows")
def test_rows_older_than_the_count_triggers_are_counted(own_database_url: str) -> None:
    database = Database(build_engine(own_database_url, pool_size=1))
    with database.transaction(write=True):
        make_rows()
    downgrade(own_database_url, "0022")
    assert not inspect(database.engine).has_table(RowCount.__tablename__)
    upgrade(own_database_url)
    with database.transaction(write=True) as session:
        # The downgrade dropped the table of imports.
        kept = {model.__tablename__ for model in COUNTED} - {ProductImport.__tablename__}
        assert {key[0] for key in stored_counts(session.connection())} == kept
        assert_counts_match(session.connection())
        session.execute(update(Product).values(category="Hats"))
        assert_counts_match(session.connection())
    database.dispose()


def test_updates_of_counted_columns_move_the_counts(session: Session, connection: Connection) -> None:
    organization, brand = make_rows()
    session.flush()
    for values in (
        {"state": ProductState.ARCHIVED},
        {"category": None},
        {"category": "Coats", "name": "renamed"},
        {"organization_id": None},
        {"organization_id": organization.id, "brand_id": brand.id},
    ):
        connection.execute(update(Product).values(values))
        assert_counts_match(connection)
    connection.execute(update(Shooting).values(archived=True, phase="CLOSED"))
    connection.execute(update(Shot).values(status="approved"))
    connection.execute(update(Generation).values(status="failed", generation_strategy="REFINE"))
    assert_counts_match(connection)
    # The foreign key sets `brand_id` of its products to null.
    connection.execute(delete(Brand).where(Brand.id == brand.id))
    assert_counts_match(connection)
    assert not any(key[1] == "brand_id" for key in stored_counts(connection))


def test_a_rollback_undoes_the_counts(database: Database) -> None:
    with database.transaction(write=True) as session:
        make.make_brand()
        session.commit()
        before = stored_counts(session.connection())
        savepoint = session.begin_nested()
        make.make_product()
        savepoint.rollback()
        assert stored_counts(session.connection()) == before
        make.make_product()
        session.flush()
        rollback_and_continue()
        assert stored_counts(session.connection()) == before
        assert_counts_match(session.connection())


def test_an_update_of_other_columns_writes_no_count(session: Session, connection: Connection) -> None:
    make.make_product()
    session.flush()
    before = connection.execute(select(RowCount)).all()
    connection.execute(update(Product).values(name="Another", state=Product.state))
    assert connection.execute(select(RowCount)).all() == before


def test_compaction_replaces_pending_changes_by_totals(
    session: Session, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.row_counts.queries.MAX_COMPACTED_ENTRIES", 10)
    organization, _ = make_rows()
    for _ in range(20):
        make.make_product(organization=organization)
    session.flush()
    expected, steps = actual_counts(connection), 0
    while compact_counts(connection):
        steps += 1
        assert stored_counts(connection) == expected
    assert steps > 5
    assert stored_counts(connection) == expected
    assert connection.scalar(select(func.max(RowCount.entry))) == 0
    connection.execute(delete(Product).where(Product.category == "Dresses"))
    while compact_counts(connection):
        pass
    zeros = select(func.count()).select_from(RowCount).where(RowCount.number == 0)
    assert connection.scalar(zeros)
    delete_zero_counts()
    assert connection.scalar(zeros) == 0
    assert_counts_match(connection)


def test_one_process_at_a_time_compacts(connection: Connection, database_engine: Any) -> None:
    make.make_brand()
    with database_engine.begin() as other_connection:
        other_connection.execute(text("SELECT pg_advisory_xact_lock(5172002)"))
        assert not compact_counts(connection)
        assert connection.scalar(select(func.max(RowCount.entry)))
    compact_counts(connection)
    assert connection.scalar(select(func.max(RowCount.entry))) == 0


def test_callers_can_only_read_counts_and_only_of_their_tenants(session: Session) -> None:
    organization, _ = make_rows()
    owner = make.make_user()
    make.make_brand(owner=owner)
    session.flush()
    scope_ids = select(RowCount.scope_id).distinct()
    assert {organization.id, owner.id} < set(session.scalars(scope_ids))
    for role, visible in (
        (make.build_caller(owner, {organization: "owner"}).to_session_role(), {organization.id, owner.id}),
        (make.build_caller(owner).to_session_role(), {owner.id}),
        (ANONYMOUS, set()),
    ):
        switch_role(role)
        assert set(session.scalars(scope_ids)) == visible
    privilege = "has_table_privilege('sartiq_app', 'row_counts', '{}')"
    for verb in ("INSERT", "UPDATE", "DELETE", "TRUNCATE"):
        assert not session.scalar(text(f"SELECT {privilege.format(verb)}")), verb
    switch_role(SYSTEM)


def test_stored_count_is_none_for_counts_that_are_not_cached() -> None:
    assert stored_count(Product, None, None) is not None
    assert stored_count(Product, "state", None) is not None
    assert stored_count(Product, "sku", None) is None
    assert stored_count(Style, None, None) is None


def test_counts_by_every_type_of_value_are_found(session: Session) -> None:
    organization, brand = make_rows()
    session.flush()
    scope_id = bindparam("scope_id", type_=Uuid)
    for model, values in (
        (Product, {"brand_id": brand.id, "category": "Ünüsual '%_\\", "state": ProductState.READY}),
        (Shooting, {"archived": False, "phase": "PRODUCTION", "brand_id": brand.id}),
        (Generation, {"status": "pending"}),
    ):
        for name, value in values.items():
            query = select(func.count()).where(model.organization_id == organization.id)
            counted = session.scalar(query.where(inspect(model).columns[name] == value))
            statement = stored_count(model, name, scope_id)
            assert statement is not None
            assert session.scalar(statement, {"scope_id": organization.id, name: value}) == counted > 0, name
            other_tenant = session.scalar(statement, {"scope_id": new_id(), name: value})
            assert other_tenant == 0, name
