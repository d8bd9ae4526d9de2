"""Search through the API: names, SKUs and notes within one tenant."""

import pytest

from db.models import Organization, User
from tests.api.conftest import Client
from tests.support import factories


def search(client: Client, query: str) -> list[tuple[str, str]]:
    response = client("GET", f"/search/?{query}")
    assert response.status == 200, response.body
    results = response.json()["results"]
    assert response.json()["count"] == len(results)
    return [(result["resource_type"], result["data"]["id"]) for result in results]


def test_each_resource_type_is_found_by_its_name_sku_or_notes(
    client: Client, organization: Organization
) -> None:
    tenant = {"organization": organization}
    product = factories.make_product(**tenant, name="Linen wrap dress", sku="AN-2041")
    shooting = factories.make_shooting(**tenant, name="LINEN lookbook")
    subject = factories.make_subject(**tenant, name="Linda", surname="Linen")
    shot_type_ids = [factories.make_shot_type(**tenant).id]
    hat = factories.make_product(**tenant, name="Hat")
    factories.make_look(shooting, main_product_id=hat.id, shot_type_ids=shot_type_ids)
    worn = factories.make_look(shooting, main_product_id=product.id, shot_type_ids=shot_type_ids)
    noted = factories.make_look(
        shooting, main_product_id=hat.id, shot_type_ids=shot_type_ids, notes="with the linen scarf"
    )
    assert search(client, f"q=linen&organization_id={organization.id}") == [
        ("product", str(product.id)),
        ("shooting", str(shooting.id)),
        ("look", str(noted.id)),
        ("look", str(worn.id)),
        ("subject", str(subject.id)),
    ]
    assert search(client, f"q=an-2041&organization_id={organization.id}") == [("product", str(product.id))]


def test_results_contain_complete_resources(client: Client, organization: Organization) -> None:
    product = factories.make_product(organization=organization, name="Linen wrap dress")
    response = client("GET", f"/search/?q=wrap&organization_id={organization.id}")
    assert response.json() == {
        "results": [
            {"resource_type": "product", "data": client("GET", f"/products/{product.id}").json()},
        ],
        "count": 1,
    }


def test_only_one_tenant_and_public_subjects_are_searched(
    client: Client, user: User, organization: Organization
) -> None:
    factories.make_product(name="Linen of a stranger")
    shared = factories.make_product(organization=organization, name="Linen of the organization")
    own = factories.make_product(owner=user, name="My linen")
    public = factories.make_subject(name="Linen girl", public=True)
    public_results = [("subject", str(public.id))]
    assert search(client, "q=linen") == [("product", str(own.id)), *public_results]
    assert search(client, f"q=linen&organization_id={organization.id}") == [
        ("product", str(shared.id)),
        *public_results,
    ]


def test_the_limit_applies_to_each_resource_type_and_the_newest_come_first(
    client: Client, user: User
) -> None:
    rows = [factories.make_product(owner=user, name=f"Linen {number}") for number in range(7)]
    newest = [("product", str(row.id)) for row in reversed(rows)]
    assert search(client, "q=linen&limit=3") == newest[:3]
    assert search(client, "q=linen") == newest[:5]


@pytest.mark.parametrize("q", ["100%25", "a_b", "%5C"])
def test_wildcards_of_the_database_are_matched_literally(client: Client, user: User, q: str) -> None:
    factories.make_product(owner=user, name="axb, 100 per cent")
    assert search(client, f"q={q}") == []


@pytest.mark.parametrize("query", ["", "?q=", "?q=%00", "?q=a&limit=0", "?q=a&limit=21"])
def test_a_search_without_a_query_or_with_an_invalid_limit_is_rejected(client: Client, query: str) -> None:
    assert client("GET", f"/search/{query}").status == 422
