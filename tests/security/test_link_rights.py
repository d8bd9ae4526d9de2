"""Review links and share links do at most what their creator, and the API key that made them, may do now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import delete, select, update

from db.base import utc_now
from db.models import ApiKey, Membership, Prediction, PredictionShare, ReviewLink, Shooting, User
from db.session import Database
from handlers.app import Application
from handlers.common.permissions import GUESTS
from tests.api.conftest import Client
from tests.support import factories
from tests.support.client import status_and_code
from tests.support.factories.api_keys import api_key_headers
from tests.support.failing_subtests import FailingSubtests
from tests.support.guests import create_link, enter, exchange
from tests.support.scenarios import PhotographedProduct

GUEST_SCOPES = sorted(GUESTS)
ALL_SCOPES = [*GUEST_SCOPES, "predictions:share", "review_links:manage"]
WORKS, ENDED = (200, 200, 200), (401, 401, 404)
INVALID, DENIED = (401, "invalid_token"), (403, "not_enough_permissions")


@dataclass
class Links:
    """Makes a review link and a share link as one client, and tries both."""

    app: Application
    shooting_id: UUID
    prediction_id: UUID
    product_id: UUID
    file_path: str
    token: str = ""
    share_path: str = ""
    guest: Client | None = None

    def make(self, client: Client) -> None:
        """Make both links, and enter as a guest."""
        _, self.token = create_link(client, f"/shootings/{self.shooting_id}/review-links")
        shared = client("POST", f"/predictions/{self.prediction_id}/share", {"expires_in_seconds": 3600})
        assert shared.status == 200, shared.body
        self.share_path = shared.json()["url"].partition("/api/v1")[2]
        self.guest = enter(self.app, self.token)

    def try_all(self) -> tuple[int, int, int]:
        """Return the status of a request of the guest, of an exchange, and of the shared image."""
        assert self.guest is not None
        read = self.guest("GET", f"/shootings/{self.shooting_id}")
        exchanged = exchange(self.app, self.token)
        return read.status, exchanged.status, Client(self.app)("GET", self.share_path).status

    def act(self) -> dict[str, tuple[int, str | None]]:
        """Return the status and code of what guests do, by the permission that it requires."""
        assert self.guest is not None
        results: dict[str, tuple[int, str | None]] = {}
        prediction = f"/predictions/{self.prediction_id}"
        for permission, method, path, body in (
            ("shootings:read", "GET", f"/shootings/{self.shooting_id}", None),
            ("shots:read", "GET", "/shots/", None),
            ("products:read", "GET", f"/products/{self.product_id}/images", None),
            ("files:read", "GET", self.file_path, None),
            ("predictions:read", "GET", f"{prediction}/image", None),
            ("predictions:review", "POST", f"{prediction}/approve", {}),
            ("predictions:review, again", "POST", f"{prediction}/reopen", None),
            ("comments:write", "POST", f"{prediction}/comments", {"text": "The hem is cut off."}),
            ("comments:read", "GET", f"{prediction}/comments", None),
        ):
            response = self.guest(method, path, body)
            results[permission] = response.status, None if response.status < 400 else response.json()["code"]
        return results


@pytest.fixture
def links(app: Application, owner: Client, scenario: PhotographedProduct, database: Database) -> Links:
    generation = factories.make_generation(scenario.shot, model_id=scenario.model.id, status="completed")
    prediction = factories.make_prediction(generation, media_id=scenario.media.id)
    with database.transaction(write=True) as session:
        session.merge(scenario.shot).status = "pending_review"
    (photo,) = owner("GET", f"/products/{scenario.product.id}/images").json()["data"]
    file_path = photo["url"].partition("/api/v1")[2]
    return Links(app, scenario.shooting.id, prediction.id, scenario.product.id, file_path)


@pytest.fixture
def owner(client_for: Callable[..., Client], scenario: PhotographedProduct) -> Client:
    return client_for(scenario.owner)


@pytest.fixture
def admin(scenario: PhotographedProduct) -> User:
    """Return an admin of the organization."""
    user = factories.make_user()
    factories.make_membership(scenario.organization, user, role="admin")
    return user


@pytest.fixture
def member_path(scenario: PhotographedProduct, admin: User) -> str:
    return f"/organizations/{scenario.organization.id}/members/{admin.id}"


def make_key(app: Application, scenario: PhotographedProduct, scopes: list[str], user: User) -> Client:
    return Client(app, api_key_headers(app, scenario.organization, scopes, user))


@pytest.mark.parametrize(
    ("role", "expected"),
    [("admin", WORKS), ("member", (401, 401, 200)), ("viewer", ENDED)],
)
def test_s16_links_have_the_rights_that_the_role_of_their_creator_has_now(
    links: Links, admin: User, client_for: Callable[..., Client], database: Database, role: str,
    expected: tuple[int, int, int],
) -> None:  # fmt: skip
    links.make(client_for(admin))
    assert links.try_all() == WORKS
    for current, statuses in ((role, expected), ("admin", WORKS)):
        with database.transaction(write=True) as session:
            mine = update(Membership).where(Membership.user_id == admin.id)
            session.execute(mine.values(role=current))
        assert links.try_all() == statuses


def test_s16_a_guest_of_a_demoted_creator_decides_nothing(
    links: Links, admin: User, owner: Client, client_for: Callable[..., Client], member_path: str
) -> None:
    links.make(client_for(admin))
    assert {status for status, _ in links.act().values()} == {200, 201}
    assert owner("PATCH", member_path, {"role": "viewer"}).status == 200
    assert set(links.act().values()) == {INVALID}
    assert status_and_code(exchange(links.app, links.token)) == INVALID


@pytest.mark.parametrize("with_key", [False, True])
def test_s16_links_of_a_removed_or_deactivated_creator_have_ended(
    links: Links, admin: User, owner: Client, superuser: Client, client_for: Callable[..., Client],
    scenario: PhotographedProduct, member_path: str, with_key: bool,
) -> None:  # fmt: skip
    links.make(make_key(links.app, scenario, ALL_SCOPES, admin) if with_key else client_for(admin))
    for is_active, statuses in ((False, ENDED), (True, WORKS)):
        assert superuser("PATCH", f"/users/{admin.id}", {"is_active": is_active}).status == 200
        assert links.try_all() == statuses
    assert owner("DELETE", member_path).status == 204
    assert links.try_all() == ENDED
    factories.make_membership(scenario.organization, admin, role="admin")
    assert links.try_all() == ENDED


def test_s16_links_end_with_the_api_key_that_made_them(
    links: Links, admin: User, owner: Client, scenario: PhotographedProduct, database: Database
) -> None:
    """The creator stays an admin. The rows are deleted with the key, by the database."""
    key = make_key(links.app, scenario, ALL_SCOPES, admin)
    links.make(key)
    assert links.try_all() == WORKS
    with database.transaction(write=False) as session:
        key_id = session.scalars(select(ApiKey.id)).one()
        for model in (ReviewLink, PredictionShare):
            assert session.scalars(select(model.api_key_id)).all() == [key_id]
    keys = f"/organizations/{scenario.organization.id}/api-keys"
    assert owner("DELETE", f"{keys}/{key_id}").status == 204
    assert links.try_all() == ENDED
    assert set(links.act().values()) == {INVALID}
    for path in (
        f"/shootings/{links.shooting_id}/review-links",
        f"/predictions/{links.prediction_id}/shares",
    ):
        assert owner("GET", path).json()["data"] == []


def test_s16_links_end_when_their_api_key_expires(
    links: Links, admin: User, scenario: PhotographedProduct, database: Database
) -> None:
    links.make(make_key(links.app, scenario, ALL_SCOPES, admin))
    for expires_at, statuses in ((utc_now(), ENDED), (utc_now() + timedelta(days=1), WORKS)):
        with database.transaction(write=True) as session:
            session.execute(update(ApiKey).values(expires_at=expires_at))
        assert links.try_all() == statuses


def test_s16_links_end_when_their_api_key_may_make_none(
    links: Links, admin: User, scenario: PhotographedProduct, database: Database
) -> None:
    """No operation changes the scopes of a key, but a release can take a scope away from all keys."""
    links.make(make_key(links.app, scenario, ALL_SCOPES, admin))
    for lost, statuses in (("review_links:manage", (401, 401, 200)), ("predictions:share", (200, 200, 404))):
        scopes = [scope for scope in ALL_SCOPES if scope != lost]
        with database.transaction(write=True) as session:
            session.execute(update(ApiKey).values(scopes=scopes))
        assert links.try_all() == statuses


def test_s16_a_guest_of_an_api_key_may_do_what_the_scopes_of_the_key_allow(
    links: Links, admin: User, scenario: PhotographedProduct, database: Database,
    failing_subtests: FailingSubtests,
) -> None:  # fmt: skip
    links.make(make_key(links.app, scenario, ALL_SCOPES, admin))
    for lacking in GUEST_SCOPES:
        # A plain text, which the processes of a run can send.
        with failing_subtests.test(str(lacking)):
            scopes = [scope for scope in ALL_SCOPES if scope != lacking]
            with database.transaction(write=True) as session:
                session.execute(update(ApiKey).values(scopes=scopes))
            results = links.act()
            denied = {permission for permission, result in results.items() if result == DENIED}
            assert denied == {each for each in results if each.partition(",")[0] == lacking}
            allowed = {status for permission, (status, _) in results.items() if permission not in denied}
            assert allowed <= {200, 201}


def test_s16_the_problem_of_a_guest_of_an_api_key_names_the_permission(
    links: Links, admin: User, scenario: PhotographedProduct
) -> None:
    links.make(make_key(links.app, scenario, ["review_links:manage", "predictions:share"], admin))
    assert set(links.act().values()) == {DENIED}
    assert links.guest is not None
    response = links.guest("POST", f"/predictions/{links.prediction_id}/approve", {})
    assert response.json() == {
        "type": "http://localhost:8000/api/v1/problems/not_enough_permissions",
        "title": "Forbidden",
        "status": 403,
        "detail": "Not enough permissions",
        "code": "not_enough_permissions",
        "required_permission": "predictions:review",
        "request_id": response.headers["x-request-id"],
    }


def test_s16_links_of_the_release_before_have_the_rights_of_their_creator(
    links: Links, admin: User, owner: Client, scenario: PhotographedProduct, database: Database,
    member_path: str,
) -> None:  # fmt: skip
    """Release 0.2.0 does not store the key. It may run beside this one for a time, and make such links."""
    links.make(make_key(links.app, scenario, ["review_links:manage", "predictions:share"], admin))
    with database.transaction(write=True) as session:
        for model in (ReviewLink, PredictionShare):
            session.execute(update(model).values(api_key_id=None))
        session.execute(delete(ApiKey))
    assert links.try_all() == WORKS
    assert {status for status, _ in links.act().values()} == {200, 201}
    assert owner("PATCH", member_path, {"role": "viewer"}).status == 200
    assert links.try_all() == ENDED


def test_s16_links_of_a_superuser_keep_the_rights_of_a_membership_only(
    links: Links, superuser: Client, scenario: PhotographedProduct, client_for: Callable[..., Client]
) -> None:
    viewer = factories.make_user(is_superuser=True)
    factories.make_membership(scenario.organization, viewer, role="viewer")
    links.make(client_for(viewer))
    assert links.try_all() == WORKS
    assert superuser("PATCH", f"/users/{viewer.id}", {"is_superuser": False}).status == 200
    assert links.try_all() == ENDED


def test_s16_a_key_of_a_superuser_gives_its_links_no_more_than_the_role(
    links: Links,
    superuser: Client,
    owner: Client,
    admin: User,
    scenario: PhotographedProduct,
    member_path: str,
) -> None:
    assert superuser("PATCH", f"/users/{admin.id}", {"is_superuser": True}).status == 200
    links.make(make_key(links.app, scenario, ALL_SCOPES, admin))
    assert owner("PATCH", member_path, {"role": "viewer"}).status == 200
    assert links.try_all() == ENDED


def test_s16_links_of_personal_rows_work_as_long_as_their_owner(
    links: Links, scenario: PhotographedProduct, superuser: Client, client_for: Callable[..., Client]
) -> None:
    person = factories.make_user()
    look = factories.make_look(factories.make_shooting(owner=person))
    shot = factories.make_shot(look, status="pending_review")
    generation = factories.make_generation(shot, model_id=scenario.model.id, status="completed")
    prediction = factories.make_prediction(generation, media_id=scenario.media.id)
    links.shooting_id, links.prediction_id = look.shooting_id, prediction.id
    links.make(client_for(person))
    assert links.try_all() == WORKS
    assert superuser("PATCH", f"/users/{person.id}", {"is_active": False}).status == 200
    assert links.try_all() == ENDED


def test_s01_a_link_does_not_follow_its_row_into_another_organization(
    links: Links, owner: Client, database: Database
) -> None:
    """No operation moves a shooting today. The membership of a link is one of the row's organization."""
    links.make(owner)
    other = factories.make_organization(factories.make_user())
    with database.transaction(write=True) as session:
        for model, row_id in ((Shooting, links.shooting_id), (Prediction, links.prediction_id)):
            moved = update(model).where(model.id == row_id)
            session.execute(moved.values(organization_id=other.id, owner_id=other.owner_id))
    assert links.try_all() == ENDED
