"""`sartiq export`: an archive of the approved images of a shooting."""

from __future__ import annotations

from pathlib import Path

import click

from sartiq import OMIT, Sartiq, models
from sartiq.cli.app import ID, TIMEOUT, with_client
from sartiq.cli.output import Output


def register(group: click.Group) -> None:
    """Add the command."""
    group.add_command(export)


@click.command(short_help="Download the approved images.")
@click.argument("shooting", type=ID)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path(), help="File or folder; by default this folder."
)
@click.option("--name-template", help="Template of the file names, such as `{sku}_{shot_type}`.")
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
    timeout: float,
) -> None:
    """Export the approved images of a SHOOTING and download the archive.

    `sartiq shootings list` prints the IDs of shootings. Images that were exported before are left out.
    """
    job = client.exports.create_export(
        shooting,
        name_template=OMIT if name_template is None else name_template,
        destination_id=OMIT if destination is None else destination,
    )
    with output.progress("Exporting") as show:

        def show_state(state: models.Export) -> None:
            show(state.progress)

        job = client.wait(job, on_progress=show_state, timeout=timeout)
        show(100)
    download = client.exports.download_export(job.id)
    path = out / (download.file_name or f"{job.id}.zip") if out.is_dir() else out
    path.parent.mkdir(parents=True, exist_ok=True)
    download.save(path)
    count = f"{job.predictions_count} {'image' if job.predictions_count == 1 else 'images'}"
    output.result(
        {"export": job, "path": str(path)},
        f"{path}: {count}, {job.file_size or 0:,} bytes, SHA-256 {job.content_hash}",
    )
