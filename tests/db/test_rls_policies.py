"""Test that every PostgreSQL table has row-level security policies and the roles no further privileges.

`tests/contract/test_row_level_security.py` checks the policies with rows of two tenants.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine, select, text

from db.base import new_id
from db.engine import build_engine
from db.errors import NotFound
from db.migrations import upgrade
from db.models import Brand
from db.rls.session_role import ANONYMOUS, APPLICATION_ROLE, SYSTEM, SYSTEM_ROLE, SessionRole, set_role
from db.rls.setup import RolesMissing, prepare_roles
from db.session import (
    Database,
    as_system,
    current_role,
    query_as_system,
    rollback_and_continue,
    switch_role,
)
from tests.support.factories import make_brand, make_organization

UNPROTECTED = """
SELECT relname FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND relname <> 'alembic_version'
AND NOT (
    relrowsecurity AND relforcerowsecurity AND EXISTS (
        SELECT FROM pg_policy WHERE polrelid = pg_class.oid AND to_regrole('sartiq_system') = ANY (polroles)
    )
)
"""
WITHOUT_TENANT = """
SELECT attrelid::regclass::text FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND attname = 'organization_id'
AND NOT relispartition AND NOT EXISTS (
    SELECT FROM pg_policy WHERE polrelid = attrelid AND to_regrole('sartiq_app') = ANY (polroles)
)
"""


@pytest.fixture
def connection(database_engine: Engine) -> Iterator[Connection]:
    """Yield a connection with the login's own role, in a transaction that is rolled back."""
    with database_engine.connect() as opened:
        # A `Database` on this engine begins each transaction with the system role.
        opened.execute(text("RESET ROLE"))
        yield opened


def test_s01_every_table_has_a_policy(connection: Connection) -> None:
    assert connection.scalars(text(UNPROTECTED)).all() == []
    assert connection.scalars(text(WITHOUT_TENANT)).all() == []


def test_s01_a_table_without_a_policy_is_detected(connection: Connection) -> None:
    connection.execute(text("CREATE TABLE forgotten (organization_id uuid)"))
    assert connection.scalars(text(UNPROTECTED)).all() == ["forgotten"]
    assert connection.scalars(text(WITHOUT_TENANT)).all() == ["forgotten"]


@pytest.mark.parametrize("role", [APPLICATION_ROLE, SYSTEM_ROLE])
def test_s01_the_roles_have_no_privileges_beyond_their_policies(connection: Connection, role: str) -> None:
    of_role = text(
        "SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolcanlogin "
        "FROM pg_roles WHERE rolname = :role"
    )
    assert connection.execute(of_role, {"role": role}).one() == (False, False, False, False, False)
    owned = text("SELECT relname FROM pg_class WHERE relowner = to_regrole(:role)")
    assert connection.scalars(owned, {"role": role}).all() == []
    set_role(connection, SessionRole(role))
    for privilege in (
        "has_schema_privilege('public', 'CREATE')",
        "has_table_privilege('brands', 'TRUNCATE')",
        "has_table_privilege('audit_events', 'UPDATE')",
        "has_table_privilege('audit_events', 'DELETE')",
        "has_table_privilege('alembic_version', 'SELECT')",
    ):
        assert not connection.scalar(text(f"SELECT {privilege}")), privilege


def test_s01_a_connection_resets_its_database_role(database_url: str) -> None:
    database = Database(build_engine(database_url, pool_size=1))
    organization_id = new_id()
    role = SessionRole(APPLICATION_ROLE, new_id(), (organization_id,))
    settings = text(
        "SELECT current_user, current_setting('sartiq.user_id', true), "
        "current_setting('sartiq.organizations', true)"
    )
    with database.transaction(write=False, role=role) as reading:
        assert reading.execute(settings).one() == (
            APPLICATION_ROLE,
            str(role.user_id),
            f"{{{organization_id}}}",
        )
    with pytest.raises(NotFound), database.transaction(write=True, role=role):
        raise NotFound
    with database.transaction(write=False) as reading:
        assert reading.execute(settings).one() == (SYSTEM_ROLE, "", "")
    database.dispose()


def test_jit_compilation_is_off(database_url: str) -> None:
    database = Database(build_engine(database_url, pool_size=1))
    with database.transaction(write=False) as reading:
        assert reading.scalar(text("SHOW jit")) == "off"
    database.dispose()


def test_only_the_application_role_gets_generic_plans(database_url: str) -> None:
    # The queues of the system role look for rare values: a generic plan reads all rows for them.
    database = Database(build_engine(database_url, pool_size=1))
    mode = text("SHOW plan_cache_mode")
    with database.transaction(write=False) as reading:
        assert reading.scalar(mode) == "auto"
        switch_role(ANONYMOUS)
        assert reading.scalar(mode) == "force_generic_plan"
        with as_system():
            assert reading.scalar(mode) == "auto"
        assert reading.scalar(mode) == "force_generic_plan"
    with database.transaction(write=False) as reading:
        assert reading.scalar(mode) == "auto"
    database.dispose()


def test_the_database_role_of_a_transaction_survives_a_rollback(database: Database) -> None:
    brand = make_brand(organization=make_organization())
    query = select(Brand.id).where(Brand.id == brand.id)
    with database.transaction(write=True, role=ANONYMOUS) as opened:
        assert query_as_system(query) == [brand.id]
        assert opened.scalars(query).all() == []
        assert current_role() == ANONYMOUS
        switch_role(SessionRole(APPLICATION_ROLE, organization_ids=(brand.organization_id,)))
        assert opened.scalars(query).all() == [brand.id]
        rollback_and_continue()
        assert opened.scalars(query).all() == [brand.id]
    with database.transaction(write=True) as opened:
        assert current_role() == SYSTEM
        assert opened.scalars(query).all() == [brand.id]


def test_missing_roles_raise_an_error_with_the_statements_to_run(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.rls.setup.ROLES", ("sartiq_nowhere",))
    set_role(connection, ANONYMOUS)  # without the privilege to create roles
    with pytest.raises(
        RolesMissing, match=r"(?s)once:.*CREATE ROLE sartiq_nowhere NOLOGIN .*GRANT sartiq_now"
    ):
        prepare_roles(connection)
    with pytest.raises(RolesMissing, match="no role sartiq_absent, which DATABASE_URL signs in as"):
        prepare_roles(connection, login="sartiq_absent")


def test_a_new_login_is_checked_even_without_pending_migrations(database_engine: Engine) -> None:
    with pytest.raises(RolesMissing, match="no role sartiq_absent"):
        upgrade(database_engine.url.render_as_string(hide_password=False), login="sartiq_absent")
