"""Turn the records of a file into values of product properties, and check them with the contract.

A row that is rejected keeps its problem; nothing here raises for a row. What is wrong with the whole file,
such as an unknown column, raises once. Reads no rows of the database.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from db.errors import ExternalIdTaken, SkuTaken
from studio.imports.image_sources import (
    IMAGE_PROPERTIES,
    MAX_IMAGES,
    ImageSource,
    count_images,
    read_images,
)
from studio.imports.problems import (
    FindViolations,
    ImportFileError,
    StoredProblem,
    build_problem,
    describe_error,
    describe_violation,
    describe_violations,
)
from studio.imports.reader import MAX_ROWS, Position, Record, read_records

PROPERTIES = (
    "external_id", "sku", "name", "description", "category", "gender", "materials", "color", "brand_id",
    "state",
)  # fmt: skip
"""The properties of products that a file can set, beside keys of `metadata` and images."""
COLUMNS = (*PROPERTIES, *IMAGE_PROPERTIES)
METADATA_PREFIX = "metadata."
"""The start of the names of columns that set one key of `metadata`."""
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
"""What separates columns in files that look like CSV."""
UNIQUE_PROPERTIES = {"external_id": ExternalIdTaken, "sku": SkuTaken}
"""The properties that identify a product in its tenant, with the error for a value in use."""


@dataclass(frozen=True)
class ImportOptions:
    """How the rows of a file are read."""

    format: str
    mode: str
    match_by: str
    column_mapping: Mapping[str, str | None]
    empty_cells: str


@dataclass
class Row:
    """A row of the file: the values of its properties, or why it is rejected."""

    line: int
    end: Position
    values: dict[str, Any] = field(default_factory=dict)
    images: Sequence[ImageSource] = ()
    problem: StoredProblem | None = None

    def get_text(self, name: str, length: int) -> str | None:
        """Return a text as results show it: without NUL, and truncated; None for other values."""
        value = self.values.get(name)
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}")[:length] if isinstance(value, str) else None


@dataclass(frozen=True)
class FileSummary:
    """What one pass over a file finds."""

    first: Position
    """The position of the first row."""
    total_count: int
    columns: tuple[str | None, ...]
    """The property of each column of a CSV file; None for an ignored one."""
    repeated: Mapping[int, tuple[str, int]]
    """By line: the unique property whose value an earlier row has, and the line of that row."""


def summarize_file(path: Path, options: ImportOptions) -> FileSummary:
    """Read a file once without keeping its rows, to know what is wrong with it before the first write.

    Raises:
        ImportFileError: The file cannot be imported.
    """
    with path.open("rb") as file:
        records = read_records(file, options.format, Position())
        first = Position()
        columns: tuple[str | None, ...] = ()
        if options.format == "csv":
            first, columns = _read_header(records, options)
        count, repeated = _scan_rows(records, columns, options)
    return FileSummary(first, count, columns, repeated)


def _read_header(
    records: Iterator[Record], options: ImportOptions
) -> tuple[Position, tuple[str | None, ...]]:
    header = next(records, None)
    if header is None:
        raise ImportFileError(build_problem(400, "malformed_request", "The file is empty: it needs a header"))
    return header.end, _resolve_columns(header.cells, options)


def _scan_rows(
    records: Iterator[Record], columns: Sequence[str | None], options: ImportOptions
) -> tuple[int, dict[int, tuple[str, int]]]:
    """Return the number of rows, and the repeated values as in `FileSummary`."""
    seen: dict[tuple[str, str], int] = {}
    repeated: dict[int, tuple[str, int]] = {}
    count = image_count = 0
    for count, record in enumerate(records, 1):
        if count > MAX_ROWS:
            detail = f"The file has more than {MAX_ROWS:,} rows: split it"
            raise ImportFileError(build_problem(413, "too_large", detail))
        values = _read_values(record, columns, options) or {}
        image_count += count_images(values)
        if image_count > MAX_IMAGES:
            detail = f"The file names more than {MAX_IMAGES:,} images: split it"
            raise ImportFileError(build_problem(413, "too_large", detail))
        keys = [(name, values[name]) for name in UNIQUE_PROPERTIES if isinstance(values.get(name), str)]
        lines = [(name, seen.setdefault((name, value), record.line)) for name, value in keys]
        if earlier := [(name, line) for name, line in lines if line != record.line]:
            repeated[record.line] = earlier[0]
    return count, repeated


def read_rows(
    path: Path,
    options: ImportOptions,
    summary: FileSummary,
    start: Position,
    find_violations: FindViolations,
    file_names: Set[str] | None = None,
) -> Iterator[Row]:
    """Yield the rows of a file from a position on, checked with the contract.

    Args:
        path: The file.
        options: How its rows are read.
        summary: What `summarize_file` found.
        start: The position.
        find_violations: Checks a value with a schema of the contract.
        file_names: The names of the images in the ZIP file of the import; None if it has none.

    Raises:
        ImportFileError: The file cannot be read to its end.
    """
    with path.open("rb") as file:
        for record in read_records(file, options.format, start):
            yield _build_row(record, options, summary, find_violations, file_names)


def _build_row(
    record: Record,
    options: ImportOptions,
    summary: FileSummary,
    find_violations: FindViolations,
    file_names: Set[str] | None,
) -> Row:
    values = _read_values(record, summary.columns, options)
    if not isinstance(values, dict):
        return Row(record.line, record.end, problem=_explain_unreadable(record, summary))
    images = {name: values.pop(name) for name in IMAGE_PROPERTIES if name in values}
    row = Row(record.line, record.end, values)
    errors = [*_find_unknown(values), *find_violations("ProductUpdate", values)]
    if images:
        row.images, more = read_images(images, options.format == "csv", file_names, find_violations)
        errors += more
    if errors:
        row.problem = describe_violations(errors)
    elif options.mode == "upsert" and values.get(options.match_by) is None:
        missing = f"Is required: rows are matched by `{options.match_by}`"
        row.problem = describe_violations([describe_violation(options.match_by, missing, "missing")])
    elif record.line in summary.repeated:
        name, line = summary.repeated[record.line]
        row.problem = describe_error(UNIQUE_PROPERTIES[name](), f"Line {line} has the same `{name}`")
    return row


def _find_unknown(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a violation for each property that an update accepts and an import does not."""
    return [
        describe_violation(name, "Cannot be imported", "extra_forbidden")
        for name in ("public", "cover_image")
        if name in values
    ]


