"""`sartiq export`: an archive of the approved images of a shooting."""

from __future__ import annotations

import re
from pathlib import Path

import click

from sartiq import OMIT, APIError, Sartiq, SartiqError, models
from sartiq.cli.app import ID, TIMEOUT, with_client
from sartiq.cli.output import Output

# Those of the pattern in the contract, which a test compares
PLACEHOLDERS = tuple(
    f"{{{name}}}" for name in ("product", "sku", "shot_type", "look", "index", "shooting", "prediction")
)


def register(group: click.Group) -> None:
    """Add the command."""
    group.add_command(export)


def check_template(context: click.Context, parameter: click.Parameter, template: str | None) -> str | None:
    """Return the template.

    Raises:
        click.BadParameter: It has a placeholder that does not exist.
    """
    if unknown := [name for name in re.findall(r"{[^{}]*}", template or "") if name not in PLACEHOLDERS]:
        known = ", ".join(PLACEHOLDERS)
        raise click.BadParameter(f"There is no {unknown[0]}. These exist: {known}", context, parameter)
    return template


@click.command(short_help="Download the approved images.")
@click.argument("shooting", type=ID)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path(), help="File or folder; by default this folder."
)
@click.option(
    "--name-template",
    callback=check_template,
    help=f"Template of the file names, such as {{sku}}_{{shot_type}}. It may have {', '.join(PLACEHOLDERS)}.",
)
@click.option("--last", is_flag=True, help="Download the last export of the shooting instead of a new one.")
@click.option("--destination", type=ID, metavar="ID", help="Deliver the files to this destination, too.")
@click.option("--timeout", type=TIMEOUT, default=600, show_default=True, help="Seconds to wait.")
@with_client
def export(
    client: Sartiq,
    output: Output,
    shooting: str,
    out: Path,
    name_template: str | None,
    destination: str | None,
    last: bool,
    timeout: float,
) -> None:
    """Export the approved images of a SHOOTING and download the archive.

    `sartiq shootings list` prints the IDs of shootings. Images that were exported before are left out;
    --last downloads their archive again.
    """
    if last and (name_template is not None or destination is not None):
        raise click.UsageError("--last downloads an archive as it is: pass no template and no destination.")
    try:
        job = (
            find_last(client, shooting)
            if last
            else start_export(client, shooting, name_template, destination)
        )
        path = download_export(client, output, job, out, timeout)
    except (SartiqError, KeyboardInterrupt) as error:
        is_empty = isinstance(error, APIError) and error.code == "nothing_to_export"
        if is_empty and find_newest(client, shooting) is None:
            error.add_note(f"To find predictions to approve: sartiq review list --shooting {shooting}")
        elif not last and (is_empty or not isinstance(error, APIError)):
            error.add_note(f"To download the last export of the shooting: sartiq export {shooting} --last")
        raise
    job = client.exports.get_export(job.id)
    count = f"{job.predictions_count} {'image' if job.predictions_count == 1 else 'images'}"
    output.result(
        {"export": job, "path": str(path)},
        f"{path}: {count}, {job.file_size or 0:,} bytes, SHA-256 {job.content_hash}",
    )


def start_export(
    client: Sartiq, shooting: str, name_template: str | None, destination: str | None
) -> models.Export:
    """Request an archive."""
    return client.exports.create_export(
        shooting,
        name_template=OMIT if name_template is None else name_template,
        destination_id=OMIT if destination is None else destination,
    )


def find_last(client: Sartiq, shooting: str) -> models.Export:
    """Return the newest export of a shooting.

    Raises:
        click.UsageError: There is none.
    """
    if (found := find_newest(client, shooting)) is None:
        raise click.UsageError("The shooting has no export yet: leave out --last.")
    return found


def find_newest(client: Sartiq, shooting: str) -> models.Export | None:
    """Return the newest export of a shooting, if there is one."""
    return next(iter(client.exports.list_exports(shooting_id=shooting, limit=1).data), None)


def download_export(client: Sartiq, output: Output, job: models.Export, out: Path, timeout: float) -> Path:
    """Wait for an archive, save it, and return its path."""
    with output.progress("Exporting") as show:

        def show_state(state: models.Export) -> None:
            show(state.progress)

        job = client.wait(job, on_progress=show_state, timeout=timeout)
        show(100)
    download = client.exports.download_export(job.id)
    path = out / (download.file_name or f"{job.id}.zip") if out.is_dir() else out
    path.parent.mkdir(parents=True, exist_ok=True)
    download.save(path)
    return path
