"""Move, return and compare the databases of an upgrade as their operator does: with commands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from db.embedded import remove_cluster
from db.migrations import upgrade
from studio.infrastructure.database import FOLDER
from tests.support.schemas import dump_schema, list_differences
from tests.upgrade.release import Release, require, run_program
from tools.servers.databases import create_database
from tools.servers.server import ROOT, SECONDS_TO_STOP


def move_from_sqlite(settings: Mapping[str, str]) -> None:
    """Move the rows of the release's SQLite file to the embedded database of the same folder.

    Args:
        settings: The settings of the server.

    Raises:
        UpgradeFailed: The command did not move them.
    """
    run_program(
        [sys.executable, "-m", "studio.commands.move_from_sqlite"], environment={**os.environ, **settings}
    )


@contextmanager
def create_target(data: Path, *, is_embedded: bool) -> Iterator[str]:
    """Yield the `DATABASE_URL` of the release and of this tree, and delete the database afterwards.

    Without a URL, the release uses a file of SQLite in its folder, and this tree the embedded database.

    Args:
        data: The folder of the server.
        is_embedded: Whether to yield no URL but an empty text.
    """
    if not is_embedded:
        with create_database() as url:
            yield url
        return
    try:
        yield ""
    finally:
        remove_cluster(data / FOLDER)


@contextmanager
def run_database_for(version: str, settings: Mapping[str, str]) -> Iterator[str]:
    """Run the embedded database with the tables of an earlier release, and yield the URL that is printed.

    Args:
        version: The version of the release.
        settings: The settings of the server.

    Raises:
        UpgradeFailed: The command prints no URL, or does not end as it should.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "handlers", "database", "--for-release", version],
        cwd=ROOT,
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        require(url.startswith("postgresql:"), f"no URL for release {version}: {url!r}")
        yield url
        process.send_signal(signal.SIGTERM)
        status = process.wait(SECONDS_TO_STOP)
        require(status == 0, f"the database of release {version} ended with {status}")
    finally:
        process.kill()
        process.communicate()


def compare_schemas(*releases: Release) -> int:
    """Compare the schema of a database that these releases and this tree have migrated with a fresh one.

    Returns:
        The number of lines of the schema.

    Raises:
        UpgradeFailed: The schemas differ.
    """
    with create_database() as migrated, create_database() as fresh:
        for release in releases:
            release.migrate(migrated)
        upgrade(migrated)
        upgrade(fresh)
        before, after = dump_schema(migrated), dump_schema(fresh)
    lines = list_differences(before, after)
    require(not lines, "\n  ".join(["the schema is not that of a fresh database:", *lines]))
    return len(after.splitlines())
