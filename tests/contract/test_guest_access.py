"""Suites over every operation with a guest: only operations with `x-guest-access`, only one shooting.

The matrix comes from the contract, so a new operation is closed to guests, and tested, from the start.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from handlers.app import Application
from handlers.common.permissions import GUESTS
from tests.contract.operations import OPERATIONS, resolve, unknown_id
from tests.contract.tenant import Tenant
from tests.contract.test_foreign_ids import ids_in_path
from tests.contract.test_roles import ROWS, SECURED
from tests.support import factories
from tests.support.client import describe_response, status_and_code
from tests.support.guests import guest_headers
from tests.support.snapshots import snapshot_rows
from tools.servers.server import ROOT

pytestmark = pytest.mark.without_policies  # only the tenant filter hides rows of other tenants

GUEST_OPERATIONS = [name for name in SECURED if "guest" in ROWS[name].roles]
OTHER_OPERATIONS = [name for name in SECURED if name not in GUEST_OPERATIONS]


@pytest.fixture
def headers(app: Application, tenant: Tenant) -> dict[str, str]:
    """Return the header of a guest of the tenant's shooting."""
    return guest_headers(app, tenant.rows["review_link"])


@pytest.fixture
def sibling(tenant: Tenant) -> dict[str, Any]:
    """Return rows of another shooting of the same organization, by the name of their path parameter."""
    return make_sibling(tenant)


def make_sibling(tenant: Tenant) -> dict[str, Any]:
    """Create rows of another shooting of a tenant; return them by the name of their path parameter."""
    product = factories.make_product(
        organization=tenant.organization, sku="SIBLING", external_id="of-the-sibling"
    )
    media = tenant.write_file(
        factories.make_media(organization=tenant.organization, extension="png", content_type="image/png")
    )
    shooting = factories.make_shooting(organization=tenant.organization)
    look = factories.make_look(
        shooting, main_product_id=product.id, shot_type_ids=[tenant.rows["shot_type"].id]
    )
    shot = factories.make_shot(look, shot_type_id=tenant.rows["shot_type"].id, status="pending_review")
    generation = factories.make_generation(shot, model_id=tenant.rows["model"].id, status="completed")
    prediction = factories.make_prediction(generation, media_id=media.id)
    return {
        "shooting": shooting, "look": look, "shot": shot, "generation": generation, "prediction": prediction,
        "product": product, "image": factories.make_product_image(product, media_id=media.id),
        "comment": factories.make_prediction_comment(prediction, tenant.owner), "resource": media,
    }  # fmt: skip


def test_s03_guests_have_a_short_list_of_operations_and_permissions() -> None:
    assert set(GUEST_OPERATIONS) == {
        "get_shooting", "list_looks", "get_look", "list_shots", "get_shot", "list_product_images", "get_file",
        "list_predictions", "get_prediction", "get_prediction_image", "approve_prediction",
        "reject_prediction", "reopen_prediction", "batch_predictions", "list_prediction_comments",
        "create_prediction_comment", "get_prediction_comment", "update_prediction_comment",
        "delete_prediction_comment",
    }  # fmt: skip
    assert {ROWS[name].permission for name in GUEST_OPERATIONS} == GUESTS


@pytest.mark.parametrize("name", GUEST_OPERATIONS)
def test_s03_a_guest_can_call_the_operations_of_guests(
    name: str, app: Application, tenant: Tenant, headers: dict[str, str]
) -> None:
    request = tenant.request_for(name)
    if "comment_id" in request.path and OPERATIONS[name].method != "GET":
        own = factories.make_prediction_comment(
            tenant.rows["prediction"], author_id=None, review_link_id=tenant.rows["review_link"].id
        )
        request.path["comment_id"] = str(own.id)
    response = request.send(app, headers)
    assert response.status == OPERATIONS[name].success_status, describe_response(response)


def list_properties(name: str) -> dict[str, list[str]]:
    """Return the properties of each kind of resource in the JSON response of an operation, or in its page."""
    content = resolve(OPERATIONS[name].raw["responses"][str(OPERATIONS[name].success_status)]).get(
        "content", {}
    )
    schema = content.get("application/json", {}).get("schema")
    if schema is None:
        return {}
    entries = resolve(schema)["properties"].get("data", {}).get("items", schema)
    return {entries["$ref"].rpartition("/")[2]: list(resolve(entries)["properties"])}


