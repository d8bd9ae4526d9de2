"""The tenant filter: SQL conditions that keep the rows of tenants apart, and permission checks on rows.

All tenant filtering goes through this module (multi-tenancy, row-level access control): every read of a model
that derives from `Owned` begins with `select_visible`, `get_visible`, `get_reference` or `row_filter`. A row
that the caller may not see raises `NotFound`, like a row that does not exist. PostgreSQL's row-level security
(`db/rls`) is the second layer beneath it.

This module compares permissions and does not define them. The table of permissions per role is in
`handlers/common/permissions.py`; the caller arrives with the result.
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

from sqlalchemy import ColumnElement, Select, Uuid, and_, bindparam, event, or_, select
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.orm.interfaces import ORMOption

from db.base import Archivable, Labeled, Owned
from db.errors import NotFound, PermissionDenied, ScopeMismatch
from db.guests import guest_condition
from db.models.organizations import Organization
from db.rls.session_role import APPLICATION_ROLE, SessionRole
from db.session import (
    as_system,
    current_role,
    current_session,
    is_in_savepoint,
    is_in_transaction,
    is_writing,
    switch_role,
)

OwnedModel = TypeVar("OwnedModel", bound=Owned)
LabeledModel = TypeVar("LabeledModel", bound=Labeled)

_LOCKED = "locked_rows"
"""The key in `Session.info` with the rows that `lock_rows` has locked."""
NO_PERSONAL_RESOURCES = "An API key has no personal resources: send its organization_id"


@dataclass(frozen=True)
class Guest:
    """A guest with a review link, who sees one shooting and acts in its tenant.

    Attributes:
        link_id: The review link.
        shooting_id: The shooting.
        organization_id: The organization of the shooting; None if it is personal.
        created_by_id: The user who created the link.
        name: The name that the guest gave; it is not verified.
    """

    link_id: UUID
    shooting_id: UUID
    organization_id: UUID | None
    created_by_id: UUID
    name: str


@dataclass(frozen=True)
class Caller:
    """The user, API key or guest that a request is authenticated as, with roles and permissions.

    An API key has one organization, the permissions of its creator's role there that its scopes include, and
    no personal permissions. `user_id` is then its creator. A guest has no account and no role: `user_id` is
    then the id of the review link, which equals the id of no account, and `account_id` is None.
    """

    user_id: UUID
    email: str
    is_superuser: bool = False
    roles: Mapping[UUID, str] = field(default_factory=dict)
    permissions: Mapping[UUID, frozenset[str]] = field(default_factory=dict)
    personal_permissions: frozenset[str] = frozenset()
    api_key_id: UUID | None = None
    guest: Guest | None = None

    @property
    def account_id(self) -> UUID | None:
        """The account of the user or of the API key's creator; None for a guest."""
        return None if self.guest is not None else self.user_id

    @property
    def key_organization_id(self) -> UUID | None:
        """The organization of the API key, or None if the caller is a user."""
        # The caller of an API key has exactly one role, in the key's organization.
        return None if self.api_key_id is None else next(iter(self.roles))

    def permissions_in(self, organization_id: UUID | None) -> frozenset[str]:
        """Return the permissions on rows of an organization (None: personal rows); empty for non-members."""
        if organization_id is None:
            return self.personal_permissions
        return self.permissions.get(organization_id, frozenset())

    def has_permission(self, permission: str | None, organization_id: UUID | None) -> bool:
        """Return whether the caller has a permission in an organization (None: on personal rows)."""
        return self.is_superuser or permission is None or permission in self.permissions_in(organization_id)

    def to_session_role(self) -> SessionRole:
        """Return the database role under which row-level security limits this caller."""
        if self.guest is not None:
            return SessionRole(APPLICATION_ROLE, self.user_id, shooting_id=self.guest.shooting_id)
        return SessionRole(APPLICATION_ROLE, self.user_id, tuple(self.roles), self.is_superuser)


# Context variables, so that queries know the caller without an argument in every function.
_caller: ContextVar[Caller | None] = ContextVar("caller", default=None)
_permission: ContextVar[str | None] = ContextVar("permission", default=None)
_organization: ContextVar[UUID | None] = ContextVar("organization", default=None)
_grants: ContextVar[list[UUID] | None] = ContextVar("grants", default=None)
_on_tenant_access: ContextVar[Callable[[UUID], object] | None] = ContextVar("on_tenant_access", default=None)


