"""Test imports beside other writers of the same products: other imports, and requests of the API."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select

from db.models import Organization, Product, ProductImport
from db.session import Database
from studio.imports import queue, writing
from studio.infrastructure.storage import LocalDisk
from tests.studio.test_imports import get_import, list_products, list_results, run_imports, start_import
from tests.support import factories
from tests.support.concurrency import run_concurrently


def test_two_workers_run_two_imports_of_the_same_products_one_after_the_other(
    own_database: Database, storage: LocalDisk
) -> None:
    with own_database.transaction(write=True):
        organization = factories.make_organization()
        texts = [
            "sku,name\n" + "".join(f"S-{number},{name}\n" for number in range(30)) for name in ("Old", "New")
        ]
        ids = [start_import(own_database, storage, organization, text) for text in texts]
    run_concurrently(*[partial(run_imports, own_database, storage)] * 2)
    run_imports(own_database, storage)
    first, second = (get_import(own_database, import_id) for import_id in ids)
    assert (first.status, first.created_count, first.failed_count) == ("completed", 30, 0)
    assert (second.status, second.updated_count, second.failed_count) == ("completed", 30, 0)
    names = {product.name for product in list_products(own_database, organization).values()}
    assert names == {"New"}


def test_an_import_does_not_overtake_one_that_a_worker_is_leasing(
    own_database: Database, storage: LocalDisk
) -> None:
    with own_database.transaction(write=True):
        organization = factories.make_organization()
        first, _second = (start_import(own_database, storage, organization, "sku\nA-1\n") for _ in range(2))
    with own_database.engine.begin() as other_worker:
        other_worker.execute(select(ProductImport.id).where(ProductImport.id == first).with_for_update())
        assert queue.IMPORTS.lease_next(own_database, timedelta(minutes=1)) is None
    lease = queue.IMPORTS.lease_next(own_database, timedelta(minutes=1))
    assert lease is not None
    assert lease.row_id == first


def write_meanwhile(monkeypatch: pytest.MonkeyPatch, write: Callable[[], None]) -> None:
    """Call a function in another thread, once, between the look-up of products and the first write."""
    plan, is_done = writing._plan, threading.Event()

    def plan_and_write(*arguments: Any) -> Any:
        planned = plan(*arguments)
        if not is_done.is_set():
            is_done.set()
            thread = threading.Thread(target=write)
            thread.start()
            thread.join()
        return planned

    monkeypatch.setattr(writing, "_plan", plan_and_write)


def create_product(database: Database, organization: Organization, sku: str) -> None:
    """Create a product as another request, with a transaction of its own."""
    with database.transaction(write=True) as session:
        owner = {"owner_id": organization.owner_id, "organization_id": organization.id}
        session.add(Product(**owner, sku=sku, name="Of a request", state="READY"))


@pytest.mark.parametrize(("mode", "expected"), [("upsert", "updated"), ("create", "failed")])
def test_a_product_that_appears_during_the_import_is_updated_or_rejected(
    own_database: Database, storage: LocalDisk, monkeypatch: pytest.MonkeyPatch, mode: str, expected: str
) -> None:
    with own_database.transaction(write=True):
        organization = factories.make_organization()
        text = "sku,name\nA-1,Imported\nA-2,Imported\n"
        import_id = start_import(own_database, storage, organization, text, mode=mode)
    write_meanwhile(monkeypatch, lambda: create_product(own_database, organization, "A-1"))
    run_imports(own_database, storage)
    code = "sku_taken" if expected == "failed" else None
    assert list_results(own_database, import_id) == [(2, expected, code), (3, "created", None)]
    with own_database.transaction(write=False) as reading:
        assert len(reading.scalars(select(Product.id)).all()) == 2  # unscoped: all are of this test


def test_a_key_that_is_taken_during_the_import_rejects_only_its_row(
    own_database: Database, storage: LocalDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with own_database.transaction(write=True):
        organization = factories.make_organization()
        for number in (1, 2):
            factories.make_product(organization=organization, external_id=f"p-{number}", sku=f"Old-{number}")
        text = "external_id,sku\np-1,A-1\np-2,A-2\n"
        import_id = start_import(own_database, storage, organization, text, match_by="external_id")
    write_meanwhile(monkeypatch, lambda: create_product(own_database, organization, "A-1"))
    run_imports(own_database, storage)
    assert list_results(own_database, import_id) == [(2, "failed", "sku_taken"), (3, "updated", None)]
