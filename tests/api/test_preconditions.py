"""Entity tags: unchanged rows are not sent again, and updates require the current tag."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support import factories

ClientFactory = Callable[[Any], Any]


@pytest.fixture
def brand(client_for: ClientFactory) -> tuple[Any, str, str]:
    """Return a client of the owner of a brand, the path of the brand and its ETag."""
    user = factories.make_user()
    path = f"/brands/{factories.make_brand(owner_id=user.id, name='Atelier Nord').id}"
    client = client_for(user)
    return client, path, client("GET", path).headers["etag"]


def test_an_unchanged_row_is_not_sent_again(brand: tuple[Any, str, str]) -> None:
    client, path, etag = brand
    response = client("GET", path, headers={"if-none-match": f'"x", W/{etag}'})
    assert (response.status, response.body, response.headers["etag"]) == (304, b"", etag)


def test_an_update_with_the_current_tag_returns_the_new_tag(brand: tuple[Any, str, str]) -> None:
    client, path, etag = brand
    changed = client("PATCH", path, as_json={"name": "Atelier Sud"}, headers={"if-match": etag})
    assert changed.status == 200
    read = client("GET", path)
    assert read.headers["etag"] == changed.headers["etag"] != etag
    assert read.body == changed.body
    assert client("DELETE", path, headers={"if-match": changed.headers["etag"]}).status == 204


@pytest.mark.parametrize("header", ['"other"', "nonsense", "W/{}", '"', ""])
@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_any_other_tag_returns_412_and_changes_nothing(
    brand: tuple[Any, str, str], method: str, header: str
) -> None:
    client, path, etag = brand
    body = {"name": "Atelier Sud"} if method == "PATCH" else None
    response = client(method, path, as_json=body, headers={"if-match": header.format(etag)})
    assert (response.status, response.json()["code"]) == (412, "precondition_failed")
    assert client("GET", path).headers["etag"] == etag


@pytest.mark.parametrize("header", ["*", '"other", {}', "{}"])
def test_a_star_or_a_list_with_the_tag_matches(brand: tuple[Any, str, str], header: str) -> None:
    client, path, etag = brand
    response = client("PATCH", path, as_json={"name": "Sud"}, headers={"if-match": header.format(etag)})
    assert response.status == 200


def test_the_tag_does_not_depend_on_the_caller(
    client_for: ClientFactory, brand: tuple[Any, str, str]
) -> None:
    _client, path, etag = brand
    assert client_for(factories.make_user(is_superuser=True))("GET", path).headers["etag"] == etag
