"""Databases with the schema of release 0.2.0, the last one that used SQLite."""

from __future__ import annotations

from db.migrations import upgrade
from db.sqlite_file import REVISION
from tools.servers.databases import DatabaseFactory


def migrated_to_0_2_0(databases: DatabaseFactory) -> str:
    """Return the URL of a template with the schema of release 0.2.0 and no rows."""
    return databases.get_template("migrated-to-0-2-0", lambda url: upgrade(url, REVISION))
