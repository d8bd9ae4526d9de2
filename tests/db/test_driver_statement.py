"""Test that a `DriverStatement` behaves like the same statement that SQLAlchemy runs."""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

import pytest
from sqlalchemy import JSON, Connection, Table, bindparam, event, func, insert, null, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError, OperationalError

from db.base import new_id, utc_now
from db.engine import build_engine
from db.fast_path.driver_statement import DriverStatement
from db.models import Product, User
from db.session import Database, current_session
from tests.support.factories import make_user

SELECT = select(Product.id, Product.name, Product.custom_metadata, Product.created_at).where(
    Product.id == bindparam("wanted")
)
METADATA = {"ä": [2**70, None, "\U0001f9e5"]}


def insert_product(owner: User, **values: Any) -> UUID:
    """Insert a product and return its id."""
    now, row_id = utc_now(), new_id()
    row = {
        "id": row_id,
        "owner_id": owner.id,
        "name": "Linen dress",
        "metadata": METADATA,
        "created_at": now,
        "updated_at": now,
        "state": "READY",
        "public": False,
        **values,
    }
    statement = insert(cast("Table", Product.__table__)).values({name: bindparam(name) for name in row})
    assert DriverStatement(statement).execute(current_session().connection(), row) == 1
    return row_id


def test_a_row_has_the_values_that_sqlalchemy_returns(database: Database) -> None:
    owner = make_user()
    with database.transaction(write=True) as session:
        values = {"wanted": insert_product(owner)}
        row = DriverStatement(SELECT).fetch_one(session.connection(), values)
        assert row == tuple(session.connection().execute(SELECT, values).one())
        assert row is not None
        assert row[2] == METADATA


def test_there_is_no_row(database: Database) -> None:
    with database.transaction(write=False) as session:
        assert DriverStatement(SELECT).fetch_one(session.connection(), {"wanted": new_id()}) is None


def test_the_number_of_written_rows_leaves_out_conflicts(database: Database) -> None:
    owner = make_user()
    with database.transaction(write=True) as session:
        connection = session.connection()
        row_id = insert_product(owner)
        renaming = (
            update(Product)
            .where(Product.id == bindparam("wanted"))
            .values({Product.name: "Wrap dress", Product.updated_at: Product.updated_at})
        )
        assert DriverStatement(renaming).execute(connection, {"wanted": row_id}) == 1
        assert DriverStatement(renaming).execute(connection, {"wanted": new_id()}) == 0
        again = DriverStatement(postgresql.insert(User).on_conflict_do_nothing())
        row = dict(session.execute(select(User.__table__).where(User.id == owner.id)).one()._mapping)
        assert again.execute(connection, row) == 0


def test_a_violated_constraint_raises_the_error_of_sqlalchemy_without_parameters(database: Database) -> None:
    owner = make_user()
    with pytest.raises(IntegrityError) as caught, database.transaction(write=True):
        row_id = insert_product(owner, name="Secret dress")
        insert_product(owner, id=row_id, name="Secret dress")
    assert "Secret dress" not in str(caught.value)
    assert "INSERT INTO products" in str(caught.value)
    assert caught.value.statement is not None


def test_a_missing_value_is_an_error(database: Database) -> None:
    with database.transaction(write=False) as session, pytest.raises(Exception, match="wanted"):
        DriverStatement(SELECT).fetch_one(session.connection(), {})


def test_listeners_see_the_statement(database: Database) -> None:
    seen: list[str] = []

    def record(_connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        seen.append(statement)

    with database.transaction(write=False) as session:
        connection = session.connection()
        event.listen(connection, "before_cursor_execute", record)
        try:
            assert DriverStatement(SELECT).fetch_one(connection, {"wanted": new_id()}) is None
        finally:
            event.remove(connection, "before_cursor_execute", record)
    assert len(seen) == 1


def test_a_terminated_connection_ends_all_connections_of_the_pool(database_url: str) -> None:
    database = Database(build_engine(database_url, pool_size=2))
    other = Database(build_engine(database_url, pool_size=1))
    backend = DriverStatement(select(func.pg_backend_pid()))

    def read_backend(connection: Connection) -> int:
        row = backend.fetch_one(connection, {})
        assert row is not None
        return int(row[0])

    with pytest.raises(OperationalError) as caught, database.transaction(write=False) as session:
        with database.engine.connect() as pooled:
            second = read_backend(pooled)
        first = read_backend(session.connection())
        with other.engine.connect() as connection:
            connection.exec_driver_sql("RESET ROLE")
            connection.exec_driver_sql(f"SELECT pg_terminate_backend({first}, 5000)")
        read_backend(session.connection())
    assert caught.value.connection_invalidated
    # As after a restart of PostgreSQL, the other connection is replaced before it is used.
    with database.transaction(write=False) as session, database.engine.connect() as pooled:
        assert {read_backend(session.connection()), read_backend(pooled)}.isdisjoint((first, second))
    for opened in (database, other):
        opened.dispose()


def test_none_is_the_null_of_json_only_where_the_column_says_so(database: Database) -> None:
    for none_as_null, expected in ((True, True), (False, False)):
        value = bindparam("value", type_=JSON(none_as_null=none_as_null))
        with database.transaction(write=False) as session:
            row = DriverStatement(select(value.is_(null()))).fetch_one(session.connection(), {"value": None})
        assert row is not None
        assert bool(row[0]) is expected