def test_s05_the_guide_lists_each_property_that_a_guest_sees() -> None:
    """A new property of a shooting, or a new operation for guests, is shown to people outside."""
    guide = (ROOT / "docs" / "guides" / "review-board.md").read_text(encoding="utf-8")
    section = guide.partition("### What guests see\n")[2].partition("\n## ")[0]
    listed = [
        re.findall(r"`(\w+)`", row) for row in re.findall(r"^\| [a-z].*\| (`.*) \|$", section, re.MULTILINE)
    ]
    seen = {kind: names for name in GUEST_OPERATIONS for kind, names in list_properties(name).items()}
    # The results of a batch have predictions.
    assert seen.pop("PredictionBatchResults")
    assert sorted(listed) == sorted(seen.values()), "update docs/guides/review-board.md"


def test_s03_a_guest_can_call_no_other_operation(
    app: Application, tenant: Tenant, headers: dict[str, str]
) -> None:
    requests, before = {name: tenant.request_for(name) for name in OTHER_OPERATIONS}, snapshot_rows(app)
    sent = [(name, each) for name, valid in requests.items() for each in valid.with_any_body()]
    for name, request in sent:
        response = request.send(app, headers)
        assert status_and_code(response) == (403, "guest_not_allowed"), (
            f"{name} {describe_response(response)}"
        )
    assert snapshot_rows(app) == before


@pytest.mark.parametrize("name", [name for name in GUEST_OPERATIONS if ids_in_path(OPERATIONS[name])])
def test_s01_other_shootings_of_the_organization_look_absent_to_a_guest(
    name: str, app: Application, tenant: Tenant, headers: dict[str, str], sibling: dict[str, Any]
) -> None:
    request, before = tenant.request_for(name), snapshot_rows(app)
    names = ids_in_path(OPERATIONS[name])
    foreign = {name: str(sibling[name.removesuffix("_id")].id) for name in names}
    absent = request.replace(path={**request.path, names[0]: unknown_id()}).send(app, headers)
    for path in (foreign, *({**request.path, name: row_id} for name, row_id in foreign.items())):
        response = request.replace(path={**request.path, **path}).send(app, headers)
        assert response.status == 404, f"{path} {describe_response(response)}"
        problem, other = response.json(), absent.json()
        # The place names the parameter with the id.
        for body in (problem, other):
            del body["request_id"], body["parameter"]
        assert problem == other
    assert snapshot_rows(app) == before


@pytest.mark.parametrize("name", GUEST_OPERATIONS)
def test_s01_other_organizations_look_absent_to_a_guest(
    name: str, app: Application, tenant: Tenant, other_tenant: Tenant, headers: dict[str, str]
) -> None:
    request = other_tenant.request_for(name)
    if not ids_in_path(OPERATIONS[name]):
        request.query["organization_id"] = str(other_tenant.organization.id)
    assert request.send(app, headers).status == 404


@pytest.mark.parametrize("name", ["list_shots", "list_predictions"])
def test_s01_no_filter_shows_a_guest_another_shooting(
    name: str, app: Application, tenant: Tenant, headers: dict[str, str], sibling: dict[str, Any]
) -> None:
    own, kind = tenant.request_for(name), name.removeprefix("list_").removesuffix("s")
    ids = [str(tenant.rows[kind].id)]
    organization = str(tenant.organization.id)
    for query in ({}, {"organization_id": organization}, {"ids": f"{ids[0]},{sibling[kind].id}"}):
        found = own.replace(query=query).send(app, headers).json()
        assert ([row["id"] for row in found["data"]], found["count"]) == (ids, 1), query
    if name == "list_shots":
        product = {"product_id": str(tenant.rows["product"].id), "organization_id": organization}
        assert own.replace(query=product).send(app, headers).json()["count"] == 1
    filters = {
        "shooting_id": "shooting", "look_id": "look", "shot_id": "shot", "generation_id": "generation",
        "product_id": "product",
    }  # fmt: skip
    known = {parameter["name"] for parameter in OPERATIONS[name].parameters}
    for parameter in filters.keys() & known:
        query = {parameter: str(sibling[filters[parameter]].id)}
        response = own.replace(query=query).send(app, headers)
        assert response.status == 404, f"{query} {describe_response(response)}"
    for query in ({"ids": str(sibling[kind].id)}, {"external_id": "of-the-sibling"}, {"sku": "SIBLING"}):
        assert own.replace(query=query).send(app, headers).json()["data"] == [], query


def test_s01_a_batch_of_a_guest_decides_about_its_shooting_only(
    app: Application, tenant: Tenant, headers: dict[str, str], sibling: dict[str, Any]
) -> None:
    own, foreign = tenant.rows["prediction"], sibling["prediction"]
    request = tenant.request_for("batch_predictions")
    request.body = {
        "items": [{"action": "approve", "id": str(row.id)} for row in (foreign, own)]
        + [{"action": "approve", "id": unknown_id()}]
    }
    results = request.send(app, headers).json()["results"]
    assert [result["status"] for result in results] == [404, 200, 404]
    assert results[0]["problem"]["detail"] == results[2]["problem"]["detail"]
