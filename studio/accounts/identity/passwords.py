"""Passwords become Argon2id hashes, with the parameters that OWASP's cheat sheet names for servers.

Checking takes the same time whether or not there is an account to check against. Common passwords and those
that this repository publishes cannot be chosen (OWASP ASVS 5.0.0, 6.2.4).
"""

from __future__ import annotations

import secrets
from functools import cache

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from db.errors import Conflict

PUBLISHED_PASSWORDS = {
    "demo@example.com": "sartiq-demo",
    "second@example.com": "sartiq-second",
    "admin@example.com": "sartiq-admin",
}
"""The seeded accounts by address, in the order of their ids. README and contract print these passwords."""

_hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1, type=Type.ID)
# Of a password that nobody knows: what unknown addresses are checked against.
_DUMMY_HASH = _hasher.hash(secrets.token_urlsafe())


@cache
def _common_passwords() -> frozenset[str]:
    """30,000 of them, in lower case; 11,611 have the eight characters that the contract asks for."""
    # With the first password that somebody chooses: 14 MB that a server may never need.
    from zxcvbn.frequency_lists import FREQUENCY_LISTS

    return frozenset(FREQUENCY_LISTS["passwords"])


class PasswordTooCommon(Conflict):
    """The new password is one of those that everybody tries first."""

    code = "password_too_common"
    default_detail = "The password is too common"


def hash_new_password(password: str) -> str:
    """The hash of a password that somebody chose just now; PasswordTooCommon, in whatever letter case."""
    lowered = password.lower()
    if lowered in PUBLISHED_PASSWORDS.values() or lowered in _common_passwords():
        raise PasswordTooCommon()
    return hash_password(password)


def unusable_hash() -> str:
    """Return the hash of a random password. Checking against it takes as long as for any other account."""
    return hash_password(secrets.token_urlsafe())


def hash_password(password: str) -> str:
    """The hash to store, which names its own parameters and salt."""
    return _hasher.hash(password)


def verify_password(hashed: str | None, password: str) -> bool:
    """Whether the password is the hashed one; None stands for an unknown account and costs as much."""
    try:
        _hasher.verify(hashed or _DUMMY_HASH, password)
    except (VerificationError, InvalidHashError):
        return False
    return hashed is not None


def needs_rehash(hashed: str) -> bool:
    """Whether the hash was made with other parameters than those of today."""
    return _hasher.check_needs_rehash(hashed)
