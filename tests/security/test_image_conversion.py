"""Files and image variants wait for a slot without a thread, and one account never takes all slots.

Data files (CSV, JSON Lines, ZIP) have slots of their own: they never wait for images.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from db.models import User
from db.session import current_session
from handlers import uploads as uploads_handlers
from handlers.app import Application
from handlers.pipeline.admission import slots
from handlers.pipeline.admission.limits import Limit
from handlers.pipeline.middleware import image_conversion
from studio.infrastructure.fair_slots import Requester, account_name, current_requester
from studio.infrastructure.storage import LocalDisk, media_key
from studio.media import conversion, sandbox
from studio.media.data_files import MAX_STORED_FILES, STORE_SLOTS, StoredDataFile, store_data_file
from studio.media.memory_gate import LOAD_SLOTS, MAX_LOADED_IMAGES, MAX_WAIT_SECONDS
from studio.media.normalization import normalize, read_image
from tests.api.conftest import Client, CommittingServer
from tests.support import factories
from tests.support.app import auth_headers
from tests.support.rejections import Rejections
from tests.support.sample_media import build_orientation_image, encode_image, open_image
from tests.support.streaming import StreamingRequest
from tests.support.zip_files import build_zip

LIMIT = 32
TIMEOUT_SECONDS = 20


class Account:
    """A user with images, and a client that is signed in."""

    def __init__(self, server: CommittingServer, storage: LocalDisk, images: int) -> None:
        stored = normalize(encode_image(build_orientation_image(70, 7), "PNG"))
        with server.database.transaction(write=True):
            user: User = factories.make_user()
            rows = [
                factories.make_media(
                    owner=user,
                    extension=stored.extension,
                    content_type=stored.content_type,
                    content_hash=hashlib.sha256(uuid4().bytes).hexdigest(),
                    width=stored.width,
                    height=stored.height,
                )
                for _ in range(images)
            ]
            self.client = Client(server.client.app, auth_headers(server.client.app, user))
        for row in rows:
            storage.write(media_key(row.id, stored.extension), stored.data)
        self.owner_name = account_name(user.id)
        self.paths = [f"/files/media/{row.id}/file.png?type=webp&width=50" for row in rows]

    def open_requests(self) -> list[StreamingRequest]:
        """Request a variant of each image."""
        return [StreamingRequest(self.client, "GET", path, None, {}) for path in self.paths]


@pytest.fixture
def create_account(committing_server: CommittingServer, storage: LocalDisk) -> Callable[[int], Account]:
    """Return a function that creates an account with a number of images."""
    return lambda images: Account(committing_server, storage, images)


@contextmanager
def hold_all_slots() -> Iterator[None]:
    """Hold all slots within the block."""
    requesters = [Requester.of(f"other {number}") for number in range(MAX_LOADED_IMAGES)]
    assert all(LOAD_SLOTS.try_take(requester) for requester in requesters)
    try:
        yield
    finally:
        for requester in requesters:
            LOAD_SLOTS.release(requester)


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not condition():
            await asyncio.sleep(0.005)


def test_s34_a_conversion_without_a_slot_waits_without_a_thread_and_gives_up(
    application: Application,
    create_account: Callable[[int], Account],
    monkeypatch: pytest.MonkeyPatch,
    rejections: Rejections,
) -> None:
    assert MAX_WAIT_SECONDS == 10
    monkeypatch.setattr(slots, "MAX_WAIT_SECONDS", 0.5)
    account = create_account(3)

    async def scenario() -> None:
        requests = account.open_requests()
        await wait_until(lambda: LOAD_SLOTS.count_waiting(account.owner_name) == 3)
        assert application.bridge.thread_slots.count_held(account.owner_name) == 0
        for request in requests:
            response = await request.read_response()
            assert (response.status, response.json()["code"]) == (503, "unavailable")
            assert response.headers["retry-after"] == "5"
        assert LOAD_SLOTS.count_waiting(account.owner_name) == 0

    with hold_all_slots():
        asyncio.run(scenario())
    assert rejections.take() == {(503, "unavailable", Limit.DECODE_SLOTS)}


def test_s34_sixty_connections_on_variants_leave_a_slot_for_another_account(
    application: Application, create_account: Callable[[int], Account], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(application.services.concurrency_limiter, "limit", LIMIT)
    hostile, other = create_account(60), create_account(1)
    released, running = threading.Event(), []
    real = image_conversion.make_variant

    def make_variant(storage: LocalDisk, variant: Any) -> None:
        if hostile.paths and any(str(variant.original.resource_id) in path for path in hostile.paths):
            running.append(variant)
            assert released.wait(TIMEOUT_SECONDS)
        real(storage, variant)

    monkeypatch.setattr(image_conversion, "make_variant", make_variant)

    async def scenario() -> None:
        requests = hostile.open_requests()
        await wait_until(
            lambda: (
                LOAD_SLOTS.count_waiting(hostile.owner_name) == LIMIT - 1
                and sum(request.task.done() for request in requests) == 60 - LIMIT
            )
        )
        assert (len(running), LOAD_SLOTS.count_held(hostile.owner_name)) == (1, 1)
        assert application.bridge.thread_slots.count_held(hostile.owner_name) == 0
        # The variant of the other account is made while the first account waits.
        (request,) = other.open_requests()
        response = await request.read_response()
        assert (response.status, open_image(response.body).size) == (200, (64, 6))
        assert len(running) == 1
        released.set()
        statuses = [(await each.read_response()).status for each in requests]
        assert (statuses.count(200), statuses.count(429)) == (LIMIT, 60 - LIMIT)

    asyncio.run(scenario())
    assert LOAD_SLOTS.count_held(hostile.owner_name) == 0


def test_s34_a_variant_is_made_once_for_many_requests(
    create_account: Callable[[int], Account], monkeypatch: pytest.MonkeyPatch
) -> None:
    account, converted = create_account(1), []
    real = image_conversion.make_variant
    account.paths *= 5

    def make_variant(storage: LocalDisk, variant: Any) -> None:
        converted.append(storage.exists(variant.key))
        real(storage, variant)

    monkeypatch.setattr(image_conversion, "make_variant", make_variant)

    async def scenario() -> None:
        responses = [await request.read_response() for request in account.open_requests()]
        assert {response.status for response in responses} == {200}
        assert len({response.body for response in responses}) == 1

    asyncio.run(scenario())
    assert converted.count(False) == 1


def test_s34_a_variant_that_disappears_at_once_is_a_503(
    create_account: Callable[[int], Account], monkeypatch: pytest.MonkeyPatch, rejections: Rejections
) -> None:
    monkeypatch.setattr(image_conversion, "make_variant", lambda storage, variant: None)
    account = create_account(1)
    assert account.client("GET", account.paths[0]).status == 503
    assert rejections.take() == {(503, "unavailable", Limit.VARIANT_LOST)}
    assert LOAD_SLOTS.count_held(account.owner_name) == 0


class Uploads:
    """A client of the committing server that adds photos to a product."""

    def __init__(self, server: CommittingServer) -> None:
        self.client, self.scenario = server.client, server.scenario
        self.owner_name = account_name(self.scenario.owner.id)
        self.path = f"/products/{self.scenario.product.id}/images"

    def open_request(self, **headers: str) -> StreamingRequest:
        """Send a photo."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return StreamingRequest(self.client, "POST", self.path, None, {**FORM, **sent}, MULTIPART)

    def count_photos(self) -> int:
        """Return the number of photos of the product."""
        return int(self.client("GET", self.path).json()["count"])


