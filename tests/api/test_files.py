"""Stored pictures through the API: the right type, the size asked for, and only to those who may see them."""

import hashlib
from collections.abc import Callable
from uuid import uuid4

import pytest

from db.models import MediaResource, Organization, User
from db.session import Database
from handlers.app import Application
from studio.media.normalisation import normalise
from studio.media.storage import LocalDisk, media_folder, media_key
from tests import factories
from tests.api.conftest import Client
from tests.studio.media_samples import encoded, opened, scene


@pytest.fixture
def user(database: Database) -> User:
    return factories.make_user()


@pytest.fixture
def client(client_of: Callable[..., Client], user: User) -> Client:
    return client_of(user)


@pytest.fixture
def stored(app: Application) -> Callable[..., MediaResource]:
    """Make a picture with its file, whatever row it belongs to."""

    def store(file_format: str = "PNG", **values: object) -> MediaResource:
        picture = normalise(encoded(scene(), file_format))
        media = factories.make_media(
            extension=picture.extension,
            content_type=picture.content_type,
            content_hash=hashlib.sha256(picture.data + uuid4().bytes).hexdigest(),
            width=picture.width,
            height=picture.height,
            **values,
        )
        LocalDisk(app.settings.media_dir).write(media_key(media.id, picture.extension), picture.data)
        return media

    return store


def address(media: MediaResource, query: str = "") -> str:
    return f"/files/media/{media.id}/file.{media.extension}{query}"


@pytest.mark.parametrize(
    ("file_format", "content_type"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp")]
)
def test_s11_a_file_is_served_as_it_is_stored_and_cannot_run_as_a_page(
    client: Client, user: User, stored: Callable, file_format: str, content_type: str
) -> None:
    media = stored(file_format, owner=user)
    reply = client("GET", address(media))
    assert reply.status == 200
    assert reply.headers["content-type"] == content_type
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["cache-control"] == "private, no-cache"
    assert reply.headers["content-length"] == str(len(reply.body))
    assert opened(reply.body).format == file_format


@pytest.mark.parametrize("kind", ["webp", "jpeg", "png", "avif"])
def test_a_variant_has_the_width_and_type_asked_for_and_its_own_tag(
    client: Client, user: User, stored: Callable, kind: str
) -> None:
    media = stored(owner=user)
    reply = client("GET", address(media, f"?width=60&type={kind}"))
    assert (reply.status, reply.headers["content-type"]) == (200, f"image/{kind}")
    assert opened(reply.body).size == (60, 40)
    assert reply.headers["etag"] != client("GET", address(media)).headers["etag"]


def test_a_variant_is_never_enlarged(client: Client, user: User, stored: Callable) -> None:
    media = stored(owner=user)
    assert client("GET", address(media, "?width=4096")).body == client("GET", address(media)).body


@pytest.mark.parametrize("query", ["", "?width=30&type=webp"])
def test_a_file_that_the_caller_has_is_not_sent_again(
    client: Client, user: User, stored: Callable, query: str
) -> None:
    media = stored(owner=user)
    first = client("GET", address(media, query))
    again = client("GET", address(media, query), headers={"if-none-match": first.headers["etag"]})
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert client("GET", address(media, query), headers={"if-none-match": '"other"'}).status == 200


def test_head_answers_like_get_without_the_bytes(client: Client, user: User, stored: Callable) -> None:
    media = stored(owner=user)
    head, get = client("HEAD", address(media)), client("GET", address(media))
    assert (head.status, head.body) == (200, b"")
    for name in ("content-type", "content-length", "etag", "x-content-type-options"):
        assert head.headers[name] == get.headers[name]


def test_s26_members_see_the_files_of_their_organization_and_everybody_the_public_ones(
    client_of: Callable[..., Client], stored: Callable
) -> None:
    organization: Organization = factories.make_organization()
    viewer, stranger = factories.make_user(), factories.make_user()
    factories.make_membership(organization, viewer, role="viewer")
    private, public = stored(organization=organization), stored(organization=organization, public=True)
    assert client_of(viewer)("GET", address(private)).status == 200
    assert client_of(stranger)("GET", address(public)).status == 200
    foreign = client_of(stranger)("GET", address(private))
    unknown = client_of(stranger)("GET", f"/files/media/{uuid4()}/file.png")
    assert foreign.status == unknown.status == 404
    assert foreign.json() | {"request_id": ""} == unknown.json() | {"request_id": ""}
    assert client_of(None)("GET", address(public)).status == 401


@pytest.mark.parametrize("name", ["file.exe", "file", "other.png", "..", "file.png.html"])
def test_s12_another_name_leads_nowhere(client: Client, user: User, stored: Callable, name: str) -> None:
    assert client("GET", f"/files/media/{stored(owner=user).id}/{name}").status == 404


@pytest.mark.parametrize("query", ["?width=0", "?width=4097", "?width=wide", "?type=gif", "?type="])
def test_a_variant_that_is_not_offered_is_refused(
    client: Client, user: User, stored: Callable, query: str
) -> None:
    reply = client("GET", address(stored(owner=user), query))
    assert (reply.status, reply.json()["detail"][0]["loc"][0]) == (422, "query")


def test_a_row_whose_file_is_lost_is_not_found(
    app: Application, client: Client, user: User, stored: Callable
) -> None:
    media = stored(owner=user)
    LocalDisk(app.settings.media_dir).delete_folder(media_folder(media.id))
    assert client("GET", address(media)).status == 404
    assert client("GET", address(media, "?width=10")).status == 404
