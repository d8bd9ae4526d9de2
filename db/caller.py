"""The caller of a request: who it is, its roles and permissions, and the checks of them.

The caller and the permission that the running operation requires are context variables, so that queries
(`db/tenancy.py`) know both without an argument in every function.

This module compares permissions and does not define them. The table of permissions per role is in
`studio/accounts/permissions.py`; the caller arrives with the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn
from uuid import UUID

from sqlalchemy import Select, select

from db.base import Owned
from db.errors import NotFound, PermissionDenied
from db.models.organizations import Organization
from db.rls.session_role import APPLICATION_ROLE, SessionRole
from db.session import as_system, current_role, current_session, is_in_transaction, switch_role

NO_PERSONAL_RESOURCES = "An API key has no personal resources: send its organization_id"
NONE_IN_PROVIDER_SESSION = (
    "A session of an identity provider has no personal resources: send its organization_id"
)


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
    then the id of the review link, which equals the id of no account, and `account_id` is None. Only users
    have a session.

    A session from an identity provider has a `provider_organization_id`: it acts in that organization only,
    has no personal permissions, and is never that of a superuser.

    `withheld` are organizations of the user in which the session may not act, with the error that says why.
    Their rows are found, so that the response can say it.
    """

    user_id: UUID
    email: str
    is_superuser: bool = False
    roles: Mapping[UUID, str] = field(default_factory=dict)
    permissions: Mapping[UUID, frozenset[str]] = field(default_factory=dict)
    personal_permissions: frozenset[str] = frozenset()
    api_key_id: UUID | None = None
    session_id: UUID | None = None
    guest: Guest | None = None
    full_name: str | None = None
    provider_organization_id: UUID | None = None
    withheld: Mapping[UUID, type[PermissionDenied]] = field(default_factory=dict)

    @property
    def has_personal_resources(self) -> bool:
        """Whether the caller acts for personal rows too: not as an API key, nor in a provider's session."""
        return self.api_key_id is None and self.provider_organization_id is None

    @property
    def name(self) -> str:
        """The name that others see: that of the account or of the API key's creator, or the guest's."""
        if self.guest is not None:
            return self.guest.name
        return self.full_name or self.email.partition("@")[0]

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

    def has_permission_anywhere(self, permission: str | None) -> bool:
        """Return whether the caller has a permission in an organization or on personal rows."""
        return any(self.has_permission(permission, scope_id) for scope_id in (None, *self.permissions))

    def to_session_role(self) -> SessionRole:
        """Return the database role under which row-level security limits this caller."""
        if self.guest is not None:
            return SessionRole(APPLICATION_ROLE, self.user_id, shooting_id=self.guest.shooting_id)
        organizations = (*self.roles, *self.withheld)
        return SessionRole(APPLICATION_ROLE, self.user_id, organizations, self.is_superuser)


@dataclass
class _Access:
    """What the running operation accessed. One object for all threads that work on the request."""

    organization_id: UUID | None = None
    grants: list[UUID] = field(default_factory=list)


# Context variables, so that queries know the caller without an argument in every function.
_caller: ContextVar[Caller | None] = ContextVar("caller", default=None)
_permission: ContextVar[str | None] = ContextVar("permission", default=None)
_access: ContextVar[_Access | None] = ContextVar("access", default=None)


