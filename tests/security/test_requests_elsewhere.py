"""S6 to S9: nobody makes this server ask what is inside, by an address, a redirect or a name that changes."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from db.errors import TargetNotAllowed
from db.session import Database
from handlers.app import Application
from studio.media.ingest import is_of_this_server
from studio.outbound import Outbound
from studio.webhooks import senders
from tests import factories
from tests.api.catalogue import House, code_of
from tests.contract.mini.asking import Reply
from tests.contract.world import World
from tests.listening import Answer, Asked, Listening, listening
from tests.pictures_elsewhere import (
    NAME,
    PLACES,
    PUBLIC,
    Place,
    Rerouted,
    naming,
    public_outbound,
    tls_listening,
)
from tests.receiving import SETTINGS, happen, only_delivery
from tests.serving import bearer
from tests.studio.media_samples import encoded, scene

ADDRESS = f"https://{NAME}/dress.png"
PHOTO = encoded(scene(), "PNG")
HOSTS = [
    "127.0.0.1", "127.1", "0.0.0.0", "0", "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1",
    "017700000001", "127.0.0.1.", "localhost", "localhost.", "LOCALHOST", "[::1]", "[::]",
    "[::ffff:127.0.0.1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]",
    "user@127.0.0.1", "user:word@localhost", "169.254.169.254", "10.0.0.1", "172.16.0.1", "172.31.255.254",
    "192.168.0.1", "100.64.0.1", "[fc00::1]", "[fd00::1]", "[fe80::1]",
]  # fmt: skip


@pytest.fixture
def network(app: Application, monkeypatch: pytest.MonkeyPatch) -> Rerouted:
    """The way out of the server, watched: it leads to no host that was allowed."""
    watched = Rerouted(9)
    monkeypatch.setitem(app.app.config, "OUTBOUND", Outbound(network=watched))
    return watched


@pytest.fixture
def canary() -> Iterator[Listening]:
    """A server of this machine that must not be asked."""
    with listening() as server:
        yield server
        assert server.asked == []


def spellings(canary: Listening) -> Iterator[str]:
    """Addresses of servers inside, and of the canary by every name of this machine."""
    for host in HOSTS:
        for scheme in ("http", "https"):
            yield f"{scheme}://{host}/dress.png"
            yield f"{scheme}://{host}:{canary.port}/dress.png"
    for port in (0, 22, 80, 8443, 65_536):
        yield f"https://{PUBLIC}:{port}/dress.png"


def cover(house: House, address: str) -> Reply:
    return house.client("POST", f"/products/{house.scope}", {"name": "Dress", "cover_image": address})


def test_s06_no_address_of_a_picture_leads_inside(house: House, network: Rerouted, canary: Listening) -> None:
    for address in spellings(canary):
        assert code_of(cover(house, address)) == (409, "target_not_allowed"), address
    assert network.wanted == []


@pytest.mark.parametrize("place", PLACES, ids=":".join)
def test_s06_no_property_that_takes_a_picture_leads_inside(
    place: Place, app: Application, database: Database, network: Rerouted, canary: Listening
) -> None:
    world = World(app.settings)
    caller = bearer(app, world.owner)
    for address in (
        canary.url,
        "https://localhost./",
        "https://[::ffff:127.0.0.1]/",
        "http://169.254.169.254/",
    ):
        assert code_of(naming(world, place, address).send(app, caller)) == (409, "target_not_allowed"), (
            address
        )
    for address in ("file:///etc/passwd", "gopher://127.0.0.1:25/", f"ftp://{PUBLIC}/", "//localhost/"):
        assert naming(world, place, address).send(app, caller).status == 422, address
    assert network.wanted == []


@given(
    some.one_of(
        some.from_regex(r"https?://[^\x00]+", fullmatch=True),
        some.builds(
            "https://{}{}{}".format,
            some.sampled_from(["", "a@", "a:b@", "\\", "//", "%00", "[", "*."]),
            some.one_of(
                some.ip_addresses().map(str),
                some.ip_addresses(v=6).map(lambda address: f"[{address}]"),
                some.integers(0, 2**32 - 1).map(hex),
                some.text(min_size=1, max_size=20),
            ),
            some.sampled_from(
                ["", ":443", ":80", ":x", "/..", "#", "?@127.0.0.1", "\\@localhost", "\t", "."]
            ),
        ),
    )
)
@settings(max_examples=150, deadline=None)  # a busy machine may take its time
def test_s06_whatever_is_invented_is_allowed_or_refused_and_nothing_else(address: str) -> None:
    asked_for: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked_for.append(host)
        return [host.strip("[]")]

    assert not is_of_this_server("http://localhost:8000", address)
    try:
        Outbound(resolve=resolve).require_allowed(address)
    except TargetNotAllowed:
        return
    # What passes is spelled as an address, and is a public one.
    assert ipaddress.ip_address(asked_for[0].strip("[]")).is_global


def answering(location: str) -> Callable[[Asked], Answer]:
    """A server that leads to somewhere else, over one step of its own."""

    def respond(asked: Asked) -> Answer:
        if asked.path == "/dress.png":
            return Answer(307, b"inner words", {"Location": "/next"})
        return Answer(302, b"inner words", {"Location": location})

    return respond


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:{port}/", "https://127.0.0.1:{port}/", "//127.0.0.1:{port}/", "https://localhost/",
        "https://[::1]/", "https://169.254.169.254/latest/meta-data", f"https://{NAME}:8443/", f"http://{NAME}/",
        f"https://user@{NAME}/", "file:///etc/passwd", "gopher://127.0.0.1:{port}/", "https://[broken",
    ],
)  # fmt: skip
def test_s07_a_public_server_that_leads_inside_is_not_followed(
    app: Application, house: House, canary: Listening, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    with tls_listening(answering(location.format(port=canary.port))) as server:
        outbound, network = public_outbound(server)
        monkeypatch.setitem(app.app.config, "OUTBOUND", outbound)
        reply = cover(house, ADDRESS)
    assert code_of(reply) == (409, "target_not_allowed")
    assert reply.json()["detail"] == "The address leads to one that is not allowed"
    assert network.wanted == [(PUBLIC, 443)] * 2
    assert [asked.path for asked in server.asked] == ["/dress.png", "/next"]


def test_s07_a_webhook_that_leads_inside_is_not_followed(
    database: Database, canary: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tls_listening(lambda asked: Answer(302, b"inner words", {"Location": canary.url})) as server:
        outbound, network = public_outbound(server)
        happen(database, factories.make_webhook_endpoint(url=f"https://{NAME}/hooks"))
        assert senders.send_next(SETTINGS, database, outbound, "test")
    delivery = only_delivery(database)
    assert (delivery.last_status_code, delivery.last_error) == (302, "redirected")
    assert network.wanted == [(PUBLIC, 443)]


def test_s08_a_picture_comes_from_the_address_that_was_checked(
    app: Application, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tls_listening(lambda asked: Answer(body=PHOTO)) as server:
        outbound, network = public_outbound(server, [PUBLIC], ["127.0.0.1"])
        monkeypatch.setitem(app.app.config, "OUTBOUND", outbound)
        assert cover(house, ADDRESS).status == 201
        assert network.wanted == [(PUBLIC, 443)]
        assert code_of(cover(house, ADDRESS)) == (409, "target_not_allowed")
    assert len(network.wanted) == len(server.asked) == 1


def test_s08_a_name_that_changes_between_two_hops_is_not_followed(
    app: Application, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tls_listening(lambda asked: Answer(302, headers={"Location": "/again"})) as server:
        outbound, network = public_outbound(server, [PUBLIC], [PUBLIC, "10.0.0.5"])
        monkeypatch.setitem(app.app.config, "OUTBOUND", outbound)
        assert code_of(cover(house, ADDRESS)) == (409, "target_not_allowed")
    assert network.wanted == [(PUBLIC, 443)]


def test_s08_a_webhook_goes_to_the_address_that_was_checked(
    app: Application, house: House, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tls_listening(lambda asked: Answer(204)) as server:
        outbound, network = public_outbound(server, [PUBLIC], [PUBLIC], ["127.0.0.1"])
        monkeypatch.setitem(app.app.config, "OUTBOUND", outbound)
        body = {"url": f"https://{NAME}/hooks", "event_types": ["generation.completed"]}
        made = house.client("POST", f"/webhook-endpoints/{house.scope}", body)
        assert made.status == 201, made.body
        assert network.wanted == []
        for status in ("delivered", "pending"):
            path = f"/webhook-endpoints/{made.json()['id']}"
            assert house.client("POST", f"{path}/test").status == 202
            assert senders.send_next(SETTINGS, database, outbound, "test")
            newest = house.client("GET", f"{path}/deliveries").json()["data"][0]
            assert newest["status"] == status
    assert newest["last_error"] == "target_not_allowed"
    assert network.wanted == [(PUBLIC, 443)]


def test_s09_no_spelling_of_a_webhook_leads_inside(
    house: House, network: Rerouted, canary: Listening
) -> None:
    row = factories.make_webhook_endpoint(organization=house.organization)
    for address in spellings(canary):
        body = {"url": address, "event_types": ["shot.approved"]}
        made = house.client("POST", f"/webhook-endpoints/{house.scope}", body)
        changed = house.client("PATCH", f"/webhook-endpoints/{row.id}", {"url": address})
        assert code_of(made) == code_of(changed) == (409, "target_not_allowed"), address
    assert house.client("GET", f"/webhook-endpoints/{row.id}").json()["url"] == row.url
    assert network.wanted == []


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b"inner words"),
        Answer(404, b"inner words"),
        Answer(500, b"inner words", {"X-Inner": "inner words"}),
        Answer(write=lambda connection: connection.sendall(b"220 inner words\r\n")),
    ],
    ids=["ok", "missing", "failing", "other-protocol"],
)
def test_s09_what_the_target_answered_is_not_told(
    app: Application, house: House, database: Database, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    with tls_listening(lambda asked: answer) as server:
        outbound, _ = public_outbound(server)
        monkeypatch.setitem(app.app.config, "OUTBOUND", outbound)
        refused = cover(house, ADDRESS)
        endpoint = factories.make_webhook_endpoint(
            organization=house.organization, url=f"https://{NAME}/hooks"
        )
        happen(database, endpoint)
        assert senders.send_next(SETTINGS, database, outbound, "test")
        log = house.client("GET", f"/webhook-endpoints/{endpoint.id}/deliveries")
    assert refused.status == 409
    assert log.json()["count"] == 1
    for reply in (refused, log):
        assert b"inner" not in reply.body
        assert not any("inner" in f"{name}{text}".lower() for name, text in reply.headers.items())
    assert "inner" not in str(vars(only_delivery(database)))
