"""Entity tags: a state is read once, and changed only by who has seen it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support import factories

ClientFactory = Callable[[Any], Any]


@pytest.fixture
def brand(client_for: ClientFactory) -> tuple[Any, str, str]:
    """Who owns a brand, the brand's path and its tag."""
    user = factories.make_user()
    path = f"/brands/{factories.make_brand(owner_id=user.id, name='Atelier Nord').id}"
    ask = client_for(user)
    return ask, path, ask("GET", path).headers["etag"]


def test_a_known_state_is_not_sent_again(brand: tuple[Any, str, str]) -> None:
    ask, path, etag = brand
    reply = ask("GET", path, headers={"if-none-match": f'"x", W/{etag}'})
    assert (reply.status, reply.body, reply.headers["etag"]) == (304, b"", etag)


def test_a_change_with_the_current_tag_is_made_and_gives_the_next_tag(brand: tuple[Any, str, str]) -> None:
    ask, path, etag = brand
    changed = ask("PATCH", path, as_json={"name": "Atelier Sud"}, headers={"if-match": etag})
    assert changed.status == 200
    read = ask("GET", path)
    assert read.headers["etag"] == changed.headers["etag"] != etag
    assert read.body == changed.body


@pytest.mark.parametrize("header", ['"other"', "nonsense", "W/{}", '"', ""])
@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_any_other_tag_is_412_and_changes_nothing(
    brand: tuple[Any, str, str], method: str, header: str
) -> None:
    ask, path, etag = brand
    body = {"name": "Atelier Sud"} if method == "PATCH" else None
    reply = ask(method, path, as_json=body, headers={"if-match": header.format(etag)})
    assert (reply.status, reply.json()["code"]) == (412, "precondition_failed")
    assert ask("GET", path).headers["etag"] == etag


@pytest.mark.parametrize("header", ["*", '"other", {}', "{}"])
def test_a_star_or_a_list_with_the_tag_matches(brand: tuple[Any, str, str], header: str) -> None:
    ask, path, etag = brand
    reply = ask("PATCH", path, as_json={"name": "Sud"}, headers={"if-match": header.format(etag)})
    assert reply.status == 200


def test_the_tag_does_not_depend_on_who_reads(client_for: ClientFactory, brand: tuple[Any, str, str]) -> None:
    _ask, path, etag = brand
    assert client_for(factories.make_user(is_superuser=True))("GET", path).headers["etag"] == etag
