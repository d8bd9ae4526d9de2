"""Test imports of products by the API: from the upload of the file to its results."""

from __future__ import annotations

import csv
import io
from typing import Any, cast
from urllib.parse import urlsplit

import pytest

from db.base import new_id
from db.session import Database
from handlers.app import BUNDLE
from handlers.contract.body_checks import load_body_checks
from handlers.pipeline import batches
from studio.imports import create
from studio.imports.image_worker import run_pending_images
from studio.imports.worker import ImportRunner
from studio.infrastructure.http_client import SafeHttpClient
from studio.infrastructure.storage import LocalDisk
from tests.api.conftest import Client, CommittingServer
from tests.support import factories
from tests.support.client import ClientResponse
from tests.support.concurrency import PausedCall
from tests.support.factories.catalog import Customer
from tests.support.queues import build_worker
from tests.support.sample_media import build_orientation_image, encode_image, png_bomb
from tests.support.zip_files import build_zip

ROWS = b"sku,name\nA-1,Dress\n=A-2,Skirt\nA-3,\n"


def upload(client: Client, content: bytes, media_type: str = "text/csv") -> str:
    """Upload a file and return its `file_url`."""
    body = {"filename": "products.csv", "content_type": media_type}
    created = client("POST", "/uploads/presigned-url", body).json()
    assert created["max_file_size"] == 209_715_200
    response = put_file(client, created["upload_url"], content, media_type)
    assert response.status == 204, response.body
    return str(created["file_url"])


def put_file(client: Client, upload_url: str, content: bytes, media_type: str) -> ClientResponse:
    parts = urlsplit(upload_url)
    path = f"{parts.path.removeprefix('/api/v1')}?{parts.query}"
    return Client(client.app)("PUT", path, body=content, headers={"content-type": media_type})


def create_import(customer: Customer, file_url: str, **body: Any) -> ClientResponse:
    """Send a request for an import of the customer's organization."""
    path = f"/product-imports/?organization_id={customer.organization.id}"
    return customer.client("POST", path, {"file_url": file_url, "format": "csv", "mode": "upsert"} | body)


def run_imports(customer: Customer, database: Database) -> None:
    storage = LocalDisk(customer.client.app.settings.media_dir)
    ImportRunner(build_worker(database, storage), load_body_checks(BUNDLE)).run_pending()


@pytest.mark.parametrize(("query", "count"), [("", 11), ("?status=created", 7), ("?status=failed", 4)])
def test_results_are_counted_from_the_counts_of_their_import(
    customer: Customer, query: str, count: int
) -> None:
    """Counting 50,000 results takes longer than reading a page. The factory makes one of the seven."""
    row = factories.make_product_import(organization=customer.organization, created_count=6, failed_count=4)
    factories.make_product_import_result(row)
    page = customer.client("GET", f"/product-imports/{row.id}/results{query}").json()
    assert (page["count"], page["count_exact"]) == (count, True)


