"""Give each server that tests or tools start a database of its own, which its folder identifies."""

from __future__ import annotations

import atexit
import shutil
from pathlib import Path

from tools.servers.databases import drop_database, new_database

_urls: dict[Path, str] = {}


def database_of(folder: Path, template: str | None = None) -> str:
    """Return the URL of the database of the server with this folder.

    Args:
        folder: The folder of a server. It need not exist.
        template: The URL of the database that the first call copies; by default, it creates an empty one.

    Raises:
        OperationalError: No PostgreSQL server accepts TEST_POSTGRESQL_URL.
    """
    key = folder.resolve()
    if key not in _urls:
        url = new_database(template)
        if not _urls:
            # For tools: tests drop them at the end of each module. Before the server ends, which runs by now.
            atexit.register(drop_server_databases)
        _urls[key] = url
    return _urls[key]


def has_database(folder: Path) -> bool:
    """Return whether the server with this folder has a database."""
    return folder.resolve() in _urls


def copy_server(source: Path, target: Path) -> Path:
    """Copy the folder and the database of a server that does not run, and return the new folder."""
    database_of(target, template=database_of(source))
    return shutil.copytree(source, target)


def drop_server_databases() -> None:
    """Drop all these databases. Their servers must have ended."""
    while _urls:
        drop_database(_urls.popitem()[1])
