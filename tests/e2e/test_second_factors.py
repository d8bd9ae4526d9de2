"""The second factor in a real browser: the page that adds one, and the sign-in that asks for it.

Chromium has a virtual authenticator, which creates and uses passkeys without a person.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from uuid import uuid4

import pyotp
import pytest
from playwright.sync_api import Page, expect

from tests.e2e.page_visits import PageVisit
from tests.e2e.review_board import assert_clean
from tools.demo import Api
from tools.servers.server import RunningServer, free_port, running_server

PASSWORD = "a-linen-dress"


@pytest.fixture(scope="module")
def demo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Yield a server with a host name: browsers use no passkeys for IP addresses."""
    port = free_port()
    url = f"http://localhost:{port}"
    folder = tmp_path_factory.mktemp("server")
    settings = {"SARTIQ_ENV": "development", "MASK_MODEL": "color", "PUBLIC_URL": url}
    with running_server(folder, port=port, **settings) as server:
        yield replace(server, origin=url)


@pytest.fixture
def address(demo_server: RunningServer) -> str:
    """Return the address of a new account."""
    address = f"{uuid4().hex}@example.com"
    with Api(demo_server.origin) as admin:
        admin.sign_in("admin@example.com", "sartiq-admin")
        admin.post("/users/", json={"email": address, "password": PASSWORD})
    return address


@pytest.fixture
def authenticator(visit: PageVisit) -> None:
    """Give the browser a virtual authenticator that needs no person."""
    session = visit.page.context.new_cdp_session(visit.page)
    session.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    session.send("WebAuthn.addVirtualAuthenticator", {"options": options})


def sign_in(visit: PageVisit, address: str) -> None:
    """Send the e-mail address and the password."""
    page = visit.page
    visit.open("/review")
    page.get_by_label("E-mail address").fill(address)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()


def open_security(visit: PageVisit, address: str) -> None:
    sign_in(visit, address)
    visit.page.get_by_role("link", name="Security").click()
    expect(visit.page.get_by_role("heading", name="Security")).to_be_visible()


def prove(page: Page, button: str) -> None:
    """Enter the password that a change needs."""
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name=button, exact=True).click()


def keep_codes(page: Page) -> list[str]:
    """Return the recovery codes that the page shows, and go on."""
    expect(page.get_by_role("heading", name="Recovery codes")).to_be_visible()
    codes = page.locator(".codes code").all_inner_texts()
    page.get_by_role("button", name="I have kept them").click()
    return codes


def test_an_app_is_added_and_its_code_or_a_recovery_code_completes_the_sign_in(
    visit: PageVisit, address: str
) -> None:
    page = visit.page
    open_security(visit, address)
    assert_clean(visit)
    page.get_by_role("button", name="Add an authenticator app").click()
    prove(page, "Continue")
    image = page.get_by_alt_text("QR code")
    # An image that the policy of the page blocks has no size.
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    visit.save_screenshot("security-app")
    assert_clean(visit)
    totp = pyotp.TOTP(page.locator("#secret").inner_text())
    # The codes of this and the next time step are accepted, each once.
    page.get_by_label("Code of the app").fill(totp.at(time.time() - 30))
    page.get_by_role("button", name="Add the app").click()
    codes = keep_codes(page)
    assert len(codes) == 10
    expect(page.get_by_text("Authenticator app", exact=True)).to_be_visible()
    expect(page.get_by_text("Recovery codes: 10 left")).to_be_visible()
    visit.save_screenshot("security")
    assert_clean(visit)
    page.get_by_role("button", name="Sign out").click()

    sign_in(visit, address)
    expect(page.get_by_role("heading", name="Second step")).to_be_visible()
    # The browser reports the response that asks for the second factor.
    visit.console_errors.clear()
    visit.save_screenshot("second-step")
    assert_clean(visit)
    field = page.get_by_label("Code of your authenticator app, or a recovery code")
    field.fill("000000")
    page.get_by_role("button", name="Continue").click()
    expect(page.locator("#status")).to_contain_text("not accepted")
    visit.console_errors.clear()
    field.fill(totp.at(time.time()))
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("heading", name="Shootings")).to_be_visible()
    assert visit.console_errors == []
    page.get_by_role("button", name="Sign out").click()

    sign_in(visit, address)
    page.get_by_label("or a recovery code").fill(codes[0])
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("heading", name="Shootings")).to_be_visible()
    page.get_by_role("link", name="Security").click()
    expect(page.get_by_text("Recovery codes: 9 left")).to_be_visible()
    page.get_by_role("button", name="Remove: Authenticator app").click()
    prove(page, "Remove")
    expect(page.get_by_text("A sign-in needs your password only.")).to_be_visible()


def test_a_passkey_is_added_and_completes_the_sign_in(
    visit: PageVisit, address: str, authenticator: None
) -> None:
    page = visit.page
    open_security(visit, address)
    page.get_by_role("button", name="Add a passkey").click()
    prove(page, "Continue")
    page.get_by_label("Name, by which you recognize it").fill("Laptop in the studio")
    page.get_by_role("button", name="Add the passkey").click()
    assert len(keep_codes(page)) == 10
    expect(page.get_by_text("Passkey: Laptop in the studio")).to_be_visible()
    assert visit.console_errors == []
    page.get_by_role("button", name="Sign out").click()

    sign_in(visit, address)
    page.get_by_role("button", name="Use a passkey").click()
    expect(page.get_by_role("heading", name="Shootings")).to_be_visible()
    visit.console_errors.clear()
    page.get_by_role("link", name="Security").click()
    expect(page.get_by_text("last used")).to_be_visible()
    assert_clean(visit)


def test_the_board_says_that_an_organization_requires_a_factor(
    visit: PageVisit, demo_server: RunningServer, address: str
) -> None:
    with Api(demo_server.origin) as owner:
        owner.sign_in(address, PASSWORD)
        organization = owner.post("/organizations/", json={"name": "Atelier"})
        path = f"/organizations/{organization['id']}"
        owner.client.patch(path, json={"requires_second_factor": True}).raise_for_status()
    page = visit.page
    # The requirement starts in 14 days: the response of that time is simulated.
    page.route(
        "**/api/v1/shootings/?**",
        lambda route: route.fulfill(
            status=403,
            content_type="application/problem+json",
            body='{"code": "second_factor_enrollment_required", "detail": "", "status": 403}',
        ),
    )
    sign_in(visit, address)
    expect(page.get_by_text("This organization requires a second factor")).to_be_visible()
    page.get_by_role("link", name="Add a second factor").click()
    expect(page.get_by_role("heading", name="Security")).to_be_visible()
