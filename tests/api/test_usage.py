"""The usage of an organization: exact against the ledger, in pages and as a CSV file, for its admins."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import pytest
from sqlalchemy import func, select

from db.base import new_id, utc_now
from db.models import CreditMovement, Generation, MediaResource
from db.session import Database
from handlers.app import Application
from studio.billing import usage
from studio.infrastructure.storage import LocalDisk
from tests.api.conftest import Client
from tests.support import factories
from tests.support.client import status_and_code
from tests.support.factories.api_keys import api_key_headers
from tests.support.factories.catalog import Customer
from tests.support.generations import complete_generation
from tests.support.scenarios import PhotographedProduct, run_pending_generations

TODAY = utc_now().date()
NOTHING = {"credits": 0, "generations": 0, "failures": 0, "storage_bytes": 0}


def read(client: Client, organization: Any, **query: Any) -> dict[str, Any]:
    response = client("GET", f"/organizations/{organization.id}/usage?{urlencode(query)}")
    assert response.status == 200, response.body
    report: dict[str, Any] = response.json()
    return report


def read_csv(client: Client, organization: Any, **query: Any) -> list[dict[str, str]]:
    response = client("GET", f"/organizations/{organization.id}/usage.csv?{urlencode(query)}")
    assert response.status == 200, response.body
    assert response.body.startswith(b"\xef\xbb\xbf")
    return list(csv.DictReader(io.StringIO(response.body.decode("utf-8-sig"), newline="")))


def test_usage_is_exact_against_the_ledger_and_the_stored_images(
    client_for: Callable[..., Client],
    app: Application,
    database: Database,
    storage: LocalDisk,
    scenario: PhotographedProduct,
) -> None:
    organization, client = scenario.organization, client_for(scenario.owner)
    member = factories.make_user(full_name=None)
    factories.make_membership(organization, member, role="admin")
    scopes = ["shots:generate", "generations:write", "usage:read"]
    key = Client(app, api_key_headers(app, organization, scopes, member))
    complete_generation(client, scenario.shot, database, storage, num_predictions=2)
    body = {"product_id": str(scenario.product.id), "batch_size": 3}
    path = f"/generations/?organization_id={organization.id}"
    canceled, failing = (key("POST", path, body).json()["id"] for _ in range(2))
    assert client("POST", f"/generations/{canceled}/cancel").status == 200
    with database.transaction(write=True) as session:
        session.get_one(Generation, UUID(failing)).attempts = 3
    assert run_pending_generations(database, storage) == 0

    with database.transaction(write=False) as session:
        charged = session.scalar(
            select(func.sum(CreditMovement.amount)).where(
                CreditMovement.subscription_id == scenario.subscription.id
            )
        )
        stored = session.execute(
            select(MediaResource.product_id, func.sum(MediaResource.file_size))
            .where(MediaResource.organization_id == organization.id)
            .group_by(MediaResource.product_id)
        ).all()
    totals = {"credits": charged, "generations": 3, "failures": 1}
    totals["storage_bytes"] = sum(int(row[1]) for row in stored)
    reports = {
        dimension: read(key, organization, group_by=dimension)
        for dimension in ("day", "model", "member", "api_key", "product")
    }
    for dimension, report in reports.items():
        assert (report["group_by"], report["totals"]) == (dimension, totals)
        for name in totals:
            assert sum(group[name] for group in report["data"]) == totals[name], (dimension, name)
        rows = read_csv(client, organization, group_by=dimension)
        assert [{name: "" if value is None else str(value) for name, value in group.items()}
                for group in report["data"]] == rows  # fmt: skip
    assert [(group["id"], group["day"]) for group in reports["day"]["data"]] == [(None, str(TODAY))]
    groups = {
        dimension: {group["id"]: (group["name"], group["credits"]) for group in report["data"]}
        for dimension, report in reports.items()
    }
    assert groups["model"][str(scenario.model.id)] == (scenario.model.name, 2)
    assert groups["member"] == {
        str(scenario.owner.id): (scenario.owner.full_name, 2), str(member.id): (member.email, 0)
    }  # fmt: skip
    assert {name for name, _ in groups["api_key"].values()} == {None, "Shop import"}
    assert groups["product"][str(scenario.product.id)] == (scenario.product.name, 2)
    of_products = {group["id"]: group["storage_bytes"] for group in reports["product"]["data"]}
    assert of_products == {row[0] and str(row[0]): int(row[1]) for row in stored}


def test_what_is_deleted_still_counts_and_has_no_name(customer: Customer, database: Database) -> None:
    organization = customer.organization
    key = customer.client(
        "POST",
        f"/organizations/{organization.id}/api-keys",
        {"name": "Shop", "scopes": ["brands:read"], "expires_in_days": 30},
    ).json()
    member = factories.make_membership(organization)
    product = factories.make_product(organization=organization)
    model = factories.make_generation_model()
    generation = factories.make_generation(
        organization_id=organization.id,
        owner_id=member.user_id,
        api_key_id=UUID(key["id"]),
        product_id=product.id,
        model_id=model.id,
        cost_credits=4,
    )
    expected = {"member": member.user_id, "api_key": key["id"], "product": product.id, "model": model.id}
    for dimension, key_id in expected.items():
        (group,) = read(customer.client, organization, group_by=dimension)["data"]
        assert (group["id"], group["name"] is None) == (str(key_id), False)
    with database.transaction(write=True) as session:
        session.delete(session.get_one(Generation, generation.id))
        session.delete(session.get_one(type(model), model.id))
    for path in (
        f"/products/{product.id}",
        f"/organizations/{organization.id}/api-keys/{key['id']}",
        f"/organizations/{organization.id}/members/{member.user_id}",
    ):
        assert customer.client("DELETE", path).status == 204
    for dimension, key_id in expected.items():
        assert read(customer.client, organization, group_by=dimension)["data"] == [
            {"id": str(key_id), "day": None, "name": None, **NOTHING, "credits": 4, "generations": 1}
        ]


def test_the_period_is_the_last_thirty_days_unless_it_is_given(customer: Customer) -> None:
    for days in (0, 29, 30, 40):
        created_at = datetime.combine(TODAY - timedelta(days=days), datetime.min.time(), UTC)
        factories.make_generation(organization=customer.organization, created_at=created_at)
    report = read(customer.client, customer.organization)
    first = TODAY - timedelta(days=29)
    assert (report["from"], report["to"]) == (str(first), str(TODAY))
    assert [group["day"] for group in report["data"]] == [str(first), str(TODAY)]
    last = TODAY - timedelta(days=30)
    report = read(customer.client, customer.organization, to=last)
    assert (report["from"], report["totals"]["generations"]) == (str(last - timedelta(days=29)), 2)


def test_a_period_has_at_most_366_days_and_is_not_reversed(customer: Customer) -> None:
    path = f"/organizations/{customer.organization.id}/usage"
    for name in (path, f"{path}.csv"):
        assert customer.client("GET", f"{name}?from=2024-01-01&to=2024-12-31").status == 200
        response = customer.client("GET", f"{name}?from=2024-01-01&to=2025-01-01")
        assert status_and_code(response) == (409, "range_too_long")
        assert (response.json()["limit"], response.json()["parameter"]) == (usage.MAX_DAYS, "from")
        response = customer.client("GET", f"{name}?from=2024-02-01&to=2024-01-31")
        assert status_and_code(response) == (409, "range_reversed")
        assert response.json()["parameter"] == "from"
        for invalid in ("from=2026-02-30", "from=2026-2-1", "to=today", "group_by=color"):
            assert customer.client("GET", f"{name}?{invalid}").status == 422


@pytest.mark.parametrize("dimension", ["day", "product"])
def test_pages_show_each_group_once(customer: Customer, dimension: str) -> None:
    for days in range(5):
        factories.make_generation(
            organization=customer.organization,
            product_id=new_id() if days else None,
            created_at=utc_now() - timedelta(days=days),
        )
    everything = read(customer.client, customer.organization, group_by=dimension)
    assert len(everything["data"]) == 5
    path, groups = f"/organizations/{customer.organization.id}/usage?group_by={dimension}&limit=2", []
    while path:
        response = customer.client("GET", path.removeprefix("/api/v1"))
        page = response.json()
        assert page["totals"] == everything["totals"]
        groups += page["data"]
        link = response.headers.get("link")
        assert (link is None) is (page["next_cursor"] is None)
        path = link and link.removeprefix("<").partition(">")[0]
    assert groups == everything["data"]


def test_a_cursor_is_valid_for_its_organization_period_and_grouping_only(customer: Customer) -> None:
    for days in range(2):
        factories.make_generation(
            organization=customer.organization, created_at=utc_now() - timedelta(days=days)
        )
    query = {"limit": 1, "from": TODAY - timedelta(days=5), "to": TODAY}
    cursor = read(customer.client, customer.organization, **query)["next_cursor"]
    assert cursor
    other = factories.make_organization(customer.owner)
    for organization, changes in (
        (other, {}),
        (customer.organization, {"group_by": "product"}),
        (customer.organization, {"from": TODAY - timedelta(days=6)}),
        (customer.organization, {"cursor": "bm9uZQ"}),
    ):
        changed = urlencode({**query, "cursor": cursor, **changes})
        response = customer.client("GET", f"/organizations/{organization.id}/usage?{changed}")
        assert (response.status, response.json()["parameter"]) == (404, "cursor")


def test_a_csv_file_has_all_groups_and_no_formulas(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "CSV_BATCH_SIZE", 2)
    names = ['=HYPERLINK("https://example.com")', "+1", "@SUM(A1)", "plain; =1+1", "Robe d'\u00e9t\u00e9"]
    for name in names:
        product = factories.make_product(organization=customer.organization, name=name)
        factories.make_generation(organization=customer.organization, product_id=product.id)
    rows = read_csv(customer.client, customer.organization, group_by="product")
    assert [row["name"] for row in rows] == [
        "'=HYPERLINK(\"https://example.com\")", "'+1", "'@SUM(A1)", "plain; '=1+1", "Robe d'\u00e9t\u00e9"
    ]  # fmt: skip


def test_the_file_behind_a_csv_response_is_deleted(
    customer: Customer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = f"/organizations/{customer.organization.id}/usage.csv?from={TODAY}&to={TODAY}"
    response = customer.client("GET", path)
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert f'filename="usage-by-day-{TODAY}-{TODAY}.csv"' in response.headers["content-disposition"]
    assert int(response.headers["content-length"]) == len(response.body)
    assert customer.client("HEAD", path).body == b""
    assert list(tmp_path.iterdir()) == []


def test_the_usage_is_deleted_with_its_organization(customer: Customer, superuser: Client) -> None:
    factories.make_media(organization=customer.organization)
    path = f"/organizations/{customer.organization.id}"
    assert read(customer.client, customer.organization)["totals"]["storage_bytes"] > 0
    assert customer.client("DELETE", path).status == 204
    assert superuser("GET", f"{path}/usage").status == 404
