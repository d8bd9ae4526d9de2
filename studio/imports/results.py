"""Write the results of an import as a CSV file, once, in pages of rows.

Cells that a spreadsheet would evaluate as formulas get an apostrophe (CSV injection, ASVS V1.2.10).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from typing import Any

import orjson
from sqlalchemy import Row, literal, select, tuple_

from db.errors import Conflict
from db.models.imports import ProductImport, ProductImportResult
from db.session import current_session
from studio.imports.create import OPEN
from studio.infrastructure.storage import Storage, import_results_key

COLUMNS = ("line", "external_id", "sku", "status", "product_id", "problem", "image_problems")
_PAGE_ROWS = 1_000
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


class ImportNotFinished(Conflict):
    """The import is pending or running, so its results are not complete."""

    code = "import_not_finished"
    default_detail = "The import is not finished"


def store_results_file(
    storage: Storage, product_import: ProductImport, build_problem: Callable[[dict[str, Any]], dict[str, Any]]
) -> str:
    """Return the key of the results of an import as a file, writing the file on its first use.

    Args:
        storage: The storage of the file.
        product_import: The import, visible to the caller.
        build_problem: Returns the problem document of a stored problem.

    Raises:
        ImportNotFinished: The import is pending or running.
    """
    if product_import.status in OPEN:
        raise ImportNotFinished()
    key = import_results_key(product_import.id)
    if not storage.exists(key):
        with storage.open_writer(key) as file:
            text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
            writer = csv.writer(text)
            writer.writerow(COLUMNS)
            for result in _iterate_results(product_import):
                problem = result.problem and orjson.dumps(build_problem(result.problem)).decode()
                images = [
                    each | {"problem": build_problem(each["problem"])} for each in result.image_problems or ()
                ]
                image_problems = orjson.dumps(images).decode() if images else None
                cells = (
                    result.external_id,
                    result.sku,
                    result.status,
                    result.product_id,
                    problem,
                    image_problems,
                )
                writer.writerow((result.line, *map(_escape_cell, cells)))
            text.detach()
    return key


def _iterate_results(product_import: ProductImport) -> Iterator[Row[Any]]:
    """Yield the results in the order of the lines, in pages: an import has up to 50,000."""
    table = ProductImportResult
    columns = (
        table.line,
        table.external_id,
        table.sku,
        table.status,
        table.product_id,
        table.problem,
        table.image_problems,
        table.created_at,
        table.id,
    )
    query = select(*columns).where(table.import_id == product_import.id)
    query = query.order_by(table.created_at, table.id).limit(_PAGE_ROWS)
    rows = current_session().execute(query).all()
    while rows:
        yield from rows
        last = rows[-1]
        after = tuple_(table.created_at, table.id) > tuple_(
            literal(last.created_at, table.created_at.type), literal(last.id, table.id.type)
        )
        rows = current_session().execute(query.where(after)).all()


def _escape_cell(value: object) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text
