"""Who acts in the tests of tenancy: a table of permissions as small as possible, and callers made from it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from db.models import Organization, User
from db.session import Database
from db.tenancy import Caller
from tests.factories import caller_of, make_membership, make_organization, make_user

READ, WRITE = "brands:read", "brands:write"
PERMISSIONS = {"owner": {READ, WRITE}, "member": {READ, WRITE}, "viewer": {READ}}


@dataclass(frozen=True)
class Cast:
    """Two organizations; the first has an owner and a viewer, the second only an owner."""

    house: Organization
    other_house: Organization
    owner: User
    owner_caller: Caller
    viewer_caller: Caller
    stranger_caller: Caller
    superuser_caller: Caller


@pytest.fixture
def cast(database: Database) -> Cast:
    owner, viewer, stranger = make_user(), make_user(), make_user()
    house, other_house = make_organization(owner), make_organization(stranger)
    make_membership(house, viewer, role="viewer")
    return Cast(
        house,
        other_house,
        owner,
        caller_of(owner, {house: "owner"}, PERMISSIONS),
        caller_of(viewer, {house: "viewer"}, PERMISSIONS),
        caller_of(stranger, {other_house: "owner"}, PERMISSIONS),
        caller_of(make_user(is_superuser=True)),
    )
