"""The index of the webhook messages that clients poll."""

from __future__ import annotations

from typing import Any

from sqlalchemy import event, text

from db.session import Database
from studio.webhooks.pull import select_waiting
from tests.support import factories


def test_waiting_messages_are_read_in_order_from_their_own_index(database: Database) -> None:
    with database.transaction(write=True) as writing:
        endpoint = factories.make_webhook_endpoint(delivery="pull", url=None)
        connection = writing.connection()
        # PostgreSQL otherwise reads a small table as a whole.
        writing.execute(text("SET LOCAL enable_seqscan = off"))

        # With the parameters that the query really has.
        def explain(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> Any:
            return f"EXPLAIN {statement}", parameters

        event.listen(connection, "before_cursor_execute", explain, retval=True)
        cursor: Any = connection.execute(select_waiting(endpoint.id).limit(10)).cursor
        event.remove(connection, "before_cursor_execute", explain)
        plan = str(cursor.fetchall())
    assert "ix_webhook_deliveries_pull" in plan
    assert "SORT" not in plan.upper()
