"""Lists that are narrowed by the id of another resource need no organization_id."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from handlers.app import Application
from tests.api.conftest import Client
from tests.support import factories
from tests.support.client import status_and_code
from tests.support.factories.api_keys import api_key_headers
from tests.support.factories.catalog import Customer


@pytest.fixture
def paths(customer: Customer) -> dict[str, str]:
    """Return a list of each kind, narrowed by a resource of the customer's organization."""
    owner = {"organization_id": customer.organization.id, "owner_id": customer.owner.id}
    brand = factories.make_brand(**owner)
    product = factories.make_product(brand_id=brand.id, **owner)
    shooting = factories.make_shooting(brand_id=brand.id, **owner)
    look = factories.make_look(shooting, main_product_id=product.id, **owner)
    shot = factories.make_shot(look, **owner)
    generation = factories.make_generation(shot, **owner)
    factories.make_prediction(generation, **owner)
    factories.make_export(shooting, **owner)
    return {
        "products of a brand": f"/products/?brand_id={brand.id}",
        "shootings of a brand": f"/shootings/?brand_id={brand.id}",
        "shots of a shooting": f"/shots/?shooting_id={shooting.id}",
        "shots of a look": f"/shots/?look_id={look.id}",
        "generations of a shot": f"/generations/?shot_id={shot.id}",
        "predictions of a shot": f"/predictions/?shot_id={shot.id}",
        "predictions of a generation": f"/predictions/?generation_id={generation.id}",
        "exports of a shooting": f"/exports/?shooting_id={shooting.id}",
    }


def test_a_list_narrowed_by_a_resource_of_an_organization_has_its_rows(
    customer: Customer, paths: dict[str, str]
) -> None:
    for kind, path in paths.items():
        without = customer.client("GET", path)
        assert (without.status, without.json()["count"]) == (200, 1), kind
        named = customer.client("GET", f"{path}&organization_id={customer.organization.id}")
        assert without.json()["data"] == named.json()["data"], kind


def test_another_tenant_gets_404_and_an_api_key_its_rows(
    app: Application, customer: Customer, paths: dict[str, str], client_for: Callable[..., Client]
) -> None:
    stranger = client_for(factories.make_user())
    scopes = [
        "products:read",
        "shootings:read",
        "shots:read",
        "generations:read",
        "predictions:read",
        "exports:read",
    ]
    key = Client(app, api_key_headers(app, customer.organization, scopes))
    for kind, path in paths.items():
        assert status_and_code(stranger("GET", path)) == (404, "not_found"), kind
        assert key("GET", path).json()["count"] == 1, kind


def test_a_public_shot_type_does_not_choose_the_tenant(customer: Customer) -> None:
    other = factories.make_organization()
    shot_type = factories.make_shot_type(public=True, organization_id=other.id, owner_id=other.owner_id)
    response = customer.client("GET", f"/shots/?shot_type_id={shot_type.id}")
    assert (response.status, response.json()["count"]) == (200, 0)
