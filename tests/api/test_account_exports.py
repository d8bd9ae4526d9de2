"""Copies of one's own personal data: requested, written by a worker, downloaded, and deleted."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tracemalloc
import zipfile
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import insert

from db.base import new_id, utc_now
from db.models import AccountExport, Product, User
from db.session import Database
from studio.account_exports import sections, worker
from studio.account_exports.worker import run_pending_account_exports
from studio.exports import queue
from studio.infrastructure.storage import LocalDisk, export_folder, export_key, media_key
from studio.media.garbage_collection import delete_unreferenced
from studio.media.referenced_files import list_referenced_files
from tests.api.conftest import Client, CommittingServer
from tests.support import factories
from tests.support.accounts import make_session
from tests.support.client import ClientResponse, status_and_code
from tests.support.concurrency import run_concurrently
from tests.support.factories.api_keys import api_key_headers, make_api_key
from tests.support.factories.invitations import make_invitation
from tests.support.queues import build_worker

PATH = "/users/me/exports"
LEASE, PAST = timedelta(seconds=60), timedelta(seconds=-1)
SECRET = re.compile(r"hash|secret|salt|token|password|lease|claimed|credential")
PUBLIC_HASHES = {"content_hash", "file_hash", "images_file_hash", "input_hash"}


@pytest.fixture
def user(database: Database) -> User:
    return factories.make_user(email="ines@example.com", full_name="Inès", hashed_password="$argon2id$secret")


def unpack(archive: bytes) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]], dict[str, bytes]]:
    """Return the manifest, the rows by section, and the images by name."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.testzip() is None
        files = {entry.filename: opened.read(entry) for entry in opened.infolist()}
    manifest = json.loads(files.pop("manifest.json"))
    names = [name for name in files if name.startswith("data/")]
    rows = {name.removeprefix("data/").removesuffix(".json"): json.loads(files.pop(name)) for name in names}
    assert manifest["files"] == [
        {"file_name": f"data/{name}.json", "rows": len(found)} for name, found in rows.items()
    ]
    return manifest, rows, files


def request(client: Client) -> UUID:
    response = client("POST", PATH)
    assert response.status == 202
    return UUID(response.json()["id"])


def download(client: Client, export_id: UUID) -> ClientResponse:
    return client("GET", f"{PATH}/{export_id}/download")


def store_image(storage: LocalDisk, data: bytes, **values: Any) -> UUID:
    digest = hashlib.sha256(data).hexdigest()
    media = factories.make_media(**values, content_hash=digest, file_size=len(data), extension="webp")
    storage.write(media_key(media.id, "webp"), data)
    return media.id


def get_row(database: Database, export_id: UUID) -> AccountExport:
    with database.transaction(write=False) as session:
        return session.get_one(AccountExport, export_id, populate_existing=True)


