"""A response that violates the contract: the client gets a generic 500 and the violation is logged.

The request leaves nothing in the database or on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import func, select

from db.models import Brand, MediaResource, ProductImage
from db.session import Database, current_session
from handlers import brands, products
from handlers.common.responses import ApiResponse, created
from studio.infrastructure.storage import LocalDisk
from tests.support.factories.catalog import Customer, post_form
from tests.support.scenarios import make_product_photo

VIOLATIONS: dict[str, Callable[[ApiResponse], dict[str, Any]]] = {
    "an undocumented status": lambda response: {"status": 200},
    "no Location": lambda response: {"headers": {}},
    "another media type": lambda response: {"media_type": "text/json"},
    "a missing property": lambda response: {"body": {"name": "Atelier Nord"}},
    "a property of the wrong type": lambda response: {"body": {**response.body, "name": 7}},
    "a body that is not JSON": lambda response: {"body": {**response.body, "name": object()}},
}


def return_invalid_responses(monkeypatch: pytest.MonkeyPatch, module: ModuleType, violation: str) -> None:
    """Make the create handlers of a module return an invalid response."""

    def create_invalid(*arguments: Any) -> ApiResponse:
        response = created(*arguments)
        return replace(response, **VIOLATIONS[violation](response))

    monkeypatch.setattr(module, "created", create_invalid)


def count_rows(database: Database, model: Any) -> int:
    with database.transaction(write=False):
        # unscoped: counts the rows of all tenants
        return current_session().scalar(select(func.count()).select_from(model)) or 0


@pytest.mark.parametrize("violation", VIOLATIONS)
def test_an_invalid_response_leaves_no_row(
    customer: Customer,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    violation: str,
) -> None:
    return_invalid_responses(monkeypatch, brands, violation)
    response = customer.client("POST", f"/brands/{customer.organization_query}", {"name": "Atelier Nord"})
    assert (response.status, response.json()["code"]) == (500, "internal_error")
    assert response.json()["detail"] == "Internal server error"
    assert count_rows(database, Brand) == 0
    logged = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(logged) == 1
    assert logged[0].startswith("contract violation: create_brand")


def test_an_invalid_response_leaves_no_file(
    customer: Customer, database: Database, storage: LocalDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    product = customer.create("/products/", {"name": "Linen wrap dress"})
    before = {file.key for file in storage.list_files("media")}
    return_invalid_responses(monkeypatch, products, "no Location")
    response = post_form(
        customer.client, f"/products/{product['id']}/images", make_product_photo(), type="front"
    )
    assert response.status == 500
    assert (count_rows(database, MediaResource), count_rows(database, ProductImage)) == (0, 0)
    assert {file.key for file in storage.list_files("media")} == before
