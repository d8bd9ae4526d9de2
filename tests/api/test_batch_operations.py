"""Batch operations: each item is a request of its single operation, with a result of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, ExceptionContext, event, func, select

from db.base import new_id
from db.models import AuditEvent, IdempotencyKey, Prediction, Product, Shot
from db.session import Database
from handlers.app import Application
from studio.infrastructure.storage import LocalDisk
from tests.api.conftest import Client, CommittingServer
from tests.support import factories
from tests.support.app import replace_service
from tests.support.client import status_and_code
from tests.support.concurrency import run_concurrently
from tests.support.factories.api_keys import api_key_headers
from tests.support.factories.catalog import Customer
from tests.support.generations import complete_generation
from tests.support.scenarios import PhotographedProduct, make_product_photo

DEADLOCK_DETECTED = "40P01"
"""The SQLSTATE of PostgreSQL."""


class Batch:
    """Sends batches of one collection in the organization of a customer."""

    def __init__(self, client: Client, collection: str, organization_id: UUID) -> None:
        self.client = client
        self.path = f"/{collection}/batch?organization_id={organization_id}"

    def __call__(self, *items: dict[str, Any], repeats: bool = False, **headers: str) -> dict[str, Any]:
        response = self.client("POST", self.path, {"items": list(items)}, headers=headers)
        while repeats and response.status == 503:
            # The batch has waited too long for another one, which a busy machine delays.
            assert (response.json()["code"], "retry-after" in response.headers) == ("unavailable", True)
            response = self.client("POST", self.path, {"items": list(items)}, headers=headers)
        assert response.status == 200, response.body
        body: dict[str, Any] = response.json()
        assert [result["index"] for result in body["results"]] == list(range(len(items)))
        accepted = [result for result in body["results"] if result["problem"] is None]
        assert body["accepted_count"] == len(accepted)
        assert body["refused_count"] == len(items) - len(accepted)
        return body


def outcomes(body: dict[str, Any]) -> list[tuple[int, str | None]]:
    """Return the status and the problem code of each result."""
    return [(result["status"], result["problem"] and result["problem"]["code"]) for result in body["results"]]


def create(**body: Any) -> dict[str, Any]:
    return {"action": "create", "body": body}


def update(row_id: object, **body: Any) -> dict[str, Any]:
    return {"action": "update", "id": str(row_id), "body": body}


def upload_photo(customer: Customer) -> str:
    """Upload a photo and return the URL by which a body names it."""
    body = {"filename": "a.jpg", "content_type": "image/jpeg"}
    upload = customer.client("POST", "/uploads/presigned-url", body).json()
    target, headers = upload["upload_url"].partition("/api/v1")[2], {"content-type": "image/jpeg"}
    assert customer.client("PUT", target, body=make_product_photo(), headers=headers).status < 300
    return str(upload["file_url"])


def list_events(database: Database) -> list[tuple[str, UUID | None, str, int]]:
    """Return action, target, outcome and count of each audit event."""
    with database.transaction(write=False) as reading:
        events = reading.scalars(select(AuditEvent).order_by(AuditEvent.id)).all()
        return [(each.action, each.target_id, each.outcome, each.count) for each in events]


@pytest.fixture
def products(customer: Customer) -> Batch:
    return Batch(customer.client, "products", customer.organization.id)


@pytest.fixture
def statements(database: Database) -> Iterator[list[str]]:
    """Yield the list of the SQL statements that run during the test."""
    executed: list[str] = []

    def record(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        executed.append(statement)

    event.listen(Engine, "before_cursor_execute", record)
    yield executed
    event.remove(Engine, "before_cursor_execute", record)


def test_each_item_has_the_response_and_the_audit_event_of_its_operation(
    customer: Customer, products: Batch, database: Database
) -> None:
    kept, deleted = (customer.create("/products/", {"name": name}) for name in ("Kept", "Deleted"))
    before = len(list_events(database))
    body = products(
        create(name="Shirt", sku="S-1"),
        update(kept["id"], color="sand"),
        {"action": "delete", "id": deleted["id"]},
        {"action": "create", "mode": "basic", "body": {"name": "Draft"}},
    )
    assert outcomes(body) == [(201, None), (200, None), (204, None), (201, None)]
    created, updated, removed, draft = body["results"]
    assert removed["body"] is None
    assert draft["body"]["state"] == "DRAFT"
    for result in (created, updated, draft):
        assert customer.client("GET", f"/products/{result['id']}").json() == result["body"]
    assert customer.client("GET", f"/products/{deleted['id']}").status == 404
    assert list_events(database)[before:] == [
        ("create_product", UUID(created["id"]), "succeeded", 1),
        ("update_product", UUID(kept["id"]), "succeeded", 1),
        ("delete_product", UUID(deleted["id"]), "succeeded", 1),
        ("create_product", UUID(draft["id"]), "succeeded", 1),
    ]
    path = f"/organizations/{customer.organization.id}/audit-events?action=update_product"
    changes = customer.client("GET", path).json()["data"][0]["changes"]
    assert changes == [{"field": "color", "before": None, "after": "sand"}]


def test_a_rejected_item_changes_nothing_and_does_not_affect_the_others(
    customer: Customer, products: Batch, database: Database
) -> None:
    taken = customer.create("/products/", {"name": "Taken", "sku": "S-1"})
    unknown = str(new_id())
    before = len(list_events(database))
    body = products(
        create(name="First", sku="S-2"),
        create(name="Second", sku="S-1"),
        update(taken["id"], name="Renamed", brand_id=unknown),
        update(unknown, name="None"),
        {**update(taken["id"], name="Renamed"), "if_match": '"another"'},
        create(name="Public", public=True),
        create(name="Third", sku="S-3"),
    )
    assert outcomes(body) == [
        (201, None),
        (409, "sku_taken"),
        (404, "not_found"),
        (404, "not_found"),
        (412, "precondition_failed"),
        (409, "public_requires_superuser"),
        (201, None),
    ]
    pointers = [result["problem"] and result["problem"].get("pointer") for result in body["results"]]
    assert pointers[2:4] == ["/items/2/body/brand_id", "/items/3/id"]
    problem = body["results"][3]["problem"]
    assert problem["type"].endswith("/api/v1/problems/not_found")
    assert (problem["title"], problem["status"]) == ("Not Found", 404)
    listed = customer.client("GET", f"/products/{customer.organization_query}&sort=created_at").json()
    assert [row["name"] for row in listed["data"]] == ["Taken", "First", "Third"]
    assert [action for action, *_ in list_events(database)[before:]] == ["create_product"] * 2


def test_the_condition_of_an_item_is_its_own(customer: Customer, products: Batch) -> None:
    product = customer.create("/products/", {"name": "Dress"})
    etag = customer.client("GET", f"/products/{product['id']}").headers["etag"]
    item = {**update(product["id"], color="sand"), "if_match": etag}
    # The header is about no item, and the second item finds another version.
    body = products(item, item, update(product["id"], color="indigo"), if_match='"other"')
    assert outcomes(body) == [(200, None), (412, "precondition_failed"), (200, None)]


def test_items_name_rows_by_external_id(
    customer: Customer, products: Batch, client_for: Callable[..., Client], scenario: PhotographedProduct
) -> None:
    kept = customer.create("/products/", {"name": "Kept", "external_id": "shop-1"})
    factories.make_product(organization=factories.make_organization(customer.owner), external_id="shop-9")

    def named(action: str, external_id: str, /, **body: Any) -> dict[str, Any]:
        item: dict[str, Any] = {"action": action, "external_id": external_id}
        return item | ({"body": body} if body else {})

    body = products(
        named("update", "shop-1", color="sand"),
        create(name="New", external_id="shop-2"),
        create(name="Taken", external_id="shop-1"),
        named("update", "shop-2", external_id="shop-3"),
        named("update", "shop-2", color="sand"),
        named("delete", "shop-3"),
        named("delete", "shop-3"),
        named("update", "shop-9", color="sand"),
    )
    missing = (404, "not_found")
    assert outcomes(body) == [
        (200, None),
        (201, None),
        (409, "external_id_taken"),
        (200, None),
        missing,
        (204, None),
        missing,
        missing,
    ]
    ids = [(result["id"], result["external_id"]) for result in body["results"]]
    created_id = ids[1][0]
    assert ids[:4] == [(kept["id"], "shop-1"), (created_id, "shop-2"), (None, None), (created_id, "shop-3")]
    assert ids[4:] == [(None, "shop-2"), (created_id, "shop-3"), (None, "shop-3"), (None, "shop-9")]
    assert body["results"][7]["problem"]["pointer"] == "/items/7/external_id"
    shot = factories.make_shot(scenario.look, external_id="look-1:front")
    shots = Batch(client_for(scenario.owner), "shots", scenario.organization.id)
    (result,) = shots(named("generate", "look-1:front"))["results"]
    assert (result["id"], result["external_id"]) == (str(shot.id), "look-1:front")
    assert result["body"]["shot_id"] == str(shot.id)


def test_items_run_in_their_order(customer: Customer, products: Batch) -> None:
    product = customer.create("/products/", {"name": "Dress", "sku": "S-1"})
    body = products(
        update(product["id"], sku=None),
        create(name="Shirt", sku="S-1"),
        {"action": "delete", "id": product["id"]},
        update(product["id"], name="Gone"),
    )
    assert outcomes(body) == [(200, None), (201, None), (204, None), (404, "not_found")]


def test_a_batch_takes_only_images_of_this_api(customer: Customer, products: Batch) -> None:
    image = {"url": upload_photo(customer), "type": "primary"}
    rejected = {"url": "https://example.com/a.jpg", "type": "primary"}
    batch = products(
        create(name="Rolled back", images=[image], sku="S-1", brand_id=str(new_id())),
        create(name="Remote", images=[image, rejected]),
        create(name="Data", cover_image="data:image/png;base64,iVBORw0KGgo="),
        create(name="Uploaded", images=[image]),
    )
    assert outcomes(batch) == [
        (404, "not_found"),
        (409, "image_not_uploaded"),
        (409, "image_not_uploaded"),
        (201, None),
    ]
    pointers = [result["problem"] and result["problem"]["pointer"] for result in batch["results"]]
    assert pointers[1:3] == ["/items/1/body/images/1/url", "/items/2/body/cover_image"]
    shown = batch["results"][3]["body"]["images"][0]["url"]
    assert customer.client("GET", shown.partition("/api/v1")[2]).status == 200


def test_a_rejected_item_leaves_its_upload_to_the_next_request(customer: Customer, products: Batch) -> None:
    customer.create("/products/", {"name": "Taken", "sku": "S-1"})
    images = [{"url": upload_photo(customer), "type": "primary"}]
    # The SKU is checked when the product is inserted, after its upload was used.
    body = products(create(name="Shirt", sku="S-1", images=images), create(name="Dress", sku="S-2"))
    assert outcomes(body) == [(409, "sku_taken"), (201, None)]
    repeated = products(create(name="Shirt", sku="S-3", images=images))
    assert outcomes(repeated) == [(201, None)]
    shown = repeated["results"][0]["body"]["images"][0]["url"]
    assert customer.client("GET", shown.partition("/api/v1")[2]).status == 200


def test_rows_of_other_tenants_are_not_found(
    customer: Customer, products: Batch, client_for: Callable[..., Client]
) -> None:
    sibling = factories.make_organization(customer.owner)
    ids = [
        factories.make_product(organization=sibling).id,
        factories.make_product(owner=customer.owner).id,
        factories.make_product().id,
    ]
    assert outcomes(products(*(update(row_id, name="Mine") for row_id in ids))) == [(404, "not_found")] * 3
    personal = Batch(customer.client, "products", customer.organization.id)
    personal.path = "/products/batch"
    result = personal(*(update(row_id, name="Mine") for row_id in ids), create(name="Own"))
    assert outcomes(result) == [(404, "not_found"), (200, None), (404, "not_found"), (201, None)]
    assert result["results"][3]["body"]["organization_id"] is None
    stranger = client_for(factories.make_user())
    assert status_and_code(stranger("POST", products.path, {"items": [create(name="A")]})) == (
        404,
        "not_found",
    )


def test_predictions_are_reviewed_like_single_ones(
    client: Client, scenario: PhotographedProduct, database: Database, storage: LocalDisk
) -> None:
    done = complete_generation(client, scenario.shot, database, storage, num_predictions=3)
    first, second, third = (prediction["id"] for prediction in done["predictions"])
    batch = Batch(client, "predictions", scenario.organization.id)
    body = batch(
        {"action": "approve", "id": first, "body": {"note": "Sharp."}},
        {"action": "reject", "id": second, "body": {"reason": "Blurred."}},
        {"action": "approve", "id": second},
        {"action": "approve", "id": third},
        {"action": "reopen", "id": second},
    )
    assert outcomes(body) == [
        (200, None),
        (200, None),
        (409, "invalid_transition"),
        (200, None),
        (200, None),
    ]
    statuses = {
        row["id"]: row["status"]
        for row in client("GET", f"/predictions/?shot_id={scenario.shot.id}").json()["data"]
    }
    assert statuses == {first: "pending_review", second: "pending_review", third: "approved"}
    shot = client("GET", f"/shots/{scenario.shot.id}").json()
    assert (shot["status"], shot["approved_prediction_id"]) == ("approved", third)
    assert body["results"][3]["body"] == client("GET", f"/predictions/{third}").json()


def test_shots_are_generated_and_approved_with_the_permission_of_each_action(
    client: Client,
    scenario: PhotographedProduct,
    app: Application,
    database: Database,
    storage: LocalDisk,
) -> None:
    complete_generation(client, scenario.shot, database, storage, num_predictions=1)
    shots = [factories.make_shot(scenario.look) for _ in range(2)]
    look = factories.make_look(
        scenario.shooting, main_product_id=factories.make_product(**scenario.ownership).id
    )
    items = [
        {"action": "generate", "id": str(shots[0].id), "body": {"num_predictions": 1}},
        {"action": "approve", "id": str(scenario.shot.id)},
        {"action": "generate", "id": str(factories.make_shot(look).id)},
        {"action": "generate", "id": str(shots[1].id), "body": {"num_predictions": 2}},
    ]
    key = api_key_headers(app, scenario.organization, ["shots:read", "shots:generate"], scenario.owner)
    batch = Batch(Client(app, key), "shots", scenario.organization.id)
    before = len(list_events(database))
    body = batch(*items, items[1])
    expected = [
        (202, None),
        (403, "not_enough_permissions"),
        (409, "nothing_to_generate"),
        (202, None),
        (403, "not_enough_permissions"),
    ]
    assert outcomes(body) == expected
    assert body["results"][1]["problem"]["required_permission"] == "shots:review"
    assert body["results"][1]["problem"]["required_scope"] == "shots:review"
    assert body["results"][0]["body"]["shot_id"] == str(shots[0].id)
    assert [(action, outcome, count) for action, _, outcome, count in list_events(database)[before:]] == [
        ("generate_shot", "succeeded", 1),
        ("generate_shot", "succeeded", 1),
        ("approve_shot", "refused", 2),
    ]
    own = Batch(client, "shots", scenario.organization.id)
    assert outcomes(own(items[1], items[0])) == [(200, None), (409, "shot_busy")]


def test_what_the_time_does_not_reach_is_not_attempted(
    customer: Customer, products: Batch, app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_service(monkeypatch, app, settings=replace(app.settings, batch_seconds=0))
    body = products(create(name="First"), create(name="Second"), update(new_id(), name="Third"))
    assert outcomes(body) == [(201, None), (409, "not_attempted"), (409, "not_attempted")]
    listed = customer.client("GET", f"/products/{customer.organization_query}").json()
    assert [row["name"] for row in listed["data"]] == ["First"]


def test_a_request_that_does_not_match_the_schema_is_rejected_as_a_whole(
    customer: Customer, products: Batch
) -> None:
    both = {"action": "delete", "id": str(new_id()), "external_id": "shop-1"}
    items = [create(name="Shirt"), create(sku="S-1"), {"action": "delete"}, both, {"action": "copy"}]
    response = customer.client("POST", products.path, {"items": items})
    assert response.status == 422
    assert response.error_types == {
        ("body", "items", 1, "body", "name"): "missing",
        ("body", "items", 2, "external_id"): "missing",
        ("body", "items", 3, "id"): "not_allowed",
        ("body", "items", 4, "action"): "enum",
    }
    assert response.json()["detail"][-1] == {
        "loc": ["body", "items", 4, "action"],
        "msg": "Must be one of: create, update, delete",
        "type": "enum",
        "input": "copy",
        "ctx": {"expected": ["create", "update", "delete"]},
        "pointer": "/items/4/action",
    }
    listed = customer.client("GET", f"/products/{customer.organization_query}").json()
    assert listed["count"] == 0


def test_the_items_of_a_batch_that_is_too_long_are_not_validated(customer: Customer, products: Batch) -> None:
    response = customer.client("POST", products.path, {"items": [create(name="Shirt")] * 500 + [{}]})
    assert (response.status, response.json()["detail"]) == (
        422,
        [
            {
                "loc": ["body", "items"],
                "msg": "Must have at most 500 items",
                "type": "too_long",
                "ctx": {"max_length": 500},
                "pointer": "/items",
            }
        ],
    )


def allow_enough_time(app: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let batches work for as long as they need: the machine can be busy."""
    replace_service(monkeypatch, app, settings=replace(app.settings, batch_seconds=300))


