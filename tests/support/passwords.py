"""Hash passwords with cheap parameters in the process of the tests.

A real hash takes 30 ms of CPU on purpose. Tests of the hashes and of their time use `real_password_hashes`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from argon2 import PasswordHasher

from studio.accounts.identity import passwords

ADDRESS, PASSWORD = "dana@example.com", "a-linen-dress-in-may"
"""What the fixture `user` signs in with."""

_REAL = passwords._hasher, passwords._DUMMY_HASH


def use_cheap_hashes() -> None:
    """Hash with the smallest parameters of Argon2id from now on."""
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    passwords._hasher, passwords._DUMMY_HASH = cheap, cheap.hash("no account")


@contextmanager
def real_hashes() -> Iterator[None]:
    """Hash as the server does, within the block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "_hasher", _REAL[0])
        patch.setattr(passwords, "_DUMMY_HASH", _REAL[1])
        yield
