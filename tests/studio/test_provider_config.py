"""Test provider settings: secrets are masked, and kept if an update omits them."""

from __future__ import annotations

from studio.providers.config import MASK, MAX_ENTRIES, mask_secrets, merge_secrets


def test_secrets_are_masked_by_their_names() -> None:
    config = {"region": "local", "API_KEY": "a", "refreshToken": "b", "password": "c", "client-secret": "d"}
    assert mask_secrets(config) == {"region": "local"} | dict.fromkeys(list(config)[1:], MASK)
    assert mask_secrets(None) is None


def test_secrets_are_kept_by_a_replacement_that_omits_them_or_repeats_the_mask() -> None:
    old = {"region": "local", "api_key": "a", "token": "b"}
    assert merge_secrets(None, old) == {"api_key": "a", "token": "b"}
    assert merge_secrets({"api_key": MASK, "token": "c"}, old) == {"api_key": "a", "token": "c"}
    assert merge_secrets({}, {"region": "local"}) == {}
    assert merge_secrets(None, None) is None


def test_kept_secrets_do_not_exceed_the_maximum_of_entries() -> None:
    new = {f"name{number}": "x" for number in range(MAX_ENTRIES)}
    assert merge_secrets(new, {"api_key": "a"}) == new
