"""Suites over every operation with API keys: the scope of an operation is necessary and sufficient.

The scopes come from the published table of permissions (`openapi/permissions.md`).
"""

from __future__ import annotations

import itertools
from datetime import timedelta
from uuid import uuid4

import pytest

from db.base import utc_now
from handlers.app import Application
from handlers.common.permissions import EVERY_KEY
from handlers.pages.permission_matrix import ROLES
from studio.accounts.api_keys import generate_secret
from tests.contract.conftest import FreshTenant
from tests.contract.operations import CONTRACT, OPERATIONS, unknown_id
from tests.contract.tenant import Tenant
from tests.contract.test_audit_events import WRITES, list_events
from tests.contract.test_foreign_ids import ids_in_path, without_request_id
from tests.contract.test_guest_access import GUEST_OPERATIONS, OTHER_OPERATIONS
from tests.contract.test_roles import ORGANIZATION_ROLES, PUBLIC, ROWS, SECURED, make_account, role_cells
from tests.support import factories
from tests.support.client import describe_response
from tests.support.factories.api_keys import api_key_headers
from tests.support.failing_subtests import FailingSubtests
from tests.support.snapshots import snapshot_rows
from tools.permission_matrix import KEY_OWNER_ROLES, operations_by_scope

SCOPE_BY_OPERATION = {
    row.operation_id: scope for scope, rows in operations_by_scope(CONTRACT).items() for row in rows
}
SCOPES = sorted(operations_by_scope(CONTRACT))
KEY_OPERATIONS = list(SCOPE_BY_OPERATION)
OPERATIONS_OF_EVERY_KEY = [name for name in SECURED if ROWS[name].permission in EVERY_KEY]
USER_OPERATIONS = [name for name in SECURED if name not in (*KEY_OPERATIONS, *OPERATIONS_OF_EVERY_KEY)]


def test_s03_every_cell_of_the_matrix_is_tested() -> None:
    """A new column, or a scope without operations, fails this test."""
    tested = {("key", name) for name in (*KEY_OPERATIONS, *OPERATIONS_OF_EVERY_KEY, *USER_OPERATIONS)} | {
        ("anonymous", name) for name in SECURED
    }
    tested |= set(itertools.product(ROLES, PUBLIC))
    # tests/contract/test_guest_access.py
    tested |= {("guest", name) for name in (*GUEST_OPERATIONS, *OTHER_OPERATIONS)}
    for allowed in (True, False):
        tested |= set(role_cells(*ORGANIZATION_ROLES, "personal", allowed=allowed))
    assert tested == set(itertools.product(ROLES, OPERATIONS))
    assert {name for name, row in ROWS.items() if "key" in row.roles} == {
        *KEY_OPERATIONS, *OPERATIONS_OF_EVERY_KEY, *PUBLIC,
    }  # fmt: skip
    assert all(operations_by_scope(CONTRACT).values())
    assert OPERATIONS_OF_EVERY_KEY == ["get_current_api_key"]


def test_s03_the_scope_of_an_operation_is_sufficient_and_its_event_names_the_key_and_its_creator(
    app: Application, fresh_tenant: FreshTenant, failing_subtests: FailingSubtests
) -> None:
    for name, scope in SCOPE_BY_OPERATION.items():
        with failing_subtests.test(name), fresh_tenant() as tenant:
            key_id = uuid4()
            headers = api_key_headers(app, tenant.organization, [scope], id=key_id)
            response = tenant.request_for(name).send(app, headers)
            assert response.status == OPERATIONS[name].success_status, describe_response(response)
            if name in WRITES:
                (event,) = list_events(app)
                expected = (name, "succeeded", tenant.organization.id)
                assert (event.action, event.outcome, event.organization_id) == expected
                actor = (event.actor_type, event.actor_id, event.actor_email)
                assert actor == ("api_key", key_id, tenant.owner.email)


