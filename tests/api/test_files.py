"""Stored images: their type and size, and which callers see them."""

import hashlib
from collections.abc import Callable
from uuid import uuid4

import pytest

from db.models import MediaResource, Organization, User
from handlers.app import Application
from studio.infrastructure.storage import LocalDisk, media_folder, media_key
from studio.media.normalization import normalize
from tests.api.conftest import Client
from tests.support import factories
from tests.support.sample_media import build_orientation_image, encode_image, open_image


@pytest.fixture
def store_media(app: Application) -> Callable[..., MediaResource]:
    """Return a function that stores an image with its file."""

    def store(file_format: str = "PNG", **values: object) -> MediaResource:
        image = normalize(encode_image(build_orientation_image(), file_format))
        media = factories.make_media(
            extension=image.extension,
            content_type=image.content_type,
            content_hash=hashlib.sha256(image.data + uuid4().bytes).hexdigest(),
            width=image.width,
            height=image.height,
            **values,
        )
        LocalDisk(app.settings.media_dir).write(media_key(media.id, image.extension), image.data)
        return media

    return store


def media_path(media: MediaResource, query: str = "") -> str:
    return f"/files/media/{media.id}/file.{media.extension}{query}"


@pytest.mark.parametrize(
    ("file_format", "content_type"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp")]
)
def test_s11_a_file_is_served_unchanged_with_headers_against_scripts(
    client: Client, user: User, store_media: Callable, file_format: str, content_type: str
) -> None:
    media = store_media(file_format, owner=user)
    response = client("GET", media_path(media))
    assert response.status == 200
    assert response.headers["content-type"] == content_type
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "private, no-cache"
    assert response.headers["content-length"] == str(len(response.body))
    assert open_image(response.body).format == file_format


@pytest.mark.parametrize("image_type", ["webp", "jpeg", "png", "avif"])
def test_a_variant_has_the_requested_width_and_type_and_its_own_tag(
    client: Client, user: User, store_media: Callable, image_type: str
) -> None:
    media = store_media(owner=user)
    response = client("GET", media_path(media, f"?width=60&type={image_type}"))
    assert (response.status, response.headers["content-type"]) == (200, f"image/{image_type}")
    assert open_image(response.body).size == (64, 43)
    assert response.headers["etag"] != client("GET", media_path(media)).headers["etag"]


def test_a_variant_is_never_enlarged(client: Client, user: User, store_media: Callable) -> None:
    media = store_media(owner=user)
    assert client("GET", media_path(media, "?width=4096")).body == client("GET", media_path(media)).body


@pytest.mark.parametrize("query", ["", "?width=30&type=webp"])
def test_an_unchanged_file_is_not_sent_again(
    client: Client, user: User, store_media: Callable, query: str
) -> None:
    media = store_media(owner=user)
    first = client("GET", media_path(media, query))
    again = client("GET", media_path(media, query), headers={"if-none-match": first.headers["etag"]})
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert client("GET", media_path(media, query), headers={"if-none-match": '"other"'}).status == 200


def test_head_returns_the_headers_of_get(client: Client, user: User, store_media: Callable) -> None:
    media = store_media(owner=user)
    head, get = client("HEAD", media_path(media)), client("GET", media_path(media))
    assert (head.status, head.body) == (200, b"")
    for name in ("content-type", "content-length", "etag", "x-content-type-options"):
        assert head.headers[name] == get.headers[name]


def test_s26_members_see_files_of_their_organization_and_all_users_see_public_ones(
    client_for: Callable[..., Client], store_media: Callable
) -> None:
    organization: Organization = factories.make_organization()
    viewer, stranger = factories.make_user(), factories.make_user()
    factories.make_membership(organization, viewer, role="viewer")
    private, public = (
        store_media(organization=organization),
        store_media(organization=organization, public=True),
    )
    assert client_for(viewer)("GET", media_path(private)).status == 200
    assert client_for(stranger)("GET", media_path(public)).status == 200
    foreign = client_for(stranger)("GET", media_path(private))
    unknown = client_for(stranger)("GET", f"/files/media/{uuid4()}/file.png")
    assert foreign.status == unknown.status == 404
    assert foreign.json() | {"request_id": ""} == unknown.json() | {"request_id": ""}
    assert client_for(None)("GET", media_path(public)).status == 401


@pytest.mark.parametrize("name", ["file.exe", "file", "other.png", "..", "file.png.html"])
def test_s12_another_file_name_returns_404(
    client: Client, user: User, store_media: Callable, name: str
) -> None:
    assert client("GET", f"/files/media/{store_media(owner=user).id}/{name}").status == 404


@pytest.mark.parametrize("query", ["?width=0", "?width=4097", "?width=wide", "?type=tiff", "?type="])
def test_an_unsupported_variant_is_rejected(
    client: Client, user: User, store_media: Callable, query: str
) -> None:
    response = client("GET", media_path(store_media(owner=user), query))
    assert (response.status, response.json()["detail"][0]["loc"][0]) == (422, "query")


def test_a_row_without_its_file_returns_404(
    app: Application, client: Client, user: User, store_media: Callable
) -> None:
    media = store_media(owner=user)
    LocalDisk(app.settings.media_dir).delete_folder(media_folder(media.id))
    assert client("GET", media_path(media)).status == 404
    assert client("GET", media_path(media, "?width=10")).status == 404
