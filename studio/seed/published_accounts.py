"""Find seeded accounts that still have their published passwords: production does not start with one."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from db.engine import build_engine
from db.models.users import User
from db.queries.users import revoke_mailed_tokens
from db.session import Database, current_session
from studio.accounts.identity.passwords import PUBLISHED_PASSWORDS, unusable_hash, verify_password
from studio.accounts.identity.sessions import end_sessions
from studio.infrastructure.settings import Settings
from studio.seed.rows import get_seed_id


class StartRejected(Exception):
    """The process must not start with the content of the database."""


def require_no_published_account(settings: Settings) -> None:
    """Check in production that no active account has its published password.

    At most three passwords are verified. The connection is closed before the process goes on, because a
    server may fork afterwards.

    Raises:
        StartRejected: An active account has its published password, or the database cannot be read.
    """
    if settings.environment != "production":
        return
    database = Database(build_engine(settings.database_url, pool_size=1))
    try:
        with database.transaction(write=False):
            found = [user.email for user in _published_accounts(only_active=True)]
    except DBAPIError as error:
        # Without the statement, which tells an operator nothing.
        reason = (str(error.orig).splitlines() or ["no reason given"])[0]
        raise StartRejected(
            f"the accounts in the database cannot be checked: {reason}. Check DATABASE_URL, "
            "and run `python -m handlers --prepare-only` if the database is new"
        ) from error
    finally:
        database.dispose()
    if found:
        raise StartRejected(
            f"active accounts have a published password: {', '.join(found)}. "
            "Run `python -m handlers deactivate-demo-accounts` with the same settings"
        )


def deactivate_published_accounts(database: Database) -> list[str]:
    """Deactivate the seeded accounts that have their published passwords, active or not.

    Each gets an unusable password. Its sessions end, and tokens that were mailed for it stop working.

    Returns:
        The addresses of these accounts.
    """
    with database.transaction(write=True):
        found = _published_accounts(only_active=False)
        for user in found:
            user.hashed_password, user.is_active = unusable_hash(), False
            revoke_mailed_tokens(user.id)
            end_sessions(user.id)
        return [user.email for user in found]


def _published_accounts(only_active: bool) -> list[User]:
    """Return the seeded accounts with their published passwords: the active ones, or all of them, locked."""
    published = {
        get_seed_id(User, number): password for number, password in enumerate(PUBLISHED_PASSWORDS.values(), 1)
    }
    query = select(User).where(User.id.in_(published)).order_by(User.id)
    query = query.where(User.is_active.is_(True)) if only_active else query.with_for_update()
    users = current_session().scalars(query)
    return [user for user in users if verify_password(user.hashed_password, published[user.id])]