def test_s03_every_key_can_call_an_operation_that_needs_no_scope(
    app: Application, tenant: Tenant, failing_subtests: FailingSubtests
) -> None:
    viewer = make_account(tenant, "viewer")
    for name, scope in itertools.product(OPERATIONS_OF_EVERY_KEY, SCOPES):
        with failing_subtests.test(f"{name} {scope}"):
            # The scopes that the role of its creator lacks have no effect, so such a key has nothing else.
            headers = api_key_headers(app, tenant.organization, [scope], viewer)
            response = tenant.request_for(name).send(app, headers)
            assert response.status == OPERATIONS[name].success_status, describe_response(response)


# Rejected requests change nothing, so those of a test share the rows of a tenant.


def test_s03_a_key_without_the_scope_is_denied(
    app: Application, fresh_tenant: FreshTenant, long_form: bool, failing_subtests: FailingSubtests
) -> None:
    """Test a key with all other scopes; in the long form also one key per other scope."""
    for name in KEY_OPERATIONS:
        # Thousands of requests in one transaction would exceed the locks that PostgreSQL can store.
        with failing_subtests.test(name), fresh_tenant() as tenant:
            request = tenant.request_for(name)
            others = [scope for scope in SCOPES if scope != SCOPE_BY_OPERATION[name]]
            for scopes in [others, *([scope] for scope in others if long_form)]:
                headers = api_key_headers(app, tenant.organization, scopes)
                for response in [each.send(app, headers) for each in request.with_any_body()]:
                    assert (response.status, response.json()["code"]) == (403, "not_enough_permissions"), (
                        f"{scopes} {describe_response(response)}"
                    )


@pytest.mark.parametrize("role", KEY_OWNER_ROLES)
def test_s03_a_key_scope_has_no_effect_when_the_role_of_its_creator_lacks_it(
    role: str, app: Application, tenant: Tenant
) -> None:
    headers = api_key_headers(app, tenant.organization, SCOPES, make_account(tenant, role))
    denied = [name for _, name in role_cells(role, allowed=False) if name not in OPERATIONS_OF_EVERY_KEY]
    for name in denied:
        response = tenant.request_for(name).send(app, headers)
        expected = (403, "not_enough_permissions" if name in KEY_OPERATIONS else "api_key_not_allowed")
        assert (response.status, response.json()["code"]) == expected, f"{name} {describe_response(response)}"


def test_s03_an_invalid_key_is_401_for_every_operation(app: Application, tenant: Tenant) -> None:
    """The keys are expired, of an inactive user, and well-formed but without a row."""
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
        response = request.send(app, headers)
        assert (response.status, response.json()["code"]) == (401, "invalid_token"), (
            f"{request.operation.operation_id} {describe_response(response)}"
        )
    assert snapshot_rows(app) == before


def test_s51_a_key_is_403_where_the_contract_requires_a_user(
    app: Application, tenant: Tenant, failing_subtests: FailingSubtests
) -> None:
    headers = api_key_headers(app, tenant.organization, SCOPES)
    for name in USER_OPERATIONS:
        with failing_subtests.test(name):
            response = tenant.request_for(name).send(app, headers)
            assert (response.status, response.json()["code"]) == (403, "api_key_not_allowed"), (
                describe_response(response)
            )


def takes_organization(name: str) -> bool:
    return any(parameter["name"] == "organization_id" for parameter in OPERATIONS[name].parameters)


def test_s01_rows_of_other_organizations_look_absent_to_a_key(
    app: Application, tenant: Tenant, other_tenant: Tenant, failing_subtests: FailingSubtests
) -> None:
    """This includes rows of the key creator's other organizations."""
    organizations = (other_tenant.organization, tenant.sibling_organization)
    keys = [api_key_headers(app, organization, SCOPES) for organization in organizations]
    for name in KEY_OPERATIONS:
        path_ids = ids_in_path(OPERATIONS[name])
        if not path_ids and not takes_organization(name):
            continue
        with failing_subtests.test(name):
            request = tenant.request_for(name)
            if path_ids:
                request.query.pop("organization_id", None)
                unknown = request.replace(path={**request.path, path_ids[0]: unknown_id()})
            else:
                unknown = request.replace(query={**request.query, "organization_id": unknown_id()})
            for headers in keys:
                foreign = request.send(app, headers)
                assert foreign.status == 404, describe_response(foreign)
                assert without_request_id(foreign) == without_request_id(unknown.send(app, headers))
