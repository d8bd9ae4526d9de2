"""Steps on the review board in a real browser, and what each of its pages must be."""

from __future__ import annotations

import re
from typing import Any

from playwright.sync_api import Locator, Page, expect

from tests.e2e.page_visits import PageVisit
from tests.support.concurrency import wait_for
from tools.demo import EMAIL, PASSWORD, Api


def sign_in(visit: PageVisit) -> None:
    """Sign in with the demo account, after a wrong password."""
    page = visit.page
    visit.open("/review")
    for password in ("a wrong password", PASSWORD):
        page.get_by_label("E-mail address").fill(EMAIL)
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name="Sign in").click()
        if password != PASSWORD:
            expect(page.locator("#status")).to_have_text("The e-mail address or the password is wrong.")
            expect(page.get_by_role("button", name="Sign in")).to_be_enabled()
    expect(page.get_by_role("heading", name="Shootings")).to_be_visible()
    # The browser reports the rejected password.
    visit.console_errors.clear()


def open_sheet(visit: PageVisit) -> None:
    """Open the contact sheet of the demo shooting."""
    visit.page.get_by_role("link", name=re.compile("Spring lookbook")).click()
    expect(visit.page.locator(".card")).to_have_count(2)


def card(page: Page, title: str) -> Locator:
    """Return the card of a shot."""
    return page.locator(".card").filter(has_text=title)


def assert_clean(visit: PageVisit) -> None:
    """Assert that the page fits, is accessible, and contacted no other host."""
    assert visit.horizontal_overflow() == 0
    assert visit.find_accessibility_violations() == []
    assert visit.list_third_party_requests() == []
    assert visit.console_errors == []


def organization(api: Api) -> str:
    """Return the id of the demo organization."""
    return str(api.get("/organizations/")["data"][0]["id"])


def list_shots(api: Api) -> list[dict[str, Any]]:
    """Return the shots of the demo organization."""
    return list(api.get("/shots/", organization_id=organization(api))["data"])


def list_predictions_in_review(api: Api, shot_type: str) -> list[str]:
    """Return the ids of the predictions in review of the shot of a type, the best first."""
    (shot,) = (shot for shot in list_shots(api) if shot["shot_type"] == shot_type)
    rows = api.get("/predictions/", shot_id=shot["id"], status="pending_review")["data"]
    return [row["id"] for row in sorted(rows, key=lambda row: -row["quality"]["score"])]


def generate_back(api: Api) -> None:
    """Generate a prediction of the shot that the demo data has no predictions of."""
    (shot,) = (shot for shot in list_shots(api) if shot["shot_type"] == "Back packshot")
    generation = api.post(f"/shots/{shot['id']}/generate", json={"num_predictions": 1})
    wait_for(lambda: api.get(f"/generations/{generation['id']}")["status"] == "completed", 60)
