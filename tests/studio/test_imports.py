"""Test that imports create and update products as the file says, row by row, and what they reject."""

from __future__ import annotations

import io
import json
import time
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select

from db.base import utc_now
from db.models import Organization, Product, ProductImport, ProductImportResult, UploadStatus, WebhookDelivery
from db.models.changes import Change
from db.session import Database
from handlers.app import BUNDLE
from handlers.contract.body_checks import load_body_checks
from studio.imports import reader, worker
from studio.imports.worker import ImportRunner
from studio.infrastructure.storage import LocalDisk, data_file_key
from studio.media.data_files import store_data_file
from studio.media.garbage_collection import delete_unreferenced
from tests.support import factories
from tests.support.queues import build_worker, retry_after_seconds

CHECK = load_body_checks(BUNDLE)


def start_import(
    database: Database, storage: LocalDisk, organization: Organization, text: str | bytes, **values: Any
) -> UUID:
    """Store a file and create a pending import of it; return the id of the import."""
    content = text if isinstance(text, bytes) else text.encode()
    stored = store_data_file(storage, io.BytesIO(content))
    return factories.make_product_import(
        organization=organization, file_id=stored.id, file_hash=stored.content_hash, **values
    ).id


def run_imports(database: Database, storage: LocalDisk) -> int:
    """Run all imports that wait, and return how many were completed."""
    return ImportRunner(build_worker(database, storage), CHECK).run_pending()


def get_import(database: Database, import_id: UUID) -> ProductImport:
    with database.transaction(write=False) as reading:
        query = select(ProductImport).where(ProductImport.id == import_id)
        return reading.scalars(query.execution_options(populate_existing=True)).one()


def list_results(database: Database, import_id: UUID) -> list[tuple[int, str, str | None]]:
    """Return the line, the status and the problem code of each row."""
    query = select(ProductImportResult).where(ProductImportResult.import_id == import_id)
    with database.transaction(write=False) as reading:
        rows = reading.scalars(query.order_by(ProductImportResult.created_at, ProductImportResult.id))
        return [(row.line, row.status, row.problem and row.problem["code"]) for row in rows]


def list_products(database: Database, organization: Organization) -> dict[str | None, Product]:
    """Return the products of the organization by their SKU."""
    query = select(Product).where(Product.organization_id == organization.id)
    with database.transaction(write=False) as reading:
        found = reading.scalars(query.execution_options(populate_existing=True)).all()
        return {product.sku: product for product in found}


def import_text(
    database: Database, storage: LocalDisk, organization: Organization, text: str | bytes, **values: Any
) -> ProductImport:
    """Import a file and return the import at its end."""
    import_id = start_import(database, storage, organization, text, **values)
    run_imports(database, storage)
    return get_import(database, import_id)


def test_rows_create_update_and_leave_products(
    database: Database, storage: LocalDisk, organization: Organization
) -> None:
    changed = factories.make_product(organization=organization, sku="A-1", name="Old", color="red")
    same = factories.make_product(organization=organization, sku="A-2", name="Same")
    text = (
        '\ufeffsku,name,description\r\nA-1,New,"two\r\nlines, ""quoted"""\r\nA-2,Same,\r\n\r\nA-3,Third,\r\n'
    )
    done = import_text(database, storage, organization, text)
    assert (done.status, done.problem, done.total_count) == ("completed", None, 3)
    assert (done.created_count, done.updated_count, done.unchanged_count, done.failed_count) == (1, 1, 1, 0)
    # The first row ends at line 3, because a line break is within quotation marks.
    assert list_results(database, done.id) == [
        (2, "updated", None),
        (4, "unchanged", None),
        (6, "created", None),
    ]
    products = list_products(database, organization)
    assert products["A-1"].id == changed.id
    assert (products["A-1"].name, products["A-1"].color) == ("New", "red")
    assert products["A-1"].description == 'two\r\nlines, "quoted"'
    assert products["A-2"].updated_at == same.updated_at
    assert (products["A-3"].name, products["A-3"].state) == ("Third", "READY")
    assert products["A-3"].owner_id == done.owner_id


