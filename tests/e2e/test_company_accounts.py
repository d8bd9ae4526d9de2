"""Sign in with the account of a company, in a real browser and at a real provider."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from tests.e2e.page_visits import PageVisit
from tests.e2e.review_board import assert_clean, organization
from tests.support.servers.identity_provider import CLIENT_ID, SECRET, set_user
from tools.demo import EMAIL, PASSWORD, Api
from tools.servers.server import RunningServer, running_server

DOMAIN = "atelier-nord.example"


@pytest.fixture(scope="module")
def demo_server(tmp_path_factory: pytest.TempPathFactory, provider_process: str) -> Iterator[RunningServer]:
    """Yield a server with the demo data whose organization has the provider."""
    folder: Path = tmp_path_factory.mktemp("company")
    host = urlsplit(provider_process).netloc
    with running_server(folder, OUTBOUND_ALLOWED_HOSTS=host) as server:
        with Api(server.origin) as admin:
            admin.sign_in("admin@example.com", "sartiq-admin")
            own = admin.get("/organizations/", sort="created_at")["data"][0]["id"]
            path = f"/organizations/{own}/identity-providers"
            body = {"name": "Company accounts", "issuer": provider_process, "client_id": CLIENT_ID}
            body |= {"client_secret": SECRET, "default_role": "member"}
            provider = admin.post(path, json=body)
            domain = admin.post(f"{path}/{provider['id']}/domains", json={"domain": DOMAIN})
            admin.post(f"{path}/{provider['id']}/domains/{domain['id']}/verify")
        set_user(provider_process, "anna", email=f"anna@{DOMAIN}", email_verified=True, name="Anna Berg")
        set_user(provider_process, "demo", email=f"demo@{DOMAIN}", email_verified=True)
        yield server


def continue_as(visit: PageVisit, subject: str) -> None:
    """Enter an e-mail address on the board, and sign in at the provider."""
    page = visit.page
    page.get_by_label("E-mail address at your company").fill(f"{subject}@{DOMAIN}")
    page.get_by_role("button", name="Continue").click()
    page.locator("input[name=sub]").fill(subject)
    page.locator("form button").first.click()


def test_an_employee_signs_in_with_the_company_account_and_gets_an_account(
    visit: PageVisit, provider_process: str
) -> None:
    page = visit.page
    visit.open("/review")
    page.get_by_role("link", name="Sign in with your company account").click()
    expect(page.get_by_role("heading", name="Sign in with your company account")).to_be_visible()
    visit.save_screenshot("company-sign-in")
    assert_clean(visit)
    continue_as(visit, "anna")
    expect(page.get_by_role("heading", name="Shootings")).to_be_visible()
    # Neither the code nor the state stays where it is copied from, and no resource is personal.
    assert page.url == f"{visit.origin}/review#/shootings"
    assert page.locator("#organization option").all_inner_texts().count("Personal") == 0
    page.get_by_role("button", name="Sign out").click()


def test_a_code_that_another_tab_started_is_not_used(visit: PageVisit) -> None:
    page = visit.page
    visit.open(f"/review#/oidc/oc_{'a' * 43}/{'b' * 43}")
    expect(page.get_by_text("was not started in this tab")).to_be_visible()
    assert page.url == f"{visit.origin}/review"
    page.goto(f"{visit.origin}/review#/oidc-error/sign_in_canceled")
    expect(page.get_by_text("You have canceled the sign-in.")).to_be_visible()
    assert_clean(visit)


def test_the_owner_of_an_account_links_the_company_account(visit: PageVisit) -> None:
    page = visit.page
    visit.open("/review")
    page.get_by_label("E-mail address").fill(EMAIL)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Shootings")).to_be_visible()
    page.get_by_role("link", name="Security").click()
    # That of the demo data.
    expect(page.get_by_role("button", name="Remove")).to_have_count(1)
    assert_clean(visit)
    page.get_by_role("link", name="Link a company account").click()
    continue_as(visit, "demo")
    expect(page.get_by_text("Your company account is linked.")).to_be_visible()
    page.goto(f"{visit.origin}/review#/security")
    expect(page.get_by_text(f"demo@{DOMAIN}")).to_be_visible()
    visit.save_screenshot("company-identities")
    page.locator("li", has_text=f"demo@{DOMAIN}").get_by_role("button", name="Remove").click()
    expect(page.get_by_text(f"demo@{DOMAIN}")).to_have_count(0)
    with Api(visit.origin) as api:
        api.sign_in(EMAIL, PASSWORD)
        assert organization(api)
