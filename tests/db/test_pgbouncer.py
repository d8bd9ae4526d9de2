"""Test transactions on connections that PgBouncer shares between callers, in transaction mode."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import Row, func, literal, select, text
from sqlalchemy.exc import DBAPIError

from db.engine import MAX_LOCK_WAIT_MILLISECONDS, build_engine, is_database_unavailable
from db.errors import NotFound
from db.libpq.reader import Reader
from db.libpq.statements import Query
from db.models import Brand
from db.rls.session_role import APPLICATION_ROLE, SYSTEM_ROLE, SessionRole, role_query
from db.session import Database, current_session, query_as_system
from tests.support.factories import make_brand, make_organization, make_user, use_session
from tests.support.requirements import skip_or_fail
from tools.servers.pgbouncer import run_pgbouncer
from tools.servers.processes import DependencyMissing

CONNECTIONS, THREADS, TURNS = 3, 8, 25
SETTINGS = text(
    "SELECT current_user, coalesce(current_setting('sartiq.user_id', true), '') AS caller, "
    "current_setting('jit') AS jit, current_setting('statement_timeout') AS statement_timeout, "
    "current_setting('lock_timeout') AS lock_timeout, current_setting('timezone') AS timezone"
)


@contextmanager
def open_pool(database_url: str, folder: Path, connections: int, **settings: object) -> Iterator[str]:
    """Yield the URL of a database behind PgBouncer.

    Without PgBouncer, the test fails in CI. On other machines it is skipped.
    """
    with ExitStack() as stack:
        try:
            url = stack.enter_context(run_pgbouncer(folder, database_url, connections, **settings))
        except DependencyMissing as missing:
            skip_or_fail(str(missing))
        yield url


@pytest.fixture
def pooled_url(own_database_url: str, tmp_path: Path) -> Iterator[str]:
    """Yield the URL of a database behind PgBouncer, which has fewer connections than there are threads."""
    with open_pool(own_database_url, tmp_path / "pgbouncer", CONNECTIONS) as url:
        yield url


@pytest.fixture
def build_database(pooled_url: str) -> Iterator[Callable[..., Database]]:
    """Yield a function that returns a database behind PgBouncer, as a process of its own opens it."""
    opened: list[Database] = []

    def build(statement_seconds: int | None = None) -> Database:
        opened.append(Database(build_engine(pooled_url, THREADS, statement_seconds)))
        return opened[-1]

    yield build
    for database in opened:
        database.dispose()


def run_threads(run: Callable[[int], None], count: int = THREADS) -> None:
    barrier = threading.Barrier(count)

    def start(number: int) -> None:
        barrier.wait(60)
        run(number)

    with ThreadPoolExecutor(count) as threads:
        list(threads.map(start, range(count)))


def create_tenant(database: Database) -> SessionRole:
    """Create an organization with one brand; return the role of its owner."""
    with database.transaction(write=True) as session, use_session(session):
        owner = make_user()
        organization = make_organization(owner)
        make_brand(organization=organization)
    return SessionRole(APPLICATION_ROLE, owner.id, (organization.id,))


def list_tenants() -> set[UUID | None]:
    """Return the organizations whose brands the running transaction sees, without the tenant filter."""
    return set(current_session().scalars(select(Brand.organization_id)))


def read_settings() -> Row[tuple[str, ...]]:
    return current_session().execute(SETTINGS).one()


def test_s01_tenants_stay_apart_on_shared_connections(build_database: Callable[..., Database]) -> None:
    database = build_database()
    tenants = [create_tenant(database) for _ in range(2)]
    organizations = {organization for role in tenants for organization in role.organization_ids}

    def run(number: int) -> None:
        role = tenants[number % 2]
        for _turn in range(TURNS):
            with database.transaction(write=False, role=role):
                assert list_tenants() == set(role.organization_ids)
                assert set(query_as_system(select(Brand.organization_id))) == organizations
                assert list_tenants() == set(role.organization_ids)
            with pytest.raises(NotFound), database.transaction(write=True, role=role):
                raise NotFound
            with database.transaction(write=False):
                assert list_tenants() == organizations

    run_threads(run)


def test_s01_reads_of_tenants_stay_apart_on_shared_connections(
    build_database: Callable[..., Database],
) -> None:
    database = build_database()
    roles = [create_tenant(database) for _ in range(2)]
    brands = Query(select(Brand.organization_id).distinct(), {})
    failing = Query(select(1 / literal(0)), {})

    async def read_as(reader: Reader, role: SessionRole) -> None:
        for _turn in range(TURNS):
            _, rows = (await reader.fetch([role_query(role), brands])).rows
            assert rows == [(role.organization_ids[0],)]
            with pytest.raises(DBAPIError):
                await reader.fetch([role_query(role), failing, brands])
            # Without a role, reads are those of the system.
            (everything,) = (await reader.fetch([brands])).rows
            assert {row[0] for row in everything} == {each.organization_ids[0] for each in roles}

    async def read_all() -> None:
        reader = Reader(database.engine, THREADS)
        await asyncio.gather(*(read_as(reader, roles[number % 2]) for number in range(THREADS)))
        await reader.close()

    asyncio.run(read_all())


def test_s01_a_shared_connection_keeps_no_role_and_no_caller(
    build_database: Callable[..., Database], pooled_url: str
) -> None:
    """A report that signs in through the same PgBouncer, and names no role, sees no rows."""
    database, report = build_database(statement_seconds=60), build_engine(pooled_url, THREADS)
    role = create_tenant(database)
    login = report.url.username

    def run(_: int) -> None:
        for _turn in range(TURNS):
            with database.transaction(write=False, role=role):
                assert read_settings()[:2] == (APPLICATION_ROLE, str(role.user_id))
            with database.transaction(write=False):
                assert read_settings()[:2] == (SYSTEM_ROLE, "")
            with report.connect() as connection:
                assert connection.execute(SETTINGS).one()[:2] == (login, "")
                assert connection.scalar(select(func.count()).select_from(Brand)) == 0

    try:
        run_threads(run)
    finally:
        report.dispose()


def test_each_process_has_its_own_settings_on_shared_connections(
    build_database: Callable[..., Database],
) -> None:
    """A worker's statements have no timeout, also on a connection that a server has used."""
    server, worker = build_database(statement_seconds=60), build_database()

    def run(number: int) -> None:
        for turn in range(TURNS):
            is_server = (number + turn) % 2 == 0
            limits = ("1min", f"{MAX_LOCK_WAIT_MILLISECONDS // 1000}s") if is_server else ("0", "0")
            with (server if is_server else worker).transaction(write=False):
                assert read_settings()[2:] == ("off", *limits, "UTC")

    run_threads(run)