def test_a_file_is_uploaded_imported_and_its_results_are_read(customer: Customer, database: Database) -> None:
    response = create_import(customer, upload(customer.client, ROWS))
    assert response.status == 202, response.body
    path = response.headers["location"].removeprefix("/api/v1")
    assert (response.json()["status"], response.json()["total_count"]) == ("pending", None)
    assert customer.client("GET", f"{path}/results.csv").json()["code"] == "import_not_finished"
    run_imports(customer, database)

    done = customer.client("GET", path).json()
    counts = {name: done[name] for name in done if name.endswith("_count")}
    assert (done["status"], done["progress"], done["problem"]) == ("completed", 100, None)
    assert counts == {
        "total_count": 3,
        "created_count": 2,
        "updated_count": 0,
        "unchanged_count": 0,
        "failed_count": 1,
        "image_count": 0,
        "image_added_count": 0,
        "image_unchanged_count": 0,
        "image_failed_count": 0,
    }
    results = customer.client("GET", f"{path}/results").json()
    assert [(row["line"], row["sku"], row["status"]) for row in results["data"]] == [
        (2, "A-1", "created"),
        (3, "=A-2", "created"),
        (4, "A-3", "failed"),
    ]
    problem = results["data"][2]["problem"]
    assert (problem["status"], problem["code"]) == (422, "invalid_request")
    assert problem["type"].endswith("/api/v1/problems/invalid_request")
    assert problem["errors"] == [
        {"loc": ["body", "name"], "msg": "Is required", "type": "missing", "pointer": "/name"}
    ]
    assert (results["count"], results["count_exact"]) == (3, True)
    failed = customer.client("GET", f"{path}/results?status=failed").json()
    assert (failed["count"], failed["data"]) == (1, results["data"][2:])
    unchanged = customer.client("GET", f"{path}/results?status=unchanged").json()
    assert (unchanged["count"], unchanged["count_exact"], unchanged["data"]) == (0, True, [])

    # Twice: the second time it is a stored file.
    for _ in range(2):
        table = customer.client("GET", f"{path}/results.csv")
        assert table.headers["content-type"] == "text/csv"
        lines = list(csv.reader(io.StringIO(table.body.decode())))
        assert lines[0] == ["line", "external_id", "sku", "status", "product_id", "problem", "image_problems"]
        assert [[line[0], *line[2:4]] for line in lines[1:]] == [
            ["2", "A-1", "created"],
            ["3", "'=A-2", "created"],
            ["4", "A-3", "failed"],
        ]
        assert lines[3][5].startswith('{"type":"http')


def test_an_import_is_one_audit_event_without_events_of_its_rows(
    customer: Customer, database: Database
) -> None:
    location = create_import(customer, upload(customer.client, ROWS)).headers["location"]
    run_imports(customer, database)
    path = f"/organizations/{customer.organization.id}/audit-events"
    events = customer.client("GET", path).json()["data"]
    assert [(event["action"], event["target_type"]) for event in events] == [
        ("create_product_import", "product_import")
    ]
    assert events[0]["target_id"] == location.rpartition("/")[2]


def test_a_validated_file_can_be_imported_from_the_same_upload(
    customer: Customer, database: Database
) -> None:
    file_url = upload(customer.client, ROWS)
    assert create_import(customer, file_url, validate_only=True).status == 202
    assert create_import(customer, file_url).status == 202
    run_imports(customer, database)
    products = customer.client("GET", f"/products/?organization_id={customer.organization.id}").json()
    assert sorted(product["sku"] for product in products["data"]) == ["=A-2", "A-1"]


def test_a_canceled_import_imports_no_row(customer: Customer, database: Database) -> None:
    created = create_import(customer, upload(customer.client, ROWS)).json()
    path = f"/product-imports/{created['id']}"
    for _ in range(2):
        canceled = customer.client("POST", f"{path}/cancel")
        assert (canceled.status, canceled.json()["status"]) == (200, "canceled")
    run_imports(customer, database)
    assert customer.client("GET", path).json()["created_count"] == 0
    assert customer.client("GET", f"{path}/results").json()["count"] == 0


def test_a_file_must_be_an_upload_of_the_format(customer: Customer) -> None:
    url = upload(customer.client, b"{}\n", "application/x-ndjson")
    response = create_import(customer, url)
    assert (response.status, response.json()["code"]) == (409, "file_not_importable")
    assert response.json()["pointer"] == "/format"
    foreign = create_import(customer, "https://example.com/products.csv")
    assert (foreign.status, foreign.json()["code"]) == (409, "target_not_allowed")
    body = {"filename": "products.csv", "content_type": "text/csv"}
    empty = customer.client("POST", "/uploads/presigned-url", body).json()
    missing = create_import(customer, empty["file_url"])
    assert (missing.status, missing.json()["pointer"]) == (404, "/file_url")


