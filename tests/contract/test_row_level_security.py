"""Row-level security keeps tenants apart even if a query lacks the tenant filter.

Two tenants have a row in every table, and every table is queried without a filter. A new table is included
automatically, and fails until its migration has a policy.
"""

from __future__ import annotations

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
from db.session import switch_role
from handlers.app import Application
from handlers.common.permissions import is_self_authenticating
from tests.contract.operations import OPERATIONS
from tests.contract.tenant import Tenant
from tests.support import factories
from tests.support.app import auth_headers

TABLES: dict[str, Table] = {table.name: table for table in Base.metadata.sorted_tables}
INSUFFICIENT_PRIVILEGE = "42501"
DENIED_TABLES = {
    "known_addresses", "media_checks", "pending_touches", "product_import_images", "provider_sign_ins",
    "queued_emails", "second_factor_challenges", "task_callbacks", "try_counts",
}  # fmt: skip
"""Tables of the system role only: they are used before authentication or belong to no tenant."""
READ_ONLY = {"generation_models"}
"""Tables that every caller reads and only superusers write."""

GUEST_CONTENT = {
    "look_guidelines", "look_products", "look_shot_types", "media_resources", "metadata_entries",
    "product_image_cutouts", "product_images", "shot_types",
}  # fmt: skip
"""Tables of what the shooting, looks, shots, predictions and products that a guest sees contain."""

SAME_TENANT_REFERENCES = {
    ("export_items", "media_id"),
    ("predictions", "media_id"),
    ("product_images", "product_id"),
    ("subject_base_images", "subject_id"),
    ("uploads", "media_resource_id"),
}
"""References to rows that are created together with the referring row and are never public rows of others."""

Keys = dict[str, set[tuple[Any, ...]]]


@dataclass
class TenantRows:
    """An organization with a row in every table."""

    tenant: Tenant
    keys: Keys

    @property
    def owner(self) -> SessionRole:
        """The database role of its owner."""
        return SessionRole(APPLICATION_ROLE, self.tenant.owner.id, (self.tenant.organization.id,))

    def rows_of(self, table: Table) -> ColumnElement[bool]:
        """Return the condition for the tenant's rows of a table."""
        return tuple_(*table.primary_key).in_(self.keys[table.name])


@pytest.fixture
def tenant_rows(session: Session, app: Application) -> tuple[TenantRows, TenantRows]:
    """Create two tenants with a row in every table."""
    return _make_tenant_rows(session, app), _make_tenant_rows(session, app)


def visible_keys(session: Session, role: SessionRole) -> Keys:
    """Return the keys of all rows that a role sees, without a tenant filter."""
    switch_role(role)
    tables = TABLES if role == SYSTEM else TABLES.keys() - DENIED_TABLES
    return {name: set(map(tuple, session.execute(select(*TABLES[name].primary_key)))) for name in tables}


def count_reached_rows(session: Session, statement: Any) -> int | str:
    """Return the row count of a statement, or the SQLSTATE of its error, and roll it back."""
    savepoint = session.begin_nested()
    try:
        return cast("CursorResult[Any]", session.execute(statement)).rowcount
    except ProgrammingError as error:
        return str(getattr(error.orig, "sqlstate", error))
    finally:
        savepoint.rollback()


def _make_tenant_rows(session: Session, app: Application) -> TenantRows:
    before = visible_keys(session, SYSTEM)
    tenant = Tenant(app.settings)
    session.flush()
    for name, seen in visible_keys(session, SYSTEM).items():
        if seen == before[name]:
            session.execute(insert(TABLES[name]).values(_build_row(session, tenant, TABLES[name])))
    after = visible_keys(session, SYSTEM)
    return TenantRows(tenant, {name: seen - before[name] for name, seen in after.items()})


def _build_row(session: Session, tenant: Tenant, table: Table) -> dict[str, Any]:
    return {
        column.name: _build_value(session, tenant, column)
        for column in table.columns
        if column.name == "organization_id" or not (column.nullable or column.default or column.identity)
    }


def _build_value(session: Session, tenant: Tenant, column: Column[Any]) -> Any:
    """Return a value for a column. References lead to the newest row, which belongs to the tenant."""
    known = {"organization_id": tenant.organization.id, "user_id": tenant.owner.id}
    if column.name in known:
        return known[column.name]
    for key in column.foreign_keys:
        return session.scalar(select(key.column).order_by(key.column.desc()).limit(1))
    values = {UUID: new_id(), str: new_id().hex[-8:], int: 1}
    return values.get(column.type.python_type, utc_now())


