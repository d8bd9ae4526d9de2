"""Published predictions: the public URL, its files, what ends it, and what it does not give away."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from db.models import Prediction, PredictionPublication
from db.session import Database, current_session
from handlers.app import Application
from handlers.pipeline import wsgi_bridge
from studio.infrastructure.storage import LocalDisk, media_folder, media_key
from studio.publications import worker
from studio.publications.publish import hash_token
from tests.api.conftest import Client, CommittingServer
from tests.support import factories
from tests.support.app import replace_service
from tests.support.client import ClientResponse, status_and_code
from tests.support.queues import build_worker
from tests.support.sample_media import build_orientation_image, encode_image, open_image
from tests.support.scenarios import PhotographedProduct, make_stored_image

LEASE = timedelta(seconds=60)
WIDTH, HEIGHT = 300, 200


@dataclass
class Published:
    """An approved prediction of a shot, and the clients that publish and open it."""

    owner: Client
    anonymous: Client
    prediction: Prediction
    content_hash: str
    database: Database
    storage: LocalDisk

    def act(self, action: str, client: Client | None = None) -> ClientResponse:
        """Call an action of the prediction, as its owner unless another client is given."""
        return (client or self.owner)("POST", f"/predictions/{self.prediction.id}/{action}")

    def publish(self) -> dict[str, Any]:
        """Publish the prediction and return the body of the response."""
        response = self.act("publish")
        assert response.status == 200, response.body
        body: dict[str, Any] = response.json()
        return body

    def open(self, url: str, **headers: str) -> ClientResponse:
        """Open a public URL without a credential."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.anonymous("GET", url.split("/api/v1")[1], headers=names)

    def make_variants(self) -> int:
        """Run the worker once."""
        return worker.run_pending_publications(build_worker(self.database, self.storage))


@pytest.fixture
def published(
    client_for: Callable[..., Client],
    scenario: PhotographedProduct,
    database: Database,
    storage: LocalDisk,
) -> Published:
    """Return an approved prediction with an image of 300 x 200 pixels."""
    data = encode_image(build_orientation_image(WIDTH, HEIGHT), "JPEG", quality=90)
    media = make_stored_image(storage, database, scenario.ownership, data)
    generation = factories.make_generation(scenario.shot, model_id=scenario.model.id, status="completed")
    prediction = factories.make_prediction(generation, media_id=media.id)
    with database.transaction(write=True) as session:
        scenario.shot.status = "pending_review"
        session.merge(scenario.shot)
    client = client_for(scenario.owner)
    approved = client("POST", f"/predictions/{prediction.id}/approve")
    assert approved.status == 200, approved.body
    return Published(client, client_for(None), prediction, media.content_hash, database, storage)


def size_of(response: ClientResponse) -> tuple[int, int]:
    assert response.status == 200, response.body
    return open_image(response.body).size


def test_a_publication_serves_the_stored_image_without_a_credential(published: Published) -> None:
    body = published.publish()
    assert (body["widths"], body["formats"]) == ([64, 128, 256, 300], ["avif", "webp", "jpg"])
    start, token, name = body["url"].rsplit("/", 2)
    assert start.endswith("/api/v1/published")
    assert (len(token), name) == (22, f"{published.content_hash}.jpg")
    response = published.open(body["url"])
    assert (response.status, response.headers["content-type"]) == (200, "image/jpeg")
    assert hashlib.sha256(response.body).hexdigest() == published.content_hash
    assert response.headers["etag"] == f'"{published.content_hash}"'
    assert response.headers["cache-control"] == "public, max-age=300"
    assert response.headers["cross-origin-resource-policy"] == "cross-origin"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-security-policy"].endswith("sandbox")
    unchanged = published.open(body["url"], if_none_match=response.headers["etag"])
    assert (unchanged.status, unchanged.body) == (304, b"")
    assert unchanged.headers["cache-control"] == "public, max-age=300"
    assert unchanged.headers["cross-origin-resource-policy"] == "cross-origin"


def test_the_variants_are_made_by_a_worker_and_never_by_a_request(published: Published) -> None:
    url = published.publish()["url"]
    avif = f"{url.removesuffix('jpg')}avif?width=100"
    early = published.open(avif)
    # The stored image in its own format, for a short time only.
    assert (early.headers["content-type"], size_of(early)) == ("image/jpeg", (WIDTH, HEIGHT))
    assert early.headers["cache-control"] == "public, max-age=5"
    assert not list(published.storage.list_files(f"{media_folder(published.prediction.media_id)}/variants"))

    assert published.make_variants() == 1
    made = published.open(avif)
    assert (made.headers["content-type"], size_of(made)) == ("image/avif", (128, 85))
    assert made.headers["cache-control"] == "public, max-age=300"
    assert made.headers["etag"] not in (early.headers["etag"], None)
    for extension, media_type in (("avif", "image/avif"), ("webp", "image/webp"), ("jpg", "image/jpeg")):
        for width in (64, 128, 256, 4096):
            response = published.open(f"{url.removesuffix('jpg')}{extension}?width={width}")
            assert (response.headers["content-type"], size_of(response)[0]) == (media_type, min(width, WIDTH))
            assert response.headers["cache-control"] == "public, max-age=300"
    assert published.make_variants() == 0


