"""Passwords: what is stored, and that unknown accounts cost as much as known ones."""

from __future__ import annotations

import time
from statistics import median

import pytest
from argon2 import PasswordHasher

from studio.accounts.identity.passwords import hash_password, needs_rehash, verify_password
from studio.accounts.identity.tokens import generate_token, hash_token


def test_a_hash_names_argon2id_and_the_parameters() -> None:
    assert hash_password("a-linen-dress").startswith("$argon2id$v=19$m=19456,t=2,p=1$")


@pytest.mark.parametrize(
    "password", ["a-linen-dress", "pässwörd 🔑", "\x01\u200b\uffff", "é", " " * 128, "🔑" * 128]
)
def test_any_text_is_a_password_and_only_itself_opens(password: str) -> None:
    hashed = hash_password(password)
    assert verify_password(hashed, password)
    assert not verify_password(hashed, password + "x")
    assert not verify_password(hashed, password[:-1])


def test_two_hashes_of_one_password_differ() -> None:
    assert hash_password("a-linen-dress") != hash_password("a-linen-dress")


@pytest.mark.parametrize("hashed", [None, "!", "", "$argon2id$v=19$broken"])
def test_without_a_usable_hash_no_password_opens(hashed: str | None) -> None:
    assert not verify_password(hashed, "a-linen-dress")


def test_an_unknown_account_costs_as_much_as_a_wrong_password() -> None:
    def cost(hashed: str | None) -> float:
        spans = []
        for _ in range(15):
            start = time.perf_counter()
            verify_password(hashed, "wrong")
            spans.append(time.perf_counter() - start)
        return min(spans) * 0.5 + median(spans) * 0.5

    known = cost(hash_password("a-linen-dress"))
    assert 0.5 < cost(None) / known < 2


def test_other_parameters_ask_for_a_new_hash() -> None:
    assert not needs_rehash(hash_password("a-linen-dress"))
    assert needs_rehash(PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash("a-linen-dress"))


def test_tokens_are_random_and_stored_as_something_else() -> None:
    one, other = generate_token("rt"), generate_token("rt")
    assert one.startswith("rt_")
    assert len(one) == 46
    assert one != other
    assert hash_token(one) != one
    assert len(hash_token(one)) == 64
