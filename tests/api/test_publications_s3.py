"""Published images in an S3 bucket are streamed from a local copy, and never loaded as a whole."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from db.session import Database
from handlers.app import Application
from studio.infrastructure.s3 import S3Storage
from studio.infrastructure.storage import media_key
from tests.api.conftest import Client
from tests.support import factories
from tests.support.app import replace_service
from tests.support.client import build_scope
from tests.support.scenarios import PhotographedProduct
from tests.support.servers.s3 import run_s3_server

FILE_BYTES = 24_000_000
MAX_CHUNK_BYTES, MAX_MEMORY_BYTES = 1 << 20, 4_000_000


@pytest.fixture
def bucket(app: Application, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Storage]:
    """Yield the storage of the application, in a bucket of a real S3 server."""
    with run_s3_server() as (url, name):
        storage = S3Storage(name, "published", tmp_path, url)
        storage.prepare()
        replace_service(monkeypatch, app, storage=storage)
        yield storage


async def measure(app: Application, path: str) -> tuple[dict[str, str], str, list[int]]:
    """Open a path as an ASGI server does; return the headers, the SHA-256 and the sizes of the chunks."""
    headers: dict[str, str] = {}
    digest, sizes = hashlib.sha256(), list[int]()

    async def receive() -> dict[str, Any]:
        if sizes:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers[":status"] = str(message["status"])
            headers.update({name.decode(): value.decode() for name, value in message["headers"]})
        else:
            digest.update(message.get("body", b""))
            sizes.append(len(message.get("body", b"")))

    await app(build_scope("GET", path, {}), receive, send)
    return headers, digest.hexdigest(), sizes


def test_a_published_image_of_a_bucket_is_streamed_with_the_headers_of_a_local_one(
    app: Application,
    bucket: S3Storage,
    client_for: Callable[..., Client],
    scenario: PhotographedProduct,
    database: Database,
) -> None:
    data = os.urandom(FILE_BYTES)
    content_hash = hashlib.sha256(data).hexdigest()
    media = factories.make_media(
        **scenario.ownership, content_hash=content_hash, file_size=len(data), extension="jpg"
    )
    bucket.write(media_key(media.id, "jpg"), data)
    del data
    generation = factories.make_generation(scenario.shot, model_id=scenario.model.id, status="completed")
    prediction = factories.make_prediction(generation, media_id=media.id, status="approved")
    published = client_for(scenario.owner)("POST", f"/predictions/{prediction.id}/publish")
    assert published.status == 200, published.body
    path = "/api/v1" + published.json()["url"].split("/api/v1")[1]
    # The first request downloads the object to a local file. Its memory is not measured, because the S3
    # server of the tests holds the object in this process.
    downloaded = asyncio.run(measure(app, path))
    tracemalloc.start()
    try:
        opened_again = asyncio.run(measure(app, path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MAX_MEMORY_BYTES
    for headers, digest, sizes in (downloaded, opened_again):
        assert (headers[":status"], digest, sum(sizes)) == ("200", content_hash, FILE_BYTES)
        assert headers["content-length"] == str(FILE_BYTES)
        assert headers["etag"] == f'"{content_hash}"'
        assert headers["cache-control"] == "public, max-age=300"
        assert headers["cross-origin-resource-policy"] == "cross-origin"
        assert headers["x-content-type-options"] == "nosniff"
        assert max(sizes) <= MAX_CHUNK_BYTES
    anonymous = client_for(None)
    unchanged = anonymous("GET", path.removeprefix("/api/v1"), headers={"if-none-match": f'"{content_hash}"'})
    assert (unchanged.status, unchanged.body) == (304, b"")
    assert unchanged.headers["cache-control"] == "public, max-age=300"
