"""Render the demo data's cut-out and first generation: `python -m tools.sample_images.packshots`.

Run it when the renderer, the photo of the dress or the request of the seed has changed; a test fails until
you do. It writes `cutout.*`, `packshot_*.webp` and `packshots.json` in `studio/seed/images`.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path

from sqlalchemy import select

from db.base import new_id
from db.engine import build_engine
from db.migrations import upgrade
from db.models import Generation
from db.session import Database, current_session
from studio.cutouts.making import make_cutout
from studio.cutouts.queue import CutoutLease, MadeCutout, StoredFile
from studio.infrastructure.settings import Settings
from studio.infrastructure.storage import LocalDisk, media_key
from studio.infrastructure.storage_backends import open_storage
from studio.media.normalization import normalize
from studio.providers import local_renderer
from studio.providers.local import RenderedImage
from studio.seed import seed_database
from studio.seed.images import cutouts
from studio.seed.images.packshots import FACTS, packshot_path
from tools.servers.databases import create_database


def render_samples(database: Database, settings: Settings) -> list[RenderedImage]:
    """Render the first generation of a seeded database with the local studio."""
    with database.transaction(write=False):
        generation = current_session().scalars(select(Generation)).one()  # unscoped: the only one, seeded
        strategy, scene = generation.generation_strategy, generation.inputs["scene"]
        seed, count = generation.seed or 0, generation.batch_size
    context = local_renderer.prepare_context(open_storage(settings), strategy, scene)
    return [local_renderer.render_image(context, seed, index, lambda _share: None) for index in range(count)]


def make_sample_cutout() -> MadeCutout:
    """Make the cut-out of the photo of the dress with the local studio."""
    photo = normalize((FACTS.parent / "dress.jpg").read_bytes())
    with tempfile.TemporaryDirectory() as folder:
        storage, media_id = LocalDisk(Path(folder)), new_id()
        storage.write(media_key(media_id, photo.extension), photo.data)
        file = StoredFile(media_id, photo.extension)
        lease = CutoutLease(
            row_id=new_id(),
            token="",
            tenant_id=media_id,
            input_hash="",
            photo=file,
            region=None,
            mask=None,
        )
        return make_cutout(storage, lease)


def write_cutout(made: MadeCutout) -> None:
    """Write a cut-out and what is stored beside it."""
    assert made.image is not None, "the dress is not cut out"
    cutouts.FILE.write_bytes(made.image.data)
    values = dataclasses.asdict(made)
    del values["image"]["data"]
    cutouts.FACTS.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Write the images and their metadata."""
    # Before the database is seeded with it.
    write_cutout(make_sample_cutout())
    with tempfile.TemporaryDirectory() as folder, create_database() as url:
        upgrade(url)
        database = Database(build_engine(url))
        settings = Settings(media_dir=Path(folder))
        seed_database(database, settings)
        images = render_samples(database, settings)
        database.dispose()
    facts = []
    for number, image in enumerate(images):
        packshot_path(number).write_bytes(image.image)
        values = dataclasses.asdict(image) | {"unused": sorted(image.unused)}
        facts.append({name: value for name, value in values.items() if name != "image"})
    FACTS.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
