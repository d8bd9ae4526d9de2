"""Report what an organization used: by day, model, member, API key or product, as groups or as a CSV file.

The numbers come from `db.usage`; this module adds the period and the names. Knows no HTTP.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from functools import cache
from typing import IO, Any, NamedTuple
from uuid import UUID

from sqlalchemy import ARRAY, Select, Uuid, any_, bindparam, func, select

from db.base import utc_now
from db.errors import Conflict
from db.libpq.statements import Query, Row
from db.models.api_keys import ApiKey
from db.models.generation_models import GenerationModel
from db.models.organizations import Membership
from db.models.products import Product
from db.models.usage import NO_KEY, UsageDimension
from db.models.users import User
from db.session import current_session
from db.tenancy import visible_rows_query
from db.usage.queries import Usage, UsageGroup, groups_query, parse_groups
from studio.infrastructure.csv_cells import format_cell

MAX_DAYS = 366
DEFAULT_DAYS = 30
CSV_BATCH_SIZE = 1_000
CSV_COLUMNS = ("id", "day", "name", *Usage._fields)


class RangeTooLong(Conflict):
    """The period of a report has too many days."""

    code = "range_too_long"
    default_detail = f"A report covers at most {MAX_DAYS} days: send a later `from` or an earlier `to`"


class RangeReversed(Conflict):
    """The first day of a report is after the last one."""

    code = "range_reversed"
    default_detail = "`from` is after `to`: exchange them"


class Period(NamedTuple):
    """The days of a report, in UTC."""

    first: date
    last: date


def resolve_period(first: date | None, last: date | None) -> Period:
    """Return the requested period: by default until today, and the 30 days that end with the last day.

    Raises:
        RangeReversed: The first day is after the last one.
        RangeTooLong: It has more than `MAX_DAYS` days.
    """
    last = last or utc_now().date()
    first = first or last - timedelta(days=DEFAULT_DAYS - 1)
    if first > last:
        raise RangeReversed(parameter="from")
    if (last - first).days >= MAX_DAYS:
        raise RangeTooLong(limit=MAX_DAYS, parameter="from")
    return Period(first, last)


def names_query(
    organization_id: UUID, dimension: UsageDimension, groups: Iterable[UsageGroup]
) -> Query | None:
    """Return the query of the present names of groups by id, None for groups without names.

    What was deleted has no name.
    """
    ids = [group.key for group in groups if group.key != NO_KEY]
    if not ids:
        return None
    if dimension is UsageDimension.PRODUCT:
        products = visible_rows_query(Product, ids)
        return Query(_select_product_names(products.statement), products.values)
    return Query(_select_names(dimension), {"row_ids": ids, "organization_id": organization_id})


def describe_groups(groups: Iterable[UsageGroup], names: Iterable[Row]) -> list[dict[str, Any]]:
    """Return groups of usage as in the contract, with the names that `names_query` found."""
    by_id: dict[UUID, str] = dict(names)
    return [_describe(group, by_id) for group in groups]


def get_position(group: UsageGroup) -> date | UUID:
    """Return the `after` of the groups that follow a group."""
    return group.day or group.key


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
    after, session = None, current_session()
    while True:
        query = groups_query(organization_id, dimension, *period, after, CSV_BATCH_SIZE)
        found = parse_groups(dimension, session.execute(*query))
        if not found:
            return
        names = names_query(organization_id, dimension, found)
        yield from describe_groups(found, [] if names is None else map(tuple, session.execute(*names)))
        after = get_position(found[-1])


def _describe(group: UsageGroup, names: dict[UUID, str]) -> dict[str, Any]:
    return {
        "id": None if group.key == NO_KEY else group.key,
        "day": group.day,
        "name": names.get(group.key),
        **group.usage._asdict(),
    }


@cache
def _select_product_names(products: Select[Any]) -> Any:
    return products.with_only_columns(Product.id, Product.name)


@cache
def _select_names(dimension: UsageDimension) -> Select[Any]:
    organization_id = bindparam("organization_id", type_=Uuid())
    names: Any
    match dimension:
        case UsageDimension.MEMBER:
            model: Any = User
            name = func.coalesce(User.full_name, User.email)
            members = select(User.id, name).join(Membership, Membership.user_id == User.id)
            names = members.where(Membership.organization_id == organization_id)
        case UsageDimension.API_KEY:
            model = ApiKey
            names = select(ApiKey.id, ApiKey.name).where(ApiKey.organization_id == organization_id)
        case _:
            model = GenerationModel
            names = select(GenerationModel.id, GenerationModel.name)
    return names.where(model.id == any_(bindparam("row_ids", type_=ARRAY(Uuid()))))
