"""Reads on the event loop: several queries as one message, errors, lost connections, and time limits."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import pytest
from sqlalchemy import Engine, Integer, String, bindparam, delete, func, insert, literal_column, select
from sqlalchemy.exc import DBAPIError

from db.base import new_id, utc_now
from db.engine import build_engine
from db.libpq.pipeline import Command
from db.libpq.reader import Reader, compile_queries
from db.libpq.statements import PreparedStatement, Query
from db.models import Organization
from db.rls.session_role import SYSTEM_ROLE
from db.session import Database
from tools.servers.processes import wait_until

Value = TypeVar("Value")

ONE = Query(select(literal_column("1", Integer)), {})
BACKEND = Query(select(func.pg_backend_pid()), {})
FAILING = Query(select(literal_column("1 / 0", Integer)), {})
SLUG = "written-by-a-test"
ROW = {"id": new_id(), "name": "A", "slug": SLUG, "created_at": utc_now(), "updated_at": utc_now()}
WRITING = Query(insert(Organization).values({name: bindparam(name) for name in ROW}), ROW)
WRITTEN = Query(select(func.count()).select_from(Organization).where(Organization.slug == SLUG), {})
SLEEPING = Query(select(func.pg_sleep(bindparam("seconds"))), {"seconds": 30})


@pytest.fixture
def engine(database_url: str) -> Engine:
    """Return an engine whose transactions begin with the role of the system."""
    return Database(build_engine(database_url, pool_size=1, statement_seconds=20)).engine


def run(engine: Engine, read: Callable[[Reader], Awaitable[Value]], size: int = 1) -> Value:
    """Return the result of `read` on a new event loop."""

    async def read_and_close() -> Value:
        reader = Reader(engine, size)
        try:
            async with asyncio.timeout(20):
                return await read(reader)
        finally:
            await reader.close()

    return asyncio.run(read_and_close())


def end_backend(database_url: str, backend: int) -> None:
    """End a connection as its login, which may do so; the role of the system may not."""
    login = build_engine(database_url, pool_size=1)
    with login.connect() as connection:
        connection.execute(select(func.pg_terminate_backend(backend)))
    login.dispose()


def test_queries_of_a_message_are_one_transaction_that_leaves_nothing_behind(engine: Engine) -> None:
    role = Query(select(func.current_setting("role"), func.transaction_timestamp()), {})
    changed = Query(select(func.set_config("role", "sartiq_app", True)), {})

    async def read(reader: Reader) -> None:
        (((before, began),), _, ((after, still),)) = (await reader.fetch([role, changed, role])).rows
        assert (before, after, began) == (SYSTEM_ROLE, "sartiq_app", still)
        (((again, later),),) = (await reader.fetch([role])).rows
        assert (again, later > began) == (SYSTEM_ROLE, True)

    run(engine, read)


def test_a_snapshot_reads_at_the_same_moment_and_cannot_write(engine: Engine) -> None:
    settings = [func.current_setting(name) for name in ("transaction_isolation", "transaction_read_only")]

    async def read(reader: Reader) -> None:
        fetched = await reader.fetch([Query(select(*settings), {})], is_snapshot=True)
        assert fetched.rows == [[("repeatable read", "on")]]
        assert (await reader.fetch([Query(select(*settings), {})])).rows == [[("read committed", "off")]]

    run(engine, read)


def test_a_failed_query_raises_and_the_connection_serves_the_next_one(engine: Engine) -> None:
    async def read(reader: Reader) -> None:
        (backend,) = (await reader.fetch([BACKEND])).rows
        for _ in range(2):
            with pytest.raises(DBAPIError) as error:
                await reader.fetch([ONE, FAILING, ONE])
            assert error.value.orig.sqlstate == "22012"  # type: ignore[union-attr] - an error of psycopg
        assert (await reader.fetch([ONE, BACKEND])).rows == [[(1,)], backend]

    run(engine, read)


def test_a_connection_that_postgresql_has_ended_is_replaced(engine: Engine, database_url: str) -> None:
    async def read(reader: Reader) -> None:
        (((backend,),),) = (await reader.fetch([BACKEND])).rows
        end_backend(database_url, backend)
        (((other,),),) = (await reader.fetch([BACKEND])).rows
        assert other != backend

    run(engine, read)


def test_a_read_runs_again_if_a_prepared_statement_is_in_the_way(engine: Engine) -> None:
    async def read(reader: Reader) -> None:
        (backend,) = (await reader.fetch([BACKEND])).rows
        (idle,) = reader._pool()._idle
        # As if a pooler had given the connection another one of the server.
        idle.pipeline._prepared._names.clear()
        assert (await reader.fetch([BACKEND])).rows != [backend]

    run(engine, read)


def test_a_canceled_read_ends_in_postgresql_and_gives_its_slot_back(engine: Engine) -> None:
    running = Query(
        select(func.count())
        .select_from(func.pg_stat_get_activity(None).table_valued("query", "state"))
        .where(literal_column("query").like("SELECT pg_sleep%"), literal_column("state") == "active"),
        {},
    )

    async def read(reader: Reader) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await reader.fetch([SLEEPING])
        assert (await reader.fetch([ONE])).rows == [[(1,)]]
        while (await reader.fetch([running])).rows != [[(0,)]]:
            await asyncio.sleep(0.05)

    run(engine, read)


def test_reads_go_on_while_postgresql_ends_all_their_connections(engine: Engine, database_url: str) -> None:
    login = build_engine(database_url, pool_size=1)

    failures: list[Any] = []

    async def read(reader: Reader) -> None:
        async def read_often() -> None:
            for _ in range(50):
                try:
                    assert (await reader.fetch([ONE])).rows == [[(1,)]]
                except DBAPIError as error:
                    # Its second connection was ended, too.
                    failures.append(error.orig)

        reading = [asyncio.create_task(read_often()) for _ in range(8)]
        for _ in range(5):
            await asyncio.sleep(0.01)
            idle = [each.pipeline._connection.backend_pid for each in reader._pool()._idle]
            with login.connect() as connection:
                for backend in idle:
                    connection.execute(select(func.pg_terminate_backend(backend)))
        await asyncio.gather(*reading)
        assert len(reader._pool()._idle) <= 4

    run(engine, read, size=4)
    login.dispose()
    assert len(failures) < 40
    assert {error.sqlstate for error in failures} <= {None, "57P01"}


def test_a_notice_is_no_answer(engine: Engine) -> None:
    notice = Command(PreparedStatement("DO $$ BEGIN RAISE WARNING 'noticed'; END $$"), ())

    async def read(reader: Reader) -> None:
        await reader.fetch([ONE])
        pool = reader._pool()
        await pool.run([notice, *compile_queries([ONE])])
        assert (await reader.fetch([ONE])).rows == [[(1,)]]

    run(engine, read)


def test_a_message_that_exceeds_the_buffers_of_both_sides_is_sent_and_answered(engine: Engine) -> None:
    text = "x" * 3_000_000
    echo = Query(select(func.concat(bindparam("text", type_=String), "y")), {"text": text})

    async def read(reader: Reader) -> None:
        fetched = await reader.fetch([echo] * 5)
        assert fetched.rows == [[(text + "y",)]] * 5
        assert fetched.text_bytes == 5 * len(text) + 5

    run(engine, read)


@pytest.mark.filterwarnings("error")  # the driver warns of a connection that nobody closed
def test_an_event_loop_that_ends_without_closing_leaves_no_connection(
    engine: Engine, database_url: str
) -> None:
    async def read(reader: Reader) -> int:
        return int((await reader.fetch([BACKEND])).rows[0][0][0])

    backend = asyncio.run(read(Reader(engine, 1)))
    gc.collect()
    login = build_engine(database_url, pool_size=1)
    activity = select(func.count()).select_from(func.pg_stat_get_activity(backend))
    with login.connect() as connection:
        wait_until(lambda: connection.scalar(activity) == 0, "the connection to end", 10)
    login.dispose()


def test_more_reads_than_connections_take_turns(engine: Engine) -> None:
    async def read(reader: Reader) -> None:
        found = await asyncio.gather(*(reader.fetch([BACKEND]) for _ in range(20)))
        assert len({fetched.rows[0][0] for fetched in found}) <= 2

    run(engine, read, size=2)


def test_a_connection_keeps_a_bounded_number_of_statements(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.libpq.pipeline.MAX_PREPARED", 5)
    numbered = [Query(select(literal_column(str(number), Integer)), {}) for number in range(20)]
    prepared = Query(
        select(literal_column("count(*)", Integer)).select_from(func.pg_prepared_statement()), {}
    )

    async def read(reader: Reader) -> None:
        for number, query in enumerate(numbered):
            assert (await reader.fetch([query])).rows == [[(number,)]]
        assert (await reader.fetch([prepared])).rows[0][0][0] <= 7

    run(engine, read)


def test_an_unreachable_server_raises_what_sqlalchemy_raises() -> None:
    engine = build_engine("postgresql://nobody@127.0.0.1:9/none", pool_size=1)

    async def read(reader: Reader) -> None:
        with pytest.raises(DBAPIError) as error:
            await reader.fetch([ONE])
        assert error.value.connection_invalidated

    run(engine, read)


@pytest.fixture
def unwritten(engine: Engine) -> Iterator[None]:
    """Delete what a test has committed."""
    yield
    with engine.begin() as connection:
        connection.execute(delete(Organization).where(Organization.slug == SLUG))
    engine.dispose()


@pytest.mark.usefixtures("unwritten")
@pytest.mark.parametrize("commits", [False, True])
def test_a_transaction_commits_with_its_last_message_or_leaves_nothing(engine: Engine, commits: bool) -> None:
    async def read(reader: Reader) -> None:
        transaction = reader.begin()
        try:
            (sent,) = await transaction.send([WRITING])
            assert sent.row_count == 1
            (own,) = await transaction.send([WRITTEN], commits)
            assert own.rows == [(1,)]
        finally:
            await transaction.end()
        assert (await reader.fetch([WRITTEN])).rows == [[(int(commits),)]]

    run(engine, read)


@pytest.mark.parametrize("queries", [[FAILING], [WRITING, FAILING]])
def test_a_transaction_that_fails_gives_its_connection_back_without_a_transaction(
    engine: Engine, queries: list[Query]
) -> None:
    async def read(reader: Reader) -> None:
        (backend,) = (await reader.fetch([BACKEND])).rows
        transaction = reader.begin()
        await transaction.send([ONE])
        with pytest.raises(DBAPIError, match="division by zero"):
            await transaction.send(queries, commits=True)
        await transaction.end()
        # Also in the first message, and in a read in a snapshot, which has BEGIN, too.
        transaction = reader.begin()
        with pytest.raises(DBAPIError, match="division by zero"):
            await transaction.send(queries)
        await transaction.end()
        with pytest.raises(DBAPIError, match="division by zero"):
            await reader.fetch([ONE, FAILING], is_snapshot=True)
        assert (await reader.fetch([WRITTEN, BACKEND])).rows == [[(0,)], backend]

    run(engine, read)


def test_a_transaction_begins_on_a_new_connection_if_its_first_one_has_ended(
    engine: Engine, database_url: str
) -> None:
    async def read(reader: Reader) -> None:
        (((backend,),),) = (await reader.fetch([BACKEND])).rows
        end_backend(database_url, backend)
        transaction = reader.begin()
        (other,) = await transaction.send([BACKEND])
        await transaction.end()
        assert other.rows != [(backend,)]

    run(engine, read)
