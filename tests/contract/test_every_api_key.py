"""Suites over every operation as API keys see it: one scope opens what names it, and nothing else."""

from __future__ import annotations

import pytest

from handlers.app import Application
from handlers.permissions import API_KEYS
from tests.api_keys import key_bearer
from tests.contract.every_operation import OPERATIONS, unknown_id
from tests.contract.test_foreign_ids import explain, without_request_id
from tests.contract.world import World

FOR_KEYS = [
    name
    for name, operation in OPERATIONS.items()
    if any("ApiKey" in schemes for schemes in operation.raw.get("security", []))
]
FOR_PEOPLE = [name for name, one in OPERATIONS.items() if name not in FOR_KEYS and not one.is_open]
SCOPES = sorted(API_KEYS)


@pytest.mark.parametrize("name", FOR_KEYS)
def test_s03_the_one_scope_that_an_operation_names_is_enough(
    name: str, app: Application, world: World
) -> None:
    scope = OPERATIONS[name].raw["x-permission"]
    reply = world.request_for(name).send(app, key_bearer(app, world.organization, [scope]))
    assert reply.status == OPERATIONS[name].success, explain(reply)


@pytest.mark.parametrize("name", FOR_KEYS)
def test_s03_a_key_with_another_scope_is_refused(
    name: str, app: Application, world: World, long_form: bool
) -> None:
    """All other scopes in one key; in the long form each of them in a key of its own as well."""
    request, others = (
        world.request_for(name),
        [one for one in SCOPES if one != OPERATIONS[name].raw["x-permission"]],
    )
    for scopes in [others, *([one] for one in others if long_form)]:
        reply = request.send(app, key_bearer(app, world.organization, scopes))
        assert (reply.status, reply.json()["code"]) == (403, "not_enough_permissions"), (
            f"{scopes} {explain(reply)}"
        )


@pytest.mark.parametrize("name", FOR_PEOPLE)
def test_s03_a_key_is_no_credential_where_the_contract_wants_a_person(
    name: str, app: Application, world: World
) -> None:
    reply = world.request_for(name).send(app, key_bearer(app, world.organization, SCOPES))
    assert (reply.status, reply.json()["code"]) == (401, "invalid_token"), explain(reply)


@pytest.mark.parametrize("name", FOR_KEYS)
def test_s01_rows_of_other_organizations_look_like_none_to_a_key(
    name: str, app: Application, world: World, stranger: World
) -> None:
    """Those of the same person's other organization too."""
    request = world.request_for(name)
    named = [one for one in OPERATIONS[name].path_names() if name != "get_generation_model"]
    if not named and "organization_id" not in request.query:
        return
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
