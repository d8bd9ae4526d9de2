"""Test that the migrations create exactly the schema of the models, and remove it."""

from __future__ import annotations

from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Engine, func, inspect, select, text

from db.base import Base, utc_now
from db.change_feed.queries import FEED_ID
from db.engine import build_engine
from db.migrations import DatabaseIsNewer, build_config, downgrade, head_revision, is_current, upgrade
from db.models import Change, Export, ExportItem, Guidelines, MediaResource, Prediction
from db.session import Database, current_session
from tests.support.factories import (
    make_brand,
    make_destination,
    make_export,
    make_guidelines,
    make_media,
    make_organization,
    make_prediction,
    make_product,
    make_product_image,
    make_product_import,
    make_product_import_image,
    make_product_import_result,
    make_user,
)

RETIRED: set[str] = set()
"""Columns (`table.column`) without a model, which only the last release uses. The next one drops them."""


def is_comparable(item: Any, _name: str | None, kind: str, is_reflected: bool, model: Any) -> bool:
    """Return whether PostgreSQL describes a part of a schema as the models do: not an expression."""
    if kind == "table" and is_reflected and model is None:
        # The partitions are those of `db/audit_partitions.py`.
        return not str(item).startswith("audit_events_")
    if kind == "column" and is_reflected and model is None:
        return str(item) not in RETIRED
    return kind != "index" or all(isinstance(part, Column) for part in item.expressions)


# Neither SQLAlchemy nor Alembic can compare indexes of expressions; `test_lists.py` tests that they are used.
@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expr")  # SQLAlchemy cannot read them
@pytest.mark.filterwarnings("ignore:autogenerate skipping metadata-spec")  # Alembic cannot compare them
def test_the_migrated_schema_equals_the_models(database_engine: Engine) -> None:
    with database_engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "include_object": is_comparable}
        )
        assert compare_metadata(context, Base.metadata) == []


@pytest.mark.parametrize("is_retired", [False, True])
def test_a_column_without_a_model_is_noticed_unless_it_is_retired(
    is_retired: bool, own_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.RETIRED", {"brands.retired"} if is_retired else set())
    engine = build_engine(own_database_url, pool_size=1)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE brands ADD COLUMN retired integer"))
        options = {"include_object": is_comparable}
        differences = compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata)
    engine.dispose()
    assert [difference[0] for difference in differences] == ([] if is_retired else ["remove_column"])


def test_head_revision_equals_the_head_of_alembic() -> None:
    assert head_revision() == ScriptDirectory.from_config(build_config("")).get_current_head()


def test_a_database_of_a_newer_release_is_rejected(own_database_url: str) -> None:
    engine = build_engine(own_database_url, pool_size=1)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(DatabaseIsNewer, match="revision 9999 of a newer release"):
        upgrade(own_database_url)


def test_the_database_has_the_delete_rules_of_the_models(database_engine: Engine) -> None:
    inspector = inspect(database_engine)
    for table in Base.metadata.sorted_tables:
        migrated = {
            column: (key["referred_table"], key["options"].get("ondelete"))
            for key in inspector.get_foreign_keys(table.name)
            for column in key["constrained_columns"]
        }
        modeled = {
            column.name: (key.column.table.name, key.ondelete)
            for column in table.columns
            for key in column.foreign_keys
        }
        assert migrated == modeled, table.name


def test_an_empty_database_is_not_current(empty_database_url: str) -> None:
    assert not is_current(empty_database_url)


def test_migrations_go_down_and_up_with_rows_in_the_tables(own_database_url: str) -> None:
    # The migrations created it from an empty one, or the one that it is a copy of.
    assert is_current(own_database_url)
    database = Database(build_engine(own_database_url, pool_size=1))
    with database.transaction(write=True) as session:
        first_feed = session.execute(*FEED_ID).scalar_one()
        prediction = make_prediction()
        session.execute(text("UPDATE shots SET approved_prediction_id = (SELECT id FROM predictions)"))
        assert prediction.index == 0
    upgrade(own_database_url)
    downgrade(own_database_url)
    assert inspect(database.engine).get_table_names() == ["alembic_version"]
    assert not is_current(own_database_url)
    upgrade(own_database_url)
    assert is_current(own_database_url)
    # The changes of new tables are another feed, so that its readers start again.
    with database.transaction(write=False) as session:
        feed = session.execute(*FEED_ID).scalar_one()
        assert first_feed != feed == session.execute(*FEED_ID).scalar_one()
    database.dispose()


