"""Invitations that are sent, accepted or made worthless at the same moment, on connections of their own."""

from __future__ import annotations

from functools import partial

import pytest
from sqlalchemy import func, select

import studio.accounts.invitations
from db.models import Membership, User
from handlers.app import Application
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


def test_a_token_that_is_sent_many_times_at_once_is_good_for_one_member(
    committing_server: CommittingServer, application: Application
) -> None:
    client, database, production = committing_server
    invite(client, production.organization)
    token = get_invitation_token(application)

    def send() -> int:
        return accept(Client(application), token, password=PASSWORD).status

    assert sorted(run_concurrently(*[send] * 4)) == [201, 401, 401, 401]
    with database.transaction(write=False) as reading:
        joined = select(func.count()).select_from(Membership).join(User, User.id == Membership.user_id)
        assert reading.scalar(joined.where(User.email == "ines@example.com")) == 1


def test_an_account_that_is_deleted_while_it_joins_joins_first(
    committing_server: CommittingServer, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, database, production = committing_server
    with database.transaction(write=True):
        person = factories.make_user(email="ines@example.com")
        root = Client(application, auth_headers(application, factories.make_user(is_superuser=True)))
    invite(client, production.organization)
    token = get_invitation_token(application)
    joined, deleted = PausedCall(monkeypatch, studio.invitations, "join").run_during_pause(
        lambda: root("DELETE", f"/users/{person.id}"), lambda: accept(Client(application), token)
    )
    assert (joined.status, deleted.status) == (201, 204), joined.body
    members = client("GET", f"/organizations/{production.organization.id}/members").json()["data"]
    assert [row["email"] for row in members] == [production.owner.email]


def test_an_address_that_is_invited_many_times_at_once_has_one_invitation(
    committing_server: CommittingServer, application: Application
) -> None:
    client, _, production = committing_server
    replies = run_concurrently(*[partial(invite, client, production.organization)] * 4)
    assert [reply.status for reply in replies] == [201] * 4
    assert client("GET", invitations_path(production.organization)).json()["count"] == 1