@pytest.mark.parametrize(("empty_cells", "color"), [("keep", "red"), ("clear", None)])
def test_an_empty_cell_keeps_or_clears_the_value(
    database: Database, storage: LocalDisk, organization: Organization, empty_cells: str, color: str | None
) -> None:
    factories.make_product(organization=organization, sku="A-1", name="Dress", color="red")
    text = "sku,color\nA-1,\n"
    done = import_text(database, storage, organization, text, empty_cells=empty_cells)
    assert done.failed_count == 0
    assert list_products(database, organization)["A-1"].color == color


def test_rejected_rows_have_the_problem_of_a_request_and_change_nothing(
    database: Database, storage: LocalDisk, organization: Organization
) -> None:
    foreign = factories.make_brand()
    text = (
        "sku,name,gender,brand_id\n"
        "A-1,,,\n"
        f"A-2,{'x' * 121},FEMALE,\n"
        "A-3,Dress,UNKNOWN,\n"
        ",Dress,,\n"
        f"A-4,Dress,,{foreign.id}\n"
        "A-5,Dress\n"
        "A-6,Dress,FEMALE,\n"
        "A-6,Again,,\n"
    )
    done = import_text(database, storage, organization, text)
    assert list_results(database, done.id) == [
        (2, "failed", "invalid_request"),
        (3, "failed", "invalid_request"),
        (4, "failed", "invalid_request"),
        (5, "failed", "invalid_request"),
        (6, "failed", "not_found"),
        (7, "failed", "invalid_request"),
        (8, "created", None),
        (9, "failed", "sku_taken"),
    ]
    assert set(list_products(database, organization)) == {"A-6"}
    with database.transaction(write=False) as reading:
        query = select(ProductImportResult).where(ProductImportResult.line == 3)
        problem = reading.scalars(query).one().problem
    assert problem is not None
    assert problem["errors"] == [
        {
            "loc": ["body", "name"],
            "msg": "Must have at most 120 characters",
            "type": "string_too_long",
            "input": "x" * 121,
            "ctx": {"max_length": 120},
            "pointer": "/name",
        }
    ]


def test_rows_are_matched_by_external_id_and_merge_metadata(
    database: Database, storage: LocalDisk, organization: Organization
) -> None:
    product = factories.make_product(
        organization=organization,
        sku="A-1",
        external_id="+1",
        custom_metadata={"season": "spring", "line": "basic"},
    )
    factories.make_product(organization=organization, sku="A-2", custom_metadata={})
    text = (
        "external_id,sku,name,Season,metadata.line\n"
        "+1,A-3,Dress,autumn,\n"
        "+2,A-2,Skirt,autumn,\n"
        "+3,,Coat,,\n"
        "+3,A-9,Coat,,\n"
    )
    mapping = {"Season": "metadata.season"}
    values = {"match_by": "external_id", "empty_cells": "clear", "column_mapping": mapping}
    done = import_text(database, storage, organization, text, **values)
    assert list_results(database, done.id) == [
        (2, "updated", None),
        (3, "failed", "sku_taken"),
        (4, "created", None),
        (5, "failed", "external_id_taken"),
    ]
    products = list_products(database, organization)
    assert products["A-3"].id == product.id
    assert products["A-3"].custom_metadata == {"season": "autumn"}
    assert (products[None].external_id, products[None].custom_metadata) == ("+3", {})


