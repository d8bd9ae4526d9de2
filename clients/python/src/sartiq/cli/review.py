"""`sartiq review`: list, approve and reject predictions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sartiq import APIError, Sartiq, models
from sartiq.cli.app import ID, with_client
from sartiq.cli.contact_sheet import SUFFIXES
from sartiq.cli.output import Output, describe_error, find_exit_code


def register(group: click.Group) -> None:
    """Add the commands."""
    group.add_command(review)


@click.group()
def review() -> None:
    """Review predictions."""


@review.command("list")
@click.option("--shooting", type=ID, metavar="ID", help="Only predictions of this shooting.")
@click.option(
    "--status",
    type=click.Choice(["pending_review", "approved", "rejected", "exported"]),
    default="pending_review",
    show_default=True,
)
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most this many.")
@click.option(
    "--save",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Save the images in this folder.",
)
@with_client
def list_predictions(
    client: Sartiq, output: Output, shooting: str | None, status: Any, limit: int, folder: Path | None
) -> None:
    """List predictions, newest first."""
    page = client.predictions.list_predictions(shooting_id=shooting, status=status, limit=min(limit, 100))
    found = [prediction for prediction, _ in zip(page, range(limit), strict=False)]
    saved = [save_image(client, prediction, folder) for prediction in found] if folder else []
    output.result(
        {"count": page.count, "predictions": found, "paths": [str(path) for path in saved]},
        *(describe(prediction) for prediction in found),
        f"{len(found)} of {page.count}" if found else f"No prediction is {status}.",
        *([f"Saved in {folder}"] if saved else []),
    )


def save_image(client: Sartiq, prediction: models.Prediction, folder: Path) -> Path:
    """Save the image of a prediction, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{prediction.id}{SUFFIXES.get(prediction.content_type, '.img')}"
    client.predictions.get_prediction_image(prediction.id).save(path)
    return path


@review.command()
@click.argument("predictions", nargs=-1, required=True, type=ID)
@click.option("--note", help="Note of the reviewer.")
@with_client
def approve(client: Sartiq, output: Output, predictions: tuple[str, ...], note: str | None) -> None:
    """Approve PREDICTIONS by their IDs. The last one of a shot wins."""
    latest: dict[str | None, models.Prediction] = {}

    def approve_one(entry: str) -> models.Prediction:
        approved = client.predictions.approve_prediction(entry, note=note)
        if (replaced := latest.get(approved.shot_id)) is not None and replaced.id != approved.id:
            output.note(f"{replaced.id} is open again: a shot has one approved prediction, now {approved.id}")
        latest[approved.shot_id] = approved
        return approved

    change_each(
        output,
        predictions,
        approve_one,
        lambda changed: [
            each if latest[each.shot_id] is each else client.predictions.get_prediction(each.id)
            for each in changed
        ],
    )


@review.command()
@click.argument("predictions", nargs=-1, required=True, type=ID)
@click.option("--reason", required=True, help="Reason, for the people who produce the next version.")
@with_client
def reject(client: Sartiq, output: Output, predictions: tuple[str, ...], reason: str) -> None:
    """Reject PREDICTIONS by their IDs."""
    change_each(output, predictions, lambda entry: client.predictions.reject_prediction(entry, reason=reason))


@review.command()
@click.argument("predictions", nargs=-1, required=True, type=ID)
@with_client
def reopen(client: Sartiq, output: Output, predictions: tuple[str, ...]) -> None:
    """Take back the decision about PREDICTIONS, by their IDs."""
    change_each(output, predictions, client.predictions.reopen_prediction)


def change_each(
    output: Output,
    predictions: tuple[str, ...],
    change: Callable[[str], models.Prediction],
    reload: Callable[[list[models.Prediction]], list[models.Prediction]] = list,
) -> None:
    """Change every prediction, also after one that is rejected; exit with the code of the last error.

    Args:
        output: Where the result is printed.
        predictions: Their IDs.
        change: Changes one of them.
        reload: Returns the final states, if a change may have changed an earlier one.
    """
    changed: list[models.Prediction] = []
    errors: list[dict[str, Any]] = []
    exit_code = 0
    for entry in predictions:
        try:
            changed.append(change(entry))
        except APIError as error:
            exit_code = find_exit_code(error)
            errors.append({"prediction_id": entry, **describe_error(error)})
    changed = reload(changed)
    output.result(
        {"predictions": changed, "errors": errors},
        *(describe(prediction) for prediction in changed),
    )
    for failure in errors:
        output.note(f"{failure['prediction_id']}  {failure['message']}")
    if exit_code:
        raise click.exceptions.Exit(exit_code)


def describe(prediction: models.Prediction) -> str:
    """Return one line about a prediction."""
    product = f"  {prediction.product.name}" if prediction.product else ""
    warnings = f"  {', '.join(prediction.warnings)}" if prediction.warnings else ""
    size = f"{prediction.width}x{prediction.height}"
    facts = f"{prediction.status:<14}  {size:<10}  {prediction.quality.score:.2f}"
    return f"{prediction.id}  {facts}{product}{warnings}"