def test_the_number_of_open_imports_is_limited(customer: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(create, "MAX_OPEN_IMPORTS", 1)
    file_url = upload(customer.client, ROWS)
    assert create_import(customer, file_url).status == 202
    rejected = create_import(customer, file_url)
    assert (rejected.status, rejected.json()["code"], rejected.json()["limit"]) == (
        409,
        "too_many_imports",
        1,
    )


def test_an_imported_file_cannot_be_replaced_and_is_no_image(customer: Customer) -> None:
    body = {"filename": "products.csv", "content_type": "text/csv"}
    created = customer.client("POST", "/uploads/presigned-url", body).json()
    for content in (b"sku,name\n", ROWS):
        assert put_file(customer.client, created["upload_url"], content, "text/csv").status == 204
    assert create_import(customer, created["file_url"]).status == 202
    replaced = put_file(customer.client, created["upload_url"], ROWS, "text/csv")
    assert (replaced.status, replaced.json()["code"]) == (409, "upload_consumed")
    product = {"name": "Dress", "cover_image": created["file_url"]}
    assert customer.client("POST", "/products/", product).status == 404


def test_images_of_an_uploaded_zip_file_are_added(customer: Customer, database: Database) -> None:
    image = encode_image(build_orientation_image(), "PNG")
    images_url = upload(customer.client, build_zip({"a.png": image, "b.png": b"no image"}), "application/zip")
    rows = b"sku,name,images\nA-1,Dress,a.png|b.png\n"
    response = create_import(customer, upload(customer.client, rows), images_zip_url=images_url)
    assert response.status == 202, response.body
    path = response.headers["location"].removeprefix("/api/v1")
    run_imports(customer, database)
    waiting = customer.client("GET", path).json()
    assert (waiting["status"], waiting["progress"], waiting["image_count"]) == ("running", 33, 2)
    assert customer.client("GET", f"{path}/results.csv").json()["code"] == "import_not_finished"

    storage = LocalDisk(customer.client.app.settings.media_dir)
    run_pending_images(build_worker(database, storage), SafeHttpClient())
    done = customer.client("GET", path).json()
    assert (done["status"], done["progress"]) == ("completed", 100)
    counts = [done[f"image_{name}_count"] for name in ("added", "unchanged", "failed")]
    assert counts == [1, 0, 1]
    row = customer.client("GET", f"{path}/results").json()["data"][0]
    assert (row["status"], row["problem"]) == ("created", None)
    assert [each["image_url"] for each in row["image_problems"]] == ["b.png"]
    problem = row["image_problems"][0]["problem"]
    assert (problem["status"], problem["code"], problem["errors"]) == (409, "image_not_usable", [])
    assert problem["type"].endswith("/api/v1/problems/image_not_usable")
    lines = list(csv.reader(io.StringIO(customer.client("GET", f"{path}/results.csv").body.decode())))
    assert lines[1][6].startswith('[{"image_url":"b.png","problem":{"type":"http')
    product = customer.client("GET", f"/products/{row['product_id']}").json()
    assert [each["type"] for each in product["images"]] == ["primary"]
    assert product["cover_image"] == product["images"][0]["url"]
    events = customer.client("GET", f"/organizations/{customer.organization.id}/audit-events").json()["data"]
    assert [event["action"] for event in events] == ["create_product_import"]


def test_a_file_with_more_than_200_mb_is_rejected_before_it_is_read(customer: Customer) -> None:
    body = {"filename": "products.csv", "content_type": "text/csv"}
    too_many = 209_715_201
    created = customer.client("POST", "/uploads/presigned-url", body).json()
    parts = urlsplit(created["upload_url"])
    path = f"{parts.path.removeprefix('/api/v1')}?{parts.query}"
    headers = {"content-type": "text/csv", "content-length": str(too_many)}
    response = Client(customer.client.app)("PUT", path, body=b"", headers=headers)
    assert (response.status, response.json()["code"]) == (413, "too_large")
    assert response.json()["detail"] == "The request body is larger than 209715200 bytes"
    declared = customer.client("POST", "/uploads/presigned-url", body | {"size": too_many})
    assert (declared.status, declared.json()["detail"][0]["msg"]) == (422, "Must be at most 209715200")


def test_a_file_url_of_this_api_is_not_an_image_of_an_import(customer: Customer, database: Database) -> None:
    """The worker has no credential of the caller, and does not read files of this API without one."""
    image = encode_image(build_orientation_image(), "PNG")
    created = customer.client(
        "POST", "/uploads/presigned-url", {"filename": "a.png", "content_type": "image/png"}
    )
    put_file(customer.client, created.json()["upload_url"], image, "image/png")
    url = created.json()["file_url"]
    response = create_import(
        customer, upload(customer.client, f"sku,name,images\nA-1,Dress,{url}\n".encode())
    )
    path = response.headers["location"].removeprefix("/api/v1")
    run_imports(customer, database)
    storage = LocalDisk(customer.client.app.settings.media_dir)
    run_pending_images(build_worker(database, storage), SafeHttpClient())
    row = customer.client("GET", f"{path}/results").json()["data"][0]
    problems = [(each["image_url"], each["problem"]["code"]) for each in row["image_problems"]]
    assert (row["status"], problems) == ("created", [(url, "target_not_allowed")])


def test_the_images_are_an_uploaded_zip_file(customer: Customer) -> None:
    rows = upload(customer.client, ROWS)
    for url, status, code in (
        (rows, 409, "file_not_importable"),
        ("https://example.com/images.zip", 409, "target_not_allowed"),
        (rows.replace("file.csv", "file.zip").replace(rows.split("/")[-2], str(new_id())), 404, "not_found"),
    ):
        rejected = create_import(customer, rows, images_zip_url=url)
        assert (rejected.status, rejected.json()["code"]) == (status, code)
        assert rejected.json()["pointer"] == "/images_zip_url"
    images_url = upload(customer.client, build_zip({}), "application/zip")
    swapped = create_import(customer, images_url)
    assert (swapped.status, swapped.json()["pointer"]) == (409, "/format")
    product = {"name": "Dress", "cover_image": images_url}
    assert customer.client("POST", "/products/", product).status == 404


def test_a_file_is_sent_with_the_media_type_of_its_upload(customer: Customer) -> None:
    for announced, sent in (("text/csv", "image/png"), ("image/png", "text/csv")):
        body = {"filename": "file", "content_type": announced}
        created = customer.client("POST", "/uploads/presigned-url", body).json()
        response = put_file(customer.client, created["upload_url"], png_bomb(10, 10), sent)
        assert (response.status, response.json()["code"]) == (415, "unsupported_media_type")


def test_personal_products_are_imported_without_an_organization(
    customer: Customer, database: Database
) -> None:
    factories.make_product(organization=customer.organization, sku="A-1", name="Of the organization")
    body = {"file_url": upload(customer.client, ROWS), "format": "csv", "mode": "upsert"}
    assert customer.client("POST", "/product-imports/", body).status == 202
    run_imports(customer, database)
    names = [product["name"] for product in customer.client("GET", "/products/").json()["data"]]
    assert sorted(names) == ["Dress", "Skirt"]


def test_an_import_and_a_batch_that_create_the_same_products_do_not_deadlock(
    committing_server: CommittingServer, storage: LocalDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, database, scenario = committing_server
    customer = Customer(client, scenario.owner, scenario.organization)
    text = "sku,name\n" + "".join(f"S-{number},Imported\n" for number in range(10))
    created = create_import(customer, upload(client, text.encode()))
    items = [
        {"action": "create", "body": {"sku": f"S-{number}", "name": "Of a batch"}}
        for number in reversed(range(10))
    ]

    def run_import() -> ClientResponse:
        run_imports(customer, database)
        return client("GET", created.headers["location"].removeprefix("/api/v1"))

    # The import starts when the batch has created the last product of the file.
    paused = PausedCall(monkeypatch, batches, "_result")
    path = f"/products/batch?organization_id={customer.organization.id}"
    batch, imported = paused.run_during_pause(run_import, lambda: client("POST", path, {"items": items}))
    assert (batch.status, batch.json()["accepted_count"]) == (200, 10)
    body = cast("dict[str, Any]", imported.json())
    assert (body["status"], body["updated_count"], body["failed_count"]) == ("completed", 10, 0)
