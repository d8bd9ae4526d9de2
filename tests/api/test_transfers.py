"""Transfers of products, brands, styles, subjects and guidelines between organizations and accounts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select

from db.models import (
    AuditEvent,
    Change,
    MediaResource,
    Organization,
    Product,
    ProductImage,
    ProductImageCutout,
    RowCount,
)
from db.session import Database
from tests.api.conftest import Client, CommittingServer
from tests.support import factories
from tests.support.client import status_and_code
from tests.support.concurrency import run_concurrently
from tests.support.factories.catalog import Customer


@pytest.fixture
def target(customer: Customer) -> Organization:
    return factories.make_organization(customer.owner)


def count_products(client: Client, organization: Organization) -> int:
    count: int = client("GET", f"/products/?organization_id={organization.id}").json()["count"]
    return count


def test_a_product_moves_with_its_photos_cut_outs_and_stored_images(
    client: Client, customer: Customer, target: Organization, database: Database
) -> None:
    product = factories.make_product(organization=customer.organization)
    image = factories.make_product_image(product)
    cutout = factories.make_product_image_cutout(
        image, media_id=factories.make_media(organization=customer.organization).id
    )
    before = client("GET", f"/products/{product.id}").json()

    response = client("POST", f"/products/{product.id}/transfer", {"organization_id": str(target.id)})

    assert response.status == 200, response.body
    moved = response.json()
    assert moved["updated_at"] > before["updated_at"]
    expected = {**before, "organization_id": str(target.id), "updated_at": moved["updated_at"]}
    expected["images"][0]["updated_at"] = moved["images"][0]["updated_at"]
    assert moved == expected
    assert client("GET", f"/products/{product.id}").headers["etag"] == response.headers["etag"]
    assert (count_products(client, customer.organization), count_products(client, target)) == (0, 1)
    with database.transaction(write=False) as reading:
        media = [image.media_id, cutout.media_id]
        for query in (
            select(Product.organization_id).where(Product.id == product.id),
            select(ProductImage.organization_id).where(ProductImage.id == image.id),
            select(ProductImageCutout.organization_id).where(ProductImageCutout.id == cutout.id),
            select(MediaResource.organization_id).where(MediaResource.id.in_(media)),
        ):
            assert set(reading.scalars(query)) == {target.id}, query


def test_members_of_the_old_organization_lose_the_product_and_those_of_the_new_one_get_it(
    client: Client, customer: Customer, target: Organization, client_for: Callable[..., Client]
) -> None:
    old_member, new_member = factories.make_user(), factories.make_user()
    factories.make_membership(customer.organization, old_member)
    factories.make_membership(target, new_member)
    product = factories.make_product(organization=customer.organization)
    path = f"/products/{product.id}"
    assert client_for(new_member)("GET", path).status == 404
    assert client("POST", f"{path}/transfer", {"organization_id": str(target.id)}).status == 200
    assert client_for(old_member)("GET", path).status == 404
    assert client_for(new_member)("PATCH", path, {"name": "Coat"}).status == 200


def test_a_transfer_needs_the_permission_to_write_in_both_tenants(
    client: Client, customer: Customer, target: Organization, client_for: Callable[..., Client]
) -> None:
    member, path = (
        factories.make_user(),
        f"/products/{factories.make_product(organization=target).id}/transfer",
    )
    factories.make_membership(customer.organization, member, role="viewer")
    factories.make_membership(target, member)
    body = {"organization_id": str(customer.organization.id)}
    assert status_and_code(client_for(member)("POST", path, body)) == (403, "not_enough_permissions")
    foreign = client("POST", path, {"organization_id": str(factories.make_organization().id)})
    assert (status_and_code(foreign), foreign.json()["pointer"]) == ((404, "not_found"), "/organization_id")
    viewed = factories.make_product(organization=customer.organization)
    to_target = {"organization_id": str(target.id)}
    response = client_for(member)("POST", f"/products/{viewed.id}/transfer", to_target)
    assert status_and_code(response) == (403, "not_enough_permissions")


def test_resources_move_to_and_from_the_personal_resources_of_the_caller(
    client: Client, customer: Customer, client_for: Callable[..., Client]
) -> None:
    admin = factories.make_user()
    factories.make_membership(customer.organization, admin, role="admin")
    style = factories.make_style(organization=customer.organization)
    path = f"/styles/{style.id}/transfer"
    personal = client_for(admin)("POST", path, {"organization_id": None}).json()
    assert (personal["owner_id"], personal["organization_id"]) == (str(admin.id), None)
    assert client("GET", f"/styles/{style.id}").status == 404
    body = {"organization_id": str(customer.organization.id)}
    assert client_for(admin)("POST", path, body).json()["organization_id"] == str(customer.organization.id)


def test_a_transfer_to_the_present_tenant_changes_nothing(client: Client, customer: Customer) -> None:
    brand = factories.make_brand(organization=customer.organization)
    before = client("GET", f"/brands/{brand.id}")
    body = {"organization_id": str(customer.organization.id)}
    assert client("POST", f"/brands/{brand.id}/transfer", body).json() == before.json()


@pytest.mark.parametrize("kind", ["brand", "product", "style", "subject", "guidelines"])
def test_a_resource_in_use_stays(client: Client, customer: Customer, target: Organization, kind: str) -> None:
    owned = {"organization": customer.organization}
    row = getattr(factories, f"make_{kind}")(**owned)
    if kind == "brand":
        user = factories.make_product(**owned, brand_id=row.id)
    elif kind == "guidelines":
        user = factories.make_shooting(**owned, default_guidelines_id=row.id)
    elif kind == "style":
        user = factories.make_brand(**owned, default_style_id=row.id)
    else:
        column = {"product": "main_product_id", "subject": "subject_id"}[kind]
        user = factories.make_look(factories.make_shooting(**owned), **{column: row.id})
    path = f"/{kind}/{row.id}" if kind == "guidelines" else f"/{kind}s/{row.id}"
    response = client("POST", f"{path}/transfer", {"organization_id": str(target.id)})
    assert status_and_code(response) == (409, "in_use")
    assert response.json()["conflicts_with"] == [
        {"resource_type": type(user).__name__.lower(), "count": 1, "ids": [str(user.id)]}
    ]
    assert client("GET", path).json()["organization_id"] == str(customer.organization.id)


def test_uses_by_other_tenants_do_not_keep_a_public_resource(
    superuser: Client, customer: Customer, target: Organization
) -> None:
    style = factories.make_style(organization=customer.organization, public=True)
    factories.make_brand(default_style_id=style.id)
    response = superuser("POST", f"/styles/{style.id}/transfer", {"organization_id": str(target.id)})
    assert response.status == 200, response.body


def test_a_resource_that_refers_to_its_old_tenant_stays(
    client: Client, customer: Customer, target: Organization
) -> None:
    owned = {"organization": customer.organization}
    brand = factories.make_brand(**owned)
    product = factories.make_product(**owned, brand_id=brand.id)
    body, path = {"organization_id": str(target.id)}, f"/products/{product.id}"
    response = client("POST", f"{path}/transfer", body)
    assert status_and_code(response) == (409, "scope_mismatch")
    assert response.json()["conflicts_with"] == [
        {"resource_type": "brand", "count": 1, "ids": [str(brand.id)]}
    ]
    client("PATCH", path, {"brand_id": None})
    assert client("POST", f"{path}/transfer", body).status == 200


def test_references_to_public_resources_and_to_the_new_tenant_remain(
    client: Client, customer: Customer, target: Organization
) -> None:
    owned = {"organization": customer.organization}
    public, private = factories.make_shot_type(public=True), factories.make_shot_type(**owned)
    subject = factories.make_subject(**owned)
    factories.make_base_image(subject, shot_type_id=public.id)
    blocked = factories.make_guidelines(**owned, shot_type_ids=[public.id, private.id])
    body = {"organization_id": str(target.id)}
    moved = client("POST", f"/subjects/{subject.id}/transfer", body)
    assert moved.json()["base_images"][0]["shot_type_id"] == str(public.id)
    response = client("POST", f"/guidelines/{blocked.id}/transfer", body)
    assert response.json()["conflicts_with"] == [
        {"resource_type": "shot_type", "count": 1, "ids": [str(private.id)]}
    ]


def test_a_value_that_is_unique_in_the_new_tenant_can_be_taken(
    client: Client, customer: Customer, target: Organization
) -> None:
    body = {"organization_id": str(target.id)}
    product = factories.make_product(organization=customer.organization, sku="AN-1")
    factories.make_product(organization=target, sku="AN-1")
    assert status_and_code(client("POST", f"/products/{product.id}/transfer", body)) == (409, "sku_taken")
    brand = factories.make_brand(organization=customer.organization, slug="nord")
    factories.make_brand(organization=target, slug="nord")
    assert status_and_code(client("POST", f"/brands/{brand.id}/transfer", body)) == (409, "slug_taken")


def test_an_image_that_another_resource_shows_keeps_the_product(
    client: Client, customer: Customer, target: Organization
) -> None:
    first, second = (factories.make_product(organization=customer.organization) for _ in range(2))
    media_id = factories.make_product_image(first).media_id
    image = factories.make_product_image(second, media_id=media_id)
    customer.organization.logo_media_id = media_id
    factories.make(customer.organization)
    response = client("POST", f"/products/{first.id}/transfer", {"organization_id": str(target.id)})
    assert status_and_code(response) == (409, "in_use")
    assert response.json()["conflicts_with"] == [
        {"resource_type": "product_image", "count": 1, "ids": [str(image.id)]},
        {"resource_type": "organization", "count": 1, "ids": [str(customer.organization.id)]},
    ]


def test_an_image_that_the_new_tenant_has_is_used_instead(
    client: Client, customer: Customer, target: Organization, database: Database
) -> None:
    product = factories.make_product(organization=customer.organization)
    image = factories.make_product_image(product)
    cutout = factories.make_product_image_cutout(image, status="completed")
    same = factories.make_media(organization=target)
    with database.transaction(write=True) as writing:
        old = writing.get_one(MediaResource, image.media_id)
        writing.get_one(MediaResource, same.id).content_hash = old.content_hash
    response = client("POST", f"/products/{product.id}/transfer", {"organization_id": str(target.id)})
    assert response.status == 200, response.body
    assert str(same.id) in response.json()["images"][0]["url"]
    with database.transaction(write=False) as reading:
        assert reading.get_one(MediaResource, image.media_id).organization_id == customer.organization.id
        restarted = reading.get_one(ProductImageCutout, cutout.id)
        assert (restarted.status, restarted.organization_id) == ("pending", target.id)
        assert restarted.input_hash != cutout.input_hash


def test_both_tenants_have_the_event_in_their_audit_log(
    client: Client, customer: Customer, target: Organization, database: Database
) -> None:
    product = factories.make_product(organization=customer.organization)
    for organization_id in (target.id, None):
        body = {"organization_id": organization_id and str(organization_id)}
        assert client("POST", f"/products/{product.id}/transfer", body).status == 200
    with database.transaction(write=False) as reading:
        events = reading.scalars(
            select(AuditEvent).where(AuditEvent.action == "transfer_product").order_by(AuditEvent.id)
        ).all()
    assert [(event.organization_id, event.account_id) for event in events] == [
        (customer.organization.id, None), (target.id, None), (target.id, None), (None, customer.owner.id),
    ]  # fmt: skip
    assert {(event.target_type, event.target_id) for event in events} == {("product", product.id)}
    moved: dict[str, Any] = {"field": "organization_id", "before": str(customer.organization.id)}
    assert moved | {"after": str(target.id)} in events[0].changes


def test_the_change_feeds_list_a_deletion_and_a_creation(
    client: Client, customer: Customer, target: Organization, database: Database
) -> None:
    product = factories.make_product(organization=customer.organization)
    client("POST", f"/products/{product.id}/transfer", {"organization_id": str(target.id)})
    with database.transaction(write=False) as reading:
        of_product = select(Change.organization_id, Change.change).where(Change.resource_id == product.id)
        changes = reading.execute(of_product.order_by(Change.sequence)).all()
    assert changes[0] == (customer.organization.id, "created")
    assert set(changes[1:]) == {(customer.organization.id, "deleted"), (target.id, "created")}


def test_row_counts_follow_the_transfer(
    client: Client, customer: Customer, target: Organization, database: Database
) -> None:
    product = factories.make_product(organization=customer.organization)
    client("POST", f"/products/{product.id}/transfer", {"organization_id": str(target.id)})
    with database.transaction(write=False) as reading:
        counts: dict[Any, int] = {}
        for row in reading.scalars(select(RowCount).where(RowCount.table_name == "products")):
            if row.column_name == "":
                counts[row.scope_id] = counts.get(row.scope_id, 0) + row.number
    assert (counts[customer.organization.id], counts[target.id]) == (0, 1)


def test_a_look_that_is_created_during_a_transfer_does_not_refer_to_another_tenant(
    committing_server: CommittingServer,
) -> None:
    """Either the transfer finds the look, or the look does not find the product."""
    client, database, scenario = committing_server
    with database.transaction(write=True):
        target = factories.make_organization(scenario.owner)
        shot_type = factories.make_shot_type(**scenario.ownership)
        shooting = factories.make_shooting(**scenario.ownership)
        products = [factories.make_product(**scenario.ownership) for _ in range(6)]
    for product in products:
        look = {"main_product_id": str(product.id), "shot_type_ids": [str(shot_type.id)]}
        path, body = f"/products/{product.id}/transfer", {"organization_id": str(target.id)}
        transfer, creation = run_concurrently(
            partial(client, "POST", path, body),
            partial(client, "POST", f"/shootings/{shooting.id}/looks", look),
        )
        assert (transfer.status, creation.status) in ((200, 409), (409, 201)), (transfer.body, creation.body)