def test_a_copy_has_everything_personal_without_secrets_and_nothing_of_others(
    client: Client, client_for: Callable[..., Client], user: User, database: Database, storage: LocalDisk
) -> None:
    organization = factories.make_organization()
    factories.make_membership(organization, user, role="admin")
    key = make_api_key(organization, user)
    shared = factories.make_product(organization=organization)
    product = factories.make_product(owner=user, name="Linen dress", custom_metadata={"season": "spring"})
    image_id = store_image(storage, b"image", owner=user)
    factories.make_product_image(product, media_id=image_id)
    shooting = factories.make_shooting(owner=user)
    look, link = (
        factories.make_look(shooting, main_product_id=product.id),
        factories.make_review_link(shooting),
    )
    generation = factories.make_generation(factories.make_shot(look))
    prediction = factories.make_prediction(generation, media_id=image_id)
    factories.make_prediction_share(prediction)
    comment = factories.make_prediction_comment(factories.make_prediction(), user)
    factories.make_credit_movement(factories.make_subscription(user))
    factories.make_webhook_endpoint(owner=user)
    factories.make_destination(
        client.app.settings, owner=user, credentials={"header_value": "Bearer 2f6c1d0e9b"}
    )
    invitation = make_invitation(organization, email="Ines@example.com")
    personal = factories.make_audit_event(account_id=user.id, actor_id=user.id)
    event = factories.make_audit_event(organization, actor_id=user.id, changes=[{"field": "name"}])
    factories.make_audit_event(organization, actor_id=new_id())
    strangers = factories.make_product(owner=factories.make_user())
    session = make_session(user)

    export_id = request(client)
    assert run_pending_account_exports(build_worker(database, storage)) == 1
    archive = download(client, export_id)
    assert archive.status == 200
    manifest, rows, images = unpack(archive.body)
    ids = {name: [row["id"] for row in found if "id" in row] for name, found in rows.items()}
    assert (manifest["format"], manifest["account_id"], manifest["missing_images"]) == (1, str(user.id), [])
    assert images == {f"images/{image_id}.webp": b"image"}
    (account,) = rows["users"]
    assert (account["email"], account["full_name"], account["is_superuser"]) == (user.email, "Inès", False)
    assert [(row["organization_name"], row["role"]) for row in rows["memberships"]] == [
        (organization.name, "admin")
    ]
    assert [(row["name"], row["metadata"]) for row in rows["products"]] == [
        ("Linen dress", {"season": "spring"})
    ]
    assert rows["products"][0]["created_at"].endswith("Z")
    assert ids["api_keys"] == [str(key.id)]
    assert str(session.id) in ids["token_families"]
    assert ids["invitations"] == [str(invitation.id)]
    assert ids["prediction_comments"] == [str(comment.id)]
    assert str(personal.id) in ids["audit_events"]
    assert ids["audit_events_in_organizations"] == [str(event.id)]
    assert "changes" not in rows["audit_events_in_organizations"][0]
    assert ids["account_exports"] == [str(export_id)]
    for name in (
        *("product_images", "shootings", "looks", "shots", "generations", "predictions", "prediction_shares"),
        *("subscriptions", "credit_movements", "webhook_endpoints", "media_resources", "review_links"),
        "destinations",
    ):
        assert len(rows[name]) == 1, name
    text = json.dumps(rows)
    for foreign in (shared.id, strangers.id, organization.owner_id):
        assert str(foreign) not in text
    for secret in (user.hashed_password, key.secret_hash, invitation.token_hash, link.token_hash):
        assert secret not in text
    assert download(client_for(factories.make_user()), export_id).status == 404


def test_no_section_has_a_secret() -> None:
    for section in sections.list_sections(new_id()):
        columns = {column.name for column in section.query.selected_columns}
        suspicious = {name for name in columns if SECRET.search(name)} - PUBLIC_HASHES
        # The time until which the previous secret of a webhook endpoint is valid.
        assert suspicious <= {"previous_secret_expires_at"}, section.name


def test_the_copy_is_described_listed_and_expires_after_7_days(
    client: Client, database: Database, storage: LocalDisk
) -> None:
    response = client("POST", PATH)
    pending = response.json()
    path = f"{PATH}/{pending['id']}"
    assert (response.status, response.headers["location"]) == (202, f"/api/v1{path}")
    urls = pending.pop("urls")
    assert [url.split("/api/v1")[1] for url in urls.values()] == [path, f"{path}/download"]
    assert pending == {
        **{name: pending[name] for name in ("id", "created_at", "updated_at")},
        **dict.fromkeys(("file_size", "content_hash", "completed_at", "expires_at", "error")),
        "status": "pending",
        "progress": 0,
    }
    assert status_and_code(download(client, pending["id"])) == (409, "export_not_ready")
    run_pending_account_exports(build_worker(database, storage))
    completed = client("GET", path).json()
    archive = download(client, pending["id"])
    assert (completed["status"], completed["progress"], completed["error"]) == ("completed", 100, None)
    assert completed["file_size"] == len(archive.body)
    assert completed["content_hash"] == hashlib.sha256(archive.body).hexdigest()
    assert archive.headers["content-type"] == "application/zip"
    assert "sartiq-account-" in archive.headers["content-disposition"]
    assert client("GET", PATH).json()["data"] == [completed]
    row = get_row(database, UUID(pending["id"]))
    assert row.expires_at is not None
    assert row.completed_at is not None
    assert row.expires_at - row.completed_at == timedelta(days=7)
    with database.transaction(write=False) as session:
        files = dict(list_referenced_files(session.connection()))
    assert files[export_key(row.id)] == row.content_hash
    delete_unreferenced(database, storage, row.expires_at)
    assert client("GET", path).status == 404
    assert not storage.exists(export_key(row.id))


