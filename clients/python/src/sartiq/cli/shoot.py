"""`sartiq shoot`: from a photo of a product to images of it."""

from __future__ import annotations

import contextlib
import difflib
import time
from pathlib import Path
from typing import TypedDict

import click
from PIL import ImageColor

from sartiq import OMIT, ConflictError, PermissionDeniedError, Sartiq, SartiqError, WaitTimeoutError, models
from sartiq._waiting import describe_timeout
from sartiq.cli.app import TIMEOUT, with_client
from sartiq.cli.contact_sheet import SUFFIXES, draw_contact_sheet
from sartiq.cli.output import Output
from sartiq.cli.session import is_id

# The first of these that the server has, if no shot type is chosen.
SHOT_TYPES = ("front-packshot", "packshot")
SIZE = click.IntRange(64, 8192)


class Wishes(TypedDict):
    """What the user wants of each generation."""

    background: str | None
    batch_size: int
    width: int | None
    height: int | None
    seed: int | None


def register(group: click.Group) -> None:
    """Add the command."""
    group.add_command(shoot)


@click.command(short_help="Make images of a product from photos.")
@click.argument("photos", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--background",
    help="Color (`white`, `#F0EDE8`), name of a background preset, or a description for a generative model; "
    "by default that of the brand's guidelines.",
)
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
@click.option(
    "--shot-type",
    "slugs",
    multiple=True,
    metavar="SLUG",
    help="Shot type, by default a front packshot; can be repeated. A wrong one lists all.",
)
@click.option("--product", "wanted", metavar="SKU|ID", help="Use this product instead of a new one.")
@click.option("--name", help="Name of the new product; by default that of the file.")
@click.option("--sku", help="SKU of the new product.")
@click.option("--width", type=SIZE, help="Width of the images in pixels; by default that of the studio.")
@click.option("--height", type=SIZE, help="Height of the images in pixels.")
@click.option("--seed", type=int, help="Seed, for the same images again.")
@click.option("--timeout", type=TIMEOUT, default=600, show_default=True, help="Seconds to wait.")
@with_client
def shoot(
    client: Sartiq,
    output: Output,
    photos: tuple[Path, ...],
    background: str | None,
    out: Path,
    images: int,
    slugs: tuple[str, ...],
    wanted: str | None,
    name: str | None,
    sku: str | None,
    width: int | None,
    height: int | None,
    seed: int | None,
    timeout: float,
) -> None:
    """Make images of a product from PHOTOS of it, the main one first.

    Creates a product, a shooting and a look, generates images for each shot type, and saves them with a
    contact sheet in a folder. Each image costs one credit. With --product, PHOTOS are added to a product
    that exists, or its own photos are used.
    """
    if wanted is None and not photos:
        raise click.UsageError("Pass a photo, or --product.")
    if wanted is not None and (sku is not None or name is not None):
        raise click.UsageError("--sku and --name are for a new product: pass them without --product.")
    out.mkdir(parents=True, exist_ok=True)
    check_background(client, output, background)
    shot_types = find_shot_types(client, slugs)
    wishes: Wishes = {
        "background": background, "batch_size": images, "width": width, "height": height, "seed": seed,
    }  # fmt: skip
    product = find_product(client, wanted) if wanted else create_product(client, photos[0], name, sku)
    try:
        add_photos(client, product, photos)
        # Nothing else is created if the server would not generate images.
        client.generations.create_generation(
            product_id=product.id, shot_type_id=shot_types[0].id, validate_only=True, **wishes
        )
    except SartiqError:
        if wanted is None:  # so that the corrected command can use the same SKU
            with contextlib.suppress(SartiqError):
                client.products.delete_product(product.id)
        raise
    output.note(f'Product "{product.name}", {describe_photos(len(photos))}')
    now = time.strftime("%Y-%m-%d %H:%M")
    shooting = client.shootings.create_shooting(name=f"{product.name[:100]}, {now}")
    try:
        look = client.shootings.create_look(
            shooting.id, main_product_id=product.id, shot_type_ids=[shot_type.id for shot_type in shot_types]
        )
        requested = [client.generations.create_generation(shot_id=shot.id, **wishes) for shot in look.shots]
        generations = wait_for_all(client, output, requested, timeout)
    except (SartiqError, KeyboardInterrupt) as error:
        error.add_note(
            f"What the server has started continues. List and save the images with: "
            f"sartiq review list --shooting {shooting.id} --save {out}"
        )
        raise
    labels = {shot.id: next(t for t in shot_types if t.id == shot.shot_type_id) for shot in look.shots}
    saved = save_images(client, output, generations, labels, out)
    best = max((prediction for _, prediction, _ in saved), key=lambda prediction: prediction.quality.score)
    sheet = draw_contact_sheet(photos[0] if photos else None, saved, product.name, out / "contact-sheet.jpg")
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


