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
from db.base import Base, new_id, utc_now
from db.rls.session_role import ANONYMOUS, APPLICATION_ROLE, SYSTEM, SessionRole
from db.session import Database, switch_role
from handlers.app import Application
from handlers.common.permissions import is_self_authenticating
from tests.contract.operations import OPERATIONS
from tests.contract.tenant import Tenant
from tests.support.app import auth_headers
from tests.support.databases import on_postgresql

TABLES: dict[str, Table] = {table.name: table for table in Base.metadata.sorted_tables}
INSUFFICIENT_PRIVILEGE = "42501"
DENIED_TABLES = {"known_addresses", "task_callbacks", "try_counts"}
"""The system's alone: used before anybody is known, or of no tenant."""
READ_ONLY = {"generation_models"}
"""Read by all, written by superusers."""

SAME_TENANT_REFERENCES = {
    ("export_items", "media_id"),
    ("predictions", "media_id"),
    ("product_images", "product_id"),
    ("subject_base_images", "subject_id"),
    ("uploads", "media_resource_id"),
}
"""References to rows that are made together with the one that refers, never to something published."""

Keys = dict[str, set[tuple[Any, ...]]]


@dataclass
class TenantRows:
    """An organization with a row in every table."""

    tenant: Tenant
    keys: Keys

    @property
    def owner(self) -> SessionRole:
        """Its owner, as the database is told of him."""
        return SessionRole(APPLICATION_ROLE, self.tenant.owner.id, (self.tenant.organization.id,))

    def rows_of(self, table: Table) -> ColumnElement[bool]:
        """The condition for the tenant's rows."""
        return tuple_(*table.primary_key).in_(self.keys[table.name])


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    """A transaction that goes on as whoever a test wants."""
    with database.transaction(write=True) as session:
        yield session


@pytest.fixture
def tenant_rows(session: Session, app: Application) -> tuple[TenantRows, TenantRows]:
    """Two of them."""
    return _make_tenant_rows(session, app), _make_tenant_rows(session, app)


def visible_keys(session: Session, actor: SessionRole) -> Keys:
    """The keys of all rows that somebody sees, asked for without any scope."""
    switch_role(actor)
    tables = TABLES if actor == SYSTEM else TABLES.keys() - DENIED_TABLES
    return {name: set(map(tuple, session.execute(select(*TABLES[name].primary_key)))) for name in tables}


def count_reached_rows(session: Session, statement: Any) -> int | str:
    """How many rows a statement gets or changes, or the SQLSTATE with which PostgreSQL refuses it; undone."""
    savepoint = session.begin_nested()
    try:
        return cast("CursorResult[Any]", session.execute(statement)).rowcount
    except ProgrammingError as error:
        return str(getattr(error.orig, "sqlstate", error))
    finally:
        savepoint.rollback()


def _make_tenant_rows(session: Session, app: Application) -> TenantRows:
    before = visible_keys(session, SYSTEM)
    world = Tenant(app.settings)
    session.flush()
    for name, seen in visible_keys(session, SYSTEM).items():
        if seen == before[name]:
            session.execute(insert(TABLES[name]).values(_build_row(session, world, TABLES[name])))
    after = visible_keys(session, SYSTEM)
    return TenantRows(world, {name: seen - before[name] for name, seen in after.items()})


def _build_row(session: Session, tenant: Tenant, table: Table) -> dict[str, Any]:
    return {
        column.name: _build_value(session, tenant, column)
        for column in table.columns
        if column.name == "organization_id" or not (column.nullable or column.default)
    }


def _build_value(session: Session, tenant: Tenant, column: Column[Any]) -> Any:
    """A value for a column; references go to the tenant's rows, which are the newest."""
    known = {"organization_id": tenant.organization.id, "user_id": tenant.owner.id}
    if column.name in known:
        return known[column.name]
    for key in column.foreign_keys:
        return session.scalar(select(key.column).order_by(key.column.desc()).limit(1))
    values = {UUID: new_id(), str: new_id().hex[-8:], int: 1}
    return values.get(column.type.python_type, utc_now())


@on_postgresql
def test_s01_an_unscoped_query_gets_nothing_of_others(
    session: Session, tenant_rows: tuple[TenantRows, TenantRows]
) -> None:
    for mine, theirs in (tenant_rows, tenant_rows[::-1]):
        for name, seen in visible_keys(session, mine.owner).items():
            shared = theirs.keys[name] if name in READ_ONLY else set()
            assert seen == mine.keys[name] | shared, name
    for name in DENIED_TABLES:
        assert count_reached_rows(session, select(TABLES[name])) == INSUFFICIENT_PRIVILEGE, name


@on_postgresql
def test_s01_who_says_nothing_sees_nothing(
    session: Session, tenant_rows: tuple[TenantRows, TenantRows]
) -> None:
    seen = visible_keys(session, ANONYMOUS)
    assert {name for name, keys in seen.items() if keys} == READ_ONLY


