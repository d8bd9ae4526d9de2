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

from db.actors import SYSTEM, SYSTEM_ROLE, Actor, become
from db.errors import (
    AlreadyMember,
    EmailTaken,
    InUse,
    NotFound,
    Refused,
    SkuTaken,
    SlugTaken,
    SubscriptionExists,
)

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

BOUND_LOCK_SECONDS = 30


@dataclass
class _Unit:
    """The running transaction and what is to happen when it has ended."""

    session: Session
    after_commit: list[Callable[[], object]] = field(default_factory=list)
    after_rollback: list[Callable[[], object]] = field(default_factory=list)
    apart: list[Callable[[Session], object]] = field(default_factory=list)


_unit: ContextVar[_Unit | None] = ContextVar("unit", default=None)


def _current_unit() -> _Unit:
    unit = _unit.get()
    if unit is None:
        raise RuntimeError("there is no running transaction; open one with Database.transaction()")
    return unit


def session() -> Session:
    """The session of the running transaction; RuntimeError outside of one."""
    return _current_unit().session


def writing_connection() -> Connection:
    """The connection of the running transaction, to write past its session.

    RuntimeError in a transaction that was opened for reading.
    """
    opened = session()
    if isinstance(opened, _ReadingSession):
        raise RuntimeError(_READING)
    return opened.connection()


def is_in_transaction() -> bool:
    """Whether there is a running transaction."""
    return _unit.get() is not None


def after_commit(callback: Callable[[], object]) -> None:
    """Call `callback` once the running transaction is committed; a rollback drops it.

    It runs outside of any transaction. Its failure is logged and changes nothing: the row is the queue, so a
    wake-up that got lost loses no work.
    """
    _current_unit().after_commit.append(callback)


def after_rollback(callback: Callable[[], object]) -> None:
    """Call `callback` once the running transaction is rolled back, to undo what the database cannot."""
    _current_unit().after_rollback.append(callback)


def undo() -> None:
    """Roll back all that the running transaction has done; it goes on empty, to read and to answer.

    What was to happen after its commit is dropped.
    """
    unit = _current_unit()
    unit.session.rollback()
    unit.after_commit.clear()
    callbacks, unit.after_rollback = unit.after_rollback, []
    _call_all(callbacks)


def record_apart(callback: Callable[[Session], object]) -> None:
    """Call `callback(session)` in a short transaction of its own when the running one has ended either way.

    It waits for the end, because SQLite has one writer: a second transaction inside the first would wait for
    ever. Its failure is logged and does not replace the outcome of the request.
    """
    _current_unit().apart.append(callback)


def act_as(actor: Actor) -> None:
    """Let the running transaction go on in this name until it ends: its last flush counts too."""
    opened = session()
    opened.flush()
    opened.info[_ACTOR] = actor
    become(opened.connection(), actor)


def goes_on_as(actor: Actor) -> None:
    """Note that a statement of the running transaction has just let it go on in this name."""
    session().info[_ACTOR] = actor


def current_actor() -> Actor:
    """In whose name the running transaction works."""
    actor: Actor = session().info[_ACTOR]
    return actor


@contextmanager
def as_system() -> Iterator[None]:
    """Let the running transaction keep the house's own books within the block, whoever its caller is.

    A failure ends the transaction, as any other does.
    """
    actor = current_actor()
    act_as(SYSTEM)
    yield
    act_as(actor)


def ask_as_system(question: Select[Value]) -> list[Value]:
    """The values that a question finds among everybody's rows, for a caller who may know no more than them.

    Values, because rows could be read on and changed.
    """
    with as_system():
        return list(session().scalars(question))


def _work_as_system(connection: Any, _record: object) -> None:
    # For good, so that neither jobs nor requests pay for a statement of their own. The login sees nothing.
    connection.autocommit = True
    connection.execute(f"SET ROLE {SYSTEM_ROLE}")
    connection.autocommit = False


def _refusal_for(error: IntegrityError) -> Refused | None:
    """The business meaning of a violated constraint, or None when it is a defect of ours."""
    told = str(getattr(getattr(error.orig, "diag", None), "constraint_name", None) or error.orig)
    if "FOREIGN KEY" in told or told.startswith("fk_"):
        deleting = (error.statement or "").lstrip().upper().startswith("DELETE")
        # An insert or update fails only when a row that was there a moment ago has been deleted meanwhile.
        return InUse() if deleting else NotFound()
    for word, refusal in _REFUSALS.items():
        if word in told:
            return refusal()
    return None


