"""Rows and images that are not public any more, or archived, are not used in new generations of others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from db.models import MediaResource, ShotType, Style, Subject, User
from db.session import Database
from tests.api.conftest import Client
from tests.support import factories
from tests.support.client import ClientResponse, status_and_code
from tests.support.factories.catalog import Customer
from tests.support.scenarios import PhotographedProduct

ClientFor = Callable[[User | None], Client]
PATHS = {"subject": "/subjects", "style": "/styles", "shot_type": "/shot-types"}


@dataclass
class Published:
    """Public rows of one organization that a look of another one uses."""

    publisher: Customer
    user: Client
    scenario: PhotographedProduct
    subject: Subject
    style: Style
    shot_type: ShotType
    base_media: MediaResource

    def path(self, kind: str) -> str:
        """Return the path of a public row."""
        return f"{PATHS[kind]}/{getattr(self, kind).id}"

    def generate(self, **body: Any) -> ClientResponse:
        """Request a generation of the user's shot."""
        return self.user("POST", f"/shots/{self.scenario.shot.id}/generate", {"num_predictions": 1, **body})

    def use(self, kind: str) -> None:
        """Let the look, and for a shot type also the shot, refer to a public row."""
        row, look, shot = getattr(self, kind), self.scenario.look, self.scenario.shot
        if kind == "shot_type":
            look.shot_type_ids = [row.id]
            shot.shot_type_id = row.id
        else:
            setattr(look, f"{kind}_id", row.id)
        factories.make(look)
        factories.make(shot)


@pytest.fixture
def published(customer: Customer, client_for: ClientFor, scenario: PhotographedProduct) -> Published:
    mine: dict[str, Any] = {"organization": customer.organization, "public": True}
    subject = factories.make_subject(**mine, slug="mara")
    media = factories.make_media(**mine)
    factories.make_base_image(subject, shot_type_id=scenario.shot_type.id, media_id=media.id)
    return Published(
        customer,
        client_for(scenario.owner),
        scenario,
        subject,
        factories.make_style(**mine, slug="warm"),
        factories.make_shot_type(**mine, slug="front"),
        media,
    )


@pytest.mark.parametrize("kind", PATHS)
def test_s40_a_row_that_is_not_public_any_more_is_not_used_in_new_generations(
    kind: str, published: Published
) -> None:
    published.use(kind)
    withdrawn = published.publisher.client("PATCH", published.path(kind), {"public": False})
    assert withdrawn.status == 200, withdrawn.body
    assert status_and_code(published.generate()) == (409, "not_available")
    looks = published.user("GET", f"/shootings/{published.scenario.shooting.id}/looks").json()
    assert looks["count"] == 1


@pytest.mark.parametrize("kind", PATHS)
def test_s40_a_public_row_is_used_in_generations_of_others(kind: str, published: Published) -> None:
    published.use(kind)
    assert published.generate().status == 202


def test_s40_a_withdrawn_image_of_another_tenant_is_not_used_as_a_photo(
    published: Published, database: Database
) -> None:
    """A URL of a public image was accepted as the photo of a product."""
    product = factories.make_product(**published.scenario.ownership, cover_media_id=published.base_media.id)
    look = published.scenario.look
    look.main_product_id = product.id
    factories.make(look)
    generation = published.generate().json()
    assert generation["status"] == "pending"
    assert published.user("POST", f"/generations/{generation['id']}/cancel").status == 200
    path = published.path("subject")
    assert published.publisher.client("PATCH", path, {"public": False}).status == 200
    assert status_and_code(published.generate()) == (409, "not_available")
    retried = published.user("POST", f"/generations/{generation['id']}/retry")
    assert status_and_code(retried) == (409, "not_available")


def test_s40_a_retry_does_not_use_withdrawn_or_archived_rows(published: Published) -> None:
    for kind in ("subject", "style"):
        published.use(kind)
    generation = published.generate().json()
    assert published.user("POST", f"/generations/{generation['id']}/cancel").status == 200
    retry = f"/generations/{generation['id']}/retry"
    again = published.user("POST", retry).json()
    assert published.user("POST", f"/generations/{again['id']}/cancel").status == 200
    assert published.publisher.client("DELETE", published.path("style")).status == 204
    assert status_and_code(published.user("POST", retry)) == (409, "not_available")


