"""The real application in process, on the database of the running test, and somebody who asks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest

from db.models import User
from db.session import Database
from handlers.app import Application
from studio.media.storage import LocalDisk
from tests.support import factories
from tests.support.app import auth_headers, create_test_app
from tests.support.client import ClientResponse, send_request
from tests.support.factories.catalogue import Customer
from tests.support.scenarios import PhotographedProduct, make_photographed_product


@dataclass
class Client:
    """Somebody who talks to the API; without a user it is nobody. Paths begin after `/api/v1`."""

    app: Application
    headers: dict[str, str] = field(default_factory=dict)

    def __call__(
        self,
        method: str,
        path: str,
        as_json: Any = None,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> ClientResponse:
        """The answer to one request."""
        sent = self.headers | (headers or {})
        return send_request(self.app, method, f"/api/v1{path}", sent, body=body, as_json=as_json)


@pytest.fixture(scope="session")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """The server, built once."""
    made = create_test_app(tmp_path_factory.mktemp("api"))
    yield made
    made.bridge.pool.shutdown()


@pytest.fixture
def app(application: Application, database: Database) -> Iterator[Application]:
    """The server on the database of this test."""
    with application.database.switched_to(database):
        yield application


@pytest.fixture
def client_for(app: Application) -> Callable[[User | None], Client]:
    """A client for a user, signed in; for None one without a token."""

    def make(user: User | None) -> Client:
        return Client(app, auth_headers(app, user) if user else {})

    return make


@pytest.fixture
def customer(client_for: Callable[..., Client]) -> Customer:
    """Somebody with an organization."""
    owner = factories.make_user()
    return Customer(client_for(owner), owner, factories.make_organization(owner))


@pytest.fixture
def superuser(client_for: Callable[..., Client]) -> Client:
    """Somebody who may everything."""
    return client_for(factories.make_user(is_superuser=True))


@pytest.fixture
def storage(application: Application) -> LocalDisk:
    """Where the server keeps its pictures."""
    return LocalDisk(application.settings.media_dir)


@pytest.fixture
def scenario(database: Database, storage: LocalDisk) -> PhotographedProduct:
    """A customer with a photographed product and a pending shot."""
    return make_photographed_product(storage, database)


class CommittingServer(NamedTuple):
    """Somebody who asks a server whose requests have connections of their own and commit."""

    client: Client
    database: Database
    scenario: PhotographedProduct


@pytest.fixture
def committing_server(
    application: Application, own_database: Database, storage: LocalDisk
) -> Iterator[CommittingServer]:
    """The server on a database of its own, on which every request has a connection of its own and commits."""
    with own_database.transaction(write=True):
        production = make_photographed_product(storage, None)
        headers = auth_headers(application, production.owner)
    with application.database.switched_to(own_database):
        yield CommittingServer(Client(application, headers), own_database, production)
