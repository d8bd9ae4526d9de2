"""Request a copy of one's own personal data."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import select

from db.errors import Conflict
from db.models.account_exports import IS_OPEN, AccountExport
from db.queries.users import lock_for_count
from db.session import after_commit, current_session
from studio.infrastructure.pubsub import EXPORTS


class ExportInProgress(Conflict):
    """Another copy of the user's data waits or is being written."""

    code = "export_in_progress"
    default_detail = "Another copy of your data waits or is being written"


def request_account_export(user_id: UUID, export_id: UUID | None = None) -> AccountExport:
    """Queue a copy of the user's data.

    Args:
        user_id: The user.
        export_id: The id of the export, if it is known in advance.

    Raises:
        ExportInProgress: The user has an open account export.
    """
    lock_for_count(user_id)
    is_open = select(AccountExport.id).where(AccountExport.user_id == user_id, IS_OPEN)
    existing = current_session().scalar(is_open)
    if existing is not None:
        conflict = {"resource_type": "account_export", "count": 1, "ids": [existing]}
        raise ExportInProgress(conflicts_with=[conflict])
    export = AccountExport(user_id=user_id, **({} if export_id is None else {"id": export_id}))
    current_session().add(export)
    current_session().flush()
    after_commit(EXPORTS.notify)
    return export
