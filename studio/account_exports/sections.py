"""What a copy of a user's data contains: one section per table, read in pages.

A section has the columns of its table under their names, without secrets and what only workers need. Tables
with an owner are found in the schema, so a new one is included by itself. Knows no file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from typing import cast as cast_type
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, Select, Table, and_, cast, func, or_, select, tuple_

from db.base import Base
from db.models import (
    AccountDeletion,
    AccountExport,
    ApiKey,
    AuditEvent,
    CreditMovement,
    EmailChange,
    Invitation,
    Membership,
    Organization,
    PredictionComment,
    PredictionShare,
    ReviewLink,
    SecondFactor,
    Subscription,
    TokenFamily,
    UsageDimension,
    UsageRecord,
    User,
    UserIdentity,
)
from db.models.usage import NO_KEY
from db.queries.users import list_owned_tables
from db.session import Database

PAGE_ROWS = 500
OMITTED_COLUMNS = frozenset(
    {
        # Secrets and what they are derived from.
        *("hashed_password", "token_hash", "secret_hash", "secret_salt", "previous_secret_salt"),
        *("credentials", "credentials_key"),
        *("secret", "secret_key", "code_hashes", "last_step", "credential_id", "public_key", "sign_count"),
        # Another form of another column.
        "email_key",
        # For workers.
        *(
            "lease_owner",
            "lease_expires_at",
            "leased_at",
            "claimed_by",
            "busy_until",
            "served_at",
            "priority",
        ),
        *("remote_failures", "remote_steps", "remote_task_id", "revision", "trace_context"),
        "source_hash",
        # Tells whether the name of a reviewer belongs to the last decision.
        "reviewer_named_at",
    }
)
IMAGES = "media_resources"
"""The section of the stored images."""
# Links between two resources, with the table and the column of the one that owns them.
_LINKS = {
    "look_shot_types": ("looks", "look_id"),
    "look_products": ("looks", "look_id"),
    "look_guidelines": ("looks", "look_id"),
    "guidelines_shot_types": ("guidelines", "guidelines_id"),
    "guidelines_subjects": ("guidelines", "guidelines_id"),
}


@dataclass(frozen=True)
class Section:
    """The rows of one file."""

    name: str
    query: Select[Any]
    """Selects columns of plain values."""
    key: tuple[str, ...]
    """The columns that order the rows and make each unique."""


def list_sections(user_id: UUID) -> list[Section]:
    """Return all sections of a user's data."""
    return [
        *_list_account_sections(user_id),
        *(_section(table, _is_personal(table, user_id)) for table in _list_personal_tables()),
        *(_list_links(user_id)),
    ]


def count_rows(database: Database, section: Section) -> int:
    """Return the number of rows of a section."""
    with database.transaction(write=False) as session:
        return session.scalar(select(func.count()).select_from(section.query.subquery())) or 0


def read_pages(database: Database, section: Section) -> Iterator[Sequence[dict[str, Any]]]:
    """Yield the rows of a section in pages of `PAGE_ROWS`, each read in a short transaction of its own."""
    rows = section.query.subquery()
    key = tuple_(*(rows.c[name] for name in section.key))
    page_query = select(rows).order_by(*(rows.c[name] for name in section.key)).limit(PAGE_ROWS)
    last: tuple[Any, ...] | None = None
    while True:
        query = page_query if last is None else page_query.where(key > last)
        with database.transaction(write=False) as session:
            page = [dict(row) for row in session.execute(query).mappings()]
        if page:
            yield page
            last = tuple(page[-1][name] for name in section.key)
        if len(page) < PAGE_ROWS:
            return


