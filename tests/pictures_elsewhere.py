"""Pictures on servers of others: every place of the contract that takes their addresses, and such servers."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpcore

from studio.outbound import Outbound, resolve_host
from tests.contract.every_operation import OPERATIONS, Request
from tests.contract.world import World
from tests.listening import Listening, Respond, listening

PUBLIC = "93.184.215.14"
NAME = "hooks.example.test"
CERTIFICATE = Path(__file__).parent / "studio" / f"{NAME}.pem"


class Place(NamedTuple):
    """A property of a body that takes the address of a picture."""

    operation_id: str
    name: str


def _places() -> Iterator[Place]:
    for operation in OPERATIONS.values():
        if "application/json" in operation.media_types:
            properties = operation.body_schema("application/json").get("properties", {})
            for name, schema in properties.items():
                if "fetched once" in schema.get("description", ""):
                    yield Place(operation.operation_id, name)


PLACES = list(_places())


def naming(world: World, place: Place, address: str) -> Request:
    """A request that succeeds when a picture comes from the address."""
    request = world.request_for(place.operation_id)
    request.media_type = "application/json"
    body = world.body_for(request.operation, "application/json")
    request.body = {**body, place.name: address}
    return request


class Rerouted(httpcore.SyncBackend):
    """Notes where a connection should go, and takes it to a server of the test."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.wanted: list[tuple[str, int]] = []

    def connect_tcp(
        self, host: str, port: int, *rest: Any, **options: Iterable[Any]
    ) -> httpcore.NetworkStream:
        self.wanted.append((host, port))
        return super().connect_tcp("127.0.0.1", self.port, *rest, **options)


@contextmanager
def tls_listening(respond: Respond) -> Iterator[Listening]:
    """A server with the certificate of NAME."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    with listening(respond, context) as server:
        yield server


def public_outbound(server: Listening, *answers: Sequence[str]) -> tuple[Outbound, Rerouted]:
    """A client to which a server of the test is NAME on the public internet, and where it connected to.

    `answers` are what the resolver says of NAME, one after the other, the last one ever after; else PUBLIC.
    """
    network, told = Rerouted(server.port), list(answers) or [[PUBLIC]]

    def resolve(host: str, port: int) -> Sequence[str]:
        if host != NAME:
            return resolve_host(host, port)
        return told.pop(0) if len(told) > 1 else told[0]

    trust = ssl.create_default_context(cafile=CERTIFICATE)
    return Outbound(resolve=resolve, network=network, ssl_context=trust), network
