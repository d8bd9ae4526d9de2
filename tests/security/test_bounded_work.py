"""The work and the lock waits of one request are bounded: no single client holds all request threads."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import event, text

from db.models import Shooting
from handlers.pipeline import lock_waits
from studio.generations import batch
from tests.api.conftest import Client, CommittingServer
from tests.support import factories
from tests.support.app import auth_headers
from tests.support.databases import on_postgresql
from tests.support.generations import status_and_code
from tests.support.scenarios import PhotographedProduct


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


@on_postgresql
def test_s36_lock_waits_hold_half_of_the_threads_only(
    committing_server: CommittingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two accounts want a locked row with all threads. Half of them wait for it, the others give up."""
    monkeypatch.setattr(lock_waits, "SHORT_WAIT_MILLISECONDS", 50)
    client, database, scenario = committing_server
    with database.transaction(write=True):
        admin = factories.make_user()
        factories.make_membership(scenario.organization, admin, "admin")
        clients = [client, Client(client.app, auth_headers(client.app, admin))]
    path = f"/shootings/{scenario.shooting.id}"
    threads = client.app.settings.request_threads
    gave_up = threading.Semaphore(0)

    def rename(number: int) -> Any:
        response = clients[number % 2]("PATCH", path, {"name": f"Spring {number}"})
        if response.status == 503:
            gave_up.release()
        return response

    with ThreadPoolExecutor(threads) as pool:
        with database.engine.begin() as locking:
            locking.execute(text("SELECT id FROM shootings FOR UPDATE"))
            sent = [pool.submit(rename, number) for number in range(threads)]
            for _ in range(threads - threads // 2):
                assert gave_up.acquire(timeout=10)
            # Threads are free, although the row is still locked.
            assert clients[1]("GET", path).status == 200
            assert not gave_up.acquire(timeout=0.2)
        responses = [one.result() for one in sent]
    assert Counter(response.status for response in responses) == {
        200: threads // 2,
        503: threads - threads // 2,
    }
    rejected = next(response for response in responses if response.status == 503)
    assert status_and_code(rejected) == (503, "unavailable")
    assert rejected.headers["retry-after"] == "5"
