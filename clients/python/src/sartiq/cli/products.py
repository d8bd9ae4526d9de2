"""`sartiq products import`: create and update products from a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import click

from sartiq import JobFailedError, Sartiq, models
from sartiq._waiting import describe_violations
from sartiq.cli.app import TIMEOUT, with_client
from sartiq.cli.output import Output

FORMATS: dict[str, Literal["csv", "jsonl"]] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
MAX_SHOWN = 20
# What the API calls the options of the command
OPTIONS = {
    "with null in `column_mapping`": "with --column '{column}='",
    "the import has no `images_zip_url`": "there is no ZIP file (--images)",
    "The ZIP file of `images_zip_url`": "The ZIP file",
    "The file of `images_zip_url`": "The file of --images",
}
PARTLY_FAILED = 6


def register(group: click.Group) -> None:
    """Add the commands."""
    group.add_command(products)


def read_columns(
    context: click.Context, parameter: click.Parameter, columns: Sequence[str]
) -> dict[str, str | None]:
    """Return the property of each named column, None for columns to ignore.

    Raises:
        click.BadParameter: An argument has no `=`.
    """
    mapping: dict[str, str | None] = {}
    for column in columns:
        # Titles may contain the sign, names of properties do not.
        title, sign, name = column.rpartition("=")
        if not sign:
            raise click.BadParameter(f"{column!r} must have the form TITLE=PROPERTY.", context, parameter)
        mapping[title] = name or None
    return mapping


@click.group()
def products() -> None:
    """Import products."""


@products.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--images",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="ZIP file with the images that the file names.",
)
@click.option("--mode", type=click.Choice(["upsert", "create"]), default="upsert", show_default=True)
@click.option(
    "--match-by",
    type=click.Choice(["external_id", "sku"]),
    default="sku",
    show_default=True,
    help="What identifies a product.",
)
@click.option(
    "--column",
    "column_mapping",
    multiple=True,
    callback=read_columns,
    metavar="TITLE=PROPERTY",
    help="What a column contains, for example 'Article number=sku'; 'Stock=' ignores it. Repeatable.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done and change nothing.")
@click.option(
    "--results", type=click.Path(dir_okay=False, path_type=Path), help="Save the result of each row as CSV."
)
@click.option("--timeout", type=TIMEOUT, default=3600, show_default=True, help="Seconds to wait.")
@with_client
def import_products(
    client: Sartiq,
    output: Output,
    file: Path,
    images: Path | None,
    mode: Literal["upsert", "create"],
    match_by: Literal["external_id", "sku"],
    column_mapping: dict[str, str | None],
    dry_run: bool,
    results: Path | None,
    timeout: float,
) -> None:
    """Create and update products from a CSV or JSON Lines FILE.

    Waits until the import has ended, and exits with 6 if rows or images failed.
    """
    form = FORMATS.get(file.suffix.lower())
    if form is None:
        raise click.UsageError(f"{file.name} must end in .csv or .jsonl. Save a spreadsheet as CSV in UTF-8.")
    if file.stat().st_size == 0:
        raise click.UsageError(f"{file.name} is empty.")
    output.note(f"Uploading {file.name}. The import starts when earlier ones of the organization have ended.")
    file_url = client.upload(file)
    zip_url = client.upload(images, content_type="application/zip") if images else None
    job = client.product_imports.create_product_import(
        file_url=file_url,
        format=form,
        mode=mode,
        match_by=match_by,
        column_mapping=column_mapping,
        validate_only=dry_run,
        images_zip_url=zip_url,
    )
    job = wait_for_import(client, output, job, timeout)
    failed = [] if not has_failures(job) else list(read_failures(client, job))
    if results is not None:
        client.product_imports.download_product_import_results(job.id).save(results)
    output.result(
        {"import": job, "failures": failed},
        *describe_counts(job, dry_run),
        *(f"  line {row.line}: {describe_failure(row)}" for row in failed[:MAX_SHOWN]),
        *([f"  and {len(failed) - MAX_SHOWN} more; --results saves all"] if len(failed) > MAX_SHOWN else []),
    )
    if failed:
        raise click.exceptions.Exit(PARTLY_FAILED)


def wait_for_import(
    client: Sartiq, output: Output, job: models.ProductImport, timeout: float
) -> models.ProductImport:
    """Wait for an import, and say what it waits for.

    Raises:
        JobFailedError: It failed; with one violation in each line.
    """
    told: set[str] = set()

    def tell(text: str) -> None:
        if text not in told:
            told.add(text)
            output.note(text)

    with output.progress("Importing") as show:

        def show_state(state: models.ProductImport) -> None:
            show(state.progress)
            missing = (
                state.image_count
                - state.image_added_count
                - state.image_unchanged_count
                - state.image_failed_count
            )
            if missing and state.progress > 0:
                tell("Adding images. A server that does not respond is asked again for two minutes.")

        try:
            job = client.wait(job, on_progress=show_state, timeout=timeout)
        except JobFailedError as error:
            failed: models.ProductImport = error.resource
            if failed.problem is None:
                raise
            lines = "\n".join(f"  {translate(text)}" for text in describe_violations(failed.problem))
            raise JobFailedError(f"The import failed:\n{lines}", failed) from error
        show(100)
    return job


def translate(text: str) -> str:
    """Return a violation, `COLUMN: message`, with the options of the command instead of properties."""
    column = text.partition(": ")[0]
    for name, option in OPTIONS.items():
        text = text.replace(name, option.format(column=column))
    return text


def has_failures(job: models.ProductImport) -> bool:
    """Return whether a row or an image failed."""
    return job.failed_count + job.image_failed_count > 0


def read_failures(client: Sartiq, job: models.ProductImport) -> list[models.ProductImportResult]:
    """Return the rows that failed or have a failed image."""
    if not job.image_failed_count:
        return list(client.product_imports.list_product_import_results(job.id, status="failed", limit=100))
    rows = client.product_imports.list_product_import_results(job.id, limit=100)
    return [row for row in rows if row.status == "failed" or row.image_problems]


def describe_counts(job: models.ProductImport, dry_run: bool) -> list[str]:
    """Return the numbers of an import: a line for the products, and one for their images."""
    prefix = "Dry run, " if dry_run else ""
    counts = f"{job.created_count} created, {job.updated_count} updated"
    lines = [f"{prefix}products: {counts}, {job.unchanged_count} unchanged, {job.failed_count} failed"]
    if job.image_count:
        counts = f"{job.image_added_count} added, {job.image_unchanged_count} unchanged"
        lines.append(f"{prefix}images: {counts}, {job.image_failed_count} failed")
    return [line[0].upper() + line[1:] for line in lines]


def describe_failure(row: models.ProductImportResult) -> str:
    """Return why a row or its images failed."""
    problems = [translate(text) for text in describe_violations(row.problem)] if row.problem else []
    problems += [f"{item.image_url}: {item.problem.detail}" for item in row.image_problems]
    return f"{row.sku or row.external_id or ''} {'; '.join(problems)}".strip()
