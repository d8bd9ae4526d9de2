"""The pages for people in a real browser, at a desk and on a phone: they load, stay at home, can be used."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from tests.e2e.server import ROOT, RunningServer
from tests.preview.sources import Sources

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
SIZES = {"desk": (1440, 900), "phone": (390, 844)}
SCREENSHOTS = os.environ.get("SCREENSHOTS")
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
# Swagger UI fades its colours in.
BARRIERS = """async () => {
  await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
  await Promise.allSettled(document.getAnimations().map((animation) => animation.finished));
  const report = await axe.run(document, { resultTypes: ["violations"] });
  const grave = report.violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  return grave.flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html.slice(0, 150)}`));
}"""


@dataclass
class Visit:
    """A page in the browser, and what it asked and complained about."""

    page: Page
    address: str
    size: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def open(self, path: str) -> None:
        """Go to a path of the server and wait until nothing more is asked for."""
        self.page.goto(self.address + path, wait_until="networkidle")

    def keep(self, name: str) -> None:
        """Leave a picture of what is seen, when somebody wants to look (SCREENSHOTS=folder)."""
        if SCREENSHOTS:
            self.page.screenshot(path=Path(SCREENSHOTS) / f"{name}-{self.size}.png")

    def width_beyond_the_screen(self) -> int:
        """Return by how many pixels the page is wider than the screen."""
        return int(
            self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        )

    def barriers(self) -> list[str]:
        """Return what axe finds serious or critical in the page as it is shown, in light and in dark."""
        if not self.page.evaluate("'axe' in window"):
            # The driver runs it: the page's own policy lets no script in.
            self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found = []
        for scheme in ("light", "dark"):
            self.page.emulate_media(color_scheme=scheme)
            found += [f"{scheme}: {barrier}" for barrier in self.page.evaluate(BARRIERS)]
        self.page.emulate_media(color_scheme="light")
        return found

    def strangers(self) -> list[str]:
        """Return what was asked of any other host."""
        return [url for url in self.requests if not url.startswith((self.address + "/", "data:", "blob:"))]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium."""
    if not CHROMIUM:
        message = "no Chromium on this machine (make services installs it)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(params=SIZES)
def visit(request: pytest.FixtureRequest, browser: Browser, demo_server: RunningServer) -> Iterator[Visit]:
    """A new window of one size, without memory of another."""
    width, height = SIZES[request.param]
    context = browser.new_context(
        viewport={"width": width, "height": height}, has_touch=request.param == "phone", locale="en-GB"
    )
    page = context.new_page()
    visit = Visit(page, demo_server.address, request.param)
    page.on("request", lambda asked: visit.requests.append(asked.url))
    page.on("console", lambda said: said.type in ("error", "warning") and visit.complaints.append(said.text))
    page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    page.set_default_timeout(15_000)
    yield visit
    context.close()


def test_the_home_page_says_what_this_is_and_leads_to_the_documentation(visit: Visit) -> None:
    visit.open("/")
    visit.keep("home")
    expect(visit.page.locator("h1")).to_have_text("The backend of an AI product-photography studio")
    assert visit.width_beyond_the_screen() == 0
    assert visit.barriers() == []
    visit.page.get_by_role("link", name="Open the documentation").click()
    expect(visit.page).to_have_url(f"{visit.address}/api/v1/docs")
    expect(visit.page.locator(".opblock-tag").first).to_be_visible()
    assert visit.strangers() == []
    assert visit.complaints == []


def test_the_documentation_page_costs_little_and_asks_for_everything_once(visit: Visit) -> None:
    visit.open("/api/v1/docs")
    expect(visit.page.locator(".opblock-tag").first).to_be_visible()
    assert len(visit.requests) == len(set(visit.requests))
    sizes = visit.page.evaluate("performance.getEntriesByType('resource').map((one) => one.transferSize)")
    assert sum(sizes) < 600_000
    # And next to nothing when it is known.
    visit.open("/api/v1/docs")
    sizes = visit.page.evaluate("performance.getEntriesByType('resource').map((one) => one.transferSize)")
    assert sum(sizes) < 10_000
    assert visit.complaints == []


def test_every_page_is_the_same_when_it_is_opened_again(visit: Visit) -> None:
    for path in ("/", "/api/v1/docs", "/api/v1/docs/permissions", "/api/v1/docs/states", "/api/v1/problems/"):
        visit.open(path)
        shown = visit.page.locator("main").first.inner_text()
        # The browser asks whether its copies still hold.
        visit.open(path)
        expect(visit.page.locator("main").first).to_have_text(shown, use_inner_text=True)
    assert visit.complaints == []


def test_one_signs_in_on_the_documentation_page_and_tries_an_operation(visit: Visit) -> None:
    visit.open("/api/v1/docs")
    page = visit.page
    expect(page.locator(".opblock-tag").first).to_be_visible()
    visit.keep("docs")
    assert visit.width_beyond_the_screen() == 0

    page.locator(".auth-wrapper .authorize").click()
    dialog = page.locator(".modal-ux")
    expect(dialog.get_by_role("heading", name="OAuth2PasswordBearer")).to_be_visible()
    expect(dialog.get_by_role("heading", name="ApiKey")).to_be_visible()
    dialog.locator("#oauth_username").fill("demo@example.com")
    dialog.locator("#oauth_password").fill("sartiq-demo")
    visit.keep("docs-sign-in")
    assert visit.barriers() == []
    dialog.locator(".auth-container").filter(has=page.locator("#oauth_username")).locator(
        "button.authorize"
    ).click()
    expect(dialog.get_by_role("button", name="Logout")).to_be_visible()
    visit.keep("docs-signed-in")
    dialog.locator(".btn-done").first.click()

    page.locator("#operations-tag-users").click()
    operation = page.locator("#operations-users-get_current_user")
    operation.locator(".opblock-summary-control").click()
    operation.locator(".execute").click()
    answer = operation.locator(".live-responses-table .response")
    expect(answer.locator(".response-col_status")).to_contain_text("200")
    expect(answer.locator(".response-col_description")).to_contain_text("demo@example.com")
    answer.scroll_into_view_if_needed()
    visit.keep("docs-answer")
    assert visit.barriers() == []
    assert visit.width_beyond_the_screen() == 0
    assert visit.strangers() == []
    assert visit.complaints == []


def test_operations_are_found_by_path_id_summary_and_tag(visit: Visit) -> None:
    visit.open("/api/v1/docs")
    page = visit.page
    expect(page.locator(".search output")).to_have_text(re.compile(r"^1\d\d operations$"))
    for phrase, found in {
        "/products/{product_id}/images post": ["add_product_image"],
        "renew_subscr": ["renew_subscription"],
        "Take over an invitation": [],
        "list the problems": ["get_problems_page"],
        "subscriptions usage": ["list_subscription_usage"],
    }.items():
        page.get_by_label("Search operations").fill(phrase)
        expect(page.locator(".search output")).to_have_text(f"{len(found)} operations")
        expect(page.locator(".opblock .opblock-summary-operation-id")).to_have_text(found)
    visit.keep("docs-search")
    page.get_by_label("Search operations").fill("")
    expect(page.locator(".opblock")).to_have_count(0)
    assert visit.complaints == []


def test_an_operation_has_code_samples_and_follows_the_colour_scheme(visit: Visit) -> None:
    visit.page.emulate_media(color_scheme="dark")
    visit.open("/api/v1/docs#/brands/update_brand")
    expect(visit.page.locator("#operations-brands-update_brand .responses-wrapper")).to_be_visible()
    samples = visit.page.get_by_role("region", name="Code samples")
    expect(samples.locator("pre")).to_contain_text("ETAG=$(curl")
    samples.get_by_role("button", name="JavaScript").click()
    expect(samples.locator("pre")).to_contain_text("await fetch(url, {")
    background = "getComputedStyle(document.body).backgroundColor"
    assert visit.page.evaluate(background) == "rgb(22, 24, 27)"
    visit.keep("docs-dark")
    assert visit.barriers() == []
    visit.page.emulate_media(color_scheme="light")
    assert visit.page.evaluate(background) == "rgb(255, 255, 255)"


def test_no_page_lets_a_script_in_that_is_not_a_file_of_the_server(visit: Visit) -> None:
    for path in ("/", "/api/v1/docs", "/api/v1/docs/states", "/api/v1/problems/not_found"):
        answer = visit.page.goto(visit.address + path)
        policy = answer.headers["content-security-policy"] if answer else ""
        assert policy.startswith("default-src 'self'; img-src 'self' data: blob:; object-src 'none';"), path
        assert "unsafe" not in policy


def test_the_page_of_permissions_says_who_may_call_what(visit: Visit) -> None:
    visit.open("/api/v1/docs")
    page = visit.page
    page.locator("#operations-tag-brands").click()
    operation = page.locator("#operations-brands-update_brand")
    operation.locator(".opblock-summary-control").click()
    expect(operation).to_contain_text(
        "Permission brands:write: superuser, owner, admin, member, personal, key."
    )
    visit.keep("docs-permission")
    place = "/api/v1/docs/permissions#update_brand"
    expect(operation.get_by_role("link", name="brands:write")).to_have_attribute("href", place)
    visit.open(place)
    row = page.locator("#update_brand")
    expect(row).to_be_in_viewport()
    allowed = row.locator("td.role").filter(has_text="yes")
    roles = [cell.get_attribute("data-role") for cell in allowed.all()]
    assert roles == ["superuser", "owner", "admin", "member", "personal", "key"]
    visit.keep("permissions-row")
    assert visit.barriers() == []
    page.emulate_media(color_scheme="dark")
    page.evaluate("window.scrollTo(0, 0)")
    visit.keep("permissions")
    assert visit.width_beyond_the_screen() == 0
    assert visit.strangers() == []
    assert visit.complaints == []


def test_a_deprecated_operation_says_when_it_ends_and_what_to_use(visit: Visit) -> None:
    def deprecate(route: Route) -> None:
        response = route.fetch()
        contract = response.json()
        contract["paths"]["/brands/"]["get"] |= {
            "deprecated": True,
            "x-deprecated-at": "2026-03-01T00:00:00Z",
            "x-sunset": "2027-03-01T00:00:00Z",
            "x-replacement": "list_products",
        }
        route.fulfill(response=response, json=contract)

    visit.page.route("**/openapi.json", deprecate)
    visit.open("/api/v1/docs")
    page = visit.page
    page.locator("#operations-tag-brands").click()
    operation = page.locator("#operations-brands-list_brands")
    operation.locator(".opblock-summary-control").click()
    expect(operation).to_contain_text(
        "Deprecated since 2026-03-01, ends on 2027-03-01. Use list_products instead."
    )
    place = "/api/v1/docs#/products/list_products"
    expect(operation.get_by_role("link", name="list_products")).to_have_attribute("href", place)
    visit.keep("docs-deprecated")
    other = page.locator("#operations-brands-get_brand")
    other.locator(".opblock-summary-control").click()
    expect(other).to_contain_text("Permission brands:read")
    expect(other).not_to_contain_text("Deprecated")
    assert visit.complaints == []


def test_states_are_shown_as_pictures_and_told_as_text(visit: Visit) -> None:
    visit.open("/api/v1/docs/states")
    page = visit.page
    picture = page.get_by_role("img", name="States of a generation")
    expect(picture).to_have_accessible_description(
        re.compile(r"running: leads to pending, completed, failed")
    )
    expect(picture.locator("rect")).to_have_count(7)
    section = page.get_by_role("region", name="States of a generation")
    section.get_by_text("As text").click()
    expect(section.get_by_role("listitem").first).to_have_text(
        "pending: leads to running, failed, canceled, expired."
    )
    visit.keep("states")
    assert visit.width_beyond_the_screen() == 0
    assert visit.barriers() == []
    assert visit.strangers() == []
    assert visit.complaints == []


def test_the_list_of_problems_leads_to_each_of_them(visit: Visit) -> None:
    visit.open("/api/v1/problems/")
    visit.keep("problems")
    assert visit.width_beyond_the_screen() == 0
    assert visit.barriers() == []
    visit.page.get_by_role("link", name="shot_busy").click()
    expect(visit.page.locator("h1")).to_have_text("shot_busy")
    assert visit.complaints == []


def test_every_problem_leads_to_a_page_that_explains_it(visit: Visit) -> None:
    visit.open("/api/v1/problems/not_found")
    visit.keep("problem")
    expect(visit.page.locator("h1")).to_have_text("not_found")
    assert visit.barriers() == []
    assert visit.width_beyond_the_screen() == 0
    assert visit.strangers() == []
    assert visit.complaints == []


@pytest.fixture
def preview(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """`make preview` of a copy of the contract: the folder to edit and the address of the page."""
    folder = tmp_path / "openapi"
    shutil.copytree(ROOT / "openapi", folder)
    command = [sys.executable, "-m", "tests.preview.run", "--port", "0", "--folder", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        found = re.search(r"http://\S+/", process.stdout.readline())
        assert found
        yield folder, found[0]
        process.terminate()


def test_the_preview_follows_each_save_and_tells_what_is_wrong(
    browser: Browser, preview: tuple[Path, str]
) -> None:
    folder, address = preview
    brands = folder / "paths" / "brands.yaml"
    text = brands.read_text(encoding="utf-8")
    page = browser.new_page()
    page.goto(f"{address}api/v1/docs#/brands/list_brands")
    summary = page.locator("#operations-brands-list_brands .opblock-summary-description")
    expect(summary).to_be_visible(timeout=15_000)

    brands.write_text(text.replace("summary: ", "summary: Seen at once, ", 1), encoding="utf-8")
    expect(page.get_by_text("Seen at once")).to_be_visible(timeout=2_000)

    lines = text.splitlines()
    lines.insert(6, "  broken: [")
    brands.write_text("\n".join(lines), encoding="utf-8")
    expect(page.get_by_role("alert")).to_contain_text(
        re.compile(r"openapi/paths/brands\.yaml:\d+"), timeout=2_000
    )

    reference = "../components/responses.yaml#/NotFound"
    brands.write_text(text.replace(reference, f"{reference}Anywhere", 1), encoding="utf-8")
    number = next(number for number, line in enumerate(text.splitlines(), 1) if reference in line)
    told = f"openapi/paths/brands.yaml:{number}\n{reference}Anywhere leads nowhere"
    expect(page.get_by_role("alert")).to_have_text(told, timeout=2_000)

    brands.write_text(text, encoding="utf-8")
    expect(page.get_by_role("alert")).to_have_count(0, timeout=2_000)
    page.close()


def test_the_preview_bundles_as_the_linter_does() -> None:
    bundle = json.loads(json.dumps(Sources(ROOT / "openapi").bundle(), default=str))
    committed = json.loads((ROOT / "openapi" / "openapi.json").read_bytes())
    for contract in (bundle, committed):
        # The linter's tool writes the schema of an extension out, and leaves a reference nowhere else.
        events = contract["paths"]["/generations/{generation_id}/events"]["get"]["responses"]["200"]
        del events["content"]["text/event-stream"]["x-event-data"]
    assert bundle == committed
