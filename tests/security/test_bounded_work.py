"""The work and the lock waits of one request are bounded: no single client holds all request threads."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import event, text

from db.models import Shooting
from handlers.contract.errors import BadRequest, Violation
from handlers.contract.request_bodies import Judged
from handlers.pipeline import prechecks, wsgi_bridge
from handlers.pipeline.admission import body_limits
from handlers.pipeline.admission.body_limits import BodyTurns
from handlers.pipeline.admission.limits import Limit
from studio.generations import batch
from studio.infrastructure.fair_slots import FairSlots, Requester, set_current_requester
from tests.api.conftest import Client, CommittingServer
from tests.security.rate_limits import AppFromAddress
from tests.support import factories
from tests.support.app import auth_headers
from tests.support.client import ClientResponse, status_and_code
from tests.support.concurrency import wait_for
from tests.support.factories.catalog import post_form
from tests.support.rejections import Rejections
from tests.support.scenarios import PhotographedProduct, make_product_photo


def make_shots(scenario: PhotographedProduct, looks: int, shot_types: int, **look: Any) -> Shooting:
    """Create a shooting whose looks have one pending shot per shot type, and return it."""
    shooting = factories.make_shooting(**scenario.ownership, default_guidelines_id=scenario.guidelines.id)
    kinds = [factories.make_shot_type(**scenario.ownership) for _ in range(shot_types)]
    look.setdefault("main_product_id", factories.make_product(**scenario.ownership).id)
    for _ in range(looks):
        row = factories.make_look(shooting, **look)
        for kind in kinds:
            factories.make_shot(row, shot_type_id=kind.id)
    return shooting


def count_statements(committing_server: CommittingServer, shooting: Shooting) -> tuple[int, Counter[str]]:
    """Generate a shooting; return the number of SQL statements and the error codes of the shots."""
    statements: list[str] = []

    def record(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    engine = committing_server.database.engine
    event.listen(engine, "before_cursor_execute", record)
    try:
        response = committing_server.client("POST", f"/shootings/{shooting.id}/generate", {})
    finally:
        event.remove(engine, "before_cursor_execute", record)
    codes = Counter(result["error"]["code"] for result in response.json()["results"])
    return len(statements), codes


def test_s36_rejected_shots_of_a_look_cost_no_statement_each(committing_server: CommittingServer) -> None:
    with committing_server.database.transaction(write=True):
        few = make_shots(committing_server.scenario, looks=2, shot_types=2)
        many = make_shots(committing_server.scenario, looks=2, shot_types=12)
    statements_of_few, codes_of_few = count_statements(committing_server, few)
    statements_of_many, codes_of_many = count_statements(committing_server, many)
    assert codes_of_few == {"nothing_to_generate": 4}
    assert codes_of_many == {"nothing_to_generate": 24}
    # Each shot type is loaded once, whatever the number of looks.
    assert statements_of_many - statements_of_few == 10


def test_s36_rejected_shots_leave_little_to_the_garbage_collector(
    committing_server: CommittingServer,
) -> None:
    # No thread runs while it collects: batches of 1,000 shots stopped all requests for 0.1 s each second.
    with committing_server.database.transaction(write=True):
        few = make_shots(committing_server.scenario, looks=1, shot_types=2)
        many = make_shots(committing_server.scenario, looks=51, shot_types=2)
    paths = [f"/shootings/{shooting.id}/generate" for shooting in (few, few, many)]
    gc.collect()
    gc.disable()
    try:
        garbage = []
        for path in paths:
            assert committing_server.client("POST", path, {}).status == 202
            garbage.append(gc.collect())
    finally:
        gc.enable()
    # It was 41.
    assert (garbage[2] - garbage[1]) / 100 < 8


def test_s36_an_error_that_all_shots_share_ends_the_batch_at_the_first_one(
    client_for: Any, scenario: PhotographedProduct, monkeypatch: pytest.MonkeyPatch
) -> None:
    shooting = make_shots(scenario, looks=2, shot_types=3)
    model = factories.make_generation_model(tool_types=["REFINE"])
    resolved = []
    monkeypatch.setattr(batch, "resolve", lambda *args, real=batch.resolve: resolved.append(0) or real(*args))
    response = client_for(scenario.owner)(
        "POST", f"/shootings/{shooting.id}/generate", {"model_id": str(model.id)}
    )
    codes = {result["error"]["code"] for result in response.json()["results"]}
    assert (codes, response.json()["refused_count"], len(resolved)) == ({"strategy_not_supported"}, 6, 1)


def test_s36_a_batch_that_reaches_its_time_limit_does_not_attempt_the_rest(
    client_for: Any, scenario: PhotographedProduct, monkeypatch: pytest.MonkeyPatch
) -> None:
    client: Client = client_for(scenario.owner)
    shooting = make_shots(scenario, looks=3, shot_types=1, main_product_id=scenario.product.id)
    path, body = f"/shootings/{shooting.id}/generate", {"num_predictions": 1}
    # The clock is read once before the first shot, then once per shot.
    readings = iter((0.0, 0.0, batch.MAX_SECONDS))
    monkeypatch.setattr(batch, "time", SimpleNamespace(monotonic=lambda: next(readings)))
    response = client("POST", path, body)
    monkeypatch.undo()
    document = response.json()
    assert (response.status, document["accepted_count"], document["refused_count"]) == (202, 1, 2)
    assert document["cost_credits"] == 1
    assert [result["error"] for result in document["results"][1:]] == [
        {
            "code": "not_attempted",
            "detail": "The batch reached its time limit before this shot: send the request again",
        }
    ] * 2
    # The next request continues with the shots that were not attempted.
    again = client("POST", path, body).json()
    assert [result["shot_id"] for result in again["results"]] == [
        result["shot_id"] for result in document["results"][1:]
    ]
    assert (again["accepted_count"], again["refused_count"]) == (2, 0)


@pytest.fixture
def half_of_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each account have half of the threads, also while there are others."""
    monkeypatch.setattr("studio.infrastructure.fair_slots.CONTENDED_SECONDS", 0)