def _read_values(
    record: Record, columns: Sequence[str | None], options: ImportOptions
) -> dict[str, Any] | None:
    """Return the values of a record by property, None if it has not the form of a row."""
    if options.format == "csv":
        if len(record.cells) != len(columns):
            return None
        keeps_empty = options.empty_cells == "keep"
        cells = zip(columns, record.cells, strict=True)
        named = [(name, cell or None) for name, cell in cells if cell or not keeps_empty]
    elif isinstance(record.value, dict):
        named = [(options.column_mapping.get(name, name), value) for name, value in record.value.items()]
    else:
        return None
    values: dict[str, Any] = {name: value for name, value in named if name is not None}
    keys = [name for name in values if name.startswith(METADATA_PREFIX)]
    if keys:
        pairs = {name.removeprefix(METADATA_PREFIX): values.pop(name) for name in keys}
        # A value that is no object is rejected with the other violations.
        given: Any = values.get("metadata", {})
        values["metadata"] = {**given, **pairs} if isinstance(given, dict) else given
    return values


def _explain_unreadable(record: Record, summary: FileSummary) -> StoredProblem:
    if summary.columns:
        detail = f"The row has {len(record.cells)} cells, and the header has {len(summary.columns)}"
        return build_problem(422, "invalid_request", detail)
    return build_problem(400, "malformed_request", "The line is not a JSON object")


def _resolve_columns(header: Sequence[str], options: ImportOptions) -> tuple[str | None, ...]:
    """Return the property of each column of a CSV file.

    Raises:
        ImportFileError: A column is unknown or repeated, or the one that rows are matched by is missing.
    """
    titles = [title.strip() for title in header]
    _require_commas(titles, options)
    columns = tuple(options.column_mapping.get(title, title) for title in titles)
    errors = [
        describe_violation(title, _explain_unknown(title, name), "extra_forbidden")
        for title, name in zip(titles, columns, strict=True)
        if name and name not in COLUMNS and not name.startswith(METADATA_PREFIX)
    ]
    errors += [
        describe_violation(f"column {number}", "Has no name: name it, or remove the column", "missing")
        for number, name in enumerate(columns, 1)
        if name == ""
    ]
    errors += [
        describe_violation(title, "Is in `column_mapping`, and the file has no such column", "missing")
        for title in options.column_mapping
        if title not in titles
    ]
    used = [name for name in columns if name]
    repeated = dict.fromkeys(name for name in used if used.count(name) > 1)
    errors += [describe_violation(name, "Has more than one column", "repeated") for name in repeated]
    if options.mode == "upsert" and options.match_by not in used:
        errors.append(describe_violation(options.match_by, "Is required: rows are matched by it", "missing"))
    if errors:
        names = ", ".join(f"`{error['loc'][1]}`" for error in errors)
        detail = f"The columns of the file do not match the properties of products: {names}"
        raise ImportFileError(build_problem(422, "invalid_request", detail, errors))
    return columns


def _require_commas(titles: Sequence[str], options: ImportOptions) -> None:
    """Check that other characters do not separate the columns, as spreadsheets write them in some countries.

    Raises:
        ImportFileError: The header is one column with such a character.
    """
    title = titles[0]
    separator = next((name for character, name in SEPARATORS.items() if character in title), None)
    if len(titles) == 1 and separator is not None and title not in options.column_mapping:
        detail = f"The header is one column with {separator} in its name: separate the columns with commas"
        raise ImportFileError(build_problem(422, "invalid_request", detail))


def _explain_unknown(title: str, name: str) -> str:
    words = name[:100].strip().replace(" ", "_").replace("-", "_").lower()
    similar = difflib.get_close_matches(words, COLUMNS, n=1, cutoff=0.75)
    hint = f"did you mean `{similar[0]}`?" if similar else "ignore it with null in `column_mapping`"
    return f"Unknown column; {hint}" if title == name else f"Unknown property `{name[:60]}`; {hint}"
