"""Public products: superusers publish them, others read and use them, and only their tenant changes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from db.models import User
from tests.api.conftest import Client
from tests.support import factories
from tests.support.client import ClientResponse, status_and_code
from tests.support.factories.catalog import Customer, post_form
from tests.support.sample_media import build_orientation_image, encode_image
from tests.support.scenarios import PhotographedProduct

PHOTO = encode_image(build_orientation_image(120, 80), "JPEG")


@dataclass
class Shared:
    """A product of one organization, and a user of another one."""

    publisher: Customer
    superuser: Client
    neighbor: Client
    neighbors_query: str
    product: dict
    image: dict

    @property
    def path(self) -> str:
        """The path of the product."""
        return f"/products/{self.product['id']}"

    @property
    def file_path(self) -> str:
        """The path of the file of its photo."""
        return str(self.image["url"].partition("/api/v1")[2])

    def publish(self, public: bool = True) -> None:
        """Make the product public or private."""
        response = self.superuser("PATCH", self.path, {"public": public})
        assert (response.status, response.json()["public"]) == (200, public), response.body

    def list_ids(self, parameters: str = "") -> set[str]:
        """Return the ids of the products that the neighbor lists."""
        page = self.neighbor("GET", f"/products/{self.neighbors_query}{parameters}").json()
        assert page["count"] == len(page["data"])
        return {product["id"] for product in page["data"]}


@pytest.fixture
def shared(
    customer: Customer,
    superuser: Client,
    client_for: Callable[[User | None], Client],
    scenario: PhotographedProduct,
) -> Shared:
    brand = customer.create("/brands/", {"name": "Atelier"})
    product = customer.create("/products/", {"name": "Mannequin shirt", "brand_id": brand["id"]})
    image = post_form(customer.client, f"/products/{product['id']}/images", PHOTO, type="front").json()
    query = f"?organization_id={scenario.organization.id}"
    return Shared(customer, superuser, client_for(scenario.owner), query, product, image)


def test_only_a_superuser_can_make_a_product_public(shared: Shared) -> None:
    client = shared.publisher.client
    path = f"/products/{shared.publisher.organization_query}"
    rejected = client("POST", path, {"name": "Shirt", "public": True})
    assert status_and_code(rejected) == (409, "public_requires_superuser")
    assert client("POST", path, {"name": "Shirt", "public": False}).json()["public"] is False
    assert status_and_code(client("PATCH", shared.path, {"public": True})) == (
        409,
        "public_requires_superuser",
    )
    created = shared.superuser("POST", path, {"name": "Shirt", "public": True})
    assert (created.status, created.json()["public"]) == (201, True), created.body
    shared.publish()
    # A client may send the property back unchanged, and the tenant may withdraw the product.
    assert client("PATCH", shared.path, {"public": True, "color": "sand"}).status == 200
    assert client("PATCH", shared.path, {"public": False}).json()["public"] is False


def test_a_private_product_does_not_exist_for_the_tenant_next_door(shared: Shared) -> None:
    unknown = shared.neighbor("GET", "/products/01990000-5eed-7000-8000-0005000000ff").json()
    for path in (shared.path, f"{shared.path}/images", f"{shared.path}/images/{shared.image['id']}"):
        problem = shared.neighbor("GET", path).json()
        assert (problem["status"], problem["detail"]) == (404, unknown["detail"])
    assert shared.neighbor("GET", shared.file_path).status == 404
    assert shared.product["id"] not in shared.list_ids("&include_public=true")


def test_a_public_product_is_readable_with_its_photos(shared: Shared) -> None:
    shared.publish()
    assert shared.neighbor("GET", shared.path).json()["images"] == [shared.image]
    page = shared.neighbor("GET", f"{shared.path}/images").json()
    assert (page["data"], page["count"]) == ([shared.image], 1)
    assert shared.neighbor("GET", f"{shared.path}/images/{shared.image['id']}").json() == shared.image
    assert shared.neighbor("GET", shared.file_path).status == 200
    # A photo that is added later is public, too.
    added = post_form(
        shared.publisher.client,
        f"{shared.path}/images",
        encode_image(build_orientation_image(60, 80), "JPEG"),
        type="back",
    ).json()
    assert shared.neighbor("GET", added["url"].partition("/api/v1")[2]).status == 200
    assert shared.publisher.client("DELETE", f"{shared.path}/images/{added['id']}").status == 204
    assert shared.neighbor("GET", added["url"].partition("/api/v1")[2]).status == 404
    shared.publish(False)
    assert shared.neighbor("GET", shared.path).status == 404
    assert shared.neighbor("GET", f"{shared.path}/images/{shared.image['id']}").status == 404
    assert shared.neighbor("GET", shared.file_path).status == 404


def test_a_list_has_public_products_only_if_it_asks_for_them(shared: Shared) -> None:
    before = shared.list_ids()
    shared.publish()
    assert shared.list_ids() == shared.list_ids("&include_public=false") == before
    assert shared.list_ids("&include_public=true") == {*before, shared.product["id"]}
    found = shared.neighbor("GET", f"/search/{shared.neighbors_query}&q=mannequin").json()
    assert found["count"] == 0


def test_the_tenant_next_door_cannot_change_a_public_product(shared: Shared) -> None:
    shared.publish()
    responses = [
        shared.neighbor("PATCH", shared.path, {"name": "Mine"}),
        shared.neighbor("PATCH", shared.path, {"public": False}),
        shared.neighbor("DELETE", shared.path),
        post_form(shared.neighbor, f"{shared.path}/images", PHOTO, type="side"),
        shared.neighbor("DELETE", f"{shared.path}/images/{shared.image['id']}"),
    ]
    assert [status_and_code(response) for response in responses] == [(403, "not_enough_permissions")] * len(
        responses
    )
    assert shared.publisher.client("GET", shared.path).json()["images"] == [shared.image]


def test_a_public_product_is_used_in_looks_and_generations_of_others(
    shared: Shared, scenario: PhotographedProduct
) -> None:
    def generate() -> ClientResponse:
        path = f"/generations/{shared.neighbors_query}"
        return shared.neighbor("POST", path, {"product_id": shared.product["id"]})

    def add_look() -> ClientResponse:
        look = {
            "main_product_id": shared.product["id"],
            "subject_id": str(factories.make_subject(owner_id=None, public=True).id),
            "style_id": str(factories.make_style(owner_id=None, public=True).id),
            "shot_type_ids": [str(scenario.shot_type.id)],
        }
        return shared.neighbor("POST", f"/shootings/{scenario.shooting.id}/looks", look)

    assert (generate().status, add_look().status) == (404, 404)
    shared.publish()
    # The brand of the product is not public: its presets do not apply to others.
    generated, look = generate(), add_look()
    assert (generated.status, look.status) == (202, 201), (generated.body, look.body)
    deleted = shared.publisher.client("DELETE", shared.path).json()
    assert (deleted["code"], deleted["conflicts_with"]) == ("in_use", [])
    shared.publish(False)
    assert (generate().status, add_look().status) == (404, 404)
    shot = look.json()["shots"][0]
    assert status_and_code(shared.neighbor("POST", f"/shots/{shot['id']}/generate", {})) == (
        409,
        "not_available",
    )
