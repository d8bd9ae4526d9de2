"""Fixtures of the API tests: the real application on the database of the test, and clients for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest

from db.models import User
from db.session import Database
from handlers.app import Application
from studio.infrastructure.storage import LocalDisk
from tests.support import factories
from tests.support.app import auth_headers
from tests.support.client import ClientResponse, send_request
from tests.support.factories.catalog import Customer
from tests.support.scenarios import PhotographedProduct, make_photographed_product


@dataclass
class Client:
    """A client of the API with fixed headers. Its paths are relative to `/api/v1`."""

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
        """Send one request and return the response."""
        all_headers = self.headers | (headers or {})
        return send_request(self.app, method, f"/api/v1{path}", all_headers, body=body, as_json=as_json)


@pytest.fixture
def app(application: Application, database: Database, color_masks: None) -> Iterator[Application]:
    """Yield the application, connected to the database of this test."""
    with application.database.switched_to(database):
        yield application


@pytest.fixture
def client_for(app: Application) -> Callable[[User | None], Client]:
    """Return a function that creates a client: signed in as a user, or anonymous for None."""

    def make(user: User | None) -> Client:
        return Client(app, auth_headers(app, user) if user else {})

    return make


@pytest.fixture
def client(request: pytest.FixtureRequest, client_for: Callable[..., Client]) -> Client:
    """Return a client that is signed in as the owner of the rows that the test uses.

    That is the account of the fixture `scenario`, `customer` or `owner`, in this order, or else `user`.
    """
    names = ("scenario", "customer", "owner")
    account = request.getfixturevalue(next((name for name in names if name in request.fixturenames), "user"))
    return client_for(account if isinstance(account, User) else account.owner)


@pytest.fixture
def anonymous(client_for: Callable[..., Client]) -> Client:
    """Return a client without a credential."""
    return client_for(None)


@pytest.fixture
def customer(client_for: Callable[..., Client]) -> Customer:
    """Return the owner of a new organization, with a client."""
    owner = factories.make_user()
    return Customer(client_for(owner), owner, factories.make_organization(owner))


@pytest.fixture
def superuser(client_for: Callable[..., Client]) -> Client:
    """Return a client that is signed in as a superuser."""
    return client_for(factories.make_user(is_superuser=True))


@pytest.fixture
def storage(application: Application) -> LocalDisk:
    """Return the storage of the application's images."""
    return LocalDisk(application.settings.media_dir)


@pytest.fixture
def path(scenario: PhotographedProduct) -> str:
    """Return the path of the generations of the scenario's organization."""
    return f"/generations/?organization_id={scenario.organization.id}"


class CommittingServer(NamedTuple):
    """A client of the application on a database with real commits and one connection per request."""

    client: Client
    database: Database
    scenario: PhotographedProduct


@pytest.fixture
def committing_server(
    application: Application, own_database: Database, storage: LocalDisk
) -> Iterator[CommittingServer]:
    """Yield a client of the application on a separate database, for tests of concurrency."""
    with own_database.transaction(write=True):
        scenario = make_photographed_product(storage, None)
        headers = auth_headers(application, scenario.owner)
    with application.database.switched_to(own_database):
        yield CommittingServer(Client(application, headers), own_database, scenario)
