"""Share links are rows: they can be listed and deleted, and end with the membership of their creator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from itsdangerous import URLSafeSerializer

from db.base import utc_now
from db.models import Prediction, User
from db.session import Database
from handlers.app import Application
from studio.media.signing import sign_share
from studio.review.shares import delete_expired_shares
from tests.api.conftest import Client
from tests.support import factories
from tests.support.client import status_and_code
from tests.support.factories.api_keys import api_key_headers
from tests.support.scenarios import PhotographedProduct


@pytest.fixture
def prediction(scenario: PhotographedProduct) -> Prediction:
    """Return a prediction of the organization with a stored image."""
    generation = factories.make_generation(scenario.shot, model_id=scenario.model.id, status="completed")
    return factories.make_prediction(generation, media_id=scenario.media.id)


@pytest.fixture
def member(scenario: PhotographedProduct) -> User:
    """Return another member of the organization."""
    user = factories.make_user()
    factories.make_membership(scenario.organization, user)
    return user


@dataclass
class Links:
    """Makes links to a prediction, opens them without a token and manages them as the owner."""

    app: Application
    owner: Client
    anonymous: Client
    prediction: Prediction

    @property
    def path(self) -> str:
        """The path of the prediction."""
        return f"/predictions/{self.prediction.id}"

    def make(self, client: Client, seconds: int = 3600) -> dict[str, Any]:
        """Make a link as a client and return it."""
        response = client("POST", f"{self.path}/share", {"expires_in_seconds": seconds})
        assert response.status == 200, response.body
        link: dict[str, Any] = response.json()
        assert self.open(link) == 200
        return link

    def open(self, link: dict[str, Any]) -> int:
        """Return the status of a link that is opened without a token."""
        path = link["url"].removeprefix(f"{self.app.settings.public_url}/api/v1")
        return self.anonymous("GET", path).status

    def list_ids(self, client: Client | None = None) -> list[str]:
        """Return the ids of the listed links."""
        page = (client or self.owner)("GET", f"{self.path}/shares").json()
        assert page["count"] == len(page["data"])
        return [row["id"] for row in page["data"]]


@pytest.fixture
def links(
    app: Application,
    client_for: Callable[[User | None], Client],
    scenario: PhotographedProduct,
    prediction: Prediction,
) -> Links:
    return Links(app, client_for(scenario.owner), client_for(None), prediction)


def test_s44_share_links_are_listed_without_their_url(links: Links, scenario: PhotographedProduct) -> None:
    first, second = links.make(links.owner), links.make(links.owner, 60)
    page = links.owner("GET", f"{links.path}/shares").json()
    for row, link in zip(page["data"], (second, first), strict=True):
        assert row == {
            "id": link["id"],
            "created_at": row["created_at"],
            "updated_at": row["updated_at"],
            "prediction_id": str(links.prediction.id),
            "created_by_id": str(scenario.owner.id),
            "expires_at": link["expires_at"],
        }


def test_s44_a_deleted_share_link_opens_no_more(links: Links) -> None:
    deleted, kept = links.make(links.owner), links.make(links.owner)
    path = f"{links.path}/shares/{deleted['id']}"
    assert links.owner("DELETE", path).status == 204
    assert (links.open(deleted), links.open(kept)) == (404, 200)
    assert links.list_ids() == [kept["id"]]
    assert status_and_code(links.owner("DELETE", path)) == (404, "not_found")


def test_s44_a_share_link_is_deleted_only_by_its_own_prediction_and_tenant(
    links: Links, client_for: Callable[[User | None], Client]
) -> None:
    link = links.make(links.owner)
    other = factories.make_user()
    foreign = factories.make_prediction(factories.make_generation(owner=other, status="completed"))
    stranger = client_for(other)
    for client, path in (
        (stranger, f"{links.path}/shares/{link['id']}"),
        (stranger, f"/predictions/{foreign.id}/shares/{link['id']}"),
        (links.owner, f"{links.path}/shares/{uuid4()}"),
    ):
        assert status_and_code(client("DELETE", path)) == (404, "not_found")
    assert stranger("GET", f"{links.path}/shares").status == 404
    assert links.open(link) == 200


def test_s44_viewers_list_share_links_and_cannot_delete_them(
    links: Links, scenario: PhotographedProduct, client_for: Callable[[User | None], Client]
) -> None:
    viewer = factories.make_user()
    factories.make_membership(scenario.organization, viewer, role="viewer")
    link, client = links.make(links.owner), client_for(viewer)
    assert links.list_ids(client) == [link["id"]]
    path = f"{links.path}/shares/{link['id']}"
    assert status_and_code(client("DELETE", path)) == (403, "not_enough_permissions")
    assert links.open(link) == 200


def test_s44_a_share_link_ends_with_the_membership_of_its_creator(
    links: Links,
    app: Application,
    scenario: PhotographedProduct,
    member: User,
    client_for: Callable[[User | None], Client],
) -> None:
    """A link that was made with an API key ends with the membership of the key's creator."""
    headers = api_key_headers(app, scenario.organization, ["predictions:share"], created_by=member)
    ending = [links.make(client_for(member)), links.make(Client(app, headers))]
    kept = links.make(links.owner)
    path = f"/organizations/{scenario.organization.id}/members/{member.id}"
    assert links.owner("DELETE", path).status == 204
    assert [links.open(link) for link in (*ending, kept)] == [404, 404, 200]
    assert links.list_ids() == [kept["id"]]
    # Being invited again does not revive the link.
    factories.make_membership(scenario.organization, member)
    assert [links.open(link) for link in ending] == [404, 404]


