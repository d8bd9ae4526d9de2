"""Subjects through the API: base images, filters and publishing."""

from __future__ import annotations

from collections.abc import Callable

from tests.api.conftest import Client
from tests.support import factories
from tests.support.client import status_and_code
from tests.support.factories.catalog import Customer, post_form
from tests.support.sample_media import build_orientation_image, encode_image

IMAGE = encode_image(build_orientation_image(60, 80), "PNG")


def test_creating_a_subject_returns_all_its_fields(customer: Customer) -> None:
    subject = customer.create("/subjects/", {"name": "Ida", "surname": "Berg", "age_class": "ADULT"})
    assert subject == {
        "id": subject["id"],
        "created_at": subject["created_at"],
        "updated_at": subject["updated_at"],
        "owner_id": str(customer.owner.id),
        "organization_id": str(customer.organization.id),
        "name": "Ida",
        "surname": "Berg",
        "slug": "ida",
        "description": None,
        "age_class": "ADULT",
        "body_type": None,
        "gender": None,
        "eye_color": None,
        "hair_color": None,
        "cover_image": None,
        "public": False,
        "base_images": [],
    }


def test_a_base_image_for_a_shot_type_can_be_added_and_deleted(customer: Customer) -> None:
    subject = customer.create("/subjects/", {"name": "Ida"})
    shot_type = customer.create("/shot-types/", {"name": "Full body", "framing": "FULL_BODY"})
    path = f"/subjects/{subject['id']}/base-images"
    response = post_form(customer.client, path, IMAGE, shot_type_id=shot_type["id"])
    assert response.status == 201, response.body
    image = response.json()
    assert (image["shot_type_id"], image["shot_type_label"]) == (shot_type["id"], "Full body")
    assert customer.client("GET", f"{path}/{image['id']}").json() == image
    assert customer.client("GET", f"/subjects/{subject['id']}").json()["base_images"] == [image]
    assert status_and_code(customer.client("DELETE", f"/shot-types/{shot_type['id']}")) == (409, "in_use")
    assert customer.client("DELETE", f"{path}/{image['id']}").status == 204
    assert customer.client("GET", f"/subjects/{subject['id']}").json()["base_images"] == []
    assert customer.client("DELETE", f"/shot-types/{shot_type['id']}").status == 204


def test_a_base_image_for_a_shot_type_of_another_tenant_is_rejected(customer: Customer) -> None:
    subject = customer.create("/subjects/", {"name": "Ida"})
    path = f"/subjects/{subject['id']}/base-images"
    foreign, personal = factories.make_shot_type(), factories.make_shot_type(owner=customer.owner)
    assert post_form(customer.client, path, IMAGE, shot_type_id=str(foreign.id)).status == 404
    response = post_form(customer.client, path, IMAGE, shot_type_id=str(personal.id))
    assert status_and_code(response) == (409, "scope_mismatch")


def test_only_superusers_can_publish_a_subject_with_its_base_images(
    customer: Customer, superuser: Client, client_for: Callable[..., Client]
) -> None:
    assert status_and_code(customer.client("POST", "/subjects/", {"name": "Ida", "public": True})) == (
        409,
        "public_requires_superuser",
    )
    subject = customer.create("/subjects/", {"name": "Ida"})
    path = f"/subjects/{subject['id']}"
    assert status_and_code(customer.client("PATCH", path, {"public": True})) == (
        409,
        "public_requires_superuser",
    )
    shot_type = factories.make_shot_type(owner_id=None, public=True)
    image = post_form(customer.client, f"{path}/base-images", IMAGE, shot_type_id=str(shot_type.id)).json()
    image_path = image["image_url"].partition("/api/v1")[2]

    stranger = client_for(factories.make_user())
    assert stranger("GET", path).status == stranger("GET", image_path).status == 404
    assert superuser("PATCH", path, {"public": True}).status == 200
    assert [row["id"] for row in stranger("GET", path).json()["base_images"]] == [image["id"]]
    assert stranger("GET", image_path).status == 200
    assert stranger("GET", f"{path}/base-images/{image['id']}").status == 200
    assert status_and_code(stranger("PATCH", path, {"name": "Mine"})) == (403, "not_enough_permissions")
    # A client may send `public: true` back unchanged.
    assert customer.client("PATCH", path, {"public": True, "name": "Ida B."}).status == 200

    assert superuser("PATCH", path, {"public": False}).status == 200
    assert stranger("GET", path).status == stranger("GET", image_path).status == 404


def test_lists_include_public_rows_unless_include_public_is_false(customer: Customer) -> None:
    own = customer.create("/subjects/", {"name": "Ida", "body_type": "slim", "age_class": "ADULT"})
    public = factories.make_subject(owner_id=None, public=True)
    factories.make_base_image(public)

    def found(query: str = "") -> set[str]:
        response = customer.client("GET", f"/subjects/{customer.organization_query}{query}")
        return {row["id"] for row in response.json()["data"]}

    assert found() == {own["id"], str(public.id)}
    assert found("&include_public=false") == {own["id"]}
    assert found("&only_with_base_images=true") == {str(public.id)}
    assert found("&age_class=ADULT&body_type=slim") == {own["id"]}


def test_a_subject_in_a_look_cannot_be_deleted(customer: Customer) -> None:
    subject = factories.make_subject(organization=customer.organization)
    factories.make_base_image(subject)
    shooting = factories.make_shooting(organization=customer.organization)
    factories.make_look(shooting, subject_id=subject.id)
    assert status_and_code(customer.client("DELETE", f"/subjects/{subject.id}")) == (409, "in_use")
    assert len(customer.client("GET", f"/subjects/{subject.id}").json()["base_images"]) == 1
