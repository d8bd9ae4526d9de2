"""Run several statements on one connection of libpq as one message, on the event loop.

This module knows no SQL of the product and no pool. Its tests are `tests/db/test_libpq_reader.py`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult

from db.libpq.statements import PreparedStatement

MAX_PREPARED = 100
"""Statements that a connection keeps prepared: PostgreSQL holds their plans in memory."""


class Command(NamedTuple):
    """A statement with its parameters as PostgreSQL reads them."""

    statement: PreparedStatement
    parameters: Sequence[Any]


class PreparedNames:
    """The statements that a connection has prepared, in the order of their last use."""

    def __init__(self) -> None:
        self._names: OrderedDict[bytes, None] = OrderedDict()
        self._closing: list[bytes] = []

    def use(self, name: bytes) -> bool:
        """Record the use of a statement; return whether it must be prepared first."""
        is_new = name not in self._names
        self._names[name] = None
        self._names.move_to_end(name)
        return is_new

    def forget(self, names: Iterable[bytes]) -> None:
        """Close statements, of which some may not exist, with the next message."""
        for name in names:
            self._names.pop(name, None)
            self._closing.append(name)

    def take_closing(self, in_use: int) -> list[bytes]:
        """Return the statements to close now, with those that are beyond the limit."""
        while len(self._names) > max(MAX_PREPARED, in_use):
            self._closing.append(self._names.popitem(last=False)[0])
        closing, self._closing = self._closing, []
        return closing


class Pipeline:
    """The statements of one connection, one message at a time.

    Args:
        connection: A connection that nothing else uses.
        prepared: The statements that it has prepared.
    """

    def __init__(self, connection: PGconn, prepared: PreparedNames) -> None:
        self._connection, self._prepared = connection, prepared
        self._loop = asyncio.get_running_loop()
        self._socket = connection.socket
        self._results: list[PGresult] = []
        self._waiting: asyncio.Future[None] | None = None
        self._is_open = True
        connection.nonblocking = 1
        connection.enter_pipeline_mode()
        # Also between messages: the end of the connection is seen at once.
        self._loop.add_reader(self._socket, self._read)

    @property
    def is_usable(self) -> bool:
        """Whether the connection is open and has answered everything that it was sent."""
        return self._is_open and self._waiting is None

    @property
    def is_in_transaction(self) -> bool:
        """Whether a message has begun a transaction that none has ended."""
        return self._connection.transaction_status != TransactionStatus.IDLE

    def detach(self) -> None:
        """Stop watching the connection, and leave it as it was if it is idle."""
        is_usable = self.is_usable
        self._stop()
        if is_usable:
            self._connection.exit_pipeline_mode()
            self._connection.nonblocking = 0

    async def run(self, commands: Sequence[Command]) -> list[PGresult]:
        """Run the statements as one transaction and return their results.

        Raises:
            psycopg.Error: A statement failed, and those after it were not run, or the connection ended. What
                was sent is rolled back.
        """
        self._waiting = waiting = self._loop.create_future()
        self._results = []
        new: list[bytes] = []
        numbers: list[int] = []
        try:
            closing = self._prepared.take_closing(len(commands))
            for name in closing:
                self._connection.send_close_prepared(name)
            for statement, parameters in commands:
                if self._prepared.use(statement.name):
                    new.append(statement.name)
                    self._connection.send_prepare(statement.name, statement.text, statement.types)
                numbers.append(len(closing) + len(new) + len(numbers))
                self._connection.send_query_prepared(statement.name, parameters)
            self._connection.pipeline_sync()
        except psycopg.OperationalError as error:
            self._end(error)
        else:
            self._write()
        # Canceled while PostgreSQL works, the connection stays in use, and is never usable again.
        await waiting
        self._waiting = None
        failed = next((result for result in self._results if result.status == ExecStatus.FATAL_ERROR), None)
        if failed is not None:
            # Which of the new statements exist is not known.
            self._prepared.forget(new)
            raise psycopg.errors.error_from_result(failed, encoding="utf-8")
        return [self._results[number] for number in numbers]

    def _write(self) -> None:
        try:
            is_sent = self._connection.flush() == 0
        except psycopg.OperationalError as error:
            self._end(error)
            return
        if is_sent:
            self._loop.remove_writer(self._socket)
        else:
            self._loop.add_writer(self._socket, self._write)

    def _read(self) -> None:
        connection = self._connection
        try:
            connection.consume_input()
            was_end = False
            while not connection.is_busy():
                result = connection.get_result()
                if result is None and was_end:
                    # One follows the results of each statement. Two: there is nothing more to read.
                    break
                was_end = result is None
                if result is not None:
                    self._take(result)
        except psycopg.OperationalError as error:
            self._end(error)

    def _take(self, result: PGresult) -> None:
        if result.status != ExecStatus.PIPELINE_SYNC:
            self._results.append(result)
        elif self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _end(self, error: Exception) -> None:
        """Record that the connection has ended."""
        self._stop()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)

    def _stop(self) -> None:
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