@pytest.fixture
def uploads(committing_server: CommittingServer) -> Uploads:
    """Return a client that adds photos to a product."""
    return Uploads(committing_server)


def test_s34_an_upload_without_a_slot_waits_without_a_thread_and_gives_up(
    application: Application, uploads: Uploads, monkeypatch: pytest.MonkeyPatch, rejections: Rejections
) -> None:
    monkeypatch.setattr(slots, "MAX_WAIT_SECONDS", 0.5)

    async def scenario() -> None:
        requests = [uploads.open_request(idempotency_key="a"), uploads.open_request()]
        await wait_until(lambda: LOAD_SLOTS.count_waiting(uploads.owner_name) == 2)
        assert application.bridge.thread_slots.count_held(uploads.owner_name) == 0
        for request in requests:
            response = await request.read_response()
            assert (response.status, response.json()["code"]) == (503, "unavailable")
            assert response.headers["retry-after"] == "5"

    with hold_all_slots():
        asyncio.run(scenario())
    assert rejections.take() == {(503, "unavailable", Limit.DECODE_SLOTS)}
    # The idempotency key of the rejected request is free again.
    retry = uploads.client("POST", uploads.path, body=MULTIPART, headers={**FORM, "idempotency-key": "a"})
    assert retry.status == 201, retry.body


