"""A transaction moves `updated_at` of a parent once, however many savepoints it has."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from uuid import UUID

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from db.change_feed.queries import apply_pending_touches
from db.change_feed.touched_rows import MAX_LENGTH, TOUCHED_TABLES, get_setting_name
from db.engine import build_engine
from db.models import Change, Look, PendingTouch, Shooting, Shot
from db.session import Database
from tests.support import factories as make


@pytest.fixture
def database(own_database_url: str) -> Iterator[Database]:
    """Yield a database with real commits whose transactions all have the same connection."""
    database = Database(build_engine(own_database_url, pool_size=1))
    yield database
    database.dispose()


@pytest.fixture
def shots(database: Database) -> list[Shot]:
    """Return five shots of one look."""
    with database.transaction(write=True):
        look = make.make_look(make.make_shooting())
        return [make.make_shot(look) for _ in range(5)]


def set_status(session: Session, shot: Shot, status: str) -> None:
    """Change a shot in a savepoint, as an item of a batch does."""
    with session.begin_nested():
        session.execute(update(Shot).where(Shot.id == shot.id).values(status=status))


def list_updates(session: Session, row_id: UUID) -> list[datetime]:
    """Return when a row was updated, according to the feed."""
    updates = select(Change.changed_at).where(Change.resource_id == row_id, Change.change == "updated")
    return list(session.scalars(updates.order_by(Change.sequence)))


def count_updates(database: Database, shot: Shot) -> tuple[int, int]:
    """Return how many updates of the look and the shooting of a shot are in the feed."""
    with database.transaction(write=False) as session:
        return len(list_updates(session, shot.look_id)), len(list_updates(session, shot.shooting_id))


def get_times(database: Database, shot: Shot) -> list[datetime]:
    """Return `updated_at` of the look and the shooting of a shot."""
    with database.transaction(write=False) as session:
        return [session.get_one(Look, shot.look_id).updated_at,
                session.get_one(Shooting, shot.shooting_id).updated_at]  # fmt: skip


def read_setting(session: Session, table: str) -> str:
    return session.scalar(select(func.current_setting(get_setting_name(table), True))) or ""


def test_savepoints_move_each_parent_once(database: Database, shots: list[Shot]) -> None:
    looks, shootings = count_updates(database, shots[0])
    before = get_times(database, shots[0])
    with database.transaction(write=True) as session:
        for shot in shots:
            set_status(session, shot, "approved")
    assert count_updates(database, shots[0]) == (looks + 1, shootings + 1)
    assert all(now > then for now, then in zip(get_times(database, shots[0]), before, strict=True))


def test_a_rollback_to_a_savepoint_lets_the_next_one_move_the_parents(
    database: Database, shots: list[Shot]
) -> None:
    looks, shootings = count_updates(database, shots[0])
    before = get_times(database, shots[0])
    with database.transaction(write=True) as session:
        undone = session.begin_nested()
        set_status(session, shots[0], "approved")
        assert str(shots[0].look_id) in read_setting(session, "looks")
        undone.rollback()
        assert read_setting(session, "looks") == ""
        set_status(session, shots[1], "approved")
        # The setting outlives the rollback of a later savepoint.
        undone = session.begin_nested()
        set_status(session, shots[2], "approved")
        undone.rollback()
        set_status(session, shots[3], "approved")
    assert count_updates(database, shots[0]) == (looks + 1, shootings + 1)
    assert all(now > then for now, then in zip(get_times(database, shots[0]), before, strict=True))
    with database.transaction(write=False) as session:
        statuses = session.scalars(select(Shot.status).order_by(Shot.id)).all()
    assert statuses == [shots[0].status, "approved", shots[2].status, "approved", shots[4].status]


@pytest.mark.parametrize("commits", [True, False])
def test_the_next_transaction_of_a_connection_moves_the_parents_again(
    database: Database, shots: list[Shot], commits: bool
) -> None:
    looks, shootings = count_updates(database, shots[0])
    backends = set()
    for status in ("generating", "approved"):
        with database.transaction(write=True) as session:
            backends.add(session.scalar(select(func.pg_backend_pid())))
            assert [read_setting(session, table) for table in TOUCHED_TABLES] == [""] * 4
            set_status(session, shots[0], status)
            if status == "generating" and not commits:
                session.rollback()
    assert len(backends) == 1
    moves = 2 if commits else 1
    assert count_updates(database, shots[0]) == (looks + moves, shootings + moves)


@pytest.mark.parametrize(("is_full", "moves"), [(False, 1), (True, 2)])
def test_beyond_the_maximum_length_each_savepoint_moves_the_parent(
    database: Database, shots: list[Shot], is_full: bool, moves: int
) -> None:
    looks, shootings = count_updates(database, shots[0])
    room = len(f"{shots[0].look_id},") - is_full
    with database.transaction(write=True) as session:
        full = "-" * (MAX_LENGTH - room)
        session.execute(select(func.set_config(get_setting_name("looks"), full, True)))
        for shot in shots[:2]:
            set_status(session, shot, "approved")
        assert len(read_setting(session, "looks")) == MAX_LENGTH - room * is_full
    # The shooting has a setting of its own.
    assert count_updates(database, shots[0]) == (looks + moves, shootings + 1)


def test_all_rows_of_one_statement_are_remembered(database: Database, shots: list[Shot]) -> None:
    with database.transaction(write=True):
        other = make.make_shot()
    touched = text("SELECT sartiq_touch_looks(:ids)")
    ids = [shots[0].look_id, other.look_id]
    with database.transaction(write=True) as session:
        before = [len(list_updates(session, row_id)) for row_id in ids]
        for chosen in (ids[:1], ids, ids[1:], ids[::-1]):
            with session.begin_nested():
                session.execute(touched, {"ids": chosen})
        assert [len(list_updates(session, row_id)) for row_id in ids] == [count + 1 for count in before]


def test_a_locked_parent_is_left_to_the_periodic_task_once_and_not_waited_for(
    database: Database, shots: list[Shot], own_database_url: str
) -> None:
    looks, shootings = count_updates(database, shots[0])
    locking = Database(build_engine(own_database_url, pool_size=1))
    with locking.engine.connect() as other:
        locked = select(Shooting.id).where(Shooting.id == shots[0].shooting_id).with_for_update()
        assert other.scalar(locked) == shots[0].shooting_id
        with database.transaction(write=True) as session:
            # A look that moved twice would wait for the shooting: its foreign key is checked again.
            session.execute(text("SET LOCAL lock_timeout = 1000"))
            undone = session.begin_nested()
            set_status(session, shots[0], "approved")
            undone.rollback()
            for shot in shots:
                set_status(session, shot, "approved")
            # The entry of the savepoint that was undone is gone, and that of the next one is there.
            assert session.scalars(select(PendingTouch.row_id)).all() == [shots[0].shooting_id]
    locking.dispose()
    assert count_updates(database, shots[0]) == (looks + 1, shootings)
    apply_pending_touches(database)
    assert count_updates(database, shots[0]) == (looks + 1, shootings + 1)
