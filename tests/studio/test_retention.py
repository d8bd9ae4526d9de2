"""Organizations keep uploads, rejected predictions and addresses only as long as their retention says."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from db.base import utc_now
from db.models import AuditEvent, Organization, Prediction, Upload
from db.session import Database
from studio.jobs.maintenance import MAINTENANCE_TASKS
from studio.review import retention
from studio.review.retention import enforce_retention
from tests.support import factories

OLD, NEW = utc_now() - timedelta(days=40), utc_now() - timedelta(days=20)


def make_organization(**days: int) -> Organization:
    return factories.make_organization(**{f"retention_{name}": value for name, value in days.items()})


def list_ids(database: Database, model: Any) -> set[Any]:
    with database.transaction(write=False) as session:
        return set(session.scalars(select(model.id)))


def make_predictions(organization: Organization) -> dict[str, Prediction]:
    generation = factories.make_generation(organization=organization)
    rows = {
        "rejected": ("rejected", OLD, OLD),
        "rejected lately": ("rejected", OLD, NEW),
        "approved": ("approved", OLD, OLD),
        "in review": ("pending_review", OLD, None),
    }
    return {
        name: factories.make_prediction(
            generation, index=index, status=status, created_at=created_at, reviewed_at=reviewed_at
        )
        for index, (name, (status, created_at, reviewed_at)) in enumerate(rows.items())
    }


def test_nothing_is_deleted_without_a_retention(database: Database) -> None:
    organization = make_organization()
    factories.make_upload(organization=organization, created_at=OLD)
    predictions = make_predictions(organization)
    factories.make_audit_event(organization, address="192.0.2.7", created_at=OLD)
    assert enforce_retention(database) == 0
    assert list_ids(database, Prediction) == {prediction.id for prediction in predictions.values()}
    assert len(list_ids(database, Upload)) == 1


def test_old_uploads_are_deleted_and_their_images_stay(database: Database) -> None:
    organization, other = make_organization(uploads_days=30), make_organization()
    media = factories.make_media(organization=organization)
    factories.make_product_image(factories.make_product(organization=organization), media_id=media.id)
    factories.make_upload(
        organization=organization, created_at=OLD, status="ingested", media_resource_id=media.id
    )
    kept = [
        factories.make_upload(organization=organization, created_at=NEW),
        factories.make_upload(organization=other, created_at=OLD),
        factories.make_upload(owner=factories.make_user(), created_at=OLD),
    ]
    assert enforce_retention(database) == 1
    assert list_ids(database, Upload) == {upload.id for upload in kept}
    assert media.id in list_ids(database, type(media))


def test_predictions_are_deleted_by_the_time_of_their_rejection(database: Database) -> None:
    predictions = make_predictions(make_organization(rejected_predictions_days=30))
    others = make_predictions(make_organization())
    assert enforce_retention(database) == 1
    kept = [*others.values(), *(row for name, row in predictions.items() if name != "rejected")]
    assert list_ids(database, Prediction) == {prediction.id for prediction in kept}


def test_addresses_of_old_events_are_deleted(database: Database) -> None:
    organization, other = make_organization(audit_addresses_days=30), make_organization()
    old = factories.make_audit_event(organization, address="192.0.2.7", created_at=OLD)
    for owner, created_at in ((organization, NEW), (other, OLD)):
        factories.make_audit_event(owner, address="192.0.2.7", created_at=created_at)
    assert enforce_retention(database) == 1
    with database.transaction(write=False) as session:
        addresses = {event.id: event.address for event in session.scalars(select(AuditEvent))}
    assert addresses.pop(old.id) is None
    assert set(addresses.values()) == {"192.0.2.7"}


def test_rows_are_deleted_in_bounded_batches(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH_SIZE", 2)
    monkeypatch.setattr(retention, "MAX_BATCHES", 2)
    days = {"uploads_days": 30, "rejected_predictions_days": 30, "audit_addresses_days": 30}
    organization = make_organization(**days)
    generation = factories.make_generation(organization=organization)
    for index in range(5):
        factories.make_upload(organization=organization, created_at=OLD)
        factories.make_prediction(generation, index=index, status="rejected", created_at=OLD, reviewed_at=OLD)
        factories.make_audit_event(organization, address="192.0.2.7", created_at=OLD)
    assert [enforce_retention(database) for _ in range(3)] == [12, 3, 0]


def test_the_maintenance_tasks_enforce_the_retention() -> None:
    assert "retention" in {task.name for task in MAINTENANCE_TASKS}