@on_postgresql
def test_s01_a_login_that_takes_on_no_role_sees_nothing(
    session: Session, tenant_rows: tuple[TenantRows, TenantRows]
) -> None:
    session.execute(text("RESET ROLE"))
    sees_all = session.scalar(text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"))
    assert not sees_all, "TEST_POSTGRESQL_URL signs in as a superuser, from whom PostgreSQL hides nothing"
    for name, table in TABLES.items():
        assert name in READ_ONLY or session.execute(select(table)).all() == [], name


@on_postgresql
def test_s01_an_unscoped_write_reaches_nothing_of_others(
    session: Session, tenant_rows: tuple[TenantRows, TenantRows]
) -> None:
    mine, theirs = tenant_rows
    switch_role(mine.owner)
    for name, table in TABLES.items():
        column = next(iter(table.primary_key))
        for statement in (update(table).values({column: column}), delete(table)):
            reached = count_reached_rows(session, statement.where(theirs.rows_of(table)))
            assert reached in (0, INSUFFICIENT_PRIVILEGE), (name, statement)


@on_postgresql
def test_s01_nobody_makes_rows_in_the_name_of_others(
    session: Session, tenant_rows: tuple[TenantRows, TenantRows]
) -> None:
    """With a key of its own, so that no other rule is in the way."""
    mine, theirs = tenant_rows
    for name, table in TABLES.items():
        switch_role(SYSTEM)
        row = session.execute(select(table).where(theirs.rows_of(table)).limit(1)).one()._asdict()
        switch_role(mine.owner)
        assert count_reached_rows(session, insert(table).values(row)) == INSUFFICIENT_PRIVILEGE, name


@on_postgresql
def test_s01_what_is_public_is_read_and_not_written_by_others(
    session: Session, tenant_rows: tuple[TenantRows, TenantRows]
) -> None:
    mine, theirs = tenant_rows
    with_public = [table for table in TABLES.values() if "public" in table.c]
    assert len(with_public) > 5
    switch_role(SYSTEM)
    for table in with_public:
        session.execute(update(table).where(theirs.rows_of(table)).values(public=True))
    for actor in (mine.owner, ANONYMOUS):
        switch_role(actor)
        for table in with_public:
            assert session.execute(select(table).where(theirs.rows_of(table))).all(), table.name
            for statement in (update(table).values(public=False), delete(table)):
                assert count_reached_rows(session, statement.where(theirs.rows_of(table))) == 0, table.name


@on_postgresql
def test_what_is_withdrawn_stays_visible_to_rows_that_refer_to_it(
    session: Session, tenant_rows: tuple[TenantRows, TenantRows]
) -> None:
    mine, theirs = tenant_rows
    references = [
        (table, key.parent, key.column.table)
        for table in TABLES.values()
        for key in table.foreign_keys
        if "public" in key.column.table.c and (table.name, key.parent.name) not in SAME_TENANT_REFERENCES
    ]
    assert len(references) > 20
    for table, column, published in references:
        row_id = next(iter(theirs.keys[published.name]))[0]
        question = select(published.c.id).where(published.c.id == row_id)
        switch_role(mine.owner)
        assert session.scalar(question) is None
        switch_role(SYSTEM)
        savepoint = session.begin_nested()
        my_row = tuple_(*table.primary_key) == min(mine.keys[table.name])
        session.execute(update(table).where(my_row).values({column: row_id}))
        switch_role(mine.owner)
        assert session.scalar(question) == row_id, f"{table.name}.{column.name}"
        savepoint.rollback()


def test_s01_few_open_operations_work_as_the_system() -> None:
    """Each new one is to be thought about here; all others without a token see what is public."""
    handlers = {
        name: getattr(import_module(f"handlers.{operation.raw['tags'][0]}".replace("-", "_")), name)
        for name, operation in OPERATIONS.items()
    }
    assert {name for name, handler in handlers.items() if is_self_authenticating(handler)} == {
        "accept_invitation", "confirm_email_change", "get_shared_image", "login", "put_upload",
        "receive_task_webhook", "recover_password", "refresh_token", "reset_password", "revoke_token",
    }  # fmt: skip


def test_s01_a_handler_that_forgets_the_scope_answers_404(
    database_kind: str,
    app: Application,
    tenant: Tenant,
    other_tenant: Tenant,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Over HTTP, with the first layer taken away: where there is no second one, the foreign row is found."""
    monkeypatch.setattr(tenancy, "row_filter", lambda *_, **__: ())
    monkeypatch.setattr(tenancy, "_select_by_id", tenancy._select_by_id.__wrapped__)
    reply = other_tenant.request_for("get_brand").send(app, auth_headers(app, tenant.owner))
    assert reply.status == (404 if database_kind == "postgresql" else 200)