def test_s44_a_share_link_does_not_open_while_its_creator_is_deactivated(
    links: Links, superuser: Client, member: User, client_for: Callable[[User | None], Client]
) -> None:
    link = links.make(client_for(member))
    for is_active, status in ((False, 404), (True, 200)):
        assert superuser("PATCH", f"/users/{member.id}", {"is_active": is_active}).status == 200
        assert links.open(link) == status


def test_s44_a_share_link_of_a_superuser_ends_with_that_status(
    links: Links, superuser: Client, client_for: Callable[[User | None], Client]
) -> None:
    other = factories.make_user(is_superuser=True)
    link = links.make(client_for(other))
    assert superuser("PATCH", f"/users/{other.id}", {"is_superuser": False}).status == 200
    assert links.open(link) == 404


def test_s44_a_share_link_of_a_personal_prediction_opens(links: Links, scenario: PhotographedProduct) -> None:
    ownership = {"owner": scenario.owner}
    generation = factories.make_generation(**ownership, model_id=scenario.model.id, status="completed")
    links.prediction = factories.make_prediction(generation, media_id=scenario.media.id)
    link = links.make(links.owner)
    assert links.list_ids() == [link["id"]]


def test_s44_expired_share_links_are_neither_opened_nor_listed_and_are_deleted(
    links: Links, database: Database
) -> None:
    open_link, moment = links.make(links.owner), utc_now()
    expired = factories.make_prediction_share(links.prediction, expires_at=moment - timedelta(seconds=1))
    token = sign_share(links.app.settings.secret_key, expired.id)
    assert links.anonymous("GET", f"/shared/predictions/{token}").status == 404
    assert links.list_ids() == [open_link["id"]]
    assert links.owner("DELETE", f"{links.path}/shares/{expired.id}").status == 404
    assert delete_expired_shares(database, moment) == 1
    assert links.open(open_link) == 200


def test_s44_links_of_the_first_release_open_until_they_expire(links: Links) -> None:
    def sign(prediction_id: UUID, expires_at: datetime) -> str:
        signing: Any = {"digest_method": "sha256", "key_derivation": "hmac"}
        serializer = URLSafeSerializer(
            links.app.settings.secret_key, salt="sartiq prediction share", signer_kwargs=signing
        )
        return str(serializer.dumps([str(prediction_id), int(expires_at.timestamp())]))

    later = utc_now() + timedelta(hours=1)
    for token, status in (
        (sign(links.prediction.id, later), 200),
        (sign(links.prediction.id, utc_now() - timedelta(seconds=1)), 404),
        (sign(uuid4(), later), 404),
    ):
        assert links.anonymous("GET", f"/shared/predictions/{token}").status == status
    assert links.list_ids() == []
