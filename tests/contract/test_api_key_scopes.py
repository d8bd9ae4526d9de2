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
from handlers.pages.permission_matrix import ROLES
from studio.accounts.api_keys import generate_secret
from tests.contract.operations import CONTRACT, OPERATIONS, unknown_id
from tests.contract.tenant import Tenant
from tests.contract.test_foreign_ids import describe_response, ids_in_path, without_request_id
from tests.contract.test_roles import ORGANIZATION_ROLES, PUBLIC, ROWS, SECURED, make_account, role_cells
from tests.support import factories
from tests.support.factories.api_keys import api_key_headers
from tests.support.snapshots import snapshot_rows
from tests.tools.permission_matrix import KEY_OWNER_ROLES, operations_by_scope

SCOPE_BY_OPERATION = {
    row.operation_id: scope for scope, rows in operations_by_scope(CONTRACT).items() for row in rows
}
SCOPES = sorted(operations_by_scope(CONTRACT))
KEY_OPERATIONS = list(SCOPE_BY_OPERATION)
USER_OPERATIONS = [name for name in SECURED if name not in KEY_OPERATIONS]


def test_s03_every_cell_of_the_matrix_is_asked_about() -> None:
    """Neither a new column nor a scope that opens nothing comes in unnoticed."""
    asked = {("key", name) for name in (*KEY_OPERATIONS, *USER_OPERATIONS)} | {
        ("anonymous", name) for name in SECURED
    }
    asked |= set(itertools.product(ROLES, PUBLIC))
    for allowed in (True, False):
        asked |= set(role_cells(*ORGANIZATION_ROLES, "personal", allowed=allowed))
    assert asked == set(itertools.product(ROLES, OPERATIONS))
    assert {name for name, row in ROWS.items() if "key" in row.roles} == {*KEY_OPERATIONS, *PUBLIC}
    assert all(operations_by_scope(CONTRACT).values())


@pytest.mark.parametrize("name", KEY_OPERATIONS)
def test_s03_the_one_scope_that_an_operation_names_is_enough(
    name: str, app: Application, tenant: Tenant
) -> None:
    headers = api_key_headers(app, tenant.organization, [SCOPE_BY_OPERATION[name]])
    reply = tenant.request_for(name).send(app, headers)
    assert reply.status == OPERATIONS[name].success_status, describe_response(reply)


@pytest.mark.parametrize("name", KEY_OPERATIONS)
def test_s03_a_key_with_another_scope_is_refused(
    name: str, app: Application, tenant: Tenant, long_form: bool
) -> None:
    """All other scopes in one key; in the long form each of them in a key of its own as well."""
    request, others = tenant.request_for(name), [one for one in SCOPES if one != SCOPE_BY_OPERATION[name]]
    for scopes in [others, *([one] for one in others if long_form)]:
        reply = request.send(app, api_key_headers(app, tenant.organization, scopes))
        assert (reply.status, reply.json()["code"]) == (403, "not_enough_permissions"), (
            f"{scopes} {describe_response(reply)}"
        )


@pytest.mark.parametrize("role", KEY_OWNER_ROLES)
def test_s03_a_key_scope_has_no_effect_when_the_role_of_its_creator_lacks_it(
    role: str, app: Application, tenant: Tenant
) -> None:
    headers = api_key_headers(app, tenant.organization, SCOPES, make_account(tenant, role))
    for _, name in role_cells(role, allowed=False):
        reply = tenant.request_for(name).send(app, headers)
        expected = (403, "not_enough_permissions") if name in KEY_OPERATIONS else (401, "invalid_token")
        assert (reply.status, reply.json()["code"]) == expected, f"{name} {describe_response(reply)}"


def test_s03_a_key_that_does_not_hold_opens_nothing(app: Application, tenant: Tenant) -> None:
    """One that has expired, one whose maker is locked, and one of ours of which there is no row."""
    locked = factories.make_user(is_active=False)
    factories.make_membership(tenant.organization, locked, role="admin")
    keys = [
        api_key_headers(app, tenant.organization, SCOPES, expires_at=utc_now() - timedelta(seconds=1)),
        api_key_headers(app, tenant.organization, SCOPES, locked),
        {"authorization": f"Bearer {generate_secret(uuid4(), app.settings.secret_key)}"},
    ]
    requests = [tenant.request_for(name) for name in SECURED]
    before = snapshot_rows(app)
    for request, headers in itertools.product(requests, keys):
        reply = request.send(app, headers)
        assert (reply.status, reply.json()["code"]) == (401, "invalid_token"), (
            f"{request.operation.operation_id} {describe_response(reply)}"
        )
    assert snapshot_rows(app) == before


@pytest.mark.parametrize("name", USER_OPERATIONS)
def test_s03_a_key_is_no_credential_where_the_contract_wants_a_person(
    name: str, app: Application, tenant: Tenant
) -> None:
    reply = tenant.request_for(name).send(app, api_key_headers(app, tenant.organization, SCOPES))
    assert (reply.status, reply.json()["code"]) == (401, "invalid_token"), describe_response(reply)


def takes_organization(name: str) -> bool:
    return any(one["name"] == "organization_id" for one in OPERATIONS[name].parameters)


@pytest.mark.parametrize(
    "name", [name for name in KEY_OPERATIONS if ids_in_path(OPERATIONS[name]) or takes_organization(name)]
)
def test_s01_rows_of_other_organizations_look_like_none_to_a_key(
    name: str, app: Application, tenant: Tenant, other_tenant: Tenant
) -> None:
    """Those of the same person's other organization too."""
    request, named = tenant.request_for(name), ids_in_path(OPERATIONS[name])
    if named:
        request.query.pop("organization_id", None)
        unknown = request.replace(path={**request.path, named[0]: unknown_id()})
    else:
        unknown = request.replace(query={**request.query, "organization_id": unknown_id()})
    for elsewhere in (other_tenant.organization, tenant.sibling_organization):
        headers = api_key_headers(app, elsewhere, SCOPES)
        foreign = request.send(app, headers)
        assert foreign.status == 404, describe_response(foreign)
        assert without_request_id(foreign) == without_request_id(unknown.send(app, headers))
