"""What a superuser creates under a user's personal resource belongs to that user."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import select

from db.models import MediaResource, Product, ProductImage, Shot, Subject, User
from db.session import Database
from handlers.app import Application
from tests.api.conftest import Client
from tests.contract.tenant import make_image
from tests.support import factories
from tests.support.factories.catalog import post_form

FILE_PATH = "/api/v1"


def list_owners(database: Database, model: Any) -> set[tuple[UUID | None, UUID | None]]:
    """Return the tenants of all rows of a model."""
    with database.transaction(write=False) as reading:
        return set(map(tuple, reading.execute(select(model.owner_id, model.organization_id))))


def upload(app: Application, client: Client) -> str:
    """Send an image to a presigned URL and return its file URL."""
    body = {"filename": "dress.png", "content_type": "image/png"}
    urls: dict[str, Any] = client("POST", "/uploads/presigned-url", body).json()
    path = urls["upload_url"].removeprefix(f"{app.settings.public_url}/api/v1")
    assert client("PUT", path, body=make_image(), headers={"content-type": "image/png"}).status == 204
    return str(urls["file_url"])


def test_s41_a_file_that_a_superuser_adds_to_a_personal_product_belongs_to_its_owner(
    database: Database, superuser: Client, client: Client, user: User
) -> None:
    product = factories.make_product(owner=user)
    added = post_form(superuser, f"/products/{product.id}/images", make_image(), type="front")
    assert added.status == 201, added.body
    assert list_owners(database, ProductImage) == list_owners(database, MediaResource) == {(user.id, None)}
    path = added.json()["url"].partition("/api/v1")[2]
    assert client("GET", path).status == 200


def test_s41_an_upload_of_a_superuser_becomes_an_image_of_the_personal_row_that_shows_it(
    app: Application, database: Database, superuser: Client, client: Client, user: User
) -> None:
    product, file_url = factories.make_product(owner=user), upload(app, superuser)
    updated = superuser("PATCH", f"/products/{product.id}", {"cover_image": file_url})
    assert updated.status == 200, updated.body
    assert list_owners(database, MediaResource) == {(user.id, None)}
    assert client("GET", updated.json()["cover_image"].partition("/api/v1")[2]).status == 200


def test_s41_a_superuser_refers_to_a_personal_image_of_the_owner(
    app: Application, superuser: Client, client: Client, user: User
) -> None:
    product, brand = factories.make_product(owner=user), factories.make_brand(owner=user)
    file_url = upload(app, client)
    shown = client("PATCH", f"/products/{product.id}", {"cover_image": file_url}).json()["cover_image"]
    assert superuser("PATCH", f"/brands/{brand.id}", {"logo_url": shown}).json()["logo_url"] == shown


def test_s41_a_base_image_that_a_superuser_adds_belongs_to_the_owner_of_the_subject(
    database: Database, superuser: Client, user: User
) -> None:
    subject, shot_type = factories.make_subject(owner=user), factories.make_shot_type(owner=user)
    path = f"/subjects/{subject.id}/base-images"
    assert post_form(superuser, path, make_image(), shot_type_id=str(shot_type.id)).status == 201
    assert list_owners(database, MediaResource) == {(user.id, None)}


def test_s41_a_look_that_a_superuser_adds_to_a_personal_shooting_belongs_to_its_owner(
    database: Database, superuser: Client, client: Client, user: User
) -> None:
    shooting, product = factories.make_shooting(owner=user), factories.make_product(owner=user)
    body = {
        "main_product_id": str(product.id),
        "shot_type_ids": [str(factories.make_shot_type(owner=user).id)],
    }
    created = superuser("POST", f"/shootings/{shooting.id}/looks", body)
    assert created.status == 201, created.body
    assert list_owners(database, Shot) == {(user.id, None)}
    assert client("GET", created.headers["location"].removeprefix(FILE_PATH)).status == 200


def test_s41_an_image_of_a_system_row_belongs_to_the_superuser(
    app: Application, database: Database, superuser: Client
) -> None:
    subject = factories.make_subject(owner_id=None, organization_id=None, public=True)
    response = superuser("PATCH", f"/subjects/{subject.id}", {"cover_image": upload(app, superuser)})
    assert response.status == 200, response.body
    ((owner_id, organization_id),) = list_owners(database, MediaResource)
    assert (owner_id is not None, organization_id) == (True, None)
    assert list_owners(database, Subject) == {(None, None)}
    assert list_owners(database, Product) == set()
