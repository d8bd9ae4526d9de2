"""Who may see and touch which rows: the one spelling of tenancy.

Every read of an owned model begins here. Which role grants what is decided by
`handlers/common/permissions.py`
and handed in with the caller; this module compares, it knows no table of permissions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import lru_cache
from typing import Any, TypeVar, cast
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Uuid, and_, bindparam, or_, select
from sqlalchemy.orm.interfaces import ORMOption

from db.base import Owned
from db.errors import NotFound, PermissionDenied, ScopeMismatch
from db.models.organizations import Organization
from db.rls.session_role import APPLICATION_ROLE, SessionRole
from db.session import current_role, current_session, is_in_transaction, switch_role

OwnedModel = TypeVar("OwnedModel", bound=Owned)


@dataclass(frozen=True)
class Caller:
    """The signed-in user, the roles by organization, and what each of them grants.

    Where an API key acts for the user, that is the role in the key's organization and what the key's scopes
    leave of it, and there is nothing personal.
    """

    user_id: UUID
    email: str
    is_superuser: bool = False
    roles: Mapping[UUID, str] = field(default_factory=dict)
    permissions: Mapping[UUID, frozenset[str]] = field(default_factory=dict)
    personal_permissions: frozenset[str] = frozenset()
    api_key_id: UUID | None = None

    @property
    def key_organization_id(self) -> UUID | None:
        """The one organization that an API key acts in, None for people."""
        return None if self.api_key_id is None else next(iter(self.roles))

    def permissions_in(self, organization_id: UUID | None) -> frozenset[str]:
        """The permissions on an organization's rows, or on personal ones; empty for no member."""
        if organization_id is None:
            return self.personal_permissions
        return self.permissions.get(organization_id, frozenset())

    def has_permission(self, permission: str | None, organization_id: UUID | None) -> bool:
        """Whether the caller may do this in that scope; superusers may everything."""
        return self.is_superuser or permission is None or permission in self.permissions_in(organization_id)

    def to_session_role(self) -> SessionRole:
        """What the database is told of the caller."""
        return SessionRole(APPLICATION_ROLE, self.user_id, tuple(self.roles), self.is_superuser)


_caller: ContextVar[Caller | None] = ContextVar("caller", default=None)
_permission: ContextVar[str | None] = ContextVar("permission", default=None)
_organization: ContextVar[UUID | None] = ContextVar("organization", default=None)
_grants: ContextVar[list[UUID] | None] = ContextVar("granted", default=None)
_on_tenant_access: ContextVar[Callable[[UUID], object] | None] = ContextVar("on_organization", default=None)


@contextmanager
def caller_context(
    caller: Caller, permission: str | None, on_tenant_access: Callable[[UUID], object] | None = None
) -> Iterator[Caller]:
    """Act as `caller`, who wants to do what `permission` names, within the block.

    The running transaction is the caller's until it ends, for PostgreSQL too. `on_organization` is called
    with each organization of the caller whose rows are about to be touched, and may refuse by raising.
    """
    told_token = _on_tenant_access.set(on_tenant_access)
    caller_token, permission_token = _caller.set(caller), _permission.set(permission)
    organization_token, granted_token = _organization.set(None), _grants.set([])
    try:
        # Who was found by a statement that said so already is not named again.
        if is_in_transaction() and current_role() != caller.to_session_role():
            switch_role(caller.to_session_role())
        yield caller
    finally:
        _grants.reset(granted_token)
        _organization.reset(organization_token)
        _permission.reset(permission_token)
        _caller.reset(caller_token)
        _on_tenant_access.reset(told_token)


def current_caller() -> Caller:
    """The caller of the running request; RuntimeError when nobody is signed in: a defect of the handler."""
    caller = _caller.get()
    if caller is None:
        raise RuntimeError("nobody is signed in here")
    return caller


def current_permission() -> str | None:
    """The permission that the running operation asks for, None when it asks for none."""
    return _permission.get()


def current_organization() -> UUID | None:
    """The organization whose rows the running request touched last; None before that and for personal rows.

    For those who watch: it decides nothing.
    """
    return _organization.get()


def _notify_access(organization_id: UUID | None) -> None:
    """Remember whose rows are touched, and tell who wants to know when it is the caller's organization."""
    _organization.set(organization_id)
    tell = _on_tenant_access.get()
    if tell is not None and organization_id is not None and organization_id in current_caller().roles:
        tell(organization_id)


def record_grant(scope_id: UUID | None) -> None:
    """Remember where the running operation was allowed: an organization, or whose personal rows."""
    granted = _grants.get()
    if granted is not None and scope_id is not None:
        granted.append(scope_id)


