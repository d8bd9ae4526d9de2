"""Check that several processes behind a balancer and PgBouncer act as one server.

Each check sends requests through the balancer or to single processes, and raises AssertionError.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
from httpx_sse import ServerSentEvent, connect_sse
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from db.engine import build_engine
from db.rls.session_role import APPLICATION_ROLE, SYSTEM_ROLE, SessionRole
from db.session import Database
from tools.bench.operations import VALID, Request, fetch, list_path
from tools.bench.rows import (
    Scale,
    build_token,
    generation_id,
    organization_id,
    session_id,
    user_id,
)
from tools.demo import Api, DemoStopped
from tools.sample_images.photograph import load_phone_photo

KEY_LIMIT = 30
"""The requests per minute of an API key, in the settings of the servers."""
PARALLEL, TURNS = 8, 25
SSE_SECONDS, RENDER_SECONDS = 30, 120
# Each check has organizations of its own, so that they can run in any order.
WATCHED, IDEMPOTENT, LIMITED, REVOKED, RENDERED = 11, 12, 13, 14, 15


# Not all rows: with the policy, each row takes time.
VISIBLE_ORGANIZATIONS = text(
    "SELECT DISTINCT organization_id FROM (SELECT organization_id FROM products LIMIT 1000) AS seen"
)
CURRENT_SETTINGS = text("SELECT current_user, coalesce(current_setting('sartiq.user_id', true), '')")


@dataclass(frozen=True)
class BalancedServers:
    """The processes behind a balancer and PgBouncer.

    Attributes:
        balancer: The URL of the balancer.
        processes: The URLs of the processes.
        pooled_database: The URL of the database behind PgBouncer.
        scale: The rows of the database.
        start_workers: Starts the workers, behind the same PgBouncer, until all processes end.
    """

    balancer: str
    processes: Sequence[str]
    pooled_database: str
    scale: Scale
    start_workers: Callable[[], object]


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


def a_revoked_key_ends_everywhere(servers: BalancedServers) -> None:
    """Check that no process accepts an API key that was revoked through another one."""
    path, token = f"/api/v1/organizations/{organization_id(REVOKED)}/api-keys", build_token(REVOKED)
    body = json.dumps({"name": "Revoked", "scopes": ["products:read"]})
    with httpx.Client(base_url=servers.processes[-1], timeout=60) as client:
        created = fetch(client, Request("POST", path, token, body), 201).json()
    read = Request("GET", list_path(REVOKED, limit=1), created["secret"])
    for url in servers.processes:
        with httpx.Client(base_url=url, timeout=60) as client:
            fetch(client, read)
    with httpx.Client(base_url=servers.processes[0], timeout=60) as client:
        fetch(client, Request("DELETE", f"{path}/{created['id']}", token), 204)
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


def workers_run_what_a_process_accepted(servers: BalancedServers) -> None:
    """Check that a worker renders a generation, and that a stream of another process reports it to its end.

    Starts the workers, which would also have run the generation of the check before.
    """
    with contextlib.ExitStack() as stack:
        accepting, watching = (
            stack.enter_context(Api(url)) for url in (servers.processes[-1], servers.processes[0])
        )
        for api in (accepting, watching):
            api.client.headers["Authorization"] = f"Bearer {build_token(RENDERED)}"
        _pay_generations(servers)
        shot = _prepare_shot(accepting)
        generation = accepting.post(f"/shots/{shot}/generate", json={"num_predictions": 1})
        servers.start_workers()
        path = f"/generations/{generation['id']}"
        statuses = [json.loads(event.data)["status"] for event in _list_events(watching, path)]
        assert (statuses[0], statuses[-1]) == ("pending", "completed"), statuses
        (prediction,) = watching.get(path)["predictions"]
        assert accepting.download(f"/predictions/{prediction['id']}/image")


def _pay_generations(servers: BalancedServers) -> None:
    with Api(servers.balancer) as superuser:
        superuser.client.headers["Authorization"] = f"Bearer {build_token(servers.scale.superuser)}"
        plan = {"service_type": "SELF_SERVICE", "tier": "GROW"}
        superuser.post(f"/subscriptions/{user_id(RENDERED)}", json=plan)


def _prepare_shot(api: Api) -> str:
    """Create a product with a photo, and a shot of it; return the id of the shot."""
    organization = str(organization_id(RENDERED))
    product = api.post("/products/", organization, json=VALID)
    api.post(
        f"/products/{product['id']}/images",
        files={"file": ("mug.jpg", load_phone_photo())},
        data={"type": "primary"},
    )
    shooting = api.post("/shootings/", organization, json={"name": "Balanced"})
    kinds = api.get("/shot-types/", organization_id=organization, include_public=True)["data"]
    look = {"main_product_id": product["id"], "shot_type_ids": [kinds[0]["id"]]}
    (shot,) = api.post(f"/shootings/{shooting['id']}/looks", json=look)["shots"]
    return str(shot["id"])


def _list_events(api: Api, path: str) -> list[ServerSentEvent]:
    """Return the events of a generation until its end. A stream may end before, at its time limit."""
    events: list[ServerSentEvent] = []
    deadline = time.monotonic() + RENDER_SECONDS
    while time.monotonic() < deadline:
        with connect_sse(api.client, "GET", f"{path}/events") as source:
            events += [event for event in source.iter_sse() if event.data]
        if api.get(path)["completed_at"]:
            return events
    raise AssertionError(f"after {RENDER_SECONDS} s not completed: {events[-1].data}")


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


FAILURES = (
    AssertionError,
    LookupError,
    ValueError,
    httpx.HTTPError,
    RuntimeError,
    SQLAlchemyError,
    DemoStopped,
)
CHECKS: tuple[Callable[[BalancedServers], None], ...] = (
    limits_are_shared,
    a_key_creates_one_product,
    a_revoked_session_ends_everywhere,
    a_revoked_key_ends_everywhere,
    events_arrive_from_another_process,
    workers_run_what_a_process_accepted,
    tenants_stay_apart,
    policies_hold_in_transaction_mode,
)


def run_checks(servers: BalancedServers) -> Iterator[tuple[str, Exception | None]]:
    """Run each check; yield its name and the error if it failed."""
    for check in CHECKS:
        name = check.__name__.replace("_", " ")
        try:
            check(servers)
        except FAILURES as error:
            yield name, error
        else:
            yield name, None
