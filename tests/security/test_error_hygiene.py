"""A fault in any layer is a problem with a request id, and tells nothing of what is inside."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import make_url, text

from db.engines import make_engine
from db.session import Database
from handlers.app import Application
from tests.api.catalogue import House
from tests.api.conftest import Committed
from tests.contract.mini.asking import Reply, ask

INNER = "SELECT hunter2 FROM users -- /srv/private/key.pem"
TELLING = (
    b"SELECT",
    b"hunter2",
    b"users",
    b"/srv",
    b"Traceback",
    b"Error:",
    b".py",
    b"line ",
    b"psycopg",
    b"sqlite",
)

# Where each layer does its work; whatever it is, it fails there.
LAYERS = {
    "routing": "handlers.contract.paths.PathTable.find",
    "security": "handlers.auth.jwt.decode",
    "limits": "studio.limits.limits.Limits.spend_on_loop",
    "negotiation": "handlers.contract.middleware._require_acceptable",
    "parameters": "handlers.contract.parameters.Parameters.read",
    "body": "handlers.contract.bodies.Bodies.read",
    "parsing": "handlers.contract.bodies.parse_json",
    "validation": "handlers.contract.bodies.violations_of",
    "bridge": "handlers.contract.bridge._environ",
    "endpoint": "handlers.contract.endpoint.Endpoint._serve",
    "caller": "handlers.contract.endpoint.acting_as",
    "tenancy": "handlers.references.creation_scope",
    "serialization": "handlers.contract.endpoint.encode_json",
    "check of the answer": "handlers.contract.responses.Responses.violation",
    "commit": "sqlalchemy.orm.Session.commit",
    "answer": "handlers.contract.endpoint._build",
}

# And those around them all, which see the answer when it is made already.
OUTER_LAYERS = {
    "request id": "handlers.observing._request_id",
    "metrics": "handlers.observing.metrics.request_began",
    "trace": "handlers.observing.traces.entry",
    "answer on its way out": "handlers.observing._Answer.__call__",
    "surface": "handlers.contract.surface.Surface.__call__",
    "headers": "handlers.contract.surface._caching",
    "envelope": "handlers.contract.middleware.Envelope.__call__",
}


def fail(*_: Any, **__: Any) -> Any:
    """Fail with words that nobody outside may read."""
    raise RuntimeError(INNER)


def assert_tells_nothing(reply: Reply, status: int, code: str, request_id: str = "of-the-fault") -> None:
    """The answer is a problem as every other, and of what failed there is no trace."""
    problem = reply.json()
    assert (reply.status, problem["status"], problem["code"]) == (status, status, code), reply.body
    assert reply.headers["content-type"] == "application/problem+json"
    assert list(problem) == ["type", "title", "status", "detail", "code", "request_id"]
    assert problem["request_id"] == reply.headers["x-request-id"] == request_id
    told = reply.body + repr(reply.headers).encode()
    assert [word for word in TELLING if word in told] == []


def create(client: Callable[..., Reply]) -> Reply:
    """The answer to a request that passes every layer."""
    return client("POST", "/brands/", {"name": "Linen"}, headers={"x-request-id": "of-the-fault"})


@pytest.mark.parametrize("layer", LAYERS)
def test_s23_a_fault_in_a_layer_is_a_neutral_problem(
    layer: str, house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(LAYERS[layer], fail)
    reply = create(house.client)
    monkeypatch.undo()
    assert_tells_nothing(reply, 500, "internal_error")
    # Whoever runs the server finds it in the log.
    assert INNER in caplog.text
    assert house.client("GET", "/brands/").json()["count"] == 0


@pytest.mark.parametrize("layer", OUTER_LAYERS)
def test_s23_a_fault_around_the_envelope_is_a_neutral_problem_with_every_header(
    layer: str, house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    as_ever = house.client("GET", "/brands/")
    monkeypatch.setattr(OUTER_LAYERS[layer], fail)
    reply, head = create(house.client), house.client("HEAD", "/brands/")
    # The one that the request came with is lost with what reads it.
    request_id = reply.headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{20}" if layer == "request id" else "of-the-fault", request_id)
    assert_tells_nothing(reply, 500, "internal_error", request_id)
    assert (head.status, head.body) == (500, b"")
    assert set(reply.headers) == set(as_ever.headers) - {"ratelimit", "ratelimit-policy"}
    assert reply.headers["cache-control"] == "no-store"
    assert INNER in caplog.text
    assert REGISTRY.get_sample_value("sartiq_requests_in_progress") == 0


@pytest.mark.parametrize("layer", ["surface", "headers", "envelope"])
def test_s23_a_fault_around_the_envelope_is_counted_and_logged_as_what_was_answered(
    layer: str, house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sartiq.access")
    monkeypatch.setattr(OUTER_LAYERS[layer], fail)
    assert create(house.client).status == 500
    (line,) = [record for record in caplog.records if record.name == "sartiq.access"]
    assert vars(line)["status"] == 500


def test_s23_a_fault_in_what_makes_problems_is_a_problem(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("handlers.errors.problem_for", "handlers.contract.middleware.problem_for"):
        monkeypatch.setattr(place, fail)
    monkeypatch.setattr(house.client.app.endpoints["create_brand"], "_handler", fail)
    assert_tells_nothing(create(house.client), 500, "internal_error")


def unreachable(kind: str, folder: Path, url: str) -> str:
    """The address of a database that is not there."""
    if kind == "sqlite":
        return f"sqlite:///{folder / 'no' / 'such' / 'folder' / 'database.db'}"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return make_url(url).set(port=port).render_as_string(hide_password=False)


def test_s23_a_database_that_is_away_is_told_and_nothing_more(
    application: Application, house: House, database_kind: str, database_url: str, tmp_path: Path
) -> None:
    headers = {**house.client.headers, "x-request-id": "of-the-fault"}
    away = Database(make_engine(unreachable(database_kind, tmp_path, database_url), pool_size=1))
    with application.database.switched_to(away):
        reply = ask(application, "POST", "/api/v1/brands/", headers, as_json={"name": "Linen"})
    away.dispose()
    assert_tells_nothing(reply, 503, "unavailable")
    assert int(reply.headers["retry-after"]) > 0


@contextmanager
def locked(database: Database) -> Iterator[None]:
    """Keep everybody else from writing brands."""
    with database.engine.execution_options(write=True).connect() as connection, connection.begin():
        if database.engine.dialect.name == "postgresql":
            connection.execute(text("LOCK TABLE brands IN ACCESS EXCLUSIVE MODE"))
        yield


def test_s23_a_lock_that_is_not_given_back_is_told_and_nothing_more(
    committed: Committed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.engines.LONGEST_LOCK_MILLISECONDS", 300)
    url = committed.database.engine.url.render_as_string(hide_password=False)
    impatient = Database(make_engine(url, pool_size=2, statement_seconds=20))
    app = committed.client.app
    with locked(committed.database), app.database.switched_to(impatient):
        reply = create(committed.client)
    impatient.dispose()
    assert_tells_nothing(reply, 503, "unavailable")


def test_s23_a_file_that_breaks_off_is_no_text(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address of a file that vanished: the answer is a problem, for nothing of the file was sent."""
    monkeypatch.setattr("handlers.contract.bridge.anyio.open_file", fail)
    monkeypatch.setattr(house.client.app.bridge, "_serve", _with_file(house.client.app.bridge._serve))
    assert_tells_nothing(create(house.client), 500, "internal_error")


def _with_file(serve: Callable[..., Any]) -> Callable[..., Any]:
    def serve_a_file(scope: Any, call: Any) -> Any:
        answer = serve(scope, call)
        call.file = Path("/srv/private/key.pem")
        return answer

    return serve_a_file