def test_problems_and_metadata_keep_characters_that_json_escapes(
    database: Database, storage: LocalDisk, organization: Organization
) -> None:
    metadata = {"quotes": '"\\"', "lines": "a\nb", "accents": "\u00e9\u2028\U0001f457"}
    rows = [{"sku": "A-1", "name": "\x00\\u0000"}, {"sku": "A-2", "name": "\\u0000", "metadata": metadata}]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    done = import_text(database, storage, organization, text, format="jsonl")
    assert list_results(database, done.id) == [(1, "failed", "invalid_request"), (2, "created", None)]
    product = list_products(database, organization)["A-2"]
    assert (product.name, product.custom_metadata) == ("\\u0000", metadata)
    with database.transaction(write=False) as reading:
        problem = reading.scalars(
            select(ProductImportResult.problem).where(ProductImportResult.line == 1)
        ).one()
    assert problem is not None
    assert problem["errors"][0]["input"] == "\x00\\u0000"


def test_metadata_have_at_most_50_keys(
    database: Database, storage: LocalDisk, organization: Organization
) -> None:
    keys = {f"key-{number}": "value" for number in range(50)}
    factories.make_product(organization=organization, sku="A-1", custom_metadata=keys)
    text = '{"sku": "A-1", "metadata": {"another": "value"}}\n{"sku": "A-2", "metadata": {"a": 5}}\n'
    done = import_text(database, storage, organization, text, format="jsonl")
    assert list_results(database, done.id) == [
        (1, "failed", "too_many_metadata_keys"),
        (2, "failed", "invalid_request"),
    ]


def test_the_mode_create_rejects_existing_products(
    database: Database, storage: LocalDisk, organization: Organization
) -> None:
    factories.make_product(organization=organization, sku="A-1", name="Old")
    text = "sku,name\nA-1,New\nA-2,New\n,Without SKU\n"
    done = import_text(database, storage, organization, text, mode="create")
    assert list_results(database, done.id) == [
        (2, "failed", "sku_taken"),
        (3, "created", None),
        (4, "created", None),
    ]
    assert list_products(database, organization)["A-1"].name == "Old"


def test_json_lines_set_null_and_reject_unknown_properties(
    database: Database, storage: LocalDisk, organization: Organization
) -> None:
    factories.make_product(organization=organization, sku="A-1", name="Dress", color="red")
    text = (
        '{"sku": "A-1", "color": null}\n'
        '{"sku": "A-2", "name": "Skirt", "colour": "red"}\n'
        '{"sku": "A-3", "name": "Skirt", "public": true}\n'
        "[1]\n"
        "{\n"
        '{"Artikel": "A-4", "name": "Skirt"}\n'
    )
    mapping = {"Artikel": "sku"}
    done = import_text(database, storage, organization, text, format="jsonl", column_mapping=mapping)
    assert list_results(database, done.id) == [
        (1, "updated", None),
        (2, "failed", "invalid_request"),
        (3, "failed", "invalid_request"),
        (4, "failed", "malformed_request"),
        (5, "failed", "malformed_request"),
        (6, "created", None),
    ]
    assert list_products(database, organization)["A-1"].color is None


@pytest.mark.parametrize(
    ("text", "code", "detail"),
    [
        (b"", "malformed_request", "The file is empty: it needs a header"),
        (b"sku,name\nA-1,a\nA-2,\xe9\n", "malformed_request", "Line 3 is not UTF-8"),
        (b'sku,name\nA-1,"a\nA-2,b\n', "malformed_request", "The row at line 2 is not valid CSV"),
        (b"sku,colour\nA-1,red\n", "invalid_request", "properties of products: `colour`"),
        (b"name\nDress\n", "invalid_request", "properties of products: `sku`"),
        (
            b"sku;name\r\nA-1;Dress\r\n",
            "invalid_request",
            "with semicolons in its name: separate the columns with",
        ),
        (
            b"sku\tname\r\nA-1\tDress\r\n",
            "invalid_request",
            "with tabs in its name: separate the columns with",
        ),
        (b"sku,name,,\nA-1,a,,\n", "invalid_request", "properties of products: `column 3`, `column 4`"),
        (
            b"sku,name\rA-1,a\r",
            "malformed_request",
            "line 1 is not valid CSV: a carriage return (CR) is outside",
        ),
        ("sku,name\nA-1,a\n".encode("utf-16"), "malformed_request", "Line 1 is not UTF-8"),
        (b"\xef\xbb\xbf", "malformed_request", "The file is empty: it needs a header"),
        (b"sku,name,name\nA-1,a,b\n", "invalid_request", "properties of products: `name`"),
        (b"sku,name\nA-1," + b"x" * 300_000, "too_large", "The row at line 2 is larger than 262,144 bytes"),
    ],
)
def test_a_file_that_cannot_be_read_fails_before_the_first_row(
    database: Database, storage: LocalDisk, organization: Organization, text: bytes, code: str, detail: str
) -> None:
    done = import_text(database, storage, organization, text)
    assert done.status == "failed"
    assert done.problem is not None
    assert done.problem["code"] == code
    assert detail in done.problem["detail"]
    assert list_results(database, done.id) == []
    assert list_products(database, organization) == {}


