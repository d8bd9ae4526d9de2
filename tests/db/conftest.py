"""Fixtures of the tenancy tests: two organizations, and callers with a small set of permissions."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from db.caller import Caller
from db.models import Organization, User
from db.session import Database
from tests.support.factories import build_caller, make_membership, make_organization, make_user

READ, WRITE = "brands:read", "brands:write"
PERMISSIONS = {"owner": {READ, WRITE}, "member": {READ, WRITE}, "viewer": {READ}}


@dataclass(frozen=True)
class TwoTenants:
    """Two organizations; the first has an owner and a viewer, the second only an owner."""

    organization: Organization
    other_organization: Organization
    owner: User
    owner_caller: Caller
    viewer_caller: Caller
    stranger_caller: Caller
    superuser_caller: Caller


@pytest.fixture
def two_tenants(database: Database) -> TwoTenants:
    """Return two organizations and one caller of each kind."""
    owner, viewer, stranger = make_user(), make_user(), make_user()
    organization, other_organization = make_organization(owner), make_organization(stranger)
    make_membership(organization, viewer, role="viewer")
    return TwoTenants(
        organization,
        other_organization,
        owner,
        build_caller(owner, {organization: "owner"}, PERMISSIONS),
        build_caller(viewer, {organization: "viewer"}, PERMISSIONS),
        build_caller(stranger, {other_organization: "owner"}, PERMISSIONS),
        build_caller(make_user(is_superuser=True)),
    )
