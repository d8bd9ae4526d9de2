"""Paints the demonstration's first generation into `studio/seed/images`: `python -m
tests.tools.sample_images.packshots`.

Needed when the renderer, the photograph of the dress or the order of the seed has changed; a test says so.
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
    """Return what the local studio makes of the first generation of a seeded database."""
    with database.transaction(write=False):
        ordered = current_session().scalars(select(Generation)).one()  # unscoped: there is one, the seed's
        strategy, scene = ordered.generation_strategy, ordered.inputs["scene"]
        first, count = ordered.seed or 0, ordered.batch_size
    stage = local_renderer.prepare_context(open_storage(settings), strategy, scene)
    return [local_renderer.render_image(stage, first, index, lambda _share: None) for index in range(count)]


def main() -> None:
    """Write files and facts of the pictures."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/sartiq.db"
        upgrade(url)
        database = Database(build_engine(url))
        settings = Settings(media_dir=Path(folder))
        seed_database(database, settings)
        pictures = render_samples(database, settings)
        database.dispose()
    facts = []
    for number, picture in enumerate(pictures):
        packshot_path(number).write_bytes(picture.image)
        values = dataclasses.asdict(picture) | {"unused": sorted(picture.unused)}
        facts.append({name: value for name, value in values.items() if name != "image"})
    FACTS.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
