"""Open one transaction per request or job: returning commits, raising rolls back.

Side effects run after the commit (`after_commit`). Writes that must survive a rollback run in a transaction
of their own (`run_in_separate_transaction`). This module knows no model and no HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, Engine, Insert, Select, event
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import ORMExecuteState, Session, SessionTransaction
from sqlalchemy.util import await_only

from db.change_feed.touched_rows import forget_touched_rows
from db.dialect import set_at_begin
from db.errors import (
    AlreadyMember,
    DomainError,
    DomainTaken,
    EmailTaken,
    ExternalIdTaken,
    IdentityTaken,
    InUse,
    NotFound,
    RateLimited,
    SkuTaken,
    SlugTaken,
    SubscriptionExists,
)
from db.event_loop_session import EventLoopSession, SessionNeeded
from db.libpq.reader import Reader, TransactionInSavepoint, fetch_in_transaction
from db.libpq.statements import Fetched, Query
from db.rls.session_role import SYSTEM, SYSTEM_ROLE, SessionRole, role_query, set_role

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

BOUND_CONNECTION_WAIT_SECONDS = 30
"""How long a thread waits for the single connection of `Database.from_connection`."""


@dataclass
class _InsertGroup:
    """Rows that are inserted together, with their statements, and the role that inserts them."""

    role: SessionRole
    rows: list[tuple[Insert, Mapping[str, Any]]] = field(default_factory=list)


@dataclass
class _UnitOfWork:
    """The running transaction and the callbacks that run when it has ended."""

    session: Session
    after_commit: list[Callable[[], object]] = field(default_factory=list)
    after_rollback: list[Callable[[], object]] = field(default_factory=list)
    separate_callbacks: list[Callable[[Session], object]] = field(default_factory=list)
    savepoints: int = 0
    insert_group: _InsertGroup | None = None


# A context variable, so that functions need no session parameter and threads do not share a transaction.
_unit_of_work: ContextVar[_UnitOfWork | None] = ContextVar("unit_of_work", default=None)


def _current_unit_of_work() -> _UnitOfWork:
    unit = _unit_of_work.get()
    if unit is None:
        raise RuntimeError("there is no running transaction; open one with Database.transaction()")
    return unit


def current_session() -> Session:
    """Return the session of the running transaction.

    Raises:
        RuntimeError: There is no running transaction.
    """
    return _current_unit_of_work().session


def find_event_loop_session() -> EventLoopSession | None:
    """Return the session of a transaction on the event loop; None for one in a thread."""
    session: Any = current_session()
    return session if isinstance(session, EventLoopSession) else None


def current_write_connection() -> Connection:
    """Return the connection of the running transaction, for writes that bypass the ORM session.

    Raises:
        RuntimeError: There is no running transaction, or it was opened for reading.
    """
    session = current_session()
    # The session's own checks do not see statements that bypass it.
    if isinstance(session, _ReadOnlySession):
        raise RuntimeError(_READ_ONLY_MESSAGE)
    return session.connection()


def insert_later(statement: Insert, values: Mapping[str, Any]) -> bool:
    """Insert a row at the end of the block of `grouped_inserts`; return False if the caller must insert it.

    For rows of logs and queues, which the transaction does not read again.

    Args:
        statement: An INSERT without values. Keep it as a module constant: rows are grouped by its identity.
        values: The values of the row, with the same names each time.
    """
    group = _current_unit_of_work().insert_group
    # Row-level security checks a row against the role that inserts it.
    if group is None or group.role != current_role():
        return False
    group.rows.append((statement, values))
    return True


@contextmanager
def grouped_inserts() -> Iterator[None]:
    """Insert the rows that the block passes to `insert_later` at its end, with one statement per table.

    A savepoint that is undone takes its rows along. An exception drops all rows.
    """
    unit = _current_unit_of_work()
    unit.insert_group = group = _InsertGroup(current_role())
    try:
        yield
    finally:
        unit.insert_group = None
    statements = {id(statement): statement for statement, _ in group.rows}
    for key, statement in statements.items():
        rows = [values for each, values in group.rows if id(each) == key]
        current_write_connection().execute(statement, rows)


def is_writing() -> bool:
    """Return whether the running transaction was opened for writing."""
    return not isinstance(current_session(), _ReadOnlySession)


def is_in_transaction() -> bool:
    """Return whether a transaction is running."""
    return _unit_of_work.get() is not None


def after_commit(callback: Callable[[], object]) -> None:
    """Call `callback` when the running transaction has committed; a rollback drops it.

    It runs outside of any transaction. An exception is logged and ignored: queues are rows of the database,
    so a lost wake-up delays work and does not lose it.
    """
    _current_unit_of_work().after_commit.append(callback)


def after_rollback(callback: Callable[[], object]) -> None:
    """Call `callback` when the running transaction has rolled back, to undo effects outside the database."""
    _current_unit_of_work().after_rollback.append(callback)


def rollback_and_continue() -> None:
    """Roll back the running transaction and start an empty one in its place, so that the caller can go on.

    Callbacks registered with `after_commit` are dropped; those of `after_rollback` run now.
    """
    unit = _current_unit_of_work()
    unit.session.rollback()
    unit.after_commit.clear()
    # The list is replaced first, because a second rollback at the end must not run them again.
    callbacks, unit.after_rollback = unit.after_rollback, []
    _run_callbacks(callbacks)


@contextmanager
def savepoint() -> Iterator[None]:
    """Run the block in a savepoint: an exception undoes it, and the transaction can go on.

    What the block has registered ends with it: `after_commit` callbacks are dropped, those of
    `after_rollback` run at once, rows of `grouped_inserts` are not inserted.

    Raises:
        DomainError: A constraint with a business meaning is violated, as at the end of a transaction.
    """
    unit, role = _current_unit_of_work(), current_role()
    group = unit.insert_group
    row_count = 0 if group is None else len(group.rows)
    commit_count, rollback_count = len(unit.after_commit), len(unit.after_rollback)
    unit.savepoints += 1
    try:
        with unit.session.begin_nested():
            yield
    except BaseException as error:
        # The database has restored the role itself.
        unit.session.info[_ROLE_KEY] = role
        del unit.after_commit[commit_count:]
        if group is not None:
            del group.rows[row_count:]
        callbacks = unit.after_rollback[rollback_count:]
        del unit.after_rollback[rollback_count:]
        _run_callbacks(callbacks)
        domain_error = error_for_constraint(error) if isinstance(error, IntegrityError) else None
        if domain_error is None:
            raise
        raise domain_error from error
    finally:
        unit.savepoints -= 1


def is_in_savepoint() -> bool:
    """Return whether the code runs in a block of `savepoint`."""
    return _current_unit_of_work().savepoints > 0


def run_in_separate_transaction(callback: Callable[[Session], object]) -> None:
    """Call `callback(session)` in a short transaction of its own after the running one, even if that fails.

    The callback runs after the end, so that a request never holds two connections of the pool. An exception
    is logged and does not change the outcome of the request.
    """
    _current_unit_of_work().separate_callbacks.append(callback)


def limit_lock_wait(milliseconds: int) -> None:
    """Let the statements of the running transaction wait for a lock no longer than this."""
    current_session().connection().exec_driver_sql(f"SET LOCAL lock_timeout = {milliseconds:d}")


def switch_role(role: SessionRole) -> None:
    """Run the rest of the running transaction under `role`, including the flush at its commit."""
    session = current_session()
    # Pending changes were made under the previous role; its policies must check them.
    session.flush()
    # Before the new role is recorded: a transaction without a statement begins here, under the previous role,
    # to which a savepoint that is undone returns.
    connection = session.connection()
    session.info[_ROLE_KEY] = role
    set_role(connection, role)


def record_role(role: SessionRole) -> None:
    """Record that a statement of the running transaction has already switched the database to `role`."""
    current_session().info[_ROLE_KEY] = role


def current_role() -> SessionRole:
    """Return the database role of the running transaction."""
    role: SessionRole = current_session().info[_ROLE_KEY]
    return role


@contextmanager
def as_system() -> Iterator[None]:
    """Run the block under the system role, which row-level security does not limit to one tenant."""
    role = current_role()
    switch_role(SYSTEM)
    # No `finally`: an exception rolls the transaction back, and PostgreSQL accepts no statement until then.
    yield
    switch_role(role)


def query_as_system(query: Select[Value]) -> list[Value]:
    """Return the values that `query` finds in the rows of all tenants.

    Select columns, not entities: the caller could read or change more of an entity than it may.
    """
    with as_system():
        return list(current_session().scalars(query))


def error_for_constraint(error: IntegrityError) -> DomainError | None:
    """Return the domain error for a violated constraint, or None if the violation is a bug."""
    constraint = str(getattr(getattr(error.orig, "diag", None), "constraint_name", ""))
    if constraint.startswith("fk_"):
        is_delete = (error.statement or "").lstrip().upper().startswith("DELETE")
        # References are checked before an INSERT or UPDATE. If one fails here, the row was deleted meanwhile.
        return InUse() if is_delete else NotFound()
    for word, domain_error in _CONSTRAINT_ERRORS.items():
        if word in constraint:
            return domain_error()
    return None


# The first word that occurs decides, so the order matters. Indexes are named after their columns.
_CONSTRAINT_ERRORS: dict[str, type[DomainError]] = {
    "subscriptions": SubscriptionExists,
    "identity_provider_domains": DomainTaken,
    "user_identities": IdentityTaken,
    "user_id": AlreadyMember,
    "slug": SlugTaken,
    "external_id": ExternalIdTaken,
    "sku": SkuTaken,
    "email": EmailTaken,
}


_ROLE_KEY = "role"
"""The key in `Session.info` under which a session stores its database role."""


class _RoleSession(Session):
    """A session that sets its database role at the begin of each transaction, also after a rollback."""


def _set_role_on_begin(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    role = session.info[_ROLE_KEY]
    # Each transaction begins with the system role, and a savepoint keeps the role of its transaction.
    if role != SYSTEM and not transaction.nested:
        set_role(connection, role)


event.listen(_RoleSession, "after_begin", _set_role_on_begin)


class _ReadOnlySession(_RoleSession):
    """The session of a transaction that was opened for reading: it raises on every write."""


_READ_ONLY_MESSAGE = "a transaction that was opened for reading cannot write"


# Two listeners, because changes of entities and statements of the ORM take different paths to the database.
def _reject_flush(session: Session, *_: object) -> None:
    if session.new or session.deleted or any(session.is_modified(row) for row in session.dirty):
        raise RuntimeError(_READ_ONLY_MESSAGE)


def _reject_statement(state: ORMExecuteState) -> None:
    if state.is_insert or state.is_update or state.is_delete:
        raise RuntimeError(_READ_ONLY_MESSAGE)


event.listen(_ReadOnlySession, "before_flush", _reject_flush)
event.listen(_ReadOnlySession, "do_orm_execute", _reject_statement)


class Database:
    """Opens transactions. Create one per process and share it among threads.

    Each transaction of the engine begins with the system role, because the login sees no rows.

    Args:
        engine: The engine, whose pool is for threads.
        read_connections: How many further connections an event loop opens for `fetch`.
    """

    def __init__(self, engine: Engine, read_connections: int = 2) -> None:
        self.engine = engine
        set_at_begin(engine, "role", SYSTEM_ROLE)
        self.read_connections = read_connections
        self._reader = Reader(engine, read_connections)
        self._connection: Connection | None = None
        self._connection_lock = threading.Lock()

    @classmethod
    def from_connection(cls, connection: Connection) -> Database:
        """Return a database whose transactions are savepoints of one connection, for tests and tools.

        Rolling the connection back undoes all of them. Threads use it one after the other; a transaction that
        waits longer than `BOUND_CONNECTION_WAIT_SECONDS` raises RuntimeError.
        """
        database = cls(connection.engine)
        database._connection = connection
        set_role(connection, SYSTEM)
        return database

    @contextmanager
    def transaction(self, write: bool, role: SessionRole = SYSTEM) -> Iterator[Session]:
        """Open the transaction of `current_session()`: returning commits, raising rolls back.

        Args:
            write: Whether the transaction writes. If not, a write raises RuntimeError.
            role: The database role, until `switch_role` changes it.

        Raises:
            RuntimeError: A transaction is already running in this context.
            DomainError: A constraint with a business meaning is violated (`SlugTaken`, `InUse`, ...).
        """
        if _unit_of_work.get() is not None:
            raise RuntimeError("transactions do not nest; the running one covers the whole request")
        unit = _UnitOfWork(self._open_session(write, role))
        # Not known from an exception alone: a commit can fail too.
        committed = False
        try:
            with self._hold_connection(), unit.session:
                token = _unit_of_work.set(unit)
                try:
                    yield unit.session
                    unit.session.commit()
                    committed = True
                finally:
                    _unit_of_work.reset(token)
        except IntegrityError as error:
            domain_error = error_for_constraint(error)
            if domain_error is None:
                raise
            raise domain_error from error
        finally:
            # Outside of the transaction and its connection: callbacks may open transactions of their own.
            self._finish(unit, committed)

    async def fetch(self, queries: Sequence[Query], is_snapshot: bool = False) -> Fetched:
        """Return the rows of each query, on the event loop, in one message: see `Reader.fetch`."""
        if self._connection is None:
            return await self._reader.fetch(queries, is_snapshot)
        # Tests share the connection with their threads.
        await asyncio.to_thread(self._connection_lock.acquire)
        try:
            return await fetch_in_transaction(self._connection, queries)
        finally:
            self._connection_lock.release()

    @contextmanager
    def event_loop_transaction(
        self, write: bool, role: SessionRole = SYSTEM, *, record: Callable[..., None]
    ) -> Iterator[EventLoopSession]:
        """Open the transaction of `current_session()` on the event loop, in a greenlet of it.

        Args:
            write: As in `transaction`, without effect: no statement differs.
            role: The database role, until a statement changes it.
            record: Called with each row that is written.

        Raises:
            SessionNeeded: The block or the commit failed, for whatever reason, and is rolled back.
            DBAPIError: The connection ended during the commit, so whether it was is not known.
            RateLimited: The block raised it.
        """
        transaction = self._reader.begin() if self._connection is None else self._begin_in_savepoint()
        session = EventLoopSession(transaction, {_ROLE_KEY: role}, record)
        if role != SYSTEM:
            session.run_later(*role_query(role))
        unit = _UnitOfWork(cast("Session", session))
        token = _unit_of_work.set(unit)
        try:
            yield session
            session.commit()
        except Exception as error:
            # The thread would not count the request again, and so would not reject it.
            if transaction.may_be_committed or isinstance(error, RateLimited):
                raise
            raise SessionNeeded from error
        finally:
            _unit_of_work.reset(token)
            await_only(transaction.end())
        if unit.after_commit:
            await_only(asyncio.to_thread(_run_callbacks, unit.after_commit))

    def _begin_in_savepoint(self) -> TransactionInSavepoint:
        connection = cast("Connection", self._connection)
        reset = partial(set_role, role=SYSTEM)
        return TransactionInSavepoint(connection, self._connection_lock, forget_touched_rows, reset)

    @property
    def reading_connections(self) -> int:
        """The number of connections on which `fetch` runs queries now."""
        return self._reader.connections_in_use

    async def close_reader(self) -> None:
        """Close the connections of `fetch` on the running event loop."""
        await self._reader.close()

    def dispose(self) -> None:
        """Close all idle connections of threads."""
        self.engine.dispose()

    def _open_session(self, write: bool, role: SessionRole) -> Session:
        session_class = _RoleSession if write else _ReadOnlySession
        info = {_ROLE_KEY: role}
        # `expire_on_commit=False` keeps rows readable after the commit.
        if self._connection is not None:
            return session_class(
                self._connection,
                expire_on_commit=False,
                join_transaction_mode="create_savepoint",
                info=info,
            )
        return session_class(self.engine, expire_on_commit=False, info=info)

    def _hold_connection(self) -> AbstractContextManager[object]:
        """Return what surrounds a transaction. A subclass may wait in it before the transaction begins."""
        return nullcontext() if self._connection is None else self._lock_connection(self._connection)

    @contextmanager
    def _lock_connection(self, connection: Connection) -> Iterator[None]:
        """Hold the bound connection exclusively, and reset what a transaction has set on it.

        A `SET LOCAL` outlives a released savepoint; only the end of the outer transaction would undo it.
        """
        if not self._connection_lock.acquire(timeout=BOUND_CONNECTION_WAIT_SECONDS):
            raise RuntimeError(
                f"another thread still uses the only connection after {BOUND_CONNECTION_WAIT_SECONDS} s"
            )
        try:
            # First, because tests also write rows on the connection outside of these transactions.
            forget_touched_rows(connection)
            yield
            set_role(connection, SYSTEM)
        finally:
            self._connection_lock.release()

    def _finish(self, unit: _UnitOfWork, committed: bool) -> None:
        for callback in unit.separate_callbacks:
            # One transaction each, so that a failing callback does not undo the others.
            try:
                with self.transaction(write=True) as session:
                    callback(session)
            except Exception:
                logger.exception("callback in a separate transaction failed")
        _run_callbacks(unit.after_commit if committed else unit.after_rollback)


def _run_callbacks(callbacks: Iterable[Callable[[], object]]) -> None:
    for callback in callbacks:
        try:
            callback()
        except Exception:
            logger.exception("callback after a transaction failed")
