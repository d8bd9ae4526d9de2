"""The instruments of `make shop`: what they report of webhooks and archives that are wrong."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zipfile
from datetime import UTC, datetime
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from tests.resilience.shop.checks import WebhookInbox, find_event_failures
from tests.resilience.shop.client import ShopFailed
from tests.resilience.shop.steps import check_archive
from tests.support.servers.http_recorder import RecordedRequest

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
    assert wrong.startswith("webhook msg_1: WebhookVerificationError")
    assert lost == f"event lost: {EVENT}"


def test_events_that_are_repeated_or_about_no_row_are_reported(inbox: WebhookInbox) -> None:
    for message in (sign_message("msg_1"), sign_message("msg_2"), sign_message("msg_3", "2")):
        assert inbox.respond(message).status == 204
    surplus = ("shot.approved", "2")
    assert list(find_event_failures(inbox, [EVENT])) == [
        f"event of no row: {surplus}",
        f"event 2 times: {EVENT}",
    ]


def build_archive(content: bytes, **entry: str) -> tuple[bytes, str]:
    """Return an archive with one image, and its hash."""
    digest = hashlib.sha256(content).hexdigest()
    entry = {"file_name": "shirt.webp", "sha256": digest, "prediction_id": "1", **entry}
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("manifest.json", json.dumps({"files": [entry]}))
        archive.writestr("manifest.csv", "")
        archive.writestr("shirt.webp", content)
    data = target.getvalue()
    return data, hashlib.sha256(data).hexdigest()


def test_an_archive_has_the_file_of_each_prediction() -> None:
    hashes: dict[str, Any] = {"1": hashlib.sha256(b"an image").hexdigest()}
    assert check_archive(*build_archive(b"an image"), hashes) == 1
    with pytest.raises(ShopFailed, match=r"shirt\.webp differs from its hash"):
        check_archive(*build_archive(b"another image"), hashes)
    with pytest.raises(ShopFailed, match=r"shirt\.webp differs from its hash"):
        check_archive(*build_archive(b"an image", sha256="0" * 64), hashes)
    with pytest.raises(ShopFailed, match="an archive differs from its content_hash"):
        check_archive(build_archive(b"an image")[0], "0" * 64, hashes)
