"""The work of guests counts for the account behind their link; each has a request rate of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from db.models import Shooting
from handlers.app import Application
from handlers.common.responses import SANDBOX_CSP, file_response
from studio.infrastructure.fair_slots import Requester, account_name
from studio.rate_limits.concurrency import ConcurrencyLimiter
from tests.api.conftest import Client, CommittingServer
from tests.security.rate_limits import AppFromAddress, exceeded_policy
from tests.security.test_concurrency import (
    BlockedHandler,
    assert_too_many,
    limiter,
    make_client,
    open_requests,
    wait_until,
)
from tests.support import factories
from tests.support.app import create_test_app
from tests.support.factories.api_keys import api_key_headers, make_api_key
from tests.support.factories.catalog import Customer
from tests.support.guests import create_link, enter, exchange, guest_headers

__all__ = ["limiter"]

ADDRESS = "address 127.0.0.1"
MINUTE = 60_000
"""In milliseconds: what the test has sent so far is forgotten."""


@pytest.fixture
def shooting(customer: Customer) -> Shooting:
    return factories.make_shooting(organization=customer.organization)


def test_s13_each_session_of_a_guest_has_a_rate_of_its_own(
    set_limits: Callable[..., Any], app: Application, customer: Customer, shooting: Shooting
) -> None:
    _, token = create_link(customer.client, f"/shootings/{shooting.id}/review-links")
    first, second = enter(app, token), enter(app, token)
    set_limits(limit_account=2).now += MINUTE
    assert [first("GET", "/shots/").status for _ in range(2)] == [200, 200]
    assert exceeded_policy(first("GET", "/shots/")) == "account"
    assert second("GET", "/shots/").headers["ratelimit"].partition(", ")[0] == '"account";r=1;t=30'
    assert customer.client("GET", "/users/me").headers["ratelimit"] == '"account";r=1;t=30'


def test_s13_all_guests_of_an_organization_get_half_of_its_limit(
    set_limits: Callable[..., Any], app: Application, customer: Customer, shooting: Shooting
) -> None:
    path = f"/shootings/{shooting.id}/review-links"
    guests = [enter(app, create_link(customer.client, path)[1]) for _ in range(2)]
    set_limits(limit_account=9, limit_organization=4).now += MINUTE
    outcomes = [guest("GET", "/shots/") for guest in guests]
    assert [outcome.headers["ratelimit"] for outcome in outcomes] == [
        '"account";r=8;t=7, "guests";r=1;t=30, "organization";r=3;t=15',
        '"account";r=8;t=7, "guests";r=0;t=30, "organization";r=2;t=15',
    ]
    assert outcomes[0].headers["ratelimit-policy"] == (
        '"account";q=9;w=60, "guests";q=2;w=60, "organization";q=4;w=60'
    )
    # Operations that are not for guests, and other resources, count too.
    for guest, path in zip(guests, ("/users/me", f"/shootings/{shooting.id}"), strict=True):
        assert exceeded_policy(guest("GET", path)) == "guests"
    path = f"/brands/{customer.organization_query}"
    assert [customer.client("GET", path).status for _ in range(2)] == [200, 200]
    assert exceeded_policy(customer.client("GET", path)) == "organization"


def test_s13_guests_of_personal_shootings_share_a_limit_per_account(
    set_limits: Callable[..., Any], app: Application, client_for: Callable[..., Client]
) -> None:
    owner, other = factories.make_user(), factories.make_user()
    guests = [
        enter(app, create_link(client_for(user), f"/shootings/{shooting.id}/review-links")[1])
        for user in (owner, owner, other)
        for shooting in [factories.make_shooting(owner=user)]
    ]
    set_limits(limit_organization=2).now += MINUTE
    assert guests[0]("GET", "/shots/").headers["ratelimit"].partition(", ")[2] == '"guests";r=0;t=60'
    assert exceeded_policy(guests[1]("GET", "/shots/")) == "guests"
    assert guests[2]("GET", "/shots/").status == 200
    assert client_for(owner)("GET", "/shots/").status == 200


def test_s13_the_sessions_of_a_link_are_limited_per_address(
    set_limits: Callable[..., Any], app: Application, customer: Customer, shooting: Shooting
) -> None:
    path = f"/shootings/{shooting.id}/review-links"
    (_, token), (_, other_token) = (create_link(customer.client, path) for _ in range(2))
    clock = set_limits(limit_guest_sessions=2)
    outcomes = [exchange(app, token) for _ in range(3)]
    assert [outcome.status for outcome in outcomes] == [200, 200, 429]
    assert exceeded_policy(outcomes[2]) == "guest-sessions"
    assert outcomes[2].headers["retry-after"] == "450"
    assert exchange(app, other_token).status == 200
    assert exchange(AppFromAddress(app, "192.0.2.7"), token).status == 200
    # Invalid tokens count as failed sign-ins, not as sessions.
    assert exchange(app, "rl_unknown").status == 401
    clock.now += 450_000
    assert [exchange(app, token).status for _ in range(2)] == [200, 429]


class GuestsOfAnAccount:
    """An account with the sessions of guests of two links, on a server whose requests commit."""

    def __init__(self, server: CommittingServer) -> None:
        app = server.client.app
        with server.database.transaction(write=True):
            owner = factories.make_user()
            shooting = factories.make_shooting(owner=owner)
            links = [factories.make_review_link(shooting) for _ in range(2)]
            self.sessions = [Client(app, guest_headers(app, link)) for link in links]
        self.client, self.owner_name = make_client(server, owner)


IMAGE_PATH = f"/predictions/{uuid4()}/image"


def block_images(app: Application, monkeypatch: pytest.MonkeyPatch) -> BlockedHandler:
    """Let the handler of the images of predictions, which needs a thread, wait until it is released."""
    headers = {
        "Cache_Control": "private, no-cache",
        "X_Content_Type_Options": "nosniff",
        "Content_Security_Policy": SANDBOX_CSP,
    }
    handler = BlockedHandler(lambda **_: file_response(b"image", "image/jpeg", "tag", **headers))
    monkeypatch.setattr(app.endpoints["get_prediction_image"], "_handler", handler)
    return handler


def test_s34_guests_count_for_the_account_behind_their_link_and_leave_it_half(
    committing_server: CommittingServer, limiter: ConcurrencyLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.infrastructure.fair_slots.CONTENDED_SECONDS", 0)
    monkeypatch.setattr(limiter, "limit", 4)
    app, account = committing_server.client.app, GuestsOfAnAccount(committing_server)
    slots, blocked = app.bridge.thread_slots, block_images(app, monkeypatch)

    async def scenario() -> None:
        requests = [open_requests(guest, IMAGE_PATH, 1)[0] for guest in account.sessions]
        await wait_until(
            lambda: limiter.count_running(account.owner_name) == slots.count_held(account.owner_name) == 2
        )
        for guest in account.sessions:
            (request,) = open_requests(guest, IMAGE_PATH, 1)
            assert_too_many(await request.read_response())
        # A rejected request counts for nothing, and the other half stays for the account.
        assert limiter.count_running(account.owner_name) == 2
        requests += open_requests(account.client, IMAGE_PATH, 2)
        await wait_until(lambda: limiter.count_running(account.owner_name) == 4)
        for client in (account.client, *account.sessions):
            (request,) = open_requests(client, "/users/me", 1)
            assert_too_many(await request.read_response())
        blocked.released.set()
        assert [(await each.read_response()).status for each in requests] == [200] * 4

    try:
        asyncio.run(scenario())
    finally:
        blocked.released.set()
    assert len(limiter._running) == 0


def test_s34_guests_hold_no_more_threads_than_their_account(
    committing_server: CommittingServer, limiter: ConcurrencyLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.infrastructure.fair_slots.CONTENDED_SECONDS", 0)
    app, account = committing_server.client.app, GuestsOfAnAccount(committing_server)
    slots, blocked = app.bridge.thread_slots, block_images(app, monkeypatch)
    threads = app.bridge.pool._max_workers // 2

    async def scenario() -> None:
        requests = [each for guest in account.sessions for each in open_requests(guest, IMAGE_PATH, threads)]
        await wait_until(
            lambda: blocked.running == threads and slots.count_waiting(account.owner_name) == threads
        )
        assert slots.count_held(account.owner_name) == threads
        other, _ = make_client(committing_server)
        (request,) = open_requests(other, "/users/me", 1)
        assert (await request.read_response()).status == 200
        blocked.released.set()
        assert {(await each.read_response()).status for each in requests} == {200}

    try:
        asyncio.run(scenario())
    finally:
        blocked.released.set()
    assert blocked.most == threads


@pytest.fixture(scope="module")
def second_application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """Yield another application. It is created once: what it remembers is about accounts of other tests."""
    app = create_test_app(tmp_path_factory.mktemp("second-application"))
    yield app
    app.bridge.pool.shutdown()


@pytest.fixture
def second_process(
    second_application: Application, committing_server: CommittingServer
) -> Iterator[Application]:
    """Yield another application on the same database, with memory of its own, as a second process has it."""
    with second_application.database.switched_to(committing_server.database):
        yield second_application


@pytest.fixture
def requesters(monkeypatch: pytest.MonkeyPatch) -> list[Requester]:
    """Return a list that gets the requester of each request."""
    found: list[Requester] = []
    monkeypatch.setattr("handlers.pipeline.admission.concurrency.set_current_requester", found.append)
    return found


@pytest.mark.parametrize("ending", ["revoked", "creator demoted", "key deleted"])
def test_s34_an_account_stops_paying_for_a_guest_that_another_process_has_locked_out(
    committing_server: CommittingServer, second_process: Application, requesters: list[Requester], ending: str
) -> None:
    owner, database, production = committing_server
    first_app = owner.app
    with database.transaction(write=True):
        admin = factories.make_user()
        membership = factories.make_membership(production.organization, admin, role="admin")
        key = make_api_key(production.organization, admin, scopes=["review_links:manage", "shots:read"])
        link = factories.make_review_link(
            production.shooting, membership, api_key_id=key.id if ending == "key deleted" else None
        )
    guests = [Client(app, guest_headers(first_app, link)) for app in (first_app, second_process)]
    by_account, by_address = Requester(account_name(admin.id), ADDRESS), Requester(ADDRESS, ADDRESS)
    # Each process has read who pays, and remembers it.
    assert [guest("GET", "/shots/").status for guest in guests for _ in range(2)] == [200] * 4
    assert requesters == [by_account] * 4
    organization = f"/organizations/{production.organization.id}"
    method, path, body = {
        "revoked": ("DELETE", f"/shootings/{production.shooting.id}/review-links/{link.id}", None),
        "creator demoted": ("PATCH", f"{organization}/members/{admin.id}", {"role": "viewer"}),
        "key deleted": ("DELETE", f"{organization}/api-keys/{key.id}", None),
    }[ending]
    assert owner(method, path, body).status in (200, 204)
    requesters.clear()
    assert [guest("GET", "/shots/").status for guest in guests for _ in range(3)] == [401] * 6
    # The first request still counts for the account: nothing tells a process what another one did.
    assert requesters == [by_account, by_address, by_address] * 2


def test_s34_a_user_stops_paying_for_an_api_key_that_another_process_has_deleted(
    committing_server: CommittingServer, second_process: Application, requesters: list[Requester]
) -> None:
    owner, database, production = committing_server
    with database.transaction(write=True):
        headers = api_key_headers(owner.app, production.organization, ["brands:read"])
    key, path = Client(second_process, headers), f"/brands/?organization_id={production.organization.id}"
    assert key("GET", path).status == 200
    keys = f"/organizations/{production.organization.id}/api-keys"
    (row,) = owner("GET", keys).json()["data"]
    assert owner("DELETE", f"{keys}/{row['id']}").status == 204
    requesters.clear()
    assert [key("GET", path).status for _ in range(2)] == [401, 401]
    by_account = Requester(account_name(production.owner.id), ADDRESS)
    assert requesters == [by_account, Requester(ADDRESS, ADDRESS)]


def test_s34_a_token_of_the_release_before_counts_for_the_account(
    committing_server: CommittingServer, requesters: list[Requester]
) -> None:
    """Its session is the link: guests with such tokens share a rate until they exchange the link again."""
    account = GuestsOfAnAccount(committing_server)
    assert account.sessions[0]("GET", "/shots/").status == 200
    assert [requester.owner for requester in requesters] == [account.owner_name]
