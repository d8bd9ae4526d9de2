"""Tests of the HTML pages in a real browser, in desktop and phone size: content, accessibility and layout.

The review board has further tests in `test_review_board.py`.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.page_visits import SIZES, PageVisit
from tests.e2e.review_board import assert_clean, card, open_sheet, organization, sign_in
from tools.demo import Api
from tools.preview.sources import Sources
from tools.servers.server import ROOT, RunningServer

MAX_LATENCY_MS = 6_000
"""Maximum delay of the preview: two seconds on an idle machine, more while other tests are running."""
MAX_LINT_MS = 15_000
"""Maximum delay of findings: the linter takes 2 seconds on an idle machine, 4 at a load of 12."""


def test_the_home_page_describes_the_api_and_links_to_the_documentation(visit: PageVisit) -> None:
    visit.open("/")
    visit.save_screenshot("home")
    expect(visit.page.locator("h1")).to_have_text("The backend of an AI product-photography studio")
    assert visit.horizontal_overflow() == 0
    assert visit.find_accessibility_violations() == []
    visit.page.get_by_role("link", name="Open the documentation").click()
    expect(visit.page).to_have_url(f"{visit.origin}/api/v1/docs")
    expect(visit.page.locator(".opblock-tag").first).to_be_visible()
    assert visit.list_third_party_requests() == []
    assert visit.console_errors == []


@pytest.mark.slow("it loads each page twice")
def test_every_page_looks_the_same_when_it_is_reloaded_from_the_cache(visit: PageVisit) -> None:
    for path, last in {
        "/": "in production too",
        "/api/v1/docs": "This contract as a file, and pages about it",
        "/api/v1/docs/permissions": "/problems/{code}",
        "/api/v1/docs/states": "States of a generation",
        "/api/v1/problems/": "HTTP 503",
    }.items():
        main = visit.page.locator("main").first
        visit.open(path)
        # The network is idle, but a busy browser may still be rendering.
        expect(main).to_contain_text(last)
        shown = main.inner_text()
        # This time the browser revalidates its cached copies.
        visit.open(path)
        expect(main).to_have_text(shown, use_inner_text=True)
    assert visit.console_errors == []


@pytest.mark.slow("it loads each page again")
def test_the_navigation_marks_the_current_page(visit: PageVisit) -> None:
    for path, name in {
        "/api/v1/docs": "Documentation",
        "/api/v1/docs/permissions": "Permissions",
        "/api/v1/docs/states": "States",
        "/api/v1/problems/": "Problems",
    }.items():
        visit.open(path)
        expect(visit.page.locator("[aria-current=page]")).to_have_text(name)
    visit.open("/")
    expect(visit.page.locator("[aria-current=page]")).to_have_count(0)


def test_the_content_security_policy_allows_only_scripts_of_the_server(demo_server: RunningServer) -> None:
    for path in ("/", "/api/v1/docs", "/api/v1/docs/states", "/api/v1/problems/not_found"):
        page = httpx.get(demo_server.origin + path, headers={"Accept": "text/html"}, timeout=30)
        assert page.headers["content-type"].startswith("text/html"), path
        policy = page.headers["content-security-policy"]
        assert policy.startswith("default-src 'self'; img-src 'self' data: blob:; object-src 'none';"), path
        assert "unsafe" not in policy


def test_a_reviewer_finds_a_shot_and_approves_it_with_the_keyboard(visit: PageVisit, reviewer: Api) -> None:
    page = visit.page
    visit.open("/review")
    assert_clean(visit)
    sign_in(visit)
    visit.save_screenshot("review-shootings")
    assert_clean(visit)
    open_sheet(visit)
    front = card(page, "Front packshot")
    expect(front.get_by_role("img")).to_have_js_property("complete", True)
    visit.save_screenshot("review-sheet")
    assert_clean(visit)
    page.keyboard.press("ArrowDown")
    expect(front.get_by_role("link")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".wall li")).to_have_count(2)
    expect(page.locator(".wall .chosen")).to_be_in_viewport(ratio=0.9)
    expect(page.locator(".compare img")).to_have_count(2)
    visit.save_screenshot("review-shot")
    assert_clean(visit)

    page.keyboard.press("z")
    zoom = page.get_by_role("button", name="Zoom")
    expect(zoom).to_have_attribute("aria-pressed", "true")
    slider = page.get_by_role("slider")
    slider.fill("40")
    assert page.locator(".compare .front").evaluate("one => one.style.clipPath") == "inset(0px 60% 0px 0px)"
    page.locator("h1").click()
    page.keyboard.press("ArrowDown")
    expect(page.locator(".wall li").first).to_have_class("chosen")
    page.keyboard.press("a")
    expect(page.locator("#status")).to_have_text("Prediction 1 was approved.")
    expect(page.locator("h1 .chip")).to_have_text("Approved")
    shot = reviewer.get("/shots/", status="approved", organization_id=organization(reviewer))["data"][0]
    assert shot["approved_prediction_id"] == page.locator(".chosen").evaluate("one => one.dataset.prediction")

    page.keyboard.press("ArrowRight")
    expect(page.locator("h1")).to_contain_text("Back packshot")
    page.keyboard.press("Escape")
    expect(card(page, "Front packshot").locator(".chip")).to_have_text("Approved")
    assert visit.console_errors == []


def test_the_key_r_asks_for_a_reason_and_writes_nothing_into_it(visit: PageVisit, reviewer: Api) -> None:
    page = visit.page
    sign_in(visit)
    open_sheet(visit)
    reason = page.get_by_label("Reason")
    page.keyboard.press("ArrowDown")
    expect(card(page, "Front packshot").get_by_role("link")).to_be_focused()
    page.keyboard.press("r")
    expect(reason).to_be_focused()
    expect(reason).to_have_value("")
    page.keyboard.type("Shadow too hard")
    page.get_by_role("button", name="Reject", exact=True).click()
    expect(page.locator("#status")).to_have_text("1 prediction rejected.")

    page.keyboard.press("Enter")
    expect(page.locator(".wall .chosen")).to_be_visible()
    # Held down: the browser repeats the key while the dialog opens.
    for _ in range(3):
        page.keyboard.down("r")
    page.keyboard.up("r")
    expect(reason).to_be_focused()
    expect(reason).to_have_value("")
    page.keyboard.type("rrr, too red")
    page.get_by_role("button", name="Reject", exact=True).click()
    expect(page.locator("#status")).to_contain_text("was rejected.")
    rejected = reviewer.get("/predictions/", organization_id=organization(reviewer), status="rejected")
    notes = sorted(prediction["review"]["note"] for prediction in rejected["data"])
    assert notes == ["Shadow too hard", "rrr, too red"]
    assert visit.console_errors == []


def test_the_files_of_the_board_are_revalidated_and_restricted_to_this_server(reviewer: Api) -> None:
    for path in ("/review", "/review/board.js", "/review/review.css"):
        url = str(reviewer.client.base_url).replace("/api/v1/", "") + path
        found = reviewer.client.get(url)
        assert found.status_code == 200, path
        assert found.headers["Content-Security-Policy"].startswith("default-src 'self';")
        again = reviewer.client.get(url, headers={"If-None-Match": found.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")


@pytest.mark.slow("it changes only with the page")
def test_the_permissions_page_shows_the_roles_of_each_operation(visit: PageVisit) -> None:
    visit.open("/api/v1/docs")
    page = visit.page
    operation = visit.open_operation("brands", "update_brand")
    expect(operation).to_contain_text(
        "Permission brands:write: superuser, owner, admin, member, personal, key."
    )
    visit.save_screenshot("docs-permission")
    place = "/api/v1/docs/permissions#update_brand"
    expect(operation.get_by_role("link", name="brands:write")).to_have_attribute("href", place)
    visit.open(place)
    row = page.locator("#update_brand")
    expect(row).to_be_in_viewport()
    expect(row.get_by_role("rowheader")).to_contain_text("PATCH /brands/{brand_id} update_brand")
    allowed = row.locator("td.role").filter(has_text="yes")
    roles = [cell.get_attribute("data-role") for cell in allowed.all()]
    assert roles == ["superuser", "owner", "admin", "member", "personal", "key"]
    visit.save_screenshot("permissions-row")
    assert visit.find_accessibility_violations() == []
    page.emulate_media(color_scheme="dark")
    page.evaluate("window.scrollTo(0, 0)")
    visit.save_screenshot("permissions")
    assert visit.horizontal_overflow() == 0
    assert visit.list_third_party_requests() == []
    assert visit.console_errors == []


@pytest.mark.slow("it changes only with the page")
def test_state_machines_are_shown_as_diagrams_and_as_text(visit: PageVisit) -> None:
    visit.open("/api/v1/docs/states")
    page = visit.page
    diagram = page.get_by_role("img", name="States of a generation")
    expect(diagram).to_have_accessible_description(
        re.compile(r"running: leads to pending, completed, failed")
    )
    expect(diagram.locator("rect")).to_have_count(7)
    section = page.get_by_role("region", name="States of a generation")
    section.get_by_text("As text").click()
    expect(section.get_by_role("listitem").first).to_have_text(
        "pending: leads to running, failed, canceled, expired."
    )
    visit.save_screenshot("states")
    assert visit.horizontal_overflow() == 0
    assert visit.find_accessibility_violations() == []
    assert visit.list_third_party_requests() == []
    assert visit.console_errors == []


@pytest.mark.slow("it changes only with the page")
def test_the_list_of_problems_links_to_each_problem(visit: PageVisit) -> None:
    visit.open("/api/v1/problems/")
    visit.save_screenshot("problems")
    assert visit.horizontal_overflow() == 0
    assert visit.find_accessibility_violations() == []
    visit.page.get_by_role("link", name="shot_busy").click()
    expect(visit.page.locator("h1")).to_have_text("shot_busy")
    assert visit.console_errors == []


@pytest.mark.slow("it changes only with the page")
def test_a_problem_has_a_page_that_explains_it(visit: PageVisit) -> None:
    visit.open("/api/v1/problems/not_found")
    visit.save_screenshot("problem")
    expect(visit.page.locator("h1")).to_have_text("not_found")
    assert visit.find_accessibility_violations() == []
    assert visit.horizontal_overflow() == 0
    assert visit.list_third_party_requests() == []
    assert visit.console_errors == []


@pytest.mark.slow("it loads five pages")
@pytest.mark.parametrize("visit", SIZES, indirect=True)
def test_no_page_is_wider_than_the_smallest_phone_or_a_tablet(visit: PageVisit) -> None:
    widths = {"phone": (320, 480), "desk": (641, 768, 1024)}[visit.size]
    pages = ["/", "/api/v1/docs/permissions", "/api/v1/docs/states", "/api/v1/problems/"]
    for path in [*pages, "/api/v1/docs#/products/add_product_image"]:
        visit.open(path)
        if "#" in path:
            expect(visit.page.locator("#operations-products-add_product_image table").first).to_be_visible()
        for width in widths:
            visit.page.set_viewport_size({"width": width, "height": 900})
            assert visit.horizontal_overflow() == 0, (path, width)


@pytest.fixture
def preview(tmp_path: Path) -> Iterator[tuple[Path, str, subprocess.Popen[str]]]:
    """`make preview` of a copy of the contract: the folder to edit, the URL of the page and the process."""
    folder = tmp_path / "openapi"
    shutil.copytree(ROOT / "openapi", folder)
    command = [sys.executable, "-m", "tools.preview.run", "--port", "0", "--folder", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        found = re.search(r"http://\S+/", process.stdout.readline())
        assert found
        yield folder, found[0], process
        process.terminate()


@pytest.mark.slow("it bundles the contract five times")
def test_the_preview_updates_on_each_save_and_reports_errors(
    browser: Browser, preview: tuple[Path, str, subprocess.Popen[str]]
) -> None:
    folder, address, process = preview
    brands = folder / "paths" / "brands.yaml"
    text = brands.read_text(encoding="utf-8")
    page = browser.new_page()
    visit = PageVisit(page, address.rstrip("/"), "desk")
    page.goto(f"{address}api/v1/docs#/brands/list_brands")
    summary = page.locator("#operations-brands-list_brands .opblock-summary-description")
    expect(summary).to_be_visible(timeout=15_000)

    brands.write_text(text.replace("summary: ", "summary: Seen at once, ", 1), encoding="utf-8")
    expect(page.get_by_text("Seen at once")).to_be_visible(timeout=MAX_LATENCY_MS)

    lines = text.splitlines()
    lines.insert(6, "  broken: [")
    brands.write_text("\n".join(lines), encoding="utf-8")
    expect(page.get_by_role("alert")).to_contain_text(
        re.compile(r"openapi/paths/brands\.yaml:\d+"), timeout=MAX_LATENCY_MS
    )
    visit.save_screenshot("preview-of-a-mistake")
    assert visit.find_accessibility_violations() == []

    reference = "../components/responses.yaml#/Conflict"
    brands.write_text(text.replace(reference, f"{reference}Anywhere", 1), encoding="utf-8")
    number = next(number for number, line in enumerate(text.splitlines(), 1) if reference in line)
    message = f"openapi/paths/brands.yaml:{number}\n{reference}Anywhere does not exist"
    expect(page.get_by_role("alert")).to_have_text(message, timeout=MAX_LATENCY_MS)

    operation_id = "    operationId: list_brands\n"
    brands.write_text(text.replace(operation_id, operation_id * 2, 1), encoding="utf-8")
    expect(page.get_by_role("alert")).to_contain_text(
        "the key `operationId` is already in line", timeout=MAX_LATENCY_MS
    )

    brands.write_text(text.replace("summary: List brands", "sumary: List brands", 1), encoding="utf-8")
    findings = page.locator("#preview-findings")
    expect(findings).to_contain_text("Property `sumary` is not expected here", timeout=MAX_LINT_MS)
    expect(findings).to_contain_text(re.compile(r"openapi/paths/brands\.yaml:\d+"))
    assert visit.find_accessibility_violations() == []

    brands.write_text(text, encoding="utf-8")
    expect(page.get_by_role("alert")).to_have_count(0, timeout=MAX_LATENCY_MS)
    expect(findings).to_have_count(0, timeout=MAX_LINT_MS)
    assert page.request.head(address).ok
    for link in page.get_by_role("navigation", name="Pages").get_by_role("link").all():
        assert page.request.get(visit.origin + str(link.get_attribute("href"))).ok

    process.terminate()
    expect(page.get_by_role("alert")).to_contain_text("The preview has stopped", timeout=MAX_LATENCY_MS)
    page.close()


@pytest.mark.slow("the linter bundles 300 files; it changes only with the bundler")
def test_the_preview_bundles_like_the_linter() -> None:
    bundle = json.loads(json.dumps(Sources(ROOT / "openapi").bundle(), default=str))
    committed = json.loads((ROOT / "openapi" / "openapi.json").read_bytes())
    for contract in (bundle, committed):
        # The linter inlines the schema of this extension, where the preview keeps the reference.
        events = contract["paths"]["/generations/{generation_id}/events"]["get"]["responses"]["200"]
        del events["content"]["text/event-stream"]["x-event-data"]
    assert bundle == committed
