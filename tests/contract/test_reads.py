"""Reads agree with each other: a resource alone, in its list and after an update; and public reads."""

from __future__ import annotations

import pytest

from handlers.app import Application
from tests.contract.operations import OPERATIONS
from tests.contract.tenant import Tenant
from tests.support.app import auth_headers

LISTS = {
    "get_account_export": "list_account_exports",
    "get_api_key": "list_api_keys",
    "get_background_preset": "list_background_presets",
    "get_brand": "list_brands",
    "get_export": "list_exports",
    "get_generation": "list_generations",
    "get_generation_model": "list_generation_models",
    "get_guidelines": "list_guidelines",
    "get_invitation": "list_invitations",
    "get_look": "list_looks",
    "get_member": "list_members",
    "get_organization": "list_organizations",
    "get_prediction": "list_predictions",
    "get_product": "list_products",
    "get_product_image": "list_product_images",
    "get_product_import": "list_product_imports",
    "get_resolution_preset": "list_resolution_presets",
    "get_shooting": "list_shootings",
    "get_shot": "list_shots",
    "get_shot_type": "list_shot_types",
    "get_style": "list_styles",
    "get_subject": "list_subjects",
    "get_subscription": "list_subscriptions",
    "get_user": "list_users",
    "get_destination": "list_destinations",
    "get_webhook_delivery": "list_webhook_deliveries",
    "get_webhook_endpoint": "list_webhook_endpoints",
}

UPDATES = {
    "update_api_key": "get_api_key",
    "update_background_preset": "get_background_preset",
    "update_brand": "get_brand",
    "update_guidelines": "get_guidelines",
    "update_look": "get_look",
    "update_member": "get_member",
    "update_organization": "get_organization",
    "update_product": "get_product",
    "update_resolution_preset": "get_resolution_preset",
    "update_shooting": "get_shooting",
    "update_shot": "get_shot",
    "update_shot_type": "get_shot_type",
    "update_style": "get_style",
    "update_subject": "get_subject",
    "update_user": "get_user",
    "update_destination": "get_destination",
    "update_webhook_endpoint": "get_webhook_endpoint",
    "replace_generation_model": "get_generation_model",
    "put_product_by_external_id": "get_product_by_external_id",
}

PUBLIC_READS = (
    *("health_check", "readiness", "db_check", "system_health_check", "get_version"),
    *("get_docs", "get_permissions_page", "get_states_page", "get_problems_page"),
)


@pytest.mark.parametrize(("read", "listing"), LISTS.items(), ids=LISTS)
def test_a_resource_has_the_same_fields_alone_and_in_its_list(
    read: str, listing: str, app: Application, tenant: Tenant
) -> None:
    headers = auth_headers(app, tenant.caller_for(OPERATIONS[read]))
    resource = tenant.request_for(read).send(app, headers)
    page = tenant.request_for(listing).send(app, auth_headers(app, tenant.caller_for(OPERATIONS[listing])))
    assert (resource.status, page.status) == (200, 200)
    assert resource.json() in page.json()["data"]


def test_a_base_image_has_the_same_fields_alone_and_in_its_subject(app: Application, tenant: Tenant) -> None:
    headers = auth_headers(app, tenant.owner)
    image = tenant.request_for("get_base_image").send(app, headers)
    subject = tenant.request_for("get_subject").send(app, headers)
    assert (image.status, subject.json()["base_images"]) == (200, [image.json()])


@pytest.mark.parametrize(("update", "read"), UPDATES.items(), ids=UPDATES)
def test_an_update_returns_what_the_next_read_returns(
    update: str, read: str, app: Application, tenant: Tenant
) -> None:
    headers = auth_headers(app, tenant.caller_for(OPERATIONS[update]))
    request = tenant.request_for(update)
    updated = request.send(app, headers)
    assert updated.status == 200, updated.body
    read_request = tenant.request_for(read)
    read_request.path = request.path
    resource = read_request.send(app, headers)
    assert (resource.status, resource.json()) == (200, updated.json())
    assert resource.headers["etag"] == updated.headers["etag"]


def test_a_new_generation_model_has_a_provider_config_for_superusers_only(
    app: Application, tenant: Tenant
) -> None:
    created = tenant.request_for("create_generation_model").send(app, auth_headers(app, tenant.superuser))
    assert created.status == 201, created.body
    request = tenant.request_for("get_provider_config")
    request.path["model_id"] = created.json()["id"]
    assert request.send(app, auth_headers(app, tenant.superuser)).status == 200
    assert request.send(app, auth_headers(app, tenant.owner)).status == 403


@pytest.mark.parametrize("read", PUBLIC_READS)
def test_a_public_read_ignores_credentials(read: str, app: Application, tenant: Tenant) -> None:
    anonymous, invalid = (
        tenant.request_for(read).send(app, headers) for headers in ({}, {"authorization": "Bearer nonsense"})
    )
    assert (anonymous.status, invalid.status) == (200, 200)
    assert anonymous.body == invalid.body