def test_s01_a_query_without_filter_returns_no_rows_of_other_tenants(
    session: Session, tenant_rows: tuple[TenantRows, TenantRows]
) -> None:
    for mine, theirs in (tenant_rows, tenant_rows[::-1]):
        for name, seen in visible_keys(session, mine.owner).items():
            shared = theirs.keys[name] if name in READ_ONLY else set()
            assert seen == mine.keys[name] | shared, name
    for name in DENIED_TABLES:
        assert count_reached_rows(session, select(TABLES[name])) == INSUFFICIENT_PRIVILEGE, name


@pytest.mark.parametrize("plan", ["force_generic_plan", "force_custom_plan"])
def test_s01_a_plan_made_for_one_role_is_not_used_for_another(
    session: Session, tenant_rows: tuple[TenantRows, TenantRows], plan: str
) -> None:
    """The planner replaces the condition of the system role, so a plan is valid for one role only."""
    first, second = tenant_rows
    session.execute(text(f"SET LOCAL plan_cache_mode = {plan}"))
    session.execute(text("PREPARE of_brands AS SELECT id FROM brands"))
    both = first.keys["brands"] | second.keys["brands"]
    seen = {SYSTEM: both, ANONYMOUS: set(), first.owner: first.keys["brands"]}
    for role in (SYSTEM, first.owner, ANONYMOUS, SYSTEM, ANONYMOUS, first.owner, SYSTEM):
        switch_role(role)
        assert set(map(tuple, session.execute(text("EXECUTE of_brands")))) & both == seen[role]


def test_s01_an_anonymous_role_sees_no_rows(
    session: Session, tenant_rows: tuple[TenantRows, TenantRows]
) -> None:
    seen = visible_keys(session, ANONYMOUS)
    assert {name for name, keys in seen.items() if keys} == READ_ONLY


