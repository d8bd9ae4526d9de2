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
from sqlalchemy.dialects import postgresql, sqlite

from db.models.tries import KnownAddress, TryCount
from db.models.users import User, email_key
from db.session import Database, session
from studio.limits.policies import Policy, Standing

KNOWN_FOR = timedelta(days=90)
"""After the last proof."""
FORGET_BATCH = 500

_INSERT: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


@dataclass(frozen=True)
class Try:
    """One unit of what somebody has of a limit."""

    policy: Policy
    subject_hash: str

    @property
    def key(self) -> tuple[str, str]:
        """What its count is found by."""
        return self.policy.name, self.subject_hash


def conceal(secret_key: str, *parts: str) -> str:
    """What is stored in place of who tried."""
    return hmac.new(secret_key.encode(), "\0".join(("try", *parts)).encode(), "sha256").hexdigest()


def share_of_account(secret_key: str, email: str, address: str, now: int) -> str:
    """Whose share a try at an account takes; the same statement whether or not there is such an account."""
    here = conceal(secret_key, "address", address)
    known = (
        select(KnownAddress.user_id)
        .join(User, User.id == KnownAddress.user_id)
        .where(
            User.email_key == email_key(email),
            KnownAddress.address_hash == here,
            KnownAddress.expires_at > _moment(now),
        )
    )
    share = ["account", email_key(email)]
    if session().scalar(known) is not None:
        share.append(here)
    return conceal(secret_key, *share)


def remember_address(secret_key: str, user_id: UUID, address: str, now: int) -> None:
    """Give an account a share of its own at an address from where somebody has proved to be its owner."""
    until = _moment(now) + KNOWN_FOR
    insert = _INSERT[session().get_bind().dialect.name](KnownAddress)
    values = {
        "user_id": user_id,
        "address_hash": conceal(secret_key, "address", address),
        "expires_at": until,
    }
    keys = [KnownAddress.user_id, KnownAddress.address_hash]
    session().execute(
        insert.values(values).on_conflict_do_update(index_elements=keys, set_={"expires_at": until})
    )


def spend(tries: Sequence[Try], now: int) -> list[Standing]:
    """Take one unit for each try, at `now` in milliseconds since 1970, and say how things stand then.

    When one of them is not allowed, nothing is taken. Others who try wait for the end of the transaction.
    """
    if not tries:
        return []
    states = _locked(tries)
    outcomes = [one.policy.spend(states[one.key], now) for one in tries]
    if all(standing.allowed for _, standing in outcomes):
        spent = [_columns(one, state) for one, (state, _) in zip(tries, outcomes, strict=True)]
        session().execute(update(TryCount), spent)
    return [standing for _, standing in outcomes]


def give_back(tries: Sequence[Try], now: int) -> list[Standing]:
    """Undo `spend` for tries that turned out to be good; who has no wrong ones leaves nothing behind."""
    if not tries:
        return []
    states = _locked(tries)
    left = {one: states[one.key] - one.policy.emission for one in tries}
    session().execute(update(TryCount), [_columns(one, state) for one, state in left.items()])
    whole = [one.key for one, state in left.items() if state <= now * 1000]
    session().execute(delete(TryCount).where(tuple_(TryCount.policy, TryCount.subject_hash).in_(whole)))
    return [one.policy.standing(state, now, Decision()) for one, state in left.items()]


def _locked(tries: Sequence[Try]) -> dict[tuple[str, str], int]:
    """The counts of these tries, which nobody else changes before the end of the transaction."""
    # In one order for all, so that two who try never wait for each other.
    new = sorted((_columns(one, 0) for one in tries), key=lambda row: (row["policy"], row["subject_hash"]))
    insert = _INSERT[session().get_bind().dialect.name](TryCount).values(new)
    columns = (TryCount.policy, TryCount.subject_hash, TryCount.state)
    # An update that changes nothing: it locks what is there, and tells it.
    found = insert.on_conflict_do_update(
        index_elements=columns[:2], set_={"policy": insert.excluded.policy}
    ).returning(*columns)
    return {(policy, subject): state for policy, subject, state in session().execute(found)}


def _columns(one: Try, state: int) -> dict[str, Any]:
    return {"policy": one.policy.name, "subject_hash": one.subject_hash, "state": state}


def _moment(now: int) -> datetime:
    return datetime.fromtimestamp(now / 1000, UTC)


def forget_tries(database: Database, now: datetime) -> None:
    """Delete the counts of which nothing is spent any more, and the addresses that were known long enough."""
    keys = (TryCount.policy, TryCount.subject_hash)
    _forget(database, keys, TryCount.state < int(now.timestamp() * 1_000_000))
    _forget(database, (KnownAddress.user_id, KnownAddress.address_hash), KnownAddress.expires_at < now)


def _forget(database: Database, keys: tuple[Any, Any], over: Any) -> None:
    """Delete rows some at a time; those that somebody is about to change are left."""
    model, more = keys[0].class_, True
    while more:
        with database.transaction(write=True) as writing:
            some = select(*keys).where(over).limit(FORGET_BATCH).with_for_update(skip_locked=True)
            found = [tuple(row) for row in writing.execute(some)]
            writing.execute(delete(model).where(tuple_(*keys).in_(found)))
            more = len(found) == FORGET_BATCH
