"""Estimates (`validate_only`): the same errors as the real request, and no changes remain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from db.base import Base
from db.models import Subscription
from db.session import Database
from studio.infrastructure.storage import LocalDisk
from tests.api.conftest import Client
from tests.support import factories
from tests.support.client import status_and_code
from tests.support.generations import limit_open_generations
from tests.support.scenarios import HEIGHT, WIDTH, PhotographedProduct, make_product_photo


def snapshot(database: Database, storage: LocalDisk) -> tuple[dict[str, list[Any]], list[Path]]:
    """Return every row of every table, and every stored file."""
    with database.transaction(write=False) as reading:
        rows = {
            table.name: [tuple(row) for row in reading.execute(table.select().order_by(*table.primary_key))]
            for table in Base.metadata.sorted_tables
        }
    return rows, sorted(storage.root.rglob("*"))


def test_an_estimate_returns_cost_and_size_and_changes_nothing(
    client: Client, scenario: PhotographedProduct, database: Database, storage: LocalDisk
) -> None:
    before = snapshot(database, storage)
    response = client(
        "POST", f"/shots/{scenario.shot.id}/generate?validate_only=true", {"num_predictions": 3}
    )
    assert (response.status, response.json()) == (
        200,
        {
            "cost_credits": 3,
            "credits_remaining": 20,
            "model_id": str(scenario.model.id),
            "width": WIDTH,
            "height": HEIGHT,
            "batch_size": 3,
        },
    )
    assert "location" not in response.headers
    assert snapshot(database, storage) == before
    real = client("POST", f"/shots/{scenario.shot.id}/generate?validate_only=false", {})
    assert (real.status, real.json()["cost_credits"]) == (202, 4)


def test_an_estimate_does_not_consume_an_upload(
    client: Client, path: str, database: Database, storage: LocalDisk
) -> None:
    upload = client(
        "POST", "/uploads/presigned-url", {"filename": "a.jpg", "content_type": "image/jpeg"}
    ).json()
    target = upload["upload_url"].partition("/api/v1")[2]
    assert (
        client("PUT", target, body=make_product_photo(), headers={"content-type": "image/jpeg"}).status < 300
    )
    before = snapshot(database, storage)
    body = {"product_image": upload["file_url"], "width": 96, "height": 96}
    assert client("POST", f"{path}&validate_only=true", body).json()["cost_credits"] == 1
    assert snapshot(database, storage) == before
    assert client("POST", path, body).status == 202


def test_an_estimate_is_rejected_like_the_request(
    client: Client,
    scenario: PhotographedProduct,
    path: str,
    database: Database,
    storage: LocalDisk,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    product = {"product_id": str(scenario.product.id)}
    generate = f"/shots/{scenario.shot.id}/generate"
    for request_path, body, code in [
        (path, {}, "nothing_to_generate"),
        (path, {**product, "width": 8192, "height": 8192}, "resolution_not_supported"),
        (path, {**product, "generation_strategy": "VIDEO"}, "strategy_not_supported"),
    ]:
        assert_both_rejected(client, request_path, body, code)
    with database.transaction(write=True) as session:
        session.get_one(Subscription, scenario.subscription.id).credits_used = 17
    assert_both_rejected(client, generate, {}, "out_of_credits")
    assert client("POST", f"{generate}?validate_only=true", {"num_predictions": 3}).status == 200
    limit_open_generations(monkeypatch, 1)
    factories.make_generation(**scenario.ownership, model_id=scenario.model.id)
    assert_both_rejected(client, generate, {"num_predictions": 3}, "queue_full")
    with database.transaction(write=True) as session:
        session.get_one(type(scenario.shot), scenario.shot.id).status = "generating"
    before = snapshot(database, storage)
    assert_both_rejected(client, generate, {"num_predictions": 3}, "shot_busy")
    assert snapshot(database, storage) == before


def assert_both_rejected(client: Client, path: str, body: dict[str, Any], code: str) -> None:
    """Assert that the estimate and the request fail with the same problem."""
    estimate = client("POST", path + ("&" if "?" in path else "?") + "validate_only=true", body)
    response = client("POST", path, body)
    assert status_and_code(estimate) == status_and_code(response) == (409, code)
    assert estimate.json()["detail"] == response.json()["detail"]
