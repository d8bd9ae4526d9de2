"""What the database keeps of counts is what COUNT(*) finds, whichever way rows come, change and go."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
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

from db.actors import NOBODY, SYSTEM
from db.base import new_id
from db.engines import make_engine
from db.migrations import downgrade, upgrade
from db.models import (
    Brand,
    Generation,
    Organization,
    Prediction,
    Product,
    ProductState,
    RowCount,
    Shooting,
    Shot,
    Style,
)
from db.queries.counts import KEPT, add_up, forget_zeros, kept_total
from db.session import Database, act_as, undo
from studio.jobs.upkeep import UPKEEP
from tests import factories as make
from tests.databases import on_postgresql
from tests.recounting import kept, recounted


@pytest.fixture
def opened(database: Database) -> Iterator[Session]:
    """A running transaction of the system."""
    with database.transaction(write=True) as session:
        yield session


@pytest.fixture
def connection(opened: Session) -> Connection:
    """Its connection."""
    return opened.connection()


def make_rows() -> tuple[Organization, Brand]:
    """A row in every table whose counts are kept, of an organization and of its owner personally."""
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
    make.make_brand(owner=owner)
    make.make_product(organization=organization, brand_id=brand.id, category="Ünüsual '%_\\")
    return organization, brand


def assert_right(connection: Connection) -> None:
    assert kept(connection) == recounted(connection)


def test_rows_of_every_table_are_counted_as_they_come_and_go(opened: Session, connection: Connection) -> None:
    make_rows()
    opened.flush()
    counts = kept(connection)
    assert {(key[0], key[1]) for key in counts} == {
        (model.__tablename__, name) for model, names in KEPT.items() for name in ("", *names)
    }
    assert_right(connection)
    for model in (Prediction, Generation):
        connection.execute(delete(model))
        assert_right(connection)
    # The database itself takes looks and shots along, and exports.
    connection.execute(delete(Shooting))
    assert_right(connection)
    assert {key[0] for key in kept(connection)} == {"brands", "guidelines", "products"}


def test_what_was_there_before_counts_were_kept_is_counted(empty_database_url: str) -> None:
    upgrade(empty_database_url)
    database = Database(make_engine(empty_database_url, pool_size=1))
    with database.transaction(write=True):
        make_rows()
    downgrade(empty_database_url, "0022")
    assert not inspect(database.engine).has_table(RowCount.__tablename__)
    upgrade(empty_database_url)
    with database.transaction(write=True) as session:
        assert {key[0] for key in kept(session.connection())} == {one.__tablename__ for one in KEPT}
        assert_right(session.connection())
        session.execute(update(Product).values(category="Hats"))
        assert_right(session.connection())
    database.dispose()
    downgrade(empty_database_url)


def test_changes_of_what_is_counted_by_are_counted(opened: Session, connection: Connection) -> None:
    organization, brand = make_rows()
    opened.flush()
    for values in (
        {"state": ProductState.ARCHIVED},
        {"category": None},
        {"category": "Coats", "name": "renamed"},
        {"organization_id": None},
        {"organization_id": organization.id, "brand_id": brand.id},
    ):
        connection.execute(update(Product).values(values))
        assert_right(connection)
    connection.execute(update(Shooting).values(archived=True, phase="CLOSED"))
    connection.execute(update(Shot).values(status="approved"))
    connection.execute(update(Generation).values(status="failed", generation_strategy="REFINE"))
    assert_right(connection)
    # Foreign keys let go of what refers to the brand.
    connection.execute(delete(Brand).where(Brand.id == brand.id))
    assert_right(connection)
    assert not any(key[1] == "brand_id" for key in kept(connection))


def test_what_is_undone_is_not_counted(database: Database) -> None:
    with database.transaction(write=True) as session:
        make.make_brand()
        session.commit()
        before = kept(session.connection())
        savepoint = session.begin_nested()
        make.make_product()
        savepoint.rollback()
        assert kept(session.connection()) == before
        make.make_product()
        session.flush()
        undo()
        assert kept(session.connection()) == before
        assert_right(session.connection())


def test_a_change_of_nothing_that_is_counted_by_writes_no_count(
    opened: Session, connection: Connection
) -> None:
    make.make_product()
    opened.flush()
    before = connection.execute(select(RowCount)).all()
    connection.execute(update(Product).values(name="Another", state=Product.state))
    assert connection.execute(select(RowCount)).all() == before


@on_postgresql
def test_changes_that_wait_become_one_total(
    opened: Session, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.queries.counts.AT_ONCE", 10)
    organization, _ = make_rows()
    for _ in range(20):
        make.make_product(organization=organization)
    opened.flush()
    right, steps = recounted(connection), 0
    while add_up(connection):
        steps += 1
        assert kept(connection) == right
    assert steps > 5
    assert kept(connection) == right
    assert connection.scalar(select(func.max(RowCount.entry))) == 0
    connection.execute(delete(Product).where(Product.category == "Dresses"))
    while add_up(connection):
        pass
    zeros = select(func.count()).select_from(RowCount).where(RowCount.number == 0)
    assert connection.scalar(zeros)
    forget_zeros()
    assert connection.scalar(zeros) == 0
    assert_right(connection)


@on_postgresql
def test_one_process_at_a_time_adds_up(connection: Connection, database_engine: Any) -> None:
    make.make_brand()
    with database_engine.begin() as elsewhere:
        elsewhere.execute(text("SELECT pg_advisory_xact_lock(5172002)"))
        assert not add_up(connection)
        assert connection.scalar(select(func.max(RowCount.entry)))
    add_up(connection)
    assert connection.scalar(select(func.max(RowCount.entry))) == 0


@on_postgresql
def test_callers_read_the_counts_of_their_scopes_and_change_none(opened: Session) -> None:
    organization, _ = make_rows()
    owner = make.make_user()
    make.make_brand(owner=owner)
    opened.flush()
    every = select(RowCount.scope_id).distinct()
    assert {organization.id, owner.id} < set(opened.scalars(every))
    for actor, seen in (
        (make.caller_of(owner, {organization: "owner"}).as_actor(), {organization.id, owner.id}),
        (make.caller_of(owner).as_actor(), {owner.id}),
        (NOBODY, set()),
    ):
        act_as(actor)
        assert set(opened.scalars(every)) == seen
    privilege = "has_table_privilege('sartiq_app', 'row_counts', '{}')"
    for verb in ("INSERT", "UPDATE", "DELETE", "TRUNCATE"):
        assert not opened.scalar(text(f"SELECT {privilege.format(verb)}")), verb
    act_as(SYSTEM)


def test_what_is_kept_is_told_and_nothing_else() -> None:
    assert kept_total(Product, None, None) is not None
    assert kept_total(Product, "state", None) is not None
    assert kept_total(Product, "sku", None) is None
    assert kept_total(Style, None, None) is None


def test_every_kind_of_value_is_found_again(opened: Session) -> None:
    organization, brand = make_rows()
    opened.flush()
    scope_id = bindparam("scope_id", type_=Uuid)
    for model, values in (
        (Product, {"brand_id": brand.id, "category": "Ünüsual '%_\\", "state": ProductState.READY}),
        (Shooting, {"archived": False, "phase": "PRODUCTION", "brand_id": brand.id}),
        (Generation, {"status": "pending"}),
    ):
        for name, value in values.items():
            query = select(func.count()).where(model.organization_id == organization.id)
            counted = opened.scalar(query.where(inspect(model).columns[name] == value))
            kept_one = kept_total(model, name, scope_id)
            assert kept_one is not None
            assert opened.scalar(kept_one, {"scope_id": organization.id, name: value}) == counted > 0, name
            nowhere = opened.scalar(kept_one, {"scope_id": new_id(), name: value})
            assert nowhere == 0, name


def test_upkeep_takes_no_turn_of_sqlite_which_adds_up_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(make_engine("sqlite://"))
    monkeypatch.setattr(database, "transaction", lambda **_: pytest.fail("a turn was taken"))
    adding_up = next(each for each in UPKEEP if each.name == "adding up counts")
    adding_up.work(SimpleNamespace(database=database))
