"""Test that the migration from SQLite to PostgreSQL copies all rows or none, and reports the result."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    Engine,
    Table,
    func,
    select,
    text,
    update,
)

from db.base import TRIGGER_MAINTAINED, Base
from db.engine import build_engine
from db.migrations import upgrade
from db.models import Export, Generation, Prediction, RowCount, Shot
from db.rls.session_role import bypass_rls
from db.session import Database
from studio import migrate_to_postgres
from studio.media.storage import LocalDisk
from tests.support.filled_server import BATCH_SIZE, fill_server_folder
from tests.support.row_counts import actual_counts, stored_counts

pytestmark = pytest.mark.usefixtures("small_batches")

# Triggers recreate the row counts in the target, so they are not copied.
COPIED_TABLES = [table for table in Base.metadata.sorted_tables if not table.info.get(TRIGGER_MAINTAINED)]


@dataclass
class MigrationEnvironment:
    """Two databases and the files that both refer to."""

    source: Engine
    target: Engine
    target_url: str
    storage: LocalDisk

    def count_rows(self, engine: Engine) -> int:
        """Return the number of rows in all tables that are copied."""
        with engine.connect() as connection:
            bypass_rls(connection)
            counts = [connection.scalar(select(func.count()).select_from(table)) for table in COPIED_TABLES]
        return sum(count or 0 for count in counts)


@pytest.fixture(scope="module")
def server_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create the data folder of a server with a row in every table of its SQLite database."""
    return fill_server_folder(tmp_path_factory.mktemp("server"))


@pytest.fixture
def environment(
    server_folder: Path, empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MigrationEnvironment]:
    """Yield a copy of that folder and an empty PostgreSQL database, with environment variables for both."""
    with open_environment(server_folder, empty_database_url, tmp_path, monkeypatch) as opened:
        yield opened


@pytest.fixture
def migrated_environment(
    server_folder: Path, own_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MigrationEnvironment]:
    """Yield the same with a PostgreSQL database that has the tables, but no rows."""
    with open_environment(server_folder, own_database_url, tmp_path, monkeypatch) as opened:
        yield opened


@contextmanager
def open_environment(
    server_folder: Path, target_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MigrationEnvironment]:
    shutil.copytree(server_folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setenv("DATABASE_URL", target_url)
    source = build_engine(f"sqlite:///{tmp_path / 'sartiq.db'}", pool_size=1)
    target = build_engine(target_url, pool_size=2)
    yield MigrationEnvironment(source, target, target_url, LocalDisk(tmp_path / "media"))
    source.dispose()
    with target.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    target.dispose()


def query_raw(engine: Engine, query: str) -> list[Any]:
    with engine.connect() as connection:
        bypass_rls(connection)
        return [tuple(row) for row in connection.execute(text(query))]


def test_every_row_is_copied_unchanged_with_circular_references(
    environment: MigrationEnvironment, capsys: pytest.CaptureFixture[str]
) -> None:
    with environment.source.connect() as connection:
        for table in Base.metadata.sorted_tables:
            assert connection.scalar(select(func.count()).select_from(table)), f"{table.name} is empty"
    assert migrate_to_postgres.main([]) == 0
    output = capsys.readouterr().out
    assert "DIFFERENT" not in output
    assert query_raw(environment.target, "SELECT count(*) FROM changes") == [(0,)]
    assert f"{environment.count_rows(environment.source)} rows in {len(COPIED_TABLES)} tables" in output
    assert (
        environment.count_rows(environment.target)
        == environment.count_rows(environment.source)
        > 2 * BATCH_SIZE
    )
    before, after = Database(environment.source), Database(build_engine(environment.target_url, pool_size=1))
    for model in (Shot, Generation, Prediction, Export):
        values = []
        for database in (before, after):
            with database.transaction(write=False) as reading:
                rows = reading.scalars(select(model).order_by(model.id)).all()
                columns = model.__table__.columns
                values.append(
                    [{column.name: getattr(row, column.name) for column in columns} for row in rows]
                )
        assert values[0] == values[1]
    after.dispose()
    # An SQL NULL stays an SQL NULL and does not become a JSON null.
    nulls = "SELECT count(*) FROM generations WHERE error IS NULL"
    assert query_raw(environment.target, nulls) == query_raw(environment.source, nulls) != [(0,)]
    errors = "SELECT CAST(error AS VARCHAR) FROM generations WHERE error IS NOT NULL"
    assert query_raw(environment.target, errors) == query_raw(environment.source, errors)
    with environment.target.connect() as connection:
        bypass_rls(connection)
        assert stored_counts(connection) == actual_counts(connection) != {}
        assert connection.scalar(select(func.max(RowCount.entry))) == 0
    circular = "SELECT count(retry_of_id), count(source_prediction_id) FROM generations"
    assert query_raw(environment.target, circular) == query_raw(environment.source, circular) == [(1, 1)]
    # A second migration does not overwrite the rows of the first.
    assert migrate_to_postgres.main([]) == 2
    assert "not empty: there are rows in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "error"),
    [("missing", "is missing"), ("changed", "has other content"), ("archive", "is missing")],
)
@pytest.mark.slow("it copies a database three times")
def test_a_missing_or_changed_file_leaves_the_target_empty(
    environment: MigrationEnvironment, capsys: pytest.CaptureFixture[str], damage: str, error: str
) -> None:
    files = [
        file.key for file in environment.storage.list_files("exports" if damage == "archive" else "media")
    ]
    if damage == "changed":
        environment.storage.write(files[0], b"other bytes")
    else:
        environment.storage.delete(files[0])
    assert migrate_to_postgres.main([]) == 1
    assert f"The file {files[0]} {error}" in capsys.readouterr().out
    assert environment.count_rows(environment.target) == 0


