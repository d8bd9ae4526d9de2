"""The instruments of `make shop`: what they report of webhooks and deliveries that are wrong."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zipfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from standardwebhooks.webhooks import Webhook

from studio.destinations.targets import File, Outcome, Target, delete_object, put_file
from studio.infrastructure.http_client import SafeHttpClient
from tests.resilience.progress import Stalled, wait_while_moving
from tests.resilience.shop.bucket import NAME, PREFIX, REGION, run_shop_bucket
from tests.resilience.shop.checks import DUPLICATED, LOST, WRONG, Failure, WebhookInbox, find_event_failures
from tests.resilience.shop.client import ShopFailed
from tests.resilience.shop.steps import check_delivery, check_order, unpack_archive
from tools.bench.catalog import Catalog
from tools.servers.http_recorder import RecordedRequest

SECRET = f"whsec_{base64.b64encode(b'a secret of the tests of the shop').decode()}"
OTHER_SECRET = f"whsec_{base64.b64encode(b'another secret of the same tests').decode()}"
EVENT = ("shot.approved", "1")


def sign_message(message_id: str, row_id: str = "1", secret: str = SECRET) -> RecordedRequest:
    body = json.dumps({"type": EVENT[0], "data": {"id": row_id}})
    now = datetime.now(UTC)
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, now, body),
    }
    return RecordedRequest("POST", "/hooks", headers, body.encode())


@pytest.fixture
def inbox() -> WebhookInbox:
    inbox = WebhookInbox()
    inbox.secret = SECRET
    return inbox


def test_a_message_that_is_delivered_twice_counts_once(inbox: WebhookInbox) -> None:
    statuses = [inbox.respond(sign_message("msg_1")).status for _ in range(2)]
    assert (statuses, inbox.received, list(find_event_failures(inbox, [EVENT]))) == ([204, 204], 2, [])


def test_a_message_with_a_wrong_signature_is_reported(inbox: WebhookInbox) -> None:
    assert inbox.respond(sign_message("msg_1", secret=OTHER_SECRET)).status == 400
    wrong, lost = find_event_failures(inbox, [EVENT])
    assert wrong.text.startswith("webhook msg_1: WebhookVerificationError")
    assert (wrong.kind, lost) == (WRONG, Failure(LOST, 1, f"no event: {EVENT}"))


def test_events_that_are_repeated_or_about_no_row_are_reported(inbox: WebhookInbox) -> None:
    for message in (sign_message("msg_1"), sign_message("msg_2"), sign_message("msg_3", "2")):
        assert inbox.respond(message).status == 204
    surplus = ("shot.approved", "2")
    assert list(find_event_failures(inbox, [EVENT])) == [
        Failure(WRONG, 1, f"event of no row: {surplus}"),
        Failure(DUPLICATED, 1, f"event 2 times: {EVENT}"),
    ]


MANIFEST = "manifest.json"


def build_delivery(content: bytes, **entry: str) -> dict[str, bytes]:
    """Return the files of an export with one image by their names."""
    entry = {"file_name": "shirt.webp", "sha256": compute_hash(content), "prediction_id": "1", **entry}
    manifest = json.dumps({"files": [entry]}).encode()
    return {"shirt.webp": content, "manifest.csv": b"", MANIFEST: manifest}


def compute_hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_delivery_has_the_file_of_each_prediction() -> None:
    files, hashes = build_delivery(b"an image"), {"1": compute_hash(b"an image")}
    assert check_delivery(files, files, hashes) == 1
    other = build_delivery(b"another image")
    with pytest.raises(ShopFailed, match=r"shirt\.webp differs from its hash"):
        check_delivery(other, other, hashes)
    wrong = build_delivery(b"an image", sha256="0" * 64)
    with pytest.raises(ShopFailed, match=r"shirt\.webp differs from its hash"):
        check_delivery(wrong, wrong, hashes)
    with pytest.raises(ShopFailed, match=r"1 objects differ from the archive: shirt\.webp"):
        check_delivery(files, {**files, "shirt.webp": b"cut off"}, hashes)
    with pytest.raises(ShopFailed, match="1 objects differ from the archive: more"):
        check_delivery(files, {**files, "more": b""}, hashes)


def test_an_archive_has_its_hash() -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("shirt.webp", b"an image")
    content = target.getvalue()
    assert unpack_archive(content, compute_hash(content)) == {"shirt.webp": b"an image"}
    with pytest.raises(ShopFailed, match="an archive differs from its content_hash"):
        unpack_archive(content, "0" * 64)


def test_the_manifest_arrives_after_all_files_and_files_may_arrive_twice() -> None:
    check_order(["e/a.webp", "e/a.webp", "e/manifest.csv", "e/manifest.json", "e/manifest.json"])
    for keys in (
        ["e/a.webp", "e/manifest.json", "e/manifest.csv"],
        ["e/manifest.json", "e/a.webp", "e/manifest.json"],
        ["e/a.webp"],
        [],
    ):
        with pytest.raises(ShopFailed, match="the manifest did not arrive last"):
            check_order(keys)


def test_a_photo_is_told_from_that_of_another_product() -> None:
    catalog = Catalog(products=3, images=2, seed=1)
    photos = [catalog.draw_photo(number) for number in range(2)]
    found = [[catalog.is_photo_of(number, photo) for photo in photos] for number in range(2)]
    assert found == [[True, False], [False, True]]
    cells = [line.rpartition(",")[2] for line in catalog.build_csv("http://shop").decode().splitlines()]
    assert cells == ["images", "http://shop/photos/0.jpg", "photos/1.jpg", ""]
    with zipfile.ZipFile(io.BytesIO(catalog.build_zip())) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {"photos/1.jpg": photos[1]}


def test_waiting_ends_when_nothing_moves_and_not_before() -> None:
    states = iter([0, 0, 1, 1, 2])
    assert wait_while_moving(lambda: next(states), lambda count: count == 2, "two", idle_seconds=5) == 2
    with pytest.raises(Stalled, match=r"nothing has moved for 0\.05 s; still not: two \(1\)"):
        wait_while_moving(lambda: 1, lambda count: count == 2, "two", idle_seconds=0.05)


@pytest.mark.slow("it starts an S3 server in a process")
def test_the_policy_of_the_guide_allows_a_delivery_below_its_prefix_and_nothing_else(tmp_path: Path) -> None:
    """The server compares signatures, and checks permissions with the policy."""
    file = File("a.webp", 5, "image/webp", lambda: iter([b"image"]))
    with run_shop_bucket(tmp_path) as bucket:
        client = SafeHttpClient([bucket.host])
        key = bucket.access_key
        target = Target("s3", bucket.url, key, REGION, NAME, PREFIX)
        assert put_file(client, target, "1/a b+é.webp", file) == Outcome(200)
        assert put_file(client, target, "1/a b+é.webp", file) == Outcome(200)
        other_prefix = replace(target, prefix="other")
        assert put_file(client, other_prefix, "a.webp", file) == Outcome(403, "access_denied")
        forged = replace(target, credentials={**key, "secret_access_key": "another"})
        assert put_file(client, forged, "1/a.webp", file) == Outcome(403, "invalid_credentials")
        assert bucket.read_objects() == {f"{PREFIX}/1/a b+é.webp": b"image"}
        assert bucket.list_received() == [f"{PREFIX}/1/a b+é.webp"] * 2
        assert delete_object(client, target, "1/a b+é.webp").error is None
        assert bucket.read_objects() == {}
