"""S6 to S9: URLs, redirects and DNS changes cannot make the server send requests to internal hosts."""

from __future__ import annotations

import ipaddress
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from db.base import utc_now
from db.errors import TargetNotAllowed
from db.models import Destination, Export
from db.session import Database
from handlers.app import Application
from studio.destinations.worker import run_pending_deliveries
from studio.infrastructure.http_client import HttpClientError, SafeHttpClient
from studio.infrastructure.storage import LocalDisk, export_key
from studio.media.ingest import is_own_url
from studio.webhooks import dispatcher
from tests.contract.tenant import Tenant
from tests.support import factories
from tests.support.app import auth_headers, replace_service
from tests.support.client import ClientResponse, status_and_code
from tests.support.factories.catalog import Customer
from tests.support.queues import build_worker
from tests.support.sample_media import build_orientation_image, encode_image
from tests.support.servers.buckets import ACCESS_KEY
from tests.support.servers.image_hosts import (
    HOST,
    IMAGE_URL_FIELDS,
    PUBLIC_ADDRESS,
    ImageUrlField,
    RedirectedNetwork,
    build_public_client,
    build_request_with_url,
    run_tls_recorder,
)
from tests.support.servers.webhook_receiver import SETTINGS, get_only_delivery, publish_event
from tools.servers.http_recorder import (
    HttpRecorder,
    RecordedRequest,
    StubResponse,
    run_http_recorder,
)

IMAGE_URL = f"https://{HOST}/dress.png"
PHOTO = encode_image(build_orientation_image(), "PNG")
HOSTS = [
    "127.0.0.1", "127.1", "0.0.0.0", "0", "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1",
    "017700000001", "127.0.0.1.", "localhost", "localhost.", "LOCALHOST", "[::1]", "[::]",
    "[::ffff:127.0.0.1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]",
    "user@127.0.0.1", "user:word@localhost", "169.254.169.254", "10.0.0.1", "172.16.0.1", "172.31.255.254",
    "192.168.0.1", "100.64.0.1", "[fc00::1]", "[fd00::1]", "[fe80::1]",
]  # fmt: skip


@pytest.fixture
def network(app: Application, monkeypatch: pytest.MonkeyPatch) -> RedirectedNetwork:
    """Return the network of an HTTP client without allowed hosts, which records its connections."""
    recorded = RedirectedNetwork(9)
    replace_service(monkeypatch, app, http_client=SafeHttpClient(network=recorded))
    return recorded


@pytest.fixture
def canary() -> Iterator[HttpRecorder]:
    """Run a server on this host that must not receive a request."""
    with run_http_recorder() as server:
        yield server
        assert server.requests == []


def list_internal_urls(canary: HttpRecorder) -> Iterator[str]:
    """Yield URLs of internal servers, and of the canary server under every name of this host."""
    for host in HOSTS:
        for scheme in ("http", "https"):
            yield f"{scheme}://{host}/dress.png"
            yield f"{scheme}://{host}:{canary.port}/dress.png"
    for port in (0, 22, 80, 8443, 65_536):
        yield f"https://{PUBLIC_ADDRESS}:{port}/dress.png"


def create_with_cover(customer: Customer, url: str) -> ClientResponse:
    return customer.client(
        "POST", f"/products/{customer.organization_query}", {"name": "Dress", "cover_image": url}
    )


def test_s06_no_image_url_reaches_the_internal_network(
    customer: Customer, network: RedirectedNetwork, canary: HttpRecorder
) -> None:
    for url in list_internal_urls(canary):
        assert status_and_code(create_with_cover(customer, url)) == (409, "target_not_allowed"), url
    assert network.targets == []


@pytest.mark.parametrize("field", IMAGE_URL_FIELDS, ids=":".join)
def test_s06_no_property_with_an_image_url_reaches_the_internal_network(
    field: ImageUrlField,
    app: Application,
    database: Database,
    network: RedirectedNetwork,
    canary: HttpRecorder,
) -> None:
    tenant = Tenant(app.settings)
    caller = auth_headers(app, tenant.owner)
    for url in (
        canary.url,
        "https://localhost./",
        "https://[::ffff:127.0.0.1]/",
        "http://169.254.169.254/",
    ):
        assert status_and_code(build_request_with_url(tenant, field, url).send(app, caller)) == (
            409,
            "target_not_allowed",
        ), url
    for url in (
        "file:///etc/passwd",
        "gopher://127.0.0.1:25/",
        f"ftp://{PUBLIC_ADDRESS}/",
        "//localhost/",
    ):
        assert build_request_with_url(tenant, field, url).send(app, caller).status == 422, url
    assert network.targets == []


