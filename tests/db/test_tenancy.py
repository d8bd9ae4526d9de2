"""Whose rows are seen, listed, changed and referred to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Select, select

from db.base import new_id
from db.errors import NotFound, PermissionDenied, ScopeMismatch
from db.models import Brand, Style
from db.queries.organizations import get_organization
from db.session import Database, session
from db.tenancy import (
    Caller,
    creation_scope,
    current_caller,
    current_organization,
    current_permission,
    get_owned,
    in_scope,
    list_scope,
    owned,
    refer,
    use_caller,
)
from tests.db.conftest import READ, WRITE, Cast
from tests.factories import make_brand, make_style, make_user


def listed(model: Any, organization_id: UUID | None, include_public: bool = False) -> Select[Any]:
    """Select a list as `handlers/paging.py` does."""
    scope = list_scope(organization_id, include_public)
    return select(model).where(*in_scope(model, scope.kind, scope.with_public, scope.values))


def names(query: Select[Any]) -> set[str]:
    return {row.name for row in session().scalars(query)}


@pytest.fixture
def brands(cast: Cast) -> dict[str, UUID]:
    """A personal brand of the owner, one of the house, a stranger's personal one, one of theirs."""
    return {
        "mine": make_brand(name="mine", owner=cast.owner).id,
        "house": make_brand(name="house", organization=cast.house).id,
        "stranger": make_brand(name="stranger").id,
        "other": make_brand(name="other", organization=cast.other_house).id,
    }


def test_outside_of_a_request_nobody_is_signed_in() -> None:
    assert current_permission() is None
    with pytest.raises(RuntimeError, match="nobody is signed in"):
        current_caller()


def test_a_caller_acts_within_the_block_only(cast: Cast) -> None:
    with use_caller(cast.owner_caller, READ):
        assert current_caller() is cast.owner_caller
        assert current_permission() == READ
    with pytest.raises(RuntimeError):
        current_caller()


def test_whose_rows_were_touched_last_is_told_within_the_block(
    database: Database, cast: Cast, brands: dict[str, UUID]
) -> None:
    with database.transaction(write=False), use_caller(cast.owner_caller, READ):
        assert current_organization() is None
        get_owned(Brand, brands["house"])
        assert current_organization() == cast.house.id
        get_owned(Brand, brands["mine"])
        assert current_organization() is None
        listed(Brand, cast.house.id)
        assert current_organization() == cast.house.id
        with pytest.raises(NotFound):
            get_owned(Brand, brands["other"])
        assert current_organization() == cast.house.id
    assert current_organization() is None


def test_owned_are_personal_rows_and_those_of_ones_organizations(
    database: Database, cast: Cast, brands: dict[str, UUID]
) -> None:
    with database.transaction(write=False):
        with use_caller(cast.owner_caller, READ):
            assert names(owned(Brand)) == {"mine", "house"}
        with use_caller(cast.viewer_caller, READ):
            assert names(owned(Brand)) == {"house"}
        with use_caller(cast.superuser_caller, READ):
            assert names(owned(Brand)) == {"mine", "house", "stranger", "other"}


def test_a_row_that_its_owner_made_in_an_organization_is_gone_for_him_with_his_membership(
    database: Database, cast: Cast, brands: dict[str, UUID]
) -> None:
    former = Caller(cast.owner.id, cast.owner.email)
    with database.transaction(write=False), use_caller(former, READ):
        assert names(owned(Brand)) == {"mine"}


def test_public_rows_are_owned_by_everybody_who_reads(database: Database, cast: Cast) -> None:
    make_style(name="system", owner_id=None, public=True)
    make_style(name="private", organization=cast.other_house)
    with database.transaction(write=False), use_caller(cast.owner_caller, "styles:read"):
        assert names(owned(Style)) == {"system"}
        assert names(listed(Style, None)) == set()
        assert names(listed(Style, None, include_public=True)) == {"system"}
        assert names(listed(Style, cast.house.id, include_public=True)) == {"system"}


def test_a_list_is_of_one_scope(database: Database, cast: Cast, brands: dict[str, UUID]) -> None:
    with database.transaction(write=False):
        with use_caller(cast.owner_caller, READ):
            assert names(listed(Brand, None)) == {"mine"}
            assert names(listed(Brand, cast.house.id)) == {"house"}
            for foreign in (cast.other_house.id, new_id()):
                with pytest.raises(NotFound):
                    listed(Brand, foreign)
        with use_caller(cast.superuser_caller, READ):
            assert names(listed(Brand, None)) == {"mine", "house", "stranger", "other"}
            assert names(listed(Brand, cast.other_house.id)) == {"other"}
            with pytest.raises(NotFound):
                listed(Brand, new_id())


def refusal_of(act: Callable[[], object]) -> tuple[type, str, str] | None:
    try:
        act()
    except (NotFound, PermissionDenied, ScopeMismatch) as error:
        return type(error), error.code, error.detail
    return None