def test_no_free_connection_is_reported_as_an_unavailable_database(
    own_database_url: str, tmp_path: Path
) -> None:
    with open_pool(own_database_url, tmp_path / "pgbouncer", 1, query_wait_timeout=1) as url:
        database = Database(build_engine(url, pool_size=2))
        with database.transaction(write=False):
            list_tenants()
            with ThreadPoolExecutor(1) as threads, pytest.raises(DBAPIError) as raised:
                threads.submit(_list_tenants_in, database).result()
        assert is_database_unavailable(raised.value)
        assert _list_tenants_in(database) == set()
        database.dispose()


def _list_tenants_in(database: Database) -> set[UUID | None]:
    with database.transaction(write=False):
        return list_tenants()


def test_prepared_statements_work_on_shared_connections(build_database: Callable[..., Database]) -> None:
    """psycopg prepares what it sends five times, forgets all after a rollback, and keeps a hundred."""
    database = build_database()

    def run(number: int) -> None:
        for turn in range(120):
            with database.transaction(write=False) as session:
                value = number * 1000 + turn
                statement = text(f"SELECT {turn} + :value")
                for _ in range(6):
                    assert session.scalar(statement, {"value": value}) == turn + value
                if turn in (9, 115):
                    session.rollback()

    # One thread more than there are connections.
    run_threads(run, CONNECTIONS + 1)
