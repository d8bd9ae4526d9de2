"""Test that the migrations create exactly the schema of the models, and remove it, on both databases."""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, text

from db.base import Base
from db.engine import build_engine
from db.migrations import build_config, downgrade, head_revision, is_current, upgrade
from db.session import Database
from tests.support.factories import make_prediction


def test_the_migrated_schema_equals_the_models(database_engine: Engine) -> None:
    with database_engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_head_revision_equals_the_head_of_alembic() -> None:
    assert head_revision() == ScriptDirectory.from_config(build_config("sqlite://")).get_current_head()


def test_the_database_has_the_delete_rules_of_the_models(database_engine: Engine) -> None:
    """Compare ON DELETE separately: on SQLite, Alembic's comparison omits it."""
    inspector = inspect(database_engine)
    for table in Base.metadata.sorted_tables:
        migrated = {
            column: (key["referred_table"], key["options"].get("ondelete"))
            for key in inspector.get_foreign_keys(table.name)
            for column in key["constrained_columns"]
        }
        modelled = {
            column.name: (key.column.table.name, key.ondelete)
            for column in table.columns
            for key in column.foreign_keys
        }
        assert migrated == modelled, table.name


def test_migrations_go_up_and_down_with_rows_in_the_tables(empty_database_url: str) -> None:
    assert not is_current(empty_database_url)
    upgrade(empty_database_url)
    assert is_current(empty_database_url)
    database = Database(build_engine(empty_database_url, pool_size=1))
    with database.transaction(write=True) as session:
        prediction = make_prediction()
        session.execute(text("UPDATE shots SET approved_prediction_id = (SELECT id FROM predictions)"))
        assert prediction.index == 0
    upgrade(empty_database_url)
    downgrade(empty_database_url)
    assert inspect(database.engine).get_table_names() == ["alembic_version"]
    assert not is_current(empty_database_url)
    upgrade(empty_database_url)
    assert is_current(empty_database_url)
    database.dispose()
