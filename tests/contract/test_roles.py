"""Every operation enforces the permission matrix for every role.

The matrix comes from the contract (`handlers/pages/permission_matrix.py`), so a new operation is tested as
soon as it is described. The tests of S1 cover members of other organizations.
"""

from __future__ import annotations

import pytest

from db.models import User
from handlers.app import Application
from handlers.common.permissions import API_KEYS, EVERY_KEY, SUPERUSER_ONLY
from handlers.pages.permission_matrix import ROLES, build_permission_matrix
from tests.contract.conftest import FreshTenant
from tests.contract.operations import CONTRACT, OPERATIONS, Request
from tests.contract.tenant import Tenant
from tests.support import factories
from tests.support.app import auth_headers
from tests.support.auth import assert_challenge
from tests.support.client import describe_response, status_and_code
from tests.support.factories.api_keys import api_key_headers
from tests.support.failing_subtests import FailingSubtests
from tests.support.snapshots import snapshot_rows

ROWS = {row.operation_id: row for rows in build_permission_matrix(CONTRACT).values() for row in rows}
ORGANIZATION_ROLES = ("superuser", "owner", "admin", "member", "viewer")
# The owner sends the successful requests of test_declared_responses.py.
ROLES_BESIDE_OWNER = [role for role in ORGANIZATION_ROLES if role != "owner"]
SECURED = [name for name, row in ROWS.items() if row.permission]
PUBLIC = [name for name in ROWS if name not in SECURED]
TWO_HOURS = 7200


def role_cells(*roles: str, allowed: bool) -> list[tuple[str, str]]:
    """Return pairs of role and operation where the role has the permission, or lacks it."""
    return [(role, name) for name in SECURED for role in roles if (role in ROWS[name].roles) is allowed]


PERSONAL = [name for _, name in role_cells("personal", allowed=True)]


def make_account(tenant: Tenant, role: str) -> User:
    """Return the account with this role in the organization of the tenant."""
    account: User = getattr(tenant, role)
    return account


def build_request(tenant: Tenant, user: User, name: str) -> Request:
    """Return a request; operations on an account or a subscription use the account of the caller."""
    if user is not tenant.owner:
        tenant.owner = user
        if ROWS[name].permission == "subscriptions:read":
            tenant.rows["subscription"] = factories.make_subscription(user)
    return tenant.request_for(name)


def is_read(name: str) -> bool:
    """Return whether an operation changes no row, so that one tenant serves several requests."""
    return OPERATIONS[name].method == "GET"


def assert_succeeds(app: Application, tenant: Tenant, role: str, name: str) -> None:
    """Assert that the account with this role in the organization of the tenant can call the operation."""
    user = make_account(tenant, role)
    response = build_request(tenant, user, name).send(app, auth_headers(app, user))
    assert response.status == OPERATIONS[name].success_status, describe_response(response)


def test_s03_each_role_with_the_permission_can_read(
    app: Application, fresh_tenant: FreshTenant, failing_subtests: FailingSubtests
) -> None:
    for name in filter(is_read, SECURED):
        with fresh_tenant() as tenant:
            for role in ROLES_BESIDE_OWNER:
                if role in ROWS[name].roles:
                    with failing_subtests.test(f"{role} {name}"):
                        assert_succeeds(app, tenant, role, name)


@pytest.mark.parametrize("role", ROLES_BESIDE_OWNER)
def test_s03_a_role_with_the_permission_can_write(
    role: str, app: Application, fresh_tenant: FreshTenant, failing_subtests: FailingSubtests
) -> None:
    names = [name for _, name in role_cells(role, allowed=True) if not is_read(name)]
    assert names
    for name in names:
        with failing_subtests.test(name), fresh_tenant() as tenant:
            assert_succeeds(app, tenant, role, name)