@contextmanager
def caller_context(
    caller: Caller, permission: str | None, on_tenant_access: Callable[[UUID], object] | None = None
) -> Iterator[Caller]:
    """Run the block as `caller`, for an operation that requires `permission`.

    The running transaction keeps the caller's database role until it ends.

    Args:
        caller: The authenticated caller.
        permission: The permission that the operation requires, or None.
        on_tenant_access: Called with the id of each organization of the caller before its rows are used. It
            may reject the request by raising an exception.
    """
    callback_token = _on_tenant_access.set(on_tenant_access)
    caller_token, permission_token = _caller.set(caller), _permission.set(permission)
    organization_token, grants_token = _organization.set(None), _grants.set([])
    try:
        # On PostgreSQL the query that finds the caller has set the role already (`db/queries/callers.py`).
        if is_in_transaction() and current_role() != caller.to_session_role():
            switch_role(caller.to_session_role())
        yield caller
    finally:
        _grants.reset(grants_token)
        _organization.reset(organization_token)
        _permission.reset(permission_token)
        _caller.reset(caller_token)
        _on_tenant_access.reset(callback_token)


def current_caller() -> Caller:
    """Return the caller of the running request.

    Raises:
        RuntimeError: There is no caller. That is a bug: the operation requires no authentication.
    """
    caller = _caller.get()
    if caller is None:
        raise RuntimeError("there is no authenticated caller")
    return caller


def find_api_key_id() -> UUID | None:
    """Return the API key of the running request, or None: for users, and for jobs, which have no caller."""
    caller = _caller.get()
    return None if caller is None else caller.api_key_id


@contextmanager
def acting_for_tenant() -> Iterator[None]:
    """Run the block under the system role if the caller is a guest.

    A guest reads and locks rows under policies that show one shooting. What follows from a decision about a
    locked row concerns the whole tenant: its webhooks, publications and audit log.
    """
    caller = _caller.get()
    if caller is None or caller.guest is None:
        yield
        return
    with as_system():
        yield


@contextmanager
def permission_context(permission: str | None) -> Iterator[None]:
    """Run the block as an operation that requires `permission`, for the items of a batch."""
    token = _permission.set(permission)
    try:
        yield
    finally:
        _permission.reset(token)


def current_permission() -> str | None:
    """Return the permission that the running operation requires, or None."""
    return _permission.get()


def current_organization() -> UUID | None:
    """Return the organization whose rows the running request used last, or None (also for personal rows).

    For logs and metrics only, not for authorization.
    """
    return _organization.get()


def _notify_access(organization_id: UUID | None) -> None:
    """Record the organization whose rows are used, and call `on_tenant_access` if the caller is a member."""
    _organization.set(organization_id)
    callback = _on_tenant_access.get()
    if callback is None or organization_id is None:
        return
    # Members and guests only: other callers must not use up the limit of an organization whose id they know.
    caller = current_caller()
    if organization_id in caller.roles or (caller.guest and caller.guest.organization_id == organization_id):
        callback(organization_id)


def record_grant(scope_id: UUID | None) -> None:
    """Record where the running operation was allowed: an organization, or the owner of personal rows."""
    grants = _grants.get()
    if grants is not None and scope_id is not None:
        grants.append(scope_id)


def first_grant() -> UUID | None:
    """Return the organization or user id where the running operation was allowed first, or None."""
    grants = _grants.get()
    return grants[0] if grants else None


def require_grant(scope_id: UUID) -> None:
    """Check that the caller still has a grant which `first_grant` returned for one of their earlier requests.

    Raises:
        NotFound: The caller is no longer a member of the organization.
        PermissionDenied: The caller's role no longer has the permission.
    """
    caller = current_caller()
    if caller.guest is not None:
        _require_guest_permission(caller)
        return
    if caller.is_superuser or (scope_id == caller.user_id and caller.api_key_id is None):
        return
    # Same errors and order as for a row: membership first, then the permission.
    if scope_id not in caller.roles:
        raise NotFound(value=scope_id)
    if not caller.has_permission(current_permission(), scope_id):
        raise PermissionDenied()