def test_s40_a_new_background_does_not_use_a_withdrawn_image_of_the_source(published: Published) -> None:
    scenario, media = published.scenario, published.base_media
    file = {"media_id": str(media.id), "extension": "jpg", "content_hash": media.content_hash}
    scene = {"product": file, "subject": None, "width": 600, "height": 800, "quality": 90}
    source = factories.make_generation(
        scenario.shot, model_id=scenario.model.id, status="completed", inputs={"scene": scene}
    )
    prediction = factories.make_prediction(source, media_id=scenario.media.id)
    body = {"source_prediction_id": str(prediction.id), "generation_strategy": "BACKGROUND_FIXING"}
    path = f"/generations/?organization_id={scenario.organization.id}&validate_only=true"
    assert published.user("POST", path, body).status == 200
    assert published.publisher.client("PATCH", published.path("subject"), {"public": False}).status == 200
    assert status_and_code(published.user("POST", path, body)) == (409, "not_available")


@pytest.mark.parametrize("kind", PATHS)
def test_s40_a_row_that_only_others_use_is_archived_when_it_is_deleted(
    kind: str, published: Published, superuser: Client, database: Database
) -> None:
    published.use(kind)
    row, path, client = getattr(published, kind), published.path(kind), published.publisher.client
    assert client("DELETE", path).status == 204
    # Hidden from its owner, from those who use it, and from superusers.
    for reader in (client, published.user, superuser):
        assert status_and_code(reader("GET", path)) == (404, "not_found")
        assert str(row.id) not in reader("GET", f"{PATHS[kind]}/").body.decode()
        assert status_and_code(reader("DELETE", path)) in (
            (404, "not_found"),
            (403, "not_enough_permissions"),
        )
    # Looks keep it, and new generations are rejected.
    look = f"/shootings/{published.scenario.shooting.id}/looks/{published.scenario.look.id}"
    assert str(row.id) in published.user("GET", look).body.decode()
    assert status_and_code(published.generate()) == (409, "not_available")
    with database.transaction(write=False) as reading:
        archived = reading.get_one(type(row), row.id)
        assert (archived.owner_id, archived.organization_id, archived.public) == (None, None, False)
        assert archived.archived_at is not None


def test_s40_an_archived_row_blocks_neither_its_slug_nor_the_deletion_of_its_organization(
    published: Published,
) -> None:
    published.use("subject")
    client, organization = published.publisher.client, published.publisher.organization
    for kind in PATHS:
        assert client("DELETE", published.path(kind)).status == 204
    subjects = f"/subjects/?organization_id={organization.id}"
    created = client("POST", subjects, {"name": "Mara", "slug": "mara"})
    assert created.status == 201, created.body
    assert client("DELETE", f"/subjects/{created.json()['id']}").status == 204
    assert client("DELETE", f"/organizations/{organization.id}").status == 204


def test_s40_images_of_an_archived_subject_are_private(published: Published) -> None:
    published.use("subject")
    path = f"/files/media/{published.base_media.id}/file.jpg"
    assert published.publisher.client("DELETE", published.path("subject")).status == 204
    assert status_and_code(published.user("GET", path)) == (404, "not_found")


@pytest.mark.parametrize("kind", PATHS)
def test_s40_a_row_that_its_own_organization_uses_is_not_deleted(kind: str, published: Published) -> None:
    published.use(kind)
    organization = published.publisher.organization
    row = getattr(published, kind)
    if kind == "shot_type":
        factories.make_shot(
            factories.make_look(factories.make_shooting(organization=organization)), shot_type_id=row.id
        )
    else:
        look = {f"{kind}_id": row.id}
        factories.make_look(factories.make_shooting(organization=organization), **look)
    deleted = published.publisher.client("DELETE", published.path(kind))
    assert status_and_code(deleted) == (409, "in_use")
    assert published.generate().status == 202


@pytest.mark.parametrize("kind", PATHS)
def test_s40_a_row_that_nobody_uses_is_deleted(kind: str, published: Published, database: Database) -> None:
    row = getattr(published, kind)
    assert published.publisher.client("DELETE", published.path(kind)).status == 204
    with database.transaction(write=False) as reading:
        assert reading.get(type(row), row.id) is None


def test_s40_a_system_row_that_tenants_use_is_archived(published: Published, superuser: Client) -> None:
    style = factories.make_style(owner_id=None, organization_id=None, public=True)
    published.scenario.look.style_id = style.id
    factories.make(published.scenario.look)
    assert published.generate(num_predictions=1).status == 202
    assert superuser("DELETE", f"/styles/{style.id}").status == 204
    assert superuser("GET", f"/styles/{style.id}").status == 404