def test_s34_an_upload_whose_client_has_gone_is_not_decoded(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = uploads.count_photos()
    monkeypatch.setattr("handlers.pipeline.prechecks.read_image", lambda file: pytest.fail("decoded"))

    async def scenario() -> None:
        requests = [uploads.open_request(idempotency_key="b"), uploads.open_request()]
        await wait_until(lambda: LOAD_SLOTS.count_waiting(uploads.owner_name) == 2)
        for request in requests:
            request.disconnect()
        await asyncio.gather(*(request.task for request in requests))
        assert LOAD_SLOTS.count_waiting(uploads.owner_name) == 0

    with hold_all_slots():
        asyncio.run(scenario())
    assert uploads.count_photos() == photos


def test_s34_an_upload_with_an_idempotency_key_is_decoded_and_stored_once(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    monkeypatch.setattr(
        "handlers.pipeline.prechecks.read_image", lambda file: decoded.append(0) or read_image(file)
    )
    headers = {**FORM, "idempotency-key": "c"}
    first, again = (uploads.client("POST", uploads.path, body=MULTIPART, headers=headers) for _ in range(2))
    assert (first.status, again.status, again.body) == (201, 201, first.body)
    damaged = MULTIPART.replace(b"IDAT", b"IDAX")
    headers["idempotency-key"] = "d"
    for _ in range(2):
        assert uploads.client("POST", uploads.path, body=damaged, headers=headers).status == 422
    assert len(decoded) == 3


def test_s34_a_fetched_image_that_gets_no_slot_is_a_503(
    application: Application, uploads: Uploads, monkeypatch: pytest.MonkeyPatch, rejections: Rejections
) -> None:
    monkeypatch.setattr("studio.media.fetching.MAX_WAIT_SECONDS", 0.2)
    client = application.services.http_client
    response = SimpleNamespace(status=200, content=encode_image(build_orientation_image(3, 3), "PNG"))
    monkeypatch.setattr(client, "send", lambda *arguments, **options: response)
    with hold_all_slots():
        body = {"file_url": "https://images.example/a.png", "type": "front"}
        rejected = uploads.client("POST", f"{uploads.path}/from-url", body)
    assert (rejected.status, rejected.headers["retry-after"]) == (503, "5")
    assert rejections.take() == {(503, "unavailable", Limit.DECODE_SLOTS)}


def test_s36_the_first_use_of_an_upload_decodes_nothing_in_its_transaction(uploads: Uploads) -> None:
    body = {"filename": "a.png", "content_type": "image/png"}
    upload = uploads.client("POST", "/uploads/presigned-url", body).json()
    photo = encode_image(build_orientation_image(30, 20), "PNG")
    target = upload["upload_url"].partition("/api/v1")[2]
    received = uploads.client("PUT", target, body=photo, headers={"content-type": "image/png"})
    assert received.status == 204
    # Without a slot nothing can be decoded.
    with hold_all_slots():
        product = uploads.client("POST", "/products/", {"name": "Dress", "cover_image": upload["file_url"]})
    assert product.status == 201, product.body


def test_s34_an_upload_takes_its_slot_for_its_account(
    committing_server: CommittingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    requesters = []

    def read_for_account(file: Any) -> Any:
        requesters.append(current_requester())
        return read_image(file)

    monkeypatch.setattr("handlers.pipeline.prechecks.read_image", read_for_account)
    scenario = committing_server.scenario
    response = committing_server.client(
        "POST",
        f"/products/{scenario.product.id}/images",
        body=MULTIPART,
        headers=FORM,
    )
    assert response.status == 201, response.body
    assert requesters == [Requester(account_name(scenario.owner.id), "address 127.0.0.1")]


DATA_FILES = {
    "text/csv": b"sku,name\nA-1,Dress\n",
    "application/x-ndjson": b'{"sku": "A-1", "name": "Dress"}\n',
    "application/zip": build_zip({"a.png": b"an image"}),
}


def prepare_upload(client: Client, content_type: str, content: bytes) -> Callable[[], StreamingRequest]:
    """Create a presigned URL, and return a function that sends a file to it."""
    body = {"filename": "file", "content_type": content_type}
    created = client("POST", "/uploads/presigned-url", body).json()
    path = created["upload_url"].partition("/api/v1")[2]
    headers = {"content-type": content_type}
    return lambda: StreamingRequest(Client(client.app), "PUT", path, None, headers, content)


def test_s34_data_files_are_stored_while_no_image_can_be_decoded(
    create_account: Callable[[int], Account], monkeypatch: pytest.MonkeyPatch
) -> None:
    account, threads = create_account(0), []

    def store(*arguments: Any) -> StoredDataFile:
        with pytest.raises(RuntimeError, match="no running transaction"):
            current_session()
        threads.append(threading.current_thread().name.partition("_")[0])
        return store_data_file(*arguments)

    monkeypatch.setattr(uploads_handlers, "store_data_file", store)
    photo = encode_image(build_orientation_image(30, 20), "PNG")
    send_photo = prepare_upload(account.client, "image/png", photo)
    data_files = [prepare_upload(account.client, *file) for file in DATA_FILES.items()]

    async def scenario() -> None:
        with hold_all_slots():
            waiting = send_photo()
            await wait_until(lambda: LOAD_SLOTS.count_waiting(account.owner_name) == 1)
            for send_file in data_files:
                response = await send_file().read_response()
                assert (response.status, response.body) == (204, b"")
            assert LOAD_SLOTS.count_waiting(account.owner_name) == 1
        assert (await waiting.read_response()).status == 204

    asyncio.run(scenario())
    assert threads == ["data-files"] * len(DATA_FILES)
    assert STORE_SLOTS.count_held(account.owner_name) == 0


def test_s34_data_files_that_a_slow_storage_holds_up_leave_slots_for_another_account(
    application: Application,
    create_account: Callable[[int], Account],
    monkeypatch: pytest.MonkeyPatch,
    rejections: Rejections,
) -> None:
    hostile, other = create_account(0), create_account(0)
    released, count = threading.Event(), MAX_STORED_FILES + 1
    content = DATA_FILES["text/csv"]

    def store(*arguments: Any) -> StoredDataFile:
        if current_requester().owner == hostile.owner_name:
            assert released.wait(TIMEOUT_SECONDS)
        return store_data_file(*arguments)

    monkeypatch.setattr(uploads_handlers, "store_data_file", store)
    uploads = [prepare_upload(hostile.client, "text/csv", content) for _ in range(count)]
    send_other = prepare_upload(other.client, "text/csv", content)
    send_late = prepare_upload(hostile.client, "text/csv", content)

    async def scenario() -> None:
        requests = [send() for send in uploads]
        half = MAX_STORED_FILES // 2
        await wait_until(lambda: STORE_SLOTS.count_waiting(hostile.owner_name) == count - half)
        assert STORE_SLOTS.count_held(hostile.owner_name) == half
        assert application.bridge.thread_slots.count_held(hostile.owner_name) == 0
        assert (await send_other().read_response()).status == 204
        with monkeypatch.context() as patch:
            patch.setattr(slots, "MAX_WAIT_SECONDS", 0.1)
            assert (await send_late().read_response()).status == 503
        assert rejections.take() == {(503, "unavailable", Limit.STORE_SLOTS)}
        released.set()
        assert [(await request.read_response()).status for request in requests] == [204] * count

    asyncio.run(scenario())
    assert STORE_SLOTS.count_held(hostile.owner_name) == 0


FORM = {"content-type": "multipart/form-data; boundary=b"}
MULTIPART = (
    b'--b\r\nContent-Disposition: form-data; name="type"\r\n\r\nfront\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n'
    b"Content-Type: image/png\r\n\r\n"
    + encode_image(build_orientation_image(30, 20), "PNG")
    + b"\r\n--b--\r\n"
)


def test_s34_data_urls_wait_for_a_slot_without_a_thread(
    application: Application, create_account: Callable[[int], Account]
) -> None:
    account = create_account(0)
    photos = [encode_image(build_orientation_image(width, 40), "PNG") for width in (30, 50)]
    images = [
        {"url": f"data:image/png;base64,{b64encode(photo).decode()}", "type": "side"} for photo in photos
    ]
    body = {"name": "Dress", "images": images}

    async def scenario() -> None:
        with hold_all_slots():
            requests = [StreamingRequest(account.client, "POST", "/products/", body, {}) for _ in range(3)]
            await wait_until(lambda: LOAD_SLOTS.count_waiting(account.owner_name) == 3)
            assert application.bridge.thread_slots.count_held(account.owner_name) == 0
        for request in requests:
            response = await request.read_response()
            assert response.status == 201, response.body
            assert [image["width"] for image in response.json()["images"]] == [30, 50]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("module", "arguments"), [(sandbox, ["AVIF", "header", "1", "1", "1"]), (conversion, ["64", "png"])]
)
def test_s34_a_subprocess_that_decodes_gives_way_to_requests(module: Any, arguments: list[str]) -> None:
    # It reads its file from standard input, so it waits until the input is closed.
    process = subprocess.Popen(
        [sys.executable, "-I", module.__file__, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        own = os.getpriority(os.PRIO_PROCESS, 0)
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while (priority := os.getpriority(os.PRIO_PROCESS, process.pid)) == own:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert priority == min(own + 10, 19)
    finally:
        process.communicate()


@pytest.mark.parametrize(
    ("content", "status"),
    [(MULTIPART, 201), (MULTIPART.replace(b"IDAT", b"IDAX"), 422)],
    ids=["good", "damaged"],
)
def test_s34_a_file_is_freed_without_the_garbage_collector(
    uploads: Uploads, content: bytes, status: int
) -> None:
    # It collects seldom: files and images would fill the memory until then.
    def count_garbage() -> Counter[str]:
        response = uploads.client("POST", uploads.path, body=content, headers=FORM)
        assert response.status == status, response.body
        gc.collect()
        kinds = Counter(type(value).__name__ for value in gc.garbage)
        gc.garbage.clear()
        return kinds

    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        count_garbage()  # fills caches
        kinds = count_garbage()
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert kinds.keys().isdisjoint({"BytesIO", "SpooledTemporaryFile", "StoredImage", "frame", "traceback"})
