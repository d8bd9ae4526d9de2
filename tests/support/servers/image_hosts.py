"""Pictures on servers of others: every place of the contract that takes their addresses, and such servers."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpcore2

from studio.http_client import SafeHttpClient, resolve_host
from tests.contract.operations import OPERATIONS, Request
from tests.contract.tenant import Tenant
from tests.support.servers.http_recorder import HttpRecorder, Responder, run_http_recorder

PUBLIC_ADDRESS = "93.184.215.14"
HOST = "hooks.example.test"
CERTIFICATE = Path(__file__).parents[2] / "studio" / f"{HOST}.pem"


class ImageUrlField(NamedTuple):
    """A property of a body that takes the address of a picture."""

    operation_id: str
    name: str


def _list_image_url_fields() -> Iterator[ImageUrlField]:
    for operation in OPERATIONS.values():
        if "application/json" in operation.media_types:
            properties = operation.body_schema("application/json").get("properties", {})
            for name, schema in properties.items():
                if "fetched once" in schema.get("description", ""):
                    yield ImageUrlField(operation.operation_id, name)


IMAGE_URL_FIELDS = list(_list_image_url_fields())


def build_request_with_url(tenant: Tenant, place: ImageUrlField, url: str) -> Request:
    """A request that succeeds when a picture comes from the address."""
    request = tenant.request_for(place.operation_id)
    request.media_type = "application/json"
    body = tenant.body_for(request.operation, "application/json")
    request.body = {**body, place.name: url}
    return request


class RedirectedNetwork(httpcore2.SyncBackend):
    """Notes where a connection should go, and takes it to a server of the test."""

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
    """A server with the certificate of NAME."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    with run_http_recorder(respond, context) as server:
        yield server


def build_public_client(
    server: HttpRecorder, *answers: Sequence[str]
) -> tuple[SafeHttpClient, RedirectedNetwork]:
    """A client to which a server of the test is NAME on the public internet, and where it connected to.

    `answers` are what the resolver says of NAME, one after the other, the last one ever after; else PUBLIC.
    """
    network, told = RedirectedNetwork(server.port), list(answers) or [[PUBLIC_ADDRESS]]

    def resolve(host: str, port: int) -> Sequence[str]:
        if host != HOST:
            return resolve_host(host, port)
        return told.pop(0) if len(told) > 1 else told[0]

    trust = ssl.create_default_context(cafile=CERTIFICATE)
    return SafeHttpClient(resolve=resolve, network=network, ssl_context=trust), network
