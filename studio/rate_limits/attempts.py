"""Tries at passwords, and requests for mails: counted in the database, so that all processes share the counts
and none forgets them.

An account has one share for the whole world, and one for each address from which somebody has signed in to it
before (NIST SP 800-63B, 5.2.2). So who guesses from elsewhere cannot keep its owner out.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from pyrate_limiter import Decision
from sqlalchemy import delete, select, tuple_, update

from db.models.attempts import AttemptCount, KnownAddress
from db.models.users import User, email_key
from db.queries.statements import delete_in_batches, insert_for_dialect
from db.session import Database, current_session
from studio.rate_limits.limits import LimitUsage, QuotaPolicy

TRUSTED_FOR = timedelta(days=90)
"""After the last proof."""


@dataclass(frozen=True)
class Attempt:
    """One unit of what somebody has of a limit."""

    policy: QuotaPolicy
    subject_hash: str

    @property
    def key(self) -> tuple[str, str]:
        """What its count is found by."""
        return self.policy.name, self.subject_hash


def hash_subject(secret_key: str, *parts: str) -> str:
    """What is stored in place of who tried."""
    return hmac.new(secret_key.encode(), "\0".join(("try", *parts)).encode(), "sha256").hexdigest()


def get_account_bucket(secret_key: str, email: str, address: str, now: int) -> str:
    """Whose share a try at an account takes; the same statement whether or not there is such an account."""
    here = hash_subject(secret_key, "address", address)
    known = (
        select(KnownAddress.user_id)
        .join(User, User.id == KnownAddress.user_id)
        .where(
            User.email_key == email_key(email),
            KnownAddress.address_hash == here,
            KnownAddress.expires_at > _to_datetime(now),
        )
    )
    share = ["account", email_key(email)]
    if current_session().scalar(known) is not None:
        share.append(here)
    return hash_subject(secret_key, *share)


def trust_address(secret_key: str, user_id: UUID, address: str, now: int) -> None:
    """Give an account a share of its own at an address from where somebody has proved to be its owner."""
    until = _to_datetime(now) + TRUSTED_FOR
    insert = insert_for_dialect(current_session().get_bind().dialect.name, KnownAddress)
    values = {
        "user_id": user_id,
        "address_hash": hash_subject(secret_key, "address", address),
        "expires_at": until,
    }
    keys = [KnownAddress.user_id, KnownAddress.address_hash]
    current_session().execute(
        insert.values(values).on_conflict_do_update(index_elements=keys, set_={"expires_at": until})
    )


def consume(attempts: Sequence[Attempt], now: int) -> list[LimitUsage]:
    """Take one unit for each try, at `now` in milliseconds since 1970, and say how things stand then.

    When one of them is not allowed, nothing is taken. Others who try wait for the end of the transaction.
    """
    if not attempts:
        return []
    states = _lock_counts(attempts)
    outcomes = [one.policy.consume(states[one.key], now) for one in attempts]
    if all(get_usage.allowed for _, get_usage in outcomes):
        spent = [_to_row(one, state) for one, (state, _) in zip(attempts, outcomes, strict=True)]
        current_session().execute(update(AttemptCount), spent)
    return [get_usage for _, get_usage in outcomes]


def refund(attempts: Sequence[Attempt], now: int) -> list[LimitUsage]:
    """Undo `spend` for tries that turned out to be good; who has no wrong ones leaves nothing behind."""
    if not attempts:
        return []
    states = _lock_counts(attempts)
    left = {one: states[one.key] - one.policy.emission_interval for one in attempts}
    current_session().execute(update(AttemptCount), [_to_row(one, state) for one, state in left.items()])
    whole = [one.key for one, state in left.items() if state <= now * 1000]
    current_session().execute(
        delete(AttemptCount).where(tuple_(AttemptCount.policy, AttemptCount.subject_hash).in_(whole))
    )
    return [one.policy.get_usage(state, now, Decision()) for one, state in left.items()]


def _lock_counts(attempts: Sequence[Attempt]) -> dict[tuple[str, str], int]:
    """The counts of these tries, which nobody else changes before the end of the transaction."""
    # In one order for all, so that two who try never wait for each other.
    new = sorted((_to_row(one, 0) for one in attempts), key=lambda row: (row["policy"], row["subject_hash"]))
    insert = insert_for_dialect(current_session().get_bind().dialect.name, AttemptCount).values(new)
    columns = (AttemptCount.policy, AttemptCount.subject_hash, AttemptCount.state)
    # An update that changes nothing: it locks what is there, and tells it.
    found = insert.on_conflict_do_update(
        index_elements=columns[:2], set_={"policy": insert.excluded.policy}
    ).returning(*columns)
    return {(policy, subject): state for policy, subject, state in current_session().execute(found)}


def _to_row(attempt: Attempt, state: int) -> dict[str, Any]:
    return {"policy": attempt.policy.name, "subject_hash": attempt.subject_hash, "state": state}


def _to_datetime(now: int) -> datetime:
    return datetime.fromtimestamp(now / 1000, UTC)


def delete_expired_attempts(database: Database, now: datetime) -> None:
    """Delete the counts that are back at zero, and the known addresses that have expired."""
    count_key = (AttemptCount.policy, AttemptCount.subject_hash)
    delete_in_batches(database, count_key, AttemptCount.state < int(now.timestamp() * 1_000_000))
    address_key = (KnownAddress.user_id, KnownAddress.address_hash)
    delete_in_batches(database, address_key, KnownAddress.expires_at < now)
