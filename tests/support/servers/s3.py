"""A local S3 server in memory, for tests of images in buckets."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from uuid import uuid4

from moto.server import ThreadedMotoServer

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "eu-central-1",
}
PAGE_SIZE = 10


@contextlib.contextmanager
def run_s3_server() -> Iterator[tuple[str, str]]:
    """Yield the URL of a running S3 server and an unused bucket name.

    The environment holds valid credentials within the block.
    """
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    # A new name for each server: all servers of a process share one store.
    bucket = f"sartiq-{uuid4()}"
    before = dict(os.environ)
    os.environ.update(CREDENTIALS, MOTO_S3_DEFAULT_MAX_KEYS=str(PAGE_SIZE))
    try:
        yield url, bucket
    finally:
        os.environ.clear()
        os.environ.update(before)
        server.stop()