@given(
    st.one_of(
        st.from_regex(r"https?://[^\x00]+", fullmatch=True),
        st.builds(
            "https://{}{}{}".format,
            st.sampled_from(["", "a@", "a:b@", "\\", "//", "%00", "[", "*."]),
            st.one_of(
                st.ip_addresses().map(str),
                st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
                st.integers(0, 2**32 - 1).map(hex),
                st.text(min_size=1, max_size=20),
            ),
            st.sampled_from(["", ":443", ":80", ":x", "/..", "#", "?@127.0.0.1", "\\@localhost", "\t", "."]),
        ),
    )
)
@settings(max_examples=150, deadline=None)  # a busy machine may be slow
def test_s06_every_generated_url_is_either_allowed_or_rejected(url: str) -> None:
    resolved: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        resolved.append(host)
        return [host.strip("[]")]

    assert not is_own_url("http://localhost:8000", url)
    try:
        SafeHttpClient(resolve=resolve).require_allowed(url)
    except TargetNotAllowed:
        return
    # The stub resolver returns the host itself, so an allowed host is a public IP address.
    assert ipaddress.ip_address(resolved[0].strip("[]")).is_global


def redirect_to(location: str) -> Callable[[RecordedRequest], StubResponse]:
    """Return a handler that redirects to its own `/next` first and from there to `location`."""

    def respond(request: RecordedRequest) -> StubResponse:
        if request.path == "/dress.png":
            return StubResponse(307, b"internal content", {"Location": "/next"})
        return StubResponse(302, b"internal content", {"Location": location})

    return respond


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:{port}/", "https://127.0.0.1:{port}/", "//127.0.0.1:{port}/", "https://localhost/",
        "https://[::1]/", "https://169.254.169.254/latest/meta-data", f"https://{HOST}:8443/", f"http://{HOST}/",
        f"https://user@{HOST}/", "file:///etc/passwd", "gopher://127.0.0.1:{port}/", "https://[broken",
    ],
)  # fmt: skip
def test_s07_a_redirect_from_a_public_server_to_an_internal_url_is_not_followed(
    app: Application, customer: Customer, canary: HttpRecorder, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    with run_tls_recorder(redirect_to(location.format(port=canary.port))) as server:
        outbound, network = build_public_client(server)
        replace_service(monkeypatch, app, http_client=outbound)
        response = create_with_cover(customer, IMAGE_URL)
    assert status_and_code(response) == (409, "target_not_allowed")
    assert response.json()["detail"] == "The URL redirects to a URL that is not allowed"
    assert network.targets == [(PUBLIC_ADDRESS, 443)] * 2
    assert [request.path for request in server.requests] == ["/dress.png", "/next"]


def test_s07_a_redirect_from_a_webhook_target_to_an_internal_url_is_not_followed(
    database: Database, canary: HttpRecorder
) -> None:
    with run_tls_recorder(
        lambda request: StubResponse(302, b"internal content", {"Location": canary.url})
    ) as server:
        outbound, network = build_public_client(server)
        publish_event(database, factories.make_webhook_endpoint(url=f"https://{HOST}/hooks"))
        assert dispatcher.send_next(SETTINGS, build_worker(database), outbound)
    delivery = get_only_delivery(database)
    assert (delivery.last_status_code, delivery.last_error) == (302, "redirected")
    assert network.targets == [(PUBLIC_ADDRESS, 443)]


def test_s08_an_image_is_downloaded_from_the_ip_address_that_was_checked(
    app: Application, customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_tls_recorder(lambda request: StubResponse(body=PHOTO)) as server:
        outbound, network = build_public_client(server, [PUBLIC_ADDRESS], ["127.0.0.1"])
        replace_service(monkeypatch, app, http_client=outbound)
        assert create_with_cover(customer, IMAGE_URL).status == 201
        assert network.targets == [(PUBLIC_ADDRESS, 443)]
        assert status_and_code(create_with_cover(customer, IMAGE_URL)) == (409, "target_not_allowed")
    assert len(network.targets) == len(server.requests) == 1


def test_s08_a_redirect_is_rejected_when_the_name_then_resolves_to_an_internal_address(
    app: Application, customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_tls_recorder(lambda request: StubResponse(302, headers={"Location": "/again"})) as server:
        outbound, network = build_public_client(server, [PUBLIC_ADDRESS], [PUBLIC_ADDRESS, "10.0.0.5"])
        replace_service(monkeypatch, app, http_client=outbound)
        assert status_and_code(create_with_cover(customer, IMAGE_URL)) == (409, "target_not_allowed")
    assert network.targets == [(PUBLIC_ADDRESS, 443)]


def test_s08_a_webhook_is_sent_to_the_ip_address_that_was_checked(
    app: Application, customer: Customer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_tls_recorder(lambda request: StubResponse(204)) as server:
        outbound, network = build_public_client(server, [PUBLIC_ADDRESS], [PUBLIC_ADDRESS], ["127.0.0.1"])
        replace_service(monkeypatch, app, http_client=outbound)
        body = {"url": f"https://{HOST}/hooks", "event_types": ["generation.completed"]}
        created = customer.client("POST", f"/webhook-endpoints/{customer.organization_query}", body)
        assert created.status == 201, created.body
        assert network.targets == []
        for status in ("delivered", "pending"):
            path = f"/webhook-endpoints/{created.json()['id']}"
            assert customer.client("POST", f"{path}/test").status == 202
            assert dispatcher.send_next(SETTINGS, build_worker(database), outbound)
            newest = customer.client("GET", f"{path}/deliveries").json()["data"][0]
            assert newest["status"] == status
    assert newest["last_error"] == "target_not_allowed"
    assert network.targets == [(PUBLIC_ADDRESS, 443)]


def test_s09_no_spelling_of_an_internal_url_is_accepted_for_a_webhook(
    customer: Customer, network: RedirectedNetwork, canary: HttpRecorder
) -> None:
    row = factories.make_webhook_endpoint(organization=customer.organization)
    for url in list_internal_urls(canary):
        body = {"url": url, "event_types": ["shot.approved"]}
        created = customer.client("POST", f"/webhook-endpoints/{customer.organization_query}", body)
        updated = customer.client("PATCH", f"/webhook-endpoints/{row.id}", {"url": url})
        assert status_and_code(created) == status_and_code(updated) == (409, "target_not_allowed"), url
    assert customer.client("GET", f"/webhook-endpoints/{row.id}").json()["url"] == row.url
    assert network.targets == []


@pytest.mark.parametrize(
    "stub",
    [
        StubResponse(200, b"internal content"),
        StubResponse(404, b"internal content"),
        StubResponse(500, b"internal content", {"X-Internal": "internal content"}),
        StubResponse(write=lambda connection: connection.sendall(b"220 internal content\r\n")),
    ],
    ids=["ok", "missing", "failing", "other-protocol"],
)
def test_s09_errors_do_not_reveal_the_response_of_the_target(
    app: Application,
    customer: Customer,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    stub: StubResponse,
) -> None:
    with run_tls_recorder(lambda request: stub) as server:
        outbound, _ = build_public_client(server)
        replace_service(monkeypatch, app, http_client=outbound)
        rejected = create_with_cover(customer, IMAGE_URL)
        endpoint = factories.make_webhook_endpoint(
            organization=customer.organization, url=f"https://{HOST}/hooks"
        )
        publish_event(database, endpoint)
        assert dispatcher.send_next(SETTINGS, build_worker(database), outbound)
        log = customer.client("GET", f"/webhook-endpoints/{endpoint.id}/deliveries")
    assert rejected.status == 409
    assert log.json()["count"] == 1
    for response in (rejected, log):
        assert b"internal" not in response.body
        assert not any("internal" in f"{name}{text}".lower() for name, text in response.headers.items())
    assert "internal" not in str(vars(get_only_delivery(database)))


def list_destinations(url: str) -> list[dict[str, Any]]:
    """Return the bodies of a bucket and of a folder at a URL."""
    bucket = {"url": url, "region": "us-east-1", "bucket": "images", **ACCESS_KEY}
    return [{"s3": bucket}, {"https": {"url": url}}]


def deliver(app: Application, database: Database, destination_id: str, storage: LocalDisk) -> Export:
    """Run the delivery of an export to a destination, and return the export."""
    with database.transaction(write=True) as writing:
        destination = writing.get_one(Destination, UUID(destination_id))
        values = {"organization_id": destination.organization_id, "owner_id": destination.owner_id}
        export = factories.make_export(
            factories.make_shooting(**values),
            **values,
            status="completed",
            destination_id=destination.id,
            delivery_status="pending",
            delivery_next_attempt_at=utc_now(),
        )
    with storage.open_writer(export_key(export.id)) as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("manifest.json", b"{}")
    run_pending_deliveries(app.settings, build_worker(database, storage), app.services.http_client)
    with database.transaction(write=False) as reading:
        query = select(Export).where(Export.id == export.id).execution_options(populate_existing=True)
        return reading.scalars(query).one()


def test_s09_no_spelling_of_an_internal_url_is_accepted_for_a_destination(
    customer: Customer, network: RedirectedNetwork, canary: HttpRecorder
) -> None:
    row = factories.make_destination(organization=customer.organization)
    for url in list_internal_urls(canary):
        body = {"name": "Shop", "https": {"url": url}}
        created = customer.client("POST", f"/destinations/{customer.organization_query}", body)
        updated = customer.client("PATCH", f"/destinations/{row.id}", {"https": {"url": url}})
        assert status_and_code(created) == status_and_code(updated) == (409, "target_not_allowed"), url
        bucket = {"name": "Shop", **list_destinations(url.removesuffix("/dress.png"))[0]}
        response = customer.client("POST", f"/destinations/{customer.organization_query}", bucket)
        # The contract allows no user name and no IPv6 address in the endpoint of a bucket.
        assert response.status in (409, 422), url
        assert response.status == 422 or response.json()["code"] == "target_not_allowed", url
    assert network.targets == []


@pytest.mark.parametrize("kind", [0, 1], ids=["bucket", "folder"])
def test_s07_s08_a_destination_is_reached_at_the_checked_address_and_its_redirect_is_not_followed(
    app: Application,
    customer: Customer,
    database: Database,
    canary: HttpRecorder,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kind: int,
) -> None:
    storage = LocalDisk(tmp_path)
    with run_tls_recorder(
        lambda request: StubResponse(307, b"internal content", {"Location": canary.url})
    ) as server:
        # Resolved at the creation, by the test and by the first delivery; then the name is rebound.
        outbound, network = build_public_client(
            server, [PUBLIC_ADDRESS], [PUBLIC_ADDRESS], [PUBLIC_ADDRESS], ["127.0.0.1"]
        )
        replace_service(monkeypatch, app, http_client=outbound)
        body = {"name": "Shop", **list_destinations(f"https://{HOST}")[kind]}
        created = customer.client("POST", f"/destinations/{customer.organization_query}", body)
        assert created.status == 201, created.body
        path = f"/destinations/{created.json()['id']}/test"
        tested = customer.client("POST", path)
        assert (tested.json()["status_code"], tested.json()["error"]) == (307, "redirected")
        export = deliver(app, database, created.json()["id"], storage)
        assert export.delivery_error == "redirected"
        rebound = customer.client("POST", path)
        assert (rebound.json()["status_code"], rebound.json()["error"]) == (None, "target_not_allowed")
        again = deliver(app, database, created.json()["id"], storage)
        assert again.delivery_error == "target_not_allowed"
    assert network.targets == [(PUBLIC_ADDRESS, 443)] * 2
    for response in (tested, rebound, customer.client("GET", f"/exports/{export.id}/deliveries")):
        assert b"internal content" not in response.body
        assert str(canary.port).encode() not in response.body


def test_s09_an_unknown_host_and_an_internal_one_look_alike_when_a_destination_is_tested(
    app: Application, customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for addresses in ([], ["10.0.0.5"]):

        def resolve(host: str, port: int, found: list[str] = addresses) -> list[str]:
            if not found:
                raise HttpClientError("unresolved", "The host is unknown")
            return found

        row = factories.make_destination(organization=customer.organization, url=f"https://{HOST}/in")
        replace_service(monkeypatch, app, http_client=SafeHttpClient(resolve=resolve))
        result = customer.client("POST", f"/destinations/{row.id}/test").json()
        assert result.pop("duration_ms") >= 0
        results.append(result)
    assert results[0] == results[1]
    assert results[0]["error"] == "target_not_allowed"
