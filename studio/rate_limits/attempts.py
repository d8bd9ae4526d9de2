"""Login throttling: count attempts with passwords, and requests for e-mails, in the database.

All processes share the counts, and a restart does not lose them. An account has one quota for all unknown
addresses, and one for each address from which its owner has logged in (NIST SP 800-63B, section 5.2.2). So
an attacker cannot lock out the owner by guessing.
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
from sqlalchemy.dialects.postgresql import insert

from db.models.attempts import AttemptCount, KnownAddress
from db.models.users import User, email_key
from db.queries.statements import delete_in_batches
from db.session import Database, current_session
from studio.rate_limits.limits import LimitUsage, QuotaPolicy

TRUSTED_FOR = timedelta(days=90)
"""How long an address is trusted after the last login."""


@dataclass(frozen=True)
class Attempt:
    """One unit of a limit for one subject."""

    policy: QuotaPolicy
    subject_hash: str

    @property
    def key(self) -> tuple[str, str]:
        """The primary key of the count."""
        return self.policy.name, self.subject_hash


def hash_subject(secret_key: str, *parts: str) -> str:
    """Return the keyed hash that is stored instead of an account or address."""
    return hmac.new(secret_key.encode(), "\0".join(("try", *parts)).encode(), "sha256").hexdigest()


def get_account_bucket(secret_key: str, email: str, address: str, now: int) -> str:
    """Return the subject that an attempt at an account counts for.

    It is the account with the address if the address is trusted, else the account alone. The statement is the
    same whether or not the account exists.
    """
    address_hash = hash_subject(secret_key, "address", address)
    known = (
        select(KnownAddress.user_id)
        .join(User, User.id == KnownAddress.user_id)
        .where(
            User.email_key == email_key(email),
            KnownAddress.address_hash == address_hash,
            KnownAddress.expires_at > _to_datetime(now),
        )
    )
    subject = ["account", email_key(email)]
    if current_session().scalar(known) is not None:
        subject.append(address_hash)
    return hash_subject(secret_key, *subject)


def trust_address(secret_key: str, user_id: UUID, address: str, now: int) -> None:
    """Give an account a quota of its own for an address from which its owner has logged in."""
    expires_at = _to_datetime(now) + TRUSTED_FOR
    values = {
        "user_id": user_id,
        "address_hash": hash_subject(secret_key, "address", address),
        "expires_at": expires_at,
    }
    keys = [KnownAddress.user_id, KnownAddress.address_hash]
    trusted = insert(KnownAddress).values(values)
    current_session().execute(
        trusted.on_conflict_do_update(index_elements=keys, set_={"expires_at": expires_at})
    )


def consume(attempts: Sequence[Attempt], now: int) -> list[LimitUsage]:
    """Take one unit for each attempt, or none if one of the attempts is not allowed.

    The counts stay locked until the end of the transaction.

    Args:
        attempts: The attempts.
        now: The time in milliseconds since 1970.

    Returns:
        The usage of each limit.
    """
    if not attempts:
        return []
    states = _lock_counts(attempts)
    outcomes = [attempt.policy.consume(states[attempt.key], now) for attempt in attempts]
    if all(usage.allowed for _, usage in outcomes):
        rows = [_to_row(attempt, state) for attempt, (state, _) in zip(attempts, outcomes, strict=True)]
        current_session().execute(update(AttemptCount), rows)
    return [usage for _, usage in outcomes]


def refund(attempts: Sequence[Attempt], now: int) -> list[LimitUsage]:
    """Return the units of attempts that succeeded. Counts that are back at zero are deleted."""
    if not attempts:
        return []
    states = _lock_counts(attempts)
    refunded = {attempt: states[attempt.key] - attempt.policy.emission_interval for attempt in attempts}
    rows = [_to_row(attempt, state) for attempt, state in refunded.items()]
    current_session().execute(update(AttemptCount), rows)
    unused = [attempt.key for attempt, state in refunded.items() if state <= now * 1000]
    current_session().execute(
        delete(AttemptCount).where(tuple_(AttemptCount.policy, AttemptCount.subject_hash).in_(unused))
    )
    return [attempt.policy.get_usage(state, now, Decision()) for attempt, state in refunded.items()]


def _lock_counts(attempts: Sequence[Attempt]) -> dict[tuple[str, str], int]:
    """Return the counts of these attempts, locked until the end of the transaction."""
    # Sorted, so that parallel requests lock them in the same order and cannot deadlock.
    new = sorted(
        (_to_row(attempt, 0) for attempt in attempts), key=lambda row: (row["policy"], row["subject_hash"])
    )
    counts = insert(AttemptCount).values(new)
    columns = (AttemptCount.policy, AttemptCount.subject_hash, AttemptCount.state)
    # An update that changes nothing locks an existing row and returns it.
    upsert = counts.on_conflict_do_update(
        index_elements=columns[:2], set_={"policy": counts.excluded.policy}
    ).returning(*columns)
    return {(policy, subject): state for policy, subject, state in current_session().execute(upsert)}


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
