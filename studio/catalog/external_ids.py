"""Create a row with an external id that another request may create at the same moment."""

from __future__ import annotations

from sqlalchemy.exc import IntegrityError

from db.base import Labeled
from db.errors import ExternalIdTaken
from db.session import current_session, error_for_constraint


def insert_unless_taken(row: Labeled) -> bool:
    """Insert a new row now, unless another row of the tenant has its external id.

    While another transaction inserts the same external id, this waits for its end. A row that is not inserted
    is no part of the session, and the transaction goes on.

    Returns:
        Whether the row was inserted. If not, the other row is committed and can be read.

    Raises:
        IntegrityError: Another constraint is violated.
    """
    session = current_session()
    # What the row refers to must outlive the savepoint.
    session.flush()
    try:
        with session.begin_nested():
            session.add(row)
            session.flush()
    except IntegrityError as error:
        if not isinstance(error_for_constraint(error), ExternalIdTaken):
            raise
        return False
    return True
