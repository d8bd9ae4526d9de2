"""One transaction per request or job: returning commits, raising rolls back.

What goes out after a commit (`after_commit`) and what must survive a rollback (`record_apart`) is said here
too. Knows no model and no HTTP.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Select, event
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import ORMExecuteState, Session, SessionTransaction

from db.errors import (
    AlreadyMember,
    DomainError,
    EmailTaken,
    InUse,
    NotFound,
    SkuTaken,
    SlugTaken,
    SubscriptionExists,
)
from db.rls.session_role import SYSTEM, SYSTEM_ROLE, SessionRole, set_role

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

BOUND_CONNECTION_WAIT_SECONDS = 30


@dataclass
class _UnitOfWork:
    """The running transaction and what is to happen when it has ended."""

    session: Session
    after_commit: list[Callable[[], object]] = field(default_factory=list)
    after_rollback: list[Callable[[], object]] = field(default_factory=list)
    separate_callbacks: list[Callable[[Session], object]] = field(default_factory=list)


_unit_of_work: ContextVar[_UnitOfWork | None] = ContextVar("unit", default=None)


def _current_unit_of_work() -> _UnitOfWork:
    unit = _unit_of_work.get()
    if unit is None:
        raise RuntimeError("there is no running transaction; open one with Database.transaction()")
    return unit


def current_session() -> Session:
    """The session of the running transaction; RuntimeError outside of one."""
    return _current_unit_of_work().session


def current_write_connection() -> Connection:
    """The connection of the running transaction, to write past its session.

    RuntimeError in a transaction that was opened for reading.
    """
    opened = current_session()
    if isinstance(opened, _ReadOnlySession):
        raise RuntimeError(_READ_ONLY_MESSAGE)
    return opened.connection()


def is_in_transaction() -> bool:
    """Whether there is a running transaction."""
    return _unit_of_work.get() is not None


def after_commit(callback: Callable[[], object]) -> None:
    """Call `callback` once the running transaction is committed; a rollback drops it.

    It runs outside of any transaction. Its failure is logged and changes nothing: the row is the queue, so a
    wake-up that got lost loses no work.
    """
    _current_unit_of_work().after_commit.append(callback)


def after_rollback(callback: Callable[[], object]) -> None:
    """Call `callback` once the running transaction is rolled back, to undo what the database cannot."""
    _current_unit_of_work().after_rollback.append(callback)


def rollback_and_continue() -> None:
    """Roll back all that the running transaction has done; it goes on empty, to read and to answer.

    What was to happen after its commit is dropped.
    """
    unit = _current_unit_of_work()
    unit.session.rollback()
    unit.after_commit.clear()
    callbacks, unit.after_rollback = unit.after_rollback, []
    _run_callbacks(callbacks)


def run_in_separate_transaction(callback: Callable[[Session], object]) -> None:
    """Call `callback(session)` in a short transaction of its own when the running one has ended either way.

    It waits for the end, because SQLite has one writer: a second transaction inside the first would wait for
    ever. Its failure is logged and does not replace the outcome of the request.
    """
    _current_unit_of_work().separate_callbacks.append(callback)


def switch_role(role: SessionRole) -> None:
    """Let the running transaction go on in this name until it ends: its last flush counts too."""
    opened = current_session()
    opened.flush()
    opened.info[_ROLE_KEY] = role
    set_role(opened.connection(), role)


def record_role(role: SessionRole) -> None:
    """Note that a statement of the running transaction has just let it go on in this name."""
    current_session().info[_ROLE_KEY] = role


def current_role() -> SessionRole:
    """In whose name the running transaction works."""
    actor: SessionRole = current_session().info[_ROLE_KEY]
    return actor


@contextmanager
def as_system() -> Iterator[None]:
    """Let the running transaction keep the house's own books within the block, whoever its caller is.

    A failure ends the transaction, as any other does.
    """
    actor = current_role()
    switch_role(SYSTEM)
    yield
    switch_role(actor)


def query_as_system(query: Select[Value]) -> list[Value]:
    """The values that a question finds among everybody's rows, for a caller who may know no more than them.

    Values, because rows could be read on and changed.
    """
    with as_system():
        return list(current_session().scalars(query))


def _set_system_role(connection: Any, _record: object) -> None:
    # For good, so that neither jobs nor requests pay for a statement of their own. The login sees nothing.
    connection.autocommit = True
    connection.execute(f"SET ROLE {SYSTEM_ROLE}")
    connection.autocommit = False


def _error_for_constraint(error: IntegrityError) -> DomainError | None:
    """The business meaning of a violated constraint, or None when it is a defect of ours."""
    told = str(getattr(getattr(error.orig, "diag", None), "constraint_name", None) or error.orig)
    if "FOREIGN KEY" in told or told.startswith("fk_"):
        deleting = (error.statement or "").lstrip().upper().startswith("DELETE")
        # An insert or update fails only when a row that was there a moment ago has been deleted meanwhile.
        return InUse() if deleting else NotFound()
    for word, refusal in _CONSTRAINT_ERRORS.items():
        if word in told:
            return refusal()
    return None


# A word of the violated index: SQLite names its columns, PostgreSQL the index, and ours are named by columns.
_CONSTRAINT_ERRORS: dict[str, type[DomainError]] = {
    "subscriptions": SubscriptionExists,
    "user_id": AlreadyMember,
    "slug": SlugTaken,
    "sku": SkuTaken,
    "email": EmailTaken,
}


_ROLE_KEY = "actor"
"""Where a session keeps in whose name it works."""


class _RoleSession(Session):
    """A session whose transactions begin in the name of its actor, the one after a rollback too."""


def _set_role_on_begin(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    actor = session.info[_ROLE_KEY]
    # Connections are the system's already.
    if actor != SYSTEM and not transaction.nested:
        set_role(connection, actor)


event.listen(_RoleSession, "after_begin", _set_role_on_begin)


class _ReadOnlySession(_RoleSession):
    """The session of a transaction that was opened for reading."""


_READ_ONLY_MESSAGE = "a transaction that was opened for reading cannot write"


def _reject_flush(session: Session, *_: object) -> None:
    if session.new or session.deleted or any(session.is_modified(row) for row in session.dirty):
        raise RuntimeError(_READ_ONLY_MESSAGE)


def _reject_statement(state: ORMExecuteState) -> None:
    if state.is_insert or state.is_update or state.is_delete:
        raise RuntimeError(_READ_ONLY_MESSAGE)


event.listen(_ReadOnlySession, "before_flush", _reject_flush)
event.listen(_ReadOnlySession, "do_orm_execute", _reject_statement)


class Database:
    """Where transactions come from. One per process; share it among threads.

    The engine must not have been used before: on PostgreSQL its connections become the system's when they
    are made.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        if engine.dialect.name == "postgresql":
            event.listen(engine, "connect", _set_system_role)
        self._reading_engine = engine.execution_options(write=False)
        self._writing_engine = engine.execution_options(write=True)
        self._connection: Connection | None = None
        self._connection_lock = threading.Lock()

    @classmethod
    def from_connection(cls, connection: Connection) -> Database:
        """A database whose transactions are savepoints on one connection: rolling that back undoes them all.

        For tests and tools. Threads take turns; a transaction that waits 30 s for its turn raises
        RuntimeError.
        """
        database = cls(connection.engine)
        database._connection = connection
        set_role(connection, SYSTEM)
        return database

    @contextmanager
    def transaction(self, write: bool, role: SessionRole = SYSTEM) -> Iterator[Session]:
        """Open the transaction that `session()` gives: returning commits, raising rolls back.

        It works in the name of `actor` until `act_as`. Raises RuntimeError inside another one. A violated
        constraint that has a business meaning leaves as the `Refused` for it (`SlugTaken`, `InUse`, ...).
        """
        if _unit_of_work.get() is not None:
            raise RuntimeError("transactions do not nest; the running one covers the whole request")
        unit = _UnitOfWork(self._open_session(write, role))
        committed = False
        try:
            with self._exclusive_connection(), unit.session:
                token = _unit_of_work.set(unit)
                try:
                    yield unit.session
                    unit.session.commit()
                    committed = True
                finally:
                    _unit_of_work.reset(token)
        except IntegrityError as error:
            refusal = _error_for_constraint(error)
            if refusal is None:
                raise
            raise refusal from error
        finally:
            self._finish(unit, committed)

    def dispose(self) -> None:
        """Close all idle connections."""
        self.engine.dispose()

    def _open_session(self, write: bool, role: SessionRole) -> Session:
        make = _RoleSession if write else _ReadOnlySession
        info = {_ROLE_KEY: role}
        if self._connection is not None:
            return make(
                self._connection,
                expire_on_commit=False,
                join_transaction_mode="create_savepoint",
                info=info,
            )
        engine = self._writing_engine if write else self._reading_engine
        return make(engine, expire_on_commit=False, info=info)

    def _exclusive_connection(self) -> AbstractContextManager[object]:
        return nullcontext() if self._connection is None else self._lock_connection(self._connection)

    @contextmanager
    def _lock_connection(self, connection: Connection) -> Iterator[None]:
        """Have a bound connection alone, and give it back as it was: what is local to a transaction outlives
        its savepoints."""
        if not self._connection_lock.acquire(timeout=BOUND_CONNECTION_WAIT_SECONDS):
            raise RuntimeError("another thread kept the one connection of this database too long")
        try:
            yield
            set_role(connection, SYSTEM)
        finally:
            self._connection_lock.release()

    def _finish(self, unit: _UnitOfWork, committed: bool) -> None:
        for record in unit.separate_callbacks:
            try:
                with self.transaction(write=True) as session:
                    record(session)
            except Exception:
                logger.exception("a record that was to be kept apart from its transaction failed")
        _run_callbacks(unit.after_commit if committed else unit.after_rollback)


def _run_callbacks(callbacks: Iterable[Callable[[], object]]) -> None:
    for callback in callbacks:
        try:
            callback()
        except Exception:
            logger.exception("what was to happen after a transaction failed")
