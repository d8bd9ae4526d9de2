"""The settings in which touch triggers remember, per transaction, the rows that they have moved.

The triggers (`db/migrations/frozen/change_feed.py`) read and write them.
"""

from __future__ import annotations

from sqlalchemy import Connection, func, select, true

TOUCHED_TABLES = ("generations", "looks", "shootings", "shots")
"""The tables whose rows touch triggers move, and that `pending_touches` can name."""
MAX_LENGTH = 100_000
"""The maximum length of a setting: about 2,700 ids. Rows beyond it are moved once per savepoint."""


def get_setting_name(table: str) -> str:
    """Return the name of the setting with the ids of the rows of a table."""
    return f"sartiq.touched_{table}"


_FORGET = select(*(func.set_config(get_setting_name(table), "", true()) for table in TOUCHED_TABLES))


def forget_touched_rows(connection: Connection) -> None:
    """Let triggers move the rows again that they have moved in the running transaction.

    For transactions that are savepoints of one connection: their end does not undo the settings.
    """
    connection.execute(_FORGET)
