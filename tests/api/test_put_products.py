"""Products by their external id: read, create and replace, with preconditions and at the same moment."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from sqlalchemy import select

from db.models import AuditEvent, Product
from handlers.app import Application
from studio.products import products
from tests.api.conftest import Client, CommittingServer
from tests.support import factories
from tests.support.client import ClientResponse, status_and_code
from tests.support.concurrency import PausedCall, run_concurrently
from tests.support.factories.catalog import Customer, post_form
from tests.support.sample_media import build_orientation_image, encode_image

PHOTO = encode_image(build_orientation_image(120, 80), "JPEG")
FULL = {
    "name": "Linen wrap dress",
    "sku": "AN-1",
    "description": "A dress.",
    "category": "dresses",
    "gender": "FEMALE",
    "materials": "linen",
    "color": "sand",
    "state": "ARCHIVED",
    "metadata": {"season": "spring"},
}


def put(customer: Customer, body: dict[str, Any], key: str = "shop-1", **headers: str) -> Any:
    path = f"/products/by-external-id/{key}{customer.organization_query}"
    return customer.client(
        "PUT", path, body, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


def get(customer: Customer, key: str = "shop-1") -> Any:
    return customer.client("GET", f"/products/by-external-id/{key}{customer.organization_query}")


def test_a_put_creates_a_product_with_its_defaults(customer: Customer) -> None:
    response = put(customer, {"name": "Dress"})
    product = response.json()
    assert (response.status, response.headers["location"]) == (201, f"/api/v1/products/{product['id']}")
    expected = dict.fromkeys(FULL) | {"name": "Dress", "state": "READY", "metadata": {}}
    assert {name: product[name] for name in FULL} == expected
    assert (product["external_id"], product["owner_id"]) == ("shop-1", str(customer.owner.id))
    found = get(customer)
    assert (found.json(), found.headers["etag"]) == (product, response.headers["etag"])
    assert customer.client("GET", f"/products/{product['id']}").json() == product


def test_a_put_replaces_all_properties(customer: Customer) -> None:
    first = put(customer, FULL).json()
    assert {name: first[name] for name in FULL} == FULL
    brand = customer.create("/brands/", {"name": "Atelier"})
    second = put(customer, {"name": "Coat", "brand_id": brand["id"], "metadata": {"page": "1"}})
    expected = {
        **dict.fromkeys(FULL), "name": "Coat", "state": "READY", "metadata": {"page": "1"},
        "brand_id": brand["id"], "id": first["id"],
    }  # fmt: skip
    assert second.status == 200
    assert {name: second.json()[name] for name in expected} == expected


def test_the_same_put_again_changes_nothing(customer: Customer) -> None:
    first = put(customer, FULL)
    second = put(customer, FULL)
    assert (second.status, second.json(), second.headers["etag"]) == (
        200,
        first.json(),
        first.headers["etag"],
    )


def test_a_put_keeps_the_images_and_sets_the_cover(customer: Customer) -> None:
    product = put(customer, FULL).json()
    path = f"/products/{product['id']}/images"
    front = post_form(customer.client, path, PHOTO, type="front").json()
    primary = post_form(customer.client, path, PHOTO, type="primary").json()
    for body, cover in (({}, primary), ({"cover_image": front["url"]}, front), ({}, primary)):
        replaced = put(customer, {**FULL, **body}).json()
        assert (replaced["cover_image"], replaced["images"]) == (cover["url"], [front, primary])
    assert put(customer, {**FULL, "cover_image": None}).json()["cover_image"] is None


def test_preconditions_of_a_put_are_compared(customer: Customer) -> None:
    assert put(customer, FULL, If_Match="*").status == 412
    created = put(customer, FULL, If_None_Match="*")
    assert created.status == 201
    etag = created.headers["etag"]
    assert status_and_code(put(customer, FULL, If_None_Match="*")) == (412, "precondition_failed")
    assert put(customer, FULL, If_None_Match=etag).status == 412
    assert put(customer, FULL, If_None_Match='"other"').status == 200
    changed = put(customer, {"name": "Coat"}, If_Match=etag)
    assert (changed.status, changed.headers["etag"] != etag) == (200, True)
    assert put(customer, FULL, If_Match=etag).status == 412
    assert get(customer).json() == changed.json()


def test_the_external_id_is_case_sensitive_and_of_one_tenant(customer: Customer, client_for: Any) -> None:
    keys = ("a", "A", "images", "...", "x:y@z~+")
    ids = {put(customer, {"name": "Dress"}, key).json()["id"] for key in keys}
    assert len(ids) == 5
    personal = customer.client("PUT", "/products/by-external-id/a", {"name": "Mine"})
    assert (personal.status, personal.json()["organization_id"]) == (201, None)
    assert customer.client("GET", "/products/by-external-id/a").json() == personal.json()
    stranger: Client = client_for(factories.make_user())
    assert status_and_code(stranger("GET", "/products/by-external-id/a")) == (404, "not_found")
    path = f"/products/by-external-id/a{customer.organization_query}"
    assert (stranger("GET", path).status, stranger("PUT", path, {"name": "X"}).status) == (404, 404)
    assert get(customer, "unknown").json()["parameter"] == "external_id"


def test_the_audit_log_names_the_product_by_its_id(customer: Customer, app: Application) -> None:
    key = "01990000-5eed-7000-8000-000500000001"
    product = put(customer, {"name": "Dress"}, key).json()
    put(customer, {"name": "Coat"}, key)
    with app.database.transaction(write=False) as session:
        written = select(AuditEvent).where(AuditEvent.action == "put_product_by_external_id")
        events = session.scalars(written.order_by(AuditEvent.created_at)).all()
    targets = [(event.target_type, str(event.target_id)) for event in events]
    assert targets == [("product", product["id"])] * 2
    assert ("name", "Dress", "Coat") in [
        (change["field"], change["before"], change["after"]) for change in events[1].changes
    ]


def test_a_public_product_of_another_tenant_is_not_found(customer: Customer) -> None:
    factories.make_product(external_id="shop-1", public=True)
    assert get(customer).status == 404
    assert put(customer, {"name": "Dress"}).status == 201


def test_a_put_violates_no_rule_of_products(customer: Customer) -> None:
    customer.create("/products/", {"name": "Dress", "sku": "AN-1"})
    assert status_and_code(put(customer, FULL)) == (409, "sku_taken")
    assert status_and_code(put(customer, {"name": "Dress", "public": True})) == (
        409,
        "public_requires_superuser",
    )
    assert get(customer).status == 404
    assert put(customer, {**FULL, "external_id": "other"}).status == 422
    foreign = factories.make_brand()
    assert put(customer, {"name": "Dress", "brand_id": str(foreign.id)}).status == 404


def test_of_concurrent_puts_one_creates_and_the_others_replace(committing_server: CommittingServer) -> None:
    client, database, scenario = committing_server
    for number in range(5):
        path = f"/products/by-external-id/shop-{number}?organization_id={scenario.organization.id}"
        puts = [partial(client, "PUT", path, {"name": f"Dress {copy}"}) for copy in range(4)]
        responses = run_concurrently(*puts)
        assert sorted(response.status for response in responses) == [200, 200, 200, 201]
        assert len({response.json()["id"] for response in responses}) == 1
        assert client("GET", path).json() in [response.json() for response in responses]
    with database.transaction(write=False) as reading:
        found = reading.scalars(select(Product.external_id).where(Product.external_id.is_not(None)))
        assert sorted(found) == [f"shop-{number}" for number in range(5)]


@pytest.mark.parametrize(
    ("headers", "statuses"), [({}, [200, 201]), ({"If-None-Match": "*"}, [201, 412])], ids=["any", "absent"]
)
def test_a_put_whose_product_is_created_meanwhile_compares_its_preconditions_again(
    committing_server: CommittingServer,
    monkeypatch: pytest.MonkeyPatch,
    headers: dict[str, str],
    statuses: list[int],
) -> None:
    client, _, scenario = committing_server
    path = f"/products/by-external-id/shop-1?organization_id={scenario.organization.id}"

    def put(name: str) -> ClientResponse:
        return client("PUT", path, {"name": name, "metadata": {"by": name}}, headers=headers)

    responses = PausedCall(monkeypatch, products, "insert_unless_taken").run_during_pause(
        partial(put, "second"), partial(put, "first")
    )
    assert sorted(response.status for response in responses) == statuses, [each.body for each in responses]
    assert client("GET", path).json() in [response.json() for response in responses]


def test_a_put_finds_a_product_that_a_post_creates_meanwhile(
    committing_server: CommittingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _, scenario = committing_server
    query = f"?organization_id={scenario.organization.id}"
    put, post = PausedCall(monkeypatch, products, "insert_unless_taken").run_during_pause(
        partial(client, "POST", f"/products/{query}", {"name": "Post", "external_id": "shop-1"}),
        partial(client, "PUT", f"/products/by-external-id/shop-1{query}", {"name": "Put"}),
    )
    assert (put.status, post.status) == (200, 201)