# The kind is a part of the key of cached statements, the values are not: see `_select_by_id`.
class RowFilterKind(Enum):
    """Which rows a statement selects."""

    EVERYTHING = "everything"
    ORGANIZATION = "organization"
    PERSONAL = "personal"
    READABLE = "readable"
    READABLE_BY_KEY = "readable by key"
    GUEST = "guest"


@dataclass(frozen=True)
class RowFilter:
    """Which rows a statement selects, with the values for `FILTER_PARAMETERS`."""

    kind: RowFilterKind
    values: Mapping[str, Any] = field(default_factory=dict)
    with_public: bool = False


FILTER_PARAMETERS: Mapping[str, Any] = {
    "organization_id": bindparam("organization_id", type_=Uuid()),
    "caller_id": bindparam("caller_id", type_=Uuid()),
    "caller_organizations": bindparam("caller_organizations", type_=Uuid(), expanding=True),
    "guest_shooting_id": bindparam("guest_shooting_id", type_=Uuid()),
}
"""The bind parameters of row filters, for statements that are built once and cached."""


def readable_filter() -> RowFilter:
    """Return the filter for all rows the caller may read: personal, of their organizations, and public.

    A guest reads the rows of one shooting, and no public rows.
    """
    caller = current_caller()
    if caller.guest is not None:
        return RowFilter(RowFilterKind.GUEST, {"guest_shooting_id": caller.guest.shooting_id})
    values = {"caller_id": caller.user_id, "caller_organizations": list(caller.roles)}
    return RowFilter(_readable_kind(caller), values, with_public=True)


def list_filter(organization_id: UUID | None, include_public: bool = False) -> RowFilter:
    """Return the filter of a list: one organization, or without one the caller's personal rows.

    Superusers who name no organization list the rows of all tenants. A guest lists the rows of one shooting,
    with or without its organization.

    Raises:
        NotFound: The caller is not a member of the organization.
        PermissionDenied: An API key named no organization. It has no personal rows, and an empty list would
            hide the mistake.
    """
    caller = current_caller()
    if organization_id is not None:
        require_membership(organization_id)
        if caller.guest is None:
            return RowFilter(RowFilterKind.ORGANIZATION, {"organization_id": organization_id}, include_public)
    if caller.guest is not None:
        return readable_filter()
    if caller.is_superuser:
        # No condition for public rows: they are included already.
        return RowFilter(RowFilterKind.EVERYTHING)
    if caller.api_key_id is not None:
        raise PermissionDenied(NO_PERSONAL_RESOURCES, parameter="organization_id")
    return RowFilter(RowFilterKind.PERSONAL, {"caller_id": caller.user_id}, include_public)


def row_filter(
    model: type[Owned], kind: RowFilterKind, with_public: bool, values: Mapping[str, Any] = FILTER_PARAMETERS
) -> tuple[ColumnElement[bool], ...]:
    """Return the SQL conditions for the rows of a filter; no filter includes archived rows.

    By default the conditions use `FILTER_PARAMETERS`, whose values the caller passes at execution.
    """
    match kind:
        case RowFilterKind.EVERYTHING:
            return _is_not_archived(model)
        case RowFilterKind.ORGANIZATION:
            conditions = [model.organization_id == values["organization_id"]]
        case RowFilterKind.PERSONAL:
            conditions = [_is_personal(model, values["caller_id"])]
        case RowFilterKind.READABLE:
            personal = _is_personal(model, values["caller_id"])
            conditions = [personal, model.organization_id.in_(values["caller_organizations"])]
        case RowFilterKind.READABLE_BY_KEY:
            conditions = [model.organization_id.in_(values["caller_organizations"])]
        case RowFilterKind.GUEST:
            return (guest_condition(model, values["guest_shooting_id"]), *_is_not_archived(model))
    return (or_(*conditions, *(_is_public(model) if with_public else ())), *_is_not_archived(model))


