"""The tenant filter: SQL conditions that keep the rows of tenants apart.

All tenant filtering goes through this module (multi-tenancy, row-level access control): every read of a model
that derives from `Owned` begins with `select_visible`, `get_visible`, `get_reference` or `row_filter`. A row
that the caller may not see raises `NotFound`, like a row that does not exist. PostgreSQL's row-level security
(`db/rls`) is the second layer beneath it.

Whose rows, and the permission checks on rows that were found, come from `db/caller.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, TypeVar, cast
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BindParameter,
    ColumnElement,
    Select,
    Uuid,
    and_,
    any_,
    bindparam,
    event,
    literal,
    or_,
    select,
)
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.orm.interfaces import ORMOption

from db.base import Archivable, Labeled, Owned
from db.caller import (
    Caller,
    current_caller,
    deny_personal_resources,
    require_membership,
    require_permission_in,
    require_permission_on,
)
from db.errors import NotFound, PermissionDenied, ScopeMismatch, SecondFactorEnrollmentRequired
from db.event_loop_session import EventLoopSession
from db.fast_path.entities import EntityLoader
from db.guests import guest_condition
from db.libpq.statements import Query
from db.session import current_session, find_event_loop_session, is_in_savepoint, is_writing

OwnedModel = TypeVar("OwnedModel", bound=Owned)
LabeledModel = TypeVar("LabeledModel", bound=Labeled)
_LOCKED = "locked_rows"
"""The key in `Session.info` with the rows that `lock_rows` has locked."""


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
    "caller_organizations": bindparam("caller_organizations", type_=ARRAY(Uuid())),
    "guest_shooting_id": bindparam("guest_shooting_id", type_=Uuid()),
}
"""The bind parameters of row filters, for statements that are built once and cached."""


def readable_filter(with_withheld: bool = False) -> RowFilter:
    """Return the filter for all rows the caller may read: personal, of their organizations, and public.

    A guest reads the rows of one shooting, and no public rows. With `with_withheld`, rows of organizations
    that require a second factor are included: the permission check, which must follow, rejects them with the
    reason.
    """
    caller = current_caller()
    if caller.guest is not None:
        return RowFilter(RowFilterKind.GUEST, {"guest_shooting_id": caller.guest.shooting_id})
    organizations = [*caller.roles, *(caller.withheld if with_withheld else ())]
    values = {"caller_id": caller.user_id, "caller_organizations": organizations}
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
    if organization_id is not None:
        require_membership(organization_id)
    return list_filter_of_member(organization_id, include_public)


def list_filter_of_member(organization_id: UUID | None, include_public: bool = False) -> RowFilter:
    """Return the filter of a list, as `list_filter`, without the check of the membership.

    Raises:
        PermissionDenied: An API key named no organization.
        SecondFactorEnrollmentRequired: A superuser named no organization, and is a member of one that
            requires a second factor, which they do not have.
    """
    caller = current_caller()
    if caller.guest is not None:
        return readable_filter()
    if organization_id is not None:
        return RowFilter(RowFilterKind.ORGANIZATION, {"organization_id": organization_id}, include_public)
    if caller.is_superuser:
        if caller.withheld:
            # The list has the rows of these organizations, too.
            raise SecondFactorEnrollmentRequired()
        # No condition for public rows: they are included already.
        return RowFilter(RowFilterKind.EVERYTHING)
    if not caller.has_personal_resources:
        deny_personal_resources(caller)
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
            conditions = [personal, _is_one_of(model.organization_id, values["caller_organizations"])]
        case RowFilterKind.READABLE_BY_KEY:
            conditions = [_is_one_of(model.organization_id, values["caller_organizations"])]
        case RowFilterKind.GUEST:
            return (guest_condition(model, values["guest_shooting_id"]), *_is_not_archived(model))
    return (or_(*conditions, *(_is_public(model) if with_public else ())), *_is_not_archived(model))


def select_visible(model: type[OwnedModel]) -> Select[OwnedModel]:
    """Select all rows the caller may read: personal, of their organizations, and public."""
    rows = readable_filter()
    return select(model).where(*row_filter(model, rows.kind, rows.with_public, rows.values))


def visible_rows_query(model: type[Owned], row_ids: Sequence[UUID]) -> Query:
    """Return the query of those rows that the caller may read, without the check of a permission.

    Its statement is the same object for all ids.
    """
    rows = readable_filter()
    return Query(_select_by_ids(model, rows.kind), {"row_ids": row_ids, **rows.values})


@lru_cache(maxsize=512)
def _select_by_ids(model: type[Owned], kind: RowFilterKind) -> Select[Owned]:
    wanted = model.id == any_(bindparam("row_ids", type_=ARRAY(Uuid())))
    return select(model).where(*row_filter(model, kind, with_public=True), wanted)


def _readable_kind(caller: Caller) -> RowFilterKind:
    if caller.is_superuser:
        return RowFilterKind.EVERYTHING
    return RowFilterKind.READABLE if caller.has_personal_resources else RowFilterKind.READABLE_BY_KEY


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
    rows = readable_filter(with_withheld=True)
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


def load_visible(
    session: EventLoopSession, model: type[OwnedModel], row_id: UUID, loader: EntityLoader
) -> OwnedModel:
    """Return one row locked for a change on the event loop, with what its loader loads, as `get_visible`.

    Raises:
        SessionNeeded: There is no such row, or the caller may not change it.
        PermissionDenied: The caller sees the row but lacks the running operation's permission there.
    """
    rows = readable_filter(with_withheld=True)
    statement = _select_for_loader(model, rows.kind, loader)
    row = cast("OwnedModel", session.load_locked(statement, loader, {"row_id": row_id, **rows.values}))
    require_permission_on(row)
    return row


@lru_cache(maxsize=256)
def _select_for_loader(model: type[Owned], kind: RowFilterKind, loader: EntityLoader) -> Select[Any]:
    return loader.apply(_select_by_id(model, kind, True, ()))


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
    query = external_id_query(model, external_id, organization_id, for_update, options)
    return cast("LabeledModel | None", current_session().scalars(*query).unique().one_or_none())


def external_id_query(
    model: type[Labeled],
    external_id: str,
    organization_id: UUID | None,
    for_update: bool = False,
    options: Sequence[ORMOption] = (),
) -> Query:
    """Return the query of the row that `find_by_external_id` finds, for a caller with the permission.

    Its statement is the same object for each external id.
    """
    values: dict[str, Any] = {"external_id": external_id}
    if (guest := current_caller().guest) is not None:
        kind, values["guest_shooting_id"] = RowFilterKind.GUEST, guest.shooting_id
    elif organization_id is None:
        kind, values["caller_id"] = RowFilterKind.PERSONAL, current_caller().user_id
    else:
        kind, values["organization_id"] = RowFilterKind.ORGANIZATION, organization_id
    return Query(_select_by_external_id(model, kind, for_update, tuple(options)), values)


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


@lru_cache(maxsize=512)
def select_row(model: type[Owned], kind: RowFilterKind, names: tuple[str, ...]) -> Select[Owned]:
    """Return the statement that selects one row by its id, and by columns with these names.

    Its bind parameters are `row_id`, the names, and those of `readable_filter`.
    """
    conditions = [getattr(model, name) == bindparam(name) for name in names]
    return _select_by_id(model, kind, False, ()).where(*conditions)


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
            is written after this check. `studio.products.transfers` moves rows.
    """
    if (session := find_event_loop_session()) is not None:
        return _read_references(session, model, row_ids, organization_id, owner_id)
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


