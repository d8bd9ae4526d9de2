"""The client's own keys of products, shootings, looks and shots: `external_id` and `metadata`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from db.models import AuditEvent
from handlers.app import Application
from studio.catalog.custom_metadata import MAX_KEYS
from tests.support import factories
from tests.support.client import status_and_code
from tests.support.concurrency import run_concurrently
from tests.support.factories.catalog import Customer

Make = Callable[[Customer], dict[str, Any]]


def make_shooting(customer: Customer) -> dict[str, Any]:
    return customer.create("/shootings/", {"name": "Spring"})


def make_look(customer: Customer) -> dict[str, Any]:
    product = customer.create("/products/", {"name": "Dress"})
    shot_type = factories.make_shot_type(organization=customer.organization)
    path = f"/shootings/{make_shooting(customer)['id']}/looks"
    body = {"main_product_id": product["id"], "shot_type_ids": [str(shot_type.id)]}
    look: dict[str, Any] = customer.client("POST", path, body).json()
    return look


def make_shot(customer: Customer) -> dict[str, Any]:
    shot: dict[str, Any] = customer.client("GET", f"/shots/{make_look(customer)['shots'][0]['id']}").json()
    return shot


RESOURCES: dict[str, tuple[Make, str]] = {
    "product": (lambda customer: customer.create("/products/", {"name": "Dress"}), "/products/{id}"),
    "shooting": (make_shooting, "/shootings/{id}"),
    "look": (make_look, "/shootings/{shooting_id}/looks/{id}"),
    "shot": (make_shot, "/shots/{id}"),
}
ALL = pytest.mark.parametrize(("make", "path"), RESOURCES.values(), ids=RESOURCES)


@ALL
def test_a_resource_has_no_keys_until_it_gets_some(customer: Customer, make: Make, path: str) -> None:
    row = make(customer)
    assert (row["external_id"], row["metadata"]) == (None, {})
    body = {"external_id": "shop-1", "metadata": {"size": "M", "color": "sand"}}
    updated = customer.client("PATCH", path.format(**row), body)
    assert {name: updated.json()[name] for name in body} == body
    assert customer.client("GET", path.format(**row)).json() == updated.json()


@ALL
def test_an_external_id_is_unique_per_type_and_tenant(customer: Customer, make: Make, path: str) -> None:
    first, second = make(customer), make(customer)
    assert customer.client("PATCH", path.format(**first), {"external_id": "shop-1"}).status == 200
    taken = customer.client("PATCH", path.format(**second), {"external_id": "shop-1"})
    assert status_and_code(taken) == (409, "external_id_taken")
    for free in ("SHOP-1", None):
        assert customer.client("PATCH", path.format(**second), {"external_id": free}).status == 200
    assert customer.client("PATCH", path.format(**first), {"external_id": None}).status == 200
    assert customer.client("PATCH", path.format(**second), {"external_id": "shop-1"}).status == 200


@ALL
def test_a_patch_merges_the_metadata(customer: Customer, make: Make, path: str) -> None:
    row = make(customer)

    def patch(metadata: dict[str, Any]) -> dict[str, Any]:
        response = customer.client("PATCH", path.format(**row), {"metadata": metadata})
        assert response.status == 200, response.body
        merged: dict[str, Any] = response.json()
        return merged

    assert patch({"b": "1", "a": "2"})["metadata"] == {"a": "2", "b": "1"}
    before = patch({"c": "3"})
    assert before["metadata"] == {"a": "2", "b": "1", "c": "3"}
    assert patch({"b": None, "unknown": None, "a": "new"})["metadata"] == {"a": "new", "c": "3"}
    assert patch({})["metadata"] == {"a": "new", "c": "3"}


@pytest.mark.parametrize("path", ["/products/", "/shootings/"])
def test_keys_can_be_given_on_creation(customer: Customer, path: str) -> None:
    body = {"name": "Dress", "external_id": "shop-1", "metadata": {"size": "M"}}
    row = customer.create(path, body)
    assert {name: row[name] for name in body} == body
    response = customer.client("POST", f"{path}{customer.organization_query}", body)
    assert status_and_code(response) == (409, "external_id_taken")
    # A personal resource and one of another organization belong to other tenants.
    assert customer.client("POST", path, body).status == 201
    assert status_and_code(customer.client("POST", path, body)) == (409, "external_id_taken")
    other = factories.make_organization(customer.owner)
    assert customer.client("POST", f"{path}?organization_id={other.id}", body).status == 201


def test_a_look_can_be_created_with_keys_and_names_those_of_its_shots(customer: Customer) -> None:
    look = make_look(customer)
    body = {"main_product_id": look["main_product_id"], "shot_type_ids": look["shot_type_ids"]}
    keys = {"external_id": "look-1", "metadata": {"page": "12"}}
    path = f"/shootings/{look['shooting_id']}/looks"
    created = customer.client("POST", path, {**body, **keys}).json()
    assert {name: created[name] for name in keys} == keys
    assert status_and_code(customer.client("POST", path, {**body, **keys})) == (409, "external_id_taken")
    customer.client("PATCH", f"/shots/{created['shots'][0]['id']}", {"external_id": "shot-1"})
    (listed,) = [row for row in customer.client("GET", path).json()["data"] if row["id"] == created["id"]]
    assert listed == customer.client("GET", f"{path}/{created['id']}").json()
    assert listed["shots"] == [{**created["shots"][0], "external_id": "shot-1"}]


@pytest.mark.parametrize(
    "external_id",
    [".", "..", "", "a b", "a/b", "a%2Fb", "\N{LATIN SMALL LETTER E WITH ACUTE}", "a" * 129, "a\n"],
)
def test_an_external_id_that_no_path_can_contain_is_rejected(customer: Customer, external_id: str) -> None:
    body = {"name": "Dress", "external_id": external_id}
    response = customer.client("POST", f"/products/{customer.organization_query}", body)
    assert response.error_types.keys() == {("body", "external_id")}


@pytest.mark.parametrize("external_id", ["...", ".a", "..a", "a.", "A~1:2@b+c_d-e", "a" * 128])
def test_an_external_id_has_unreserved_and_a_few_more_characters(
    customer: Customer, external_id: str
) -> None:
    assert customer.create("/products/", {"name": "Dress", "external_id": external_id})


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        "text",
        {"a": 1},
        {"a": {"b": "c"}},
        {"a": "x" * 501},
        {"a": "\0"},
        {"": "x"},
        {"k" * 41: "x"},
        {"a:b": "x"},
        {"a\0": "x"},
        {"a\0": {"b\0": 1}},
        {"k" * 5000: 1},
        {f"key{number}": "x" for number in range(MAX_KEYS + 1)},
    ],
)
def test_metadata_maps_short_keys_to_texts(customer: Customer, metadata: Any) -> None:
    product = customer.create("/products/", {"name": "Dress"})
    for method, path in (
        ("POST", f"/products/{customer.organization_query}"),
        ("PATCH", f"/products/{product['id']}"),
    ):
        response = customer.client(method, path, {"name": "Dress", "metadata": metadata})
        assert response.status == 422, response.body
        assert {loc[:2] for loc in response.error_types} == {("body", "metadata")}
    assert customer.client("GET", f"/products/{product['id']}").json() == product


def test_a_wrong_key_of_metadata_is_named(customer: Customer) -> None:
    metadata = {"a:b": "x", "k" * 41: "x", "right": "x"}
    response = customer.client(
        "POST", f"/products/{customer.organization_query}", {"name": "Dress", "metadata": metadata}
    )
    violations = {
        violation["pointer"]: (violation["type"], violation["msg"]) for violation in response.json()["detail"]
    }
    assert violations == {
        "/metadata/a:b": (
            "string_pattern_mismatch",
            "The name must be a key without a colon, such as `season`",
        ),
        "/metadata/" + "k" * 41: ("string_too_long", "The name must have at most 40 characters"),
    }


def test_metadata_has_at_most_fifty_keys_after_a_patch(customer: Customer) -> None:
    metadata = {f"key{number}": "x" * 500 for number in range(MAX_KEYS)}
    product = customer.create("/products/", {"name": "Dress", "metadata": metadata})
    path = f"/products/{product['id']}"
    response = customer.client("PATCH", path, {"metadata": {"more": "x"}})
    assert status_and_code(response) == (409, "too_many_metadata_keys")
    assert (response.json()["pointer"], response.json()["limit"]) == ("/metadata", MAX_KEYS)
    replaced = customer.client("PATCH", path, {"metadata": {"more": "x", "key0": None}})
    assert len(replaced.json()["metadata"]) == MAX_KEYS


def test_concurrent_patches_of_different_keys_are_all_kept(customer: Customer) -> None:
    product = customer.create("/products/", {"name": "Dress"})
    path = f"/products/{product['id']}"
    patches = [
        lambda key=key: customer.client("PATCH", path, {"metadata": {key: "x"}}).status for key in "abcd"
    ]
    assert run_concurrently(*patches) == [200] * 4
    assert customer.client("GET", path).json()["metadata"] == dict.fromkeys("abcd", "x")


def test_a_metadata_change_is_logged_under_its_public_name(customer: Customer, app: Any) -> None:
    product = customer.create("/products/", {"name": "Dress", "metadata": {"a": "1"}})
    customer.client("PATCH", f"/products/{product['id']}", {"metadata": {"a": "2"}})
    with app.database.transaction(write=False) as session:
        event = session.query(AuditEvent).filter_by(action="update_product").one()
    assert [change["field"] for change in event.changes] == ["metadata"]


FILTERED = pytest.mark.parametrize("name", ["products", "shootings", "looks", "shots"])


def make_labeled(customer: Customer, name: str, **values: Any) -> Any:
    organization = customer.organization
    match name:
        case "products":
            return factories.make_product(organization=organization, **values)
        case "shootings":
            return factories.make_shooting(organization=organization, **values)
        case "looks":
            shot_type = factories.make_shot_type(organization=organization)
            shooting = factories.make_shooting(organization=organization)
            return factories.make_look(shooting, shot_type_ids=[shot_type.id], **values)
    look = factories.make_look(factories.make_shooting(organization=organization))
    return factories.make_shot(look, **values)


def find_by_metadata(customer: Customer, name: str, row: Any, pair: str) -> list[str]:
    if name == "looks":
        path = f"/shootings/{row.shooting_id}/looks?limit=100"
    else:
        path = f"/{name}/{customer.organization_query}"
    page = customer.client("GET", f"{path}&metadata={quote(pair)}").json()
    assert page["count"] == len(page["data"])
    return [found["id"] for found in page["data"]]


@FILTERED
def test_a_list_is_filtered_by_a_pair_of_the_metadata(customer: Customer, name: str) -> None:
    row = make_labeled(customer, name, custom_metadata={"a": "x:y & z", "b": "2"})
    make_labeled(customer, name, custom_metadata={"a": "2", "b": "x:y & z"})
    assert find_by_metadata(customer, name, row, "a:x:y & z") == [str(row.id)]
    assert find_by_metadata(customer, name, row, "a:X:y & z") == []
    path = f"/shootings/{row.shooting_id}/looks/{row.id}" if name == "looks" else f"/{name}/{row.id}"
    body = {"metadata": {"a": None, "c": "3"}}
    assert customer.client("PATCH", path, body).status == 200
    found = {
        pair: find_by_metadata(customer, name, row, pair) == [str(row.id)]
        for pair in ("a:x:y & z", "b:2", "c:3")
    }
    assert found == {"a:x:y & z": False, "b:2": True, "c:3": True}
    if name != "shots":
        assert customer.client("DELETE", path).status == 204
        assert find_by_metadata(customer, name, row, "c:3") == []


def test_the_metadata_filter_finds_only_rows_of_the_list(customer: Customer, app: Application) -> None:
    pair = {"a": "1"}
    own = factories.make_product(organization=customer.organization, custom_metadata=pair)
    personal = factories.make_product(owner=customer.owner, custom_metadata=pair)
    public = factories.make_product(public=True, custom_metadata=pair)
    factories.make_product(custom_metadata=pair)
    assert find_by_metadata(customer, "products", own, "a:1") == [str(own.id)]
    mine = customer.client("GET", "/products/?metadata=a:1").json()["data"]
    assert [row["id"] for row in mine] == [str(personal.id)]
    path = f"/products/{customer.organization_query}&metadata=a:1&include_public=true&sort=created_at"
    with_public = customer.client("GET", path).json()["data"]
    assert [row["id"] for row in with_public] == [str(own.id), str(public.id)]
    assert customer.client("GET", "/products/?metadata=a").error_types.keys() == {("query", "metadata")}


def test_metadata_entries_follow_their_rows_to_another_tenant(customer: Customer) -> None:
    product = factories.make_product(organization=customer.organization, custom_metadata={"a": "1"})
    other = factories.make_organization(customer.owner)
    response = customer.client("POST", f"/products/{product.id}/transfer", {"organization_id": str(other.id)})
    assert response.status == 200, response.body
    assert find_by_metadata(customer, "products", product, "a:1") == []
    moved = customer.client("GET", f"/products/?organization_id={other.id}&metadata=a:1").json()["data"]
    assert [row["id"] for row in moved] == [str(product.id)]
