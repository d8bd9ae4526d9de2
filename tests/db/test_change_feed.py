"""The triggers of the change feed: what they record, and which `updated_at` they move."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Executable, delete, func, select, text, update
from sqlalchemy.orm import Session

from db.base import Identified, Owned, new_id, utc_now
from db.change_feed.queries import (
    DELETION_AGE,
    apply_pending_touches,
    delete_old_changes,
)
from db.engine import build_engine
from db.models import (
    Brand,
    Change,
    Export,
    Generation,
    Look,
    PendingTouch,
    Prediction,
    Product,
    Shooting,
    Shot,
    Style,
    User,
)
from db.session import Database
from studio.exports.queue import EXPORTS
from studio.generations.worker.queue import GENERATIONS
from studio.jobs.maintenance import MAINTENANCE_TASKS
from studio.queue.row_queue import Lease, RowQueue
from tests.support import factories as make

NOT_IN_THE_FEED = {
    "destinations": "settings that members may not read",
    "media_resources": "images are parts of other resources",
    "prediction_publications": "public files of a prediction that the job engine makes",
    "product_image_cutouts": "a part of the product image that workers make",
    "uploads": "temporary files of one account",
    "webhook_endpoints": "settings that viewers may not read",
}

Entry = tuple[str, Any, str]


def last_sequence(session: Session) -> int:
    session.flush()
    return session.scalar(select(func.max(Change.sequence))) or 0


def entries(session: Session, after: int = 0) -> list[Entry]:
    """Return type, id and change of the entries after a sequence."""
    session.flush()
    query = select(Change.resource_type, Change.resource_id, Change.change).where(Change.sequence > after)
    return [tuple(row) for row in session.execute(query.order_by(Change.sequence))]


def updated_at(session: Session, row: Identified) -> Any:
    session.flush()
    model = type(row)
    return session.scalar(select(model.updated_at).where(model.id == row.id))


def feed_tables(connection: Connection) -> set[str]:
    """Return the tables that have feed triggers for all three statements."""
    names = connection.scalars(text("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal")).all()
    of_verb = [
        {name.removesuffix(f"_feed_{verb}") for name in names if name.endswith(f"_feed_{verb}")}
        for verb in ("insert", "update", "delete")
    ]
    assert of_verb[0] == of_verb[1] == of_verb[2]
    return of_verb[0]


def test_every_resource_of_a_tenant_is_in_the_feed_or_has_a_reason(session: Session) -> None:
    tables = {
        mapper.class_.__tablename__ for mapper in Owned.registry.mappers if issubclass(mapper.class_, Owned)
    }
    assert feed_tables(session.connection()) | NOT_IN_THE_FEED.keys() == tables


def test_rows_are_recorded_whatever_statement_writes_them(session: Session) -> None:
    organization = make.make_organization()
    products = [make.make_product(organization=organization) for _ in range(3)]
    ids = [product.id for product in products]
    assert entries(session)[-3:] == [("product", row_id, "created") for row_id in ids]
    start = last_sequence(session)
    session.execute(update(Product).where(Product.id.in_(ids)).values(name="renamed"))
    assert sorted(entries(session, start)) == sorted(("product", row_id, "updated") for row_id in ids)
    start = last_sequence(session)
    session.execute(delete(Product).where(Product.id.in_(ids)))
    assert sorted(entries(session, start)) == sorted(("product", row_id, "deleted") for row_id in ids)
    rows = session.execute(select(Change.organization_id, Change.owner_id, Change.changed_at)).all()
    assert {row.organization_id for row in rows} == {organization.id}
    assert {row.owner_id for row in rows} == {None}
    assert all(abs(row.changed_at - utc_now()) < timedelta(minutes=1) for row in rows)


def test_cascades_of_foreign_keys_are_recorded(session: Session) -> None:
    shooting = make.make_shooting()
    look = make.make_look(shooting)
    prediction = make.make_prediction(make.make_generation(make.make_shot(look)))
    export = make.make_export(shooting)
    start = last_sequence(session)
    session.execute(delete(Shooting).where(Shooting.id == shooting.id))
    deleted = {(kind, row_id) for kind, row_id, change in entries(session, start) if change == "deleted"}
    assert deleted == {
        ("shooting", shooting.id),
        ("look", look.id),
        ("shot", prediction.shot_id),
        ("generation", prediction.generation_id),
        ("prediction", prediction.id),
        ("export", export.id),
    }


def test_a_reference_that_a_foreign_key_clears_is_an_update(database: Database) -> None:
    with database.transaction(write=True) as session:
        brand = make.make_brand()
        owner = {"owner_id": brand.owner_id}
        product = make.make_product(**owner, brand_id=brand.id)
        shooting = make.make_shooting(**owner, brand_id=brand.id)
        reviewer = make.make_user()
        prediction = make.make_prediction()
        prediction.reviewed_by = reviewer.id
        start, before = last_sequence(session), updated_at(session, product)
    with database.transaction(write=True) as session:
        session.execute(delete(Brand).where(Brand.id == brand.id))
        session.execute(delete(User).where(User.id == reviewer.id))
        assert updated_at(session, product) > before
        assert set(entries(session, start)) == {
            ("brand", brand.id, "deleted"),
            ("product", product.id, "updated"),
            ("shooting", shooting.id, "updated"),
            ("prediction", prediction.id, "updated"),
            ("generation", prediction.generation_id, "updated"),
        }


def test_an_account_that_a_process_of_the_release_before_deletes_leaves_no_name_in_reviews(
    database: Database,
) -> None:
    with database.transaction(write=True) as session:
        reviewer = make.make_user()
        prediction = make.make_prediction(
            reviewed_by=reviewer.id, reviewed_by_name="Ada Nord", reviewed_at=utc_now()
        )
        session.execute(delete(User).where(User.id == reviewer.id))
        session.expire_all()
        kept = session.get_one(Prediction, prediction.id)
        assert (kept.reviewed_by, kept.reviewed_by_name) == (None, None)


def test_a_move_between_tenants_is_a_deletion_and_a_creation(session: Session) -> None:
    first, second = make.make_organization(), make.make_organization()
    product = make.make_product(organization=first)
    for organization, owner_id in (
        (second, product.owner_id),
        (None, product.owner_id),
        (None, second.owner_id),
        (second, first.owner_id),
    ):
        start = last_sequence(session)
        # Within the same time: a move is a change even if `updated_at` stays.
        session.execute(
            update(Product)
            .where(Product.id == product.id)
            .values(
                organization_id=organization and organization.id,
                owner_id=owner_id,
                updated_at=Product.updated_at,
            )
        )
        query = select(Change.change, Change.organization_id, Change.owner_id)
        moves = session.execute(query.where(Change.sequence > start).order_by(Change.sequence)).all()
        assert [move.change for move in moves] == ["deleted", "created"]
        assert tuple(moves[1][1:]) == ((organization.id, None) if organization else (None, owner_id))
    start = last_sequence(session)
    # Another owner in the same organization is no move.
    product = session.get_one(Product, product.id, populate_existing=True)
    product.owner_id = second.owner_id
    assert entries(session, start) == [("product", product.id, "updated")]


def test_the_external_id_is_that_of_the_time_of_the_change(session: Session) -> None:
    product = make.make_product(external_id="a")
    start = last_sequence(session) - 1
    product.external_id = "b"
    session.flush()
    session.delete(product)
    session.flush()
    found = session.execute(select(Change.change, Change.external_id).where(Change.sequence > start)).all()
    assert sorted(map(tuple, found)) == [("created", "a"), ("deleted", "b"), ("updated", "b")]
    shot = make.make_shot()
    start = last_sequence(session)
    with session.begin_nested():
        shot.external_id = "front"
    assert ("look", shot.look_id, "updated") in entries(session, start)


def test_rows_of_no_tenant_are_not_recorded(session: Session) -> None:
    start = last_sequence(session)
    style = make.make_style(owner_id=None, public=True)
    style.name = "renamed"
    session.flush()
    assert entries(session, start) == []
    owned = make.make_style()
    start = last_sequence(session)
    # An archived row belongs to no tenant.
    session.execute(update(Style).where(Style.id == owned.id).values(owner_id=None, organization_id=None))
    assert entries(session, start) == [("style", owned.id, "deleted")]


def test_internal_columns_are_no_change(database: Database) -> None:
    with database.transaction(write=True) as session:
        generation = make.make_generation(status="running", lease_owner="a", progress=10)
        export = make.make_export(make.make_shooting(), status="running", lease_owner="a", progress=10)
        start = last_sequence(session)
    minute = timedelta(minutes=1)
    queues: list[tuple[RowQueue[Any, Any], Any]] = [(GENERATIONS, generation), (EXPORTS, export)]
    for queue, row in queues:
        assert queue.renew(database, Lease(row_id=row.id, token="a"), minute)
        assert queue.renew(database, Lease(row_id=row.id, token="a"), minute, 10)
    with database.transaction(write=True) as session:
        for model, row in ((Generation, generation), (Export, export)):
            leased = session.get_one(model, row.id)
            assert leased.updated_at == row.updated_at
            leased.lease_owner, leased.lease_expires_at = "b", utc_now() + minute
        assert entries(session, start) == []
        assert session.scalar(select(Generation.lease_owner).where(Generation.id == generation.id)) == "b"
        leased = session.get_one(Generation, generation.id)
        leased.lease_owner, leased.progress = "c", 20
        assert entries(session, start) == [("generation", generation.id, "updated")]
        assert updated_at(session, leased) > generation.updated_at
    assert EXPORTS.renew(database, Lease(row_id=export.id, token="b"), minute, 20)
    with database.transaction(write=True) as session:
        assert entries(session, start)[1:] == [("export", export.id, "updated")]


def test_counts_and_statuses_move_the_parents(database: Database) -> None:
    shooting = make.make_shooting()
    known: dict[Any, Any] = {}

    def moved(*rows: Identified) -> list[bool]:
        with database.transaction(write=False) as session:
            times = [updated_at(session, row) for row in rows]
        grown = [time > known.get(row.id, time) for time, row in zip(times, rows, strict=True)]
        known.update({row.id: time for time, row in zip(times, rows, strict=True)})
        return grown

    def run(statement: Executable) -> None:
        # A transaction per step: on PostgreSQL, each moves a parent once.
        with database.transaction(write=True) as session:
            session.execute(statement)

    moved(shooting)
    with database.transaction(write=True):
        look = make.make_look(shooting)
    moved(look)
    with database.transaction(write=True):
        shot = make.make_shot(look)
    assert moved(shooting) == [True]
    moved(shooting, look)
    run(update(Shot).values(notes="a note"))
    assert moved(shooting, look) == [False, False]
    run(update(Shot).values(status="generating"))
    assert moved(shooting, look) == [True, True]
    with database.transaction(write=True) as session:
        prediction = make.make_prediction(make.make_generation(shot))
        generation = session.get_one(Generation, prediction.generation_id)
    moved(shooting, look, shot, generation)
    run(update(Prediction).values(status="approved"))
    assert moved(shooting, look, shot, generation) == [False, False, False, True]
    run(delete(Prediction))
    assert moved(shooting, look, shot, generation) == [False, False, True, True]
    run(delete(Shot))
    assert moved(shooting) == [True]
    run(delete(Look))
    assert moved(shooting) == [True]


def test_a_rollback_undoes_the_entries(session: Session) -> None:
    start = last_sequence(session)
    savepoint = session.begin_nested()
    make.make_brand()
    savepoint.rollback()
    assert entries(session, start) == []


def test_a_locked_parent_is_moved_later_and_not_waited_for(
    emptied_database: Database, database_url: str
) -> None:
    database = emptied_database
    with database.transaction(write=True):
        shooting = make.make_shooting()
        shot = make.make_shot(make.make_look(shooting))
    other = Database(build_engine(database_url, pool_size=2))
    with other.transaction(write=True) as locking:
        locking.scalars(select(Shooting).where(Shooting.id == shooting.id).with_for_update()).one()

        def approve() -> None:
            with database.transaction(write=True) as session:
                session.execute(text("SET LOCAL lock_timeout = 1000"))
                session.execute(update(Shot).where(Shot.id == shot.id).values(status="approved"))

        # In a context of its own: transactions do not nest.
        run_in_thread(approve)
        run_in_thread(lambda: apply_pending_touches(database))
        assert run_in_thread(lambda: count_pending(database)) == 1
    with database.transaction(write=False) as session:
        assert updated_at(session, shooting) == shooting.updated_at
        before = last_sequence(session)
    apply_pending_touches(database)
    assert count_pending(database) == 0
    with database.transaction(write=False) as session:
        assert updated_at(session, shooting) > shooting.updated_at
        assert ("shooting", shooting.id, "updated") in entries(session, before)
    other.dispose()
    assert "update times of locked rows" in {task.name for task in MAINTENANCE_TASKS}


def test_a_pending_touch_of_a_deleted_row_is_dropped(emptied_database: Database) -> None:
    with emptied_database.transaction(write=True) as session:
        session.add(PendingTouch(table_name="looks", row_id=make.make_user().id))
    apply_pending_touches(emptied_database)
    assert count_pending(emptied_database) == 0


def count_pending(database: Database) -> int:
    with database.transaction(write=False) as session:
        return session.scalar(select(func.count()).select_from(PendingTouch)) or 0


def run_in_thread(function: Any) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result(timeout=30)


def test_changes_are_deleted_a_day_after_the_last_cursor_expired(database: Database) -> None:
    owner_id, age = new_id(), utc_now() - DELETION_AGE
    with database.transaction(write=True) as session:
        session.execute(delete(Change))
        for changed_at in (age - timedelta(minutes=1), age + timedelta(minutes=1)):
            values = {"resource_type": "brand", "resource_id": new_id(), "change": "created"}
            session.add(Change(owner_id=owner_id, changed_at=changed_at, **values))
            session.flush()
    assert delete_old_changes(database, utc_now()) == 1
    assert delete_old_changes(database, utc_now()) == 0
    with database.transaction(write=False) as session:
        assert session.scalars(select(Change.changed_at)).all() == [age + timedelta(minutes=1)]
