"""What PostgreSQL itself keeps from a tenant when the code forgets to ask for the tenant's rows only.

Two tenants have a row in every table, and every table is asked without any scope. A new table is here the day
it is made, and fails until its migration says who sees its rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast
from uuid import UUID

import pytest
from sqlalchemy import (
    Column,
    ColumnElement,
    CursorResult,
    Table,
    delete,
    insert,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from db import tenancy
from db.actors import APPLICATION_ROLE, NOBODY, SYSTEM, Actor
from db.base import Base, new_id, utc_now
from db.session import Database, act_as
from handlers.app import Application
from handlers.permissions import checks_proof_itself
from tests.contract.every_operation import OPERATIONS
from tests.contract.world import World
from tests.databases import on_postgresql
from tests.serving import bearer

TABLES: dict[str, Table] = {table.name: table for table in Base.metadata.sorted_tables}
INSUFFICIENT_PRIVILEGE = "42501"
CLOSED = {"known_addresses", "task_callbacks", "try_counts"}
"""The system's alone: used before anybody is known, or of no tenant."""
READ_ONLY = {"generation_models"}
"""Read by all, written by superusers."""

OF_THE_SAME_SCOPE = {
    ("export_items", "media_id"),
    ("predictions", "media_id"),
    ("product_images", "product_id"),
    ("subject_base_images", "subject_id"),
    ("uploads", "media_resource_id"),
}
"""References to rows that are made together with the one that refers, never to something published."""

Keys = dict[str, set[tuple[Any, ...]]]


@dataclass
class Tenant:
    """An organization with a row in every table."""

    world: World
    keys: Keys

    @property
    def owner(self) -> Actor:
        """Its owner, as the database is told of him."""
        return Actor(APPLICATION_ROLE, self.world.owner.id, (self.world.organization.id,))

    def rows_of(self, table: Table) -> ColumnElement[bool]:
        """The condition for the tenant's rows."""
        return tuple_(*table.primary_key).in_(self.keys[table.name])


@pytest.fixture
def opened(database: Database) -> Iterator[Session]:
    """A transaction that goes on as whoever a test wants."""
    with database.transaction(write=True) as session:
        yield session


@pytest.fixture
def tenants(opened: Session, app: Application) -> tuple[Tenant, Tenant]:
    """Two of them."""
    return _make_tenant(opened, app), _make_tenant(opened, app)


def keys_seen(session: Session, actor: Actor) -> Keys:
    """The keys of all rows that somebody sees, asked for without any scope."""
    act_as(actor)
    tables = TABLES if actor == SYSTEM else TABLES.keys() - CLOSED
    return {name: set(map(tuple, session.execute(select(*TABLES[name].primary_key)))) for name in tables}


def rows_reached(session: Session, statement: Any) -> int | str:
    """How many rows a statement gets or changes, or the SQLSTATE with which PostgreSQL refuses it; undone."""
    savepoint = session.begin_nested()
    try:
        return cast("CursorResult[Any]", session.execute(statement)).rowcount
    except ProgrammingError as error:
        return str(getattr(error.orig, "sqlstate", error))
    finally:
        savepoint.rollback()


def _make_tenant(session: Session, app: Application) -> Tenant:
    before = keys_seen(session, SYSTEM)
    world = World(app.settings)
    session.flush()
    for name, seen in keys_seen(session, SYSTEM).items():
        if seen == before[name]:
            session.execute(insert(TABLES[name]).values(_some_row(session, world, TABLES[name])))
    after = keys_seen(session, SYSTEM)
    return Tenant(world, {name: seen - before[name] for name, seen in after.items()})


def _some_row(session: Session, world: World, table: Table) -> dict[str, Any]:
    return {
        column.name: _some_value(session, world, column)
        for column in table.columns
        if column.name == "organization_id" or not (column.nullable or column.default)
    }


def _some_value(session: Session, world: World, column: Column[Any]) -> Any:
    """A value for a column; references go to the tenant's rows, which are the newest."""
    known = {"organization_id": world.organization.id, "user_id": world.owner.id}
    if column.name in known:
        return known[column.name]
    for key in column.foreign_keys:
        return session.scalar(select(key.column).order_by(key.column.desc()).limit(1))
    values = {UUID: new_id(), str: new_id().hex[-8:], int: 1}
    return values.get(column.type.python_type, utc_now())


@on_postgresql
def test_s01_an_unscoped_query_gets_nothing_of_others(
    opened: Session, tenants: tuple[Tenant, Tenant]
) -> None:
    for mine, theirs in (tenants, tenants[::-1]):
        for name, seen in keys_seen(opened, mine.owner).items():
            shared = theirs.keys[name] if name in READ_ONLY else set()
            assert seen == mine.keys[name] | shared, name
    for name in CLOSED:
        assert rows_reached(opened, select(TABLES[name])) == INSUFFICIENT_PRIVILEGE, name


