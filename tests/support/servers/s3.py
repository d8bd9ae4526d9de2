"""A local server that speaks S3, for tests of pictures in buckets: real HTTP, nothing kept."""

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
    """Give a server's address and a bucket's name to use there; credentials are set meanwhile."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    # A new one each time: servers of one process share what they hold.
    bucket = f"sartiq-{uuid4()}"
    before = dict(os.environ)
    os.environ.update(CREDENTIALS, MOTO_S3_DEFAULT_MAX_KEYS=str(PAGE_SIZE))
    try:
        yield address, bucket
    finally:
        os.environ.clear()
        os.environ.update(before)
        server.stop()
