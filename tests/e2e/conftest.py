"""Fixtures of the end-to-end tests: a server with the demo data, and a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.e2e.page_visits import SIZES, PageVisit
from tests.e2e.review_board import organization
from tests.support.requirements import skip_or_fail
from tools.demo import EMAIL, PASSWORD, Api
from tools.servers.server import RunningServer

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


# Playwright keeps an event loop running, in which tests of other modules could not start theirs.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Yield the installed Chromium. Without it, skip the test, or fail it if `CI=true`."""
    if not CHROMIUM:
        skip_or_fail("Chromium (make services installs it)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(
    params=["desk", pytest.param("phone", marks=pytest.mark.slow("the pages run the same script"))]
)
def visit(
    request: pytest.FixtureRequest, browser: Browser, demo_server: RunningServer
) -> Iterator[PageVisit]:
    """Yield a page in a new browser context of one screen size."""
    width, height = SIZES[request.param]
    context = browser.new_context(
        viewport={"width": width, "height": height}, has_touch=request.param == "phone", locale="en-GB"
    )
    page = context.new_page()
    visit = PageVisit(page, demo_server.origin, request.param)
    page.on("request", lambda request: visit.requests.append(request.url))
    page.on(
        "console",
        lambda message: message.type in ("error", "warning") and visit.console_errors.append(message.text),
    )
    page.on("pageerror", lambda error: visit.console_errors.append(str(error)))
    page.set_default_timeout(15_000)
    # The first request for the document builds its samples and its 3.0 form: seconds on a busy machine.
    expect.set_options(timeout=30_000)
    yield visit
    context.close()


@pytest.fixture
def reviewer(demo_server: RunningServer) -> Iterator[Api]:
    """Yield a client with the token of the demo account. All predictions are in review, without comments."""
    with Api(demo_server.origin) as client:
        client.sign_in(EMAIL, PASSWORD)
        yield client
        predictions = client.get("/predictions/", organization_id=organization(client))["data"]
        for prediction in predictions:
            path = f"/predictions/{prediction['id']}/comments"
            for comment in client.get(path)["data"]:
                client.client.delete(f"{path}/{comment['id']}").raise_for_status()
        decided = [row["id"] for row in predictions if row["status"] != "pending_review"]
        if decided:
            items = [{"action": "reopen", "id": row_id} for row_id in decided]
            client.post("/predictions/batch", organization(client), json={"items": items})