def test_s03_other_roles_and_invalid_credentials_are_denied_and_change_nothing(
    app: Application, tenant: Tenant, failing_subtests: FailingSubtests
) -> None:
    credentials = {role: auth_headers(app, make_account(tenant, role)) for role in ORGANIZATION_ROLES}
    expired = auth_headers(app, tenant.superuser, age=TWO_HOURS)
    # Building a request can create rows, so the snapshot follows.
    requests = {name: tenant.request_for(name) for name in SECURED}
    before = snapshot_rows(app)
    for name, request in requests.items():
        with failing_subtests.test(name):
            # What is asked for is the key of the request, and a session has none.
            is_of_keys = ROWS[name].permission in EVERY_KEY
            denial = (404, "not_found") if is_of_keys else (403, "not_enough_permissions")
            for role in ORGANIZATION_ROLES:
                for sent in request.with_any_body() if role not in ROWS[name].roles else ():
                    response = sent.send(app, credentials[role])
                    assert status_and_code(response) == denial, f"{role} {describe_response(response)}"
                    if not is_of_keys:
                        assert response.json()["detail"] == "Not enough permissions"
            for headers, detail in (
                ({}, "Not authenticated"),
                ({"authorization": "Bearer"}, "Not authenticated"),
                ({"authorization": "Bearer none.of.ours"}, "Could not validate credentials"),
                (expired, "Could not validate credentials"),
            ):
                response = request.send(app, headers)
                assert (response.status, response.json()["detail"]) == (401, detail), describe_response(
                    response
                )
                assert_challenge(response)
        # Not in the block above: a request that is not denied must not hide what it changes.
        with failing_subtests.test(f"{name} changes nothing"):
            previous, before = before, snapshot_rows(app)
            assert before == previous


def test_s03_users_can_read_their_account_and_personal_rows(
    app: Application, personal_tenant: Tenant, failing_subtests: FailingSubtests
) -> None:
    own, headers = personal_tenant, auth_headers(app, personal_tenant.owner)
    for name in filter(is_read, PERSONAL):
        with failing_subtests.test(name):
            response = own.request_for(name).send(app, headers)
            assert response.status == OPERATIONS[name].success_status, describe_response(response)


def test_s03_users_can_write_their_account_and_personal_rows(
    app: Application, fresh_personal_tenant: FreshTenant, failing_subtests: FailingSubtests
) -> None:
    names = [name for name in PERSONAL if not is_read(name)]
    assert names
    for name in names:
        with failing_subtests.test(name), fresh_personal_tenant() as own:
            response = own.request_for(name).send(app, auth_headers(app, own.owner))
            assert response.status == OPERATIONS[name].success_status, describe_response(response)


def test_s03_a_user_without_an_organization_is_denied_operations_of_organization_roles(
    app: Application, tenant: Tenant
) -> None:
    requests = {name: tenant.request_for(name) for _, name in role_cells("personal", allowed=False)}
    headers, before = auth_headers(app, factories.make_user()), snapshot_rows(app)
    sent = [(name, each) for name, valid in requests.items() for each in valid.with_any_body()]
    for name, request in sent:
        response = request.send(app, headers)
        expected = 403 if ROWS[name].permission in SUPERUSER_ONLY else 404
        assert response.status == expected, f"{name} {describe_response(response)}"
    assert snapshot_rows(app) == before


@pytest.mark.parametrize("name", PUBLIC)
def test_s03_a_public_operation_accepts_every_caller(
    name: str, app: Application, tenant: Tenant, other_tenant: Tenant
) -> None:
    """Invalid credentials are ignored too."""
    assert ROWS[name].roles == set(ROLES)
    for headers in (
        {},
        *(auth_headers(app, make_account(tenant, role)) for role in ORGANIZATION_ROLES),
        auth_headers(app, other_tenant.owner),
        api_key_headers(app, tenant.organization, API_KEYS),
        auth_headers(app, tenant.owner, age=TWO_HOURS),
        {"authorization": "Bearer none.of.ours"},
        {"authorization": "Basic bm9ib2R5Om5vYm9keQ=="},
    ):
        response = tenant.request_for(name).send(app, headers)
        assert response.status == OPERATIONS[name].success_status, f"{headers} {describe_response(response)}"
