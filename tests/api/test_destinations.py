"""Destinations through the API: credentials that are never returned, tests of connections, and deletion."""

from __future__ import annotations

import subprocess
import sys
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from sqlalchemy import select, text

from db.models import AuditEvent, Destination, Export
from db.session import Database
from handlers.app import Application
from studio.destinations.changes import MAX_DESTINATIONS
from studio.infrastructure.http_client import SafeHttpClient
from tests.support import factories
from tests.support.app import replace_service
from tests.support.client import ClientResponse, status_and_code
from tests.support.factories.catalog import Customer
from tests.support.scenarios import PhotographedProduct
from tests.support.servers.buckets import ACCESS_KEY, Bucket
from tools.servers.http_recorder import RecordedRequest, StubResponse, run_http_recorder

SECRET = "Bearer 2f6c1d0e9b"


def allow(app: Application, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Let the application send requests to a server of the test."""
    replace_service(monkeypatch, app, http_client=SafeHttpClient([urlsplit(url).netloc]))


def create(customer: Customer, **properties: Any) -> ClientResponse:
    body = {"name": "Images of the shop", **properties}
    return customer.client("POST", f"/destinations/{customer.organization_query}", body)


def run_test(customer: Customer, destination: dict[str, Any]) -> dict[str, Any]:
    response = customer.client("POST", f"/destinations/{destination['id']}/test")
    assert response.status == 200, response.body
    result: dict[str, Any] = response.json()
    assert result.pop("duration_ms") >= 0
    return result


def test_a_bucket_is_written_and_cleared_by_a_test_and_its_credentials_are_never_returned(
    app: Application, customer: Customer, database: Database, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow(app, monkeypatch, bucket.url)
    created = create(customer, s3=bucket.body)
    assert created.status == 201, created.body
    row = created.json()
    assert created.headers["location"] == f"/api/v1/destinations/{row['id']}"
    assert (row["kind"], row["https"]) == ("s3", None)
    target = {name: value for name, value in bucket.body.items() if name not in ACCESS_KEY}
    assert row["s3"] == {**target, "path_style": True, "access_key_hint": "MPLE"}
    assert run_test(customer, row) == {
        "succeeded": True,
        "file_name": "sartiq-connection-test.txt",
        "status_code": 200,
        "error": None,
        "message": "The file was written and deleted",
        "deleted": True,
    }
    assert bucket.list_keys() == []

    path = f"/destinations/{row['id']}"
    renamed = customer.client("PATCH", path, {"name": "Shop", "s3": {"prefix": "a/b/"}})
    assert (renamed.json()["name"], renamed.json()["s3"]["prefix"]) == ("Shop", "a/b/")
    assert run_test(customer, row)["succeeded"] is True
    listed = customer.client("GET", f"/destinations/{customer.organization_query}")
    assert listed.json()["data"] == [customer.client("GET", path).json()] == [renamed.json()]
    with database.transaction(write=False) as reading:
        stored = reading.get_one(Destination, UUID(row["id"]))
        events = repr([vars(event) for event in reading.scalars(select(AuditEvent))])
    for secret in ACCESS_KEY.values():
        assert secret.encode() not in (stored.credentials or b"")
        assert secret not in events
        for response in (created, renamed, listed):
            assert secret.encode() not in response.body


@pytest.mark.parametrize(
    ("stub", "error", "message"),
    [
        (StubResponse(403, b"internal"), "access_denied", "check the permissions of the credentials"),
        (StubResponse(401, b"internal"), "invalid_credentials", "does not accept the credentials"),
        (StubResponse(404, b"<Error><Code>NoSuchBucket</Code></Error>"), "bucket_not_found", "not exist"),
        (
            StubResponse(403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>"),
            "invalid_credentials",
            "does not accept the credentials",
        ),
        (
            StubResponse(400, b"<Error><Code>AuthorizationHeaderMalformed</Code></Error>"),
            "wrong_region",
            "another region",
        ),
        (StubResponse(302, headers={"Location": "http://127.0.0.1:1/"}), "redirected", "redirects"),
        (StubResponse(500, b"internal" * 9), "refused", "did not accept"),
        (StubResponse(200, b"x" * 100_000), "refused", "did not accept"),
        (StubResponse(write=lambda connection: connection.sendall(b"SSH-2.0\r\n")), "connection_failed", ""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_failed_test_says_why_without_the_response_of_the_server(
    app: Application,
    customer: Customer,
    monkeypatch: pytest.MonkeyPatch,
    stub: StubResponse,
    error: str,
    message: str,
) -> None:
    with run_http_recorder(lambda request: stub) as server:
        allow(app, monkeypatch, server.url)
        body = {"url": server.url, "region": "us-east-1", "bucket": "images", **ACCESS_KEY}
        result = run_test(customer, create(customer, s3=body).json())
    assert [request.method for request in server.requests] == ["PUT"]
    assert (result["succeeded"], result["error"], result["deleted"]) == (False, error, False)
    assert message in result["message"]
    assert "internal" not in str(result)


def test_a_bucket_whose_policy_forbids_deletion_can_be_delivered_to(
    app: Application, customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def respond(request: RecordedRequest) -> StubResponse:
        return StubResponse(200 if request.method == "PUT" else 403)

    with run_http_recorder(respond) as server:
        allow(app, monkeypatch, server.url)
        body = {"url": server.url, "region": "us-east-1", "bucket": "images", **ACCESS_KEY}
        result = run_test(customer, create(customer, s3=body).json())
    assert (result["succeeded"], result["deleted"], result["error"]) == (True, False, None)
    assert result["message"].startswith("The file was written, but not deleted.")


def test_a_folder_gets_the_secret_in_its_header_and_only_at_the_url_it_was_given_for(
    app: Application, customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_http_recorder() as server:
        allow(app, monkeypatch, server.url)
        https = {"url": f"{server.url}/in/", "header_name": "X-Upload-Key", "header_value": SECRET}
        row = create(customer, https=https).json()
        assert row["https"] == {
            "url": https["url"],
            "header_name": "X-Upload-Key",
            "has_header_value": True,
        }
        assert run_test(customer, row)["message"] == "The file was written"
        path = f"/destinations/{row['id']}"
        moved = {"https": {"url": f"{server.url}/stolen"}}
        rejected = customer.client("PATCH", path, moved)
        assert (*status_and_code(rejected), rejected.json()["pointer"]) == (
            409,
            "secret_required",
            "/https/url",
        )
        kind = customer.client("PATCH", path, {"s3": {"prefix": "x"}})
        assert (*status_and_code(kind), kind.json()["pointer"]) == (409, "other_kind_of_destination", "/s3")
        moved["https"]["header_value"] = None
        assert customer.client("PATCH", path, moved).json()["https"]["has_header_value"] is False
        run_test(customer, row)
    first, second = server.requests
    assert (first.path, first.headers["x-upload-key"]) == ("/in/sartiq-connection-test.txt", SECRET)
    assert second.path == "/stolen/sartiq-connection-test.txt"
    assert "x-upload-key" not in second.headers


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"s3": None},
        {"s3": {"url": "https://s3.example.com"}},
        {"https": {"url": "https://x.example.com"}, "s3": {}},
        {"https": {"url": "ftp://x.example.com"}},
        {"https": {"url": "https://x.example.com/?a=b"}},
        {"https": {"url": "https://x.example.com", "header_name": "Host"}},
        {"https": {"url": "https://x.example.com", "header_value": "a\r\nX-Other: b"}},
        {
            "s3": {
                "url": "https://s3.example.com",
                "region": "r",
                "bucket": "abc",
                "prefix": "../x",
                **ACCESS_KEY,
            }
        },
        {"s3": {"url": "https://s3.example.com/x", "region": "r", "bucket": "abc", **ACCESS_KEY}},
    ],
)
def test_an_incomplete_or_dangerous_destination_is_rejected(
    customer: Customer, properties: dict[str, Any]
) -> None:
    assert create(customer, **properties).status == 422


def test_one_part_of_an_access_key_is_not_changed_alone(customer: Customer) -> None:
    row = factories.make_destination(organization=customer.organization, kind="s3")
    body = {"s3": {"access_key_id": "AKIAOTHER"}}
    assert customer.client("PATCH", f"/destinations/{row.id}", body).status == 422


def test_the_number_of_destinations_is_limited(
    app: Application, customer: Customer, monkeypatch: Any
) -> None:
    allow(app, monkeypatch, "http://127.0.0.1:9")
    for _ in range(MAX_DESTINATIONS):
        factories.make_destination(organization=customer.organization)
    response = create(customer, https={"url": "http://127.0.0.1:9/in"})
    assert (*status_and_code(response), response.json()["limit"]) == (409, "too_many_destinations", 20)


def test_a_destination_is_deleted_when_no_delivery_to_it_is_open(
    customer: Customer, database: Database
) -> None:
    destination = factories.make_destination(organization=customer.organization)
    shooting = factories.make_shooting(organization=customer.organization)
    columns = {"destination_id": destination.id}
    export = factories.make_export(shooting, **columns, delivery_status="pending")
    other = factories.make_export(shooting, **columns, status="completed", delivery_status="delivered")
    path = f"/destinations/{destination.id}"
    used = customer.client("DELETE", path)
    assert status_and_code(used) == (409, "in_use")
    assert used.json()["conflicts_with"] == [{"resource_type": "export", "count": 1, "ids": [str(export.id)]}]
    export.delivery_status = "failed"
    factories.make(export)
    before = customer.client("GET", f"/exports/{other.id}").json()
    assert customer.client("DELETE", path).status == 204
    after = customer.client("GET", f"/exports/{other.id}").json()
    assert (before["destination_id"], after["destination_id"]) == (str(destination.id), None)
    assert after["delivery"]["status"] == "delivered"
    assert after["updated_at"] > before["updated_at"]
    with database.transaction(write=False) as reading:
        assert reading.scalar(select(Export.id).where(Export.destination_id.is_not(None))) is None
        assert reading.scalar(text("SELECT count(*) FROM destinations")) == 0


def test_an_export_takes_no_destination_of_another_tenant(
    client_for: Any, scenario: PhotographedProduct
) -> None:
    client = client_for(scenario.owner)
    path = f"/shootings/{scenario.shooting.id}/exports"
    foreign = factories.make_destination(organization=factories.make_organization())
    personal = factories.make_destination(owner=scenario.owner)
    responses = [client("POST", path, {"destination_id": str(row.id)}) for row in (foreign, personal)]
    assert [(*status_and_code(response), response.json()["pointer"]) for response in responses] == [
        (404, "not_found", "/destination_id"),
        (409, "scope_mismatch", "/destination_id"),
    ]


@pytest.mark.slow("it starts a process")
def test_the_server_starts_without_the_package_that_encrypts() -> None:
    code = "import handlers.app, sys; print('cryptography' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"