@on_postgresql
def test_s01_who_says_nothing_sees_nothing(opened: Session, tenants: tuple[Tenant, Tenant]) -> None:
    seen = keys_seen(opened, NOBODY)
    assert {name for name, keys in seen.items() if keys} == READ_ONLY


@on_postgresql
def test_s01_a_login_that_takes_on_no_role_sees_nothing(
    opened: Session, tenants: tuple[Tenant, Tenant]
) -> None:
    opened.execute(text("RESET ROLE"))
    sees_all = opened.scalar(text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"))
    assert not sees_all, "TEST_POSTGRESQL_URL signs in as a superuser, from whom PostgreSQL hides nothing"
    for name, table in TABLES.items():
        assert name in READ_ONLY or opened.execute(select(table)).all() == [], name


@on_postgresql
def test_s01_an_unscoped_write_reaches_nothing_of_others(
    opened: Session, tenants: tuple[Tenant, Tenant]
) -> None:
    mine, theirs = tenants
    act_as(mine.owner)
    for name, table in TABLES.items():
        column = next(iter(table.primary_key))
        for statement in (update(table).values({column: column}), delete(table)):
            reached = rows_reached(opened, statement.where(theirs.rows_of(table)))
            assert reached in (0, INSUFFICIENT_PRIVILEGE), (name, statement)


@on_postgresql
def test_s01_nobody_makes_rows_in_the_name_of_others(opened: Session, tenants: tuple[Tenant, Tenant]) -> None:
    """With a key of its own, so that no other rule is in the way."""
    mine, theirs = tenants
    for name, table in TABLES.items():
        act_as(SYSTEM)
        row = opened.execute(select(table).where(theirs.rows_of(table)).limit(1)).one()._asdict()
        act_as(mine.owner)
        assert rows_reached(opened, insert(table).values(row)) == INSUFFICIENT_PRIVILEGE, name


@on_postgresql
def test_s01_what_is_public_is_read_and_not_written_by_others(
    opened: Session, tenants: tuple[Tenant, Tenant]
) -> None:
    mine, theirs = tenants
    with_public = [table for table in TABLES.values() if "public" in table.c]
    assert len(with_public) > 5
    act_as(SYSTEM)
    for table in with_public:
        opened.execute(update(table).where(theirs.rows_of(table)).values(public=True))
    for actor in (mine.owner, NOBODY):
        act_as(actor)
        for table in with_public:
            assert opened.execute(select(table).where(theirs.rows_of(table))).all(), table.name
            for statement in (update(table).values(public=False), delete(table)):
                assert rows_reached(opened, statement.where(theirs.rows_of(table))) == 0, table.name


@on_postgresql
def test_what_is_withdrawn_stays_visible_to_rows_that_refer_to_it(
    opened: Session, tenants: tuple[Tenant, Tenant]
) -> None:
    mine, theirs = tenants
    references = [
        (table, key.parent, key.column.table)
        for table in TABLES.values()
        for key in table.foreign_keys
        if "public" in key.column.table.c and (table.name, key.parent.name) not in OF_THE_SAME_SCOPE
    ]
    assert len(references) > 20
    for table, column, published in references:
        row_id = next(iter(theirs.keys[published.name]))[0]
        question = select(published.c.id).where(published.c.id == row_id)
        act_as(mine.owner)
        assert opened.scalar(question) is None
        act_as(SYSTEM)
        savepoint = opened.begin_nested()
        my_row = tuple_(*table.primary_key) == min(mine.keys[table.name])
        opened.execute(update(table).where(my_row).values({column: row_id}))
        act_as(mine.owner)
        assert opened.scalar(question) == row_id, f"{table.name}.{column.name}"
        savepoint.rollback()


def test_s01_few_open_operations_work_as_the_system() -> None:
    """Each new one is to be thought about here; all others without a token see what is public."""
    handlers = {
        name: getattr(import_module(f"handlers.{operation.raw['tags'][0]}".replace("-", "_")), name)
        for name, operation in OPERATIONS.items()
    }
    assert {name for name, handler in handlers.items() if checks_proof_itself(handler)} == {
        "accept_invitation", "confirm_email_change", "get_shared_image", "login", "put_upload",
        "receive_task_webhook", "recover_password", "refresh_token", "reset_password", "revoke_token",
    }  # fmt: skip


def test_s01_a_handler_that_forgets_the_scope_answers_404(
    database_kind: str,
    app: Application,
    world: World,
    stranger: World,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Over HTTP, with the first layer taken away: where there is no second one, the foreign row is found."""
    monkeypatch.setattr(tenancy, "in_scope", lambda *_, **__: ())
    monkeypatch.setattr(tenancy, "_one", tenancy._one.__wrapped__)
    reply = stranger.request_for("get_brand").send(app, bearer(app, world.owner))
    assert reply.status == (404 if database_kind == "postgresql" else 200)