def _read_references(
    session: EventLoopSession,
    model: type[OwnedModel],
    row_ids: Sequence[UUID],
    organization_id: UUID | None,
    owner_id: UUID | None,
) -> list[OwnedModel]:
    """Return the rows of `get_references` on the event loop, locked, with few columns."""
    rows = readable_filter()
    values = {**rows.values, "row_ids": list(row_ids)}
    found = {row[0]: row for row in session.run_one(_select_references(model, rows.kind), values).rows}
    names = _reference_columns(model)
    references = [SimpleNamespace(**dict(zip(names, found[row_id], strict=True))) for row_id in row_ids]
    for row in references:
        _require_same_tenant(cast("Owned", row), organization_id, owner_id)
    return cast("list[OwnedModel]", references)


def _reference_columns(model: type[Owned]) -> list[str]:
    return ["id", "organization_id", "owner_id", *(["public"] if hasattr(model, "public") else [])]


@lru_cache(maxsize=256)
def _select_references(model: type[Owned], kind: RowFilterKind) -> Select[Any]:
    columns = [getattr(model, name) for name in _reference_columns(model)]
    found = _select_by_ids(model, kind).with_only_columns(*columns, maintain_column_froms=True)
    return found.order_by(model.id).with_for_update(read=True, key_share=True, of=model)


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


def _is_one_of(column: Any, ids: Any) -> ColumnElement[bool]:
    array = ids if isinstance(ids, BindParameter) else literal(ids, ARRAY(Uuid()))
    condition: ColumnElement[bool] = column == any_(array)
    return condition


def _is_personal(model: type[Owned], user_id: Any) -> ColumnElement[bool]:
    return and_(model.organization_id.is_(None), model.owner_id == user_id)


def _is_not_archived(model: type[Owned]) -> tuple[ColumnElement[bool], ...]:
    return (model.archived_at.is_(None),) if issubclass(model, Archivable) else ()


def _is_public(model: Any) -> tuple[ColumnElement[bool], ...]:
    # Only some models can be public, see `Publishable`.
    return (model.public.is_(True),) if hasattr(model, "public") else ()