def select_visible(model: type[OwnedModel]) -> Select[OwnedModel]:
    """Select all rows the caller may read: personal, of their organizations, and public."""
    rows = readable_filter()
    return select(model).where(*row_filter(model, rows.kind, rows.with_public, rows.values))


def select_listed(model: type[OwnedModel], rows: RowFilter) -> Select[OwnedModel]:
    """Select the rows of a filter, such as that of a list."""
    return select(model).where(*row_filter(model, rows.kind, rows.with_public, rows.values))


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
    """Return one row that the caller may see, after the permission check.

    Args:
        model: The model of the row.
        row_id: The id of the row.
        for_update: Whether to lock the row, for a change.
        options: Loader options. Keep them as module constants: the statement is cached by their identity.
        where: Further conditions, such as the parent in the path.

    Raises:
        NotFound: There is no such row, or the caller may not see it.
        PermissionDenied: The caller sees the row but lacks the running operation's permission there.
    """
    rows = readable_filter()
    statement = _select_by_id(model, rows.kind, for_update, tuple(options))
    if where:
        statement = statement.where(*where)
    values = {"row_id": row_id, **rows.values}
    row = cast("OwnedModel | None", current_session().scalars(statement, values).unique().one_or_none())
    if row is None:
        # One error for absent rows and rows of other tenants: a different one would confirm the id.
        if for_update:
            _deny_if_read_only(model, row_id, where)
        raise NotFound(value=row_id)
    require_permission_on(row)
    return row


def find_by_external_id(
    model: type[LabeledModel],
    external_id: str,
    organization_id: UUID | None,
    for_update: bool = False,
    options: Sequence[ORMOption] = (),
) -> LabeledModel | None:
    """Return the row of a tenant that has an external id, after the permission check; None if there is none.

    Args:
        model: The model of the row.
        external_id: The external id.
        organization_id: The organization; None for the personal rows of the caller.
        for_update: Whether to lock the row, for a change.
        options: Loader options, constant as for `get_visible`.

    Raises:
        NotFound: The caller is not a member of the organization.
        PermissionDenied: The caller lacks the running operation's permission there.
    """
    require_permission_in(organization_id)
    values: dict[str, Any] = {"external_id": external_id}
    if (guest := current_caller().guest) is not None:
        kind, values["guest_shooting_id"] = RowFilterKind.GUEST, guest.shooting_id
    elif organization_id is None:
        kind, values["caller_id"] = RowFilterKind.PERSONAL, current_caller().user_id
    else:
        kind, values["organization_id"] = RowFilterKind.ORGANIZATION, organization_id
    statement = _select_by_external_id(model, kind, for_update, tuple(options))
    return cast("LabeledModel | None", current_session().scalars(statement, values).unique().one_or_none())


@lru_cache(maxsize=512)
def _select_by_external_id(
    model: type[Labeled], kind: RowFilterKind, for_update: bool, options: tuple[ORMOption, ...]
) -> Select[Labeled]:
    conditions = row_filter(model, kind, with_public=False)
    statement = (
        select(model).where(*conditions, model.external_id == bindparam("external_id")).options(*options)
    )
    return _lock_for_update(statement, model) if for_update else statement


def lock_rows(
    model: type[OwnedModel], condition: ColumnElement[bool], organization_id: UUID | None
) -> Sequence[OwnedModel]:
    """Return rows of a tenant, locked in the order of their ids: two requests cannot deadlock.

    Args:
        model: The model of the rows.
        condition: Which rows of the tenant.
        organization_id: The organization; None for the caller's personal rows (superusers: all rows).
    """
    rows = list_filter(organization_id)
    statement = select(model).where(condition, *row_filter(model, rows.kind, rows.with_public, rows.values))
    locked = statement.order_by(model.id).with_for_update(of=model)
    found = current_session().scalars(locked.execution_options(populate_existing=True)).all()
    if not is_in_savepoint():  # whose end could release the locks
        current_session().info.setdefault(_LOCKED, {}).update({(model, row.id): row for row in found})
    return found