@pytest.mark.slow("it copies a database; another test detects a value that PostgreSQL rejects")
def test_a_row_that_changes_during_the_copy_is_detected_and_the_target_is_emptied(
    environment: MigrationEnvironment, capsys: pytest.CaptureFixture[str]
) -> None:
    upgrade(environment.target.url.render_as_string(hide_password=False))
    trigger = """
        CREATE FUNCTION change_name() RETURNS trigger AS
        $$ BEGIN IF NEW.name = '7' THEN NEW.name := '8'; END IF; RETURN NEW; END $$ LANGUAGE plpgsql;
        CREATE TRIGGER change_name BEFORE INSERT ON brands FOR EACH ROW EXECUTE FUNCTION change_name();
    """
    with environment.target.begin() as connection:
        connection.exec_driver_sql(trigger)
    assert migrate_to_postgres.main([]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.endswith("DIFFERENT")] == ["brands"]
    assert environment.count_rows(environment.target) == 0


def test_a_value_that_postgresql_rejects_stops_the_migration_with_an_error(
    migrated_environment: MigrationEnvironment, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = migrated_environment
    brands: Table = Base.metadata.tables["brands"]
    with environment.source.begin() as connection:
        connection.execute(update(brands).where(brands.c.name == "7").values(name="x" * 500))
    assert migrate_to_postgres.main([]) == 1
    assert "Not moved: brands: value too long" in capsys.readouterr().err
    assert environment.count_rows(environment.target) == 0


def test_a_target_that_is_not_empty_is_rejected_and_does_not_change(
    environment: MigrationEnvironment, capsys: pytest.CaptureFixture[str]
) -> None:
    with environment.target.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE of_another_application (id int)")
    assert migrate_to_postgres.main([]) == 2
    assert "it has a table of_another_application" in capsys.readouterr().err
    assert query_raw(environment.target, "SELECT to_regclass('brands')") == [(None,)]


def test_databases_of_the_wrong_kind_are_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.delenv("DATABASE_URL", raising=False)
    assert migrate_to_postgres.main([]) == 2
    assert "from SQLite to PostgreSQL" in capsys.readouterr().err
    monkeypatch.setenv("DATABASE_URL", "postgresql://sartiq:secret@127.0.0.1:9/none")
    assert migrate_to_postgres.main([]) == 2
    output = capsys.readouterr()
    assert "There is no SQLite database" in output.err
    assert "secret" not in output.out + output.err
    assert not (tmp_path / "sartiq.db").exists()
    upgrade(f"sqlite:///{tmp_path / 'sartiq.db'}", "0001")
    assert migrate_to_postgres.main([]) == 2
    assert "bring it up to date first" in capsys.readouterr().err


def test_a_source_that_is_no_url_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert migrate_to_postgres.main(["--from", "sartiq.db"]) == 2
    assert "--from must be a URL such as sqlite:///path, not 'sartiq.db'" in capsys.readouterr().err