def _list_account_sections(user_id: UUID) -> list[Section]:
    """Return the sections of the account itself, and of what the user did in organizations."""
    users, subscriptions, events = _table(User), _table(Subscription), _table(AuditEvent)
    my_email = select(users.c.email_key).where(users.c.id == user_id).scalar_subquery()
    my_subscriptions = select(subscriptions.c.id).where(subscriptions.c.user_id == user_id)
    return [
        _section(users, users.c.id == user_id),
        _memberships(user_id),
        *(
            _section(_table(model), _table(model).c[column] == user_id)
            for model, column in (
                (TokenFamily, "user_id"),
                (SecondFactor, "user_id"),
                (ApiKey, "created_by_id"),
                (PredictionShare, "created_by_id"),
                (ReviewLink, "created_by_id"),
                (Subscription, "user_id"),
                (EmailChange, "user_id"),
                (UserIdentity, "user_id"),
                (AccountDeletion, "user_id"),
                (AccountExport, "user_id"),
            )
        ),
        _section(_table(CreditMovement), _table(CreditMovement).c.subscription_id.in_(my_subscriptions)),
        # Without the id of another person.
        _section(_table(Invitation), _table(Invitation).c.email_key == my_email, "invited_by_id"),
        _comments(user_id),
        _section(events, events.c.account_id == user_id),
        _events_in_organizations(user_id),
        _usage(user_id),
    ]


def _memberships(user_id: UUID) -> Section:
    memberships, organizations = _table(Membership), _table(Organization)
    query = select(*_columns(memberships), organizations.c.name.label("organization_name"))
    query = query.join(organizations, organizations.c.id == memberships.c.organization_id)
    return Section("memberships", query.where(memberships.c.user_id == user_id), ("created_at", "id"))


def _comments(user_id: UUID) -> Section:
    """Return what the user wrote anywhere, and the comments on the user's personal predictions."""
    comments = _table(PredictionComment)
    mine = or_(comments.c.author_id == user_id, _is_personal(comments, user_id))
    # The owner of a prediction of an organization is another person.
    return _section(comments, mine, "owner_id")


def _events_in_organizations(user_id: UUID) -> Section:
    """Return the user's events in the organizations that they belong to.

    Without the changed values, which are data of the organization.
    """
    events, memberships = _table(AuditEvent), _table(Membership)
    joined = select(memberships.c.organization_id).where(memberships.c.user_id == user_id)
    query = select(*_columns(events, "changes"))
    query = query.where(events.c.organization_id.in_(joined), events.c.actor_id == user_id)
    return Section("audit_events_in_organizations", query, ("created_at", "id"))


def _usage(user_id: UUID) -> Section:
    """Return what organizations recorded about the user's usage, per day."""
    records = _table(UsageRecord)
    day = (records.c.organization_id, records.c.day)
    sums = (
        cast(func.sum(records.c[name]), BigInteger).label(name)
        for name in ("credits", "generations", "failures", "storage_bytes")
    )
    query = select(*day, *sums).group_by(*day)
    mine = (records.c.dimension == UsageDimension.MEMBER, records.c.key == user_id, records.c.key != NO_KEY)
    return Section("usage", query.where(*mine), ("organization_id", "day"))


def _list_personal_tables() -> list[Table]:
    """Return the tables of personal resources, those that others refer to first."""
    return [table for table in reversed(list_owned_tables()) if table is not _table(PredictionComment)]


def _list_links(user_id: UUID) -> list[Section]:
    sections = []
    for name, (parent_name, column) in _LINKS.items():
        table, parent = Base.metadata.tables[name], Base.metadata.tables[parent_name]
        mine = select(parent.c.id).where(_is_personal(parent, user_id))
        key = tuple(key_column.name for key_column in table.primary_key)
        sections.append(Section(name, select(*_columns(table)).where(table.c[column].in_(mine)), key))
    return sections


def _section(table: Table, mine: ColumnElement[bool], *omitted: str) -> Section:
    """Return the section of a table whose rows have an id and the time of their creation."""
    # The indexes of lists have this order.
    return Section(table.name, select(*_columns(table, *omitted)).where(mine), ("created_at", "id"))


def _columns(table: Table, *omitted: str) -> list[Any]:
    return [column for column in table.c if column.name not in OMITTED_COLUMNS.union(omitted)]


def _is_personal(table: Table, user_id: UUID) -> ColumnElement[bool]:
    return and_(table.c.owner_id == user_id, table.c.organization_id.is_(None))


def _table(model: type[Base]) -> Table:
    return cast_type("Table", model.__table__)
