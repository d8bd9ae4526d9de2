"""Create, run and read generations that a server with an Images API renders."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import numpy as np
from PIL import Image

from db.models import MediaResource
from db.session import Database
from studio.generations.worker.executor import GenerationExecutor
from studio.infrastructure.http_client import SafeHttpClient
from studio.infrastructure.storage import LocalDisk, media_key
from studio.providers.openai_images import ImagesServer as ServerSettings
from tests.studio.compute_fixtures import TOOLS, list_predictions, load_generation
from tests.support import factories
from tests.support.queues import build_worker
from tests.support.scenarios import PhotographedProduct, create_pending_generation
from tests.support.servers.images import ImagesServer


def use_images(scenario: PhotographedProduct, server: ImagesServer, **config: str) -> PhotographedProduct:
    """Change the scenario's model to one of the server; entries with an empty text are left out.

    Its images are not much larger than those of the scenario, to which they are reduced anyway.
    """
    config = {**server.config, "sizes": "256x384", **config}
    entries = {name: value for name, value in config.items() if value}
    scenario.model.provider, scenario.model.provider_config = "OPENAI_IMAGES", entries
    scenario.model.tool_types = TOOLS
    # Lossless, so that pixels can be compared.
    scenario.guidelines.file_format = "PNG"
    factories.make(scenario.model)
    factories.make(scenario.guidelines)
    return scenario


@contextmanager
def running_executor(
    database: Database,
    storage: LocalDisk,
    server: ImagesServer,
    settings: ServerSettings | None = None,
    allowed: bool = True,
) -> Iterator[GenerationExecutor]:
    """Yield an executor that may connect to the server."""
    client = SafeHttpClient([server.server.host] if allowed else [])
    executor = GenerationExecutor(
        build_worker(database, storage), 1, http_client=client, images_server=settings
    )
    yield executor
    executor.close()


def run_generation(
    database: Database,
    storage: LocalDisk,
    scenario: PhotographedProduct,
    server: ImagesServer,
    **parameters: Any,
) -> UUID:
    """Create a generation of the scenario's shot, run all its steps and return its id."""
    with running_executor(database, storage, server) as executor:
        generation_id = create_pending_generation(database, scenario, **parameters)
        while executor.run_next():
            pass
    return generation_id


def load_pixels(database: Database, storage: LocalDisk, generation_id: UUID, index: int = 0) -> np.ndarray:
    """Return the RGB pixels of a prediction."""
    prediction = list_predictions(database, generation_id)[index]
    with database.transaction(write=False) as reading:
        media = reading.get(MediaResource, prediction.media_id)
        assert media is not None
        key = media_key(media.id, media.extension)
    return np.asarray(Image.open(io.BytesIO(storage.read(key))).convert("RGB"))


def assert_failed(database: Database, generation_id: UUID, error: dict[str, Any]) -> None:
    """Assert that a generation failed with an error, is refunded and has no predictions."""
    failed = load_generation(database, generation_id)
    assert (failed.status, failed.error, failed.cost_credits) == ("failed", error, 0)
    assert list_predictions(database, generation_id) == []
