"""The built documentation in a real browser: layout, accessibility, search, policy, no other host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.page_visits import SIZES, PageVisit
from tests.support.requirements import skip_or_fail
from tools.servers.server import running_server
from tools.site.run import GENERATOR, build_site

SCHEMES: dict[Literal["dark", "light"], str] = {"dark": "slate", "light": "default"}
"""The attribute of the body for each setting of the system."""
PAGES = ("/guides/", "/guides/tutorials/getting-started/", "/guides/webhooks/", "/guides/reference/settings/")


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the origin of a server that serves the site built from the working tree."""
    if not GENERATOR.exists():
        skip_or_fail("the generator of the site (make .venv/docs/.stamp)")
    folder = tmp_path_factory.mktemp("guides")
    build_site(folder / "site")
    with running_server(folder, SARTIQ_ENV="development", SITE_DIR=str(folder / "site")) as server:
        yield server.origin


@pytest.fixture(params=["desk", "phone"])
def guide(request: pytest.FixtureRequest, browser: Browser, origin: str) -> Iterator[PageVisit]:
    """Yield a page in a new browser context of one screen size."""
    width, height = SIZES[request.param]
    context = browser.new_context(viewport={"width": width, "height": height})
    page = context.new_page()
    visit = PageVisit(page, origin, request.param)
    page.on("request", lambda request: visit.requests.append(request.url))
    # Violations of the Content-Security-Policy are errors of the console.
    page.on(
        "console",
        lambda message: message.type in ("error", "warning") and visit.console_errors.append(message.text),
    )
    page.on("pageerror", lambda error: visit.console_errors.append(str(error)))
    yield visit
    context.close()


@pytest.mark.slow("it builds the site and loads four pages in two sizes")
def test_a_guide_fits_the_screen_is_accessible_and_needs_no_other_host(guide: PageVisit) -> None:
    for path in PAGES:
        guide.open(path)
        assert guide.horizontal_overflow() <= 0, path
        assert guide.find_accessibility_violations() == [], path
        for scheme, shown in SCHEMES.items():
            guide.page.emulate_media(color_scheme=scheme)
            expect(guide.page.locator("body")).to_have_attribute("data-md-color-scheme", shown)
            guide.save_screenshot(path.strip("/").replace("/", "-") + f"-{scheme}")
    assert guide.list_third_party_requests() == []
    assert guide.console_errors == []


@pytest.mark.slow("it builds the site")
@pytest.mark.parametrize("guide", ["desk"], indirect=True)
def test_the_search_finds_a_guide_without_another_host(guide: PageVisit) -> None:
    guide.open("/guides/")
    guide.page.keyboard.press("Control+k")
    guide.page.keyboard.type("idempotency")
    expect(guide.page.get_by_role("link", name="Retries and idempotency").last).to_be_visible()
    guide.save_screenshot("guides-search")
    violations = guide.find_accessibility_violations()
    # The generator names a result by its title; its visible text has the excerpt, too.
    assert [found for found in violations if "label-content-name-mismatch" not in found] == []
    guide.page.keyboard.press("Enter")
    expect(guide.page.locator("h1")).to_contain_text("Retries and idempotency")
    assert guide.list_third_party_requests() == []
    assert guide.console_errors == []
