"""Every operation of the contract behaves as declared; test_declared_responses.py checks the responses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from handlers.app import Application
from handlers.contract.document import Document
from tests.contract.examples import list_invalid_examples
from tests.contract.operations import OPERATIONS
from tests.contract.tenant import Tenant, make_more_rows
from tests.support.app import auth_headers
from tests.support.client import describe_response, send_request

# Properties that only the response to the creation contains.
SHOWN_ONCE = {
    "create_webhook_endpoint": ("secret",),
    "create_api_key": ("secret",),
    "create_review_link": ("url",),
    "confirm_totp": ("recovery_codes",),
    "register_passkey": ("recovery_codes",),
}


@pytest.mark.parametrize(
    "name", [name for name, operation in OPERATIONS.items() if operation.success_status == 201]
)
def test_a_created_resource_is_found_at_its_location(name: str, app: Application, tenant: Tenant) -> None:
    request = tenant.request_for(name)
    headers = auth_headers(app, tenant.caller_for(request.operation))
    reply = request.send(app, headers)
    assert reply.status == 201, describe_response(reply)
    fetched = send_request(app, "GET", reply.headers["location"], headers)
    created = {key: value for key, value in reply.json().items() if key not in SHOWN_ONCE.get(name, ())}
    assert (fetched.status, fetched.json()) == (200, created)
    assert fetched.headers["etag"] == reply.headers["etag"]


LISTS = [
    name
    for name, operation in OPERATIONS.items()
    # Reports have a cursor, and only one order.
    if {"cursor", "sort"} <= {parameter["name"] for parameter in operation.parameters}
]


@pytest.fixture
def statements(database_engine: Engine) -> Iterator[list[str]]:
    """Yield the SQL statements of the last request, without savepoints."""
    recorded: list[str] = []

    def record(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if "SAVEPOINT" not in statement:
            recorded.append(statement)

    event.listen(database_engine, "before_cursor_execute", record)
    yield recorded
    event.remove(database_engine, "before_cursor_execute", record)


@pytest.mark.parametrize("name", LISTS)
def test_cursor_pagination_returns_each_row_once_with_a_constant_number_of_queries(
    name: str, app: Application, tenant: Tenant, statements: list[str]
) -> None:
    request = tenant.request_for(name)
    headers = auth_headers(app, tenant.caller_for(request.operation))
    make_more_rows(tenant, name, 3)

    def page(**query: Any) -> tuple[dict[str, Any], int]:
        statements.clear()
        reply = request.replace(query={**request.query, **query}).send(app, headers)
        assert reply.status == 200, describe_response(reply)
        return reply.json(), len(statements)

    page()  # The caller of a credential is known from its second request on.
    everything, statements_for_all = page()
    assert everything["count"] >= 3
    current, statements_for_one = page(limit=1)
    assert len(current["data"]) == 1
    assert statements_for_one == statements_for_all
    rows, cursor = list(current["data"]), current["next_cursor"]
    while cursor:
        current, _ = page(limit=1, cursor=cursor)
        rows += current["data"]
        cursor = current["next_cursor"]
    assert [row["id"] for row in rows] == [row["id"] for row in everything["data"]]
    skipped, _ = page(limit=2, skip=1)
    assert skipped["data"] == everything["data"][1:3]
    assert skipped["count"] == everything["count"]


def test_every_example_of_the_contract_validates(app: Application) -> None:
    assert list_invalid_examples() == []


def test_the_served_contract_is_the_committed_one(app: Application, tenant: Tenant) -> None:
    """Only the URL of the server is that of `PUBLIC_URL`, and each operation has code samples."""
    public_url = app.settings.public_url
    for name, file in (("get_openapi_json", "openapi.json"), ("get_openapi_30_json", "openapi-3.0.json")):
        served = Document(tenant.request_for(name).send(app).json())
        for operation in served.operations():
            samples = operation.definition.pop("x-codeSamples")
            assert [sample["label"] for sample in samples] == ["curl", "Python", "JavaScript"]
            assert all(f"{public_url}/api/v1/" in sample["source"] for sample in samples) or (
                operation.operation_id in ("put_upload", "get_published_image", "get_shared_image")
            )
        committed = (Path(__file__).parents[2] / "openapi" / file).read_text(encoding="utf-8")
        expected = committed.replace('"url": "/api/v1"', f'"url": "{public_url}/api/v1"')
        assert expected != committed
        assert served.to_json().decode() == expected