# A word of the violated index: SQLite names its columns, PostgreSQL the index, and ours are named by columns.
_REFUSALS: dict[str, type[Refused]] = {
    "subscriptions": SubscriptionExists,
    "user_id": AlreadyMember,
    "slug": SlugTaken,
    "sku": SkuTaken,
    "email": EmailTaken,
}


_ACTOR = "actor"
"""Where a session keeps in whose name it works."""


class _ActingSession(Session):
    """A session whose transactions begin in the name of its actor, the one after a rollback too."""


def _begin_as_actor(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    actor = session.info[_ACTOR]
    # Connections are the system's already.
    if actor != SYSTEM and not transaction.nested:
        become(connection, actor)


event.listen(_ActingSession, "after_begin", _begin_as_actor)


class _ReadingSession(_ActingSession):
    """The session of a transaction that was opened for reading."""


_READING = "a transaction that was opened for reading cannot write"


def _refuse_flush(session: Session, *_: object) -> None:
    if session.new or session.deleted or any(session.is_modified(row) for row in session.dirty):
        raise RuntimeError(_READING)


def _refuse_statement(state: ORMExecuteState) -> None:
    if state.is_insert or state.is_update or state.is_delete:
        raise RuntimeError(_READING)


event.listen(_ReadingSession, "before_flush", _refuse_flush)
event.listen(_ReadingSession, "do_orm_execute", _refuse_statement)


class Database:
    """Where transactions come from. One per process; share it among threads.

    The engine must not have been used before: on PostgreSQL its connections become the system's when they
    are made.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        if engine.dialect.name == "postgresql":
            event.listen(engine, "connect", _work_as_system)
        self._reading_engine = engine.execution_options(write=False)
        self._writing_engine = engine.execution_options(write=True)
        self._connection: Connection | None = None
        self._turn = threading.Lock()

    @classmethod
    def bound(cls, connection: Connection) -> Database:
        """A database whose transactions are savepoints on one connection: rolling that back undoes them all.

        For tests and tools. Threads take turns; a transaction that waits 30 s for its turn raises
        RuntimeError.
        """
        database = cls(connection.engine)
        database._connection = connection
        become(connection, SYSTEM)
        return database

    @contextmanager
    def transaction(self, write: bool, actor: Actor = SYSTEM) -> Iterator[Session]:
        """Open the transaction that `session()` gives: returning commits, raising rolls back.

        It works in the name of `actor` until `act_as`. Raises RuntimeError inside another one. A violated
        constraint that has a business meaning leaves as the `Refused` for it (`SlugTaken`, `InUse`, ...).
        """
        if _unit.get() is not None:
            raise RuntimeError("transactions do not nest; the running one covers the whole request")
        unit = _Unit(self._open_session(write, actor))
        committed = False
        try:
            with self._alone(), unit.session:
                token = _unit.set(unit)
                try:
                    yield unit.session
                    unit.session.commit()
                    committed = True
                finally:
                    _unit.reset(token)
        except IntegrityError as error:
            refusal = _refusal_for(error)
            if refusal is None:
                raise
            raise refusal from error
        finally:
            self._finish(unit, committed)

    def dispose(self) -> None:
        """Close all idle connections."""
        self.engine.dispose()

    def _open_session(self, write: bool, actor: Actor) -> Session:
        make = _ActingSession if write else _ReadingSession
        info = {_ACTOR: actor}
        if self._connection is not None:
            return make(
                self._connection,
                expire_on_commit=False,
                join_transaction_mode="create_savepoint",
                info=info,
            )
        engine = self._writing_engine if write else self._reading_engine
        return make(engine, expire_on_commit=False, info=info)

    def _alone(self) -> AbstractContextManager[object]:
        return nullcontext() if self._connection is None else self._hold(self._connection)

    @contextmanager
    def _hold(self, connection: Connection) -> Iterator[None]:
        """Have a bound connection alone, and give it back as it was: what is local to a transaction outlives
        its savepoints."""
        if not self._turn.acquire(timeout=BOUND_LOCK_SECONDS):
            raise RuntimeError("another thread kept the one connection of this database too long")
        try:
            yield
            become(connection, SYSTEM)
        finally:
            self._turn.release()

    def _finish(self, unit: _Unit, committed: bool) -> None:
        for record in unit.apart:
            try:
                with self.transaction(write=True) as session:
                    record(session)
            except Exception:
                logger.exception("a record that was to be kept apart from its transaction failed")
        _call_all(unit.after_commit if committed else unit.after_rollback)


def _call_all(callbacks: Iterable[Callable[[], object]]) -> None:
    for callback in callbacks:
        try:
            callback()
        except Exception:
            logger.exception("what was to happen after a transaction failed")