def find_locked(model: type[OwnedModel], row_id: UUID) -> OwnedModel | None:
    """Return a row that `lock_rows` has locked in this transaction, after the permission check, else None.

    Its columns have the values that the session wrote, but not those that triggers and subqueries compute.

    Raises:
        PermissionDenied: The caller lacks the running operation's permission on the row.
    """
    row = cast("OwnedModel | None", current_session().info.get(_LOCKED, {}).get((model, row_id)))
    if row is not None:
        require_permission_on(row)
    return row


def _forget_locked(session: Session, transaction: SessionTransaction) -> None:
    if not transaction.nested:
        session.info.pop(_LOCKED, None)


# A rollback releases the locks.
event.listen(Session, "after_soft_rollback", _forget_locked)


@lru_cache(maxsize=512)
def _select_by_id(
    model: type[Owned], kind: RowFilterKind, for_update: bool, options: tuple[ORMOption, ...]
) -> Select[Owned]:
    """Return the statement that selects one row by its id, with bind parameters.

    It is cached because building it takes longer than PostgreSQL takes to run it.
    """
    conditions = row_filter(model, kind, with_public=True)
    statement = select(model).where(*conditions, model.id == bindparam("row_id")).options(*options)
    return _lock_for_update(statement, model) if for_update else statement


def _lock_for_update(statement: Select[Any], model: type[Owned]) -> Select[Any]:
    # `of` limits the lock to this table: PostgreSQL cannot lock the nullable side of an outer join.
    # `populate_existing` replaces values that the session read before it had the lock.
    return statement.with_for_update(of=model).execution_options(populate_existing=True)


def _deny_if_read_only(model: type[Owned], row_id: UUID, where: Sequence[ColumnElement[bool]]) -> None:
    """Raise PermissionDenied for a row that the caller may read but not change.

    With row-level security, SELECT FOR UPDATE finds only rows that the caller may update, so a public row of
    another tenant looks absent.
    """
    row = current_session().scalars(select_visible(model).where(model.id == row_id, *where)).one_or_none()
    if row is not None:
        require_permission_on(row)
        if current_caller().guest is not None:
            # Policies let a guest lock only the comments of their own review link.
            raise PermissionDenied()


def require_permission_on(row: Owned) -> None:
    """Check the running operation's permission on a row that the caller sees.

    Raises:
        PermissionDenied: The caller lacks the permission on this row.
    """
    caller, permission = current_caller(), current_permission()
    _notify_access(row.organization_id)
    if caller.is_superuser or permission is None:
        record_grant(row.organization_id or row.owner_id)
        return
    if caller.guest is not None:
        # The row is visible, so it is of the guest's shooting.
        _require_guest_permission(caller)
        record_grant(row.organization_id or row.owner_id)
        return
    # An API key has no access to personal rows, not even to those of its creator.
    if row.organization_id is None and row.owner_id == caller.user_id and caller.api_key_id is None:
        allowed = permission in caller.personal_permissions
    elif row.organization_id in caller.roles:
        allowed = caller.has_permission(permission, row.organization_id)
    else:
        # The row is visible because it is public: every caller may read it, only superusers may change it.
        allowed = permission.endswith(":read")
    if not allowed:
        raise PermissionDenied()
    record_grant(row.organization_id or row.owner_id)


def _require_guest_permission(caller: Caller) -> None:
    if current_permission() not in caller.personal_permissions:
        raise PermissionDenied()


def get_reference(
    model: type[OwnedModel], row_id: UUID, organization_id: UUID | None, owner_id: UUID | None = None
) -> OwnedModel:
    """Return the row that another row refers to, such as the brand of a product.

    Args:
        model: The model of the referenced row.
        row_id: Its id, as the client sent it.
        organization_id: The organization of the referring row, None if that is personal.
        owner_id: The owner of the referring row, by default the caller. Used for personal rows only.

    Raises:
        NotFound: The caller cannot see the row.
        ScopeMismatch: The row belongs to another tenant than the referring row and is not public.
    """
    return get_references(model, [row_id], organization_id, owner_id)[0]


