"""Report what an organization used: by day, model, member, API key or product, as groups or as a CSV file.

The numbers come from `db.usage`; this module adds the period and the names. Knows no HTTP.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import IO, Any
from uuid import UUID

from sqlalchemy import func, select

from db.base import utc_now
from db.errors import Conflict
from db.models.api_keys import ApiKey
from db.models.generation_models import GenerationModel
from db.models.organizations import Membership
from db.models.products import Product
from db.models.usage import NO_KEY, UsageDimension
from db.models.users import User
from db.session import current_session
from db.tenancy import select_visible
from db.usage.queries import Usage, UsageGroup, list_usage
from studio.infrastructure.csv_cells import format_cell

MAX_DAYS = 366
DEFAULT_DAYS = 30
CSV_BATCH_SIZE = 1_000
CSV_COLUMNS = ("id", "day", "name", *Usage._fields)


class RangeTooLong(Conflict):
    """The period of a report has too many days."""

    code = "range_too_long"
    default_detail = f"A report covers at most {MAX_DAYS} days: send a later `from` or an earlier `to`"


@dataclass(frozen=True)
class Period:
    """The days of a report, in UTC. It is empty if the first day is after the last one."""

    first: date
    last: date


def resolve_period(first: date | None, last: date | None) -> Period:
    """Return the requested period: by default until today, and the 30 days that end with the last day.

    Raises:
        RangeTooLong: It has more than `MAX_DAYS` days.
    """
    last = last or utc_now().date()
    first = first or last - timedelta(days=DEFAULT_DAYS - 1)
    if (last - first).days >= MAX_DAYS:
        raise RangeTooLong(limit=MAX_DAYS, parameter="from")
    return Period(first, last)


def list_groups(
    organization_id: UUID, dimension: UsageDimension, period: Period, after: date | UUID | None, limit: int
) -> list[dict[str, Any]]:
    """Return groups of usage in the order of days or ids, as in the contract.

    Args:
        organization_id: The organization, which the caller may see.
        dimension: What to group by.
        period: The days.
        after: The day or the id after which the groups begin; None for the first ones.
        limit: The maximum of groups.
    """
    groups = list_usage(organization_id, dimension, period.first, period.last, after, limit)
    names = _find_names(organization_id, dimension, [group.key for group in groups])
    return [_describe(group, names) for group in groups]


def get_position(group: dict[str, Any]) -> date | UUID:
    """Return the `after` of the groups that follow a group."""
    return group["day"] or group["id"] or NO_KEY


def write_csv(target: IO[str], organization_id: UUID, dimension: UsageDimension, period: Period) -> None:
    """Write all groups to a CSV file (RFC 4180). Memory use does not depend on their number."""
    writer = csv.writer(target)
    writer.writerow(CSV_COLUMNS)
    for group in _iterate_groups(organization_id, dimension, period):
        cells = (group[column] for column in CSV_COLUMNS)
        writer.writerow([format_cell(str(cell) if isinstance(cell, date | UUID) else cell) for cell in cells])


def _iterate_groups(
    organization_id: UUID, dimension: UsageDimension, period: Period
) -> Iterator[dict[str, Any]]:
    after = None
    while groups := list_groups(organization_id, dimension, period, after, CSV_BATCH_SIZE):
        yield from groups
        after = get_position(groups[-1])


def _describe(group: UsageGroup, names: dict[UUID, str]) -> dict[str, Any]:
    return {
        "id": None if group.key == NO_KEY else group.key,
        "day": group.day,
        "name": names.get(group.key),
        **group.usage._asdict(),
    }


def _find_names(organization_id: UUID, dimension: UsageDimension, keys: Iterable[UUID]) -> dict[UUID, str]:
    """Return the present names by id. What was deleted has none."""
    ids = {key for key in keys if key != NO_KEY}
    if not ids or dimension is UsageDimension.DAY:
        return {}
    return {
        row[0]: row[1] for row in current_session().execute(_select_names(organization_id, dimension, ids))
    }


def _select_names(organization_id: UUID, dimension: UsageDimension, ids: set[UUID]) -> Any:
    match dimension:
        case UsageDimension.MODEL:
            return select(GenerationModel.id, GenerationModel.name).where(GenerationModel.id.in_(ids))
        case UsageDimension.MEMBER:
            name = func.coalesce(User.full_name, User.email)
            members = select(User.id, name).join(Membership, Membership.user_id == User.id)
            return members.where(Membership.organization_id == organization_id, User.id.in_(ids))
        case UsageDimension.API_KEY:
            keys = select(ApiKey.id, ApiKey.name).where(ApiKey.organization_id == organization_id)
            return keys.where(ApiKey.id.in_(ids))
    products = select_visible(Product).where(Product.id.in_(ids))
    return products.with_only_columns(Product.id, Product.name)