def describe_photos(count: int) -> str:
    """Return how many photos the command added."""
    return {0: "with its photos", 1: "1 photo"}.get(count, f"{count} photos")


def check_background(client: Sartiq, output: Output, background: str | None) -> None:
    """Say what a background that is neither a color nor a preset does, before images are paid for.

    Raises:
        click.UsageError: It is a color or the name of a preset with a typing error.
    """
    if background is None or is_color(background):
        return
    try:
        found = client.background_presets.list_background_presets(include_public=True)
        presets = [preset.name for preset in found]
    except PermissionDeniedError:  # an API key may lack the scope
        return
    known = {name.lower(): name for name in (*presets, *ImageColor.colormap)}
    if background.lower() in known:
        return
    if background.startswith("#"):
        raise click.UsageError(f"{background} is not a color such as #F0EDE8.")
    if close := difflib.get_close_matches(background.lower(), known, 1, 0.8):
        raise click.UsageError(f'There is no background {background}. Did you mean "{known[close[0]]}"?')
    output.note(
        f'"{background}" is neither a color nor a background preset ({", ".join(sorted(presets))}). '
        "A generative model takes it as a description; the local studio uses its default background."
    )


def is_color(text: str) -> bool:
    """Return whether a text is a hexadecimal color or the name of one in CSS."""
    try:
        ImageColor.getrgb(text)
    except ValueError:
        return False
    return True


def find_product(client: Sartiq, wanted: str) -> models.Product:
    """Return the product with an ID, a SKU or an external id.

    Raises:
        click.UsageError: There is none.
    """
    if is_id(wanted):
        return client.products.get_product(wanted)
    for key in ("sku", "external_id"):
        if found := client.products.list_products(limit=1, **{key: wanted}).data:  # type: ignore[arg-type] # mypy does not know which argument this is
            return found[0]
    raise click.UsageError(f"There is no product with the ID, SKU or external id {wanted}.")


def create_product(client: Sartiq, photo: Path, name: str | None, sku: str | None) -> models.Product:
    """Create the product of the photos."""
    title = name or photo.stem.replace("-", " ").replace("_", " ").strip()[:80] or "Product"
    try:
        return client.products.create_product(name=title, sku=OMIT if sku is None else sku)
    except ConflictError as error:
        if error.code == "sku_taken":
            error.add_note(f"To use the product that has it: sartiq shoot --product {sku}")
        raise


def add_photos(client: Sartiq, product: models.Product, photos: tuple[Path, ...]) -> None:
    """Add photos; the first one is the main photo if there is none yet."""
    has_main = any(image.type == "primary" for image in product.images)
    for photo in photos:
        client.products.add_product_image(product.id, file=photo, type="detail" if has_main else "primary")
        has_main = True


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
                left = max(0.0, deadline - time.monotonic())
                done.append(client.wait(generation, on_progress=show_all, timeout=left))
            except WaitTimeoutError as error:
                raise describe_timeout(generation, timeout) from error
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
