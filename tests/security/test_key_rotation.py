"""A rotation of SECRET_KEY: what the previous key signed or encrypted stays valid until it is removed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks.webhooks import WebhookVerificationError

from db.models import Prediction
from db.session import Database
from handlers.app import Application, create_app
from studio.infrastructure.http_client import SafeHttpClient
from studio.infrastructure.settings import DEVELOPMENT_SECRET, InvalidSettings, Settings
from studio.webhooks import dispatcher
from studio.webhooks.signing import derive_secret
from tests.api.conftest import Client
from tests.api.test_uploads import JPEG, PHOTO
from tests.support import factories
from tests.support.app import SwitchedDatabase, auth_headers
from tests.support.auth import revoke
from tests.support.client import ClientResponse, url_path
from tests.support.factories.api_keys import api_key_headers
from tests.support.queues import build_worker
from tests.support.scenarios import PhotographedProduct
from tests.support.servers.webhook_receiver import (
    WebhookReceiver,
    make_endpoint,
    publish_event,
    verify_signature,
)
from tools.demo import Api
from tools.servers.http_recorder import RecordedRequest
from tools.servers.processes import wait_until
from tools.servers.server import SECRET_KEY, RunningServer, running_server

OLD, NEW = "the old key: 0123456789abcdef0123456789", "the new key: fedcba9876543210fedcba9876"


@dataclass
class Rotation:
    """Clients of the same installation before, during and after the rotation."""

    before: Client
    during: Client
    after: Client

    def with_headers(self, headers: dict[str, str]) -> Rotation:
        """Return clients that all send these headers."""
        return Rotation(*(Client(each.app, headers) for each in (self.before, self.during, self.after)))

    def statuses(self, method: str, path: str, **request: Any) -> list[int]:
        """Return the statuses of the same request before, during and after the rotation."""
        clients = (self.before, self.during, self.after)
        return [client(method, path, **request).status for client in clients]


@pytest.fixture(scope="module")
def applications(application: Application) -> Iterator[list[Application]]:
    """Yield the application before, during and after the rotation."""
    steps = [{"secret_key": OLD}, {"secret_key": NEW, "secret_key_previous": OLD}, {"secret_key": NEW}]
    made = [create_app(replace(application.settings, **step), database=SwitchedDatabase()) for step in steps]
    yield made
    for each in made:
        each.bridge.pool.shutdown()


@pytest.fixture
def rotation(
    applications: list[Application], database: Database, scenario: PhotographedProduct
) -> Iterator[Rotation]:
    """Yield clients that are signed in as the owner of an organization; the last one by the new key."""
    old, new = (auth_headers(each, scenario.owner) for each in applications[::2])
    with ExitStack() as stack:
        for each in applications:
            stack.enter_context(each.database.switched_to(database))
        yield Rotation(*map(Client, applications, (old, old, new)))


def test_s31_access_tokens_stay_valid_during_the_rotation(
    rotation: Rotation, scenario: PhotographedProduct
) -> None:
    old = rotation.with_headers(rotation.before.headers)
    assert old.statuses("GET", "/users/me") == [200, 200, 401]
    new = rotation.with_headers(auth_headers(rotation.during.app, scenario.owner))
    assert new.statuses("GET", "/users/me") == [401, 200, 200]


def test_s31_access_tokens_of_the_previous_key_can_be_revoked(rotation: Rotation) -> None:
    token = rotation.before.headers["authorization"].removeprefix("Bearer ")
    assert revoke(rotation.during, token).status == 200
    assert rotation.statuses("GET", "/users/me")[:2] == [401, 401]


def test_s31_servers_accept_tokens_of_the_next_key_before_they_sign_with_it(
    rotation: Rotation, scenario: PhotographedProduct
) -> None:
    """While several servers restart one after the other, each accepts the tokens of all others."""
    early = create_app(
        replace(rotation.before.app.settings, secret_key_previous=NEW), database=rotation.before.app.database
    )
    for app in (rotation.during.app, early):
        headers = auth_headers(app, scenario.owner)
        statuses = [Client(each, headers)("GET", "/users/me").status for each in (early, rotation.during.app)]
        assert statuses == [200, 200]
    early.bridge.pool.shutdown()


def test_s31_api_keys_stay_valid_during_the_rotation(
    rotation: Rotation, scenario: PhotographedProduct
) -> None:
    headers = api_key_headers(
        rotation.before.app, scenario.organization, {"brands:read"}, created_by=scenario.owner
    )
    query = f"/brands/?organization_id={scenario.organization.id}"
    assert rotation.with_headers(headers).statuses("GET", query) == [200, 200, 401]


def test_s31_share_links_stay_valid_during_the_rotation(
    rotation: Rotation, scenario: PhotographedProduct
) -> None:
    generation = factories.make_generation(scenario.shot, model_id=scenario.model.id, status="completed")
    prediction: Prediction = factories.make_prediction(generation, media_id=scenario.media.id)
    link = rotation.before("POST", f"/predictions/{prediction.id}/share", {"expires_in_seconds": 3600})
    path = url_path(link.json()["url"])
    anonymous = rotation.with_headers({})
    assert anonymous.statuses("GET", path) == [200, 200, 404]
    assert anonymous.statuses("GET", f"{path[:-1]}{'A' if path[-1] != 'A' else 'B'}") == [404, 404, 404]


def test_s31_upload_urls_stay_valid_during_the_rotation(rotation: Rotation) -> None:
    body = {"filename": "dress.jpg", "content_type": "image/jpeg"}
    upload = rotation.before("POST", "/uploads/presigned-url", body)
    path = url_path(upload.json()["upload_url"])
    assert rotation.with_headers({}).statuses("PUT", path, body=PHOTO, headers=JPEG) == [204, 204, 403]


def test_s31_cursors_stay_valid_during_the_rotation(
    rotation: Rotation, scenario: PhotographedProduct
) -> None:
    for _ in range(2):
        factories.make_brand(organization=scenario.organization)
    path = f"/brands/?organization_id={scenario.organization.id}&limit=1"
    cursor = rotation.before("GET", path).json()["next_cursor"]
    assert rotation.statuses("GET", f"{path}&cursor={cursor}") == [200, 200, 404]


def create_brand(client: Client, name: str, key: str) -> ClientResponse:
    return client("POST", "/brands/", {"name": name}, headers={"idempotency-key": key})


def test_s31_stored_responses_are_replayed_during_the_rotation(rotation: Rotation) -> None:
    first = create_brand(rotation.before, "Atelier", "once")
    replayed = create_brand(rotation.during, "Atelier", "once")
    assert (replayed.status, replayed.body) == (201, first.body)
    assert replayed.headers["idempotency-replayed"] == "true"
    assert create_brand(rotation.during, "Other", "once").json()["code"] == "idempotency_key_reused"
    # Not executed again even after the key was removed too early.
    assert create_brand(rotation.after, "Atelier", "once").status == 422
    assert len(rotation.during("GET", "/brands/").json()["data"]) == 1


def test_s31_webhooks_are_signed_with_both_keys_during_the_rotation(
    rotation: Rotation, scenario: PhotographedProduct, database: Database, receiver: WebhookReceiver
) -> None:
    endpoint = make_endpoint(receiver, organization=scenario.organization)
    http_client = SafeHttpClient([receiver.recorder.host])

    def send_from(client: Client) -> RecordedRequest:
        publish_event(database, endpoint)
        assert dispatcher.send_next(client.app.settings, build_worker(database), http_client)
        return receiver.recorder.requests[-1]

    def is_valid(request: RecordedRequest, secret: str) -> bool:
        try:
            return bool(verify_signature(request, secret))
        except WebhookVerificationError:
            return False

    old_secret = derive_secret(OLD, endpoint.secret_salt)
    messages = [send_from(each) for each in (rotation.before, rotation.during, rotation.after)]
    assert [is_valid(message, old_secret) for message in messages] == [True, True, False]
    # The client takes the new secret at any time during the rotation, and loses no message.
    rotated = rotation.during("POST", f"/webhook-endpoints/{endpoint.id}/rotate-secret")
    new_secret = rotated.json()["secret"]
    messages = [send_from(each) for each in (rotation.during, rotation.after)]
    assert [is_valid(message, old_secret) for message in messages] == [True, False]
    assert [is_valid(message, new_secret) for message in messages] == [True, True]
    assert not is_valid(messages[0], derive_secret(NEW, endpoint.secret_salt[::-1]))


@pytest.mark.parametrize("previous", ["short", "a" * 64, DEVELOPMENT_SECRET])
def test_s31_a_guessable_previous_key_is_rejected(previous: str) -> None:
    variables = {"SARTIQ_ENV": "production", "SECRET_KEY": SECRET_KEY, "MAIL": "off"}
    with pytest.raises(InvalidSettings, match="SECRET_KEY_PREVIOUS must be set to at least 32 bytes with"):
        Settings.from_environment(variables | {"SECRET_KEY_PREVIOUS": previous})
    with pytest.raises(InvalidSettings, match="SECRET_KEY_PREVIOUS must differ from SECRET_KEY"):
        Settings.from_environment(variables | {"SECRET_KEY_PREVIOUS": SECRET_KEY})
    accepted = Settings.from_environment(variables | {"SECRET_KEY_PREVIOUS": OLD})
    assert accepted.secret_keys == (SECRET_KEY, OLD)


@pytest.mark.slow("it starts three servers")
def test_s31_a_server_rotates_its_key_without_a_rejected_request(
    tmp_path: Path, receiver: WebhookReceiver
) -> None:
    options = {"OUTBOUND_ALLOWED_HOSTS": receiver.recorder.host, "RENDER_WORKERS": "0"}
    with running_server(tmp_path, SECRET_KEY=OLD, **options) as server, Api(server.origin) as api:
        api.sign_in("demo@example.com", "sartiq-demo")
        session = api.client.headers["authorization"]
        (organization_id,) = [each["id"] for each in api.get("/organizations/")["data"]]
        body = {"name": "Shop", "scopes": ["brands:read"], "expires_in_days": 1}
        api_key = api.post(f"/organizations/{organization_id}/api-keys", json=body)["secret"]
        body = {"filename": "dress.jpg", "content_type": "image/jpeg"}
        upload = api.post("/uploads/presigned-url", json=body)["upload_url"]
        prediction = api.get("/predictions/", organization_id=organization_id)["data"][0]
        share = api.post(f"/predictions/{prediction['id']}/share", json={"expires_in_seconds": 3600})["url"]
        page = api.get("/shot-types/", limit=1)["next_cursor"]
        body = {"url": f"{receiver.recorder.url}/hooks", "event_types": ["shot.approved"]}
        endpoint = api.post("/webhook-endpoints/", organization_id=organization_id, json=body)
        once = {"json": {"name": "Atelier"}, "headers": {"Idempotency-Key": "once"}}
        brand = api.client.post("/brands/", **once)
        assert brand.status_code == 201

    def get_statuses(target: RunningServer) -> list[int]:
        def url(made: str) -> str:
            return target.origin + made.removeprefix(server.origin)

        key = {"Authorization": f"Bearer {api_key}"}
        with httpx.Client(base_url=target.url, timeout=30) as client:
            user = {"headers": {"Authorization": session}}
            return [
                client.get("/users/me", **user).status_code,
                client.get("/brands/", params={"organization_id": organization_id}, headers=key).status_code,
                client.put(url(upload), content=PHOTO, headers=JPEG).status_code,
                client.get(url(share)).status_code,
                client.get("/shot-types/", params={"limit": 1, "cursor": page}, **user).status_code,
            ]

    with running_server(tmp_path, SECRET_KEY=NEW, SECRET_KEY_PREVIOUS=OLD, **options) as server_during:
        assert get_statuses(server_during) == [200, 200, 204, 200, 200]
        headers = {"Authorization": session}
        with httpx.Client(base_url=server_during.url, headers=headers, timeout=30) as client:
            replayed = client.post("/brands/", json=once["json"], headers=once["headers"])
            assert (replayed.content, replayed.headers["idempotency-replayed"]) == (brand.content, "true")
            assert client.post(f"/webhook-endpoints/{endpoint['id']}/test").status_code == 202
            wait_until(lambda: receiver.recorder.requests, "the message arrives")
            assert verify_signature(receiver.recorder.requests[0], endpoint["secret"])
    with running_server(tmp_path, SECRET_KEY=NEW, **options) as server_after:
        assert get_statuses(server_after) == [401, 401, 403, 404, 401]