@contextmanager
def caller_context(caller: Caller, permission: str | None) -> Iterator[Caller]:
    """Run the block as `caller`, for an operation that requires `permission`.

    The running transaction keeps the caller's database role until it ends.

    Args:
        caller: The authenticated caller.
        permission: The permission that the operation requires, or None.
    """
    caller_token, permission_token = _caller.set(caller), _permission.set(permission)
    access_token = _access.set(_Access())
    try:
        # For an account, the query that finds it has set the role already (`db/queries/callers.py`).
        if is_in_transaction() and current_role() != caller.to_session_role():
            switch_role(caller.to_session_role())
        yield caller
    finally:
        _access.reset(access_token)
        _permission.reset(permission_token)
        _caller.reset(caller_token)


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

    For logs, metrics and rate limits only, not for authorization.
    """
    access = _access.get()
    return None if access is None else access.organization_id


def record_grant(scope_id: UUID | None) -> None:
    """Record where the running operation was allowed: an organization, or the owner of personal rows."""
    access = _access.get()
    if access is not None and scope_id is not None:
        access.grants.append(scope_id)


def first_grant() -> UUID | None:
    """Return the organization or user id where the running operation was allowed first, or None."""
    access = _access.get()
    return access.grants[0] if access and access.grants else None


def require_grant(scope_id: UUID) -> None:
    """Check that the caller still has a grant which `first_grant` returned for one of their earlier requests.

    Raises:
        NotFound: The caller is no longer a member of the organization.
        PermissionDenied: The caller's role no longer has the permission, or the organization requires a
            second factor.
    """
    caller = current_caller()
    if caller.guest is not None:
        _require_guest_permission(caller)
        return
    _require_usable(scope_id)
    if caller.is_superuser or (scope_id == caller.user_id and caller.has_personal_resources):
        return
    # Same errors and order as for a row: membership first, then the permission.
    if scope_id not in caller.roles:
        raise NotFound(value=scope_id)
    if not caller.has_permission(current_permission(), scope_id):
        raise PermissionDenied()


def _require_usable(organization_id: UUID | None) -> None:
    """Check that the session may act in the organization, if the caller is a member.

    Raises:
        PermissionDenied: The organization is withheld from the caller. A superuser who is a member may act in
            a suspended organization, but needs its second factor.
    """
    error = current_caller().withheld.get(organization_id) if organization_id else None
    if error is not None:
        raise error()


def _record_organization(organization_id: UUID | None) -> None:
    access = _access.get()
    if access is not None:
        access.organization_id = organization_id


def require_membership(organization_id: UUID) -> None:
    """Check that the caller is a member of the organization, or a guest in it. Superusers need neither.

    Raises:
        NotFound: The caller is not a member, or the organization does not exist.
        SecondFactorEnrollmentRequired: The organization requires a second factor, which the caller lacks.
    """
    existing = select_if_unknown(organization_id)
    if existing is not None and not current_session().scalar(existing):
        raise NotFound(value=organization_id)


def select_if_unknown(organization_id: UUID) -> Select[Any] | None:
    """Return a query that finds the organization of a superuser's request; None for members and guests in it.

    Raises:
        NotFound: The caller is not a member.
        PermissionDenied: The organization is withheld from the caller.
    """
    caller = current_caller()
    _record_organization(organization_id)
    _require_usable(organization_id)
    # The roles were loaded with the caller, so members cost no query here.
    if organization_id in caller.roles or (caller.guest and caller.guest.organization_id == organization_id):
        return None
    if not caller.is_superuser:
        raise NotFound(value=organization_id)
    return select(Organization.id).where(Organization.id == organization_id)


def require_permission_in(organization_id: UUID | None) -> None:
    """Check the running operation's permission in an organization, or on personal rows if it is None.

    Raises:
        NotFound: The caller is not a member of the organization.
        PermissionDenied: The caller's role lacks the permission.
    """
    if organization_id is not None:
        require_membership(organization_id)
    require_permission_of_member(organization_id)


def require_permission_of_member(organization_id: UUID | None) -> None:
    """Check the running operation's permission, as `require_permission_in`, without the membership.

    Raises:
        PermissionDenied: The caller's role lacks the permission.
    """
    caller = current_caller()
    if caller.guest is not None:
        _require_guest_permission(caller)
        record_grant(caller.guest.organization_id or caller.guest.link_id)
        return
    if organization_id is None and not caller.has_personal_resources:
        deny_personal_resources(caller)
    if not caller.has_permission(current_permission(), organization_id):
        raise PermissionDenied()
    # The idempotency lock stores the grant, so that a replay can check it again.
    record_grant(organization_id or caller.user_id)


def deny_personal_resources(caller: Caller) -> NoReturn:
    """Reject a request without an organization by a caller without personal resources.

    Raises:
        PermissionDenied: Always; the detail says what to send.
    """
    detail = NO_PERSONAL_RESOURCES if caller.api_key_id is not None else NONE_IN_PROVIDER_SESSION
    raise PermissionDenied(detail, parameter="organization_id")


def require_permission_on(row: Owned) -> None:
    """Check the running operation's permission on a row that the caller sees.

    Raises:
        PermissionDenied: The caller lacks the permission on this row.
    """
    require_permission_for(row.organization_id, row.owner_id)


def require_permission_for(organization_id: UUID | None, owner_id: UUID | None) -> None:
    """Check the running operation's permission on a row of this tenant that the caller sees.

    Raises:
        PermissionDenied: The caller lacks the permission on the row.
    """
    caller, permission = current_caller(), current_permission()
    _record_organization(organization_id)
    _require_usable(organization_id)
    if caller.is_superuser or permission is None:
        record_grant(organization_id or owner_id)
        return
    if caller.guest is not None:
        # The row is visible, so it is of the guest's shooting.
        _require_guest_permission(caller)
        record_grant(organization_id or owner_id)
        return
    # An API key has no access to personal rows, not even to those of its creator.
    if organization_id is None and owner_id == caller.user_id and caller.has_personal_resources:
        allowed = permission in caller.personal_permissions
    elif organization_id in caller.roles:
        allowed = caller.has_permission(permission, organization_id)
    else:
        # The row is visible because it is public: every caller may read it, only superusers may change it.
        allowed = permission.endswith(":read")
    if not allowed:
        raise PermissionDenied()
    record_grant(organization_id or owner_id)


def _require_guest_permission(caller: Caller) -> None:
    if current_permission() not in caller.personal_permissions:
        raise PermissionDenied()


def extend_role_to(organization_id: UUID) -> None:
    """Let the running transaction see and write rows of an organization that the caller has just created."""
    # The role was set from the memberships at the begin of the request, which do not have the new one.
    role = current_role()
    switch_role(replace(role, organization_ids=(*role.organization_ids, organization_id)))
