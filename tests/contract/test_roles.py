"""Every role in front of every operation: the server does what the contract's table of permissions says.

The rows come from the contract (`handlers/pages/permissions.py`), so a new operation is here the day it is
described; what they are compared with is the answer. Members of other organizations are S1.
"""

from __future__ import annotations

import pytest

from db.models import User
from handlers.app import Application
from handlers.pages.permissions import ROLES, matrix
from handlers.permissions import API_KEYS, SUPERUSER_ONLY
from tests import factories
from tests.api_keys import key_bearer
from tests.contract.every_operation import CONTRACT, OPERATIONS, Request
from tests.contract.mini.asking import Reply
from tests.contract.rows import all_rows
from tests.contract.world import World
from tests.serving import bearer

ROWS = {row.operation_id: row for rows in matrix(CONTRACT).values() for row in rows}
IN_THE_ORGANIZATION = ("superuser", "owner", "admin", "member", "viewer")
SECURED = [name for name, row in ROWS.items() if row.permission]
OPEN = [name for name in ROWS if name not in SECURED]
TWO_HOURS = 7200


def cells(*roles: str, allowed: bool) -> list[tuple[str, str]]:
    """Return the operations with the roles that have the permission, or lack it."""
    return [(role, name) for name in SECURED for role in roles if (role in ROWS[name].roles) is allowed]


def somebody(world: World, role: str) -> User:
    """Return an account with this role in the world's organization."""
    account: User = getattr(world, role)
    return account


def request_of(world: World, user: User, name: str) -> Request:
    """Return a request that is about this account where it is about an account, its password or its plan."""
    if user is not world.owner:
        world.owner = user
        if ROWS[name].permission == "subscriptions:read":
            world.rows["subscription"] = factories.make_subscription(user)
    return world.request_for(name)


def explain(reply: Reply) -> str:
    return f"{reply.status} {reply.body[:600]!r}"


@pytest.mark.parametrize(("role", "name"), cells(*IN_THE_ORGANIZATION, allowed=True))
def test_s03_a_role_that_has_the_permission_is_served(
    role: str, name: str, app: Application, world: World
) -> None:
    user = somebody(world, role)
    reply = request_of(world, user, name).send(app, bearer(app, user))
    assert reply.status == OPERATIONS[name].success, explain(reply)


@pytest.mark.parametrize(("role", "name"), cells(*IN_THE_ORGANIZATION, allowed=False))
def test_s03_a_role_without_the_permission_is_refused(
    role: str, name: str, app: Application, world: World
) -> None:
    headers, request = bearer(app, somebody(world, role)), world.request_for(name)
    before = all_rows(app)
    reply = request.send(app, headers)
    assert (reply.status, reply.json()["detail"]) == (403, "Not enough permissions"), explain(reply)
    assert all_rows(app) == before


@pytest.mark.parametrize("name", [name for _, name in cells("personal", allowed=True)])
def test_s03_everybody_is_served_on_an_account_and_rows_of_their_own(
    name: str, app: Application, world: World
) -> None:
    own = World(app.settings, personal=True)
    reply = own.request_for(name).send(app, bearer(app, own.owner))
    assert reply.status == OPERATIONS[name].success, explain(reply)


def test_s03_who_is_in_no_organization_is_refused_what_only_its_roles_have(
    app: Application, world: World
) -> None:
    requests = {name: world.request_for(name) for _, name in cells("personal", allowed=False)}
    headers, before = bearer(app, factories.make_user()), all_rows(app)
    for name, request in requests.items():
        reply = request.send(app, headers)
        expected = 403 if ROWS[name].permission in SUPERUSER_ONLY else 404
        assert reply.status == expected, f"{name} {explain(reply)}"
    assert all_rows(app) == before


@pytest.mark.parametrize("name", OPEN)
def test_s03_what_is_open_is_open_to_everybody(
    name: str, app: Application, world: World, stranger: World
) -> None:
    """Whatever they send: a credential that is worth nothing takes nothing away either."""
    assert ROWS[name].roles == set(ROLES)
    for headers in (
        {},
        *(bearer(app, somebody(world, role)) for role in IN_THE_ORGANIZATION),
        bearer(app, stranger.owner),
        key_bearer(app, world.organization, API_KEYS),
        bearer(app, world.owner, age=TWO_HOURS),
        {"authorization": "Bearer none.of.ours"},
        {"authorization": "Basic bm9ib2R5Om5vYm9keQ=="},
    ):
        reply = world.request_for(name).send(app, headers)
        assert reply.status == OPERATIONS[name].success, f"{headers} {explain(reply)}"


@pytest.mark.parametrize("name", SECURED)
def test_s03_who_is_not_known_is_told_nothing(name: str, app: Application, world: World) -> None:
    request = world.request_for(name)
    expired = bearer(app, world.superuser, age=TWO_HOURS)
    before = all_rows(app)
    for headers, detail in (
        ({}, "Not authenticated"),
        ({"authorization": "Bearer"}, "Not authenticated"),
        ({"authorization": "Bearer none.of.ours"}, "Could not validate credentials"),
        (expired, "Could not validate credentials"),
    ):
        reply = request.send(app, headers)
        assert (reply.status, reply.json()["detail"]) == (401, detail), explain(reply)
        assert reply.headers["www-authenticate"] == "Bearer"
    assert all_rows(app) == before
