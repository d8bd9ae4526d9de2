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
from tests import factories
from tests.api.catalogue import House
from tests.contract.mini.asking import Reply, ask
from tests.production import Production, make_production
from tests.serving import app_for_tests, bearer


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
    ) -> Reply:
        """The answer to one request."""
        sent = self.headers | (headers or {})
        return ask(self.app, method, f"/api/v1{path}", sent, body=body, as_json=as_json)


@pytest.fixture(scope="session")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """The server, built once."""
    made = app_for_tests(tmp_path_factory.mktemp("api"))
    yield made
    made.bridge.pool.shutdown()


@pytest.fixture
def app(application: Application, database: Database) -> Iterator[Application]:
    """The server on the database of this test."""
    with application.database.switched_to(database):
        yield application


@pytest.fixture
def client_of(app: Application) -> Callable[[User | None], Client]:
    """A client for a user, signed in; for None one without a token."""

    def make(user: User | None) -> Client:
        return Client(app, bearer(app, user) if user else {})

    return make


@pytest.fixture
def house(client_of: Callable[..., Client]) -> House:
    """Somebody with an organization."""
    owner = factories.make_user()
    return House(client_of(owner), owner, factories.make_organization(owner))


@pytest.fixture
def superuser(client_of: Callable[..., Client]) -> Client:
    """Somebody who may everything."""
    return client_of(factories.make_user(is_superuser=True))


@pytest.fixture
def storage(application: Application) -> LocalDisk:
    """Where the server keeps its pictures."""
    return LocalDisk(application.settings.media_dir)


@pytest.fixture
def production(database: Database, storage: LocalDisk) -> Production:
    """A customer with a photographed product and a pending shot."""
    return make_production(storage, database)


class Committed(NamedTuple):
    """Somebody who asks a server whose requests have connections of their own and commit."""

    client: Client
    database: Database
    production: Production


@pytest.fixture
def committed(application: Application, own_database: Database, storage: LocalDisk) -> Iterator[Committed]:
    """The server on a database of its own, on which every request has a connection of its own and commits."""
    with own_database.transaction(write=True):
        production = make_production(storage, None)
        headers = bearer(application, production.owner)
    with application.database.switched_to(own_database):
        yield Committed(Client(application, headers), own_database, production)