@pytest.mark.parametrize(
    ("text", "format_"),
    [(b"sku,name\r\n", "csv"), (b"\xef\xbb\xbfsku,name", "csv"), (b"", "jsonl"), (b"\r\n\n", "jsonl")],
)
def test_a_file_without_rows_is_completed(
    database: Database, storage: LocalDisk, organization: Organization, text: bytes, format_: str
) -> None:
    done = import_text(database, storage, organization, text, format=format_)
    assert (done.status, done.problem, done.total_count) == ("completed", None, 0)
    assert list_results(database, done.id) == []


def test_rows_keep_what_is_in_quotation_marks_and_repeated_keys_name_the_first_line(
    database: Database, storage: LocalDisk, organization: Organization
) -> None:
    text = (
        '\ufeff"external_id", name \r\n'
        'E-1,"Dress, ""long""\r\nwith lace"\r\n'
        "\r\n"
        "E-2,Skirt\r\n"
        "E-1,Coat\r\n"
        "E-3\r\n"
    )
    done = import_text(database, storage, organization, text, match_by="external_id")
    assert list_results(database, done.id) == [
        (2, "created", None),
        (5, "created", None),
        (6, "failed", "external_id_taken"),
        (7, "failed", "invalid_request"),
    ]
    with database.transaction(write=False) as reading:
        query = select(ProductImportResult.problem).where(ProductImportResult.import_id == done.id)
        problems = [
            each["detail"] for each in reading.scalars(query.order_by(ProductImportResult.line)) if each
        ]
        names = reading.scalars(select(Product.name).where(Product.organization_id == organization.id)).all()
    assert problems == ["Line 2 has the same `external_id`", "The row has 1 cells, and the header has 2"]
    assert sorted(names) == ['Dress, "long"\r\nwith lace', "Skirt"]


def test_an_unknown_column_is_named_with_a_suggestion(
    database: Database, storage: LocalDisk, organization: Organization
) -> None:
    text = "sku,colour,Stock\nA-1,red,3\n"
    done = import_text(database, storage, organization, text, column_mapping={"Stock": None})
    assert done.problem is not None
    assert [(error["loc"], error["msg"]) for error in done.problem["errors"]] == [
        (["body", "colour"], "Unknown column; did you mean `color`?")
    ]


