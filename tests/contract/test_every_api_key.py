"""Suites over every operation as API keys see it: one scope opens what names it, and nothing else.

Scopes and what they open come from the table that people read (`openapi/permissions.md`).
"""

from __future__ import annotations

import itertools
from datetime import timedelta
from uuid import uuid4

import pytest

from db.base import utc_now
from handlers.app import Application
from handlers.pages.permissions import ROLES
from studio.api_keys import write_secret
from tests import factories
from tests.api_keys import key_bearer
from tests.contract.every_operation import CONTRACT, OPERATIONS, unknown_id
from tests.contract.matrix import MAKERS, opened_by_scopes
from tests.contract.rows import all_rows
from tests.contract.test_foreign_ids import explain, ids_in_path, without_request_id
from tests.contract.test_roles import IN_THE_ORGANIZATION, OPEN, ROWS, SECURED, cells, somebody
from tests.contract.world import World

SCOPE_OF = {row.operation_id: scope for scope, rows in opened_by_scopes(CONTRACT).items() for row in rows}
SCOPES = sorted(opened_by_scopes(CONTRACT))
FOR_KEYS = list(SCOPE_OF)
FOR_PEOPLE = [name for name in SECURED if name not in FOR_KEYS]


def test_s03_every_cell_of_the_matrix_is_asked_about() -> None:
    """Neither a new column nor a scope that opens nothing comes in unnoticed."""
    asked = {("key", name) for name in (*FOR_KEYS, *FOR_PEOPLE)} | {("anonymous", name) for name in SECURED}
    asked |= set(itertools.product(ROLES, OPEN))
    for allowed in (True, False):
        asked |= set(cells(*IN_THE_ORGANIZATION, "personal", allowed=allowed))
    assert asked == set(itertools.product(ROLES, OPERATIONS))
    assert {name for name, row in ROWS.items() if "key" in row.roles} == {*FOR_KEYS, *OPEN}
    assert all(opened_by_scopes(CONTRACT).values())


@pytest.mark.parametrize("name", FOR_KEYS)
def test_s03_the_one_scope_that_an_operation_names_is_enough(
    name: str, app: Application, world: World
) -> None:
    headers = key_bearer(app, world.organization, [SCOPE_OF[name]])
    reply = world.request_for(name).send(app, headers)
    assert reply.status == OPERATIONS[name].success, explain(reply)


@pytest.mark.parametrize("name", FOR_KEYS)
def test_s03_a_key_with_another_scope_is_refused(
    name: str, app: Application, world: World, long_form: bool
) -> None:
    """All other scopes in one key; in the long form each of them in a key of its own as well."""
    request, others = world.request_for(name), [one for one in SCOPES if one != SCOPE_OF[name]]
    for scopes in [others, *([one] for one in others if long_form)]:
        reply = request.send(app, key_bearer(app, world.organization, scopes))
        assert (reply.status, reply.json()["code"]) == (403, "not_enough_permissions"), (
            f"{scopes} {explain(reply)}"
        )


@pytest.mark.parametrize("role", MAKERS)
def test_s03_a_scope_is_worth_nothing_when_the_maker_of_the_key_lacks_it_by_role(
    role: str, app: Application, world: World
) -> None:
    headers = key_bearer(app, world.organization, SCOPES, somebody(world, role))
    for _, name in cells(role, allowed=False):
        reply = world.request_for(name).send(app, headers)
        expected = (403, "not_enough_permissions") if name in FOR_KEYS else (401, "invalid_token")
        assert (reply.status, reply.json()["code"]) == expected, f"{name} {explain(reply)}"


def test_s03_a_key_that_does_not_hold_opens_nothing(app: Application, world: World) -> None:
    """One that has expired, one whose maker is locked, and one of ours of which there is no row."""
    locked = factories.make_user(is_active=False)
    factories.make_membership(world.organization, locked, role="admin")
    keys = [
        key_bearer(app, world.organization, SCOPES, expires_at=utc_now() - timedelta(seconds=1)),
        key_bearer(app, world.organization, SCOPES, locked),
        {"authorization": f"Bearer {write_secret(uuid4(), app.settings.secret_key)}"},
    ]
    requests = [world.request_for(name) for name in SECURED]
    before = all_rows(app)
    for request, headers in itertools.product(requests, keys):
        reply = request.send(app, headers)
        assert (reply.status, reply.json()["code"]) == (401, "invalid_token"), (
            f"{request.operation.operation_id} {explain(reply)}"
        )
    assert all_rows(app) == before


@pytest.mark.parametrize("name", FOR_PEOPLE)
def test_s03_a_key_is_no_credential_where_the_contract_wants_a_person(
    name: str, app: Application, world: World
) -> None:
    reply = world.request_for(name).send(app, key_bearer(app, world.organization, SCOPES))
    assert (reply.status, reply.json()["code"]) == (401, "invalid_token"), explain(reply)


def takes_organization(name: str) -> bool:
    return any(one["name"] == "organization_id" for one in OPERATIONS[name].parameters)


@pytest.mark.parametrize(
    "name", [name for name in FOR_KEYS if ids_in_path(OPERATIONS[name]) or takes_organization(name)]
)
def test_s01_rows_of_other_organizations_look_like_none_to_a_key(
    name: str, app: Application, world: World, stranger: World
) -> None:
    """Those of the same person's other organization too."""
    request, named = world.request_for(name), ids_in_path(OPERATIONS[name])
    if named:
        request.query.pop("organization_id", None)
        unknown = request.changed(path={**request.path, named[0]: unknown_id()})
    else:
        unknown = request.changed(query={**request.query, "organization_id": unknown_id()})
    for elsewhere in (stranger.organization, world.sister):
        headers = key_bearer(app, elsewhere, SCOPES)
        foreign = request.send(app, headers)
        assert foreign.status == 404, explain(foreign)
        assert without_request_id(foreign) == without_request_id(unknown.send(app, headers))
