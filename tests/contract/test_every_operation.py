"""Suites over the whole contract, one test an operation: what the contract declares is what callers get."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

from handlers.app import Application
from studio.limits.counters import MemoryCounters
from studio.limits.limits import Limits
from studio.limits.policies import Policies
from studio.telemetry.context import Work, begin_work
from tests.contract.conflicts import CONFLICTS
from tests.contract.every_operation import CONTRACT, OPERATIONS, Operation, Request, unknown_id
from tests.contract.examples import violations
from tests.contract.keys import back_to_work
from tests.contract.mini.asking import Reply, ask
from tests.contract.people import lesser_bearer
from tests.contract.world import MORE_ROWS, World, is_for_superusers, sign
from tests.serving import bearer


def each(keep: Callable[[Operation], bool] = lambda operation: True) -> Any:
    """Parametrise a test by the operations that `keep` keeps."""
    chosen = [name for name, operation in OPERATIONS.items() if keep(operation)]
    return pytest.mark.parametrize("name", chosen)


def explain(reply: Reply) -> str:
    """Return an answer for the message of a failed assertion."""
    return f"{reply.status} {reply.body[:600]!r}"


@each(lambda operation: operation.is_closed)
def test_s04_an_unknown_property_is_refused(name: str, app: Application, world: World) -> None:
    request = world.request_for(name)
    request.media_type = "application/json"
    request.body = {**world.body_for(request.operation, "application/json"), "surprise": 1}
    reply = request.send(app, bearer(app, world.caller_for(request.operation)))
    assert reply.status == 422, explain(reply)
    assert reply.types[("body", "surprise")] == "extra_forbidden"


# What only the answer that made it shows.
SHOWN_ONCE = {"create_webhook_endpoint": ("secret",), "create_api_key": ("secret",)}


@each(lambda operation: operation.success == 201)
def test_what_is_created_is_where_location_says(name: str, app: Application, world: World) -> None:
    request = world.request_for(name)
    headers = bearer(app, world.caller_for(request.operation))
    reply = request.send(app, headers)
    assert reply.status == 201, explain(reply)
    fetched = ask(app, "GET", reply.headers["location"], headers)
    made = {key: value for key, value in reply.json().items() if key not in SHOWN_ONCE.get(name, ())}
    assert (fetched.status, fetched.json()) == (200, made)
    assert fetched.headers["etag"] == reply.headers["etag"]


# What belongs to an account or to nobody: plans too, and a file until something refers to it.
OF_NO_ORGANIZATION = {
    *("test_token", "logout", "list_sessions", "end_session", "list_own_audit_events"),
    *("get_user", "get_current_user", "update_current_user", "change_password", "create_presigned_url"),
    *("list_subscriptions", "get_subscription", "renew_subscription", "list_subscription_usage"),
    *("list_organizations", "create_organization", "get_generation_model"),
}


@each(
    lambda one: not one.is_open and not is_for_superusers(one) and one.operation_id not in OF_NO_ORGANIZATION
)
def test_s13_what_touches_rows_of_an_organization_counts_for_it_and_is_logged_with_it(
    name: str, app: Application, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    works: list[Work] = []
    monkeypatch.setattr("handlers.observing.begin_work", lambda work: (works.append(work), begin_work(work)))
    request = world.request_for(name)
    reply = request.send(app, bearer(app, world.owner))
    assert reply.status == request.operation.success, explain(reply)
    assert '"organization";' in reply.headers["ratelimit-policy"]
    assert works[0].organization_id == request.path.get("organization_id", str(world.organization.id))


class Provoker:
    """Knows for each status of the contract a way to get it."""

    def __init__(
        self, app: Application, world: World, elsewhere: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.app, self.world, self.elsewhere, self.monkeypatch = app, world, elsewhere, monkeypatch

    def provoke(self, status: int, media_type: str | None, name: str) -> Reply:
        """Return the answer to a request that should get this status with a body of this type."""
        request = self.world.request_for(name)
        if status == request.operation.success:
            ask_for(request, media_type)
        way = getattr(self, f"get_{status}", None)
        if status == request.operation.success or way is None:
            return request.send(self.app, self.headers(request))
        return way(request)

    def headers(self, request: Request) -> dict[str, str]:
        """Return the credentials of somebody who may."""
        if request.operation.is_open:
            return {}
        return bearer(self.app, self.world.caller_for(request.operation))

    def send(self, request: Request, method: str | None = None, **headers: str) -> Reply:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return request.send(self.app, {**self.headers(request), **named}, method)

    def get_200(self, request: Request) -> Reply:
        request.query["validate_only"] = "true"
        return self.send(request)

    def get_204(self, request: Request) -> Reply:
        return self.send(request, last_event_id=str(self.world.rows["generation"].revision))

    def get_304(self, request: Request) -> Reply:
        tag = self.send(request).headers["etag"]
        return self.send(request, if_none_match=tag)

    def get_400(self, request: Request) -> Reply:
        return self.send(request.changed(raw_query="q=%FF"))

    def get_401(self, request: Request) -> Reply:
        if not request.operation.is_open:
            return request.send(self.app)
        for key in ("password", "token", "refresh_token"):
            if key in request.body:
                request.body[key] = "not-the-one"
        if "webhook-signature" in request.headers:
            request.headers["webhook-signature"] = "v1,bm90LXRoZS1vbmU="
        return request.send(self.app)

    def get_403(self, request: Request) -> Reply:
        if request.operation.is_open:
            request.query["signature"] = "bm90LXRoZS1vbmU"
            return request.send(self.app)
        return request.send(self.app, lesser_bearer(self.app, self.world, request.operation))

    def get_404(self, request: Request) -> Reply:
        operation = request.operation
        if operation.path_names():
            last = operation.path_names()[-1]
            other = {
                "share_token": "abc.def",
                "file_name": "other.png",
                "asset_name": "none.js",
                "email": "\x1f",
                "code": "none_such",
            }
            request.path[last] = other.get(last, unknown_id())
        elif "organization_id" in request.query:
            request.query["organization_id"] = unknown_id()
        elif any(parameter["name"] == "cursor" for parameter in operation.parameters):
            request.query["cursor"] = "bm9uZQ"
        else:
            foreign = f"{self.app.settings.public_url}/api/v1/files/media/{unknown_id()}/file.png"
            request.body["logo_url"] = foreign
        if operation.operation_id == "put_upload":
            sign(self.world, request)
        return self.send(request)

    def get_405(self, request: Request) -> Reply:
        reply = self.send(request, method="TRACE")
        assert request.operation.method in reply.headers["allow"].split(", ")
        return reply

    def get_406(self, request: Request) -> Reply:
        return self.send(request, accept="application/x-unknown")

    def get_408(self, request: Request) -> Reply:
        bodies = self.app.endpoints[request.operation.operation_id]._operation.bodies
        with self.monkeypatch.context() as patch:
            patch.setattr(bodies, "limits", replace(bodies.limits, patience=0.01))
            reply = request.send(self.app, self.headers(request), stalls=True)
        assert reply.headers["connection"] == "close"
        return reply

    def get_409(self, request: Request) -> Reply:
        # A tenant of its own: what collides here must not be in the way of the good answer.
        elsewhere = Provoker(self.app, self.elsewhere, self.world, self.monkeypatch)
        request = elsewhere.world.request_for(request.operation.operation_id)
        conflict = CONFLICTS.get(request.operation.operation_id)
        if conflict is None:
            return elsewhere.send_while_at_work(request)
        conflict(elsewhere.world, request)
        return elsewhere.send(request)

    def send_while_at_work(self, request: Request) -> Reply:
        """Return the answer of an operation that knows no other conflict than a key that is at work."""
        key = unknown_id()
        self.send(request, idempotency_key=key)
        back_to_work(self.app, key)
        return self.send(request, idempotency_key=key)

    def get_412(self, request: Request) -> Reply:
        return self.send(request, if_match='"another version"')

    def get_413(self, request: Request) -> Reply:
        return self.send(request, content_length="99999999999")

    def get_415(self, request: Request) -> Reply:
        return self.send(request, content_type="application/x-unknown")

    def get_422(self, request: Request) -> Reply:
        request.query["surprise"] = "1"
        return self.send(request)

    def get_500(self, request: Request) -> Reply:
        return self.failing(request, RuntimeError("secret words of a defect"))

    def get_429(self, request: Request) -> Reply:
        limits: Limits = self.app.app.config["LIMITS"]
        few = Policies.from_settings(replace(self.app.settings, limit_account=1, limit_address=1))
        with self.monkeypatch.context() as patch:
            patch.setattr(limits, "policies", few)
            patch.setattr(limits, "counters", MemoryCounters())
            headers = self.headers(request)
            request.changed(raw_query="q=%FF").send(self.app, headers)
            reply = request.send(self.app, headers)
        policy = "address" if request.operation.is_open else "account"
        assert (reply.json()["policy"], reply.headers["retry-after"]) == (policy, "60")
        assert reply.headers["ratelimit-policy"] == f'"{policy}";q=1;w=60'
        assert reply.headers["ratelimit"] == f'"{policy}";r=0;t=60'
        return reply

    def get_503(self, request: Request) -> Reply:
        reply = self.failing(request, OperationalError("SELECT secret", {}, Exception("no connection")))
        assert int(reply.headers["retry-after"]) > 0
        return reply

    def failing(self, request: Request, error: Exception) -> Reply:
        """Return the answer of an operation whose handler raises."""
        endpoint = self.app.endpoints[request.operation.operation_id]

        def fail(**_arguments: Any) -> None:
            raise error

        with self.monkeypatch.context() as patch:
            patch.setattr(endpoint, "_handler", fail)
            reply = self.send(request)
        assert b"secret" not in reply.body
        return reply


def ask_for(request: Request, media_type: str | None) -> None:
    """Ask for one of the media types between which the path or a parameter of the query chooses."""
    if request.operation.operation_id == "get_docs_asset":
        names = {
            "text/css": "docs.css",
            "text/javascript": "docs.js",
            "application/json": "code-samples.json",
        }
        request.path["asset_name"] = names[str(media_type)]
    kind = str(media_type).removeprefix("image/")
    for parameter in request.operation.parameters:
        if kind in parameter["schema"].get("enum", ()):
            request.query[parameter["name"]] = kind


@each()
def test_every_declared_response_is_produced(
    name: str, app: Application, world: World, stranger: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    provoker, operation = Provoker(app, world, stranger, monkeypatch), OPERATIONS[name]
    # The good answer last: it may delete what the others are about.
    for status, media_type in sorted(operation.answers, key=lambda answer: answer[0] == operation.success):
        reply = provoker.provoke(status, media_type, name)
        assert reply.status == status, f"{status} was asked for: {explain(reply)}"
        sent = reply.headers.get("content-type", "").partition(";")[0] or None
        assert sent == media_type, f"{status} with {media_type} was asked for: {explain(reply)}"
        assert reply.headers["x-request-id"]
        if status >= 400:
            body = reply.json()
            assert reply.headers["content-type"] == "application/problem+json"
            assert (body["status"], body["request_id"]) == (status, reply.headers["x-request-id"])


LISTS = [
    name
    for name, one in OPERATIONS.items()
    if any(parameter["name"] == "cursor" for parameter in one.parameters)
]


@pytest.fixture
def statements(database_engine: Engine) -> Iterator[list[str]]:
    """The statements that reach the database, savepoints left out."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if "SAVEPOINT" not in statement:
            seen.append(statement)

    event.listen(database_engine, "before_cursor_execute", note)
    yield seen
    event.remove(database_engine, "before_cursor_execute", note)