def get_references(
    model: type[OwnedModel],
    row_ids: Sequence[UUID],
    organization_id: UUID | None,
    owner_id: UUID | None = None,
    lock: bool = False,
) -> list[OwnedModel]:
    """Return the rows that another row refers to, in the order of their ids. See `get_reference`.

    Args:
        lock: Whether the rows stay in their tenant until the transaction ends, as a foreign key needs that
            is written after this check. `studio.transfers` moves rows.
    """
    query, found = select_visible(model).where(model.id.in_(row_ids)), {}
    if lock and is_writing():
        # Row-level security hides rows that the caller may not change from statements that lock.
        locking = query.order_by(model.id).with_for_update(read=True, key_share=True, of=model)
        locking = locking.execution_options(populate_existing=True)
        found = {row.id: row for row in current_session().scalars(locking)}
    if not found.keys() >= set(row_ids):
        found = {row.id: row for row in current_session().scalars(query)}
    for row_id in row_ids:
        if row_id not in found:
            raise NotFound(value=row_id)
        _require_same_tenant(found[row_id], organization_id, owner_id)
    return [found[row_id] for row_id in row_ids]


def _require_same_tenant(row: Owned, organization_id: UUID | None, owner_id: UUID | None) -> None:
    # A reference across tenants would show the row to all members of the other one.
    same_tenant = row.organization_id == organization_id and (
        organization_id is not None or row.owner_id == (owner_id or current_caller().user_id)
    )
    if not same_tenant and not getattr(row, "public", False):
        raise ScopeMismatch(_explain_mismatch(row, organization_id), value=row.id)


def _explain_mismatch(row: Owned, organization_id: UUID | None) -> str:
    if row.organization_id is None:
        return "The referenced resource is personal; an organization cannot use it"
    if organization_id is None:
        return "The referenced resource belongs to an organization; personal resources cannot use it"
    return ScopeMismatch.default_detail


def extend_role_to(organization_id: UUID) -> None:
    """Let the running transaction see and write rows of an organization that the caller has just created."""
    # The role was set from the memberships at the begin of the request, which do not have the new one.
    role = current_role()
    switch_role(replace(role, organization_ids=(*role.organization_ids, organization_id)))


def authorize_creation(organization_id: UUID | None) -> UUID | None:
    """Check the permission to create a row in an organization (None: a personal row), and return its id.

    Raises:
        NotFound: The caller is not a member of the organization.
        PermissionDenied: The caller's role lacks the running operation's permission.
    """
    require_permission_in(organization_id)
    return organization_id


def require_permission_in(organization_id: UUID | None) -> None:
    """Check the running operation's permission in an organization, or on personal rows if it is None.

    Raises:
        NotFound: The caller is not a member of the organization.
        PermissionDenied: The caller's role lacks the permission.
    """
    if organization_id is not None:
        require_membership(organization_id)
    caller = current_caller()
    if caller.guest is not None:
        _require_guest_permission(caller)
        record_grant(caller.guest.organization_id or caller.guest.link_id)
        return
    if organization_id is None and caller.api_key_id is not None:
        raise PermissionDenied(NO_PERSONAL_RESOURCES, parameter="organization_id")
    if not caller.has_permission(current_permission(), organization_id):
        raise PermissionDenied()
    # The idempotency lock stores the grant, so that a replay can check it again.
    record_grant(organization_id or caller.user_id)


def require_membership(organization_id: UUID) -> None:
    """Check that the caller is a member of the organization, or a guest in it. Superusers need neither.

    Raises:
        NotFound: The caller is not a member, or the organization does not exist.
    """
    caller = current_caller()
    _notify_access(organization_id)
    # The roles were loaded with the caller, so members cost no query here.
    if organization_id in caller.roles or (caller.guest and caller.guest.organization_id == organization_id):
        return
    if not caller.is_superuser or not current_session().scalar(
        select(Organization.id).where(Organization.id == organization_id)
    ):
        raise NotFound(value=organization_id)


def _is_personal(model: type[Owned], user_id: Any) -> ColumnElement[bool]:
    return and_(model.organization_id.is_(None), model.owner_id == user_id)


def _is_not_archived(model: type[Owned]) -> tuple[ColumnElement[bool], ...]:
    return (model.archived_at.is_(None),) if issubclass(model, Archivable) else ()


def _is_public(model: Any) -> tuple[ColumnElement[bool], ...]:
    # Only some models can be public, see `Publishable`.
    return (model.public.is_(True),) if hasattr(model, "public") else ()
