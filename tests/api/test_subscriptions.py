"""Subscriptions through the API: users read their own, superusers create and change all of them."""

from __future__ import annotations

from db.models import User
from tests.api.conftest import Client
from tests.support import factories

PLAN = {"service_type": "SELF_SERVICE", "tier": "GROW"}


def test_a_superuser_can_create_a_subscription_for_an_account(
    superuser: Client, client: Client, user: User
) -> None:
    response = superuser("POST", f"/subscriptions/{user.id}", PLAN | {"payment_id": "pay_2041"})
    shown = response.json()
    assert response.status == 201, response.body
    assert response.headers["location"] == f"/api/v1/subscriptions/{shown['id']}"
    times = ("created_at", "updated_at", "start_date", "end_date", "grace_period_end")
    assert shown == {"id": shown["id"], **{name: shown[name] for name in times}} | {
        "user_id": str(user.id),
        "service_type": "SELF_SERVICE",
        "tier": "GROW",
        "payment_id": "pay_2041",
        "credits_total": 5000,
        "credits_used": 0,
        "credits_remaining": 5000,
        "is_active": True,
        "payment_status": "PENDING",
        "base_price": 199.0,
        "actual_price": 199.0,
        "currency": "EUR",
    }
    assert client("GET", f"/subscriptions/{shown['id']}").json() == shown
    assert [row["id"] for row in client("GET", "/subscriptions/").json()["data"]] == [shown["id"]]


def test_a_second_active_plan_and_an_unknown_account_are_rejected(superuser: Client, user: User) -> None:
    assert superuser("POST", f"/subscriptions/{user.id}", PLAN).status == 201
    again = superuser("POST", f"/subscriptions/{user.id}", PLAN)
    assert (again.status, again.json()["code"]) == (409, "subscription_exists")
    assert superuser("POST", "/subscriptions/01990000-5eed-7000-8000-0001000000ff", PLAN).status == 404


def test_subscriptions_of_other_users_return_404(superuser: Client, client: Client) -> None:
    foreign = factories.make_subscription()
    assert client("GET", f"/subscriptions/{foreign.id}").status == 404
    assert client("GET", "/subscriptions/").json()["count"] == 0
    assert superuser("GET", f"/subscriptions/{foreign.id}").status == 200


def test_another_tier_sets_its_credits_and_price_and_keeps_the_used_credits(
    superuser: Client, user: User
) -> None:
    row = factories.make_subscription(user, credits_used=600, credits_total=5000, payment_id="pay_1")
    plan = {"service_type": "MANAGED", "tier": "START", "payment_status": "FAILED", "is_active": False}
    shown = superuser("PUT", f"/subscriptions/{row.id}", plan).json()
    assert {name: shown[name] for name in plan} == plan
    assert (shown["credits_total"], shown["credits_used"], shown["credits_remaining"]) == (500, 600, 0)
    assert (shown["base_price"], shown["actual_price"], shown["payment_id"]) == (49.0, 49.0, None)
    kept = superuser("PUT", f"/subscriptions/{row.id}", PLAN).json()
    assert (kept["payment_status"], kept["is_active"]) == ("FAILED", False)


def test_activating_a_plan_deactivates_the_other_one(superuser: Client, user: User) -> None:
    old = factories.make_subscription(user, is_active=False)
    new = factories.make_subscription(user)
    activated = superuser("PUT", f"/subscriptions/{old.id}", PLAN | {"is_active": True})
    assert activated.json()["is_active"] is True
    assert superuser("GET", f"/subscriptions/{new.id}").json()["is_active"] is False


def test_a_replacement_of_an_older_version_is_rejected(superuser: Client, user: User) -> None:
    row = factories.make_subscription(user)
    tag = {"if-match": superuser("GET", f"/subscriptions/{row.id}").headers["etag"]}
    assert superuser("PUT", f"/subscriptions/{row.id}", PLAN | {"tier": "SCALE"}, headers=tag).status == 200
    assert superuser("PUT", f"/subscriptions/{row.id}", PLAN, headers=tag).status == 412


def test_a_renewal_continues_where_the_period_ends(superuser: Client, user: User) -> None:
    row = factories.make_subscription(user, credits_used=9)
    before = superuser("GET", f"/subscriptions/{row.id}").json()
    response = superuser("POST", f"/subscriptions/{row.id}/renew")
    after = response.json()
    assert response.status == 200, response.body
    assert after["start_date"] == before["end_date"]
    assert (after["credits_used"], after["payment_status"], after["is_active"]) == (0, "PENDING", True)
