"""Generation models through the API: readable by all users, written by superusers, with masked secrets."""

from __future__ import annotations

from collections.abc import Callable

from tests.api.conftest import Client
from tests.support import factories
from tests.support.client import status_and_code
from tests.support.factories.catalog import Customer

MODEL = {"name": "Local studio, square only", "provider": "LOCAL_STUDIO", "tool_types": ["BASE_GENERATION"]}


def test_creating_a_model_returns_all_its_fields_but_no_provider_config(superuser: Client) -> None:
    config = {"region": "local", "api_key": "hidden"}
    response = superuser("POST", "/generation-models/", {**MODEL, "provider_config": config})
    model = response.json()
    assert response.status == 201
    assert model == {
        "id": model["id"],
        "created_at": model["created_at"],
        "updated_at": model["updated_at"],
        "name": "Local studio, square only",
        "icon": None,
        "provider": "LOCAL_STUDIO",
        "provider_config": None,
        "provider_capabilities": None,
        "fallback_provider": None,
        "fallback_provider_config": None,
        "fallback_provider_capabilities": None,
        "tool_types": ["BASE_GENERATION"],
        "recommended": False,
        "beta": False,
        "max_output_width": None,
        "max_output_height": None,
        "max_size_pixels": None,
    }
    assert superuser("GET", response.headers["location"].removeprefix("/api/v1")).json() == model


def test_keys_of_provider_capabilities_may_contain_any_character(superuser: Client) -> None:
    capabilities = {"": "empty", "\x00": "nothing", "größe": "4K"}
    response = superuser("POST", "/generation-models/", {**MODEL, "provider_capabilities": capabilities})
    assert response.status == 201
    assert response.json()["provider_capabilities"] == capabilities


def test_models_are_listed_without_authentication_but_read_only_with_it(
    customer: Customer, client_for: Callable[..., Client]
) -> None:
    model = factories.make_generation_model(provider_config={"api_key": "hidden"})
    anonymous = client_for(None)
    listed = anonymous("GET", "/generation-models/?q=local")
    assert [row["id"] for row in listed.json()["data"]] == [str(model.id)]
    assert b"hidden" not in listed.body
    assert anonymous("GET", f"/generation-models/{model.id}").status == 401
    assert customer.client("GET", f"/generation-models/{model.id}").json() == listed.json()["data"][0]


def test_a_replacement_keeps_omitted_secrets_and_sets_everything_else(superuser: Client) -> None:
    config = {"region": "local", "api_key": "first", "Access-Token": "second"}
    body = {**MODEL, "icon": "camera", "beta": True, "provider_config": config}
    path = f"/generation-models/{superuser('POST', '/generation-models/', body).json()['id']}"

    def shown() -> dict[str, str]:
        return superuser("GET", f"{path}/provider-config").json()["provider_config"]

    assert shown() == {"region": "local", "api_key": "********", "Access-Token": "********"}
    replaced = superuser("PUT", path, {**MODEL, "provider_config": {"zone": "2", "api_key": "********"}})
    assert (replaced.status, replaced.json()["icon"], replaced.json()["beta"]) == (200, None, False)
    assert shown() == {"zone": "2", "api_key": "********", "Access-Token": "********"}
    assert superuser("PUT", path, MODEL).status == 200
    assert shown() == {"api_key": "********", "Access-Token": "********"}


def test_the_etag_of_a_model_does_not_depend_on_the_database_or_the_order_of_keys(superuser: Client) -> None:
    capabilities = {"zebra": "1", "a": "2", "middle": "3"}
    created = superuser("POST", "/generation-models/", {**MODEL, "provider_capabilities": capabilities})
    path = created.headers["location"].removeprefix("/api/v1")
    assert superuser("GET", path).headers["etag"] == created.headers["etag"]
    assert superuser("PUT", path, MODEL, headers={"if-match": created.headers["etag"]}).status == 200
    assert superuser("PUT", path, MODEL, headers={"if-match": created.headers["etag"]}).status == 412


def test_a_model_that_a_generation_used_cannot_be_deleted(superuser: Client) -> None:
    model = factories.make_generation_model()
    factories.make_generation(model_id=model.id)
    assert status_and_code(superuser("DELETE", f"/generation-models/{model.id}")) == (409, "in_use")
    unused = factories.make_generation_model()
    assert superuser("DELETE", f"/generation-models/{unused.id}").status == 204
    assert superuser("GET", f"/generation-models/{unused.id}").status == 404
