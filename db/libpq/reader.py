"""Hold the connections of an event loop, and run queries and transactions on them.

A read, or the first message of a transaction, runs again on a new connection if its connection has ended or
a prepared statement is missing.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary

import psycopg
from psycopg.pq.abc import PGconn, PGresult
from sqlalchemy import Connection, Engine, func, select, true
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from db.dialect import PsycopgDialect
from db.engine import POOL_TIMEOUT_SECONDS, SESSION_SETTINGS
from db.libpq.pipeline import Command, Pipeline, PreparedNames
from db.libpq.statements import Fetched, PreparedStatement, Query, Row, count_text_bytes, prepare

logger = logging.getLogger(__name__)

MAX_EVENT_LOOP_BYTES = 100_000
"""Rows with more bytes of texts and JSON are worked on in threads."""
CANCEL_SECONDS = 5.0
LOCK_MILLISECONDS = 100
"""How long a transaction waits for a row lock, with a connection that reads of others wait for."""
_GONE = frozenset(("26000", "0A000", "42P05", "57P01", "57P02", "57P03"))
"""The SQLSTATEs after which a new connection helps: a prepared statement is missing, out of date or in the
way, or PostgreSQL shuts down."""

Hook = Callable[[Connection], object]
_SNAPSHOT = Command(PreparedStatement("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"), ())
_BEGIN = Command(PreparedStatement("BEGIN"), ())
_COMMIT = Command(PreparedStatement("COMMIT"), ())
_ROLLBACK = Command(PreparedStatement("ROLLBACK"), ())


def compile_queries(queries: Sequence[Query]) -> list[Command]:
    """Return the commands of queries, with their parameters encoded.

    Raises:
        psycopg.DataError: PostgreSQL cannot represent a value, such as a text with U+0000.
    """
    statements = [(prepare(query), query.values) for query in queries]
    return [Command(statement, statement.dump(values)) for statement, values in statements]


async def _load(commands: Sequence[Command], results: Sequence[PGresult]) -> Fetched:
    """Return the rows of the results of commands."""

    def load() -> list[list[Row]]:
        return [command.statement.load(result) for command, result in zip(commands, results, strict=True)]

    text_bytes = sum(map(count_text_bytes, results))
    return Fetched(await asyncio.to_thread(load) if text_bytes > MAX_EVENT_LOOP_BYTES else load(), text_bytes)


def begin_command(engine: Engine, **more: str) -> Command:
    """Return the command that sets what the dialect sets at the begin of a transaction, and more settings."""
    settings = {**cast("PsycopgDialect", engine.dialect).settings_at_begin, **more}
    columns = [func.set_config(name, value, true()) for name, value in settings.items()]
    return compile_queries([Query(select(*columns), {})])[0]


class Reader:
    """Runs queries for requests on an event loop.

    Args:
        engine: The engine, for the parameters of its connections and the settings of its transactions.
        size: How many connections an event loop opens.
    """

    def __init__(self, engine: Engine, size: int) -> None:
        self._engine = engine
        self._size = size
        self._pools: WeakKeyDictionary[asyncio.AbstractEventLoop, _Pool] = WeakKeyDictionary()
        self._begin: Command | None = None
        self._begin_writing: Command | None = None

    async def fetch(self, queries: Sequence[Query], is_snapshot: bool = False) -> Fetched:
        """Return the rows of each query. All run under the system role until one of them changes it.

        Args:
            queries: The queries, in their order.
            is_snapshot: Whether all of them see the database at the same moment, for queries of which one
                relies on the result of another.

        Raises:
            DBAPIError: As SQLAlchemy raises it for a statement.
            sqlalchemy.exc.TimeoutError: No connection was free in time.
        """
        commands = compile_queries(queries)
        if self._begin is None:
            self._begin = begin_command(self._engine)
        before, after = ([_SNAPSHOT, self._begin], [_COMMIT]) if is_snapshot else ([self._begin], [])
        try:
            results = await self._pool().run([*before, *commands, *after])
        except psycopg.Error as error:
            raise _to_sqlalchemy(error, self._engine) from error
        return await _load(commands, results[len(before) : len(before) + len(commands)])

    def begin(self) -> Transaction:
        """Return a transaction that writes, and waits for row locks no longer than `LOCK_MILLISECONDS`.

        It takes a connection with its first message.
        """
        if self._begin_writing is None:
            self._begin_writing = begin_command(self._engine, lock_timeout=str(LOCK_MILLISECONDS))
        return Transaction(self._pool(), [_BEGIN, self._begin_writing], self._engine)

    async def close(self) -> None:
        """Close the connections of the running event loop."""
        pool = self._pools.pop(asyncio.get_running_loop(), None)
        if pool is not None:
            await pool.close()

    @property
    def connections_in_use(self) -> int:
        """The number of connections on which queries run now."""
        return sum(pool.in_use for pool in list(self._pools.values()))

    def _pool(self) -> _Pool:
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            self._pools[loop] = pool = _Pool(self._engine, self._size)
        return pool


class Sent(NamedTuple):
    """The rows that a statement of a transaction returned, and the number of those that it wrote."""

    rows: list[Row]
    row_count: int


class Transaction:
    """A transaction of several messages. Call `end` in any case.

    Args:
        pool: The pool of its connection.
        begin: The commands that begin it.
        engine: The engine whose errors are raised.
    """

    def __init__(self, pool: _Pool, begin: Sequence[Command], engine: Engine) -> None:
        self._pool, self._begin, self._engine = pool, begin, engine
        self._connection: _Connection | None = None
        self.may_be_committed = False
        """Whether the transaction was committed, or the connection ended before PostgreSQL said so."""

    async def send(self, queries: Sequence[Query], commits: bool = False) -> list[Sent]:
        """Run queries in one message, and commit at its end if `commits`.

        Raises:
            DBAPIError: As SQLAlchemy raises it for a statement.
            sqlalchemy.exc.TimeoutError: No connection was free in time.
        """
        commands = compile_queries(queries)
        self.may_be_committed = commits
        try:
            results = await self._run(commands, commits)
        except psycopg.Error as error:
            # PostgreSQL reports what it has rolled back; a connection that ends reports nothing.
            self.may_be_committed = commits and error.sqlstate is None
            raise _to_sqlalchemy(error, self._engine) from error
        return [
            Sent(command.statement.load(result), result.command_tuples or 0)
            for command, result in zip(commands, results, strict=True)
        ]

    async def _run(self, commands: Sequence[Command], commits: bool) -> list[PGresult]:
        message = [*commands, *([_COMMIT] if commits else [])]
        if self._connection is not None:
            return (await self._connection.pipeline.run(message))[: len(commands)]
        self._connection, results = await self._pool.begin([*self._begin, *message])
        return results[len(self._begin) :][: len(commands)]

    async def end(self) -> None:
        """Roll back what is not committed, and give the connection back."""
        if self._connection is None:
            return
        connection, self._connection = self._connection, None
        await self._pool.give_back(connection)


class TransactionInSavepoint(Transaction):
    """A transaction that is a savepoint of a connection, for tests.

    Args:
        connection: The connection, in a transaction.
        lock: Held from the first message to the end.
        begin: Called when the lock is held.
        end: Called before it is released.
    """

    def __init__(self, connection: Connection, lock: threading.Lock, begin: Hook, end: Hook) -> None:
        self._shared, self._lock, self._hooks = connection, lock, (begin, end)
        self._engine = connection.engine
        self._pgconn = _find_pgconn(connection)
        self._is_open = self.may_be_committed = False

    async def _run(self, commands: Sequence[Command], commits: bool) -> list[PGresult]:
        if not self._is_open:
            await asyncio.to_thread(self._lock.acquire)
            self._is_open = True
            self._hooks[0](self._shared)
            self._pgconn.exec_(b"SAVEPOINT writes")
        return await _run_on(self._shared, commands)

    async def end(self) -> None:
        """Undo what is not committed, and release the lock."""
        if not self._is_open:
            return
        try:
            if not self.may_be_committed:
                self._pgconn.exec_(b"ROLLBACK TO SAVEPOINT writes")
            self._pgconn.exec_(b"RELEASE SAVEPOINT writes")
            self._hooks[1](self._shared)
        finally:
            self._lock.release()


def _find_pgconn(connection: Connection) -> PGconn:
    return cast("psycopg.Connection[Any]", connection.connection.dbapi_connection).pgconn


async def fetch_in_transaction(connection: Connection, queries: Sequence[Query]) -> Fetched:
    """Return the rows of queries on the connection of a running transaction, for tests.

    A savepoint undoes what they set. If statements of the connection have listeners, each is called with the
    `Command` before it runs as a message of its own.
    """
    commands = compile_queries(queries)
    pgconn = _find_pgconn(connection)
    pgconn.exec_(b"SAVEPOINT reads")
    try:
        results = await _run_on(connection, [begin_command(connection.engine), *commands])
    except psycopg.Error as error:
        raise _to_sqlalchemy(error, connection.engine) from error
    finally:
        pgconn.exec_(b"ROLLBACK TO SAVEPOINT reads; RELEASE SAVEPOINT reads")
    return await _load(commands, results[1:])


async def _run_on(connection: Connection, commands: Sequence[Command]) -> list[PGresult]:
    """Run commands on the connection of a test, for whose listeners each is a message of its own."""
    pgconn = _find_pgconn(connection)
    listeners = list(connection.dispatch.before_cursor_execute)
    results: list[PGresult] = []
    for message in [[command] for command in commands] if listeners else [commands]:
        for notify in listeners:
            notify(connection, None, message[0].statement.text.decode(), message[0], None, False)
        prepared = PreparedNames()
        # The driver sends DEALLOCATE ALL after some rollbacks, so whether they are prepared is not known.
        prepared.forget({command.statement.name for command in message})
        pipeline = Pipeline(pgconn, prepared)
        try:
            results += await pipeline.run(message)
        finally:
            pipeline.detach()
    return results


def _to_sqlalchemy(error: psycopg.Error, engine: Engine) -> Exception:
    """Return the error that SQLAlchemy raises for one of the driver."""
    return DBAPIError.instance(
        "a read",
        None,
        error,
        psycopg.Error,
        hide_parameters=True,
        connection_invalidated=error.sqlstate is None,
        dialect=engine.dialect,
    )


class _Connection:
    """A connection of the driver, and the pipeline on it."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self.pipeline = Pipeline(connection.pgconn, PreparedNames())

    async def cancel_and_close(self) -> None:
        """End what PostgreSQL still does for this connection, and close it."""
        self.pipeline.detach()
        try:
            await self._connection.cancel_safe(timeout=CANCEL_SECONDS)
        except psycopg.Error as error:
            # PostgreSQL ends the statement itself after `statement_timeout`.
            logger.warning("canceling a read failed: %s", error)
        self.finish()

    def finish(self) -> None:
        """Close the connection, without waiting."""
        self.pipeline.detach()
        self._connection.pgconn.finish()


