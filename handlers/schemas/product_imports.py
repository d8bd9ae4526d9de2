"""Serialize product imports and the results of their rows."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields

from db.models.imports import ImportStatus, ProductImport
from handlers.common.context import current_settings
from handlers.schemas.fields import OwnedSchema, SortedMap, Timestamp, Uuid


def build_problem(stored: dict[str, Any]) -> dict[str, Any]:
    """Return a stored problem as a problem document, with the URL of its type."""
    url = f"{current_settings().public_url}/api/v1/problems/{stored['code']}"
    return {
        "type": url,
        **{name: stored[name] for name in ("title", "status", "detail", "code", "errors")},
    }


def compute_progress(row: ProductImport) -> int:
    """Return the share of the rows and images that were processed, in percent."""
    if row.status == ImportStatus.COMPLETED:
        return 100
    done = row.created_count + row.updated_count + row.unchanged_count + row.failed_count
    done += row.image_added_count + row.image_unchanged_count + row.image_failed_count
    return 100 * done // (row.total_count + row.image_count) if row.total_count else 0


class StoredProblem(fields.Field[Any]):
    """A stored problem as a problem document, null if there is none."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> dict[str, Any] | None:
        return None if value is None else build_problem(value)


class StoredImageProblems(fields.Field[Any]):
    """The stored problems of the images of a row, with problem documents."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> list[dict[str, Any]]:
        return [{**each, "problem": build_problem(each["problem"])} for each in value or ()]


class ProductImportSchema(OwnedSchema):
    """An import with its progress."""

    format = fields.Raw()
    mode = fields.Raw()
    match_by = fields.Raw()
    column_mapping = SortedMap()
    empty_cells = fields.Raw()
    validate_only = fields.Raw()
    status = fields.Raw()
    progress = fields.Function(compute_progress)
    total_count = fields.Raw()
    created_count = fields.Raw()
    updated_count = fields.Raw()
    unchanged_count = fields.Raw()
    failed_count = fields.Raw()
    image_count = fields.Raw()
    image_added_count = fields.Raw()
    image_unchanged_count = fields.Raw()
    image_failed_count = fields.Raw()
    problem = StoredProblem()
    completed_at = Timestamp()
    expires_at = Timestamp()


class ProductImportResultSchema(Schema):
    """The result of one row."""

    id = Uuid()
    created_at = Timestamp()
    line = fields.Raw()
    external_id = fields.Raw()
    sku = fields.Raw()
    status = fields.Raw()
    product_id = Uuid()
    problem = StoredProblem()
    image_problems = StoredImageProblems()
