"""What API keys use of the contract: counted in memory, added to the database, listed by day."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import time_machine
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from db.base import utc_now
from db.models import ApiKey, ApiUsage
from db.session import Database
from handlers.app import Application
from handlers.contract.used_parts import Part, PartKind
from handlers.pipeline import use_counter
from handlers.pipeline.use_counter import UseCounter
from tests.api.conftest import Client
from tests.support import factories
from tests.support.factories.api_keys import api_key_headers
from tests.support.factories.catalog import Customer
from tests.support.servers.webhook_receiver import START

SCOPES = ("products:read", "products:write")


@pytest.fixture
def shop(app: Application, customer: Customer) -> Client:
    """Return a client with an API key of the organization; nothing is counted before."""
    app.use_counter.flush(app.database)
    return Client(app, api_key_headers(app, customer.organization, SCOPES))


@pytest.fixture
def list_usage(app: Application, customer: Customer) -> Callable[..., list[dict[str, Any]]]:
    """Return a function that lists the usage of the organization after a flush."""

    def list_all(query: str = "") -> list[dict[str, Any]]:
        app.use_counter.flush(app.database)
        response = customer.client("GET", f"/organizations/{customer.organization.id}/api-usage?{query}")
        assert response.status == 200, response.body
        return list(response.json()["data"])

    return list_all


def summarize(rows: list[dict[str, Any]]) -> dict[tuple[str, str, str | None], int]:
    """Return the calls by part."""
    return {(row["operation_id"], row["kind"], row["name"]): row["calls"] for row in rows}


def test_each_authorized_request_counts_with_what_it_sends(
    shop: Client, customer: Customer, list_usage: Callable[..., list[dict[str, Any]]]
) -> None:
    organization = f"organization_id={customer.organization.id}"
    for query in (organization, organization, f"{organization}&limit=5"):
        assert shop("GET", f"/products/?{query}").status == 200
    body = {"name": "Vase", "sku": "V-1"}
    created = shop(
        "POST", f"/products/?{organization}&sync_captioning=false", body, headers={"idempotency-key": "a"}
    )
    assert created.status == 201
    assert shop("GET", f"/products/{customer.organization.id}").status == 404
    # Neither a wrong request nor one of a session counts.
    assert shop("GET", "/products/?limit=0").status == 422
    assert customer.client("GET", f"/products/?{organization}").status == 200
    rows = list_usage()
    assert summarize(rows) == {
        ("list_products", "operation", None): 3,
        ("list_products", "parameter", "organization_id"): 3,
        ("list_products", "parameter", "limit"): 1,
        ("create_product", "operation", None): 1,
        ("create_product", "parameter", "organization_id"): 1,
        ("create_product", "parameter", "sync_captioning"): 1,
        ("create_product", "parameter", "Idempotency-Key"): 1,
        ("get_product", "operation", None): 1,
    }
    (deprecated,) = list_usage("is_deprecated=true")
    assert deprecated["name"] == "sync_captioning"
    assert (deprecated["sunset_at"], deprecated["day"]) == (None, f"{utc_now():%Y-%m-%d}")
    assert summarize(list_usage("operation_id=get_product")) == {("get_product", "operation", None): 1}
    assert (
        len(list_usage(f"api_key_id={rows[0]['api_key_id']}&from={rows[0]['day']}&to={rows[0]['day']}")) == 8
    )
    assert list_usage("from=2199-01-01") == list_usage("to=2100-01-01")[8:] == []


def test_only_owners_and_admins_see_the_usage_and_superusers_that_of_all(
    shop: Client,
    customer: Customer,
    superuser: Client,
    client_for: Callable[..., Client],
    list_usage: Callable[..., list[dict[str, Any]]],
) -> None:
    assert shop("GET", f"/products/?organization_id={customer.organization.id}").status == 200
    rows = list_usage()
    path = f"/organizations/{customer.organization.id}/api-usage"
    member = factories.make_user()
    factories.make_membership(customer.organization, member)
    assert client_for(member)("GET", path).status == 403
    assert client_for(factories.make_user())("GET", path).status == 404
    assert superuser("GET", f"/api-usage/?api_key_id={rows[0]['api_key_id']}").json()["data"] == rows
    assert customer.client("GET", "/api-usage/").status == 403
    assert shop("GET", "/api-usage/").status == 403


def test_processes_add_up_and_a_new_day_is_a_new_row(
    app: Application, database: Database, shop: Client
) -> None:
    parts, key_id = find_parts("list_products"), get_key_id(database)
    counters = [UseCounter({}) for _ in range(2)]
    for day in range(2):
        with time_machine.travel(START + timedelta(days=day), tick=False):
            for counter in (*counters, counters[0]):
                counter.count(key_id, parts)
                counter.flush(database)
    with database.transaction(write=False) as reading:
        rows = reading.execute(select(ApiUsage.day, ApiUsage.calls).order_by(ApiUsage.day)).all()
    assert [tuple(row) for row in rows] == [(START.date() + timedelta(days=day), 3) for day in range(2)]


def find_parts(*operation_ids: str) -> list[Part]:
    """Return the parts that a request without parameters to each of some operations uses."""
    return [Part(name, PartKind.OPERATION, "") for name in operation_ids]


def get_key_id(database: Database) -> UUID:
    """Return the id of the only key."""
    with database.transaction(write=False) as reading:
        return reading.scalars(select(ApiKey.id)).one()


def test_counts_are_bounded_kept_after_a_failure_and_dropped_with_the_key(
    app: Application,
    database: Database,
    shop: Client,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(use_counter, "MAX_COUNTED", 2)
    parts = find_parts("list_products", "get_product", "create_product")
    counter, key_id = UseCounter({}), get_key_id(database)
    counter.count(key_id, parts)
    counter.count(key_id, parts)

    def fail(_uses: object) -> None:
        raise OperationalError("INSERT", {}, Exception("the server closed the connection"))

    with monkeypatch.context() as broken:
        broken.setattr(use_counter, "add_uses", fail)
        with pytest.raises(OperationalError):
            counter.flush(database)
        counter.flush_last(database)
    assert "2 parts of the contract was not counted" in caplog.text
    assert "in the last minute is lost" in caplog.text
    counter.count(UUID(int=7), parts[:1])
    counter.flush(database)
    with database.transaction(write=True) as writing:
        assert dict(writing.execute(select(ApiUsage.operation_id, ApiUsage.calls)).all()) == {
            "list_products": 2,
            "get_product": 2,
        }
        # unscoped: the only key of this test
        writing.delete(writing.get_one(ApiKey, key_id))
        writing.flush()
        assert writing.scalars(select(ApiUsage.id)).all() == []
