"""Rows are shown as marshmallow shows them, whatever way is taken."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from inspect import getmembers, isclass
from pkgutil import iter_modules
from typing import Any

import pytest
from marshmallow import Schema

from handlers import schemas
from handlers.app import Application
from handlers.schemas.fields import IdentifiedSchema, OwnedSchema, Timestamp
from handlers.schemas.serializer import get_serializer
from tests.contract.operations import OPERATIONS, Operation
from tests.contract.tenant import Tenant
from tests.contract.test_every_operation import LISTS
from tests.support.app import auth_headers

Row = object
BASE_SCHEMAS = {IdentifiedSchema, OwnedSchema}


def resource_schemas() -> set[type[Schema]]:
    modules = [
        __import__(f"handlers.schemas.{found.name}", fromlist=["_"])
        for found in iter_modules(schemas.__path__)
    ]
    found = {
        kind for module in modules for _, kind in getmembers(module, isclass) if issubclass(kind, Schema)
    }
    return {kind for kind in found - BASE_SCHEMAS - {Schema} if not kind.__name__.startswith("_")}


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)  # rows are rows, wherever they are from
def test_every_schema_reads_a_row_as_marshmallow_dumps_it(
    app: Application, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the rows that all operations show when each is called once, but those that show none."""
    seen: set[type[Schema]] = set()

    def compared(schema: type[Schema]) -> Callable[[Row], dict[str, Any]]:
        def read(row: Row) -> dict[str, Any]:
            seen.add(schema)
            shown = get_serializer(schema)(row)
            assert shown == schema().dump(row)
            return shown

        return read

    for room in ("answers", "schemas.predictions", "schemas.shootings"):
        monkeypatch.setattr(f"handlers.{room}.reader_of", compared)
    # Estimates come first, while there are credits; what reads comes last, when there is something to read.
    estimates = [
        one for one in OPERATIONS.values() if "validate_only" in {each["name"] for each in one.parameters}
    ]
    others = [one for one in OPERATIONS.values() if one.method != "DELETE"]
    asked = [(one, {"validate_only": "true"}) for one in estimates]
    asked += [(one, {}) for one in sorted(others, key=lambda one: one.method, reverse=True)]
    for operation, query in asked:
        request = tenant.request_for(operation.operation_id)
        request.query.update(query)
        reply = request.send(app, auth_headers(app, tenant.caller_for(operation)))
        assert reply.status != 500, (operation.operation_id, reply.body)
    assert resource_schemas() - seen == set()


def find_get_operation(operation: Operation) -> str | None:
    """The operation that reads a row of a list alone, where there is one."""
    beginning = operation.path.rstrip("/") + "/{"
    found = (one for one in OPERATIONS.values() if one.method == "GET" and one.path.startswith(beginning))
    return next((one.operation_id for one in found if one.path.endswith("}")), None)


@pytest.mark.parametrize("name", [name for name in LISTS if find_get_operation(OPERATIONS[name])])
def test_a_list_shows_a_row_as_it_is_shown_alone(name: str, app: Application, tenant: Tenant) -> None:
    """Lists read records, what is shown alone is an entity."""
    alone = tenant.request_for(find_get_operation(OPERATIONS[name]) or "")
    headers = auth_headers(app, tenant.caller_for(OPERATIONS[name]))
    row = alone.send(app, headers).json()
    request = tenant.request_for(name)
    listed = request.replace(query={**request.query, "limit": 100}).send(app, headers).json()["data"]
    assert [each for each in listed if each["id"] == row["id"]] == [row]


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "2026-01-02T03:04:05.000006Z"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00.000000Z"),
        (None, None),
    ],
)
def test_a_moment_has_its_microseconds(moment: datetime | None, text: str | None) -> None:
    assert Timestamp()._serialize(moment, None, None) == text
