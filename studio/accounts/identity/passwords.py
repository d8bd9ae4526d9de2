"""Hash and verify passwords with Argon2id, and reject passwords that are too common.

The parameters are those that OWASP's Password Storage Cheat Sheet names for servers. Verification takes the
same time whether or not the account exists. Common passwords and those that this repository publishes are
rejected (OWASP ASVS 5.0.0, 6.2.4).
"""

from __future__ import annotations

import secrets
from functools import cache
from pathlib import Path

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from db.errors import Conflict

PUBLISHED_PASSWORDS = {
    "demo@example.com": "sartiq-demo",
    "second@example.com": "sartiq-second",
    "admin@example.com": "sartiq-admin",
}
"""The seeded accounts by address, in the order of their ids. README and contract print these passwords."""

_COMMON_PASSWORDS_FILE = Path(__file__).with_name("common_passwords.txt")

_hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1, type=Type.ID)
# The hash of a random password. Passwords for unknown addresses are checked against it.
_DUMMY_HASH = _hasher.hash(secrets.token_urlsafe())


@cache
def _common_passwords() -> frozenset[str]:
    """Return 30,000 common passwords in lower case. 11,611 have the eight characters that the API wants."""
    # Loaded with the first new password: a server that never sets one saves 3 MB.
    return frozenset(_COMMON_PASSWORDS_FILE.read_text("ascii").splitlines())


class PasswordTooCommon(Conflict):
    """The new password is on the list of common passwords or published with the demo accounts."""

    code = "password_too_common"
    default_detail = "The password is too common"


def hash_new_password(password: str) -> str:
    """Hash a password that a user has chosen.

    Raises:
        PasswordTooCommon: The password is common or published, in any letter case.
    """
    lowered = password.lower()
    if lowered in PUBLISHED_PASSWORDS.values() or lowered in _common_passwords():
        raise PasswordTooCommon()
    return hash_password(password)


def unusable_hash() -> str:
    """Return the hash of a random password. Checking against it takes as long as for any other account."""
    return hash_password(secrets.token_urlsafe())


def hash_password(password: str) -> str:
    """Return the hash to store. It includes its parameters and its salt."""
    return _hasher.hash(password)


def verify_password(hashed: str | None, password: str) -> bool:
    """Return whether `password` matches a stored hash.

    None stands for an unknown account: the result is False and takes as long as a real check.
    """
    try:
        _hasher.verify(hashed or _DUMMY_HASH, password)
    except (VerificationError, InvalidHashError):
        return False
    return hashed is not None


def needs_rehash(hashed: str) -> bool:
    """Return whether a hash was created with parameters other than the current ones."""
    return _hasher.check_needs_rehash(hashed)
