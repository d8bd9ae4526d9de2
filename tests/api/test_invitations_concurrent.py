"""Invitations that are created, accepted or invalidated concurrently, each on its own connection."""

from __future__ import annotations

from functools import partial

import pytest
from sqlalchemy import func, select

from db.models import Membership, User
from handlers.app import Application
from studio.accounts import invitations
from tests.api.conftest import Client, CommittingServer
from tests.support import factories
from tests.support.app import auth_headers
from tests.support.concurrency import PausedCall, run_concurrently
from tests.support.factories.invitations import (
    PASSWORD,
    accept,
    get_invitation_token,
    invitations_path,
    invite,
)


def test_a_token_that_is_accepted_concurrently_adds_one_member(
    committing_server: CommittingServer, application: Application
) -> None:
    client, database, scenario = committing_server
    invite(client, scenario.organization)
    token = get_invitation_token(application)

    def accept_invitation() -> int:
        return accept(Client(application), token, password=PASSWORD).status

    assert sorted(run_concurrently(*[accept_invitation] * 4)) == [201, 401, 401, 401]
    with database.transaction(write=False) as reading:
        joined = select(func.count()).select_from(Membership).join(User, User.id == Membership.user_id)
        assert reading.scalar(joined.where(User.email == "ines@example.com")) == 1


def test_deleting_an_account_waits_for_a_concurrent_acceptance(
    committing_server: CommittingServer, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, database, scenario = committing_server
    with database.transaction(write=True):
        user = factories.make_user(email="ines@example.com")
        superuser = Client(application, auth_headers(application, factories.make_user(is_superuser=True)))
    invite(client, scenario.organization)
    token = get_invitation_token(application)
    joined, deleted = PausedCall(monkeypatch, invitations, "create_membership").run_during_pause(
        lambda: superuser("DELETE", f"/users/{user.id}"), lambda: accept(Client(application), token)
    )
    assert (joined.status, deleted.status) == (201, 204), joined.body
    members = client("GET", f"/organizations/{scenario.organization.id}/members").json()["data"]
    assert [row["email"] for row in members] == [scenario.owner.email]


def test_concurrent_invitations_to_an_address_leave_one_invitation(
    committing_server: CommittingServer, application: Application
) -> None:
    client, _, scenario = committing_server
    responses = run_concurrently(*[partial(invite, client, scenario.organization)] * 4)
    assert [response.status for response in responses] == [201] * 4
    assert client("GET", invitations_path(scenario.organization)).json()["count"] == 1
