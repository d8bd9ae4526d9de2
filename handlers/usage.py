"""The usage of an organization, in pages of JSON or as a CSV file, and what API keys use of the contract."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam

from db.caller import current_caller
from db.models.api_keys import ApiKey, ApiUsage
from db.models.usage import UsageDimension
from db.queries.organizations import get_organization
from db.usage.queries import Usage, groups_query, parse_groups, total_query
from handlers.common.cursors import build_next_link, decode_position, encode_position
from handlers.common.pagination import DEFAULT_LIMIT, ListQuery
from handlers.common.permissions import Permission, requires
from handlers.common.reads import Reading, Rows, Step, read_permission_in
from handlers.common.responses import SANDBOX_CSP, ApiResponse
from handlers.schemas.api_keys import ApiKeySchema
from handlers.schemas.usage import ApiUsageSchema
from studio.billing import usage
from studio.billing.storage import parse_storage, storage_query
from studio.exports.names import build_content_disposition

API_USAGE = ListQuery(
    ApiUsage,
    ApiUsageSchema,
    filters={
        "api_key_id": ApiUsage.api_key_id,
        "operation_id": ApiUsage.operation_id,
        "is_deprecated": ApiUsage.is_deprecated,
        "from_": ApiUsage.day >= bindparam("from_"),
        "to": ApiUsage.day <= bindparam("to"),
    },
    capped_count=True,
    is_global=True,
)
_OF_ORGANIZATION = {"organization_id": ApiUsage.organization_id}
ORGANIZATION_API_USAGE = replace(API_USAGE, parent=_OF_ORGANIZATION, is_global=False)
KEYS = Rows(ApiKey, ApiKeySchema)


@requires(Permission.USAGE_READ)
def list_organization_api_usage(organization_id: UUID, **params: Any) -> Reading[ApiResponse]:
    """List which parts of the contract the API keys of an organization used."""
    yield from read_permission_in(organization_id)
    if (key_id := params.get("api_key_id")) is not None:
        yield from KEYS.get(key_id, id=key_id, organization_id=organization_id)
    page = {**params, "organization_id": organization_id}
    return (yield from ORGANIZATION_API_USAGE.read_page(page))


@requires(Permission.USERS_ADMIN)
def list_api_usage(**params: Any) -> Reading[ApiResponse]:
    """List which parts of the contract the API keys of all organizations used."""
    if (key_id := params.get("api_key_id")) is not None:
        yield from KEYS.get(key_id, id=key_id)
    return (yield from API_USAGE.read_page(params))


@requires(Permission.USAGE_READ)
def get_organization_usage(organization_id: UUID, **params: Any) -> Reading[ApiResponse]:
    """Return a page of groups, and the totals of the period."""
    yield from read_permission_in(organization_id)
    period, dimension = _parse(params)
    # A cursor is valid only for the organization, period and grouping that it was issued for.
    scope = f"usage {organization_id} {dimension} {period.first} {period.last}"
    limit = params.get("limit") or DEFAULT_LIMIT
    after = _parse_cursor(params.get("cursor"), scope, dimension)
    total, stored, found = yield Step(
        [
            total_query(organization_id, *period),
            storage_query(organization_id, current_caller().user_id),
            groups_query(organization_id, dimension, *period, after, limit + 1),
        ]
    )
    groups = parse_groups(dimension, found)
    query = usage.names_query(organization_id, dimension, groups)
    (names,) = [[]] if query is None else (yield Step([query]))
    headers, next_cursor = {}, None
    if len(groups) > limit:
        groups = groups[:limit]
        next_cursor = encode_position(scope, str(usage.get_position(groups[-1])))
        headers["Link"] = build_next_link(next_cursor)
    page = {
        "organization_id": organization_id,
        "group_by": dimension,
        "from": period.first,
        "to": period.last,
        "totals": Usage(*total[0])._asdict(),
        **parse_storage(stored)._asdict(),
        "data": usage.describe_groups(groups, names),
        "next_cursor": next_cursor,
    }
    return ApiResponse(200, page, headers, may_compress=True)


@requires(Permission.USAGE_READ)
def get_organization_usage_csv(organization_id: UUID, **params: Any) -> ApiResponse:
    """Return all groups as a CSV file."""
    get_organization(organization_id)
    period, dimension = _parse(params)
    name = f"usage-by-{dimension.replace('_', '-')}-{period.first}-{period.last}.csv"
    # A file, because the transaction ends before the response is sent. The byte order mark tells spreadsheets
    # the encoding.
    file = tempfile.NamedTemporaryFile("w", encoding="utf-8-sig", newline="", suffix=".csv")  # noqa: SIM115 - see above
    usage.write_csv(file, organization_id, dimension, period)
    file.flush()
    headers = {
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": SANDBOX_CSP,
        "Content-Disposition": build_content_disposition(name),
    }
    return ApiResponse(200, Path(file.name), headers, "text/csv; charset=utf-8", temporary_file=file)


def _parse_cursor(cursor: str | None, scope: str, dimension: UsageDimension) -> date | UUID | None:
    if cursor is None:
        return None
    (position,) = decode_position(cursor, scope, 1)
    return date.fromisoformat(position) if dimension is UsageDimension.DAY else UUID(position)


def _parse(params: dict[str, Any]) -> tuple[usage.Period, UsageDimension]:
    return (
        usage.resolve_period(params.get("from_"), params.get("to")),
        UsageDimension(params.get("group_by") or UsageDimension.DAY),
    )
