"""The pages that e-mails lead to, in a real browser: someone who knows no API follows each link."""

from __future__ import annotations

import re
from collections.abc import Iterator
from uuid import uuid4

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.page_visits import PageVisit
from tests.e2e.review_board import assert_clean, organization
from tests.support.concurrency import wait_for
from tests.support.mailbox import get_text, list_messages_in
from tools.demo import Api
from tools.servers.server import RunningServer

PASSWORD, NEW_PASSWORD = "a-linen-dress", "a-woolen-coat"


@pytest.fixture
def address(demo_server: RunningServer) -> Iterator[str]:
    """Yield an address that has no account. The account that gets it is deleted."""
    address = f"{uuid4().hex}@example.com"
    yield address
    with Api(demo_server.origin) as admin:
        admin.sign_in("admin@example.com", "sartiq-admin")
        for user in admin.get("/users/", search=address)["data"]:
            admin.client.delete(f"/users/{user['id']}").raise_for_status()


def follow_link(visit: PageVisit, server: RunningServer, address: str, page_name: str) -> str:
    """Open the link of the newest e-mail to an address when it has arrived; return the HTML of the e-mail."""
    found: list[str] = []

    def find() -> bool:
        messages = [each for each in list_messages_in(server.folder / "outbox") if each["To"] == address]
        found[:] = [html for each in messages if f"#/{page_name}/" in (html := get_text(each, "html"))]
        return bool(found)

    wait_for(find, 10)
    (url,) = re.findall(r'href="([^"]+)"', found[-1])
    visit.page.goto(url)
    # A token must not stay where it is copied from.
    expect(visit.page).to_have_url(f"{visit.origin}/review")
    return found[-1]


def submit(page: Page, button: str, **fields: str) -> None:
    for label, value in fields.items():
        page.get_by_label(label.replace("_", " ")).fill(value)
    page.get_by_role("button", name=button).click()


def sign_in(page: Page, address: str, password: str) -> None:
    page.get_by_role("link", name="Sign in").click()
    submit(page, "Sign in", **{"E-mail_address": address, "Password": password})
    expect(page.get_by_role("heading", name="Shootings")).to_be_visible()


def test_s55_an_invitation_leads_to_an_account_and_a_forgotten_password_to_a_new_one(
    visit: PageVisit, demo_server: RunningServer, reviewer: Api, address: str
) -> None:
    page = visit.page
    path = f"/organizations/{organization(reviewer)}/invitations"
    reviewer.post(path, json={"email": address, "role": "member"})
    html = follow_link(visit, demo_server, address, "invitation")
    assert "Send it to" not in html
    expect(page.get_by_role("heading", name="Accept the invitation")).to_be_visible()
    visit.save_screenshot("account-invitation")
    assert_clean(visit)
    submit(page, "Accept")
    expect(page.get_by_role("heading", name="Create your account")).to_be_visible()
    # The browser reports the response that asks for a password.
    visit.console_errors.clear()
    visit.save_screenshot("account-new")
    assert_clean(visit)
    submit(page, "Create the account", Your_name="Ines Martin", Password=PASSWORD)
    expect(page.get_by_text("you are a member of the organization")).to_be_visible()
    sign_in(page, address, PASSWORD)
    expect(page.get_by_label("Organization")).to_contain_text("Personal")
    page.get_by_role("button", name="Sign out").click()

    page.get_by_role("link", name="Forgot your password?").click()
    submit(page, "Send the e-mail", **{"E-mail_address": address})
    expect(page.get_by_text("an e-mail with a link is on its way")).to_be_visible()
    assert_clean(visit)
    follow_link(visit, demo_server, address, "reset-password")
    submit(page, "Set the password", New_password=NEW_PASSWORD)
    expect(page.get_by_text("Your password is changed.")).to_be_visible()
    visit.save_screenshot("account-password-changed")
    sign_in(page, address, NEW_PASSWORD)
    assert visit.console_errors == []

    # The link works once.
    follow_link(visit, demo_server, address, "reset-password")
    submit(page, "Set the password", New_password=PASSWORD)
    expect(page.get_by_text("The link has expired or was used before.")).to_be_visible()
    # A mail program may break a long link.
    page.goto(f"{visit.origin}/review#/reset-password/part")
    expect(page.get_by_role("heading", name="The link is incomplete")).to_be_visible()


@pytest.mark.slow("the pages run the same script as those of the test before")
def test_an_address_is_confirmed_and_a_deletion_is_canceled_by_the_links_of_their_emails(
    visit: PageVisit, demo_server: RunningServer, reviewer: Api, address: str
) -> None:
    page, new_address = visit.page, f"new-{address}"
    with Api(demo_server.origin) as admin:
        admin.sign_in("admin@example.com", "sartiq-admin")
        user = admin.post("/users/", json={"email": address, "password": PASSWORD})
    with Api(demo_server.origin) as owner:
        owner.sign_in(address, PASSWORD)
        change = {"email": new_address, "current_password": PASSWORD}
        owner.client.patch("/users/me", json=change).raise_for_status()
        follow_link(visit, demo_server, new_address, "confirm-email")
        assert_clean(visit)
        submit(page, "Confirm")
        expect(page.get_by_text("Your account uses the new address")).to_be_visible()
        assert owner.get("/users/me")["email"] == new_address
        owner.post("/users/me/deletion", json={"password": PASSWORD})
    follow_link(visit, demo_server, new_address, "cancel-deletion")
    assert_clean(visit)
    submit(page, "Cancel the deletion")
    expect(page.get_by_text("The deletion is canceled.")).to_be_visible()
    sign_in(page, new_address, PASSWORD)
    with Api(demo_server.origin) as admin:
        admin.sign_in("admin@example.com", "sartiq-admin")
        admin.client.delete(f"/users/{user['id']}").raise_for_status()
    assert visit.console_errors == []
