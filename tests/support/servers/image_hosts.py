"""Images on external servers: the fields of the contract that take their URLs, and servers that send them."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpcore2

from studio.infrastructure.http_client import SafeHttpClient, resolve_host
from tests.contract.operations import OPERATIONS, Request
from tests.contract.tenant import Tenant
from tools.servers.http_recorder import HttpRecorder, Responder, run_http_recorder

PUBLIC_ADDRESS = "93.184.215.14"
HOST = "hooks.example.test"
CERTIFICATE = Path(__file__).parents[2] / "studio" / f"{HOST}.pem"


IMAGE_URL_NAMES = {
    "logo_url",
    "cover_image",
    "image_url",
    "file_url",
    "mask_url",
    "product_image",
    "product2_image",
}
"""The properties of request bodies that take the URL of an image."""
OTHER_FILES = {"create_product_import"}
"""The operations whose `file_url` is no image."""


class ImageUrlField(NamedTuple):
    """A property of a request body that takes the URL of an image."""

    operation_id: str
    name: str


def _list_image_url_fields() -> Iterator[ImageUrlField]:
    for operation in OPERATIONS.values():
        if "application/json" in operation.media_types and operation.operation_id not in OTHER_FILES:
            properties = operation.body_schema("application/json").get("properties", {})
            for name in properties.keys() & IMAGE_URL_NAMES:
                yield ImageUrlField(operation.operation_id, name)


IMAGE_URL_FIELDS = sorted(_list_image_url_fields())


def build_request_with_url(tenant: Tenant, field: ImageUrlField, url: str) -> Request:
    """Return a request that succeeds if the URL returns an image."""
    request = tenant.request_for(field.operation_id)
    request.media_type = "application/json"
    body = tenant.body_for(request.operation, "application/json")
    request.body = {**body, field.name: url}
    return request


class RedirectedNetwork(httpcore2.SyncBackend):
    """Record the target of each connection, and connect to a test server instead."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.targets: list[tuple[str, int]] = []

    def connect_tcp(
        self, host: str, port: int, *rest: Any, **options: Iterable[Any]
    ) -> httpcore2.NetworkStream:
        self.targets.append((host, port))
        return super().connect_tcp("127.0.0.1", self.port, *rest, **options)


@contextmanager
def run_tls_recorder(respond: Responder) -> Iterator[HttpRecorder]:
    """Run a TLS server with the certificate of `HOST` within the block."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    with run_http_recorder(respond, context) as server:
        yield server


def build_public_client(
    server: HttpRecorder, *resolutions: Sequence[str]
) -> tuple[SafeHttpClient, RedirectedNetwork]:
    """Return a client that reaches the test server as `HOST` on the public internet, and its network.

    Args:
        server: The test server.
        resolutions: The IP addresses that the resolver returns for `HOST`, one per call. The last
            one repeats. The default is `PUBLIC_ADDRESS`.
    """
    network, pending = RedirectedNetwork(server.port), list(resolutions) or [[PUBLIC_ADDRESS]]

    def resolve(host: str, port: int) -> Sequence[str]:
        if host != HOST:
            return resolve_host(host, port)
        return pending.pop(0) if len(pending) > 1 else pending[0]

    trust = ssl.create_default_context(cafile=CERTIFICATE)
    return SafeHttpClient(resolve=resolve, network=network, ssl_context=trust), network
