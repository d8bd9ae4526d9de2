"""Members of problems that name the place of an error and what the client can do about it."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from db.errors import NotFound
from tests.api.conftest import Client
from tests.support import factories
from tests.support.client import ClientResponse, send_request
from tests.support.factories.api_keys import api_key_headers
from tests.support.factories.catalog import Customer

COMMON = {"type", "title", "status", "detail", "code", "request_id"}
UNKNOWN = "01990000-5eed-7000-8000-00000000dead"


def members(response: ClientResponse) -> dict[str, Any]:
    """Return the members of a problem beyond those that every problem has, with its status and code."""
    problem = response.json()
    return {"status": response.status, "code": problem["code"]} | {
        name: value for name, value in problem.items() if name not in COMMON
    }


def test_a_404_names_the_path_parameter(customer: Customer) -> None:
    response = customer.client("GET", f"/brands/{UNKNOWN}")
    assert members(response) == {"status": 404, "code": "not_found", "parameter": "brand_id"}
    assert response.json()["detail"] == NotFound.default_detail


def test_a_404_names_the_query_parameter_with_an_unknown_organization(customer: Customer) -> None:
    for method, body in (("GET", None), ("POST", {"name": "Atelier"})):
        response = customer.client(method, f"/brands/?organization_id={UNKNOWN}", body)
        assert members(response) == {"status": 404, "code": "not_found", "parameter": "organization_id"}


@pytest.mark.parametrize("cursor", ["invented", None])
def test_a_404_names_a_cursor_that_is_invalid_or_of_another_list(
    customer: Customer, cursor: str | None
) -> None:
    for number in range(2):
        customer.create("/brands/", {"name": f"Atelier {number}"})
    path = f"/brands/{customer.organization_query}&limit=1"
    own = customer.client("GET", path).json()["next_cursor"]
    assert customer.client("GET", f"{path}&cursor={own}").status == 200
    expected = {"status": 404, "code": "not_found", "parameter": "cursor"}
    others = (f"/products/{customer.organization_query}&limit=1", f"{path}&sort=name", f"{path}&q=Atelier")
    for other in others:
        assert members(customer.client("GET", f"{other}&cursor={cursor or own}")) == expected


def test_a_404_points_at_an_unknown_id_in_the_body(customer: Customer) -> None:
    path, name = f"/products/{customer.organization_query}", {"name": "Coat"}
    response = customer.client("POST", path, name | {"brand_id": UNKNOWN})
    assert members(response) == {"status": 404, "code": "not_found", "pointer": "/brand_id"}
    images = {"cover_image": f"http://localhost:8000/api/v1/files/media/{UNKNOWN}/file.jpg"}
    response = customer.client("POST", path, name | images)
    assert members(response) == {"status": 404, "code": "not_found", "pointer": "/cover_image"}


def test_an_id_in_a_list_of_the_body_is_pointed_at_with_its_index(customer: Customer) -> None:
    shot_type = factories.make_shot_type(public=True)
    body = {"name": "Autumn", "shot_type_ids": [str(shot_type.id), UNKNOWN]}
    response = customer.client("POST", f"/guidelines/{customer.organization_query}", body)
    assert members(response) == {"status": 404, "code": "not_found", "pointer": "/shot_type_ids/1"}


def test_a_reference_to_a_personal_resource_is_pointed_at_and_explained(customer: Customer) -> None:
    personal = customer.client("POST", "/brands/", {"name": "Mine"}).json()
    body = {"name": "Coat", "brand_id": personal["id"]}
    response = customer.client("POST", f"/products/{customer.organization_query}", body)
    assert members(response) == {"status": 409, "code": "scope_mismatch", "pointer": "/brand_id"}
    assert "personal" in response.json()["detail"]


def test_in_use_counts_the_resources_that_refer_to_it(customer: Customer) -> None:
    owner = {"organization_id": customer.organization.id, "owner_id": customer.owner.id}
    product = factories.make_product(**owner)
    shooting = factories.make_shooting(**owner)
    looks = [factories.make_look(shooting, main_product_id=product.id, **owner) for _ in range(2)]
    response = customer.client("DELETE", f"/products/{product.id}")
    ids = sorted(str(look.id) for look in looks)
    assert members(response) == {
        "status": 409,
        "code": "in_use",
        "conflicts_with": [{"resource_type": "look", "count": 2, "ids": ids}],
    }


def test_a_403_names_the_permission_that_the_role_lacks(customer: Customer, client_for: Any) -> None:
    viewer = factories.make_user()
    factories.make_membership(customer.organization, viewer, role="viewer")
    response = client_for(viewer)("POST", f"/brands/{customer.organization_query}", {"name": "Atelier"})
    assert members(response) == {
        "status": 403,
        "code": "not_enough_permissions",
        "required_permission": "brands:write",
    }
    assert response.headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="brands:write"'


def test_an_api_key_without_organization_id_learns_the_parameter(customer: Customer, app: Any) -> None:
    path = f"/organizations/{customer.organization.id}/api-keys"
    key = customer.client("POST", path, {"name": "Shop", "scopes": ["brands:read", "brands:write"]}).json()
    with_key = Client(app, {"authorization": f"Bearer {key['secret']}"})
    for method, body in (("GET", None), ("POST", {"name": "Atelier"})):
        response = with_key(method, "/brands/", body)
        problem = members(response)
        assert problem == {
            "status": 403, "code": "not_enough_permissions", "parameter": "organization_id",
        }  # fmt: skip
        assert response.json()["detail"] == "An API key has no personal resources: send its organization_id"


def test_an_api_key_learns_the_scope_that_it_lacks(customer: Customer, app: Any) -> None:
    headers = api_key_headers(app, customer.organization, ["products:read"])
    response = Client(app, headers)("GET", f"/brands/{customer.organization_query}")
    assert members(response) == {
        "status": 403,
        "code": "not_enough_permissions",
        "required_permission": "brands:read",
        "required_scope": "brands:read",
    }


def test_an_invalid_transition_lists_the_allowed_ones(customer: Customer) -> None:
    shooting = factories.make_shooting(
        organization_id=customer.organization.id, owner_id=customer.owner.id, phase="PRODUCTION"
    )
    response = customer.client("PATCH", f"/shootings/{shooting.id}", {"phase": "BRIEF"})
    assert members(response) == {
        "status": 409,
        "code": "invalid_transition",
        "pointer": "/phase",
        "allowed_transitions": ["CLOSED"],
    }


def test_a_path_with_a_final_slash_or_another_version_gets_a_suggestion(customer: Customer) -> None:
    brand = customer.create("/brands/", {"name": "Atelier"})
    for path, expected in (
        (f"/api/v1/brands/{brand['id']}/", f"/api/v1/brands/{brand['id']}"),
        ("/brands/", "/api/v1/brands/"),
        ("/api/v2/brands/", "/api/v1/brands/"),
        ("/brands", "/api/v1/brands/"),
    ):
        response = send_request(customer.client.app, "GET", path, customer.client.headers)
        assert members(response) == {"status": 404, "code": "not_found", "did_you_mean": expected}
        assert response.json()["detail"] == "No operation has this path"
    assert members(customer.client("GET", "/nothing")) == {"status": 404, "code": "not_found"}


def test_malformed_json_names_the_line_and_the_column(customer: Customer) -> None:
    response = customer.client(
        "POST", "/brands/", body=b"{\n  'name': 1}", headers={"content-type": "application/json"}
    )
    assert response.json()["detail"] == "The body is not valid JSON: see line 2, column 3"


def test_a_406_lists_the_media_types_of_the_response(customer: Customer) -> None:
    response = customer.client("GET", "/brands/", headers={"accept": "text/html"})
    assert response.status == 406
    assert response.json()["detail"] == "The response is application/json; Accept allows none of them"


def test_the_type_of_problems_is_acceptable_for_every_response(customer: Customer) -> None:
    response = customer.client("GET", "/brands/", headers={"accept": "application/problem+json"})
    assert (response.status, response.headers["content-type"]) == (200, "application/json")


def test_a_rejected_limit_is_told(customer: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.accounts.api_keys.MAX_KEYS", 0)
    path = f"/organizations/{customer.organization.id}/api-keys"
    response = customer.client("POST", path, {"name": "Shop", "scopes": ["brands:read"]})
    assert members(response) == {"status": 409, "code": "too_many_api_keys", "limit": 0}


def test_a_replayed_rejection_has_the_same_members(customer: Customer) -> None:
    headers = {"idempotency-key": str(uuid4())}
    body = {"name": "Coat", "brand_id": UNKNOWN}
    first, again = (
        customer.client("POST", f"/products/{customer.organization_query}", body, headers=headers)
        for _ in range(2)
    )
    assert again.headers["idempotency-replayed"] == "true"
    assert members(first) == members(again) == {"status": 404, "code": "not_found", "pointer": "/brand_id"}


@pytest.mark.parametrize(
    ("sent", "meant"), [("brandId", "brand_id"), ("colour", "color"), ("Name", "name"), ("xyz", None)]
)
def test_an_unknown_property_gets_a_suggestion(customer: Customer, sent: str, meant: str | None) -> None:
    response = customer.client("POST", "/products/", {"name": "Coat", sent: "x"})
    violation = response.json()["detail"][0]
    assert (violation["pointer"], violation["type"]) == (f"/{sent}", "extra_forbidden")
    expected = "Unknown property" if meant is None else f"Unknown property; did you mean `{meant}`?"
    assert violation["msg"] == expected
    assert violation.get("ctx") == (None if meant is None else {"did_you_mean": meant})


def test_unknown_properties_of_inner_objects_and_query_parameters_get_suggestions(customer: Customer) -> None:
    body = {"name": "Autumn", "default_guidelines": {"nam": "Packshots"}}
    violations = customer.client("POST", "/shootings/", body).json()["detail"]
    suggested = {violation["pointer"]: violation["msg"] for violation in violations}
    assert suggested["/default_guidelines/nam"] == "Unknown property; did you mean `name`?"
    (violation,) = customer.client("GET", "/products/?brandID=x").json()["detail"]
    assert violation["msg"] == "Unknown query parameter; did you mean `brand_id`?"


def test_properties_that_cannot_be_combined_are_named(customer: Customer) -> None:
    body = {"name": "Autumn", "require_test_shooting": True, "phase": "PRODUCTION"}
    (violation,) = customer.client("POST", "/shootings/", body).json()["detail"]
    assert violation["pointer"] == "/require_test_shooting"
    assert violation["msg"] == 'Cannot be combined: `require_test_shooting`: true and `phase`: "PRODUCTION"'


def test_a_malformed_time_has_one_violation(customer: Customer) -> None:
    (violation,) = customer.client("POST", "/shootings/", {"name": "Autumn", "due_date": "tomorrow"}).json()[
        "detail"
    ]
    assert (violation["pointer"], violation["type"]) == ("/due_date", "datetime_parsing")


def test_an_unsupported_strategy_lists_the_supported_ones(customer: Customer) -> None:
    model = factories.make_generation_model(tool_types=["BASE_GENERATION", "REFINE"])
    path = f"/generations/{customer.organization_query}"
    body = {"model_id": str(model.id), "generation_strategy": "VIDEO"}
    assert members(customer.client("POST", path, body)) == {
        "status": 409,
        "code": "strategy_not_supported",
        "pointer": "/generation_strategy",
        "allowed_values": ["GENERATE", "REFINE"],
    }
