"""Test password hashes, common passwords, and the time that a check takes for unknown accounts."""

from __future__ import annotations

import hashlib
import time
from statistics import median

import pytest
from argon2 import PasswordHasher

from studio.accounts.identity.passwords import (
    PUBLISHED_PASSWORDS,
    PasswordTooCommon,
    _common_passwords,
    hash_new_password,
    hash_password,
    needs_rehash,
    verify_password,
)
from studio.accounts.identity.tokens import generate_token, hash_token


@pytest.mark.usefixtures("real_password_hashes")
def test_a_hash_names_argon2id_and_the_parameters() -> None:
    assert hash_password("a-linen-dress").startswith("$argon2id$v=19$m=19456,t=2,p=1$")


@pytest.mark.parametrize(
    "password", ["a-linen-dress", "pässwörd 🔑", "\x01\u200b\uffff", "é", " " * 128, "🔑" * 128]
)
def test_any_text_can_be_a_password_and_no_other_text_matches_its_hash(password: str) -> None:
    hashed = hash_password(password)
    assert verify_password(hashed, password)
    assert not verify_password(hashed, password + "x")
    assert not verify_password(hashed, password[:-1])


def test_two_hashes_of_one_password_differ() -> None:
    assert hash_password("a-linen-dress") != hash_password("a-linen-dress")


@pytest.mark.parametrize("hashed", [None, "!", "", "$argon2id$v=19$broken"])
def test_no_password_matches_a_missing_or_broken_hash(hashed: str | None) -> None:
    assert not verify_password(hashed, "a-linen-dress")


@pytest.mark.usefixtures("real_password_hashes")
def test_a_check_takes_as_long_for_an_unknown_account_as_for_a_wrong_password() -> None:
    def measure(hashed: str | None) -> float:
        # CPU time, because other processes delay a check by more than its duration.
        spans = []
        for _ in range(9):
            start = time.process_time()
            verify_password(hashed, "wrong")
            spans.append(time.process_time() - start)
        return median(spans)

    known = measure(hash_password("a-linen-dress"))
    assert 0.5 < measure(None) / known < 2


@pytest.mark.usefixtures("real_password_hashes")
def test_a_hash_with_other_parameters_needs_a_rehash() -> None:
    assert not needs_rehash(hash_password("a-linen-dress"))
    assert needs_rehash(PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash("a-linen-dress"))


def test_the_list_of_common_passwords_is_the_complete_list_of_zxcvbn() -> None:
    listed = _common_passwords()
    assert len(listed) == 30_000
    assert sum(len(password) >= 8 for password in listed) == 11_611
    digest = hashlib.sha256("\n".join(sorted(listed)).encode()).hexdigest()
    # The digest of FREQUENCY_LISTS["passwords"] of zxcvbn-python 4.5.0.
    assert digest == "9d7f78b5e18f2ca8fee37aee43dd912e3c2ae4944f931922994f80a52fa808be"


@pytest.mark.parametrize("password", ["12345678", "Password", "TRUSTNO1", *PUBLISHED_PASSWORDS.values()])
def test_a_common_password_is_rejected_in_any_letter_case(password: str) -> None:
    with pytest.raises(PasswordTooCommon):
        hash_new_password(password)


def test_an_uncommon_password_is_accepted() -> None:
    assert verify_password(hash_new_password("a-linen-dress"), "a-linen-dress")


def test_tokens_are_random_and_stored_as_hashes() -> None:
    one, other = generate_token("rt"), generate_token("rt")
    assert one.startswith("rt_")
    assert len(one) == 46
    assert one != other
    assert hash_token(one) != one
    assert len(hash_token(one)) == 64