def test_s01_a_login_without_a_role_sees_no_rows(
    session: Session, tenant_rows: tuple[TenantRows, TenantRows]
) -> None:
    session.execute(text("RESET ROLE"))
    sees_all = session.scalar(text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"))
    assert not sees_all, "the login of TEST_POSTGRESQL_URL is a superuser, which bypasses row-level security"
    for name, table in TABLES.items():
        assert name in READ_ONLY or session.execute(select(table)).all() == [], name


def test_s01_a_write_without_filter_changes_no_rows_of_other_tenants(
    session: Session, tenant_rows: tuple[TenantRows, TenantRows]
) -> None:
    mine, theirs = tenant_rows
    switch_role(mine.owner)
    for name, table in TABLES.items():
        column = next(iter(table.primary_key))
        for statement in (update(table).values({column: column}), delete(table)):
            reached = count_reached_rows(session, statement.where(theirs.rows_of(table)))
            assert reached in (0, INSUFFICIENT_PRIVILEGE), (name, statement)


def test_s01_no_tenant_inserts_rows_of_another(
    session: Session, tenant_rows: tuple[TenantRows, TenantRows]
) -> None:
    """The policy is checked before the unique key, so a copy of an existing row suffices."""
    mine, theirs = tenant_rows
    for name, table in TABLES.items():
        switch_role(SYSTEM)
        row = session.execute(select(table).where(theirs.rows_of(table)).limit(1)).one()._asdict()
        switch_role(mine.owner)
        assert count_reached_rows(session, insert(table).values(row)) == INSUFFICIENT_PRIVILEGE, name


def test_s01_public_rows_are_read_only_for_other_tenants(
    session: Session, tenant_rows: tuple[TenantRows, TenantRows]
) -> None:
    mine, theirs = tenant_rows
    with_public = [table for table in TABLES.values() if "public" in table.c]
    assert len(with_public) > 5
    switch_role(SYSTEM)
    for table in with_public:
        session.execute(update(table).where(theirs.rows_of(table)).values(public=True))
    for role in (mine.owner, ANONYMOUS):
        switch_role(role)
        for table in with_public:
            assert session.execute(select(table).where(theirs.rows_of(table))).all(), table.name
            for statement in (update(table).values(public=False), delete(table)):
                reached = count_reached_rows(session, statement.where(theirs.rows_of(table)))
                # Nobody writes rows that triggers derive.
                assert reached in (0, INSUFFICIENT_PRIVILEGE), table.name


def test_s01_a_guest_sees_one_shooting_and_writes_own_comments_only(
    session: Session, tenant_rows: tuple[TenantRows, TenantRows]
) -> None:
    mine, _ = tenant_rows
    rows, link_id = mine.tenant.rows, new_id()
    for product in (rows["product"], None):
        product_id = {} if product is None else {"main_product_id": product.id}
        look = factories.make_look(
            factories.make_shooting(organization=mine.tenant.organization),
            shot_type_ids=[rows["shot_type"].id],
            **product_id,
        )
        generation = factories.make_generation(factories.make_shot(look), status="completed")
        factories.make_prediction_comment(factories.make_prediction(generation))
    own = factories.make_prediction_comment(rows["prediction"], author_id=None, review_link_id=link_id)
    guest = SessionRole(APPLICATION_ROLE, link_id, shooting_id=rows["shooting"].id)
    seen = visible_keys(session, guest)
    for kind in ("shooting", "look", "shot", "generation", "prediction", "product"):
        assert seen.pop(rows[kind].__tablename__) == {(rows[kind].id,)}, kind
    assert seen.pop("prediction_comments") == {(rows["comment"].id,), (own.id,)}
    assert (rows["resource"].id,) in seen["media_resources"]
    for name in GUEST_CONTENT:
        assert seen.pop(name) <= mine.keys[name], name
    assert {name for name, keys in seen.items() if keys} == READ_ONLY

    for name, table in TABLES.items():
        column = next(iter(table.primary_key))
        others = () if name != "prediction_comments" else (table.c.id != own.id,)
        for statement in (update(table).values({column: column}), delete(table)):
            reached = count_reached_rows(session, statement.where(*others))
            assert reached in (0, INSUFFICIENT_PRIVILEGE), (name, statement)
        switch_role(SYSTEM)
        row = session.execute(select(table).where(mine.rows_of(table)).limit(1)).one()._asdict()
        switch_role(guest)
        assert count_reached_rows(session, insert(table).values(row)) == INSUFFICIENT_PRIVILEGE, name
    comments = TABLES["prediction_comments"]
    for statement in (update(comments).values(text="Sharper."), delete(comments)):
        assert count_reached_rows(session, statement) == 1


def test_rows_that_are_no_longer_public_stay_visible_where_they_are_referenced(
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
        query = select(published.c.id).where(published.c.id == row_id)
        switch_role(mine.owner)
        assert session.scalar(query) is None
        switch_role(SYSTEM)
        savepoint = session.begin_nested()
        my_row = tuple_(*table.primary_key) == min(mine.keys[table.name])
        session.execute(update(table).where(my_row).values({column: row_id}))
        switch_role(mine.owner)
        assert session.scalar(query) == row_id, f"{table.name}.{column.name}"
        savepoint.rollback()


def test_s01_few_operations_run_as_the_system() -> None:
    """A new operation must be added here after a review; other public operations see public rows only."""
    handlers = {
        name: getattr(import_module(f"handlers.{operation.raw['tags'][0]}".replace("-", "_")), name)
        for name, operation in OPERATIONS.items()
    }
    assert {name for name, handler in handlers.items() if is_self_authenticating(handler)} == {
        "accept_invitation", "cancel_account_deletion", "confirm_email_change", "exchange_review_link",
        "find_login_provider", "finish_oidc_login", "get_published_image",
        "get_shared_image", "login",
        "put_upload", "receive_task_webhook", "recover_password", "refresh_token", "reset_password",
        "revoke_token", "start_oidc_login",
    }  # fmt: skip


def test_s01_a_handler_without_the_tenant_filter_returns_404(
    app: Application,
    tenant: Tenant,
    other_tenant: Tenant,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Remove the tenant filter and send a request: without row-level security the row is found."""
    monkeypatch.setattr(tenancy, "row_filter", lambda *_, **__: ())
    monkeypatch.setattr(tenancy, "_select_by_id", tenancy._select_by_id.__wrapped__)
    response = other_tenant.request_for("get_brand").send(app, auth_headers(app, tenant.owner))
    assert response.status == 404