def test_one_copy_at_a_time(client: Client, database: Database, storage: LocalDisk) -> None:
    first = request(client)
    response = client("POST", PATH)
    assert status_and_code(response) == (409, "export_in_progress")
    assert response.json()["conflicts_with"] == [
        {"resource_type": "account_export", "count": 1, "ids": [str(first)]}
    ]
    run_pending_account_exports(build_worker(database, storage))
    assert request(client) != first


def test_concurrent_requests_start_one_copy(committing_server: CommittingServer) -> None:
    responses = run_concurrently(*[lambda: committing_server.client("POST", PATH)] * 4)
    assert sorted(response.status for response in responses) == [202, 409, 409, 409]


def test_api_keys_neither_request_nor_read_copies(app: Any, user: User, client: Client) -> None:
    export_id = request(client)
    organization = factories.make_organization(user)
    with_key = Client(app, api_key_headers(app, organization, ["brands:read"]))
    for method, path in (("POST", PATH), ("GET", PATH), ("GET", f"{PATH}/{export_id}")):
        assert with_key(method, path).status == 403


def test_an_image_that_is_missing_or_damaged_is_named_in_the_manifest(
    client: Client, user: User, database: Database, storage: LocalDisk
) -> None:
    kept, deleted, damaged = (
        store_image(storage, data, owner=user) for data in (b"kept", b"deleted", b"damaged")
    )
    storage.delete(media_key(deleted, "webp"))
    storage.write(media_key(damaged, "webp"), b"d4maged")
    export_id = request(client)
    run_pending_account_exports(build_worker(database, storage))
    manifest, _, images = unpack(download(client, export_id).body)
    assert sorted(manifest["missing_images"]) == sorted([str(deleted), str(damaged)])
    assert (manifest["images_count"], images[f"images/{kept}.webp"]) == (1, b"kept")


def test_the_deletion_of_the_account_deletes_the_copies(
    client: Client, superuser: Client, user: User, database: Database, storage: LocalDisk
) -> None:
    completed = request(client)
    run_pending_account_exports(build_worker(database, storage))
    running = request(client)
    lost = queue.ACCOUNT_EXPORTS.lease_next(database, LEASE)
    assert lost is not None
    assert superuser("DELETE", f"/users/{user.id}").status == 204
    assert not worker.run_account_export(build_worker(database, storage), lost)
    for export_id in (completed, running):
        assert list(storage.list_files(export_folder(export_id))) == []


@pytest.mark.slow("it writes 5,000 rows to measure memory")
def test_a_copy_of_5000_products_is_read_in_pages_with_little_memory(
    client: Client, user: User, database: Database, storage: LocalDisk
) -> None:
    now = utc_now()
    shared = {"owner_id": user.id, "description": "linen " * 50, "created_at": now, "updated_at": now}
    with database.transaction(write=True) as session:
        for start in range(0, 5_000, 1_000):
            rows = [{**shared, "name": f"Dress {start + n}"} for n in range(1_000)]
            session.execute(insert(Product), rows)
    export_id = request(client)
    tracemalloc.start()
    try:
        assert run_pending_account_exports(build_worker(database, storage)) == 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    _, found, _ = unpack(download(client, export_id).body)
    assert {row["name"] for row in found["products"]} == {f"Dress {n}" for n in range(5_000)}
    assert len(found["products"]) == 5_000
    assert peak < 8_000_000
