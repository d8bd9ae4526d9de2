"""Test that imports add the images that rows name, once and within limits, and say which were not added."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import joinedload

from db.base import utc_now
from db.models import (
    MediaResource,
    Organization,
    Product,
    ProductImage,
    ProductImageCutout,
    ProductImport,
    ProductImportImage,
    ProductImportResult,
    UploadStatus,
    WebhookDelivery,
)
from db.session import Database, current_session
from studio.imports import image_queue, image_sources
from studio.imports.create import cancel_product_import
from studio.imports.image_worker import run_pending_images
from studio.infrastructure.http_client import SafeHttpClient
from studio.infrastructure.storage import LocalDisk, data_file_key, media_key
from studio.media.data_files import store_data_file
from studio.media.digital_source_type import DigitalSourceType, build_packet, parse_packet
from studio.media.garbage_collection import delete_unreferenced
from studio.media.images import open_stored
from studio.media.xmp_embedding import embed_xmp
from tests.studio.test_imports import (
    get_import,
    import_text,
    list_products,
    list_results,
    run_imports,
    start_import,
)
from tests.support import factories
from tests.support.queues import LEASE, build_worker, retry_after_seconds
from tests.support.sample_media import build_orientation_image, encode_image
from tests.support.zip_files import build_zip
from tools.servers.http_recorder import HttpRecorder, RecordedRequest, StubResponse, run_http_recorder


def png(number: int) -> bytes:
    """Return an image that differs from those of other numbers."""
    return encode_image(build_orientation_image(40 + number, 30), "PNG")


class Shop:
    """A server with images: `/{number}.png` is an image, `/{status}` a failure."""

    def __init__(self) -> None:
        self.respond: Callable[[RecordedRequest], StubResponse] = self.send_image
        self.server: HttpRecorder

    def send_image(self, request: RecordedRequest) -> StubResponse:
        name = request.path.lstrip("/").partition("?")[0]
        if name.endswith(".png"):
            return StubResponse(body=png(int(name.removesuffix(".png"))))
        return StubResponse(status=int(name))

    def url(self, name: object) -> str:
        return f"{self.server.url}/{name}"

    @property
    def paths(self) -> list[str]:
        return [request.path for request in self.server.requests]


@pytest.fixture
def shop() -> Iterator[Shop]:
    """Run the server of a shop."""
    shop = Shop()
    with run_http_recorder(lambda request: shop.respond(request)) as shop.server:
        yield shop


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    retry_after_seconds(monkeypatch, 0)


def add_images(database: Database, storage: LocalDisk, shop: Shop) -> None:
    client = SafeHttpClient({shop.server.host})
    run_pending_images(build_worker(database, storage), client)


def import_all(
    database: Database, storage: LocalDisk, organization: Organization, shop: Shop, text: str, **values: Any
) -> ProductImport:
    """Import a file with its images, and return the import at its end."""
    import_id = start_import(database, storage, organization, text, **values)
    run_imports(database, storage)
    add_images(database, storage, shop)
    return get_import(database, import_id)


def count_images(done: ProductImport) -> tuple[int, int, int, int]:
    """Return the numbers of all images, and of those added, unchanged and failed."""
    return (done.image_count, done.image_added_count, done.image_unchanged_count, done.image_failed_count)


def list_images(database: Database, product_id: UUID) -> Sequence[ProductImage]:
    query = select(ProductImage).where(ProductImage.product_id == product_id)
    query = query.options(joinedload(ProductImage.media)).order_by(ProductImage.position)
    with database.transaction(write=False) as reading:
        return reading.scalars(query.execution_options(populate_existing=True)).all()


def list_problems(database: Database, import_id: UUID) -> list[tuple[int, str, str]]:
    """Return the line, the image and the problem code of each image that was not added."""
    query = select(ProductImportResult).where(ProductImportResult.import_id == import_id)
    with database.transaction(write=False) as reading:
        rows = reading.scalars(query.execution_options(populate_existing=True)).all()
    return sorted(
        (row.line, each["image_url"], each["problem"]["code"])
        for row in rows
        for each in row.image_problems or ()
    )


def store_zip(storage: LocalDisk, organization: Organization, content: bytes) -> dict[str, Any]:
    """Store a ZIP file with its upload, and return the columns of an import that refer to it."""
    stored = store_data_file(storage, io.BytesIO(content))
    upload = factories.make_upload(
        organization=organization,
        content_type="application/zip",
        status=UploadStatus.INGESTED,
        file_id=stored.id,
        file_hash=stored.content_hash,
        expires_at=utc_now(),
    )
    return {
        "images_upload_id": upload.id,
        "images_file_id": stored.id,
        "images_file_hash": stored.content_hash,
    }


def test_rows_are_written_first_and_their_images_complete_the_import(
    database: Database, storage: LocalDisk, organization: Organization, shop: Shop
) -> None:
    others = f"{shop.url('2.png')} | {shop.url('3.png')}"
    text = f"sku,name,image_url,images\nA-1,Dress,{shop.url('1.png')},{others}\n"
    import_id = start_import(database, storage, organization, text)
    assert run_imports(database, storage) == 1
    written = get_import(database, import_id)
    assert (written.status, written.created_count, count_images(written)) == ("running", 1, (3, 0, 0, 0))
    assert shop.paths == []
    # The rows are done: no worker leases the import again.
    assert run_imports(database, storage) == 0

    add_images(database, storage, shop)
    done = get_import(database, import_id)
    assert (done.status, count_images(done)) == ("completed", (3, 3, 0, 0))
    assert done.completed_at is not None
    assert sorted(shop.paths) == ["/1.png", "/2.png", "/3.png"]
    product = list_products(database, organization)["A-1"]
    images = list_images(database, product.id)
    assert [(image.position, image.type, image.media.width) for image in images] == [
        (1, "primary", 41),
        (2, "detail", 42),
        (3, "detail", 43),
    ]
    assert product.cover_media_id == images[0].media_id
    assert {image.organization_id for image in images} == {organization.id}
    for image in images:
        assert storage.exists(media_key(image.media_id, image.media.extension))
        assert image.media.product_id == product.id
    with database.transaction(write=False) as reading:
        cutouts = reading.scalars(select(ProductImageCutout.status)).all()
    assert cutouts == ["pending"] * 3


def test_lines_of_json_have_types_and_alternative_texts(
    database: Database, storage: LocalDisk, organization: Organization, shop: Shop
) -> None:
    images = (
        f'["{shop.url("1.png")}", {{"url": "{shop.url("2.png")}", "type": "back", "alt_text": "Behind"}}]'
    )
    text = f'{{"sku": "A", "name": "Dress", "images": {images}}}\n'
    done = import_all(database, storage, organization, shop, text, format="jsonl")
    assert count_images(done) == (2, 2, 0, 0)
    found = list_images(database, list_products(database, organization)["A"].id)
    assert [(image.type, image.alt_text) for image in found] == [("primary", None), ("back", "Behind")]


def test_images_of_a_zip_file_keep_their_marks(
    database: Database, storage: LocalDisk, organization: Organization, shop: Shop
) -> None:
    mark = DigitalSourceType.DIGITAL_CREATION
    marked = embed_xmp(png(1), build_packet(mark))
    columns = store_zip(storage, organization, build_zip({"looks/a.png": marked, "b.png": png(2)}))
    text = "sku,name,image_url\nA,Dress,looks/a.png\nB,Skirt,./b.png\nC,Coat,missing.png\n"
    done = import_all(database, storage, organization, shop, text, **columns)
    assert (done.status, count_images(done)) == ("completed", (2, 2, 0, 0))
    assert list_results(database, done.id)[2] == (4, "failed", "invalid_request")
    products = list_products(database, organization)
    assert set(products) == {"A", "B"}
    media = list_images(database, products["A"].id)[0].media
    stored = open_stored(storage.read(media_key(media.id, media.extension)))
    assert parse_packet(stored.info.get("xmp")) == mark


def test_an_import_with_a_bad_zip_file_fails_before_the_first_row(
    database: Database, storage: LocalDisk, organization: Organization, shop: Shop
) -> None:
    columns = store_zip(storage, organization, build_zip({"../a.png": png(1)}))
    done = import_all(database, storage, organization, shop, "sku,name\nA,Dress\n", **columns)
    assert done.problem is not None
    assert (done.status, done.problem["code"]) == ("failed", "invalid_request")
    assert list_products(database, organization) == {}


def test_the_zip_file_lives_as_long_as_its_import(
    database: Database, storage: LocalDisk, organization: Organization
) -> None:
    columns = store_zip(storage, organization, build_zip({"a.png": png(1)}))
    import_id = start_import(database, storage, organization, "sku,name\nA,Dress\n", **columns)
    key = data_file_key(columns["images_file_id"])
    delete_unreferenced(database, storage, utc_now())
    assert storage.exists(key)
    with database.transaction(write=True) as session:
        session.get_one(ProductImport, import_id).expires_at = utc_now()  # unscoped: the one of this test
    delete_unreferenced(database, storage, utc_now())
    assert not storage.exists(key)


def test_rejected_images_reject_their_row(
    database: Database, storage: LocalDisk, organization: Organization, shop: Shop
) -> None:
    text = (
        '{"sku": "A", "name": "a", "image_url": "a.png"}\n'
        '{"sku": "B", "name": "a", "image_url": 5}\n'
        '{"sku": "C", "name": "a", "images": [{"url": "https://x.test/a.png", "type": "top"}]}\n'
        '{"sku": "D", "name": "a", "images": [{"type": "front"}]}\n'
        '{"sku": "E", "name": "a", "images": ["https://[::1/a.png"]}\n'
        f'{{"sku": "F", "name": "a", "images": {["https://x.test/a.png"] * 21}}}\n'.replace("'", '"')
    )
    done = import_all(database, storage, organization, shop, text, format="jsonl")
    assert (done.status, count_images(done)) == ("completed", (0, 0, 0, 0))
    with database.transaction(write=False) as reading:
        query = select(ProductImportResult).order_by(ProductImportResult.line)
        problems = [row.problem for row in reading.scalars(query)]
    assert [problem and problem["errors"][0]["pointer"] for problem in problems] == [
        "/image_url",
        "/image_url",
        "/images/0/type",
        "/images/0/url",
        "/images/0",
        "/images",
    ]
    assert list_products(database, organization) == {}


def test_the_number_of_images_of_a_file_is_limited(
    database: Database, storage: LocalDisk, organization: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.imports.rows.MAX_IMAGES", 2)
    text = "sku,name,images\nA,a,https://x.test/1|https://x.test/2|https://x.test/3\n"
    done = import_text(database, storage, organization, text)
    assert done.problem is not None
    assert (done.status, done.problem["status"], done.problem["code"]) == ("failed", 413, "too_large")
    assert image_sources.MAX_IMAGES == 50_000


def test_validate_only_fetches_no_image(
    database: Database, storage: LocalDisk, organization: Organization, shop: Shop
) -> None:
    text = f"sku,name,image_url\nA,a,{shop.url('1.png')}\n"
    done = import_all(database, storage, organization, shop, text, validate_only=True)
    assert (done.status, count_images(done), shop.paths) == ("completed", (0, 0, 0, 0), [])


def test_an_image_that_cannot_be_fetched_is_a_problem_of_its_row(
    database: Database, storage: LocalDisk, organization: Organization, shop: Shop
) -> None:
    shop.respond = lambda request: (
        StubResponse(body=b"<html>") if request.path == "/page" else shop.send_image(request)
    )
    text = (
        "sku,name,images\n"
        f"A,a,{shop.url('1.png')}|{shop.url('404')}|{shop.url('2.png')}\n"
        f"B,b,{shop.url('503')}\n"
        f"C,c,{shop.url('page')}\n"
        "D,d,http://127.0.0.1:1/a.png\n"
        "E,e,https://10.0.0.1/a.png\n"
    )
    done = import_all(database, storage, organization, shop, text)
    assert (done.status, done.created_count, count_images(done)) == ("completed", 5, (7, 2, 0, 5))
    assert list_problems(database, done.id) == [
        (2, shop.url("404"), "image_not_fetched"),
        (3, shop.url("503"), "image_not_fetched"),
        (4, shop.url("page"), "image_not_usable"),
        (5, "http://127.0.0.1:1/a.png", "target_not_allowed"),
        (6, "https://10.0.0.1/a.png", "target_not_allowed"),
    ]
    # A missing image is not requested again, a server that is overloaded is.
    assert (shop.paths.count("/404"), shop.paths.count("/503")) == (
        1,
        image_queue.IMAGES.retries.max_attempts,
    )
    images = list_images(database, list_products(database, organization)["A"].id)
    assert [(image.position, image.media.width) for image in images] == [(1, 41), (2, 42)]


def test_a_redirect_to_an_internal_host_is_rejected(
    database: Database, storage: LocalDisk, organization: Organization, shop: Shop
) -> None:
    shop.respond = lambda _: StubResponse(status=302, headers={"Location": "http://169.254.169.254/latest"})
    text = f"sku,name,image_url\nA,a,{shop.url('1.png')}\n"
    done = import_all(database, storage, organization, shop, text)
    assert list_problems(database, done.id) == [(2, shop.url("1.png"), "target_not_allowed")]


def test_an_image_is_fetched_again_after_a_pause(
    database: Database,
    storage: LocalDisk,
    organization: Organization,
    shop: Shop,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    retry_after_seconds(monkeypatch, 60)
    shop.respond = lambda _: StubResponse(status=429)
    text = f"sku,name,image_url\nA,a,{shop.url('1.png')}\n"
    waiting = import_all(database, storage, organization, shop, text)
    assert (waiting.status, count_images(waiting), len(shop.paths)) == ("running", (1, 0, 0, 0), 1)
    shop.respond = shop.send_image
    add_images(database, storage, shop)
    assert len(shop.paths) == 1
    with database.transaction(write=True) as session:
        session.execute(update(ProductImportImage).values(lease_expires_at=utc_now()))
    add_images(database, storage, shop)
    done = get_import(database, waiting.id)
    assert (done.status, count_images(done)) == ("completed", (1, 1, 0, 0))


def test_images_keep_their_order_when_an_earlier_one_comes_later(
    database: Database, storage: LocalDisk, organization: Organization, shop: Shop
) -> None:
    failures = iter([StubResponse(status=500)] * 2)
    shop.respond = lambda request: (
        next(failures, None) or shop.send_image(request)
        if request.path == "/1.png"
        else shop.send_image(request)
    )
    text = f"sku,name,images\nA,a,{'|'.join(shop.url(f'{number}.png') for number in (1, 2, 3))}\n"
    assert count_images(import_all(database, storage, organization, shop, text)) == (3, 3, 0, 0)
    images = list_images(database, list_products(database, organization)["A"].id)
    assert [(image.position, image.media.width) for image in images] == [(1, 41), (2, 42), (3, 43)]


def test_a_second_import_adds_no_image_twice(
    database: Database, storage: LocalDisk, organization: Organization, shop: Shop
) -> None:
    columns = store_zip(storage, organization, build_zip({"c.png": png(3)}))
    text = f"sku,name,images\nA,a,{shop.url('1.png')}|{shop.url('2.png')}|c.png\n"
    first = import_all(database, storage, organization, shop, text, **columns)
    assert count_images(first) == (3, 3, 0, 0)
    fetched = len(shop.paths)
    again = import_all(database, storage, organization, shop, text, **columns)
    assert (again.status, count_images(again)) == ("completed", (3, 0, 3, 0))
    # The URLs are known; the entry of the ZIP file has the same content.
    assert len(shop.paths) == fetched
    # Another URL with the same content is fetched, once.
    moved = f"sku,name,images\nA,a,{shop.url('1.png?v=2')}\n"
    for _ in range(2):
        assert count_images(import_all(database, storage, organization, shop, moved)) == (1, 0, 1, 0)
    assert len(shop.paths) == fetched + 1
    assert len(list_images(database, list_products(database, organization)["A"].id)) == 3


def test_a_url_that_occurs_twice_in_a_row_is_one_image(
    database: Database, storage: LocalDisk, organization: Organization, shop: Shop
) -> None:
    url = shop.url("1.png")
    text = f"sku,name,image_url,images\nA,a,{url},{url}|{url}\n"
    assert count_images(import_all(database, storage, organization, shop, text)) == (1, 1, 0, 0)


def test_no_further_image_is_fetched_from_a_host_while_the_limit_of_connections_is_reached(
    database: Database,
    storage: LocalDisk,
    organization: Organization,
    shop: Shop,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(image_queue, "MAX_IMAGES_PER_HOST", 2)
    rows = "".join(f"S-{number},a,{shop.url(f'{number}.png')}\n" for number in range(3))
    import_id = start_import(database, storage, organization, "sku,name,image_url\n" + rows)
    run_imports(database, storage)

    def lease_elsewhere(count: int) -> None:
        """Let another process have leases of this number of images, and none of the others."""
        with database.transaction(write=True) as session:
            jobs = session.scalars(select(ProductImportImage).order_by(ProductImportImage.id)).all()
            for number, job in enumerate(jobs):
                job.status = "running" if number < count else "pending"
                job.lease_owner = "another process" if number < count else None
                job.lease_expires_at = utc_now() + timedelta(hours=1) if number < count else None

    lease_elsewhere(2)
    add_images(database, storage, shop)
    assert shop.paths == []
    lease_elsewhere(1)
    add_images(database, storage, shop)
    assert sorted(shop.paths) == ["/1.png", "/2.png"]
    assert get_import(database, import_id).image_added_count == 2


def test_a_canceled_import_adds_no_further_image(
    database: Database, storage: LocalDisk, organization: Organization, shop: Shop
) -> None:
    text = f"sku,name,image_url\nA,a,{shop.url('1.png')}\nB,b,{shop.url('2.png')}\n"
    import_id = start_import(database, storage, organization, text)
    run_imports(database, storage)

    def cancel(request: RecordedRequest) -> StubResponse:
        # While the image is on its way.
        with database.transaction(write=True):
            query = select(ProductImport).where(ProductImport.id == import_id).with_for_update()
            cancel_product_import(current_session().scalars(query).one())
        return shop.send_image(request)

    shop.respond = cancel
    add_images(database, storage, shop)
    add_images(database, storage, shop)
    canceled = get_import(database, import_id)
    assert (canceled.status, count_images(canceled)) == ("canceled", (2, 0, 0, 0))
    products = list_products(database, organization)
    assert [list_images(database, product.id) for product in products.values()] == [[], []]
    # The next import of the tenant starts.
    shop.respond = shop.send_image
    assert count_images(import_all(database, storage, organization, shop, text)) == (2, 2, 0, 0)


def test_an_expired_lease_is_taken_over_and_fails_after_the_last_attempt(
    database: Database, storage: LocalDisk, organization: Organization, shop: Shop
) -> None:
    text = f"sku,name,image_url\nA,a,{shop.url('1.png')}\n"
    import_id = start_import(database, storage, organization, text)
    run_imports(database, storage)
    for _ in range(image_queue.IMAGES.retries.max_attempts):
        lease = image_queue.IMAGES.lease_next(database, timedelta(0))
        assert lease is not None
    assert image_queue.IMAGES.lease_next(database, LEASE) is None
    done = get_import(database, import_id)
    assert (done.status, count_images(done)) == ("completed", (1, 0, 0, 1))
    assert list_problems(database, import_id) == [(2, shop.url("1.png"), "internal_error")]


def test_a_product_that_was_deleted_or_is_full_gets_no_image(
    database: Database,
    storage: LocalDisk,
    organization: Organization,
    shop: Shop,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(image_queue.require_image_capacity.__globals__["MAX_IMAGES"], ProductImage, 1)
    text = f"sku,name,images\nA,a,{shop.url('1.png')}\nB,b,{shop.url('2.png')}|{shop.url('3.png')}\n"
    import_id = start_import(database, storage, organization, text)
    run_imports(database, storage)
    with database.transaction(write=True) as session:
        session.delete(session.scalars(select(Product).where(Product.sku == "A")).one())
    add_images(database, storage, shop)
    done = get_import(database, import_id)
    assert (done.status, count_images(done)) == ("completed", (3, 1, 0, 2))
    codes = [(line, code) for line, _, code in list_problems(database, import_id)]
    assert codes == [(2, "not_found"), (3, "too_many_images")]


def test_the_event_of_an_import_comes_after_its_images_and_products_send_none(
    database: Database, storage: LocalDisk, organization: Organization, shop: Shop
) -> None:
    heard = ["import.completed", "product.created", "product.updated"]
    factories.make_webhook_endpoint(organization=organization, event_types=heard)
    import_id = start_import(
        database, storage, organization, f"sku,name,image_url\nA,a,{shop.url('1.png')}\n"
    )
    run_imports(database, storage)
    payloads = select(WebhookDelivery.payload)
    with database.transaction(write=False) as reading:
        assert reading.scalars(payloads).all() == []
    add_images(database, storage, shop)
    with database.transaction(write=False) as reading:
        sent = [(payload["type"], payload["data"]["id"]) for payload in reading.scalars(payloads)]
    assert sent == [("import.completed", str(import_id))]


def test_the_same_image_of_two_products_is_stored_once(
    database: Database, storage: LocalDisk, organization: Organization, shop: Shop
) -> None:
    text = f"sku,name,image_url\nA,a,{shop.url('1.png')}\nB,b,{shop.url('1.png')}\n"
    assert count_images(import_all(database, storage, organization, shop, text)) == (2, 2, 0, 0)
    with database.transaction(write=False) as reading:
        query = select(MediaResource).where(MediaResource.organization_id == organization.id)
        assert len(reading.scalars(query).all()) == 1


def test_a_process_adds_images_in_one_run_at_a_time(
    database: Database, storage: LocalDisk, organization: Organization, shop: Shop
) -> None:
    def run_again(request: RecordedRequest) -> StubResponse:
        # A second run in the same process would hold more images in memory; it returns at once.
        add_images(database, storage, shop)
        return shop.send_image(request)

    shop.respond = run_again
    rows = "".join(f"S-{number},a,{shop.url(f'{number}.png')}\n" for number in range(3))
    done = import_all(database, storage, organization, shop, "sku,name,image_url\n" + rows)
    assert (done.status, count_images(done), len(shop.paths)) == ("completed", (3, 3, 0, 0), 3)
