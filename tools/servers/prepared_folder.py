"""Start servers of tests on a copy of a prepared folder and database: tables, presets, demo data and images.

With an empty database, a server needs more than a second of CPU to prepare it. Each kind is prepared once per
run of the tests and copied for each server.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tools.servers.databases import DatabaseFactory
from tools.servers.server_databases import database_of, has_database

# A server with one of these settings keeps its rows or images outside its folder, so a copy would not help.
_ELSEWHERE = frozenset(("DATA_DIR", "DATABASE_URL", "MEDIA_DIR", "MEDIA_URL", "SARTIQ_MODE"))
# These settings choose the rows that a start adds. With the values below, they are the same.
_KINDS = ("SARTIQ_ENV", "SARTIQ_SEED")
_WITH_DEMO_DATA = frozenset(("", "test", "development", "demo"))


class _Run:
    """Where this process finds the folders that are prepared once per run, while it runs tests."""

    root: Path | None = None
    databases: DatabaseFactory


@contextmanager
def prepared_folders_in(root: Path, databases: DatabaseFactory) -> Iterator[None]:
    """Prepare folders below `root`, and templates of databases, within the block.

    All processes of a run share both.
    """
    root.mkdir(exist_ok=True)
    _Run.root, _Run.databases = root, databases
    try:
        yield
    finally:
        _Run.root = None


def copy_prepared_folder(
    folder: Path, settings: Mapping[str, str], prepare: Callable[[Path, Mapping[str, str]], None]
) -> None:
    """Copy a prepared folder and its database for a server, unless a server has started there before.

    Nothing is copied outside a test run, nor for a server whose database or images are outside its folder.

    Args:
        folder: The folder of the server.
        settings: The settings of the server.
        prepare: Prepares a folder and the database in these settings as a first start does.
    """
    if _Run.root is None or not _ELSEWHERE.isdisjoint(settings) or has_database(folder):
        return
    given = {**os.environ, **settings}
    kind = {name: given[name] for name in _KINDS if given.get(name, "") not in _WITH_DEMO_DATA}
    prepared = _Run.root / "-".join(("folder", *kind.values()))

    def fill(url: str) -> None:
        # It is there if its database was dropped, or could not be prepared.
        shutil.rmtree(prepared, ignore_errors=True)
        prepare(prepared, {**kind, "DATABASE_URL": url})

    database_of(folder, template=_Run.databases.get_template(prepared.name, fill))
    shutil.copytree(prepared, folder, dirs_exist_ok=True)
