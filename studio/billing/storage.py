"""The storage of a plan: how much is used, the limit, and a warning before it is reached.

All bytes count that the account of the plan is responsible for: those of its personal resources and of the
organizations that it owns. Triggers add them up (`db/migrations/versions/0057_stored_bytes.py`).
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import BigInteger, Select, Text, Uuid, bindparam, column, func, select, update

from db.base import utc_now
from db.errors import Conflict
from db.libpq.statements import Query, Row
from db.models.organizations import Membership, Role
from db.models.row_counts import RowCount
from db.models.users import User
from db.session import Database, current_session
from studio.billing.billing import PLANS
from studio.infrastructure.settings import Settings
from studio.mail.emails import Email
from studio.mail.mailer import find_mailer
from studio.webhooks.events import emit_storage_event

FREE_BYTES = 2_000_000_000
"""The limit of an account without a subscription."""
LOW_SHARE = 0.8
"""The storage is low when this share of the limit is used."""
ENOUGH_SHARE = 0.75
"""When less than this share is used again, the next event can be sent."""
_COLUMN = "bytes"
"""The `column_name` of stored bytes in the counter cache."""

_LOW_TEXT = """\
{used} of {limit} of the storage of your Sartiq account are used.
When it is full, uploads, imports, exports and generations are rejected. Nothing is deleted.
"""


class StorageFull(Conflict):
    """The storage of the plan is used up."""

    code = "storage_full"
    default_detail = "The storage of the plan is used up: delete resources, or change to a larger plan"


class StorageUse(NamedTuple):
    """The used bytes, and the limit of the plan."""

    used_bytes: int
    limit_bytes: int


def storage_query(organization_id: UUID | None, account_id: UUID) -> Query:
    """Return the query for `parse_storage`.

    Args:
        organization_id: The organization, whose owner has the plan; None for personal resources.
        account_id: The owner of personal resources.
    """
    return Query(_build_query(), {"organization_id": organization_id, "account_id": account_id})


def parse_storage(rows: list[Row]) -> StorageUse:
    """Return the used storage that `storage_query` found."""
    # There is no row for a guest and for a superuser without a membership, who store nothing.
    used_bytes, tier = rows[0] if rows else (0, None)
    return StorageUse(used_bytes, PLANS[tier].storage_bytes if tier else FREE_BYTES)


def require_storage(organization_id: UUID | None, account_id: UUID | None, added_bytes: int = 0) -> None:
    """Check that a tenant may store more. Requests at the same time may exceed the limit by what each adds.

    Args:
        organization_id: The organization, None for personal resources.
        account_id: The owner of personal resources; None for rows of the system, which have no limit.
        added_bytes: The size of what would be stored, if it is known.

    Raises:
        StorageFull: It does not fit.
    """
    if account_id is None:
        return
    query = storage_query(organization_id, account_id)
    use = parse_storage([tuple(row) for row in current_session().execute(*query)])
    if use.used_bytes + added_bytes > use.limit_bytes:
        raise StorageFull(limit=use.limit_bytes)


@cache
def _build_query() -> Select[Any]:
    function = func.sartiq_storage(
        bindparam("organization_id", type_=Uuid()), bindparam("account_id", type_=Uuid())
    )
    found = function.table_valued(column("used_bytes", BigInteger), column("tier", Text))
    return select(found.c.used_bytes, found.c.tier)


def warn_about_storage(database: Database, settings: Settings) -> int:
    """Tell the accounts whose storage is low, once until there is space again; return their number."""
    with database.transaction(write=False) as reading:
        owned = Membership.organization_id.label("scope_id"), Membership.user_id.label("account_id")
        scopes = (
            select(*owned).where(Membership.role == Role.OWNER).union_all(select(User.id, User.id)).subquery()
        )
        used = func.sum(RowCount.number)
        totals = (
            select(scopes.c.account_id, used)
            .join(RowCount, RowCount.scope_id == scopes.c.scope_id)
            .where(RowCount.column_name == _COLUMN)
            .group_by(scopes.c.account_id)
            # An account with fewer bytes is low with no plan.
            .having(used >= ENOUGH_SHARE * FREE_BYTES)
        )
        used_by_account: dict[UUID, int] = {row[0]: int(row[1]) for row in reading.execute(totals)}
        told = set(reading.scalars(select(User.id).where(User.storage_low_at.is_not(None))))
    return sum(
        _warn(database, settings, account_id, used_by_account.get(account_id, 0))
        for account_id in sorted(used_by_account.keys() | told)
    )


def _warn(database: Database, settings: Settings, account_id: UUID, used_bytes: int) -> bool:
    with database.transaction(write=True) as session:
        account = session.scalar(select(User).where(User.id == account_id).with_for_update(of=User))
        if account is None:
            return False
        found = session.execute(*storage_query(None, account_id))
        use = parse_storage([tuple(row) for row in found])._replace(used_bytes=used_bytes)
        is_low = (
            used_bytes >= (LOW_SHARE if account.storage_low_at is None else ENOUGH_SHARE) * use.limit_bytes
        )
        if is_low == (account.storage_low_at is not None):
            return False
        # Clients must not see a new `updated_at`.
        change = update(User).where(User.id == account_id)
        session.execute(
            change.values(
                storage_low_at=utc_now() if is_low else None, updated_at=User.updated_at
            ).execution_options(synchronize_session=False)
        )
        if not is_low:
            return False
        _tell(settings, account, use)
        return True


def _tell(settings: Settings, account: User, use: StorageUse) -> None:
    owned = select(Membership.organization_id).where(
        Membership.user_id == account.id, Membership.role == Role.OWNER
    )
    organization_ids = current_session().scalars(owned.order_by(Membership.organization_id)).all()
    emit_storage_event("storage.low", account, organization_ids, *use)
    mailer = find_mailer(settings)
    if mailer is None or not account.is_active:
        return
    mailer.send(
        Email(
            kind="storage_low",
            recipient=account.email,
            subject="Your storage at Sartiq is nearly full",
            text=_LOW_TEXT.format(used=_format(use.used_bytes), limit=_format(use.limit_bytes)),
            label="What counts, and how to free space",
            url=f"{settings.public_url}/guides/storage/",
        )
    )


def _format(number: int) -> str:
    return f"{number / 1e9:,.1f} GB"