class _Pool:
    """The connections of one event loop."""

    def __init__(self, engine: Engine, size: int) -> None:
        self._engine = engine
        self._free = asyncio.Semaphore(size)
        self.in_use = 0
        # The last one that was used comes first: PostgreSQL has its data in the cache of a core.
        self._idle: list[_Connection] = []
        self._closing: set[asyncio.Task[None]] = set()

    async def run(self, commands: Sequence[Command]) -> list[PGresult]:
        """Run the commands on a free connection.

        Raises:
            sqlalchemy.exc.TimeoutError: No connection was free in time.
            psycopg.Error: A statement failed, or PostgreSQL cannot be reached.
        """
        connection, results = await self.begin(commands)
        await self.give_back(connection)
        return results

    async def begin(self, commands: Sequence[Command]) -> tuple[_Connection, list[PGresult]]:
        """Run the commands on a free connection, and keep it until `give_back`.

        Raises:
            sqlalchemy.exc.TimeoutError: No connection was free in time.
            psycopg.Error: A statement failed, or PostgreSQL cannot be reached. No connection is kept.
        """
        await self._take_slot()
        self.in_use += 1
        connection = self._find_idle()
        is_new = connection is None
        try:
            while True:
                connection = connection or await self._connect()
                try:
                    return connection, await connection.pipeline.run(commands)
                except psycopg.Error as error:
                    # Nothing is committed, so it can run again.
                    if is_new or not _is_gone(error):
                        raise
                self._put_back(connection)
                connection, is_new = None, True
        except BaseException:
            if connection is None:
                self._release_slot()
            else:
                await self.give_back(connection)
            raise

    async def give_back(self, connection: _Connection) -> None:
        """Let others use a connection of `begin`; an open transaction is rolled back."""
        try:
            await self._roll_back(connection)
        finally:
            self._put_back(connection)
            self._release_slot()

    def _release_slot(self) -> None:
        self.in_use -= 1
        self._free.release()

    async def close(self) -> None:
        """Close all connections that are not in use."""
        while self._idle:
            self._idle.pop().finish()
        await asyncio.gather(*self._closing)

    async def _take_slot(self) -> None:
        if not self._free.locked():
            await self._free.acquire()
            return
        try:
            async with asyncio.timeout(POOL_TIMEOUT_SECONDS):
                await self._free.acquire()
        except TimeoutError:
            raise PoolTimeout(f"no connection for a read was free within {POOL_TIMEOUT_SECONDS} s") from None

    def _find_idle(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.pipeline.is_usable:
                return connection
            connection.finish()
        return None

    async def _roll_back(self, connection: _Connection) -> None:
        """End the transaction that a failed message has left, if the connection still answers."""
        if connection.pipeline.is_usable and connection.pipeline.is_in_transaction:
            with suppress(psycopg.Error):
                await connection.pipeline.run([_ROLLBACK])

    def _put_back(self, connection: _Connection) -> None:
        if connection.pipeline.is_usable:
            self._idle.append(connection)
        else:
            self._close(connection)

    def _close(self, connection: _Connection) -> None:
        closing = asyncio.get_running_loop().create_task(connection.cancel_and_close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _connect(self) -> _Connection:
        parameters = self._engine.dialect.create_connect_args(self._engine.url)[1]
        connection = await psycopg.AsyncConnection.connect(autocommit=True, **parameters)
        await connection.execute(SESSION_SETTINGS, prepare=False)
        return _Connection(connection)

    def __del__(self) -> None:
        # The event loop ended without `close`. The driver would warn.
        for connection in self._idle:
            connection.finish()


def _is_gone(error: psycopg.Error) -> bool:
    """Return whether the statement could not run on this connection, and may run on another one."""
    return error.sqlstate is None or error.sqlstate in _GONE or error.sqlstate.startswith("08")