def test_the_same_width_in_the_stored_format_is_served_until_a_format_is_made(published: Published) -> None:
    url = published.publish()["url"]
    assert published.owner("GET", f"/predictions/{published.prediction.id}/image?width=64").status == 200
    early = published.open(f"{url.removesuffix('jpg')}webp?width=64")
    assert (early.headers["content-type"], size_of(early)[0]) == ("image/jpeg", 64)
    assert early.headers["cache-control"] == "public, max-age=5"


def test_publishing_again_returns_the_same_url_and_makes_missing_variants_again(published: Published) -> None:
    first = published.publish()
    published.make_variants()
    published.storage.delete_folder(f"{media_folder(published.prediction.media_id)}/variants")
    assert published.publish() == first
    assert published.make_variants() == 1
    assert published.open(f"{first['url']}?width=64").headers["cache-control"] == "public, max-age=300"


def test_only_approved_and_exported_predictions_can_be_published(
    published: Published, database: Database
) -> None:
    reopened = published.act("reopen")
    assert reopened.status == 200
    assert status_and_code(published.act("publish")) == (409, "not_approved")
    rejected = published.owner("POST", f"/predictions/{published.prediction.id}/reject", {"reason": "dark"})
    assert rejected.status == 200
    assert status_and_code(published.act("publish")) == (409, "not_approved")
    with database.transaction(write=True) as session:
        session.get_one(Prediction, published.prediction.id).status = "exported"
    assert published.publish()["formats"]


def test_unpublishing_ends_the_url_for_good(published: Published) -> None:
    url = published.publish()["url"]
    assert (published.act("unpublish").status, published.act("unpublish").status) == (204, 204)
    assert status_and_code(published.open(url)) == (404, "not_found")
    again = published.publish()["url"]
    assert again != url
    assert published.open(again).status == 200
    assert published.open(url).status == 404


@pytest.mark.parametrize("ending", ["reopen_prediction", "reopen_shot", "approve_another", "delete"])
def test_whatever_ends_the_approval_ends_the_publication(
    published: Published, scenario: PhotographedProduct, database: Database, ending: str
) -> None:
    url = published.publish()["url"]
    shot = f"/shots/{scenario.shot.id}"
    if ending == "approve_another":
        other = factories.make_prediction(
            factories.make_generation(scenario.shot, model_id=scenario.model.id, status="completed"),
            media_id=scenario.media.id,
        )
        assert published.owner("POST", f"/predictions/{other.id}/approve").status == 200
    elif ending == "delete":
        assert published.act("reopen").status == 200
        path = f"/predictions/{published.prediction.id}"
        assert published.owner("DELETE", path).status == 204
    else:
        path = shot if ending == "reopen_shot" else f"/predictions/{published.prediction.id}"
        assert published.owner("POST", f"{path}/reopen").status == 200
    assert published.open(url).status == 404
    with database.transaction(write=False) as session:
        assert session.scalar(select(func.count(PredictionPublication.id))) == 0


def test_a_deleted_shooting_ends_the_publications_of_its_shots(
    published: Published, scenario: PhotographedProduct
) -> None:
    url = published.publish()["url"]
    assert published.owner("DELETE", f"/shootings/{scenario.shooting.id}").status == 204
    assert published.open(url).status == 404


def test_a_prediction_whose_status_changed_elsewhere_is_not_served(
    published: Published, database: Database
) -> None:
    url = published.publish()["url"]
    with database.transaction(write=True) as session:
        session.get_one(Prediction, published.prediction.id).status = "rejected"
    assert published.open(url).status == 404


def test_s26_only_the_exact_url_opens_the_image(published: Published) -> None:
    url = published.publish()["url"]
    start, token, name = url.rsplit("/", 2)
    content_hash = published.content_hash
    changed = "A" if token[0] != "A" else "B"
    urls = [
        f"{start}/{changed}{token[1:]}/{name}",
        f"{start}/{'A' * 22}/{name}",
        f"{start}/{token.swapcase()}/{name}",
        f"{start}/{token}/{'0' * 64}.jpg",
        f"{start}/{token}/{content_hash}.png",
        f"{start}/{token}/{content_hash}.gif",
        f"{start}/{token}/{content_hash}",
        f"{start}/{token}/.jpg",
    ]
    expected = published.open(f"{start}/{'B' * 22}/{name}")
    assert status_and_code(expected) == (404, "not_found")
    for wrong in urls:
        response = published.open(wrong)
        assert status_and_code(response) == (404, "not_found"), wrong
        assert set(response.headers) == set(expected.headers)
    assert published.open(f"{start}/{token}x/{name}").status == 422


def test_s5_the_database_holds_no_token(published: Published, database: Database) -> None:
    token = published.publish()["url"].rsplit("/", 2)[1]
    with database.transaction(write=False) as session:
        publication = session.scalars(select(PredictionPublication)).one()
        stored = str({column.name: getattr(publication, column.name) for column in publication.__table__.c})
    assert token not in stored
    assert publication.token_hash == hash_token(token)