class LockedShooting:
    """A shooting whose row is locked, and two members of its organization who add looks to it.

    Args:
        committing_server: The server with the shooting.
    """

    def __init__(self, committing_server: CommittingServer) -> None:
        client, self.database, scenario = committing_server
        self.app = client.app
        with self.database.transaction(write=True):
            admin = factories.make_user()
            factories.make_membership(scenario.organization, admin, "admin")
            # At different addresses: one address leaves a slot to others.
            elsewhere = AppFromAddress(self.app, "192.0.2.7")
            self.clients = [client, Client(elsewhere, auth_headers(self.app, admin))]
            self.bystander = Client(self.app, auth_headers(self.app, factories.make_user()))
        self.owner_names = [f"account {user.id}" for user in (scenario.owner, admin)]
        self.path = f"/shootings/{scenario.shooting.id}/looks"
        self.look = {
            "main_product_id": str(scenario.product.id),
            "shot_type_ids": [str(scenario.shot_type.id)],
        }
        self.threads = self.app.settings.request_threads
        self.slots = self.app.bridge.lock_waits.slots

    def add_look(self, number: int) -> ClientResponse:
        """Add a look as one of the two members, with an idempotency key per number."""
        headers = {"idempotency-key": f"look-{number}"}
        return self.clients[number % 2]("POST", self.path, self.look, headers=headers)

    def count_waiting(self) -> int:
        """Return how many requests wait for a slot on the event loop."""
        return sum(map(self.slots.count_waiting, self.owner_names))

    @contextmanager
    def adding_looks(self) -> Iterator[list[Future[ClientResponse]]]:
        """Send as many requests as there are threads; yield them when half of them wait without a thread."""
        with ThreadPoolExecutor(self.threads) as pool, self.database.engine.begin() as locking:
            locking.execute(text("SELECT id FROM shootings FOR UPDATE"))
            sent = [pool.submit(self.add_look, number) for number in range(self.threads)]
            wait_for(lambda: self.count_waiting() == self.threads - self.threads // 2)
            yield sent


@pytest.mark.usefixtures("half_of_the_threads")
def test_s36_lock_waits_hold_half_of_the_threads_and_the_other_requests_are_served_later(
    committing_server: CommittingServer,
) -> None:
    locked = LockedShooting(committing_server)
    with locked.adding_looks() as sent:
        assert [locked.slots.count_held(name) for name in locked.owner_names] == [locked.threads // 4] * 2
        assert locked.bystander("GET", "/brands/").status == 200
        assert not any(one.done() for one in sent)
    responses = [one.result() for one in sent]
    assert [response.status for response in responses] == [201] * locked.threads
    # Each look was created once, and its response is stored for its key.
    assert locked.clients[0]("GET", locked.path).json()["count"] == 1 + locked.threads
    replay = locked.add_look(locked.threads - 1)
    assert (replay.body, replay.headers["idempotency-replayed"]) == (responses[-1].body, "true")


@pytest.mark.usefixtures("half_of_the_threads")
def test_s36_a_request_that_may_not_wait_for_a_row_lock_in_time_is_a_503(
    committing_server: CommittingServer, monkeypatch: pytest.MonkeyPatch, rejections: Rejections
) -> None:
    monkeypatch.setattr(wsgi_bridge, "SLOT_SECONDS", 0.5)
    locked = LockedShooting(committing_server)
    with locked.adding_looks() as sent:
        wait_for(lambda: sum(one.done() for one in sent) == locked.threads - locked.threads // 2)
        rejected = [one.result() for one in sent if one.done()]
    assert {status_and_code(response) for response in rejected} == {(503, "unavailable")}
    assert {response.headers["retry-after"] for response in rejected} == {"5"}
    assert rejections.take() == {(503, "unavailable", Limit.ROW_LOCKED)}
    assert Counter(one.result().status for one in sent)[201] == locked.threads // 2


def test_s36_an_upload_that_meets_a_row_lock_is_decoded_once_and_served_later(
    committing_server: CommittingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, database, scenario = committing_server
    client.headers["idempotency-key"] = "photo"
    lock_waits, decoded = client.app.bridge.lock_waits, []
    monkeypatch.setattr(lock_waits, "slots", FairSlots(1, 1))
    monkeypatch.setattr(
        prechecks, "read_image", lambda file, real=prechecks.read_image: decoded.append(0) or real(file)
    )
    assert lock_waits.slots.try_take(Requester.of("another request"))

    def add_photo() -> ClientResponse:
        path = f"/products/{scenario.product.id}/images"
        return post_form(client, path, make_product_photo(), type="front")

    with ThreadPoolExecutor(1) as pool:
        with database.engine.begin() as locking:
            locking.execute(text("SELECT id FROM products FOR UPDATE"))
            sent = pool.submit(add_photo)
            wait_for(lambda: lock_waits.slots.count_waiting(f"account {scenario.owner.id}") == 1)
        lock_waits.slots.release(Requester.of("another request"))
        first = sent.result()
    replay = add_photo()
    assert (first.status, replay.body, len(decoded)) == (201, first.body, 1)


def test_s36_an_upload_that_may_not_wait_for_a_row_lock_in_time_frees_its_idempotency_key(
    committing_server: CommittingServer, monkeypatch: pytest.MonkeyPatch, rejections: Rejections
) -> None:
    monkeypatch.setattr(wsgi_bridge, "SLOT_SECONDS", 0.3)
    client, database, scenario = committing_server
    slots = FairSlots(1, 1)
    monkeypatch.setattr(client.app.bridge.lock_waits, "slots", slots)
    client.headers["idempotency-key"] = "photo"
    path = f"/products/{scenario.product.id}/images"
    assert slots.try_take(Requester.of("another request"))
    with database.engine.begin() as locking:
        locking.execute(text("SELECT id FROM products FOR UPDATE"))
        rejected = post_form(client, path, make_product_photo(), type="front")
    assert status_and_code(rejected) == (503, "unavailable")
    assert rejections.take() == {(503, "unavailable", Limit.ROW_LOCKED)}
    assert post_form(client, path, make_product_photo(), type="front").status == 201


def test_s36_a_request_that_counts_attempts_waits_a_second_for_a_row_lock(
    committing_server: CommittingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, database, scenario = committing_server
    slots = FairSlots(1, 1)
    monkeypatch.setattr(client.app.bridge.lock_waits, "slots", slots)
    assert slots.try_take(Requester.of("another request"))
    with database.engine.begin() as locking:
        locking.execute(text("SELECT id FROM users FOR UPDATE"))
        started = time.monotonic()
        rejected = client("PATCH", "/users/me", {"full_name": "Ada"})
        assert time.monotonic() - started >= 1
    assert status_and_code(rejected) == (503, "unavailable")
    # It was served once: it did not wait for a slot.
    assert slots.count_waiting(f"account {scenario.owner.id}") == 0
    assert client("PATCH", "/users/me", {"full_name": "Ada"}).status == 200


def test_s19_wrong_bodies_are_judged_one_after_the_other() -> None:
    """Several busy threads would delay the event loop for seconds."""
    turns, running, together = BodyTurns(), [], []

    def judge() -> Judged:
        running.append(1)
        together.append(len(running))
        time.sleep(0.01)
        running.pop()
        return None, []

    async def run(owner: str) -> None:
        set_current_requester(Requester.of(owner))
        await turns.run(judge)

    async def run_all() -> None:
        await asyncio.gather(*(run(owner) for owner in ("ada", "ada", "ada", "ben", "cyd")))

    asyncio.run(run_all())
    assert together == [1] * 5


@pytest.mark.parametrize("wrong", [[Violation(("body",), "Is required", "missing")], BadRequest("no JSON")])
def test_s19_an_account_with_wrong_bodies_rests_and_delays_no_other(
    wrong: list[Violation] | BadRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns, order, rests = BodyTurns(), [], []

    async def run(owner: str, result: list[Violation] | BadRequest) -> None:
        def judge() -> Judged:
            order.append(owner)
            time.sleep(0.01)
            if isinstance(result, BadRequest):
                raise result
            return None, result

        set_current_requester(Requester.of(owner))
        with suppress(BadRequest):  # what `judge` raises in one of the cases
            await turns.run(judge)

    async def run_all() -> None:
        others_are_done = asyncio.Event()

        async def sleep(seconds: float) -> None:
            rests.append(seconds)
            await others_are_done.wait()

        monkeypatch.setattr(body_limits, "asyncio", SimpleNamespace(Lock=asyncio.Lock, sleep=sleep))
        attacks = asyncio.gather(*(run("attacker", wrong) for _ in range(3)))
        await asyncio.gather(run("ben", []), run("ben", []))
        others_are_done.set()
        await attacks

    asyncio.run(run_all())
    assert order == ["attacker", "ben", "ben", "attacker", "attacker"]
    # A correct body needs no rest.
    assert len(rests) == 3
    assert all(rest >= 0.02 for rest in rests)


def test_s19_an_account_with_wrong_files_rests_as_long_as_their_authorization_took(
    client: Client, scenario: PhotographedProduct, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[float] = []

    async def rest(_turns: BodyTurns, seconds: float) -> None:
        rests.append(seconds)

    monkeypatch.setattr(BodyTurns, "rest", rest)
    path, form = (
        f"/products/{scenario.product.id}/images",
        {"content-type": "multipart/form-data; boundary=b"},
    )
    part = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n'
    assert client("POST", path, body=part * 200 + b"--b--\r\n", headers=form).status == 413
    assert client("POST", path, body=part + b"--b--\r\n", headers=form).status == 422
    assert len(rests) == 2
    assert all(seconds > 0 for seconds in rests)
    # Without the permission, no body is read.
    assert (
        client(
            "POST", "/products/01990000-5eed-7000-8000-000500000009/images", body=part, headers=form
        ).status
        == 404
    )
    assert len(rests) == 2
