"""Delete one's own account: requested with the password, canceled with a token from an e-mail.

The sessions of the account end at once, and it cannot be used any more. After `WAITING_PERIOD` a periodic
task deletes it. A new password that is set with a recovery e-mail cancels the deletion too, for users who
lost the first e-mail.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select, update

from db.audit import set_actor
from db.base import affected_one, utc_now
from db.errors import DomainError, InvalidToken
from db.models.organizations import Membership, Role
from db.models.users import AccountDeletion, User
from db.queries.users import (
    delete_personal_rows,
    owns_organization,
    revoke_mailed_tokens,
)
from db.session import Database, current_session
from studio.accounts.identity.sessions import end_sessions
from studio.accounts.identity.tokens import generate_token, hash_token
from studio.accounts.identity.users import OwnsOrganization, delete_account, require_password
from studio.infrastructure.storage import Storage
from studio.mail.emails import Email
from studio.mail.mailer import Mailer

logger = logging.getLogger(__name__)

WAITING_PERIOD = timedelta(days=14)
RETRY_DELAY = timedelta(days=1)
MAX_LISTED_ORGANIZATIONS = 10
BATCH_SIZE = 100

_REQUESTED_TEXT = """\
The deletion of your Sartiq account was requested. All sessions have ended.
On {deletes_at:%d %B %Y, %H:%M} UTC the account and your personal resources are deleted.
API keys that you created for organizations stop working then.

The link cancels the deletion, once, until then.
"""


def request_account_deletion(user: User, password: str, mailer: Mailer) -> AccountDeletion:
    """Schedule the deletion of a locked account, end its sessions and mail a link that cancels it.

    A second request returns the first deletion and mails nothing.

    Raises:
        IncorrectPassword: The password is wrong.
        OwnsOrganization: The account owns an organization.
    """
    require_password(user, password)
    existing = current_session().scalar(select(AccountDeletion).where(AccountDeletion.user_id == user.id))
    if existing is not None:
        return existing
    owned = select(Membership.organization_id).where(Membership.user_id == user.id)
    ids = list(current_session().scalars(owned.where(Membership.role == Role.OWNER).order_by(Membership.id)))
    if ids:
        listed = ids[:MAX_LISTED_ORGANIZATIONS]
        conflict = {"resource_type": "organization", "count": len(ids), "ids": listed}
        raise OwnsOrganization(conflicts_with=[conflict])
    token = generate_token("ad")
    deletion = AccountDeletion(
        user_id=user.id, token_hash=hash_token(token), deletes_at=utc_now() + WAITING_PERIOD
    )
    current_session().add(deletion)
    current_session().flush()
    # Tokens that were mailed before would let their owner in again.
    revoke_mailed_tokens(user.id)
    end_sessions(user.id)
    mailer.send(
        Email(
            kind="account_deletion",
            recipient=user.email,
            subject="The deletion of your Sartiq account",
            text=_REQUESTED_TEXT.format(deletes_at=deletion.deletes_at),
            label="Cancel the deletion",
            url=mailer.link_to("cancel-deletion", token),
            closing="If it was not you, cancel the deletion and change your password.",
            expires_at=deletion.deletes_at,
        )
    )
    return deletion


def cancel_account_deletion(token: str, mailer: Mailer) -> None:
    """Cancel a deletion with a token from an e-mail.

    Raises:
        InvalidToken: The token is unknown or used, the deletion has begun, or the account is deactivated.
    """
    is_valid = (AccountDeletion.token_hash == hash_token(token), AccountDeletion.started_at.is_(None))
    # The account is locked before the deletion, in the same order as by the request and by the task.
    query = select(User).join(AccountDeletion, AccountDeletion.user_id == User.id)
    user = current_session().scalar(query.where(*is_valid).with_for_update(of=User))
    if user is None or not user.is_active or not discard_deletion(user.id):
        raise InvalidToken()
    set_actor(user)
    mailer.send(
        Email(
            kind="account_deletion_canceled",
            recipient=user.email,
            subject="Your Sartiq account is not deleted",
            text="The deletion of your Sartiq account is canceled. You can sign in again.",
            label="Sign in",
            url=mailer.sign_in_url,
        )
    )


def discard_deletion(user_id: UUID) -> bool:
    """Cancel the scheduled deletion of a locked account; return whether there was one that had not begun."""
    scheduled = (AccountDeletion.user_id == user_id, AccountDeletion.started_at.is_(None))
    return affected_one(current_session().execute(delete(AccountDeletion).where(*scheduled)))


def delete_due_accounts(database: Database, storage: Storage) -> int:
    """Delete the accounts whose waiting period has ended; return their number.

    Each account takes several transactions: its personal rows are deleted in batches, and the account itself
    last. A killed task continues with its next run.
    """
    with database.transaction(write=False) as session:
        due = select(AccountDeletion.user_id).where(AccountDeletion.deletes_at <= utc_now())
        user_ids = session.scalars(due.order_by(AccountDeletion.deletes_at).limit(BATCH_SIZE)).all()
    return sum(_delete_account(database, storage, user_id) for user_id in user_ids)


def _delete_account(database: Database, storage: Storage, user_id: UUID) -> bool:
    try:
        if not _begin(database, user_id):
            return False
        while _run(database, user_id, delete_personal_rows):
            pass
        _run(database, user_id, partial(delete_account, storage=storage))
    except DomainError as error:
        # Rows of another tenant refer to one of the account. The other accounts must not wait for it.
        logger.warning("account %s was not deleted: %s", user_id, error.detail)
        _postpone(database, user_id)
        return False
    logger.info("account %s was deleted at the request of its user", user_id)
    return True


def _begin(database: Database, user_id: UUID) -> bool:
    """Mark the deletion as begun, so that it cannot be canceled; return whether it is due."""
    with database.transaction(write=True):
        if _lock(user_id) is None:
            return False
        deletion = current_session().scalar(select(AccountDeletion).where(AccountDeletion.user_id == user_id))
        if deletion is None or deletion.deletes_at > utc_now():
            return False
        if owns_organization(user_id):
            raise OwnsOrganization()
        deletion.started_at = deletion.started_at or utc_now()
        return True


def _run(database: Database, user_id: UUID, work: Callable[[User], Any]) -> Any:
    with database.transaction(write=True):
        user = _lock(user_id)
        return None if user is None else work(user)


def _postpone(database: Database, user_id: UUID) -> None:
    with database.transaction(write=True) as session:
        later = update(AccountDeletion).where(AccountDeletion.user_id == user_id)
        session.execute(later.values(deletes_at=utc_now() + RETRY_DELAY))


def _lock(user_id: UUID) -> User | None:
    return current_session().scalar(select(User).where(User.id == user_id).with_for_update(of=User))
