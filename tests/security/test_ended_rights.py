"""Rights end when their source ends: each credential and each kind of work, with each way it can end.

An admin, or an API key that they made, holds the credential or has requested the work. `credentials.py` says
what must fail and what must go on, and writes the table in `docs/security.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

import pytest
from sqlalchemy import delete, select, update

from db.base import utc_now
from db.models import (
    ApiKey,
    Generation,
    Membership,
    ProductImport,
    Subscription,
    User,
    WebhookEndpoint,
)
from db.session import Database, current_session
from handlers.app import Application
from handlers.common.permissions import API_KEYS
from studio.accounts import organizations
from studio.infrastructure.storage import LocalDisk
from tests.api.conftest import Client
from tests.api.test_uploads import PHOTO
from tests.security.credentials import ENDS, EXPECTED, PAGE, READS, WAYS, WORKS, render_page
from tests.studio.test_imports import run_imports, start_import
from tests.support import factories
from tests.support.factories.api_keys import api_key_headers
from tests.support.factories.identity_providers import make_identity, make_identity_provider, make_sign_in
from tests.support.failing_subtests import FailingSubtests
from tests.support.guests import create_link, enter
from tests.support.scenarios import PhotographedProduct, run_pending_generations
from tests.support.servers.identity_provider import Browser


class Holder(NamedTuple):
    """Tells what still works of one credential or one piece of work."""

    state: Callable[[], str]


class World:
    """An organization with an admin who holds all credentials and has requested all work.

    Args:
        app: The application.
        database: Its database.
        storage: Its storage.
        scenario: The organization, whose owner does what ends the rights.
        client_for: Returns the client of a user.
    """

    def __init__(
        self,
        app: Application,
        database: Database,
        storage: LocalDisk,
        scenario: PhotographedProduct,
        client_for: Callable[..., Client],
    ) -> None:
        self.app, self.database, self.storage, self.scenario = app, database, storage, scenario
        self.organization, self.client_for = scenario.organization, client_for
        with database.transaction(write=True):
            self.admin = factories.make_user()
            factories.make_membership(self.organization, self.admin, role="admin")
        self.session = client_for(self.admin)
        self.owner = client_for(scenario.owner)
        self.key = Client(app, api_key_headers(app, self.organization, sorted(API_KEYS), self.admin))
        self.scope = f"organization_id={self.organization.id}"
        generation = factories.make_generation(scenario.shot, model_id=scenario.model.id, status="completed")
        self.prediction = factories.make_prediction(generation, media_id=scenario.media.id, status="approved")

    def hold(self) -> dict[str, Holder]:
        """Return all credentials and all work, which exist from now on."""
        held = {
            "session": Holder(lambda: self._try_client(self.session)),
            "session of a provider": self._hold_provider_session(),
            "API key": Holder(lambda: self._try_client(self.key)),
            "webhook endpoint": self._hold_endpoint(),
            "published image": self._hold_published(),
        }
        for suffix, client in (("", self.session), (" of a key", self.key)):
            held |= {
                f"review link{suffix}": self._hold_review_link(client),
                f"share link{suffix}": self._hold_share_link(client),
                f"upload URL{suffix}": self._hold_upload(client),
                f"pending generation{suffix}": self._hold_generation(client),
                f"import{suffix}": self._hold_import(client),
            }
        return held

    def end(self, way: str) -> None:
        """End the rights in one way."""
        with self.database.transaction(write=True) as session:
            of_admin = Membership.user_id == self.admin.id
            if way == "demoted":
                session.execute(update(Membership).where(of_admin).values(role="viewer"))
            elif way == "removed":
                session.execute(delete(Membership).where(of_admin))
            elif way == "deactivated":
                session.execute(update(User).where(User.id == self.admin.id).values(is_active=False))
            elif way == "key deleted":
                session.execute(delete(ApiKey).where(ApiKey.organization_id == self.organization.id))
            elif way == "organization suspended":
                assert organizations.suspend_organization(self.organization.id, None)
            elif way == "plan ended":
                ended = {"grace_period_end": utc_now()}
                session.execute(update(Subscription).values(ended))
        if way == "deleted":
            superuser = self.client_for(factories.make_user(is_superuser=True))
            assert superuser("DELETE", f"/users/{self.admin.id}").status == 204

    def _try_client(self, client: Client) -> str:
        read = client("GET", f"/brands/?{self.scope}").status
        if read != 200:
            assert read in (401, 403, 404)
            return ENDS
        written = client("POST", f"/brands/?{self.scope}", {"name": "Maison"}).status
        assert written in (201, 403)
        return WORKS if written == 201 else READS

    def _hold_provider_session(self) -> Holder:
        provider = make_identity_provider(self.organization)
        identity = make_identity(provider, self.admin)
        browser = Browser.of(Client(self.app))
        tokens = browser.exchange(make_sign_in(provider, browser.verifier, subject=identity.subject)).json()
        session = Client(self.app, {"authorization": f"Bearer {tokens['access_token']}"})
        return Holder(lambda: self._try_client(session))

    def _hold_review_link(self, client: Client) -> Holder:
        _, token = create_link(client, f"/shootings/{self.scenario.shooting.id}/review-links")
        guest = enter(self.app, token)
        path = f"/shootings/{self.scenario.shooting.id}"
        return Holder(lambda: {200: WORKS, 401: ENDS}[guest("GET", path).status])

    def _hold_share_link(self, client: Client) -> Holder:
        shared = client("POST", f"/predictions/{self.prediction.id}/share", {"expires_in_seconds": 3600})
        path = shared.json()["url"].partition("/api/v1")[2]
        return Holder(lambda: {200: WORKS, 404: ENDS}[Client(self.app)("GET", path).status])

    def _hold_upload(self, client: Client) -> Holder:
        body = {"filename": "a.png", "content_type": "image/png"}
        path = client("POST", "/uploads/presigned-url", body).json()["upload_url"].partition("/api/v1")[2]

        def send() -> str:
            headers = {"content-type": "image/png"}
            return {204: WORKS, 404: ENDS}[Client(self.app, headers)("PUT", path, body=PHOTO).status]

        return Holder(send)

    def _hold_generation(self, client: Client) -> Holder:
        look = factories.make_look(self.scenario.shooting, main_product_id=self.scenario.product.id)
        shot = factories.make_shot(look, shot_type_id=self.scenario.shot_type.id)
        response = client("POST", f"/shots/{shot.id}/generate", {"num_predictions": 1})
        assert response.status == 202, response.body
        generation_id = UUID(response.json()["id"])

        def run() -> str:
            run_pending_generations(self.database, self.storage)
            with self.database.transaction(write=False) as reading:
                row = reading.get(Generation, generation_id)
                assert row is not None
                if row.status == "canceled":
                    assert (row.cost_credits, row.error and row.error["category"]) == (0, "permission")
                return {"completed": WORKS, "canceled": ENDS}[row.status]

        return Holder(run)

    def _hold_import(self, client: Client) -> Holder:
        is_key = client is self.key
        with self.database.transaction(write=False) as reading:
            key_id = reading.scalars(select(ApiKey.id)).one()
        import_id = start_import(
            self.database,
            self.storage,
            self.organization,
            f"sku,name\n{'K' if is_key else 'S'}-1,Vase\n",
            requested_by_id=self.admin.id,
            api_key_id=key_id if is_key else None,
        )

        def run() -> str:
            run_imports(self.database, self.storage)
            with self.database.transaction(write=False) as reading:
                row = reading.get(ProductImport, import_id)
                assert row is not None
                if row.status == "failed":
                    assert row.problem is not None
                    assert row.problem["code"] == "permission_lost"
                return {"completed": WORKS, "failed": ENDS}[row.status]

        return Holder(run)

    def _hold_endpoint(self) -> Holder:
        with self.database.transaction(write=True):
            endpoint = factories.make_webhook_endpoint(
                organization_id=self.organization.id, owner_id=self.admin.id
            )

        def read() -> str:
            with self.database.transaction(write=False) as reading:
                found = reading.get(WebhookEndpoint, endpoint.id)
                return WORKS if found is not None and found.is_enabled else ENDS

        return Holder(read)

    def _hold_published(self) -> Holder:
        published = self.session("POST", f"/predictions/{self.prediction.id}/publish")
        path = published.json()["url"].partition("/api/v1")[2]
        return Holder(lambda: {200: WORKS, 404: ENDS}[Client(self.app)("GET", path).status])


@pytest.fixture
def build_world(
    app: Application,
    database: Database,
    storage: LocalDisk,
    scenario: PhotographedProduct,
    client_for: Callable[..., Client],
) -> Callable[[], World]:
    """Return a function that returns an organization for one way."""
    with database.transaction(write=True):
        current_session().execute(update(Subscription).values(credits_total=10_000))
    return lambda: World(app, database, storage, scenario, client_for)


@pytest.mark.parametrize("way", WAYS)
def test_s52_rights_end_when_their_source_ends(
    way: str, build_world: Callable[[], World], failing_subtests: FailingSubtests
) -> None:
    world = build_world()
    held = world.hold()
    assert held.keys() == EXPECTED.keys()
    world.end(way)
    for name, holder in held.items():
        with failing_subtests.test(f"{name}, {way}"):
            assert holder.state() == EXPECTED[name][way]


def test_s52_a_pending_generation_goes_on_with_the_plan_that_replaced_the_one_that_paid(
    build_world: Callable[[], World],
) -> None:
    world = build_world()
    generation = world.hold()["pending generation"]
    with world.database.transaction(write=True) as session:
        session.execute(update(Subscription).values(is_active=False))
        factories.make_subscription(world.scenario.owner)
    assert generation.state() == WORKS


def test_s52_what_a_suspension_ends_for_now_works_again_after_it(
    build_world: Callable[[], World], failing_subtests: FailingSubtests
) -> None:
    world = build_world()
    held = world.hold()
    world.end("organization suspended")
    with world.database.transaction(write=True):
        assert organizations.resume_organization(world.organization.id, None)
    for name, holder in held.items():
        with failing_subtests.test(name):
            assert holder.state() == WORKS


def test_s52_everything_works_before(
    build_world: Callable[[], World], failing_subtests: FailingSubtests
) -> None:
    for name, holder in build_world().hold().items():
        with failing_subtests.test(name):
            assert holder.state() == WORKS


def test_s52_the_table_of_credentials_is_up_to_date() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert render_page(text) == text, "run `python -m tests.security.credentials`"
