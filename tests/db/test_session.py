"""Test transactions: commit, rollback, callbacks after them, and locks."""

from __future__ import annotations

import logging
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.exc import OperationalError

from db.audit import insert_event
from db.engine import build_engine
from db.errors import EmailTaken, InUse, NotFound
from db.models import AuditEvent, BackgroundPreset, Brand, User
from db.queries.users import find_user_by_email
from db.rls.session_role import SYSTEM
from db.session import (
    Database,
    after_commit,
    after_rollback,
    as_system,
    current_role,
    current_session,
    grouped_inserts,
    rollback_and_continue,
    run_in_separate_transaction,
    savepoint,
)
from studio.infrastructure.idempotency import LEASE_DURATION
from tests.support import factories
from tests.support.concurrency import run_concurrently
from tests.support.factories import make_background_preset, make_brand, make_user
from tools.servers.processes import run_postgres

EVENT = {"actor_type": "anonymous", "outcome": "succeeded", "changes": [], "request_id": "request"}


def emails(database: Database) -> set[str]:
    with database.transaction(write=False) as reading:
        return set(reading.scalars(select(User.email)))


def test_a_transaction_commits_at_the_end_of_its_block(database: Database) -> None:
    with database.transaction(write=True):
        make_user(email="kept@example.com")
    assert "kept@example.com" in emails(database)


def test_an_exception_rolls_the_transaction_back(database: Database) -> None:
    with pytest.raises(NotFound), database.transaction(write=True):
        make_user(email="undone@example.com")
        raise NotFound()
    assert "undone@example.com" not in emails(database)


def test_rollback_and_continue_undoes_all_and_starts_an_empty_transaction(database: Database) -> None:
    calls: list[str] = []
    with database.transaction(write=True) as opened:
        make_user(email="undone@example.com")
        after_commit(lambda: calls.append("committed"))
        after_rollback(lambda: calls.append("rolled back"))
        rollback_and_continue()
        assert calls == ["rolled back"]
        assert opened.scalar(select(User.id).where(User.email == "undone@example.com")) is None
        make_user(email="later@example.com")
    assert calls == ["rolled back"]
    assert emails(database) & {"undone@example.com", "later@example.com"} == {"later@example.com"}


def test_a_session_exists_only_within_a_transaction(database: Database) -> None:
    with database.transaction(write=False) as opened:
        assert current_session() is opened
    for function in (
        current_session,
        lambda: after_commit(print),
        lambda: run_in_separate_transaction(print),
    ):
        with pytest.raises(RuntimeError, match="no running transaction"):
            function()


def test_transactions_do_not_nest(database: Database) -> None:
    with database.transaction(write=True):
        make_user(email="outer@example.com")
        with pytest.raises(RuntimeError, match="do not nest"), database.transaction(write=True):
            pass
    assert "outer@example.com" in emails(database)


def test_callbacks_run_only_after_their_outcome(database: Database) -> None:
    calls: list[str] = []
    with database.transaction(write=True):
        after_commit(lambda: calls.append("committed"))
        after_rollback(lambda: calls.append("never"))
        assert calls == []
    with pytest.raises(NotFound), database.transaction(write=True):
        after_commit(lambda: calls.append("never"))
        after_rollback(lambda: calls.append("rolled back"))
        raise NotFound()
    assert calls == ["committed", "rolled back"]


def test_rows_inserted_together_are_those_of_kept_savepoints_in_their_order(database: Database) -> None:
    def insert(action: str) -> None:
        insert_event({**EVENT, "action": action})

    def list_actions() -> list[str]:
        return list(current_session().scalars(select(AuditEvent.action).order_by(AuditEvent.id)))

    with database.transaction(write=True):
        with grouped_inserts():
            insert("first")
            with pytest.raises(NotFound), savepoint():
                insert("undone")
                raise NotFound()
            with savepoint():
                insert("second")
            assert list_actions() == []
        assert list_actions() == ["first", "second"]
        insert("third")
        assert list_actions() == ["first", "second", "third"]


def test_a_row_of_another_role_is_not_inserted_together_with_others(database: Database) -> None:
    role = factories.build_caller(make_user(), {}).to_session_role()
    with database.transaction(write=True, role=role), grouped_inserts(), as_system():
        insert_event({**EVENT, "action": "one"})
        assert current_session().scalar(select(func.count()).select_from(AuditEvent)) == 1


