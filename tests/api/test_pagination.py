"""Pages of a list: order, cursors, counts and filters, with the brands of one user."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from itsdangerous import URLSafeSerializer

from db.base import new_id
from db.models import Membership
from db.tenancy import RowFilter, RowFilterKind
from handlers.app import Application
from handlers.brands import BRANDS
from handlers.common.pagination import ListQuery
from handlers.schemas.organizations import MemberSchema
from tests.support import factories
from tests.support.client import status_and_code
from tests.support.factories.catalog import Customer

ClientFactory = Callable[[Any], Any]
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def request_as_owner(client_for: ClientFactory) -> Any:
    """Return a client of a user with seven brands; brands 3 and 4 have the same creation time."""
    user = factories.make_user()
    for number in range(7):
        moment = START + timedelta(hours=min(number, 3) if number < 5 else number)
        factories.make_brand(owner_id=user.id, name=f"Brand {number}", created_at=moment, updated_at=moment)
    return client_for(user)


def names(page: Any) -> list[str]:
    return [row["name"].removeprefix("Brand ") for row in page["data"]]


def follow_next_links(request: Any, query: str, count: int = 7) -> list[str]:
    """Follow the links from page to page and return the names on all pages."""
    collected: list[str] = []
    target = f"/brands/?{query}"
    while target:
        response = request("GET", target)
        assert response.json()["count"] == count
        collected += names(response.json())
        link = response.headers.get("link")
        assert (link is None) == (response.json()["next_cursor"] is None)
        target = link.split(">")[0].removeprefix("</api/v1") if link else ""
    return collected


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("sort", ["created_at", "updated_at", "name"])
def test_cursors_visit_each_row_once_in_both_directions(request_as_owner: Any, sort: str, limit: int) -> None:
    up = follow_next_links(request_as_owner, f"sort={sort}&limit={limit}")
    down = follow_next_links(request_as_owner, f"sort=-{sort}&limit={limit}")
    assert sorted(up) == list("0123456")
    assert up == down[::-1]


def test_the_default_order_is_newest_first(request_as_owner: Any) -> None:
    assert follow_next_links(request_as_owner, "limit=3") == follow_next_links(
        request_as_owner, "limit=100&sort=-created_at"
    )
    assert follow_next_links(request_as_owner, "limit=3")[:2] == ["6", "5"]


def test_created_and_deleted_rows_neither_repeat_nor_hide_others(request_as_owner: Any) -> None:
    first = request_as_owner("GET", "/brands/?limit=2").json()
    request_as_owner("POST", "/brands/", as_json={"name": "Newer than all"})
    request_as_owner("DELETE", f"/brands/{first['data'][0]['id']}")
    second = request_as_owner("GET", f"/brands/?limit=2&cursor={first['next_cursor']}").json()
    assert set(names(second)) == {"3", "4"}


@pytest.mark.parametrize("deep_offset", [500, 1])
def test_skip_counts_rows_and_a_cursor_takes_precedence(
    request_as_owner: Any, monkeypatch: pytest.MonkeyPatch, deep_offset: int
) -> None:
    monkeypatch.setattr("handlers.common.pagination.DEEP_OFFSET", deep_offset)
    first = request_as_owner("GET", "/brands/?limit=2&sort=name").json()
    assert names(request_as_owner("GET", "/brands/?limit=2&skip=5&sort=name").json()) == ["5", "6"]
    assert names(request_as_owner("GET", "/brands/?skip=100&sort=name").json()) == []
    both = request_as_owner("GET", f"/brands/?limit=2&skip=5&sort=name&cursor={first['next_cursor']}")
    assert names(both.json()) == ["2", "3"]


def test_an_invalid_cursor_returns_404(request_as_owner: Any) -> None:
    cursor = request_as_owner("GET", "/brands/?limit=2").json()["next_cursor"]
    changed = "B" if cursor[20] == "A" else "A"
    invalid = [
        f"{cursor[:20]}{changed}{cursor[21:]}",
        cursor[:-4],
        "abc",
        "a=b",
        "A" * 40,
        "...",
        f"{cursor}AAAA",
    ]
    for text in invalid:
        response = request_as_owner("GET", f"/brands/?limit=2&cursor={text}")
        assert status_and_code(response) == (404, "not_found"), text
        problem = response.json()
        assert (problem["parameter"], problem["detail"]) == (
            "cursor",
            "The cursor is not a `next_cursor` of this API: request the first page without `cursor`",
        )
    for other in (
        "/brands/?limit=2&sort=name",
        "/brands/?created_after=2026-01-01T00:00:00Z",
        "/shootings/?",
    ):
        response = request_as_owner("GET", f"{other}&cursor={cursor}")
        assert status_and_code(response) == (404, "not_found"), other
        problem = response.json()
        assert (problem["parameter"], problem["detail"]) == (
            "cursor",
            "The cursor belongs to another list, sort order or filter: repeat those of the first page",
        )


def test_a_cursor_of_a_list_with_public_rows_is_not_valid_for_the_list_without(customer: Customer) -> None:
    for name in ("Calm", "Bright"):
        factories.make_style(organization=customer.organization, name=name)
    path = f"/styles/{customer.organization_query}&limit=1"
    for included, other in (("true", "false"), ("false", "true")):
        first = customer.client("GET", f"{path}&include_public={included}").json()
        following = f"{path}&cursor={first['next_cursor']}&include_public="
        assert customer.client("GET", following + included).status == 200
        assert status_and_code(customer.client("GET", following + other)) == (404, "not_found")


def test_a_cursor_signed_with_another_key_or_for_another_purpose_returns_404(
    request_as_owner: Any, app: Application
) -> None:
    key, options = app.settings.secret_key, {"digest_method": hashlib.sha256}
    genuine = request_as_owner("GET", "/brands/?limit=2").json()["next_cursor"]
    position = URLSafeSerializer(key, salt="cursor", signer_kwargs=options).loads(genuine)

    def sign(secret_key: str, salt: str) -> str:
        return str(URLSafeSerializer(secret_key, salt=salt, signer_kwargs=options).dumps(position))

    assert request_as_owner("GET", f"/brands/?limit=2&cursor={sign(key, 'cursor')}").status == 200
    for cursor in (sign("another-secret-key-of-32-characters", "cursor"), sign(key, "share")):
        response = request_as_owner("GET", f"/brands/?limit=2&cursor={cursor}")
        assert status_and_code(response) == (404, "not_found")


def test_the_next_link_keeps_the_rest_of_the_query(request_as_owner: Any) -> None:
    response = request_as_owner("GET", "/brands/?limit=1&skip=1&q=brand%20&sort=name")
    cursor = response.json()["next_cursor"]
    assert response.headers["link"] == (
        f'</api/v1/brands/?limit=1&q=brand+&sort=name&cursor={cursor}>; rel="next"'
    )


def test_a_count_is_exact_until_a_search_reaches_the_cap(
    request_as_owner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handlers.common.pagination.MAX_EXACT_COUNT", 5)
    for query, count, exact in [
        ("limit=1", 7, True),
        ("created_after=2026-01-01T02:00:00Z", 4, True),
        ("created_after=2025-01-01T00:00:00Z", 5, False),
        ("q=Brand", 5, False),
        ("q=Brand 6", 1, True),
        ("created_after=2025-01-01T00:00:00Z&updated_after=2025-01-01T00:00:00Z", 5, False),
    ]:
        page = request_as_owner("GET", f"/brands/?{query.replace(' ', '%20')}").json()
        assert (page["count"], page["count_exact"]) == (count, exact), query


def test_a_search_takes_wildcards_literally(request_as_owner: Any) -> None:
    request_as_owner("POST", "/brands/", as_json={"name": "50% off_all\\now"})
    for q, count in [
        ("%", 0),
        ("5%", 0),
        ("0% o", 1),
        ("F_ALL", 1),
        ("l\\n", 1),
        ("50%25", 1),
        ("b_and", 0),
        ("brand", 7),
    ]:
        encoded = q if "%25" in q else quote(q)
        assert request_as_owner("GET", f"/brands/?q={encoded}").json()["count"] == count, q


def test_after_filters_exclude_the_given_time_and_may_match_nothing(
    request_as_owner: Any,
) -> None:
    late = request_as_owner("GET", "/brands/?created_after=2026-01-01T04:00:00Z&sort=name").json()
    assert names(late) == ["5", "6"]
    assert names(request_as_owner("GET", "/brands/?updated_after=2026-01-01T06:00:00Z").json()) == []
    empty = request_as_owner("GET", "/brands/?created_after=2100-01-01T00:00:00Z").json()
    assert empty == {"data": [], "count": 0, "count_exact": True, "next_cursor": None}


def test_the_longest_names_make_a_cursor_that_the_contract_accepts(client_for: ClientFactory) -> None:
    user = factories.make_user()
    for letter in ("😀", "\x01"):
        for number in range(2):
            factories.make_brand(owner_id=user.id, name=letter * 119 + str(number))
    assert len(follow_next_links(client_for(user), "limit=1&sort=name", count=4)) == 4


@pytest.mark.parametrize(
    "list_and_filter",
    [
        "products/brand_id",
        "shootings/brand_id",
        "shots/shooting_id",
        "shots/look_id",
        "shots/shot_type_id",
        "generations/shot_id",
        "predictions/shot_id",
        "predictions/generation_id",
        "predictions/shooting_id",
    ],
)
def test_filtering_by_an_invisible_id_returns_404_whether_or_not_it_exists(
    customer: Customer, list_and_filter: str
) -> None:
    resource, name = list_and_filter.split("/")
    make = {
        "brand_id": factories.make_brand,
        "shooting_id": factories.make_shooting,
        "look_id": factories.make_look,
        "shot_id": factories.make_shot,
        "shot_type_id": factories.make_shot_type,
        "generation_id": factories.make_generation,
    }[name]
    bodies = []
    for row_id in (make().id, new_id()):
        response = customer.client(
            "GET",
            f"/{resource}/{customer.organization_query}&{name}={row_id}",
            headers={"x-request-id": "one"},
        )
        assert status_and_code(response) == (404, "not_found")
        bodies.append(response.body)
    assert bodies[0] == bodies[1]


def test_a_count_covers_the_tenant_that_is_listed(customer: Customer, superuser: Any) -> None:
    """Count the caller's own rows, all rows for superusers, and an organization's rows for both."""
    factories.make_brand(owner_id=customer.owner.id)
    factories.make_brand(owner_id=customer.owner.id, organization_id=customer.organization.id)
    factories.make_brand()
    for client, query, count in (
        (customer.client, "", 1),
        (customer.client, customer.organization_query, 1),
        (superuser, "", 3),
        (superuser, customer.organization_query, 1),
    ):
        page = client("GET", f"/brands/{query}").json()
        assert (page["count"], len(page["data"])) == (count, count), (client, query)


@pytest.mark.parametrize("list_query", [BRANDS, ListQuery(Membership, MemberSchema)])
def test_a_list_without_any_filter_of_rows_raises(list_query: ListQuery) -> None:
    with pytest.raises(TypeError, match="needs a tenant filter, a parent or is_global"):
        next(list_query.read_page({}))


def test_a_list_with_an_unknown_filter_raises() -> None:
    with pytest.raises(TypeError, match="has no filter colour"):
        next(BRANDS.read_page({"colour": "red"}, RowFilter(RowFilterKind.EVERYTHING)))


def test_a_large_list_is_compressed_if_the_client_accepts_it(request_as_owner: Any) -> None:
    plain = request_as_owner("GET", "/brands/")
    assert "content-encoding" not in plain.headers
    assert (plain.headers["vary"], len(plain.body) > 1_000) == ("Accept-Encoding", True)
    for accepted in ("gzip", "br, gzip;q=0.8"):
        packed = request_as_owner("GET", "/brands/", headers={"accept-encoding": accepted})
        assert (packed.status, packed.headers["content-encoding"]) == (200, "gzip")
        assert int(packed.headers["content-length"]) == len(packed.body) < len(plain.body)
        assert json.loads(gzip.decompress(packed.body)) == plain.json()
    head = request_as_owner("HEAD", "/brands/", headers={"accept-encoding": "gzip"})
    assert (head.headers["content-length"], head.body) == (packed.headers["content-length"], b"")


@pytest.mark.parametrize("accepted", ["", "identity", "br", "gzip;q=0", "*;q=0, identity"])
def test_a_list_is_not_compressed_for_other_clients(request_as_owner: Any, accepted: str) -> None:
    response = request_as_owner("GET", "/brands/", headers={"accept-encoding": accepted})
    assert (response.status, "content-encoding" in response.headers) == (200, False)


def test_a_small_list_and_a_single_resource_are_not_compressed(request_as_owner: Any) -> None:
    small = request_as_owner("GET", "/brands/?limit=1", headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in small.headers
    brand = small.json()["data"][0]
    single = request_as_owner("GET", f"/brands/{brand['id']}", headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in single.headers
