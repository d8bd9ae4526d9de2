"""Looks, shots, generations and predictions show their product, as it is now and as the caller may see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from db.models import Product
from db.session import Database
from studio.infrastructure.storage import LocalDisk
from tests.api.conftest import Client
from tests.support import factories
from tests.support.factories.catalog import Customer
from tests.support.generations import complete_generation
from tests.support.scenarios import PhotographedProduct


class Work(NamedTuple):
    """One resource of each type, with its path and the path of its list."""

    paths: dict[str, str]
    lists: dict[str, str]

    def read(self, client: Client) -> dict[str, Any]:
        """Return the product of each resource, which its list has, too."""
        products = {}
        for name, path in self.paths.items():
            row = client("GET", path).json()
            page = client("GET", self.lists[name]).json()["data"]
            assert [each["product"] for each in page if each["id"] == row["id"]] == [row["product"]]
            products[name] = row["product"]
        return products


def make_work(product: Product, **ownership: Any) -> Work:
    shooting = factories.make_shooting(**ownership)
    shot_type = factories.make_shot_type(**ownership)
    look = factories.make_look(shooting, main_product_id=product.id, shot_type_ids=[shot_type.id])
    shot = factories.make_shot(look, shot_type_id=shot_type.id)
    generation = factories.make_generation(shot, product_id=product.id, status="completed")
    prediction = factories.make_prediction(generation)
    looks = f"/shootings/{shooting.id}/looks"
    of_shooting = f"?shooting_id={shooting.id}"
    return Work(
        {
            "look": f"{looks}/{look.id}",
            "shot": f"/shots/{shot.id}",
            "generation": f"/generations/{generation.id}",
            "prediction": f"/predictions/{prediction.id}",
        },
        {
            "look": looks,
            "shot": f"/shots/{of_shooting}",
            "generation": f"/generations/{of_shooting}",
            "prediction": f"/predictions/{of_shooting}",
        },
    )


def summarize(product: Product, **changes: Any) -> dict[str, Any]:
    values = {"name": product.name, "sku": product.sku, "external_id": product.external_id}
    return {"id": str(product.id), **values, **changes}


def test_resources_and_their_lists_show_their_product(customer: Customer) -> None:
    ownership: dict[str, Any] = {"organization": customer.organization}
    product = factories.make_product(**ownership, sku='A"\N{SNOWMAN}\\', external_id="shop-1")
    work = make_work(product, **ownership)
    # Other products of the tenant, and one without keys of the client.
    make_work(factories.make_product(**ownership, sku=None), **ownership)
    assert work.read(customer.client) == dict.fromkeys(work.paths, summarize(product))
    generation = customer.client("GET", work.paths["generation"]).json()
    assert [each["product"] for each in generation["predictions"]] == [summarize(product)]
    found = customer.client("GET", f"/search/{customer.organization_query}&q=Linen").json()["results"]
    looks = [each["data"] for each in found if each["resource_type"] == "look"]
    assert summarize(product) in [look["product"] for look in looks]


def test_a_renamed_product_is_a_new_version_of_what_shows_it(customer: Customer) -> None:
    ownership: dict[str, Any] = {"organization": customer.organization}
    product = factories.make_product(**ownership)
    work = make_work(product, **ownership)
    before = {name: customer.client("GET", path) for name, path in work.paths.items()}
    renamed = customer.client("PATCH", f"/products/{product.id}", {"name": "New", "sku": None})
    assert renamed.status == 200, renamed.body
    for name, path in work.paths.items():
        tag = {"if-none-match": before[name].headers["etag"]}
        response = customer.client("GET", path, headers=tag)
        assert response.status == 200
        body = response.json()
        assert body["product"] == summarize(product, name="New", sku=None)
        # The row itself has not changed.
        assert body["updated_at"] == before[name].json()["updated_at"]
        current = {"if-none-match": response.headers["etag"]}
        assert customer.client("GET", path, headers=current).status == 304
    stale = {"if-match": before["shot"].headers["etag"]}
    assert customer.client("PATCH", work.paths["shot"], {"notes": "New"}, headers=stale).status == 412


def test_a_look_shows_the_product_that_it_gets(customer: Customer) -> None:
    ownership: dict[str, Any] = {"organization": customer.organization}
    first, second = (factories.make_product(**ownership) for _ in range(2))
    shot_types = [str(factories.make_shot_type(**ownership).id)]
    looks = f"/shootings/{factories.make_shooting(**ownership).id}/looks"
    body = {"main_product_id": str(first.id), "shot_type_ids": shot_types}
    created = customer.client("POST", looks, body).json()
    assert created["product"] == summarize(first)
    path = f"{looks}/{created['id']}"
    updated = customer.client("PATCH", path, {"main_product_id": str(second.id)}).json()
    assert updated["product"] == summarize(second)
    shot = customer.client("GET", f"/shots/{created['shots'][0]['id']}").json()
    assert shot["product"] == summarize(second)
    batch = {"main_product_ids": [str(first.id), str(second.id)], "shot_type_ids": shot_types}
    many = customer.client("POST", f"{looks}/batch", batch).json()["data"]
    assert [look["product"] for look in many] == [summarize(first), summarize(second)]


def test_each_action_returns_the_product(
    client: Client, scenario: PhotographedProduct, database: Database, storage: LocalDisk
) -> None:
    expected = summarize(scenario.product)
    organization = f"?organization_id={scenario.organization.id}"
    shot = f"/shots/{scenario.shot.id}"
    first = client("POST", f"{shot}/generate", {"num_predictions": 1}).json()
    canceled = client("POST", f"/generations/{first['id']}/cancel").json()
    retried = client("POST", f"/generations/{first['id']}/retry").json()
    client("POST", f"/generations/{retried['id']}/cancel")
    done = complete_generation(client, scenario.shot, database, storage, num_predictions=1)
    prediction_id = done["predictions"][0]["id"]
    prediction = f"/predictions/{prediction_id}"
    for body in (
        first,
        canceled,
        retried,
        done,
        done["predictions"][0],
        client("POST", f"{prediction}/approve", {}).json(),
        client("POST", f"{prediction}/reopen").json(),
        client("POST", f"{prediction}/reject", {"reason": "Blurred."}).json(),
        client("PATCH", shot, {"notes": "Sharp."}).json(),
        client("POST", f"{shot}/request-revision", {"note": "Brighter."}).json(),
    ):
        assert body["product"] == expected, body
    item = {"id": prediction_id, "action": "reopen"}
    reviewed = client("POST", f"/predictions/batch{organization}", {"items": [item]}).json()
    assert reviewed["results"][0]["body"]["product"] == expected
    item = {"id": str(scenario.shot.id), "action": "generate", "body": {"num_predictions": 1}}
    generated = client("POST", f"/shots/batch{organization}", {"items": [item]}).json()
    assert generated["results"][0]["body"]["product"] == expected


def test_there_is_no_product_without_one_and_after_its_deletion(customer: Customer) -> None:
    ownership: dict[str, Any] = {"organization": customer.organization}
    product = factories.make_product(**ownership)
    generation = factories.make_generation(**ownership, product_id=product.id, status="completed")
    prediction = factories.make_prediction(generation)
    without = factories.make_generation(**ownership, status="completed")
    assert customer.client("GET", f"/generations/{without.id}").json()["product"] is None
    path = f"/predictions/{prediction.id}"
    assert customer.client("GET", path).json()["product"] == summarize(product)
    assert customer.client("DELETE", f"/products/{product.id}").status == 204
    assert customer.client("GET", path).json()["product"] is None
    listed = customer.client("GET", f"/generations/{customer.organization_query}").json()["data"]
    assert [each["product"] for each in listed] == [None, None]


def test_the_product_of_another_tenant_is_shown_while_it_is_public(
    customer: Customer, client_for: Callable[..., Client]
) -> None:
    other = factories.make_organization()
    product = factories.make_product(organization=other, public=True, external_id="theirs")
    work = make_work(product, organization=customer.organization)
    superuser = client_for(factories.make_user(is_superuser=True))
    for client in (customer.client, superuser):
        assert work.read(client) == dict.fromkeys(work.paths, summarize(product))
    assert superuser("PATCH", f"/products/{product.id}", {"public": False}).status == 200
    for client in (customer.client, superuser):
        assert work.read(client) == dict.fromkeys(work.paths)


def test_personal_resources_show_products_of_their_owner_only(
    client_for: Callable[..., Client],
) -> None:
    owner, other = factories.make_user(), factories.make_user()
    own, foreign = factories.make_product(owner=owner), factories.make_product(owner=other)
    client = client_for(owner)
    work = make_work(own, owner=owner)
    assert work.read(client) == dict.fromkeys(work.paths, summarize(own))
    # No request can make such a reference.
    work = make_work(foreign, owner=owner)
    assert work.read(client) == dict.fromkeys(work.paths)


def test_a_product_that_was_transferred_is_hidden_from_its_former_tenant(customer: Customer) -> None:
    ownership: dict[str, Any] = {"organization": customer.organization}
    new = factories.make_organization(customer.owner)
    product = factories.make_product(**ownership)
    generation = factories.make_generation(**ownership, product_id=product.id, status="completed")
    body = {"organization_id": str(new.id)}
    assert customer.client("POST", f"/products/{product.id}/transfer", body).status == 200
    # The caller is a member of both organizations; other readers of the generation are not.
    assert customer.client("GET", f"/generations/{generation.id}").json()["product"] is None
