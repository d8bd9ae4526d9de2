"""The server without row-level security, to be measured beside the one that has it.

Its transactions work as the login, which owns the tables of a database that `take_policies_away` prepared.
"""

from __future__ import annotations

import sys

import sqlalchemy

import db.session
from db.base import Base
from handlers.command import main


def take_policies_away(database_url: str) -> None:
    """Let the owner of the tables see and write every row again."""
    engine = sqlalchemy.create_engine(database_url)
    with engine.begin() as connection:
        for table in Base.metadata.sorted_tables:
            connection.exec_driver_sql(f"ALTER TABLE {table.name} DISABLE ROW LEVEL SECURITY")
            connection.exec_driver_sql(f"ALTER TABLE {table.name} NO FORCE ROW LEVEL SECURITY")
    engine.dispose()


if __name__ == "__main__":
    db.session.become = lambda _connection, _actor: None
    sys.exit(main())
