"""Asking what an order would cost: the same refusals as for real, and nothing that remains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from db.base import Base
from db.models import Subscription
from db.session import Database
from studio.media.storage import LocalDisk
from tests import factories
from tests.api.conftest import Client
from tests.api.workflow import refusal
from tests.production import HEIGHT, WIDTH, Production, photograph


@pytest.fixture
def client(client_of: Callable[..., Client], production: Production) -> Client:
    return client_of(production.owner)


@pytest.fixture
def path(production: Production) -> str:
    return f"/generations/?organization_id={production.organization.id}"


def everything(database: Database, storage: LocalDisk) -> tuple[dict[str, list[Any]], list[Path]]:
    """Every row of every table, and every stored file."""
    with database.transaction(write=False) as reading:
        rows = {
            table.name: [tuple(row) for row in reading.execute(table.select().order_by(*table.primary_key))]
            for table in Base.metadata.sorted_tables
        }
    return rows, sorted(storage.root.rglob("*"))


def test_an_estimate_tells_cost_and_size_and_leaves_nothing(
    client: Client, production: Production, database: Database, storage: LocalDisk
) -> None:
    before = everything(database, storage)
    reply = client("POST", f"/shots/{production.shot.id}/generate?validate_only=true", {"num_predictions": 3})
    assert (reply.status, reply.json()) == (
        200,
        {
            "cost_credits": 3,
            "credits_remaining": 20,
            "model_id": str(production.model.id),
            "width": WIDTH,
            "height": HEIGHT,
            "batch_size": 3,
        },
    )
    assert "location" not in reply.headers
    assert everything(database, storage) == before
    real = client("POST", f"/shots/{production.shot.id}/generate?validate_only=false", {})
    assert (real.status, real.json()["cost_credits"]) == (202, 4)


def test_an_upload_that_an_estimate_names_can_still_be_used(
    client: Client, path: str, database: Database, storage: LocalDisk
) -> None:
    upload = client(
        "POST", "/uploads/presigned-url", {"filename": "a.jpg", "content_type": "image/jpeg"}
    ).json()
    target = upload["upload_url"].partition("/api/v1")[2]
    assert client("PUT", target, body=photograph(), headers={"content-type": "image/jpeg"}).status < 300
    before = everything(database, storage)
    body = {"product_image": upload["file_url"], "width": 96, "height": 96}
    assert client("POST", f"{path}&validate_only=true", body).json()["cost_credits"] == 1
    assert everything(database, storage) == before
    assert client("POST", path, body).status == 202


def test_an_estimate_is_refused_as_the_order_would_be(
    client: Client, production: Production, path: str, database: Database, storage: LocalDisk
) -> None:
    product = {"product_id": str(production.product.id)}
    generate = f"/shots/{production.shot.id}/generate"
    for address, body, code in [
        (path, {}, "nothing_to_generate"),
        (path, {**product, "width": 8192, "height": 8192}, "resolution_not_supported"),
        (path, {**product, "generation_strategy": "VIDEO"}, "strategy_not_supported"),
    ]:
        refused(client, address, body, code)
    with database.transaction(write=True) as session:
        session.get_one(Subscription, production.subscription.id).credits_used = 17
    refused(client, generate, {}, "out_of_credits")
    assert client("POST", f"{generate}?validate_only=true", {"num_predictions": 3}).status == 200
    for _ in range(50):
        factories.make_generation(**production.scope, model_id=production.model.id)
    refused(client, generate, {"num_predictions": 3}, "queue_full")
    with database.transaction(write=True) as session:
        session.get_one(type(production.shot), production.shot.id).status = "generating"
    before = everything(database, storage)
    refused(client, generate, {"num_predictions": 3}, "shot_busy")
    assert everything(database, storage) == before


def refused(client: Client, address: str, body: dict[str, Any], code: str) -> None:
    """Assert that trying and ordering are refused alike."""
    tried = client("POST", address + ("&" if "?" in address else "?") + "validate_only=true", body)
    real = client("POST", address, body)
    assert refusal(tried) == refusal(real) == (409, code)
    assert tried.json()["detail"] == real.json()["detail"]
