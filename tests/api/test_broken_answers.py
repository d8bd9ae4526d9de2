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
from db.session import Database, session
from handlers import brands, products
from handlers.answers import Answer, created
from studio.media.storage import LocalDisk
from tests.api.catalogue import House, post_form
from tests.production import photograph

BREAKS: dict[str, Callable[[Answer], dict[str, Any]]] = {
    "a status that is not documented": lambda answer: {"status": 200},
    "no Location": lambda answer: {"headers": {}},
    "another media type": lambda answer: {"media_type": "text/json"},
    "a property less": lambda answer: {"body": {"name": "Atelier Nord"}},
    "a property of another type": lambda answer: {"body": {**answer.body, "name": 7}},
    "what is no JSON": lambda answer: {"body": {**answer.body, "name": object()}},
}


def break_answers(monkeypatch: pytest.MonkeyPatch, module: ModuleType, breaks: str) -> None:
    """Let the handlers of a module answer creates wrongly."""

    def create_wrongly(*arguments: Any) -> Answer:
        answer = created(*arguments)
        return replace(answer, **BREAKS[breaks](answer))

    monkeypatch.setattr(module, "created", create_wrongly)


def count(database: Database, model: Any) -> int:
    with database.transaction(write=False):
        # unscoped: the database of this test belongs to nobody
        return session().scalar(select(func.count()).select_from(model)) or 0


@pytest.mark.parametrize("breaks", BREAKS)
def test_a_broken_answer_leaves_no_row(
    house: House,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    breaks: str,
) -> None:
    break_answers(monkeypatch, brands, breaks)
    reply = house.client("POST", f"/brands/{house.scope}", {"name": "Atelier Nord"})
    assert (reply.status, reply.json()["code"]) == (500, "internal_error")
    assert reply.json()["detail"] == "Internal server error"
    assert count(database, Brand) == 0
    logged = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(logged) == 1
    assert logged[0].startswith("contract broken: create_brand")


def test_a_broken_answer_leaves_no_file(
    house: House, database: Database, storage: LocalDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    product = house.create("/products/", {"name": "Linen wrap dress"})
    before = {file.key for file in storage.files("media")}
    break_answers(monkeypatch, products, "no Location")
    reply = post_form(house.client, f"/products/{product['id']}/images", photograph(), type="front")
    assert reply.status == 500
    assert (count(database, MediaResource), count(database, ProductImage)) == (0, 0)
    assert {file.key for file in storage.files("media")} == before