def test_an_undone_savepoint_drops_the_callbacks_of_its_block_only(database: Database) -> None:
    calls: list[str] = []
    with database.transaction(write=True):
        after_commit(lambda: calls.append("committed"))
        after_rollback(lambda: calls.append("never"))
        with pytest.raises(NotFound), savepoint():
            after_commit(lambda: calls.append("never"))
            after_rollback(lambda: calls.append("undone"))
            raise NotFound()
        assert calls == ["undone"]
        with savepoint():
            after_commit(lambda: calls.append("kept"))
    assert calls == ["undone", "committed", "kept"]


def test_an_undone_savepoint_ends_the_role_of_a_block_in_it(database: Database) -> None:
    role = factories.build_caller(make_user(), {}).to_session_role()
    with database.transaction(write=True, role=role):
        with pytest.raises(NotFound), savepoint(), as_system():
            raise NotFound()
        assert current_role() == role
        # The end of a block returns to the role that is recorded at its begin.
        with as_system():
            assert current_role() == SYSTEM
        assert current_role() == role


def test_policies_apply_to_the_rest_of_a_transaction_with_an_undone_savepoint(database: Database) -> None:
    owner = make_user()
    own, foreign = make_brand(owner=owner), make_brand(owner=make_user())
    role = factories.build_caller(owner, {}).to_session_role()
    with database.transaction(write=True, role=role) as writing:
        with pytest.raises(NotFound), savepoint(), as_system():
            assert set(writing.scalars(select(Brand.id))) == {own.id, foreign.id}
            raise NotFound()
        for _ in range(2):
            assert writing.scalars(select(Brand.id)).all() == [own.id]
            assert writing.execute(update(Brand).values(name="Changed").returning(Brand.id)).all() == [
                (own.id,)
            ]
            with as_system():
                assert set(writing.scalars(select(Brand.id))) == {own.id, foreign.id}


def test_a_callback_can_open_a_transaction(database: Database) -> None:
    seen: list[set[str]] = []
    with database.transaction(write=True):
        make_user(email="seen@example.com")
        after_commit(lambda: seen.append(emails(database)))
    assert "seen@example.com" in seen[0]