def first_grant() -> UUID | None:
    """The organization or account where the running operation was allowed first, None before it was."""
    granted = _grants.get()
    return granted[0] if granted else None


def require_grant(scope_id: UUID) -> None:
    """Ask once more what `granted_scope` told of an earlier request of the caller.

    NotFound when the caller is no longer a member there, PermissionDenied when the role allows it no longer.
    """
    caller = current_caller()
    if caller.is_superuser or (scope_id == caller.user_id and caller.api_key_id is None):
        return
    if scope_id not in caller.roles:
        raise NotFound()
    if not caller.has_permission(current_permission(), scope_id):
        raise PermissionDenied()


class RowFilterKind(Enum):
    """Whose rows a statement is about."""

    EVERYTHING = "everything"
    ORGANIZATION = "organization"
    PERSONAL = "personal"
    READABLE = "readable"
    READABLE_BY_KEY = "readable by key"


@dataclass(frozen=True)
class RowFilter:
    """Whose rows, and the values that say so, by the names of `VALUES`."""

    kind: RowFilterKind
    values: Mapping[str, Any] = field(default_factory=dict)
    with_public: bool = False


FILTER_PARAMETERS: Mapping[str, Any] = {
    "organization_id": bindparam("organization_id", type_=Uuid()),
    "caller_id": bindparam("caller_id", type_=Uuid()),
    "caller_organizations": bindparam("caller_organizations", type_=Uuid(), expanding=True),
}
"""The values of scopes, as statements that are kept name them."""


def readable_filter() -> RowFilter:
    """All that the caller may read: personal rows, those of the caller's organizations, and public ones."""
    caller = current_caller()
    values = {"caller_id": caller.user_id, "caller_organizations": list(caller.roles)}
    return RowFilter(_readable_kind(caller), values, with_public=True)


def list_filter(organization_id: UUID | None, include_public: bool = False) -> RowFilter:
    """What a list is of: the organization if given, else the caller personally (superusers: everything).

    NotFound when the caller is no member of the organization, PermissionDenied for an API key that names
    none: an empty list would hide the mistake.
    """
    caller = current_caller()
    if organization_id is not None:
        require_membership(organization_id)
        return RowFilter(RowFilterKind.ORGANIZATION, {"organization_id": organization_id}, include_public)
    if caller.is_superuser:
        return RowFilter(RowFilterKind.EVERYTHING)
    if caller.api_key_id is not None:
        raise PermissionDenied()
    return RowFilter(RowFilterKind.PERSONAL, {"caller_id": caller.user_id}, include_public)


def row_filter(
    model: type[Owned], kind: RowFilterKind, with_public: bool, values: Mapping[str, Any] = FILTER_PARAMETERS
) -> tuple[ColumnElement[bool], ...]:
    """The condition for the rows of a scope, none for everything; by default on values named later."""
    match kind:
        case RowFilterKind.EVERYTHING:
            return ()
        case RowFilterKind.ORGANIZATION:
            scopes = [model.organization_id == values["organization_id"]]
        case RowFilterKind.PERSONAL:
            scopes = [_is_personal(model, values["caller_id"])]
        case RowFilterKind.READABLE:
            personal = _is_personal(model, values["caller_id"])
            scopes = [personal, model.organization_id.in_(values["caller_organizations"])]
        case RowFilterKind.READABLE_BY_KEY:
            scopes = [model.organization_id.in_(values["caller_organizations"])]
    return (or_(*scopes, *(_is_public(model) if with_public else ())),)


def select_visible(model: type[OwnedModel]) -> Select[OwnedModel]:
    """Select all rows the caller may read: personal, of the caller's organizations, and public ones."""
    return _select_filtered(model, readable_filter())


def _select_filtered(model: type[OwnedModel], scope: RowFilter) -> Select[OwnedModel]:
    return select(model).where(*row_filter(model, scope.kind, scope.with_public, scope.values))


def _readable_kind(caller: Caller) -> RowFilterKind:
    if caller.is_superuser:
        return RowFilterKind.EVERYTHING
    return RowFilterKind.READABLE if caller.api_key_id is None else RowFilterKind.READABLE_BY_KEY


def get_visible(
    model: type[OwnedModel],
    row_id: UUID,
    for_update: bool = False,
    options: Sequence[ORMOption] = (),
    where: Sequence[ColumnElement[bool]] = (),
) -> OwnedModel:
    """The row with this id, locked when it is about to change; `where` ties it to its parent in the path.

    NotFound when it is absent or foreign; PermissionDenied when the caller may see it but the running
    operation's permission is not granted there.
    """
    scope = readable_filter()
    statement = _select_by_id(model, scope.kind, for_update, tuple(options))
    if where:
        statement = statement.where(*where)
    values = {"row_id": row_id, **scope.values}
    row = cast("OwnedModel | None", current_session().scalars(statement, values).unique().one_or_none())
    if row is None:
        if for_update:
            _deny_if_read_only(model, row_id, where)
        raise NotFound()
    require_permission_on(row)
    return row


