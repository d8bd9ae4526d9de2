"""Render the demo data's first generation: `python -m tests.tools.sample_images.packshots`.

Run it when the renderer, the photo of the dress or the request of the seed has changed; a test fails until
you do. It writes `packshot_*.webp` and `packshots.json` in `studio/seed/images`.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path

from sqlalchemy import select

from db.engine import build_engine
from db.migrations import upgrade
from db.models import Generation
from db.session import Database, current_session
from studio.media.backends import open_storage
from studio.providers import local_renderer
from studio.providers.local import RenderedImage
from studio.seed import seed_database
from studio.seed.images.packshots import FACTS, packshot_path
from studio.settings import Settings


def render_samples(database: Database, settings: Settings) -> list[RenderedImage]:
    """Render the first generation of a seeded database with the local studio."""
    with database.transaction(write=False):
        generation = current_session().scalars(select(Generation)).one()  # unscoped: the only one, seeded
        strategy, scene = generation.generation_strategy, generation.inputs["scene"]
        seed, count = generation.seed or 0, generation.batch_size
    context = local_renderer.prepare_context(open_storage(settings), strategy, scene)
    return [local_renderer.render_image(context, seed, index, lambda _share: None) for index in range(count)]


def main() -> None:
    """Write the images and their metadata."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/sartiq.db"
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