def test_a_foreign_row_is_refused_exactly_as_an_unknown_one(
    database: Database, cast: Cast, brands: dict[str, UUID]
) -> None:
    with database.transaction(write=False), use_caller(cast.owner_caller, WRITE):
        unknown = refusal_of(lambda: get_owned(Brand, new_id()))
        assert unknown == (NotFound, "not_found", "Not found")
        assert refusal_of(lambda: get_owned(Brand, brands["stranger"])) == unknown
        assert refusal_of(lambda: get_owned(Brand, brands["other"])) == unknown
        assert refusal_of(lambda: refer(Brand, brands["other"], cast.house.id)) == unknown


def test_a_visible_row_is_denied_where_the_role_does_not_reach(
    database: Database, cast: Cast, brands: dict[str, UUID]
) -> None:
    with database.transaction(write=True):
        with use_caller(cast.viewer_caller, READ):
            assert get_owned(Brand, brands["house"]).name == "house"
        with use_caller(cast.viewer_caller, WRITE), pytest.raises(PermissionDenied):
            get_owned(Brand, brands["house"], for_update=True)
        with use_caller(cast.owner_caller, WRITE):
            assert get_owned(Brand, brands["house"], for_update=True).name == "house"
            assert get_owned(Brand, brands["mine"], for_update=True).name == "mine"
        with use_caller(cast.superuser_caller, WRITE):
            assert get_owned(Brand, brands["stranger"], for_update=True).name == "stranger"


def test_public_rows_are_changed_by_superusers_alone(database: Database, cast: Cast) -> None:
    style_id = make_style(name="system", owner_id=None, public=True).id
    with database.transaction(write=True):
        with use_caller(cast.owner_caller, "styles:read"):
            assert get_owned(Style, style_id).name == "system"
        with use_caller(cast.owner_caller, "styles:write"), pytest.raises(PermissionDenied):
            get_owned(Style, style_id)
        with use_caller(cast.superuser_caller, "styles:write"):
            assert get_owned(Style, style_id).name == "system"


def test_where_ties_a_row_to_its_parent(database: Database, cast: Cast, brands: dict[str, UUID]) -> None:
    with database.transaction(write=False), use_caller(cast.owner_caller, READ), pytest.raises(NotFound):
        get_owned(Brand, brands["mine"], where=[Brand.name == "another"])


def test_references_stay_within_a_scope_or_go_to_public_rows(
    database: Database, cast: Cast, brands: dict[str, UUID]
) -> None:
    public_id = make_style(owner_id=None, public=True).id
    with database.transaction(write=False), use_caller(cast.owner_caller, WRITE):
        assert refer(Brand, brands["house"], cast.house.id).name == "house"
        assert refer(Brand, brands["mine"], None).name == "mine"
        assert refer(Style, public_id, cast.house.id).public
        assert refer(Style, public_id, None).public
        for row_id, scope in ((brands["mine"], cast.house.id), (brands["house"], None)):
            with pytest.raises(ScopeMismatch):
                refer(Brand, row_id, scope)


def test_a_superuser_cannot_mix_the_personal_rows_of_two_people(database: Database, cast: Cast) -> None:
    someone = make_user()
    brand_id = make_brand(owner=someone).id
    with database.transaction(write=False), use_caller(cast.superuser_caller, WRITE):
        with pytest.raises(ScopeMismatch):
            refer(Brand, brand_id, None)
        assert refer(Brand, brand_id, None, owner_id=someone.id).id == brand_id


def test_rows_are_made_where_the_role_allows_it(database: Database, cast: Cast) -> None:
    with database.transaction(write=True):
        with use_caller(cast.owner_caller, WRITE):
            assert creation_scope(None) is None
            assert creation_scope(cast.house.id) == cast.house.id
            with pytest.raises(NotFound):
                creation_scope(cast.other_house.id)
        with use_caller(cast.viewer_caller, WRITE), pytest.raises(PermissionDenied):
            creation_scope(cast.house.id)
        with use_caller(cast.superuser_caller, WRITE):
            assert creation_scope(cast.other_house.id) == cast.other_house.id
            with pytest.raises(NotFound):
                creation_scope(new_id())


def test_organizations_are_seen_by_their_members(database: Database, cast: Cast) -> None:
    with database.transaction(write=True):
        with use_caller(cast.viewer_caller, READ):
            assert get_organization(cast.house.id).owner_id == cast.owner.id
            assert get_organization(cast.house.id).members_count == 2
            with pytest.raises(NotFound):
                get_organization(cast.other_house.id)
        with use_caller(cast.viewer_caller, WRITE), pytest.raises(PermissionDenied):
            get_organization(cast.house.id, for_update=True)
        with use_caller(cast.superuser_caller, WRITE):
            assert get_organization(cast.other_house.id, for_update=True).id == cast.other_house.id