@lru_cache(maxsize=512)
def _select_by_id(
    model: type[Owned], kind: RowFilterKind, for_update: bool, options: tuple[ORMOption, ...]
) -> Select[Owned]:
    """Select one row by values that are named when it is run.

    Made once, because that takes longer than PostgreSQL takes to answer. Options are told apart as objects:
    keep them as constants.
    """
    conditions = row_filter(model, kind, with_public=True)
    statement = select(model).where(*conditions, model.id == bindparam("row_id")).options(*options)
    if not for_update:
        return statement
    # `of` names the one table: PostgreSQL refuses to lock the nullable side of an outer join.
    return statement.with_for_update(of=model).execution_options(populate_existing=True)


def _deny_if_read_only(model: type[Owned], row_id: UUID, where: Sequence[ColumnElement[bool]]) -> None:
    """PermissionDenied for a row that is only read: PostgreSQL locks none that the caller may not change."""
    row = current_session().scalars(select_visible(model).where(model.id == row_id, *where)).one_or_none()
    if row is not None:
        require_permission_on(row)


def require_permission_on(row: Owned) -> None:
    """PermissionDenied unless the running operation's permission is granted on this visible row."""
    caller, permission = current_caller(), current_permission()
    _notify_access(row.organization_id)
    if caller.is_superuser or permission is None:
        record_grant(row.organization_id or row.owner_id)
        return
    if row.organization_id is None and row.owner_id == caller.user_id and caller.api_key_id is None:
        allowed = permission in caller.personal_permissions
    elif row.organization_id in caller.roles:
        allowed = caller.has_permission(permission, row.organization_id)
    else:
        # Visible only because it is public: everybody reads it, superusers alone change it.
        allowed = permission.endswith(":read")
    if not allowed:
        raise PermissionDenied()
    record_grant(row.organization_id or row.owner_id)


def get_reference(
    model: type[OwnedModel], row_id: UUID, organization_id: UUID | None, owner_id: UUID | None = None
) -> OwnedModel:
    """The row that a body refers to, from a row of the given scope.

    `owner_id` is the owner of that row, the caller by default; it matters in the personal scope only.
    NotFound when the caller cannot see it; ScopeMismatch when it is of another scope and not public.
    """
    caller = current_caller()
    row = current_session().scalars(select_visible(model).where(model.id == row_id)).one_or_none()
    if row is None:
        raise NotFound()
    same_scope = row.organization_id == organization_id and (
        organization_id is not None or row.owner_id == (owner_id or caller.user_id)
    )
    if not same_scope and not getattr(row, "public", False):
        raise ScopeMismatch()
    return row


def extend_role_to(organization_id: UUID) -> None:
    """Let the running transaction see and write the rows of an organization that the caller has just made."""
    actor = current_role()
    switch_role(replace(actor, organization_ids=(*actor.organization_ids, organization_id)))


def authorize_creation(organization_id: UUID | None) -> UUID | None:
    """The organization in which a new row is to be made, None for a personal one.

    NotFound when the caller is no member of it; PermissionDenied when the role lacks the running operation's
    permission.
    """
    require_permission_in(organization_id)
    return organization_id


def require_permission_in(organization_id: UUID | None) -> None:
    """PermissionDenied unless the running operation's permission is granted in that scope, None for personal.

    NotFound when the caller is no member of it. For lists that not every role may read.
    """
    if organization_id is not None:
        require_membership(organization_id)
    if not current_caller().has_permission(current_permission(), organization_id):
        raise PermissionDenied()
    record_grant(organization_id or current_caller().user_id)


def require_membership(organization_id: UUID) -> None:
    """NotFound unless the caller is a member, or a superuser and the organization exists."""
    caller = current_caller()
    _notify_access(organization_id)
    if organization_id in caller.roles:
        return
    if not caller.is_superuser or not current_session().scalar(
        select(Organization.id).where(Organization.id == organization_id)
    ):
        raise NotFound()


def _is_personal(model: type[Owned], user_id: Any) -> ColumnElement[bool]:
    return and_(model.organization_id.is_(None), model.owner_id == user_id)


def _is_public(model: Any) -> tuple[ColumnElement[bool], ...]:
    return (model.public.is_(True),) if hasattr(model, "public") else ()
