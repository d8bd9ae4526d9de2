"""`sartiq shoot`: from a photo of a product to images of it."""

from __future__ import annotations

import time
from pathlib import Path

import click

from sartiq import OMIT, JobFailedError, Sartiq, WaitTimeoutError, models
from sartiq.cli.app import with_client
from sartiq.cli.contact_sheet import draw_contact_sheet
from sartiq.cli.output import Output

# The first of these that the server has, if no shot type is chosen.
SHOT_TYPES = ("front-packshot", "packshot")
SUFFIXES = {"image/jpeg": ".jpg", "image/png": ".png", "image/webp": ".webp", "image/avif": ".avif"}


def register(group: click.Group) -> None:
    """Add the command."""
    group.add_command(shoot)


@click.command(short_help="Make images of a product from photos.")
@click.argument(
    "photos", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--background", help="Color (`white`, `#F0EDE8`) or name of a background preset.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("sartiq-images"),
    show_default=True,
    help="Folder for the images.",
)
@click.option(
    "--images", type=click.IntRange(1, 8), default=4, show_default=True, help="Images per shot type."
)
@click.option("--shot-type", "slugs", multiple=True, metavar="SLUG", help="Shot type; can be repeated.")
@click.option("--name", help="Name of the product; by default that of the file.")
@click.option("--sku", help="SKU of the product.")
@click.option("--width", type=int, help="Width of the images in pixels.")
@click.option("--height", type=int, help="Height of the images in pixels.")
@click.option("--seed", type=int, help="Seed, for the same images again.")
@click.option("--timeout", type=float, default=600, show_default=True, help="Seconds to wait.")
@with_client
def shoot(
    client: Sartiq,
    output: Output,
    photos: tuple[Path, ...],
    background: str | None,
    out: Path,
    images: int,
    slugs: tuple[str, ...],
    name: str | None,
    sku: str | None,
    width: int | None,
    height: int | None,
    seed: int | None,
    timeout: float,
) -> None:
    """Make images of a product from PHOTOS of it, the main one first.

    Creates a product, a shooting and a look, generates images for each shot type, and saves them with a
    contact sheet in a folder. Each image costs one credit.
    """
    out.mkdir(parents=True, exist_ok=True)
    shot_types = find_shot_types(client, slugs)
    title = name or photos[0].stem.replace("-", " ").replace("_", " ").strip()[:80] or "Product"
    product = client.products.create_product(name=title, sku=sku if sku is not None else OMIT)
    for number, photo in enumerate(photos):
        client.products.add_product_image(product.id, file=photo, type="detail" if number else "primary")
    output.note(f'Product "{product.name}", {len(photos)} {"photo" if len(photos) == 1 else "photos"}')
    shooting = client.shootings.create_shooting(name=f"{title}, {time.strftime('%Y-%m-%d %H:%M')}")
    look = client.shootings.create_look(
        shooting.id, main_product_id=product.id, shot_type_ids=[shot_type.id for shot_type in shot_types]
    )
    requested = [
        client.generations.create_generation(
            shot_id=shot.id,
            background=background,
            batch_size=images,
            width=width,
            height=height,
            seed=seed,
        )
        for shot in look.shots
    ]
    generations = wait_for_all(client, output, requested, timeout)
    labels = {shot.id: next(t for t in shot_types if t.id == shot.shot_type_id) for shot in look.shots}
    saved = save_images(client, output, generations, labels, out)
    best = max((prediction for _, prediction, _ in saved), key=lambda prediction: prediction.quality.score)
    sheet = draw_contact_sheet(photos[0], saved, title, out / "contact-sheet.jpg")
    output.result(
        {
            "product_id": product.id,
            "shooting_id": shooting.id,
            "generation_ids": [generation.id for generation in generations],
            "images": [
                {
                    "path": str(path),
                    "prediction_id": prediction.id,
                    "quality": prediction.quality.score,
                    "warnings": prediction.warnings,
                }
                for path, prediction, _ in saved
            ],
            "contact_sheet": str(sheet),
        },
        *(describe_image(path, prediction) for path, prediction, _ in saved),
        f"Contact sheet: {sheet}",
        f"Next: sartiq review approve {best.id}, then sartiq export {shooting.id}",
    )


def describe_image(path: Path, prediction: models.Prediction) -> str:
    """Return one line about an image."""
    warnings = f", {', '.join(prediction.warnings)}" if prediction.warnings else ""
    return f"{path}  {prediction.id}  quality {prediction.quality.score:.2f}{warnings}"


def find_shot_types(client: Sartiq, slugs: tuple[str, ...]) -> list[models.ShotType]:
    """Return the chosen shot types, in their order, or one that suits every product.

    Raises:
        click.UsageError: The server has no such shot type.
    """
    known = {entry.slug: entry for entry in client.shot_types.list_shot_types(include_public=True)}
    if missing := [slug for slug in slugs if slug not in known]:
        raise click.UsageError(f"There is no shot type {missing[0]}. These exist: {', '.join(sorted(known))}")
    if not known:
        raise click.UsageError("The server has no shot types.")
    chosen = slugs or [next((slug for slug in SHOT_TYPES if slug in known), next(iter(known)))]
    return [known[slug] for slug in dict.fromkeys(chosen)]


def wait_for_all(
    client: Sartiq, output: Output, requested: list[models.Generation], timeout: float
) -> list[models.Generation]:
    """Wait for all generations with one progress bar. They run at the same time on the server.

    Raises:
        JobFailedError: One of them failed.
        WaitTimeoutError: One of them did not end in time.
    """
    deadline = time.monotonic() + timeout
    done: list[models.Generation] = []
    with output.progress("Generating") as show:
        for generation in requested:

            def show_all(state: models.Generation) -> None:
                show((len(done) * 100 + state.progress) / len(requested))

            try:
                left = max(1.0, deadline - time.monotonic())
                done.append(client.wait(generation, on_progress=show_all, timeout=left))
            except (JobFailedError, WaitTimeoutError) as error:
                error.add_note(f"Generation {generation.id}")
                raise
            show(len(done) * 100 / len(requested))
    return done


def save_images(
    client: Sartiq,
    output: Output,
    generations: list[models.Generation],
    labels: dict[str, models.ShotType],
    out: Path,
) -> list[tuple[Path, models.Prediction, str]]:
    """Download all images and return their paths, each with its prediction and the label of its shot type."""
    saved = []
    for generation in generations:
        shot_type = labels[generation.shot_id or ""]
        for prediction in generation.predictions:
            suffix = SUFFIXES.get(prediction.content_type, ".img")
            path = out / f"{shot_type.slug}-{prediction.index + 1}{suffix}"
            client.predictions.get_prediction_image(prediction.id).save(path)
            saved.append((path, prediction, shot_type.label))
    return saved