def test_a_failing_callback_is_logged_and_changes_nothing(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[str] = []
    with caplog.at_level(logging.ERROR), database.transaction(write=True):
        after_commit(lambda: 1 / 0)
        after_commit(lambda: calls.append("the next one"))
        run_in_separate_transaction(lambda _session: 1 / 0)
    assert calls == ["the next one"]
    assert len(caplog.records) == 2


@pytest.mark.parametrize("fails", [False, True])
def test_a_separate_transaction_is_committed_even_if_the_outer_one_fails(
    database: Database, fails: bool
) -> None:
    def work() -> None:
        with database.transaction(write=True):
            make_user(email="work@example.com")
            run_in_separate_transaction(lambda _session: make_user(email="record@example.com"))
            if fails:
                raise NotFound()

    if fails:
        with pytest.raises(NotFound):
            work()
    else:
        work()
    assert "record@example.com" in emails(database)
    assert ("work@example.com" in emails(database)) is not fails


@pytest.mark.parametrize("change", ["add", "modify", "delete", "update statement", "delete statement"])
def test_a_read_only_transaction_cannot_write(database: Database, change: str) -> None:
    brand_id = make_brand().id
    with (
        pytest.raises(RuntimeError, match="opened for reading"),
        database.transaction(write=False) as reading,
    ):
        brand = reading.get_one(Brand, brand_id)
        if change == "add":
            make_user()
        elif change == "modify":
            brand.name = "Changed"
        elif change == "delete":
            reading.delete(brand)
        elif change == "update statement":
            reading.execute(update(Brand).values(name="Changed"))
        else:
            reading.execute(delete(Brand))


def test_an_email_address_is_unique_in_any_letter_case(database: Database) -> None:
    make_user(email="Demo@Example.com")
    with pytest.raises(EmailTaken), database.transaction(write=True):
        make_user(email="demo@example.COM")
    with database.transaction(write=False):
        found = find_user_by_email(" DEMO@example.com")
        assert found is not None
        assert found.email == "Demo@Example.com"


def test_deleting_a_row_that_others_refer_to_raises_in_use(database: Database) -> None:
    preset_id = make_background_preset().id
    make_brand(default_background_preset_id=preset_id)
    with pytest.raises(InUse), database.transaction(write=True):
        current_session().execute(delete(BackgroundPreset).where(BackgroundPreset.id == preset_id))


def test_transactions_of_other_threads_see_and_commit_rows(database: Database) -> None:
    make_user(email="before@example.com")

    def request(number: int) -> set[str]:
        with database.transaction(write=True):
            make_user_in_request(number)
        return emails(database)

    for seen in run_concurrently(*[partial(request, number) for number in range(4)]):
        assert "before@example.com" in seen
    assert {f"request{number}@example.com" for number in range(4)} <= emails(database)


def make_user_in_request(number: int) -> None:
    current_session().add(User(email=f"request{number}@example.com", hashed_password="!"))


def test_rows_of_other_tests_are_rolled_back(database: Database) -> None:
    assert emails(database) == set()


def test_concurrent_writers_lose_no_update(committing_database: Database) -> None:
    with committing_database.transaction(write=True):
        user_id = make_user(rework_available=0).id

    def add_ten() -> None:
        for _ in range(10):
            with committing_database.transaction(write=True) as writing:
                user = writing.scalars(select(User).where(User.id == user_id).with_for_update()).one()
                time.sleep(0.001)
                user.rework_available += 1

    run_concurrently(*[add_ten] * 4)
    with committing_database.transaction(write=True) as writing:
        assert writing.scalar(select(User.rework_available).where(User.id == user_id)) == 40
        writing.execute(delete(User).where(User.id == user_id))


def test_a_reader_does_not_wait_for_a_writer(committing_database: Database) -> None:
    counted: list[int | None] = []

    def read() -> None:
        with committing_database.transaction(write=False) as reading:
            counted.append(reading.scalar(select(func.count()).select_from(User)))

    with pytest.raises(NotFound), committing_database.transaction(write=True):
        make_user()
        reader = threading.Thread(target=read)
        reader.start()
        reader.join(timeout=5)
        assert counted == [0]
        raise NotFound()


def test_plain_postgresql_urls_use_psycopg_3() -> None:
    assert build_engine("postgresql://user@localhost/database").url.drivername == "postgresql+psycopg"


def test_the_lazy_cursor_description_is_complete(database_url: str) -> None:
    database = Database(build_engine(database_url, pool_size=1))
    with database.transaction(write=False) as reading:
        cursor = reading.connection().connection.cursor()
        cursor.execute("SELECT 1 AS one, 'b' AS two")
        assert [column.name for column in cursor.description] == ["one", "two"]
        assert (len(cursor.description), cursor.description[-1].type_display) == (2, "text")
        cursor.execute("SET LOCAL jit = off")
        assert cursor.description is None
        # SQLAlchemy caches the names with the statement, so the second time takes another path.
        for _ in range(2):
            row = reading.execute(text("SELECT 1 AS one, 'b' AS two")).one()
            assert (row.two, row._fields) == ("b", ("one", "two"))
    database.dispose()


def test_a_lost_machine_is_detected_before_its_leases_expire(tmp_path: Path) -> None:
    names = [f"tcp_keepalives_{name}" for name in ("idle", "interval", "count")]
    # The settings are of connections to another machine. A Unix socket has none.
    with run_postgres(tmp_path / "postgresql") as cluster:
        engine = build_engine(cluster.url, pool_size=1)
        with engine.connect() as connection:
            idle, interval, count = (int(connection.scalar(text(f"SHOW {name}")) or 0) for name in names)
            setting = text("SELECT setting FROM pg_settings WHERE name = 'tcp_user_timeout'")
            unanswered = connection.scalar(setting)
        engine.dispose()
    assert 0 < idle + interval * count <= LEASE_DURATION.total_seconds()
    assert 0 < int(unanswered or 0) <= 1000 * LEASE_DURATION.total_seconds()


def test_a_closed_idle_connection_is_replaced(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    database, other = (Database(build_engine(database_url, pool_size=1)) for _ in range(2))
    backend = text("SELECT pg_backend_pid()")
    with database.transaction(write=False) as reading:
        before = reading.scalar(backend)
    with other.transaction(write=False) as reading:
        reading.execute(text("RESET ROLE"))
        assert reading.scalar(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": before})
    monkeypatch.setattr("db.engine.PING_AFTER_IDLE_SECONDS", 0)
    with database.transaction(write=False) as reading:
        assert reading.scalar(backend) != before
    for opened in (database, other):
        opened.dispose()


def test_a_transaction_cannot_begin_on_a_connection_that_was_just_closed(database_url: str) -> None:
    database, other = (Database(build_engine(database_url, pool_size=1)) for _ in range(2))
    with database.transaction(write=False) as reading:
        before = reading.scalar(text("SELECT pg_backend_pid()"))
    with other.transaction(write=False) as reading:
        reading.execute(text("RESET ROLE"))
        assert reading.scalar(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": before})
    # Workers and the retry of a request expect this class.
    with pytest.raises(OperationalError) as caught, database.transaction(write=False) as reading:
        reading.scalar(text("SELECT 1"))
    assert caught.value.connection_invalidated
    with database.transaction(write=False) as reading:
        assert reading.scalar(text("SELECT pg_backend_pid()")) != before
    for opened in (database, other):
        opened.dispose()
