"""Provoke each webhook event of the contract through the API or a worker."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, partial
from typing import Any
from uuid import UUID

from standardwebhooks.webhooks import Webhook

from db.base import utc_now
from db.models import ApiKey, Prediction, Product, Shot, WebhookEndpoint
from db.session import Database, current_session
from handlers.app import Application
from handlers.contract.body_checks import load_body_checks
from studio.accounts.api_key_notices import send_deprecation_notices, send_expiry_notices
from studio.billing.billing import PLANS
from studio.billing.storage import warn_about_storage
from studio.exports import queue as exports
from studio.exports.worker import run_pending_exports
from studio.generations.worker import queue as generations
from studio.imports.worker import ImportRunner
from studio.infrastructure.http_client import SafeHttpClient
from studio.infrastructure.settings import Settings
from studio.infrastructure.storage import LocalDisk
from studio.media.data_files import store_data_file
from studio.webhooks.dispatcher import send_next
from studio.webhooks.message_schemas import BUNDLE
from studio.webhooks.signing import derive_secret
from tests.api.conftest import Client
from tests.support import factories
from tests.support.factories.api_keys import api_key_headers
from tests.support.factories.exports import make_approved_prediction
from tests.support.queues import LEASE, build_worker, try_record
from tests.support.scenarios import PhotographedProduct
from tests.support.servers.webhook_receiver import WebhookReceiver


@dataclass
class Studio:
    """A customer with a shot, and the servers that the tests need."""

    scenario: PhotographedProduct
    client: Client
    database: Database
    storage: LocalDisk
    endpoint: WebhookEndpoint
    receiver: WebhookReceiver
    app: Application

    @cached_property
    def product(self) -> Product:
        """The product of the shot."""
        return factories.make_product(**self.scenario.ownership)

    @cached_property
    def shot(self) -> Shot:
        """A shot that is in review."""
        look = factories.make_look(self.scenario.shooting, main_product_id=self.product.id)
        return factories.make_shot(look, status="pending_review")

    def receive(self) -> list[dict[str, Any]]:
        """Send all messages and return those that the receiver has got since the last call, verified."""
        client = SafeHttpClient([self.receiver.recorder.host])
        while send_next(self.app.settings, build_worker(self.database), client):
            pass
        secret = derive_secret(self.app.settings.secret_key, self.endpoint.secret_salt)
        requests = self.receiver.recorder.requests
        bodies = [Webhook(secret).verify(request.body, dict(request.headers)) for request in requests]
        requests.clear()
        return bodies

    def add_prediction(self) -> Prediction:
        """Add a prediction to the shot."""
        return factories.make_prediction(factories.make_generation(self.shot, status="completed"))

    def approve(self) -> Prediction:
        """Approve the shot with a new prediction."""
        prediction = self.add_prediction()
        self.post(f"/shots/{self.shot.id}/approve", {"prediction_id": str(prediction.id)})
        return prediction

    def post(self, path: str, body: Any = None) -> dict[str, Any]:
        """Send a request that succeeds, and return the body of the response."""
        response = self.client("POST", path, body or {})
        assert response.status < 300, response.body
        row: dict[str, Any] = response.json()
        return row

    def create_product(self, **body: Any) -> str:
        """Create a product through the API, and return its path."""
        query = f"?organization_id={self.scenario.organization.id}"
        return f"/products/{self.post(f'/products/{query}', {'name': 'Vase', **body})['id']}"

    def request_export(self, prediction: Prediction | None = None) -> Prediction:
        """Request an export of a prediction, by default of a new approved one."""
        if prediction is None:
            prediction = make_approved_prediction(self.storage, self.scenario, b"an image")
        body = {"prediction_ids": [str(prediction.id)]}
        self.post(f"/shootings/{self.scenario.shooting.id}/exports", body)
        return prediction

    def export(self, prediction: Prediction | None = None) -> Prediction:
        """Export a prediction, by default a new approved one."""
        prediction = self.request_export(prediction)
        assert run_pending_exports(build_worker(self.database, self.storage)) == 1
        return prediction

    def run_generation(self, status: str) -> None:
        """Bring a generation to a final status."""
        shot = factories.make_shot(factories.make_look(self.scenario.shooting))
        overdue = {"deadline_at": utc_now() - timedelta(seconds=1)} if status == "expired" else {}
        generation = factories.make_generation(shot, **overdue)
        if status == "canceled":
            self.post(f"/generations/{generation.id}/cancel")
        elif status == "expired":
            assert generations.expire_overdue(self.database) == 1
        else:
            lease = generations.GENERATIONS.lease_next(self.database, LEASE)
            assert lease is not None
            if status == "completed":
                assert try_record(self.database, generations.complete_generation, self.storage, lease, [])
            else:
                generations.GENERATIONS.fail(self.database, lease, generations.INTERNAL_ERROR)


def review_prediction(studio: Studio, action: str, **body: str) -> None:
    studio.post(f"/predictions/{studio.add_prediction().id}/{action}", body)


def reopen_prediction(studio: Studio) -> None:
    studio.post(f"/predictions/{studio.approve().id}/reopen")


def delete_prediction(studio: Studio) -> None:
    assert studio.client("DELETE", f"/predictions/{studio.add_prediction().id}").status == 204


def reopen_shot(studio: Studio) -> None:
    studio.approve()
    studio.post(f"/shots/{studio.shot.id}/reopen")


def update_product(studio: Studio) -> None:
    assert studio.client("PATCH", studio.create_product(), {"sku": "VASE-1"}).status == 200


def delete_product(studio: Studio) -> None:
    assert studio.client("DELETE", studio.create_product(sku="VASE-2")).status == 204


def change_phase(studio: Studio) -> None:
    path = f"/shootings/{studio.scenario.shooting.id}"
    assert studio.client("PATCH", path, {"phase": "CLOSED"}).status == 200


def fail_export(studio: Studio) -> None:
    studio.request_export()
    lease = exports.EXPORTS.lease_next(studio.database, LEASE)
    assert lease is not None
    exports.EXPORTS.fail(studio.database, lease, exports.INTERNAL_ERROR)


def run_import(studio: Studio, text: str) -> None:
    """Import products from a CSV file."""
    stored = store_data_file(studio.storage, io.BytesIO(text.encode()))
    file = {"file_id": stored.id, "file_hash": stored.content_hash}
    factories.make_product_import(organization=studio.scenario.organization, **file)
    check = load_body_checks(BUNDLE)
    ImportRunner(build_worker(studio.database, studio.storage), check).run_pending()


def publish_prediction(studio: Studio) -> str:
    """Publish an approved prediction, and return its path."""
    path = f"/predictions/{studio.approve().id}"
    studio.post(f"{path}/publish")
    # It is published already.
    studio.post(f"{path}/publish")
    return path


def unpublish_prediction(studio: Studio) -> None:
    path = publish_prediction(studio)
    assert studio.client("POST", f"{path}/unpublish").status == 204


def use_most_credits(studio: Studio) -> None:
    scenario = studio.scenario
    with studio.database.transaction(write=True):
        row = current_session().merge(scenario.subscription)
        row.credits_total, row.credits_used = 100, 90
    shot = factories.make_shot(factories.make_look(scenario.shooting, main_product_id=scenario.product.id))
    studio.post(f"/shots/{shot.id}/generate", {"model_id": str(scenario.model.id)})


def let_a_key_expire(studio: Studio) -> None:
    body = {"name": "Shop", "scopes": ["products:read"], "expires_in_days": 30}
    key = studio.post(f"/organizations/{studio.scenario.organization.id}/api-keys", body)
    expires_at = utc_now() + timedelta(days=14)
    with studio.database.transaction(write=True) as writing:
        # unscoped: the row of this test
        row = writing.get_one(ApiKey, UUID(key["id"]))
        row.expires_at, row.next_expiry_notice_at = expires_at, utc_now()
    assert send_expiry_notices(studio.database) == 1


def use_a_deprecated_parameter(studio: Studio) -> None:
    organization = studio.scenario.organization
    shop = Client(studio.app, api_key_headers(studio.app, organization, ["products:write"]))
    query = f"organization_id={organization.id}&sync_captioning=true"
    assert shop("POST", f"/products/?{query}", {"name": "Vase", "sku": "V-1"}).status == 201
    studio.app.use_counter.flush(studio.database)
    assert send_deprecation_notices(studio.database, studio.app.settings) == 1


def fill_the_storage(studio: Studio) -> None:
    limit = PLANS[studio.scenario.subscription.tier].storage_bytes
    with studio.database.transaction(write=True):
        factories.make_media(**studio.scenario.ownership, variant_bytes=int(0.9 * limit))
    assert warn_about_storage(studio.database, Settings(mail="off")) == 1


def reject_shot(studio: Studio) -> None:
    studio.post(f"/shots/{studio.shot.id}/reject", {"reason": "Dark"})


def request_revision(studio: Studio) -> None:
    studio.post(f"/shots/{studio.shot.id}/request-revision", {"note": "Lighter, please"})


def send_a_test_event(studio: Studio) -> None:
    studio.post(f"/webhook-endpoints/{studio.endpoint.id}/test")


APPROVAL = ("prediction.approved", "shot.approved")
PROVOCATIONS: dict[str, tuple[Callable[[Studio], object], tuple[str, ...]]] = {
    "generation.completed": (partial(Studio.run_generation, status="completed"), ()),
    "generation.failed": (partial(Studio.run_generation, status="failed"), ()),
    "generation.canceled": (partial(Studio.run_generation, status="canceled"), ()),
    "generation.expired": (partial(Studio.run_generation, status="expired"), ()),
    "shot.approved": (Studio.approve, ("prediction.approved",)),
    "shot.rejected": (reject_shot, ()),
    "shooting.phase_changed": (change_phase, ()),
    "shot.revision_requested": (request_revision, ()),
    "shot.reopened": (reopen_shot, (*APPROVAL, "prediction.reopened")),
    "shot.exported": (Studio.export, ("export.completed",)),
    "prediction.approved": (partial(review_prediction, action="approve"), ("shot.approved",)),
    "prediction.rejected": (partial(review_prediction, action="reject", reason="Dark"), ()),
    "prediction.reopened": (reopen_prediction, (*APPROVAL, "shot.reopened")),
    "prediction.deleted": (delete_prediction, ()),
    "prediction.published": (publish_prediction, APPROVAL),
    "prediction.unpublished": (unpublish_prediction, (*APPROVAL, "prediction.published")),
    "product.created": (Studio.create_product, ()),
    "product.updated": (update_product, ("product.created",)),
    "product.deleted": (delete_product, ("product.created",)),
    "export.completed": (Studio.export, ("shot.exported",)),
    "export.failed": (fail_export, ()),
    "import.completed": (partial(run_import, text="sku,name\nA,Vase\nB,Jug\n"), ()),
    "import.failed": (partial(run_import, text="colour\nred\n"), ()),
    "credits.low": (use_most_credits, ()),
    "storage.low": (fill_the_storage, ()),
    "api_key.expiring": (let_a_key_expire, ()),
    "api_key.deprecated_use": (use_a_deprecated_parameter, ("product.created",)),
    "webhook.test": (send_a_test_event, ()),
}
"""What provokes each event, and the other events that the same requests send."""