@pytest.mark.slow("the migration is released; `make upgrade` runs it on a release with rows")
def test_s41_images_that_superusers_added_to_personal_rows_pass_to_their_owners(
    own_database_url: str,
) -> None:
    database = Database(build_engine(own_database_url, pool_size=1))
    with database.transaction(write=True):
        superuser, user = make_user(is_superuser=True), make_user()
        product = make_product(owner=user)
        added, public = make_media(owner=superuser), make_media(owner=superuser, public=True)
        # The user has the third image already, so the superuser's copy stays.
        own, copy = (
            make_media(owner=user, content_hash="c" * 64),
            make_media(owner=superuser, content_hash="c" * 64),
        )
        for media in (added, added, public, own, copy):
            make_product_image(product, media_id=media.id)
        organization = make_organization(superuser)
        # Each of these is on another row, too, from which it would disappear.
        by_superuser, by_other, by_organization, as_logo, by_prediction = shared = [
            make_media(owner=superuser) for _ in range(5)
        ]
        for media in shared:
            make_product_image(product, media_id=media.id)
        make_brand(owner=superuser, logo_media_id=by_superuser.id)
        make_product_image(make_product(owner=make_user()), media_id=by_other.id)
        make_brand(organization=organization, logo_media_id=by_organization.id)
        organization.logo_media_id = as_logo.id
        make_prediction(media_id=by_prediction.id)
    # The rows are written with the newest schema, so that the test outlives changes of it.
    downgrade(own_database_url, "0025")
    upgrade(own_database_url)
    with database.transaction(write=False) as session:
        owners = {media.id: media.owner_id for media in session.query(MediaResource)}
    assert {owners.pop(media.id) for media in shared} == {superuser.id}
    assert owners == {
        added.id: user.id, public.id: superuser.id, own.id: user.id, copy.id: superuser.id
    }  # fmt: skip
    database.dispose()


@pytest.mark.slow("the migration is released; `make upgrade` runs it on a release with rows")
def test_predictions_from_before_marketplaces_have_no_compliance(own_database_url: str) -> None:
    database = Database(build_engine(own_database_url, pool_size=1))
    with database.transaction(write=True):
        guidelines = make_guidelines(marketplace="AMAZON_MAIN")
        prediction = make_prediction(compliance=[{"rule": "fill"}])
    downgrade(own_database_url, "0027")
    upgrade(own_database_url)
    with database.transaction(write=False) as session:
        assert session.get_one(Prediction, prediction.id).compliance == []
        assert session.get_one(Guidelines, guidelines.id).marketplace is None
    database.dispose()


@pytest.mark.slow("the migration is released; `make upgrade` runs it on a release with rows")
def test_predictions_from_before_warnings_have_none(own_database_url: str) -> None:
    database = Database(build_engine(own_database_url, pool_size=1))
    with database.transaction(write=True):
        prediction = make_prediction(warnings=["enlarged"])
    downgrade(own_database_url, "0028")
    upgrade(own_database_url)
    with database.transaction(write=False) as session:
        assert session.get_one(Prediction, prediction.id).warnings == []
    database.dispose()


