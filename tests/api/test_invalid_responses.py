"""An answer of ours that breaks the contract: the caller gets a neutral 500, the log the violation, and
of the request nothing is kept, in the database or on disk.
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
from studio.media.storage import LocalDisk
from tests.support.factories.catalogue import Customer, post_form
from tests.support.scenarios import make_product_photo

BREAKS: dict[str, Callable[[ApiResponse], dict[str, Any]]] = {
    "a status that is not documented": lambda answer: {"status": 200},
    "no Location": lambda answer: {"headers": {}},
    "another media type": lambda answer: {"media_type": "text/json"},
    "a property less": lambda answer: {"body": {"name": "Atelier Nord"}},
    "a property of another type": lambda answer: {"body": {**answer.body, "name": 7}},
    "what is no JSON": lambda answer: {"body": {**answer.body, "name": object()}},
}


def break_responses(monkeypatch: pytest.MonkeyPatch, module: ModuleType, breaks: str) -> None:
    """Let the handlers of a module answer creates wrongly."""

    def create_wrongly(*arguments: Any) -> ApiResponse:
        answer = created(*arguments)
        return replace(answer, **BREAKS[breaks](answer))

    monkeypatch.setattr(module, "created", create_wrongly)


def count_rows(database: Database, model: Any) -> int:
    with database.transaction(write=False):
        # unscoped: the database of this test belongs to nobody
        return current_session().scalar(select(func.count()).select_from(model)) or 0


@pytest.mark.parametrize("breaks", BREAKS)
def test_a_broken_answer_leaves_no_row(
    customer: Customer,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    breaks: str,
) -> None:
    break_responses(monkeypatch, brands, breaks)
    reply = customer.client("POST", f"/brands/{customer.organization_query}", {"name": "Atelier Nord"})
    assert (reply.status, reply.json()["code"]) == (500, "internal_error")
    assert reply.json()["detail"] == "Internal server error"
    assert count_rows(database, Brand) == 0
    logged = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(logged) == 1
    assert logged[0].startswith("contract violation: create_brand")


def test_a_broken_answer_leaves_no_file(
    customer: Customer, database: Database, storage: LocalDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    product = customer.create("/products/", {"name": "Linen wrap dress"})
    before = {file.key for file in storage.list_files("media")}
    break_responses(monkeypatch, products, "no Location")
    reply = post_form(
        customer.client, f"/products/{product['id']}/images", make_product_photo(), type="front"
    )
    assert reply.status == 500
    assert (count_rows(database, MediaResource), count_rows(database, ProductImage)) == (0, 0)
    assert {file.key for file in storage.list_files("media")} == before
