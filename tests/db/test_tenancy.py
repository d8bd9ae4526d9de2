"""Test the row filter: the rows that a caller can see, list, change and refer to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Select, select

from db.base import new_id
from db.caller import (
    Caller,
    caller_context,
    current_caller,
    current_organization,
    current_permission,
    require_permission_in,
)
from db.errors import NotFound, PermissionDenied, ScopeMismatch
from db.models import Brand, Style
from db.queries.organizations import get_organization
from db.session import Database, current_session
from db.tenancy import get_reference, get_visible, list_filter, row_filter, select_visible
from tests.db.conftest import READ, WRITE, TwoTenants
from tests.support.factories import make_brand, make_style, make_user


def select_list(model: Any, organization_id: UUID | None, include_public: bool = False) -> Select[Any]:
    """Build the query of a list as `handlers/common/list_statements.py` does."""
    scope = list_filter(organization_id, include_public)
    return select(model).where(*row_filter(model, scope.kind, scope.with_public, scope.values))


def names(query: Select[Any]) -> set[str]:
    return {row.name for row in current_session().scalars(query)}


@pytest.fixture
def brands(two_tenants: TwoTenants) -> dict[str, UUID]:
    """Return brands: a personal one of the owner, one of the organization, and two of other tenants."""
    return {
        "personal": make_brand(name="personal", owner=two_tenants.owner).id,
        "organization": make_brand(name="organization", organization=two_tenants.organization).id,
        "other_personal": make_brand(name="other_personal").id,
        "other_organization": make_brand(
            name="other_organization", organization=two_tenants.other_organization
        ).id,
    }


def test_there_is_no_caller_outside_of_a_request() -> None:
    assert current_permission() is None
    with pytest.raises(RuntimeError, match="no authenticated caller"):
        current_caller()


def test_the_caller_is_set_only_within_the_block(two_tenants: TwoTenants) -> None:
    with caller_context(two_tenants.owner_caller, READ):
        assert current_caller() is two_tenants.owner_caller
        assert current_permission() == READ
    with pytest.raises(RuntimeError):
        current_caller()


def test_the_organization_used_last_is_known_within_the_block(
    database: Database, two_tenants: TwoTenants, brands: dict[str, UUID]
) -> None:
    with database.transaction(write=False), caller_context(two_tenants.owner_caller, READ):
        assert current_organization() is None
        get_visible(Brand, brands["organization"])
        assert current_organization() == two_tenants.organization.id
        get_visible(Brand, brands["personal"])
        assert current_organization() is None
        select_list(Brand, two_tenants.organization.id)
        assert current_organization() == two_tenants.organization.id
        with pytest.raises(NotFound):
            get_visible(Brand, brands["other_organization"])
        assert current_organization() == two_tenants.organization.id
    assert current_organization() is None


def test_callers_see_their_personal_rows_and_those_of_their_organizations(
    database: Database, two_tenants: TwoTenants, brands: dict[str, UUID]
) -> None:
    with database.transaction(write=False):
        with caller_context(two_tenants.owner_caller, READ):
            assert names(select_visible(Brand)) == {"personal", "organization"}
        with caller_context(two_tenants.viewer_caller, READ):
            assert names(select_visible(Brand)) == {"organization"}
        with caller_context(two_tenants.superuser_caller, READ):
            assert names(select_visible(Brand)) == {
                "personal",
                "organization",
                "other_personal",
                "other_organization",
            }


def test_a_removed_member_loses_access_to_rows_they_created_in_the_organization(
    database: Database, two_tenants: TwoTenants, brands: dict[str, UUID]
) -> None:
    former = Caller(two_tenants.owner.id, two_tenants.owner.email)
    with database.transaction(write=False), caller_context(former, READ):
        assert names(select_visible(Brand)) == {"personal"}


def test_every_caller_sees_public_rows(database: Database, two_tenants: TwoTenants) -> None:
    make_style(name="system", owner_id=None, public=True)
    make_style(name="private", organization=two_tenants.other_organization)
    with database.transaction(write=False), caller_context(two_tenants.owner_caller, "styles:read"):
        assert names(select_visible(Style)) == {"system"}
        assert names(select_list(Style, None)) == set()
        assert names(select_list(Style, None, include_public=True)) == {"system"}
        assert names(select_list(Style, two_tenants.organization.id, include_public=True)) == {"system"}


def test_a_list_holds_the_rows_of_one_tenant(
    database: Database, two_tenants: TwoTenants, brands: dict[str, UUID]
) -> None:
    with database.transaction(write=False):
        with caller_context(two_tenants.owner_caller, READ):
            assert names(select_list(Brand, None)) == {"personal"}
            assert names(select_list(Brand, two_tenants.organization.id)) == {"organization"}
            for foreign in (two_tenants.other_organization.id, new_id()):
                with pytest.raises(NotFound):
                    select_list(Brand, foreign)
        with caller_context(two_tenants.superuser_caller, READ):
            assert names(select_list(Brand, None)) == {
                "personal",
                "organization",
                "other_personal",
                "other_organization",
            }
            assert names(select_list(Brand, two_tenants.other_organization.id)) == {"other_organization"}
            with pytest.raises(NotFound):
                select_list(Brand, new_id())


def catch_error(function: Callable[[], object]) -> tuple[type, str, str] | None:
    try:
        function()
    except (NotFound, PermissionDenied, ScopeMismatch) as error:
        return type(error), error.code, error.detail
    return None


def test_a_row_of_another_tenant_raises_the_same_error_as_an_unknown_one(
    database: Database, two_tenants: TwoTenants, brands: dict[str, UUID]
) -> None:
    with database.transaction(write=False), caller_context(two_tenants.owner_caller, WRITE):
        unknown = catch_error(lambda: get_visible(Brand, new_id()))
        assert unknown == (NotFound, "not_found", NotFound.default_detail)
        assert catch_error(lambda: get_visible(Brand, brands["other_personal"])) == unknown
        assert catch_error(lambda: get_visible(Brand, brands["other_organization"])) == unknown
        assert (
            catch_error(
                lambda: get_reference(Brand, brands["other_organization"], two_tenants.organization.id)
            )
            == unknown
        )


def test_a_visible_row_is_denied_without_the_permission(
    database: Database, two_tenants: TwoTenants, brands: dict[str, UUID]
) -> None:
    with database.transaction(write=True):
        with caller_context(two_tenants.viewer_caller, READ):
            assert get_visible(Brand, brands["organization"]).name == "organization"
        with caller_context(two_tenants.viewer_caller, WRITE), pytest.raises(PermissionDenied):
            get_visible(Brand, brands["organization"], for_update=True)
        with caller_context(two_tenants.owner_caller, WRITE):
            assert get_visible(Brand, brands["organization"], for_update=True).name == "organization"
            assert get_visible(Brand, brands["personal"], for_update=True).name == "personal"
        with caller_context(two_tenants.superuser_caller, WRITE):
            assert get_visible(Brand, brands["other_personal"], for_update=True).name == "other_personal"


def test_only_superusers_change_public_rows(database: Database, two_tenants: TwoTenants) -> None:
    style_id = make_style(name="system", owner_id=None, public=True).id
    with database.transaction(write=True):
        with caller_context(two_tenants.owner_caller, "styles:read"):
            assert get_visible(Style, style_id).name == "system"
        with caller_context(two_tenants.owner_caller, "styles:write"), pytest.raises(PermissionDenied):
            get_visible(Style, style_id)
        with caller_context(two_tenants.superuser_caller, "styles:write"):
            assert get_visible(Style, style_id).name == "system"


def test_get_visible_raises_not_found_if_where_does_not_match(
    database: Database, two_tenants: TwoTenants, brands: dict[str, UUID]
) -> None:
    with (
        database.transaction(write=False),
        caller_context(two_tenants.owner_caller, READ),
        pytest.raises(NotFound),
    ):
        get_visible(Brand, brands["personal"], where=[Brand.name == "another"])


def test_references_point_to_rows_of_the_same_tenant_or_public_rows(
    database: Database, two_tenants: TwoTenants, brands: dict[str, UUID]
) -> None:
    public_id = make_style(owner_id=None, public=True).id
    with database.transaction(write=False), caller_context(two_tenants.owner_caller, WRITE):
        assert (
            get_reference(Brand, brands["organization"], two_tenants.organization.id).name == "organization"
        )
        assert get_reference(Brand, brands["personal"], None).name == "personal"
        assert get_reference(Style, public_id, two_tenants.organization.id).public
        assert get_reference(Style, public_id, None).public
        for row_id, organization_id in (
            (brands["personal"], two_tenants.organization.id),
            (brands["organization"], None),
        ):
            with pytest.raises(ScopeMismatch):
                get_reference(Brand, row_id, organization_id)


def test_a_superuser_cannot_mix_the_personal_rows_of_two_users(
    database: Database, two_tenants: TwoTenants
) -> None:
    user = make_user()
    brand_id = make_brand(owner=user).id
    with database.transaction(write=False), caller_context(two_tenants.superuser_caller, WRITE):
        with pytest.raises(ScopeMismatch):
            get_reference(Brand, brand_id, None)
        assert get_reference(Brand, brand_id, None, owner_id=user.id).id == brand_id


def test_creating_rows_in_an_organization_requires_the_permission(
    database: Database, two_tenants: TwoTenants
) -> None:
    with database.transaction(write=True):
        with caller_context(two_tenants.owner_caller, WRITE):
            require_permission_in(None)
            require_permission_in(two_tenants.organization.id)
            with pytest.raises(NotFound):
                require_permission_in(two_tenants.other_organization.id)
        with caller_context(two_tenants.viewer_caller, WRITE), pytest.raises(PermissionDenied):
            require_permission_in(two_tenants.organization.id)
        with caller_context(two_tenants.superuser_caller, WRITE):
            require_permission_in(two_tenants.other_organization.id)
            with pytest.raises(NotFound):
                require_permission_in(new_id())


def test_members_see_their_organizations(database: Database, two_tenants: TwoTenants) -> None:
    with database.transaction(write=True):
        with caller_context(two_tenants.viewer_caller, READ):
            assert get_organization(two_tenants.organization.id).owner_id == two_tenants.owner.id
            assert get_organization(two_tenants.organization.id).members_count == 2
            with pytest.raises(NotFound):
                get_organization(two_tenants.other_organization.id)
        with caller_context(two_tenants.viewer_caller, WRITE), pytest.raises(PermissionDenied):
            get_organization(two_tenants.organization.id, for_update=True)
        with caller_context(two_tenants.superuser_caller, WRITE):
            assert (
                get_organization(two_tenants.other_organization.id, for_update=True).id
                == two_tenants.other_organization.id
            )
