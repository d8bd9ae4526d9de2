"""Batches of shots and predictions find no rows of other tenants: 404 per item, as if they did not exist."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from db.base import new_id
from db.models import Prediction, Shot
from tests.api.conftest import Client
from tests.support import factories
from tests.support.factories.catalog import Customer

pytestmark = pytest.mark.without_policies  # only the tenant filter hides rows of other tenants

ACTIONS: dict[str, list[dict[str, Any]]] = {
    "shots": [
        {"action": "generate", "body": {"num_predictions": 1}},
        {"action": "approve"},
    ],
    "predictions": [
        {"action": "approve"},
        {"action": "reject", "body": {"reason": "Blurred."}},
        {"action": "reopen"},
    ],
}


def make_row(collection: str, **ownership: Any) -> Shot | Prediction:
    """Create a row that is in review, with an external id where the collection has them."""
    look = factories.make_look(factories.make_shooting(**ownership))
    shot = factories.make_shot(look, status="pending_review", external_id="shop-1")
    if collection == "shots":
        return shot
    return factories.make_prediction(factories.make_generation(shot, status="completed"))


@pytest.mark.parametrize("collection", ["shots", "predictions"])
def test_rows_of_other_tenants_are_not_found_and_not_changed(
    customer: Customer, client_for: Callable[..., Client], collection: str
) -> None:
    stranger = factories.make_user()
    # Of an organization of strangers, of another organization of the caller, and personal ones of both.
    rows = [
        make_row(collection, organization=factories.make_organization(stranger)),
        make_row(collection, organization=factories.make_organization(customer.owner)),
        make_row(collection, owner=stranger),
        make_row(collection, owner=customer.owner),
    ]
    ids = [*(row.id for row in rows), new_id()]
    items = [{**action, "id": str(row_id)} for action in ACTIONS[collection] for row_id in ids]
    if collection == "shots":
        items += [{**action, "external_id": "shop-1"} for action in ACTIONS[collection]]
    path = f"/{collection}/batch{customer.organization_query}"
    readers = [client_for(stranger), customer.client, client_for(stranger), customer.client]
    before = [
        reader("GET", f"/{collection}/{row.id}").json() for reader, row in zip(readers, rows, strict=True)
    ]
    response = customer.client("POST", path, {"items": items})
    assert response.status == 200, response.body
    body = response.json()
    assert (body["accepted_count"], body["refused_count"]) == (0, len(items))
    for result, item in zip(body["results"], items, strict=True):
        # Nothing but what the client has sent: the item of an unknown id has the same result.
        assert (result["status"], result["body"], result["id"]) == (404, None, item.get("id"))
        assert (result["external_id"], result["problem"]["code"]) == (item.get("external_id"), "not_found")
        assert result["problem"]["detail"] == body["results"][0]["problem"]["detail"]
    after = [
        reader("GET", f"/{collection}/{row.id}").json() for reader, row in zip(readers, rows, strict=True)
    ]
    assert after == before


@pytest.mark.parametrize("collection", ["shots", "predictions"])
def test_a_caller_outside_of_the_organization_gets_no_result(
    customer: Customer, client_for: Callable[..., Client], collection: str
) -> None:
    row = make_row(collection, organization=customer.organization)
    stranger = client_for(factories.make_user())
    body = {"items": [{**ACTIONS[collection][0], "id": str(row.id)}]}
    path = f"/{collection}/batch"
    response = stranger("POST", f"{path}{customer.organization_query}", body)
    assert (response.status, response.json()["code"]) == (404, "not_found")
    # Without the organization, among the personal rows of the caller.
    personal = stranger("POST", path, body).json()
    assert [result["status"] for result in personal["results"]] == [404]
