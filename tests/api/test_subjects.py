"""Subjects through the API: base images, filters, and what is public."""

from __future__ import annotations

from collections.abc import Callable

from tests import factories
from tests.api.catalogue import House, code_of, post_form
from tests.api.conftest import Client
from tests.studio.media_samples import encoded, scene

PICTURE = encoded(scene(60, 80), "PNG")


def test_a_new_subject_is_answered_whole(house: House) -> None:
    subject = house.create("/subjects/", {"name": "Ida", "surname": "Berg", "age_class": "ADULT"})
    assert subject == {
        "id": subject["id"],
        "created_at": subject["created_at"],
        "updated_at": subject["updated_at"],
        "owner_id": str(house.owner.id),
        "organization_id": str(house.organization.id),
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


def test_a_base_image_is_for_one_shot_type_and_comes_and_goes(house: House) -> None:
    subject = house.create("/subjects/", {"name": "Ida"})
    shot_type = house.create("/shot-types/", {"name": "Full body", "framing": "FULL_BODY"})
    path = f"/subjects/{subject['id']}/base-images"
    reply = post_form(house.client, path, PICTURE, shot_type_id=shot_type["id"])
    assert reply.status == 201, reply.body
    image = reply.json()
    assert (image["shot_type_id"], image["shot_type_label"]) == (shot_type["id"], "Full body")
    assert house.client("GET", f"{path}/{image['id']}").json() == image
    assert house.client("GET", f"/subjects/{subject['id']}").json()["base_images"] == [image]
    assert code_of(house.client("DELETE", f"/shot-types/{shot_type['id']}")) == (409, "in_use")
    assert house.client("DELETE", f"{path}/{image['id']}").status == 204
    assert house.client("GET", f"/subjects/{subject['id']}").json()["base_images"] == []
    assert house.client("DELETE", f"/shot-types/{shot_type['id']}").status == 204


def test_a_base_image_for_a_foreign_shot_type_is_refused(house: House) -> None:
    subject = house.create("/subjects/", {"name": "Ida"})
    path = f"/subjects/{subject['id']}/base-images"
    foreign, personal = factories.make_shot_type(), factories.make_shot_type(owner=house.owner)
    assert post_form(house.client, path, PICTURE, shot_type_id=str(foreign.id)).status == 404
    reply = post_form(house.client, path, PICTURE, shot_type_id=str(personal.id))
    assert code_of(reply) == (409, "scope_mismatch")


def test_only_superusers_publish_and_then_everybody_sees_row_and_pictures(
    house: House, superuser: Client, client_of: Callable[..., Client]
) -> None:
    assert code_of(house.client("POST", "/subjects/", {"name": "Ida", "public": True})) == (
        409,
        "public_requires_superuser",
    )
    subject = house.create("/subjects/", {"name": "Ida"})
    path = f"/subjects/{subject['id']}"
    assert code_of(house.client("PATCH", path, {"public": True})) == (409, "public_requires_superuser")
    shot_type = factories.make_shot_type(owner_id=None, public=True)
    image = post_form(house.client, f"{path}/base-images", PICTURE, shot_type_id=str(shot_type.id)).json()
    picture = image["image_url"].partition("/api/v1")[2]

    stranger = client_of(factories.make_user())
    assert stranger("GET", path).status == stranger("GET", picture).status == 404
    assert superuser("PATCH", path, {"public": True}).status == 200
    assert [row["id"] for row in stranger("GET", path).json()["base_images"]] == [image["id"]]
    assert stranger("GET", picture).status == 200
    assert stranger("GET", f"{path}/base-images/{image['id']}").status == 200
    assert code_of(stranger("PATCH", path, {"name": "Mine"})) == (403, "not_enough_permissions")
    # What is public already may be sent back as it was read.
    assert house.client("PATCH", path, {"public": True, "name": "Ida B."}).status == 200

    assert superuser("PATCH", path, {"public": False}).status == 200
    assert stranger("GET", path).status == stranger("GET", picture).status == 404


def test_lists_take_public_rows_in_unless_they_are_not_wanted(house: House) -> None:
    own = house.create("/subjects/", {"name": "Ida", "body_type": "slim", "age_class": "ADULT"})
    public = factories.make_subject(owner_id=None, public=True)
    factories.make_base_image(public)

    def found(query: str = "") -> set[str]:
        reply = house.client("GET", f"/subjects/{house.scope}{query}")
        return {row["id"] for row in reply.json()["data"]}

    assert found() == {own["id"], str(public.id)}
    assert found("&include_public=false") == {own["id"]}
    assert found("&only_with_base_images=true") == {str(public.id)}
    assert found("&age_class=ADULT&body_type=slim") == {own["id"]}


def test_a_subject_in_a_look_cannot_be_deleted(house: House) -> None:
    subject = factories.make_subject(organization=house.organization)
    factories.make_base_image(subject)
    shooting = factories.make_shooting(organization=house.organization)
    factories.make_look(shooting, subject_id=subject.id)
    assert code_of(house.client("DELETE", f"/subjects/{subject.id}")) == (409, "in_use")
    assert len(house.client("GET", f"/subjects/{subject.id}").json()["base_images"]) == 1