@pytest.mark.parametrize("name", LISTS)
def test_a_list_is_walked_once_by_cursor_at_constant_cost(
    name: str, app: Application, world: World, statements: list[str]
) -> None:
    request = world.request_for(name)
    headers = bearer(app, world.caller_for(request.operation))
    make_more_rows(world, name)

    def page(**query: Any) -> tuple[dict[str, Any], int]:
        statements.clear()
        reply = request.changed(query={**request.query, **query}).send(app, headers)
        assert reply.status == 200, explain(reply)
        return reply.json(), len(statements)

    everything, cost_of_all = page()
    assert everything["count"] >= 3
    one, cost_of_one = page(limit=1)
    assert len(one["data"]) == 1
    assert cost_of_one == cost_of_all
    walked, cursor = list(one["data"]), one["next_cursor"]
    while cursor:
        one, _ = page(limit=1, cursor=cursor)
        walked += one["data"]
        cursor = one["next_cursor"]
    assert [row["id"] for row in walked] == [row["id"] for row in everything["data"]]
    skipped, _ = page(limit=2, skip=1)
    assert skipped["data"] == everything["data"][1:3]
    assert skipped["count"] == everything["count"]


def make_more_rows(world: World, name: str) -> None:
    """Make a list at least three rows long."""
    for _ in range(3):
        MORE_ROWS[name](world)


def test_every_example_of_the_contract_validates(app: Application) -> None:
    assert violations() == []


def test_the_served_contract_is_the_committed_one(app: Application, world: World) -> None:
    reply = world.request_for("get_openapi_json").send(app)
    assert json.loads(reply.body) == CONTRACT