@pytest.fixture
def enough_time(app: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    allow_enough_time(app, monkeypatch)


@pytest.mark.usefixtures("enough_time")
def test_a_batch_may_have_more_items_than_other_bodies(customer: Customer, products: Batch) -> None:
    wide = create(name="A", sku=None, description="x" * 4000, category="c", color="c", materials="m")
    response = customer.client("POST", products.path, {"items": [wide] * 400})
    assert (response.status, response.json()["accepted_count"]) == (200, 400)
    one = {**wide["body"], "surprise": [0] * 1_600}
    other = customer.client("POST", f"/products/{customer.organization_query}", one)
    assert status_and_code(other) == (413, "too_large")


def test_a_repeated_batch_is_replayed(customer: Customer, products: Batch, database: Database) -> None:
    # A response of several kilobytes to a client that accepts compression.
    headers = {"idempotency-key": "batch-1", "accept-encoding": "gzip"}
    items = {
        "items": [create(name="Shirt", sku="S-1", description="x" * 4_000), create(name="Shirt", sku="S-1")]
    }
    first, second = (customer.client("POST", products.path, items, headers=headers) for _ in range(2))
    assert (first.status, second.status, first.body) == (200, 200, second.body)
    assert second.headers["idempotency-replayed"] == "true"
    with database.transaction(write=False) as reading:
        assert reading.scalar(select(func.count()).select_from(Product)) == 1
        assert reading.scalar(select(func.count()).select_from(IdempotencyKey)) == 1


@pytest.mark.usefixtures("enough_time")
def test_many_items_take_a_bounded_number_of_statements(
    customer: Customer, products: Batch, statements: list[str]
) -> None:
    products(create(name="Warm"))
    statements.clear()
    body = products(*(create(name="Shirt", sku=f"S-{number}") for number in range(100)))
    assert body["accepted_count"] == 100
    assert len(statements) < 100 * 5
    statements.clear()
    ids = [result["id"] for result in body["results"]]
    assert products(*(update(row_id, color="sand") for row_id in ids))["accepted_count"] == 100
    assert len(statements) < 100 * 6


@pytest.fixture
def deadlocks(own_database: Database) -> Iterator[list[str]]:
    """Yield the deadlocks that PostgreSQL resolves during the test. The response is 503 for them, too."""
    found: list[str] = []

    def record(context: ExceptionContext) -> None:
        if getattr(context.original_exception, "sqlstate", None) == DEADLOCK_DETECTED:
            found.append(str(context.statement))

    event.listen(own_database.engine, "handle_error", record)
    yield found
    event.remove(own_database.engine, "handle_error", record)


def test_concurrent_batches_of_the_same_rows_do_not_deadlock(
    committing_server: CommittingServer, deadlocks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, database, scenario = committing_server
    allow_enough_time(client.app, monkeypatch)
    with database.transaction(write=True):
        rows = [factories.make_product(**scenario.ownership).id for _ in range(20)]
        shots = [factories.make_shot(scenario.look, status="pending_review") for _ in range(8)]
        predictions = [
            factories.make_prediction(
                factories.make_generation(shot, model_id=scenario.model.id, status="completed"),
                media_id=factories.make_media(**scenario.ownership).id,
            ).id
            for shot in shots
        ]
    batch = Batch(client, "products", scenario.organization.id)
    changes = [
        *(update(row_id, color="sand") for row_id in rows),
        *(create(name="New", sku=f"N-{number}") for number in range(20)),
    ]
    runs = [lambda: batch(*changes, repeats=True), lambda: batch(*reversed(changes), repeats=True)] * 2
    created = [outcomes(body).count((201, None)) for body in run_concurrently(*runs)]
    assert sum(created) == 20
    reviews = Batch(client, "predictions", scenario.organization.id)
    items = [{"action": "approve", "id": str(prediction_id)} for prediction_id in predictions]
    results = run_concurrently(
        lambda: reviews(*items, repeats=True), lambda: reviews(*reversed(items), repeats=True)
    )
    assert deadlocks == []
    assert [body["accepted_count"] for body in results] == [8, 8]
    with database.transaction(write=False) as reading:
        approved = select(func.count()).where(Prediction.status == "approved")
        assert reading.scalar(approved) == 8
        assert reading.scalar(select(func.count()).where(Shot.status == "approved")) == 8


def test_an_approval_in_a_batch_takes_two_updates_beside_the_savepoint(
    client: Client, scenario: PhotographedProduct, statements: list[str]
) -> None:
    factories.make_webhook_endpoint(
        **scenario.ownership, event_types=["prediction.approved", "shot.approved"]
    )
    batch = Batch(client, "predictions", scenario.organization.id)

    def count_statements(size: int) -> int:
        shots = [factories.make_shot(scenario.look, status="pending_review") for _ in range(size)]
        predictions = [factories.make_prediction(factories.make_generation(shot)) for shot in shots]
        items = [{"action": "approve", "id": str(prediction.id)} for prediction in predictions]
        statements.clear()
        assert batch(*items)["accepted_count"] == size
        return len(statements)

    assert count_statements(12) - count_statements(2) == 4 * 10