def test_published_urls_survive_a_new_secret_key(
    published: Published, app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = published.publish()["url"]
    settings = app.settings
    new_key = "".join(map(chr, range(97, 97 + 20))) * 2
    rotated = replace(settings, secret_key=new_key, secret_key_previous=settings.secret_key)
    replace_service(monkeypatch, app, settings=rotated)
    assert published.publish()["url"] == old
    replace_service(monkeypatch, app, settings=replace(rotated, secret_key_previous=None))
    # The old URL works until the prediction is published again, which returns another one.
    assert published.open(old).status == 200
    new = published.publish()["url"]
    assert new != old
    assert (published.open(new).status, published.open(old).status) == (200, 404)


def test_of_concurrent_publications_each_returns_the_same_url(committing_server: CommittingServer) -> None:
    client, database, scenario = committing_server
    with database.transaction(write=True):
        generation = factories.make_generation(scenario.shot, model_id=scenario.model.id, status="completed")
        prediction = factories.make_prediction(generation, media_id=scenario.media.id, status="approved")
    path = f"/predictions/{prediction.id}/publish"
    with ThreadPoolExecutor(4) as senders:
        responses = list(senders.map(lambda _: client("POST", path), range(4)))
    assert {response.status for response in responses} == {200}
    assert len({response.json()["url"] for response in responses}) == 1


def test_a_lost_image_fails_its_publication(published: Published, database: Database) -> None:
    url = published.publish()["url"]
    published.storage.delete(media_key(published.prediction.media_id, "jpg"))
    assert published.make_variants() == 0
    with database.transaction(write=False):
        assert current_session().scalars(select(PredictionPublication.status)).one() == "failed"
    assert published.open(url).status == 404


def test_tenants_take_turns(published: Published, scenario: PhotographedProduct, database: Database) -> None:
    generation = factories.make_generation(scenario.shot, model_id=scenario.model.id, status="completed")
    for index in range(1, 4):
        other = factories.make_prediction(generation, media_id=scenario.media.id, index=index)
        factories.make_publication(other)
    late = factories.make_publication(factories.make_prediction())
    owners = []
    while lease := worker.PUBLICATIONS.lease_next(database, LEASE):
        owners.append(lease.owner_id)
    assert (len(owners), owners[1]) == (4, late.owner_id)


def test_a_part_of_a_published_image_can_be_requested(published: Published) -> None:
    url = published.publish()["url"]
    whole = published.open(url)
    size, etag = len(whole.body), whole.headers["etag"]
    assert (whole.headers["accept-ranges"], whole.headers["access-control-allow-origin"]) == ("bytes", "*")
    for wanted, start, end in (
        ("bytes=0-99", 0, 100),
        ("bytes=100-", 100, size),
        ("bytes=-50", size - 50, size),
        (f"bytes=10-{size * 2}", 10, size),
        (f"bytes={size - 1}-", size - 1, size),
    ):
        part = published.open(url, range=wanted, if_range=etag)
        assert (part.status, part.body) == (206, whole.body[start:end])
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
        assert part.headers["content-length"] == str(end - start)
        assert (part.headers["etag"], part.headers["content-type"]) == (etag, whole.headers["content-type"])
    for ignored in ("bytes=0-1,3-4", "items=0-1", "bytes=5-1", "bytes", "bytes=a-b", ""):
        assert (published.open(url, range=ignored).status, ignored) == (200, ignored)
    assert published.open(url, range="bytes=0-1", if_range='"older"').body == whole.body
    assert published.open(url, range="bytes=0-1", if_none_match=etag).status == 304
    for outside in (f"bytes={size}-", f"bytes={size + 5}-{size + 9}"):
        rejected = published.open(url, range=outside)
        assert status_and_code(rejected) == (416, "range_not_satisfiable")
        assert rejected.headers["content-range"] == f"bytes */{size}"
    path = url.split("/api/v1")[1]
    head = published.anonymous("HEAD", path, headers={"range": "bytes=0-1"})
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(size))


def test_a_large_part_is_sent_in_chunks(published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wsgi_bridge, "FILE_CHUNK_BYTES", 10)
    url = published.publish()["url"]
    whole = published.open(url).body
    for start, end in ((0, 10), (0, 20), (5, 26), (7, len(whole))):
        assert published.open(url, range=f"bytes={start}-{end - 1}").body == whole[start:end]


@pytest.mark.parametrize("query", ["v=2", "utm_source=mail&fbclid=x", "width=64&v=%00"])
def test_unknown_parameters_of_a_public_image_are_ignored(published: Published, query: str) -> None:
    url = published.publish()["url"]
    assert published.open(f"{url}?{query}").status == 200
    shared = published.owner("POST", f"/predictions/{published.prediction.id}/share", {}).json()["url"]
    assert published.open(f"{shared}?{query}").status == 200
    part = published.open(shared, range="bytes=0-9")
    assert (part.status, len(part.body)) == (206, 10)
    assert "access-control-allow-origin" not in part.headers
    assert published.open(f"{url}?width=wide").status == 422
