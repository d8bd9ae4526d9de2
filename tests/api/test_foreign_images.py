"""Image addresses of other servers: fetched once, before the transaction, and from then on like uploads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import func, select

from db.models import MediaResource
from db.session import Database, session
from handlers.app import Application
from studio.media import fetching
from studio.outbound import Outbound
from tests.api.catalogue import House, code_of
from tests.contract.mini.asking import Reply
from tests.contract.world import World
from tests.listening import Answer, Listening, listening
from tests.pictures_elsewhere import PLACES, Place, naming
from tests.serving import bearer
from tests.studio.media_samples import bomb, encoded, located_exif, opened, scene

PHOTO = encoded(scene(), "JPEG", exif=located_exif(6))


class Elsewhere:
    """A server of somebody else; it answers as told, a photograph unless told otherwise."""

    def __init__(self) -> None:
        self.answer = Answer(body=PHOTO, headers={"Content-Type": "text/html"})
        self.at: Listening

    @property
    def address(self) -> str:
        """Where the picture is."""
        return f"{self.at.url}/dress.jpg"


@pytest.fixture
def elsewhere(app: Application, monkeypatch: pytest.MonkeyPatch) -> Iterator[Elsewhere]:
    """A server that this one may ask."""
    made = Elsewhere()
    with listening(lambda _asked: made.answer) as made.at:
        monkeypatch.setitem(app.app.config, "OUTBOUND", Outbound([made.at.host]))
        yield made


def cover(house: House, address: str, headers: dict[str, str] | None = None) -> Reply:
    body = {"name": "Wrap dress", "cover_image": address}
    return house.client("POST", f"/products/{house.scope}", body, headers=headers)


def stored_pictures(database: Database) -> int:
    with database.transaction(write=False):
        # unscoped: all that there are
        return session().scalar(select(func.count()).select_from(MediaResource)) or 0


def test_the_contract_has_all_the_places_that_take_addresses() -> None:
    assert len(PLACES) == 15
    assert {place.name for place in PLACES} == {
        "logo_url", "cover_image", "image_url", "file_url", "product_image", "product2_image",
    }  # fmt: skip


@pytest.mark.parametrize("place", PLACES, ids=":".join)
def test_a_picture_elsewhere_is_taken_wherever_a_picture_is_named(
    place: Place, app: Application, database: Database, elsewhere: Elsewhere
) -> None:
    world = World(app.settings)
    before = stored_pictures(database)
    request = naming(world, place, elsewhere.address)
    reply = request.send(app, bearer(app, world.owner))
    assert reply.status == request.operation.success, reply.body
    assert [(asked.method, asked.path) for asked in elsewhere.at.asked] == [("GET", "/dress.jpg")]
    assert stored_pictures(database) == before + 1
    told = reply.json().get(place.name, reply.json().get("url"))
    if place.operation_id == "create_generation":
        # Orders are shown as they were given.
        assert told == elsewhere.address
    else:
        assert told.startswith(f"{app.settings.public_url}/api/v1/files/media/")


def test_it_is_stored_like_an_upload_and_the_other_server_learns_nothing(
    house: House, elsewhere: Elsewhere
) -> None:
    made = cover(house, elsewhere.address).json()
    served = house.client("GET", made["cover_image"].partition("/api/v1")[2])
    assert served.headers["content-type"] == "image/jpeg"
    picture = opened(served.body)
    assert picture.size == (80, 120)
    assert not picture.getexif()
    (asked,) = elsewhere.at.asked
    assert asked.headers == {
        "host": elsewhere.at.host,
        "accept-encoding": "identity",
        "accept": "image/*",
        "user-agent": "Sartiq-Images/1.0",
    }


def test_a_picture_that_is_there_already_is_not_stored_twice(house: House, elsewhere: Elsewhere) -> None:
    first, second = (cover(house, f"{elsewhere.address}?{number}").json() for number in range(2))
    assert first["cover_image"] == second["cover_image"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"%PDF-1.7", "not a JPEG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a JPEG"),
        (b"", "not a JPEG"),
        (PHOTO[: len(PHOTO) // 2], "cannot be read"),
        (bomb(30_000, 30_000), "pixels"),
        (PHOTO + bytes(200_000), "bytes"),
    ],
)
def test_what_would_be_refused_as_an_upload_is_a_conflict(
    house: House, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch, content: bytes, why: str
) -> None:
    monkeypatch.setattr(fetching, "MAX_FILE_BYTES", 200_000)
    elsewhere.answer = Answer(body=content, headers={"Content-Type": "image/jpeg"})
    reply = cover(house, elsewhere.address)
    assert code_of(reply) == (409, "image_not_usable")
    assert why in reply.json()["detail"]


@pytest.mark.parametrize("status", [201, 204, 206, 301, 304, 401, 404, 418, 500, 503])
def test_any_status_but_200_is_one_and_the_same_conflict(
    house: House, elsewhere: Elsewhere, status: int
) -> None:
    elsewhere.answer = Answer(status, b"" if status in (204, 304) else PHOTO)
    reply = cover(house, elsewhere.address)
    assert code_of(reply) == (409, "image_not_fetched")
    assert reply.json()["detail"] == "The image could not be fetched from its address"


def test_a_server_that_is_not_there_or_too_slow_is_the_same_conflict(
    app: Application, house: House, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "SECONDS", 0.2)
    over = threading.Event()
    elsewhere.answer = Answer(write=lambda _connection: over.wait(5))
    slow = cover(house, elsewhere.address)
    over.set()
    with listening() as gone:
        pass
    monkeypatch.setitem(app.app.config, "OUTBOUND", Outbound([gone.host]))
    absent = cover(house, gone.url)
    for reply in (slow, absent):
        assert code_of(reply) == (409, "image_not_fetched")
        assert reply.json()["detail"] == "The image could not be fetched from its address"


@pytest.mark.parametrize(("redirects", "status"), [(3, 201), (4, 409)])
def test_three_redirects_are_followed(
    app: Application, house: House, monkeypatch: pytest.MonkeyPatch, redirects: int, status: int
) -> None:
    def respond(asked: Any) -> Answer:
        hop = int(asked.path.strip("/"))
        return Answer(302, headers={"Location": f"/{hop + 1}"}) if hop < redirects else Answer(body=PHOTO)

    with listening(respond) as server:
        monkeypatch.setitem(app.app.config, "OUTBOUND", Outbound([server.host]))
        reply = cover(house, f"{server.url}/0")
    assert reply.status == status, reply.body
    assert len(server.asked) == 4


@pytest.mark.parametrize("path", ["", "/api/v1/brands/", "/api/v1/files/", "/api/v1/docs"])
def test_this_server_does_not_ask_itself(house: House, app: Application, path: str) -> None:
    reply = cover(house, f"{app.settings.public_url}{path}")
    assert code_of(reply) == (409, "target_not_allowed")


def test_nobody_makes_the_server_fetch_for_rows_of_others_or_without_the_right(
    app: Application, database: Database, elsewhere: Elsewhere
) -> None:
    world, stranger = World(app.settings), World(app.settings)
    for place in PLACES:
        request = naming(world, place, elsewhere.address)
        viewer = request.send(app, bearer(app, world.viewer))
        if place.operation_id != "create_organization":
            assert viewer.status == 403, (place, viewer.body)
            foreign = request.send(app, bearer(app, stranger.owner))
            assert foreign.status == 404, (place, foreign.body)
    del elsewhere.at.asked[:-1]
    assert [asked.path for asked in elsewhere.at.asked] == ["/dress.jpg"], "the new organization's logo"


def test_a_change_of_an_old_version_fetches_nothing(house: House, elsewhere: Elsewhere) -> None:
    product = house.create("/products/", {"name": "Wrap dress"})
    old = {"if-match": '"another version"'}
    body = {"cover_image": elsewhere.address}
    assert house.client("PATCH", f"/products/{product['id']}", body, headers=old).status == 412
    unknown = {"shot_id": "01990000-5eed-7000-8000-0009000000ff", "product_image": elsewhere.address}
    assert house.client("POST", f"/generations/{house.scope}", unknown).status == 404
    assert elsewhere.at.asked == []


def test_no_transaction_is_open_while_a_picture_is_fetched(
    house: House, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = []

    def normalise(data: bytes) -> Any:
        with pytest.raises(RuntimeError, match="no running transaction"):
            session()
        looked.append(len(data))
        return original(data)

    original = fetching.normalise
    monkeypatch.setattr(fetching, "normalise", normalise)
    assert cover(house, elsewhere.address).status == 201
    assert looked == [len(PHOTO)]


def test_a_key_is_good_again_after_a_failed_fetch_and_a_replay_fetches_nothing(
    house: House, elsewhere: Elsewhere
) -> None:
    key = {"idempotency-key": "one-cover"}
    elsewhere.answer = Answer(503)
    assert code_of(cover(house, elsewhere.address, key)) == (409, "image_not_fetched")
    elsewhere.answer = Answer(body=b"maintenance")
    assert code_of(cover(house, elsewhere.address, key)) == (409, "image_not_usable")
    elsewhere.answer = Answer(body=PHOTO)
    first, again = (cover(house, elsewhere.address, key) for _ in range(2))
    assert (first.status, again.status) == (201, 201)
    assert again.body == first.body
    assert len(elsewhere.at.asked) == 3


def test_a_refused_change_leaves_no_picture(house: House, database: Database, elsewhere: Elsewhere) -> None:
    house.create("/products/", {"name": "Wrap dress", "sku": "AN-2041"})
    body = {"name": "Wrap dress", "sku": "AN-2041", "cover_image": elsewhere.address}
    assert code_of(house.client("POST", f"/products/{house.scope}", body)) == (409, "sku_taken")
    assert stored_pictures(database) == 0


def test_half_of_the_threads_stay_with_those_who_wait_for_nobody(
    app: Application, house: House, elsewhere: Elsewhere
) -> None:
    places = app.app.config["FETCHING"]
    for _ in range(app.settings.request_threads // 2):
        assert places.acquire(blocking=False)
    try:
        reply = cover(house, elsewhere.address)
        assert code_of(reply) == (503, "unavailable")
        assert int(reply.headers["retry-after"]) > 0
        assert elsewhere.at.asked == []
    finally:
        for _ in range(app.settings.request_threads // 2):
            places.release()
    assert cover(house, elsewhere.address).status == 201


def test_two_pictures_of_one_order_are_both_fetched(
    app: Application, database: Database, elsewhere: Elsewhere
) -> None:
    world = World(app.settings)
    request = naming(world, Place("create_generation", "product_image"), elsewhere.address)
    request.body["product2_image"] = f"{elsewhere.address}?2"
    assert request.send(app, bearer(app, world.owner)).status == 202
    assert [asked.path for asked in elsewhere.at.asked] == ["/dress.jpg", "/dress.jpg?2"]
