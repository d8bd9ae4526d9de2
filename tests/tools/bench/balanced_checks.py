"""Check that several processes behind a balancer and PgBouncer act as one server.

Each check sends requests through the balancer or to single processes, and raises AssertionError.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from db.engine import build_engine
from db.rls.session_role import APPLICATION_ROLE, SYSTEM_ROLE, SessionRole
from db.session import Database
from tests.tools.bench.operations import VALID, Request, fetch, list_path
from tests.tools.bench.rows import (
    Scale,
    build_token,
    generation_id,
    organization_id,
    session_id,
    user_id,
)

KEY_LIMIT = 30
"""The requests per minute of an API key, in the settings of the servers."""
PARALLEL, TURNS = 8, 25
SSE_SECONDS = 30
# Each check has organizations of its own, so that they can run in any order.
WATCHED, IDEMPOTENT, LIMITED = 11, 12, 13


# Not all rows: with the policy, each row takes time.
VISIBLE_ORGANIZATIONS = text(
    "SELECT DISTINCT organization_id FROM (SELECT organization_id FROM products LIMIT 1000) AS seen"
)
CURRENT_SETTINGS = text("SELECT current_user, coalesce(current_setting('sartiq.user_id', true), '')")


@dataclass(frozen=True)
class BalancedServers:
    """The URL of the balancer, those of the processes behind it, and the database behind PgBouncer."""

    balancer: str
    processes: Sequence[str]
    pooled_database: str
    scale: Scale


def limits_are_shared(servers: BalancedServers) -> None:
    """Check that a key can send its quota once, not once per process."""
    with httpx.Client(base_url=servers.balancer, timeout=60) as client:
        path = f"/api/v1/organizations/{organization_id(LIMITED)}/api-keys"
        body = json.dumps({"name": "Limited", "scopes": ["products:read"]})
        key = fetch(client, Request("POST", path, build_token(LIMITED), body), 201).json()["secret"]
        statuses = [
            client.get(list_path(LIMITED, limit=1), headers={"Authorization": f"Bearer {key}"}).status_code
            for _ in range(2 * KEY_LIMIT)
        ]
    accepted = statuses.count(200)
    assert set(statuses) == {200, 429}, statuses
    # The quota refills evenly while the requests are sent.
    assert KEY_LIMIT <= accepted <= KEY_LIMIT * 1.5, f"{accepted} of {len(statuses)} requests were accepted"


def a_key_creates_one_product(servers: BalancedServers) -> None:
    """Check that parallel requests with one Idempotency-Key create one product."""
    path, token = list_path(IDEMPOTENT), build_token(IDEMPOTENT)
    request = Request("POST", path, token, json.dumps(VALID), key=f"balanced-{uuid.uuid4().hex}")

    def send(_: int) -> httpx.Response:
        with httpx.Client(base_url=servers.balancer, timeout=60) as client:
            return client.post(path, content=request.body, headers=request.headers)

    with ThreadPoolExecutor(PARALLEL) as threads:
        responses = list(threads.map(send, range(PARALLEL)))
    ids = {response.json()["id"] for response in responses if response.status_code == 201}
    assert len(ids) == 1, [response.text[:200] for response in responses]
    assert {response.status_code for response in responses} <= {201, 409}
    for url in servers.processes:
        with httpx.Client(base_url=url, timeout=60) as client:
            assert fetch(client, request, 201).json()["id"] in ids
            count = fetch(client, Request("GET", list_path(IDEMPOTENT, limit=1), token)).json()["count"]
            assert count == servers.scale.products + 1


def a_revoked_session_ends_everywhere(servers: BalancedServers) -> None:
    """Check that no process accepts the token of a session that was ended through another one."""
    # The load that follows sends no requests of the viewer.
    viewer = servers.scale.viewer
    token = build_token(viewer)
    read = Request("GET", list_path(1, limit=1), token)
    for url in servers.processes:
        with httpx.Client(base_url=url, timeout=60) as client:
            fetch(client, read)
    with httpx.Client(base_url=servers.processes[0], timeout=60) as client:
        path = f"/api/v1/users/me/sessions/{session_id(viewer)}"
        fetch(client, Request("DELETE", path, token), 204)
    for url in servers.processes:
        with httpx.Client(base_url=url, timeout=60) as client:
            fetch(client, read, 401)


def events_arrive_from_another_process(servers: BalancedServers) -> None:
    """Check that a stream of one process has the change that another process made."""
    path, token = f"/api/v1/generations/{generation_id(WATCHED)}", build_token(WATCHED)
    headers = {"Authorization": f"Bearer {token}"}
    statuses: list[str] = []
    with (
        httpx.Client(base_url=servers.processes[0], timeout=SSE_SECONDS) as watching,
        httpx.Client(base_url=servers.processes[-1], timeout=60) as acting,
        watching.stream("GET", f"{path}/events", headers=headers) as response,
    ):
        assert response.status_code == 200, response.read()
        for line in response.iter_lines():
            if line.startswith("data:"):
                statuses.append(json.loads(line.removeprefix("data:"))["status"])
                if len(statuses) == 1:
                    fetch(acting, Request("POST", f"{path}/cancel", token), 200)
    assert (statuses[0], statuses[-1]) == ("pending", "canceled"), statuses


def tenants_stay_apart(servers: BalancedServers) -> None:
    """Check over HTTP that parallel callers see only their own products."""

    def read(number: int) -> None:
        owner = 20 + number
        with httpx.Client(base_url=servers.balancer, timeout=60) as client:
            for turn in range(TURNS):
                page = fetch(client, Request("GET", list_path(owner, limit=5), build_token(owner))).json()
                assert {each["organization_id"] for each in page["data"]} == {str(organization_id(owner))}
                foreign = f"/api/v1/products/{servers.scale.product_id(owner + 1, turn + 1)}"
                fetch(client, Request("GET", foreign, build_token(owner)), 404)

    with ThreadPoolExecutor(PARALLEL) as threads:
        list(threads.map(read, range(PARALLEL)))


def policies_hold_in_transaction_mode(servers: BalancedServers) -> None:
    """Check in SQL that the role and the caller of a transaction end with it.

    PgBouncer has fewer connections than there are threads, so a transaction follows one of another caller.
    Half of them are rolled back.
    """
    barrier = threading.Barrier(PARALLEL)
    database = Database(build_engine(servers.pooled_database, pool_size=PARALLEL))

    def run(number: int) -> None:
        owner = 30 + number
        role = SessionRole(APPLICATION_ROLE, user_id(owner), [organization_id(owner)])
        barrier.wait(60)
        for turn in range(TURNS):
            with database.transaction(write=True, role=role) as session:
                assert set(session.scalars(VISIBLE_ORGANIZATIONS)) == {organization_id(owner)}
                if turn % 2:
                    session.rollback()
            with database.transaction(write=False) as session:
                assert session.execute(CURRENT_SETTINGS).one() == (SYSTEM_ROLE, "")

    try:
        with ThreadPoolExecutor(PARALLEL) as threads:
            list(threads.map(run, range(PARALLEL)))
    finally:
        database.dispose()


CHECKS: tuple[Callable[[BalancedServers], None], ...] = (
    limits_are_shared,
    a_key_creates_one_product,
    a_revoked_session_ends_everywhere,
    events_arrive_from_another_process,
    tenants_stay_apart,
    policies_hold_in_transaction_mode,
)


def find_failures(servers: BalancedServers) -> Iterator[str]:
    """Print each check that passes, and yield each failed one as its name and error."""
    for check in CHECKS:
        name = check.__name__.replace("_", " ")
        try:
            check(servers)
        except (AssertionError, LookupError, httpx.HTTPError, RuntimeError, SQLAlchemyError) as error:
            yield f"{name}: {error!r}"
        else:
            print(f"passed: {name}", flush=True)
