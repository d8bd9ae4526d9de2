"""Which database a process uses, and the command that runs the embedded one for other programs."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url, text

from db.embedded import EmbeddedDatabaseError, stop_cluster
from db.engine import build_engine
from db.migrations import upgrade
from handlers.server.cli import main
from studio.infrastructure.database import is_embedded, use_database
from studio.infrastructure.settings import VERSION, InvalidSettings, Settings
from tests.support.embedded import wait_until_stopped
from tests.support.forks import start_fork, wait_for_fork


def read_settings(folder: Path, **variables: str) -> Settings:
    return Settings.from_environment({"DATA_DIR": str(folder), **variables})


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield the data folder for tests that use an embedded database. What runs at the end is stopped."""
    folder = tmp_path_factory.mktemp("data")
    yield folder
    stop_cluster(folder / "postgresql")


def test_a_database_that_the_settings_name_is_used_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "sartiq.db").write_bytes(b"ignored")
    settings = read_settings(tmp_path, DATABASE_URL="postgresql://login:secret@db.example/sartiq")
    with use_database(settings) as used:
        assert used is settings
        assert not is_embedded(used)
    assert not (tmp_path / "postgresql").exists()


def test_without_a_setting_the_data_folder_has_a_database_of_its_own(data_folder: Path) -> None:
    with use_database(read_settings(data_folder)) as settings:
        assert make_url(settings.database_url).username == "sartiq"
        assert is_embedded(settings)
        assert (data_folder / "postgresql" / "release").read_text() == VERSION
    wait_until_stopped(data_folder / "postgresql")


def test_a_database_of_an_older_release_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "sartiq.db").write_bytes(b"rows")
    with pytest.raises(InvalidSettings) as caught, use_database(read_settings(tmp_path)):
        pass
    assert str(caught.value) == (
        f"{tmp_path / 'sartiq.db'} is the SQLite database of an older release. Run `make move-from-sqlite`: "
        "it copies the rows to a PostgreSQL database in the same folder, and keeps the file"
    )
    assert not (tmp_path / "postgresql").exists()


def test_an_sqlite_url_is_rejected_with_the_command_that_moves_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings) as caught:
        read_settings(tmp_path, DATABASE_URL="sqlite:////srv/sartiq.db")
    assert str(caught.value) == (
        "DATABASE_URL must be the URL of a PostgreSQL database: this release does not use SQLite. Unset it, "
        "and run `make move-from-sqlite FROM=/srv/sartiq.db`, which copies the rows to PostgreSQL"
    )


def test_a_url_of_another_database_is_rejected_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings) as caught:
        read_settings(tmp_path, DATABASE_URL="mysql://login:secret@db.example/sartiq")
    assert str(caught.value) == "DATABASE_URL must start with postgresql://"


def test_a_folder_that_is_a_file_stops_the_server_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "postgresql").write_text("")
    with (
        pytest.raises(EmbeddedDatabaseError, match="cannot be used: File exists"),
        use_database(read_settings(tmp_path)),
    ):
        pass


def test_the_command_runs_the_database_with_the_tables_of_an_older_release(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with use_database(read_settings(data_folder)) as settings:
        upgrade(settings.database_url)
    monkeypatch.setenv("DATA_DIR", str(data_folder))
    monkeypatch.delenv("DATABASE_URL", raising=False)
    reading, writing = os.pipe()

    def run() -> None:
        sys.stdout = os.fdopen(writing, "w")
        assert main(["database", "--for-release", "0.2.0"]) == 0
        sys.stdout.flush()

    process = start_fork(run)
    os.close(writing)
    with os.fdopen(reading) as output:
        try:
            engine = build_engine(output.readline().strip(), pool_size=1)
            with engine.connect() as connection:
                assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "0048"
            engine.dispose()
        finally:
            os.kill(process, signal.SIGTERM)
            status = wait_for_fork(process)
        assert (status, output.read()) == (0, "Stopped, unless other processes use it.\n")