@pytest.mark.slow("the migration is released; `make upgrade` runs it on a release with rows")
def test_images_of_imports_come_and_go_with_imports_in_the_table(own_database_url: str) -> None:
    database = Database(build_engine(own_database_url, pool_size=1))
    with database.transaction(write=True):
        waiting = make_product_import(status="running", rows_completed_at=utc_now(), image_count=1)
        running = make_product_import(status="running")
        make_product_import_result(running, image_problems=[{"image_url": "a.png", "problem": {}}])
        make_product_import_image(waiting)
    downgrade(own_database_url, "0041")
    with database.engine.begin() as connection:
        rows = connection.execute(text("SELECT status FROM product_imports ORDER BY created_at"))
        # The rows of the first one were all processed.
        assert [row.status for row in rows] == ["completed", "running"]
    upgrade(own_database_url)
    with database.engine.begin() as connection:
        columns = "image_count, image_added_count, image_unchanged_count, image_failed_count, images_file_id"
        rows = connection.execute(text(f"SELECT {columns} FROM product_imports"))  # noqa: S608 - literals
        assert [tuple(row) for row in rows] == [(0, 0, 0, 0, None)] * 2
        images = connection.execute(text("SELECT count(*) FROM product_import_images"))
        assert images.scalar_one() == 0
    database.engine.dispose()


@pytest.mark.slow("the migration is released; `make upgrade` runs it on a release with rows")
def test_exports_from_before_destinations_keep_their_items_and_counts_and_have_no_delivery(
    own_database_url: str,
) -> None:
    database = Database(build_engine(own_database_url, pool_size=1))
    with database.transaction(write=True):
        prediction = make_prediction(media_id=make_media().id)
        export = make_export(
            None, prediction, destination_id=make_destination().id, delivery_status="pending"
        )
    downgrade(own_database_url, "0045")
    upgrade(own_database_url)
    with database.transaction(write=True) as session:
        kept = session.get_one(Export, export.id)
        assert (kept.destination_id, kept.delivery_status, kept.delivery_attempts) == (None, None, 0)
        assert session.scalar(select(func.count()).select_from(ExportItem)) == 1
        kept.progress = 7
        session.flush()
        assert session.scalar(select(func.count()).where(Change.resource_id == export.id)) == 2
    database.dispose()


def test_reviews_from_before_names_have_those_of_accounts_that_exist(own_database_url: str) -> None:
    database = Database(build_engine(own_database_url, pool_size=1))
    with database.transaction(write=True):
        named, unnamed = make_user(full_name="Ada Nord"), make_user(full_name=None, email="ben@example.com")
        reviewed = [
            make_prediction(reviewed_by=reviewer, reviewed_at=reviewed_at)
            for reviewer, reviewed_at in (
                (named.id, utc_now()), (unnamed.id, utc_now()), (None, utc_now()), (None, None)
            )
        ]  # fmt: skip
        before = last_change()
    downgrade(own_database_url, "0048")
    upgrade(own_database_url)
    with database.transaction(write=False) as session:
        rows = [session.get_one(Prediction, prediction.id) for prediction in reviewed]
        assert [row.reviewed_by_name for row in rows] == ["Ada Nord", "ben", None, None]
        assert [row.reviewer_named_at == row.reviewed_at for row in rows] == [True, True, False, True]
        assert [row.updated_at for row in rows] == [prediction.updated_at for prediction in reviewed]
        assert last_change() == before
    database.dispose()


def test_names_of_reviewers_are_filled_by_the_next_attempt_if_one_was_interrupted(
    own_database_url: str,
) -> None:
    database = Database(build_engine(own_database_url, pool_size=1))
    with database.transaction(write=True):
        reviewer = make_user(full_name="Ada Nord")
        predictions = [
            make_prediction(reviewed_by=reviewer.id, reviewed_at=utc_now(), reviewed_by_name=name)
            for name in ("Filled", None)
        ]
    # The columns and a part of the names are committed before the revision.
    downgrade(own_database_url, "0049")
    engine = build_engine(own_database_url, pool_size=1)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0048'"))
    engine.dispose()
    upgrade(own_database_url)
    assert is_current(own_database_url)
    with database.transaction(write=False) as session:
        names = [session.get_one(Prediction, prediction.id).reviewed_by_name for prediction in predictions]
    assert names == ["Filled", "Ada Nord"]
    database.dispose()


def last_change() -> int | None:
    """Return the number of the newest entry of the change feed."""
    return current_session().scalar(select(func.max(Change.sequence)))
