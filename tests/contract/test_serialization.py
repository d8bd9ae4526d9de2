"""Rows are serialized like marshmallow does it, alone and in lists."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from inspect import getmembers, isclass
from pkgutil import iter_modules
from typing import Any

import pytest
from marshmallow import Schema

from handlers import schemas
from handlers.app import Application
from handlers.schemas.fields import IdentifiedSchema, LabeledSchema, OwnedSchema, Timestamp
from handlers.schemas.serializer import get_serializer
from tests.contract.operations import OPERATIONS, Operation
from tests.contract.tenant import Tenant, make_more_rows
from tests.contract.test_every_operation import LISTS
from tests.support.app import auth_headers

Row = object
BASE_SCHEMAS = {IdentifiedSchema, LabeledSchema, OwnedSchema}


def resource_schemas() -> set[type[Schema]]:
    modules = [import_module(f"handlers.schemas.{info.name}") for info in iter_modules(schemas.__path__)]
    classes = {cls for module in modules for _, cls in getmembers(module, isclass) if issubclass(cls, Schema)}
    return {cls for cls in classes - BASE_SCHEMAS - {Schema} if not cls.__name__.startswith("_")}


def test_every_schema_serializes_a_row_as_marshmallow_dumps_it(
    app: Application, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Call each operation once and compare each row that it serializes."""
    seen: set[type[Schema]] = set()

    def get_comparing_serializer(schema: type[Schema]) -> Callable[[Row], dict[str, Any]]:
        def serialize(row: Row) -> dict[str, Any]:
            seen.add(schema)
            data = get_serializer(schema)(row)
            assert data == schema().dump(row)
            return data

        return serialize

    def get_comparing_list_serializer(schema: type[Schema]) -> Callable[[list[Row]], list[dict[str, Any]]]:
        serialize = get_comparing_serializer(schema)
        return lambda rows: [serialize(row) for row in rows]

    for module in ("common.responses", "schemas.predictions"):
        monkeypatch.setattr(f"handlers.{module}.get_serializer", get_comparing_serializer)
    for module in ("common.responses", "schemas.shootings"):
        monkeypatch.setattr(f"handlers.{module}.get_list_serializer", get_comparing_list_serializer)
    # Dry runs come first, while there are credits; GET comes last, when there are rows to read.
    dry_runs = [
        operation
        for operation in OPERATIONS.values()
        if any(parameter["name"] == "validate_only" for parameter in operation.parameters)
    ]
    others = [operation for operation in OPERATIONS.values() if operation.method != "DELETE"]
    requests = [(operation, {"validate_only": "true"}) for operation in dry_runs]
    requests += [
        (operation, {}) for operation in sorted(others, key=lambda operation: operation.method, reverse=True)
    ]
    for name in ("list_export_deliveries", "list_api_usage"):
        make_more_rows(tenant, name, 1)  # no operation creates them
    for operation, query in requests:
        request = tenant.request_for(operation.operation_id)
        request.query.update(query)
        response = request.send(app, auth_headers(app, tenant.caller_for(operation)))
        assert response.status != 500, (operation.operation_id, response.body)
    assert resource_schemas() - seen == set()


def find_get_operation(operation: Operation) -> str | None:
    """Return the operation that reads a single row of a list, None if there is none."""
    prefix = operation.path.rstrip("/") + "/{"
    below = (
        other for other in OPERATIONS.values() if other.method == "GET" and other.path.startswith(prefix)
    )
    return next((other.operation_id for other in below if other.path.endswith("}")), None)


@pytest.mark.parametrize("name", [name for name in LISTS if find_get_operation(OPERATIONS[name])])
def test_a_list_serializes_a_row_like_the_operation_for_one_row(
    name: str, app: Application, tenant: Tenant
) -> None:
    """Lists serialize records of a projection, other operations serialize entities."""
    single = tenant.request_for(find_get_operation(OPERATIONS[name]) or "")
    headers = auth_headers(app, tenant.caller_for(OPERATIONS[name]))
    row = single.send(app, headers).json()
    request = tenant.request_for(name)
    rows = request.replace(query={**request.query, "limit": 100}).send(app, headers).json()["data"]
    assert [listed for listed in rows if listed["id"] == row["id"]] == [row]


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "2026-01-02T03:04:05.000006Z"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00.000000Z"),
        (None, None),
    ],
)
def test_a_timestamp_has_microseconds(moment: datetime | None, text: str | None) -> None:
    assert Timestamp()._serialize(moment, None, None) == text
