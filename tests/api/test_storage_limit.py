"""The storage of a plan: what counts, what is rejected when it is full, and the warning before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select, update

from db.models import MediaResource, Upload, WebhookDelivery
from db.row_counts.queries import compact_counts
from db.session import Database
from handlers.app import Application
from studio.billing import storage as plan_storage
from studio.billing.billing import PLANS
from studio.billing.storage import FREE_BYTES, LOW_SHARE, warn_about_storage
from studio.media import uploads
from tests.api.conftest import Client
from tests.api.test_uploads import PHOTO, create_presigned_url, put_upload
from tests.support import factories
from tests.support.client import status_and_code
from tests.support.factories.catalog import post_form
from tests.support.mailbox import list_emails_to
from tests.support.scenarios import PhotographedProduct

FULL = (409, "storage_full")


def read_storage(client: Client, organization: Any) -> tuple[int, int]:
    """Return the used bytes and the limit of an organization."""
    report = client("GET", f"/organizations/{organization.id}/usage").json()
    return report["used_bytes"], report["limit_bytes"]


def store_bytes(database: Database, size: int, **tenant: Any) -> MediaResource:
    """Store the row of an image of this size."""
    with database.transaction(write=True):
        return factories.make_media(file_size=size, **tenant)


def test_s50_all_bytes_of_the_account_of_the_plan_count_exactly(
    client_for: Callable[..., Client], database: Database, scenario: PhotographedProduct
) -> None:
    owner, client = scenario.owner, client_for(scenario.owner)
    before, limit = read_storage(client, scenario.organization)
    assert limit == PLANS[scenario.subscription.tier].storage_bytes
    other = factories.make_organization(owner)
    image = store_bytes(database, 1_000, organization_id=scenario.organization.id, owner_id=owner.id)
    store_bytes(database, 20_000, organization_id=other.id, owner_id=owner.id)
    store_bytes(database, 300_000, owner_id=owner.id)
    # Of another account, and of its organization in which the owner is a member.
    stranger = factories.make_user()
    foreign = factories.make_organization(stranger)
    factories.make_membership(foreign, owner, role="admin")
    store_bytes(database, 4_000_000, organization_id=foreign.id, owner_id=owner.id)
    store_bytes(database, 50_000_000, owner_id=stranger.id)
    assert read_storage(client, scenario.organization) == (before + 321_000, limit)
    assert read_storage(client, other) == (before + 321_000, limit)
    assert read_storage(client, foreign) == (54_000_000, FREE_BYTES)
    with database.transaction(write=True) as session:
        session.execute(
            # unscoped: an image of this test
            update(MediaResource).where(MediaResource.id == image.id).values(variant_bytes=7, file_size=2_000)
        )
        compact_counts(session.connection())
    assert read_storage(client, scenario.organization)[0] == before + 322_007
    with database.transaction(write=True) as session:
        session.delete(session.merge(image))
    assert read_storage(client, scenario.organization)[0] == before + 320_000


def test_s50_an_upload_counts_until_it_becomes_an_image(
    client_for: Callable[..., Client], anonymous: Client, database: Database, scenario: PhotographedProduct
) -> None:
    client = client_for(scenario.owner)
    before, _ = read_storage(client, scenario.organization)
    upload = create_presigned_url(client)
    url = upload["file_url"]
    assert put_upload(anonymous, upload).status == 204
    with database.transaction(write=False) as reading:
        (size,) = reading.scalars(select(Upload.stored_bytes)).all()  # unscoped: the upload of this test
    assert size > 0
    assert read_storage(client, scenario.organization)[0] == before + size
    path = f"/brands/?organization_id={scenario.organization.id}"
    assert client("POST", path, {"name": "Maison", "logo_url": url}).status == 201
    with database.transaction(write=False) as reading:
        newest = (
            select(MediaResource.file_size).order_by(MediaResource.id.desc()).limit(1)
        )  # unscoped: see above
        stored = reading.scalars(newest).one()
    assert read_storage(client, scenario.organization)[0] == before + stored


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch, scenario: PhotographedProduct) -> PhotographedProduct:
    """Return a tenant whose plan has no storage left."""
    plan = PLANS[scenario.subscription.tier]
    monkeypatch.setitem(PLANS, scenario.subscription.tier, type(plan)(**{**vars(plan), "storage_bytes": 1}))
    return scenario


def test_s50_nothing_is_stored_above_the_limit_and_everything_can_be_read_and_deleted(
    client_for: Callable[..., Client], full: PhotographedProduct
) -> None:
    client, scope = client_for(full.owner), f"organization_id={full.organization.id}"
    body = {"filename": "a.png", "content_type": "image/png"}
    assert status_and_code(client("POST", "/uploads/presigned-url", body)) == FULL
    path = f"/products/{full.product.id}/images"
    assert status_and_code(post_form(client, path, PHOTO, type="detail")) == FULL
    assert status_and_code(client("POST", f"/shots/{full.shot.id}/generate", {})) == FULL
    assert client("GET", f"/products/{full.product.id}").status == 200
    # Texts do not count.
    brand = client("POST", f"/brands/?{scope}", {"name": "Maison"})
    assert brand.status == 201
    assert client("DELETE", f"/brands/{brand.json()['id']}").status == 204


def test_s50_unused_uploads_of_an_account_are_limited(
    client_for: Callable[..., Client],
    database: Database,
    scenario: PhotographedProduct,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = client_for(scenario.owner)
    body = {"filename": "a.csv", "content_type": "text/csv", "size": 200_000_000}
    for _ in range(5):
        assert client("POST", "/uploads/presigned-url", body).status == 200
    with database.transaction(write=True) as session:
        # unscoped: the uploads of this test
        session.execute(update(Upload).values(stored_bytes=200_000_000, status="received"))
    rejected = client("POST", "/uploads/presigned-url", {**body, "size": 1})
    assert status_and_code(rejected) == (409, "too_many_upload_bytes")
    assert rejected.json()["limit"] == uploads.MAX_UNUSED_BYTES
    with database.transaction(write=True) as session:
        # unscoped: the uploads of this test
        session.execute(update(Upload).values(status="ingested"))
    assert client("POST", "/uploads/presigned-url", body).status == 200


def test_s50_low_storage_is_announced_once_until_there_is_space_again(
    app: Application, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_storage, "FREE_BYTES", 1_000)
    with database.transaction(write=True):
        owner = factories.make_user()
        organization = factories.make_organization(owner)
        for tenant in ({"organization": organization}, {"owner": owner}):
            factories.make_webhook_endpoint(**tenant, event_types=["storage.low"])

    def count() -> tuple[int, int]:
        warn_about_storage(database, app.settings)
        with database.transaction(write=False) as reading:
            # unscoped: the messages of this test
            messages = reading.scalars(select(WebhookDelivery.event_type)).all()
        return len(messages), len(list_emails_to(app, owner.email))

    image = store_bytes(
        database, int(LOW_SHARE * 1_000) - 1, organization_id=organization.id, owner_id=owner.id
    )
    assert count() == (0, 0)
    small = store_bytes(database, 1, owner_id=owner.id)
    assert count() == (2, 1)
    assert count() == (2, 1)
    for row, expected in ((small, (2, 1)), (image, (2, 1))):
        with database.transaction(write=True) as session:
            session.delete(session.merge(row))
        assert count() == expected
    store_bytes(database, 900, owner_id=owner.id)
    assert count() == (4, 2)
    (text,) = list_emails_to(app, owner.email)[-1:]
    assert "of the storage of your Sartiq account are used" in text
