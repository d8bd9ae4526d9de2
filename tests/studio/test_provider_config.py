"""Provider settings: secrets are masked, kept when they are left out, and never more than may be shown."""

from __future__ import annotations

from studio.providers.config import MASK, MAX_ENTRIES, mask_secrets, merge_secrets


def test_secrets_are_masked_by_their_names() -> None:
    config = {"region": "local", "API_KEY": "a", "refreshToken": "b", "password": "c", "client-secret": "d"}
    assert mask_secrets(config) == {"region": "local"} | dict.fromkeys(list(config)[1:], MASK)
    assert mask_secrets(None) is None


def test_secrets_survive_a_replacement_that_leaves_them_out_or_repeats_the_mask() -> None:
    old = {"region": "local", "api_key": "a", "token": "b"}
    assert merge_secrets(None, old) == {"api_key": "a", "token": "b"}
    assert merge_secrets({"api_key": MASK, "token": "c"}, old) == {"api_key": "a", "token": "c"}
    assert merge_secrets({}, {"region": "local"}) == {}
    assert merge_secrets(None, None) is None


def test_kept_secrets_fill_only_the_room_that_is_left() -> None:
    new = {f"name{number}": "x" for number in range(MAX_ENTRIES)}
    assert merge_secrets(new, {"api_key": "a"}) == new
