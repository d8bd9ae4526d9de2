"""The change feed: pages, cursors, tenants and what counts as a change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, literal, select

from db.change_feed.queries import RETENTION
from db.libpq.statements import Query
from db.models import Change, Organization
from handlers import changes as handler
from handlers.app import Application
from studio import changes
from tests.api.conftest import Client, CommittingServer
from tests.support import factories as make
from tests.support.change_feed import BEHIND_ENDED, BEHIND_RUNNING, pages_end_at
from tests.support.factories.api_keys import api_key_headers

ClientFactory = Callable[[Any], Any]


@pytest.fixture
def feed(committing_server: CommittingServer) -> Iterator[CommittingServer]:
    """Yield a server with real commits: the feed lists no change of a transaction that is still open."""
    with pages_end_at(BEHIND_ENDED):
        yield committing_server


def read(request: Any, organization: Organization | None = None, **query: Any) -> dict[str, Any]:
    """Return a page of the feed."""
    if organization is not None:
        query["organization_id"] = organization.id
    target = "&".join(f"{name}={value}" for name, value in query.items())
    response = request("GET", f"/changes/?{target}")
    assert response.status == 200, response.json()
    page: dict[str, Any] = response.json()
    return page


def summarize(page: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(entry["resource_type"], entry["resource_id"], entry["change"]) for entry in page["data"]]


def pages(request: Any, organization: Organization, cursor: str, **query: Any) -> Iterator[dict[str, Any]]:
    page = read(request, organization, **query, cursor=cursor)
    yield page
    while page["has_more"]:
        page = read(request, organization, **query, cursor=page["next_cursor"])
        yield page


def test_a_client_continues_from_the_last_cursor(feed: CommittingServer) -> None:
    client, organization = feed.client, feed.scenario.organization
    start = read(client, organization, start="latest")
    assert (start["data"], start["has_more"]) == ([], False)
    scope = f"organization_id={organization.id}"
    product = client("POST", f"/products/?{scope}", {"name": "Shirt"}).json()["id"]
    first = read(client, organization, cursor=start["next_cursor"])
    assert summarize(first) == [("product", product, "created")]
    assert set(first["data"][0]) == {
        "resource_type", "resource_id", "external_id", "change", "changed_at",
    }  # fmt: skip
    client("PATCH", f"/products/{product}", {"name": "Coat"})
    # Nothing changes, so nothing is listed.
    client("PATCH", f"/products/{product}", {"name": "Coat"})
    client("DELETE", f"/products/{product}")
    second = read(client, organization, cursor=first["next_cursor"])
    assert summarize(second) == [("product", product, "updated"), ("product", product, "deleted")]
    last = read(client, organization, cursor=second["next_cursor"])
    assert (last["data"], last["has_more"]) == ([], False)
    assert summarize(read(client, organization, cursor=first["next_cursor"])) == summarize(second)


def test_pages_have_every_change_once(feed: CommittingServer) -> None:
    client, database, scenario = feed
    cursor = read(client, scenario.organization, start="latest")["next_cursor"]
    with database.transaction(write=True):
        expected = [str(make.make_brand(organization=scenario.organization).id) for _ in range(7)]
    found = list(pages(client, scenario.organization, cursor, limit=3))
    assert [len(page["data"]) for page in found] == [3, 3, 1]
    assert [entry["resource_id"] for page in found for entry in page["data"]] == expected
    assert [page["has_more"] for page in found] == [True, True, False]


def test_a_page_that_is_exactly_full_has_no_more(client: Client, organization: Organization) -> None:
    make.make_brand(organization=organization)
    with pages_end_at(BEHIND_RUNNING):
        page = read(client, organization, limit=1)
    assert (len(page["data"]), page["has_more"]) == (1, False)


def test_each_tenant_has_its_own_feed(feed: CommittingServer) -> None:
    client, database, scenario = feed
    tenants = [None, scenario.organization]
    cursors = [read(client, tenant, start="latest")["next_cursor"] for tenant in tenants]
    with database.transaction(write=True):
        own = make.make_brand(owner=scenario.owner)
        shared = make.make_brand(organization=scenario.organization)
        make.make_brand()
        make.make_style(owner_id=None, public=True)
    found = [
        summarize(read(client, tenant, cursor=cursor))
        for tenant, cursor in zip(tenants, cursors, strict=True)
    ]
    assert found == [[("brand", str(own.id), "created")], [("brand", str(shared.id), "created")]]


def test_a_cursor_belongs_to_its_tenant(client: Client, organization: Organization) -> None:
    cursor = read(client)["next_cursor"]
    for sent in (cursor, cursor[:-2], "bm9uZQ"):
        response = client("GET", f"/changes/?organization_id={organization.id}&cursor={sent}")
        assert (response.status, response.json()["parameter"]) == (404, "cursor")


def test_a_cursor_of_a_list_is_no_cursor_of_the_feed(client: Client, organization: Organization) -> None:
    for _ in range(2):
        make.make_brand(organization=organization)
    scope = f"organization_id={organization.id}"
    of_list = client("GET", f"/brands/?{scope}&limit=1").json()["next_cursor"]
    assert client("GET", f"/changes/?{scope}&cursor={of_list}").status == 404
    of_feed = read(client, organization)["next_cursor"]
    assert client("GET", f"/brands/?{scope}&cursor={of_feed}").status == 404


def test_a_cursor_expires_after_30_days(
    client: Client, organization: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    cursor = read(client, organization)["next_cursor"]
    now = datetime.now(UTC)
    monkeypatch.setattr(handler, "utc_now", lambda: now + RETENTION - timedelta(minutes=1))
    read(client, organization, cursor=cursor)
    monkeypatch.setattr(handler, "utc_now", lambda: now + RETENTION + timedelta(minutes=1))
    response = client("GET", f"/changes/?organization_id={organization.id}&cursor={cursor}")
    assert (response.status, response.json()["code"]) == (409, "cursor_expired")


def test_a_cursor_of_another_database_has_expired(
    client: Client, organization: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    cursor = read(client, organization)["next_cursor"]
    monkeypatch.setattr(changes, "FEED_ID", Query(select(literal("restored")), {}))
    response = client("GET", f"/changes/?organization_id={organization.id}&cursor={cursor}")
    assert (response.status, response.json()["code"]) == (409, "cursor_expired")


def test_an_api_key_needs_the_scope(
    app: Application, client_for: ClientFactory, organization: Organization
) -> None:
    target = f"/changes/?organization_id={organization.id}"
    for scope, status in (("changes:read", 200), ("products:read", 403)):
        headers = api_key_headers(app, organization, [scope])
        assert client_for(None)("GET", target, headers=headers).status == status


def test_a_review_lists_all_resources_that_show_it(feed: CommittingServer) -> None:
    client, organization = feed.client, feed.scenario.organization
    with feed.database.transaction(write=True):
        shooting = make.make_shooting(organization=organization)
        shot_type = make.make_shot_type(organization=organization)
        look = make.make_look(shooting, shot_type_ids=[shot_type.id])
        shot = make.make_shot(look, shot_type_id=shot_type.id, status="pending_review")
        generation = make.make_generation(shot, status="completed")
        prediction = make.make_prediction(generation)
    paths = {
        "shooting": f"/shootings/{shooting.id}",
        "look": f"/shootings/{shooting.id}/looks/{look.id}",
        "shot": f"/shots/{shot.id}",
        "generation": f"/generations/{generation.id}",
        "prediction": f"/predictions/{prediction.id}",
    }
    before = {name: client("GET", path).json() for name, path in paths.items()}
    cursor = read(client, organization, start="latest")["next_cursor"]
    assert client("POST", f"/shots/{shot.id}/approve", {}).status == 200
    after = {name: client("GET", path).json() for name, path in paths.items()}
    for name in paths:
        assert after[name]["updated_at"] > before[name]["updated_at"], name
    listed = summarize(read(client, organization, cursor=cursor))
    assert sorted(set(listed)) == sorted((name, after[name]["id"], "updated") for name in paths)


def test_a_batch_of_approvals_writes_one_entry_of_the_look_and_of_the_shooting(
    committing_server: CommittingServer,
) -> None:
    client, database, scenario = committing_server
    with database.transaction(write=True):
        shots = [make.make_shot(scenario.look, status="pending_review") for _ in range(12)]
        generations = [make.make_generation(shot, status="completed") for shot in shots]
        predictions = [make.make_prediction(generation) for generation in generations]
    with database.transaction(write=False) as session:
        start = session.scalar(select(func.max(Change.sequence)))
    path = f"/shootings/{scenario.look.shooting_id}"
    before = client("GET", path).json()
    items = [{"action": "approve", "id": str(prediction.id)} for prediction in predictions]
    batch = client(
        "POST", f"/predictions/batch?organization_id={scenario.organization.id}", {"items": items}
    ).json()
    assert batch["accepted_count"] == len(items)
    assert client("GET", path).json()["updated_at"] > before["updated_at"]
    # From the table: an open transaction of another database would delay the page.
    entry = select(Change.resource_type, Change.resource_id, Change.change).where(Change.sequence > start)
    with database.transaction(write=False) as session:
        written = Counter(map(tuple, session.execute(entry)))
    rows = [
        *(("prediction", prediction.id) for prediction in predictions),
        *(("generation", generation.id) for generation in generations),
        *(("shot", shot.id) for shot in shots),
        ("look", scenario.look.id),
        ("shooting", scenario.look.shooting_id),
    ]
    assert written == Counter((kind, row_id, "updated") for kind, row_id in rows)


def test_rows_of_one_product_are_found_by_type(feed: CommittingServer) -> None:
    client, database, scenario = feed
    cursor = read(client, scenario.organization, start="latest")["next_cursor"]
    with database.transaction(write=True):
        product = make.make_product(organization=scenario.organization)
        image = make.make_product_image(product)
    assert summarize(read(client, scenario.organization, cursor=cursor)) == [
        ("product", str(product.id), "created"),
        ("product_image", str(image.id), "created"),
    ]
