"""Let servers of two releases read rows with values that neither of their contracts has.

So a server reads them during an upgrade, when a process of the next release has written them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

import psycopg
from psycopg.sql import SQL, Identifier

from db.rls.session_role import MIGRATING
from tests.upgrade.release import require
from tools.demo import Api

NEW = "new_value"
NEW_LIST = json.dumps([NEW])
NEW_VALUES = (
    ("api_keys", "scopes", NEW_LIST),
    ("exports", "status", NEW),
    ("generation_models", "provider", NEW),
    ("generations", "status", NEW),
    ("guidelines", "marketplace", NEW),
    ("predictions", "status", NEW),
    ("predictions", "warnings", NEW_LIST),
    ("product_imports", "status", NEW),
    ("products", "state", NEW),
    ("shootings", "phase", NEW),
    ("shots", "status", NEW),
    ("subscriptions", "payment_status", NEW),
    ("webhook_deliveries", "event_type", NEW),
    ("webhook_deliveries", "status", NEW),
    ("webhook_endpoints", "event_types", NEW_LIST),
)
"""Columns of enumerations that may grow, and the value that their rows get."""


def write_new_values(url: str) -> None:
    """Write a value that no release knows to all rows of each column.

    Raises:
        UpgradeFailed: A table is empty, so nothing would be read.
    """
    with psycopg.connect(url.replace("+psycopg", "", 1)) as connection:
        connection.execute("SELECT set_config(%s, 'on', true)", [MIGRATING])
        for table, column, value in NEW_VALUES:
            statement = SQL("UPDATE {} SET {} = %s").format(Identifier(table), Identifier(column))
            done = connection.execute(statement, [value])
            require(done.rowcount, f"{table} has no rows")


def list_failing(api: Api, paths: Iterable[str], contract: Path) -> set[str]:
    """Return the operations of a contract that answer one of the paths with 500."""
    failing = {path.partition("?")[0] for path in paths if api.client.get(path).status_code == 500}
    found = set()
    for template, item in json.loads(contract.read_text("utf-8"))["paths"].items():
        pattern = re.compile(re.sub(r"\{\w+\}", "[^/]+", template))
        if any(pattern.fullmatch(path) for path in failing):
            found.add(item["get"]["operationId"])
    return found