def test_a_file_with_too_many_rows_is_rejected(
    database: Database, storage: LocalDisk, organization: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.imports.rows.MAX_ROWS", 2)
    done = import_text(database, storage, organization, "sku,name\nA,a\nB,b\nC,c\n")
    assert done.problem is not None
    assert (done.problem["status"], done.problem["code"]) == (413, "too_large")


def test_validate_only_tells_what_would_be_done(
    database: Database, storage: LocalDisk, organization: Organization
) -> None:
    factories.make_product(organization=organization, sku="A-1", name="Old")
    text = "sku,name\nA-1,New\nA-2,New\nA-3,\n"
    done = import_text(database, storage, organization, text, validate_only=True)
    assert list_results(database, done.id) == [
        (2, "updated", None),
        (3, "created", None),
        (4, "failed", "invalid_request"),
    ]
    assert {sku: product.name for sku, product in list_products(database, organization).items()} == {
        "A-1": "Old"
    }


def test_groups_continue_where_the_last_one_ended(
    database: Database, storage: LocalDisk, organization: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "GROUP_ROWS", 2)
    # Each turn imports one group, and gives the import back.
    monkeypatch.setattr(worker, "SLICE_SECONDS", 0.0)
    lines = [f'S-{number},"Dress\n{number}"' for number in range(5)]
    done = import_text(database, storage, organization, "sku,name\n" + "\n".join(lines))
    assert (done.status, done.created_count) == ("completed", 5)
    assert [line for line, *_ in list_results(database, done.id)] == [2, 4, 6, 8, 10]


def test_tenants_take_turns_and_a_tenant_runs_one_import_at_a_time(
    database: Database, storage: LocalDisk, organization: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "GROUP_ROWS", 1)
    monkeypatch.setattr(worker, "SLICE_SECONDS", 0.0)
    order: list[str] = []
    original = ImportRunner._import_group

    def record_group(self: ImportRunner, lease: Any, rows: Any) -> None:
        order.extend(row.values["sku"] for row in rows)
        original(self, lease, rows)

    monkeypatch.setattr(ImportRunner, "_import_group", record_group)
    other = factories.make_organization()
    start_import(database, storage, organization, "sku,name\nA-1,a\nA-2,a\n")
    start_import(database, storage, organization, "sku,name\nB-1,b\n")
    start_import(database, storage, other, "sku,name\nC-1,c\nC-2,c\n")
    run_imports(database, storage)
    assert order == ["A-1", "C-1", "A-2", "C-2", "B-1"]


def test_a_group_ends_with_the_turn_of_its_import(
    database: Database, storage: LocalDisk, organization: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(worker, "time", SimpleNamespace(monotonic=lambda: now[0]))
    groups: list[list[str]] = []
    original = ImportRunner._import_group

    def record_group(self: ImportRunner, lease: Any, rows: Any) -> None:
        groups.append([row.values["sku"] for row in rows])
        original(self, lease, rows)

    def check_slowly(name: str, value: Any) -> list[dict[str, Any]]:
        # A row takes three seconds of a turn of ten.
        now[0] += 3 * (name == "ProductUpdate")
        return CHECK(name, value)

    monkeypatch.setattr(ImportRunner, "_import_group", record_group)
    start_import(database, storage, organization, "sku,name\n" + "".join(f"S-{n},a\n" for n in range(6)))
    ImportRunner(build_worker(database, storage), check_slowly).run_pending()
    assert groups == [["S-0", "S-1", "S-2", "S-3"], ["S-4", "S-5"]]


def test_a_row_with_thousands_of_mistakes_fails_quickly(
    database: Database, storage: LocalDisk, organization: Organization
) -> None:
    # 217 kB. Such a row took 0.3 to 0.5 s of CPU; now 0.02 s, or 0.06 s on a core with other work.
    wrong = {"sku": "S-1", "name": "x", "metadata": {f"k{number}": [1] for number in range(18_000)}}
    seconds = []
    for _ in range(5):
        start = time.thread_time()
        CHECK("ProductUpdate", wrong)
        seconds.append(time.thread_time() - start)
    assert min(seconds) <= 0.1
    start_import(database, storage, organization, json.dumps(wrong) + "\n", format="jsonl")
    run_imports(database, storage)
    with database.transaction(write=False) as reading:
        (row,) = reading.scalars(select(ProductImportResult))
        assert row.problem is not None
        assert (row.line, row.status, row.problem["detail"]) == (
            1,
            "failed",
            "The row does not match the contract: `metadata`",
        )
        assert [error["pointer"] for error in row.problem["errors"]] == [
            "/metadata",
            *(f"/metadata/k{number}" for number in range(19)),
        ]


def test_an_import_without_its_file_fails(
    database: Database, storage: LocalDisk, organization: Organization
) -> None:
    import_id = start_import(database, storage, organization, "sku,name\nA,a\n")
    storage.delete(data_file_key(get_import(database, import_id).file_id))
    assert run_imports(database, storage) == 0
    done = get_import(database, import_id)
    assert done.problem is not None
    assert (done.status, done.problem["code"]) == ("failed", "not_found")


def test_a_row_that_raises_fails_the_import_after_three_attempts(
    database: Database, storage: LocalDisk, organization: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(worker, "write_rows", fail)
    retry_after_seconds(monkeypatch, 0)
    import_id = start_import(database, storage, organization, "sku,name\nA,a\n")
    run_imports(database, storage)
    done = get_import(database, import_id)
    assert done.problem is not None
    assert (done.status, done.problem["code"], done.attempts) == ("failed", "internal_error", 3)


def test_an_expired_import_is_deleted_with_its_file(
    database: Database, storage: LocalDisk, organization: Organization
) -> None:
    stored = store_data_file(storage, io.BytesIO(b"sku,name\nA,a\n"))
    upload = factories.make_upload(
        organization=organization,
        content_type="text/csv",
        status=UploadStatus.INGESTED,
        file_id=stored.id,
        file_hash=stored.content_hash,
        expires_at=utc_now(),
    )
    waiting = factories.make_product_import(organization=organization, upload_id=upload.id, file_id=stored.id)
    delete_unreferenced(database, storage, utc_now())
    assert storage.exists(data_file_key(stored.id))
    with database.transaction(write=True) as session:
        session.get_one(ProductImport, waiting.id).expires_at = utc_now()  # unscoped: the one of this test
    delete_unreferenced(database, storage, utc_now())
    assert not storage.exists(data_file_key(stored.id))


def test_an_import_sends_one_event_and_its_products_none(
    database: Database, storage: LocalDisk, organization: Organization
) -> None:
    heard = ["import.completed", "import.failed", "product.created", "product.updated"]
    factories.make_webhook_endpoint(organization=organization, event_types=heard)
    factories.make_product(organization=organization, sku="A", name="Old")
    done = import_text(database, storage, organization, "sku,name\nA,a\nB,b\n")
    failed = import_text(database, storage, organization, "colour\nred\n")
    with database.transaction(write=False) as reading:
        payloads = reading.scalars(select(WebhookDelivery.payload).order_by(WebhookDelivery.id)).all()
    assert [(payload["type"], payload["data"]["id"]) for payload in payloads] == [
        ("import.completed", str(done.id)),
        ("import.failed", str(failed.id)),
    ]


def test_the_change_feed_lists_each_changed_product_once(
    database: Database, storage: LocalDisk, organization: Organization
) -> None:
    changed = factories.make_product(organization=organization, sku="A", name="Old")
    factories.make_product(organization=organization, sku="B", name="Same")
    with database.transaction(write=False) as reading:
        before = reading.scalar(select(func.max(Change.sequence)))
    import_text(database, storage, organization, "sku,name\nA,New\nB,Same\nC,New\n,Rejected\n")
    created = list_products(database, organization)["C"]
    query = select(Change.resource_id, Change.change).where(
        Change.resource_type == "product", Change.sequence > before
    )
    with database.transaction(write=False) as reading:
        changes = sorted((row.change, row.resource_id) for row in reading.execute(query))
    assert changes == [("created", created.id), ("updated", changed.id)]


def test_positions_are_exact_with_every_kind_of_line() -> None:
    text = '\ufeffa,b\r\n1,"x\ny"\n\n2,z\r\n3,"last"'.encode()
    records = list(reader.read_records(io.BytesIO(text), "csv", reader.Position()))
    assert [(record.line, list(record.cells)) for record in records] == [
        (1, ["a", "b"]),
        (2, ["1", "x\ny"]),
        (5, ["2", "z"]),
        (6, ["3", "last"]),
    ]
    for index, record in enumerate(records):
        rest = list(reader.read_records(io.BytesIO(text), "csv", record.end))
        assert rest == records[index + 1 :]
